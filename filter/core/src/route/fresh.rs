//! Headers whose value is new in every request.
//!
//! A token that is made anew for each request makes each request a caller of its own: none is ever queued, and nobody
//! says why. So the headers of heads that were not recognised before are looked at: where nearly every value is one that
//! was never there, an operator should know of the name. Values are kept as a bit each.

use alloc::string::String;
use alloc::vec::Vec;

/// Names that are watched; the one that was seen least makes room.
const NAMES_MAX: usize = 16;

/// Requests after which a name is judged.
const REQUESTS: u16 = 512;

/// Values among them that were new, for the name to be worth a word. All being new, some 450 find their bit not set yet;
/// of a thousand callers who take turns by chance, some 360.
const NEW_MIN: u16 = 420;

/// Bits: four for each request.
const WORDS: usize = 32;

/// The names that are watched, for one worker.
#[derive(Debug, Default)]
pub(super) struct Fresh(Vec<Watched>);

/// One of them.
#[derive(Debug)]
struct Watched {
    name: String,
    seen: [u64; WORDS],
    requests: u16,
    new: u16,
    is_told: bool,
}

/// A header whose value is new in nearly every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreshHeader {
    /// Its name.
    pub name: String,
    /// How many values were new, of 512 requests.
    pub values: u16,
}

// === impl Fresh ===

impl Fresh {
    /// Notes a value by its hash; tells of a name once.
    #[inline]
    pub(super) fn note(&mut self, name: &str, value: u64) -> Option<FreshHeader> {
        let at = match self.0.iter().position(|known| known.name == name) {
            Some(at) => at,
            None => self.begin(name),
        };
        let known = self.0.get_mut(at)?;
        let word = known.seen.get_mut((value >> 6) as usize % WORDS)?;
        let bit = 1 << (value & 63);
        known.new = known.new.saturating_add(u16::from(*word & bit == 0));
        *word |= bit;
        known.requests = known.requests.saturating_add(1);
        if known.requests < REQUESTS {
            return None;
        }
        let values = core::mem::take(&mut known.new);
        (known.seen, known.requests) = ([0; WORDS], 0);
        let is_news = values >= NEW_MIN && !known.is_told;
        known.is_told |= is_news;
        is_news.then(|| FreshHeader {
            name: name.into(),
            values,
        })
    }

    #[inline]
    fn begin(&mut self, name: &str) -> usize {
        let watched = Watched {
            name: name.into(),
            seen: [0; WORDS],
            requests: 0,
            new: 0,
            is_told: false,
        };
        if self.0.len() < NAMES_MAX {
            self.0.push(watched);
            return self.0.len().saturating_sub(1);
        }
        let quiet = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, known)| !known.is_told);
        let least = quiet.min_by_key(|(_, known)| known.requests);
        let at = least.map_or(usize::MAX, |(at, _)| at);
        if let Some(place) = self.0.get_mut(at) {
            *place = watched;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::HashKey;

    const KEY: HashKey = HashKey::from_bytes([3; 16]);

    fn told(fresh: &mut Fresh, name: &str, values: impl Iterator<Item = u64>) -> usize {
        let hash = |value: u64| KEY.hash(&[&value.to_le_bytes()]) as u64;
        values
            .filter_map(|value| fresh.note(name, hash(value)))
            .count()
    }

    #[test]
    fn a_value_that_is_new_each_time_is_told_of_once() {
        let mut fresh = Fresh::default();
        assert_eq!(told(&mut fresh, "authorization", 0..5_000), 1);
        assert_eq!(told(&mut fresh, "authorization", 0..5_000), 0);
        assert_eq!(told(&mut fresh, "x-other", 0..1_000), 1);
    }

    #[test]
    fn callers_who_take_turns_are_many_and_not_new() {
        for callers in [1, 40, 300, 1_000] {
            let mut fresh = Fresh::default();
            let turns = (0..20_000_u64).map(|n| KEY.hash(&[&n.to_le_bytes()]) as u64 % callers);
            assert_eq!(told(&mut fresh, "authorization", turns), 0, "{callers}");
        }
    }

    #[test]
    fn a_stranger_who_makes_up_names_takes_no_place_that_is_in_use() {
        let mut fresh = Fresh::default();
        let mut found = 0;
        for n in 0..2_000 {
            found += told(&mut fresh, "authorization", n..=n);
            told(&mut fresh, &alloc::format!("x-{n}"), 0..1);
        }
        assert_eq!(found, 1);
        assert!(fresh.0.len() <= NAMES_MAX);
    }
}
