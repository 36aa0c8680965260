//! What a request is: recognised in two steps, from its headers and from its body.
//!
//! Recognition never fails. A request is either an update, or it is Laravel's business, and then it
//! passes through with a [`Bypass`] that says why, for the operator's counters.

mod barred;
mod batch;
mod body;
mod clock;
mod destination;
mod fresh;
mod head;
mod known;
mod said;

use alloc::string::String;
use core::fmt;

pub use self::barred::Barred;
pub use self::batch::{BATCH_BYTES_MAX, Batch, BatchHead};
pub(crate) use self::body::SEEN_UPDATE;
pub use self::body::{Said, Update};
pub use self::destination::{Destination, Encoded, Neutral};
pub use self::fresh::FreshHeader;
pub use self::head::{Head, Origin};
pub use self::known::{KnownHeads, Numbered};
pub use self::said::KnownBodies;
use crate::config::{Config, Implies, Place, Read, Route};
use crate::hash::{HashKey, folded, mixed};
use crate::headers::Header;
use crate::json::Unreadable;
use crate::proof::{Shown, Subject};
use crate::query::decoded;

/// Longest body that is queued, bytes. A QR as an image is 16 KiB at most; a batch must hold a few.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// As much of a value tells it from the configuration's words, with its length, bytes: those are words, and a QR is not.
const WORD_BYTES: usize = 64;

/// The configuration and the hash key: everything that recognising and comparing needs.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The validated configuration.
    pub config: Config,
    /// The key of this process's hashes.
    pub key: HashKey,
}

/// Why a request passes through untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bypass {
    /// No rule has this method and path.
    Path,
    /// The rules of its path know no query string.
    Query,
    /// It carries the bypass header.
    Header,
    /// It carries a signature of its body.
    Signature,
    /// It is another method to Laravel than to Envoy: `x-http-method-override`, or a member `_method`.
    Override,
    /// Nothing of its caller was accepted at its destination yet, or nothing since it was refused; or nothing of its
    /// route was.
    Unproven,
    /// Laravel has refused its session for good a moment ago.
    Orphan,
    /// Somebody else answers in Laravel's stead.
    Outage,
    /// Its content type is not JSON, or its body is encoded.
    Encoding,
    /// A header that has to be carried is not UTF-8, or there is too much of them.
    HeaderBytes,
    /// It has no body.
    Empty,
    /// Its body is longer than [`BODY_BYTES_MAX`].
    TooLarge,
    /// Its body is not JSON that PHP reads.
    Syntax,
    /// Its body is JSON, but no object.
    NotAnObject,
    /// An object in its body names a key twice.
    DuplicateKey,
    /// A key in its body begins with U+0000.
    OddKey,
    /// Its body is nested too deep.
    TooDeep,
    /// Its body is none that a rule fits: another event of the same URL.
    Unmatched,
    /// It has no session, or one that is neither a string nor a whole number.
    NoSession,
    /// It has no value, or one that is not a string.
    NoValue,
    /// The cluster of the batches does not exist, and nothing of its session is pending.
    Misconfigured,
    /// Its shard has no room, and nothing of its session is pending.
    ShardFull,
    /// The host's shared data could not be read or written.
    Store,
    /// A batch of the gateway's own that says more than its items, or whose route's callers wait.
    Batch,
    /// A barrier's request: it waits, and is nobody's update.
    Barrier,
}

/// A request that goes on untouched: why, and what can be seen of its session all the same.
///
/// Where nothing can be seen the request is nobody's: no place in a session's order is lost by it. Where something
/// can, whatever is queued of that session must not overtake it, and what is known of it may be wrong afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bypassed {
    /// Why.
    pub reason: Bypass,
    /// Of whom it speaks.
    pub seen: Option<Seen>,
}

/// Of whom a request speaks that bypasses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Index into [`Config::routes`].
    pub route: usize,
    /// What the store calls the session, as in [`Said::session`].
    pub session: u128,
    /// Who sends it, as in [`Said::caller`].
    pub caller: u64,
    /// Keyed hash of cluster, authority and prefix.
    pub destination_hash: u64,
}

/// A GET whose answer may be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Index into [`Config::reads`].
    pub read: usize,
    /// What the store calls the session, as in [`Said::session`].
    pub session: u128,
    /// Who asks, as in [`Said::caller`].
    pub caller: u64,
    /// Keyed hash of cluster, authority and prefix.
    pub destination_hash: u64,
    /// Keyed hash of all its headers but tracing, ids and what tells nobody apart: whoever sends another language,
    /// address or scheme may be answered otherwise.
    pub reader: u64,
    /// Who reads, and where.
    pub subject: Subject,
    /// The caller wants Laravel's own answer of this moment.
    pub no_cache: bool,
    /// Its answer may be kept, and a kept one may answer it; else it is only shown what it must not be older than.
    pub may_keep: bool,
}

/// What is within the quotes of a string.
fn unquoted(raw: &[u8]) -> &[u8] {
    match raw {
        [b'"', text @ .., b'"'] => text,
        raw => raw,
    }
}

// === impl Rules ===

impl Rules {
    /// The rule at an index that [`Head`] or [`Update`] carries.
    #[must_use]
    #[inline]
    pub fn route(&self, index: usize) -> Option<&Route> {
        self.config.routes.get(index)
    }

    /// Recognises a GET whose answer may be kept. `None` for whatever else, and for what Laravel has to
    /// judge by itself.
    #[must_use]
    pub fn asked<'h>(&self, headers: impl Iterator<Item = Header<'h>> + Clone) -> Option<Asked> {
        let method = headers.clone().find(|(name, _)| *name == b":method");
        if method.is_some_and(|(_, method)| method != b"GET") {
            return None;
        }
        let mut gathered = self.gathered(headers, true);
        let (path, query) = head::split_query(gathered.path);
        let (read, prefix, segment) =
            self.config
                .reads
                .iter()
                .enumerate()
                .find_map(|(index, read)| {
                    self.config.prefixes.iter().find_map(|prefix| {
                        let rest = path.strip_prefix(prefix.as_bytes())?;
                        Some((index, prefix.as_str(), read.path.fit(rest)?))
                    })
                })?;
        if gathered.is_odd || gathered.asks.is_own {
            return None;
        }
        let session = decoded(segment)?;
        let origin = self.goes_to(&mut gathered.destination, prefix).ok()?;
        let of = self.read(read);
        let state = of.and_then(|read| self.route(read.state));
        // A read has no body: what it says of the tenant stands in its headers.
        let tenant = state.and_then(|rule| {
            let mut places = rule.tenant.iter();
            places.find_map(|place| match place {
                Place::Header(name) => head::value_of(&gathered.named, name),
                Place::Constant(text) => Some(text.as_str()),
                _ => None,
            })
        });
        let tenant = tenant.map(|tenant| self.key.hash(&[tenant.as_bytes()]));
        Some(Asked {
            read,
            session: self.session_hash(origin, tenant, &session),
            caller: origin.caller,
            destination_hash: origin.destination_hash,
            reader: self.key.hash(&[&gathered.asks.told]) as u64,
            subject: Subject::new(origin.caller, origin.destination_hash, ""),
            no_cache: gathered.asks.no_cache,
            may_keep: query.is_none() && gathered.asks.origins < 2,
        })
    }

    /// What is believed of a caller's reads that show one state after another, as they are written there, in their quotes
    /// or without.
    #[must_use]
    #[inline]
    pub fn shown(&self, asked: &Asked, before: &[u8], state: &[u8]) -> Shown {
        let name = self.read(asked.read).map_or("", |read| &read.name);
        // The caller's is a keyed hash: nobody outside can aim at what is made of it, and these are made at every read.
        let of = |hash: u64, text: &[u8]| mixed(folded(hash, text), text.len() as u64);
        let reads = of(asked.subject.caller, name.as_bytes());
        Shown {
            key: of(of(reads, unquoted(before)), unquoted(state)),
            reads,
            destination: asked.destination_hash,
        }
    }

    /// The read at an index that [`Asked`] carries.
    #[must_use]
    #[inline]
    pub fn read(&self, index: usize) -> Option<&Read> {
        self.config.reads.get(index)
    }

    /// The name of a session in the store: where it is, its tenant by headers and by the rule's place, and its own.
    ///
    /// Of two parts, so that who takes over what was for one destination finds the same session's name at another.
    #[must_use]
    #[inline]
    pub fn session_hash(&self, origin: Origin, tenant: Option<u128>, session: &str) -> u128 {
        let bytes = tenant.unwrap_or_default().to_le_bytes();
        let tenant = tenant.map_or(&[][..], |_| &bytes);
        origin.tenant ^ self.key.hash(&[tenant, session.as_bytes()])
    }

    /// A random name of the store's life, told apart from others and never ordered.
    #[must_use]
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.key.hash(&[b"epoch"]) as u64
    }

    /// Whether the route of this name tells of the same state as `rule`.
    #[must_use]
    #[inline]
    pub fn is_kin(&self, rule: &Route, name: &str) -> bool {
        rule.name == name
            || (rule.family.is_some()
                && self
                    .config
                    .route_named(name)
                    .is_some_and(|(_, other)| rule.is_kin(other)))
    }

    /// The hash of a value alone, whatever is said beside it: it is held against the configuration's words, and a sender
    /// that makes two of its own meet has said the other.
    #[must_use]
    #[inline]
    pub fn word_hash(&self, value: &str) -> u64 {
        let seed = u128::from_le_bytes(self.key.bytes()) as u64;
        let bytes = value.as_bytes();
        let first = bytes.get(..WORD_BYTES).unwrap_or(bytes);
        mixed(folded(seed, first), value.len() as u64)
    }

    /// Whether an update says what an item of another route implies, and nothing else.
    #[must_use]
    #[inline]
    pub fn says_implied(&self, rule: &Route, implies: &Implies, said: &Said) -> bool {
        said.word == self.word_hash(&implies.value) && self.is_bare(rule, implies, said.members)
    }

    /// The hash of what an item of this route implies.
    #[must_use]
    #[inline]
    pub fn implied(&self, route: usize) -> Option<u64> {
        let implies = self.route(route)?.implied()?;
        Some(self.word_hash(&implies.value))
    }

    /// The shard of a session.
    #[must_use]
    #[inline]
    pub fn shard_of(&self, session: u128) -> u32 {
        let shards = u64::from(self.config.shards.max(1));
        // Digit by digit: what is left is less than 2³², and so is the next digit.
        let rest = [96, 64, 32, 0].into_iter().fold(0, |rest, shift| {
            let digit = session >> shift & u128::from(u32::MAX);
            let next = rest << 32 | digit as u64;
            next.checked_rem(shards).unwrap_or(0)
        });
        u32::try_from(rest).unwrap_or(0)
    }
}

/// The one of `names` that this header has.
#[inline]
fn named<'n>(names: &'n [String], header: &[u8]) -> Option<&'n str> {
    let known = names.iter().find(|name| name.as_bytes() == header);
    known.map(String::as_str)
}

#[inline]
fn utf8(value: &[u8]) -> Result<String, Bypass> {
    core::str::from_utf8(value)
        .map(Into::into)
        .map_err(|_| Bypass::HeaderBytes)
}

// === impl Bypass ===

impl Bypass {
    /// Every reason, in the order of [`Bypass::index`].
    pub const ALL: [Self; 25] = [
        Self::Path,
        Self::Query,
        Self::Header,
        Self::Signature,
        Self::Override,
        Self::Unproven,
        Self::Orphan,
        Self::Outage,
        Self::Encoding,
        Self::HeaderBytes,
        Self::Empty,
        Self::TooLarge,
        Self::Syntax,
        Self::NotAnObject,
        Self::DuplicateKey,
        Self::OddKey,
        Self::TooDeep,
        Self::Unmatched,
        Self::NoSession,
        Self::NoValue,
        Self::Misconfigured,
        Self::ShardFull,
        Self::Store,
        Self::Batch,
        Self::Barrier,
    ];

    /// Its place in [`Bypass::ALL`].
    #[must_use]
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The label in metrics and in the `x-embudo` header.
    #[must_use]
    #[inline]
    pub fn label(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Signature => "signature",
            Self::Override => "override",
            Self::Unproven => "unproven",
            Self::Orphan => "orphan",
            Self::Outage => "outage",
            Self::Encoding => "encoding",
            Self::HeaderBytes => "header_bytes",
            Self::Empty => "empty",
            Self::TooLarge => "too_large",
            Self::Syntax => "syntax",
            Self::NotAnObject => "not_an_object",
            Self::DuplicateKey => "duplicate_key",
            Self::OddKey => "odd_key",
            Self::TooDeep => "too_deep",
            Self::Unmatched => "unmatched",
            Self::NoSession => "no_session",
            Self::NoValue => "no_value",
            Self::Misconfigured => "misconfigured",
            Self::ShardFull => "store_full",
            Self::Store => "store",
            Self::Batch => "batch",
            Self::Barrier => "barrier",
        }
    }
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

// === impl Bypassed ===

impl From<Bypass> for Bypassed {
    #[inline]
    fn from(reason: Bypass) -> Self {
        Self { reason, seen: None }
    }
}

impl From<Unreadable> for Bypassed {
    #[inline]
    fn from(unreadable: Unreadable) -> Self {
        Bypass::from(unreadable).into()
    }
}

impl From<Unreadable> for Bypass {
    #[inline]
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Syntax => Self::Syntax,
            Unreadable::NotAnObject => Self::NotAnObject,
            Unreadable::DuplicateKey => Self::DuplicateKey,
            Unreadable::OddKey => Self::OddKey,
            Unreadable::TooDeep => Self::TooDeep,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
