//! What the leader knows of the store: which sessions wait, and where for.
//!
//! Only a memory of what was read; the store decides. A shard's part of it is replaced whole whenever
//! the shard is looked at, so a mistake here costs a look, never an update.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::backoff::Backoff;
use crate::config::Route;
use crate::route::{Destination, Rules};
use crate::shard::{ClaimId, Shard, State};

/// Sessions with something to send or a live claim, by shard.
#[derive(Debug, Default)]
pub(super) struct Index {
    shards: BTreeMap<u32, Vec<Waiting>>,
    lanes: BTreeMap<LaneKey, Lane>,
    places: BTreeMap<PlaceKey, Place>,
    pending: usize,
    /// Live or not, whoever made them.
    claims: BTreeMap<ClaimId, Claims>,
    /// Keys of lanes, the newest first.
    recent: Vec<LaneKey>,
}

/// Keys that are remembered so that equal ones are one: more lanes than these are seldom busy at once.
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
    /// Its unsent items, oldest first. Never empty unless there is a claim.
    pub(super) items: Vec<Item>,
}

/// One unsent item.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) lane: LaneKey,
    pub(super) seq: u64,
    pub(super) since_ms: u64,
    pub(super) expires_ms: Option<u64>,
    pub(super) bytes: usize,
    pub(super) attempts: u16,
    pub(super) priority: bool,
}

/// A route's way to one destination: what a batch cannot mix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneKey {
    pub(super) route: alloc::rc::Rc<str>,
    pub(super) credential: u64,
    pub(super) destination: alloc::rc::Rc<[u8]>,
}

/// What a lane remembers between calls.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Items that wait in it.
    pub(super) items: usize,
    /// Their bytes.
    pub(super) bytes: usize,
    /// Those of them that are to be sent at once.
    pub(super) urgent: usize,
    pub(super) backoff: Backoff,
    /// When its last batch left.
    pub(super) last_flush_ms: Option<u64>,
    /// What is left of a batch goes on at once.
    pub(super) hurries: bool,
    pub(super) last_priority_ms: Option<u64>,
    /// Items were rejected, and it was said.
    pub(super) rejects: bool,
    place: PlaceKey,
}

/// A batch route of one host: route, authority, prefix.
pub(super) type PlaceKey = alloc::rc::Rc<str>;

/// What is known of a batch route, whoever calls it.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// It has answered as a batch route does.
    pub(super) is_known: bool,
    /// Its items go one by one until then; after that one batch tries again. Monotonic.
    pub(super) singles_until_ms: Option<u64>,
    /// A batch that tries is under way.
    pub(super) is_trying: bool,
    /// Batches in a row that were refused whole.
    pub(super) refused: u8,
    /// Items a batch while Laravel refuses larger ones.
    pub(super) limit: Option<usize>,
    /// Bytes a batch, and until when: larger ones were too large.
    pub(super) bytes: Option<(usize, u64)>,
    /// How often that was learned: for twice as long each time.
    pub(super) learned: u8,
    /// Bytes of the longest body that was taken.
    pub(super) bytes_taken: usize,
    /// Times in a row that no more than those were too much.
    pub(super) doubts: u8,
    used_ms: u64,
}

/// How items of a place travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In batches.
    Together,
    /// In one batch, to see whether there is a batch route by now.
    Trying,
    /// One by one.
    Alone,
}

/// How long a place without a batch route is believed to have none, and a refused size is remembered.
pub(super) const PLACE_MEMORY_MS: u64 = 600_000;

// === impl Index ===

impl Index {
    /// Forgets everything: for a root that has become leader, or is one no more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Unsent items, as far as known.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    pub(super) fn is_idle(&self) -> bool {
        self.shards.is_empty()
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = (u32, &Waiting)> {
        self.shards
            .iter()
            .flat_map(|(shard, all)| all.iter().map(|waiting| (*shard, waiting)))
    }

    pub(super) fn lane(&self, key: &LaneKey) -> Option<&Lane> {
        self.lanes.get(key)
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = (&LaneKey, &Lane)> {
        self.lanes.iter()
    }

    pub(super) fn lane_mut(&mut self, key: &LaneKey) -> &mut Lane {
        lane_mut(&mut self.lanes, key)
    }

    /// The batch route that a lane leads to.
    pub(super) fn place(&self, key: &LaneKey) -> Option<&Place> {
        self.places.get(&self.lane(key)?.place)
    }

    pub(super) fn place_mut(&mut self, key: &LaneKey, mono_ms: u64) -> &mut Place {
        let place = self.lane_mut(key).place.clone();
        let place = self.places.entry(place).or_default();
        place.used_ms = mono_ms;
        place
    }

    /// How a lane's items travel now.
    pub(super) fn mode(&self, key: &LaneKey, mono_ms: u64) -> Mode {
        match self.place(key) {
            Some(Place {
                singles_until_ms: Some(until_ms),
                is_trying,
                ..
            }) => match mono_ms < *until_ms || *is_trying {
                true => Mode::Alone,
                false => Mode::Trying,
            },
            _ => Mode::Together,
        }
    }

    /// Items and bytes a batch of this lane at the moment.
    pub(super) fn limits(&self, key: &LaneKey, rule: &Route, mono_ms: u64) -> (usize, usize) {
        let place = self.place(key);
        let items = place.and_then(|place| place.limit);
        let bytes = place.and_then(|place| place.bytes);
        let bytes = bytes.and_then(|(bytes, until_ms)| (mono_ms < until_ms).then_some(bytes));
        (
            items
                .unwrap_or(rule.batch.max_items)
                .clamp(1, rule.batch.max_items),
            bytes
                .unwrap_or(rule.batch.max_bytes)
                .min(rule.batch.max_bytes),
        )
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
    pub(super) fn look(&mut self, rules: &Rules, index: u32, shard: &Shard<'_>, mono_ms: u64) {
        let mut seen = Vec::new();
        for session in &shard.sessions {
            let claim = session
                .live_claim(mono_ms)
                .map(|claim| (claim.id, claim.deadline_ms));
            let mut items: Vec<Item> = Vec::new();
            for entry in &session.entries {
                let State::Dirty(dirty) = &entry.state else {
                    continue;
                };
                let item = Item {
                    lane: interned(
                        &mut self.recent,
                        &entry.route,
                        entry.credential,
                        &dirty.destination,
                    ),
                    seq: entry.seq,
                    since_ms: dirty.since_ms,
                    expires_ms: entry.expires_ms(rules),
                    bytes: dirty.body.len(),
                    attempts: dirty.attempts,
                    priority: dirty.priority,
                };
                let at = items.partition_point(|other| other.seq <= item.seq);
                items.insert(at, item);
            }
            if items.is_empty() && claim.is_none() {
                continue;
            }
            seen.push(Waiting {
                session: session.id,
                told_seq: session.told_seq,
                claim,
                items,
            });
        }
        self.forget(index);
        for item in seen.iter().flat_map(|waiting| &waiting.items) {
            let lane = lane_mut(&mut self.lanes, &item.lane);
            lane.items = lane.items.saturating_add(1);
            lane.bytes = lane.bytes.saturating_add(item.bytes);
            lane.urgent = lane.urgent.saturating_add(usize::from(item.priority));
            self.pending = self.pending.saturating_add(1);
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

    fn forget(&mut self, index: u32) {
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
            if let Some(lane) = self.lanes.get_mut(&item.lane) {
                lane.items = lane.items.saturating_sub(1);
                lane.bytes = lane.bytes.saturating_sub(item.bytes);
                lane.urgent = lane.urgent.saturating_sub(usize::from(item.priority));
            }
            self.pending = self.pending.saturating_sub(1);
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

    /// Drops lanes that hold nothing and remember nothing of use: hosts and tokens come and go, and
    /// anybody can make one up.
    pub(super) fn tidy(&mut self, mono_ms: u64, memory_ms: u64) {
        self.lanes.retain(|_, lane| {
            let last_ms = lane.last_flush_ms.max(lane.last_priority_ms);
            lane.items > 0 || last_ms.is_some_and(|ms| mono_ms < ms.saturating_add(memory_ms))
        });
        self.places
            .retain(|_, place| mono_ms < place.used_ms.saturating_add(2 * PLACE_MEMORY_MS));
    }
}

/// The key of a lane: a known one's, so that most comparisons of two end at their pointers.
fn interned(
    recent: &mut Vec<LaneKey>,
    route: &str,
    credential: u64,
    destination: &[u8],
) -> LaneKey {
    let known = recent.iter().find(|key| {
        key.credential == credential && *key.destination == *destination && *key.route == *route
    });
    if let Some(known) = known {
        return known.clone();
    }
    let key = LaneKey {
        route: route.into(),
        credential,
        destination: destination.into(),
    };
    recent.truncate(RECENT_MAX - 1);
    recent.insert(0, key.clone());
    key
}

fn lane_mut<'l>(lanes: &'l mut BTreeMap<LaneKey, Lane>, key: &LaneKey) -> &'l mut Lane {
    lanes.entry(key.clone()).or_insert_with(|| Lane {
        place: key.place(),
        ..Lane::default()
    })
}

// === impl Lane ===

impl Lane {
    /// Whether an urgent item may have a call of its own again.
    pub(super) fn is_past_gap(&self, rules: &Rules, mono_ms: u64) -> bool {
        let gap_ms = rules.config.priority_gap_ms;
        self.last_priority_ms
            .is_none_or(|ms| mono_ms >= ms.saturating_add(gap_ms))
    }
}

// === impl LaneKey ===

impl LaneKey {
    /// For the log: the route's name, which is no secret, unlike the rest.
    pub(super) fn name(&self) -> String {
        self.route.to_string()
    }

    fn place(&self) -> PlaceKey {
        let destination = Destination::decode(&self.destination).unwrap_or_default();
        // No host and no prefix has a space in it.
        let parts = [&*self.route, &destination.authority, &destination.prefix];
        parts.join(" ").into()
    }
}
