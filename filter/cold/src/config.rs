//! What an operator may set, validated once.
//!
//! [`Config::parse`] is the only constructor: it reports every problem at once, each with its JSON
//! pointer, and what it returns cannot be inconsistent, so that nothing behind it checks again. `{}` is
//! a whole configuration: the defaults are the gateway and the Laravel that exist.

mod barriers;
mod classes;
mod fallback;
mod fields;
mod parse;
mod path;
mod presets;
mod rules;

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use self::classes::{Class, Classes, Pattern};
pub use self::fallback::Fallback;
pub use self::path::Path;
use crate::json::Pointer;
use crate::sabotage::{self, Sabotage};

/// Longest time that a lease may last for, milliseconds.
pub const LEASE_MAX_MS: u64 = 60_000;

/// Sessions a shard holds on average; with a keyed hash more than `shard::SESSIONS_MAX` in one
/// of 2048 shards is a 3·10⁻¹¹ event.
const SESSIONS_PER_SHARD: u64 = 8;

/// The longest that a caller may be held, milliseconds: gateways give up after a minute at the latest.
pub const ACK_TIMEOUT_MAX_MS: u64 = 60_000;

/// Most rules: a request's candidates are one bit each in a 64-bit word.
pub const ROUTES_MAX: usize = 64;

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of shards, fixed for the life of the process. `max_sessions` / 8.
    pub shards: u32,
    /// How fast, and how many at once, the dispatcher calls.
    pub pace: Pace,
    /// The times that make a claim safe.
    pub times: Times,
    /// Back-off of a destination, milliseconds.
    pub backoff: BackoffRange,
    /// How long a delivered value is remembered.
    pub dedup: Dedup,
    /// Calls of priority items to one route are this far apart at least, milliseconds.
    pub priority_gap_ms: u64,
    /// Status of Embudo's own answers.
    pub answer_status: u16,
    /// How long a caller is held at most to hear what became of its update, milliseconds.
    pub ack_timeout_ms: u64,
    /// A request with this header passes through, whatever its value.
    pub bypass_header: String,
    /// How long a request is held at most until it is its turn, milliseconds.
    pub hold_ms: u64,
    /// What each request header is.
    pub headers: Classes,
    /// What is believed of Laravel without having been seen.
    pub assume: Assume,
    /// Where batches go.
    pub upstream: Upstream,
    /// Where updates go while Laravel takes none.
    pub fallback: Option<Fallback>,
    /// A Laravel whose calls take longer than this, smoothed, is slow; milliseconds.
    pub slow_ms: u64,
    /// What may precede a route's path. The first that fits wins.
    pub prefixes: Vec<String>,
    /// The rules, in the order in which they are tried; at most [`ROUTES_MAX`].
    pub routes: Vec<Route>,
    /// Batches of the gateway's own, tried after the rules.
    pub splits: Vec<Split>,
    /// Requests of other paths that wait for what is on its way of their session.
    pub barriers: Vec<Barrier>,
    /// Lower-case names of the headers in which a rule looks for a session or its tenant.
    pub session_headers: Vec<String>,
    /// Answers of Laravel's that are kept.
    pub reads: Vec<Read>,
    /// How long they are kept.
    pub kept: KeptTimes,
}

/// The dispatcher's limits.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Evenly spaced, no burst.
    pub max_requests_per_second: u64,
    /// Calls under way; must stay below the cluster's circuit breakers, or overflow looks like ejection.
    pub max_in_flight: u64,
    /// Single items, where they go one by one: a pace of their own.
    pub max_singles_per_second: u64,
}

/// W, T and L of the delivery rules, and the lease. Milliseconds.
#[derive(Clone, Debug)]
pub struct Times {
    /// T: the timeout of a call.
    pub call_timeout_ms: u64,
    /// W: a claimed batch is sent within this, or not at all.
    pub send_window_ms: u64,
    /// L: how long Laravel may go on with a request that Envoy has given up.
    pub late_ms: u64,
    /// Life of the leader's lease.
    pub lease_ms: u64,
}

/// Bounds of an exponential back-off with full jitter, milliseconds.
#[derive(Clone, Debug)]
pub struct BackoffRange {
    /// The least wait after a failure.
    pub min_ms: u64,
    /// The most.
    pub max_ms: u64,
}

/// How long a delivered value answers for its duplicates, milliseconds.
#[derive(Clone, Debug)]
pub struct Dedup {
    /// A delivered value is forgotten after this long without a duplicate.
    pub ttl_ms: u64,
    /// One duplicate is let through when the value is this old, to heal a difference.
    pub max_age_ms: u64,
}

/// What an operator knows, so that Embudo need not see it first.
#[derive(Clone, Debug, Default)]
pub struct Assume {
    /// Laravel accepts every caller. Only where nobody but the gateway can reach Envoy: a stranger's update with a
    /// false credential is answered 200, too, and holds its session's order until Laravel has refused it.
    pub callers: bool,
    /// Laravel sets the state that a rule `implies` with the item itself. Where it does not, that state is lost.
    pub implies: bool,
    /// An answer to a read shows nothing but the state that changes with it. Where it does, an old QR or phone is shown.
    pub reads: bool,
}

/// Where the dispatcher's calls go, and how they look.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Envoy cluster; the one with the breaker.
    pub cluster: String,
    /// Replaces the callers' `:authority`.
    pub authority: Option<String>,
    /// Replaces the callers' prefix.
    pub prefix_rewrite: Option<String>,
    /// Added to every call.
    pub headers: Vec<(String, String)>,
}

/// One kind of update.
#[derive(Clone, Debug)]
pub struct Route {
    /// Label in metrics, and part of the entry's key in the store.
    pub name: String,
    /// Request method, upper case.
    pub method: String,
    /// Path without the prefix, as in `/qr`.
    pub path: Path,
    /// What a body must say for the rule to fit; any body where absent.
    pub fits: Option<Match>,
    /// Where the session's name is; the first hit wins.
    pub session: Vec<Place>,
    /// Where it is said whose session it is, if sessions of two tenants may have one name; the first hit wins.
    pub tenant: Vec<Place>,
    /// Where the value is; the first hit wins.
    pub value: Vec<Pointer>,
    /// What a walk digests: the pointers of `tenant`.
    pub digested: Vec<Pointer>,
    /// The sender's own clock; the first hit wins. What is older than the session's last is stale.
    pub order: Vec<Pointer>,
    /// What changes with each delivery. A refused body that has one of these, and comes again, is a repeat.
    pub volatile: Vec<Pointer>,
    /// What is no part of what an update says: that, and the sender's clock.
    pub unsaid: Vec<Pointer>,
    /// Values that are sent at once.
    pub priority: Priority,
    /// ... unless the session's last value was one of these.
    pub not_priority_after: Vec<String>,
    /// What is sent at once whatever it says, if the session's last value was one of these, or is not known.
    pub priority_after: Vec<String>,
    /// Values that are never duplicates.
    pub no_dedup: Vec<String>,
    /// Routes that tell of one state: a value is a duplicate only while nothing newer of the family is
    /// known. A route without one is a family of its own.
    pub family: Option<String>,
    /// What an item of this route may set of another route. Its items say so; that they do is believed only where
    /// it is assumed: see [`Route::implied`].
    pub implies: Option<Implies>,
    /// The route, if any, whose `implies` names this one. Index into [`Config::routes`].
    pub implied_by: Option<usize>,
    /// Whose unsent items a value of this route makes meaningless.
    pub voids: Option<Voids>,
    /// Items older than this are dropped unsent; none for states.
    pub expire_after_ms: Option<u64>,
    /// A kept answer shows this route's value, so the store keeps its text.
    pub is_shown: bool,
    /// When its callers are answered.
    pub ack: Ack,
    /// How items travel.
    pub batch: Batch,
}

/// When a caller is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// As soon as its update is in the store.
    Accept,
    /// Once its update, or the one that superseded it, is settled.
    Delivered,
}

/// What a body must say: the string at `pointer` is one of `values`.
#[derive(Clone, Debug)]
pub struct Match {
    /// Where.
    pub pointer: Pointer,
    /// One of these.
    pub values: Vec<String>,
}

/// Where the name of a session is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the body: a string, or a whole number.
    Body(Pointer),
    /// The `{session}` segment of the path.
    Segment,
    /// A parameter of the query string.
    Query(String),
    /// A header, lower case.
    Header(String),
    /// One name for all requests of the rule.
    Constant(String),
}

/// Which values are sent at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Every one.
    Always,
    /// These.
    Values(Vec<String>),
}

/// A batch of the gateway's own: each of its items is an update.
#[derive(Clone, Debug)]
pub struct Split {
    /// By which an operator changes it.
    pub name: String,
    /// Request method, upper case.
    pub method: String,
    /// Path without the prefix, as in `/qr/batch`.
    pub path: String,
    /// Where in the body the items are.
    pub at: Pointer,
    /// Whose updates they are. Index into [`Config::routes`].
    pub route: usize,
}

/// A request that waits for what is on its way of its session.
#[derive(Clone, Debug)]
pub struct Barrier {
    /// Request method, upper case.
    pub method: String,
    /// Path without the prefix, with the `{session}` segment.
    pub path: Path,
    /// Nobody knows what Laravel has of the session after it.
    pub forgets: bool,
}

/// An answer of Laravel's to a GET that is kept and served from the store.
#[derive(Clone, Debug)]
pub struct Read {
    /// Label in metrics, behind `get_`, and part of the kept body's key in the store.
    pub name: String,
    /// Path without the prefix, with the `{session}` segment.
    pub path: Path,
    /// The route whose newest value the body must show. Index into [`Config::routes`].
    pub state: usize,
    /// Where in the body the value is; the first hit that is a string wins.
    pub value: Vec<Pointer>,
}

/// How long kept answers serve, milliseconds.
#[derive(Clone, Debug)]
pub struct KeptTimes {
    /// Laravel is asked again when its answer is older than this.
    pub refresh_ms: u64,
    /// While it fails, the kept one serves for this much longer.
    pub stale_if_error_ms: u64,
    /// So long after a delivery an answer may still show the state from before it.
    pub settle_ms: u64,
    /// How long asking again may take before the kept one serves.
    pub refresh_timeout_ms: u64,
}

/// Accepting an item makes `value` the last one of `route`, for the same session, at some Laravels.
#[derive(Clone, Debug)]
pub struct Implies {
    /// [`Assume::implies`].
    pub is_assumed: bool,
    /// Index into [`Config::routes`].
    pub route: usize,
    /// The implied value.
    pub value: String,
    /// The key under which the value rides in the implying item: `estado_qr`.
    pub key: String,
    /// The key of the session in a body of the implied route.
    pub session_key: String,
}

/// Values that make other routes' unsent items of the same session meaningless.
#[derive(Clone, Debug)]
pub struct Voids {
    /// The values of this route that do it.
    pub values: Vec<String>,
    /// Indexes into [`Config::routes`].
    pub routes: Vec<usize>,
}

/// How a route's items travel.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The batch; without one, items go one by one to the path they came to.
    pub call: Option<BatchCall>,
    /// Items a call.
    pub max_items: usize,
    /// Bytes of a call's body; the first item always fits.
    pub max_bytes: usize,
    /// Time alone makes a call at most this often, milliseconds.
    pub max_wait_ms: u64,
    /// A lone item waits this long for company, or for a newer value, milliseconds.
    pub quiet_ms: u64,
}

/// The batch route at Laravel.
#[derive(Clone, Debug)]
pub struct BatchCall {
    /// Path without the prefix, as in `/qr/batch`.
    pub path: String,
    /// The array's key in the body, as in `qrs`.
    pub field: String,
    /// Items are the callers' bodies as they are, with nothing added.
    pub verbatim: bool,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// JSON pointer to the place; empty for the document itself.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub message: String,
}

// === impl Config ===

impl Config {
    /// Reads and validates a configuration. Empty input counts as `{}`, as Envoy gives it where an
    /// operator wrote none.
    ///
    /// # Errors
    /// Every problem found, in the order of the document.
    pub fn parse(json: &[u8]) -> Result<Self, Vec<Problem>> {
        parse::config(json)
    }

    /// D ≥ W + T + L: how long a claim protects a session whose call's fate is unknown, milliseconds.
    #[must_use]
    pub fn claim_ms(&self) -> u64 {
        let Times {
            call_timeout_ms,
            send_window_ms,
            late_ms,
            ..
        } = self.times;
        send_window_ms
            .saturating_add(call_timeout_ms)
            .saturating_add(late_ms)
    }

    /// Whether any route's callers wait for what becomes of their updates.
    #[must_use]
    pub fn holds_callers(&self) -> bool {
        self.routes.iter().any(|route| route.ack == Ack::Delivered)
    }

    /// The route with this name, and its index.
    #[must_use]
    pub fn route_named(&self, name: &str) -> Option<(usize, &Route)> {
        self.routes
            .iter()
            .enumerate()
            .find(|(_, route)| route.name == name)
    }
}

// === impl Route ===

impl Route {
    /// The JSON pointers among the session's places.
    pub fn session_pointers(&self) -> impl Iterator<Item = &Pointer> {
        pointers(&self.session)
    }

    /// Whether a query string is part of what the rule understands.
    #[must_use]
    pub fn takes_query(&self) -> bool {
        let mut places = self.session.iter().chain(&self.tenant);
        places.any(|place| matches!(place, Place::Query(_)))
    }

    /// What accepting an item of this route does say about another route.
    #[must_use]
    #[inline]
    pub fn implied(&self) -> Option<&Implies> {
        let assumed = |it: &&Implies| it.is_assumed || sabotage::is(Sabotage::ImplyUnassumed);
        self.implies.as_ref().filter(assumed)
    }

    /// Whether both tell of the same state of a session.
    #[must_use]
    pub fn is_kin(&self, other: &Self) -> bool {
        self.name == other.name || (self.family.is_some() && self.family == other.family)
    }
}

fn pointers(places: &[Place]) -> impl Iterator<Item = &Pointer> {
    places.iter().filter_map(|place| match place {
        Place::Body(pointer) => Some(pointer),
        _ => None,
    })
}

// === impl Priority ===

impl Priority {
    /// Whether a value is sent at once.
    #[must_use]
    pub fn holds(&self, value: &str) -> bool {
        match self {
            Self::Always => true,
            Self::Values(values) => values.iter().any(|known| known == value),
        }
    }
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.as_str() {
            "" => write!(f, "the configuration: {}", self.message),
            pointer => write!(f, "{pointer}: {}", self.message),
        }
    }
}
