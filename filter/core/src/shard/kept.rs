//! Laravel's own answers to reads, and what makes them show every write.
//!
//! A kept answer lives in the session whose state it shows, so one compare-and-swap sees both. It remembers
//! the *floor* of its read: whatever of the session had a sequence at or below it was settled when the read
//! began, so Laravel's answer shows it. What came later is patched in.

use alloc::borrow::{Cow, ToOwned as _};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::{DOUBTED, Entry, SESSIONS_SHARE_MAX, Session, Shard, State};
use crate::config::Route;
use crate::json;
use crate::proof::Follows;
use crate::route::{Asked, Rules};
use crate::sabotage::{self, Sabotage};
use crate::time::Now;

/// An answer of Laravel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept<'a> {
    /// The read's name.
    pub read: Cow<'a, str>,
    /// Whose updates it shows, as in [`Entry::caller`].
    pub caller: u64,
    /// Keyed hash of whatever in the request may make another answer of it: nobody else ever sees it.
    pub reader: u64,
    /// When its read began; 0 where it may not be what Laravel would say now. Monotonic.
    pub fetched_ms: u64,
    /// Until when it is kept at all. Monotonic.
    pub until_ms: u64,
    /// Laravel's answer shows everything up to this sequence.
    pub floor: u64,
    /// Something else than a state came after it, may be shown beside the state, and has left no entry.
    pub has_more: bool,
    /// Where in it the state is; behind the first, the others of its members that have the same text.
    pub places: Places,
    /// Its `access-control-*` headers, a line each.
    pub headers: Cow<'a, [u8]>,
    /// The body, byte for byte.
    pub body: Cow<'a, [u8]>,
}

/// What Laravel may still show although it has answered 200 to something newer: it may have a queue, or a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settling<'a> {
    /// The last states that the newest one has taken the place of; an empty one, or none, where nobody knows what was
    /// there.
    pub was: Was<'a>,
    /// When one of them was delivered last; 0 before that. Monotonic.
    pub delivered_ms: u64,
    /// The newest one was not yet: its time begins anew.
    pub awaits: bool,
}

/// States, each behind its length: as they lie in the store, since every request of the shard reads them and few ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Was<'a>(pub(super) Cow<'a, [u8]>);

/// A few places, in no memory of their own for the same reason. What is beyond them does not follow the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    count: u8,
    list: [Place; PLACES_MAX],
}

/// Places in one answer.
pub const PLACES_MAX: usize = 3;

/// What of a session was accepted between two answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// Anything.
    pub any: bool,
    /// Something else than the state that is shown: a QR may be shown beside it.
    pub more: bool,
}

impl Since {
    /// The same after a kept answer, which knows of what has left no entry.
    #[must_use]
    #[inline]
    pub const fn after(self, kept: &Kept<'_>) -> Self {
        Self {
            any: self.any || kept.has_more,
            more: self.more || kept.has_more,
        }
    }

    /// Whether more than a state may make another answer of it. Where nothing was accepted, Laravel may still be late
    /// with whatever there was before.
    #[must_use]
    #[inline]
    pub const fn has_more(self) -> bool {
        self.more || !self.any
    }
}

/// Answers of one session that are kept; the one that was asked for first makes room.
pub const KEPT_MAX: usize = 4;

/// States that are remembered while they may still be shown: those of a pairing, one after the other.
pub const WAS_MAX: usize = 4;

/// The longest of them, bytes.
const WAS_BYTES_MAX: usize = 64;

/// For how long at most, milliseconds: no configuration settles for longer.
const SETTLING_MS_MAX: u64 = 300_000;

/// Where in a body the state's JSON string is, its quotes included, or its null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// First byte.
    pub start: u32,
    /// The byte behind the last.
    pub end: u32,
}

// === impl Shard ===

impl<'a> Shard<'a> {
    /// The sequence up to which an answer of Laravel's to a read that begins now shows everything.
    #[must_use]
    #[inline]
    pub fn floor(&self, session: u128, mono_ms: u64) -> u64 {
        let Some(session) = self.session(session) else {
            return self.last_seq;
        };
        if sabotage::is(Sabotage::FloorIgnoresUnsettled) {
            return self.last_seq;
        }
        let unsent = session
            .entries
            .iter()
            .filter(|entry| entry.is_dirty())
            .map(|entry| entry.seq);
        let under_way = session.live_claim(mono_ms).map(|claim| claim.seq);
        // What is at Laravel beside the claim may be stored at any time: while it is there nothing is kept.
        let held = session.held.iter().map(|place| place.seq);
        // What was overtaken makes nothing of what overtook it undone: once it is delivered, no kept answer is true.
        let delivered = session.delivered_seq();
        unsent
            .chain(under_way)
            .chain(held)
            .filter(|seq| *seq > delivered)
            .min()
            .map_or(self.last_seq, |seq| seq.saturating_sub(1))
    }

    /// Keeps an answer in the place of its predecessor. False where it must not be kept, or there is no room.
    #[inline]
    pub fn keep(&mut self, asked: &Asked, kept: Kept<'a>, now: Now) -> bool {
        self.prune(now.mono_ms);
        if sabotage::is(Sabotage::KeepOfAnything) && self.session(asked.session).is_none() {
            self.sessions
                .push(Session::new(asked.session, self.last_seq));
        }
        // Of a session that nothing was accepted of, nothing is known: it may be `all`, or `health`.
        let session = self.session_mut(asked.session);
        let is_any = sabotage::is(Sabotage::KeepOfAnything);
        let Some(session) = session.filter(|it| is_any || !it.entries.is_empty()) else {
            return false;
        };
        if kept.floor < session.unread_seq
            || session.is_in_doubt()
            || session.is_being_overwritten(now.mono_ms)
        {
            return false;
        }
        // Of two reads that overlapped, the one that knows more stays.
        if session
            .kept_of(&kept.read, kept.reader)
            .is_some_and(|other| (other.floor, other.fetched_ms) > (kept.floor, kept.fetched_ms))
        {
            return false;
        }
        session.forget_kept(&kept.read, kept.reader);
        if session.kept.len() >= KEPT_MAX {
            let first = session.kept.iter().enumerate();
            let first = first.min_by_key(|(_, kept)| kept.fetched_ms);
            if let Some((at, _)) = first {
                session.kept.remove(at);
            }
        }
        session.kept.push(kept);
        true
    }

    /// Drops what is kept of a read; false where there was nothing.
    #[inline]
    pub fn drop_kept(&mut self, session: u128, read: &str, reader: u64) -> bool {
        self.session_mut(session)
            .is_some_and(|session| session.forget_kept(read, reader))
    }

    /// Whether one credential alone holds its share of the sessions.
    #[inline]
    pub(super) fn has_its_share(&self, caller: u64) -> bool {
        let holds = |session: &&Session<'_>| {
            let entries = session.entries.iter().map(|entry| entry.caller);
            let mut all = entries.chain(session.kept.iter().map(|kept| kept.caller));
            all.all(|known| known == caller)
        };
        // Nobody holds more than there are.
        self.sessions.len() >= SESSIONS_SHARE_MAX
            && self.sessions.iter().filter(holds).count() >= SESSIONS_SHARE_MAX
    }

    /// Bytes of bodies that one credential holds.
    #[must_use]
    #[inline]
    pub fn bytes_of(&self, caller: u64) -> usize {
        let entries = self.sessions.iter().flat_map(|session| &session.entries);
        let sizes =
            entries
                .filter(|entry| entry.caller == caller)
                .map(|entry| match &entry.state {
                    State::Dirty(dirty) => dirty.bytes(),
                    State::Clean { .. } | State::Implied { .. } => 0,
                });
        sizes.fold(0, usize::saturating_add)
    }
}

// === impl Session ===

impl<'a> Session<'a> {
    /// What is kept of a read for a reader.
    #[must_use]
    #[inline]
    pub fn kept_of(&self, read: &str, reader: u64) -> Option<&Kept<'a>> {
        self.kept.iter().find(|kept| {
            let own = kept.reader == reader;
            kept.read == read && (own || sabotage::is(Sabotage::ReadUnderAnyName))
        })
    }

    #[inline]
    fn forget_kept(&mut self, read: &str, reader: u64) -> bool {
        let before = self.kept.len();
        self.kept
            .retain(|kept| kept.read != read || kept.reader != reader);
        self.kept.len() < before
    }

    /// The newest state of a caller, its sequence, and whether Laravel has it.
    #[must_use]
    #[inline]
    pub fn newest_state(
        &self,
        rules: &Rules,
        state: usize,
        caller: u64,
    ) -> Option<(&str, u64, bool)> {
        let route = rules.route(state)?;
        let entry = self.entry(&route.name, caller)?;
        let is_sent = matches!(entry.state, State::Clean { .. });
        Some((entry.text.as_deref()?, entry.seq, is_sent))
    }

    /// The same, whoever has said it.
    #[must_use]
    pub fn newest_of_all(&self, rules: &Rules, state: usize) -> Option<(&str, u64, bool)> {
        let route = rules.route(state)?;
        let all = self
            .entries
            .iter()
            .filter(|entry| entry.route == route.name);
        let entry = all.max_by_key(|entry| entry.seq)?;
        let is_sent = matches!(entry.state, State::Clean { .. });
        Some((entry.text.as_deref()?, entry.seq, is_sent))
    }

    /// Whether Laravel may show this state because of something that came after that: of whomever, or a QR that may have
    /// set it.
    #[must_use]
    #[inline]
    pub fn may_have_set(&self, rules: &Rules, state: usize, seq: u64, shown: &str) -> bool {
        let Some(rule) = rules.route(state) else {
            return true;
        };
        let sets = |route: &str| {
            let by = rules.config.route_named(route).map(|(_, by)| by);
            let implies = by.and_then(|by| by.implies.as_ref());
            let implies = implies.filter(|implies| implies.route == state);
            rules.is_kin(rule, route) || implies.is_some_and(|implies| implies.value == shown)
        };
        let mut entries = self.entries.iter();
        self.through_seq > seq || entries.any(|entry| entry.seq > seq && sets(&entry.route))
    }

    /// What is newer than the first of these sequences, and no newer than the second.
    #[must_use]
    #[inline]
    pub fn since(&self, rules: &Rules, state: usize, caller: u64, floors: Range<u64>) -> Since {
        if sabotage::is(Sabotage::NothingBetween) {
            return Since {
                any: true,
                more: false,
            };
        }
        let route = rules.route(state).map_or("", |route| &*route.name);
        let mut since = Since::default();
        for entry in &self.entries {
            if entry.seq > floors.start && entry.seq <= floors.end {
                since.any = true;
                since.more |= !entry.is(route, caller);
            }
        }
        since
    }

    /// Until then an answer may show less than Laravel has taken.
    #[must_use]
    #[inline]
    pub fn settles_until(&self, settle_ms: u64, ttl_ms: u64) -> u64 {
        if sabotage::is(Sabotage::SettledAtOnce) {
            return 0;
        }
        // What was delivered lives for so long from then on.
        let accepted = self.entries.iter().map(|entry| match entry.state {
            State::Clean { until_ms } => until_ms.saturating_sub(ttl_ms).max(entry.accepted_ms),
            _ => entry.accepted_ms,
        });
        let accepted = accepted.max();
        let delivered = self.settling.as_ref().map(|it| it.delivered_ms);
        let last_ms = accepted.max(delivered).unwrap_or(0);
        last_ms.saturating_add(settle_ms)
    }

    /// Whether an answer that shows `state`, empty for a null, may be one from before what was delivered last.
    #[must_use]
    #[inline]
    pub fn may_be_from_before(&self, state: &str, settle_ms: u64, mono_ms: u64) -> bool {
        self.settling.as_ref().is_some_and(|it| {
            let is_young = mono_ms < it.delivered_ms.saturating_add(settle_ms);
            let mut was = it.was.iter();
            // A null is from before everything; so may any be, where nobody knows what was there first.
            let is_first = state.is_empty() || it.was.is_empty();
            let was = is_first || was.any(|was| was == state.as_bytes() || was.is_empty());
            it.delivered_ms > 0 && is_young && was
        })
    }

    /// A newer state has taken the place of this one.
    #[inline]
    pub(super) fn gives_way(&mut self, state: &str) {
        if state.len() <= WAS_BYTES_MAX {
            self.may_have_been(state);
            let settling = self.settling.get_or_insert_default();
            (settling.delivered_ms, settling.awaits) = (0, true);
        }
    }

    /// Its first state: Laravel may have shown whatever there was.
    #[inline]
    pub(super) fn may_have_been_any(&mut self) {
        match self.settling {
            None => {
                self.settling = Some(Settling {
                    was: Was::ANY,
                    ..Settling::default()
                });
            }
            Some(_) => self.may_have_been(""),
        }
    }

    /// Laravel may have shown this state; an empty one is whatever it was.
    #[cold]
    #[inline(never)]
    pub(super) fn may_have_been(&mut self, state: &str) {
        let settling = self.settling.get_or_insert_default();
        let others = settling.was.iter().filter(|was| *was != state.as_bytes());
        let others: Vec<&[u8]> = others.collect();
        let first = others.len().saturating_sub(WAS_MAX.saturating_sub(1));
        let kept = others.get(first..).unwrap_or_default().iter().copied();
        settling.was = kept.chain([state.as_bytes()]).collect();
    }

    /// A state was delivered. One that is said again leaves what was before it as long ago as it was.
    #[inline]
    pub(super) fn settles(&mut self, is_new: bool, seq: u64, mono_ms: u64) {
        let follows = |entry: &Entry<'_>| entry.is_unsent_state() && entry.seq > seq;
        let is_followed = self.entries.iter().any(follows);
        // Where nothing is from before it, there is nothing that has to settle.
        if let Some(settling) = &mut self.settling
            && (is_new || settling.awaits || settling.delivered_ms == 0)
        {
            settling.delivered_ms = mono_ms;
            settling.awaits &= is_followed;
        }
    }

    /// What was delivered last of its route may be a state, or set one.
    #[inline]
    pub(super) fn settles_by(&mut self, rule: &Route, (caller, seq): (u64, u64), mono_ms: u64) {
        // Which state an item takes the place of by what it implies, nobody knows.
        let is_new = rule.implied().is_some();
        // Its caller's state that is still to be delivered begins anew.
        let follows = |entry: &Entry<'_>| {
            entry.is_unsent_state() && entry.caller == caller && entry.seq > seq
        };
        if is_new && self.entries.iter().any(follows) {
            if let Some(settling) = &mut self.settling {
                settling.delivered_ms = 0;
            }
        } else if is_new || rule.is_shown {
            self.settles(is_new, seq, mono_ms);
        }
    }

    /// A state is to take the place of what there is. What was delivered long ago is what Laravel shows, and nothing from
    /// before it can come any more; unless somebody else, or a QR, has set another since.
    #[inline]
    pub(super) fn forget_settled(
        &mut self,
        rules: &Rules,
        (rule, caller): (&Route, u64),
        says: Option<&str>,
        mono_ms: u64,
    ) {
        // The newest may have ended another way.
        let awaits = || self.entries.iter().any(Entry::is_unsent_state);
        let is_delivered = self
            .settling
            .as_ref()
            .is_some_and(|it| it.delivered_ms > 0 && !(it.awaits && awaits()));
        let (settle_ms, ttl_ms) = (rules.config.kept.settle_ms, rules.config.dedup.ttl_ms);
        if is_delivered && mono_ms >= self.settles_until(settle_ms, ttl_ms) {
            self.settling = None;
        }
        let Some(says) = says else {
            return;
        };
        let own = self.entry(&rule.name, caller).map_or(0, |entry| entry.seq);
        let by = rule.implied_by.and_then(|by| rules.route(by));
        let sets = |entry: &Entry<'_>| -> Option<String> {
            if entry.seq <= own {
                return None;
            }
            let by = by.filter(|by| entry.route == by.name);
            let implied = by.and_then(|by| by.implies.as_ref());
            let state = match implied {
                Some(implies) => &*implies.value,
                None => entry.text.as_deref()?,
            };
            (state != says).then(|| state.to_owned())
        };
        let others: Vec<String> = self.entries.iter().filter_map(sets).collect();
        for state in others {
            self.gives_way(&state);
        }
    }

    #[inline]
    pub(super) fn forget_settling(&mut self, mono_ms: u64) {
        if self.settling.is_none() {
            return;
        }
        // What is unsent will be delivered.
        let is_unsent = self.entries.iter().any(Entry::is_dirty);
        let is_over = |it: &mut Settling<'_>| match it.delivered_ms {
            _ if it.awaits && is_unsent => false,
            0 => !is_unsent,
            delivered_ms => mono_ms.saturating_sub(delivered_ms) > SETTLING_MS_MAX,
        };
        self.settling.take_if(is_over);
    }

    /// The state that an answer with this floor does not show yet, if there is one.
    #[must_use]
    #[inline]
    pub fn unshown<'s>(
        &'s self,
        rules: &'s Rules,
        state: usize,
        caller: u64,
        floor: u64,
    ) -> Option<&'s str> {
        let route = rules.route(state)?;
        let own = self.entry(&route.name, caller);
        let is_unshown = |entry: &Entry<'_>| entry.is_dirty() || entry.seq > floor;
        // An item that is to be said once more has left no entry of the state that it implies.
        let by = route.implied_by.and_then(|by| rules.route(by));
        let implied = by.and_then(|by| Some((self.entry(&by.name, caller)?, by)));
        let own_seq = own.map_or(0, |entry| entry.seq);
        if let Some((entry, by)) = implied
            && let Some(implies) = by.implied()
            && entry.seq > own_seq
        {
            return is_unshown(entry).then_some(&*implies.value);
        }
        own.filter(|entry| is_unshown(entry))?.text.as_deref()
    }

    /// The newest of what is here and Laravel is known to have.
    #[inline]
    fn delivered_seq(&self) -> u64 {
        let entries = self.entries.iter();
        let clean = entries.filter(|entry| matches!(entry.state, State::Clean { .. }));
        clean.map(|entry| entry.seq).max().unwrap_or(0)
    }

    /// Whether what has failed alone, and was overtaken, is at Laravel at this moment.
    #[inline]
    fn is_being_overwritten(&self, mono_ms: u64) -> bool {
        let claim = self.live_claim(mono_ms);
        claim.is_some_and(|claim| claim.seq < self.delivered_seq())
    }

    /// Whether an item may have set a state at Laravel, and nobody can say. What its caller has said after it is shown
    /// whatever it did.
    #[inline]
    fn may_have_set_a_state(&self, rules: &Rules, route: &str, caller: u64, seq: u64) -> bool {
        let rule = rules.config.route_named(route).map(|(_, rule)| rule);
        let implies = rule.and_then(|rule| rule.implies.as_ref());
        let set = implies.and_then(|implies| rules.route(implies.route));
        set.filter(|_| rule.and_then(Route::implied).is_none())
            .is_some_and(|set| {
                self.entry(&set.name, caller)
                    .is_none_or(|said| said.seq < seq)
            })
    }

    // ## kept => absent
    //
    // A state of the session is gone, and no answer from before it can be made to show what came after.
    #[inline]
    pub(super) fn doubt_kept(&mut self, seq: u64) {
        self.unread_seq = self.unread_seq.max(seq);
        self.kept.retain(|kept| kept.floor >= seq);
    }

    /// An update has left no entry. Laravel may have it all the same, or one whose place it took; `is_shown`: it told of a
    /// state.
    #[inline]
    pub(super) fn forgets(&mut self, seq: u64, is_shown: bool) {
        if is_shown {
            return self.doubt_kept(seq);
        }
        self.unread_seq = self.unread_seq.max(seq);
        for kept in &mut self.kept {
            kept.has_more |= kept.floor < seq;
        }
    }

    // Nobody knows any more what Laravel has. What it said last is still better than no answer, while it fails.
    #[inline]
    pub(super) fn distrust_kept(&mut self, seq: u64) {
        self.unread_seq = self.unread_seq.max(seq);
        for kept in &mut self.kept {
            if kept.floor < seq {
                kept.fetched_ms = DOUBTED;
            }
        }
    }

    /// Laravel has an item of this credential now: what others were told is old, and they know nothing of it. If it
    /// was overtaken, what its own caller was told is old too.
    #[inline]
    pub(super) fn delivered(
        &mut self,
        rules: &Rules,
        (route, caller): (&str, u64),
        seq: u64,
        last_seq: &mut u64,
        now: Now,
    ) {
        let rule = rules.config.route_named(route).map(|(_, rule)| rule);
        let is_newest = self
            .entry(route, caller)
            .is_some_and(|newest| newest.seq == seq);
        if let Some(rule) = rule.filter(|_| is_newest) {
            self.settles_by(rule, (caller, seq), now.mono_ms);
        }
        if seq < self.delivered_seq() {
            *last_seq = last_seq.saturating_add(1);
            self.distrust_kept(*last_seq);
        } else if self.may_have_set_a_state(rules, route, caller, seq) {
            self.distrust_kept(seq);
        }
        self.unread_seq = self.unread_seq.max(seq);
        if !sabotage::is(Sabotage::KeepAcrossCredentials) {
            self.kept.retain(|kept| kept.caller == caller);
        }
    }
}

// === impl Was ===

impl Was<'_> {
    /// An empty state alone, in no memory of its own: of most sessions it is all.
    const ANY: Self = Self(Cow::Borrowed(&[0]));

    /// Whether they are no more than there may be: each has a byte at least.
    #[inline]
    pub(super) fn is_sound(&self) -> bool {
        self.0.len() <= WAS_MAX || self.iter().count() <= WAS_MAX
    }

    /// The oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        core::iter::from_fn(move || {
            let (length, behind) = rest.split_first()?;
            let (state, behind) = behind.split_at_checked(usize::from(*length))?;
            rest = behind;
            Some(state)
        })
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Was<'_> {
    fn from_iter<I: IntoIterator<Item = T>>(states: I) -> Self {
        let mut all = Vec::new();
        for state in states {
            let state = state.as_ref();
            let Ok(length) = u8::try_from(state.len()) else {
                continue;
            };
            all.push(length);
            all.extend_from_slice(state);
        }
        Self(Cow::Owned(all))
    }
}

// === impl Places ===

impl core::ops::Deref for Places {
    type Target = [Place];

    fn deref(&self) -> &[Place] {
        self.list.get(..usize::from(self.count)).unwrap_or_default()
    }
}

impl FromIterator<Place> for Places {
    fn from_iter<I: IntoIterator<Item = Place>>(places: I) -> Self {
        let mut all = Self::default();
        for (slot, place) in all.list.iter_mut().zip(places) {
            *slot = place;
            all.count = all.count.saturating_add(1);
        }
        all
    }
}

// === impl Kept ===

impl Kept<'_> {
    /// Whether it may not be what Laravel would say now: it serves only while Laravel fails.
    #[must_use]
    #[inline]
    pub fn is_in_doubt(&self) -> bool {
        self.fetched_ms == DOUBTED
    }

    /// The body, with `state` where it shows the session's state. `None` where there is no such place.
    #[must_use]
    #[inline]
    pub fn patched(&self, state: Option<&str>, follows: Follows) -> Option<Vec<u8>> {
        match state {
            None => Some(self.body.to_vec()),
            Some(state) => patch(&self.body, &self.places, state, follows),
        }
    }

    /// The state that it shows, as it is written there.
    #[must_use]
    #[inline]
    pub fn shown(&self) -> Option<&[u8]> {
        let place = self.places.first()?;
        self.body.get(place.start as usize..place.end as usize)
    }
}

/// The body with `state` in the first of these places, or in all, and every other byte as it was. `None` where there
/// are none.
#[must_use]
#[inline]
pub fn patch(body: &[u8], places: &[Place], state: &str, follows: Follows) -> Option<Vec<u8>> {
    let places = match follows {
        _ if places.is_empty() => return None,
        _ if sabotage::is(Sabotage::PatchEveryMember) => places,
        Follows::All => places,
        Follows::One | Follows::Any => places.get(..1)?,
    };
    let quoted = json::quoted(state);
    let mut out = Vec::with_capacity(body.len().saturating_add(quoted.len()));
    let mut from = 0_usize;
    // In the order of the body, and they are few.
    let next = |from: usize| {
        let rest = places.iter().filter(|place| place.start as usize >= from);
        rest.min_by_key(|place| place.start)
    };
    while let Some(place) = next(from) {
        let (start, end) = (place.start as usize, place.end as usize);
        out.extend_from_slice(body.get(from..start)?);
        out.extend_from_slice(quoted.as_bytes());
        // A place that has no end is none.
        from = Some(end).filter(|end| *end > start)?;
    }
    out.extend_from_slice(body.get(from..)?);
    Some(out)
}

#[cfg(test)]
mod tests;
