//! What is asked of the core, and what it says.

use embudo_core::shard::{ClaimId, Through};

use super::Who;
use super::world::{Held, Way};
use crate::model::value::Value;

/// What is asked of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Offer(Value),
    Arrive(Who, Value, bool),
    Turn(Held),
    Queue(Held),
    Leave(Held),
    Claim,
    SettleItem {
        is_delivered: bool,
    },
    SettleThrough(u16, Fated),
    Tidy,
    /// Of a place whose time is over.
    Forget(u64),
    Tick,
}

/// How a write-through ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fated {
    Accepted,
    Refused,
    Unknown,
}

/// What it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Queued {
        seq: u64,
    },
    Known,
    Begun(Begun),
    Held {
        seq: u64,
        before: u16,
    },
    Claimed {
        seq: u64,
        who: Who,
        value: Value,
    },
    /// Whether it was still what the record waited for.
    Settled(bool),
    Nothing,
}

/// A write-through that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) seq: u64,
    pub(super) way: Way,
    /// What its answer needs, by number.
    pub(super) through: u16,
    /// Something older is queued.
    pub(super) is_ahead: bool,
}

/// A transition of the record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) said: Said,
    /// The record afterwards.
    pub(super) record: u32,
    pub(super) is_balanced: bool,
}

/// What the model has to know of a record at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// What is unsent.
    pub(super) unsent: Vec<(u64, Who, Value)>,
    /// The live claim, whose it is, and whether it is the dispatcher's.
    pub(super) claim: Option<(ClaimId, Who)>,
    /// Live places.
    pub(super) places: Vec<(u64, Who)>,
    /// Sequences of places whose time has long been over.
    pub(super) over: Vec<u64>,
}

/// What the core has answered.
pub(super) enum Answer {
    Nothing,
    Known,
    Settled(bool),
    Queued(u64),
    Claimed { seq: u64, who: Who, value: Value },
    Through(Through, Who, Value),
}
