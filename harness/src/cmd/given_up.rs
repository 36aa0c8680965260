//! `embudo given-up`: how many of sixty sessions a gateway gives up while Laravel cannot answer.
//!
//! The gateway that the project started from asks for a session's state before it shows a QR. Where four tries of that
//! have failed, it gives the session up: the user sees no QR any more, until somebody starts the session again. So an
//! outage of half a minute, or Laravel's own throttle, costs sessions and not only requests.
//!
//! Four runs at once, since none of them is a load: an outage and a throttle, straight and through Embudo. Before each,
//! every session has had a state and has been asked for; what it is like for a gateway that starts under the throttle
//! tells `--cold`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::load::{self, Load, LoadOptions, LoadReport};
use embudo::live::{Envoy, EnvoyOptions};
use embudo::model::gateway::{GatewayConfig, session_ids};
use serde::Serialize;

use super::summary::publish;

/// `throttle:api` as Laravel has it up to version 10.
const THROTTLE_PER_MINUTE: u32 = 60;

/// Before the outage: three QRs of a session, and more than what is believed of Laravel's answers takes.
const OUTAGE_FROM: Duration = Duration::from_secs(60);

/// After it: the retries of what was begun in its last second are over after 23 s.
const OUTAGE_SETTLES: Duration = Duration::from_secs(40);

/// Of the throttled sessions at least so many work.
const PROMISED_WORK: f64 = 0.9;

/// How many of sixty sessions the gateway gives up: in an outage, and under Laravel's throttle
///
/// Straight and through Embudo, with the stand-in Laravel, all at once: five minutes. The figures are in
/// target/embudo/given-up.json.
#[derive(Args, Debug)]
pub(crate) struct GivenUpArguments {
    /// WhatsApp sessions
    #[arg(long, default_value_t = 60)]
    sessions: usize,
    /// Decides ids, QRs, phases and scans
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long Laravel is down, in seconds
    #[arg(long, default_value_t = 30)]
    outage_secs: u64,
    /// For how long the throttled sessions send, in seconds
    #[arg(long, default_value_t = 300)]
    throttled_secs: u64,
    /// The throttle is there from the first request of all sessions
    #[arg(long)]
    cold: bool,
}

/// What Laravel is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Outage,
    Throttle,
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Run {
    /// Sessions that were given up, and those that were not.
    given_up: usize,
    work: usize,
    /// What the gateway sent, retries included.
    requests: u64,
    /// Timeouts, broken connections, and answers that are not 2xx.
    failures: u64,
}

/// Straight, and through Embudo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Arms {
    direct: Run,
    through: Run,
}

/// `target/embudo/given-up.json`.
#[derive(Clone, Debug, Serialize)]
struct Summary {
    sessions: usize,
    seed: u64,
    outage_seconds: u64,
    outage: Arms,
    throttle_per_minute: u32,
    throttled_seconds: u64,
    /// Whether no session had been asked for before.
    cold: bool,
    throttle: Arms,
}

pub(crate) async fn run(arguments: GivenUpArguments) -> Result<()> {
    let envoy = EnvoyOptions::new("given-up", SocketAddr::from(([127, 0, 0, 1], 0)));
    Envoy::prepare(&envoy).await?;
    println!(
        "{} sessions, four times at once, for {} s …",
        arguments.sessions, arguments.throttled_secs
    );
    let arm = |trouble, envoy| arguments.arm(trouble, envoy);
    let (outage_direct, outage_through, throttle_direct, throttle_through) = tokio::try_join!(
        arm(Trouble::Outage, None),
        arm(Trouble::Outage, Some(envoy.clone())),
        arm(Trouble::Throttle, None),
        arm(Trouble::Throttle, Some(envoy.clone())),
    )?;
    let summary = Summary {
        sessions: arguments.sessions,
        seed: arguments.seed,
        outage_seconds: arguments.outage_secs,
        outage: Arms {
            direct: outage_direct,
            through: outage_through,
        },
        throttle_per_minute: THROTTLE_PER_MINUTE,
        throttled_seconds: arguments.throttled_secs,
        cold: arguments.cold,
        throttle: Arms {
            direct: throttle_direct,
            through: throttle_through,
        },
    };
    println!("{}", summary.text());
    if arguments.cold {
        // Nothing is promised of it.
        return publish(&summary, "given-up-cold.json");
    }
    publish(&summary, "given-up.json")?;
    summary.judge()
}

// === impl GivenUpArguments ===

impl GivenUpArguments {
    async fn arm(&self, trouble: Trouble, envoy: Option<EnvoyOptions>) -> Result<Run> {
        let laravel = LaravelOptions {
            accounts: session_ids(self.seed, self.sessions),
            ..LaravelOptions::default()
        };
        let epoch = laravel.epoch;
        let laravel = LaravelServer::start(laravel)
            .await
            .context("cannot start the stand-in")?;
        let envoy = match envoy {
            None => None,
            Some(envoy) => {
                let laravel = laravel.addr.into();
                Some(Envoy::start(EnvoyOptions { laravel, ..envoy }).await?)
            }
        };
        let outage = Duration::from_secs(self.outage_secs);
        let options = LoadOptions {
            base_url: envoy.as_ref().map_or_else(|| laravel.url(), Envoy::url),
            sessions: self.sessions,
            seed: self.seed,
            duration: match trouble {
                Trouble::Outage => OUTAGE_FROM + outage + OUTAGE_SETTLES,
                Trouble::Throttle => Duration::from_secs(self.throttled_secs),
            },
            gateway: GatewayConfig::origin(),
            epoch,
            ..LoadOptions::default()
        };
        if trouble == Trouble::Outage || !self.cold {
            match &envoy {
                Some(envoy) => load::meet(envoy, &options).await?,
                None => {
                    load::introduce(&options).await?;
                    load::warm_up(&options).await?;
                }
            }
        }
        let load = match trouble {
            Trouble::Outage => down_for(outage, laravel, options).await?,
            Trouble::Throttle => {
                laravel.with(|laravel| laravel.set_throttle(Some(THROTTLE_PER_MINUTE)));
                load::run(options, Default::default()).await?
            }
        };
        drop(envoy);
        Ok(Run::new(&load, self.sessions))
    }
}

/// The load, with Laravel down for a while in its middle.
async fn down_for(
    outage: Duration,
    mut laravel: LaravelServer,
    options: LoadOptions,
) -> Result<LoadReport> {
    let load = Load::start(options, Default::default())?;
    tokio::time::sleep(OUTAGE_FROM).await;
    laravel.down().await;
    tokio::time::sleep(outage).await;
    laravel.up().await?;
    load.finish().await
}

// === impl Run ===

impl Run {
    fn new(load: &LoadReport, sessions: usize) -> Self {
        let given_up = load.given_up.len();
        Self {
            given_up,
            work: sessions.saturating_sub(given_up),
            requests: load.sends_total(),
            failures: load.failures(),
        }
    }
}

// === impl Summary ===

impl Summary {
    fn text(&self) -> String {
        let line = |what: String, arms: &Arms| {
            let told = |run: &Run| {
                format!(
                    "{} of {} given up ({} requests, {} failed)",
                    run.given_up, self.sessions, run.requests, run.failures
                )
            };
            format!(
                "{what}: straight {}; through Embudo {}.",
                told(&arms.direct),
                told(&arms.through)
            )
        };
        let outage = format!("Laravel down for {} s", self.outage_seconds);
        let throttle = format!("{} requests a minute", self.throttle_per_minute);
        [line(outage, &self.outage), line(throttle, &self.throttle)].join("\n")
    }

    fn judge(&self) -> Result<()> {
        let lost = self.outage.through.given_up;
        ensure!(lost == 0, "{lost} sessions are given up in an outage");
        let work = self.throttle.through.work;
        ensure!(
            work as f64 >= self.sessions as f64 * PROMISED_WORK,
            "{work} of {} sessions work under the throttle",
            self.sessions
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(outage: usize, throttle: usize) -> Summary {
        let arms = |given_up| Arms {
            through: Run {
                given_up,
                work: 60 - given_up,
                ..Run::default()
            },
            ..Arms::default()
        };
        Summary {
            sessions: 60,
            seed: 1,
            outage_seconds: 30,
            outage: arms(outage),
            throttle_per_minute: 60,
            throttled_seconds: 300,
            cold: false,
            throttle: arms(throttle),
        }
    }

    #[test]
    fn it_fails_if_an_outage_costs_a_session_or_the_throttle_more_than_a_tenth() {
        assert!(summary(0, 6).judge().is_ok());
        assert!(summary(1, 0).judge().is_err());
        assert!(summary(0, 7).judge().is_err());
    }
}
