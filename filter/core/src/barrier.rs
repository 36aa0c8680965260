//! Requests of other routes that wait for their session's updates.
//!
//! A message right behind `active`, or a DELETE right behind a QR, overtakes what is queued, and Laravel refuses the
//! one and stores the other in a row that is made anew. So a request that the operator has named is held while
//! something of its session is on its way, and that leaves at once, without its route's gap.
//!
//! It has no place in the session's record, and holds up nobody: it is not known who sends it. What came before it
//! is told by the shard's last sequence, and nothing later is waited for, so a session that talks all the time does
//! not keep it. It is not held where waiting would not help: what backs off, what a refused caller has, an open
//! circuit. After [`WAIT_MS`] it goes on in any case, as it came.

use alloc::vec::Vec;

use crate::circuit::Record;
use crate::route::{Barred, Rules};
use crate::sabotage::{self, Sabotage};
use crate::shard::{self, Mark, Shard};
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};
use crate::time::Now;

/// For how long at most, milliseconds: who waits for the answer to a message or a DELETE has patience for that.
pub const WAIT_MS: u64 = 2_000;

/// Requests that one worker holds: each costs a get at every look.
pub const HELD_MAX: usize = 64;

/// Those of them that may be of one session.
const HELD_OF_SESSION_MAX: usize = 8;

/// What one root context holds.
#[derive(Debug, Default)]
pub struct Barriers(Vec<Waiting>);

#[derive(Debug)]
struct Waiting {
    stream: u32,
    barred: Barred,
    mark: Mark,
}

/// Whether a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It goes on.
    Go,
    /// It is held; where a shard is named, the dispatcher must be told of it.
    Held(Option<u32>),
}

// === impl Barriers ===

impl Barriers {
    /// Whether nobody waits.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    // ## (new) => held

    /// A barrier's request has come. `record` is what the worker knows of Laravel.
    #[expect(clippy::too_many_arguments, reason = "the store, and one request")]
    #[inline]
    pub fn stop(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        rules: &Rules,
        stream: u32,
        barred: Barred,
        record: &Record,
        now: Now,
    ) -> Stop {
        let own = self.0.iter();
        let own = own.filter(|waiting| waiting.barred.session == barred.session);
        let is_full = self.0.len() >= HELD_MAX || own.count() >= HELD_OF_SESSION_MAX;
        if is_full || record.state.is_down() || sabotage::is(Sabotage::BarrierWaitsForNothing) {
            return Stop::Go;
        }
        let index = rules.shard_of(barred.session);
        let key = keys.shard(index);
        let mut held = None;
        for _ in 0..CAS_ATTEMPTS_MAX {
            let read = store.get(&key);
            let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
            let Ok(mut shard) = Shard::decode(bytes) else {
                break;
            };
            let mark = *held.get_or_insert_with(|| Mark::of(&shard, now));
            let places = shard.session(barred.session).map_or(0, |s| s.held.len());
            let is_taken = places >= shard::HELD_MAX;
            if is_taken || !shard.is_on_its_way(rules, &barred, mark, record, now.mono_ms) {
                return Stop::Go;
            }
            let until_ms = now.mono_ms.saturating_add(WAIT_MS);
            let Some(ring) = shard.hurry(barred.session, until_ms, now.mono_ms) else {
                self.hold(stream, barred, mark);
                return Stop::Held(None);
            };
            match store.put(&key, &shard.encode(), Expect::of(read.as_ref())) {
                Ok(()) => {
                    self.hold(stream, barred, mark);
                    return Stop::Held(ring.then_some(index));
                }
                Err(PutError::Mismatch) => {}
                Err(PutError::Refused) => break,
            }
        }
        // It cannot be hurried: it is waited for all the same.
        match held {
            Some(mark) => {
                self.hold(stream, barred, mark);
                Stop::Held(None)
            }
            None => Stop::Go,
        }
    }

    #[inline]
    fn hold(&mut self, stream: u32, barred: Barred, mark: Mark) {
        self.0.push(Waiting {
            stream,
            barred,
            mark,
        });
    }

    // ## held => (gone)

    /// A stream waits no longer. False where it does not.
    #[inline]
    pub fn forget(&mut self, stream: u32) -> bool {
        let before = self.0.len();
        self.0.retain(|waiting| waiting.stream != stream);
        self.0.len() < before
    }

    /// Whether a stream waits.
    #[must_use]
    #[inline]
    pub fn holds(&self, stream: u32) -> bool {
        self.0.iter().any(|waiting| waiting.stream == stream)
    }

    /// Looks who waits for nothing any more: these go on, in the order in which they came.
    #[inline]
    pub fn look(
        &mut self,
        store: &impl Store,
        keys: &Keys,
        rules: &Rules,
        record: &Record,
        now: Now,
    ) -> Vec<u32> {
        let mut going = Vec::new();
        self.0.retain(|waiting| {
            let Waiting {
                stream,
                barred,
                mark,
            } = waiting;
            let is_late = now.mono_ms >= mark.since_ms.saturating_add(WAIT_MS);
            let waits = !is_late && !record.state.is_down() && {
                let read = store.get(&keys.shard(rules.shard_of(barred.session)));
                let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
                let shard = Shard::decode(bytes).unwrap_or_default();
                shard.is_on_its_way(rules, barred, *mark, record, now.mono_ms)
            };
            if !waits {
                going.push(*stream);
            }
            waits
        });
        going
    }
}

// ## at Laravel => (gone)

/// A request that forgets its session has been answered, or is lost: nobody knows any more what Laravel has.
#[inline]
pub fn forget(store: &mut impl Store, keys: &Keys, rules: &Rules, session: u128) {
    let key = keys.shard(rules.shard_of(session));
    for _ in 0..CAS_ATTEMPTS_MAX {
        let Some((bytes, token)) = store.get(&key) else {
            return;
        };
        let Ok(mut shard) = Shard::decode(&bytes) else {
            return;
        };
        if !shard.forget(session) {
            return;
        }
        match store.put(&key, &shard.encode(), Expect::Token(token)) {
            Err(PutError::Mismatch) => {}
            Ok(()) | Err(PutError::Refused) => return,
        }
    }
}

#[cfg(test)]
mod tests;
