//! What is shown, from two looks at Envoy's figures.

use std::collections::BTreeMap;
use std::time::Instant;

use embudo::live::Stats;
use embudo::live::stats::Histogram;
use serde::Serialize;

/// Envoy's figures and when they were read.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) stats: Stats,
}

/// Everything that is shown. Its JSON is promised in the help of the command: fields are added, not
/// renamed. Counts are since Envoy's start; `None` where Envoy has no such figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    /// The admin page, as it was given.
    pub(super) admin: String,
    /// Whether this Envoy has metrics of Embudo's at all.
    pub(super) embudo_found: bool,
    /// Envoy's age in seconds.
    pub(super) uptime_s: Option<u64>,
    /// The time between the two looks, in ms: rates are over this.
    pub(super) window_ms: u64,
    /// All stores of this Envoy together: what is counted is summed, else the worst counts.
    #[serde(flatten)]
    pub(super) all: StoreFigures,
    /// Each store by its label: the plugin's name, and the `vm_id` where that differs.
    pub(super) stores: BTreeMap<String, StoreFigures>,
    /// By route and outcome.
    pub(super) requests_total: Table,
    /// By route and end.
    pub(super) items_total: Table,
    /// What is believed of Laravel: how much of each belief is proven, unproven, disproved, assumed.
    pub(super) beliefs: Table,
    /// Fresh answers to reads beside what was expected: same, differs, late.
    pub(super) reads_compared_total: BTreeMap<String, u64>,
    /// By route and verdict.
    pub(super) calls: BTreeMap<String, BTreeMap<String, Rate>>,
    /// All calls.
    pub(super) calls_total: u64,
    /// All calls, a minute.
    pub(super) calls_per_minute: f64,
    /// From a call's start to Laravel's answer, in ms.
    pub(super) call_ms: Percentiles,
    /// From an update's acceptance to Laravel's answer, in ms.
    pub(super) staleness_ms: Percentiles,
    /// Updates in a call.
    pub(super) batch_items: Percentiles,
    /// Everything that the ledger has to account for.
    pub(super) accepted_total: u64,
    /// Whether it does. Only for a moment false while all is well: gauges follow counters by a tick.
    pub(super) ledger_balances: bool,
    /// Envoy's breaker of the dispatcher's cluster; `None` where the cluster has none.
    pub(super) outlier_detection: Option<Outlier>,
    /// VMs that trapped and were replaced.
    pub(super) vm_reloads_total: u64,
    /// VMs that trapped and could not be.
    pub(super) vm_reload_failures_total: u64,
}

/// What the leader of a store says of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct StoreFigures {
    /// Updates that have not met their end.
    pub(super) pending_items: Option<u64>,
    /// The age of the oldest one, in ms.
    pub(super) oldest_pending_ms: Option<u64>,
    /// What the dispatcher takes Laravel for.
    pub(super) circuit: Option<Circuit>,
    /// Whether Laravel is slower than configured as slow.
    pub(super) laravel_slow: Option<bool>,
    /// Whether the beat moved between the looks; `None` while no leader has been elected.
    pub(super) leader_alive: Option<bool>,
    /// The beat itself.
    pub(super) leader_beat: Option<u64>,
    /// Requests that wait for their session's turn.
    pub(super) held_requests: Option<u64>,
    /// Updates that have failed alone.
    pub(super) suspect_items: Option<u64>,
    /// Callers of which Laravel has accepted something.
    pub(super) proven_callers: Option<u64>,
}

/// Counts by two labels.
pub(super) type Table = BTreeMap<String, BTreeMap<String, u64>>;

/// The values of the gauge `embudo.circuit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Circuit {
    Closed,
    HalfOpen,
    Open,
    Misconfigured,
    /// A value that this version does not know.
    Unknown,
}

/// A counter, and how fast it grows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) total: u64,
    pub(super) per_minute: f64,
}

/// A histogram in short; the values are the upper edges of Envoy's bins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) samples: u64,
    pub(super) p50: Option<f64>,
    pub(super) p90: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) max: Option<f64>,
}

/// Envoy's outlier detection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Outlier {
    pub(super) cluster: String,
    /// Hosts that are ejected now.
    pub(super) ejections_active: u64,
    /// Ejections so far.
    pub(super) ejections_total: u64,
    pub(super) hosts_healthy: u64,
    pub(super) hosts_total: u64,
}

// === impl Figures ===

impl Figures {
    /// What `last` shows, with rates and the leader's life since `first`.
    pub(super) fn between(admin: &str, cluster: &str, first: &Look, last: &Look) -> Self {
        let window = last.at.saturating_duration_since(first.at);
        let (old, new) = (&first.stats, &last.stats);
        let minutes = window.as_secs_f64() / 60.0;
        let rate = |before: u64, total: u64| {
            let grown = total.saturating_sub(before) as f64;
            let per_minute = if minutes > 0.0 { grown / minutes } else { 0.0 };
            Rate {
                total,
                per_minute: (per_minute * 10.0).round() / 10.0,
            }
        };
        let by = |stats: &Stats, name, label| stats.counters_by_two(name, "route", label);
        let before = by(old, "embudo.calls", "verdict");
        let calls = by(new, "embudo.calls", "verdict")
            .into_iter()
            .map(|(route, verdicts)| {
                let was = before.get(&route);
                let rates = verdicts.into_iter().map(|(verdict, total)| {
                    let was = was.and_then(|verdicts| verdicts.get(&verdict));
                    let rate = rate(was.copied().unwrap_or(0), total);
                    (verdict, rate)
                });
                (route, rates.collect())
            })
            .collect();
        let all_calls = rate(
            old.counter("embudo.calls", &[]),
            new.counter("embudo.calls", &[]),
        );
        let reloads = new.vm_reloads();
        let ledger = new.ledger();
        Self {
            admin: admin.to_owned(),
            embudo_found: new.has_embudo(),
            uptime_s: new.find("server.uptime"),
            window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
            all: StoreFigures::of_all(old, new),
            stores: StoreFigures::by_store(old, new),
            requests_total: by(new, "embudo.requests", "outcome"),
            items_total: by(new, "embudo.items", "end"),
            beliefs: new.counters_by_two("embudo.beliefs", "belief", "state"),
            reads_compared_total: new.counters_by("embudo.reads_compared", "result"),
            calls,
            calls_total: all_calls.total,
            calls_per_minute: all_calls.per_minute,
            call_ms: Percentiles::of(&new.histogram("embudo.call_ms", &[])),
            staleness_ms: Percentiles::of(&new.histogram("embudo.staleness_ms", &[])),
            batch_items: Percentiles::of(&new.histogram("embudo.batch_items", &[])),
            accepted_total: ledger.accepted,
            ledger_balances: ledger.balances(),
            outlier_detection: Outlier::of(cluster, new),
            vm_reloads_total: reloads.success,
            vm_reload_failures_total: reloads.failure,
        }
    }
}

// === impl StoreFigures ===

impl StoreFigures {
    fn by_store(old: &Stats, new: &Stats) -> BTreeMap<String, Self> {
        let of = |name: &String| {
            let gauge = |stats: &Stats, what: &str| {
                let by = stats.gauge_by_store(&format!("embudo.{what}"));
                by.get(name).copied()
            };
            Self::of(&|what| gauge(new, what), gauge(old, "leader_beat"))
        };
        let names = new.gauge_by_store("embudo.leader_beat").into_keys();
        names.map(|name| (name.clone(), of(&name))).collect()
    }

    fn of_all(old: &Stats, new: &Stats) -> Self {
        let gauge = |stats: &Stats, what: &str| stats.gauge(&format!("embudo.{what}"));
        let mut all = Self::of(&|what| gauge(new, what), gauge(old, "leader_beat"));
        // One that has nothing to deliver may have gone with its listener.
        let stores = Self::by_store(old, new);
        let is_left = |store: &&Self| store.leader_alive == Some(false);
        let mut left = stores.values().filter(is_left);
        if left.any(|store| store.pending_items > Some(0)) {
            all.leader_alive = Some(false);
        }
        all
    }

    fn of(gauge: &dyn Fn(&str) -> Option<u64>, beat_before: Option<u64>) -> Self {
        let beat = gauge("leader_beat").filter(|beat| *beat > 0);
        Self {
            pending_items: gauge("pending"),
            oldest_pending_ms: gauge("oldest_pending_ms"),
            circuit: gauge("circuit").map(Circuit::of),
            laravel_slow: gauge("laravel_slow").map(|slow| slow > 0),
            leader_alive: beat.map(|beat| beat_before != Some(beat)),
            leader_beat: beat,
            held_requests: gauge("held"),
            suspect_items: gauge("suspects"),
            proven_callers: gauge("proven"),
        }
    }
}

// === impl Circuit ===

impl Circuit {
    fn of(gauge: u64) -> Self {
        match gauge {
            0 => Self::Closed,
            1 => Self::HalfOpen,
            2 => Self::Open,
            3 => Self::Misconfigured,
            _ => Self::Unknown,
        }
    }

    /// As a person reads it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
            Self::Misconfigured => "misconfigured",
            Self::Unknown => "unknown",
        }
    }
}

// === impl Percentiles ===

impl Percentiles {
    fn of(histogram: &Histogram) -> Self {
        // An edge such as 0.1 + 0.01 is not what anybody wants to read.
        let at = |q| histogram.quantile(q).map(|v| (v * 1000.0).round() / 1000.0);
        Self {
            samples: histogram.count(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

// === impl Outlier ===

impl Outlier {
    fn of(cluster: &str, stats: &Stats) -> Option<Self> {
        let find = |what: &str| stats.find(&format!("cluster.{cluster}.{what}"));
        Some(Self {
            cluster: cluster.to_owned(),
            ejections_active: find("outlier_detection.ejections_active")?,
            ejections_total: find("outlier_detection.ejections_enforced_total").unwrap_or(0),
            hosts_healthy: find("membership_healthy").unwrap_or(0),
            hosts_total: find("membership_total").unwrap_or(0),
        })
    }
}
