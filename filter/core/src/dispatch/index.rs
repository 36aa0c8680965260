//! What the leader knows of the store: which sessions wait, and where for.
//!
//! Only a memory of what was read; the store decides. A shard's part of it is replaced whole whenever
//! the shard is looked at, so a mistake here costs a look, never an update.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::backoff::Backoff;
use crate::route::Rules;
use crate::shard::{ClaimId, Shard, State};

/// Sessions with something to send or a live claim, by shard.
#[derive(Debug, Default)]
pub(super) struct Index {
    shards: BTreeMap<u32, Vec<Waiting>>,
    lanes: BTreeMap<LaneKey, Lane>,
    pending: usize,
}

/// One session.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) session: u128,
    /// Whoever's, and its deadline (monotonic).
    pub(super) claim: Option<(ClaimId, u64)>,
    /// Its unsent items, oldest first. Never empty unless there is a claim.
    pub(super) items: Vec<Item>,
}

/// One unsent item.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) lane: LaneKey,
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
    /// Back-off of the items that are sent alone.
    pub(super) alone: Backoff,
    pub(super) last_flush_ms: Option<u64>,
    pub(super) last_priority_ms: Option<u64>,
    /// Items were rejected, and it was said.
    pub(super) rejects: bool,
    /// Items a batch while Laravel refuses larger ones.
    pub(super) limit: Option<usize>,
}

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

    pub(super) fn lanes_of<'i>(&'i self, route: &'i str) -> impl Iterator<Item = &'i Lane> {
        self.lanes
            .iter()
            .filter(move |(key, _)| &*key.route == route)
            .map(|(_, lane)| lane)
    }

    pub(super) fn lane_mut(&mut self, key: &LaneKey) -> &mut Lane {
        self.lanes.entry(key.clone()).or_default()
    }

    /// Since when the oldest item waits; monotonic.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.sessions()
            .flat_map(|(_, waiting)| &waiting.items)
            .map(|item| item.since_ms)
            .min()
    }

    /// Takes in what a shard holds now.
    pub(super) fn look(&mut self, rules: &Rules, index: u32, shard: &Shard<'_>, mono_ms: u64) {
        let mut seen = Vec::new();
        for session in &shard.sessions {
            let claim = session
                .live_claim(mono_ms)
                .map(|claim| (claim.id, claim.deadline_ms));
            let mut items: Vec<(u64, Item)> = Vec::new();
            for entry in &session.entries {
                let State::Dirty(dirty) = &entry.state else {
                    continue;
                };
                let item = Item {
                    lane: LaneKey {
                        route: (*entry.route).into(),
                        credential: entry.credential,
                        destination: (*dirty.destination).into(),
                    },
                    since_ms: dirty.since_ms,
                    expires_ms: entry.expires_ms(rules),
                    bytes: dirty.body.len(),
                    attempts: dirty.attempts,
                    priority: dirty.priority,
                };
                items.push((entry.seq, item));
            }
            if items.is_empty() && claim.is_none() {
                continue;
            }
            items.sort_by_key(|(seq, _)| *seq);
            let items = items.into_iter().map(|(_, item)| item).collect();
            seen.push(Waiting {
                session: session.id,
                claim,
                items,
            });
        }
        self.forget(index);
        for item in seen.iter().flat_map(|waiting| &waiting.items) {
            let lane = self.lanes.entry(item.lane.clone()).or_default();
            lane.items = lane.items.saturating_add(1);
            lane.bytes = lane.bytes.saturating_add(item.bytes);
            lane.urgent = lane.urgent.saturating_add(usize::from(item.priority));
            self.pending = self.pending.saturating_add(1);
        }
        if !seen.is_empty() {
            self.shards.insert(index, seen);
        }
    }

    fn forget(&mut self, index: u32) {
        for item in self
            .shards
            .remove(&index)
            .unwrap_or_default()
            .iter()
            .flat_map(|w| &w.items)
        {
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
    }
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
}
