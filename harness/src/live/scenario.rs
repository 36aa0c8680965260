//! The live arm: a scenario on a real Envoy, in real time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep_until};

use super::envoy::{Envoy, EnvoyOptions};
use super::filter_config::scaled;
use super::laravel::{LaravelOptions, LaravelServer, WebhookServer};
use super::load::{self, Load, LoadOptions, LoadProgress, LoadReport};
use super::stats::{Ledger, Stats};
use super::wait;
use crate::check::{Failure, Outcome};
use crate::measure::measures;
use crate::model::gateway::RetryPolicy;
use crate::model::order::final_states;
use crate::model::webhook::Received;
use crate::scenario::{Scenario, Verb};

/// How often Envoy is asked whether everything is settled.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The webhook is through once it has heard nothing for so long, after all is settled. A dead letter is
/// written when its item has reached its end.
pub(crate) const WEBHOOK_SILENCE: Duration = Duration::from_secs(1);

/// ... and after so long in any case.
pub(crate) const WEBHOOK_MAX: Duration = Duration::from_secs(20);

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
    let mut webhook = match &scenario.webhook {
        Some(webhook) => Some(WebhookServer::start(webhook.request_ms, epoch).await?),
        None => None,
    };
    let mut options = envoy_options("scenario", scenario, &laravel);
    options.webhook = webhook.as_ref().map(|webhook| webhook.addr.into());
    let mut envoy = Envoy::start(options).await?;

    let load = load_options(scenario, &envoy, epoch);
    if scenario.warm_up {
        load::introduce(&load).await?;
        // What is said from here on is compared with what Laravel gets from here on.
        settled(scenario, &mut envoy).await?;
        load::warm_up(&load).await?;
    }
    laravel.reset();
    let started_ms = laravel.now_ms();
    laravel.with(|laravel| *laravel.throwing_mut() = scenario.throwing(started_ms));
    laravel.set_faults(
        scenario
            .faults
            .iter()
            .map(|fault| fault.later(started_ms))
            .collect(),
    );
    if let (Some(server), Some(webhook)) = (&webhook, &scenario.webhook) {
        let faults = webhook.faults.iter().map(|fault| fault.later(started_ms));
        server.set_faults(scenario.seed, faults.collect());
    }
    let load = Load::start(load, Arc::new(LoadProgress::default()))?;
    let started = Instant::now();
    happen(
        scenario,
        started,
        &mut laravel,
        webhook.as_mut(),
        &mut envoy,
    )
    .await?;
    let report = load.finish().await?;
    let stats = settled(scenario, &mut envoy).await?;
    laravel.idle(IDLE_MAX).await;
    let handed_over = match &webhook {
        Some(webhook) => silent(webhook).await,
        None => Vec::new(),
    };

    let finals = laravel.with(|laravel| final_states(laravel, &report.sent));
    let traps = envoy.grep_log("Uncaught").len() as u64;
    envoy.stop();
    let journal = laravel.stop().await;
    Ok(Outcome {
        measures: measures(scenario, &report, &journal, &handed_over, &stats),
        processed: journal.entries().to_vec(),
        handed_over,
        ledger: stats.ledger(),
        finals,
        traps,
        found_inside: wrong_reads(&report),
        sent: report.sent,
    })
}

/// The reads of the script that were not answered as they must be.
pub(crate) fn wrong_reads(report: &LoadReport) -> Vec<Failure> {
    let wrong = report.wrong_reads.iter().cloned();
    let rule = "reads_are_answered_as_they_must_be";
    wrong.map(|what| Failure { rule, what }).collect()
}

/// Lets everything happen at its time after `started`.
pub(super) async fn happen(
    scenario: &Scenario,
    started: Instant,
    laravel: &mut LaravelServer,
    mut webhook: Option<&mut WebhookServer>,
    envoy: &mut Envoy,
) -> Result<()> {
    for happening in &scenario.happenings {
        sleep_until(started + Duration::from_millis(happening.at_ms)).await;
        match &happening.what {
            Verb::LaravelDown => laravel.down().await,
            Verb::LaravelUp => laravel.up().await?,
            Verb::WebhookDown => {
                if let Some(webhook) = &mut webhook {
                    webhook.down().await;
                }
            }
            Verb::WebhookUp => {
                if let Some(webhook) = &mut webhook {
                    webhook.up().await?;
                }
            }
            Verb::SetState { session, state } => {
                let (name, now_ms) = (scenario.account(*session), laravel.now_ms());
                laravel.with(|laravel| laravel.set_state(now_ms, &name, state));
            }
            Verb::Reads(reads) => laravel.with(|laravel| laravel.set_reads(reads.clone())),
            Verb::AddAccount(session) => {
                let name = scenario.account(*session);
                laravel.with(|laravel| laravel.add_account(&name));
            }
            Verb::RemoveAccount(session) => {
                let name = scenario.account(*session);
                laravel.with(|laravel| laravel.remove_account(&name));
            }
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
        accounts: scenario.accounts(),
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
        identities: scenario.identities(),
        quiet: scenario.gateway.quiet,
        script: scenario.script(),
        epoch,
        ..LoadOptions::default()
    }
}

/// Waits until the webhook hears nothing any more, and gives what it has heard.
async fn silent(webhook: &WebhookServer) -> Vec<Received> {
    let until = Instant::now() + WEBHOOK_MAX;
    let mut heard = webhook.received();
    while Instant::now() < until {
        tokio::time::sleep(WEBHOOK_SILENCE).await;
        let now = webhook.received();
        if now == heard {
            break;
        }
        heard = now;
    }
    heard
}

/// Waits until nothing is pending, or the scenario's time is over.
pub(super) async fn settled(scenario: &Scenario, envoy: &mut Envoy) -> Result<Stats> {
    let patience = Duration::from_secs(scenario.settled_within_seconds);
    let settled = wait::some(patience, ASK_EVERY, async || {
        let stats = envoy.admin.stats().await;
        let goes_on = |ledger: Ledger| ledger.pending > 0 || !ledger.balances();
        let waits = stats.as_ref().is_ok_and(|stats| goes_on(stats.ledger()));
        (!waits).then_some(stats)
    });
    match settled.await {
        Some(stats) => stats,
        None if envoy.is_running() => envoy.admin.stats().await,
        None => bail!("Envoy died; its log is in {}", envoy.run_dir.display()),
    }
}
