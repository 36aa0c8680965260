//! What an answer, or the lack of one, does to the store and to the partition it came from.

use alloc::format;
use alloc::vec::Vec;

use super::backlog::PartitionKey;
use super::outage::{UNTAKEN_MAX, UnderWay};
use super::rejected::{self, Rejection};
use super::{
    Counter, Dispatcher, Effect, End, Flight, FlightItem, Histogram, Level, NotSent, Unsettled,
};
use embudo_core::circuit::State;
use embudo_core::sabotage::{self, Sabotage};
use embudo_core::shard::{ClaimId, Outcome, Settled, Shard};
use embudo_core::sort;
use embudo_core::store::{CAS_ATTEMPTS_MAX, Expect, PutError, Store};
use embudo_core::time::Now;
use embudo_core::verdict::{Answer, Asked, Heard, ItemFate, Path, Verdict, VerdictLabel};

/// What a settlement brought to its end in one shard.
#[derive(Default)]
struct Ended {
    items: Vec<(FlightItem, Outcome)>,
    /// Routes of implied states that have to be sent by themselves now.
    revived: Vec<usize>,
    /// Something of the same route and session was behind one of them.
    followed: bool,
}

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
        self.count_call(&flight.partition, VerdictLabel::Unsent, effects);
        self.tried(&flight, now);
        match (why, &flight.elsewhere) {
            (NotSent::Misconfigured, Some(cluster)) => self.clusters.is_gone(cluster),
            (NotSent::Ejected, Some(_)) => {
                let why = "its cluster has no healthy host";
                self.fails(&flight, why, false, now, effects);
            }
            _ => {}
        }
        match why {
            _ if flight.elsewhere.is_some() => {}
            NotSent::Late => self.circuit.probe_was_late(call),
            NotSent::Ejected => self.circuit_opens(State::Open, now, effects),
            NotSent::Misconfigured => self.circuit_opens(State::Misconfigured, now, effects),
        }
        self.publish(now, store);
        let items = all(flight.items, Outcome::Unsent);
        self.settle(&flight.partition, flight.claim, items, now, store, effects);
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
        let path = self.path(&flight, store);
        let verdict = self.verdict(&flight, path, answer, now);
        let said = match verdict {
            Verdict::Refused { .. } | Verdict::Invalid { .. } | Verdict::TooLarge { .. } => Some(
                rejected::excerpt(answer.body, &flight.partition.destination),
            ),
            _ => None,
        };
        for item in &mut flight.items {
            (item.status, item.said) = (answer.status, said.clone());
        }
        let took_ms = now.mono_ms.saturating_sub(flight.started_ms);
        effects.push(Effect::Record(Histogram::CallMs, took_ms));
        self.count_call(&flight.partition, verdict.label(), effects);
        self.is_slow(took_ms, effects);
        self.circuit_hears(call, verdict.is_alive(), now, effects);
        self.tried(&flight, now);
        let heard = Heard::of(answer);
        let items = self.judged(&flight, verdict, heard, now, store, effects);
        self.proves(&flight, heard, &items, now, store);
        self.publish(now, store);
        self.settle(&flight.partition, flight.claim, items, now, store, effects);
    }

    fn verdict(&self, flight: &Flight, path: Path, answer: &Answer<'_>, now: Now) -> Verdict {
        let rule = self.rules.config.route_named(&flight.partition.route);
        let batch = rule.and_then(|(_, rule)| rule.batch.call.as_ref());
        match batch.filter(|_| !flight.alone) {
            None => Verdict::of_single(answer, path, now.wall_ms),
            Some(batch) => {
                let asked = Asked {
                    sessions: &flight.sessions,
                    field: &batch.field,
                    path,
                    wall_ms: now.wall_ms,
                };
                Verdict::of(answer, &asked)
            }
        }
    }

    /// What a verdict does to the destination, to the partition, and to each item.
    fn judged(
        &mut self,
        flight: &Flight,
        verdict: Verdict,
        heard: Heard,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) -> Vec<(FlightItem, Outcome)> {
        let items = flight.items.clone();
        let is_one = items.len() == 1;
        let (destination, route) = (flight.destination, &flight.partition.route);
        let outcome = match verdict {
            Verdict::Delivered => {
                self.accepted(flight, heard, now, effects);
                Outcome::Delivered
            }
            Verdict::Skipped => {
                self.spoke(flight, now, effects);
                Outcome::Skipped
            }
            // It throws for every row: what else would an answer without lines say?
            Verdict::Items { fates, why } if fates.iter().all(|f| *f == ItemFate::Threw) => {
                self.threw(flight, &why, now, effects)
            }
            Verdict::Items { fates, why } => {
                let is_any = fates.contains(&ItemFate::Delivered);
                match is_any {
                    true => self.accepted(flight, heard, now, effects),
                    false => self.spoke(flight, now, effects),
                }
                self.goes_on(flight, &why, "some of these", effects);
                let outcomes = fates.into_iter().map(|fate| match fate {
                    ItemFate::Delivered => Outcome::Delivered,
                    ItemFate::Skipped => Outcome::Skipped,
                    ItemFate::Suspect if sabotage::is(Sabotage::BelieveTheWhole) => {
                        Outcome::Delivered
                    }
                    ItemFate::Suspect => Outcome::Suspect,
                    ItemFate::Threw => Outcome::Threw,
                    ItemFate::Again => Outcome::Failed,
                });
                return items.into_iter().zip(outcomes).collect();
            }
            Verdict::Retry {
                why,
                retry_after_ms,
                status,
            } => {
                if status == Some(429) {
                    let limits = &self.rules.config.pace;
                    self.pace.throttled(limits, flight.started_ms, now.mono_ms);
                    let destinations = &mut self.destinations;
                    destinations.hold(destination, route, retry_after_ms, now.mono_ms);
                }
                match status {
                    Some(503) if retry_after_ms > 0 => {
                        self.rests(flight, &why, retry_after_ms, now, effects);
                    }
                    _ => self.fails(flight, &why, status.is_some(), now, effects),
                }
                Outcome::Failed
            }
            Verdict::Threw { why } => self.threw(flight, &why, now, effects),
            Verdict::TooLarge { .. } if flight.alone => {
                self.spoke(flight, now, effects);
                Outcome::Rejected
            }
            Verdict::TooLarge { why } => {
                self.too_large(flight, &why, now, effects);
                match is_one {
                    true => Outcome::Suspect,
                    false => Outcome::Failed,
                }
            }
            Verdict::Invalid { .. } if flight.alone => {
                self.tells(flight, now, effects);
                Outcome::Rejected
            }
            Verdict::Invalid { why, array } => {
                self.spoke(flight, now, effects);
                match array {
                    true => self.too_many(flight, &why, now, effects),
                    false => self.halves(flight, &why, now, effects),
                }
                match (is_one, array) {
                    (true, _) => Outcome::Suspect,
                    // It is their number that is not wanted.
                    (false, true) => Outcome::Failed,
                    (false, false) => Outcome::Refused,
                }
            }
            Verdict::Refused { status, .. } if flight.alone => {
                self.tells(flight, now, effects);
                self.turned(flight, status, now, store)
            }
            Verdict::Refused { why, .. } | Verdict::Apart { why } => {
                self.spoke(flight, now, effects);
                self.destinations.untaken(destination, route, now.mono_ms);
                self.goes_on(flight, &why, "any of these together", effects);
                Outcome::Suspect
            }
            Verdict::NoBatch { .. } => {
                self.destinations.doubt(destination, route, now.mono_ms);
                self.tries_singles(flight, now);
                Outcome::Failed
            }
            Verdict::Foreign { why } => {
                self.goes_out(flight, &why, now, effects);
                Outcome::Failed
            }
            Verdict::Unknown { why } => {
                // The claims stay and run out: the request may still be at work in PHP.
                let is_own = is_one && self.is_own_failure(flight, &why, now, effects);
                if !is_own {
                    self.fails(flight, &why, true, now, effects);
                }
                if !is_one {
                    self.shrinks(flight, now);
                }
                match sabotage::is(Sabotage::NoHoldAfterTimeout) {
                    true => Outcome::Failed,
                    false if is_own => Outcome::Lost,
                    false => Outcome::Unknown,
                }
            }
        };
        all(items, outcome)
    }

    // ## What an answer says of its destination

    /// Laravel accepted something: everybody's wait there is over.
    fn accepted(&mut self, flight: &Flight, heard: Heard, now: Now, effects: &mut Vec<Effect>) {
        if flight.repeats {
            self.pace.repeat_was_taken();
        }
        let key = &flight.partition;
        let place = (flight.destination, &key.route, key.caller);
        let recovered =
            self.destinations
                .accepted(place, flight.alone, heard, flight.started_ms, now.mono_ms);
        self.recovers(flight, recovered.failures, recovered.outage_ms, effects);
        if flight.alone {
            self.tells(flight, now, effects);
        }
        // Once it counts as none, one batch that tries is enough.
        let place = self.backlog.batch_route(key);
        let tried = place.is_some_and(|place| place.singles_until_ms.is_some());
        let is_none = recovered.untaken >= UNTAKEN_MAX || (tried && recovered.untaken > 0);
        if is_none && !sabotage::is(Sabotage::BatchesForEver) {
            let why = "three in a row were not accepted, while their items were";
            self.goes_singly(flight, why, now, effects);
        }
        self.succeeded(flight, now);
    }

    /// Laravel answered, whatever it thinks of these: it fails no more.
    fn spoke(&mut self, flight: &Flight, now: Now, effects: &mut Vec<Effect>) {
        let failures = self.destinations.spoke(flight.destination, now.mono_ms);
        self.recovers(flight, failures, None, effects);
    }

    fn recovers(
        &mut self,
        flight: &Flight,
        failures: u32,
        outage_ms: Option<u64>,
        effects: &mut Vec<Effect>,
    ) {
        let route = &flight.partition.route;
        let line = match (outage_ms, failures) {
            (Some(ms), _) => format!(
                "{route}: it is Laravel that answers again, after {} s",
                ms / 1000
            ),
            (None, 0) => return,
            _ => format!("{route}: Laravel takes updates again after {failures} failures"),
        };
        self.recover_limits(flight.destination);
        effects.push(Effect::Log(Level::Info, line));
    }

    /// An item alone was accepted or refused in Laravel's voice: if its batch path was in doubt, it is none.
    fn tells(&mut self, flight: &Flight, now: Now, effects: &mut Vec<Effect>) {
        self.spoke(flight, now, effects);
        let (destination, route) = (flight.destination, &flight.partition.route);
        if self.destinations.was_doubted(destination, route) {
            self.goes_singly(flight, "its items alone are answered", now, effects);
        }
    }

    /// What a refusal alone means for the item.
    fn turned(
        &mut self,
        flight: &Flight,
        status: u16,
        now: Now,
        store: &mut impl Store,
    ) -> Outcome {
        let (destination, caller) = (flight.destination, flight.partition.caller);
        let whose = matches!(status, 401 | 403 | 419).then_some(caller);
        let beside_success = self.accepts(flight, whose, now, store);
        if self.refuses(flight, status, now, store) {
            let (destinations, rng) = (&mut self.destinations, &mut self.rng);
            if destinations.caller_refused(destination, caller, rng, now.mono_ms) {
                return Outcome::Rejected;
            }
        }
        Outcome::Turned { beside_success }
    }

    /// Laravel fails, whatever the items are.
    pub(super) fn fails(
        &mut self,
        flight: &Flight,
        why: &str,
        reached: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let range = self.rules.config.backoff.clone();
        let destinations = &mut self.destinations;
        let is_news = destinations.failed(
            flight.destination,
            reached,
            &range,
            &mut self.rng,
            now.mono_ms,
        );
        self.says_failure(flight, why, is_news, effects);
    }

    /// It has asked for time.
    fn rests(
        &mut self,
        flight: &Flight,
        why: &str,
        retry_after_ms: u64,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let is_news = self.destinations.in_maintenance(
            flight.destination,
            retry_after_ms,
            &mut self.rng,
            now.mono_ms,
        );
        self.says_failure(flight, why, is_news, effects);
    }

    /// Perhaps one row: a batch is halved, and what fails alone is that row, if others are accepted.
    fn threw(
        &mut self,
        flight: &Flight,
        why: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let is_own = self.is_own_failure(flight, why, now, effects);
        if flight.alone && !is_own {
            let known = self.backlog.batch_route_mut(&flight.partition, now.mono_ms);
            known.limit.failed_alone();
        }
        match (flight.alone, flight.items.len()) {
            (true, _) if is_own => {
                self.goes_on(flight, why, "this one", effects);
                Outcome::Threw
            }
            (true, _) => Outcome::Refused,
            (false, 1) if is_own => Outcome::Suspect,
            _ => {
                // A path that throws for every batch, while its items alone are accepted, is none for batches.
                let (destination, route) = (flight.destination, &flight.partition.route);
                self.destinations.untaken(destination, route, now.mono_ms);
                self.halves(flight, why, now, effects);
                Outcome::Refused
            }
        }
    }

    /// Whether a failure is its items' own, because their destination accepts others. Where nothing else is
    /// accepted, it is everybody's.
    fn is_own_failure(
        &mut self,
        flight: &Flight,
        why: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> bool {
        // What has failed alone beside others tells nothing more of them.
        if flight.repeats {
            return true;
        }
        // A batch is halved, and its parts tell.
        let is_silent = self.destinations.is_silent(flight.destination);
        if flight.items.len() > 1 && !is_silent {
            return false;
        }
        let range = self.rules.config.backoff.clone();
        let destinations = &mut self.destinations;
        let is_news = destinations.threw(flight.destination, &range, &mut self.rng, now.mono_ms);
        let accepts = !self.destinations.is_silent(flight.destination)
            && self
                .destinations
                .accepts(flight.destination, None, now.mono_ms);
        self.says_failure(flight, why, is_news, effects);
        accepts
    }

    fn says_failure(&self, flight: &Flight, why: &str, is_news: bool, effects: &mut Vec<Effect>) {
        if is_news {
            let route = &flight.partition.route;
            let line = format!("{route}: a call failed ({why}); nothing is lost, trying again");
            effects.push(Effect::Log(Level::Warn, line));
        }
    }

    /// It was not Laravel that answered.
    fn goes_out(&mut self, flight: &Flight, why: &str, now: Now, effects: &mut Vec<Effect>) {
        let (destination, route) = (flight.destination, &flight.partition.route);
        if self.destinations.was_doubted(destination, route) {
            // This tells of the path, and nothing of batches.
            self.tries_batches(flight, now);
        }
        let is_news = self.destinations.answered_foreign(
            destination,
            route,
            flight.alone,
            &mut self.rng,
            now.mono_ms,
        );
        if is_news {
            let line = format!(
                "{route}: something else than Laravel answers ({why}); nothing is lost, updates wait until it \
                 is Laravel again"
            );
            effects.push(Effect::Log(Level::Warn, line));
        }
    }

    /// What the store is to know of the circuit, the pace and the destinations. Who leads no more, and has only an
    /// answer left, knows nothing of that.
    pub(super) fn publish(&mut self, now: Now, store: &mut impl Store) {
        if self.candidate.epoch(now.mono_ms).is_none() {
            return;
        }
        let troubles = self.destinations.troubles();
        let pace = self.pace.share();
        self.circuit.publish(pace, troubles, store, &self.keys);
    }

    /// What workers have seen Laravel accept ends the wait for it.
    pub(super) fn hears_of_successes(&mut self, now: Now, store: &impl Store) {
        for trouble in self.circuit.reports(store, &self.keys) {
            let (destination, caller) = (trouble.destination, trouble.refused);
            self.destinations.reported(destination, caller, now.mono_ms);
        }
    }

    /// Each partition's way, before a plan is made.
    pub(super) fn find_ways(&mut self, now: Now) {
        let are_well = self.destinations.are_well(now.mono_ms);
        if are_well && core::mem::replace(&mut self.were_well, true) {
            return;
        }
        self.were_well = are_well;
        let Self {
            backlog,
            destinations,
            flights,
            rules,
            ..
        } = self;
        for (key, partition) in backlog.partitions_mut() {
            let destination = destinations.of(rules, key);
            let under_way = flights.values().map(|flight| UnderWay {
                destination: flight.destination,
                route: &flight.partition.route,
                caller: flight.partition.caller,
            });
            let (route, caller) = (&key.route, key.caller);
            partition.way = destinations.way(destination, route, caller, under_way, now.mono_ms);
            partition.excused = destinations.excused(destination);
        }
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
        is_alive: Option<bool>,
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

    /// A call has been answered, or never will be: one that went alone, or that was to show whether there is a batch
    /// route.
    pub(super) fn tried(&mut self, flight: &Flight, now: Now) {
        let known = self.backlog.batch_route_mut(&flight.partition, now.mono_ms);
        match flight.alone {
            true => known.alone = known.alone.saturating_sub(1),
            false => known.is_trying = false,
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
        partition: &PartitionKey,
        claim: ClaimId,
        mut items: Vec<(FlightItem, Outcome)>,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) {
        let route = self
            .rules
            .config
            .route_named(&partition.route)
            .map(|(index, _)| index);
        sort::by_key(&mut items, |(item, _)| u128::from(item.shard));
        let (mut delivered, mut rejected) = (0_u64, 0_u64);
        for items in items.chunk_by(|(a, _), (b, _)| a.shard == b.shard) {
            let Some((FlightItem { shard, .. }, _)) = items.first() else {
                continue;
            };
            let Some(ended) = self.settle_shard(*shard, claim, items, now, store) else {
                let (partition, items) = (partition.clone(), items.to_vec());
                self.unsettled.push(Unsettled {
                    partition,
                    claim,
                    items,
                });
                continue;
            };
            for (item, outcome) in ended.items {
                if outcome == Outcome::Rejected {
                    rejected = rejected.saturating_add(1);
                    effects.push(self.rejections.push(Rejection {
                        route: alloc::rc::Rc::clone(&partition.route),
                        session: item.session,
                        status: item.status.unwrap_or(0),
                        excerpt: item.said.clone().unwrap_or_default(),
                    }));
                    self.is_dead(route, &item, effects);
                } else {
                    delivered = delivered.saturating_add(1);
                    let staleness_ms = now.mono_ms.saturating_sub(item.accepted_ms);
                    effects.push(Effect::Record(Histogram::StalenessMs, staleness_ms));
                }
            }
            // It has waited for this call, and need not for another pause.
            if ended.followed && self.candidate.epoch(now.mono_ms).is_some() {
                self.backlog.partition_mut(partition).hurries = true;
            }
            let revived = ended.revived.into_iter().map(Counter::Revived);
            effects.extend(revived.map(|counter| Effect::Count(counter, 1)));
        }
        self.fewer_are_left(delivered.saturating_add(rejected));
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
                    Settled::Ended {
                        rejected,
                        revived,
                        followed,
                    } => {
                        changed = true;
                        ended.followed |= followed;
                        let outcome = if rejected {
                            Outcome::Rejected
                        } else {
                            *outcome
                        };
                        ended.items.push((item.clone(), outcome));
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
                        self.backlog
                            .refresh(&self.rules, index, &shard, now.mono_ms);
                    }
                    return Some(ended);
                }
                Err(PutError::Mismatch) => {}
                Err(PutError::Refused) => return None,
            }
        }
        None
    }

    fn count_call(
        &self,
        partition: &PartitionKey,
        verdict: VerdictLabel,
        effects: &mut Vec<Effect>,
    ) {
        if let Some((route, _)) = self.rules.config.route_named(&partition.route) {
            effects.push(Effect::Count(Counter::Calls(route, verdict), 1));
        }
    }
}
