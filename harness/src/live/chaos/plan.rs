//! What goes wrong, and when: all of it from the seed.
//!
//! A run has phases, in shares of its length:
//!
//! ```text
//! 0     5 %      15 %      25 %        32.5 %    37.5 %               85 %   100 %
//! settle │ healthy │ outage  │ recovery  │ healthy │ chaos              │ calm
//! ```
//!
//! * *settle in*: the tenants' tokens are learned, and whatever the machine has to get used to.
//! * *healthy* and *outage* are there to be compared: what the gateway waits for an answer while Laravel
//!   is well and while its port refuses. Healthy is measured on both sides of the outage, because a
//!   machine's other work comes and goes.
//! * *chaos*: each kind of trouble comes and goes by itself, so that they overlap in every way.
//! * *calm*: nothing goes wrong any more, and what was held up must reach Laravel while the gateway goes on.

use std::ops::Range;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::model::laravel::{Fault, Misbehaviour, Required};
use crate::scenario::{Gateway, Happening, Laravel, Scenario, Verb};

/// Borders of the phases, in thousandths of the run.
const HEALTHY: [Range<u64>; 2] = [50..150, 325..375];
const OUTAGE: Range<u64> = 150..250;
const CHAOS: Range<u64> = 375..850;

/// A run of less than this is compressed: in Embudo's shipped times, a session whose call's fate nobody
/// knows waits for half a minute, and little of what may happen would.
const SHORT_SECONDS: u64 = 300;

/// How much faster a short run is.
const COMPRESSION: f64 = 5.0;

/// One session in so many is poison; at least two of each tenant, so that one of them is at work.
const POISON_EVERY: usize = 200;

/// Enough that a request never waits for a worker while others hang: what Laravel has not yet begun when
/// Embudo takes it for dead would be the machine's fault, and against the assumptions (`late_ms`).
const PHP_WORKERS: usize = 64;

/// Who shares the names of the sessions: each has as many, of the same names, and only a header says whose.
const TENANTS: usize = 2;

/// That header.
pub(super) const TENANT_HEADER: &str = "x-tenant";

/// The gateway's token, which Laravel wants to see on every request.
const TOKEN: &str = "Bearer chaos";

/// One session in so many has a row that throws, in each window of that trouble.
const THROWING_EVERY: usize = 50;

/// The header that tells which configuration a call was made with.
const GENERATION: &str = "x-generation";

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// Laravel's port refuses, and its connections are gone.
    Down,
    /// A call hangs until Embudo has given it up, and takes effect after that.
    Hang,
    /// Three calls in ten are answered 5xx, some after they took effect.
    Errors,
    /// Every other call is answered 429.
    Throttled,
    /// The connection breaks before the answer.
    ResetBefore,
    /// The connection breaks in the middle of the answer.
    ResetWithin,
    /// The webhook's port refuses.
    WebhookDown,
    /// The listener has just been updated.
    Update,
    /// The rows of some sessions throw: a 500 for all that is with them in a call.
    Throws,
    /// A proxy answers everything in Laravel's stead: the page of a deploy, of a firewall, of a parked domain.
    Proxy,
}

/// A trouble and its time, in ms since the gateway's first event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) what: Trouble,
    pub(super) at_ms: Range<u64>,
}

/// How long a trouble lasts and how long it then stays away, in thousandths of the chaos.
struct Rhythm {
    lasts: Range<u64>,
    stays_away: Range<u64>,
}

/// Times of Embudo's that a hanging Laravel has to be held against, in ms.
#[derive(Clone, Copy, Debug)]
struct Times {
    call_timeout_ms: u64,
    late_ms: u64,
    send_window_ms: u64,
    retry_after_s: u64,
}

/// All of a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What the arms' own pieces need: traffic, tenants, faults, happenings.
    pub(super) scenario: Scenario,
    /// Every trouble, in the order of time.
    pub(super) windows: Vec<Window>,
    /// What is measured as healthy.
    pub(super) healthy: [Range<u64>; 2],
    /// The outage that is compared with it.
    pub(super) outage: Range<u64>,
    /// The sessions, by index, whose updates Laravel refuses.
    pub(super) poison: Vec<usize>,
    /// The sessions, by index, whose rows throw, and when, in ms since the gateway's first event.
    pub(super) throwing: Vec<(usize, Range<u64>)>,
    /// From when on. Not from the start: what is kept of such a session is doubted, so Laravel itself answers
    /// its reads, and an outage shows there.
    pub(super) poison_from_ms: u64,
}

// === impl Plan ===

impl Plan {
    /// The plan of this seed for a run of so many seconds with so many sessions.
    pub(super) fn new(seed: u64, seconds: u64, sessions: usize) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        // A thousandth of the run is as many ms as it has seconds.
        let span = |share: Range<u64>| share.start * seconds..share.end * seconds;
        let (outage, chaos) = (span(OUTAGE), span(CHAOS));
        let short = seconds < SHORT_SECONDS;
        let times = if short { Times::SHORT } else { Times::SHIPPED };

        let mut windows = vec![Window {
            what: Trouble::Down,
            at_ms: outage.clone(),
        }];
        let mut faults = Vec::new();
        for what in Trouble::ALL {
            for window in recurring(what, &chaos, &mut dice) {
                faults.extend(times.faults(&window, &mut dice));
                windows.push(window);
            }
        }
        windows.sort_by_key(|window| window.at_ms.start);
        let happenings = windows.iter().flat_map(Window::happenings);
        let mut happenings: Vec<(u64, Option<Verb>)> = happenings.collect();
        happenings.sort_by_key(|(at_ms, _)| *at_ms);

        let scenario = Scenario {
            tenant_header: Some(TENANT_HEADER.to_owned()),
            shared_names: true,
            posts: Vec::new(),
            reads: Vec::new(),
            name: "chaos".to_owned(),
            seed,
            sessions,
            seconds,
            settled_within_seconds: times.settled_within_s(),
            compression: if short { COMPRESSION } else { 1.0 },
            workers: 2,
            warm_up: true,
            tenants: TENANTS,
            filter: times.config(0),
            webhook: None,
            gateway: Gateway {
                headers: vec![("authorization".to_owned(), TOKEN.to_owned())],
                ..Gateway::default()
            },
            laravel: Laravel {
                workers: PHP_WORKERS,
                requires: vec![Required {
                    header: "authorization".to_owned(),
                    value: Some(TOKEN.to_owned()),
                    otherwise: 401,
                }],
                ..Laravel::default()
            },
            faults,
            happenings: times.numbered(happenings),
            expectations: Vec::new(),
        };
        Self {
            throwing: throwing(&windows, sessions, &mut dice),
            scenario,
            windows,
            healthy: HEALTHY.map(span),
            outage,
            poison: poison(sessions, &mut dice),
            poison_from_ms: chaos.start,
        }
    }

    /// When Embudo gives a call up.
    pub(super) fn call_timeout_ms(&self) -> u64 {
        let timeout = self.scenario.filter["call_timeout_ms"].as_u64();
        timeout.unwrap_or(u64::MAX)
    }

    /// What is wrong at this time, in one line.
    pub(super) fn phase(&self, at_ms: u64) -> String {
        let now = self.windows.iter().filter(|w| w.at_ms.contains(&at_ms));
        let names: Vec<&str> = now.map(|window| window.what.name()).collect();
        match names.is_empty() {
            true => "nothing wrong".to_owned(),
            false => names.join(" + "),
        }
    }
}

/// The windows of one trouble within the chaos.
fn recurring(what: Trouble, chaos: &Range<u64>, dice: &mut ChaCha8Rng) -> Vec<Window> {
    let share = (chaos.end - chaos.start) / 1000;
    let mut windows = Vec::new();
    let Rhythm { lasts, stays_away } = what.rhythm();
    let mut at_ms = chaos.start + share * dice.random_range(0..stays_away.end);
    while at_ms < chaos.end {
        let until_ms = at_ms + share * dice.random_range(lasts.clone());
        windows.push(Window {
            what,
            at_ms: at_ms..until_ms.min(chaos.end),
        });
        at_ms = until_ms + share * dice.random_range(stays_away.clone());
    }
    windows
}

/// Other rows in each window, a few of each tenant's.
fn throwing(
    windows: &[Window],
    sessions: usize,
    dice: &mut ChaCha8Rng,
) -> Vec<(usize, Range<u64>)> {
    let most = (sessions / THROWING_EVERY).max(1);
    let windows = windows
        .iter()
        .filter(|window| window.what == Trouble::Throws);
    windows
        .flat_map(|window| {
            let rows = (0..most).map(|_| dice.random_range(0..sessions.max(1)));
            let rows: Vec<usize> = rows.collect();
            rows.into_iter().map(|row| (row, window.at_ms.clone()))
        })
        .collect()
}

/// Some of each tenant's sessions, each once. Tenants own every other session.
fn poison(sessions: usize, dice: &mut ChaCha8Rng) -> Vec<usize> {
    let of_each = (sessions / POISON_EVERY / TENANTS).max(2);
    let mut poison: Vec<usize> = (0..TENANTS)
        .flat_map(|tenant| std::iter::repeat_n(tenant, of_each))
        .filter_map(|tenant| {
            let own = sessions.saturating_sub(tenant).div_ceil(TENANTS);
            (own > 0).then(|| dice.random_range(0..own) * TENANTS + tenant)
        })
        .collect();
    poison.sort_unstable();
    poison.dedup();
    poison
}

// === impl Trouble ===

impl Trouble {
    pub(super) const ALL: [Self; 10] = [
        Self::Down,
        // Before what Laravel does: it never hears of it.
        Self::Proxy,
        Self::Throws,
        Self::Hang,
        Self::Errors,
        Self::Throttled,
        Self::ResetBefore,
        Self::ResetWithin,
        Self::WebhookDown,
        Self::Update,
    ];

    /// Each kind comes three times or so, and on average two of them are there at once. With more, Envoy would
    /// eject the host nearly all the time, and what Laravel does to a call would not be seen. So what ejects it
    /// for certain is short; and what can make an older value win, if anything can, is there half of the time.
    fn rhythm(self) -> Rhythm {
        let (lasts, stays_away) = match self {
            Self::Down => (20..60, 150..350),
            Self::Hang => (100..200, 60..150),
            // Nothing comes through while it lasts.
            Self::Proxy => (20..60, 150..350),
            _ => (60..150, 100..350),
        };
        Rhythm { lasts, stays_away }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Down => "Laravel down",
            Self::Hang => "hangs",
            Self::Errors => "5xx",
            Self::Throttled => "429",
            Self::ResetBefore => "resets before the answer",
            Self::ResetWithin => "resets within the answer",
            Self::WebhookDown => "webhook down",
            Self::Update => "listener update",
            Self::Throws => "rows throw",
            Self::Proxy => "a proxy's pages",
        }
    }
}

// === impl Window ===

impl Window {
    /// What happens at its borders; an update is filled in once its number is known.
    fn happenings(&self) -> Vec<(u64, Option<Verb>)> {
        match self.what {
            Trouble::Down => vec![
                (self.at_ms.start, Some(Verb::LaravelDown)),
                (self.at_ms.end, Some(Verb::LaravelUp)),
            ],
            Trouble::Update => vec![(self.at_ms.start, None)],
            _ => Vec::new(),
        }
    }
}

// === impl Times ===

impl Times {
    /// What `{}` means.
    const SHIPPED: Self = Self {
        call_timeout_ms: 15_000,
        late_ms: 15_000,
        send_window_ms: 1_000,
        retry_after_s: 10,
    };

    /// A busy machine is told from a hanging Laravel, and what hangs ends long enough after its timeout to meet
    /// whatever is sent too early.
    const SHORT: Self = Self {
        call_timeout_ms: 1_500,
        late_ms: 6_000,
        send_window_ms: 500,
        retry_after_s: 1,
    };

    /// Embudo's configuration of this generation; a higher one replaces a lower one.
    fn config(&self, generation: usize) -> Value {
        json!({
            "call_timeout_ms": self.call_timeout_ms,
            "late_ms": self.late_ms,
            "send_window_ms": self.send_window_ms,
            "upstream": {"headers": {GENERATION: generation.to_string()}},
        })
    }

    /// A claim that has to run out, the longest ejection (30 s, Envoy's) and the longest back-off, one
    /// after the other, and the calls that are then left to be made.
    fn settled_within_s(&self) -> u64 {
        let claim_ms = self.send_window_ms + self.call_timeout_ms + self.late_ms;
        claim_ms.div_ceil(1000) + 30 + 30 + 30
    }

    fn numbered(&self, happenings: Vec<(u64, Option<Verb>)>) -> Vec<Happening> {
        let mut generation = 0;
        let mut update = || {
            generation += 1;
            Verb::UpdateFilter(self.config(generation))
        };
        let happening = |(at_ms, what): (u64, Option<Verb>)| Happening {
            at_ms,
            what: what.unwrap_or_else(&mut update),
        };
        happenings.into_iter().map(happening).collect()
    }

    /// The rules that Laravel follows within this window, if it is Laravel that is in trouble.
    fn faults(&self, window: &Window, dice: &mut ChaCha8Rng) -> Vec<Fault> {
        let processed = dice.random_bool(0.5);
        let rules = match window.what {
            // Given up by Embudo, and still within the time that PHP may take. The slowest machine has to
            // come to it a third of that time before its end.
            Trouble::Hang => {
                let late_ms = dice.random_range(self.late_ms / 3..self.late_ms * 2 / 3);
                let finish_after_ms = self.call_timeout_ms + late_ms;
                vec![(Misbehaviour::Hang { finish_after_ms }, 0.4)]
            }
            // Three in ten: a rule's dice fall only where those before it let the request go.
            Trouble::Errors => {
                let code = if dice.random_bool(0.5) { 502 } else { 503 };
                vec![
                    (error(500, false), 0.1),
                    (error(500, true), 0.1 / 0.9),
                    (error(code, processed), 0.1 / 0.8),
                ]
            }
            Trouble::Throttled => {
                let wait_s = dice.random_range(1..=self.retry_after_s);
                vec![(Misbehaviour::throttled(wait_s), 0.5)]
            }
            Trouble::ResetBefore => {
                let after_bytes = 0;
                vec![(reset(after_bytes, processed), 0.1)]
            }
            Trouble::ResetWithin => {
                let after_bytes = dice.random_range(1..12);
                vec![(reset(after_bytes, processed), 0.1)]
            }
            Trouble::Proxy => {
                let code = [200, 302, 403, 404][dice.random_range(0..4)];
                let location = None;
                vec![(Misbehaviour::Page { code, location }, 1.0)]
            }
            Trouble::Down | Trouble::WebhookDown | Trouble::Update | Trouble::Throws => Vec::new(),
        };
        let Range { start, end } = window.at_ms;
        let fault = |(what, probability)| Fault::always(what).with_probability(probability);
        let faults = rules.into_iter().map(fault);
        faults.map(|fault| fault.between(start, end)).collect()
    }
}

fn reset(after_bytes: usize, processed: bool) -> Misbehaviour {
    Misbehaviour::Reset {
        after_bytes,
        processed,
    }
}

/// A failing Laravel's answer, or that of the nginx before it; some come after the commit.
fn error(code: u16, after_the_commit: bool) -> Misbehaviour {
    let mut error = Misbehaviour::status(code);
    if let Misbehaviour::Status { processed, .. } = &mut error {
        *processed = after_the_commit;
    }
    error
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use embudo_core::config::Config;

    use super::*;
    use crate::live::scaled;

    fn plan(seed: u64) -> Plan {
        Plan::new(seed, 600, 2_000)
    }

    #[test]
    fn a_seed_decides_the_plan() {
        assert_eq!(plan(7).windows, plan(7).windows);
        assert_eq!(plan(7).scenario.faults, plan(7).scenario.faults);
        assert_ne!(plan(7).windows, plan(8).windows);
    }

    #[test]
    fn every_trouble_comes_and_some_overlap_whatever_the_seed() {
        for (seed, seconds) in (0..50).flat_map(|seed| [(seed, 60), (seed, 600)]) {
            let plan = Plan::new(seed, seconds, 300);
            let kinds: BTreeSet<_> = plan.windows.iter().map(|w| w.what).collect();
            assert_eq!(kinds, Trouble::ALL.into(), "seed {seed}");
            let at_once = |at_ms| {
                let there = plan.windows.iter().filter(|w| w.at_ms.contains(&at_ms));
                there.count()
            };
            let most = (0..seconds * 1000).step_by(100).map(at_once).max();
            assert!(most >= Some(3), "seed {seed}: {most:?} at once");
        }
    }

    #[test]
    fn nothing_goes_wrong_while_healthy_or_calm_is_measured_and_laravel_is_up_at_the_end() {
        for seed in 0..50 {
            let plan = plan(seed);
            let touches = |span: &Range<u64>| {
                let touching = |w: &&Window| w.at_ms.start < span.end && span.start < w.at_ms.end;
                plan.windows.iter().filter(touching).count()
            };
            let calm = CHAOS.end * 600..600_000;
            assert_eq!(plan.healthy.each_ref().map(touches), [0, 0], "seed {seed}");
            assert_eq!(touches(&calm), 0, "seed {seed}");
            assert_eq!(touches(&plan.outage), 1, "the outage and nothing else");
            let happenings = plan.scenario.happenings.iter();
            let ups: Vec<bool> = happenings
                .filter_map(|h| match h.what {
                    Verb::LaravelDown => Some(false),
                    Verb::LaravelUp => Some(true),
                    _ => None,
                })
                .collect();
            assert!(
                ups.chunks(2).all(|pair| pair == [false, true]),
                "seed {seed}: down and up take turns: {ups:?}"
            );
        }
    }

    #[test]
    fn a_minute_long_outage_is_part_of_a_ten_minute_run() {
        assert_eq!(plan(1).outage, 90_000..150_000);
    }

    #[test]
    fn a_hanging_call_outlives_its_timeout_and_ends_before_its_session_is_free_again() {
        for (seed, seconds) in (0..50).flat_map(|seed| [(seed, 60), (seed, 600)]) {
            let plan = Plan::new(seed, seconds, 300);
            let config = &plan.scenario.filter;
            let time = |name: &str| config[name].as_u64().expect("a time");
            let (timeout_ms, late_ms) = (time("call_timeout_ms"), time("late_ms"));
            for fault in &plan.scenario.faults {
                if let Misbehaviour::Hang { finish_after_ms } = fault.what {
                    assert!((timeout_ms..timeout_ms + late_ms).contains(&finish_after_ms));
                }
            }
        }
    }

    #[test]
    fn three_requests_in_ten_fail_while_laravel_fails() {
        let window = Window {
            what: Trouble::Errors,
            at_ms: 0..1_000,
        };
        let faults = Times::SHORT.faults(&window, &mut ChaCha8Rng::seed_from_u64(1));
        let spared = faults.iter().map(|fault| 1.0 - fault.probability);
        let failing = 1.0 - spared.product::<f64>();
        assert!((failing - 0.3).abs() < 1e-9, "{failing}");
    }

    #[test]
    fn each_tenant_has_poison_and_most_sessions_are_none() {
        for (seed, sessions) in (0..50).flat_map(|seed| [(seed, 300), (seed, 2_000)]) {
            let poison = Plan::new(seed, 600, sessions).poison;
            let tenants: BTreeSet<_> = poison.iter().map(|index| index % TENANTS).collect();
            assert_eq!(tenants.len(), TENANTS, "{poison:?}");
            assert!(poison.iter().all(|index| *index < sessions));
            assert!(poison.len() <= sessions / 50, "{poison:?}");
        }
    }

    #[test]
    fn every_configuration_of_a_plan_is_valid() {
        for seconds in [60, 600] {
            let scenario = Plan::new(1, seconds, 300).scenario;
            let updates = scenario.happenings.iter().filter_map(|h| match &h.what {
                Verb::UpdateFilter(config) => Some(config),
                _ => None,
            });
            for config in updates.chain([&scenario.filter]) {
                let config = scaled(config, scenario.compression).to_string();
                Config::parse(config.as_bytes()).expect("this is valid");
            }
        }
    }
}
