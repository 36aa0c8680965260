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

/// The longest life that a configuration may give a lease, milliseconds.
const LIFE_MAX_MS: u64 = crate::config::LEASE_MAX_MS;

/// How long a cluster counts as somebody's after a root of its configuration has stamped the lease.
const STAMP_MS: u64 = 3_000;

/// How old a stamp is before a root writes it again: a leader of that configuration does so sooner, when it renews.
const STAMP_AGAIN_MS: u64 = 1_500;

/// Clusters that the lease has room for; the one that was stamped longest ago makes room.
const CLUSTERS_MAX: usize = 4;

/// A cluster's mark, 0 for none, and when a root that calls it stamped it. Monotonic.
type Stamps = [(u64, u64); CLUSTERS_MAX];

/// One root context's part in the election.
#[derive(Clone, Debug)]
pub struct Candidate {
    id: u64,
    /// The mark of the cluster that it calls; 0 where it stands for none.
    cluster: u64,
    /// The stamps, as they were when the lease was looked at last.
    stamps: Stamps,
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
    /// The clusters that roots call.
    clusters: Stamps,
}

// === impl Candidate ===

impl Candidate {
    /// A root context: a random id, a hash of its configuration, and when it was configured.
    #[must_use]
    #[inline]
    pub fn new(id: u64, config: u64, configured_ms: u64, lease_ms: u64) -> Self {
        Self {
            id,
            cluster: 0,
            stamps: Stamps::default(),
            config,
            configured_ms,
            lease_ms,
            stamp_ms: None,
            held: None,
        }
    }

    /// The same, of a root that calls the cluster with this mark.
    #[must_use]
    #[inline]
    pub fn calling(self, cluster: u64) -> Self {
        Self { cluster, ..self }
    }

    /// Whether a root that calls the cluster with this mark has stamped the lease lately.
    #[must_use]
    #[inline]
    pub fn stands_for(&self, cluster: u64, mono_ms: u64) -> bool {
        let mut stamps = self.stamps.iter();
        stamps.any(|(known, ms)| *known == cluster && mono_ms < ms.saturating_add(STAMP_MS))
    }

    /// Whether another root holds the lease.
    #[must_use]
    pub fn is_succeeded(&self, store: &impl Store, keys: &Keys, mono_ms: u64) -> bool {
        let read = store.get(&keys.lease());
        let record = read.and_then(|(bytes, _)| Record::decode(&bytes));
        let record = record.unwrap_or_default().if_possible(mono_ms);
        record.leader != self.id && mono_ms < record.expires_ms
    }

    /// The epoch, while this root may act as leader.
    #[must_use]
    #[inline]
    pub fn epoch(&self, mono_ms: u64) -> Option<u64> {
        self.held
            .filter(|_| mono_ms < self.expires_ms())
            .map(|held| held.epoch)
    }

    /// When the lease runs out, unless it is renewed; monotonic. 0 if it is not held.
    #[must_use]
    #[inline]
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
        update(store, keys, mono_ms, |record| {
            (record.leader == self.id && record.epoch == held.epoch).then_some(Record {
                expires_ms: record.expires_ms.min(mono_ms),
                ..record
            })
        });
    }

    // ## Leader => (Leader | Follower)
    fn renew(&mut self, store: &mut impl Store, keys: &Keys, held: Held, mono_ms: u64) -> Change {
        let mut stays = false;
        let (cluster, mut stamps) = (self.cluster, self.stamps);
        let written = update(store, keys, mono_ms, |record| {
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
            stamps = stamped(record.clusters, cluster, 0, mono_ms);
            Some(Record {
                expires_ms,
                clusters: stamps,
                ..record
            })
        });
        self.stamps = stamps;
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
        let (cluster, mut stamps) = (self.cluster, self.stamps);
        let written = update(store, keys, mono_ms, |record| {
            won = None;
            let own_ms = stamp_ms.unwrap_or(match record.config == self.config {
                true => record.stamp_ms,
                false => self.configured_ms,
            });
            stamp_ms = Some(own_ms);
            stamps = stamped(record.clusters, cluster, STAMP_AGAIN_MS, mono_ms);
            let mut next = Record {
                clusters: stamps,
                ..record
            };
            if own_ms > record.stamp_ms {
                next = Record {
                    config: self.config,
                    stamp_ms: own_ms,
                    ..next
                };
            }
            let free = mono_ms >= record.expires_ms;
            let abandoned_ms = record
                .expires_ms
                .saturating_add(self.lease_ms.saturating_mul(ABANDONED_LIVES));
            if free && (own_ms == next.stamp_ms || mono_ms >= abandoned_ms) {
                // Must differ from the last one, whatever that was.
                let epoch = record.epoch.wrapping_add(1);
                won = Some(epoch);
                next = Record {
                    leader: self.id,
                    epoch,
                    expires_ms: mono_ms.saturating_add(self.lease_ms),
                    config: self.config,
                    stamp_ms: own_ms,
                    clusters: stamps,
                };
            }
            (next != record).then_some(next)
        });
        (self.stamp_ms, self.stamps) = (stamp_ms, stamps);
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

/// The stamps with this cluster's, where that is older.
#[inline]
fn stamped(mut stamps: Stamps, cluster: u64, again_ms: u64, mono_ms: u64) -> Stamps {
    if cluster == 0 {
        return stamps;
    }
    let is_own = |stamp: &&mut (u64, u64)| stamp.0 == cluster;
    let found = match stamps.iter_mut().find(is_own) {
        Some(own) => Some(own),
        None => stamps.iter_mut().min_by_key(|(_, ms)| *ms),
    };
    if let Some(stamp) = found
        && (stamp.0 != cluster || mono_ms >= stamp.1.saturating_add(again_ms))
    {
        *stamp = (cluster, mono_ms);
    }
    stamps
}

/// Changes the record by compare-and-swap. False where `change` wanted nothing, or the write failed.
fn update(
    store: &mut impl Store,
    keys: &Keys,
    mono_ms: u64,
    mut change: impl FnMut(Record) -> Option<Record>,
) -> bool {
    for _ in 0..CAS_ATTEMPTS_MAX {
        let read = store.get(&keys.lease());
        let record = read
            .as_ref()
            .and_then(|(bytes, _)| Record::decode(bytes))
            .unwrap_or_default()
            .if_possible(mono_ms);
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
    /// A record that promises more than any configuration gives was spoiled, and must not keep everybody
    /// from leading for ever: it counts as none, but for its epoch. Twice the longest life, because the
    /// writer's look at the clock may be later than the reader's.
    #[inline]
    fn if_possible(self, mono_ms: u64) -> Self {
        match self.expires_ms <= mono_ms.saturating_add(LIFE_MAX_MS.saturating_mul(2)) {
            true => self,
            false => Self {
                epoch: self.epoch,
                ..Self::default()
            },
        }
    }

    #[inline]
    fn encode(&self) -> Vec<u8> {
        [
            self.leader,
            self.epoch,
            self.expires_ms,
            self.config,
            self.stamp_ms,
        ]
        .into_iter()
        .chain(self.clusters.into_iter().flat_map(|(mark, ms)| [mark, ms]))
        .flat_map(u64::to_le_bytes)
        .collect()
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let [leader, epoch, expires_ms, config, stamp_ms, rest @ ..] = numbers else {
            return None;
        };
        let (pairs, []) = rest.as_chunks::<2>() else {
            return None;
        };
        let pairs: &[[[u8; 8]; 2]; CLUSTERS_MAX] = pairs.try_into().ok()?;
        Some(Self {
            leader: u64::from_le_bytes(*leader),
            epoch: u64::from_le_bytes(*epoch),
            expires_ms: u64::from_le_bytes(*expires_ms),
            config: u64::from_le_bytes(*config),
            stamp_ms: u64::from_le_bytes(*stamp_ms),
            clusters: pairs.map(|[mark, ms]| (u64::from_le_bytes(mark), u64::from_le_bytes(ms))),
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

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

    #[test]
    fn a_lease_that_was_spoiled_keeps_nobody_from_leading() {
        const UP_MS: u64 = 1_000_000;
        for spoiled in [
            vec![0xff; 104],
            vec![1; 104],
            vec![1; 40],
            vec![9; 39],
            Vec::new(),
        ] {
            let mut world = World::new();
            let mut a = Candidate::new(1, 7, UP_MS, LIFE_MS);
            assert_eq!(world.tick(&mut a, UP_MS), Change::Won);
            let read = world.store.get(&world.keys.lease());
            let expect = Expect::of(read.as_ref());
            world
                .store
                .put(&world.keys.lease(), &spoiled, expect)
                .unwrap();
            assert_eq!(world.tick(&mut a, UP_MS + 2_000), Change::Lost);
            assert_eq!(
                world.tick(&mut a, UP_MS + 2_500),
                Change::Won,
                "{spoiled:?}"
            );
            assert_eq!(world.tick(&mut a, UP_MS + 4_000), Change::None);
        }
    }

    #[test]
    fn a_cluster_is_somebodys_while_a_root_that_calls_it_stamps_the_lease() {
        let mut world = World::new();
        let mut a = Candidate::new(1, 7, 100, LIFE_MS).calling(11);
        let mut b = Candidate::new(2, 7, 100, LIFE_MS).calling(13);
        assert_eq!(world.tick(&mut a, 1_000), Change::Won);
        for ms in (1_000..10_000).step_by(500) {
            world.tick(&mut b, ms);
            world.tick(&mut a, ms);
            assert!(ms < 2_500 || a.stands_for(11, ms) && a.stands_for(13, ms));
        }
        // The other one's listener goes.
        for ms in (10_000..14_000).step_by(500) {
            world.tick(&mut a, ms);
        }
        assert!(a.stands_for(11, 13_500) && !a.stands_for(13, 13_500));
    }

    #[test]
    fn the_cluster_that_was_stamped_longest_ago_makes_room() {
        let mut world = World::new();
        let mut a = Candidate::new(1, 7, 100, LIFE_MS).calling(99);
        assert_eq!(world.tick(&mut a, 1_000), Change::Won);
        for n in 0..CLUSTERS_MAX as u64 {
            let mut other = Candidate::new(2 + n, 7, 100, LIFE_MS).calling(n + 1);
            world.tick(&mut other, 1_100 + n);
        }
        world.tick(&mut a, 2_500);
        assert!(a.stands_for(99, 2_500) && a.stands_for(4, 2_500) && !a.stands_for(1, 2_500));
    }

    #[test]
    fn a_leader_that_gave_its_lease_back_sees_its_successor() {
        let mut world = World::new();
        let mut a = Candidate::new(1, 7, 100, LIFE_MS);
        let mut b = Candidate::new(2, 7, 100, LIFE_MS);
        assert_eq!(world.tick(&mut a, 110), Change::Won);
        assert!(!a.is_succeeded(&world.store, &world.keys, 110), "by itself");
        a.release(&mut world.store, &world.keys, 120);
        assert!(!a.is_succeeded(&world.store, &world.keys, 130));
        assert_eq!(world.tick(&mut b, 200), Change::Won);
        assert!(a.is_succeeded(&world.store, &world.keys, 300));
    }
}
