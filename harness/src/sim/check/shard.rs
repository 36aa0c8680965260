//! One write of a shard, taken apart into the transitions that it is made of.
//!
//! Every difference between what was there and what is there now must be one that the record knows, made
//! by somebody who may make it, and the ledger must have counted it. So an update that vanishes without a
//! word, a value that is overwritten by a stale copy, or half an update are found at the write that does
//! it, and not an hour later.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use embudo_core::shard::{Claim, Entry, Ledger, Session, Shard, State, balance};

use super::answers::{Stream, short};
use super::history::{Accepted, Fate};
use super::{Actor, CallEnd, Checker, Clock, Invariant, Transition};
use crate::sim::host::Callback;

/// One write under examination.
struct Write {
    clock: Clock,
    actor: Actor,
    /// What the ledger should have counted.
    counted: Ledger,
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
            counted: Ledger::default(),
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
        self.claim_changes(write, id, old, new);
        // First what was accepted: the rest follows from it.
        let accepted = new_entries
            .iter()
            .find(|entry| entry.is_dirty() && Some(entry.seq) == new_seq(old, new));
        if let Some(entry) = accepted {
            self.accept(write, id, entry, old, shard);
        }
        let names: BTreeSet<(&str, u64)> = old_entries
            .iter()
            .chain(new_entries)
            .map(|entry| (&*entry.route, entry.credential))
            .collect();
        for (route, credential) in names {
            let old_entry = old_entries.iter().find(|e| e.is(route, credential));
            let new_entry = new_entries.iter().find(|e| e.is(route, credential));
            let gone = new.is_none();
            let accepted = accepted.map(|entry| entry.seq);
            self.entry_changes(write, id, old, old_entry, new_entry, accepted, gone);
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
    ) {
        write.counted.accepted += 1;
        let State::Dirty(dirty) = &entry.state else {
            return;
        };
        if entry.seq != shard.last_seq {
            write.wrong(
                Invariant::EveryWriteIsATransition,
                format!(
                    "seq {} was given out, the last is {}",
                    entry.seq, shard.last_seq
                ),
            );
        }
        let stream = match write.actor.callback {
            Callback::Stream(stream) => self.streams.get_mut(&stream),
            _ => None,
        };
        let Some(Stream {
            update: Some(sent),
            accepted,
            begun_us,
            ..
        }) = stream
        else {
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
        if !(*begun_us / 1000..=write.clock.mono_ms()).contains(&entry.accepted_ms) {
            write.wrong(
                Invariant::EveryWriteIsATransition,
                format!("seq {} was accepted at {} ms", entry.seq, entry.accepted_ms),
            );
        }
        *accepted = Some(entry.seq);
        let history = self.sessions.entry(id).or_default();
        history.name.clone_from(&sent.name);
        let newest_ms = history.newest().map(|update| update.timestamp_ms);
        if newest_ms.is_some_and(|newest| dirty.timestamp_ms <= newest) {
            write.wrong(
                Invariant::NeverOlderAfterNewer,
                format!("the timestamp {} is not newer", dirty.timestamp_ms),
            );
        }
        history.accepted.push(Accepted {
            seq: entry.seq,
            route: entry.route.clone().into_owned(),
            value: sent.value.clone(),
            hash: entry.value,
            timestamp_ms: dirty.timestamp_ms,
            at_us: write.clock.mono_us,
            accepted_ms: entry.accepted_ms,
            fate: Fate::Pending,
            in_effect: false,
            touched_ms: write.clock.mono_ms(),
        });
        let now_ms = write.clock.mono_ms();
        let before = old.and_then(|old| old.entry(&entry.route, entry.credential));
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

    #[expect(clippy::too_many_arguments, reason = "a change is all of these")]
    fn entry_changes(
        &mut self,
        write: &mut Write,
        id: u128,
        session: Option<&Session<'_>>,
        old: Option<&Entry<'_>>,
        new: Option<&Entry<'_>>,
        accepted: Option<u64>,
        forgotten: bool,
    ) {
        if old == new {
            return;
        }
        let now_ms = write.clock.mono_ms();
        let illegal = |write: &mut Write| {
            let shown = |entry: Option<&Entry<'_>>| entry.map_or("absent".into(), show);
            let what = format!("{} became {}", shown(old), shown(new));
            write.wrong(Invariant::EveryWriteIsATransition, what);
        };
        let is_accepted = |entry: &Entry<'_>| accepted == Some(entry.seq);
        match (old, new) {
            // ## => Dirty, by an offer
            (old, Some(to)) if to.is_dirty() && is_accepted(to) => {
                if let Some(from) = old.filter(|entry| entry.is_dirty()) {
                    self.ends(write, id, from, Fate::Superseded);
                }
            }
            // ## => Implied, by an offer
            (from, Some(to)) if matches!(to.state, State::Implied { by } if accepted == Some(by)) =>
            {
                write.saw(match from.map(|from| &from.state) {
                    None => Transition::ImpliedFromAbsent,
                    Some(State::Clean { .. }) => Transition::ImpliedFromClean,
                    Some(State::Dirty(_)) => Transition::ImpliedFromDirty,
                    Some(State::Implied { .. }) => Transition::ImpliedFromImplied,
                });
                if let Some(from) = from.filter(|entry| entry.is_dirty()) {
                    self.ends(write, id, from, Fate::Superseded);
                }
            }
            (Some(from), Some(to)) if from.seq == to.seq && from.value == to.value => {
                match (&from.state, &to.state) {
                    (State::Dirty(a), State::Dirty(b)) => {
                        let counted = b.attempts == a.attempts + 1;
                        let rest = (a.timestamp_ms, &a.body) == (b.timestamp_ms, &b.body);
                        match counted && rest {
                            true => write.saw(Transition::Attempted),
                            false => illegal(write),
                        }
                    }
                    (State::Dirty(_), State::Clean { .. }) => {
                        write.saw(Transition::Delivered);
                        self.ends(write, id, from, Fate::Delivered);
                    }
                    (State::Implied { by }, State::Clean { .. }) => {
                        let by = *by;
                        let history = self.sessions.get(&id);
                        let all = history.map_or(&[][..], |history| &history.accepted);
                        // Whether it is the implying item's own end is seen at that item.
                        match all.iter().any(|update| update.seq == by) {
                            true => write.saw(Transition::ImpliedToClean),
                            false => illegal(write),
                        }
                    }
                    (State::Implied { .. }, State::Dirty(_)) => self.revive(write, id, to),
                    (State::Clean { until_ms: a }, State::Clean { until_ms: b }) if b > a => {
                        write.saw(Transition::Slid);
                    }
                    _ => illegal(write),
                }
            }
            (Some(from), None) if from.is_dirty() => match write.actor.callback {
                Callback::Stream(_) => {
                    write.saw(Transition::VoidedDirty);
                    self.ends(write, id, from, Fate::Superseded);
                }
                _ => {
                    write.saw(Transition::Expired);
                    let live = session.and_then(|session| session.live_claim(now_ms));
                    if live.is_some() {
                        let what = format!("{} expired under a claim", show(from));
                        write.wrong(Invariant::AClaimIsRespected, what);
                    }
                    self.ends(write, id, from, Fate::Expired);
                }
            },
            (Some(from), None) => match from.state {
                State::Clean { until_ms } if until_ms <= now_ms => {
                    write.saw(Transition::Forgotten);
                }
                // Lives and dies with what it comes from.
                State::Implied { .. } => {}
                _ if accepted.is_some() && !forgotten => {
                    write.saw(Transition::VoidedClean);
                    let history = self.sessions.get_mut(&id);
                    if let Some(update) = history.and_then(|h| h.of_seq(from.seq, &from.route)) {
                        update.fate = Fate::Superseded;
                    }
                }
                _ => illegal(write),
            },
            _ => illegal(write),
        }
    }

    // ## Implied => Dirty
    fn revive(&mut self, write: &mut Write, id: u128, entry: &Entry<'_>) {
        write.saw(Transition::Revived);
        write.counted.accepted += 1;
        let State::Dirty(dirty) = &entry.state else {
            return;
        };
        let history = self.sessions.entry(id).or_default();
        let value = self
            .config
            .routes
            .iter()
            .filter_map(|route| route.implies.as_ref())
            .map(|implies| implies.value.clone())
            .next();
        history.accepted.push(Accepted {
            seq: entry.seq,
            route: entry.route.clone().into_owned(),
            value: value.unwrap_or_default(),
            hash: entry.value,
            timestamp_ms: dirty.timestamp_ms,
            at_us: write.clock.mono_us,
            accepted_ms: entry.accepted_ms,
            fate: Fate::Pending,
            in_effect: false,
            touched_ms: write.clock.mono_ms(),
        });
    }

    /// A pending update has come to its end, and the end must be true.
    fn ends(&mut self, write: &mut Write, id: u128, entry: &Entry<'_>, fate: Fate) {
        let limit_ms = self
            .config
            .route_named(&entry.route)
            .and_then(|(_, rule)| rule.expire_after_ms);
        let history = self.sessions.get_mut(&id);
        let Some(update) = history.and_then(|h| h.of_seq(entry.seq, &entry.route)) else {
            let what = format!("{} ended, and was never accepted", show(entry));
            return write.wrong(Invariant::EveryWriteIsATransition, what);
        };
        let name = format!("seq {} ({})", update.seq, short(&update.value));
        if update.fate != Fate::Pending {
            let what = format!("{name} ended as {fate:?} and {:?}", update.fate);
            write.wrong(Invariant::EveryWriteIsATransition, what);
        }
        update.fate = fate;
        update.touched_ms = write.clock.mono_ms();
        match fate {
            Fate::Delivered => {
                write.counted.delivered += 1;
                if !update.in_effect {
                    let what = format!("{name} counts as delivered, and Laravel has not got it");
                    write.wrong(Invariant::NothingIsLost, what);
                }
            }
            Fate::Superseded => write.counted.superseded += 1,
            Fate::Expired => {
                write.counted.expired += 1;
                let age_ms = write.clock.mono_ms().saturating_sub(update.accepted_ms);
                if limit_ms.is_none_or(|limit| age_ms <= limit) {
                    let what = format!("{name} expired when it was {age_ms} ms old");
                    write.wrong(Invariant::NothingIsLost, what);
                }
            }
            Fate::Pending => {}
        }
    }

    fn is_whole(&self, write: &mut Write, entry: &Entry<'_>, session: &Session<'_>) {
        let Some((index, rule)) = self.config.route_named(&entry.route) else {
            return;
        };
        let voids = match write.actor.callback {
            Callback::Stream(stream) => self.streams.get(&stream).and_then(|s| s.update.as_ref()),
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
                if session
                    .entries
                    .iter()
                    .any(|other| other.route == route.name)
                {
                    let what = format!("seq {} voids {}, which is there", entry.seq, route.name);
                    write.wrong(Invariant::EveryWriteIsATransition, what);
                }
            }
        }
        if let Some(implies) = &rule.implies
            && let Some(target) = self.config.routes.get(implies.route)
        {
            let implied = session.entry(&target.name, entry.credential);
            if !implied.is_some_and(|e| e.state == State::Implied { by: entry.seq }) {
                let what = format!("seq {} implies {}, which is not", entry.seq, target.name);
                write.wrong(Invariant::EveryWriteIsATransition, what);
            }
        }
    }

    fn claim_changes(
        &mut self,
        write: &mut Write,
        id: u128,
        old: Option<&Session<'_>>,
        new: Option<&Session<'_>>,
    ) {
        let now_ms = write.clock.mono_ms();
        let before = old.and_then(|session| session.claim.as_ref());
        let after = new.and_then(|session| session.claim.as_ref());
        if before == after {
            return;
        }
        let is_live = |claim: &Claim<'_>| now_ms < claim.deadline_ms;
        if let Some(claim) = after {
            write.saw(match before {
                None => Transition::Claimed,
                Some(_) => Transition::Reclaimed,
            });
            if let Some(other) = before.filter(|claim| is_live(claim)) {
                let what = format!("{:?} took what {:?} holds", claim.id, other.id);
                write.wrong(Invariant::AClaimIsRespected, what);
            }
            let oldest = old.and_then(Session::next_due).map(|entry| entry.seq);
            if oldest != Some(claim.seq) {
                let what = format!("seq {} is claimed, the oldest is {oldest:?}", claim.seq);
                write.wrong(Invariant::NeverOlderAfterNewer, what);
            }
        } else if let Some(claim) = before {
            self.released(write, id, claim, new);
        }
    }

    /// A claim is given up before its time: only by an answer that says for certain what became of it.
    fn released(
        &mut self,
        write: &mut Write,
        _: u128,
        claim: &Claim<'_>,
        new: Option<&Session<'_>>,
    ) {
        let is_live = write.clock.mono_ms() < claim.deadline_ms;
        let entry = new.and_then(|session| session.entry(&claim.route, claim.credential));
        let same = entry.filter(|entry| entry.seq == claim.seq);
        match (entry, same) {
            (Some(entry), None) if entry.is_dirty() => write.saw(Transition::DeliveredNewer),
            (_, Some(entry)) if entry.is_dirty() => write.saw(Transition::ReleasedSame),
            _ => {}
        }
        if matches!(write.actor.callback, Callback::Stream(_)) && is_live {
            let what = format!("intake took away {:?}", claim.id);
            write.wrong(Invariant::AClaimIsRespected, what);
        }
        let call = self
            .calls
            .values()
            .find(|call| call.claim == Some(claim.id));
        if let Some(call) = call.filter(|_| is_live)
            && !matches!(call.end, Some(CallEnd::Delivered | CallEnd::Failed))
        {
            let what = format!(
                "the claim of call {} (seq {}) was given up, and its fate is {:?}",
                call.id, claim.seq, call.end
            );
            write.wrong(Invariant::AClaimIsRespected, what);
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
    fn saw(&mut self, transition: Transition) {
        self.seen.push(transition);
    }

    fn wrong(&mut self, invariant: Invariant, what: String) {
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

fn show(entry: &Entry<'_>) -> String {
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
        if let Some(claim) = &session.claim {
            let _ = write!(
                out,
                " claim {}.{} of #{} until {}",
                claim.id.epoch, claim.id.counter, claim.seq, claim.deadline_ms
            );
        }
        out.push(']');
    }
    let l = &shard.ledger;
    let _ = write!(
        out,
        " ledger {}={}+{}+{}+{}",
        l.accepted, l.delivered, l.superseded, l.expired, l.rejected
    );
    out
}
