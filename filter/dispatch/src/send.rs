//! Which calls are made now: claim what a plan names, and emit the call.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::backlog::Mode;
use super::plan::{self, Allowed, Pick, Plan};
use super::{ANSWER_GRACE_MS, Counter, Dispatcher, Effect, Flight, FlightItem, Histogram, Level};
use crate::batch::{self, Call, SPLICED_BYTES_MAX};
use embudo_core::circuit::{Gate, PROBE_ITEMS_MAX};
use embudo_core::route::Destination;
use embudo_core::sabotage::{self, Sabotage};
use embudo_core::shard::{ClaimId, Claimed, Shard, Wanted};
use embudo_core::sort;
use embudo_core::store::{CAS_ATTEMPTS_MAX, Expect, PutError, Store};
use embudo_core::time::Now;

/// Calls of single items under way.
const SINGLES_IN_FLIGHT_MAX: usize = 8;

/// Calls of both kinds under way, unless `max_in_flight` is more: below the cluster's circuit breakers, or an
/// overflow looks like an ejection.
pub const CALLS_UNDER_WAY_MAX: usize = 12;

// === impl Dispatcher ===

impl Dispatcher {
    /// Makes the calls that are due, within the pace and the limits on calls under way.
    pub(super) fn call_what_is_due(
        &mut self,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) {
        let Some(epoch) = self.candidate.epoch(now.mono_ms) else {
            return;
        };
        self.pace.recover(&self.rules.config.pace, now.mono_ms);
        for _ in 0..CALLS_UNDER_WAY_MAX {
            let allowed = self.allowed(now);
            self.find_ways(now);
            if !allowed.together && !allowed.alone {
                break;
            }
            let Some(plan) = plan::next(&self.backlog, &self.rules, now.mono_ms, &allowed) else {
                // Where the pace leaves only what goes alone, nobody has looked at the others.
                if allowed.together {
                    self.starved.ends();
                }
                break;
            };
            let (urgent, alone) = (plan.urgent, plan.alone);
            let repeats = plan.repeats || plan.silent;
            let starves = plan.others.then_some(plan.overdue);
            if starves.is_none() && allowed.together {
                self.starved.ends();
            }
            if self.call(plan, epoch, now, store, effects) {
                self.urgent_last = urgent;
                let pace = &self.rules.config.pace;
                self.pace.takes(pace, alone, repeats, now.mono_ms);
                let by_pace = self.allowed(now).by_pace;
                if self
                    .starved
                    .is_news(starves.filter(|_| by_pace), now.mono_ms)
                {
                    effects.push(Effect::Log(Level::Warn, self.says_pace()));
                }
            }
        }
        self.hand_over(now, store, effects);
    }

    fn says_pace(&self) -> String {
        let calls = self.rules.config.pace.max_requests_per_second;
        format!(
            "updates wait longer than 5 s because of the pace ({calls} calls a second): Laravel would have to take \
             more of them, or the callers to be fewer"
        )
    }

    /// What the circuit, the pace and the limits on calls under way allow. Another leader's live claims count
    /// as under way: its calls may still be at Laravel.
    pub(super) fn allowed(&mut self, now: Now) -> Allowed {
        let gate = match self.circuit.gate(now.mono_ms) {
            _ if sabotage::is(Sabotage::ProbeWithMany) => Gate::Open,
            gate => gate,
        };
        let [batches, singles] = [false, true].map(|single| self.pace.allows(single, now.mono_ms));
        let repeats = self.pace.allows_repeat(now.mono_ms);
        let urgent_last = self.urgent_last;
        if gate == Gate::Shut || !(batches || singles) {
            return Allowed {
                together: false,
                alone: false,
                repeats,
                probe: false,
                by_pace: gate == Gate::Open,
                urgent_last,
                items_max: 0,
                refused: Vec::new(),
            };
        }
        let count = |alone: bool| self.flights.values().filter(|f| f.alone == alone).count();
        let (together, alone) = (count(false), count(true));
        let foreign = self.foreign_claims(now);
        let all = together.saturating_add(alone).saturating_add(foreign);
        let max_in_flight =
            usize::try_from(self.rules.config.pace.max_in_flight).unwrap_or(usize::MAX);
        let unlimited = sabotage::is(Sabotage::NoLimitInFlight);
        let room = |own: usize, most: usize| {
            unlimited
                || (own.saturating_add(foreign) < most
                    && all < CALLS_UNDER_WAY_MAX.max(max_in_flight))
        };
        let is_open = gate == Gate::Open || all == 0;
        Allowed {
            together: is_open && batches && room(together, max_in_flight),
            alone: is_open && singles && room(alone, SINGLES_IN_FLIGHT_MAX),
            repeats,
            probe: gate == Gate::Probe,
            by_pace: gate == Gate::Open && !batches && room(together, max_in_flight),
            urgent_last,
            refused: self.destinations.refused_callers(),
            items_max: match gate {
                Gate::Probe => PROBE_ITEMS_MAX,
                _ => usize::MAX,
            },
        }
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
        let is_lost = |started_ms: u64| now.mono_ms >= started_ms.saturating_add(patience_ms);
        let late = self.flights.iter().filter(|(_, f)| is_lost(f.started_ms));
        let late: Vec<u64> = late.map(|(call, _)| *call).collect();
        for call in &late {
            if let Some(flight) = self.flights.remove(call) {
                self.circuit_hears(*call, Some(false), now, effects);
                self.tried(&flight, now);
                // The line below says so.
                let mut said = Vec::new();
                self.fails(&flight, "never answered", true, now, &mut said);
            }
        }
        self.fallback.give_up(now.mono_ms, patience_ms);
        let lost = late.len();
        if lost > 0 {
            let line =
                format!("{lost} calls were never answered; their sessions wait until it is safe");
            effects.push(Effect::Log(Level::Warn, line));
        }
    }

    fn foreign_claims(&self, now: Now) -> usize {
        let epoch = self.candidate.epoch(now.mono_ms);
        let is_own = |id: &ClaimId| self.flights.values().any(|flight| flight.claim == *id);
        self.backlog
            .foreign_claims(epoch, now.mono_ms)
            // What passes through is the gateway's own call, on another cluster.
            .filter(|id| id.epoch != ClaimId::WRITE_THROUGH && !is_own(id))
            .count()
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
            .route_named(&plan.partition.route)
            .map(|(index, _)| index);
        let refused = self.destinations.refused_callers();
        let (mut claimed, mut items) = self.claim(&plan, &refused, claim, now, store);
        if claimed.is_empty() {
            // What cannot be had must not be planned again and again, in place of all others.
            for pick in &plan.picks {
                let (shard, session) = (pick.shard, pick.session);
                self.backlog.pass_over(shard, session, now.mono_ms);
            }
            return false;
        }
        let Some(mut destination) = Destination::decode(&plan.partition.destination) else {
            return false;
        };
        let from = destination.clone();
        let is_own = self.take_over(&mut destination, now, effects);
        if from.cluster != destination.cluster {
            let both = (&mut claimed, &mut items);
            let key = &plan.partition;
            self.give_way((&from, &destination), key, claim, both, now, store, effects);
            if claimed.is_empty() {
                return false;
            }
        }
        let elsewhere = (!is_own).then(|| destination.cluster.clone());

        let partition = self.backlog.partition_mut(&plan.partition);
        if !plan.alone {
            partition.last_flush_ms = Some(now.mono_ms);
            partition.hurries = false;
        }
        if plan.urgent {
            partition.last_priority_ms = Some(now.mono_ms);
        }
        let batch = route
            .filter(|_| !plan.alone)
            .and_then(|index| Some((index, self.rules.route(index)?)))
            .and_then(|(index, rule)| Some((index, rule, rule.batch.call.as_ref()?)));
        let sessions = match batch {
            Some((route, ..)) => batch::sessions(&self.rules, route, &claimed),
            None => Vec::new(),
        };
        let (headers, body) = match batch {
            Some((route, rule, call)) => (
                batch::headers(&self.rules, &destination, &call.path, &claimed, true),
                batch::batch_body(&self.rules, route, rule, call, &claimed),
            ),
            None => (
                batch::headers(
                    &self.rules,
                    &destination,
                    &destination.path,
                    &claimed,
                    false,
                ),
                claimed
                    .into_iter()
                    .next()
                    .map(|item| item.body)
                    .unwrap_or_default(),
            ),
        };
        let bytes = body.len();
        effects.push(Effect::Count(Counter::CallBytes, bytes as u64));
        effects.push(Effect::Record(Histogram::BatchItems, items.len() as u64));
        let times = &self.rules.config.times;
        effects.push(Effect::Call(Call {
            id: claim.counter,
            cluster: destination.cluster,
            headers,
            body,
            timeout_ms: times.call_timeout_ms,
            // W after the claims were dated, and only while the lease runs.
            send_by_ms: now
                .mono_ms
                .saturating_add(times.send_window_ms)
                .min(self.candidate.expires_ms()),
        }));
        // The breaker is the own cluster's.
        if is_own && self.circuit.gate(now.mono_ms) == Gate::Probe {
            self.circuit.probes(claim.counter);
        }
        let is_trying = self.backlog.mode(&plan.partition, now.mono_ms) == Mode::Trying;
        let known = self.backlog.batch_route_mut(&plan.partition, now.mono_ms);
        known.is_trying |= batch.is_some() && is_trying;
        known.alone = known.alone.saturating_add(plan.alone.into());
        let hash = self.destinations.of(&self.rules, &plan.partition);
        self.flights.insert(
            claim.counter,
            Flight {
                bytes,
                destination: hash,
                sessions,
                elsewhere,
                partition: plan.partition,
                claim,
                items,
                alone: plan.alone,
                repeats: plan.repeats,
                started_ms: now.mono_ms,
            },
        );
        true
    }

    /// One compare-and-swap a shard. What has changed since it was looked at is left out.
    fn claim(
        &mut self,
        plan: &Plan,
        refused: &[u64],
        claim: ClaimId,
        now: Now,
        store: &mut impl Store,
    ) -> (Vec<Claimed>, Vec<FlightItem>) {
        let mut picks = plan.picks.clone();
        sort::by_key(&mut picks, |pick| u128::from(pick.shard));
        let bytes_max = plan.bytes_max;
        let keeps_bodies = self.rules.config.fallback.is_some();
        let mut bytes = 0_usize;
        let mut claimed: Vec<Claimed> = Vec::new();
        let mut items = Vec::new();
        for picks in picks.chunk_by(|a, b| a.shard == b.shard) {
            let Some(Pick { shard: index, .. }) = picks.first().copied() else {
                continue;
            };
            let key = self.keys.shard(index);
            for _ in 0..CAS_ATTEMPTS_MAX {
                let read = store.get(&key);
                let Some((value, _)) = &read else { break };
                let Ok(mut shard) = Shard::decode(value) else {
                    break;
                };
                let mut taken = Vec::new();
                let mut size = bytes;
                for pick in picks {
                    let first = claimed.is_empty() && taken.is_empty();
                    let room = bytes_max
                        .saturating_sub(size)
                        .saturating_sub(SPLICED_BYTES_MAX);
                    let wanted = Wanted {
                        route: &plan.partition.route,
                        caller: plan.partition.caller,
                        seq: pick.seq,
                        destination: &plan.partition.destination,
                        bytes_max: if first { usize::MAX } else { room },
                        refused,
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
                        self.backlog
                            .refresh(&self.rules, index, &shard, now.mono_ms);
                        items.extend(taken.iter().map(|item| FlightItem {
                            shard: index,
                            session: item.session,
                            accepted_ms: item.accepted_ms,
                            dead: keeps_bodies.then(|| item.clone()),
                            status: None,
                            said: None,
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
