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

mod barrier;
mod claim;
mod codec;
mod ending;
mod kept;
mod offer;
mod orphans;
mod unsent;
mod write_through;

#[cfg(test)]
pub(crate) mod tests;

use alloc::borrow::Cow;
use alloc::vec::Vec;

pub use self::barrier::Mark;
pub use self::claim::{Claimed, Outcome, Settled, Wanted, balance};
pub use self::codec::without_ring;
pub use self::ending::{ENDED_MAX, End, Ended, Ending, Item};
pub use self::kept::{KEPT_MAX, Kept, PLACES_MAX, Place, Places, Settling, WAS_MAX, Was, patch};
pub use self::offer::{Decision, Superseded};
pub use self::orphans::ORPHAN_MS;
pub use self::unsent::UNSENT_MAX;
pub use self::write_through::{Ask, Before, Manner, Through, ThroughSettled};
use crate::sabotage::{self, Sabotage};

/// Sessions in one shard. About 8 are expected.
pub const SESSIONS_MAX: usize = 32;

/// Sessions in one shard when those are counted too that are written through a full one: a place for the claim
/// that keeps their order.
pub const SESSIONS_THROUGH_MAX: usize = 64;

/// Sessions of a shard that one credential may hold: a noisy tenant leaves room for the others. With 8
/// expected, a lone tenant meets it in one of a million shards.
pub const SESSIONS_SHARE_MAX: usize = 24;

/// Bytes of a shard that one credential may hold.
pub const BYTES_SHARE_MAX: usize = 192 * 1024;

/// Encoded bytes of one shard above which it takes no session that has nothing pending: a get of 256 KiB
/// costs some 50 µs, which is what an intercepted request costs in all.
pub const BYTES_MAX: usize = 256 * 1024;

/// Orphans that a shard remembers; the one whose time is over first makes room.
pub const ORPHANS_MAX: usize = 4;

/// Requests of one session that may be held at once.
pub const HELD_MAX: usize = 8;

/// Those of them that callers may have who are not proven.
pub const HELD_STRANGERS_MAX: usize = 4;

/// Requests of one session at Laravel beside its claim; what comes on top is not recorded.
pub const BESIDE_MAX: usize = 8;

/// Refused bodies that a session remembers; the oldest makes room.
pub const REFUSED_MAX: usize = 3;

/// For how long, milliseconds: the last of a gateway's retries comes within it.
const REFUSED_MS: u64 = 60_000;

/// Entries of one session: the next caller's updates are written through.
pub const ENTRIES_MAX: usize = 16;

/// Farthest that a deadline may lie ahead, milliseconds: no configuration has a W, T and L of more than 65 minutes
/// together. What lies farther was spoiled, and would hold its session, and a place among the calls under way, for
/// ever. Far above what any deadline is made for: a worker reads its clock before it reads the shard, so another's
/// may be ahead of it.
const AHEAD_MS_MAX: u64 = 2 * 3_600_000;

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
    /// Sessions whose last item Laravel refused for good: they outlive their sessions, or the first repetition
    /// would be queued again.
    pub orphans: Vec<Orphan>,
}

/// A session that Laravel does not know, or wants nothing of: written through for a while, so that the gateway
/// receives Laravel's own refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The session.
    pub session: u128,
    /// For this caller only.
    pub caller: u64,
    /// Until then. Monotonic.
    pub until_ms: u64,
}

/// accepted = delivered + superseded + expired + rejected + voided + pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Updates answered `queued`, and implied states that had to be sent after all.
    pub accepted: u64,
    /// Laravel has it.
    pub delivered: u64,
    /// A newer update of the same session took its place.
    pub superseded: u64,
    /// Too old to be of use.
    pub expired: u64,
    /// Laravel does not want it.
    pub rejected: u64,
    /// A state that opens a gate made it meaningless.
    pub voided: u64,
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
    /// Sequence of the newest update that went through and that Laravel took, or may have taken: nothing
    /// older is what Laravel has.
    pub through_seq: u64,
    /// The webhook has heard of everything up to this sequence.
    pub told_seq: u64,
    /// The call that Laravel may be working on.
    pub claim: Option<Claim<'a>>,
    /// The last one of each (route, credential), and behind it what it does not say anew.
    pub entries: Vec<Entry<'a>>,
    /// Laravel's own answers, one for each (read, credential).
    pub kept: Vec<Kept<'a>>,
    /// How its last updates ended, for callers that wait to hear of it; empty where no route's do.
    pub ended: Vec<Ended>,
    /// Requests at Laravel that hold up nobody else.
    pub beside: Vec<Beside>,
    /// Requests that are held until it is their turn, in the order of their sequences.
    pub held: Vec<HeldPlace>,
    /// Written through and refused: what comes again byte for byte after something newer is old.
    pub refused: Vec<RefusedBody>,
    /// States that Laravel may still show.
    pub settling: Option<Settling<'a>>,
    /// Until then what it has queued goes at once, without its route's gap: a request waits for it. Monotonic.
    pub hurry_until_ms: u64,
}

/// A held request's place in the order of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldPlace {
    /// Its sequence.
    pub seq: u64,
    /// A random number of the VM that holds it.
    pub vm: u64,
    /// Whose it is.
    pub caller: u64,
    /// Its caller is not proven: it holds up nobody else's.
    pub is_stranger: bool,
    /// A place whose deadline has passed is nobody's: a worker that trapped gives nothing back. Monotonic.
    pub deadline_ms: u64,
}

/// A request at Laravel beside the session's claim: of a caller that is not proven, or outside the order. While one
/// is there, the session is unverified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beside {
    /// The request's own number.
    pub number: u64,
    /// Whose it is.
    pub caller: u64,
    /// Its sequence.
    pub seq: u64,
    /// It went on outside the order, and holds up not even its own caller.
    pub is_outside: bool,
    /// When it left. Monotonic.
    pub begun_ms: u64,
    /// Until then Laravel may be at work on it. Monotonic.
    pub deadline_ms: u64,
}

/// A body that was written through, and that Laravel refused for a reason of the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedBody {
    /// Keyed hash of caller, route and body.
    pub body: u64,
    /// Its sequence.
    pub seq: u64,
    /// Until then it is remembered. Monotonic.
    pub until_ms: u64,
}

/// A dispatcher's right to send one update, and its duty to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Whose.
    pub id: ClaimId,
    /// Route of the claimed entry.
    pub route: Cow<'a, str>,
    /// Credential of the claimed entry.
    pub caller: u64,
    /// The update that was sent; the entry may hold a newer one by now.
    pub seq: u64,
    /// Until then nothing else of the session is sent, whatever happened to the call. Monotonic.
    pub deadline_ms: u64,
}

/// Unique for a process: a leader may claim the same update twice, and must be able to tell the answers
/// apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimId {
    /// Epoch of the leader's lease; [`ClaimId::WRITE_THROUGH`] where a request is written through.
    pub epoch: u64,
    /// The leader's own count of calls, or a request's own number.
    pub counter: u64,
}

/// The last value of one route of a session, or one before it that has still to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The route's name: indexes change with the configuration, the store does not.
    pub route: Cow<'a, str>,
    /// Fingerprint of the caller's credential headers; 0 for none.
    pub caller: u64,
    /// Sequence of the value.
    pub seq: u64,
    /// Keyed hash of all that it says; 0 where another's item implies it.
    pub value: u128,
    /// Keyed hash of the value alone.
    pub word: u64,
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
    /// Failed calls that it was part of; the value that supersedes it inherits them.
    pub attempts: u16,
    /// What happened to it alone.
    pub trial: Trial,
    /// To be sent at once; stays until sent, even if a newer value alone would not need it.
    pub priority: bool,
    /// Encoded [`crate::route::Destination`].
    pub destination: Cow<'a, [u8]>,
    /// Encoded [`crate::route::Neutral`]: what it takes along if it goes alone.
    pub neutral: Cow<'a, [u8]>,
    /// Hash of the names of its members.
    pub members: u64,
    /// The caller's body, byte for byte.
    pub body: Cow<'a, [u8]>,
}

/// What happened to an item that is suspected of being what Laravel fails on, or refuses: one that was named, or
/// that was sent by itself, to its own path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// It travels alone, to its own path, until it is accepted; of one that does not, nothing else is known.
    pub alone: bool,
    /// Not before this, whatever its partition does: its own back-off. Monotonic.
    pub not_before_ms: u64,
    /// The last failure alone was no answer of Laravel's: it may have been taken.
    pub lost: bool,
    /// Failures alone (5xx, no answer).
    pub failures: u16,
    /// When the first of them was. Monotonic.
    pub failed_since_ms: u64,
    /// Refusals alone (4xx, a 2xx that says failure).
    pub refusals: u16,
    /// When the last of them was. Monotonic.
    pub refused_ms: u64,
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
    pub fn has_pending(&self, session: u128, caller: u64, mono_ms: u64) -> bool {
        self.session(session).is_some_and(|session| {
            let entries = session.entries.iter();
            let unsent = entries.filter(|e| e.is_dirty()).map(|e| e.caller);
            let under_way = session.live_claim(mono_ms).map(|claim| claim.caller);
            unsent.chain(under_way).any(|known| known == caller)
        })
    }

    /// Whether something of this session is still to be sent, is held, or may be under way.
    #[must_use]
    pub fn is_waiting(&self, session: u128, mono_ms: u64) -> bool {
        self.session(session).is_some_and(|session| {
            session.live_claim(mono_ms).is_some()
                || !session.held.is_empty()
                || session.next_due().is_some()
        })
    }

    /// Whether anything is known of this session that a request of it could make wrong.
    #[must_use]
    pub fn is_known(&self, session: u128, mono_ms: u64) -> bool {
        self.is_waiting(session, mono_ms)
            || self
                .session(session)
                .is_some_and(|session| !session.entries.is_empty() || !session.kept.is_empty())
    }

    /// Forgets sessions that nothing depends on any more. Called at every write: there is no other
    /// occasion, since nobody can list the store.
    pub fn prune(&mut self, mono_ms: u64) {
        for session in &mut self.sessions {
            session.forget_settling(mono_ms);
            // Of most sessions only the last values are known.
            if session.claim.is_none() && session.has_little() {
                continue;
            }
            session.kept.retain(|kept| kept.until_ms > mono_ms);
            session.forget_endings(mono_ms);
            session.forget_places(mono_ms);
            session.forget_hurry(mono_ms);
            if session.forget_lost(mono_ms) {
                session.unverify(&mut self.last_seq);
            }
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

/// Whether this moment is still to come, and not so far away that it was spoiled.
fn is_ahead(until_ms: u64, mono_ms: u64) -> bool {
    (1..=AHEAD_MS_MAX).contains(&until_ms.saturating_sub(mono_ms))
}

// === impl ClaimId ===

impl ClaimId {
    /// The epoch of claims that a leader never made: leases count from 1.
    pub const WRITE_THROUGH: u64 = 0;
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
            through_seq: 0,
            told_seq: 0,
            claim: None,
            entries: Vec::new(),
            kept: Vec::new(),
            ended: Vec::new(),
            beside: Vec::new(),
            held: Vec::new(),
            refused: Vec::new(),
            settling: None,
            hurry_until_ms: 0,
        }
    }

    /// The claim, if its deadline has not passed.
    #[must_use]
    pub fn live_claim(&self, mono_ms: u64) -> Option<&Claim<'a>> {
        self.claim
            .as_ref()
            .filter(|claim| is_ahead(claim.deadline_ms, mono_ms))
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

    /// Whether this unsent entry may be sent now: its own wait is over, and nothing older holds it up. `refused`
    /// are callers that Laravel refuses at the moment.
    #[must_use]
    pub fn may_go(&self, entry: &Entry<'_>, refused: &[u64], mono_ms: u64) -> bool {
        let State::Dirty(dirty) = &entry.state else {
            return false;
        };
        dirty.trial.not_before_ms <= mono_ms
            && !self
                .entries
                .iter()
                .any(|other| other.holds_up(entry, refused))
    }

    /// Whether nothing else of it is known, but for a claim.
    fn has_only_entries(&self) -> bool {
        self.has_little() && self.settling.is_none()
    }

    /// The same, but for what has not settled.
    fn has_little(&self) -> bool {
        self.beside.is_empty()
            && self.held.is_empty()
            && self.refused.is_empty()
            && self.kept.is_empty()
            && self.ended.is_empty()
            && self.hurry_until_ms == 0
    }

    fn is_forgettable(&self, mono_ms: u64) -> bool {
        self.live_claim(mono_ms).is_none()
            && self.has_only_entries()
            && self.entries.iter().all(|entry| match entry.state {
                State::Dirty(_) => false,
                State::Clean { until_ms } => until_ms <= mono_ms,
                // Lives and dies with the entry that implies it.
                State::Implied { .. } => true,
            })
    }
}

// === impl Trial ===

impl Trial {
    /// Whether an unsent item of `caller` with this trial holds up a younger one of its session, `other`'s.
    ///
    /// What is older goes first. Only, what threw alone may throw for ever, and what a refused caller has waits for
    /// that caller: neither may cost the session its next update. Nobody knows of one that was lost that it is the
    /// row's fault, and its next try would undo what went before it meanwhile.
    #[must_use]
    pub fn holds_up(&self, caller: u64, other: u64, refused: &[u64]) -> bool {
        let is_refused = caller != other && (self.refusals > 0 || refused.contains(&caller));
        let has_thrown = self.failures > 0 && (!self.lost || sabotage::is(Sabotage::PassTheLost));
        !has_thrown && !is_refused
    }
}

// === impl Dirty ===

impl Dirty<'_> {
    /// Bytes of its body, and of what says where it goes.
    fn bytes(&self) -> usize {
        let parts = [&self.body, &self.destination, &self.neutral];
        parts
            .iter()
            .map(|part| part.len())
            .fold(0, usize::saturating_add)
    }
}

// === impl Entry ===

impl Entry<'_> {
    /// Whether it belongs to this route and credential.
    #[must_use]
    pub fn is(&self, route: &str, caller: u64) -> bool {
        self.route == route && self.caller == caller
    }

    fn holds_up(&self, entry: &Entry<'_>, refused: &[u64]) -> bool {
        let State::Dirty(dirty) = &self.state else {
            return false;
        };
        let is_first = match sabotage::is(Sabotage::YoungestFirst) {
            true => self.seq > entry.seq,
            false => self.seq < entry.seq,
        };
        is_first && dirty.trial.holds_up(self.caller, entry.caller, refused)
    }

    /// Whether it tells of a state that Laravel still has to get.
    pub(super) fn is_unsent_state(&self) -> bool {
        self.text.is_some() && self.is_dirty()
    }

    /// Whether Laravel still has to get it.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        matches!(self.state, State::Dirty(_))
    }
}
