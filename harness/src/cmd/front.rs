//! `embudo run --laravel`: Embudo in front of a Laravel that is already there, until Ctrl-C.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use embudo::live::{Endpoint, Envoy, EnvoyOptions, Stats};
use embudo_core::config::Config;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::interrupted;
use super::progress::Progress;

/// How long Laravel may take to accept a connection before it counts as unreachable.
const REACH_MAX: Duration = Duration::from_secs(3);

/// How often the line of counters changes.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// How long a stop waits for what is pending. A second Ctrl-C ends it at once.
const DRAIN_MAX: Duration = Duration::from_secs(15);

/// How often a drain looks whether it is done.
const POLL: Duration = Duration::from_millis(100);

/// Run Embudo in a real Envoy: before a stand-in Laravel to see the effect, or before your own
///
/// Without --laravel, the same seeded traffic goes first straight to a stand-in Laravel and then
/// through Embudo; one table shows both, target/embudo/run.json has the figures, report.html beside it
/// the pictures.
///
/// With --laravel, Embudo serves the gateway until Ctrl-C, and what is pending is still delivered
/// after it.
#[derive(Args, Debug)]
pub(crate) struct RunArguments {
    /// Your Laravel; the gateway then talks to port 10000 of this machine
    #[arg(long, value_name = "HOST:PORT")]
    laravel: Option<Endpoint>,
    /// Embudo's own configuration, a JSON file; `embudo check` explains what is wrong with one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Envoy's workers
    #[arg(long, default_value_t = 2, value_name = "WORKERS")]
    pub(crate) concurrency: u32,

    /// WhatsApp sessions of the comparison
    #[arg(long, default_value_t = 1000, conflicts_with = "laravel")]
    pub(crate) sessions: usize,
    /// Instead of the comparison: what share of the gateway's requests reaches Laravel at each of these numbers
    /// of sessions
    #[arg(
        long,
        value_name = "SESSIONS",
        value_delimiter = ',',
        conflicts_with_all = ["laravel", "sessions"]
    )]
    pub(crate) sizes: Vec<usize>,
    /// With --sizes, the largest once more with its sessions shared by so many tenants, a token each
    #[arg(long, default_value_t = 0, value_name = "TENANTS", requires = "sizes")]
    pub(crate) tenants: usize,
    /// Decides ids, QRs, phases and scans
    #[arg(long, default_value_t = 1, conflicts_with = "laravel")]
    pub(crate) seed: u64,
    /// For how long to send straight to Laravel
    #[arg(
        long,
        default_value_t = 30,
        value_name = "SECS",
        conflicts_with = "laravel"
    )]
    pub(crate) direct_secs: u64,
    /// For how long to send through Embudo
    #[arg(
        long,
        default_value_t = 60,
        value_name = "SECS",
        conflicts_with = "laravel"
    )]
    pub(crate) through_secs: u64,

    /// Where the gateway is served
    #[arg(
        long,
        default_value = "0.0.0.0:10000",
        value_name = "ADDRESS",
        requires = "laravel"
    )]
    listen: SocketAddr,
    /// Where Envoy's admin page is
    #[arg(
        long,
        default_value = "127.0.0.1:9901",
        value_name = "ADDRESS",
        requires = "laravel"
    )]
    admin: SocketAddr,
}

// === impl RunArguments ===

impl RunArguments {
    pub(crate) fn fronts_a_laravel(&self) -> bool {
        self.laravel.is_some()
    }

    pub(crate) fn compares_sizes(&self) -> bool {
        !self.sizes.is_empty()
    }

    /// Embudo's configuration, checked here: Envoy would only say that the plugin did not load.
    pub(crate) fn filter_config(&self) -> Result<Value> {
        let Some(file) = &self.config else {
            return Ok(json!({}));
        };
        let shown = file.display();
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
        if let Err(problems) = Config::parse(text.as_bytes()) {
            let lines: Vec<_> = problems
                .iter()
                .map(|problem| format!("\n  {problem}"))
                .collect();
            bail!(
                "{shown} is not a configuration for Embudo:{}",
                lines.concat()
            );
        }
        serde_json::from_str(&text).with_context(|| format!("{shown} is not JSON"))
    }
}

pub(crate) async fn run(arguments: RunArguments) -> Result<()> {
    let laravel = arguments.laravel.clone().context("--laravel is missing")?;
    let filter_config = arguments.filter_config()?;
    free(arguments.listen, "--listen")?;
    free(arguments.admin, "--admin")?;
    if let Err(error) = reach(&laravel).await {
        eprintln!("warning: Laravel at {laravel} does not answer ({error}); going on all the same");
    }
    let options = EnvoyOptions {
        filter_config,
        concurrency: arguments.concurrency,
        listener: arguments.listen,
        admin: arguments.admin,
        ..EnvoyOptions::new("front", laravel.clone())
    };
    let mut envoy = tokio::select! {
        envoy = Envoy::start(options) => envoy?,
        () = interrupted() => bail!("interrupted before Envoy was up"),
    };
    println!("Embudo is in front of Laravel at {laravel}.");
    println!(
        "  Point the gateway at  http://<this host>:{}",
        arguments.listen.port()
    );
    println!("  (with /api at the end, where its URL for Laravel has it)");
    println!("  Admin page            http://{}/", envoy.admin.address);
    println!(
        "  Log                   {}",
        envoy.run_dir.join("envoy.log").display()
    );
    println!("Ctrl-C delivers what is pending and stops.");
    serve(&mut envoy).await?;
    drain(&envoy).await
}

/// Shows the counters until Ctrl-C.
async fn serve(envoy: &mut Envoy) -> Result<()> {
    let mut progress = Progress::endless("embudo");
    let mut every = tokio::time::interval(LINE_EVERY);
    let stopped = interrupted();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => break,
            _ = every.tick() => {}
        }
        match envoy.admin.stats().await {
            Ok(stats) => progress.update(&line(&stats)),
            Err(_) if !envoy.is_running() => {
                bail!("Envoy has ended; its log is in {}", envoy.run_dir.display());
            }
            Err(error) => progress.update(&format!("{error:#}")),
        }
    }
    progress.finish("stopping");
    Ok(())
}

/// Delivers what is pending: the listener closes, Embudo's own calls go on.
async fn drain(envoy: &Envoy) -> Result<()> {
    let deadline = Instant::now() + DRAIN_MAX;
    let again = interrupted();
    tokio::pin!(again);
    envoy.admin.drain().await?;
    loop {
        let ledger = envoy.admin.stats().await?.ledger();
        if ledger.pending == 0 && ledger.balances() {
            println!("Everything that was accepted has been settled.");
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "{} updates were still pending after {DRAIN_MAX:?}",
                ledger.pending
            );
        }
        tokio::select! {
            () = &mut again => bail!("stopped with {} updates pending", ledger.pending),
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

fn line(stats: &Stats) -> String {
    let outcomes = stats.counters_by("embudo.requests", "outcome");
    let answered: Vec<_> = outcomes
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(outcome, count)| format!("{count} {outcome}"))
        .collect();
    let answered = if answered.is_empty() {
        "nothing yet".to_owned()
    } else {
        answered.join(", ")
    };
    let ledger = stats.ledger();
    format!(
        "{answered} → {} calls; {} delivered, {} superseded, {} pending",
        stats.counter("embudo.calls", &[]),
        ledger.delivered,
        ledger.superseded,
        ledger.pending
    )
}

/// Envoy shares a port with another Envoy without complaint, so it is looked at before.
fn free(address: SocketAddr, option: &str) -> Result<()> {
    let taken = TcpListener::bind(address);
    taken
        .map(drop)
        .map_err(|error| anyhow!("cannot listen on {address}: {error}; see {option}"))
}

async fn reach(laravel: &Endpoint) -> Result<()> {
    let connect = TcpStream::connect((laravel.host.as_str(), laravel.port));
    tokio::time::timeout(REACH_MAX, connect)
        .await
        .context("no answer in time")??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_told_with_the_option_that_changes_it() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let text = free(address, "--listen").unwrap_err().to_string();
        assert!(
            text.contains(&address.to_string()) && text.contains("--listen"),
            "{text}"
        );
        drop(listener);
        assert!(free(address, "--listen").is_ok());
    }

    #[test]
    fn the_line_shows_what_came_and_what_left() {
        let stats = |text: &str| Stats::parse(text).unwrap();
        let idle = line(&stats(r#"{"stats":[]}"#));
        assert_eq!(
            idle,
            "nothing yet → 0 calls; 0 delivered, 0 superseded, 0 pending"
        );
        let busy = line(&stats(
            r#"{"stats":[
            {"name":"wasmcustom.embudo.requests;route=qr;outcome=queued","value":7},
            {"name":"wasmcustom.embudo.requests;route=qr;outcome=stale","value":0},
            {"name":"wasmcustom.embudo.calls;route=qr;verdict=delivered","value":2},
            {"name":"wasmcustom.embudo.items;route=qr;end=delivered","value":6},
            {"name":"wasmcustom.embudo.pending;store=embudo","value":1}]}"#,
        ));
        assert_eq!(
            busy,
            "7 queued → 2 calls; 6 delivered, 0 superseded, 1 pending"
        );
    }
}
