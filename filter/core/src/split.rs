//! The request path of a batch of the gateway's own: see [`crate::route::Batch`].
//!
//! It is queued whole or not at all: the gateway hears one answer for all its items. So every shard is asked first,
//! and written only once all have room; a write that fails after others were made sends the whole batch to Laravel
//! as well, and what was queued goes again.
//!
//! What goes to Laravel as it came goes at once. It takes no claim, since there would be one a session, and no place:
//! from its beginning to its end nobody can say what Laravel has of its sessions.

use alloc::string::String;
use alloc::vec::Vec;

use crate::circuit;
use crate::config::Ack;
use crate::intake::{Reply, View};
use crate::proof::{Proofs, Standing, Subject};
use crate::route::{Batch, BatchHead, Bypass, Rules, Update};
use crate::sabotage::{self, Sabotage};
use crate::shard::{BYTES_MAX, BYTES_SHARE_MAX, Decision, Shard, Superseded};
use crate::sort;
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};
use crate::time::Now;
use crate::verdict::{Answer, Asked, Heard, ItemFate, Verdict};

/// What became of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// It goes to Laravel as it came, for this reason; otherwise all of it is in the store.
    pub passes: Option<Bypass>,
    /// What each item that is in the store would have been answered.
    pub replies: Vec<Reply>,
    /// Shards of which the dispatcher must be told, and whether at once.
    pub rings: Vec<(u32, bool)>,
    /// Routes of the items that became superfluous, to be counted.
    pub superseded: Vec<Superseded>,
}

/// A batch that goes to Laravel as it came, as its answer will need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passing {
    /// Of whom it speaks.
    pub sessions: Vec<u128>,
    /// What its acceptance proves something of.
    pub subject: Subject,
    /// Who sends it, as in [`crate::route::Said::caller`].
    pub caller: u64,
    /// Its items.
    len: usize,
    /// It tells of the path of the dispatcher's batches.
    is_like_ours: bool,
    /// When it left. Monotonic.
    pub begun_ms: u64,
}

/// What a shard's items made of it.
struct Offered {
    /// To be written; `None` where nothing has changed.
    bytes: Option<Vec<u8>>,
    replies: Vec<Reply>,
    rings: bool,
    superseded: Vec<Superseded>,
}

/// Offers the items of `batch` to the store.
#[inline]
pub fn take_in(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    batch: &Batch<'_>,
    view: View,
    now: Now,
) -> Taken {
    let mut taken = Taken {
        passes: why_not(rules, batch, view),
        ..Taken::default()
    };
    if taken.passes.is_some() {
        return taken;
    }
    let groups = by_shard(&batch.updates, |update| rules.shard_of(update.session));
    let mut offers = Vec::with_capacity(groups.len());
    for (index, updates) in &groups {
        let read = store.get(&keys.shard(*index));
        let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
        match offered(rules, bytes, updates, now) {
            Ok(offered) => offers.push((Expect::of(read.as_ref()), offered)),
            Err(reason) => {
                taken.passes = Some(reason);
                return taken;
            }
        }
    }
    for ((index, updates), (expect, offered)) in groups.iter().zip(offers) {
        match written(
            store,
            keys,
            rules,
            (*index, updates),
            (expect, offered),
            now,
        ) {
            Ok(offered) => {
                let is_urgent = updates.iter().any(|update| update.priority);
                taken
                    .rings
                    .extend(offered.rings.then_some((*index, is_urgent)));
                taken.replies.extend(offered.replies);
                taken.superseded.extend(offered.superseded);
            }
            Err(reason) => {
                taken.passes = Some(reason);
                return taken;
            }
        }
    }
    taken
}

/// The reason for which none of it is queued, where that needs no look at the shards.
#[inline]
fn why_not(rules: &Rules, batch: &Batch<'_>, view: View) -> Option<Bypass> {
    let route = batch
        .updates
        .first()
        .and_then(|update| rules.route(update.route));
    // Its callers were promised to hear of the end.
    let waits = route.is_some_and(|rule| rule.ack != Ack::Accept);
    let standing = match view.standing {
        Standing::Proven => None,
        Standing::Unproven if sabotage::is(Sabotage::QueueUnprovenSplit) => None,
        Standing::Unproven => Some(Bypass::Unproven),
        Standing::Outage => Some(Bypass::Outage),
    };
    let is_misconfigured = view.circuit == circuit::State::Misconfigured;
    batch
        .refused
        .or(waits.then_some(Bypass::Batch))
        .or(standing)
        .or(is_misconfigured.then_some(Bypass::Misconfigured))
}

/// What belongs to each shard, in its order.
#[inline]
fn by_shard<T>(all: &[T], shard_of: impl Fn(&T) -> u32) -> Vec<(u32, Vec<&T>)> {
    let mut all: Vec<(u32, &T)> = all.iter().map(|one| (shard_of(one), one)).collect();
    sort::by_key(&mut all, |(index, _)| u128::from(*index));
    let mut groups: Vec<(u32, Vec<&T>)> = Vec::new();
    for (index, one) in all {
        match groups.last_mut().filter(|(known, _)| *known == index) {
            Some((_, group)) => group.push(one),
            None => groups.push((index, Vec::from([one]))),
        }
    }
    groups
}

/// Offers a shard its items; the reason to pass where it has no room for one.
#[inline]
fn offered(
    rules: &Rules,
    bytes: &[u8],
    updates: &[&Update<'_>],
    now: Now,
) -> Result<Offered, Bypass> {
    let mut shard = Shard::decode(bytes).map_err(|_| Bypass::Store)?;
    let mut offered = Offered {
        bytes: None,
        replies: Vec::with_capacity(updates.len()),
        rings: false,
        superseded: Vec::new(),
    };
    let (mut is_changed, mut must_fit) = (false, false);
    for update in updates {
        offered.replies.push(match shard.offer(rules, update, now) {
            Decision::Duplicate { slid } => {
                is_changed |= slid;
                Reply::Duplicate
            }
            Decision::Implied => Reply::Implied,
            Decision::Stale => Reply::Stale,
            Decision::Full => return Err(Bypass::ShardFull),
            Decision::Queued { ring, superseded } => {
                (is_changed, must_fit) = (true, true);
                offered.rings |= ring;
                offered.superseded.push(superseded);
                Reply::Queued
            }
        });
    }
    if is_changed {
        let encoded = shard.encode();
        let caller = updates.first().map_or(0, |update| update.caller);
        let is_too_much = encoded.len() > BYTES_MAX
            || encoded.len() > BYTES_SHARE_MAX && shard.bytes_of(caller) > BYTES_SHARE_MAX;
        if must_fit && is_too_much {
            return Err(Bypass::ShardFull);
        }
        offered.bytes = Some(encoded);
    }
    Ok(offered)
}

/// Writes a shard, as it was offered its items, or as it is by now.
#[inline]
fn written(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    (index, updates): (u32, &[&Update<'_>]),
    (mut expect, mut offer): (Expect, Offered),
    now: Now,
) -> Result<Offered, Bypass> {
    let key = keys.shard(index);
    for _ in 0..CAS_ATTEMPTS_MAX {
        let Some(bytes) = &offer.bytes else {
            return Ok(offer);
        };
        match store.put(&key, bytes, expect) {
            Ok(()) => return Ok(offer),
            Err(PutError::Mismatch) => {}
            Err(PutError::Refused) => break,
        }
        let read = store.get(&key);
        let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
        offer = offered(rules, bytes, updates, now)?;
        expect = Expect::of(read.as_ref());
    }
    Err(Bypass::Store)
}

// ## (new) => at Laravel

/// A batch goes to Laravel as it came: its sessions are unverified.
#[inline]
pub fn begin(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    (head, batch): (&BatchHead, &Batch<'_>),
    now: Now,
) -> Passing {
    let passing = Passing {
        sessions: batch.sessions.clone(),
        subject: head.subject(rules),
        caller: head.caller(),
        len: batch.len,
        is_like_ours: head.is_like_ours(rules),
        begun_ms: now.mono_ms,
    };
    unverify(store, keys, rules, &passing.sessions);
    passing
}

// ## at Laravel => (gone)

/// It has been answered, or nobody will hear of its answer: its sessions are unverified again, for whatever was accepted
/// of them in between.
#[inline]
pub fn end(store: &mut impl Store, keys: &Keys, rules: &Rules, passing: &Passing) {
    unverify(store, keys, rules, &passing.sessions);
}

#[inline]
fn unverify(store: &mut impl Store, keys: &Keys, rules: &Rules, sessions: &[u128]) {
    if sabotage::is(Sabotage::BatchGoesBy) {
        return;
    }
    for (index, sessions) in by_shard(sessions, |session| rules.shard_of(*session)) {
        let key = keys.shard(index);
        for _ in 0..CAS_ATTEMPTS_MAX {
            let Some((bytes, token)) = store.get(&key) else {
                break;
            };
            let Ok(mut shard) = Shard::decode(&bytes) else {
                break;
            };
            let mut is_known = false;
            for session in &sessions {
                is_known |= shard.unverify(**session);
            }
            if !is_known {
                break;
            }
            match store.put(&key, &shard.encode(), Expect::Token(token)) {
                Err(PutError::Mismatch) => {}
                Ok(()) | Err(PutError::Refused) => break,
            }
        }
    }
}

/// Laravel has answered it with this. An acceptance proves its caller, its route, and the path of batches where the
/// dispatcher's go there too; whether it was one.
#[inline]
pub fn heard(
    store: &mut impl Store,
    keys: &Keys,
    proofs: &mut Proofs,
    passing: &Passing,
    answer: &Answer<'_>,
    now: Now,
) -> bool {
    let subject = &passing.subject;
    // By their places: names are for the dispatcher's, which are of one session once.
    let sessions: Vec<String> = Vec::from_iter((0..passing.len).map(|_| String::new()));
    let asked = Asked {
        sessions: &sessions,
        field: "",
        path: proofs.path_of(store, keys, subject),
        wall_ms: now.wall_ms,
    };
    let is_accepted = match Verdict::of(answer, &asked) {
        Verdict::Delivered => true,
        Verdict::Items { fates, .. } => fates.contains(&ItemFate::Delivered),
        _ => false,
    };
    if !is_accepted {
        return false;
    }
    proofs.accepted(store, keys, subject, None, passing.begun_ms, now);
    if passing.is_like_ours {
        proofs.took_batch(store, keys, subject, Heard::of(answer), now);
    }
    true
}

#[cfg(test)]
mod tests;
