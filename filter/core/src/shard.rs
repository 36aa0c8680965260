//! A shard: some sessions, all their routes, their payloads, and the rules by which they change.
//!
//! A shard is one value of the host's shared data, so one compare-and-swap makes one update, whole:
//! value, sequence, voided siblings, implied state and ledger change together or not at all. Payloads
//! live in here too; a key of their own would lose acknowledged values whenever a worker dies between
//! the two writes.
//!
//! # The life of an entry
//!
//! ```text
//!             offer                     claim, settle: delivered
//!  absent ───────────────▶ Dirty ─────────────────────────────▶ Clean ──▶ (forgotten)
//!     ▲                    │  ▲                                   │
//!     └─ expire, void ─────┘  └───────── offer of a new value ────┘
//! ```
//!
//! *In flight* is no state of its own: it is Dirty while the session has a live claim on it. A claim
//! belongs to the session, not to the entry, because Laravel must never work on two updates of one
//! session at once. `Implied` is a state whose news travels inside another route's item.

mod claim;
mod codec;
mod ending;
mod kept;
mod offer;
mod pass;

#[cfg(test)]
pub(crate) mod tests;

use alloc::borrow::Cow;
use alloc::vec::Vec;

pub use self::claim::{ATTEMPTS_TOGETHER_MAX, Claimed, Outcome, Settled, Wanted, balance};
pub use self::codec::without_ring;
pub use self::ending::{ENDED_MAX, Ended, Ending, Item};
pub use self::kept::{Kept, Place, patch};
pub use self::offer::{Decision, Superseded};
pub use self::pass::{Before, Passed};
use crate::sabotage::{self, Sabotage};

/// Sessions in one shard. About 8 are expected.
pub const SESSIONS_MAX: usize = 32;

/// Sessions in one shard when those are counted too that only pass through a full one: a place for the claim
/// that keeps their order.
pub const SESSIONS_PASSING_MAX: usize = 64;

/// Sessions of a shard that one credential may hold: a noisy tenant leaves room for the others. With 8
/// expected, a lone tenant meets it in one of a million shards.
pub const SESSIONS_SHARE_MAX: usize = 24;

/// Bytes of a shard that one credential may hold.
pub const BYTES_SHARE_MAX: usize = 192 * 1024;

/// Encoded bytes of one shard above which it takes no session that has nothing pending: a get of 256 KiB
/// costs some 50 µs, which is what an intercepted request costs in all.
pub const BYTES_MAX: usize = 256 * 1024;

/// Farthest that a claim's deadline may lie ahead, milliseconds: no configuration has a W, T and L of more
/// than 65 minutes together. What lies farther was spoiled, and would hold its session, and a place among
/// the calls under way, for ever.
const CLAIM_MS_MAX: u64 = 2 * 3_600_000;

/// When an entry was accepted that is no longer surely what Laravel has: no clock shows it, however young its host.
const DOUBTED: u64 = 0;

/// One shard, decoded; payloads are borrowed from the encoded value where they are unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shard<'a> {
    /// Last sequence number given out; the next update gets the one after it.
    pub last_seq: u64,
    /// Last `timestamp` given out, so that they are strictly increasing even if the wall clock steps.
    pub last_wall_ms: u64,
    /// A ring is in the doorbell's queue and nobody has looked since.
    pub rung: bool,
    /// What became of everything accepted.
    pub ledger: Ledger,
    /// The sessions, in order of arrival.
    pub sessions: Vec<Session<'a>>,
}

/// accepted = delivered + superseded + expired + rejected + pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Updates answered `queued`, and implied states that had to be sent after all.
    pub accepted: u64,
    /// Laravel has it.
    pub delivered: u64,
    /// A newer update of the same session took its place, or made it meaningless.
    pub superseded: u64,
    /// Too old to be of use.
    pub expired: u64,
    /// Laravel does not want it.
    pub rejected: u64,
}

/// One session of one authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session<'a> {
    /// Keyed hash of (authority, session).
    pub id: u128,
    /// Sequence of its newest update, on whichever route; outlives the update.
    pub newest_seq: u64,
    /// An answer whose read began before this sequence was settled is not kept: nobody could say any more
    /// what it does not show.
    pub unread_seq: u64,
    /// Sequence of the newest update that passed through and that Laravel took, or may have taken: nothing
    /// older is what Laravel has.
    pub passed_seq: u64,
    /// The webhook has heard of everything up to this sequence.
    pub told_seq: u64,
    /// The call that Laravel may be working on.
    pub claim: Option<Claim<'a>>,
    /// One for each (route, credential).
    pub entries: Vec<Entry<'a>>,
    /// Laravel's own answers, one for each (read, credential).
    pub kept: Vec<Kept<'a>>,
    /// How its last updates ended, for callers that wait to hear of it; empty where no route's do.
    pub ended: Vec<Ended>,
}

/// A dispatcher's right to send one update, and its duty to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Whose.
    pub id: ClaimId,
    /// Route of the claimed entry.
    pub route: Cow<'a, str>,
    /// Credential of the claimed entry.
    pub credential: u64,
    /// The update that was sent; the entry may hold a newer one by now.
    pub seq: u64,
    /// Until then nothing else of the session is sent, whatever happened to the call. Monotonic.
    pub deadline_ms: u64,
}

/// Unique for a process: a leader may claim the same update twice, and must be able to tell the answers
/// apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimId {
    /// Epoch of the leader's lease; [`ClaimId::PASSING`] where a request passes through.
    pub epoch: u64,
    /// The leader's own count of calls, or a passing request's own number.
    pub counter: u64,
}

/// The last value of one route of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The route's name: indexes change with the configuration, the store does not.
    pub route: Cow<'a, str>,
    /// Fingerprint of the caller's credential headers; 0 for none.
    pub credential: u64,
    /// Sequence of the value.
    pub seq: u64,
    /// Keyed hash of the value and of what else must be equal.
    pub value: u128,
    /// When it was accepted. Monotonic.
    pub accepted_ms: u64,
    /// What the sender's own clock said.
    pub order: Option<u64>,
    /// The value itself, where a kept answer shows it.
    pub text: Option<Cow<'a, str>>,
    /// What Laravel knows of it.
    pub state: State<'a>,
}

/// What Laravel knows of an entry's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State<'a> {
    /// Nothing yet: it has to be sent.
    Dirty(Dirty<'a>),
    /// It has it; a duplicate before this time (monotonic) is answered without a call.
    Clean {
        /// Monotonic milliseconds.
        until_ms: u64,
    },
    /// It learns of it from another route's item.
    Implied {
        /// Sequence of that item.
        by: u64,
    },
}

/// A value that Laravel has not got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirty<'a> {
    /// Since when something of this entry is unsent. Monotonic.
    pub since_ms: u64,
    /// The item's `timestamp`, fixed when it was accepted.
    pub timestamp_ms: u64,
    /// How often Laravel refused a call with it.
    pub attempts: u16,
    /// To be sent at once; stays until sent, even if a newer value alone would not need it.
    pub priority: bool,
    /// Encoded [`crate::route::Destination`].
    pub destination: Cow<'a, [u8]>,
    /// The caller's body, byte for byte.
    pub body: Cow<'a, [u8]>,
}

// === impl Shard ===

impl<'a> Shard<'a> {
    /// Updates that are still to be settled.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.sessions
            .iter()
            .flat_map(|session| &session.entries)
            .filter(|e| e.is_dirty())
            .count()
    }

    /// Whether something of this session and credential is still to be sent, or may be under way.
    #[must_use]
    pub fn has_pending(&self, session: u128, credential: u64, mono_ms: u64) -> bool {
        self.session(session).is_some_and(|session| {
            let entries = session.entries.iter();
            let unsent = entries.filter(|e| e.is_dirty()).map(|e| e.credential);
            let under_way = session.live_claim(mono_ms).map(|claim| claim.credential);
            unsent.chain(under_way).any(|known| known == credential)
        })
    }

    /// Forgets sessions that nothing depends on any more. Called at every write: there is no other
    /// occasion, since nobody can list the store.
    pub fn prune(&mut self, mono_ms: u64) {
        for session in &mut self.sessions {
            session.kept.retain(|kept| kept.until_ms > mono_ms);
            session.forget_endings(mono_ms);
        }
        self.sessions
            .retain(|session| !session.is_forgettable(mono_ms));
    }

    /// The session of this name.
    #[must_use]
    pub fn session(&self, id: u128) -> Option<&Session<'a>> {
        self.sessions.iter().find(|session| session.id == id)
    }

    fn session_mut(&mut self, id: u128) -> Option<&mut Session<'a>> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }
}

// === impl ClaimId ===

impl ClaimId {
    /// The epoch of claims that a leader never made: leases count from 1.
    pub const PASSING: u64 = 0;
}

// === impl Session ===

impl<'a> Session<'a> {
    /// One that nothing is known of, at a moment when its shard has given out `last_seq`.
    #[must_use]
    pub fn new(id: u128, last_seq: u64) -> Self {
        Self {
            id,
            newest_seq: 0,
            // It may have been here before, and have been forgotten.
            unread_seq: last_seq,
            passed_seq: 0,
            told_seq: 0,
            claim: None,
            entries: Vec::new(),
            kept: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// The claim, if its deadline has not passed.
    #[must_use]
    pub fn live_claim(&self, mono_ms: u64) -> Option<&Claim<'a>> {
        self.claim
            .as_ref()
            .filter(|claim| (1..=CLAIM_MS_MAX).contains(&claim.deadline_ms.saturating_sub(mono_ms)))
    }

    /// The update to be sent next: the oldest.
    #[must_use]
    pub fn next_due(&self) -> Option<&Entry<'a>> {
        self.entries
            .iter()
            .filter(|entry| entry.is_dirty())
            .min_by_key(|entry| match sabotage::is(Sabotage::YoungestFirst) {
                true => u64::MAX.saturating_sub(entry.seq),
                false => entry.seq,
            })
    }

    /// The entry of a route and credential.
    #[must_use]
    pub fn entry(&self, route: &str, credential: u64) -> Option<&Entry<'a>> {
        self.entries
            .iter()
            .find(|entry| entry.is(route, credential))
    }

    fn entry_mut(&mut self, route: &str, credential: u64) -> Option<&mut Entry<'a>> {
        self.entries
            .iter_mut()
            .find(|entry| entry.is(route, credential))
    }

    /// Puts `entry` in the place of its predecessor.
    fn replace(&mut self, entry: Entry<'a>) {
        match self.entry_mut(&entry.route, entry.credential) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
    }

    fn is_forgettable(&self, mono_ms: u64) -> bool {
        self.live_claim(mono_ms).is_none()
            && self.kept.is_empty()
            && self.ended.is_empty()
            && self.entries.iter().all(|entry| match entry.state {
                State::Dirty(_) => false,
                State::Clean { until_ms } => until_ms <= mono_ms,
                // Lives and dies with the entry that implies it.
                State::Implied { .. } => true,
            })
    }
}

// === impl Entry ===

impl Entry<'_> {
    /// Whether it belongs to this route and credential.
    #[must_use]
    pub fn is(&self, route: &str, credential: u64) -> bool {
        self.route == route && self.credential == credential
    }

    /// Whether Laravel still has to get it.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        matches!(self.state, State::Dirty(_))
    }
}
