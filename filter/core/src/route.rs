//! What a request is: recognised in two steps, from its headers and from its body.
//!
//! Recognition never fails. A request is either an update, or it is Laravel's business, and then it
//! passes through with a [`Bypass`] that says why, for the operator's counters.

mod body;
mod clock;
mod destination;
mod head;
mod known;
mod said;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use self::body::{Said, Update};
pub use self::destination::Destination;
pub use self::head::Head;
pub use self::known::{KnownHeads, Numbered};
pub use self::said::KnownBodies;
use crate::config::{Config, Read, Route};
use crate::hash::HashKey;
use crate::headers::Header;
use crate::json::Unreadable;
use crate::trust;

/// Longest body that is queued, bytes. A QR as an image is 16 KiB at most; a batch must hold a few.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

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
    /// No rule has this method and path, or the path has a query string.
    Path,
    /// It carries the bypass header.
    Header,
    /// It carries a signature of its body.
    Signature,
    /// It carries a credential that is not trusted (yet).
    Credential,
    /// Its content type is not JSON, or its body is encoded.
    Encoding,
    /// A header that a batch would have to repeat is not UTF-8 or too long.
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
}

/// A GET whose answer may be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Index into [`Config::reads`].
    pub read: usize,
    /// Keyed hash of (authority, session), as in [`Update::session`].
    pub session: u128,
    /// Fingerprint of the caller's credentials.
    pub credential: u64,
    /// Under which the credential is trusted: see [`crate::trust`].
    pub mark: u64,
    /// The caller wants Laravel's own answer of this moment.
    pub no_cache: bool,
}

// === impl Rules ===

impl Rules {
    /// The rule at an index that [`Head`] or [`Update`] carries.
    #[must_use]
    pub fn route(&self, index: usize) -> Option<&Route> {
        self.config.routes.get(index)
    }

    /// Recognises a GET whose answer may be kept. `None` for whatever else, and for what Laravel has to
    /// judge by itself.
    #[must_use]
    pub fn asked<'h>(&self, headers: impl Iterator<Item = Header<'h>>) -> Option<Asked> {
        let mut destination = Destination::default();
        let mut path: &[u8] = b"";
        let mut no_cache = false;
        for (name, value) in headers {
            match name {
                b":method" if value != b"GET" => return None,
                b":path" => path = value,
                b":authority" => destination.authority = utf8(value).ok()?,
                b"cache-control" | b"pragma" => no_cache |= holds(value, b"no-cache"),
                // What would change the answer's form, or make it a part of one.
                b"range" => return None,
                name if name == self.config.bypass_header.as_bytes() => return None,
                name => {
                    if let Some(name) = named(&self.config.credentials.headers, name) {
                        destination
                            .credentials
                            .push((name.into(), utf8(value).ok()?));
                    }
                }
            }
        }
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
        if segment.contains(&b'?') {
            return None;
        }
        let session = decoded(segment)?;
        let credential = destination.credential(self.key);
        let name = self.read(read).map_or("", |read| &read.name);
        // A read's name is no route's: what may be read may not be written.
        let place = [
            &format!("get {name}"),
            destination.authority.as_str(),
            prefix,
        ];
        Some(Asked {
            read,
            session: self.session_hash(&destination.authority, &session),
            credential,
            mark: trust::mark(self.key, credential, place),
            no_cache,
        })
    }

    /// The read at an index that [`Asked`] carries.
    #[must_use]
    pub fn read(&self, index: usize) -> Option<&Read> {
        self.config.reads.get(index)
    }

    /// The name of a session in the store.
    #[must_use]
    pub fn session_hash(&self, authority: &str, session: &str) -> u128 {
        self.key.hash(&[authority.as_bytes(), session.as_bytes()])
    }

    /// The hash under which a value is remembered.
    #[must_use]
    pub fn value_hash(&self, route: &Route, value: &str, same: &[Option<u128>]) -> u128 {
        use core::hash::Hasher;
        let mut digest = self.key.digest();
        for part in [route.name.as_bytes(), value.as_bytes()] {
            digest.write_usize(part.len());
            digest.write(part);
        }
        for part in same {
            digest.write_u8(u8::from(part.is_some()));
            digest.write(&part.unwrap_or_default().to_le_bytes());
        }
        digest.finish128()
    }

    /// Whether the route of this name tells of the same state as `rule`.
    #[must_use]
    pub fn is_kin(&self, rule: &Route, name: &str) -> bool {
        rule.name == name
            || (rule.family.is_some()
                && self
                    .config
                    .route_named(name)
                    .is_some_and(|(_, other)| rule.is_kin(other)))
    }

    /// The hash of a value alone, all the `same` parts being absent.
    #[must_use]
    pub fn plain_value_hash(&self, route: &Route, value: &str) -> u128 {
        let none: Vec<Option<u128>> = route.same.iter().map(|_| None).collect();
        self.value_hash(route, value, &none)
    }

    /// The shard of a session.
    #[must_use]
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
fn named<'n>(names: &'n [String], header: &[u8]) -> Option<&'n str> {
    let known = names.iter().find(|name| name.as_bytes() == header);
    known.map(String::as_str)
}

fn holds(value: &[u8], wanted: &[u8]) -> bool {
    value
        .windows(wanted.len())
        .any(|part| part.eq_ignore_ascii_case(wanted))
}

/// A path segment or a query parameter without its percent signs; `None` where it is no UTF-8 then.
fn decoded(raw: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((byte, more)) = rest.split_first() {
        rest = more;
        let digits = match byte {
            b'%' => rest.split_first_chunk::<2>(),
            _ => None,
        };
        match digits.and_then(|(digits, more)| Some((hex(digits)?, more))) {
            Some((byte, more)) => {
                out.push(byte);
                rest = more;
            }
            None => out.push(*byte),
        }
    }
    String::from_utf8(out).ok()
}

fn hex(digits: &[u8; 2]) -> Option<u8> {
    u8::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

fn utf8(value: &[u8]) -> Result<String, Bypass> {
    core::str::from_utf8(value)
        .map(Into::into)
        .map_err(|_| Bypass::HeaderBytes)
}

// === impl Bypass ===

impl Bypass {
    /// Every reason, in the order of [`Bypass::index`].
    pub const ALL: [Self; 18] = [
        Self::Path,
        Self::Header,
        Self::Signature,
        Self::Credential,
        Self::Encoding,
        Self::HeaderBytes,
        Self::Empty,
        Self::TooLarge,
        Self::Syntax,
        Self::NotAnObject,
        Self::DuplicateKey,
        Self::TooDeep,
        Self::Unmatched,
        Self::NoSession,
        Self::NoValue,
        Self::Misconfigured,
        Self::ShardFull,
        Self::Store,
    ];

    /// Its place in [`Bypass::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The label in metrics and in the `x-embudo` header.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Header => "header",
            Self::Signature => "signature",
            Self::Credential => "credential",
            Self::Encoding => "encoding",
            Self::HeaderBytes => "header_bytes",
            Self::Empty => "empty",
            Self::TooLarge => "too_large",
            Self::Syntax => "syntax",
            Self::NotAnObject => "not_an_object",
            Self::DuplicateKey => "duplicate_key",
            Self::TooDeep => "too_deep",
            Self::Unmatched => "unmatched",
            Self::NoSession => "no_session",
            Self::NoValue => "no_value",
            Self::Misconfigured => "misconfigured",
            Self::ShardFull => "shard_full",
            Self::Store => "store",
        }
    }
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl From<Unreadable> for Bypass {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Syntax => Self::Syntax,
            Unreadable::NotAnObject => Self::NotAnObject,
            Unreadable::DuplicateKey => Self::DuplicateKey,
            Unreadable::TooDeep => Self::TooDeep,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
