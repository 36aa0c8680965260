//! Sorting, once.
//!
//! The library's sorts are generic over what is sorted, and each type's copy is four kilobytes of the module.
//! This one sorts keys, whatever they belong to; for the few dozen things that are ever sorted here it is fast
//! enough.

use alloc::vec::Vec;

/// A key, and the place of what it belongs to.
type Rank = (u128, usize);

/// Sorts by a key. Equal keys keep their order. `n log n` at worst: what is sorted may be a stranger's.
pub fn by_key<T>(items: &mut Vec<T>, key: impl Fn(&T) -> u128) {
    let mut ranks: Vec<Rank> = items
        .iter()
        .enumerate()
        .map(|(place, item)| (key(item), place))
        .collect();
    heap_sort(&mut ranks);
    let mut slots: Vec<Option<T>> = items.drain(..).map(Some).collect();
    items.extend(
        ranks
            .iter()
            .filter_map(|(_, place)| slots.get_mut(*place)?.take()),
    );
}

fn heap_sort(ranks: &mut [Rank]) {
    for at in (0..ranks.len() / 2).rev() {
        sift(ranks, at);
    }
    for end in (1..ranks.len()).rev() {
        ranks.swap(0, end);
        sift(ranks.get_mut(..end).unwrap_or_default(), 0);
    }
}

/// Lets what is at `at` sink to its level.
fn sift(ranks: &mut [Rank], mut at: usize) {
    loop {
        let left = at.saturating_mul(2).saturating_add(1);
        let right = left.saturating_add(1);
        // `None` is less than any.
        let child = match ranks.get(right) > ranks.get(left) {
            true => right,
            false => left,
        };
        if ranks.get(child) <= ranks.get(at) {
            return;
        }
        ranks.swap(at, child);
        at = child;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_sorts_as_the_library_does_and_keeps_the_order_of_equals(
            keys in prop::collection::vec(0_u8..20, 0..200),
        ) {
            let mut ours: Vec<(usize, u8)> = keys.into_iter().enumerate().collect();
            let mut known = ours.clone();
            known.sort_by_key(|(_, key)| *key);
            by_key(&mut ours, |(_, key)| u128::from(*key));
            prop_assert_eq!(ours, known);
        }
    }
}
