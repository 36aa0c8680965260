//! What every shard's place depends on, fixed when Embudo first starts in a process.
//!
//! Shared data has neither delete nor listing, so the number of shards can never change while the
//! process lives: a configuration with another `max_sessions` keeps the old number.

use alloc::vec::Vec;
use core::fmt;

use crate::hash::HashKey;
use crate::store::{Expect, Keys, PutError, Store};

/// Version of the bytes of shards, lease and layout. A process keeps its store through a reload of the
/// `.wasm`, so another version must not touch it.
pub const VERSION: u32 = 5;

/// Attempts at creating the layout: N + 2 contexts start at once, one of them wins.
const ATTEMPTS_MAX: u32 = 8;

/// The layout in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of shards.
    pub shards: u32,
    /// Key of all hashes.
    pub key: HashKey,
}

/// Why there is no layout to work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// Another version's store is in use.
    Version(u32),
    /// What is there is no layout, or the host refuses to keep one.
    Unusable,
}

// === impl Layout ===

impl Layout {
    /// The layout in use, or `wanted` if there is none yet.
    ///
    /// # Errors
    /// [`LayoutError`]; the plugin must then refuse its configuration.
    pub fn open(store: &mut impl Store, keys: &Keys, wanted: Self) -> Result<Self, LayoutError> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some((bytes, _)) = store.get(&keys.layout()) {
                return Self::decode(&bytes);
            }
            match store.put(&keys.layout(), &wanted.encode(), Expect::Absent) {
                Ok(()) => return Ok(wanted),
                Err(PutError::Mismatch) => {}
                Err(PutError::Refused) => return Err(LayoutError::Unusable),
            }
        }
        Err(LayoutError::Unusable)
    }

    #[inline]
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.shards.to_le_bytes());
        out.extend_from_slice(&self.key.bytes());
        out
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        let (version, rest) = bytes.split_first_chunk().ok_or(LayoutError::Unusable)?;
        match u32::from_le_bytes(*version) {
            VERSION => {}
            other => return Err(LayoutError::Version(other)),
        }
        let (shards, rest) = rest.split_first_chunk().ok_or(LayoutError::Unusable)?;
        let key = rest.try_into().map_err(|_| LayoutError::Unusable)?;
        match u32::from_le_bytes(*shards) {
            0 => Err(LayoutError::Unusable),
            shards => Ok(Self {
                shards,
                key: HashKey::from_bytes(key),
            }),
        }
    }
}

// === impl LayoutError ===

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(f, "layout {version} is in use: drain and restart Envoy")
            }
            Self::Unusable => f.write_str(
                "the store's layout cannot be read or written: does another plugin use this name \
                 and vm_id?",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn layout(shards: u32, byte: u8) -> Layout {
        Layout {
            shards,
            key: HashKey::from_bytes([byte; 16]),
        }
    }

    #[test]
    fn whoever_comes_first_decides_for_the_life_of_the_process() {
        let (mut store, keys) = (MemoryStore::default(), Keys::new("p"));
        assert_eq!(
            Layout::open(&mut store, &keys, layout(8, 1)),
            Ok(layout(8, 1))
        );
        assert_eq!(
            Layout::open(&mut store, &keys, layout(99, 2)),
            Ok(layout(8, 1))
        );
        assert_eq!(
            Layout::open(&mut store, &Keys::new("q"), layout(9, 2)),
            Ok(layout(9, 2))
        );
    }

    #[test]
    fn another_version_is_refused() {
        let (mut store, keys) = (MemoryStore::default(), Keys::new("p"));
        store
            .put(&keys.layout(), &7_u32.to_le_bytes(), Expect::Absent)
            .unwrap();
        let error = Layout::open(&mut store, &keys, layout(8, 1)).unwrap_err();
        assert!(alloc::format!("{error}").contains("layout 7 is in use"));
        store
            .put(&Keys::new("q").layout(), b"x", Expect::Absent)
            .unwrap();
        let other = Layout::open(&mut store, &Keys::new("q"), layout(8, 1));
        assert_eq!(other, Err(LayoutError::Unusable));
    }
}
