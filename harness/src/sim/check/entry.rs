//! What a write does to one entry: which transition it is, and whether the end of an update is true.

use embudo_core::config::Route;
use embudo_core::shard::{Dirty, Entry, Session, State, Trial};

use super::answers::short;
use super::history::{Accepted, Fate};
use super::shard::{Write, show};
use super::{CallEnd, Checker, Invariant, Transition};
use crate::sim::host::Callback;

// === impl Checker ===

impl Checker {
    #[expect(clippy::too_many_arguments, reason = "a change is all of these")]
    pub(super) fn entry_changes(
        &mut self,
        write: &mut Write,
        id: u128,
        session: Option<&Session<'_>>,
        old: Option<&Entry<'_>>,
        new: Option<&Entry<'_>>,
        accepted: &[u64],
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
        let is_accepted = |entry: &Entry<'_>| accepted.contains(&entry.seq);
        let is_held = new.is_some_and(|new| {
            let seq = new.seq;
            session.is_some_and(|session| session.held.iter().any(|place| place.seq == seq))
        });
        // What gates what: an update that is accepted, or was written through and is accepted now.
        let newest = accepted.iter().copied().chain(write.settled).max();
        let arrived = accepted.iter().chain(&write.arrived).copied();
        let all_newer: Vec<u64> = arrived.chain(write.settled).collect();
        if let (Some(from), Some(to)) = (old, new)
            && from.is_dirty()
            && from.seq < to.seq
        {
            self.is_superseded(write, id, from, to);
        }
        let is_behind = old.is_some_and(|old| {
            let mut all = session.into_iter().flat_map(|session| &session.entries);
            all.any(|other| other.is(&old.route, old.caller) && other.seq > old.seq)
        });
        match (old, new) {
            // ## => Dirty, by an offer
            (old, Some(to)) if to.is_dirty() && is_accepted(to) => {
                if let Some(from) = old.filter(|entry| entry.is_dirty()) {
                    self.ends(write, id, from, Fate::Superseded);
                }
                // A row that throws may well throw again.
                let tried = |entry: &Entry<'_>| match &entry.state {
                    State::Dirty(dirty) => Some((dirty.attempts, dirty.trial)),
                    _ => None,
                };
                let from = old.and_then(tried);
                if from.is_some() && from != tried(to) && !is_held {
                    illegal(write);
                }
            }
            // ## => Dirty, to be said once more: it went on outside the order, or nobody knows whether it arrived
            (from, Some(to)) if to.is_dirty() && self.is_said_again(id, to) => {
                write.saw(Transition::SaidAgain);
                self.is_more();
                write.counted.accepted += 1;
                if let Some(from) = from.filter(|entry| entry.is_dirty()) {
                    self.ends(write, id, from, Fate::Superseded);
                }
                let history = self.sessions.get_mut(&id);
                if let Some(update) = history.and_then(|h| h.of_seq(to.seq, &to.route)) {
                    update.fate = Fate::Pending;
                    update.accepted_ms = to.accepted_ms;
                    if let State::Dirty(dirty) = &to.state {
                        update.timestamp_ms = dirty.timestamp_ms;
                    }
                }
            }
            // ## => Implied, by an offer
            (from, Some(to)) if matches!(to.state, State::Implied { by } if accepted.contains(&by)) =>
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
            // ## => Clean, by an update that passed
            (from, Some(to)) if !to.is_dirty() && write.settled == Some(to.seq) => {
                if !matches!(to.state, State::Clean { .. }) {
                    illegal(write);
                }
                // What it supersedes was queued and unsent.
                if let Some(from) = from.filter(|entry| entry.is_dirty()) {
                    self.ends(write, id, from, Fate::Superseded);
                }
            }
            (Some(from), Some(to)) if from.seq == to.seq && from.value == to.value => {
                match (&from.state, &to.state) {
                    (State::Dirty(a), State::Dirty(b)) => {
                        self.is_tried(write, (from, a), (to, b));
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
                    // What came after it may be what Laravel has: it answers for nothing any more.
                    (State::Clean { .. }, State::Clean { .. }) if to.accepted_ms == 0 => {
                        write.saw(Transition::Doubted);
                    }
                    _ => illegal(write),
                }
            }
            (Some(from), None) if from.is_dirty() => match write.actor.callback {
                Callback::Answer(call) if self.is_rejected(id, session, from, call) => {
                    write.saw(Transition::Rejected);
                    if !self.calls.get(&call).is_some_and(|call| call.judged) {
                        let what = format!("{} was rejected for a proxy's answer", show(from));
                        write.wrong(Invariant::AProxyLosesNothing, what);
                    }
                    self.ends(write, id, from, Fate::Rejected);
                }
                // What was said after it is still to be sent.
                _ if is_behind
                    && write
                        .delivers
                        .as_ref()
                        .is_some_and(|(route, seq)| *route == *from.route && from.seq == *seq) =>
                {
                    write.saw(Transition::DeliveredBehind);
                    self.ends(write, id, from, Fate::Delivered);
                }
                // What came after it says all of it anew.
                _ if self.is_said_anew(id, from, &all_newer) => {
                    write.saw(Transition::SupersededBehind);
                    self.ends(write, id, from, Fate::Superseded);
                }
                // Of its own route something newer was accepted.
                _ if write
                    .delivers
                    .as_ref()
                    .is_some_and(|(route, seq)| *route == *from.route && from.seq < *seq) =>
                {
                    write.saw(Transition::Overtaken);
                    self.ends(write, id, from, Fate::Superseded);
                }
                // The same of what was written through: it waited for all but what had failed alone, or whose caller
                // is refused.
                _ if self.is_overtaken(write, id, from) => {
                    write.saw(Transition::Overtaken);
                    self.are_passed_over(id, [(from.seq, &*from.route)].into_iter());
                    self.ends(write, id, from, Fate::Superseded);
                }
                _ if newest.is_some_and(|seq| from.seq < seq) => {
                    write.saw(Transition::VoidedDirty);
                    let by: Vec<u64> = accepted.iter().copied().chain(write.settled).collect();
                    if !self.is_by_its_caller(id, from, &by) {
                        let what = format!("{} was voided by another caller's", show(from));
                        write.wrong(Invariant::NothingIsLost, what);
                    }
                    self.ends(write, id, from, Fate::Superseded);
                    // It gave way to something newer, too, but the ledger says why.
                    write.counted.superseded -= 1;
                    write.counted.voided += 1;
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
                _ if write.settled.is_some_and(|seq| from.seq < seq) => {
                    write.saw(Transition::PassedOverClean);
                    let history = self.sessions.get_mut(&id);
                    if let Some(update) = history.and_then(|h| h.of_seq(from.seq, &from.route)) {
                        update.fate = Fate::Superseded;
                    }
                }
                _ if !accepted.is_empty() && !forgotten => {
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

    /// Whether one of these, of the same route and caller, has all members of an entry.
    fn is_said_anew(&self, id: u128, entry: &Entry<'_>, by: &[u64]) -> bool {
        let Some(history) = self.sessions.get(&id) else {
            return false;
        };
        let own = |update: &&Accepted| update.seq == entry.seq && update.route == entry.route;
        let Some(older) = history.accepted.iter().find(own) else {
            return false;
        };
        let mut newer = history.accepted.iter().filter(|update| {
            let is_own = update.route == older.route && update.token == older.token;
            is_own && update.seq > older.seq && by.contains(&update.seq)
        });
        newer.any(|newer| older.members.is_subset(&newer.members))
    }

    /// A newer one takes the place of this one: it must say all of it anew, unless this one was passed over.
    fn is_superseded(&self, write: &mut Write, id: u128, from: &Entry<'_>, to: &Entry<'_>) {
        let State::Dirty(dirty) = &from.state else {
            return;
        };
        let all = self.sessions.get(&id).map(|history| &history.accepted);
        let all = all.into_iter().flatten();
        let older = all
            .clone()
            .find(|u| u.seq == from.seq && u.route == from.route);
        let newer = all.rev().find(|u| u.seq == to.seq && u.route == to.route);
        let Some(older) = older else { return };
        let says_all = match (&to.state, newer) {
            (State::Implied { .. }, _) => older.members.len() <= 2,
            (_, Some(newer)) => older.members.is_subset(&newer.members),
            // Its history begins with this write.
            (_, None) => true,
        };
        let was_passed_over = dirty.trial != Trial::default() || older.passed_over;
        let may_give_way = says_all || was_passed_over && !to.is_dirty();
        if !may_give_way {
            let what = format!("{} gave way to {}, which says less", show(from), show(to));
            write.wrong(Invariant::NothingIsLost, what);
        }
    }

    /// Something was learned of an unsent item.
    fn is_tried(
        &self,
        write: &mut Write,
        (from, a): (&Entry<'_>, &Dirty<'_>),
        (to, b): (&Entry<'_>, &Dirty<'_>),
    ) {
        let sent = (a.timestamp_ms, &a.body, &a.destination, &a.neutral);
        let same = sent == (b.timestamp_ms, &b.body, &b.destination, &b.neutral)
            && b.priority >= a.priority;
        let counted = b.attempts == a.attempts + 1;
        let alone = |trial: Trial| (trial.failures, trial.refusals);
        let (fails, refuses) = (a.trial.failures + 1, a.trial.refusals + 1);
        let grows = a.trial == b.trial
            || alone(b.trial) == (fails, a.trial.refusals)
            || alone(b.trial) == (a.trial.failures, refuses);
        // What was excused, and was not taken with others, has failed anew.
        let is_anew = a.trial.alone && a.trial.failures > 0;
        let since_ms = match is_anew {
            true => b.trial.failed_since_ms.max(a.trial.failed_since_ms),
            false => a.trial.failed_since_ms,
        };
        let suspect = b.trial
            == Trial {
                alone: true,
                failed_since_ms: since_ms,
                ..a.trial
            };
        let forgiven = (b.attempts, b.trial) == (0, Trial::default());
        write.saw(match same {
            true if counted && grows => Transition::Attempted,
            true if forgiven && write.delivers.is_some() => Transition::Forgiven,
            true if b.attempts == a.attempts && a.trial == b.trial => Transition::Hurried,
            true if b.attempts == a.attempts && suspect => Transition::Suspected,
            _ => {
                let what = format!("{} became {}", show(from), show(to));
                return write.wrong(Invariant::EveryWriteIsATransition, what);
            }
        });
    }

    /// Whether this item's call was refused for certain, for its credential or for itself.
    fn is_rejected(
        &self,
        id: u128,
        session: Option<&Session<'_>>,
        from: &Entry<'_>,
        call: u64,
    ) -> bool {
        let claim = session.and_then(|session| session.claim.as_ref());
        let call = self.calls.get(&call);
        let same = claim.zip(call).is_some_and(|(claim, call)| {
            call.claim == Some(claim.id) && claim.seq == from.seq && claim.route == from.route
        });
        same && call.is_some_and(|call| match call.end {
            Some(CallEnd::Failed) => true,
            Some(CallEnd::Delivered) => call.refused.contains(&id),
            Some(CallEnd::Unknown) | None => false,
        })
    }

    /// Whether one of these updates is of the caller of this entry's.
    fn is_by_its_caller(&self, id: u128, entry: &Entry<'_>, by: &[u64]) -> bool {
        let Some(history) = self.sessions.get(&id) else {
            return false;
        };
        let all = history.accepted.iter();
        let mut own = all
            .clone()
            .filter(|u| u.seq == entry.seq && u.route == entry.route);
        let Some(token) = own.next().map(|update| &update.token) else {
            return false;
        };
        let mut newer = all.filter(|update| by.contains(&update.seq));
        // One that was held, queued in its place, and superseded there by another one at once, has left no entry.
        let mut held = self.streams.values().filter(|stream| {
            let seq = stream.place.filter(|_| stream.place_of == Some(id));
            seq.is_some_and(|seq| by.contains(&seq))
        });
        newer.any(|update| update.token == *token)
            || held.any(|stream| stream.update().is_some_and(|sent| sent.token == *token))
    }

    /// Whether something newer of this entry's route is taken, and had not to wait for it.
    fn is_overtaken(&self, write: &Write, id: u128, entry: &Entry<'_>) -> bool {
        let State::Dirty(dirty) = &entry.state else {
            return false;
        };
        let Some((route, seq)) = &write.overtakes else {
            return false;
        };
        let all = self.sessions.get(&id).into_iter();
        let mut own = all
            .flat_map(|history| &history.accepted)
            .filter(|update| update.seq == entry.seq && update.route == entry.route);
        let waits_by_itself = dirty.trial.failures > 0
            || dirty.trial.refusals > 0
            || own.any(|update| update.passed_over);
        // Of one that was only seen nobody knows the route.
        let is_its = route.as_ref().is_none_or(|route| *route == *entry.route);
        is_its && entry.seq < *seq && (waits_by_itself || route.is_none())
    }

    /// Whether this entry is one that was written through before.
    fn is_said_again(&self, id: u128, entry: &Entry<'_>) -> bool {
        let history = self.sessions.get(&id);
        history.is_some_and(|history| {
            history.accepted.iter().any(|update| {
                update.seq == entry.seq
                    && update.route == entry.route
                    && update.hash == entry.value
                    && update.known_us == u64::MAX
                    && update.fate != Fate::Pending
            })
        })
    }

    // ## Implied => Dirty
    fn revive(&mut self, write: &mut Write, id: u128, entry: &Entry<'_>) {
        write.saw(Transition::Revived);
        self.is_more();
        write.counted.accepted += 1;
        let State::Dirty(dirty) = &entry.state else {
            return;
        };
        let route = self.config.route_named(&entry.route);
        let members = route.map(|(index, _)| self.members(index, &dirty.body));
        let members = members.unwrap_or_default();
        let history = self.sessions.entry(id).or_default();
        let value = self
            .config
            .routes
            .iter()
            .filter_map(Route::implied)
            .map(|implies| implies.value.clone())
            .next();
        let implied_by = history.accepted.iter().find(|u| u.seq == entry.seq);
        let token = implied_by.map_or_else(String::new, |update| update.token.clone());
        let passed_over = implied_by.is_some_and(|update| update.passed_over);
        history.accepted.push(Accepted {
            seq: entry.seq,
            route: entry.route.clone().into_owned(),
            value: value.unwrap_or_default(),
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
            passed_over,
            touched_ms: write.clock.mono_ms(),
            members,
            said: None,
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
        if let Callback::Stream(stream) = write.actor.callback {
            let by = self.streams.get(&stream);
            update.is_void = by.is_some_and(|by| by.token != update.token);
        }
        update.fate = fate;
        update.ended_us = write.clock.mono_us;
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
            Fate::Rejected => write.counted.rejected += 1,
            Fate::Pending | Fate::Passing | Fate::Failed => {}
        }
    }
}
