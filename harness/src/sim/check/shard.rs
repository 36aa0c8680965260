//! One write of a shard, taken apart into the transitions that it is made of.
//!
//! Every difference between what was there and what is there now must be one that the record knows, made
//! by somebody who may make it, and the ledger must have counted it. So an update that vanishes without a
//! word, a value that is overwritten by a stale copy, or half an update are found at the write that does
//! it, and not an hour later.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use embudo_core::shard::{Entry, Ledger, Session, Shard, State, balance};

use super::answers::{Asked, Stream};
use super::history::{Accepted, Fate};
use super::{Actor, Checker, Clock, Invariant, SHARDS, Transition};
use crate::sim::host::Callback;

/// One write under examination.
pub(super) struct Write {
    pub(super) clock: Clock,
    pub(super) actor: Actor,
    /// Which shard it is.
    pub(super) shard: Option<u32>,
    /// What the ledger should have counted.
    pub(super) counted: Ledger,
    /// The passing update that this write settles as delivered.
    pub(super) settled: Option<u64>,
    /// The session's item that an answer settles as delivered: route and sequence.
    pub(super) delivers: Option<(String, u64)>,
    /// What was written through and is taken: its sequence, and its route where more than its session was seen.
    pub(super) overtakes: Option<(Option<String>, u64)>,
    /// Unsent updates that were not in the record before.
    pub(super) arrived: Vec<u64>,
    /// Places that were given up, and what is newer of the same caller and route.
    outdated: Vec<u64>,
    wrong: Vec<(Invariant, String)>,
    seen: Vec<Transition>,
}

// === impl Checker ===

impl Checker {
    pub(super) fn shard_changes(
        &mut self,
        clock: Clock,
        actor: Actor,
        key: &str,
        before: &[u8],
        after: &[u8],
    ) {
        let (Ok(old), Ok(new)) = (Shard::decode(before), Shard::decode(after)) else {
            let what = format!("{key} is no shard");
            return self.fail(clock.mono_us, Invariant::EveryWriteIsATransition, what);
        };
        let mut write = Write {
            clock,
            actor,
            shard: key
                .strip_prefix(SHARDS)
                .and_then(|shard| shard.parse().ok()),
            counted: Ledger::default(),
            settled: None,
            delivers: None,
            overtakes: None,
            arrived: Vec::new(),
            outdated: Vec::new(),
            wrong: Vec::new(),
            seen: Vec::new(),
        };
        if let Err(why) = balance(&new) {
            write.wrong(Invariant::NothingIsLost, format!("the ledger: {why}"));
        }
        if new.last_seq < old.last_seq || new.last_wall_ms < old.last_wall_ms {
            write.wrong(
                Invariant::EveryWriteIsATransition,
                format!("seq {} follows {}", new.last_seq, old.last_seq),
            );
        }
        let ids: BTreeSet<u128> = old
            .sessions
            .iter()
            .chain(&new.sessions)
            .map(|s| s.id)
            .collect();
        for id in ids {
            let find = |shard: &'_ Shard<'_>| shard.sessions.iter().position(|s| s.id == id);
            let old = find(&old).and_then(|at| old.sessions.get(at));
            let new_session = find(&new).and_then(|at| new.sessions.get(at));
            self.session_changes(&mut write, id, old, new_session, &new);
        }
        self.outdated_are_queued(&mut write, &old.ledger, &new.ledger);
        if let Callback::Stream(stream) = actor.callback {
            self.hidden_items(&mut write, stream, &old.ledger, &new.ledger);
        }
        write.check_ledger(&old.ledger, &new.ledger);
        for transition in write.seen {
            self.coverage.count(transition);
        }
        for (invariant, what) in write.wrong {
            self.fail(clock.mono_us, invariant, format!("{key}: {what}"));
        }
    }

    fn session_changes(
        &mut self,
        write: &mut Write,
        id: u128,
        old: Option<&Session<'_>>,
        new: Option<&Session<'_>>,
        shard: &Shard<'_>,
    ) {
        let no_entries = Vec::new();
        let (old_entries, new_entries) = (
            old.map_or(&no_entries, |session| &session.entries),
            new.map_or(&no_entries, |session| &session.entries),
        );
        let told = |session: Option<&Session<'_>>| session.map_or(0, |session| session.told_seq);
        // A session that is forgotten, and is there again at once, has told nothing.
        if told(old) < told(new) {
            self.handed_over(write, id, told(new));
        }
        write.settled = None;
        write.delivers = None;
        write.overtakes = None;
        self.may_be_unrecorded(write, id, new);
        self.unrecorded_ends(write, id);
        self.claim_changes(write, id, old, new);
        self.places_change(write, id, old, new);
        // First what was accepted: the rest follows from it.
        let accepted = new_entries
            .iter()
            .find(|entry| entry.is_dirty() && Some(entry.seq) == new_seq(old, new));
        let left = |seq: u64| {
            let has = |session: Option<&Session<'_>>| {
                session.is_some_and(|session| session.held.iter().any(|place| place.seq == seq))
            };
            has(old) && !has(new)
        };
        let is_held = |entry: &&Entry<'_>| {
            let is_old = old_entries.iter().any(|other| other.seq == entry.seq);
            entry.is_dirty() && left(entry.seq) && !is_old
        };
        let mut all: Vec<u64> = Vec::new();
        if let Some(entry) = accepted {
            self.accept(write, id, entry, old, shard, false);
            all.push(entry.seq);
        }
        for entry in new_entries.iter().filter(is_held) {
            write.saw(Transition::QueuedHeld);
            self.accept(write, id, entry, old, shard, true);
            all.push(entry.seq);
        }
        let is_new = |entry: &&Entry<'_>| {
            entry.is_dirty() && old_entries.iter().all(|other| other.seq != entry.seq)
        };
        let arrived = new_entries.iter().filter(is_new);
        write.arrived = arrived.map(|entry| entry.seq).collect();
        self.outdated_places(write, id, old, new);
        let places = write.outdated.iter();
        all.extend(places.filter_map(|stream| self.streams.get(stream)?.place));
        let names: BTreeSet<(&str, u64)> = old_entries
            .iter()
            .chain(new_entries)
            .map(|entry| (&*entry.route, entry.caller))
            .collect();
        let gone = new.is_none();
        for (route, caller) in names {
            let own = |entries: &'_ [Entry<'_>]| -> Vec<usize> {
                let own = entries.iter().enumerate();
                let own = own.filter(|(_, entry)| entry.is(route, caller));
                own.map(|(at, _)| at).collect()
            };
            let (mut olds, mut news) = (own(old_entries), own(new_entries));
            // Whatever is still there under its number; then the newest that is gone, and whatever took its place.
            let mut pairs = Vec::new();
            olds.retain(|old| {
                let seq = old_entries[*old].seq;
                let at = news.iter().position(|new| new_entries[*new].seq == seq);
                pairs.extend(at.map(|at| (Some(*old), Some(news.remove(at)))));
                at.is_none()
            });
            let (mut olds, mut news) = (olds.into_iter(), news.into_iter());
            loop {
                match (olds.next(), news.next()) {
                    (None, None) => break,
                    pair => pairs.push(pair),
                }
            }
            for (old_at, new_at) in pairs {
                let old_entry = old_at.and_then(|at| old_entries.get(at));
                let new_entry = new_at.and_then(|at| new_entries.get(at));
                self.entry_changes(write, id, old, old_entry, new_entry, &all, gone);
            }
        }
        // An update is one write, whole: what the accepted one voids is gone, what it implies is there.
        if let (Some(entry), Some(session)) = (accepted, new) {
            self.is_whole(write, entry, session);
        }
    }

    /// A new sequence number was given out.
    fn accept(
        &mut self,
        write: &mut Write,
        id: u128,
        entry: &Entry<'_>,
        old: Option<&Session<'_>>,
        shard: &Shard<'_>,
        was_held: bool,
    ) {
        write.counted.accepted += 1;
        let State::Dirty(dirty) = &entry.state else {
            return;
        };
        let in_batch = match write.actor.callback {
            Callback::Stream(stream) => self.is_batch(stream),
            _ => false,
        };
        if entry.seq != shard.last_seq && !was_held && !in_batch {
            write.wrong(
                Invariant::EveryWriteIsATransition,
                format!(
                    "seq {} was given out, the last is {}",
                    entry.seq, shard.last_seq
                ),
            );
        }
        let stream = match write.actor.callback {
            Callback::Stream(stream) if !was_held => self.streams.get_mut(&stream),
            _ => self.streams.values_mut().find(|stream| {
                let sent = stream.update();
                stream.place == Some(entry.seq) && sent.is_some_and(|sent| sent.session == id)
            }),
        };
        let (asks, update) = match stream {
            Some(stream) => (
                Some((stream.token.clone(), stream.begun_us)),
                match &mut stream.asked {
                    Asked::Update(sent) => Some((&*sent, &mut stream.accepted)),
                    Asked::Batch(items) => {
                        // Of equal ones the last is what is there.
                        let mut items = items.iter_mut().rev();
                        let item = items.find(|item| {
                            let sent = &item.sent;
                            let is_it = (sent.session, sent.hash) == (id, entry.value);
                            is_it && item.accepted.is_none()
                        });
                        item.map(|item| (&item.sent, &mut item.accepted))
                    }
                    _ => None,
                },
            ),
            None => (None, None),
        };
        let (Some((token, begun_us)), Some((sent, accepted))) = (asks, update) else {
            return write.wrong(
                Invariant::EveryWriteIsATransition,
                format!("seq {} was given out, and nobody sent it", entry.seq),
            );
        };
        let is_sent = sent.session == id && sent.hash == entry.value && accepted.is_none();
        if !is_sent {
            write.wrong(
                Invariant::EveryWriteIsATransition,
                format!("seq {} is not what the gateway sent", entry.seq),
            );
        }
        if !(begun_us / 1000..=write.clock.mono_ms()).contains(&entry.accepted_ms) {
            write.wrong(
                Invariant::EveryWriteIsATransition,
                format!("seq {} was accepted at {} ms", entry.seq, entry.accepted_ms),
            );
        }
        *accepted = Some(entry.seq);
        let sent = sent.clone();
        if in_batch {
            self.is_asked();
        }
        let mut places = old.into_iter().flat_map(|session| &session.held);
        let was_strangers =
            was_held && places.any(|place| place.seq == entry.seq && place.is_stranger);
        let history = self.sessions.entry(id).or_default();
        history.name.clone_from(&sent.name);
        history.newest_order = history.newest_order.max(sent.order);
        // What was held has a place in the order; of what was written through, only that is known.
        let all = history.accepted.iter().filter(|u| u.timestamp_ms > 0);
        let is_astray = all.clone().any(|update| {
            let is_after = update.timestamp_ms >= dirty.timestamp_ms;
            (update.seq < entry.seq && is_after) || (update.seq > entry.seq && !is_after)
        });
        if is_astray {
            write.wrong(
                Invariant::NeverOlderAfterNewer,
                format!("the timestamp {} is not in its order", dirty.timestamp_ms),
            );
        }
        history.accepted.push(Accepted {
            seq: entry.seq,
            route: entry.route.clone().into_owned(),
            value: sent.value.clone(),
            hash: entry.value,
            timestamp_ms: dirty.timestamp_ms,
            token,
            at_us: write.clock.mono_us,
            known_us: write.clock.mono_us,
            ended_us: u64::MAX,
            accepted_ms: entry.accepted_ms,
            fate: Fate::Pending,
            is_void: false,
            in_effect: false,
            beside: false,
            begun: false,
            // While its caller was not proven it held up nobody.
            passed_over: was_strangers,
            touched_ms: write.clock.mono_ms(),
            members: sent.members.clone(),
            said: Some(sent.said.clone()),
        });
        let now_ms = write.clock.mono_ms();
        let before = old.and_then(|old| old.entry(&entry.route, entry.caller));
        write.saw(match before.map(|before| &before.state) {
            None => Transition::AbsentToDirty,
            Some(State::Clean { .. }) => Transition::CleanToDirty,
            Some(State::Implied { .. }) => Transition::ImpliedToNewer,
            Some(State::Dirty(_)) => {
                let claim = old.and_then(|old| old.live_claim(now_ms));
                match claim.map(|claim| claim.seq) == before.map(|before| before.seq) {
                    true => Transition::ClaimedToNewer,
                    false => Transition::DirtyToNewer,
                }
            }
        });
    }

    fn is_batch(&self, stream: u64) -> bool {
        let known = self.streams.get(&stream);
        known.is_some_and(|known| matches!(known.asked, Asked::Batch(_)))
    }

    /// Held updates that something newer of their caller and route had outdated when their turn came: they may have
    /// been queued, and have given way at once.
    fn outdated_places(
        &self,
        write: &mut Write,
        id: u128,
        old: Option<&Session<'_>>,
        new: Option<&Session<'_>>,
    ) {
        let (Some(old), Some(new)) = (old, new) else {
            return;
        };
        let has = |session: &Session<'_>, seq: u64| session.held.iter().any(|p| p.seq == seq);
        let beside = |seq: u64| new.beside.iter().any(|beside| beside.seq == seq);
        let left = old.held.iter().filter(|place| !has(new, place.seq));
        for place in left {
            let newer = |entry: &Entry<'_>| entry.caller == place.caller && entry.seq > place.seq;
            let claimed = new
                .claim
                .as_ref()
                .is_some_and(|claim| claim.seq == place.seq);
            let stream = self.streams.iter().find(|(_, stream)| {
                // What is there to be seen needs no guess.
                stream.place == Some(place.seq)
                    && stream.accepted != Some(place.seq)
                    && stream.update().is_some_and(|sent| sent.session == id)
            });
            let (Some((stream, _)), false) = (stream, claimed || beside(place.seq)) else {
                continue;
            };
            if new.entries.iter().chain(&old.entries).any(newer) {
                write.outdated.push(*stream);
            }
        }
    }

    fn outdated_are_queued(&mut self, write: &mut Write, old: &Ledger, new: &Ledger) {
        let counted = new.accepted.saturating_sub(old.accepted);
        for stream in std::mem::take(&mut write.outdated) {
            if counted <= write.counted.accepted {
                return;
            }
            let known = self.streams.get_mut(&stream);
            let Some((known, seq)) = known.and_then(|k| k.place.map(|seq| (k, seq))) else {
                continue;
            };
            known.outdated = Some(seq);
            write.counted.accepted += 1;
            // What it gave way to was of its own route, or voided it: only the ledger knows.
            match new.voided.saturating_sub(old.voided) > write.counted.voided {
                true => write.counted.voided += 1,
                false => write.counted.superseded += 1,
            }
            write.saw(Transition::QueuedHeld);
        }
    }

    fn is_whole(&self, write: &mut Write, entry: &Entry<'_>, session: &Session<'_>) {
        let Some((index, rule)) = self.config.route_named(&entry.route) else {
            return;
        };
        let voids = match write.actor.callback {
            Callback::Stream(stream) => self.streams.get(&stream).and_then(Stream::update),
            _ => None,
        };
        if voids.is_some_and(|sent| sent.voids && sent.route == index)
            && let Some(voids) = &rule.voids
        {
            for route in voids
                .routes
                .iter()
                .filter_map(|at| self.config.routes.get(*at))
            {
                // What another caller has queued is sent, in its order.
                let is_void = |other: &Entry<'_>| {
                    let is_its = other.caller == entry.caller || !other.is_dirty();
                    other.route == route.name && is_its && other.seq < entry.seq
                };
                if session.entries.iter().any(is_void) {
                    let what = format!("seq {} voids {}, which is there", entry.seq, route.name);
                    write.wrong(Invariant::EveryWriteIsATransition, what);
                }
            }
        }
        if let Some(implies) = rule.implied()
            && let Some(target) = self.config.routes.get(implies.route)
        {
            let implied = session.entry(&target.name, entry.caller);
            if !implied.is_some_and(|e| e.state == State::Implied { by: entry.seq }) {
                let what = format!("seq {} implies {}, which is not", entry.seq, target.name);
                write.wrong(Invariant::EveryWriteIsATransition, what);
            }
        }
    }
}

/// The sequence number that a write gave out to this session, if it did.
fn new_seq(old: Option<&Session<'_>>, new: Option<&Session<'_>>) -> Option<u64> {
    let before = old.map_or(0, |session| session.newest_seq);
    new.map(|session| session.newest_seq)
        .filter(|newest| *newest > before)
}

// === impl Write ===

impl Write {
    pub(super) fn saw(&mut self, transition: Transition) {
        self.seen.push(transition);
    }

    pub(super) fn wrong(&mut self, invariant: Invariant, what: String) {
        self.wrong.push((invariant, what));
    }

    // ## 1: the ledger counts what happens
    fn check_ledger(&mut self, old: &Ledger, new: &Ledger) {
        let counted = Ledger {
            accepted: new.accepted.saturating_sub(old.accepted),
            delivered: new.delivered.saturating_sub(old.delivered),
            superseded: new.superseded.saturating_sub(old.superseded),
            expired: new.expired.saturating_sub(old.expired),
            rejected: new.rejected.saturating_sub(old.rejected),
            voided: new.voided.saturating_sub(old.voided),
        };
        if counted != self.counted {
            let what = format!(
                "the ledger counted {counted:?}, and {:?} happened",
                self.counted
            );
            self.wrong(Invariant::NothingIsLost, what);
        }
    }
}

pub(super) fn show(entry: &Entry<'_>) -> String {
    let state = match &entry.state {
        State::Dirty(dirty) if dirty.attempts > 0 => format!("dirty({})", dirty.attempts),
        State::Dirty(_) => "dirty".to_owned(),
        State::Clean { .. } => "clean".to_owned(),
        State::Implied { by } => format!("implied by {by}"),
    };
    format!("{}#{} {state}", entry.route, entry.seq)
}

/// A shard in words, for the trace.
pub(super) fn describe(shard: &Shard<'_>) -> String {
    let mut out = String::new();
    for session in &shard.sessions {
        let _ = write!(out, "[{:04x}", session.id & 0xffff);
        for entry in &session.entries {
            let _ = write!(out, " {}", show(entry));
        }
        for kept in &session.kept {
            let _ = write!(out, " kept {}@{}", kept.read, kept.floor);
        }
        if let Some(claim) = &session.claim {
            let _ = write!(
                out,
                " claim {}.{} of #{} until {}",
                claim.id.epoch, claim.id.counter, claim.seq, claim.deadline_ms
            );
        }
        for place in &session.held {
            let _ = write!(out, " held #{} until {}", place.seq, place.deadline_ms);
        }
        for beside in &session.beside {
            let _ = write!(out, " beside #{} until {}", beside.seq, beside.deadline_ms);
        }
        out.push(']');
    }
    let l = &shard.ledger;
    let _ = write!(
        out,
        " ledger {}={}+{}+{}+{}+{}",
        l.accepted, l.delivered, l.superseded, l.expired, l.rejected, l.voided
    );
    out
}
