//! Who leads.

use super::{Actor, Checker, Clock, Invariant, Transition};

/// Clusters whose roots stamp the lease.
const CLUSTERS: usize = 4;

/// The stored lease: five numbers of eight bytes, and as many pairs of them as it has places for clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) leader: u64,
    pub(super) epoch: u64,
    pub(super) expires_ms: u64,
    config: u64,
    stamp_ms: u64,
}

/// For the trace.
pub(super) fn describe(bytes: &[u8]) -> String {
    let lease = Lease::decode(bytes).unwrap_or_default();
    format!(
        "lease of {:04x}, epoch {}, until {} ms",
        lease.leader & 0xffff,
        lease.epoch,
        lease.expires_ms
    )
}

// === impl Lease ===

impl Lease {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let [leader, epoch, expires_ms, config, stamp_ms, clusters @ ..] = numbers else {
            return None;
        };
        if clusters.len() != 2 * CLUSTERS {
            return None;
        }
        Some(Self {
            leader: u64::from_le_bytes(*leader),
            epoch: u64::from_le_bytes(*epoch),
            expires_ms: u64::from_le_bytes(*expires_ms),
            config: u64::from_le_bytes(*config),
            stamp_ms: u64::from_le_bytes(*stamp_ms),
        })
    }
}

// === impl Checker ===

impl Checker {
    // ## 6: one leader
    //
    // An epoch is one leader's, and a new one begins only when the old one's time is over.
    pub(super) fn lease_changes(
        &mut self,
        clock: Clock,
        actor: Actor,
        before: &[u8],
        after: &[u8],
    ) {
        let old = Lease::decode(before).unwrap_or_default();
        let Some(new) = Lease::decode(after) else {
            return self.fail(clock.mono_us, Invariant::OneLeader, "the lease is none");
        };
        let is_free = clock.mono_ms() >= old.expires_ms;
        let transition = if new.epoch != old.epoch {
            if !is_free || new.epoch != old.epoch + 1 {
                let what = format!("epoch {} begins while {old:?} runs", new.epoch);
                self.fail(clock.mono_us, Invariant::OneLeader, what);
            }
            self.leader_vm = Some(actor.vm);
            self.inherits_the_circuit(actor.vm);
            self.led_since_us = clock.mono_us;
            Transition::FollowerToLeader
        } else if new.leader != old.leader {
            let what = format!("epoch {} has two leaders", new.epoch);
            self.fail(clock.mono_us, Invariant::OneLeader, what);
            return;
        } else if new.expires_ms > old.expires_ms {
            Transition::LeaderToLeader
        } else if new.expires_ms < old.expires_ms {
            Transition::LeaderToFollower
        } else {
            Transition::FollowerToFollower
        };
        self.coverage.count(transition);
        self.lease = new;
    }
}
