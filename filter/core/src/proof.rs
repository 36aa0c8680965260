//! Proof before queueing: whom Laravel itself has accepted, and where.
//!
//! A 200 of Embudo's is a promise, and nobody can keep one for a caller that Laravel does not want, or for a route
//! that is not there. So an update is queued only if Laravel has accepted one of its caller at its destination, and
//! one of its route there by anybody. Until then it is written through, and the gateway hears Laravel's own answer.
//! Callers without any header are no exception: a wrong port and a redirect are seen as they would be without Embudo.
//!
//! # What is kept
//!
//! Sixteen values in the store, by hash ([`record`]). Entries are keyed hashes: no credential can be read out of
//! them. In each value there are places for callers (one entry a caller and destination), for readers and for routes;
//! an eighth of each kind's places is for those that were accepted once, so that a token that is new in each request
//! pushes nobody out that comes again. The longest unused goes.
//!
//! # Who asks
//!
//! Every worker, at every request: so it keeps what it has read ([`Proofs`]), looks again at its root's tick, and asks
//! the store for nothing that it knows to be proven. A refusal elsewhere is seen within a tick. What is not known
//! to be proven costs a get, because another worker may just have proven it.

mod belief;
mod proving;
mod record;

#[cfg(test)]
mod tests;

use alloc::vec::Vec;

pub use self::belief::{Belief, Compared, Follows, Shown};
pub use self::proving::{Ended, Proving, Release, Turn};
pub use self::record::Counts;
use self::record::{Entry, Kind, Record};
use crate::hash::mixed;
use crate::route::Rules;
use crate::sabotage::{self, Sabotage};
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store, Token};
use crate::time::Now;
use crate::verdict::{Heard, Path, Voice, says_failure, says_skipped};

/// Values in the store. A change of one does not make a worker read the others again.
pub const KEYS: usize = 16;

/// How often a worker looks again: its root's idle tick, less what a timer may come early.
const LOOK_MS: u64 = 450;

/// How old the time of an entry's last use may be before it is written again.
const USED_MS: u64 = 60_000;

/// How old the time of an entry's last acceptance may be before it is written again: what other workers know of
/// [`BESIDE_MS`] is as exact as this.
const ACCEPTED_MS: u64 = 5_000;

/// A 403 within this time of an acceptance is about the item.
pub const BESIDE_MS: u64 = 60_000;

/// Refusals that lost every race for their key and wait for the next tick.
const UNWRITTEN_MAX: usize = 64;

/// Places for what was just found to be proven.
const RECENT: usize = 32;

/// What an acceptance proves something of: a caller at a destination, and a route there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Keyed hash of the caller and the destination; a caller without any header has one, too.
    pub caller: u64,
    /// Keyed hash of the route and the destination.
    pub route: u64,
    /// Keyed hash of the destination.
    pub destination: u64,
}

/// Whether an update may be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Laravel has accepted its caller and its route there.
    Proven,
    /// One of them was never accepted, or was refused since.
    Unproven,
    /// They were accepted, but something else has answered in Laravel's stead for a minute.
    Outage,
}

/// What an answer to one update says of its proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Laravel has taken it, and speaks so; `None` where it says nothing.
    Accepted(Option<Voice>),
    /// 401, 419 or 403: [`Proofs::refused`] decides.
    Refused(u16),
    /// Anything else. Proof stays as it is.
    Neither,
}

/// No caller's hash is 0.
const NOBODY: (u64, u64) = (0, u64::MAX);

/// A worker's copy of what is in the store.
pub struct Proofs {
    copies: [Copied; KEYS],
    /// (caller, route) that were found to be proven since the last look, by a few of their bits.
    recent: [(u64, u64); RECENT],
    looked_ms: u64,
    /// Callers whose refusal is not in the store yet, and when they were refused.
    unwritten: Vec<(u64, u64)>,
}

/// One value, as it was read.
#[derive(Default)]
struct Copied {
    is_read: bool,
    token: Option<Token>,
    record: Record,
    /// Somebody was used whose time has to be written.
    is_touched: bool,
}

// === impl Subject ===

impl Subject {
    /// The names of a caller, a route and a destination in the store. `caller` and `destination` are keyed hashes, and
    /// `caller` is 0 for one without any header.
    #[must_use]
    pub fn new(caller: u64, destination: u64, route: &str) -> Self {
        // Nobody outside can aim at a hash that is made of keyed ones, and a route's name is the operator's: at every
        // new value this is a tenth of what hashing them once more would take.
        let bytes = route.bytes();
        Self {
            // Never 0, which is nobody's.
            caller: mixed(destination, caller) | 1,
            route: bytes.fold(destination, |hash, byte| mixed(hash, u64::from(byte))),
            destination,
        }
    }
}

// === impl Word ===

impl Word {
    /// What the answer to one update says: one that was written through, or an item that was sent alone. `known`
    /// is how its route speaks.
    #[must_use]
    pub fn of(status: Option<u16>, body: &[u8], known: Option<Voice>) -> Self {
        let voice = Voice::of(body, known);
        // What answers in Laravel's stead takes nothing and refuses nobody.
        let is_foreign = voice == Some(Voice::Foreign);
        match status {
            Some(200..=299) if is_foreign || says_failure(body) || says_skipped(body) => {
                Self::Neither
            }
            Some(200..=299) => Self::Accepted(voice),
            Some(401 | 403 | 419) if is_foreign && known.is_some() => Self::Neither,
            Some(status @ (401 | 403 | 419)) => Self::Refused(status),
            _ => Self::Neither,
        }
    }
}

// === impl Proofs ===

impl Default for Proofs {
    fn default() -> Self {
        Self {
            copies: Default::default(),
            recent: [NOBODY; RECENT],
            looked_ms: 0,
            unwritten: Vec::new(),
        }
    }
}

impl Proofs {
    /// Whether an update may be queued. No host call for what is known to be proven.
    pub fn standing(
        &mut self,
        store: &impl Store,
        keys: &Keys,
        rules: &Rules,
        subject: &Subject,
        now: Now,
    ) -> Standing {
        if rules.config.assume.callers || sabotage::is(Sabotage::ProveNothing) {
            return Standing::Proven;
        }
        let pair = (subject.caller, subject.route);
        let slot = (subject.caller ^ subject.route) as usize % RECENT;
        if self.recent.get(slot) == Some(&pair) {
            return Standing::Proven;
        }
        let caller = place(subject.caller);
        if !self.finds(store, keys, caller, Kind::Caller, subject.caller, now) {
            return Standing::Unproven;
        }
        let destination = place(subject.destination);
        if !self.finds(store, keys, destination, Kind::Route, subject.route, now)
            && !sabotage::is(Sabotage::ForgetRoutes)
        {
            let known = self.entry(destination, Kind::Route, subject.route);
            return match known {
                Some(_) => Standing::Outage,
                None => Standing::Unproven,
            };
        }
        if let Some(recent) = self.recent.get_mut(slot) {
            *recent = pair;
        }
        Standing::Proven
    }

    /// Whether answers to this caller are kept and served: it has read twice.
    pub fn is_reader(
        &mut self,
        store: &impl Store,
        keys: &Keys,
        subject: &Subject,
        now: Now,
    ) -> bool {
        let caller = place(subject.caller);
        self.finds(store, keys, caller, Kind::Reader, subject.caller, now)
            && self
                .entry(caller, Kind::Reader, subject.caller)
                .is_some_and(|entry| entry.is(record::AGAIN))
    }

    // ## Unproven => Proven

    /// Laravel has accepted an update of this caller and route that began at `began_ms`. `voice` is how it has
    /// answered it alone; `None` for an item of a batch, and where it has said nothing.
    pub fn accepted(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        subject: &Subject,
        voice: Option<Voice>,
        began_ms: u64,
        now: Now,
    ) {
        self.accept_caller(store, keys, subject, began_ms, now);
        self.accept_route(
            store,
            keys,
            subject,
            voice.map_or(0, record::voice_bit),
            now,
        );
    }

    /// The route's batch path has taken a batch, and has answered with this.
    pub fn took_batch(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        subject: &Subject,
        heard: Heard,
        now: Now,
    ) {
        let body = heard.voice.map_or(0, |_| record::BATCH_BODY);
        let bits = record::BATCH | body | record::members(heard.members);
        self.accept_route(store, keys, subject, bits, now);
    }

    /// Laravel has answered a read of this caller. That proves nothing for its updates.
    pub fn has_read(&mut self, store: &mut impl Store, keys: &Keys, subject: &Subject, now: Now) {
        let (at, key) = (place(subject.caller), subject.caller);
        let is_known = |entry: &Entry| entry.is(record::AGAIN) && entry.is_used(now.mono_ms);
        if self.entry(at, Kind::Reader, key).is_some_and(is_known) {
            return;
        }
        self.change(store, keys, at, |record| {
            record.accept(Kind::Reader, key, subject.destination, now.mono_ms);
            true
        });
    }

    /// The answer to one update that began at `began_ms`: the way in for what was written through, and for an item
    /// that was sent alone.
    pub fn heard(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        subject: &Subject,
        word: Word,
        began_ms: u64,
        now: Now,
    ) -> Ended {
        match word {
            Word::Accepted(voice) => {
                self.accepted(store, keys, subject, voice, began_ms, now);
                Ended::Accepted
            }
            Word::Refused(status) if self.refused(store, keys, subject, status, now) => {
                Ended::Refused
            }
            Word::Refused(_) | Word::Neither => Ended::Other,
        }
    }

    fn accept_caller(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        subject: &Subject,
        began_ms: u64,
        now: Now,
    ) {
        let (at, key) = (place(subject.caller), subject.caller);
        if let Some(entry) = self.entry_mut(at, Kind::Caller, key)
            && entry.is(record::AGAIN)
            && !entry.is(record::ENDED)
        {
            let is_written = now.mono_ms.saturating_sub(entry.written_ms) < ACCEPTED_MS;
            entry.accepted_ms = entry.accepted_ms.max(now.mono_ms);
            if is_written {
                return;
            }
        }
        self.change(store, keys, at, |record| {
            let ended = record
                .find(Kind::Caller, key)
                .filter(|entry| entry.is(record::ENDED));
            // What began before the refusal says nothing of what came after it.
            if ended.is_some_and(|entry| began_ms <= entry.ended_ms) {
                return false;
            }
            let entry = record.accept(Kind::Caller, key, subject.destination, now.mono_ms);
            if let Some(entry) = entry {
                entry.flags &= !record::ENDED;
            }
            true
        });
    }

    fn accept_route(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        subject: &Subject,
        bits: u16,
        now: Now,
    ) {
        let (at, key) = (place(subject.destination), subject.route);
        if let Some(entry) = self.entry_mut(at, Kind::Route, key)
            && entry.is(record::AGAIN)
            && !entry.is(record::ENDED)
            && entry.learns(bits) == entry.flags
        {
            let is_written = now.mono_ms.saturating_sub(entry.written_ms) < ACCEPTED_MS;
            entry.accepted_ms = entry.accepted_ms.max(now.mono_ms);
            if is_written {
                return;
            }
        }
        self.change(store, keys, at, |record| {
            // Laravel is back, and with it whatever was proven there.
            record.restore(subject.destination);
            let entry = record.accept(Kind::Route, key, subject.destination, now.mono_ms);
            if let Some(entry) = entry {
                entry.flags = entry.learns(bits);
            }
            true
        });
    }

    // ## Proven => Unproven

    /// Laravel has refused a request or an item of this caller alone, with this status. True where that is about
    /// the caller: its proof has ended.
    pub fn refused(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        subject: &Subject,
        status: u16,
        now: Now,
    ) -> bool {
        let is_about_the_caller = match status {
            401 | 419 => true,
            403 => !self.was_accepted_within(store, keys, subject, BESIDE_MS, now),
            _ => false,
        };
        if is_about_the_caller && !sabotage::is(Sabotage::KeepProof) {
            self.end(store, keys, subject.caller, now.mono_ms);
        }
        is_about_the_caller
    }

    /// Whether something of this caller was accepted there within that time.
    pub fn was_accepted_within(
        &mut self,
        store: &impl Store,
        keys: &Keys,
        subject: &Subject,
        within_ms: u64,
        now: Now,
    ) -> bool {
        let is_young = |entry: &Entry| now.mono_ms.saturating_sub(entry.accepted_ms) <= within_ms;
        let (at, key) = (place(subject.caller), subject.caller);
        if !self.entry(at, Kind::Caller, key).is_some_and(is_young) {
            self.read(store, keys, at);
        }
        self.entry(at, Kind::Caller, key).is_some_and(is_young)
    }

    /// Whether something of anybody was accepted at a destination within that time.
    pub fn accepts(
        &mut self,
        store: &impl Store,
        keys: &Keys,
        subject: &Subject,
        within_ms: u64,
        now: Now,
    ) -> bool {
        let at = place(subject.destination);
        self.read(store, keys, at);
        let Some(copy) = self.copies.get(at) else {
            return false;
        };
        let last_ms = copy.record.accepted_ms(subject.destination);
        last_ms.is_some_and(|ms| now.mono_ms.saturating_sub(ms) <= within_ms)
    }

    fn end(&mut self, store: &mut impl Store, keys: &Keys, caller: u64, refused_ms: u64) {
        self.recent = [NOBODY; RECENT];
        let at = place(caller);
        if let Some(entry) = self.entry_mut(at, Kind::Caller, caller) {
            entry.end(refused_ms);
        }
        let is_written = self.change(store, keys, at, |record| {
            let readers = record.remove(Kind::Reader, caller);
            match record.find_mut(Kind::Caller, caller) {
                Some(entry) => entry.end(refused_ms) || readers,
                None => readers,
            }
        });
        if !is_written && self.unwritten.len() < UNWRITTEN_MAX {
            self.unwritten.push((caller, refused_ms));
        }
    }

    /// Something else has answered in Laravel's stead for a minute: nothing there is proven until Laravel accepts
    /// something again.
    pub fn suspend(&mut self, store: &mut impl Store, keys: &Keys, destination: u64, now: Now) {
        self.recent = [NOBODY; RECENT];
        self.change(store, keys, place(destination), |record| {
            record.suspend(destination, now.mono_ms)
        });
    }

    // ## What is known of a route

    /// How a route speaks there, where it is known.
    pub fn voice_of(
        &mut self,
        store: &impl Store,
        keys: &Keys,
        subject: &Subject,
    ) -> Option<Voice> {
        self.route(store, keys, subject)?.voice()
    }

    /// What is known of a route and its batch path there.
    pub fn path_of(&mut self, store: &impl Store, keys: &Keys, subject: &Subject) -> Path {
        self.route(store, keys, subject)
            .map_or_else(Path::default, Entry::path)
    }

    fn route(&mut self, store: &impl Store, keys: &Keys, subject: &Subject) -> Option<&Entry> {
        let at = place(subject.destination);
        if !self.copies.get(at)?.is_read {
            self.read(store, keys, at);
        }
        self.entry(at, Kind::Route, subject.route)
    }

    // ## The copy

    /// At the root's tick: looks again at what was read, and writes who was used.
    pub fn tick(&mut self, store: &mut impl Store, keys: &Keys, now: Now) {
        if now.mono_ms.saturating_sub(self.looked_ms) < LOOK_MS {
            return;
        }
        self.looked_ms = now.mono_ms;
        self.recent = [NOBODY; RECENT];
        for (caller, refused_ms) in core::mem::take(&mut self.unwritten) {
            self.end(store, keys, caller, refused_ms);
        }
        for at in 0..KEYS {
            if !self.copies.get(at).is_some_and(|copy| copy.is_read) {
                continue;
            }
            self.read(store, keys, at);
            let Some(copy) = self.copies.get_mut(at) else {
                continue;
            };
            if !copy.is_touched {
                continue;
            }
            let expect = copy.token.map_or(Expect::Absent, Expect::Token);
            let bytes = copy.record.encode();
            // Whoever loses this race writes it at the next tick.
            if store.put(&keys.proof(at), &bytes, expect).is_ok() {
                copy.is_touched = false;
                // Its new token is not known: it is read once more.
                copy.token = None;
            }
        }
    }

    /// What is proven and what is not, of all workers. For the leader, which reads all keys.
    pub fn count(&mut self, store: &impl Store, keys: &Keys) -> Counts {
        let mut counts = Counts::default();
        for at in 0..KEYS {
            if self.copies.get(at).is_some_and(|copy| !copy.is_read) {
                self.read(store, keys, at);
            }
            if let Some(copy) = self.copies.get(at) {
                copy.record.count(&mut counts);
            }
        }
        counts
    }

    /// Whether an entry is there and its proof has not ended; looks into the store where that is not known.
    fn finds(
        &mut self,
        store: &impl Store,
        keys: &Keys,
        at: usize,
        kind: Kind,
        key: u64,
        now: Now,
    ) -> bool {
        for is_read in [false, true] {
            if is_read {
                self.read(store, keys, at);
            }
            let Some(copy) = self.copies.get_mut(at) else {
                return false;
            };
            if let Some(entry) = copy.record.find_mut(kind, key)
                && !entry.is(record::ENDED)
            {
                if !entry.is_used(now.mono_ms) {
                    entry.used_ms = now.mono_ms;
                    copy.is_touched = true;
                }
                return true;
            }
        }
        false
    }

    fn entry(&self, at: usize, kind: Kind, key: u64) -> Option<&Entry> {
        self.copies.get(at)?.record.find(kind, key)
    }

    fn entry_mut(&mut self, at: usize, kind: Kind, key: u64) -> Option<&mut Entry> {
        self.copies.get_mut(at)?.record.find_mut(kind, key)
    }

    /// Reads a key, and keeps of its copy what is newer there.
    fn read(&mut self, store: &impl Store, keys: &Keys, at: usize) {
        let read = store.get(&keys.proof(at));
        let Some(copy) = self.copies.get_mut(at) else {
            return;
        };
        let token = read.as_ref().map(|(_, token)| *token);
        if copy.is_read && token.is_some() && token == copy.token {
            return;
        }
        let mut record = Record::decode(read.as_ref().map_or(&[][..], |(bytes, _)| bytes));
        record.merge(&copy.record);
        for (caller, refused_ms) in &self.unwritten {
            if place(*caller) == at
                && let Some(entry) = record.find_mut(Kind::Caller, *caller)
            {
                entry.end(*refused_ms);
            }
        }
        copy.is_read = true;
        copy.token = token;
        copy.record = record;
    }

    /// Changes what is stored; `edit` says whether there is anything to write. False where every race was lost.
    fn change(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        at: usize,
        mut edit: impl FnMut(&mut Record) -> bool,
    ) -> bool {
        let key = keys.proof(at);
        for _ in 0..CAS_ATTEMPTS_MAX {
            let read = store.get(&key);
            let mut record = Record::decode(read.as_ref().map_or(&[][..], |(bytes, _)| bytes));
            let changed = edit(&mut record);
            let written = match changed {
                true => store.put(&key, &record.encode(), Expect::of(read.as_ref())),
                false => Ok(()),
            };
            match written {
                Ok(()) => {
                    if let Some(copy) = self.copies.get_mut(at) {
                        record.merge(&copy.record);
                        copy.is_read = true;
                        copy.token = read.map(|(_, token)| token).filter(|_| !changed);
                        copy.record = record;
                    }
                    return true;
                }
                Err(PutError::Mismatch) => {}
                Err(PutError::Refused) => return false,
            }
        }
        false
    }
}

/// The key of a hash: of its upper bits, since [`Proofs::recent`] takes the lower ones.
fn place(hash: u64) -> usize {
    (hash >> 60) as usize
}

/// It says nothing but how much it holds: callers are nobody's business.
impl core::fmt::Debug for Proofs {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Proofs").finish_non_exhaustive()
    }
}
