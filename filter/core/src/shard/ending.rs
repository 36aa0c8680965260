//! How updates ended, for callers that wait to hear of it (`"ack": "delivered"`).
//!
//! The waiting is done by the worker that has the caller; all that it can see is the store. An entry says what
//! is still to be sent, and whether Laravel has the last value, but not what became of a value that has made
//! room for another, and an update that was rejected, has expired or was voided leaves no entry at all. So each
//! end is written down beside the entries, in the compare-and-swap that makes it, for as long as anybody can
//! be waiting for it. Where no route's callers wait, nothing is written.

use super::{Entry, Session, Shard, State};
use crate::config::ACK_TIMEOUT_MAX_MS;
use crate::route::Rules;
use crate::time::Now;

/// How an accepted update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Laravel has it.
    Delivered,
    /// A newer one took its place.
    Superseded,
    /// Too old.
    Expired,
    /// Laravel does not want it.
    Rejected,
    /// A state that opens a gate made it meaningless.
    Voided,
}

/// Endings that a session keeps. Who waits looks every 25 ms, and the pace lets a session have 20 in a second at
/// most, so none is lost before it was seen.
pub const ENDED_MAX: usize = 16;

/// An update: its place among its session's, and its sequence there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Keyed hash of route and credential: of their names only the equality counts here.
    pub place: u64,
    /// Its sequence.
    pub seq: u64,
}

/// How an update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub item: Item,
    /// How.
    pub how: Ending,
    /// Until then it is kept. Monotonic.
    pub until_ms: u64,
}

/// The ways to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Laravel has it.
    Delivered,
    /// Too old to be sent.
    Expired,
    /// Another route's update made it meaningless; their callers hear the same.
    Voided(Item),
    /// Laravel does not want it, and answered with this status: 300 to 599.
    Rejected(u16),
}

// === impl Rules ===

impl Rules {
    /// The place of a route's and credential's updates.
    #[must_use]
    #[inline]
    pub fn place(&self, route: &str, caller: u64) -> u64 {
        self.key.hash(&[route.as_bytes(), &caller.to_le_bytes()]) as u64
    }
}

// === impl Shard ===

impl Shard<'_> {
    /// The update that a caller with the value of this place has to wait for; `None` where Laravel has it.
    #[must_use]
    #[inline]
    pub fn awaited(&self, rules: &Rules, session: u128, route: &str, caller: u64) -> Option<Item> {
        let entry = self.session(session)?.entry(route, caller)?;
        let open = !matches!(entry.state, State::Clean { .. });
        open.then(|| entry.item(rules))
    }
}

// === impl Session ===

impl Session<'_> {
    /// How this update ended, or the next one in its place that did: whichever superseded it shares its fate.
    #[must_use]
    #[inline]
    pub fn ending(&self, item: Item) -> Option<Ending> {
        let later = self
            .ended
            .iter()
            .filter(|ended| ended.item.place == item.place && ended.item.seq >= item.seq);
        later.min_by_key(|ended| ended.item.seq).map(|e| e.how)
    }

    /// Writes down how an update ended, in the place of what was said of it before.
    #[inline]
    pub(super) fn ends(&mut self, rules: &Rules, item: Item, how: Ending, now: Now) {
        // The oldest makes room.
        let mut stays = self.ended.len() < ENDED_MAX;
        self.ended
            .retain(|ended| core::mem::replace(&mut stays, true) && ended.item != item);
        self.ended.push(Ended {
            item,
            how,
            until_ms: now.mono_ms.saturating_add(rules.config.ack_timeout_ms),
        });
    }

    /// Writes down how the updates of these entries ended, where anybody may wait to hear of it.
    #[inline]
    pub(super) fn entries_end(
        &mut self,
        rules: &Rules,
        how: Ending,
        now: Now,
        which: &dyn Fn(&Entry<'_>) -> bool,
    ) {
        if !rules.config.holds_callers() {
            return;
        }
        for at in 0..self.entries.len() {
            let entry = self.entries.get(at).filter(|entry| which(entry));
            if let Some(item) = entry.map(|entry| entry.item(rules)) {
                self.ends(rules, item, how, now);
            }
        }
    }

    /// What lies farther ahead than any configuration allows was spoiled, and would keep its session for ever.
    #[inline]
    pub(super) fn forget_endings(&mut self, mono_ms: u64) {
        self.ended.retain(|ended| {
            (1..=ACK_TIMEOUT_MAX_MS).contains(&ended.until_ms.saturating_sub(mono_ms))
        });
    }
}

// === impl Entry ===

impl Entry<'_> {
    #[inline]
    pub(super) fn item(&self, rules: &Rules) -> Item {
        Item {
            place: rules.place(&self.route, self.caller),
            seq: self.seq,
        }
    }
}

// === impl End ===

impl End {
    /// Every end.
    pub const ALL: [Self; 5] = [
        Self::Delivered,
        Self::Superseded,
        Self::Expired,
        Self::Rejected,
        Self::Voided,
    ];

    /// The label in metrics.
    #[must_use]
    #[inline]
    pub fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Voided => "voided",
        }
    }
}
