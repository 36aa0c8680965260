//! What is written through, as a graph of its own: every state, every step.
//!
//! # Who takes part
//!
//! A proven caller, whose updates are queued or written through (which of the two is the record's state and the
//! circuit's to decide: here either may happen at any time), and a stranger, whose updates are always written through;
//! once one of them was accepted, those that are held may be queued.
//! What cannot go at once is held, by a worker that looks at any time, or never again because it has died. One
//! dispatcher claims, sends and settles. Requests arrive, fail, end late or never arrive; definite answers are true,
//! and whoever waits may give up or die at any step.
//!
//! # What has to hold
//!
//! *Always*: what goes in the order is taken by Laravel in that order, and one at a time; no claim replaces a live one;
//! nothing of the stranger's, until it is queued itself, holds the proven caller up; what is answered as known is what Laravel has, or will have,
//! whatever becomes of what is under way; the ledger balances; and where nothing is pending or under way, Laravel
//! holds nothing older than what the gateway was told is accepted. *From everywhere*: if all is well from now on,
//! everything ends, and nobody is held longer than the places before it last.
//!
//! # What is not promised
//!
//! What goes outside the order overtakes and is overtaken, also where it is queued to be said once more: then Laravel
//! may end on it, and all that has to hold is that nothing is answered as known. The same goes for the stranger's. And
//! what went before an older one of its own route, for its acceptance to make that superfluous, is undone by it where its
//! worker dies before it has settled: the gateway was told of the older one only.
//! Nor does a queued QR become news again where a state that voids it is queued behind it by another caller, as it does
//! where that is its own caller's.
//!
//! # What is left out
//!
//! What the other exploration has: two dispatchers, late clocks, the get and the put as two steps, expiry; and that the
//! record forgets duplicates by age. Requests of which only the session was seen, several of one caller's streams at one
//! worker (here each has a worker of its own, that dies alone), and the limits of places.

mod act;
mod ask;
mod bend;
pub(crate) mod explore;
mod level;
mod record;
pub(crate) mod story;
pub(crate) mod world;

use self::record::Records;
use self::world::World;
use super::value::Value;

/// Who sends an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Who {
    Proven,
    Stranger,
}

/// Who may send what, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cast {
    /// Updates of the proven caller that are offered to be queued.
    pub(crate) offers: u8,
    /// Updates of the proven caller that are written through.
    pub(crate) throughs: u8,
    /// Updates of the stranger.
    pub(crate) strangers: u8,
    /// What the proven caller may say.
    pub(crate) values: &'static [Value],
    /// What the stranger may say.
    pub(crate) strange: &'static [Value],
}

/// One atomic step of somebody. Calls and held requests are named by their place among the world's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A worker takes an update of the proven caller in, to be queued.
    Offer(Value),
    /// An update arrives that is written through; there is room to hold it, or not.
    Arrive(Who, Value, bool),
    /// A worker looks whether it is this held request's turn.
    Turn(usize),
    /// A worker finds that a held request's caller is proven by now, and queues it in its place.
    Queue(usize),
    /// The caller of a held request hangs up.
    Leave(usize),
    /// The worker of a held request dies: its place stays behind.
    HolderDies(usize),
    /// The dispatcher claims what is due, and sends it.
    Claim,
    /// Laravel has taken it.
    Finish(usize),
    /// It never arrives, or Laravel refuses it.
    Fail(usize),
    /// Whoever waits for it hears Laravel's answer.
    Hear(usize),
    /// Whoever waits for it hears of a timeout.
    GiveUp(usize),
    /// Whoever waits for it dies: nobody settles it.
    WaiterDies(usize),
    /// Some writer forgets what is over.
    Tidy,
    /// And a place that was left behind long ago.
    Forget(u64),
    /// Time passes.
    Tick,
}

/// A rule taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A held request has no place in the record.
    HeldWithoutPlace,
    /// A place has no deadline.
    PlaceWithoutEnd,
    /// The dispatcher claims whatever is due, held requests or not.
    ClaimPastPlaces,
    /// A write-through does not wait for what is queued before it.
    ThroughOverQueued,
    /// A held request goes on although a call of its session is under way.
    TurnDespiteClaim,
    /// A held request whose time is over goes on as if its place were still its own.
    LateIsInOrder,
    /// The stranger takes the session's claim, as the proven caller does.
    StrangerClaims,
    /// A write-through of unknown outcome counts as one that never was.
    UnknownIsDefinite,
    /// The same of the stranger's only.
    StrangersUnknownIsDefinite,
    /// The stranger leaves the session as verified as it was.
    StrangerLeavesVerified,
    /// What is queued in its place does, whatever has gone past it.
    QueuedInPlaceVerified,
}

/// A rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    OlderAfterNewer,
    Overlap,
    ClaimOverLiveClaim,
    LedgerOutOfBalance,
    NoDuplicate,
    HeldUpByStranger,
    LaravelEndsElsewhere,
    Stuck,
}

/// What came of an action.
pub(crate) enum Outcomes {
    /// It cannot happen here.
    Impossible,
    Next(World),
    Broken(Broken),
}

/// The protocol, or a mutation of it.
pub(crate) struct Protocol {
    pub(crate) records: Records,
    pub(crate) cast: Cast,
}

// === impl Protocol ===

impl Protocol {
    pub(crate) fn new(cast: Cast, mutation: Option<Mutation>) -> Self {
        Self {
            records: Records::new(&cast, mutation),
            cast,
        }
    }
}
