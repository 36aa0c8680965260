//! The walk itself: value by value, with the pointers that lead on from each.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::scan::{Broken, Scanner, Token};
use super::{DEPTH_MAX, Document, Pointer, Scalar, Unreadable};
use crate::hash::{Digest, HashKey, folded, mixed};
use crate::{bytes, sort};

/// Up to this many keys of an object are compared each with each: cheaper than to sort them.
const COMPARED_KEYS_MAX: usize = 16;

/// The state of one walk.
pub(super) struct Walk<'w, 'a> {
    pub(super) wanted: &'w [&'w Pointer],
    pub(super) same: &'w [Pointer],
    /// The first of `same`: nothing is there where they are blank.
    tenants: usize,
    /// What of the document is not part of what it says.
    pub(super) volatile: &'w [Pointer],
    pub(super) key: HashKey,
    /// Whatever can be read is good enough.
    pub(super) is_glimpse: bool,
    /// Each member is to be named, and not only their sum.
    pub(super) names_members: bool,
    /// Digests under way: index into `same`, and the running hash.
    digesting: Vec<(usize, Digest)>,
    pub(super) out: Document<'a>,
}

/// One value on the way down. `paths` are the pointers (wanted first, then same) that led here.
struct Node<'n, 'w, 'a> {
    walk: &'n mut Walk<'w, 'a>,
    depth: u32,
    paths: Paths,
    /// Hash of the keys that led here.
    place: u64,
    /// It is volatile, or within what is.
    is_volatile: bool,
    /// It is within a list.
    is_listed: bool,
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

/// The place of an object's member.
pub(super) fn member(place: u64, key: &str) -> u64 {
    mixed(folded(place, key.as_bytes()), 0)
}

/// What a leaf is in the sum of all members.
pub(super) fn leaf(place: u64) -> u64 {
    mixed(place, 1)
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
            volatile: &[],
            is_glimpse: false,
            names_members: false,
            digesting: Vec::new(),
            out: Document {
                found: wanted.iter().map(|_| None).collect(),
                digests: same.iter().map(|_| None).collect(),
                keys: Vec::new(),
                says: 0,
                members: 0,
                places: Vec::new(),
            },
        }
    }

    /// Walks a whole document.
    pub(super) fn whole(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Unreadable> {
        let pointers = self.first_volatile().saturating_add(self.volatile.len());
        let node = Node {
            walk: self,
            depth: 0,
            paths: Paths::first(pointers),
            place: 0,
            is_volatile: false,
            is_listed: false,
        };
        node.read(scanner)
    }

    fn segments(&self, path: usize) -> &'w [String] {
        if let Some(pointer) = self.wanted.get(path) {
            return &pointer.segments;
        }
        let path = path.saturating_sub(self.wanted.len());
        let pointer = match self.same.get(path) {
            None => self.volatile.get(path.saturating_sub(self.same.len())),
            same => same,
        };
        pointer.map_or(&[], |pointer| pointer.segments.as_slice())
    }

    /// Of all pointers, those that begin with `segment`: asked for at every member of a body, and of most of its
    /// pointers not even the length is the same.
    fn first_through(&self, segment: &str) -> Paths {
        let (mut bits, mut bit) = (0, 1_u64);
        let mut look = |pointer: &Pointer| {
            if let Some(first) = pointer.segments.first()
                && first.len() == segment.len()
                && bytes::same(first.as_bytes(), segment.as_bytes())
            {
                bits |= bit;
            }
            bit = bit.wrapping_shl(1);
        };
        self.wanted.iter().for_each(|pointer| look(pointer));
        self.same.iter().for_each(&mut look);
        self.volatile.iter().for_each(&mut look);
        Paths(bits)
    }

    /// Of all pointers, the first that is volatile.
    fn first_volatile(&self) -> usize {
        self.wanted.len().saturating_add(self.same.len())
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
        if self.depth == 0 {
            return self.walk.first_through(segment);
        }
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
                && (tenants..self.walk.same.len()).contains(&same)
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
        if !self.walk.same.is_empty() {
            let tenants = match scalar.is_blank() {
                true => self.walk.tenants,
                false => 0,
            };
            let before = self.open(ending, tenants);
            self.walk.digest(tag, bytes);
            self.close(before);
        }
        self.keep(ending, scalar);
        self.says(tag, bytes);
    }

    /// A leaf is part of what the document says, wherever its members stand: so they are added, and not strung
    /// together. (The key of the hashes is secret: nobody can look for two that have one sum.)
    fn says(&mut self, tag: Tag, bytes: &[u8]) {
        if self.is_volatile || self.walk.is_glimpse {
            return;
        }
        let mut digest = self.walk.key.digest();
        digest.write_placed(self.place, tag as u8, bytes);
        let out = &mut self.walk.out;
        out.says = out.says.wrapping_add(digest.finish128());
        self.is_there();
    }

    /// A member is there, whatever is in it. A list is one, however long.
    fn is_there(&mut self) {
        if self.is_volatile || self.is_listed {
            return;
        }
        let out = &mut self.walk.out;
        out.members = out.members.wrapping_add(leaf(self.place));
        if self.walk.names_members {
            out.places.push(self.place);
        }
    }

    fn deeper(&self) -> Result<(), Unreadable> {
        match self.depth >= DEPTH_MAX {
            true => Err(Unreadable::TooDeep),
            false => Ok(()),
        }
    }

    /// Walks the scanner's next value.
    fn read(mut self, scanner: &mut Scanner<'a>) -> Result<(), Unreadable> {
        let speaks = !self.is_volatile && !self.walk.is_glimpse;
        let watched = speaks || !self.paths.is_empty() || !self.walk.digesting.is_empty();
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
    fn within(
        &mut self,
        segment: &str,
        place: u64,
        scanner: &mut Scanner<'a>,
    ) -> Result<(), Unreadable> {
        let first_volatile = self.walk.first_volatile();
        let mut node = Node {
            paths: self.descend(segment),
            depth: self.depth.saturating_add(1),
            place,
            is_volatile: self.is_volatile,
            is_listed: self.is_listed,
            walk: self.walk,
        };
        if node.paths.any_from(first_volatile) {
            let ending = node.ending();
            node.is_volatile |= ending.any_from(first_volatile);
        }
        node.read(scanner)
    }

    fn array(mut self, scanner: &mut Scanner<'a>) -> Result<(), Unreadable> {
        self.deeper()?;
        let before = self.open(self.ending(), 0);
        self.walk.digest(Tag::Array, &[]);
        self.is_there();
        let is_listed = core::mem::replace(&mut self.is_listed, true);
        let mut index = 0_u32;
        while scanner.element(index == 0)? {
            let segment = match self.paths.is_empty() {
                true => String::new(),
                false => index.to_string(),
            };
            let place = mixed(self.place, u64::from(index).saturating_add(1));
            self.within(&segment, place, scanner)?;
            index = index.saturating_add(1);
        }
        if index == 0 {
            self.says(Tag::Array, &[]);
        }
        self.is_listed = is_listed;
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
            let place = member(self.place, &key);
            self.within(&key, place, scanner)?;
            keys.push(key);
        }
        if keys.is_empty() {
            self.says(Tag::Object, &[]);
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

    /// Whether one of them is at this place or behind it.
    fn any_from(self, place: usize) -> bool {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        self.0.checked_shr(place).unwrap_or(0) != 0
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
