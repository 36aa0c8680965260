//! What the leader knows of the store: which sessions wait, and where for.
//!
//! Only a memory of what was read; the store decides. A shard's part of it is replaced whole whenever
//! the shard is looked at, so a mistake here costs a look, never an update.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::limit::Limit;
use super::outage::Way;
use embudo_core::config::Route;
use embudo_core::map::Map;
use embudo_core::route::{Destination, Rules};
use embudo_core::shard::{ClaimId, Shard, State, Trial};

/// Sessions with something to send or a live claim, by shard.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    shards: Map<u32, Vec<Waiting>>,
    partitions: Map<PartitionKey, Partition>,
    batch_routes: Map<BatchRouteKey, BatchRoute>,
    pending: usize,
    /// Those of them that something happened to alone.
    suspects: usize,
    /// Live or not, whoever made them.
    claims: Map<ClaimId, Claims>,
    /// Keys of partitions, the newest first.
    recent: Vec<PartitionKey>,
}

/// Keys that are remembered so that equal ones are one: more partitions than these are seldom busy at once.
const RECENT_MAX: usize = 8;

/// What is known of one claim's sessions: they are asked for at every ring, when there may be a thousand.
#[derive(Debug, Default)]
struct Claims {
    sessions: usize,
    /// The last of them; monotonic.
    deadline_ms: u64,
}

/// One session.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) session: u128,
    /// The webhook has heard of everything up to this sequence.
    pub(super) told_seq: u64,
    /// Whoever's, and its deadline (monotonic).
    pub(super) claim: Option<(ClaimId, u64)>,
    /// It was not to be claimed when it was its turn: it has none until its shard is looked at again, or until then.
    pub(super) passed_over_until_ms: u64,
    /// Its unsent items, oldest first. Never empty unless there is a claim.
    pub(super) items: Vec<Item>,
    /// Until then a request waits for it: it goes at once, without a gap. Monotonic; 0 where none does.
    pub(super) hurry_until_ms: u64,
}

/// One unsent item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) partition: PartitionKey,
    pub(super) seq: u64,
    pub(super) since_ms: u64,
    pub(super) expires_ms: Option<u64>,
    pub(super) bytes: usize,
    pub(super) attempts: u16,
    pub(super) trial: Trial,
    pub(super) priority: bool,
}

/// A route's way to one destination: what a batch cannot mix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartitionKey {
    pub(super) route: alloc::rc::Rc<str>,
    pub(super) caller: u64,
    pub(super) destination: alloc::rc::Rc<[u8]>,
}

/// What a partition remembers between calls.
#[derive(Debug, Default)]
pub(super) struct Partition {
    /// Items that wait in it.
    waiting: usize,
    /// Those of them that may go together.
    pub(super) items: usize,
    /// Their bytes.
    pub(super) bytes: usize,
    /// Those of them that are to be sent at once.
    pub(super) urgent: usize,
    /// Whether it may call, as of the last plan.
    pub(super) way: Way,
    /// What failed alone in this time, and only then, is no suspect.
    pub(super) excused: Option<(u64, u64)>,
    /// When its last batch left.
    pub(super) last_flush_ms: Option<u64>,
    /// What is left of a batch goes on at once.
    pub(super) hurries: bool,
    pub(super) last_priority_ms: Option<u64>,
    /// Until then an item may be among them that a request waits for. Monotonic.
    pub(super) hurry_until_ms: u64,
    /// Items were rejected, and it was said.
    pub(super) rejects: bool,
    batch_route: BatchRouteKey,
}

/// A batch route of one host: route, authority, prefix.
pub(super) type BatchRouteKey = alloc::rc::Rc<str>;

/// What is known of a batch route, whoever calls it.
#[derive(Debug, Default)]
pub(super) struct BatchRoute {
    /// That it takes no batches was said.
    pub(super) is_said: bool,
    /// Its items go one by one until then; after that one batch tries again. Monotonic.
    pub(super) singles_until_ms: Option<u64>,
    /// A batch that tries is under way.
    pub(super) is_trying: bool,
    /// An item of it is under way by itself.
    pub(super) alone: u8,
    /// How much a call may carry.
    pub(super) limit: Limit,
    used_ms: u64,
}

/// How items of a batch route travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In batches.
    Together,
    /// In one batch, to see whether there is a batch route by now.
    Trying,
    /// One by one.
    Alone,
    /// The same, and one after the other: the limit has fallen to one.
    One,
}

/// What keeps a session from being claimed may end without a ring: a worker that is no more gives nothing back.
const PASSED_OVER_MS: u64 = 500;

/// How long a path is believed to have none, and a refused size is remembered.
pub(super) const BATCH_ROUTE_MEMORY_MS: u64 = 600_000;

// === impl Backlog ===

impl Backlog {
    /// Forgets everything: for a root that has become leader, or is one no more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Unsent items, as far as known.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// Unsent items that are suspected of being what Laravel fails on, or refuses.
    pub(super) fn suspects(&self) -> usize {
        self.suspects
    }

    pub(super) fn is_idle(&self) -> bool {
        self.shards.is_empty()
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = (u32, &Waiting)> {
        self.shards
            .iter()
            .flat_map(|(shard, all)| all.iter().map(|waiting| (*shard, waiting)))
    }

    pub(super) fn partition(&self, key: &PartitionKey) -> Option<&Partition> {
        self.partitions.get(key)
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = (&PartitionKey, &Partition)> {
        self.partitions.iter()
    }

    pub(super) fn partitions_mut(
        &mut self,
    ) -> impl Iterator<Item = (&PartitionKey, &mut Partition)> {
        self.partitions.iter_mut()
    }

    pub(super) fn partition_mut(&mut self, key: &PartitionKey) -> &mut Partition {
        partition_mut(&mut self.partitions, key)
    }

    /// The batch route that a partition leads to.
    pub(super) fn batch_route(&self, key: &PartitionKey) -> Option<&BatchRoute> {
        self.batch_routes.get(&self.partition(key)?.batch_route)
    }

    pub(super) fn batch_route_mut(&mut self, key: &PartitionKey, mono_ms: u64) -> &mut BatchRoute {
        let place = self.partition_mut(key).batch_route.clone();
        let place = self.batch_routes.entry(place).or_default();
        place.used_ms = mono_ms;
        place
    }

    /// What failed while nothing was accepted there tells nothing of sizes.
    pub(super) fn recover_limits(&mut self, mut is_there: impl FnMut(&PartitionKey) -> bool) {
        for (key, partition) in &self.partitions {
            if is_there(key)
                && let Some(known) = self.batch_routes.get_mut(&partition.batch_route)
            {
                known.limit.recover();
            }
        }
    }

    /// Batch routes that take no batches now.
    pub(super) fn singly(&self, mono_ms: u64) -> usize {
        let is_one = |place: &&BatchRoute| {
            let until_ms = place.singles_until_ms.unwrap_or(0);
            place.is_said && mono_ms < until_ms
        };
        self.batch_routes.values().filter(is_one).count()
    }

    /// How a partition's items travel now.
    pub(super) fn mode(&self, key: &PartitionKey, mono_ms: u64) -> Mode {
        match self.batch_route(key) {
            Some(BatchRoute {
                singles_until_ms: Some(until_ms),
                is_trying,
                ..
            }) => match mono_ms < *until_ms || *is_trying {
                true => Mode::Alone,
                false => Mode::Trying,
            },
            // Down to one, which goes to its own path: there it is the row that speaks.
            Some(known) if known.limit.is_one() => Mode::One,
            Some(known) if known.limit.takes_one() => Mode::Alone,
            _ => Mode::Together,
        }
    }

    /// Items and bytes a batch of this partition at the moment.
    pub(super) fn limits(
        &self,
        key: &PartitionKey,
        rule: &Route,
        timeout_ms: u64,
    ) -> (usize, usize) {
        let (items, bytes) = (rule.batch.max_items, rule.batch.max_bytes);
        match self.batch_route(key) {
            Some(known) => (
                known.limit.items(items, timeout_ms),
                known.limit.bytes(bytes),
            ),
            None => (items, bytes),
        }
    }

    /// Since when the oldest item waits; monotonic.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.sessions()
            .flat_map(|(_, waiting)| &waiting.items)
            .map(|item| item.since_ms)
            .min()
    }

    /// Whether somebody else has a claim: its end, and what it leaves behind, must be looked for.
    pub(super) fn awaits_others(&self, epoch: Option<u64>, mono_ms: u64) -> bool {
        self.foreign_claims(epoch, mono_ms).next().is_some()
    }

    /// Claims of others that have not run out.
    pub(super) fn foreign_claims(
        &self,
        epoch: Option<u64>,
        mono_ms: u64,
    ) -> impl Iterator<Item = &ClaimId> {
        let claims = self.claims.iter();
        claims
            .filter(move |(id, claims)| mono_ms < claims.deadline_ms && Some(id.epoch) != epoch)
            .map(|(id, _)| id)
    }

    /// Takes in what a shard holds now.
    pub(super) fn refresh(&mut self, rules: &Rules, index: u32, shard: &Shard<'_>, mono_ms: u64) {
        let mut seen = Vec::new();
        for session in &shard.sessions {
            let claim = session.under_way(mono_ms);
            let hurries = session.hurries(mono_ms);
            let mut items: Vec<Item> = Vec::new();
            for entry in &session.entries {
                let State::Dirty(dirty) = &entry.state else {
                    continue;
                };
                let item = Item {
                    partition: interned(
                        &mut self.recent,
                        &entry.route,
                        entry.caller,
                        &dirty.destination,
                    ),
                    seq: entry.seq,
                    since_ms: dirty.since_ms,
                    expires_ms: entry.expires_ms(rules),
                    bytes: dirty.body.len(),
                    attempts: dirty.attempts,
                    trial: dirty.trial,
                    priority: dirty.priority || hurries,
                };
                let at = items.partition_point(|other| other.seq <= item.seq);
                items.insert(at, item);
            }
            if items.is_empty() && claim.is_none() {
                continue;
            }
            // Who was passed over stays so where nothing of it is new: its neighbours' news is none of its own.
            let known = self.shards.get(&index).into_iter().flatten();
            let same =
                |it: &&Waiting| it.session == session.id && it.claim == claim && it.items == items;
            let passed_over = known.filter(same).map(|it| it.passed_over_until_ms).next();
            seen.push(Waiting {
                session: session.id,
                told_seq: session.told_seq,
                claim,
                passed_over_until_ms: passed_over.unwrap_or(0),
                hurry_until_ms: if hurries { session.hurry_until_ms } else { 0 },
                items,
            });
        }
        self.forget(index);
        let items = seen.iter().flat_map(|waiting| {
            let hurry_until_ms = waiting.hurry_until_ms;
            waiting.items.iter().map(move |item| (item, hurry_until_ms))
        });
        for (item, hurry_until_ms) in items {
            let partition = partition_mut(&mut self.partitions, &item.partition);
            let (together, bytes, urgent) = item.counts();
            partition.hurry_until_ms = partition.hurry_until_ms.max(hurry_until_ms);
            partition.waiting = partition.waiting.saturating_add(1);
            partition.items = partition.items.saturating_add(together);
            partition.bytes = partition.bytes.saturating_add(bytes);
            partition.urgent = partition.urgent.saturating_add(urgent);
            self.pending = self.pending.saturating_add(1);
            self.suspects = self.suspects.saturating_add(item.is_suspect().into());
        }
        for (id, deadline_ms) in seen.iter().filter_map(|waiting| waiting.claim) {
            let claims = self.claims.entry(id).or_default();
            claims.sessions = claims.sessions.saturating_add(1);
            claims.deadline_ms = claims.deadline_ms.max(deadline_ms);
        }
        if !seen.is_empty() {
            self.shards.insert(index, seen);
        }
    }

    /// A session could not be claimed, whatever the reason: others have their turn.
    pub(super) fn pass_over(&mut self, index: u32, session: u128, mono_ms: u64) {
        let all = self.shards.get_mut(&index).into_iter().flatten();
        for waiting in all.filter(|waiting| waiting.session == session) {
            waiting.passed_over_until_ms = mono_ms.saturating_add(PASSED_OVER_MS);
        }
    }

    pub(super) fn forget(&mut self, index: u32) {
        let seen = self.shards.remove(&index).unwrap_or_default();
        for (id, _) in seen.iter().filter_map(|waiting| waiting.claim) {
            if let Some(claims) = self.claims.get_mut(&id) {
                claims.sessions = claims.sessions.saturating_sub(1);
                if claims.sessions == 0 {
                    self.claims.remove(&id);
                }
            }
        }
        for item in seen.iter().flat_map(|waiting| &waiting.items) {
            if let Some(partition) = self.partitions.get_mut(&item.partition) {
                let (together, bytes, urgent) = item.counts();
                partition.waiting = partition.waiting.saturating_sub(1);
                partition.items = partition.items.saturating_sub(together);
                partition.bytes = partition.bytes.saturating_sub(bytes);
                partition.urgent = partition.urgent.saturating_sub(urgent);
            }
            self.pending = self.pending.saturating_sub(1);
            self.suspects = self.suspects.saturating_sub(item.is_suspect().into());
        }
    }

    /// Shards to be looked at again, `most` of them: an item in them has expired, or a claim ran out and
    /// left nothing behind.
    pub(super) fn stale_shards(&self, mono_ms: u64, most: usize) -> Vec<u32> {
        let stale = |waiting: &Waiting| {
            let free = waiting
                .claim
                .is_none_or(|(_, deadline_ms)| deadline_ms <= mono_ms);
            let expired = |item: &Item| item.expires_ms.is_some_and(|ms| ms < mono_ms);
            free && (waiting.items.is_empty() || waiting.items.iter().any(expired))
        };
        let shards = self.shards.iter().filter(|(_, all)| all.iter().any(stale));
        shards.map(|(shard, _)| *shard).take(most).collect()
    }

    /// Drops partitions that hold nothing and remember nothing of use: hosts and tokens come and go, and
    /// anybody can make one up.
    pub(super) fn tidy(&mut self, mono_ms: u64, memory_ms: u64) {
        self.partitions.retain(|_, partition| {
            let last_ms = partition.last_flush_ms.max(partition.last_priority_ms);
            partition.waiting > 0
                || last_ms.is_some_and(|ms| mono_ms < ms.saturating_add(memory_ms))
        });
        self.batch_routes
            .retain(|_, place| mono_ms < place.used_ms.saturating_add(2 * BATCH_ROUTE_MEMORY_MS));
    }
}

/// The key of a partition: a known one's, so that most comparisons of two end at their pointers.
fn interned(
    recent: &mut Vec<PartitionKey>,
    route: &str,
    caller: u64,
    destination: &[u8],
) -> PartitionKey {
    let known = recent.iter().find(|key| {
        key.caller == caller && *key.destination == *destination && *key.route == *route
    });
    if let Some(known) = known {
        return known.clone();
    }
    let key = PartitionKey {
        route: route.into(),
        caller,
        destination: destination.into(),
    };
    recent.truncate(RECENT_MAX - 1);
    recent.insert(0, key.clone());
    key
}

fn partition_mut<'l>(
    partitions: &'l mut Map<PartitionKey, Partition>,
    key: &PartitionKey,
) -> &'l mut Partition {
    partitions.entry(key.clone()).or_insert_with(|| Partition {
        batch_route: key.batch_route(),
        ..Partition::default()
    })
}

// === impl Item ===

impl Item {
    /// It has failed alone, once, at a time when nothing was accepted.
    pub(super) fn is_excused(&self, excused: Option<(u64, u64)>) -> bool {
        let (once, since_ms) = (self.trial.failures == 1, self.trial.failed_since_ms);
        once && excused.is_some_and(|(from_ms, to_ms)| (from_ms..=to_ms).contains(&since_ms))
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.trial != Trial::default()
    }

    /// What it counts for where full batches and urgent ones are looked for: nothing, if it goes by itself, in its
    /// own time.
    fn counts(&self) -> (usize, usize, usize) {
        match self.trial.alone {
            true => (0, 0, 0),
            false => (1, self.bytes, self.priority.into()),
        }
    }
}

// === impl Partition ===

impl Partition {
    /// Whether an urgent item may have a call of its own again, or one may that a request waits for.
    pub(super) fn may_hurry(&self, rules: &Rules, mono_ms: u64) -> bool {
        mono_ms < self.hurry_until_ms || self.is_past_gap(rules, mono_ms)
    }

    /// Whether an urgent item may have a call of its own again.
    pub(super) fn is_past_gap(&self, rules: &Rules, mono_ms: u64) -> bool {
        let gap_ms = rules.config.priority_gap_ms;
        self.last_priority_ms
            .is_none_or(|ms| mono_ms >= ms.saturating_add(gap_ms))
    }
}

// === impl PartitionKey ===

impl PartitionKey {
    /// For the log: the route's name, which is no secret, unlike the rest.
    pub(super) fn name(&self) -> String {
        self.route.to_string()
    }

    fn batch_route(&self) -> BatchRouteKey {
        let destination = Destination::decode(&self.destination).unwrap_or_default();
        // No host and no prefix has a space in it.
        let parts = [
            &*self.route,
            &destination.cluster,
            &destination.authority,
            &destination.prefix,
        ];
        parts.join(" ").into()
    }
}
