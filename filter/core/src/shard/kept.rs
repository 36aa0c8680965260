//! Laravel's own answers to reads, and what makes them show every write.
//!
//! A kept answer lives in the session whose state it shows, so one compare-and-swap sees both. It remembers
//! the *floor* of its read: whatever of the session had a sequence at or below it was settled when the read
//! began, so Laravel's answer shows it. What came later is patched in.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::{DOUBTED, Entry, SESSIONS_MAX, SESSIONS_SHARE_MAX, Session, Shard, State};
use crate::json;
use crate::route::{Asked, Rules};
use crate::sabotage::{self, Sabotage};
use crate::time::Now;

/// An answer of Laravel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept<'a> {
    /// The read's name.
    pub read: Cow<'a, str>,
    /// Fingerprint of the credential that it was given to. Nobody else ever sees it.
    pub caller: u64,
    /// When its read began; 0 where it may not be what Laravel would say now. Monotonic.
    pub fetched_ms: u64,
    /// Until when it is kept at all. Monotonic.
    pub until_ms: u64,
    /// Laravel's answer shows everything up to this sequence.
    pub floor: u64,
    /// Where in it the state is, in order; without any it serves only while there is nothing to patch.
    pub places: Vec<Place>,
    /// The body, byte for byte.
    pub body: Cow<'a, [u8]>,
}

/// Where in a body the state's JSON string is, its quotes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        if self.session(asked.session).is_none() {
            let shared = self.has_its_share(asked.caller);
            if self.sessions.len() >= SESSIONS_MAX || shared || kept.floor < self.last_seq {
                return false;
            }
            self.sessions
                .push(Session::new(asked.session, self.last_seq));
        }
        let Some(session) = self.session_mut(asked.session) else {
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
            .kept_of(&kept.read, kept.caller)
            .is_some_and(|other| (other.floor, other.fetched_ms) > (kept.floor, kept.fetched_ms))
        {
            return false;
        }
        session.forget_kept(&kept.read, kept.caller);
        session.kept.push(kept);
        true
    }

    /// Drops what is kept of a read; false where there was nothing.
    #[inline]
    pub fn drop_kept(&mut self, session: u128, read: &str, caller: u64) -> bool {
        self.session_mut(session)
            .is_some_and(|session| session.forget_kept(read, caller))
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
    /// What is kept of a read for a credential.
    #[must_use]
    #[inline]
    pub fn kept_of(&self, read: &str, caller: u64) -> Option<&Kept<'a>> {
        self.kept.iter().find(|kept| {
            let own = kept.caller == caller;
            kept.read == read && (own || sabotage::is(Sabotage::ReadUnderAnyName))
        })
    }

    #[inline]
    fn forget_kept(&mut self, read: &str, caller: u64) -> bool {
        let before = self.kept.len();
        self.kept
            .retain(|kept| kept.read != read || kept.caller != caller);
        self.kept.len() < before
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
            && entry.seq > own_seq
        {
            let implies = by.implies.as_ref().filter(|_| is_unshown(entry))?;
            return Some(&implies.value);
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

    // ## kept => absent
    //
    // A state of the session is gone, and no answer from before it can be made to show what came after.
    #[inline]
    pub(super) fn doubt_kept(&mut self, seq: u64) {
        self.unread_seq = self.unread_seq.max(seq);
        self.kept.retain(|kept| kept.floor >= seq);
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
    pub(super) fn delivered(&mut self, caller: u64, seq: u64, last_seq: &mut u64) {
        if seq < self.delivered_seq() {
            *last_seq = last_seq.saturating_add(1);
            self.distrust_kept(*last_seq);
        }
        self.unread_seq = self.unread_seq.max(seq);
        if !sabotage::is(Sabotage::KeepAcrossCredentials) {
            self.kept.retain(|kept| kept.caller == caller);
        }
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
    pub fn patched(&self, state: Option<&str>) -> Option<Vec<u8>> {
        match state {
            None => Some(self.body.to_vec()),
            Some(state) => patch(&self.body, &self.places, state),
        }
    }
}

/// The body with `state` in these places, and every other byte as it was. `None` where there are none.
#[must_use]
#[inline]
pub fn patch(body: &[u8], places: &[Place], state: &str) -> Option<Vec<u8>> {
    if places.is_empty() {
        return None;
    }
    let quoted = json::quoted(state);
    let mut out = Vec::with_capacity(body.len().saturating_add(quoted.len()));
    let mut from = 0_usize;
    for place in places {
        out.extend_from_slice(body.get(from..usize::try_from(place.start).ok()?)?);
        out.extend_from_slice(quoted.as_bytes());
        from = usize::try_from(place.end).ok()?;
    }
    out.extend_from_slice(body.get(from..)?);
    Some(out)
}

#[cfg(test)]
mod tests;
