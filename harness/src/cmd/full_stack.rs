//! `embudo full-stack`: the comparison of `embudo run` with a real Laravel at the end, and its database looked into.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use embudo::live::load::{self, LoadOptions, LoadReport};
use embudo::live::{Envoy, EnvoyOptions, Ledger, RealLaravel, RealLaravelOptions};
use embudo::model::gateway::session_ids;
use embudo::model::order::{FinalStates, final_rows};
use serde::Serialize;

use super::arm::{self, Outcome};
use super::compare::{SETTLE_MAX, ledger_line, settled};
use super::summary::{ArmSummary, RunSummary, publish};
use super::table;

/// What is promised for a thousand sessions with a real Laravel: percent fewer requests than the gateway sends, ms that
/// it waits for the answer to a POST at most in half of all cases, and that as a part of what Laravel itself takes.
const PROMISED_SESSIONS: usize = 1_000;
const PROMISED_FEWER_PERCENT: f64 = 98.0;
const PROMISED_P50_MS: f64 = 1.0;
const PROMISED_P50_PART: f64 = 0.25;

/// In less time a few calls more or less would decide.
const PROMISED_SECONDS: u64 = 50;

/// Compare with a real Laravel: PHP, nginx and SQLite, with the package embudo/laravel
///
/// The same seeded traffic goes first straight to Laravel and then through Embudo, after each session has been asked for
/// once. In the end each session's row must be what the gateway sent last. The figures are in
/// target/embudo/full-stack.json.
#[derive(Args, Debug)]
pub(crate) struct FullStackArguments {
    /// WhatsApp sessions
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    /// Decides ids, QRs, phases and scans
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// For how long to send in each arm, in seconds
    #[arg(long, default_value_t = 60)]
    secs: u64,
    /// PHP processes
    #[arg(long, default_value_t = 4)]
    workers: usize,
}

/// One arm: what came of the traffic, and what Laravel has in the end.
struct Arm {
    outcome: Outcome,
    ends: FinalStates,
    cpu_seconds: f64,
    memory_bytes: u64,
}

/// A load that has ended.
struct Sent {
    load: LoadReport,
    cpu_before: f64,
}

/// What only a real Laravel can tell.
#[derive(Debug, Serialize)]
struct Database {
    /// Sessions whose row was compared, and those among them whose row differs.
    rows_compared: u64,
    rows_differ: usize,
    /// Sessions whose last send was not answered, or overlapped another: nothing is promised.
    rows_undecided: u64,
    laravel_cpu_seconds: f64,
    laravel_memory_mib: u64,
}

/// `target/embudo/full-stack.json`.
#[derive(Debug, Serialize)]
struct Summary {
    #[serde(flatten)]
    run: RunSummary,
    direct_database: Database,
    through_database: Database,
    /// Whether each session's row is what the gateway sent last, through Embudo.
    rows_equal: bool,
}

pub(crate) async fn run(arguments: FullStackArguments) -> Result<()> {
    // First, so that a module that does not build is told before a minute of traffic.
    let envoy = EnvoyOptions::new("full-stack", SocketAddr::from(([127, 0, 0, 1], 0)));
    Envoy::prepare(&envoy).await?;
    let (direct, _) = arguments.arm(None).await?;
    let (through, ledger) = arguments.arm(Some(envoy)).await?;
    let summary = Summary::new(&arguments, &direct, &through, ledger);
    println!(
        "{}",
        table::comparison(&direct.outcome, &through.outcome, &summary.run)
    );
    println!("{}", summary.text());
    println!("{}", ledger_line(&ledger));
    publish(&summary, "full-stack.json")?;
    summary.judge(arguments.secs)
}

// === impl FullStackArguments ===

impl FullStackArguments {
    /// The traffic, straight to a fresh Laravel or through this Envoy.
    async fn arm(&self, envoy: Option<EnvoyOptions>) -> Result<(Arm, Ledger)> {
        let epoch = Instant::now();
        let laravel = RealLaravel::start(RealLaravelOptions {
            workers: self.workers,
            accounts: session_ids(self.seed, self.sessions),
            epoch,
            ..RealLaravelOptions::default()
        })
        .await?;
        let options = |base_url| LoadOptions {
            base_url,
            sessions: self.sessions,
            seed: self.seed,
            duration: Duration::from_secs(self.secs),
            epoch,
            ..LoadOptions::default()
        };
        let Some(envoy) = envoy else {
            let load = send("straight to Laravel", &laravel, options(laravel.url())).await?;
            return Ok((Arm::new(load, &laravel)?, Ledger::default()));
        };
        let envoy = EnvoyOptions {
            laravel: (&laravel).into(),
            ..envoy
        };
        let envoy = Envoy::start(envoy).await?;
        let load = send("through Embudo     ", &laravel, options(envoy.url())).await?;
        let ledger = settled(&envoy).await?;
        envoy.stop();
        Ok((Arm::new(load, &laravel)?, ledger))
    }
}

/// Lets each session be asked for once, and sends and counts from then on.
async fn send(label: &str, laravel: &RealLaravel, options: LoadOptions) -> Result<Sent> {
    load::warm_up(&options).await?;
    laravel.reset()?;
    let cpu_before = laravel.cpu_seconds();
    let load = arm::send(label, options).await?;
    Ok(Sent { load, cpu_before })
}

// === impl Arm ===

impl Arm {
    /// Takes Laravel's books, once it has all that it will get.
    fn new(sent: Sent, laravel: &RealLaravel) -> Result<Self> {
        let rows = laravel.rows()?;
        let row = |session: &str| rows.get(session).cloned();
        Ok(Self {
            ends: final_rows(row, &sent.load.sent),
            cpu_seconds: laravel.cpu_seconds() - sent.cpu_before,
            memory_bytes: laravel.rss_bytes(),
            outcome: Outcome::new(sent.load, laravel.journal()?),
        })
    }
}

// === impl Database ===

impl Database {
    fn new(arm: &Arm) -> Self {
        Self {
            rows_compared: arm.ends.compared,
            rows_differ: arm.ends.mismatches.len(),
            rows_undecided: arm.ends.undecided,
            laravel_cpu_seconds: (arm.cpu_seconds * 100.0).round() / 100.0,
            laravel_memory_mib: arm.memory_bytes / (1024 * 1024),
        }
    }
}

// === impl Summary ===

impl Summary {
    fn new(arguments: &FullStackArguments, direct: &Arm, through: &Arm, ledger: Ledger) -> Self {
        let through_database = Database::new(through);
        Self {
            run: RunSummary::new(
                (arguments.sessions, arguments.seed),
                ArmSummary::new(&direct.outcome),
                ArmSummary::new(&through.outcome),
                ledger,
            ),
            direct_database: Database::new(direct),
            rows_equal: through_database.rows_compared > 0 && through_database.rows_differ == 0,
            through_database,
        }
    }

    fn text(&self) -> String {
        let (direct, through) = (&self.direct_database, &self.through_database);
        format!(
            "Of {:.0} requests a minute, {:.0} reach Laravel: {:.1} % fewer.\n\
             nginx and PHP use {:.2} s of processor time instead of {:.2} s.\n\
             Of {} sessions whose last value is known, {} have another one in SQLite.",
            self.run.gateway_requests_per_minute,
            self.run.laravel_requests_per_minute,
            self.run.reduction_percent(),
            through.laravel_cpu_seconds,
            direct.laravel_cpu_seconds,
            through.rows_compared,
            through.rows_differ,
        )
    }

    fn judge(&self, secs: u64) -> Result<()> {
        let ledger = &self.run.ledger;
        ensure!(
            ledger.pending == 0 && ledger.balances(),
            "the ledger does not balance after {SETTLE_MAX:?}: {}",
            ledger_line(ledger)
        );
        ensure!(self.rows_equal, "a row is not what the gateway sent last");
        let overtaken = self.run.through.laravel.older_after_newer;
        ensure!(
            overtaken == 0,
            "{overtaken} times an older value came after a newer one"
        );
        if self.run.sessions != PROMISED_SESSIONS || secs < PROMISED_SECONDS {
            return Ok(());
        }
        let fewer = self.run.reduction_percent();
        ensure!(
            fewer >= PROMISED_FEWER_PERCENT,
            "promised are {PROMISED_FEWER_PERCENT} % fewer requests; it is {fewer:.1} %"
        );
        let (direct, through) = (&self.run.direct.gateway, &self.run.through.gateway);
        let p50_max = PROMISED_P50_MS.min(direct.gateway_p50_ms * PROMISED_P50_PART);
        ensure!(
            through.gateway_p50_ms <= p50_max,
            "the gateway waits {} ms for half of its POSTs; {p50_max:.2} were promised",
            through.gateway_p50_ms
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(reaching: f64, p50_ms: f64, differ: usize) -> Summary {
        let mut through = ArmSummary::default();
        through.gateway.gateway_requests_per_minute = 7_500.0;
        through.gateway.gateway_p50_ms = p50_ms;
        through.laravel.laravel_requests_per_minute = reaching;
        let mut direct = ArmSummary::default();
        direct.gateway.gateway_p50_ms = 2.0;
        let database = |rows_differ| Database {
            rows_compared: 1_000,
            rows_differ,
            rows_undecided: 0,
            laravel_cpu_seconds: 1.0,
            laravel_memory_mib: 1,
        };
        Summary {
            run: RunSummary::new((PROMISED_SESSIONS, 1), direct, through, Ledger::default()),
            direct_database: database(0),
            through_database: database(differ),
            rows_equal: differ == 0,
        }
    }

    #[test]
    fn it_fails_if_less_is_saved_than_promised_or_a_row_is_wrong() {
        assert!(summary(150.0, 0.5, 0).judge(60).is_ok());
        assert!(summary(151.0, 0.5, 0).judge(60).is_err(), "not 98 % fewer");
        assert!(
            summary(150.0, 0.51, 0).judge(60).is_err(),
            "more than a quarter of 2 ms"
        );
        assert!(summary(150.0, 0.5, 1).judge(60).is_err(), "a row differs");
        assert!(
            summary(151.0, 0.51, 0).judge(5).is_ok(),
            "too short to tell"
        );
    }

    #[test]
    fn the_file_has_the_names_that_are_promised() {
        let json = serde_json::to_value(summary(1.0, 0.2, 0)).unwrap();
        for name in ["laravel_requests_per_minute", "gateway_requests_per_minute"] {
            assert!(json[name].is_number(), "{name}");
        }
        for arm in ["direct", "through"] {
            assert!(
                json[arm]["gateway_p50_ms"].is_number() && json[arm]["gateway_p99_ms"].is_number()
            );
        }
        assert_eq!(json["rows_equal"], true);
    }
}
