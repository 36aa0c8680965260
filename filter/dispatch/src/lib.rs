//! The dispatcher: gathers what is unsent, calls Laravel, settles the store with the answers.
//!
//! Every root context has one, and the one that holds the lease does the work. It is a function of
//! (state, event, now): the host feeds it events and carries out the [`Effect`]s that come back, in
//! their order. A tick too many changes nothing, and nothing here is needed to be safe: what counts is in
//! the store, and a dispatcher that is lost at any point is replaced by one that starts from there.
//!
//! A crate of its own because it is compiled for size, and the rest for speed: see `[profile.wasm]`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod backlog;
pub mod batch;
mod cluster;
mod fallback;
mod limit;
mod outage;
mod pace;
mod partition;
mod plan;
mod proves;
mod rejected;
mod send;
mod settle;
mod slow;

#[cfg(test)]
mod tests;

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use self::backlog::{Backlog, PartitionKey};
pub use self::cluster::cluster_mark;
use self::cluster::{Clusters, Leaving};
use self::fallback::Fallback;
use self::outage::{Destinations, Way};
use self::pace::{Pace, Starved};
use self::rejected::Rejections;
pub use self::rejected::{REJECTIONS_MAX, Rejection};
pub use self::send::CALLS_UNDER_WAY_MAX;
use self::slow::Smoothed;
use crate::batch::Call;
use embudo_core::backoff::Rng;
use embudo_core::circuit::Circuit;
use embudo_core::lease::{Candidate, Change};
use embudo_core::map::Map;
use embudo_core::proof::Proofs;
use embudo_core::route::Rules;
use embudo_core::sabotage::{self, Sabotage};
pub use embudo_core::shard::End;
use embudo_core::shard::{self, ClaimId, Claimed, Outcome, Shard};
use embudo_core::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};
use embudo_core::time::Now;
use embudo_core::verdict::{Answer, VerdictLabel};

/// Shards that the slow scan looks at in one tick of half a second, and in a shorter one in proportion: what a lost
/// doorbell left need not be found fast. In a leader's first round, and while somebody else's claim is in the way,
/// which ends without a ring, it takes as many in every tick.
const SCAN_SHARDS_PER_TICK: u32 = 64;

/// The leader's tick while something is pending: the granularity of quiet times and of the pace.
const TICK_BUSY_MS: u64 = 50;

/// Everybody's tick otherwise: how soon a free lease is noticed.
const TICK_IDLE_MS: u64 = 500;

/// See [`SCAN_SHARDS_PER_TICK`]: a tenth of the time, a tenth of the shards.
const SCAN_SHARDS_PER_BUSY_TICK: u32 = 7;

/// An answer that has not come this long after the call's timeout never will. Its claims run out by
/// themselves; only its place among the calls under way has to be given up.
const ANSWER_GRACE_MS: u64 = 5_000;

/// What the host has to tell.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The timer.
    Tick,
    /// The doorbell rang for these shards.
    Doorbell(&'a [u32]),
    /// A call was not made.
    NotSent(u64, NotSent),
    /// A call was answered.
    Answered(u64, Answer<'a>),
    /// The host wants this root to go.
    Done {
        /// No other root of its name is left in its VM. Where the filter is taken out, the VM goes with its last root,
        /// and there is no later moment to say anything.
        is_last: bool,
    },
}

/// Why a call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// Its time was over when the host came to it.
    Late,
    /// No healthy host, or the cluster's limits are reached (`InternalFailure`).
    Ejected,
    /// The cluster does not exist, or the call is malformed (`BadArgument`).
    Misconfigured,
}

/// What the host has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make a call; report [`Event::NotSent`] if that fails or comes too late.
    Call(Call),
    /// Tick at this period from now on, milliseconds.
    TickEvery(u64),
    /// Register the doorbell's queue, and so become the one that is woken.
    RegisterDoorbell,
    /// Add to a counter.
    Count(Counter, u64),
    /// Record in a histogram.
    Record(Histogram, u64),
    /// Set a gauge.
    Set(Gauge, u64),
    /// Log a line.
    Log(Level, String),
    /// This root has nothing under way any more and may go.
    Finished,
}

/// The dispatcher's counters. Routes are indexes into the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// `embudo.items`.
    Items(usize, End),
    /// `embudo.revived`: implied states that had to be sent by themselves.
    Revived(usize),
    /// `embudo.calls`.
    Calls(usize, VerdictLabel),
    /// `embudo.call_bytes`: bodies sent.
    CallBytes,
    /// `embudo.fallback`: items that the webhook has.
    Fallback(usize),
    /// `embudo.dead_letters`: rejected items that go to the webhook.
    DeadLetters(usize),
    /// `embudo.webhook_calls`: whether the webhook took them.
    WebhookCalls(bool),
}

/// The dispatcher's histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Histogram {
    /// `embudo.batch_items`.
    BatchItems,
    /// `embudo.call_ms`.
    CallMs,
    /// `embudo.staleness_ms`: from acceptance to Laravel's answer.
    StalenessMs,
}

/// The leader's gauges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// `embudo.pending`.
    Pending,
    /// `embudo.oldest_pending_ms`.
    OldestPendingMs,
    /// `embudo.leader_beat`: advances while there is a leader.
    LeaderBeat,
    /// `embudo.circuit`: 0 closed, 1 half-open, 2 open, 3 misconfigured.
    Circuit,
    /// `embudo.laravel_slow`: 1 while it is.
    LaravelSlow,
    /// `embudo.suspects`: items that have failed alone, and wait for a time of their own.
    Suspects,
    /// `embudo.proven`: callers of which Laravel has accepted something, each at its destination.
    Proven,
    /// `embudo.beliefs`, as the others from here on: routes whose batch path has taken a batch.
    BatchProven,
    /// Routes whose batch path has not.
    BatchUnproven,
    /// Batch paths that take no batches now.
    BatchDisproved,
    /// Pairs of a caller's states whose reads were seen to differ in nothing else.
    ReadsProven,
    /// Those that were seen too seldom.
    ReadsUnproven,
    /// Those that were seen to differ.
    ReadsDisproved,
    /// 1 where the configuration says that reads do not.
    ReadsAssumed,
    /// Routes whose items set a state of another route, and nothing says so but their rule.
    ImpliesUnproven,
    /// The same, where the configuration says that Laravel sets it.
    ImpliesAssumed,
}

/// The level of a log line. Never one for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A change of state.
    Info,
    /// Unexpected, nothing lost.
    Warn,
    /// Data lost, or a person is needed.
    Error,
}

/// One root context's dispatcher.
#[derive(Debug)]
pub struct Dispatcher {
    rules: Rc<Rules>,
    keys: Keys,
    candidate: Candidate,
    rng: Rng,
    backlog: Backlog,
    flights: Map<u64, Flight>,
    calls_made: u64,
    pace: Pace,
    circuit: Circuit,
    destinations: Destinations,
    /// Every partition's way was open when it was looked at last.
    were_well: bool,
    rejections: Rejections,
    /// The leader's own copy: its worker's requests have another.
    proofs: Proofs,
    clusters: Clusters,
    leaving: Option<Leaving>,
    fallback: Fallback,
    call_time: Smoothed,
    urgent_last: bool,
    starved: Starved,
    scan_next: u32,
    /// Shards that a new leader has not looked at yet.
    scan_left: u32,
    tick_ms: u64,
    beat: u64,
    /// Answers that lost every race for their shard.
    unsettled: Vec<Unsettled>,
    /// A shard could not be read, and it was said.
    unreadable: bool,
    done: bool,
}

/// A call under way.
#[derive(Debug)]
struct Flight {
    partition: PartitionKey,
    /// The hash of where it went.
    destination: u64,
    claim: ClaimId,
    items: Vec<FlightItem>,
    /// The names of their sessions, of a batch.
    sessions: Vec<String>,
    /// The cluster, where it is not the leader's own.
    elsewhere: Option<String>,
    alone: bool,
    /// Its item has failed alone before.
    repeats: bool,
    bytes: usize,
    started_ms: u64,
}

#[derive(Clone, Debug)]
struct FlightItem {
    shard: u32,
    session: u128,
    accepted_ms: u64,
    /// The item itself, where a dead letter may have to be made of it.
    dead: Option<Claimed>,
    /// What Laravel has answered to it.
    status: Option<u16>,
    /// How its answer began, where it refused.
    said: Option<alloc::rc::Rc<str>>,
}

#[derive(Debug)]
struct Unsettled {
    partition: PartitionKey,
    claim: ClaimId,
    items: Vec<(FlightItem, Outcome)>,
}

// === impl Dispatcher ===

impl Dispatcher {
    /// A root context's dispatcher. `seed` decides everything that looks random.
    #[must_use]
    pub fn new(rules: impl Into<Rc<Rules>>, keys: Keys, candidate: Candidate, seed: u64) -> Self {
        Self {
            rules: rules.into(),
            keys,
            candidate,
            rng: Rng::new(seed),
            backlog: Backlog::default(),
            flights: Map::new(),
            calls_made: 0,
            pace: Pace::new(),
            circuit: Circuit::default(),
            destinations: Destinations::default(),
            were_well: false,
            rejections: Rejections::default(),
            proofs: Proofs::default(),
            clusters: Clusters::default(),
            leaving: None,
            fallback: Fallback::default(),
            call_time: Smoothed::default(),
            urgent_last: false,
            starved: Starved::default(),
            scan_next: 0,
            scan_left: 0,
            tick_ms: 0,
            beat: 0,
            unsettled: Vec::new(),
            unreadable: false,
            done: false,
        }
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty()
            && self.unsettled.is_empty()
            && self.leaving.is_none()
            && self.fallback.is_idle()
    }

    /// The last items that Laravel refused for good, the oldest first.
    pub fn rejections(&self) -> impl Iterator<Item = &Rejection> {
        self.rejections.iter()
    }

    /// Handles one event.
    pub fn step(
        &mut self,
        event: Event<'_>,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) {
        match event {
            Event::Tick => self.tick(now, store, effects),
            Event::Doorbell(shards) => {
                if self.candidate.epoch(now.mono_ms).is_some() {
                    for shard in shards {
                        self.visit(*shard, now, store, effects);
                    }
                    if self.is_worth_planning(now) {
                        self.call_what_is_due(now, store, effects);
                    }
                }
            }
            Event::NotSent(call, why) => {
                self.not_sent(call, why, now, store, effects);
            }
            Event::Answered(call, answer) => {
                self.answered(call, &answer, now, store, effects);
                self.call_what_is_due(now, store, effects);
            }
            Event::Done { is_last } => {
                self.leave(is_last, now, store, effects);
            }
        }
        if self.done && self.is_idle() {
            effects.push(Effect::Finished);
            return;
        }
        self.adjust_tick(now, effects);
    }

    fn tick(&mut self, now: Now, store: &mut impl Store, effects: &mut Vec<Effect>) {
        for late in core::mem::take(&mut self.unsettled) {
            self.settle(&late.partition, late.claim, late.items, now, store, effects);
        }
        self.give_up_on_answers(now, effects);
        self.tell_of_the_dead(now, effects);
        if self.done {
            self.look_for_successor(now, store, effects);
            return;
        }
        match self.candidate.tick(store, &self.keys, now.mono_ms) {
            Change::None => {}
            Change::Won => {
                // A new leader, and only a new leader, registers the queue: the last to do so is woken.
                effects.push(Effect::RegisterDoorbell);
                effects.push(Effect::Log(
                    Level::Info,
                    "this root is the dispatcher now".into(),
                ));
                self.backlog.clear();
                self.scan_left = self.rules.config.shards;
                self.circuit = Circuit::resume(store, &self.keys, now.mono_ms);
                let record = self.circuit.record();
                self.pace.resume(record.pace);
                self.destinations = Destinations::default();
                self.destinations.resume(&record.troubles, now.mono_ms);
            }
            Change::Lost => {
                effects.push(Effect::Log(
                    Level::Info,
                    "another root is the dispatcher".into(),
                ));
                self.backlog.clear();
            }
        }
        if self.candidate.epoch(now.mono_ms).is_none() {
            return;
        }
        if self.scan_left > 0 || !sabotage::is(Sabotage::NoSlowScan) {
            self.scan(now, store, effects);
        }
        for shard in self
            .backlog
            .stale_shards(now.mono_ms, SCAN_SHARDS_PER_TICK as usize)
        {
            self.visit(shard, now, store, effects);
        }
        self.hears_of_successes(now, store);
        self.call_what_is_due(now, store, effects);
        self.circuit.has_nothing_to_probe_with(now.mono_ms);
        self.publish(now, store);
        // Longer than any wait that a partition remembers.
        let memory_ms = self.rules.config.backoff.max_ms.saturating_add(60_000);
        self.backlog.tidy(now.mono_ms, memory_ms);
        self.destinations.tidy(now.mono_ms);
        self.looks_at_proofs(now, store, effects);
        self.beat = self.beat.saturating_add(1);
        let oldest_ms = self
            .backlog
            .oldest_ms()
            .map_or(0, |ms| now.mono_ms.saturating_sub(ms));
        effects.push(Effect::Set(Gauge::LeaderBeat, self.beat));
        effects.push(Effect::Set(Gauge::Pending, self.backlog.pending() as u64));
        effects.push(Effect::Set(Gauge::Suspects, self.backlog.suspects() as u64));
        effects.push(Effect::Set(Gauge::OldestPendingMs, oldest_ms));
        effects.push(Effect::Set(Gauge::Circuit, self.circuit.state().gauge()));
        effects.push(Effect::Set(
            Gauge::LaravelSlow,
            u64::from(self.call_time.is_slow()),
        ));
    }

    /// The slow scan: a few shards a tick, round and round.
    fn scan(&mut self, now: Now, store: &mut impl Store, effects: &mut Vec<Effect>) {
        let shards = self.rules.config.shards;
        let epoch = self.candidate.epoch(now.mono_ms);
        let hurries = self.scan_left > 0 || self.backlog.awaits_others(epoch, now.mono_ms);
        let most = match hurries || self.tick_ms >= TICK_IDLE_MS {
            true => SCAN_SHARDS_PER_TICK,
            false => SCAN_SHARDS_PER_BUSY_TICK,
        };
        for _ in 0..most.min(shards) {
            let shard = self.scan_next;
            self.scan_next = shard.saturating_add(1);
            if self.scan_next >= shards {
                self.scan_next = 0;
            }
            self.visit(shard, now, store, effects);
        }
        self.scan_left = self.scan_left.saturating_sub(most);
    }

    /// Looks at a shard: answers its ring, drops what has expired, remembers what waits.
    fn visit(&mut self, index: u32, now: Now, store: &mut impl Store, effects: &mut Vec<Effect>) {
        let key = self.keys.shard(index);
        for _ in 0..CAS_ATTEMPTS_MAX {
            let read = store.get(&key);
            let Some((bytes, _)) = &read else { return };
            let Ok(mut shard) = Shard::decode(bytes) else {
                self.say_unreadable(index, effects);
                return;
            };
            // Whatever has rung, what kept a session from being claimed may be over.
            self.backlog.forget(index);
            let expires = shard.has_expired(&self.rules, now);
            if !shard.rung && !expires {
                self.backlog
                    .refresh(&self.rules, index, &shard, now.mono_ms);
                return;
            }
            let (mut dropped, mut revived) = (Vec::new(), Vec::new());
            let written = match expires {
                // Nothing but the ring has to be answered.
                false => shard::without_ring(bytes),
                true => {
                    shard.rung = false;
                    (dropped, revived) = shard.expire(&self.rules, now);
                    shard.prune(now.mono_ms);
                    shard.encode()
                }
            };
            match store.put(&key, &written, Expect::of(read.as_ref())) {
                Ok(()) => {
                    let expired = dropped.iter().map(|r| Counter::Items(*r, End::Expired));
                    let revived = revived.iter().map(|r| Counter::Revived(*r));
                    effects.extend(expired.chain(revived).map(|c| Effect::Count(c, 1)));
                    self.backlog
                        .refresh(&self.rules, index, &shard, now.mono_ms);
                    return;
                }
                Err(PutError::Mismatch) => {}
                Err(PutError::Refused) => return,
            }
        }
    }

    /// Once: the scan comes by every second, nobody can mend a stored value, and where one shard is
    /// spoiled all of them may be.
    fn say_unreadable(&mut self, index: u32, effects: &mut Vec<Effect>) {
        if !core::mem::replace(&mut self.unreadable, true) {
            let line = format!(
                "shard {index} is not readable, perhaps not the only one: does another program use its \
                 key? Its sessions' updates pass through until Envoy is restarted"
            );
            effects.push(Effect::Log(Level::Error, line));
        }
    }

    /// A plan goes over everything that waits. A tick can afford that, a ring only where it may lead to a
    /// call.
    fn is_worth_planning(&mut self, now: Now) -> bool {
        let timeout_ms = self.rules.config.times.call_timeout_ms;
        let due = self.backlog.partitions().any(|(key, partition)| {
            let Some((_, rule)) = self.rules.config.route_named(&key.route) else {
                return false;
            };
            let urgent = partition.urgent > 0 && partition.may_hurry(&self.rules, now.mono_ms);
            // What goes one by one is never full: it waits for its quiet time, at a tick.
            let (items_max, bytes_max) = self.backlog.limits(key, rule, timeout_ms);
            let full = rule.batch.call.is_some()
                && (partition.items >= items_max || partition.bytes >= bytes_max);
            partition.way != Way::Shut && (urgent || full)
        });
        due && {
            let allowed = self.allowed(now);
            allowed.together || allowed.alone
        }
    }

    fn adjust_tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let leads = self.candidate.epoch(now.mono_ms).is_some();
        let busy =
            leads && (!self.backlog.is_idle() || self.scan_left > 0 || self.fallback.has_work());
        let tick_ms = match busy || self.leaving.is_some() || !self.unsettled.is_empty() {
            true => TICK_BUSY_MS,
            false => TICK_IDLE_MS,
        };
        if tick_ms != self.tick_ms {
            self.tick_ms = tick_ms;
            effects.push(Effect::TickEvery(tick_ms));
        }
    }
}
