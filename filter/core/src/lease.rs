//! One dispatcher at a time, elected by a lease in the store.
//!
//! Every root context ticks: the main thread's, the workers', and during a listener update the old
//! ones' too. None of them knows the others, any of them may die without a word, and the only thing
//! that they share is the store. So the dispatcher is whoever holds a lease of a few seconds, and the
//! lease is not what makes it *safe*: claims do that. The lease only keeps two from doing the work of
//! one.
//!
//! A newer configuration takes over from an older one. Configurations are told apart by a hash and
//! ordered by the time at which the first of their roots appeared: N + 1 roots of one configuration
//! must not compete with each other.

use alloc::vec::Vec;

use crate::sabotage::{self, Sabotage};
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};

/// The lease is renewed three times in its life, so that one late tick does not lose it.
const RENEWALS_PER_LIFE: u64 = 3;

/// A lease that nobody of the newest configuration has wanted for this many lives is anybody's: its
/// roots may all be dead.
const ABANDONED_LIVES: u64 = 2;

/// One root context's part in the election.
#[derive(Clone, Debug)]
pub struct Candidate {
    id: u64,
    config: u64,
    configured_ms: u64,
    lease_ms: u64,
    /// When the first root of this configuration appeared; known after the first look at the store.
    stamp_ms: Option<u64>,
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: u64,
    renewed_ms: u64,
}

/// What a look at the lease changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// This root is the leader now.
    Won,
    /// It no longer is.
    Lost,
}

/// The stored lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    leader: u64,
    epoch: u64,
    expires_ms: u64,
    /// The newest configuration seen, and when.
    config: u64,
    stamp_ms: u64,
}

// === impl Candidate ===

impl Candidate {
    /// A root context: a random id, a hash of its configuration, and when it was configured.
    #[must_use]
    pub fn new(id: u64, config: u64, configured_ms: u64, lease_ms: u64) -> Self {
        Self {
            id,
            config,
            configured_ms,
            lease_ms,
            stamp_ms: None,
            held: None,
        }
    }

    /// The epoch, while this root may act as leader.
    #[must_use]
    pub fn epoch(&self, mono_ms: u64) -> Option<u64> {
        self.held
            .filter(|_| mono_ms < self.expires_ms())
            .map(|held| held.epoch)
    }

    /// When the lease runs out, unless it is renewed; monotonic. 0 if it is not held.
    #[must_use]
    pub fn expires_ms(&self) -> u64 {
        let lease_ms = match sabotage::is(Sabotage::LeaseWithoutEnd) {
            true => u64::MAX,
            false => self.lease_ms,
        };
        self.held
            .map_or(0, |held| held.renewed_ms.saturating_add(lease_ms))
    }

    /// Renews, gives way or takes over, whatever is called for.
    pub fn tick(&mut self, store: &mut impl Store, keys: &Keys, mono_ms: u64) -> Change {
        match self.held {
            Some(held) if mono_ms >= self.expires_ms() => {
                // Overslept. Somebody else may be at work; start again with a new epoch.
                let _ = held;
                self.held = None;
                Change::Lost
            }
            Some(held) => {
                let due_ms = held
                    .renewed_ms
                    .saturating_add(self.lease_ms / RENEWALS_PER_LIFE);
                match mono_ms < due_ms {
                    true => Change::None,
                    false => self.renew(store, keys, held, mono_ms),
                }
            }
            None => self.compete(store, keys, mono_ms),
        }
    }

    /// Gives the lease back, so that the next leader need not wait for it to run out.
    ///
    /// It ends now and not at 0: one that ended long ago counts as abandoned, and would be anybody's, an
    /// older configuration's root's too.
    pub fn release(&mut self, store: &mut impl Store, keys: &Keys, mono_ms: u64) {
        let Some(held) = self.held.take() else { return };
        update(store, keys, |record| {
            (record.leader == self.id && record.epoch == held.epoch).then_some(Record {
                expires_ms: record.expires_ms.min(mono_ms),
                ..record
            })
        });
    }

    // ## Leader => (Leader | Follower)
    fn renew(&mut self, store: &mut impl Store, keys: &Keys, held: Held, mono_ms: u64) -> Change {
        let mut stays = false;
        let written = update(store, keys, |record| {
            stays = false;
            if record.leader != self.id || record.epoch != held.epoch {
                return None;
            }
            // A newer configuration's roots are waiting: make room at once, and for nobody else.
            stays = Some(record.stamp_ms) == self.stamp_ms;
            let expires_ms = if stays {
                mono_ms.saturating_add(self.lease_ms)
            } else {
                mono_ms
            };
            Some(Record {
                expires_ms,
                ..record
            })
        });
        match written && stays {
            true => {
                self.held = Some(Held {
                    renewed_ms: mono_ms,
                    ..held
                });
                Change::None
            }
            false => {
                self.held = None;
                Change::Lost
            }
        }
    }

    // ## Follower => (Follower | Leader)
    fn compete(&mut self, store: &mut impl Store, keys: &Keys, mono_ms: u64) -> Change {
        let mut won = None;
        let mut stamp_ms = self.stamp_ms;
        let written = update(store, keys, |record| {
            won = None;
            let own_ms = stamp_ms.unwrap_or(match record.config == self.config {
                true => record.stamp_ms,
                false => self.configured_ms,
            });
            stamp_ms = Some(own_ms);
            let mut next = record;
            if own_ms > record.stamp_ms {
                next = Record {
                    config: self.config,
                    stamp_ms: own_ms,
                    ..record
                };
            }
            let free = mono_ms >= record.expires_ms;
            let abandoned_ms = record
                .expires_ms
                .saturating_add(self.lease_ms.saturating_mul(ABANDONED_LIVES));
            if free && (own_ms == next.stamp_ms || mono_ms >= abandoned_ms) {
                let epoch = record.epoch.saturating_add(1);
                won = Some(epoch);
                next = Record {
                    leader: self.id,
                    epoch,
                    expires_ms: mono_ms.saturating_add(self.lease_ms),
                    config: self.config,
                    stamp_ms: own_ms,
                };
            }
            (next != record).then_some(next)
        });
        self.stamp_ms = stamp_ms;
        match won.filter(|_| written) {
            Some(epoch) => {
                self.held = Some(Held {
                    epoch,
                    renewed_ms: mono_ms,
                });
                Change::Won
            }
            None => Change::None,
        }
    }
}

/// Changes the record by compare-and-swap. False where `change` wanted nothing, or the write failed.
fn update(
    store: &mut impl Store,
    keys: &Keys,
    mut change: impl FnMut(Record) -> Option<Record>,
) -> bool {
    for _ in 0..CAS_ATTEMPTS_MAX {
        let read = store.get(&keys.lease());
        let record = read
            .as_ref()
            .and_then(|(bytes, _)| Record::decode(bytes))
            .unwrap_or_default();
        let Some(next) = change(record) else {
            return false;
        };
        match store.put(&keys.lease(), &next.encode(), Expect::of(read.as_ref())) {
            Ok(()) => return true,
            Err(PutError::Mismatch) => {}
            Err(PutError::Refused) => return false,
        }
    }
    false
}

// === impl Record ===

impl Record {
    fn encode(&self) -> Vec<u8> {
        [
            self.leader,
            self.epoch,
            self.expires_ms,
            self.config,
            self.stamp_ms,
        ]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let [leader, epoch, expires_ms, config, stamp_ms] = numbers else {
            return None;
        };
        Some(Self {
            leader: u64::from_le_bytes(*leader),
            epoch: u64::from_le_bytes(*epoch),
            expires_ms: u64::from_le_bytes(*expires_ms),
            config: u64::from_le_bytes(*config),
            stamp_ms: u64::from_le_bytes(*stamp_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    const LIFE_MS: u64 = 3_000;

    struct World {
        store: MemoryStore,
        keys: Keys,
    }

    impl World {
        fn new() -> Self {
            Self {
                store: MemoryStore::default(),
                keys: Keys::new("p"),
            }
        }

        fn tick(&mut self, candidate: &mut Candidate, mono_ms: u64) -> Change {
            candidate.tick(&mut self.store, &self.keys, mono_ms)
        }
    }

    #[test]
    fn one_of_many_wins_and_stays_while_it_renews() {
        let mut world = World::new();
        let mut a = Candidate::new(1, 7, 100, LIFE_MS);
        let mut b = Candidate::new(2, 7, 105, LIFE_MS);
        assert_eq!(world.tick(&mut a, 110), Change::Won);
        for ms in (120..20_000).step_by(500) {
            assert_eq!(
                world.tick(&mut b, ms),
                Change::None,
                "a sibling is no newer configuration"
            );
            assert_eq!(world.tick(&mut a, ms), Change::None);
            assert!(a.epoch(ms).is_some() && b.epoch(ms).is_none());
        }
    }

    #[test]
    fn a_leader_that_falls_silent_is_followed_with_a_higher_epoch() {
        let mut world = World::new();
        let mut a = Candidate::new(1, 7, 100, LIFE_MS);
        let mut b = Candidate::new(2, 7, 100, LIFE_MS);
        assert_eq!(world.tick(&mut a, 100), Change::Won);
        assert_eq!(world.tick(&mut b, 3_099), Change::None);
        assert_eq!(world.tick(&mut b, 3_100), Change::Won);
        assert_eq!((a.epoch(3_100), b.epoch(3_100)), (None, Some(2)));
        assert_eq!(world.tick(&mut a, 3_200), Change::Lost);
        assert_eq!(world.tick(&mut a, 3_300), Change::None);
    }

    #[test]
    fn a_newer_configuration_takes_over_and_a_rolled_back_one_too() {
        let mut world = World::new();
        let mut old = Candidate::new(1, 7, 100, LIFE_MS);
        let mut new = Candidate::new(2, 8, 5_000, LIFE_MS);
        assert_eq!(world.tick(&mut old, 100), Change::Won);
        assert_eq!(world.tick(&mut old, 2_500), Change::None);
        assert_eq!(
            world.tick(&mut new, 5_010),
            Change::None,
            "it only says that it is there"
        );
        assert_eq!(
            world.tick(&mut old, 5_020),
            Change::Lost,
            "the older one yields when it renews"
        );
        assert_eq!(
            world.tick(&mut old, 5_030),
            Change::None,
            "and does not take it back"
        );
        assert_eq!(world.tick(&mut new, 5_500), Change::Won);
        let mut rolled_back = Candidate::new(3, 7, 9_000, LIFE_MS);
        assert_eq!(
            world.tick(&mut rolled_back, 9_010),
            Change::Won,
            "the lease had run out"
        );
        assert_eq!(world.tick(&mut new, 9_020), Change::Lost);
        assert_eq!(
            world.tick(&mut new, 20_000),
            Change::Won,
            "nobody of the newest is left"
        );
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        let mut world = World::new();
        let mut a = Candidate::new(1, 7, 100, LIFE_MS);
        let mut b = Candidate::new(2, 7, 100, LIFE_MS);
        assert_eq!(world.tick(&mut a, 100), Change::Won);
        a.release(&mut world.store, &world.keys, 101);
        assert_eq!(a.epoch(101), None);
        assert_eq!(world.tick(&mut b, 110), Change::Won);
    }

    #[test]
    fn a_lease_that_was_given_up_is_the_newer_configurations_however_long_the_machine_has_run() {
        // Later than any number of lives after 0.
        const UP_MS: u64 = 1_000_000;
        for released in [false, true] {
            let mut world = World::new();
            let mut old = Candidate::new(1, 7, UP_MS, LIFE_MS);
            let mut sibling = Candidate::new(2, 7, UP_MS, LIFE_MS);
            let mut new = Candidate::new(3, 8, UP_MS + 4_000, LIFE_MS);
            assert_eq!(world.tick(&mut old, UP_MS), Change::Won);
            assert_eq!(world.tick(&mut sibling, UP_MS), Change::None);
            assert_eq!(world.tick(&mut old, UP_MS + 2_900), Change::None);
            assert_eq!(world.tick(&mut new, UP_MS + 4_010), Change::None);
            match released {
                true => old.release(&mut world.store, &world.keys, UP_MS + 4_100),
                false => assert_eq!(world.tick(&mut old, UP_MS + 4_100), Change::Lost),
            }
            for older in [&mut old, &mut sibling] {
                assert_eq!(
                    world.tick(older, UP_MS + 4_200),
                    Change::None,
                    "an older configuration's root leaves it alone"
                );
            }
            assert_eq!(world.tick(&mut new, UP_MS + 4_500), Change::Won);
        }
    }
}
