//! A scenario file in this world.
//!
//! What a seed's script leaves to chance is given here, as on the live arm: the gateway's sessions with
//! their flows and retries, Laravel's workers and accounts, and Envoy's cluster with the outlier
//! detection of `envoy.yaml`. The scenario's end is the live arm's as well: the gateway stops, what is
//! under way ends, the module settles, Laravel becomes idle.
//!
//! # Layout
//! * `gateway`: the load, an open loop with a report.
//! * `laravel`: PHP's workers, and a Laravel that is down.
//! * `webhook`: the webhook, if there is one.
//! * `outlier`: Envoy's outlier detection of one host.

mod gateway;
mod laravel;
mod outlier;
mod webhook;

use anyhow::{Context as _, Result, bail};
use rand::RngExt as _;

use self::gateway::{Gateway, GatewayEvent};
use self::laravel::Workers;
use self::outlier::{INTERVAL_US, Outlier};
use self::webhook::Silence;
use super::queue::Event;
use super::{Callers, EVENTS_MAX, Pace, START_US, Setup, Sim};
use crate::check::{Failure, Outcome};
use crate::live::scaled;
use crate::live::scenario::{WEBHOOK_MAX, WEBHOOK_SILENCE, wrong_reads};
use crate::live::stats::Stats;
use crate::measure::measures;
use crate::model::gateway::Answer;
use crate::model::order::final_states;
use crate::scenario::{Scenario, Verb};
use crate::sim::host::{Machine, Response};
use crate::sim::trace::{Detail, Line};

/// The live arm's Envoy serves for a moment before the first event: a leader is there by then.
const BEGIN_US: u64 = 2_000_000;

/// How often the module is asked whether everything is settled, as on the live arm.
const ASK_EVERY_US: u64 = 100_000;

/// How long flows may go on once no more begin; the live load's own bound.
const DRAIN_US: u64 = 20_000_000;

/// How long Laravel may go on with what it has begun.
const IDLE_MAX_US: u64 = 60_000_000;

/// The webhook is through once it has heard nothing for so long; the live arm's own bounds.
const SILENCE_US: u64 = WEBHOOK_SILENCE.as_micros() as u64;
const HEARING_MAX_US: u64 = WEBHOOK_MAX.as_micros() as u64;

/// `--drain-time-s` of the live arm's Envoy.
const DRAIN_TIME_MS: u64 = 10_000;

/// A host call on the machines that Envoy runs on, µs at most.
const HOST_CALL_US: u64 = 3;

/// One host call in so many finds its thread put aside: tests and Envoy share a machine with others.
const HICCUP_ONE_IN: u32 = 200;

/// Put aside for so long, µs at most: a time slice or two.
const HICCUP_US: u64 = 10_000;

/// A message on the loopback, µs at most.
const NETWORK_US: u64 = 300;

/// From the last question before the first event to that event, µs.
const WARM_UP_REST_US: u64 = 3_000_000;

/// What a scenario file adds to the world.
#[derive(Debug)]
pub(in crate::sim) struct Arm {
    scenario: Scenario,
    /// When the first event may be, µs.
    begun_us: u64,
    gateway: Gateway,
    workers: Workers,
    outlier: Outlier,
    phase: Phase,
    traps: u64,
}

/// How far the scenario has come.
#[derive(Debug)]
enum Phase {
    /// Events begin, or flows are under way.
    Sending,
    /// The module has until then to settle.
    Settling { until_us: u64 },
    /// Laravel has until then to end what it has begun.
    Ending { until_us: u64, stats: Stats },
    /// The webhook has until then to hear nothing more.
    Hearing {
        until_us: u64,
        silence: Silence,
        stats: Stats,
    },
    /// All is over.
    Over(Stats),
}

/// The scenario's events.
#[derive(Debug)]
pub(super) enum ArmEvent {
    /// The gateway's.
    Gateway(GatewayEvent),
    /// A session is asked for before the first event.
    WarmsUp(usize),
    /// Something is said of a session, before it is asked for.
    Introduces(usize),
    /// The first event may be: from now on all is measured.
    Begins,
    /// A happening, by its place in the file.
    Happens(usize),
    /// Envoy looks whether an ejection is over.
    OutlierLooks,
    /// Whether the next phase may begin.
    Asks,
}

/// Runs a scenario to its end.
pub(in crate::sim) fn run(
    machine: &Machine,
    scenario: &Scenario,
    chance: u64,
    detail: Detail,
) -> Result<(Outcome, Vec<Line>)> {
    let script = super::Scenario {
        seed: chance,
        workers: scenario.workers as usize,
        sessions: Vec::new(),
        faults: Vec::new(),
        traffic_ms: scenario.seconds * 1000,
        config: scaled(&scenario.filter, scenario.compression),
        pace: Pace {
            call_us: HOST_CALL_US,
            hiccup_one_in: HICCUP_ONE_IN,
            hiccup_us: HICCUP_US,
        },
        credentials: false,
        network_us: NETWORK_US,
        callers: Callers::default(),
        laravel: Setup {
            reads: scenario.laravel.reads.clone(),
            qr_leaves_state: scenario.laravel.qr_leaves_state,
            ..Setup::default()
        },
    };
    let mut sim = Sim::new(machine, &script, detail)?;
    let begun_us = START_US + BEGIN_US + warm_up_us(scenario);
    sim.net.laravel = laravel::laravel(scenario, begun_us / 1000);
    sim.hook = webhook::hook(scenario, &script, begun_us / 1000);
    sim.arm = Some(Arm {
        scenario: scenario.clone(),
        begun_us,
        gateway: Gateway::new(scenario),
        workers: Workers::new(scenario.laravel.workers),
        outlier: Outlier::default(),
        phase: Phase::Sending,
        traps: 0,
    });
    sim.run_file()
}

/// How long the questions before the first event take: one after the other at each of PHP's workers, with
/// some air between them.
fn warm_up_us(scenario: &Scenario) -> u64 {
    match scenario.warm_up {
        true => 2 * introduction_us(scenario),
        false => 0,
    }
}

/// How long it takes to say something of each session, one after the other, until Laravel has it; and to ask for each.
fn introduction_us(scenario: &Scenario) -> u64 {
    (scenario.sessions as u64 + 1) * warm_up_gap_us(scenario) + WARM_UP_REST_US
}

fn warm_up_gap_us(scenario: &Scenario) -> u64 {
    2_000 * scenario.laravel_config().request_ms / scenario.laravel.workers.max(1) as u64
}

// === impl Arm ===

impl Arm {
    /// A VM trapped that nobody ordered to.
    pub(super) fn trapped(&mut self) {
        self.traps += 1;
    }

    fn sent_until_us(&self) -> u64 {
        self.begun_us + self.scenario.seconds * 1_000_000
    }
}

// === impl ArmEvent ===

impl ArmEvent {
    /// An answer has reached the gateway.
    pub(super) fn answered(stream: u64, answer: Answer) -> Self {
        Self::Gateway(GatewayEvent::Answered(stream, answer))
    }
}

// === impl Sim ===

impl Sim {
    fn run_file(mut self) -> Result<(Outcome, Vec<Line>)> {
        self.start_process().context("the process does not start")?;
        self.begin_file();
        for _ in 0..EVENTS_MAX {
            let Some((at_us, event)) = self.events.pop() else {
                break;
            };
            self.set_clock(at_us);
            self.handle(event);
            if let Some(Phase::Over(_)) = self.arm.as_ref().map(|arm| &arm.phase) {
                return self.outcome();
            }
        }
        bail!("the scenario does not end")
    }

    fn begin_file(&mut self) {
        let Some(arm) = &self.arm else { return };
        let (begun_us, end_us) = (arm.begun_us, arm.sent_until_us());
        let times: Vec<u64> = arm.scenario.happenings.iter().map(|h| h.at_ms).collect();
        for (index, at_ms) in times.into_iter().enumerate() {
            let event = Event::Arm(ArmEvent::Happens(index));
            self.events
                .push(begun_us + at_ms * 1000, index as u64, event);
        }
        if arm.scenario.warm_up {
            let gap_us = warm_up_gap_us(&arm.scenario);
            let introduced_us = introduction_us(&arm.scenario);
            for index in 0..arm.scenario.sessions {
                let at_us = START_US + BEGIN_US + index as u64 * gap_us;
                let event = Event::Arm(ArmEvent::Introduces(index));
                self.events.push(at_us, index as u64, event);
                let event = Event::Arm(ArmEvent::WarmsUp(index));
                self.events.push(at_us + introduced_us, index as u64, event);
            }
        }
        self.events.push(begun_us, 0, Event::Arm(ArmEvent::Begins));
        self.begin_gateway();
        // Envoy's timer knows nothing of the scenario's beginning.
        let first_look_us = self.dice.random_range(0..INTERVAL_US);
        self.after_us(first_look_us, Event::Arm(ArmEvent::OutlierLooks));
        self.events.push(end_us, 0, Event::Arm(ArmEvent::Asks));
    }

    pub(super) fn arm_event(&mut self, event: ArmEvent) {
        match event {
            ArmEvent::Gateway(event) => self.gateway_event(event),
            ArmEvent::Introduces(index) => self.introduces(index),
            ArmEvent::WarmsUp(index) => self.warms_up(index),
            ArmEvent::Begins => self.net.laravel.journal_mut().reset(self.now_us / 1000),
            ArmEvent::Happens(index) => self.happens(index),
            ArmEvent::OutlierLooks => self.outlier_looks(),
            ArmEvent::Asks => {
                self.asks();
                self.after_us(ASK_EVERY_US, Event::Arm(ArmEvent::Asks));
            }
        }
    }

    fn happens(&mut self, index: usize) {
        let happening = self.arm.as_ref();
        let happening = happening.and_then(|arm| arm.scenario.happenings.get(index).cloned());
        let Some(happening) = happening else { return };
        self.note("world", index as u64, || format!("{:?}", happening.what));
        match happening.what {
            Verb::LaravelDown => self.laravel_goes_down(),
            Verb::LaravelUp => self.net.refusing = 0,
            Verb::WebhookDown => self.webhook_goes_down(),
            Verb::WebhookUp => self.hook.refusing = 0,
            Verb::SetState { session, state } => {
                let name = self.account(session);
                let now_ms = self.now_us / 1000;
                self.net.laravel.set_state(now_ms, &name, &state);
                self.hub.lock().checker.panel_sets(&name, &state);
            }
            Verb::Reads(reads) => self.net.laravel.set_reads(reads),
            Verb::AddAccount(session) => {
                let name = self.account(session);
                self.net.laravel.add_account(&name);
                self.hub.lock().checker.account_changes(&name);
            }
            Verb::RemoveAccount(session) => {
                let name = self.account(session);
                self.net.laravel.remove_account(&name);
                self.hub.lock().checker.account_changes(&name);
            }
            Verb::UpdateFilter(config) => {
                let compression = self.arm.as_ref().map_or(1.0, |a| a.scenario.compression);
                let json = scaled(&config, compression).to_string();
                self.reconfigure(json.into_bytes().into(), DRAIN_TIME_MS);
            }
        }
    }

    fn account(&self, session: usize) -> String {
        let arm = self.arm.as_ref();
        arm.map(|arm| arm.scenario.account(session))
            .unwrap_or_default()
    }

    /// Whether a file says what its reads must be answered: then they are, without a mark.
    pub(super) fn has_scripted_reads(&self) -> bool {
        let arm = self.arm.as_ref();
        arm.is_some_and(|arm| !arm.scenario.reads.is_empty())
    }

    // ## Sending => Settling => Ending (=> Hearing) => Over

    fn asks(&mut self) {
        let now_us = self.now_us;
        let stats = self.stats();
        let Some(arm) = &mut self.arm else { return };
        let patience_us = arm.scenario.settled_within_seconds * 1_000_000;
        let over = now_us >= arm.sent_until_us() + DRAIN_US;
        if matches!(arm.phase, Phase::Sending) && (over || arm.gateway.is_idle()) {
            arm.gateway.stop();
            let until_us = now_us + patience_us;
            arm.phase = Phase::Settling { until_us };
        }
        if let Phase::Settling { until_us } = arm.phase {
            let ledger = stats.ledger();
            let settled = ledger.pending == 0 && ledger.balances();
            if settled || now_us >= until_us {
                let until_us = now_us + IDLE_MAX_US;
                arm.phase = Phase::Ending { until_us, stats };
            }
        }
        if let Phase::Ending { until_us, stats } = &arm.phase
            && (arm.workers.are_idle() || now_us >= *until_us)
        {
            let stats = stats.clone();
            arm.phase = match arm.scenario.webhook {
                None => Phase::Over(stats),
                Some(_) => Phase::Hearing {
                    until_us: now_us + HEARING_MAX_US,
                    silence: Silence::default(),
                    stats,
                },
            };
        }
        if let Phase::Hearing {
            until_us,
            silence,
            stats,
        } = &mut arm.phase
        {
            let heard = self.hook.webhook.received().len();
            let silent = silence.lasts_us(heard, now_us) >= SILENCE_US && !self.hook.is_busy();
            if silent || now_us >= *until_us {
                arm.phase = Phase::Over(stats.clone());
            }
        }
    }

    /// The module's figures, as Envoy's admin page shows them.
    fn stats(&self) -> Stats {
        let hub = self.hub.lock();
        Stats::of_module(hub.metrics.numbers(), hub.metrics.histograms())
    }

    fn outlier_sees(&mut self, status: u16) {
        let now_us = self.now_us;
        let Some(arm) = &mut self.arm else { return };
        arm.outlier.sees(status, now_us);
        self.hub.lock().cluster = arm.outlier.cluster();
    }

    /// A call of the dispatcher's has ended like this.
    pub(super) fn call_ended(&mut self, response: &Response) {
        match response.status() {
            Some(status) => self.outlier_sees(status),
            // The status line was there, and then the connection broke.
            None => {
                self.outlier_sees(200);
                self.outlier_sees(503);
            }
        }
    }

    fn outlier_looks(&mut self) {
        let now_us = self.now_us;
        let Some(arm) = &mut self.arm else { return };
        arm.outlier.looks(now_us);
        self.hub.lock().cluster = arm.outlier.cluster();
        self.after_us(INTERVAL_US, Event::Arm(ArmEvent::OutlierLooks));
    }

    fn outcome(mut self) -> Result<(Outcome, Vec<Line>)> {
        let arm = self.arm.take().context("no scenario was run")?;
        let Phase::Over(stats) = arm.phase else {
            bail!("the scenario is not over");
        };
        let cold = arm.gateway.warming.len();
        if cold > 0 {
            bail!("the state of {cold} sessions could not be read before the start");
        }
        let ledger = stats.ledger();
        let mut hub = self.hub.lock();
        let hub = &mut *hub;
        if ledger.pending == 0 {
            let clock = hub.clock;
            hub.checker.at_rest(clock, &hub.data, &self.net.laravel);
        }
        // The checker knows the configuration, and the Laravel, that the scenario began with, and no other.
        let changes = |verb: &Verb| matches!(verb, Verb::UpdateFilter(_) | Verb::Reads(_));
        let changed = arm.scenario.happenings.iter().any(|h| changes(&h.what));
        let found = hub.checker.failure().filter(|_| !changed);
        let found_inside = found.map(|failure| Failure {
            rule: failure.invariant.name(),
            what: failure.to_string(),
        });
        let report = arm.gateway.into_report();
        let mut found_inside: Vec<Failure> = found_inside.into_iter().collect();
        found_inside.extend(wrong_reads(&report));
        let journal = self.net.laravel.journal();
        let received = self.hook.webhook.received();
        let outcome = Outcome {
            measures: measures(&arm.scenario, &report, journal, received, &stats),
            processed: journal.entries().to_vec(),
            handed_over: received.to_vec(),
            ledger,
            finals: final_states(&self.net.laravel, &report.sent),
            sent: report.sent,
            traps: arm.traps,
            found_inside,
        };
        Ok((outcome, hub.trace.take_lines()))
    }
}
