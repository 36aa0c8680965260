//! When a route flushes, and what goes into the call.
//!
//! A lone item leaves as soon as it has been quiet for `quiet_ms`, so that a QR is on the user's screen
//! at once; a crowd is gathered, so that time alone makes no more than 60 000 / `max_wait_ms` calls a
//! minute. What is urgent does not wait for either, but shares a call with the other urgent ones of the
//! same second.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::index::{Index, Item, LaneKey, Mode, Waiting};
use crate::batch::SPLICED_BYTES_MAX;
use crate::config::Route;
use crate::route::Rules;
use crate::sabotage::{self, Sabotage};
use crate::shard::ATTEMPTS_TOGETHER_MAX;

/// What may leave now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    /// Batches.
    pub(super) together: bool,
    /// Items by themselves.
    pub(super) alone: bool,
    /// The last call was urgent: then an ordinary one that is due goes first, so that a storm of
    /// disconnects cannot starve the QRs.
    pub(super) urgent_last: bool,
    /// Most items of a call.
    pub(super) items_max: usize,
}

/// A call to be made: which sessions, in which order.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) lane: LaneKey,
    pub(super) picks: Vec<Pick>,
    /// Posted to the original path, by itself.
    pub(super) alone: bool,
    pub(super) urgent: bool,
    /// Bytes of its body; the first item always fits.
    pub(super) bytes_max: usize,
}

/// A session to be claimed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pick {
    pub(super) shard: u32,
    pub(super) session: u128,
    since_ms: u64,
    bytes: usize,
    attempts: u16,
    urgent: bool,
}

/// What could leave through one lane at this moment.
#[derive(Default)]
struct Ready {
    together: Vec<Pick>,
    alone: Vec<Pick>,
    bytes: usize,
    /// A younger item of another lane, due itself, waits behind an item of this one.
    lent: bool,
    /// It is an item by itself that is due.
    goes_alone: bool,
}

/// Why a lane is due; the greater goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Ordinary,
    Urgent,
}

/// A lane as a plan meets it.
struct Seen<'i> {
    key: &'i LaneKey,
    rule: Option<&'i Route>,
    /// Its items travel in batches: an item whose rule is gone from the configuration has none to go with, and
    /// others never had.
    batched: bool,
    ready: Ready,
}

/// The lanes whose sessions could send something.
#[derive(Default)]
struct Lanes<'i> {
    seen: Vec<Seen<'i>>,
    places: BTreeMap<&'i LaneKey, usize>,
    /// Where the last session's is. Most sessions share a lane with the one before, and a plan goes over all of
    /// them: looking each one's up would be most of its work.
    last: usize,
}

/// The next call, if any is due.
pub(super) fn next(index: &Index, rules: &Rules, mono_ms: u64, allowed: Allowed) -> Option<Plan> {
    let mut lanes = Lanes::of(index, rules, mono_ms);
    let mut best: Option<(bool, Due, u64, usize, bool)> = None;
    for (key, place) in &lanes.places {
        let Some(Seen { ready, .. }) = lanes.seen.get(*place) else {
            continue;
        };
        let Some((due, alone)) = ready.due(index, rules, key, mono_ms, allowed) else {
            continue;
        };
        let picks = if alone { &ready.alone } else { &ready.together };
        let oldest_ms = picks
            .iter()
            .map(|pick| pick.since_ms)
            .min()
            .unwrap_or(mono_ms);
        let turn = allowed.urgent_last == (due == Due::Ordinary);
        // Turn first, then urgency, then age.
        let better = best.is_none_or(|(best_turn, best_due, best_ms, _, _)| {
            (turn, due, core::cmp::Reverse(oldest_ms))
                > (best_turn, best_due, core::cmp::Reverse(best_ms))
        });
        if better {
            best = Some((turn, due, oldest_ms, *place, alone));
        }
    }
    let (_, due, _, place, alone) = best?;
    let Seen { key, ready, .. } = lanes.seen.get_mut(place)?;
    let (key, mut ready) = (LaneKey::clone(key), core::mem::take(ready));
    ready.goes_alone = alone;
    let items_max = if alone { 1 } else { allowed.items_max };
    let urgent = due == Due::Urgent;
    Some(ready.plan(index, rules, key, urgent, items_max, mono_ms))
}

/// So many of them as fit into a call, the first ones first. A thousand may wait where fifty fit: to sort them all
/// would be most of a plan's work.
fn foremost(picks: Vec<Pick>, most: usize) -> Vec<Pick> {
    let mut first: Vec<Pick> = Vec::new();
    for pick in picks {
        let last = first.last().filter(|_| first.len() >= most);
        if last.is_some_and(|last| last.rank() <= pick.rank()) {
            continue;
        }
        let at = first.partition_point(|other| other.rank() <= pick.rank());
        if at < most {
            first.truncate(most.saturating_sub(1));
            first.insert(at, pick);
        }
    }
    first
}

/// Whether an item has been quiet for long enough, and its lane silent.
fn time_is_up(index: &Index, rules: &Rules, item: &Item, mono_ms: u64) -> bool {
    let Some((_, rule)) = rules.config.route_named(&item.lane.route) else {
        return true;
    };
    let alone = rule.batch.call.is_none() || index.mode(&item.lane, mono_ms) == Mode::Alone;
    (alone || is_paced(index, rule, &item.lane, item.since_ms, mono_ms))
        && mono_ms >= item.since_ms.saturating_add(rule.batch.quiet_ms)
}

/// Whether the lane has been silent for long enough, or its oldest item has waited as long by itself: a
/// flush that it could not be part of must not put it off again.
fn is_paced(index: &Index, rule: &Route, key: &LaneKey, oldest_ms: u64, mono_ms: u64) -> bool {
    let Some(lane) = index.lane(key) else {
        return true;
    };
    let from_ms = lane
        .last_flush_ms
        .map_or(0, |last_ms| last_ms.min(oldest_ms));
    lane.backoff.is_over(mono_ms) && mono_ms >= from_ms.saturating_add(rule.batch.max_wait_ms)
}

// === impl Pick ===

impl Pick {
    /// Urgent ones first, then whoever has been refused least, then the oldest.
    fn rank(&self) -> (bool, u16, u64) {
        (!self.urgent, self.attempts, self.since_ms)
    }
}

// === impl Lanes ===

impl<'i> Lanes<'i> {
    /// Sorts the sessions by what they could send now.
    fn of(index: &'i Index, rules: &'i Rules, mono_ms: u64) -> Self {
        let mut lanes = Self::default();
        for (shard, waiting) in index.sessions() {
            let Some(first) = waiting.eligible(mono_ms) else {
                continue;
            };
            let rest = waiting.items.get(1..).unwrap_or_default();
            let urgent = waiting.items.iter().any(|item| item.priority);
            let lent = rest
                .iter()
                .any(|item| time_is_up(index, rules, item, mono_ms));
            let Some(lane) = lanes.seen_mut(&first.lane, index, rules, mono_ms) else {
                continue;
            };
            let pick = Pick {
                shard,
                session: waiting.session,
                since_ms: first.since_ms,
                bytes: first.bytes,
                attempts: first.attempts,
                urgent,
            };
            lane.ready.lent |= lent;
            if let Some(rule) = lane.rule.filter(|_| !lane.batched && !urgent && !lent)
                && mono_ms < first.since_ms.saturating_add(rule.batch.quiet_ms)
            {
                continue;
            }
            match lane.batched && first.attempts < ATTEMPTS_TOGETHER_MAX {
                true => {
                    lane.ready.bytes = lane.ready.bytes.saturating_add(first.bytes);
                    lane.ready.together.push(pick);
                }
                false => lane.ready.alone.push(pick),
            }
        }
        lanes
    }

    fn seen_mut(
        &mut self,
        key: &'i LaneKey,
        index: &Index,
        rules: &'i Rules,
        mono_ms: u64,
    ) -> Option<&mut Seen<'i>> {
        if self.seen.get(self.last).is_none_or(|seen| seen.key != key) {
            let next = self.seen.len();
            self.last = *self.places.entry(key).or_insert(next);
            if self.last == next {
                let rule = rules.config.route_named(&key.route);
                let rule = rule.map(|(_, rule)| rule);
                let has_batch = rule.is_some_and(|rule| rule.batch.call.is_some());
                self.seen.push(Seen {
                    key,
                    rule,
                    batched: has_batch && index.mode(key, mono_ms) != Mode::Alone,
                    ready: Ready::default(),
                });
            }
        }
        self.seen.get_mut(self.last)
    }
}

// === impl Waiting ===

impl Waiting {
    /// The item that may be sent now: the oldest, if nobody's call may be at work on the session.
    fn eligible(&self, mono_ms: u64) -> Option<&Item> {
        if self
            .claim
            .is_some_and(|(_, deadline_ms)| mono_ms < deadline_ms)
            && !sabotage::is(Sabotage::IgnoreForeignClaims)
        {
            return None;
        }
        self.items
            .first()
            .filter(|item| item.expires_ms.is_none_or(|ms| mono_ms <= ms))
    }
}

// === impl Ready ===

impl Ready {
    /// Whether the lane is due, and whether it is for an item that goes alone.
    fn due(
        &self,
        index: &Index,
        rules: &Rules,
        key: &LaneKey,
        mono_ms: u64,
        allowed: Allowed,
    ) -> Option<(Due, bool)> {
        if !index.lane(key)?.backoff.is_over(mono_ms) {
            return None;
        }
        if let Some(due) = self
            .due_together(index, rules, key, mono_ms)
            .filter(|_| allowed.together)
        {
            return Some((due, false));
        }
        if sabotage::is(Sabotage::StarveTheRefused) || !allowed.alone || self.alone.is_empty() {
            return None;
        }
        let due = match self.alone.iter().any(|pick| pick.urgent) {
            true => Due::Urgent,
            false => Due::Ordinary,
        };
        Some((due, true))
    }

    fn due_together(
        &self,
        index: &Index,
        rules: &Rules,
        key: &LaneKey,
        mono_ms: u64,
    ) -> Option<Due> {
        let oldest_ms = self.together.iter().map(|pick| pick.since_ms).min()?;
        let (_, rule) = rules.config.route_named(&key.route)?;
        let lane = index.lane(key);
        let gap_is_over = lane.is_none_or(|lane| lane.is_past_gap(rules, mono_ms));
        let hurries = lane.is_some_and(|lane| lane.hurries);
        if gap_is_over && self.together.iter().any(|pick| pick.urgent) {
            return Some(Due::Urgent);
        }
        let (items_max, bytes_max) = index.limits(key, rule, mono_ms);
        let full = self.together.len() >= items_max || self.bytes >= bytes_max;
        let quiet = mono_ms >= oldest_ms.saturating_add(rule.batch.quiet_ms);
        (full || hurries || self.lent || (quiet && is_paced(index, rule, key, oldest_ms, mono_ms)))
            .then_some(Due::Ordinary)
    }

    fn plan(
        self,
        index: &Index,
        rules: &Rules,
        key: LaneKey,
        urgent: bool,
        items_max: usize,
        mono_ms: u64,
    ) -> Plan {
        let alone = self.goes_alone;
        let picks = if alone { self.alone } else { self.together };
        let rule = rules.config.route_named(&key.route).map(|(_, rule)| rule);
        let (items_max, bytes_max) = match (alone, rule) {
            (false, Some(rule)) => {
                let (items, bytes) = index.limits(&key, rule, mono_ms);
                (items.min(items_max), bytes)
            }
            _ => (1, usize::MAX),
        };
        let mut picks = foremost(picks, items_max);
        let mut bytes = 0_usize;
        let mut kept = 0_usize;
        picks.retain(|pick| {
            let with = bytes
                .saturating_add(pick.bytes)
                .saturating_add(SPLICED_BYTES_MAX);
            // The first item always fits.
            let fits = kept < items_max && (kept == 0 || with <= bytes_max);
            if fits {
                bytes = with;
                kept = kept.saturating_add(1);
            }
            fits
        });
        Plan {
            lane: key,
            picks,
            alone,
            urgent,
            bytes_max,
        }
    }
}
