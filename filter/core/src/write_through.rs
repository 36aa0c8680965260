//! Recognised updates that go to Laravel by themselves, under their session's claim: see [`crate::shard`]'s
//! `write_through`.
//!
//! What the answer needs, once it comes, is kept by the stream ([`WriteThrough`]): after a resume its request's headers
//! and body are gone.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::config::Times;
use crate::proof::Word;
use crate::route::{Rules, Said, Update};
use crate::sabotage::{self, Sabotage};
use crate::shard::{Ask, Before, Manner, Shard, Through, ThroughSettled};
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};
use crate::time::Now;
use crate::verdict::{Voice, was_lost};

/// The least time that Laravel is given, milliseconds, whatever a request has waited for.
pub const LEAST_MS: u64 = 1_000;

/// An update on its way to Laravel, as its answer will need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteThrough {
    /// What it says.
    pub said: Said,
    /// Names its claim.
    pub number: u64,
    /// Its sequence.
    pub seq: u64,
    /// How it is at Laravel.
    pub manner: Manner,
    /// What the session was before it.
    pub before: Before,
    /// When it left. Monotonic.
    pub begun_ms: u64,
    /// Monotonic: not to be sent after this. The claim protects the session for as long as a call that left
    /// by then can last.
    pub send_by_ms: u64,
    /// Keyed hash of caller, route and body; 0 where the same bytes may be another delivery.
    pub body: u64,
    /// It is no update: of a request that bypasses, only the session was seen.
    pub is_seen: bool,
    /// The update itself, where it may have to be said once more.
    pub item: Option<Box<Again>>,
}

/// An update that may have to be said once more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// Encoded [`crate::route::Destination`].
    pub destination: Vec<u8>,
    /// Encoded [`crate::route::Neutral`].
    pub neutral: Vec<u8>,
    /// The caller's body, byte for byte.
    pub body: Vec<u8>,
}

/// What has become of an update that was written through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Laravel has taken it.
    Accepted,
    /// Laravel has answered that it does not take it.
    Refused,
    /// The same, for a reason of the moment.
    Failed,
    /// Laravel certainly never had it.
    NeverHad,
    /// Laravel may have it or not: the claim stays and runs out.
    Unknown,
}

/// Who has answered a stream, read from the host's properties: a header could be anybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// Laravel, or what stands before it.
    Upstream,
    /// Nobody; and the request has certainly not left.
    NeverSent,
    /// Nobody that is known of: the request may be at work in PHP.
    Unknown,
}

/// What became of the attempt to write through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The request goes on, and its answer must be given to [`end`].
    Begun(WriteThrough),
    /// It has to wait, and has a place.
    Held(Held),
    /// It was refused before, and something newer was accepted since.
    Stale,
    /// The request goes on; there is nothing to keep in order.
    Untracked,
    /// The store cannot be written, and something of the session waits: 503 with `retry-after`.
    Busy,
}

/// A place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its sequence.
    pub seq: u64,
    /// What the session was before it.
    pub before: Before,
    /// Since when. Monotonic.
    pub since_ms: u64,
    /// The dispatcher must be told of the shard.
    pub ring: bool,
}

/// Takes the session's claim for `update`, or a place.
pub fn begin(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    update: &Update<'_>,
    ask: &Ask<'_>,
    now: Now,
) -> Attempt {
    if sabotage::is(Sabotage::PassWithoutClaim) {
        return Attempt::Untracked;
    }
    let key = keys.shard(rules.shard_of(update.session));
    let mut waits = false;
    for _ in 0..CAS_ATTEMPTS_MAX {
        let read = store.get(&key);
        let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
        let Ok(mut shard) = Shard::decode(bytes) else {
            return Attempt::Untracked;
        };
        waits = shard.is_waiting(update.session, now.mono_ms);
        let attempt = match shard.write_through(rules, update, ask, now) {
            Through::Held { seq, before, ring } => Attempt::Held(Held {
                seq,
                before,
                since_ms: now.mono_ms,
                ring,
            }),
            Through::Stale => return Attempt::Stale,
            Through::Untracked => return Attempt::Untracked,
            Through::Begun {
                seq,
                manner,
                before,
                is_ahead,
            } => {
                let begun = (seq, manner, before);
                let item = is_ahead && !ask.is_seen;
                let item = item.then(|| Box::new(Again::of(update)));
                Attempt::Begun(WriteThrough::of(rules, update, ask, begun, item, now))
            }
        };
        match store.put(&key, &shard.encode(), Expect::of(read.as_ref())) {
            Ok(()) => return attempt,
            Err(PutError::Mismatch) => {}
            Err(PutError::Refused) => break,
        }
    }
    match waits {
        true => Attempt::Busy,
        false => Attempt::Untracked,
    }
}

/// Settles an update that was written through; `None` where nothing of the store has changed. What its answer proves is
/// for [`crate::proof::Proofs::heard`].
pub fn end(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    through: &WriteThrough,
    fate: Fate,
    now: Now,
) -> Option<ThroughSettled> {
    let key = keys.shard(rules.shard_of(through.said.session));
    for _ in 0..CAS_ATTEMPTS_MAX {
        let (bytes, token) = store.get(&key)?;
        let mut shard = Shard::decode(&bytes).ok()?;
        let settled = shard.settle_through(rules, through, fate, now)?;
        match store.put(&key, &shard.encode(), Expect::Token(token)) {
            Err(PutError::Mismatch) => {}
            Ok(()) => return Some(settled),
            Err(PutError::Refused) => return None,
        }
    }
    None
}

// === impl Again ===

impl Again {
    /// The update, for the case that it has to be said once more.
    #[must_use]
    #[inline]
    pub fn of(update: &Update<'_>) -> Self {
        Self {
            destination: update.destination.bytes().to_vec(),
            neutral: update.neutral.encode(),
            body: update.body.to_vec(),
        }
    }
}

// === impl WriteThrough ===

impl WriteThrough {
    /// What an update's answer will need, once it is at Laravel: its sequence, how, and what was before it.
    #[inline]
    pub(crate) fn of(
        rules: &Rules,
        said: &Said,
        ask: &Ask<'_>,
        (seq, manner, before): (u64, Manner, Before),
        item: Option<Box<Again>>,
        now: Now,
    ) -> Self {
        let window_ms = rules.config.times.send_window_ms;
        Self {
            said: said.clone(),
            number: ask.number,
            seq,
            manner,
            before,
            begun_ms: now.mono_ms,
            send_by_ms: now.mono_ms.saturating_add(window_ms),
            body: match ask.is_seen {
                true => 0,
                false => rules.repeat_hash(said, ask.body),
            },
            is_seen: ask.is_seen,
            item,
        }
    }

    /// How long Laravel may take, of `wanted_ms`, where it leaves now: its claim protects the session for as long as a
    /// call can last that leaves within the send window. `None` where that is too little.
    #[must_use]
    #[inline]
    pub fn may_take(&self, wanted_ms: u64, times: &Times, mono_ms: u64) -> Option<u64> {
        let until_ms = self.send_by_ms.saturating_add(times.call_timeout_ms);
        let left_ms = wanted_ms.min(until_ms.saturating_sub(mono_ms));
        (left_ms >= LEAST_MS.min(times.call_timeout_ms / 2)).then_some(left_ms)
    }

    /// Whether it went on outside the order.
    #[must_use]
    #[inline]
    pub fn is_outside(&self) -> bool {
        matches!(self.manner, Manner::Outside | Manner::Unrecorded)
    }
}

// === impl Answerer ===

impl Answerer {
    /// Reads `response.code_details`, and only where that does not tell, `upstream.request_attempt_count` and
    /// whether `upstream.local_address` is there.
    pub fn of(
        code_details: Option<&[u8]>,
        attempts: impl FnOnce() -> Option<u64>,
        has_local_address: impl FnOnce() -> bool,
    ) -> Self {
        match code_details {
            Some(b"via_upstream") => return Self::Upstream,
            // The stream that follows it is a request of its own.
            Some(b"internal_redirect") => return Self::NeverSent,
            _ => {}
        }
        match attempts() {
            Some(0) => Self::NeverSent,
            // A second try may follow one that was taken.
            Some(attempts) if attempts > 1 && !sabotage::is(Sabotage::IgnoreAttempts) => {
                Self::Unknown
            }
            Some(_) if !has_local_address() => Self::NeverSent,
            _ => Self::Unknown,
        }
    }
}

// === impl Fate ===

impl Fate {
    /// Judges an answer by who gave it, its status and its body. `voice` is how its route is known to speak.
    #[must_use]
    #[inline]
    pub fn of(answerer: Answerer, status: Option<u16>, body: &[u8], voice: Option<Voice>) -> Self {
        match (answerer, status) {
            (Answerer::NeverSent, _) => Self::NeverHad,
            (Answerer::Unknown, _) | (_, None | Some(502 | 504 | 520..=527)) => Self::Unknown,
            // Laravel may have had it, and may be at work on it.
            (_, Some(500..)) if was_lost(body) => Self::Unknown,
            (_, Some(_)) => match Word::of(status, body, voice) {
                Word::Accepted(_) => Self::Accepted,
                _ if matches!(status, Some(408 | 425 | 429 | 500..)) => Self::Failed,
                Word::Refused(_) | Word::Neither => Self::Refused,
            },
        }
    }
}

#[cfg(test)]
mod tests;
