//! What an answer, or the lack of one, does to the store and to the lane it came from.

use alloc::format;
use alloc::vec::Vec;

use super::index::LaneKey;
use super::{
    Counter, Dispatcher, Effect, End, Flight, FlightItem, Histogram, Level, NotSent, Unsettled,
};
use crate::circuit::State;
use crate::sabotage::{self, Sabotage};
use crate::shard::{ClaimId, Outcome, Settled, Shard};
use crate::sort;
use crate::store::{CAS_ATTEMPTS_MAX, Expect, PutError, Store};
use crate::time::Now;
use crate::trust;
use crate::verdict::{Answer, Asked, ItemFate, Verdict, VerdictLabel};

/// What a settlement brought to its end in one shard.
#[derive(Default)]
struct Ended {
    items: Vec<(FlightItem, Outcome)>,
    /// Routes of implied states that have to be sent by themselves now.
    revived: Vec<usize>,
}

/// Batches in a row that are refused whole before items go one by one.
const REFUSED_BATCHES_MAX: u8 = 3;

/// The same outcome for every item.
fn all(items: Vec<FlightItem>, outcome: Outcome) -> Vec<(FlightItem, Outcome)> {
    items.into_iter().map(|item| (item, outcome)).collect()
}

// === impl Dispatcher ===

impl Dispatcher {
    /// The call was not made: the claims go back. Refused on the spot, it is the circuit that is open.
    pub(super) fn not_sent(
        &mut self,
        call: u64,
        why: NotSent,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) {
        if self.event_not_sent(call, why, now, effects) {
            return;
        }
        let Some(flight) = self.flights.remove(&call) else {
            return;
        };
        self.count_call(&flight.lane, VerdictLabel::Unsent, effects);
        self.tried(&flight, now);
        match why {
            NotSent::Late => self.circuit.probe_was_late(call),
            NotSent::Ejected => self.circuit_opens(State::Open, now, effects),
            NotSent::Misconfigured => self.circuit_opens(State::Misconfigured, now, effects),
        }
        self.circuit.publish(store, &self.keys);
        let items = all(flight.items, Outcome::Unsent);
        self.settle(&flight.lane, flight.claim, items, now, store, effects);
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
        if self.event_answered(call, answer, now, store, effects) {
            return;
        }
        let Some(mut flight) = self.flights.remove(&call) else {
            return;
        };
        for item in &mut flight.items {
            item.status = answer.status;
        }
        let verdict = self.verdict(&flight, answer, now);
        let took_ms = now.mono_ms.saturating_sub(flight.started_ms);
        effects.push(Effect::Record(Histogram::CallMs, took_ms));
        self.count_call(&flight.lane, verdict.label(), effects);
        self.is_slow(took_ms, effects);
        self.circuit_hears(call, verdict.is_alive(), now, effects);
        self.circuit.publish(store, &self.keys);
        self.tried(&flight, now);
        if let Some(items) = self.judged(&flight, verdict, now, store, effects) {
            self.settle(&flight.lane, flight.claim, items, now, store, effects);
        }
    }

    fn verdict(&self, flight: &Flight, answer: &Answer<'_>, now: Now) -> Verdict {
        let rule = self.rules.config.route_named(&flight.lane.route);
        let batch = rule.and_then(|(_, rule)| rule.batch.call.as_ref());
        match batch.filter(|_| !flight.alone) {
            None => Verdict::of_single(answer, now.wall_ms),
            Some(batch) => {
                let place = self.index.place(&flight.lane);
                let asked = Asked {
                    items: flight.items.len(),
                    field: &batch.field,
                    is_known: place.is_some_and(|place| place.is_known),
                    wall_ms: now.wall_ms,
                };
                Verdict::of(answer, &asked)
            }
        }
    }

    /// What a verdict does to the lane, and to each item; `None` where the claims stay.
    fn judged(
        &mut self,
        flight: &Flight,
        verdict: Verdict,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) -> Option<Vec<(FlightItem, Outcome)>> {
        let items = flight.items.clone();
        let outcome = match verdict {
            Verdict::Delivered => {
                self.succeeded(flight, now, effects);
                Outcome::Delivered
            }
            Verdict::Items { fates, why } => {
                self.succeeded(flight, now, effects);
                self.goes_on(flight, &why, "some of these", effects);
                // Nothing is wrong with the rest: it goes again at once.
                self.index.lane_mut(&flight.lane).hurries = true;
                let outcomes = fates.into_iter().map(|fate| match fate {
                    ItemFate::Delivered => Outcome::Delivered,
                    ItemFate::Skipped => Outcome::Skipped,
                    ItemFate::Suspect if sabotage::is(Sabotage::BelieveTheWhole) => {
                        Outcome::Delivered
                    }
                    ItemFate::Suspect => Outcome::Suspect,
                    ItemFate::Again => Outcome::Failed,
                });
                return Some(items.into_iter().zip(outcomes).collect());
            }
            Verdict::Retry {
                why,
                retry_after_ms,
                status,
            } => {
                if status == Some(429) {
                    let limits = &self.rules.config.pace;
                    self.pace.throttled(limits, flight.started_ms, now.mono_ms);
                }
                self.back_off(flight, &why, retry_after_ms, now, effects);
                Outcome::Failed
            }
            Verdict::NoRoute { why } => {
                self.goes_singly(flight, &why, now, effects);
                Outcome::Failed
            }
            Verdict::TooLarge { why } => {
                let outcome = self.too_large(flight, &why, now, effects);
                match flight.items.len() {
                    1 => Outcome::Suspect,
                    _ => outcome,
                }
            }
            Verdict::Refused { why } => {
                self.halves(flight, &why, now, effects);
                match flight.items.len() {
                    1 => Outcome::Suspect,
                    _ => Outcome::Refused,
                }
            }
            Verdict::Suspects { why } => {
                let place = self.index.place_mut(&flight.lane, now.mono_ms);
                place.refused = place.refused.saturating_add(1);
                match place.refused >= REFUSED_BATCHES_MAX {
                    true => self.goes_singly(flight, &why, now, effects),
                    false => self.goes_on(flight, &why, "any of these together", effects),
                }
                Outcome::Suspect
            }
            Verdict::Rejected { why, credential } => {
                self.rejected(flight, &why, effects);
                if credential {
                    trust::revoke(store, &self.keys, flight.lane.credential);
                }
                Outcome::Rejected
            }
            Verdict::Unknown { why } => {
                // The claims stay and run out: the request may still be at work in PHP.
                self.back_off(flight, &why, 0, now, effects);
                if !sabotage::is(Sabotage::NoHoldAfterTimeout) {
                    return None;
                }
                Outcome::Failed
            }
        };
        Some(all(items, outcome))
    }

    // ## The circuit

    fn circuit_opens(&mut self, state: State, now: Now, effects: &mut Vec<Effect>) {
        let range = self.rules.config.backoff.clone();
        let is_news = self
            .circuit
            .refused(state, &range, &mut self.rng, now.mono_ms);
        if !is_news {
            return;
        }
        let cluster = &self.rules.config.upstream.cluster;
        effects.push(match state {
            State::Misconfigured => Effect::Log(
                Level::Error,
                format!("cluster \"{cluster}\" does not exist: nothing is delivered"),
            ),
            _ => Effect::Log(
                Level::Warn,
                format!(
                    "circuit open: cluster \"{cluster}\" has no healthy host; updates wait, and one call at a \
                     time tries again"
                ),
            ),
        });
    }

    /// A call has ended.
    pub(super) fn circuit_hears(
        &mut self,
        call: u64,
        is_alive: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let range = self.rules.config.backoff.clone();
        let open_ms = self
            .circuit
            .ended(call, is_alive, &range, &mut self.rng, now.mono_ms);
        if let Some(open_ms) = open_ms {
            let line = format!("circuit closed, after {} s", open_ms / 1000);
            effects.push(Effect::Log(Level::Warn, line));
        }
    }

    /// A batch that was to show whether there is a batch route has been answered, or never will be.
    pub(super) fn tried(&mut self, flight: &Flight, now: Now) {
        if !flight.alone && self.index.place(&flight.lane).is_some_and(|p| p.is_trying) {
            self.index.place_mut(&flight.lane, now.mono_ms).is_trying = false;
        }
    }

    fn is_slow(&mut self, took_ms: u64, effects: &mut Vec<Effect>) {
        let Some(ms) = self.call_time.take(took_ms, self.rules.config.slow_ms) else {
            return;
        };
        let line = match self.call_time.is_slow() {
            true => format!("Laravel is slow: its answers take {ms} ms, smoothed"),
            false => format!("Laravel is slow no more: its answers take {ms} ms, smoothed"),
        };
        effects.push(Effect::Log(Level::Warn, line));
    }

    /// One compare-and-swap a shard. An answer that loses every race is tried again at the next tick.
    pub(super) fn settle(
        &mut self,
        lane: &LaneKey,
        claim: ClaimId,
        mut items: Vec<(FlightItem, Outcome)>,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) {
        let route = self
            .rules
            .config
            .route_named(&lane.route)
            .map(|(index, _)| index);
        sort::by_key(&mut items, |(item, _)| u128::from(item.shard));
        let (mut delivered, mut rejected) = (0_u64, 0_u64);
        for items in items.chunk_by(|(a, _), (b, _)| a.shard == b.shard) {
            let Some((FlightItem { shard, .. }, _)) = items.first() else {
                continue;
            };
            let Some(ended) = self.settle_shard(*shard, claim, items, now, store) else {
                let (lane, items) = (lane.clone(), items.to_vec());
                self.unsettled.push(Unsettled { lane, claim, items });
                continue;
            };
            for (item, outcome) in ended.items {
                if outcome == Outcome::Rejected {
                    rejected = rejected.saturating_add(1);
                    self.is_dead(route, &item, effects);
                } else {
                    delivered = delivered.saturating_add(1);
                    let staleness_ms = now.mono_ms.saturating_sub(item.accepted_ms);
                    effects.push(Effect::Record(Histogram::StalenessMs, staleness_ms));
                }
            }
            let revived = ended.revived.into_iter().map(Counter::Revived);
            effects.extend(revived.map(|counter| Effect::Count(counter, 1)));
        }
        let Some(route) = route else { return };
        for (end, count) in [(End::Delivered, delivered), (End::Rejected, rejected)] {
            if count > 0 {
                effects.push(Effect::Count(Counter::Items(route, end), count));
            }
        }
    }

    /// The items that reached their end by this; `None` where every race was lost.
    fn settle_shard(
        &mut self,
        index: u32,
        claim: ClaimId,
        items: &[(FlightItem, Outcome)],
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
            for (item, outcome) in items {
                match shard.settle(&self.rules, item.session, claim, *outcome, item.status, now) {
                    Settled::Ended { revived } => {
                        changed = true;
                        ended.items.push((item.clone(), *outcome));
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
