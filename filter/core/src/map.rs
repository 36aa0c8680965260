//! A map for a few things, or a few thousand.
//!
//! The library's is generic over what it holds, and each pair of types has its own copy of the tree: four kilobytes of
//! the module, eleven times. This one is a vector, sorted by the key. To insert or remove moves what is behind, which
//! is nothing beside the call or the look at a shard that was the reason.

use alloc::vec::{self, Vec};
use core::borrow::Borrow;
use core::slice;

/// Keys and values, in the order of the keys.
#[derive(Debug)]
pub struct Map<K, V> {
    entries: Vec<(K, V)>,
}

/// A key's place in a map, whether or not there is a value yet.
#[derive(Debug)]
pub struct Entry<'m, K, V> {
    entries: &'m mut Vec<(K, V)>,
    key: K,
    place: Result<usize, usize>,
}

// === impl Map ===

impl<K: Ord, V> Map<K, V> {
    /// An empty map.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key).ok()?;
        self.entries.get(place).map(|(_, value)| value)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key).ok()?;
        self.entries.get_mut(place).map(|(_, value)| value)
    }

    /// A key's place.
    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        let place = self.place(&key);
        Entry {
            entries: &mut self.entries,
            key,
            place,
        }
    }

    /// Sets the value of a key; gives the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(place) => {
                let (_, old) = self.entries.get_mut(place)?;
                Some(core::mem::replace(old, value))
            }
            Err(place) => {
                self.entries.insert(place, (key, value));
                None
            }
        }
    }

    /// Takes a key's value out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key).ok()?;
        Some(self.entries.remove(place).1)
    }

    /// Keeps what `keeps` says.
    pub fn retain(&mut self, mut keeps: impl FnMut(&K, &mut V) -> bool) {
        self.entries.retain_mut(|(key, value)| keeps(key, value));
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// All, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// All, their values to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.entries.iter().map(|(_, value)| value)
    }

    /// All values, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    /// Where a key is, or would be.
    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.entries
            .binary_search_by(|(other, _)| other.borrow().cmp(key))
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
        }
    }
}

impl<K, V> IntoIterator for Map<K, V> {
    type Item = (K, V);
    type IntoIter = vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<'m, K, V> IntoIterator for &'m Map<K, V> {
    type Item = &'m (K, V);
    type IntoIter = slice::Iter<'m, (K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}

// === impl Entry ===

impl<'m, K, V> Entry<'m, K, V> {
    /// The value there; `make` makes it where there was none.
    #[expect(
        clippy::indexing_slicing,
        reason = "the map has been borrowed since the place was found"
    )]
    pub fn or_insert_with(self, make: impl FnOnce() -> V) -> &'m mut V {
        let (_, value) = match self.place {
            Ok(place) => &mut self.entries[place],
            Err(place) => self.entries.insert_mut(place, (self.key, make())),
        };
        value
    }

    /// The value there; this one where there was none.
    pub fn or_insert(self, value: V) -> &'m mut V {
        self.or_insert_with(|| value)
    }

    /// The value there; the default where there was none.
    pub fn or_default(self) -> &'m mut V
    where
        V: Default,
    {
        self.or_insert_with(V::default)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_the_librarys_would(
            steps in prop::collection::vec((0_u8..5, 0_u8..30, 0_u32..100), 0..200),
        ) {
            let mut ours: Map<u8, u32> = Map::new();
            let mut known = BTreeMap::new();
            for (step, key, value) in steps {
                match step {
                    0 => prop_assert_eq!(ours.insert(key, value), known.insert(key, value)),
                    1 => prop_assert_eq!(ours.remove(&key), known.remove(&key)),
                    2 => {
                        *ours.entry(key).or_default() += value;
                        *known.entry(key).or_default() += value;
                    }
                    3 => prop_assert_eq!(ours.get_mut(&key), known.get_mut(&key)),
                    _ => {
                        ours.retain(|other, have| *other != key && *have != value);
                        known.retain(|other, have| *other != key && *have != value);
                    }
                }
                prop_assert_eq!(ours.get(&key), known.get(&key));
                prop_assert_eq!((ours.len(), ours.is_empty()), (known.len(), known.is_empty()));
                prop_assert!(ours.iter().eq(known.iter()));
                prop_assert!(ours.values().eq(known.values()));
            }
            prop_assert!(ours.into_iter().eq(known));
        }
    }
}
