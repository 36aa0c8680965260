//! `embudo chaos`: everything that can go wrong, on a real Envoy.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use embudo::live::chaos::{self, ChaosOptions, ChaosReport};
use embudo::live::paths;

use super::progress::Progress;

/// Let everything go wrong at once on a real Envoy, and judge what came of it
///
/// Laravel dies, hangs, fails, throttles and breaks off, some of its sessions are poison, the listener is
/// updated, in any combination that the seed makes; then all is well again, and everything must have
/// reached its end. Exits with 1 where a guarantee was broken. Below five minutes everything runs faster;
/// the latency during the outage is judged from ten minutes on.
#[derive(Args, Debug)]
pub(crate) struct ChaosArguments {
    /// For how long the gateway sends
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(30..))]
    seconds: u64,
    /// WhatsApp sessions of two tenants
    #[arg(long, default_value_t = 2000, value_parser = sessions)]
    sessions: usize,
    /// Decides the traffic, and what goes wrong when
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// With fewer, a tenant might have only poison.
const SESSIONS_MIN: usize = 20;

fn sessions(text: &str) -> Result<usize, String> {
    let sessions = text
        .parse()
        .map_err(|error: std::num::ParseIntError| error.to_string())?;
    match sessions {
        SESSIONS_MIN.. => Ok(sessions),
        _ => Err(format!("at least {SESSIONS_MIN}")),
    }
}

pub(crate) async fn run(arguments: ChaosArguments) -> Result<()> {
    let options = ChaosOptions {
        seconds: arguments.seconds,
        sessions: arguments.sessions,
        seed: arguments.seed,
    };
    let mut progress = Progress::lasting("chaos", Duration::from_secs(options.seconds));
    let report = chaos::run(&options, |line| progress.update(line)).await?;
    progress.finish("over");
    println!("{}", table(&report));
    let path = paths::output().join("chaos.json");
    paths::write_atomically(
        &path,
        format!("{:#}\n", serde_json::json!(report)).as_bytes(),
    )?;
    println!("The figures are in {}.", path.display());
    let failures = report.failures();
    for example in &report.examples {
        let text = |key: &str| example[key].as_str().unwrap_or_default();
        println!(
            "{}: session {}: {}",
            text("rule"),
            text("session"),
            text("what")
        );
    }
    match failures.is_empty() {
        true => Ok(()),
        false => bail!("{} (seed {})", failures.join("; "), options.seed),
    }
}

fn table(report: &ChaosReport) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["", "found", "promised"]);
    let mut row = |name: &str, found: String, promised: &str| {
        let right = |text: &str| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([Cell::new(name), right(&found), right(promised)]);
    };
    let counts = &report.counts;
    row("seconds", report.seconds.to_string(), "");
    row(
        "sessions (poison)",
        format!("{} ({})", report.sessions, report.poison_sessions),
        "",
    );
    row("updates accepted", report.updates.to_string(), "");
    row("lost", report.lost.to_string(), "0");
    row("older after newer", report.out_of_order.to_string(), "0");
    row("overlapping calls", report.overlapping.to_string(), "0");
    row(
        "credentials mixed",
        report.credentials_mixed.to_string(),
        "0",
    );
    row(
        "  strangers' reads refused",
        report.strangers_refused.to_string(),
        "",
    );
    row("VM traps", report.traps.to_string(), "0");
    row("ledger", report.ledger.clone(), "balanced");
    for (name, count) in [
        ("  queued and revived", counts.accepted),
        ("  delivered", counts.delivered),
        ("  superseded", counts.superseded),
        ("  expired", counts.expired),
        ("  rejected", counts.rejected),
        ("  voided", counts.voided),
    ] {
        row(name, count.to_string(), "");
    }
    row("  pending at the end", counts.pending.to_string(), "0");
    row(
        "settled after",
        format!("{:.1} s", report.settled_after_ms as f64 / 1000.0),
        "",
    );
    row(
        "sessions compared / undecided",
        format!("{} / {}", report.compared, report.undecided),
        "",
    );
    row(
        "Envoy's memory, middle / last third",
        format!("{} / {} MB", report.rss_mb_middle, report.rss_mb_last),
        "at most 5 % more",
    );
    row(
        "gateway's p99, healthy / Laravel down",
        format!(
            "{:.2} / {:.2} ms",
            report.p99_ms_healthy, report.p99_ms_outage
        ),
        "at most × 1.5",
    );
    row(
        "requests failed, healthy / Laravel down / all",
        format!(
            "{} / {} / {}",
            report.failures_healthy, report.failures_outage, report.failures
        ),
        "0 / 0 / –",
    );
    row(
        "calls that finished late",
        report.finished_late.to_string(),
        "",
    );
    for (verdict, calls) in &report.calls {
        row(&format!("calls {verdict}"), calls.to_string(), "");
    }
    for (status, count) in &report.laravel_answers {
        row(&format!("Laravel's {status}"), count.to_string(), "");
    }
    for (trouble, times) in &report.troubles {
        row(trouble, format!("{times} times"), "");
    }
    table
}
