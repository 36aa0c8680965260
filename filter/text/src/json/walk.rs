//! The walk itself: value by value, with the pointers that lead on from each.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::scan::{Broken, Scanner, Token};
use super::{DEPTH_MAX, Document, Pointer, Scalar, Unreadable};
use crate::hash::{Digest, HashKey};
use crate::{bytes, sort};

/// Up to this many keys of an object are compared each with each: cheaper than to sort them.
const COMPARED_KEYS_MAX: usize = 16;

/// The state of one walk.
pub(super) struct Walk<'w, 'a> {
    pub(super) wanted: &'w [&'w Pointer],
    pub(super) same: &'w [Pointer],
    /// The first of `same`: nothing is there where they are blank.
    tenants: usize,
    pub(super) key: HashKey,
    /// Whatever can be read is good enough.
    pub(super) is_glimpse: bool,
    /// Digests under way: index into `same`, and the running hash.
    digesting: Vec<(usize, Digest)>,
    pub(super) out: Document<'a>,
}

/// One value on the way down. `paths` are the pointers (wanted first, then same) that led here.
struct Node<'n, 'w, 'a> {
    walk: &'n mut Walk<'w, 'a>,
    depth: u32,
    paths: Paths,
}

/// Pointers by their place, a bit each: they are asked for at every value, and a list of them would be an
/// allocation every time.
#[derive(Clone, Copy)]
struct Paths(u64);

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
    pub(super) fn new(
        wanted: &'w [&'w Pointer],
        same: &'w [Pointer],
        tenants: usize,
        key: HashKey,
    ) -> Self {
        Self {
            wanted,
            same,
            tenants,
            key,
            is_glimpse: false,
            digesting: Vec::new(),
            out: Document {
                found: wanted.iter().map(|_| None).collect(),
                digests: same.iter().map(|_| None).collect(),
                keys: Vec::new(),
            },
        }
    }

    /// Walks a whole document.
    pub(super) fn whole(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Unreadable> {
        let paths = Paths::first(self.wanted.len().saturating_add(self.same.len()));
        let node = Node {
            walk: self,
            depth: 0,
            paths,
        };
        node.read(scanner)
    }

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
            digest.write_tagged(tag as u8, bytes);
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
            .which(|path| next(path).is_some_and(|s| bytes::same(s.as_bytes(), segment.as_bytes())))
    }

    /// Pointers that end at this very value.
    fn ending(&self) -> Paths {
        let depth = self.depth as usize;
        self.paths
            .which(|path| self.walk.segments(path).len() == depth)
    }

    /// Begins the digests of the subtrees that begin here, but for the first `tenants` where that says so.
    fn open(&mut self, ending: Paths, tenants: usize) -> usize {
        let before = self.walk.digesting.len();
        for path in ending {
            if let Some(same) = path.checked_sub(self.walk.wanted.len())
                && same >= tenants
            {
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

    fn keep(&mut self, ending: Paths, scalar: &Scalar<'a>) {
        for path in ending {
            if let Some(slot) = self.walk.out.found.get_mut(path) {
                *slot = Some(scalar.clone());
            }
        }
    }

    fn leaf(&mut self, tag: Tag, bytes: &[u8], scalar: &Scalar<'a>) {
        let ending = self.ending();
        let tenants = match scalar.is_blank() {
            true => self.walk.tenants,
            false => 0,
        };
        let before = self.open(ending, tenants);
        self.walk.digest(tag, bytes);
        self.close(before);
        self.keep(ending, scalar);
    }

    fn deeper(&self) -> Result<(), Unreadable> {
        match self.depth >= DEPTH_MAX {
            true => Err(Unreadable::TooDeep),
            false => Ok(()),
        }
    }

    /// Walks the scanner's next value.
    fn read(mut self, scanner: &mut Scanner<'a>) -> Result<(), Unreadable> {
        let watched = !self.paths.is_empty() || !self.walk.digesting.is_empty();
        if self.walk.is_glimpse && (!watched || self.depth >= DEPTH_MAX) {
            scanner.skip()?;
            return Ok(());
        }
        match scanner.value()? {
            Token::Array => return self.array(scanner),
            Token::Object => return self.object(scanner),
            _ if !watched => {}
            Token::Null => self.leaf(Tag::Null, &[], &Scalar::Null),
            Token::Bool(flag) => self.leaf(Tag::Bool, &[u8::from(flag)], &Scalar::Bool(flag)),
            // More of its digits may follow.
            Token::Number(_) if self.walk.is_glimpse && scanner.is_at_end() => {}
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
        let before = self.open(self.ending(), 0);
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
        let before = self.open(self.ending(), 0);
        self.walk.digest(Tag::Object, &[]);
        let mut keys: Vec<Cow<'a, str>> = Vec::new();
        while let Some(key) = scanner.key(keys.is_empty())? {
            self.walk.digest(Tag::Text, key.as_bytes());
            self.within(&key, scanner)?;
            keys.push(key);
        }
        self.end(before);
        if !self.walk.is_glimpse {
            if keys.iter().any(|key| key.starts_with('\0')) {
                return Err(Unreadable::OddKey);
            }
            if self.names_twice(&mut keys) {
                return Err(Unreadable::DuplicateKey);
            }
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
                let mut others = rest.clone();
                if others.any(|other| bytes::same(other.as_bytes(), key.as_bytes())) {
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
        self.keep(self.ending(), &Scalar::Other);
    }
}

// === impl Paths ===

impl Paths {
    /// The first `count` of all. No rule has more than [`PATHS_MAX`](super::PATHS_MAX).
    fn first(count: usize) -> Self {
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
