//! The updates of one route and caller: the last one, and behind it those before it that it does not say anew.
//!
//! `active` with a phone and `inactive` with a reason are two things to say, whichever came last: an update takes the
//! place of an unsent one only where it has all members of that. What it does not take the place of stays before it
//! in the session's order, and is sent first. In the record they stand together, the last one first; behind it
//! everything is unsent.

use alloc::borrow::Cow;

use super::{Dirty, Entry, Session, State, Trial};
use crate::config::{Implies, Route};
use crate::json;
use crate::route::Rules;
use crate::sabotage::{self, Sabotage};

/// Unsent updates of one route and caller. One more takes the place of the newest of them.
pub const UNSENT_MAX: usize = 4;

/// Which unsent updates of its route and caller a newer one says anew.
#[derive(Clone, Copy)]
pub(super) struct Covers<'c> {
    pub(super) rules: &'c Rules,
    pub(super) rule: &'c Route,
    /// Hash of its members.
    pub(super) members: u64,
    /// It itself.
    pub(super) body: &'c [u8],
}

/// What an update takes over from those whose place it takes.
#[derive(Debug, Default)]
pub(super) struct Heir {
    /// How many they are.
    pub(super) count: usize,
    /// One of them is not under way.
    pub(super) is_known: bool,
    /// Since when something of them is unsent that is not under way.
    pub(super) since_ms: Option<u64>,
    /// The same, urgent.
    pub(super) priority: bool,
    /// One of them was urgent.
    pub(super) was_priority: bool,
    /// A row that throws may well throw again: a session that says something new all the time would spoil every
    /// batch.
    pub(super) attempts: u16,
    pub(super) trial: Trial,
}

// === impl Covers ===

impl Covers<'_> {
    /// Whether it says all of this one anew.
    #[inline]
    pub(super) fn all_of(&self, dirty: &Dirty<'_>) -> bool {
        self.members == dirty.members
            || sabotage::is(Sabotage::SupersedeWhatSaysMore)
            || self.has_all_of(dirty)
    }

    /// Whether that one says all of it anew.
    #[inline]
    pub(super) fn is_covered_by(&self, dirty: &Dirty<'_>) -> bool {
        self.members == dirty.members
            || sabotage::is(Sabotage::SupersedeWhatSaysMore)
            || json::has_all(&dirty.body, self.body, &self.rule.unsaid, self.rules.key)
    }

    #[cold]
    #[inline(never)]
    fn has_all_of(&self, dirty: &Dirty<'_>) -> bool {
        json::has_all(self.body, &dirty.body, &self.rule.unsaid, self.rules.key)
    }
}

// === impl Rules ===

impl Rules {
    /// Whether an update with these members says no more than what an item of another route may imply.
    #[must_use]
    #[inline]
    pub fn is_bare(&self, rule: &Route, implies: &Implies, members: u64) -> bool {
        let pointers = rule.session_pointers();
        let mut sessions = pointers.filter_map(json::Pointer::top_level_key);
        sessions.any(|session| members == json::members_of(&[session, &implies.key]))
    }
}

// === impl Session ===

impl<'a> Session<'a> {
    /// The last update of a route and credential.
    #[must_use]
    #[inline]
    pub fn entry(&self, route: &str, caller: u64) -> Option<&Entry<'a>> {
        self.entries.iter().find(|entry| entry.is(route, caller))
    }

    #[inline]
    pub(super) fn entry_mut(&mut self, route: &str, caller: u64) -> Option<&mut Entry<'a>> {
        let mut entries = self.entries.iter_mut();
        entries.find(|entry| entry.is(route, caller))
    }

    /// Those of a route and credential, the last one first.
    #[inline]
    pub(super) fn entries_of(&self, route: &str, caller: u64) -> impl Iterator<Item = &Entry<'a>> {
        let own = move |entry: &&Entry<'a>| entry.is(route, caller);
        self.entries
            .iter()
            .skip_while(move |e| !own(e))
            .take_while(own)
    }

    /// The unsent one with this sequence, and its place.
    #[inline]
    pub(super) fn unsent_at(&self, route: &str, caller: u64, seq: u64) -> Option<usize> {
        let is_it =
            |entry: &Entry<'_>| entry.seq == seq && entry.is_dirty() && entry.is(route, caller);
        self.entries.iter().position(is_it)
    }

    // ## superseded: Dirty => absent
    /// Makes room for an update: what it says anew ends. `claimed` is under way.
    #[inline]
    pub(super) fn supersede(
        &mut self,
        (route, caller, seq): (&str, u64, u64),
        claimed: Option<u64>,
        covers: &dyn Fn(&Dirty<'_>) -> bool,
    ) -> Heir {
        let mut heir = Heir::default();
        let Some(first) = self.entries.iter().position(|e| e.is(route, caller)) else {
            return heir;
        };
        let mut at = first;
        let mut newest: Option<usize> = None;
        let mut unsent = 0_usize;
        while let Some(entry) = self.entries.get_mut(at).filter(|e| e.is(route, caller)) {
            let is_it = match &entry.state {
                State::Dirty(dirty) if entry.seq < seq => covers(dirty),
                _ => {
                    unsent = unsent.saturating_add(usize::from(entry.is_dirty()));
                    at = at.saturating_add(1);
                    continue;
                }
            };
            if is_it {
                heir.takes(entry, claimed);
                if at == first {
                    // Its place is taken in a moment.
                    at = at.saturating_add(1);
                } else {
                    self.entries.remove(at);
                }
            } else {
                unsent = unsent.saturating_add(1);
                newest = newest.or(Some(at));
                at = at.saturating_add(1);
            }
        }
        if let Some(at) = newest.filter(|_| unsent >= UNSENT_MAX)
            && let Some(entry) = self.entries.get_mut(at)
        {
            heir.takes(entry, claimed);
            if at != first {
                self.entries.remove(at);
            }
        }
        heir
    }

    /// Puts an update in its place among those of its route and caller; a sent one before it is the last no more.
    #[inline]
    pub(super) fn put(&mut self, entry: Entry<'a>) {
        let (route, caller) = (&*entry.route, entry.caller);
        let Some(mut at) = self.entries.iter().position(|e| e.is(route, caller)) else {
            if entry.text.is_some() {
                self.may_have_been_any();
            }
            self.entries.push(entry);
            return;
        };
        let is_newer = |other: &Entry<'_>| other.is(route, caller) && other.seq > entry.seq;
        while self.entries.get(at).is_some_and(is_newer) {
            at = at.saturating_add(1);
        }
        let is_own = |other: &&mut Entry<'_>| other.is(route, caller);
        let Some(place) = self.entries.get_mut(at).filter(is_own) else {
            self.entries.insert(at, entry);
            return;
        };
        let is_shown = entry.text.is_some() && entry.text != place.text;
        let text: Option<Cow<'a, str>> = match place.is_dirty() {
            true => {
                let text = place.text.clone();
                self.entries.insert(at, entry);
                text
            }
            false => core::mem::replace(place, entry).text,
        };
        if let Some(state) = text.filter(|_| is_shown) {
            self.gives_way(&state);
        }
    }
}

// === impl Heir ===

impl Heir {
    /// Takes the place of an unsent update, which is one no more.
    #[inline]
    fn takes(&mut self, entry: &mut Entry<'_>, claimed: Option<u64>) {
        let seq = entry.seq;
        let state = core::mem::replace(&mut entry.state, State::Clean { until_ms: 0 });
        let State::Dirty(dirty) = state else {
            return;
        };
        self.count = self.count.saturating_add(1);
        self.was_priority |= dirty.priority;
        // The newest says most of what it may come to.
        if self.count == 1 && !sabotage::is(Sabotage::AttemptsAreForgotten) {
            (self.attempts, self.trial) = (dirty.attempts, dirty.trial);
        }
        // What is under way is no longer unsent, and neither is its urgency.
        if claimed != Some(seq) {
            self.is_known = true;
            let since_ms = self
                .since_ms
                .map_or(dirty.since_ms, |ms| ms.min(dirty.since_ms));
            self.since_ms = Some(since_ms);
            self.priority |= dirty.priority;
        }
    }
}

#[cfg(test)]
mod tests;
