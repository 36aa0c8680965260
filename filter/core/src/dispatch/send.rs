//! Which calls are made now: claim what a plan names, and emit the call.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use super::plan::{self, Pick, Plan};
use super::{
    ANSWER_GRACE_MS, Counter, Dispatcher, Effect, Flight, FlightItem, Histogram, Level,
    PACE_SLACK_MS,
};
use crate::batch::{self, Call, SPLICED_BYTES_MAX};
use crate::route::Destination;
use crate::sabotage::{self, Sabotage};
use crate::shard::{ClaimId, Claimed, Shard, Wanted};
use crate::store::{CAS_ATTEMPTS_MAX, Expect, PutError, Store};
use crate::time::Now;

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
            // What passes through is the gateway's own call, on another cluster.
            .filter(|(id, _)| id.epoch != ClaimId::PASSING)
            .map(|(id, _)| id)
            .collect();
        let under_way = own.union(&foreign).count() as u64;
        under_way >= self.rules.config.pace.max_in_flight
            && !sabotage::is(Sabotage::NoLimitInFlight)
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
        let batch = route
            .filter(|_| !plan.alone)
            .and_then(|index| Some((index, self.rules.route(index)?)))
            .and_then(|(index, rule)| Some((index, rule, rule.batch.call.as_ref()?)));
        let (headers, body) = match batch {
            Some((route, rule, call)) => (
                batch::headers(&self.rules, &destination, &call.path, Some(&claimed)),
                batch::batch_body(&self.rules, route, rule, call, &claimed),
            ),
            None => (
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
                            status: None,
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
}
