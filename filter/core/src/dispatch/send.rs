//! Claim, call, settle.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use super::index::LaneKey;
use super::plan::{self, Pick, Plan};
use super::{
    ANSWER_GRACE_MS, Counter, Dispatcher, Effect, End, Flight, FlightItem, Histogram, Level,
    NotSent, PACE_SLACK_MS, Unsettled,
};
use crate::batch::{self, Call, SPLICED_BYTES_MAX};
use crate::route::Destination;
use crate::shard::{ClaimId, Claimed, Outcome, Settled, Shard, Wanted};
use crate::store::{CAS_ATTEMPTS_MAX, Expect, PutError, Store};
use crate::time::Now;
use crate::verdict::{Answer, Verdict, VerdictLabel};

// === impl Dispatcher ===

impl Dispatcher {
    /// Makes the calls that are due, within the pace and the limit on calls under way.
    pub(super) fn call_what_is_due(
        &mut self,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) {
        let Some(epoch) = self.candidate.epoch(now.mono_ms) else {
            return;
        };
        let interval_ms = 1_000_u64.div_ceil(self.rules.config.pace.max_requests_per_second.max(1));
        for _ in 0..self.rules.config.pace.max_in_flight {
            if !self.may_call(now) {
                return;
            }
            let Some(plan) = plan::next(&self.index, &self.rules, now.mono_ms, self.urgent_last)
            else {
                return;
            };
            let urgent = plan.urgent;
            if self.call(plan, epoch, now, store, effects) {
                self.urgent_last = urgent;
                let earliest_ms = now.mono_ms.saturating_sub(PACE_SLACK_MS);
                self.next_call_ms = self
                    .next_call_ms
                    .max(earliest_ms)
                    .saturating_add(interval_ms);
            }
        }
    }

    /// Whether the pace and the limit on calls under way allow another.
    pub(super) fn may_call(&self, now: Now) -> bool {
        now.mono_ms.saturating_add(PACE_SLACK_MS) >= self.next_call_ms && !self.is_full(now)
    }

    /// Gives up on answers that never came: the host owes one for every call, but a place among the calls
    /// under way must not depend on that.
    pub(super) fn give_up_on_answers(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let patience_ms = self
            .rules
            .config
            .times
            .call_timeout_ms
            .saturating_add(ANSWER_GRACE_MS);
        let before = self.flights.len();
        self.flights
            .retain(|_, flight| now.mono_ms < flight.started_ms.saturating_add(patience_ms));
        let lost = before.saturating_sub(self.flights.len());
        if lost > 0 {
            let line =
                format!("{lost} calls were never answered; their sessions wait until it is safe");
            effects.push(Effect::Log(Level::Warn, line));
        }
    }

    /// Whether as many calls are under way as may be. Another leader's live claims count: its calls may
    /// still be at Laravel.
    fn is_full(&self, now: Now) -> bool {
        let own: BTreeSet<ClaimId> = self.flights.values().map(|flight| flight.claim).collect();
        let epoch = self.candidate.epoch(now.mono_ms);
        let foreign: BTreeSet<ClaimId> = self
            .index
            .sessions()
            .filter_map(|(_, waiting)| waiting.claim)
            .filter(|(id, deadline_ms)| now.mono_ms < *deadline_ms && Some(id.epoch) != epoch)
            .map(|(id, _)| id)
            .collect();
        let under_way = own.union(&foreign).count() as u64;
        under_way >= self.rules.config.pace.max_in_flight
    }

    /// Claims what the plan names and emits the call. False where there was nothing to claim after all.
    fn call(
        &mut self,
        plan: Plan,
        epoch: u64,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) -> bool {
        self.calls_made = self.calls_made.saturating_add(1);
        let claim = ClaimId {
            epoch,
            counter: self.calls_made,
        };
        let route = self
            .rules
            .config
            .route_named(&plan.lane.route)
            .map(|(index, _)| index);
        let (claimed, items) = self.claim(&plan, claim, now, store);
        let Some(destination) = Destination::decode(&plan.lane.destination) else {
            return false;
        };
        if claimed.is_empty() {
            return false;
        }

        let lane = self.index.lane_mut(&plan.lane);
        lane.last_flush_ms = Some(now.mono_ms);
        if plan.urgent {
            lane.last_priority_ms = Some(now.mono_ms);
        }
        let rule = route
            .and_then(|index| self.rules.route(index))
            .filter(|_| !plan.alone);
        let (headers, body) = match (route, rule) {
            (Some(route), Some(rule)) => (
                batch::headers(&self.rules, &destination, &rule.batch.path, Some(&claimed)),
                batch::batch_body(&self.rules, route, rule, &claimed),
            ),
            _ => (
                batch::headers(&self.rules, &destination, &destination.path, None),
                claimed
                    .into_iter()
                    .next()
                    .map(|item| item.body)
                    .unwrap_or_default(),
            ),
        };
        effects.push(Effect::Count(Counter::CallBytes, body.len() as u64));
        effects.push(Effect::Record(Histogram::BatchItems, items.len() as u64));
        let times = &self.rules.config.times;
        effects.push(Effect::Call(Call {
            id: claim.counter,
            cluster: self.rules.config.upstream.cluster.clone(),
            headers,
            body,
            timeout_ms: times.call_timeout_ms,
            // W after the claims were dated, and only while the lease runs.
            send_by_ms: now
                .mono_ms
                .saturating_add(times.send_window_ms)
                .min(self.candidate.expires_ms()),
        }));
        self.flights.insert(
            claim.counter,
            Flight {
                lane: plan.lane,
                claim,
                items,
                alone: plan.alone,
                started_ms: now.mono_ms,
            },
        );
        true
    }

    /// One compare-and-swap a shard. What has changed since it was looked at is left out.
    fn claim(
        &mut self,
        plan: &Plan,
        claim: ClaimId,
        now: Now,
        store: &mut impl Store,
    ) -> (Vec<Claimed>, Vec<FlightItem>) {
        let mut by_shard: BTreeMap<u32, Vec<Pick>> = BTreeMap::new();
        for pick in &plan.picks {
            by_shard.entry(pick.shard).or_default().push(*pick);
        }
        let bytes_max = match self.rules.config.route_named(&plan.lane.route) {
            Some((_, rule)) if !plan.alone => rule.batch.max_bytes,
            _ => usize::MAX,
        };
        let mut bytes = 0_usize;
        let mut claimed: Vec<Claimed> = Vec::new();
        let mut items = Vec::new();
        for (index, picks) in by_shard {
            let key = self.keys.shard(index);
            for _ in 0..CAS_ATTEMPTS_MAX {
                let read = store.get(&key);
                let Some((value, _)) = &read else { break };
                let Ok(mut shard) = Shard::decode(value) else {
                    break;
                };
                let mut taken = Vec::new();
                let mut size = bytes;
                for pick in &picks {
                    let first = claimed.is_empty() && taken.is_empty();
                    let room = bytes_max
                        .saturating_sub(size)
                        .saturating_sub(SPLICED_BYTES_MAX);
                    let wanted = Wanted {
                        route: &plan.lane.route,
                        credential: plan.lane.credential,
                        destination: &plan.lane.destination,
                        bytes_max: if first { usize::MAX } else { room },
                    };
                    if let Some(item) = shard.claim(&self.rules, pick.session, &wanted, claim, now)
                    {
                        size = size
                            .saturating_add(item.body.len())
                            .saturating_add(SPLICED_BYTES_MAX);
                        taken.push(item);
                    }
                }
                let written = match taken.is_empty() {
                    true => Ok(()),
                    false => store.put(&key, &shard.encode(), Expect::of(read.as_ref())),
                };
                match written {
                    Ok(()) => {
                        self.index.look(&self.rules, index, &shard, now.mono_ms);
                        items.extend(taken.iter().map(|item| FlightItem {
                            shard: index,
                            session: item.session,
                            accepted_ms: item.accepted_ms,
                        }));
                        claimed.append(&mut taken);
                        bytes = size;
                        break;
                    }
                    Err(PutError::Mismatch) => {}
                    Err(PutError::Refused) => break,
                }
            }
        }
        (claimed, items)
    }

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
        let Some(flight) = self.flights.remove(&call) else {
            return;
        };
        let verdict = Verdict::of(answer);
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
            Verdict::Unknown { why } => {
                // The claims stay and run out: the request may still be at work in PHP.
                self.back_off(&flight, &why, 0, now, effects);
                return;
            }
        };
        let Flight {
            lane, claim, items, ..
        } = flight;
        self.settle(&lane, claim, items, outcome, now, store, effects);
    }

    fn succeeded(&mut self, flight: &Flight, effects: &mut Vec<Effect>) {
        self.misconfigured = false;
        let max_items = self
            .rules
            .config
            .route_named(&flight.lane.route)
            .map_or(1, |(_, r)| r.batch.max_items);
        let lane = self.index.lane_mut(&flight.lane);
        if flight.alone {
            lane.alone.succeed();
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
            let Some(delivered) = self.settle_shard(index, claim, &items, outcome, now, store)
            else {
                let lane = lane.clone();
                self.unsettled.push(Unsettled {
                    lane,
                    claim,
                    items,
                    outcome,
                });
                continue;
            };
            for item in delivered {
                if let Some(route) = route {
                    effects.push(Effect::Count(Counter::Items(route, End::Delivered), 1));
                }
                let staleness_ms = now.mono_ms.saturating_sub(item.accepted_ms);
                effects.push(Effect::Record(Histogram::StalenessMs, staleness_ms));
            }
        }
    }

    /// The items that count as delivered by this; `None` where every race was lost.
    fn settle_shard(
        &mut self,
        index: u32,
        claim: ClaimId,
        items: &[FlightItem],
        outcome: Outcome,
        now: Now,
        store: &mut impl Store,
    ) -> Option<Vec<FlightItem>> {
        let key = self.keys.shard(index);
        for _ in 0..CAS_ATTEMPTS_MAX {
            let read = store.get(&key);
            let Some((value, _)) = &read else {
                return Some(Vec::new());
            };
            let Ok(mut shard) = Shard::decode(value) else {
                return Some(Vec::new());
            };
            let mut delivered = Vec::new();
            let mut changed = false;
            for item in items {
                match shard.settle(&self.rules, item.session, claim, outcome, now) {
                    Settled::Delivered => {
                        changed = true;
                        delivered.push(*item);
                    }
                    Settled::Released => changed = true,
                    Settled::Foreign => {}
                }
            }
            if !changed {
                return Some(delivered);
            }
            shard.prune(now.mono_ms);
            match store.put(&key, &shard.encode(), Expect::of(read.as_ref())) {
                Ok(()) => {
                    if self.candidate.epoch(now.mono_ms).is_some() {
                        self.index.look(&self.rules, index, &shard, now.mono_ms);
                    }
                    return Some(delivered);
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
