//! A state of the whole: the record, who is held, what is at Laravel, and what the gateway was told.

use embudo_core::shard::Manner;

use super::{Cast, Who};
use crate::model::value::{Qr, Value};

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// The shard in the store, by its number.
    pub(crate) record: u32,
    /// Updates that may still come: offered, the proven caller's written through, the stranger's.
    pub(crate) left: [u8; 3],
    pub(crate) held: Vec<Held>,
    pub(crate) calls: Vec<Call>,
    /// Updates that went outside the order, and are queued to be said once more.
    pub(crate) again: Vec<u64>,
    /// The stranger was heard to be accepted: what it has held may be queued.
    pub(crate) is_proven: bool,
    /// The newest update that Laravel has taken in its order.
    pub(crate) taken_seq: u64,
    pub(crate) laravel: View,
    /// The newest of the proven caller that the gateway was told is accepted.
    pub(crate) told: View,
}

/// A request that is held by a live worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Held {
    pub(crate) seq: u64,
    pub(crate) who: Who,
    pub(crate) value: Value,
    /// What the session was before it, by number.
    pub(crate) before: u16,
    pub(crate) is_late: bool,
}

/// A request on its way to Laravel, in it, or done and not heard of yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Call {
    pub(crate) seq: u64,
    pub(crate) who: Who,
    pub(crate) value: Value,
    pub(crate) way: Way,
    pub(crate) phase: Phase,
    /// Ticks until it has certainly ended.
    pub(crate) left: u8,
    /// It goes before an older one of its own that is queued, which its end makes superfluous.
    pub(crate) passes: bool,
    /// What its answer needs, by number; `None` where nobody waits for it any more.
    pub(crate) waiter: Option<Waiter>,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Waiter {
    Dispatcher,
    /// A worker, with what its answer needs, by number.
    Worker(u16),
}

/// How a request is at Laravel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Way {
    /// The dispatcher's, with the claim.
    Item,
    /// The same, of what has been outside the order already.
    Again,
    Claimed,
    Beside,
    Outside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    /// It may be on its way, or at work.
    Sent,
    /// Laravel has taken it.
    Taken,
    /// Laravel has not taken it and never will.
    Failed,
}

/// The last update of a family: its sequence, and whether it went in the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Last<T> {
    pub(crate) seq: u64,
    pub(crate) value: T,
    pub(crate) is_in_order: bool,
}

/// A state and a QR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) status: Last<Option<Value>>,
    pub(crate) qr: Last<Qr>,
}

// === impl World ===

impl World {
    pub(crate) fn first(cast: &Cast) -> Self {
        Self {
            record: 0,
            left: [cast.offers, cast.throughs, cast.strangers],
            held: Vec::new(),
            calls: Vec::new(),
            again: Vec::new(),
            is_proven: false,
            taken_seq: 0,
            laravel: View::default(),
            told: View::default(),
        }
    }

    /// What is over for everybody is forgotten, and the rest has an order of its own. Of what is over only what it
    /// stands before counts: whatever comes has a sequence after them all.
    pub(crate) fn settle_down(&mut self, unsent: impl Iterator<Item = u64>) {
        self.calls
            .retain(|call| call.is_running() || call.waiter.is_some());
        self.calls.sort_unstable();
        self.held.sort_unstable();
        let calls = self.calls.iter().map(|call| call.seq);
        let live = calls.chain(self.held.iter().map(|held| held.seq));
        let live: Vec<u64> = live.chain(unsent).collect();
        let after = |seq: u64| {
            let before = live.iter().filter(|live| **live < seq);
            before.max().map_or(0, |live| live + 1)
        };
        self.again.retain(|seq| live.contains(seq));
        self.again.sort_unstable();
        self.taken_seq = after(self.taken_seq);
        let down_to = |seq: u64| {
            let before = live.iter().copied().filter(|live| *live <= seq);
            before.max().unwrap_or(0)
        };
        level(
            &mut self.laravel.status,
            &mut self.told.status,
            after,
            down_to,
        );
        level(&mut self.laravel.qr, &mut self.told.qr, after, down_to);
        self.told.status.value = self.told.status.value.map(|_| Value::Pending);
        if self.left[0] == 0 {
            // Nobody asks any more what it has.
            self.laravel.status.value = self.laravel.status.value.map(|_| Value::Pending);
            self.laravel.qr.value = Qr::None;
        }
    }

    /// Whether the dispatcher waits for an answer.
    pub(crate) fn is_dispatching(&self) -> bool {
        let mut calls = self.calls.iter();
        calls.any(|call| call.waiter == Some(Waiter::Dispatcher))
    }
}

// === impl Call ===

impl Call {
    /// Whether Laravel may have still to take it.
    pub(crate) fn is_running(&self) -> bool {
        self.phase == Phase::Sent
    }

    /// Whether it has, or had, the session's claim.
    pub(crate) fn is_claimed(&self) -> bool {
        matches!(self.way, Way::Item | Way::Again | Way::Claimed)
    }

    /// Whether its order is promised.
    pub(crate) fn is_in_order(&self) -> bool {
        matches!(self.way, Way::Item | Way::Claimed) && self.who == Who::Proven
    }
}

// === impl Way ===

impl Way {
    pub(crate) fn of(manner: Manner) -> Self {
        match manner {
            Manner::Claimed => Self::Claimed,
            Manner::Beside => Self::Beside,
            Manner::Outside | Manner::Unrecorded => Self::Outside,
        }
    }
}

// === impl View ===

impl View {
    /// As Laravel takes an update: whatever comes last.
    pub(crate) fn take(&mut self, seq: u64, value: Value, is_in_order: bool) {
        self.status = Last {
            seq,
            value: Some(state_of(value)),
            is_in_order,
        };
        if let Some(value) = qr_of(value) {
            self.qr = Last {
                seq,
                value,
                is_in_order,
            };
        }
    }

    /// As the gateway counts: in the order of the sequences, whenever it hears of it.
    pub(crate) fn hear(&mut self, seq: u64, value: Value) {
        let mut newer = *self;
        newer.take(seq, value, true);
        if newer.status.seq >= self.status.seq {
            self.status = newer.status;
        }
        if newer.qr.seq >= self.qr.seq {
            self.qr = newer.qr;
        }
    }

    /// Whether what Laravel has is no older than what the gateway was told, where that went in the order.
    pub(crate) fn is_no_older(&self, told: &Self) -> bool {
        let status = !self.status.is_in_order || self.status.seq >= told.status.seq;
        let qr = !self.qr.is_in_order || self.qr.seq >= told.qr.seq || told.qr.value == Qr::Any;
        let has_status = self.status.value.is_some() || told.status.value.is_none();
        status && qr && has_status
    }
}

/// Of what Laravel has it counts whether that is no older than what the gateway was told, or will be.
fn level<T>(
    laravel: &mut Last<T>,
    told: &mut Last<T>,
    after: impl Fn(u64) -> u64,
    down_to: impl Fn(u64) -> u64,
) {
    let is_older = laravel.seq < told.seq;
    told.seq = after(told.seq).max(u64::from(is_older));
    laravel.seq = match is_older {
        true => down_to(laravel.seq),
        false => down_to(laravel.seq).max(told.seq),
    };
}

/// The state that this update leaves.
pub(crate) fn state_of(value: Value) -> Value {
    match value {
        Value::QrA | Value::QrB => Value::Pending,
        state => state,
    }
}

/// The QR that it leaves, where it says anything of one.
pub(crate) fn qr_of(value: Value) -> Option<Qr> {
    match value {
        Value::QrA => Some(Qr::A),
        Value::QrB => Some(Qr::B),
        Value::Active | Value::Inactive => Some(Qr::Any),
        Value::Pending | Value::Connecting => None,
    }
}
