//! What a run is made of, as data: who sends, what goes wrong and when, and how Embudo is set up.
//!
//! A seed makes a scenario, and the scenario with its seed makes the run. So a failing seed can be
//! shrunk: sessions and faults are taken away one after the other, and what is left is still a scenario.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::caller::Callers;
use super::events;
use super::fault::{self, Fault, Verb};
use crate::model::laravel::{Beside, Reads};
use crate::scenario::BatchRoute;
use crate::sim::check::Shown;

/// The shortest time, milliseconds, that a request is held until it is its turn.
const HOLD_MIN_MS: u64 = 1_000;

/// One run's script.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Decides everything that the script leaves open.
    pub seed: u64,
    /// Envoy's `--concurrency`; the main thread comes on top.
    pub workers: usize,
    /// The sessions that send.
    pub sessions: Vec<Plan>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// How long the gateway sends.
    pub traffic_ms: u64,
    /// Embudo's configuration.
    pub config: Value,
    /// How time passes within a callback.
    pub pace: Pace,
    /// Callers of one session use two credentials in turn, and both are trusted.
    pub credentials: bool,
    /// How long a message is on its way between two processes, µs at most.
    pub network_us: u64,
    /// Who calls for the sessions.
    pub callers: Callers,
    /// How Laravel is set up.
    pub laravel: Setup,
}

/// How Laravel is set up for the whole of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// Numbers of the sessions that it takes nothing of.
    pub poison: Vec<usize>,
    /// Whether its 422 leaves open which items it is about.
    pub anonymous: bool,
    /// Whether batches are answered item by item.
    pub results: bool,
    /// The longest body that it takes, where that is little.
    pub body_bytes_max: Option<usize>,
    /// What is behind the paths of the batches.
    pub batch_route: BatchRoute,
    /// Sessions whose rows throw, from when until when, ms of the run.
    pub throwing: Vec<(usize, u64, u64)>,
    /// What a row that throws says where batches are answered item by item; 500 where it is 0.
    pub throwing_line: u16,
    /// `max:` of a batch's array.
    pub batch_items_max: Option<usize>,
    /// Whether batches are answered 204.
    pub silent_batches: bool,
    /// What each item of a batch costs, ms, where that is much.
    pub item_ms: Option<u64>,
    /// How it answers reads.
    pub reads: Reads,
    /// Whether a QR leaves the state alone.
    pub qr_leaves_state: bool,
    /// Whether the state of an account that was told nothing yet is null.
    pub null_at_first: bool,
    /// Sessions that reads know nothing of until then, ms of the run.
    pub unborn: Vec<(usize, u64)>,
    /// Sessions whose state another route changes, when, ms of the run, and to what.
    pub panel: Vec<(usize, u64, &'static str)>,
}

/// One session's way of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its number: its name and its stream of chance depend on it, whoever else is there.
    pub index: usize,
    /// What it does.
    pub style: Style,
}

/// Ways of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As the gateway does it, this many times faster.
    Gateway {
        /// The factor.
        times_faster: u32,
    },
    /// Anything at any time, from a few values, so that they repeat.
    Chaos {
        /// From one send to the next, at most.
        gap_ms: u64,
        /// Whether it waits for the answer before it sends again.
        patient: bool,
    },
    /// A fixed round of updates, each of them new: for tests that look at one callback.
    Round {
        /// From one send to the next.
        gap_ms: u64,
    },
}

/// How time passes within a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// A host call takes up to this, µs.
    pub call_us: u64,
    /// One in so many takes much longer; 0 for none.
    pub hiccup_one_in: u32,
    /// Up to this, µs.
    pub hiccup_us: u64,
}

/// Envoy's plugin configuration for a run, compressed or as shipped.
struct Times {
    call_timeout: u64,
    send_window: u64,
    late: u64,
    lease: u64,
    backoff_max: u64,
    ttl: u64,
    max_age: u64,
    expire: u64,
    max_wait: u64,
    quiet: u64,
}

// === impl Scenario ===

impl Scenario {
    /// The scenario of a seed. Every seed draws its own weights first, so that some runs are calm, some
    /// are wild, and some know one kind of trouble only.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(1);
        let as_shipped = dice.random_bool(0.03);
        let times = match as_shipped {
            true => Times::shipped(),
            false => Times::drawn(&mut dice),
        };
        let sessions: Vec<Plan> = (0..dice.random_range(2..=10_usize))
            .map(|index| Plan {
                index,
                style: style(&mut dice, as_shipped),
            })
            .collect();
        let traffic_ms = match as_shipped {
            true => 120_000,
            false => dice.random_range(8_000..=30_000),
        };
        let calm = dice.random_bool(0.08);
        let faults = match calm {
            true => Vec::new(),
            false => fault::draw(&mut dice, traffic_ms, times.call_timeout, times.late),
        };
        let mut config = times.config(&mut dice);
        let credentials = dice.random_bool(0.15);
        if credentials {
            config["assume"] = json!({"callers": true});
        }
        let workers = dice.random_range(2..=3);
        let pace = Pace::drawn(&mut dice);
        let network_us = *pick(&mut dice, &[300, 2_000, 20_000]);
        let mut callers = Callers::drawn(&mut dice);
        callers.tenants &= !credentials;
        if !as_shipped {
            for (key, from) in [
                ("read_refresh_ms", [300, 2_000, 10_000]),
                ("stale_if_error_ms", [200, 2_000, 20_000]),
                ("refresh_timeout_ms", [50, 200, 1_000]),
            ] {
                config[key] = json!(pick(&mut dice, &from));
            }
        }
        // A stream of its own: what was drawn before this was thought of stays as it is.
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(3);
        let laravel = Setup::drawn(&mut dice, sessions.len());
        let mut faults = faults;
        if !faults.is_empty() {
            fault::draw_verdicts(&mut dice, traffic_ms, &mut faults);
        }
        events::dress(seed, &mut config);
        // The webhook's model reads what the gateway's own events become.
        if config.get("preset").is_none() {
            let calm = faults.is_empty();
            faults.extend(fallback(&mut dice, &mut config, traffic_ms, calm));
        }
        hold_callers(seed, &mut config);
        let mut laravel = laravel;
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(5_000);
        if !faults.is_empty() {
            laravel.draw_rows(&mut dice, sessions.len(), traffic_ms);
            fault::draw_proxies(&mut dice, traffic_ms, &mut faults);
            if dice.random_bool(0.08) {
                config["max_requests_per_second"] = json!(pick(&mut dice, &[1, 2]));
            }
        } else if dice.random_bool(0.5) {
            laravel.draw_throwing(&mut dice, sessions.len(), traffic_ms);
        }
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(6_000);
        laravel.draw_reads(&mut dice, &mut config, (sessions.len(), traffic_ms));
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(7_000);
        draw_others(&mut dice, &mut config, &mut callers);
        Self {
            seed,
            laravel,
            credentials,
            workers,
            sessions,
            faults,
            traffic_ms,
            config,
            pace,
            network_us,
            callers,
        }
    }

    /// Whether nothing is ever wrong with the webhook.
    pub(super) fn webhook_is_reliable(&self) -> bool {
        let wrong = |verb: &Verb| {
            matches!(
                verb,
                Verb::Webhook(..) | Verb::WebhookRefuses | Verb::NoWebhook
            )
        };
        !self.faults.iter().any(|fault| wrong(&fault.verb))
    }

    /// When the last fault is over.
    #[must_use]
    pub fn faults_end_ms(&self) -> u64 {
        self.faults.iter().map(Fault::ends_ms).max().unwrap_or(0)
    }
}

/// A webhook, in some runs, and what goes wrong with it where anything does.
fn fallback(dice: &mut impl Rng, config: &mut Value, traffic_ms: u64, calm: bool) -> Vec<Fault> {
    if dice.random_bool(0.5) {
        return Vec::new();
    }
    config["fallback"] = json!({
        "cluster": "webhook",
        "path": "/webhook",
        "after_attempts": pick(dice, &[1, 2, 5]),
    });
    if dice.random_bool(0.5) {
        config["fallback"]["authority"] = json!("hooks.test");
        config["fallback"]["headers"] = json!({"authorization": "Bearer of-the-webhook"});
    }
    match calm || dice.random_bool(0.5) {
        true => Vec::new(),
        false => fault::draw_webhook(dice, traffic_ms),
    }
}

/// Batches of the gateway's own and requests of other routes, in some runs; and barriers for these, mostly.
fn draw_others(dice: &mut impl Rng, config: &mut Value, callers: &mut Callers) {
    if !dice.random_bool(0.35) || config.get("preset").is_some() {
        return;
    }
    callers.others = *pick(dice, &[5, 20, 40]);
    if dice.random_bool(0.8) {
        config["barriers"] = json!([
            {"method": "POST", "path": "/whatsapp-webhook/{session}"},
            {"method": "DELETE", "path": "/whatsapp/account/{session}", "forgets": true},
            {"method": "POST", "path": "/whatsapp/logout/{session}", "forgets": true},
        ]);
    }
}

/// Callers of a route, or of both, wait for what becomes of their updates in some seeds. All chance here is of a
/// stream of its own, so that the other seeds are what they are without it.
fn hold_callers(seed: u64, config: &mut Value) {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    dice.set_stream(4_000);
    if !dice.random_bool(0.15) || config.get("preset").is_some() {
        return;
    }
    config["ack_timeout_ms"] = json!(pick(&mut dice, &[100, 400, 2_000, 10_000]));
    let routes: [&[usize]; 3] = [&[0, 1], &[0], &[1]];
    for route in *pick(&mut dice, &routes) {
        config["routes"][*route]["ack"] = json!("delivered");
    }
}

fn style(dice: &mut impl Rng, as_shipped: bool) -> Style {
    if dice.random_bool(0.3) {
        let times_faster = match as_shipped {
            true => 4,
            false => dice.random_range(10..=60),
        };
        return Style::Gateway { times_faster };
    }
    Style::Chaos {
        gap_ms: *pick(dice, &[50, 300, 1_000, 4_000]),
        patient: dice.random_bool(0.7),
    }
}

pub(super) fn pick<'a, T>(dice: &mut impl Rng, from: &'a [T]) -> &'a T {
    // Never empty: all callers name their choices.
    &from[dice.random_range(0..from.len())]
}

// === impl Setup ===

impl Setup {
    fn drawn(dice: &mut impl Rng, sessions: usize) -> Self {
        let mut setup = Self::default();
        if dice.random_bool(0.12) {
            let poisoned = dice.random_range(1..=sessions.div_ceil(3));
            setup.poison = (0..poisoned).collect();
            setup.anonymous = dice.random_bool(0.5);
        }
        if dice.random_bool(0.05) {
            setup.body_bytes_max = Some(*pick(dice, &[300, 600, 1_500]));
        }
        setup.results = dice.random_bool(0.3);
        if dice.random_bool(0.08) {
            setup.batch_route = *pick(dice, &[BatchRoute::Missing, BatchRoute::Page]);
        }
        setup
    }
}

impl Setup {
    fn draw_throwing(&mut self, dice: &mut impl Rng, sessions: usize, traffic_ms: u64) {
        for session in 0..dice.random_range(1..=sessions.div_ceil(3)) {
            let from_ms = dice.random_range(0..traffic_ms);
            let for_ms = *pick(dice, &[1_000, 5_000, 20_000]);
            let to_ms = (from_ms + for_ms).min(traffic_ms);
            self.throwing.push((sessions - 1 - session, from_ms, to_ms));
        }
        self.throwing_line = *pick(dice, &[500, 500, 503, 429]);
    }

    /// How reads are answered, as the checker has to know it.
    pub(super) fn shown(&self) -> Shown {
        Shown {
            beside: self.reads.beside,
            seen_after_ms: self.reads.seen_after_ms,
            qr_leaves_state: self.qr_leaves_state,
        }
    }

    /// What reads show, and what is assumed of them.
    fn draw_reads(
        &mut self,
        dice: &mut impl Rng,
        config: &mut Value,
        (sessions, traffic_ms): (usize, u64),
    ) {
        let reads = &mut self.reads;
        // Half of them are as the project's own, so that the store answers a good part.
        if dice.random_bool(0.65) {
            let kinds = [
                Beside::Nothing,
                Beside::Nothing,
                Beside::Nothing,
                Beside::Account,
                Beside::Phone,
                Beside::Clock,
                Beside::Qr,
            ];
            reads.beside = *pick(dice, &kinds);
        }
        let implies = dice.random_bool(0.4);
        // Other gateways' events have no route of their own for a QR.
        self.qr_leaves_state = !implies && dice.random_bool(0.5) && config.get("preset").is_none();
        let settle_ms = *pick(dice, &[0, 100, 300, 2_000]);
        if dice.random_bool(0.3) {
            reads.seen_after_ms = *pick(dice, &[settle_ms / 10, settle_ms / 2, settle_ms]);
        }
        reads.nested = dice.random_bool(0.15);
        reads.has_others = true;
        if dice.random_bool(0.15) {
            reads.depends_on = Some("accept-language".to_owned());
        }
        if dice.random_bool(0.15) {
            let names = ["origin", "accept-language", "accept, accept-language", "*"];
            reads.vary = Some((*pick(dice, &names)).to_owned());
        }
        reads.sets_cookie = dice.random_bool(0.05);
        reads.allows_origin = dice.random_bool(0.3);
        self.null_at_first = dice.random_bool(0.15);
        reads.unknown_is_200 = dice.random_bool(0.5);
        if dice.random_bool(0.15) {
            let until_ms = dice.random_range(0..traffic_ms);
            self.unborn = vec![(dice.random_range(0..sessions), until_ms)];
        }
        if dice.random_bool(0.15) {
            let times = dice.random_range(1..=6);
            let states = ["inactive", "active", "banned"];
            let mut stop = || {
                let (session, at_ms) = (
                    dice.random_range(0..sessions),
                    dice.random_range(0..traffic_ms),
                );
                (session, at_ms, *pick(dice, &states))
            };
            self.panel = (0..times).map(|_| stop()).collect();
        }
        let mut assume = config["assume"].as_object().cloned().unwrap_or_default();
        assume.insert("implies".to_owned(), json!(implies));
        let is_plain = matches!(self.reads.beside, Beside::Nothing | Beside::Account);
        if is_plain && self.reads.seen_after_ms == 0 && dice.random_bool(0.6) {
            assume.insert("reads".to_owned(), json!(true));
        }
        config["assume"] = json!(assume);
        config["settle_ms"] = json!(settle_ms);
    }

    /// Rows that throw, for a while; rows that are slow; batches with a maximum, and ones without a word.
    fn draw_rows(&mut self, dice: &mut impl Rng, sessions: usize, traffic_ms: u64) {
        if dice.random_bool(0.3) {
            self.draw_throwing(dice, sessions, traffic_ms);
        }
        if dice.random_bool(0.06) {
            self.batch_items_max = Some(*pick(dice, &[1, 2, 4]));
        }
        self.silent_batches = dice.random_bool(0.05);
        if dice.random_bool(0.1) {
            self.item_ms = Some(*pick(dice, &[20, 100, 300]));
        }
    }
}

// === impl Pace ===

impl Pace {
    fn drawn(dice: &mut impl Rng) -> Self {
        Self {
            call_us: *pick(dice, &[3, 20, 200]),
            hiccup_one_in: *pick(dice, &[0, 1000, 200, 40]),
            hiccup_us: *pick(dice, &[1_000, 20_000, 80_000]),
        }
    }
}

// === impl Times ===

impl Times {
    fn shipped() -> Self {
        Self {
            call_timeout: 15_000,
            send_window: 1_000,
            late: 15_000,
            lease: 3_000,
            backoff_max: 30_000,
            ttl: 300_000,
            max_age: 600_000,
            expire: 60_000,
            max_wait: 5_000,
            quiet: 250,
        }
    }

    fn drawn(dice: &mut impl Rng) -> Self {
        Self {
            call_timeout: dice.random_range(500..=2_500),
            send_window: *pick(dice, &[150, 300, 1_000]),
            late: dice.random_range(100..=2_500),
            lease: *pick(dice, &[1_000, 1_000, 3_000]),
            backoff_max: dice.random_range(200..=2_000),
            ttl: dice.random_range(1_500..=15_000),
            max_age: dice.random_range(3_000..=20_000),
            expire: dice.random_range(1_000..=6_000),
            max_wait: *pick(dice, &[200, 1_000, 5_000]),
            quiet: *pick(dice, &[20, 100, 250]),
        }
    }

    fn config(&self, dice: &mut impl Rng) -> Value {
        let batch = |items: u64| json!({"max_items": items, "max_wait_ms": self.max_wait, "quiet_ms": self.quiet});
        json!({
            "max_sessions": pick(dice, &[16, 64, 128]),
            "max_requests_per_second": pick(dice, &[5, 20, 50]),
            "max_in_flight": pick(dice, &[1, 2, 4]),
            "call_timeout_ms": self.call_timeout,
            "send_window_ms": self.send_window,
            "late_ms": self.late,
            "hold_ms": HOLD_MIN_MS + self.late,
            "lease_ms": self.lease,
            "backoff_min_ms": 100,
            "backoff_max_ms": self.backoff_max,
            "dedup_ttl_ms": self.ttl,
            "max_age_ms": self.max_age,
            "priority_gap_ms": pick(dice, &[0, 200, 1_000]),
            "routes": [
                {"name": "qr", "expire_after_ms": self.expire, "batch": batch(*pick(dice, &[2, 50]))},
                {"name": "status", "batch": batch(*pick(dice, &[2, 100]))},
            ],
        })
    }
}
