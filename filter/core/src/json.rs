//! Reads a request body once, without building a tree.
//!
//! One walk does three things: it decides whether *Laravel can read* the body, it picks the values
//! that a rule's pointers name, and it digests the parts that must be equal for a duplicate. The walk
//! rides on `serde_json`'s deserializer, so what counts as JSON is not our own opinion.
//!
//! "Laravel can read it" is stricter than "it is JSON", because one item that PHP's `json_decode`
//! refuses would blind PHP to the whole batch it travels in, and one that PHP reads *differently* would
//! be collapsed by a value that Laravel never sees: UTF-8 throughout, no unpaired surrogate, no
//! duplicate keys (PHP takes the last one, others the first), at most [`DEPTH_MAX`] levels, an object.
//! Whatever fails here is not an error of ours: the request passes through and Laravel judges it.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::hash::Hasher;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::hash::{Digest, HashKey};

/// Levels of nesting that are still queued. PHP's own limit is 512 and gateways use 4; 32 keeps the
/// walk's stack small in a VM whose stack overflow would be a trap.
pub const DEPTH_MAX: u32 = 32;

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
    /// Anything else: a fraction, null, an array or an object. No rule can use it.
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
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
}

/// What one walk found.
#[derive(Debug)]
pub struct Document<'a> {
    found: Vec<Option<Scalar<'a>>>,
    digests: Vec<Option<u128>>,
    keys: Vec<Cow<'a, str>>,
}

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
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        // Tells "not an object" from "not JSON" for the operator's counters; either passes through.
        return Err(
            match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
                Ok(_) => Unreadable::NotAnObject,
                Err(_) => Unreadable::Syntax,
            },
        );
    }
    let mut walk = Walk {
        wanted,
        same,
        key,
        digesting: Vec::new(),
        why: Unreadable::Syntax,
        out: Document {
            found: wanted.iter().map(|_| None).collect(),
            digests: same.iter().map(|_| None).collect(),
            keys: Vec::new(),
        },
    };
    let paths = (0..wanted.len().saturating_add(same.len())).collect();
    let mut json = serde_json::Deserializer::from_slice(body);
    let node = Node {
        walk: &mut walk,
        depth: 0,
        paths,
    };
    match node.deserialize(&mut json).and_then(|()| json.end()) {
        Ok(()) => Ok(walk.out),
        Err(_) => Err(walk.why),
    }
}

// === impl Pointer ===

impl Pointer {
    /// Parses `/a/b~1c`. The empty pointer, the whole document, is refused: no rule can use it.
    ///
    /// # Errors
    /// A sentence for the person who wrote the configuration.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err("a JSON pointer starts with '/', as in \"/session_id\"");
        };
        let segments = rest
            .split('/')
            .map(|raw| raw.replace("~1", "/").replace("~0", "~"))
            .collect();
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
            Self::Bool(_) | Self::Other => None,
        }
    }
}

/// The state of one walk.
struct Walk<'w, 'a> {
    wanted: &'w [&'w Pointer],
    same: &'w [Pointer],
    key: HashKey,
    /// Digests under way: index into `same`, and the running hash.
    digesting: Vec<(usize, Digest)>,
    /// serde's errors cannot carry ours through, so the reason waits here.
    why: Unreadable,
    out: Document<'a>,
}

/// One value on the way down. `paths` are the pointers (wanted first, then same) that led here.
struct Node<'n, 'w, 'a> {
    walk: &'n mut Walk<'w, 'a>,
    depth: u32,
    paths: Vec<usize>,
}

/// Tags keep `"1"`, `1` and `[1]` apart in a digest.
#[derive(Clone, Copy)]
enum Tag {
    Null = 0,
    Bool = 1,
    Integer = 2,
    Float = 3,
    Text = 4,
    Array = 5,
    Object = 6,
    End = 7,
}

// === impl Walk ===

impl<'w, 'a> Walk<'w, 'a> {
    fn segments(&self, path: usize) -> &'w [String] {
        match self.wanted.get(path) {
            Some(pointer) => &pointer.segments,
            None => self
                .same
                .get(path.saturating_sub(self.wanted.len()))
                .map_or(&[], |pointer| pointer.segments.as_slice()),
        }
    }

    fn digest(&mut self, tag: Tag, bytes: &[u8]) {
        for (_, digest) in &mut self.digesting {
            digest.write_u8(tag as u8);
            digest.write_usize(bytes.len());
            digest.write(bytes);
        }
    }
}

// === impl Node ===

impl<'a> Node<'_, '_, 'a> {
    /// The pointers that go on through `segment`.
    fn descend(&self, segment: &str) -> Vec<usize> {
        let depth = self.depth as usize;
        self.paths
            .iter()
            .copied()
            .filter(|path| {
                self.walk
                    .segments(*path)
                    .get(depth)
                    .is_some_and(|s| s == segment)
            })
            .collect()
    }

    /// Pointers that end at this very value.
    fn ending(&self) -> impl Iterator<Item = usize> + '_ {
        let depth = self.depth as usize;
        self.paths
            .iter()
            .copied()
            .filter(move |path| self.walk.segments(*path).len() == depth)
    }

    fn open(&mut self) -> usize {
        let before = self.walk.digesting.len();
        let starting: Vec<usize> = self
            .ending()
            .filter_map(|path| path.checked_sub(self.walk.wanted.len()))
            .collect();
        for same in starting {
            self.walk.digesting.push((same, self.walk.key.digest()));
        }
        before
    }

    fn close(&mut self, before: usize) {
        for (same, digest) in self.walk.digesting.split_off(before) {
            if let Some(slot) = self.walk.out.digests.get_mut(same) {
                *slot = Some(digest.finish128());
            }
        }
    }

    fn keep(&mut self, scalar: &Scalar<'a>) {
        let ending: Vec<usize> = self.ending().collect();
        for path in ending {
            if let Some(slot) = self.walk.out.found.get_mut(path) {
                *slot = Some(scalar.clone());
            }
        }
    }

    fn leaf(mut self, tag: Tag, bytes: &[u8], scalar: &Scalar<'a>) {
        if self.paths.is_empty() && self.walk.digesting.is_empty() {
            return;
        }
        let before = self.open();
        self.walk.digest(tag, bytes);
        self.close(before);
        self.keep(scalar);
    }

    fn refuse<E: serde::de::Error>(&mut self, why: Unreadable) -> E {
        self.walk.why = why;
        E::custom("")
    }

    fn deeper<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.depth >= DEPTH_MAX {
            return Err(self.refuse(Unreadable::TooDeep));
        }
        Ok(())
    }
}

impl<'a> DeserializeSeed<'a> for Node<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Node<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.leaf(Tag::Null, &[], &Scalar::Other);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.leaf(Tag::Bool, &[u8::from(value)], &Scalar::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        if self.paths.is_empty() && self.walk.digesting.is_empty() {
            return Ok(());
        }
        let digits = value.to_string();
        self.leaf(
            Tag::Integer,
            digits.as_bytes(),
            &Scalar::Integer(digits.clone()),
        );
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        if self.paths.is_empty() && self.walk.digesting.is_empty() {
            return Ok(());
        }
        let digits = value.to_string();
        self.leaf(
            Tag::Integer,
            digits.as_bytes(),
            &Scalar::Integer(digits.clone()),
        );
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.leaf(Tag::Float, &value.to_bits().to_le_bytes(), &Scalar::Other);
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        self.leaf(
            Tag::Text,
            text.as_bytes(),
            &Scalar::Text(Cow::Borrowed(text)),
        );
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.paths.is_empty() && self.walk.digesting.is_empty() {
            return Ok(());
        }
        self.leaf(
            Tag::Text,
            text.as_bytes(),
            &Scalar::Text(Cow::Owned(text.to_owned())),
        );
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.deeper()?;
        let before = self.open();
        self.walk.digest(Tag::Array, &[]);
        let mut index = 0_u32;
        loop {
            let paths = match self.paths.is_empty() {
                true => Vec::new(),
                false => self.descend(&index.to_string()),
            };
            let depth = self.depth.saturating_add(1);
            let node = Node {
                walk: self.walk,
                depth,
                paths,
            };
            if seq.next_element_seed(node)?.is_none() {
                break;
            }
            index = index.saturating_add(1);
        }
        self.walk.digest(Tag::End, &[]);
        self.close(before);
        self.keep(&Scalar::Other);
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.deeper()?;
        let before = self.open();
        self.walk.digest(Tag::Object, &[]);
        let mut keys: Vec<Cow<'a, str>> = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            self.walk.digest(Tag::Text, key.as_bytes());
            let paths = match self.paths.is_empty() {
                true => Vec::new(),
                false => self.descend(&key),
            };
            let depth = self.depth.saturating_add(1);
            map.next_value_seed(Node {
                walk: self.walk,
                depth,
                paths,
            })?;
            keys.push(key);
        }
        self.walk.digest(Tag::End, &[]);
        self.close(before);
        self.keep(&Scalar::Other);
        // Sorted once at the end: n log n, where a check at each key would let 64 KiB of keys stall a
        // worker.
        keys.sort_unstable();
        if keys.iter().zip(keys.iter().skip(1)).any(|(a, b)| a == b) {
            return Err(self.refuse::<A::Error>(Unreadable::DuplicateKey));
        }
        if self.depth == 0 {
            self.walk.out.keys = keys;
        }
        Ok(())
    }
}

/// An object's key: borrowed from the body unless it has escapes.
struct Key;

impl<'a> DeserializeSeed<'a> for Key {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Key {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HashKey = HashKey::from_bytes([7; 16]);

    fn read_at(body: &str, pointer: &str) -> Option<String> {
        let pointer = Pointer::parse(pointer).unwrap();
        let document = read(body.as_bytes(), &[&pointer], &[], KEY).unwrap();
        document
            .at(0)
            .and_then(Scalar::as_text)
            .map(ToOwned::to_owned)
    }

    fn refusal(body: &[u8]) -> Option<Unreadable> {
        read(body, &[], &[], KEY).err()
    }

    fn same(body: &str, pointer: &str) -> Option<u128> {
        let pointer = Pointer::parse(pointer).unwrap();
        read(body.as_bytes(), &[], &[pointer], KEY)
            .unwrap()
            .digests()[0]
    }

    #[test]
    fn pointers_find_decoded_values_at_any_depth() {
        assert_eq!(
            read_at(r#"{"a":{"b":"x\u0041"}}"#, "/a/b").as_deref(),
            Some("xA")
        );
        assert_eq!(
            read_at(r#"{"a":[1,{"b":"y"}]}"#, "/a/1/b").as_deref(),
            Some("y")
        );
        assert_eq!(
            read_at(r#"{"a/b~c":"z"}"#, "/a~1b~0c").as_deref(),
            Some("z")
        );
        assert_eq!(
            read_at(r#"{"id":42}"#, "/id").as_deref(),
            Some("42"),
            "numbers read as strings"
        );
        assert_eq!(read_at(r#"{"id":4.5}"#, "/id"), None);
        assert_eq!(read_at(r#"{"id":null}"#, "/id"), None);
        assert_eq!(read_at(r#"{"other":1}"#, "/id"), None);
    }

    #[test]
    fn what_php_would_refuse_or_read_otherwise_is_unreadable() {
        assert_eq!(refusal(b""), Some(Unreadable::Syntax));
        assert_eq!(refusal(b"qr=1&session_id=2"), Some(Unreadable::Syntax));
        assert_eq!(refusal(br#"{"a":1"#), Some(Unreadable::Syntax));
        assert_eq!(refusal(br#"{"a":1} x"#), Some(Unreadable::Syntax));
        assert_eq!(refusal(b"{\"a\":\"\xff\"}"), Some(Unreadable::Syntax));
        assert_eq!(refusal(b"{\"\xff\":1}"), Some(Unreadable::Syntax));
        assert_eq!(
            refusal(b"{\"a\":\"\0\"}"),
            Some(Unreadable::Syntax),
            "a raw NUL"
        );
        assert_eq!(
            refusal(br#"{"a":"\ud800"}"#),
            Some(Unreadable::Syntax),
            "unpaired surrogate"
        );
        assert_eq!(
            refusal(br#"{"a":{"b":"\udc00x"}}"#),
            Some(Unreadable::Syntax)
        );
        assert_eq!(refusal(br#"[{"a":1}]"#), Some(Unreadable::NotAnObject));
        assert_eq!(refusal(br#""a""#), Some(Unreadable::NotAnObject));
        assert_eq!(
            refusal(br#"{"a":1,"b":2,"a":3}"#),
            Some(Unreadable::DuplicateKey)
        );
        assert_eq!(
            refusal(br#"{"a":1,"\u0061":3}"#),
            Some(Unreadable::DuplicateKey)
        );
        assert_eq!(
            refusal(br#"{"x":[{"a":1,"a":2}]}"#),
            Some(Unreadable::DuplicateKey)
        );
        assert_eq!(refusal(br#" {"a":"\ud83d\ude00 \u0000"} "#), None);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| {
            let mut body = String::from("{\"a\":");
            body.push_str(&"[".repeat(levels - 1));
            body.push_str(&"]".repeat(levels - 1));
            body.push('}');
            body
        };
        assert_eq!(refusal(nested(DEPTH_MAX as usize).as_bytes()), None);
        assert_eq!(
            refusal(nested(DEPTH_MAX as usize + 1).as_bytes()),
            Some(Unreadable::TooDeep)
        );
        assert!(
            refusal(nested(30_000).as_bytes()).is_some(),
            "and costs no stack"
        );
    }

    #[test]
    fn a_digest_compares_what_was_meant_and_not_how_it_was_escaped() {
        let a = same(r#"{"d":{"k":"A","n":[1,2]}}"#, "/d");
        assert!(a.is_some());
        assert_eq!(a, same(r#"{"d": {"k":"\u0041", "n":[1, 2]}, "e":5}"#, "/d"));
        assert_ne!(a, same(r#"{"d":{"k":"A","n":["1",2]}}"#, "/d"));
        assert_ne!(a, same(r#"{"d":{"k":"A","n":[1],"m":2}}"#, "/d"));
        assert_eq!(same(r#"{"e":5}"#, "/d"), None);
    }
}
