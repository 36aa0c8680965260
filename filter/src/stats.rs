//! The metrics, as Envoy stats.
//!
//! Labels are written into the name (`embudo.requests;route=qr;outcome=queued`) and taken out again by
//! `stats_config.stats_tags` in `envoy.yaml`. What an operator looks for is defined at start, so that it
//! shows as 0; the reasons of a bypass are defined when the first one happens.

use embudo_core::ack::Told;
use embudo_core::config::{Ack, Config, Route};
use embudo_core::hold::{Go, Turn};
use embudo_core::intake::Reply;
use embudo_core::kept::ReadResult;
use embudo_core::route::Bypass;
use embudo_core::verdict::VerdictLabel;
use embudo_dispatch::{Counter, End, Gauge, Histogram};
use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

/// Ids of defined metrics; `None` where the host refused, which costs the figure and nothing else.
#[derive(Debug)]
pub(crate) struct Stats {
    routes: Vec<RouteStats>,
    reads: Vec<[Option<u32>; 3]>,
    /// What fresh answers were, by [`ReadResult`].
    compared: [Option<u32>; ReadResult::ALL.len()],
    /// Each reason's, of no route and then of each; the inner one as above, once it is defined.
    bypasses: Vec<[Option<Option<u32>>; Bypass::ALL.len()]>,
    call_bytes: Option<u32>,
    batch_items: Option<u32>,
    call_ms: Option<u32>,
    staleness_ms: Option<u32>,
    /// The leader's, by [`Gauge`].
    gauges: [Option<u32>; GAUGES.len()],
    held: Option<u32>,
    /// Calls that the webhook did not take, and that it took; only where there is one.
    webhook_calls: [Option<u32>; 2],
}

#[derive(Debug)]
struct RouteStats {
    name: String,
    queued: Option<u32>,
    duplicate: Option<u32>,
    implied: Option<u32>,
    stale: Option<u32>,
    /// By the reason; those of [`THROUGH`] are defined at once.
    through: [Option<Option<u32>>; Bypass::ALL.len()],
    /// Held, and went on in its turn; went on outside the order.
    held: Option<u32>,
    outside: Option<u32>,
    busy: Option<u32>,
    revived: Option<u32>,
    fallback: Option<u32>,
    dead_letters: Option<u32>,
    items: [Option<u32>; End::ALL.len()],
    calls: [Option<u32>; VerdictLabel::ALL.len()],
    /// What callers that waited were told, and those that could not be held.
    told: [Option<u32>; Told::ALL.len()],
    unheld: Option<u32>,
}

/// Why a recognised update goes to Laravel by itself, under its session's claim.
const THROUGH: [Bypass; 4] = [
    Bypass::Unproven,
    Bypass::Outage,
    Bypass::ShardFull,
    Bypass::Misconfigured,
];

/// The gauges' names, in the order of [`Gauge`].
const GAUGES: [&str; 16] = [
    "pending",
    "oldest_pending_ms",
    "leader_beat",
    "circuit",
    "laravel_slow",
    "suspects",
    "proven",
    "beliefs;belief=batch;state=proven",
    "beliefs;belief=batch;state=unproven",
    "beliefs;belief=batch;state=disproved",
    "beliefs;belief=reads;state=proven",
    "beliefs;belief=reads;state=unproven",
    "beliefs;belief=reads;state=disproved",
    "beliefs;belief=reads;state=assumed",
    "beliefs;belief=implies;state=unproven",
    "beliefs;belief=implies;state=assumed",
];

/// Who answered a read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadOutcome {
    /// The store.
    Cached,
    /// The store, because Laravel failed.
    Stale,
    /// Laravel.
    Fresh,
}

fn through(route: &str, reason: Bypass) -> Option<u32> {
    counter(&format!(
        "embudo.requests;route={route};outcome=write_through;reason={reason}"
    ))
}

fn define(kind: MetricType, name: &str) -> Option<u32> {
    hostcalls::define_metric(kind, name).ok()
}

fn counter(name: &str) -> Option<u32> {
    define(MetricType::Counter, name)
}

/// The host refuses to add 0 to a counter.
fn add(metric: Option<u32>, amount: u64) {
    if let (Some(metric), Ok(amount @ 1..)) = (metric, i64::try_from(amount)) {
        let _ = hostcalls::increment_metric(metric, amount);
    }
}

fn record(metric: Option<u32>, value: u64) {
    if let Some(metric) = metric {
        let _ = hostcalls::record_metric(metric, value);
    }
}

// === impl Stats ===

impl Stats {
    /// Defines the metrics of a configuration's routes, and the gauges of this store: another one in the same Envoy
    /// has a leader of its own, and a gauge is whatever was set last.
    pub(crate) fn define(config: &Config, store: &str) -> Self {
        Self {
            routes: config
                .routes
                .iter()
                .map(|route| RouteStats::define(route, config.fallback.is_some()))
                .collect(),
            bypasses: vec![[None; Bypass::ALL.len()]; config.routes.len().saturating_add(1)],
            reads: config
                .reads
                .iter()
                .map(|read| {
                    ReadOutcome::ALL.map(|outcome| {
                        let (name, outcome) = (&read.name, outcome.label());
                        counter(&format!(
                            "embudo.requests;route=get_{name};outcome={outcome}"
                        ))
                    })
                })
                .collect(),
            compared: ReadResult::ALL
                .map(|result| counter(&format!("embudo.reads_compared;result={}", result.label()))),
            call_bytes: counter("embudo.call_bytes"),
            batch_items: define(MetricType::Histogram, "embudo.batch_items"),
            call_ms: define(MetricType::Histogram, "embudo.call_ms"),
            staleness_ms: define(MetricType::Histogram, "embudo.staleness_ms"),
            gauges: GAUGES
                .map(|name| define(MetricType::Gauge, &format!("embudo.{name};store={store}"))),
            held: define(MetricType::Gauge, &format!("embudo.held;store={store}")),
            webhook_calls: ["retry", "delivered"].map(|verdict| {
                let name = format!("embudo.webhook_calls;verdict={verdict}");
                config.fallback.as_ref().and_then(|_| counter(&name))
            }),
        }
    }

    /// Counts an intercepted request.
    pub(crate) fn reply(&mut self, route: usize, reply: Reply) {
        if let Reply::Bypass(reason) = reply {
            return self.bypass(Some(route), reason);
        }
        let Some(stats) = self.routes.get_mut(route) else {
            return;
        };
        let metric = match reply {
            Reply::Queued => stats.queued,
            Reply::Duplicate => stats.duplicate,
            Reply::Implied => stats.implied,
            Reply::Stale => stats.stale,
            Reply::WriteThrough(reason) => {
                let name = &stats.name;
                let known = stats.through.get_mut(reason.index());
                known.and_then(|known| *known.get_or_insert_with(|| through(name, reason)))
            }
            Reply::Outside(_) => stats.outside,
            // Counted when it goes on.
            Reply::Held(_) => return,
            Reply::Busy | Reply::Bypass(_) => stats.busy,
        };
        add(metric, 1);
    }

    /// Counts what a caller was told that has waited, or that one could not be held.
    pub(crate) fn told(&self, route: usize, told: Option<Told>) {
        if let Some(stats) = self.routes.get(route) {
            let metric = match told {
                Some(told) => *stats.told.get(told.index()).unwrap_or(&None),
                None => stats.unheld,
            };
            add(metric, 1);
        }
    }

    /// Counts a request that was held and goes on.
    pub(crate) fn went_on(&mut self, turn: &Turn) {
        if let Go::Answer(reply) = turn.go {
            return self.reply(turn.route, reply);
        }
        if let Some(stats) = self.routes.get(turn.route) {
            let metric = match turn {
                Turn { go: Go::Busy, .. } => stats.busy,
                Turn {
                    is_outside: true, ..
                } => stats.outside,
                _ => stats.held,
            };
            add(metric, 1);
        }
    }

    /// Adds to the number of requests that are held, of all workers.
    pub(crate) fn held(&self, more: i64) {
        if let Some(metric) = self.held {
            let _ = hostcalls::increment_metric(metric, more);
        }
    }

    /// Counts a read.
    pub(crate) fn read(&self, read: usize, outcome: ReadOutcome) {
        if let Some(metrics) = self.reads.get(read) {
            add(*metrics.get(outcome as usize).unwrap_or(&None), 1);
        }
    }

    /// Counts what a fresh answer was beside what was expected.
    pub(crate) fn compared(&self, result: ReadResult) {
        add(*self.compared.get(result as usize).unwrap_or(&None), 1);
    }

    /// Counts an untouched request.
    pub(crate) fn bypass(&mut self, route: Option<usize>, reason: Bypass) {
        let name = route
            .and_then(|index| self.routes.get(index))
            .map_or("none", |r| &r.name);
        let place = route.map_or(0, |index| index.saturating_add(1));
        let metrics = self.bypasses.get_mut(place);
        let Some(metric) = metrics.and_then(|metrics| metrics.get_mut(reason.index())) else {
            return;
        };
        let metric = metric.get_or_insert_with(|| {
            counter(&format!(
                "embudo.requests;route={name};outcome=bypass;reason={reason}"
            ))
        });
        add(*metric, 1);
    }

    /// Adds to a counter of the core's.
    pub(crate) fn count(&mut self, counter: Counter, amount: u64) {
        let route = |index: usize| self.routes.get(index);
        let metric = match counter {
            Counter::Items(index, end) => {
                route(index).and_then(|r| *r.items.get(end as usize).unwrap_or(&None))
            }
            Counter::Revived(index) => route(index).and_then(|r| r.revived),
            Counter::Calls(index, verdict) => {
                route(index).and_then(|r| *r.calls.get(verdict as usize).unwrap_or(&None))
            }
            Counter::CallBytes => self.call_bytes,
            Counter::Fallback(index) => route(index).and_then(|r| r.fallback),
            Counter::DeadLetters(index) => route(index).and_then(|r| r.dead_letters),
            Counter::WebhookCalls(taken) => {
                *self.webhook_calls.get(usize::from(taken)).unwrap_or(&None)
            }
        };
        add(metric, amount);
    }

    /// Records in a histogram of the core's.
    pub(crate) fn record(&self, histogram: Histogram, value: u64) {
        let metric = match histogram {
            Histogram::BatchItems => self.batch_items,
            Histogram::CallMs => self.call_ms,
            Histogram::StalenessMs => self.staleness_ms,
        };
        record(metric, value);
    }

    /// Sets a gauge. Only the leader's core asks for it: a gauge is whatever was set last.
    pub(crate) fn set(&self, gauge: Gauge, value: u64) {
        record(*self.gauges.get(gauge as usize).unwrap_or(&None), value);
    }
}

// === impl ReadOutcome ===

impl ReadOutcome {
    const ALL: [Self; 3] = [Self::Cached, Self::Stale, Self::Fresh];

    fn label(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Stale => "stale",
            Self::Fresh => "fresh",
        }
    }
}

// === impl RouteStats ===

impl RouteStats {
    fn define(route: &Route, has_fallback: bool) -> Self {
        let name = &route.name;
        let told = |end: &str| match route.ack {
            Ack::Accept => None,
            Ack::Delivered => counter(&format!("embudo.acks;route={name};end={end}")),
        };
        let outcome =
            |outcome: &str| counter(&format!("embudo.requests;route={name};outcome={outcome}"));
        let hook = |what: &str| {
            let name = format!("embudo.{what};route={name}");
            if has_fallback { counter(&name) } else { None }
        };
        Self {
            name: name.to_owned(),
            queued: outcome("queued"),
            duplicate: outcome("duplicate"),
            implied: outcome("implied"),
            stale: outcome("stale"),
            through: Bypass::ALL
                .map(|reason| THROUGH.contains(&reason).then(|| through(name, reason))),
            held: outcome("held"),
            outside: outcome("outside"),
            busy: outcome("busy"),
            revived: counter(&format!("embudo.revived;route={name}")),
            fallback: hook("fallback"),
            dead_letters: hook("dead_letters"),
            items: End::ALL
                .map(|end| counter(&format!("embudo.items;route={name};end={}", end.label()))),
            calls: VerdictLabel::ALL.map(|verdict| {
                counter(&format!(
                    "embudo.calls;route={name};verdict={}",
                    verdict.text()
                ))
            }),
            told: Told::ALL.map(|end| told(end.label())),
            unheld: told("unheld"),
        }
    }
}
