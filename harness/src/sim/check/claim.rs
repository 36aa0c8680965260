//! What a write does to the claim of a session.

use embudo_core::shard::{Claim, Session};

use super::answers::Claimed;
use super::history::{Accepted, Fate};
use super::shard::Write;
use super::{CallEnd, Checker, Invariant, Transition};
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
                return self.passes(write, id, claim, new);
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

    /// A request takes the session's claim for itself.
    fn passes(
        &mut self,
        write: &mut Write,
        id: u128,
        claim: &Claim<'_>,
        new: Option<&Session<'_>>,
    ) {
        let newest = new.map(|session| session.newest_seq);
        let stream = match write.actor.callback {
            Callback::Stream(stream) => self.streams.get_mut(&stream),
            _ => None,
        };
        let Some((known, sent)) = stream.and_then(|known| {
            let sent = known.update().cloned()?;
            Some((known, sent))
        }) else {
            let what = format!("{:?} is a passing claim, and nobody passes", claim.id);
            return write.wrong(Invariant::AClaimIsRespected, what);
        };
        let rule = self.config.routes.get(sent.route);
        let route = rule.map_or("", |rule| rule.name.as_str());
        let fits = sent.session == id && route == claim.route && newest == Some(claim.seq);
        if !fits || known.passing.is_some() || known.accepted.is_some() {
            let what = format!("seq {} passes, and is not what was sent", claim.seq);
            write.wrong(Invariant::EveryWriteIsATransition, what);
        }
        known.passing = Some(Claimed {
            id: claim.id,
            route: claim.route.to_string(),
            seq: claim.seq,
            deadline_ms: claim.deadline_ms,
        });
        let history = self.sessions.entry(id).or_default();
        history.name.clone_from(&sent.name);
        history.newest_order = history.newest_order.max(sent.order);
        history.accepted.push(Accepted {
            seq: claim.seq,
            route: claim.route.to_string(),
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
            touched_ms: write.clock.mono_ms(),
        });
    }

    /// A passing update has come to its end: Laravel's own answer is known.
    fn passed(&mut self, write: &mut Write, id: u128, claim: &Claim<'_>) {
        let call = self.calls.values().find(|c| c.claim == Some(claim.id));
        let end = call.and_then(|call| call.end);
        let history = self.sessions.get_mut(&id);
        let Some(update) = history.and_then(|h| h.of_seq(claim.seq, &claim.route)) else {
            return;
        };
        update.ended_us = write.clock.mono_us;
        update.touched_ms = write.clock.mono_ms();
        if end == Some(CallEnd::Delivered) {
            write.saw(Transition::PassedDelivered);
            write.settled = Some(claim.seq);
            // It is in the store from now on, and as old as that.
            update.accepted_ms = write.clock.mono_ms();
            update.fate = Fate::Delivered;
            if !update.in_effect {
                let what = format!("seq {} passed, and Laravel has not got it", claim.seq);
                write.wrong(Invariant::NothingIsLost, what);
            }
        } else {
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
        let own = match write.actor.callback {
            Callback::Stream(stream) => self.streams.get(&stream),
            _ => None,
        };
        let own = own.and_then(|stream| stream.passing.as_ref());
        let own = own.is_some_and(|passing| passing.id == claim.id);
        let entry = new.and_then(|session| session.entry(&claim.route, claim.credential));
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
            self.passed(write, id, claim);
        }
    }
}
