//! Reads a request body once, without building a tree.
//!
//! One walk does three things: it decides whether *Laravel can read* the body, it picks the values
//! that a rule's pointers name, and it digests the parts that must be equal for a duplicate. The walk
//! knows no more of JSON than the `scan` beneath it, and that reads what `serde_json` reads.
//!
//! "Laravel can read it" is stricter than "it is JSON", because one item that PHP's `json_decode`
//! refuses would blind PHP to the whole batch it travels in, and one that PHP reads *differently* would
//! be collapsed by a value that Laravel never sees: UTF-8 throughout, no unpaired surrogate, no
//! duplicate keys (PHP takes the last one, others the first), no key that begins with U+0000 (of which PHP makes no
//! property), at most [`DEPTH_MAX`] levels, an object.
//! Whatever fails here is not an error of ours: the request passes through and Laravel judges it.

mod scan;
mod tree;
mod walk;

#[cfg(test)]
mod tests;

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

pub use self::scan::{Broken, quoted};
use self::scan::{Scanner, Token};
pub use self::tree::{Object, Value, parse};
use self::walk::Walk;
use crate::hash::HashKey;

/// Levels of nesting that are still queued. PHP's own limit is 512 and gateways use 4; 32 keeps the
/// walk's stack small in a VM whose stack overflow would be a trap.
pub const DEPTH_MAX: u32 = 32;

/// Pointers that one walk follows at most; the configuration allows no more.
pub const PATHS_MAX: usize = 64;

/// An RFC 6901 JSON pointer, split into its decoded segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    segments: Vec<String>,
}

/// A value that a pointer named, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// A string, its escapes resolved.
    Text(Cow<'a, str>),
    /// A whole number, as decimal digits.
    Integer(String),
    /// A boolean.
    Bool(bool),
    /// Null: as if nothing were there.
    Null,
    /// Anything else: a fraction, an array or an object. No rule can use it.
    Other,
}

/// Why a body is not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Not JSON, not UTF-8, or a string with an unpaired surrogate.
    Syntax,
    /// JSON, but not an object.
    NotAnObject,
    /// An object somewhere in it names a key twice.
    DuplicateKey,
    /// A key begins with U+0000: PHP makes no property of that.
    OddKey,
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
}

/// What one walk found.
#[derive(Debug)]
pub struct Document<'a> {
    found: Vec<Option<Scalar<'a>>>,
    digests: Vec<Option<u128>>,
    keys: Vec<Cow<'a, str>>,
    says: u128,
    members: u64,
    places: Vec<u64>,
}

/// A key, and its value as it is written.
pub type Member<'a> = (Cow<'a, str>, &'a [u8]);

/// Walks `body`, looking for the values at `wanted` and digesting the subtrees at `same`.
///
/// # Errors
/// [`Unreadable`] where Laravel might not read the body, or might read it otherwise than we do.
pub fn read<'a>(
    body: &'a [u8],
    wanted: &[&Pointer],
    same: &[Pointer],
    key: HashKey,
) -> Result<Document<'a>, Unreadable> {
    read_rule(body, wanted, same, 0, &[], key)
}

/// As [`read`]; of the subtrees at `same` the first `tenants` count as absent where they are null or empty text, and
/// what is at `volatile` is no part of what the document says.
pub fn read_rule<'a>(
    body: &'a [u8],
    wanted: &[&Pointer],
    same: &[Pointer],
    tenants: usize,
    volatile: &[Pointer],
    key: HashKey,
) -> Result<Document<'a>, Unreadable> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        // Tells "not an object" from "not JSON" for the operator's counters; either passes through.
        let mut scanner = Scanner::new(body);
        return Err(match scanner.skip().and_then(|_| scanner.end()) {
            Ok(()) => Unreadable::NotAnObject,
            Err(_) => Unreadable::Syntax,
        });
    }
    let mut walk = Walk::new(wanted, same, tenants, key);
    walk.volatile = volatile;
    let mut scanner = Scanner::new(body);
    walk.whole(&mut scanner)?;
    scanner.end()?;
    Ok(walk.out)
}

/// What can be seen of a body that is not queued: as far as it goes, and as PHP would read it. Of two members with
/// one key the last counts, what is nested deeper than [`DEPTH_MAX`] is passed over, and where the text breaks off
/// that was all.
pub fn glimpse<'a>(
    body: &'a [u8],
    wanted: &[&Pointer],
    same: &[Pointer],
    tenants: usize,
    key: HashKey,
) -> Document<'a> {
    let mut walk = Walk::new(wanted, same, tenants, key);
    walk.is_glimpse = true;
    let _ = walk.whole(&mut Scanner::new(body));
    walk.out
}

/// The members of a text that is a JSON object.
///
/// # Errors
/// Where it is none. The values themselves need make no sense: see `scan`.
#[inline]
pub fn members(text: &[u8]) -> Result<Vec<Member<'_>>, Broken> {
    let mut scanner = Scanner::new(text);
    let mut members = Vec::new();
    let Token::Object = scanner.value()? else {
        return Err(Broken::not_an_object(&scanner));
    };
    while let Some(key) = scanner.key(members.is_empty())? {
        members.push((key, scanner.skip()?));
    }
    scanner.end()?;
    Ok(members)
}

/// What [`Document::members`] is of an object with these members, none of which is an object or a list.
#[must_use]
pub fn members_of(keys: &[&str]) -> u64 {
    let places = keys.iter().map(|key| walk::member(0, key));
    places.fold(0, |sum, place| sum.wrapping_add(walk::leaf(place)))
}

/// Whether an object has every member of another, whatever is in them, but for what is volatile.
#[must_use]
pub fn has_all(body: &[u8], other: &[u8], volatile: &[Pointer], key: HashKey) -> bool {
    let places = |body| {
        let mut walk = Walk::new(&[], &[], 0, key);
        walk.volatile = volatile;
        walk.names_members = true;
        walk.whole(&mut Scanner::new(body))
            .ok()
            .map(|()| walk.out.places)
    };
    match (places(body), places(other)) {
        (Some(has), Some(wanted)) => wanted.iter().all(|place| has.contains(place)),
        _ => false,
    }
}

/// A string decoded, or a number as it is written.
pub fn word(raw: &[u8]) -> Option<Cow<'_, str>> {
    match Scanner::new(raw).value().ok()? {
        Token::Text(text) => Some(text),
        Token::Number(_) => core::str::from_utf8(raw).ok().map(Cow::Borrowed),
        _ => None,
    }
}

/// The elements of a text that is a JSON array, as they are written.
///
/// # Errors
/// Where it is none. The values themselves need make no sense: see `scan`.
#[inline]
pub fn elements(text: &[u8]) -> Result<Vec<&[u8]>, Broken> {
    let mut scanner = Scanner::new(text);
    let mut elements = Vec::new();
    let Token::Array = scanner.value()? else {
        return Err(Broken::not_an_object(&scanner));
    };
    while scanner.element(elements.is_empty())? {
        elements.push(scanner.skip()?);
    }
    scanner.end()?;
    Ok(elements)
}

/// The elements of the array at `pointer`, as they are written, as far as the text can be read; and whether it is whole
/// and says nothing else. `None` where there is no array.
#[must_use]
pub fn elements_at<'a>(text: &'a [u8], pointer: &Pointer) -> Option<(Vec<&'a [u8]>, bool)> {
    let mut scanner = Scanner::new(text);
    let mut is_lone = true;
    for segment in pointer.segments() {
        let Token::Object = scanner.value().ok()? else {
            return None;
        };
        let mut is_first = true;
        while scanner.key(is_first).ok()?? != segment {
            scanner.skip().ok()?;
            (is_first, is_lone) = (false, false);
        }
    }
    let Token::Array = scanner.value().ok()? else {
        return None;
    };
    let mut elements = Vec::new();
    let mut rest = || {
        while scanner.element(elements.is_empty())? {
            elements.push(scanner.skip()?);
        }
        let mut ends = true;
        for _ in pointer.segments() {
            ends &= scanner.key(false)?.is_none();
        }
        scanner.end().map(|()| ends)
    };
    let is_whole = rest().unwrap_or(false);
    Some((elements, is_whole && is_lone))
}

// === impl Pointer ===

impl Pointer {
    /// The decoded segments.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(String::as_str)
    }

    /// Parses `/a/b~1c`. The empty pointer, the whole document, is refused: no rule can use it.
    ///
    /// # Errors
    /// A sentence for the person who wrote the configuration.
    #[inline]
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err("a JSON pointer starts with '/', as in \"/session_id\"");
        };
        let segments = rest.split('/').map(unescaped).collect();
        Ok(Self { segments })
    }

    /// The key, where the pointer names a member of the document itself.
    #[must_use]
    pub fn top_level_key(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [key] => Some(key),
            _ => None,
        }
    }
}

/// A pointer's segment with its `~0` and `~1` resolved.
fn unescaped(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut tilde = false;
    for c in raw.chars() {
        match (tilde, c) {
            (true, '0') => {}
            (true, '1') => {
                out.pop();
                out.push('/');
            }
            _ => out.push(c),
        }
        tilde = c == '~';
    }
    out
}

// === impl Document ===

impl<'a> Document<'a> {
    /// The value at the `index`-th of the wanted pointers.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Scalar<'a>> {
        self.found.get(index).and_then(Option::as_ref)
    }

    /// The digests of the `same` subtrees, in the order of their pointers.
    #[must_use]
    pub fn digests(&self) -> &[Option<u128>] {
        &self.digests
    }

    /// Keyed hash of everything that it says, but for what is volatile: the same for members in any order, and for text
    /// with other escapes.
    #[must_use]
    pub const fn says(&self) -> u128 {
        self.says
    }

    /// Hash of the members that it has, with whatever is in them, but for what is volatile.
    #[must_use]
    pub const fn members(&self) -> u64 {
        self.members
    }

    /// Whether the object itself has this key.
    #[must_use]
    pub fn has_key(&self, key: &str) -> bool {
        self.keys.iter().any(|have| have == key)
    }

    /// Whether the object has no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

// === impl Scalar ===

impl Scalar<'_> {
    /// Text, or a whole number read as its digits: some gateways have numeric session ids.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Integer(digits) => Some(digits),
            Self::Bool(_) | Self::Null | Self::Other => None,
        }
    }

    /// Whether nothing is there, to a rule: null, or empty text.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Null => true,
            Self::Integer(_) | Self::Bool(_) | Self::Other => false,
        }
    }
}
