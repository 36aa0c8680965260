//! What a barrier's request waits for, and what it leaves behind: see [`crate::barrier`].

use super::{Session, Shard, State, is_ahead};
use crate::circuit::Record;
use crate::route::{Barred, Rules};
use crate::sabotage::{self, Sabotage};
use crate::time::Now;

/// When a barrier's request came: what was there before it is what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The last sequence of its shard.
    pub seq: u64,
    /// Monotonic.
    pub since_ms: u64,
}

// === impl Shard ===

impl Shard<'_> {
    /// Whether something of its session is on its way that was there before it, with nothing to wait for itself.
    #[must_use]
    #[inline]
    pub fn is_on_its_way(
        &self,
        rules: &Rules,
        barred: &Barred,
        mark: Mark,
        record: &Record,
        mono_ms: u64,
    ) -> bool {
        let Some(session) = self.session(barred.session) else {
            return false;
        };
        session.is_under_way(mark.seq, mono_ms)
            || session.is_due(rules, barred, mark, record, mono_ms)
    }

    /// Lets what its session has queued go at once, for so long. `Some` where that is news and the shard must be
    /// written: whether the dispatcher must be told of it.
    #[inline]
    pub fn hurry(&mut self, session: u128, until_ms: u64, mono_ms: u64) -> Option<bool> {
        let rung = self.rung;
        let session = self.session_mut(session)?;
        let is_queued = session.entries.iter().any(super::Entry::is_dirty);
        let left_ms = until_ms.saturating_sub(mono_ms);
        let is_known = session.hurries(mono_ms.saturating_add(left_ms / 2));
        if !is_queued || is_known || sabotage::is(Sabotage::BarrierHurriesNobody) {
            return None;
        }
        session.hurry_until_ms = until_ms;
        self.rung = true;
        Some(!rung)
    }

    /// Nobody knows any more what Laravel has of this session, and what it has said of it is of no use. False where
    /// nothing is known of it anyway.
    #[inline]
    pub fn forget(&mut self, session: u128) -> bool {
        if sabotage::is(Sabotage::ForgetNothing) || !self.unverify(session) {
            return false;
        }
        let last_seq = self.last_seq;
        if let Some(session) = self.session_mut(session) {
            session.doubt_kept(last_seq);
        }
        true
    }
}

// === impl Session ===

impl Session<'_> {
    /// Whether what it has queued goes at once.
    #[must_use]
    #[inline]
    pub fn hurries(&self, mono_ms: u64) -> bool {
        is_ahead(self.hurry_until_ms, mono_ms)
    }

    /// Whether something up to this sequence is at Laravel, or held for its turn.
    #[inline]
    fn is_under_way(&self, seq: u64, mono_ms: u64) -> bool {
        let claim = self.live_claim(mono_ms).map(|claim| claim.seq);
        let beside = self.beside.iter();
        let beside = beside.filter(|beside| is_ahead(beside.deadline_ms, mono_ms));
        let held = self.held.iter();
        let held = held.filter(|held| is_ahead(held.deadline_ms, mono_ms));
        let seqs = beside.map(|beside| beside.seq);
        let mut seqs = seqs.chain(held.map(|held| held.seq)).chain(claim);
        seqs.any(|other| other <= seq)
    }

    /// Whether something is queued since before that and will be sent soon: not what has failed and waits for its
    /// time, what has grown too old, or what a destination or a refused caller has that nothing is accepted of.
    #[inline]
    fn is_due(
        &self,
        rules: &Rules,
        barred: &Barred,
        mark: Mark,
        record: &Record,
        mono_ms: u64,
    ) -> bool {
        let is_troubled = |caller: Option<u64>| {
            let mut troubles = record.troubles.iter();
            troubles.any(|t| t.destination == barred.destination_hash && t.refused == caller)
        };
        if is_troubled(None) {
            return false;
        }
        self.entries.iter().any(|entry| {
            let State::Dirty(dirty) = &entry.state else {
                return false;
            };
            // The value that has superseded another is waited for in its stead.
            let was_there = entry.seq <= mark.seq || dirty.since_ms <= mark.since_ms;
            let is_late = entry.expires_ms(rules).is_some_and(|ms| mono_ms > ms);
            was_there
                && !is_late
                && dirty.trial.not_before_ms <= mono_ms
                && !is_troubled(Some(entry.caller))
        })
    }

    /// Its time is over.
    #[inline]
    pub(super) fn forget_hurry(&mut self, mono_ms: u64) {
        if !self.hurries(mono_ms) {
            self.hurry_until_ms = 0;
        }
    }
}

/// The time as a mark of a shard.
impl Mark {
    /// Of a request that comes now.
    #[must_use]
    #[inline]
    pub fn of(shard: &Shard<'_>, now: Now) -> Self {
        Self {
            seq: shard.last_seq,
            since_ms: now.mono_ms,
        }
    }
}
