//! What an answer, or the lack of one, does to the store and to the lane it came from.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use super::index::LaneKey;
use super::{
    Counter, Dispatcher, Effect, End, Flight, FlightItem, Histogram, Level, NotSent, Unsettled,
};
use crate::sabotage::{self, Sabotage};
use crate::shard::{ClaimId, Outcome, Settled, Shard};
use crate::store::{CAS_ATTEMPTS_MAX, Expect, PutError, Store};
use crate::time::Now;
use crate::trust;
use crate::verdict::{Answer, Verdict, VerdictLabel};

/// What a settlement brought to its end in one shard.
#[derive(Default)]
struct Ended {
    items: Vec<FlightItem>,
    /// Routes of implied states that have to be sent by themselves now.
    revived: Vec<usize>,
}

// === impl Dispatcher ===

impl Dispatcher {
    /// The call was not made: the claims go back, and the destination is left alone for a while unless
    /// it was only our own lateness.
    pub(super) fn not_sent(
        &mut self,
        call: u64,
        why: NotSent,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) {
        let Some(flight) = self.flights.remove(&call) else {
            return;
        };
        self.count_call(&flight.lane, VerdictLabel::Unsent, effects);
        match why {
            NotSent::Late => {}
            NotSent::Ejected => {
                self.back_off(&flight, "the cluster has no healthy host", 0, now, effects);
            }
            NotSent::Misconfigured => {
                self.back_off(&flight, "the call is not possible", 0, now, effects);
                if !core::mem::replace(&mut self.misconfigured, true) {
                    let cluster = &self.rules.config.upstream.cluster;
                    let line =
                        format!("cluster \"{cluster}\" does not exist: nothing is delivered");
                    effects.push(Effect::Log(Level::Error, line));
                }
            }
        }
        let Flight {
            lane, claim, items, ..
        } = flight;
        self.settle(&lane, claim, items, Outcome::Unsent, now, store, effects);
    }

    /// Judges an answer and settles what can be settled.
    pub(super) fn answered(
        &mut self,
        call: u64,
        answer: &Answer<'_>,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) {
        let Some(mut flight) = self.flights.remove(&call) else {
            return;
        };
        for item in &mut flight.items {
            item.status = answer.status;
        }
        let verdict = match flight.alone {
            true => Verdict::of_single(answer),
            false => Verdict::of(answer),
        };
        let took_ms = now.mono_ms.saturating_sub(flight.started_ms);
        effects.push(Effect::Record(Histogram::CallMs, took_ms));
        self.count_call(&flight.lane, verdict.label(), effects);
        let outcome = match verdict {
            Verdict::Delivered => {
                self.succeeded(&flight, effects);
                Outcome::Delivered
            }
            Verdict::Retry {
                why,
                retry_after_ms,
            } => {
                self.back_off(&flight, &why, retry_after_ms, now, effects);
                Outcome::Failed
            }
            Verdict::Refused { why } => {
                self.refused(&flight, &why, now, effects);
                Outcome::Refused
            }
            Verdict::Rejected { why, credential } => {
                self.rejected(&flight, &why, effects);
                if credential {
                    let fingerprint = flight.lane.credential;
                    trust::revoke(store, &self.keys, fingerprint);
                }
                Outcome::Rejected
            }
            Verdict::Unknown { why } => {
                // The claims stay and run out: the request may still be at work in PHP.
                self.back_off(&flight, &why, 0, now, effects);
                if !sabotage::is(Sabotage::NoHoldAfterTimeout) {
                    return;
                }
                Outcome::Failed
            }
        };
        let Flight {
            lane, claim, items, ..
        } = flight;
        self.settle(&lane, claim, items, outcome, now, store, effects);
    }

    fn succeeded(&mut self, flight: &Flight, effects: &mut Vec<Effect>) {
        self.misconfigured = false;
        let (max_items, is_batched) = self
            .rules
            .config
            .route_named(&flight.lane.route)
            .map_or((1, false), |(_, r)| {
                (r.batch.max_items, r.batch.call.is_some())
            });
        let lane = self.index.lane_mut(&flight.lane);
        lane.rejects = false;
        if flight.alone {
            lane.alone.succeed();
            // Where items only ever go alone, this is what tells that the destination is well again.
            if !is_batched {
                lane.backoff.succeed();
            }
            return;
        }
        // Back to full batches, a doubling at a time.
        lane.limit = lane
            .limit
            .map(|limit| limit.saturating_mul(2))
            .filter(|l| *l < max_items);
        let failures = lane.backoff.succeed();
        if failures > 0 {
            let route = flight.lane.name();
            let line = format!("{route}: Laravel takes batches again after {failures} failures");
            effects.push(Effect::Log(Level::Info, line));
        }
    }

    /// Somebody in the batch is not wanted, or the batch is too large: try smaller ones, and after a few
    /// times each item alone. What is refused even alone is tried again, ever more rarely, and holds up
    /// nobody but its own session.
    fn refused(&mut self, flight: &Flight, why: &str, now: Now, effects: &mut Vec<Effect>) {
        let range = self.rules.config.backoff.clone();
        let size = flight.items.len();
        let lane = self.index.lane_mut(&flight.lane);
        let first = match flight.alone {
            true => {
                lane.alone.fail(&range, 0, &mut self.rng, now.mono_ms);
                lane.alone.failures() == 1
            }
            false => {
                let first = lane.limit.is_none();
                lane.limit = Some((size / 2).max(1));
                first
            }
        };
        if first {
            let route = flight.lane.name();
            let how = if flight.alone {
                "alone"
            } else {
                "in smaller batches"
            };
            let line = format!("{route}: Laravel refuses {size} items ({why}); trying them {how}");
            effects.push(Effect::Log(Level::Warn, line));
        }
    }

    /// A line for the first of a row; the counter tells how many.
    fn rejected(&mut self, flight: &Flight, why: &str, effects: &mut Vec<Effect>) {
        let lane = self.index.lane_mut(&flight.lane);
        lane.alone.succeed();
        lane.backoff.succeed();
        if !core::mem::replace(&mut lane.rejects, true) {
            let route = flight.lane.name();
            let size = flight.items.len();
            let line = format!("{route}: Laravel rejects {size} items ({why}); they are dropped");
            effects.push(Effect::Log(Level::Warn, line));
        }
    }

    fn back_off(
        &mut self,
        flight: &Flight,
        why: &str,
        retry_after_ms: u64,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let range = self.rules.config.backoff.clone();
        let lane = self.index.lane_mut(&flight.lane);
        lane.backoff
            .fail(&range, retry_after_ms, &mut self.rng, now.mono_ms);
        if lane.backoff.failures() == 1 {
            let route = flight.lane.name();
            let line = format!("{route}: a call failed ({why}); nothing is lost, trying again");
            effects.push(Effect::Log(Level::Warn, line));
        }
    }

    /// One compare-and-swap a shard. An answer that loses every race is tried again at the next tick.
    #[expect(clippy::too_many_arguments, reason = "a settlement is all of these")]
    pub(super) fn settle(
        &mut self,
        lane: &LaneKey,
        claim: ClaimId,
        items: Vec<FlightItem>,
        outcome: Outcome,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) {
        let route = self
            .rules
            .config
            .route_named(&lane.route)
            .map(|(index, _)| index);
        let mut by_shard: BTreeMap<u32, Vec<FlightItem>> = BTreeMap::new();
        for item in items {
            by_shard.entry(item.shard).or_default().push(item);
        }
        for (index, items) in by_shard {
            let Some(ended) = self.settle_shard(index, claim, &items, outcome, now, store) else {
                let lane = lane.clone();
                self.unsettled.push(Unsettled {
                    lane,
                    claim,
                    items,
                    outcome,
                });
                continue;
            };
            let end = match outcome {
                Outcome::Rejected => End::Rejected,
                _ => End::Delivered,
            };
            for item in ended.items {
                if let Some(route) = route {
                    effects.push(Effect::Count(Counter::Items(route, end), 1));
                }
                if end == End::Delivered {
                    let staleness_ms = now.mono_ms.saturating_sub(item.accepted_ms);
                    effects.push(Effect::Record(Histogram::StalenessMs, staleness_ms));
                }
            }
            let revived = ended.revived.into_iter().map(Counter::Revived);
            effects.extend(revived.map(|counter| Effect::Count(counter, 1)));
        }
    }

    /// The items that reached their end by this; `None` where every race was lost.
    fn settle_shard(
        &mut self,
        index: u32,
        claim: ClaimId,
        items: &[FlightItem],
        outcome: Outcome,
        now: Now,
        store: &mut impl Store,
    ) -> Option<Ended> {
        let key = self.keys.shard(index);
        for _ in 0..CAS_ATTEMPTS_MAX {
            let mut ended = Ended::default();
            let read = store.get(&key);
            let Some((value, _)) = &read else {
                return Some(ended);
            };
            let Ok(mut shard) = Shard::decode(value) else {
                return Some(ended);
            };
            let mut changed = false;
            for item in items {
                match shard.settle(&self.rules, item.session, claim, outcome, item.status, now) {
                    Settled::Ended { revived } => {
                        changed = true;
                        ended.items.push(*item);
                        ended.revived.extend(revived);
                    }
                    Settled::Released => changed = true,
                    Settled::Foreign => {}
                }
            }
            if !changed {
                return Some(ended);
            }
            shard.prune(now.mono_ms);
            match store.put(&key, &shard.encode(), Expect::of(read.as_ref())) {
                Ok(()) => {
                    if self.candidate.epoch(now.mono_ms).is_some() {
                        self.index.look(&self.rules, index, &shard, now.mono_ms);
                    }
                    return Some(ended);
                }
                Err(PutError::Mismatch) => {}
                Err(PutError::Refused) => return None,
            }
        }
        None
    }

    fn count_call(&self, lane: &LaneKey, verdict: VerdictLabel, effects: &mut Vec<Effect>) {
        if let Some((route, _)) = self.rules.config.route_named(&lane.route) {
            effects.push(Effect::Count(Counter::Calls(route, verdict), 1));
        }
    }
}
