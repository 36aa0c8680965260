//! Keyed hashes: what the store keeps instead of session names and values.
//!
//! SipHash with a 128-bit key that is drawn once for a process and lives in the store's layout. The key
//! is secret so that nobody who can choose session names can aim them all at one shard; 128 bits of
//! result, so that two of 16 384 sessions never meet (2⁻¹⁰⁰) and equality of hashes may stand for
//! equality of values.

use core::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

/// The key of every hash in one process's store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey([u8; 16]);

/// A hash under way.
#[derive(Clone)]
pub struct Digest(SipHasher13);

/// Knuth's: the next prime below 2⁶⁴ times the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// One word more of a cheap hash. Whoever knows it can make two texts meet: it stands for a place, and for the name of
/// a member within a keyed hash.
#[must_use]
#[inline]
pub const fn mixed(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR)
}

/// A text more of it.
#[must_use]
#[inline]
pub fn folded(mut hash: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = mixed(hash, u64::from_le_bytes(*word));
    }
    for byte in rest {
        hash = mixed(hash, u64::from(*byte));
    }
    hash
}

// === impl HashKey ===

impl HashKey {
    /// A key from 16 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key's bytes, to be kept in the layout.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 16] {
        self.0
    }

    /// Starts a hash.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(SipHasher13::new_with_key(&self.0))
    }

    /// Hashes parts so that `("a", "bc")` and `("ab", "c")` differ.
    #[must_use]
    pub fn hash(&self, parts: &[&[u8]]) -> u128 {
        let mut digest = self.digest();
        for part in parts {
            digest.write_usize(part.len());
            digest.write(part);
        }
        digest.finish128()
    }
}

/// Never prints the key.
impl core::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

// === impl Digest ===

impl Digest {
    /// A tag, the length of a text and the text itself; the first two in one go, since each costs more than its bytes.
    pub fn write_tagged(&mut self, tag: u8, bytes: &[u8]) {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = (bytes.len() as u64).to_le_bytes();
        self.write(&[tag, b0, b1, b2, b3, b4, b5, b6, b7]);
        self.write(bytes);
    }

    /// A place, a tag, and the length of a text and the text itself; all but that in one go of two whole words, since
    /// what is none is kept aside for the next.
    pub fn write_placed(&mut self, place: u64, tag: u8, bytes: &[u8]) {
        let head = u64::from(tag) << 56 | bytes.len() as u64;
        let head = u128::from(head) << 64 | u128::from(place);
        self.write(&head.to_le_bytes());
        self.write(bytes);
    }

    /// The 128-bit result.
    #[must_use]
    pub fn finish128(&self) -> u128 {
        self.0.finish128().as_u128()
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0.finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// As 64 bits on every target: a native host and the wasm guest must agree.
    fn write_usize(&mut self, value: usize) {
        self.0.write(&(value as u64).to_le_bytes());
    }

    fn write_u8(&mut self, value: u8) {
        self.0.write(&[value]);
    }
}
