//! What is forgotten about a shard, so that there are few of them, and why that is sound.
//!
//! *Now* is always [`NOW_MS`], and a tick moves what is stored into the past, down to a floor below which nobody can
//! tell one time from another. The core remembers a place for ten seconds after its time, and no worker looks
//! as late as that: so here a place is remembered as long as its worker lives, and may be forgotten at any time once
//! that is dead and two ticks are over. Sequences stay as they are: whoever was held or is at Laravel remembers them.

use embudo_core::shard::{Ledger, Shard, State, Trial};

use super::record::TICK_MS;

/// The present, in every shard.
pub(super) const NOW_MS: u64 = 1_000_000;

/// For so long nothing that is delivered is forgotten.
pub(super) const TTL_MS: u64 = 3_600_000;

/// When a place was over, for whoever does not mind when.
pub(super) const OVER_MS: u64 = NOW_MS - 2 * TICK_MS;

/// When one was that is as good as forgotten.
pub(super) const FORGOTTEN_MS: u64 = NOW_MS - 100_000;

/// A tick passes.
pub(super) fn tick(shard: &mut Shard<'_>) {
    for session in &mut shard.sessions {
        if let Some(claim) = &mut session.claim {
            claim.deadline_ms -= TICK_MS;
        }
        for place in &mut session.held {
            place.deadline_ms -= TICK_MS;
        }
        for beside in &mut session.beside {
            beside.deadline_ms -= TICK_MS;
            beside.begun_ms -= TICK_MS;
        }
    }
}

/// Makes equal what nobody can tell apart.
pub(super) fn level(shard: &mut Shard<'_>) {
    shard.ledger = Ledger {
        accepted: shard.pending() as u64,
        ..Ledger::default()
    };
    shard.rung = false;
    for session in &mut shard.sessions {
        // Nobody reads.
        (session.unread_seq, session.told_seq) = (0, 0);
        if let Some(claim) = &mut session.claim {
            claim.deadline_ms = claim.deadline_ms.max(NOW_MS);
        }
        for place in &mut session.held {
            place.deadline_ms = place.deadline_ms.max(OVER_MS);
        }
        for beside in &mut session.beside {
            beside.deadline_ms = beside.deadline_ms.max(NOW_MS);
            beside.begun_ms = beside.begun_ms.max(OVER_MS);
        }
        for entry in &mut session.entries {
            // What is in doubt stays in doubt.
            if entry.accepted_ms > 0 {
                entry.accepted_ms = NOW_MS;
            }
            match &mut entry.state {
                State::Dirty(dirty) => {
                    (dirty.since_ms, dirty.attempts, dirty.priority) = (0, 0, false);
                    dirty.trial = Trial::default();
                }
                State::Clean { until_ms } if *until_ms > NOW_MS => *until_ms = NOW_MS + TTL_MS,
                State::Clean { until_ms } => *until_ms = 0,
                State::Implied { .. } => {}
            }
        }
        session
            .entries
            .sort_by(|a, b| (&a.route, a.caller).cmp(&(&b.route, b.caller)));
    }
}
