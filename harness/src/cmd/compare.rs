//! `embudo run` without a Laravel: the same traffic with Embudo and without, side by side.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use embudo::live::laravel::LaravelServer;
use embudo::live::load::{self, LoadOptions, SETTLE_MAX, settled};
use embudo::live::{Envoy, EnvoyOptions, Ledger};

use super::arm::{self, Outcome, Traffic};
use super::front::RunArguments;
use super::summary::{ArmSummary, RunSummary, publish};
use super::table;

/// What the README promises: for so many sessions, once each has been seen, so many requests of any kind a
/// minute at Laravel at most, and so many percent fewer than the gateway sends.
const PROMISED_SESSIONS: usize = 1_000;
const PROMISED_REQUESTS_MAX: f64 = 110.0;
const PROMISED_FEWER_PERCENT: f64 = 98.5;

/// In less time a few calls more or less would decide.
const PROMISED_SECONDS: f64 = 50.0;

pub(crate) async fn run(arguments: RunArguments) -> Result<()> {
    let traffic = Traffic {
        sessions: arguments.sessions,
        tenants: 0,
        seed: arguments.seed,
        prefix: "/api".to_owned(),
    };
    // First, so that a module that does not build is told before half a minute of traffic.
    let envoy = EnvoyOptions {
        filter_config: arguments.filter_config()?,
        concurrency: arguments.concurrency,
        ..EnvoyOptions::new("run", SocketAddr::from(([127, 0, 0, 1], 0)))
    };
    Envoy::prepare(&envoy).await?;

    let direct = straight(&traffic, Duration::from_secs(arguments.direct_secs)).await?;
    let (through, ledger) =
        through(&traffic, Duration::from_secs(arguments.through_secs), envoy).await?;

    let summary = RunSummary::new(
        (arguments.sessions, arguments.seed),
        ArmSummary::new(&direct),
        ArmSummary::new(&through),
        ledger,
    );
    println!("{}", table::comparison(&direct, &through, &summary));
    println!(
        "Of {:.0} requests a minute, {:.0} reach Laravel: {:.1} % fewer, once each session has been asked for.",
        summary.gateway_requests_per_minute,
        summary.laravel_requests_per_minute,
        summary.reduction_percent()
    );
    println!("{}", ledger_line(&ledger));
    publish(&summary, "run.json")?;
    judge(&summary)
}

async fn straight(traffic: &Traffic, lasts: Duration) -> Result<Outcome> {
    let (laravel, options) = traffic
        .laravel()
        .await
        .context("cannot start the stand-in")?;
    let options = LoadOptions {
        base_url: laravel.url(),
        duration: lasts,
        ..options
    };
    warm_up(&laravel, &options).await?;
    let load = arm::send("straight to Laravel", options).await?;
    Ok(arm::collect(load, laravel).await)
}

async fn through(
    traffic: &Traffic,
    lasts: Duration,
    envoy: EnvoyOptions,
) -> Result<(Outcome, Ledger)> {
    let (laravel, options) = traffic
        .laravel()
        .await
        .context("cannot start the stand-in")?;
    let envoy = Envoy::start(EnvoyOptions {
        laravel: laravel.addr.into(),
        ..envoy
    })
    .await?;
    let options = LoadOptions {
        base_url: envoy.url(),
        duration: lasts,
        ..options
    };
    println!("until Laravel is known: 40 s");
    load::make_known(&envoy, &options).await?;
    laravel.reset();
    let load = arm::send("through Embudo     ", options).await?;
    let ledger = settled(&envoy).await?;
    envoy.stop();
    Ok((arm::collect(load, laravel).await, ledger))
}

/// Lets each session be asked for once, and counts from then on: what Embudo promises is promised for sessions
/// that it has seen.
async fn warm_up(laravel: &LaravelServer, options: &LoadOptions) -> Result<()> {
    load::warm_up(options).await?;
    laravel.reset();
    Ok(())
}

/// What must hold whatever the machine; how fast it is, is for the reader to judge.
fn judge(summary: &RunSummary) -> Result<()> {
    let ledger = summary.ledger;
    if ledger.pending > 0 || !ledger.balances() {
        bail!(
            "the ledger does not balance after {SETTLE_MAX:?}: {}",
            ledger_line(&ledger)
        );
    }
    if summary.through.laravel.older_after_newer > 0 {
        let n = summary.through.laravel.older_after_newer;
        bail!("{n} times an older value took effect after a newer one");
    }
    // The promise is for this many; with others the table speaks for itself.
    if summary.sessions == PROMISED_SESSIONS && summary.through.gateway.seconds >= PROMISED_SECONDS
    {
        let (found, fewer) = (
            summary.laravel_requests_per_minute,
            summary.reduction_percent(),
        );
        if found > PROMISED_REQUESTS_MAX || fewer < PROMISED_FEWER_PERCENT {
            bail!(
                "promised are at most {PROMISED_REQUESTS_MAX} requests a minute at Laravel and \
                 {PROMISED_FEWER_PERCENT} % fewer; it is {found:.0} and {fewer:.1} %"
            );
        }
    }
    Ok(())
}

pub(super) fn ledger_line(ledger: &Ledger) -> String {
    format!(
        "Ledger: {} accepted = {} delivered + {} superseded + {} expired + {} rejected + {} voided + {} pending.",
        ledger.accepted,
        ledger.delivered,
        ledger.superseded,
        ledger.expired,
        ledger.rejected,
        ledger.voided,
        ledger.pending
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(ledger: Ledger, older_after_newer: usize) -> RunSummary {
        let mut through = ArmSummary::default();
        through.laravel.older_after_newer = older_after_newer;
        RunSummary::new((1, 1), ArmSummary::default(), through, ledger)
    }

    #[test]
    fn a_run_fails_if_laravel_is_not_spared_what_was_promised() {
        let judged = |reaching, sent, sessions| {
            let mut through = ArmSummary::default();
            through.gateway.seconds = 60.0;
            through.gateway.gateway_requests_per_minute = sent;
            through.laravel.laravel_requests_per_minute = reaching;
            let direct = ArmSummary::default();
            judge(&RunSummary::new(
                (sessions, 1),
                direct,
                through,
                Ledger::default(),
            ))
        };
        assert!(judged(110.0, 7_500.0, 1_000).is_ok());
        assert!(judged(111.0, 7_500.0, 1_000).is_err());
        assert!(judged(100.0, 6_000.0, 1_000).is_err(), "not 98.5 % fewer");
        assert!(
            judged(500.0, 6_000.0, 2_000).is_ok(),
            "nothing was promised for these"
        );
    }

    #[test]
    fn a_run_fails_if_something_was_lost_or_overtaken() {
        let good = Ledger {
            accepted: 3,
            delivered: 2,
            superseded: 1,
            ..Ledger::default()
        };
        assert!(judge(&summary(good, 0)).is_ok());
        let lost = Ledger {
            accepted: 4,
            ..good
        };
        assert!(
            judge(&summary(lost, 0))
                .unwrap_err()
                .to_string()
                .contains("does not balance")
        );
        let late = Ledger {
            accepted: 4,
            pending: 1,
            ..good
        };
        assert!(judge(&summary(late, 0)).is_err(), "pending is not an end");
        assert!(judge(&summary(good, 1)).is_err());
    }
}
