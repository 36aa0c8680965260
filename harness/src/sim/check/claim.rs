//! What a write does to the claim of a session.

use embudo_core::shard::{BESIDE_MAX, Claim, ClaimId, Entry, Session, State};

use super::answers::{Claimed, Sent, Stream};
use super::calls::CallInfo;
use super::history::{Accepted, Fate};
use super::shard::Write;
use super::{CallEnd, Checker, Clock, Invariant, Transition};
use crate::sim::host::Callback;

/// The epoch of claims that no leader has made.
pub(super) const PASSING: u64 = 0;

// === impl Checker ===

impl Checker {
    pub(super) fn claim_changes(
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
        // Whoever has lost a request that was only seen lets its session wait for no longer than Laravel may take.
        if let (Some(before), Some(after)) = (before, after)
            && before.id == after.id
            && after.deadline_ms < before.deadline_ms
            && after.id.epoch == PASSING
        {
            return;
        }
        if let Some(claim) = after {
            write.saw(match before {
                None => Transition::Claimed,
                Some(_) => Transition::Reclaimed,
            });
            if let Some(other) = before.filter(|claim| is_live(claim)) {
                let what = format!("{:?} took what {:?} holds", claim.id, other.id);
                write.wrong(Invariant::AClaimIsRespected, what);
            }
            if claim.id.epoch == PASSING {
                let claimed = Claimed {
                    id: claim.id,
                    route: claim.route.to_string(),
                    seq: claim.seq,
                    deadline_ms: claim.deadline_ms,
                    beside: false,
                };
                return self.passes(write, id, claimed, new);
            }
            let refused = self.refused_callers(id, old);
            let may_go = old.is_some_and(|old| {
                let is_it = |e: &&Entry<'_>| e.seq == claim.seq && e.is(&claim.route, claim.caller);
                let claimed = old.entries.iter().find(is_it);
                claimed.is_some_and(|entry| old.may_go(entry, &refused, now_ms))
            });
            let older = old.into_iter().flat_map(|old| &old.entries);
            let older: Vec<&Entry<'_>> = older
                .filter(|entry| entry.is_dirty() && entry.seq < claim.seq)
                .collect();
            let is_lost = |entry: &&&Entry<'_>| {
                let State::Dirty(dirty) = &entry.state else {
                    return false;
                };
                let is_another = entry.caller != claim.caller;
                let waits = dirty.trial.refusals > 0 || refused.contains(&entry.caller);
                dirty.trial.lost && !(is_another && waits)
            };
            if let Some(lost) = older.iter().find(is_lost) {
                let what = format!("seq {} is claimed, and {} was lost", claim.seq, lost.seq);
                write.wrong(Invariant::NeverOlderAfterNewer, what);
            }
            let older = older.into_iter();
            self.are_passed_over(id, older.map(|entry| (entry.seq, &*entry.route)));
            if !may_go {
                let oldest = old.and_then(Session::next_due).map(|entry| entry.seq);
                let what = format!("seq {} is claimed, the oldest is {oldest:?}", claim.seq);
                write.wrong(Invariant::NeverOlderAfterNewer, what);
            }
        } else if let Some(claim) = before {
            self.released(write, id, claim, new);
        }
    }

    /// Callers of a session's items that Laravel refuses at the moment, as far as anybody at this end knows.
    fn refused_callers(&self, id: u128, session: Option<&Session<'_>>) -> Vec<u64> {
        self.callers(id, session, |token| self.may_be_refused(token))
    }

    /// Those of its items' callers whose tokens are so.
    fn callers(
        &self,
        id: u128,
        session: Option<&Session<'_>>,
        is_so: impl Fn(&str) -> bool,
    ) -> Vec<u64> {
        let history = self.sessions.get(&id);
        let all = session.into_iter().flat_map(|session| &session.entries);
        let refused = all.filter(|entry| {
            let token = history.and_then(|history| {
                let mut all = history.accepted.iter().rev();
                all.find(|update| update.seq == entry.seq && update.route == entry.route)
                    .map(|update| &update.token)
            });
            token.is_some_and(|token| is_so(token))
        });
        refused.map(|entry| entry.caller).collect()
    }

    /// Something newer goes before these: they failed alone, or their callers are refused.
    pub(super) fn are_passed_over<'r>(
        &mut self,
        id: u128,
        older: impl Iterator<Item = (u64, &'r str)>,
    ) {
        for (seq, route) in older {
            let history = self.sessions.get_mut(&id);
            if let Some(update) = history.and_then(|history| history.of_seq(seq, route)) {
                update.passed_over = true;
            }
        }
    }

    /// Places are taken by requests, and given back; requests go on beside the claim, and end.
    pub(super) fn places_change(
        &mut self,
        write: &mut Write,
        id: u128,
        old: Option<&Session<'_>>,
        new: Option<&Session<'_>>,
    ) {
        let (no_places, none_beside) = (Vec::new(), Vec::new());
        let places = |session: Option<&Session<'_>>| -> Vec<u64> {
            let all = session.map_or(&no_places, |session| &session.held);
            all.iter().map(|place| place.seq).collect()
        };
        let (before, after) = (places(old), places(new));
        for seq in after.iter().filter(|seq| !before.contains(seq)) {
            let stream = match write.actor.callback {
                Callback::Stream(stream) => self.streams.get_mut(&stream),
                _ => None,
            };
            match stream {
                Some(known) => {
                    known.place = Some(*seq);
                    known.place_of = Some(id);
                    write.saw(Transition::PlaceTaken);
                }
                None => {
                    let what = format!("place {seq} was taken, and nobody waits");
                    write.wrong(Invariant::EveryWriteIsATransition, what);
                }
            }
        }
        for _ in before.iter().filter(|seq| !after.contains(seq)) {
            write.saw(Transition::PlaceLeft);
        }
        let beside = old.map_or(&none_beside, |session| &session.beside);
        let now_beside = new.map_or(&none_beside, |session| &session.beside);
        let claim_of = |number: u64| ClaimId {
            epoch: PASSING,
            counter: number,
        };
        for one in now_beside {
            if beside.iter().all(|other| other.number != one.number) {
                write.saw(match one.is_outside {
                    true => Transition::WentOutside,
                    false => Transition::WentBeside,
                });
                if !one.is_outside {
                    let refused = self.callers(id, new, |token| {
                        self.may_be_refused(token) || self.was_refused(write.clock, token)
                    });
                    let all = new.into_iter().flat_map(|session| &session.entries);
                    let older = all.filter(|entry| {
                        entry.is_dirty() && entry.seq < one.seq && refused.contains(&entry.caller)
                    });
                    self.are_passed_over(id, older.map(|entry| (entry.seq, &*entry.route)));
                }
                let claimed = Claimed {
                    id: claim_of(one.number),
                    route: String::new(),
                    seq: one.seq,
                    deadline_ms: one.deadline_ms,
                    beside: true,
                };
                self.passes(write, id, claimed, new);
            }
        }
        for one in beside {
            if now_beside.iter().all(|other| other.number != one.number) {
                self.passed(write, id, claim_of(one.number), one.seq);
            }
        }
    }

    /// The request that a write is about: the one whose callback it is, or the one that was held with this sequence.
    fn one_that_goes(&mut self, write: &Write, id: u128, seq: u64) -> Option<&mut Stream> {
        let place = |stream: &&mut Stream| stream.place == Some(seq) && stream.place_of == Some(id);
        match write.actor.callback {
            Callback::Stream(stream) => self.streams.get_mut(&stream),
            _ => self.streams.values_mut().find(place),
        }
    }

    /// A request takes the session's claim for itself, or goes beside it.
    fn passes(
        &mut self,
        write: &mut Write,
        id: u128,
        mut claimed: Claimed,
        new: Option<&Session<'_>>,
    ) {
        let newest = new.map(|session| session.newest_seq);
        // Of a request that bypasses only the session was seen: it is no update, and keeps its place in its order.
        if let Some(known) = self.one_that_goes(write, id, claimed.seq)
            && known.update().is_none()
        {
            write.saw(Transition::Seen);
            known.passing = Some(claimed);
            self.sessions.entry(id).or_default().is_seen = true;
            return;
        }
        let known = self.one_that_goes(write, id, claimed.seq);
        let Some((known, sent)) = known.and_then(|known| {
            let sent = known.update().cloned()?;
            Some((known, sent))
        }) else {
            // Its caller has hung up since.
            if !matches!(write.actor.callback, Callback::Stream(_)) {
                return;
            }
            let what = format!("{:?} is a passing claim, and nobody passes", claimed.id);
            return write.wrong(Invariant::AClaimIsRespected, what);
        };
        let (is_placed, is_taken) = (known.place.is_some(), known.passing.is_some());
        let is_accepted = known.accepted.is_some();
        let rule = self.config.routes.get(sent.route);
        let route = rule.map_or("", |rule| rule.name.as_str());
        if claimed.beside {
            route.clone_into(&mut claimed.route);
        }
        let is_newest = claimed.beside || is_placed || newest == Some(claimed.seq);
        if sent.session != id || route != claimed.route || !is_newest || is_taken || is_accepted {
            let what = format!("seq {} passes, and is not what was sent", claimed.seq);
            write.wrong(Invariant::EveryWriteIsATransition, what);
        }
        let (seq, beside) = (claimed.seq, claimed.beside);
        let older = new.into_iter().flat_map(|session| &session.entries);
        let older = older.filter(|entry| entry.is_dirty() && entry.seq < seq && !beside);
        self.are_passed_over(id, older.map(|entry| (entry.seq, &*entry.route)));
        if let Some(known) = self.one_that_goes(write, id, seq) {
            known.passing = Some(claimed.clone());
        }
        let history = self.sessions.entry(id).or_default();
        history.name.clone_from(&sent.name);
        history.newest_order = history.newest_order.max(sent.order);
        history.accepted.push(Accepted {
            seq,
            route: claimed.route,
            value: sent.value,
            hash: sent.hash,
            timestamp_ms: 0,
            token: sent.token,
            at_us: write.clock.mono_us,
            known_us: u64::MAX,
            ended_us: u64::MAX,
            accepted_ms: write.clock.mono_ms(),
            fate: Fate::Passing,
            is_void: false,
            in_effect: false,
            beside,
            begun: false,
            passed_over: false,
            touched_ms: write.clock.mono_ms(),
            members: sent.members,
            said: Some(sent.said),
        });
    }

    /// A request that goes on although there was no room to record it: so many of its session are at Laravel beside
    /// the claim. Then the session is unverified all the same.
    pub(super) fn unrecorded(&mut self, clock: Clock, stream: u64, sent: &Sent) -> Option<Claimed> {
        let history = self.sessions.get_mut(&sent.session)?;
        let known = self.streams.get_mut(&stream)?;
        let seq = known.unrecorded?;
        let rule = self.config.routes.get(sent.route)?;
        let claimed = Claimed {
            id: ClaimId {
                epoch: PASSING,
                counter: u64::MAX - stream,
            },
            route: rule.name.clone(),
            seq,
            deadline_ms: clock.mono_ms() + self.config.claim_ms(),
            beside: true,
        };
        known.passing = Some(claimed.clone());
        history.newest_order = history.newest_order.max(sent.order);
        history.accepted.push(Accepted {
            seq: claimed.seq,
            route: claimed.route.clone(),
            value: sent.value.clone(),
            hash: sent.hash,
            timestamp_ms: 0,
            token: sent.token.clone(),
            at_us: clock.mono_us,
            known_us: u64::MAX,
            ended_us: u64::MAX,
            accepted_ms: clock.mono_ms(),
            fate: Fate::Passing,
            is_void: false,
            in_effect: false,
            beside: true,
            begun: false,
            passed_over: false,
            touched_ms: clock.mono_ms(),
            members: sent.members.clone(),
            said: Some(sent.said.clone()),
        });
        Some(claimed)
    }

    /// So many of a session are at Laravel beside the claim that the next one is not recorded.
    pub(super) fn may_be_unrecorded(&mut self, write: &Write, id: u128, new: Option<&Session<'_>>) {
        let Some(new) = new.filter(|session| session.beside.len() >= BESIDE_MAX) else {
            return;
        };
        let has_place = |seq: u64| new.held.iter().any(|place| place.seq == seq);
        for (stream, known) in &mut self.streams {
            let is_its = known.update().is_some_and(|sent| sent.session == id);
            let is_here = is_its && write.actor.callback == Callback::Stream(*stream);
            match known.place.filter(|_| known.place_of == Some(id)) {
                Some(seq) if !has_place(seq) => known.unrecorded = Some(seq),
                // Its own number, and the one that says that nobody knows any more.
                None if is_here => known.unrecorded = Some(new.newest_seq.saturating_sub(1)),
                _ => {}
            }
        }
    }

    /// What went on without a record has come to its end.
    pub(super) fn unrecorded_ends(&mut self, write: &mut Write, id: u128) {
        let Callback::Stream(stream) = write.actor.callback else {
            return;
        };
        let known = self.streams.get(&stream);
        let its = known.filter(|known| known.update().is_some_and(|sent| sent.session == id));
        let Some(claimed) = its.and_then(|known| known.passing.clone()) else {
            return;
        };
        let is_known = self
            .calls
            .values()
            .any(|c| c.claim == Some(claimed.id) && c.end.is_some());
        if claimed.id.counter == u64::MAX - stream && is_known {
            self.passed(write, id, claimed.id, claimed.seq);
        }
    }

    /// A passing update has come to its end: Laravel's own answer is known.
    fn passed(&mut self, write: &mut Write, id: u128, claim: ClaimId, seq: u64) {
        let call = self.calls.values().find(|c| c.claim == Some(claim));
        // One that was hung up on before it went on has never been a call.
        let end = match call {
            Some(call) => call.end,
            None => Some(CallEnd::Failed),
        };
        // Whoever else ends it has found its time over: nobody has heard the answer, or ever will.
        let is_heard = match write.actor.callback {
            Callback::Stream(stream) => {
                let known = self.streams.get(&stream);
                known.is_some_and(|known| known.passing.as_ref().is_some_and(|p| p.id == claim))
            }
            _ => false,
        };
        let history = self.sessions.get_mut(&id);
        let passing = |update: &&mut Accepted| update.seq == seq && update.fate == Fate::Passing;
        let is_taken = end == Some(CallEnd::Delivered) && is_heard;
        let Some(update) = history.and_then(|h| h.accepted.iter_mut().find(passing)) else {
            // One that was only seen: what Laravel says to it is nobody's to check.
            write.overtakes = is_heard.then_some((None, seq));
            if let Some(history) = self.sessions.get_mut(&id).filter(|_| is_heard) {
                history.seen_seq = history.seen_seq.max(seq);
            }
            return;
        };
        update.ended_us = write.clock.mono_us;
        update.touched_ms = write.clock.mono_ms();
        if is_taken {
            write.saw(Transition::PassedDelivered);
            write.settled = Some(seq);
            write.overtakes = Some((Some(update.route.clone()), seq));
            // It is in the store from now on, and as old as that.
            update.accepted_ms = write.clock.mono_ms();
            update.fate = Fate::Delivered;
            if !update.in_effect {
                let what = format!("seq {seq} passed, and Laravel has not got it");
                write.wrong(Invariant::NothingIsLost, what);
            }
        } else if end == Some(CallEnd::Failed) {
            write.saw(Transition::PassedReleased);
            update.fate = Fate::Failed;
        }
    }

    /// A claim is given up before its time: only by an answer that says for certain what became of it.
    fn released(
        &mut self,
        write: &mut Write,
        id: u128,
        claim: &Claim<'_>,
        new: Option<&Session<'_>>,
    ) {
        let is_live = write.clock.mono_ms() < claim.deadline_ms;
        let mut all = self.streams.values().filter_map(|s| s.passing.as_ref());
        let own = all.any(|passing| passing.id == claim.id);
        let its = |call: &&CallInfo| call.claim == Some(claim.id);
        if let Some(call) = self.calls.values().find(its)
            && call.end == Some(CallEnd::Delivered)
            && !call.refused.contains(&id)
        {
            write.delivers = Some((claim.route.to_string(), claim.seq));
        }
        let entry = new.and_then(|session| session.entry(&claim.route, claim.caller));
        let same = entry.filter(|entry| entry.seq == claim.seq);
        match (entry, same) {
            (Some(entry), None) if entry.is_dirty() => write.saw(Transition::DeliveredNewer),
            (_, Some(entry)) if entry.is_dirty() => write.saw(Transition::ReleasedSame),
            _ => {}
        }
        if matches!(write.actor.callback, Callback::Stream(_)) && is_live && !own {
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
        if own {
            self.passed(write, id, claim.id, claim.seq);
        }
    }
}
