//! What a write does to the claim of a session.

use embudo_core::shard::{Claim, Session};

use super::shard::Write;
use super::{CallEnd, Checker, Invariant, Transition};
use crate::sim::host::Callback;

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
