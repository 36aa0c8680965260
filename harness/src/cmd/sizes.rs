//! `embudo run --sizes`: how much of the gateway's traffic reaches Laravel, at several sizes.
//!
//! A gateway of twenty sessions has other shares than one of a thousand: the calls are bounded by time, the
//! requests by sessions. So the share is measured at each size that the README names, with the same traffic as
//! the comparison's, once each session has been updated and then read, and it was seen what Laravel's answers are like;
//! the gateway's own figure of the same run is the reference.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use embudo::live::load::{self, LoadOptions, settled};
use embudo::live::{Envoy, EnvoyOptions, Ledger};
use serde::Serialize;

use super::arm::{self, Traffic};
use super::compare::ledger_line;
use super::front::RunArguments;
use super::summary::{ArmSummary, publish};

/// What is promised to a gateway of so many sessions: so many percent of its requests reach Laravel at most.
const PROMISED: [(usize, f64); 4] = [(1_000, 2.0), (300, 6.0), (100, 15.0), (20, 55.0)];

/// ... and a QR is in Laravel within this time, 99 of a hundred.
const QR_P99_MS_MAX: u64 = 1_500;

/// In less time a few calls more or less would decide.
const JUDGED_SECONDS: f64 = 50.0;

/// `target/embudo/sizes.json`.
#[derive(Debug, Serialize)]
struct Sizes {
    seed: u64,
    sizes: Vec<Size>,
}

/// One size.
#[derive(Debug, Serialize)]
struct Size {
    sessions: usize,
    /// Tenants with a token each; 0 is one caller without any.
    tenants: usize,
    seconds: f64,
    gateway_requests_per_minute: f64,
    laravel_requests_per_minute: f64,
    share_percent: f64,
    qr_staleness_p50_ms: u64,
    qr_staleness_p99_ms: u64,
    gateway_failures: u64,
    older_after_newer: usize,
    ledger: Ledger,
}

pub(crate) async fn run(arguments: RunArguments) -> Result<()> {
    let envoy = EnvoyOptions {
        filter_config: arguments.filter_config()?,
        concurrency: arguments.concurrency,
        ..EnvoyOptions::new("sizes", SocketAddr::from(([127, 0, 0, 1], 0)))
    };
    Envoy::prepare(&envoy).await?;
    let lasts = Duration::from_secs(arguments.through_secs);
    let mut sizes = Vec::new();
    for &sessions in &arguments.sizes {
        let traffic = Traffic {
            sessions,
            tenants: 0,
            seed: arguments.seed,
            prefix: "/api".to_owned(),
        };
        sizes.push(measure(&traffic, lasts, envoy.clone()).await?);
    }
    if arguments.tenants > 0 {
        let traffic = Traffic {
            sessions: arguments
                .sizes
                .iter()
                .copied()
                .max()
                .unwrap_or(arguments.sessions),
            tenants: arguments.tenants,
            seed: arguments.seed,
            prefix: "/api".to_owned(),
        };
        sizes.push(measure(&traffic, lasts, envoy).await?);
    }
    println!("{}", table(&sizes));
    let broken: Vec<String> = sizes.iter().filter_map(Size::verdict).collect();
    publish(
        &Sizes {
            seed: arguments.seed,
            sizes,
        },
        "sizes.json",
    )?;
    match broken.is_empty() {
        true => Ok(()),
        false => bail!("{}", broken.join("; ")),
    }
}

async fn measure(traffic: &Traffic, lasts: Duration, envoy: EnvoyOptions) -> Result<Size> {
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
    load::make_known(&envoy, &options).await?;
    laravel.reset();
    let label = match traffic.tenants {
        0 => format!("{:5} sessions", traffic.sessions),
        tenants => format!("{:5} sessions of {tenants} tenants", traffic.sessions),
    };
    let load = arm::send(&label, options).await?;
    let ledger = settled(&envoy).await?;
    envoy.stop();
    let summary = ArmSummary::new(&arm::collect(load, laravel).await);
    let (sent, reached) = (
        summary.gateway.gateway_requests_per_minute,
        summary.laravel.laravel_requests_per_minute,
    );
    Ok(Size {
        sessions: traffic.sessions,
        tenants: traffic.tenants,
        seconds: summary.gateway.seconds,
        gateway_requests_per_minute: sent,
        laravel_requests_per_minute: reached,
        share_percent: (reached / sent.max(1.0) * 1_000.0).round() / 10.0,
        qr_staleness_p50_ms: summary.laravel.staleness_p50_ms,
        qr_staleness_p99_ms: summary.laravel.staleness_p99_ms,
        gateway_failures: summary.gateway.gateway_failures,
        older_after_newer: summary.laravel.older_after_newer,
        ledger,
    })
}

fn table(sizes: &[Size]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "sessions",
        "tenants",
        "the gateway's requests a minute",
        "reach Laravel",
        "share",
        "promised",
        "QR p50, ms",
        "QR p99, ms",
        "failed",
    ]);
    for size in sizes {
        let tenants = match size.tenants {
            0 => "–".to_owned(),
            tenants => tenants.to_string(),
        };
        let promised = size.promised_percent();
        let cells = [
            size.sessions.to_string(),
            tenants,
            format!("{:.0}", size.gateway_requests_per_minute),
            format!("{:.0}", size.laravel_requests_per_minute),
            format!("{:.1} %", size.share_percent),
            promised.map_or("–".to_owned(), |percent| format!("{percent:.0} %")),
            size.qr_staleness_p50_ms.to_string(),
            size.qr_staleness_p99_ms.to_string(),
            size.gateway_failures.to_string(),
        ];
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row(cells.map(right));
    }
    table
}

// === impl Size ===

impl Size {
    fn promised_percent(&self) -> Option<f64> {
        let own = PROMISED.iter().filter(|_| self.tenants == 0);
        let mut own = own.filter(|(sessions, _)| *sessions == self.sessions);
        own.next().map(|(_, percent)| *percent)
    }

    /// What does not hold.
    fn verdict(&self) -> Option<String> {
        let of = format!("at {} sessions", self.sessions);
        if self.ledger.pending > 0 || !self.ledger.balances() {
            return Some(format!(
                "{of} the ledger does not balance: {}",
                ledger_line(&self.ledger)
            ));
        }
        if self.older_after_newer > 0 {
            let n = self.older_after_newer;
            return Some(format!(
                "{of} an older value took effect after a newer one, {n} times"
            ));
        }
        let promised = self
            .promised_percent()
            .filter(|_| self.seconds >= JUDGED_SECONDS)?;
        let (share, p99) = (self.share_percent, self.qr_staleness_p99_ms);
        if share > promised {
            return Some(format!(
                "{of} {share} % reach Laravel; promised are {promised} %"
            ));
        }
        (p99 > QR_P99_MS_MAX)
            .then(|| format!("{of} a QR takes {p99} ms (p99); promised are {QR_P99_MS_MAX}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_fails_by_its_own_share_and_by_the_age_of_its_qrs() {
        let verdict = |sessions, tenants, share_percent, qr_staleness_p99_ms| {
            let size = Size {
                sessions,
                tenants,
                seconds: 60.0,
                gateway_requests_per_minute: 100.0,
                laravel_requests_per_minute: share_percent,
                share_percent,
                qr_staleness_p50_ms: 1,
                qr_staleness_p99_ms,
                gateway_failures: 0,
                older_after_newer: 0,
                ledger: Ledger::default(),
            };
            size.verdict()
        };
        assert_eq!(verdict(20, 0, 55.0, 1_500), None);
        assert!(verdict(20, 0, 55.1, 1_500).is_some());
        assert!(verdict(1_000, 0, 2.1, 1_500).is_some());
        assert!(verdict(300, 0, 2.1, 1_501).is_some());
        assert_eq!(
            verdict(1_000, 40, 9.0, 1_501),
            None,
            "nothing was promised to these"
        );
        assert_eq!(verdict(50, 0, 90.0, 9_999), None, "nor for so many");
    }
}
