//! The walk itself: value by value, with the pointers that lead on from each.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::hash::Hasher;

use super::scan::{Broken, Scanner, Token};
use super::{DEPTH_MAX, Document, Pointer, Scalar, Unreadable};
use crate::hash::{Digest, HashKey};
use crate::sort;

/// Up to this many keys of an object are compared each with each: cheaper than to sort them.
const COMPARED_KEYS_MAX: usize = 16;

/// The state of one walk.
pub(super) struct Walk<'w, 'a> {
    pub(super) wanted: &'w [&'w Pointer],
    pub(super) same: &'w [Pointer],
    pub(super) key: HashKey,
    /// Digests under way: index into `same`, and the running hash.
    pub(super) digesting: Vec<(usize, Digest)>,
    pub(super) out: Document<'a>,
}

/// One value on the way down. `paths` are the pointers (wanted first, then same) that led here.
pub(super) struct Node<'n, 'w, 'a> {
    pub(super) walk: &'n mut Walk<'w, 'a>,
    pub(super) depth: u32,
    pub(super) paths: Paths,
}

/// Pointers by their place, a bit each: they are asked for at every value, and a list of them would be an
/// allocation every time.
#[derive(Clone, Copy)]
pub(super) struct Paths(u64);

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
    fn descend(&self, segment: &str) -> Paths {
        let depth = self.depth as usize;
        let next = |path: usize| self.walk.segments(path).get(depth);
        self.paths
            .which(|path| next(path).is_some_and(|s| s == segment))
    }

    /// Pointers that end at this very value.
    fn ending(&self) -> Paths {
        let depth = self.depth as usize;
        self.paths
            .which(|path| self.walk.segments(path).len() == depth)
    }

    fn open(&mut self) -> usize {
        let before = self.walk.digesting.len();
        for path in self.ending() {
            if let Some(same) = path.checked_sub(self.walk.wanted.len()) {
                self.walk.digesting.push((same, self.walk.key.digest()));
            }
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
        for path in self.ending() {
            if let Some(slot) = self.walk.out.found.get_mut(path) {
                *slot = Some(scalar.clone());
            }
        }
    }

    fn leaf(&mut self, tag: Tag, bytes: &[u8], scalar: &Scalar<'a>) {
        let before = self.open();
        self.walk.digest(tag, bytes);
        self.close(before);
        self.keep(scalar);
    }

    fn deeper(&self) -> Result<(), Unreadable> {
        match self.depth >= DEPTH_MAX {
            true => Err(Unreadable::TooDeep),
            false => Ok(()),
        }
    }

    /// Walks the scanner's next value.
    pub(super) fn read(mut self, scanner: &mut Scanner<'a>) -> Result<(), Unreadable> {
        let watched = !self.paths.is_empty() || !self.walk.digesting.is_empty();
        match scanner.value()? {
            Token::Array => return self.array(scanner),
            Token::Object => return self.object(scanner),
            _ if !watched => {}
            Token::Null => self.leaf(Tag::Null, &[], &Scalar::Other),
            Token::Bool(flag) => self.leaf(Tag::Bool, &[u8::from(flag)], &Scalar::Bool(flag)),
            Token::Number(number) => match number.float {
                Some(float) => {
                    self.leaf(Tag::Float, &float.to_bits().to_le_bytes(), &Scalar::Other);
                }
                None => {
                    let digits = number.digits;
                    let scalar = Scalar::Integer(digits.into());
                    self.leaf(Tag::Integer, digits.as_bytes(), &scalar);
                }
            },
            Token::Text(text) => {
                let scalar = Scalar::Text(text);
                let bytes = scalar.as_text().unwrap_or_default().as_bytes();
                self.leaf(Tag::Text, bytes, &scalar);
            }
        }
        Ok(())
    }

    /// A value within this one, with the pointers that go on to it.
    fn within(&mut self, segment: &str, scanner: &mut Scanner<'a>) -> Result<(), Unreadable> {
        let node = Node {
            paths: self.descend(segment),
            depth: self.depth.saturating_add(1),
            walk: self.walk,
        };
        node.read(scanner)
    }

    fn array(mut self, scanner: &mut Scanner<'a>) -> Result<(), Unreadable> {
        self.deeper()?;
        let before = self.open();
        self.walk.digest(Tag::Array, &[]);
        let mut index = 0_u32;
        while scanner.element(index == 0)? {
            let segment = match self.paths.is_empty() {
                true => String::new(),
                false => index.to_string(),
            };
            self.within(&segment, scanner)?;
            index = index.saturating_add(1);
        }
        self.end(before);
        Ok(())
    }

    fn object(mut self, scanner: &mut Scanner<'a>) -> Result<(), Unreadable> {
        self.deeper()?;
        let before = self.open();
        self.walk.digest(Tag::Object, &[]);
        let mut keys: Vec<Cow<'a, str>> = Vec::new();
        while let Some(key) = scanner.key(keys.is_empty())? {
            self.walk.digest(Tag::Text, key.as_bytes());
            self.within(&key, scanner)?;
            keys.push(key);
        }
        self.end(before);
        if self.names_twice(&mut keys) {
            return Err(Unreadable::DuplicateKey);
        }
        if self.depth == 0 {
            self.walk.out.keys = keys;
        }
        Ok(())
    }

    fn names_twice(&self, keys: &mut Vec<Cow<'a, str>>) -> bool {
        if keys.len() <= COMPARED_KEYS_MAX {
            let mut rest = keys.iter();
            while let Some(key) = rest.next() {
                if rest.as_slice().contains(key) {
                    return true;
                }
            }
            return false;
        }
        // Sorted once at the end: n log n, where each with each would let 64 KiB of keys stall a worker. Equal keys
        // are neighbours then, since nobody can find two others of one hash.
        let hash_key = self.walk.key;
        sort::by_key(keys, |key| hash_key.hash(&[key.as_bytes()]));
        keys.iter().zip(keys.iter().skip(1)).any(|(a, b)| a == b)
    }

    fn end(&mut self, before: usize) {
        self.walk.digest(Tag::End, &[]);
        self.close(before);
        self.keep(&Scalar::Other);
    }
}

// === impl Paths ===

impl Paths {
    /// The first `count` of all. No rule has more than [`PATHS_MAX`](super::PATHS_MAX).
    pub(super) fn first(count: usize) -> Self {
        let rest = u64::BITS.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        Self(u64::MAX.checked_shr(rest).unwrap_or(0))
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn which(self, wanted: impl Fn(usize) -> bool) -> Self {
        let bits = self.filter(|path| wanted(*path));
        Self(bits.fold(0, |bits, path| bits | 1 << path))
    }
}

impl Iterator for Paths {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let path = (self.0 != 0).then_some(self.0.trailing_zeros() as usize);
        self.0 &= self.0.wrapping_sub(1);
        path
    }
}

// === impl Unreadable ===

impl From<Broken> for Unreadable {
    fn from(_: Broken) -> Self {
        Self::Syntax
    }
}
