//! Callers that wait for what becomes of their updates: the worker's side of `"ack": "delivered"`.
//!
//! The item is settled by the dispatcher, on whichever thread it is, and all that both can see is the store. So
//! a worker looks there, and only while it has somebody to answer: every [`POLL_MS`], one get for each shard
//! that is waited for, however many wait. What it finds is in [`crate::shard`]'s `ending`.
//!
//! A caller that is not answered in time is told so, and its update stays queued: whoever repeats it is told
//! of the same item.

use alloc::vec::Vec;

use crate::config::{Ack, Config};
use crate::route::{Rules, Update};
use crate::sabotage::{self, Sabotage};
use crate::shard::{Ending, Item, Session, Shard};
use crate::store::{Keys, Store};

/// How often a worker looks, milliseconds: a few thousandths of what a call to Laravel takes with its wait for
/// company, and 40 gets a second for each shard.
pub const POLL_MS: u64 = 25;

/// Callers that one worker holds: each is an open stream. Whoever comes on top is answered as with `accept`.
pub const WAITERS_MAX: usize = 1024;

/// Updates in a row that were voided: each voids what is older, so a caller whose update this happens to twice
/// between two looks is rare.
const HEIRS_MAX: usize = 8;

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Of the update: index into the configuration.
    route: usize,
    shard: u32,
    session: u128,
    item: Item,
    /// Monotonic.
    until_ms: u64,
}

/// An answer to a caller that has waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its stream.
    pub stream: u32,
    /// The route of its update: index into the configuration.
    pub route: usize,
    /// What it is told.
    pub told: Told,
}

/// What a caller that waited is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Laravel has the update, or a newer one.
    Delivered,
    /// Laravel does not want it, and answered with this status.
    Rejected(u16),
    /// It was too old to be sent.
    Expired,
    /// Nothing is known yet, and the caller has waited for long enough.
    Waiting,
}

/// The callers that one root context holds, in the order of their shards.
#[derive(Debug, Default)]
pub struct Waiters(Vec<Waiter>);

#[derive(Debug)]
struct Waiter {
    stream: u32,
    wait: Wait,
    /// For the answer, once it is known.
    told: Option<Told>,
}

// === impl Wait ===

impl Wait {
    /// What the caller of `update` has to wait for, if its route's callers wait and Laravel has not got it yet.
    #[must_use]
    #[inline]
    pub fn of(rules: &Rules, shard: &Shard<'_>, update: &Update<'_>, mono_ms: u64) -> Option<Self> {
        let rule = rules.route(update.route)?;
        if rule.ack != Ack::Delivered {
            return None;
        }
        let item = shard.awaited(rules, update.session, &rule.name, update.caller)?;
        Some(Self {
            route: update.route,
            shard: rules.shard_of(update.session),
            session: update.session,
            item,
            until_ms: mono_ms.saturating_add(rules.config.ack_timeout_ms),
        })
    }

    #[inline]
    fn told(&mut self, session: Option<&Session<'_>>) -> Option<Told> {
        let session = session?;
        if sabotage::is(Sabotage::AckBeforeSettled) && session.claim.is_some() {
            return Some(Told::Delivered);
        }
        for _ in 0..HEIRS_MAX {
            match session.ending(self.item)? {
                Ending::Delivered => return Some(Told::Delivered),
                Ending::Rejected(status) => return Some(Told::Rejected(status)),
                Ending::Expired => return Some(Told::Expired),
                Ending::Voided(by) => self.item = by,
            }
        }
        None
    }
}

// === impl Waiters ===

impl Waiters {
    /// Whether nobody waits.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Holds a caller, by its stream; false where there are too many already.
    #[inline]
    pub fn hold(&mut self, stream: u32, wait: Wait) -> bool {
        let room = self.0.len() < WAITERS_MAX;
        if room {
            let at = self
                .0
                .partition_point(|other| other.wait.shard <= wait.shard);
            let told = None;
            self.0.insert(at, Waiter { stream, wait, told });
        }
        room
    }

    /// Forgets a caller that is gone.
    #[inline]
    pub fn forget(&mut self, stream: u32) {
        self.0.retain(|waiter| waiter.stream != stream);
    }

    /// Looks what has become of the updates, and takes those callers out that can be told something.
    pub fn poll(&mut self, store: &impl Store, keys: &Keys, mono_ms: u64) -> Vec<Answer> {
        for waiters in self.0.chunk_by_mut(|a, b| a.wait.shard == b.wait.shard) {
            let Some(Waiter { wait, .. }) = waiters.first() else {
                continue;
            };
            let read = store.get(&keys.shard(wait.shard));
            let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
            let shard = Shard::decode(bytes).unwrap_or_default();
            for Waiter { wait, told, .. } in waiters {
                let late = (mono_ms >= wait.until_ms).then_some(Told::Waiting);
                *told = wait.told(shard.session(wait.session)).or(late);
            }
        }
        let answer = |waiter: &Waiter| {
            Some(Answer {
                stream: waiter.stream,
                route: waiter.wait.route,
                told: waiter.told?,
            })
        };
        let answers = self.0.iter().filter_map(answer).collect();
        self.0.retain(|waiter| waiter.told.is_none());
        answers
    }
}

// === impl Told ===

impl Told {
    /// Every kind, with a status for the one that has one.
    pub const ALL: [Self; 4] = [
        Self::Delivered,
        Self::Rejected(0),
        Self::Expired,
        Self::Waiting,
    ];

    /// Its place in [`Told::ALL`].
    #[must_use]
    #[inline]
    pub fn index(self) -> usize {
        match self {
            Self::Delivered => 0,
            Self::Rejected(_) => 1,
            Self::Expired => 2,
            Self::Waiting => 3,
        }
    }

    /// The word for it, in `x-embudo` and in metrics.
    #[must_use]
    #[inline]
    pub fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Rejected(_) => "rejected",
            Self::Expired => "expired",
            Self::Waiting => "waiting",
        }
    }

    /// The answer's status and body.
    #[must_use]
    #[inline]
    pub fn answer(self, config: &Config) -> (u16, &'static [u8]) {
        match self {
            Self::Delivered => (
                config.answer_status,
                br#"{"success":true,"delivered":true}"#,
            ),
            Self::Rejected(status) => (status, br#"{"success":false,"rejected":true}"#),
            Self::Expired => (503, br#"{"success":false,"message":"expired, try again"}"#),
            Self::Waiting => (503, br#"{"success":false,"message":"not delivered yet"}"#),
        }
    }
}

#[cfg(test)]
mod tests;
