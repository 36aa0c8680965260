//! The world: one event after the other, in virtual time.
//!
//! Every thread of Envoy is an actor that does one job at a time, a host call at a time; the network, the
//! gateway and Laravel are events. Whatever takes time draws how long from the seed, and two things at
//! one moment are put in order by the seed too. So all that could happen in another order on a real
//! machine does, in some seed.
//!
//! # Layout
//! * `scenario`, `fault`: the script.
//! * `queue`: events in order.
//! * `threads`: Envoy's threads and what their VMs are asked to do; `results`: what comes of it; `roots`:
//!   root contexts, their timers, and listener updates.
//! * `net`: Laravel, and the way there and back; `streams`: what passes the filter on this way.
//! * `webhook`: where the dispatcher's events go while Laravel cannot be called.
//! * `held`: streams that wait in the filter.
//! * `traffic`: the gateway; `caller`: who calls for a session; `events`: other gateways, under a preset.
//! * `strike`: what goes wrong.
//! * `arm`: a scenario file instead of a seed's script.

mod arm;
mod caller;
mod events;
mod fault;
mod held;
mod net;
mod queue;
mod results;
mod roots;
mod scenario;
mod streams;
mod strike;
mod threads;
mod traffic;
mod webhook;

use anyhow::{Context as _, Result, anyhow};
use embudo_core::config::Config;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

use self::arm::Arm;
pub(in crate::sim) use self::arm::run as run_file;
pub use self::caller::Callers;
pub use self::fault::{Fault, Verb, When, Who};
use self::held::Held;
use self::net::Net;
pub(in crate::sim) use self::net::{LOST, REFUSED, TIMEOUT, response};
use self::queue::{Event, Events};
pub use self::scenario::{Pace, Plan, Scenario, Setup, Style};
use self::strike::Strikes;
use self::threads::Thread;
use self::traffic::Traffic;
use self::webhook::Hook;
use super::check::{Checker, Coverage, Failure, Fallback, ReadLimits};
use super::host::{Clock, Cluster, Hub, Machine, Metrics, Queues, SharedData, SharedHub};
use super::trace::{Detail, Line, Trace};

/// The monotonic clock does not begin at 0: a guest must not take it for an age.
pub(super) const START_US: u64 = 500_000_000;

/// 2024-05-01.
const WALL_START_US: u64 = 1_714_521_600_000_000;

/// Unix time when Laravel's clock was 0, ms. Its host's clock does not step.
const UNIX_ZERO_MS: u64 = (WALL_START_US - START_US) / 1000;

/// The calm world is looked at this often, ms.
const LOOK_EVERY_MS: u64 = 250;

/// What a row that throws may cost another, ms, beside the pace: until it goes alone, its calls fail and are halved.
const ISOLATION_MS: u64 = 10_000;

/// Who has waited for so long comes before whoever has more, milliseconds.
const PATIENCE_MS: u64 = 5_000;

/// A lease of which nobody of the newest configuration is left is anybody's after its own life and two
/// more.
const LIVES_UNTIL_ABANDONED: u64 = 3;

/// Everybody looks at the lease this often.
const IDLE_TICK_MS: u64 = 500;

/// Credentials of a session's callers: two tenants' and a stranger's.
const CREDENTIALS: u64 = 5;

/// A call of an undisturbed Laravel, there and back, at the most.
const CALL_MS: u64 = 100;

/// For how many times the settling time workers may have a backlog when the gateway has stopped.
const BACKLOGS_MAX: u64 = 4;

/// Events of one run at most: far more than any run needs.
const EVENTS_MAX: u64 = 30_000_000;

/// One run.
pub(super) struct Sim {
    scenario: Scenario,
    machine: Machine,
    hub: SharedHub,
    dice: ChaCha8Rng,
    events: Events,
    now_us: u64,
    threads: Vec<Thread>,
    /// The plugin's configuration, as the last listener update left it.
    configuration: Arc<[u8]>,
    updates: u64,
    vms: u32,
    net: Net,
    hook: Hook,
    traffic: Traffic,
    strikes: Strikes,
    timers: Timers,
    /// Streams that wait in the filter.
    held: BTreeMap<u64, Held>,
    /// What a scenario file adds; none for a seed's script.
    arm: Option<Arm>,
}

/// The configuration's times, as far as the run's end depends on them; ms.
struct Timers {
    call_timeout: u64,
    late: u64,
    max_wait: u64,
    claim: u64,
    settle: u64,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The first thing that does not hold.
    pub failure: Option<Failure>,
    /// Two runs with one hash are the same run.
    pub hash: u64,
    /// Virtual time.
    pub virtual_ms: u64,
    /// Host calls.
    pub host_calls: u64,
    /// Events and host calls.
    pub steps: u64,
    /// Updates that were accepted.
    pub updates: u64,
    /// Requests of the gateway, retries and questions included.
    pub requests: u64,
    /// Calls that reached Laravel from the dispatcher.
    pub calls: u64,
    /// VMs that were started.
    pub vms: u32,
    /// Faults that struck, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Transitions that were seen.
    pub coverage: Coverage,
    /// Every metric's last value, by name.
    pub metrics: BTreeMap<String, u64>,
    /// The trace, as far as it was kept.
    pub lines: Vec<Line>,
}

// === impl Sim ===

impl Sim {
    /// A world at its beginning.
    ///
    /// # Errors
    /// The configuration is none.
    pub(super) fn new(machine: &Machine, scenario: &Scenario, detail: Detail) -> Result<Self> {
        let mut json = scenario.config.clone();
        if let Some(fields) = json.as_object_mut() {
            fields.remove("sabotage");
        }
        let config = Config::parse(json.to_string().as_bytes()).map_err(|problems| {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow!("the scenario's configuration: {}", all.join("; "))
        })?;
        let timers = Timers::of(&config, scenario);
        let hub = SharedHub::new(Hub {
            clock: Clock {
                mono_us: START_US,
                wall_us: WALL_START_US,
            },
            data: SharedData::default(),
            queues: Queues::default(),
            metrics: Metrics::default(),
            cluster: Cluster::Healthy,
            webhook: Cluster::Healthy,
            out: Vec::new(),
            yielded_at: <_>::default(),
            host_calls: 0,
            checker: Checker::new(config, ReadLimits::of(&scenario.config))
                .with_shown(scenario.laravel.shown())
                .with_fallback(
                    Fallback::of(&scenario.config).reliable(scenario.webhook_is_reliable()),
                ),
            trace: Trace::new(detail),
        });
        let mut dice = ChaCha8Rng::seed_from_u64(scenario.seed);
        dice.set_stream(2);
        Ok(Self {
            machine: machine.clone(),
            hub,
            dice,
            events: Events::default(),
            now_us: START_US,
            threads: (0..=scenario.workers).map(Thread::new).collect(),
            configuration: scenario.config.to_string().into_bytes().into(),
            updates: 0,
            vms: 0,
            net: Net::new(scenario, START_US / 1000),
            hook: Hook::new(scenario, START_US / 1000),
            traffic: Traffic::new(scenario),
            strikes: Strikes::default(),
            timers,
            held: BTreeMap::new(),
            arm: None,
            scenario: scenario.clone(),
        })
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The module does not start.
    pub(super) fn run(mut self) -> Result<Report> {
        self.start_process().context("the process does not start")?;
        self.begin_traffic();
        self.schedule_faults();
        self.after_us(LOOK_EVERY_MS * 1000, Event::Look);
        let traffic_end_us = START_US + self.scenario.traffic_ms * 1000;
        let faults_end_us = START_US + self.scenario.faults_end_ms() * 1000;
        let calm_us = traffic_end_us.max(faults_end_us);
        self.events.push(calm_us, 0, Event::Calm);
        let settle_us = self.timers.settle * 1000;
        let mut end_us = calm_us + settle_us;
        let last_us = calm_us + BACKLOGS_MAX * settle_us;
        let (mut handled, mut look_us) = (0_u64, 0);
        while let Some((at_us, event)) = self.events.pop() {
            if at_us > end_us {
                break;
            }
            handled += 1;
            if handled > EVENTS_MAX {
                return Err(anyhow!("the run does not end"));
            }
            self.set_clock(at_us);
            self.handle(event);
            if self.hub.lock().checker.failure().is_some() {
                return Ok(self.report());
            }
            // Every shard is decoded for it, so not at each event.
            if self.now_us >= calm_us.max(look_us) {
                if self.is_at_rest() {
                    break;
                }
                look_us = self.now_us + REST_EVERY_US;
            }
            // A worker that was sent more than it can do has its ticks behind all that.
            if self.traffic.is_busy() {
                end_us = (self.now_us + settle_us).clamp(end_us, last_us.max(end_us));
            }
        }
        {
            let mut hub = self.hub.lock();
            let hub = &mut *hub;
            hub.checker.at_rest(hub.clock, &hub.data, &self.net.laravel);
            hub.checker.never_more(hub.clock, START_US);
        }
        Ok(self.report())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Step { thread } => self.step(thread),
            Event::Timer {
                thread,
                vm,
                context,
                generation,
            } => self.timer(thread, vm, context, generation),
            Event::WakeUp { vm, context, queue } => self.wake_up(vm, context, queue),
            Event::Post { thread, vm, job } => self.post(thread, vm, job),
            Event::Traffic(event) => self.traffic_event(event),
            Event::Net(event) => self.net_event(event),
            Event::Hook(event) => self.hook_event(event),
            Event::Arm(event) => self.arm_event(event),
            Event::Fault { index, begins } => self.fault(index, begins),
            Event::Alternate { first, every_ms } => self.alternate(first, every_ms),
            Event::Calm => self.calm(),
            Event::Look => self.look(),
        }
    }

    fn set_clock(&mut self, at_us: u64) {
        let by_us = at_us.saturating_sub(self.now_us);
        self.now_us = self.now_us.max(at_us);
        let mut hub = self.hub.lock();
        hub.clock.mono_us += by_us;
        hub.clock.wall_us += by_us;
    }

    fn clock(&self) -> Clock {
        self.hub.lock().clock
    }

    fn after_us(&mut self, us: u64, event: Event) {
        let order = self.dice.next_u64();
        self.events.push(self.now_us + us, order, event);
    }

    /// A message's way.
    fn way_us(&mut self) -> u64 {
        self.dice
            .random_range(30..=self.scenario.network_us.max(31))
    }

    fn note(&self, who: &str, number: u64, what: impl FnOnce() -> String) {
        let now_us = self.now_us;
        self.hub.lock().trace.event(now_us, who, number, what);
    }

    /// All faults are over and the gateway has stopped: what is dead may live again.
    fn calm(&mut self) {
        self.note("world", 0, || "calm".to_owned());
        self.revive_workers();
    }

    /// In a calm world nothing takes longer than the timers say.
    fn look(&mut self) {
        if self.scenario.faults.is_empty() && self.scenario.laravel == Setup::default() {
            let call_ms = self.net.usual_call_ms() + 4 * self.scenario.network_us / 1000;
            let mut limit_ms = self.timers.max_wait + call_ms + 1_000 + self.pace_ms();
            if self.scenario.callers.tenants || self.scenario.credentials {
                // Each credential's items go by themselves, and an update that passes holds its session: for as
                // long as a call may take where its caller hangs up.
                limit_ms += CREDENTIALS * self.pace_ms() + self.timers.claim;
            }
            if caller::Caller::are_dressed(&self.scenario) {
                // Then hardly two go together, and who has less waits for its patience to be over.
                let parts = 2 * self.scenario.sessions.len() as u64;
                limit_ms += PATIENCE_MS + parts * self.pace_ms();
            }
            if let Some(preset) = events::Preset::of(&self.scenario.config) {
                // They go one by one, and where only one call at a time may be under way, one after the other.
                let calls = self.scenario.sessions.len() as u64 * preset.kinds();
                limit_ms += preset.kinds() * self.pace_ms() + calls * call_ms;
            }
            let mut hub = self.hub.lock();
            let clock = hub.clock;
            hub.checker.nothing_waits_longer_than(clock, limit_ms);
        }
        self.look_for_isolation();
        if self.is_at_rest() {
            let mut hub = self.hub.lock();
            let clock = hub.clock;
            hub.checker.never_more(clock, START_US);
        }
        self.after_us(LOOK_EVERY_MS * 1000, Event::Look);
    }

    /// Where nothing is wrong but some rows, nobody else waits for long.
    fn look_for_isolation(&mut self) {
        let setup = &self.scenario.laravel;
        let only_rows = Setup {
            throwing: setup.throwing.clone(),
            throwing_line: setup.throwing_line,
            results: setup.results,
            reads: setup.reads.clone(),
            qr_leaves_state: setup.qr_leaves_state,
            null_at_first: setup.null_at_first,
            unborn: setup.unborn.clone(),
            panel: setup.panel.clone(),
            ..Setup::default()
        };
        let is_usual = self.scenario.faults.is_empty() && !self.scenario.callers.tenants;
        let is_plain = is_usual && !self.scenario.credentials && *setup == only_rows;
        if setup.throwing.is_empty() || !is_plain {
            return;
        }
        let throwing = self.net.throwing();
        let limit_ms = ISOLATION_MS + self.pace_ms();
        let mut hub = self.hub.lock();
        let clock = hub.clock;
        hub.checker.nobody_else_waits(clock, &throwing, limit_ms);
    }

    /// How long one call of each session takes at the configured pace: a liveness "within the pace".
    fn pace_ms(&self) -> u64 {
        let per_second = self.scenario.config["max_requests_per_second"].as_u64();
        self.scenario.sessions.len() as u64 * 1_000 / per_second.unwrap_or(20)
    }

    fn is_at_rest(&self) -> bool {
        if self.traffic.is_busy() || self.net.is_busy() || self.hook.is_busy() {
            return false;
        }
        let hub = self.hub.lock();
        let rest = hub.checker.rest(hub.clock, &hub.data);
        rest.pending == 0 && rest.live_claims == 0 && rest.dead_letters == 0
    }

    fn report(mut self) -> Report {
        let faults = std::mem::take(&mut self.strikes.struck);
        let mut hub = self.hub.lock();
        Report {
            failure: hub.checker.failure().cloned(),
            hash: hub.trace.hash(),
            virtual_ms: (self.now_us - START_US) / 1000,
            host_calls: hub.host_calls,
            steps: hub.trace.steps(),
            updates: hub.checker.accepted(),
            requests: self.traffic.requests(),
            calls: self.net.calls(),
            vms: self.vms,
            faults,
            metrics: hub
                .metrics
                .numbers()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            coverage: hub.checker.coverage.clone(),
            lines: hub.trace.take_lines(),
        }
    }
}

/// How often it is asked whether all is over, µs.
const REST_EVERY_US: u64 = 20_000;

/// After a storm of 429 so many calls take so much longer: one in five seconds at first.
const THROTTLED_MS: u64 = 40_000;

/// An item that failed alone, or was refused, waits for as long by itself: half a minute, and a quarter for its jitter.
const ALONE_MS: u64 = 38_000;

// === impl Timers ===

impl Timers {
    fn of(config: &Config, scenario: &Scenario) -> Self {
        let routes = config.routes.iter();
        let max_wait = routes.map(|route| route.batch.max_wait_ms).max();
        let max_wait = max_wait.unwrap_or(0);
        let times = &config.times;
        // What may still be in the way when the faults are over: a claim of unknown fate, a lease that
        // nobody renews (and of which nobody of the newest configuration is left), a back-off or a
        // `retry-after`.
        let claim = config.claim_ms();
        let takeover = LIVES_UNTIL_ABANDONED * times.lease_ms + IDLE_TICK_MS;
        // A date is rounded up to the second.
        let retry_after_ms = (fault::RETRY_AFTER_MAX_S + 1) * 1_000;
        let backoff = config.backoff.max_ms.max(retry_after_ms);
        let kinds = events::Preset::of(&scenario.config).map_or(2, events::Preset::kinds);
        let calls = scenario.sessions.len() as u64 * kinds + 4;
        let pace = 1_000 / config.pace.max_requests_per_second.max(1) + CALL_MS;
        Self {
            call_timeout: times.call_timeout_ms,
            late: times.late_ms,
            max_wait,
            claim,
            settle: claim
                + takeover
                + backoff
                + max_wait
                + 1_000
                + calls * pace
                + THROTTLED_MS
                + ALONE_MS,
        }
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim")
            .field("now_us", &self.now_us)
            .finish_non_exhaustive()
    }
}
