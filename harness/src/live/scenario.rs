//! The live arm: a scenario on a real Envoy, in real time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep_until, timeout};

use super::envoy::{Envoy, EnvoyOptions};
use super::filter_config::scaled;
use super::laravel::{LaravelOptions, LaravelServer};
use super::load::{self, Load, LoadOptions, LoadProgress};
use super::stats::Stats;
use crate::check::Outcome;
use crate::measure::measures;
use crate::model::gateway::{RetryPolicy, session_ids};
use crate::model::order::final_states;
use crate::scenario::{Scenario, Verb};

/// How often Envoy is asked whether everything is settled.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How long Laravel may go on with what it has begun.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(60);

/// Runs a scenario.
///
/// # Errors
/// If Envoy or Laravel cannot be started, or Envoy dies. What does not hold is no error: the checker
/// says it.
pub async fn run(scenario: &Scenario) -> Result<Outcome> {
    let epoch = std::time::Instant::now();
    let mut laravel = start_laravel(scenario, epoch).await?;
    let mut envoy = Envoy::start(envoy_options("scenario", scenario, &laravel)).await?;

    let load = load_options(scenario, &envoy, epoch);
    if scenario.warm_up {
        load::warm_up(&load).await?;
        laravel.reset();
    }
    let started_ms = laravel.now_ms();
    laravel.set_faults(
        scenario
            .faults
            .iter()
            .map(|fault| fault.later(started_ms))
            .collect(),
    );
    let load = Load::start(load, Arc::new(LoadProgress::default()))?;
    happen(scenario, Instant::now(), &mut laravel, &mut envoy).await?;
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
        found_inside: Vec::new(),
    })
}

/// Lets everything happen at its time after `started`.
pub(super) async fn happen(
    scenario: &Scenario,
    started: Instant,
    laravel: &mut LaravelServer,
    envoy: &mut Envoy,
) -> Result<()> {
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
    Ok(())
}

pub(super) fn envoy_options(
    name: &str,
    scenario: &Scenario,
    laravel: &LaravelServer,
) -> EnvoyOptions {
    let updates = |verb: &Verb| matches!(verb, Verb::UpdateFilter(_));
    EnvoyOptions {
        filter_config: scaled(&scenario.filter, scenario.compression),
        concurrency: scenario.workers,
        watch_listener: scenario.happenings.iter().any(|h| updates(&h.what)),
        ..EnvoyOptions::new(name, laravel.addr)
    }
}

pub(super) async fn start_laravel(
    scenario: &Scenario,
    epoch: std::time::Instant,
) -> Result<LaravelServer> {
    let options = LaravelOptions {
        config: scenario.laravel_config(),
        workers: scenario.laravel.workers,
        accounts: session_ids(scenario.seed, scenario.sessions),
        seed: scenario.seed,
        epoch,
        ..LaravelOptions::default()
    };
    Ok(LaravelServer::start(options).await?)
}

pub(super) fn load_options(
    scenario: &Scenario,
    envoy: &Envoy,
    epoch: std::time::Instant,
) -> LoadOptions {
    LoadOptions {
        base_url: envoy.url(),
        prefix: "/api".to_owned(),
        sessions: scenario.sessions,
        seed: scenario.seed,
        duration: Duration::from_secs(scenario.seconds),
        gateway: scenario.gateway_config(),
        retries: RetryPolicy::default(),
        authorizations: (0..scenario.sessions)
            .map(|session| scenario.authorization(session))
            .collect(),
        epoch,
        ..LoadOptions::default()
    }
}

/// Waits until nothing is pending, or the scenario's time is over.
pub(super) async fn settled(scenario: &Scenario, envoy: &mut Envoy) -> Result<Stats> {
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
