//! Chaos: a real Envoy under everything that can go wrong, at once, for minutes.
//!
//! A scenario has one trouble and knows what must come of it to the request. Here troubles overlap as the
//! seed has it, and what must come of it is what Embudo guarantees whatever happens: nothing lost, nothing
//! overtaken, no credential with another's sessions, books that balance, no VM dead, memory that stays, and
//! a gateway that does not notice.
//!
//! The seed decides what goes wrong and when; a real Envoy on a real machine does the rest, so a seed gives
//! the same troubles again, and not the same run. For what is to be replayed step by step there is the
//! simulation.
//!
//! # Layout
//!
//! * `plan`: the phases of a run, and its troubles.
//! * `watch`: Envoy's memory, second by second.
//! * `stranger`: somebody who asks for other people's sessions.
//! * `report`: the figures, and what is wrong with them.

mod plan;
mod report;
mod stranger;
mod watch;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::time::sleep_until;

use self::plan::{Plan, Trouble};
pub use self::report::ChaosReport;
use self::report::Evidence;
use self::stranger::Stranger;
use self::watch::Watched;
use super::envoy::Envoy;
use super::laravel::WebhookServer;
use super::load::{self, Load, LoadOptions, LoadProgress};
use super::scenario::{IDLE_MAX, envoy_options, happen, load_options, settled, start_laravel};
use crate::model::order::final_states;
use crate::scenario::{Scenario, Verb};

/// What an event costs the webhook.
const WEBHOOK_MS: u64 = 5;

/// What a run is made from.
#[derive(Clone, Copy, Debug)]
pub struct ChaosOptions {
    /// For how long the gateway sends.
    pub seconds: u64,
    /// Its sessions.
    pub sessions: usize,
    /// Decides the traffic and the troubles.
    pub seed: u64,
}

/// Runs it to its end, and tells `tell` once a second how it goes.
///
/// # Errors
/// If something cannot be started, or Envoy dies. What does not hold is no error:
/// [`ChaosReport::failures`] says it.
pub async fn run(options: &ChaosOptions, mut tell: impl FnMut(&str)) -> Result<ChaosReport> {
    let mut plan = Plan::new(options.seed, options.seconds, options.sessions);
    let epoch = Instant::now();
    let webhook = WebhookServer::start(WEBHOOK_MS, epoch).await;
    let mut webhook = webhook.context("cannot start the webhook")?;
    plan.scenario.fall_back();
    let mut laravel = start_laravel(&plan.scenario, epoch).await?;
    let identities = plan.scenario.identities();
    let mut envoy_options = envoy_options("chaos", &plan.scenario, &laravel);
    envoy_options.webhook = Some(webhook.addr.into());
    let mut envoy = Envoy::start(envoy_options).await?;
    let (admin, pid, url) = (envoy.admin.clone(), envoy.pid, envoy.url());

    let load = LoadOptions {
        windows: plan.healthy.iter().chain([&plan.outage]).cloned().collect(),
        ..load_options(&plan.scenario, &envoy, epoch)
    };
    tell("introducing each session, and asking for it once");
    // A read is kept of a session that has had an update: without one the first outage fails it.
    load::introduce(&load).await?;
    // And of one that began before its delivery nothing is kept.
    settled(&plan.scenario, &mut envoy).await?;
    load::warm_up(&load).await?;
    laravel.reset();
    let started_ms = laravel.now_ms();
    laravel.with(|laravel| {
        for poison in plan
            .poison
            .iter()
            .filter_map(|index| identities.get(*index))
        {
            laravel.refuse_session(&poison.session, started_ms + plan.poison_from_ms);
        }
        let rows = plan.throwing.iter();
        *laravel.throwing_mut() = rows
            .filter_map(|(index, at_ms)| {
                let at_ms = started_ms + at_ms.start..started_ms + at_ms.end;
                Some((identities.get(*index)?.key.clone(), at_ms))
            })
            .collect();
    });
    let faults = plan.scenario.faults.iter();
    laravel.set_faults(faults.map(|fault| fault.later(started_ms)).collect());
    let progress = Arc::new(LoadProgress::default());
    let load = Load::start(load, progress.clone())?;
    let started = Instant::now();

    let mut watched = Watched::default();
    let mut stranger = Stranger::new(&url, &plan.scenario)?;
    let mut told = |pending, rss_mb| {
        let at_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (events, failures) = (&progress.events, &progress.failures);
        tell(&format!(
            "{}; {} events, {} failures, {pending} pending, Envoy {rss_mb} MB",
            plan.phase(at_ms),
            events.load(Ordering::Relaxed),
            failures.load(Ordering::Relaxed),
        ));
    };
    let traffic = async {
        let (report, (), ()) = tokio::try_join!(
            load.finish(),
            happen(
                &plan.scenario,
                started.into(),
                &mut laravel,
                None,
                &mut envoy
            ),
            webhook_happens(&plan, started, &mut webhook),
        )?;
        let ended = Instant::now();
        let stats = settled(&plan.scenario, &mut envoy).await?;
        anyhow::Ok((report, stats, ended.elapsed()))
    };
    let (report, stats, settled_after) = tokio::select! {
        done = traffic => done?,
        end = watched.watch(&admin, pid, &mut told) => {
            return Err(end.err().unwrap_or_else(|| anyhow::anyhow!("nobody watched")))
                .with_context(|| format!("its log is in {}", envoy.run_dir.display()));
        }
        never = stranger.ask() => match never {},
    };
    laravel.idle(IDLE_MAX).await;

    let finals = laravel.with(|laravel| final_states(laravel, &report.sent));
    let traps_logged = envoy.grep_log("Uncaught").len() as u64;
    envoy.stop();
    let journal = laravel.stop().await;
    let evidence = Evidence {
        report,
        journal,
        stats,
        finals,
        traps_logged,
        strangers: stranger.told,
        memory: watched.memory(started, Duration::from_secs(options.seconds)),
        last_expiry_us: watched
            .last_expiry
            .map(|at| u64::try_from(at.duration_since(epoch).as_micros()).unwrap_or(u64::MAX)),
        settled_after,
        events: webhook.received().len() as u64,
    };
    Ok(ChaosReport::new(options, &plan, &identities, &evidence))
}

/// Takes the webhook down and up at its times.
async fn webhook_happens(plan: &Plan, started: Instant, webhook: &mut WebhookServer) -> Result<()> {
    let downs = plan.windows.iter();
    for window in downs.filter(|window| window.what == Trouble::WebhookDown) {
        sleep_until((started + Duration::from_millis(window.at_ms.start)).into()).await;
        webhook.down().await;
        sleep_until((started + Duration::from_millis(window.at_ms.end)).into()).await;
        webhook
            .up()
            .await
            .context("cannot open the webhook again")?;
    }
    Ok(())
}

// === impl Scenario ===

impl Scenario {
    /// In every configuration that it has, updates go to the webhook while Laravel is down.
    fn fall_back(&mut self) {
        let updates = self.happenings.iter_mut();
        let updates = updates.filter_map(|happening| match &mut happening.what {
            Verb::UpdateFilter(config) => Some(config),
            _ => None,
        });
        for config in updates.chain([&mut self.filter]) {
            config["fallback"] = json!({"cluster": "webhook", "path": "/webhook"});
        }
    }
}
