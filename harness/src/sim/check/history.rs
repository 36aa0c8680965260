//! What was accepted of each session, in order, and what became of it.

use std::collections::BTreeSet;

use super::faithful::Said;

/// One session's history.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// The session's name.
    pub(super) name: String,
    /// Every accepted update, in order of acceptance.
    pub(super) accepted: Vec<Accepted>,
    /// The call that Laravel is working on, and its update.
    pub(super) running: Option<(u64, u64)>,
    /// Sequence of the newest update that Laravel began with.
    pub(super) newest_begun: u64,
    /// Sequence of the update that is in force at Laravel; 0 for none that came through Embudo.
    pub(super) in_force: u64,
    /// When which update's state was stored, µs: reads may show it later.
    pub(super) effects: Vec<(u64, u64)>,
    /// The newest that the sender's own clock has said.
    pub(super) newest_order: Option<u64>,
    /// A request of it went by as it came: its claim was seen, and not what it said.
    pub(super) is_seen: bool,
    /// The newest of those that was answered: it may have taken the place of what is older.
    pub(super) seen_seq: u64,
    /// When a batch of the gateway's own went by with something of it, or another route's request changed its row, and
    /// was answered; 0 for never. Monotonic, µs.
    pub(super) went_by_us: u64,
    /// Another route's request has changed its row.
    pub(super) is_changed: bool,
}

/// One accepted update.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) seq: u64,
    /// The route's name.
    pub(super) route: String,
    /// As the gateway sent it.
    pub(super) value: String,
    /// Its keyed hash.
    pub(super) hash: u128,
    pub(super) timestamp_ms: u64,
    /// The credential it came under; empty for none.
    pub(super) token: String,
    /// When it was written. Monotonic.
    pub(super) at_us: u64,
    /// From when on the gateway may know of it. Monotonic.
    pub(super) known_us: u64,
    /// When its fate was written. Monotonic.
    pub(super) ended_us: u64,
    /// When it was accepted, by the clock that the worker had looked at before. Monotonic.
    pub(super) accepted_ms: u64,
    pub(super) fate: Fate,
    /// It gave way to another credential's update.
    pub(super) is_void: bool,
    /// Laravel took it: its call ended with the value in force.
    pub(super) in_effect: bool,
    /// It was at Laravel beside the claim: its caller was not proven, or it went on outside the order.
    pub(super) beside: bool,
    /// Laravel has begun with it.
    pub(super) begun: bool,
    /// Something newer of its session was sent before it: it failed alone, or its caller is refused.
    pub(super) passed_over: bool,
    /// The names of its members, but for volatile ones.
    pub(super) members: BTreeSet<String>,
    /// What of its request must arrive; none where another's item implied it.
    pub(super) said: Option<Said>,
    /// When it last answered for a duplicate, or was delivered. Monotonic ms.
    pub(super) touched_ms: u64,
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Pending,
    Delivered,
    Superseded,
    Expired,
    /// Laravel does not want it, and said so for certain.
    Rejected,
    /// It passes by itself, and nobody knows yet what becomes of it, or ever will.
    Passing,
    /// It passed by itself, and Laravel certainly did not take it: it never happened.
    Failed,
}

// === impl History ===

impl History {
    /// The update of a sequence; the newest one, since a revived state bears its QR's number.
    pub(super) fn of_seq(&mut self, seq: u64, route: &str) -> Option<&mut Accepted> {
        self.accepted
            .iter_mut()
            .rev()
            .find(|update| update.seq == seq && update.route == route)
    }

    /// The newest of all that stands: by its number, since a revived state keeps its QR's place. What was
    /// superseded unsent gave way to something newer, or to what Laravel then did not want.
    pub(super) fn newest(&self) -> Option<&Accepted> {
        self.newest_unless(|_| false)
    }

    /// The same, without what is `gone` all the same.
    pub(super) fn newest_unless(&self, gone: impl Fn(&Accepted) -> bool) -> Option<&Accepted> {
        self.accepted
            .iter()
            .filter(|update| match update.fate {
                Fate::Failed | Fate::Rejected => false,
                Fate::Superseded => update.in_effect && !gone(update),
                _ => !gone(update),
            })
            .max_by_key(|update| update.seq)
    }

    /// The newest of a route that Laravel has or will get: what ended before it took effect (too old, or
    /// replaced by something that then was too old) never was there.
    pub(super) fn newest_of(&self, route: &str) -> Option<&Accepted> {
        self.newest_where(|update| update.route == route)
    }

    /// The same, of the updates that are meant.
    pub(super) fn newest_where(&self, meant: impl Fn(&Accepted) -> bool) -> Option<&Accepted> {
        self.accepted
            .iter()
            .filter(|update| meant(update))
            .filter(|update| match update.fate {
                Fate::Pending | Fate::Passing => true,
                Fate::Failed => false,
                _ => update.in_effect,
            })
            .max_by_key(|update| update.seq)
    }
}
