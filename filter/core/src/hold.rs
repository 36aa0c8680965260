//! Requests that a worker holds until it is their turn.
//!
//! A held request has a place in its session's record, so that every worker and the dispatcher see it; the stream
//! itself is its worker's. While anybody is held, the worker's root looks every [`crate::ack::POLL_MS`]: one get for
//! each shard, [`SHARDS_A_LOOK`] of them at a time, in turn. Of one session one goes on in a look: Envoy's connection
//! pool keeps no order.
//!
//! Nobody is held beyond `hold_ms`, and a second for each of its session before it: then it goes on outside the
//! order, which [`crate::shard`]'s `write_through` describes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::config::Times;
use crate::intake::Reply;
use crate::map::Map;
use crate::proof::Subject;
use crate::route::{Bypass, Rules, Said};
use crate::sabotage::{self, Sabotage};
use crate::shard::{Ask, Decision, Shard, Superseded, Through};
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};
use crate::time::Now;
use crate::write_through::{Again, Held, LEAST_MS, WriteThrough};

/// Requests that one worker holds: each is an open stream.
pub const HELD_MAX: usize = 1024;

/// Those of them that callers may have who are not proven.
pub const STRANGERS_MAX: usize = HELD_MAX / 2;

/// Bytes of bodies that one worker holds; Envoy has them once more.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Requests that one worker has at Laravel at once; beyond them they are held.
pub const AT_LARAVEL_MAX: usize = 16;

/// Shards that are read in one look: a get is some 3 µs.
pub const SHARDS_A_LOOK: usize = 64;

/// A request that waits.
#[derive(Debug)]
pub struct Waiting {
    /// Its stream.
    pub stream: u32,
    /// What it says.
    pub said: Said,
    /// Its body, and where it goes.
    pub again: Again,
    /// Why it is written through.
    pub reason: Bypass,
    /// Its caller is not proven.
    pub is_stranger: bool,
    /// It is no update: of a request that bypasses, only the session was seen.
    pub is_seen: bool,
    /// It waits for another to prove its caller.
    pub is_proving: bool,
    /// Its place.
    pub place: Held,
}

/// What a look decides of one request.
enum Next {
    Through(Option<WriteThrough>),
    Answer(Reply, bool, Superseded),
}

/// A request whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its stream.
    pub stream: u32,
    /// The route of its update: index into the configuration.
    pub route: usize,
    /// What it does.
    pub go: Go,
    /// It goes on outside the order.
    pub is_outside: bool,
    /// The shard of which the dispatcher must be told.
    pub ring: Option<u32>,
    /// Routes of the items that became superfluous.
    pub superseded: Superseded,
}

/// What a request does that was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// It goes on, to be answered by Laravel in this time, milliseconds.
    Within(u64),
    /// It goes on, in its route's own time.
    Untimed,
    /// It is answered here: it is queued, or was superfluous.
    Answer(Reply),
    /// The store refuses it, and something of its session waits: 503.
    Busy,
}

/// A request that was held and is at Laravel.
#[derive(Debug)]
pub struct Gone {
    /// Why it is written through.
    pub reason: Bypass,
    /// What its answer needs; `None` where there is nothing to keep in order.
    pub through: Option<WriteThrough>,
}

/// What one root context holds.
#[derive(Debug, Default)]
pub struct Holding {
    /// In the order of their shards, sessions and places.
    waiting: Vec<Waiting>,
    /// Those that went on, by their streams, until their answer comes.
    gone: Map<u32, Gone>,
    strangers: usize,
    bytes: usize,
    /// The shard at which the next look begins.
    next_shard: u32,
    /// Requests at Laravel, held before or not.
    at_laravel: usize,
    /// Callers that Laravel refuses: what they have queued holds up nobody else. As old as the root's last tick.
    refused: Vec<(u64, u64)>,
}

// === impl Waiting ===

impl Waiting {
    /// When its time is over. Monotonic.
    fn end_ms(&self, rules: &Rules) -> u64 {
        match sabotage::is(Sabotage::HoldForEver) {
            true => u64::MAX,
            false => self.place.since_ms.saturating_add(rules.config.hold_ms),
        }
    }
}

// === impl Holding ===

impl Holding {
    /// Whether nobody waits.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether another may go to Laravel now.
    #[must_use]
    #[inline]
    pub fn may_send(&self) -> bool {
        self.at_laravel < AT_LARAVEL_MAX
    }

    /// Whom Laravel refuses at the moment, behind the destination.
    #[must_use]
    #[inline]
    pub fn refused(&self) -> &[(u64, u64)] {
        &self.refused
    }

    /// The leader has said whom Laravel refuses.
    #[inline]
    pub fn set_refused(&mut self, refused: Vec<(u64, u64)>) {
        self.refused = refused;
    }

    /// Whether there is room for a body of this length.
    #[must_use]
    #[inline]
    pub fn may_hold(&self, bytes: usize, is_stranger: bool) -> bool {
        self.waiting.len() < HELD_MAX
            && (!is_stranger || self.strangers < STRANGERS_MAX)
            && self.bytes.saturating_add(bytes) <= BYTES_MAX
    }

    /// One more is at Laravel.
    #[inline]
    pub fn sent(&mut self) {
        self.at_laravel = self.at_laravel.saturating_add(1);
    }

    /// One less.
    #[inline]
    pub fn answered(&mut self) {
        self.at_laravel = self.at_laravel.saturating_sub(1);
    }

    /// Holds a request that has a place.
    #[inline]
    pub fn hold(&mut self, rules: &Rules, waiting: Waiting) {
        self.strangers = self
            .strangers
            .saturating_add(usize::from(waiting.is_stranger));
        self.bytes = self.bytes.saturating_add(waiting.again.body.len());
        let order = |waiting: &Waiting| {
            let session = waiting.said.session;
            (rules.shard_of(session), session, waiting.place.seq)
        };
        let key = order(&waiting);
        let at = self.waiting.partition_point(|other| order(other) < key);
        self.waiting.insert(at, waiting);
    }

    #[inline]
    fn remove(&mut self, at: usize) -> Waiting {
        let waiting = self.waiting.remove(at);
        self.strangers = self
            .strangers
            .saturating_sub(usize::from(waiting.is_stranger));
        self.bytes = self.bytes.saturating_sub(waiting.again.body.len());
        waiting
    }

    /// What was held of this stream, and has gone on: its answer is here, or it has ended.
    #[inline]
    pub fn take_gone(&mut self, stream: u32) -> Option<Gone> {
        self.gone.remove(&stream)
    }

    // ## held => (gone)
    /// A held stream has ended: its place is given back.
    pub fn forget(&mut self, store: &mut impl Store, keys: &Keys, rules: &Rules, stream: u32) {
        let mut all = self.waiting.iter();
        let Some(at) = all.position(|waiting| waiting.stream == stream) else {
            return;
        };
        let waiting = self.remove(at);
        let key = keys.shard(rules.shard_of(waiting.said.session));
        for _ in 0..CAS_ATTEMPTS_MAX {
            let Some((bytes, token)) = store.get(&key) else {
                return;
            };
            let Ok(mut shard) = Shard::decode(&bytes) else {
                return;
            };
            let Held { seq, before, .. } = waiting.place;
            if shard.leave(waiting.said.session, seq, before).is_none() {
                return;
            }
            match store.put(&key, &shard.encode(), Expect::Token(token)) {
                Err(PutError::Mismatch) => {}
                Ok(()) | Err(PutError::Refused) => return,
            }
        }
    }

    /// How long Laravel may take for a request that was held and goes on now, of `wanted_ms`; `None` where it is too late.
    #[must_use]
    #[inline]
    pub fn may_take(
        &self,
        stream: u32,
        wanted_ms: u64,
        times: &Times,
        mono_ms: u64,
    ) -> Option<u64> {
        let through = self
            .gone
            .get(&stream)
            .and_then(|gone| gone.through.as_ref());
        match through {
            Some(through) => through.may_take(wanted_ms, times, mono_ms),
            None => Some(wanted_ms),
        }
    }

    /// These need not wait any more for another to prove their caller.
    #[inline]
    pub fn open(&mut self, streams: &[u32]) {
        for waiting in &mut self.waiting {
            waiting.is_proving &= !streams.contains(&waiting.stream);
        }
    }

    // ## held => at Laravel
    /// Looks whose turn it is. `ask` gives each its number; what it says of the body and of the worker is not read.
    pub fn look(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        rules: &Rules,
        ask: Ask<'_>,
        mut is_proven: impl FnMut(&Subject) -> bool,
        now: Now,
    ) -> Vec<Turn> {
        let mut turns = Vec::new();
        let mut shards: Vec<u32> = Vec::new();
        for waiting in &self.waiting {
            let shard = rules.shard_of(waiting.said.session);
            if shards.last() != Some(&shard) {
                shards.push(shard);
            }
        }
        let first = shards.partition_point(|shard| *shard < self.next_shard);
        shards.rotate_left(first);
        self.next_shard = shards.get(SHARDS_A_LOOK).copied().unwrap_or(0);
        let refused = core::mem::take(&mut self.refused);
        let mut ask = Ask {
            refused: &refused,
            ..ask
        };
        for shard in shards.into_iter().take(SHARDS_A_LOOK) {
            let is_proven = &mut is_proven;
            self.look_at(
                store, keys, rules, shard, &mut ask, is_proven, now, &mut turns,
            );
        }
        self.refused = refused;
        turns
    }

    #[expect(clippy::too_many_arguments, reason = "one shard's part of a look")]
    fn look_at(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        rules: &Rules,
        index: u32,
        ask: &mut Ask<'_>,
        is_proven: &mut impl FnMut(&Subject) -> bool,
        now: Now,
        turns: &mut Vec<Turn>,
    ) {
        let key = keys.shard(index);
        let first = self
            .waiting
            .partition_point(|waiting| rules.shard_of(waiting.said.session) < index);
        for _ in 0..CAS_ATTEMPTS_MAX {
            let read = store.get(&key);
            let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
            let mut shard = Shard::decode(bytes).unwrap_or_default();
            let mut going: Vec<(usize, Next)> = Vec::new();
            let mut last = None;
            let here = self.waiting.iter().enumerate().skip(first);
            for (at, waiting) in
                here.take_while(|(_, waiting)| rules.shard_of(waiting.said.session) == index)
            {
                // Two of one session go on one after the other.
                if last == Some(waiting.said.session) {
                    continue;
                }
                let can_queue = waiting.is_stranger && !waiting.is_seen;
                if can_queue && is_proven(&waiting.said.subject) {
                    let (said, item) = (&waiting.said, &waiting.again);
                    let decision = shard.queue_held(
                        rules,
                        said,
                        item,
                        (waiting.place.seq, waiting.place.before),
                        now,
                    );
                    let answer = match decision {
                        Some(Decision::Queued { ring, superseded }) => {
                            Some(Next::Answer(Reply::Queued, ring, superseded))
                        }
                        Some(Decision::Duplicate { .. }) => {
                            Some(Next::Answer(Reply::Duplicate, false, Superseded::new()))
                        }
                        Some(Decision::Implied) => {
                            Some(Next::Answer(Reply::Implied, false, Superseded::new()))
                        }
                        Some(Decision::Stale) => {
                            Some(Next::Answer(Reply::Stale, false, Superseded::new()))
                        }
                        Some(Decision::Full) | None => None,
                    };
                    if let Some(answer) = answer {
                        going.push((at, answer));
                        continue;
                    }
                }
                let end_ms = waiting.end_ms(rules);
                if waiting.is_proving && now.mono_ms < end_ms {
                    continue;
                }
                ask.number = ask.number.wrapping_add(1);
                let ask = Ask {
                    body: &waiting.again.body,
                    is_stranger: waiting.is_stranger,
                    is_seen: waiting.is_seen,
                    may_send: self.at_laravel.saturating_add(going.len()) < AT_LARAVEL_MAX,
                    may_hold: false,
                    ..*ask
                };
                let Held { seq, before, .. } = waiting.place;
                let place = (seq, end_ms);
                let through = match shard.turn(rules, &waiting.said, place, before, &ask, now) {
                    None => continue,
                    Some(Through::Begun {
                        seq,
                        manner,
                        before,
                        is_ahead,
                    }) => {
                        let item = is_ahead && !waiting.is_seen;
                        let item = item.then(|| Box::new(waiting.again.clone()));
                        let begun = (seq, manner, before);
                        Some(WriteThrough::of(
                            rules,
                            &waiting.said,
                            &ask,
                            begun,
                            item,
                            now,
                        ))
                    }
                    Some(_) => None,
                };
                last = Some(waiting.said.session);
                going.push((at, Next::Through(through)));
            }
            if going.is_empty() {
                return;
            }
            let stored = store.put(&key, &shard.encode(), Expect::of(read.as_ref()));
            if stored == Err(PutError::Mismatch) {
                continue;
            }
            // From the last to the first, so that the others stay where they are.
            for (at, next) in going.into_iter().rev() {
                let is_late = |waiting: &Waiting| now.mono_ms >= waiting.end_ms(rules);
                let is_refused = stored.is_err();
                if is_refused && !self.waiting.get(at).is_some_and(is_late) {
                    continue;
                }
                let waiting = self.remove(at);
                let held_ms = now.mono_ms.saturating_sub(waiting.place.since_ms);
                let call_ms = rules.config.times.call_timeout_ms;
                let timeout_ms = call_ms.saturating_sub(held_ms).max(LEAST_MS.min(call_ms));
                let mut turn = Turn {
                    stream: waiting.stream,
                    route: waiting.said.route,
                    go: match waiting.is_seen {
                        _ if is_refused => Go::Busy,
                        true => Go::Untimed,
                        false => Go::Within(timeout_ms),
                    },
                    is_outside: false,
                    ring: None,
                    superseded: Superseded::new(),
                };
                match next {
                    _ if is_refused => {}
                    Next::Answer(reply, ring, superseded) => {
                        turn.go = Go::Answer(reply);
                        turn.ring = ring.then_some(index);
                        turn.superseded = superseded;
                    }
                    Next::Through(through) => {
                        turn.is_outside = through.as_ref().is_none_or(WriteThrough::is_outside);
                        self.sent();
                        let reason = waiting.reason;
                        self.gone.insert(waiting.stream, Gone { reason, through });
                    }
                }
                turns.push(turn);
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests;
