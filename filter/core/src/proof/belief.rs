//! What is believed of Laravel's answers to reads, and by what it was seen.
//!
//! A kept answer with a new state in its place is what Laravel would say, if it shows nothing that changes with the
//! state, and nothing that changes by itself. Whether that is so is not assumed: three fresh answers have to be, byte
//! for byte, what the one before them would have been with the new state in its place. One that differs disproves it,
//! for ten minutes at first. While it is believed, one answer in fifteen seconds is asked for afresh and compared.
//!
//! Of a caller and a pair of states, the one before and the one after: one Laravel shows a phone beside `active`, and
//! nothing beside the others, so what was seen from `connecting` to `pending` says nothing of `active` to `pending`.

use super::record::{self, Entry, Kind};
use super::{Proofs, place};
use crate::sabotage::{self, Sabotage};
use crate::store::{Keys, Store};
use crate::time::Now;

/// Fresh answers that prove it.
pub(super) const SEEN_MIN: u16 = 3;

/// One in this time is compared, milliseconds.
const SAMPLE_MS: u64 = 15_000;

/// For how long it is disproved at first, milliseconds; doubled each time.
const DISPROVED_MS: u64 = 600_000;

/// Longest that it is, milliseconds.
const DISPROVED_MS_MAX: u64 = 3_600_000;

// The flags of such an entry, above those of the others.
const SEEN_SHIFT: u16 = 4;
const SEEN: u16 = 0b11 << SEEN_SHIFT;
/// The other members that had the same text have followed the state.
const ALL: u16 = 1 << 6;
/// They have not.
const ONE: u16 = 1 << 7;
const DOUBLED_SHIFT: u16 = 8;
const DOUBLED: u16 = 0b111 << DOUBLED_SHIFT;

/// Whose reads, and from which state to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Keyed hash of the caller, the read and both states as they are written there.
    pub key: u64,
    /// Keyed hash of the caller and the read.
    pub reads: u64,
    /// Keyed hash of the destination.
    pub destination: u64,
}

/// Where in an answer a new state stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// In the first of its members only.
    One,
    /// In the others that had the same text, too.
    All,
    /// There is one such member.
    Any,
}

/// What is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// It was not seen yet, or it was seen that it is not so.
    Unproven,
    /// A kept answer shows the state so.
    Proven(Follows),
    /// The same, and this one is to be asked for afresh and compared.
    Sample,
}

/// What a fresh answer was, beside the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The same, with the state in its place.
    Same(Follows),
    /// Another.
    Differs,
}

// === impl Proofs ===

impl Proofs {
    /// What is believed of reads that show this; whoever is told to sample has taken the turn. A turn is for those that
    /// `can_be_compared`.
    pub fn belief(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        shown: Shown,
        can_be_compared: bool,
        now: Now,
    ) -> Belief {
        let (at, key) = (place(shown.key), shown.key);
        let known = |entry: &&Entry| !entry.is(record::ENDED) && entry.is_used(now.mono_ms);
        let known = self.entry(at, Kind::Belief, key).filter(known);
        // Whether it was used is written once a minute, and looked up where it is not known.
        let known = match known.map(|entry| entry.flags) {
            None if !self.finds(store, keys, at, Kind::Belief, key, now) => None,
            None => self.entry(at, Kind::Belief, key).map(|entry| entry.flags),
            known => known,
        };
        let Some(flags) = known.filter(|flags| seen(*flags) >= SEEN_MIN) else {
            return Belief::Unproven;
        };
        let proven = Belief::Proven(follows(flags));
        match can_be_compared && self.takes_sample(store, keys, shown, now) {
            true => Belief::Sample,
            false => proven,
        }
    }

    /// Whether it is this worker's turn to have one of a caller's reads compared.
    fn takes_sample(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        shown: Shown,
        now: Now,
    ) -> bool {
        let (at, key) = (place(shown.reads), shown.reads);
        let is_due = |entry: &Entry| now.mono_ms.saturating_sub(entry.accepted_ms) >= SAMPLE_MS;
        if sabotage::is(Sabotage::NeverSample) {
            return false;
        }
        // Who finds it not due has nothing to ask the store.
        if !self.entry(at, Kind::Belief, key).is_none_or(is_due) {
            return false;
        }
        let mut is_mine = false;
        self.change(store, keys, at, |record| {
            let due = record.find(Kind::Belief, key).map(is_due);
            // The time begins with the first that could be one.
            is_mine = due == Some(true);
            let is_news = due != Some(false);
            if is_news {
                record.accept(Kind::Belief, key, shown.destination, now.mono_ms);
            }
            is_news
        });
        is_mine
    }

    /// How a state was last seen to stand in an answer, believed or not; [`Follows::Any`] where it was not.
    pub fn follows(&mut self, store: &impl Store, keys: &Keys, shown: Shown) -> Follows {
        let at = place(shown.key);
        if self.copies.get(at).is_some_and(|copy| !copy.is_read) {
            self.read(store, keys, at);
        }
        let entry = self.entry(at, Kind::Belief, shown.key);
        entry.map_or(Follows::Any, |entry| follows(entry.flags))
    }

    // ## Unproven => Proven | Disproved

    /// A fresh answer that shows this, beside the one before it. True where it is news that they differ.
    pub fn compared(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        shown: Shown,
        compared: Compared,
        now: Now,
    ) -> bool {
        let at = place(shown.key);
        let known = self.entry(at, Kind::Belief, shown.key).map(|entry| {
            let seen = seen(entry.flags);
            (seen, follows(entry.flags), entry.is(record::ENDED))
        });
        // What is known says nothing new.
        match (compared, known) {
            (Compared::Same(how), Some((SEEN_MIN, known, false))) if agrees(known, how) => {
                return false;
            }
            _ => {}
        }
        let mut is_news = false;
        self.change(store, keys, at, |record| {
            let until_ms = |flags: u16| {
                let doubled = u32::from((flags & DOUBLED) >> DOUBLED_SHIFT);
                let ms = DISPROVED_MS.checked_shl(doubled).unwrap_or(u64::MAX);
                ms.min(DISPROVED_MS_MAX)
            };
            if let Some(entry) = record.find(Kind::Belief, shown.key)
                && entry.is(record::ENDED)
                && now.mono_ms < entry.ended_ms.saturating_add(until_ms(entry.flags))
            {
                return false;
            }
            let entry = record.accept(Kind::Belief, shown.key, shown.destination, now.mono_ms);
            let Some(entry) = entry else {
                return false;
            };
            let seen = seen(entry.flags);
            let known = follows(entry.flags);
            match compared {
                Compared::Same(how) if agrees(known, how) && !entry.is(record::ENDED) => {
                    entry.flags =
                        with_seen(entry.flags, seen.saturating_add(1).min(SEEN_MIN)) | bits(how);
                }
                // It is so after all, or it follows otherwise than was thought: seen once.
                Compared::Same(how) => {
                    let flags = entry.flags & !(ALL | ONE | record::ENDED);
                    entry.flags = with_seen(flags, 1) | bits(how);
                }
                Compared::Differs => {
                    is_news = !entry.is(record::ENDED);
                    let doubled = (entry.flags & DOUBLED) >> DOUBLED_SHIFT;
                    let doubled = match entry.is(record::ENDED) {
                        true => doubled.saturating_add(1).min(7),
                        false => doubled,
                    };
                    entry.flags = with_seen(entry.flags, 0) & !(ALL | ONE | DOUBLED)
                        | doubled << DOUBLED_SHIFT
                        | record::ENDED;
                    entry.ended_ms = now.mono_ms;
                }
            }
            true
        });
        is_news
    }
}

/// How often it was seen so.
#[inline]
pub(super) const fn seen(flags: u16) -> u16 {
    (flags & SEEN) >> SEEN_SHIFT
}

fn follows(flags: u16) -> Follows {
    match (flags & ALL != 0, flags & ONE != 0) {
        (true, false) => Follows::All,
        (false, true) => Follows::One,
        _ => Follows::Any,
    }
}

/// Whether two answers can be of one kind.
fn agrees(known: Follows, seen: Follows) -> bool {
    known == seen || known == Follows::Any || seen == Follows::Any
}

fn bits(how: Follows) -> u16 {
    match how {
        Follows::One => ONE,
        Follows::All => ALL,
        Follows::Any => 0,
    }
}

fn with_seen(flags: u16, seen: u16) -> u16 {
    flags & !SEEN | seen << SEEN_SHIFT
}
