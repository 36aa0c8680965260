//! `embudo top`: what Embudo does now, from Envoy's admin page.
//!
//! Reads only: one GET of `/stats` a second, filtered, and nothing is changed at Envoy. All that is shown
//! is made in [`figures`] from two looks and the time between them, so that the screen, the text and the
//! JSON can never disagree; [`view`] draws it, [`watch`] owns the terminal.

use std::io::{IsTerminal as _, stdin, stdout};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use embudo::live::{Admin, Stats};

mod figures;
mod view;
mod watch;

#[cfg(test)]
mod tests;

use figures::{Figures, Look};

/// What `top` reads: Embudo's own metrics, the state of its VMs, and the breaker of its cluster.
const FILTER: &str =
    r"^wasmcustom\.embudo\.|\.vm_reload|\.outlier_detection\.|\.membership_|^server\.uptime$";

/// The width of the text that `--once` prints; a README's code block and a usual terminal hold it.
const TEXT_COLUMNS: u16 = 110;

/// Watch what Embudo does: what waits, what Laravel answers, how old values are
///
/// Reads the admin page of a running Envoy once a second and changes nothing there. Rates are those of
/// the last minute (less just after the start); totals, percentiles and ends count from Envoy's start.
/// "–" means that Envoy has no such figure.
///
/// With several stores in one Envoy (two plugins), each has a line of its own under that of all of them.
///
///   pending       updates that were accepted and have not met their end; the oldest one's age
///   circuit       closed, half-open or open towards Laravel; misconfigured: it refuses every call
///   leader        alive: the dispatcher's beat advances; NOT ALIVE: nothing is sent to Laravel
///   held          requests that wait until it is their session's turn; failed alone: updates that Laravel
///                 fails at, each with a time of its own; proven: callers that may be queued
///   outlier       whether Envoy's own breaker has ejected Laravel from the cluster
///   answers       what the gateway's POSTs were answered, by route ("none": no rule fitted)
///   reads         status reads: from the store (cached, stale) or by Laravel (fresh)
///   beliefs       batch: routes whose batch path takes batches, by what was seen of it
///                 reads: pairs of states (of a caller) whose answers differ in nothing else, as answers showed that
///                 were compared; late: Laravel showed the state from before what it had taken
///                 implies: routes whose items set another's state, as far as it is assumed
///   calls         calls to Laravel by route and verdict
///   items         where accepted updates ended
///   times         percentiles: upper edges of Envoy's bins, at most 10 % too high
///
/// Keys: q, Esc or Ctrl-C quit; up and down scroll. A page that goes away is shown as lost and asked
/// again every second.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment, after_help = JSON_HELP)]
pub(crate) struct TopArguments {
    /// Envoy's admin page; the port is 9901 unless given
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901")]
    admin: String,
    /// The cluster of Embudo's own calls, whose outlier detection is shown
    #[arg(long, value_name = "NAME", default_value = "laravel_batch")]
    cluster: String,
    /// Print one screen as text and exit; needs no terminal
    #[arg(long)]
    once: bool,
    /// With --once: print JSON, for scripts
    #[arg(long, requires = "once")]
    json: bool,
    /// With --once: seconds between its two looks, from which rates and the leader's life are told
    #[arg(long, value_name = "SECONDS", default_value_t = 2, requires = "once",
          value_parser = clap::value_parser!(u64).range(1..=60))]
    over: u64,
}

/// The JSON's fields are promised: they may be joined by others, and do not change their meaning.
const JSON_HELP: &str = "\
Fields of --once --json (null: Envoy has no such figure; counts are since Envoy's start):
  admin, embudo_found, uptime_s, window_ms (between the two looks)
  pending_items, oldest_pending_ms, circuit (closed|half_open|open|misconfigured|unknown), laravel_slow
  leader_alive, leader_beat, held_requests, suspect_items, proven_callers
  stores.<name>                       the same, store by store
  requests_total.<route>.<outcome>    queued, duplicate, implied, stale, write_through, held, outside, busy,
                                      bypass; reads (get_<name>): cached, stale, fresh, bypass
  items_total.<route>.<end>           delivered, superseded, expired, rejected, voided
  beliefs.<belief>.<state>            batch, reads, implies; proven, unproven, disproved, assumed
  reads_compared_total.<result>       same, differs, late
  calls.<route>.<verdict>.total, .per_minute       calls_total, calls_per_minute
  call_ms, staleness_ms, batch_items: samples, p50, p90, p99, max
  accepted_total, ledger_balances
  outlier_detection: cluster, ejections_active, ejections_total, hosts_healthy, hosts_total
  vm_reloads_total, vm_reload_failures_total

Examples:
  embudo top
  embudo top --admin http://10.0.0.7:9901 --once
  embudo top --once --json | jq -e '.leader_alive and .oldest_pending_ms < 60000'";

pub(crate) async fn run(arguments: TopArguments) -> Result<()> {
    ensure!(
        arguments.once || (stdin().is_terminal() && stdout().is_terminal()),
        "this is no terminal: `embudo top --once` prints one screen as text, with --json for scripts"
    );
    let admin = Admin::at(&arguments.admin).await?;
    let first = look(&admin).await?;
    if !arguments.once {
        return watch::run(&admin, &arguments, first).await;
    }
    tokio::time::sleep(Duration::from_secs(arguments.over)).await;
    let last = look(&admin).await?;
    let figures = Figures::between(&arguments.admin, &arguments.cluster, &first, &last);
    if arguments.json {
        let json = serde_json::to_string_pretty(&figures).context("the figures are no JSON")?;
        println!("{json}");
    } else {
        print!("{}", view::text(&figures, TEXT_COLUMNS));
    }
    Ok(())
}

/// Reads the page once.
async fn look(admin: &Admin) -> Result<Look> {
    let stats: Stats = admin.stats_matching(FILTER).await?;
    Ok(Look {
        at: Instant::now(),
        stats,
    })
}
