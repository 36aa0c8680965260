//! The live arm: a scenario on a real Envoy, in real time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep_until, timeout};

use super::envoy::{Envoy, EnvoyOptions};
use super::filter_config::scaled;
use super::laravel::{LaravelOptions, LaravelServer};
use super::load::{Load, LoadOptions, LoadProgress, LoadReport};
use super::staleness::staleness;
use super::stats::Stats;
use crate::check::Outcome;
use crate::model::gateway::{GatewayConfig, RetryPolicy, session_ids};
use crate::model::http::{Kind, Route};
use crate::model::laravel::{Fault, Journal, LaravelConfig};
use crate::model::order::final_states;
use crate::scenario::{Measure, Measures, Scenario, Verb};

/// How often Envoy is asked whether everything is settled.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How long Laravel may go on with what it has begun.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Runs a scenario.
///
/// # Errors
/// If Envoy or Laravel cannot be started, or Envoy dies. What does not hold is no error: the checker
/// says it.
pub async fn run(scenario: &Scenario) -> Result<Outcome> {
    let epoch = std::time::Instant::now();
    let mut laravel = start_laravel(scenario, epoch).await?;
    let mut options = EnvoyOptions::new("scenario", laravel.addr);
    options.filter_config = scaled(&scenario.filter, scenario.compression);
    options.concurrency = scenario.workers;
    options.watch_listener = scenario
        .happenings
        .iter()
        .any(|h| matches!(h.what, Verb::UpdateFilter(_)));
    let mut envoy = Envoy::start(options).await?;

    let started_ms = laravel.now_ms();
    laravel.set_faults(
        scenario
            .faults
            .iter()
            .map(|fault| shifted(fault, started_ms))
            .collect(),
    );
    let load = Load::start(
        load_options(scenario, &envoy, epoch),
        Arc::new(LoadProgress::default()),
    )?;
    let started = Instant::now();
    for happening in &scenario.happenings {
        sleep_until(started + Duration::from_millis(happening.at_ms)).await;
        match &happening.what {
            Verb::LaravelDown => laravel.down().await,
            Verb::LaravelUp => laravel.up().await?,
            Verb::UpdateFilter(config) => {
                let config = scaled(config, scenario.compression);
                envoy.update_filter_config(&config).await?;
            }
        }
    }
    let report = load.finish().await?;
    let stats = settled(scenario, &mut envoy).await?;
    laravel.idle(IDLE_MAX).await;

    let finals = laravel.with(|laravel| final_states(laravel, &report.sent));
    let traps = envoy.grep_log("Uncaught").len() as u64;
    envoy.stop();
    let journal = laravel.stop().await;
    Ok(Outcome {
        measures: measures(&report, &journal, &stats),
        processed: journal.entries().to_vec(),
        ledger: stats.ledger(),
        sent: report.sent,
        finals,
        traps,
    })
}

async fn start_laravel(scenario: &Scenario, epoch: std::time::Instant) -> Result<LaravelServer> {
    let options = LaravelOptions {
        config: LaravelConfig {
            request_ms: scenario.laravel.request_ms,
            item_ms: scenario.laravel.item_ms,
            ..LaravelConfig::default()
        },
        workers: scenario.laravel.workers,
        accounts: session_ids(scenario.seed, scenario.sessions),
        seed: scenario.seed,
        epoch,
        ..LaravelOptions::default()
    };
    Ok(LaravelServer::start(options).await?)
}

fn load_options(scenario: &Scenario, envoy: &Envoy, epoch: std::time::Instant) -> LoadOptions {
    LoadOptions {
        base_url: envoy.url(),
        prefix: "/api".to_owned(),
        sessions: scenario.sessions,
        seed: scenario.seed,
        duration: Duration::from_secs(scenario.seconds),
        gateway: GatewayConfig {
            scan_probability: scenario.gateway.scan_probability,
            restart_probability: scenario.gateway.restart_probability,
            time_compression: scenario.compression,
        },
        retries: RetryPolicy::default(),
        epoch,
        ..LoadOptions::default()
    }
}

fn shifted(fault: &Fault, by_ms: u64) -> Fault {
    let mut fault = fault.clone();
    fault.from_ms = fault.from_ms.saturating_add(by_ms);
    fault.to_ms = fault.to_ms.saturating_add(by_ms);
    fault
}

/// Waits until nothing is pending, or the scenario's time is over.
async fn settled(scenario: &Scenario, envoy: &mut Envoy) -> Result<Stats> {
    let patience = Duration::from_secs(scenario.settled_within_seconds);
    let wait = async {
        loop {
            let stats = envoy.admin.stats().await?;
            let ledger = stats.ledger();
            if ledger.pending == 0 && ledger.balances() {
                return Ok::<_, anyhow::Error>(stats);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    match timeout(patience, wait).await {
        Ok(stats) => stats,
        Err(_) if envoy.is_running() => envoy.admin.stats().await,
        Err(_) => bail!("Envoy died; its log is in {}", envoy.run_dir.display()),
    }
}

fn measures(report: &LoadReport, journal: &Journal, stats: &Stats) -> Measures {
    let posts = [Kind::PostQr, Kind::PostStatus];
    let batches = [
        Kind::PostQr,
        Kind::PostStatus,
        Kind::PostQrBatch,
        Kind::PostStatusBatch,
    ];
    let sent = posts
        .iter()
        .filter_map(|kind| report.sends.get(kind))
        .sum::<u64>();
    let answered_well: u64 = report
        .answers
        .iter()
        .filter(|((kind, status, _), _)| posts.contains(kind) && (200..300).contains(status))
        .map(|(_, count)| count)
        .sum();
    let counts = journal.counts(u64::MAX);
    let outcome = |outcome: &str| -> u64 {
        let of = |kind: &Kind| report.outcomes(*kind, Some(outcome));
        posts.iter().map(of).sum()
    };
    let staleness = staleness(journal.entries(), &report.sent, Route::Qr);
    let ledger = stats.ledger();
    let largest = stats
        .histogram("embudo.batch_items", &[])
        .quantile(1.0)
        .unwrap_or(0.0);
    [
        (Measure::GatewayPosts, sent as f64),
        (
            Measure::GatewayFailures,
            sent.saturating_sub(answered_well) as f64,
        ),
        (
            Measure::LaravelPosts,
            batches
                .iter()
                .map(|kind| counts.of(*kind).requests)
                .sum::<u64>() as f64,
        ),
        (Measure::Queued, outcome("queued") as f64),
        (Measure::Implied, outcome("implied") as f64),
        (Measure::Delivered, ledger.delivered as f64),
        (Measure::Superseded, ledger.superseded as f64),
        (Measure::Expired, ledger.expired as f64),
        (Measure::BatchItemsMax, largest),
        (
            Measure::QrStalenessP99Ms,
            staleness.value_at_quantile(0.99) as f64,
        ),
    ]
    .into_iter()
    .collect()
}
