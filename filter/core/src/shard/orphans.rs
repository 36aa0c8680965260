//! Sessions of which Laravel wants nothing.
//!
//! A session whose last item Laravel refused for good is most likely one that it does not know. To queue for it
//! costs a batch and two calls alone each time, and the gateway never receives the 404. So for ten minutes its
//! updates are written through, for that caller: one request, and Laravel's own answer. What Laravel accepts
//! ends that at once.

use super::{ORPHANS_MAX, Orphan, Shard};
use crate::sabotage::{self, Sabotage};

/// How long a session is written through after a refusal for good, milliseconds.
pub const ORPHAN_MS: u64 = 600_000;

// === impl Shard ===

impl Shard<'_> {
    /// Whether this session's updates are written through for this caller.
    #[must_use]
    #[inline]
    pub fn is_orphan(&self, session: u128, caller: u64, mono_ms: u64) -> bool {
        let mut orphans = self.orphans.iter();
        !sabotage::is(Sabotage::ForgetOrphans)
            && orphans.any(|orphan| orphan.is(session, caller) && orphan.is_live(mono_ms))
    }

    /// Laravel refused the session's last item for good. The one whose time is over first makes room.
    #[inline]
    pub fn orphan(&mut self, session: u128, caller: u64, mono_ms: u64) {
        self.orphans
            .retain(|orphan| !orphan.is(session, caller) && orphan.is_live(mono_ms));
        if self.orphans.len() >= ORPHANS_MAX {
            self.orphans.remove(0);
        }
        // In the order of their times: the first is the oldest.
        self.orphans.push(Orphan {
            session,
            caller,
            until_ms: mono_ms.saturating_add(ORPHAN_MS),
        });
    }

    /// Laravel accepted something of the session. True where that is news, and the shard must be written.
    #[inline]
    pub fn adopt(&mut self, session: u128, caller: u64) -> bool {
        let before = self.orphans.len();
        self.orphans.retain(|orphan| !orphan.is(session, caller));
        self.orphans.len() < before
    }
}

// === impl Orphan ===

impl Orphan {
    #[inline]
    fn is(&self, session: u128, caller: u64) -> bool {
        self.session == session && self.caller == caller
    }

    /// What lies farther ahead than anybody writes was spoiled.
    #[inline]
    fn is_live(&self, mono_ms: u64) -> bool {
        (1..=ORPHAN_MS).contains(&self.until_ms.saturating_sub(mono_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orphan_is_remembered_for_ten_minutes_for_its_caller_and_until_something_is_accepted() {
        let mut shard = Shard::default();
        shard.orphan(1, 7, 1_000);
        assert!(shard.is_orphan(1, 7, 1_000) && shard.is_orphan(1, 7, 600_999));
        assert!(!shard.is_orphan(1, 7, 601_000), "its time is over");
        assert!(!shard.is_orphan(1, 8, 1_000) && !shard.is_orphan(2, 7, 1_000));
        assert!(shard.adopt(1, 7) && !shard.adopt(1, 7));
        assert!(!shard.is_orphan(1, 7, 1_000));
    }

    #[test]
    fn the_orphan_whose_time_is_over_first_makes_room() {
        let mut shard = Shard::default();
        for n in 0..=ORPHANS_MAX as u64 {
            shard.orphan(u128::from(n), 0, 1_000 + n);
        }
        shard.orphan(1, 0, 5_000);
        assert_eq!(shard.orphans.len(), ORPHANS_MAX);
        assert!(!shard.is_orphan(0, 0, 5_000) && shard.is_orphan(1, 0, 5_000));
    }
}
