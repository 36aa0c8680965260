//! The walk itself: serde's visitor, with the pointers that lead on from each value.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::hash::Hasher;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{DEPTH_MAX, Document, Pointer, Scalar, Unreadable};
use crate::hash::{Digest, HashKey};

/// The state of one walk.
pub(super) struct Walk<'w, 'a> {
    pub(super) wanted: &'w [&'w Pointer],
    pub(super) same: &'w [Pointer],
    pub(super) key: HashKey,
    /// Digests under way: index into `same`, and the running hash.
    pub(super) digesting: Vec<(usize, Digest)>,
    /// serde's errors cannot carry ours through, so the reason waits here.
    pub(super) why: Unreadable,
    pub(super) out: Document<'a>,
}

/// One value on the way down. `paths` are the pointers (wanted first, then same) that led here.
pub(super) struct Node<'n, 'w, 'a> {
    pub(super) walk: &'n mut Walk<'w, 'a>,
    pub(super) depth: u32,
    pub(super) paths: Vec<usize>,
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
