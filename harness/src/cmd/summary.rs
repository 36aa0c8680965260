//! The figures of an arm, as they go into the table and into `target/embudo/run.json`.

use std::time::Duration;

use anyhow::Result;
use embudo::live::load::{Latencies, LoadReport};
use embudo::live::staleness::staleness;
use embudo::live::{Ledger, paths};
use embudo::model::http::{Kind, Route};
use embudo::report::{self, ArmSeries, Distribution, WholeSeconds};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::arm::Outcome;

/// What the gateway saw.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct GatewaySide {
    /// For how long it sent.
    pub(crate) seconds: f64,
    /// Latency of its POSTs, from the moment each was due.
    pub(crate) gateway_p50_ms: f64,
    pub(crate) gateway_p99_ms: f64,
    pub(crate) gateway_max_ms: f64,
    /// Latency of its GETs, likewise.
    pub(crate) gateway_get_p50_ms: f64,
    pub(crate) gateway_get_p99_ms: f64,
    /// Of any kind, retries included: that is what a gateway sends.
    pub(crate) gateway_requests_per_minute: f64,
    pub(crate) gateway_posts_per_minute: f64,
    pub(crate) gateway_gets_per_minute: f64,
    pub(crate) gateway_retries: u64,
    /// Timeouts, broken connections, and answers that are not 2xx.
    pub(crate) gateway_failures: u64,
}

/// What Laravel saw.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct LaravelSide {
    /// Of any kind.
    pub(crate) laravel_requests_per_minute: f64,
    pub(crate) laravel_posts_per_minute: f64,
    pub(crate) laravel_gets_per_minute: f64,
    /// Bodies only; headers come on top, several hundred bytes a request.
    pub(crate) laravel_bytes_per_minute: f64,
    pub(crate) batch_items_mean: f64,
    pub(crate) batch_items_max: u64,
    /// QRs: from the gateway's send until Laravel has it.
    pub(crate) staleness_p50_ms: u64,
    pub(crate) staleness_p99_ms: u64,
    /// States that travel by themselves, likewise.
    pub(crate) state_staleness_p50_ms: u64,
    pub(crate) state_staleness_p99_ms: u64,
    /// How often an older value took effect after a newer one of the same session.
    pub(crate) older_after_newer: usize,
}

/// One arm.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ArmSummary {
    #[serde(flatten)]
    pub(crate) gateway: GatewaySide,
    #[serde(flatten)]
    pub(crate) laravel: LaravelSide,
    /// What the pictures are drawn from.
    pub(crate) series: ArmSeries,
}

/// `target/embudo/run.json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunSummary {
    pub(crate) sessions: usize,
    pub(crate) seed: u64,
    /// Through Embudo, once each session had been asked for: what the gateway sent, of any kind.
    pub(crate) gateway_requests_per_minute: f64,
    /// And what of it reached Laravel.
    pub(crate) laravel_requests_per_minute: f64,
    pub(crate) direct: ArmSummary,
    pub(crate) through: ArmSummary,
    pub(crate) ledger: Ledger,
}

// === impl GatewaySide ===

impl GatewaySide {
    pub(crate) fn new(load: &LoadReport) -> Self {
        let posts = latencies(load, &Kind::POSTS);
        let gets = latencies(load, &[Kind::GetStatus]);
        let sends = |kinds: &[Kind]| kinds.iter().filter_map(|k| load.sends.get(k)).sum::<u64>();
        Self {
            seconds: load.sent_for.as_secs_f64(),
            gateway_p50_ms: quantile_ms(&posts.from_due, 0.5),
            gateway_p99_ms: quantile_ms(&posts.from_due, 0.99),
            gateway_max_ms: quantile_ms(&posts.from_due, 1.0),
            gateway_get_p50_ms: quantile_ms(&gets.from_due, 0.5),
            gateway_get_p99_ms: quantile_ms(&gets.from_due, 0.99),
            gateway_requests_per_minute: per_minute(load.sends.values().sum(), load.sent_for),
            gateway_posts_per_minute: per_minute(sends(&Kind::POSTS), load.sent_for),
            gateway_gets_per_minute: per_minute(sends(&[Kind::GetStatus]), load.sent_for),
            gateway_retries: load.retries.values().sum(),
            gateway_failures: load.failures(),
        }
    }
}

/// The latencies of some kinds of requests, all together.
fn latencies(load: &LoadReport, kinds: &[Kind]) -> Latencies {
    let mut all = Latencies::default();
    for latencies in kinds.iter().filter_map(|kind| load.latencies.get(kind)) {
        // All have the same bounds, so that adding cannot fail.
        let _ = all.from_due.add(&latencies.from_due);
    }
    all
}

// === impl ArmSummary ===

impl ArmSummary {
    pub(crate) fn new(outcome: &Outcome) -> Self {
        let Outcome {
            load,
            journal,
            arrived,
        } = outcome;
        let count = |kinds: &[Kind]| kinds.iter().map(|&k| arrived.of(k).requests).sum::<u64>();
        let bytes = Kind::POSTS
            .iter()
            .map(|&kind| arrived.of(kind).bytes)
            .sum::<u64>();
        let batches = outcome.batch_sizes();
        let stale = |route| staleness(journal.entries(), &load.sent, route);
        let (qrs, states) = (stale(Route::Qr), stale(Route::Status));
        let laravel = LaravelSide {
            laravel_requests_per_minute: per_minute(arrived.requests(), load.sent_for),
            laravel_posts_per_minute: per_minute(count(&Kind::POSTS), load.sent_for),
            laravel_gets_per_minute: per_minute(count(&[Kind::GetStatus]), load.sent_for),
            laravel_bytes_per_minute: per_minute(bytes, load.sent_for),
            batch_items_mean: mean(&batches),
            batch_items_max: batches.iter().copied().max().unwrap_or(0),
            staleness_p50_ms: qrs.value_at_quantile(0.5),
            staleness_p99_ms: qrs.value_at_quantile(0.99),
            state_staleness_p50_ms: states.value_at_quantile(0.5),
            state_staleness_p99_ms: states.value_at_quantile(0.99),
            older_after_newer: journal.check_order(&load.sent).len(),
        };
        Self {
            gateway: GatewaySide::new(load),
            laravel,
            series: series(outcome, [&qrs, &states]),
        }
    }
}

fn series(outcome: &Outcome, [qrs, states]: [&Histogram<u64>; 2]) -> ArmSeries {
    let Outcome { load, journal, .. } = outcome;
    let seconds = WholeSeconds::of(load);
    let latency = |kinds: &[Kind]| {
        let latencies = latencies(load, kinds);
        Distribution::of_us(&latencies.from_due)
    };
    ArmSeries {
        sent_per_second: seconds.pick(load.per_second.iter().map(|(s, n)| (*s, n.sends))),
        laravel_per_second: seconds.pick(journal.per_second()),
        post_latency: latency(&Kind::POSTS),
        get_latency: latency(&[Kind::GetStatus]),
        qr_staleness: Distribution::of_ms(qrs),
        state_staleness: Distribution::of_ms(states),
    }
}

// === impl RunSummary ===

impl RunSummary {
    pub(crate) fn new(
        (sessions, seed): (usize, u64),
        direct: ArmSummary,
        through: ArmSummary,
        ledger: Ledger,
    ) -> Self {
        Self {
            sessions,
            seed,
            gateway_requests_per_minute: through.gateway.gateway_requests_per_minute,
            laravel_requests_per_minute: through.laravel.laravel_requests_per_minute,
            direct,
            through,
            ledger,
        }
    }

    /// How many of the gateway's requests Laravel was spared, in percent.
    ///
    /// The gateway's own figure of the same arm is the reference, so a gateway that sends more
    /// retries to a slow Laravel does not make Embudo look better.
    pub(crate) fn reduction_percent(&self) -> f64 {
        let sent = self.gateway_requests_per_minute.max(1.0);
        100.0 * (1.0 - self.laravel_requests_per_minute / sent)
    }
}

/// Writes figures to `name` in `target/embudo/`, draws all that are there, and says where both are.
pub(crate) fn publish(figures: &impl Serialize, name: &str) -> Result<()> {
    let file = paths::output().join(name);
    let json = serde_json::to_string_pretty(figures)?;
    paths::write_atomically(&file, format!("{json}\n").as_bytes())?;
    let drawn = match report::write()? {
        Some(pictures) => format!(", drawn in {}", paths::short(&pictures)),
        None => String::new(),
    };
    println!("The figures are in {}{drawn}.", paths::short(&file));
    Ok(())
}

fn per_minute(count: u64, over: Duration) -> f64 {
    let seconds = over.as_secs_f64();
    if seconds > 0.0 {
        rounded(count as f64 * 60.0 / seconds)
    } else {
        0.0
    }
}

fn mean(values: &[u64]) -> f64 {
    match values.len() {
        0 => 0.0,
        n => rounded(values.iter().sum::<u64>() as f64 / n as f64),
    }
}

fn quantile_ms(micros: &Histogram<u64>, q: f64) -> f64 {
    (micros.value_at_quantile(q) as f64 / 10.0).round() / 100.0
}

/// One decimal: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_names_that_are_promised() {
        let (direct, through) = (ArmSummary::default(), ArmSummary::default());
        let summary = RunSummary::new((1, 2), direct, through, Ledger::default());
        let json = serde_json::to_value(&summary).unwrap();
        for arm in ["direct", "through"] {
            for name in [
                "gateway_p50_ms",
                "gateway_p99_ms",
                "gateway_posts_per_minute",
                "laravel_posts_per_minute",
                "laravel_gets_per_minute",
                "laravel_bytes_per_minute",
                "staleness_p50_ms",
                "staleness_p99_ms",
            ] {
                assert!(json[arm][name].is_number(), "{arm}.{name}");
            }
            assert!(json[arm]["series"].is_object(), "{arm}.series");
        }
        for name in ["gateway_requests_per_minute", "laravel_requests_per_minute"] {
            assert!(json[name].is_number(), "{name}");
        }
        for name in [
            "accepted",
            "delivered",
            "superseded",
            "expired",
            "rejected",
            "pending",
        ] {
            assert!(json["ledger"][name].is_u64(), "ledger.{name}");
        }
    }

    #[test]
    fn the_reduction_compares_both_ends_of_the_same_arm() {
        let mut through = ArmSummary::default();
        through.gateway.gateway_requests_per_minute = 5_000.0;
        through.laravel.laravel_requests_per_minute = 100.0;
        let summary = RunSummary::new((1, 2), ArmSummary::default(), through, Ledger::default());
        assert_eq!(rounded(summary.reduction_percent()), 98.0);
    }

    #[test]
    fn rates_are_per_minute_of_sending() {
        assert_eq!(per_minute(50, Duration::from_secs(30)), 100.0);
        assert_eq!(per_minute(50, Duration::ZERO), 0.0);
        assert_eq!(mean(&[1, 2]), 1.5);
        assert_eq!(mean(&[]), 0.0);
    }
}
