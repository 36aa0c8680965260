//! What is forgotten about a shard, so that there are few of them, and why that is sound.
//!
//! Time is relative: *now* is always [`NOW_MS`], and a tick moves what is stored into the past, down to
//! a floor below which nobody can tell one time from another. Of timestamps, only the order is kept. The
//! ledger is checked after every transition and then wound back to what is pending: the core never reads
//! it. A claim's id is always [`OWN`] in a stored shard; whether a call holds *that* claim is the
//! caller's to know (ids are only compared for equality). The bell, priorities and attempts are hints for
//! the dispatcher's plan, and here every plan is tried at any time.

use embudo_core::shard::{ClaimId, Ledger, Shard, State, Trial};

use super::record::{LAG_MAX, QR_TICKS, TICK_MS};

/// The present, in every shard.
pub(super) const NOW_MS: u64 = 1_000_000;

/// Nobody's age limit reaches further back, however late his clock.
const ACCEPTED_FLOOR_MS: u64 = NOW_MS - (QR_TICKS + 1 + LAG_MAX as u64) * TICK_MS;

/// Over for everybody, however late his clock.
const OVER_MS: u64 = NOW_MS - LAG_MAX as u64 * TICK_MS;

/// The id of whatever claim a stored shard has.
pub(super) const OWN: ClaimId = ClaimId {
    epoch: 1,
    counter: 1,
};

/// A tick passes.
pub(super) fn tick(shard: &mut Shard<'_>) {
    for session in &mut shard.sessions {
        if let Some(claim) = &mut session.claim {
            claim.deadline_ms -= TICK_MS;
        }
        for entry in &mut session.entries {
            entry.accepted_ms -= TICK_MS;
            if let State::Clean { until_ms } = &mut entry.state {
                *until_ms -= TICK_MS;
            }
        }
    }
}

/// Whether timestamps follow each other as sequences do, and the next one will.
pub(super) fn in_order(shard: &Shard<'_>) -> bool {
    let mut unsent = unsent(shard);
    unsent.sort_unstable();
    unsent.is_sorted_by_key(|(_, timestamp_ms)| *timestamp_ms)
        && unsent
            .iter()
            .all(|(_, timestamp_ms)| *timestamp_ms <= shard.last_wall_ms)
}

/// Sequences and timestamps of what is unsent.
fn unsent(shard: &Shard<'_>) -> Vec<(u64, u64)> {
    let entries = shard.sessions.iter().flat_map(|session| &session.entries);
    entries
        .filter_map(|entry| match &entry.state {
            State::Dirty(dirty) => Some((entry.seq, dirty.timestamp_ms)),
            State::Clean { .. } | State::Implied { .. } => None,
        })
        .collect()
}

/// Makes equal what nobody can tell apart.
pub(super) fn level(shard: &mut Shard<'_>) {
    let mut timestamps: Vec<u64> = unsent(shard).iter().map(|(_, ms)| *ms).collect();
    timestamps.sort_unstable();
    // Only their order matters; each leaves room for the state that it implies.
    let rank = |ms: u64| 2 * timestamps.iter().filter(|other| **other < ms).count() as u64;
    shard.last_wall_ms = 2 * timestamps.len() as u64;
    shard.ledger = Ledger {
        accepted: shard.pending() as u64,
        ..Ledger::default()
    };
    shard.rung = false;
    for session in &mut shard.sessions {
        if let Some(claim) = &mut session.claim {
            claim.id = OWN;
            claim.deadline_ms = claim.deadline_ms.max(OVER_MS);
        }
        for entry in &mut session.entries {
            entry.accepted_ms = entry.accepted_ms.max(ACCEPTED_FLOOR_MS);
            match &mut entry.state {
                State::Dirty(dirty) => {
                    (dirty.since_ms, dirty.attempts, dirty.priority) = (0, 0, false);
                    dirty.trial = Trial::default();
                    dirty.timestamp_ms = rank(dirty.timestamp_ms);
                }
                State::Clean { until_ms } => *until_ms = (*until_ms).max(OVER_MS),
                State::Implied { .. } => {}
            }
        }
        session.entries.sort_by(|a, b| a.route.cmp(&b.route));
    }
}
