//! `embudo full-stack`: the comparison of `embudo run` with a real Laravel at the end, and its database looked into.
//!
//! In two applications, one after the other: the project's own, and a panel, where little of what holds for the own one
//! does. Every read is compared with what Laravel itself would have said at that moment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use embudo::live::load::{self, Load, LoadOptions, LoadProgress, LoadReport, SETTLE_MAX, settled};
use embudo::live::real_laravel::Details;
use embudo::live::{
    Application, Envoy, EnvoyOptions, Ledger, RealLaravel, RealLaravelOptions, wait,
};
use embudo::model::gateway::{self, EXPIRED, GatewayConfig, Identity, LOGGED_OUT, session_ids};
use embudo::model::http::Route;
use embudo::model::order::{FinalStates, SentLog, final_rows};
use embudo::model::reads::{self, Compared, Words};
use serde::Serialize;

use super::arm::{self, Outcome};
use super::compare::ledger_line;
use super::summary::{ArmSummary, RunSummary, publish};
use super::table;

/// What is promised for a thousand sessions with a real Laravel: ms that the gateway waits for the answer to a POST at
/// most in half of all cases, and that as a part of what Laravel itself takes.
const PROMISED_SESSIONS: usize = 1_000;
const PROMISED_P50_MS: f64 = 1.0;
const PROMISED_P50_PART: f64 = 0.25;

/// From the first delivery until what is needed is believed of the project's own Laravel.
const PROVEN_WITHIN: Duration = Duration::from_secs(60);

/// Reads that a Laravel that is well answers too late, at most, as a part of all.
const STALE_PART_MAX: f64 = 0.01;

/// In less time a few calls more or less would decide.
const PROMISED_SECONDS: u64 = 50;

/// Other QRs and other moments than those that are counted.
const PROVING_SEED: u64 = 1 << 32;

/// How often it is looked whether something is believed.
const POLL: Duration = Duration::from_millis(100);

/// How often a user of the panel stops a session.
const STOP_EVERY: Duration = Duration::from_secs(1);

/// The panel is shown states with phones: a cycle in three ends in a scan, where it is one in a hundred otherwise.
const PANEL_SCANS: f64 = 0.3;

/// What a session's end at the panel may say of its reason.
const REASONS: [&str; 3] = [EXPIRED, LOGGED_OUT, "stopped"];

/// Compare with a real Laravel: PHP, nginx and SQLite, with the package embudo/laravel
///
/// The same seeded traffic goes first straight to Laravel and then through Embudo, after each session has had a state
/// and has been asked for once, and Embudo has had a minute to see what Laravel's answers are like. In the end each
/// session's row must be what the gateway sent last, and every read what Laravel itself would have said. The figures are
/// in target/embudo/full-stack.json.
#[derive(Args, Debug)]
pub(crate) struct FullStackArguments {
    /// One application instead of both
    #[arg(long, value_enum)]
    application: Option<Application>,
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
    details_differ: usize,
    reads: Compared,
    cpu_seconds: f64,
    memory_bytes: u64,
}

/// A load that has ended.
struct Sent {
    load: LoadReport,
    cpu_before: f64,
}

/// The time before anything is counted.
#[derive(Clone, Debug, Default, Serialize)]
struct Proving {
    /// From the first delivery until the store answered the first read that takes a belief; none within a minute.
    proven_after_s: Option<f64>,
    /// How long the gateway's traffic went on until then, what it sent, and what of it reached Laravel.
    seconds: f64,
    gateway_requests: u64,
    laravel_requests: u64,
    /// These reads too.
    reads: Compared,
}

/// What only a real Laravel can tell.
#[derive(Debug, Serialize)]
struct Database {
    /// Sessions whose row was compared, and those among them whose row differs.
    rows_compared: u64,
    rows_differ: usize,
    /// Sessions whose last send was not answered, or overlapped another, and those that a user of Laravel's has changed
    /// since: nothing is promised.
    rows_undecided: u64,
    /// Every read, beside what Laravel itself would have said.
    reads: Compared,
    laravel_cpu_seconds: f64,
    laravel_memory_mib: u64,
}

/// One application.
#[derive(Debug, Serialize)]
struct Summary {
    application: Application,
    #[serde(flatten)]
    run: RunSummary,
    /// What of the gateway's requests reaches Laravel, in percent.
    direct_share_percent: f64,
    through_share_percent: f64,
    before: Proving,
    direct_database: Database,
    through_database: Database,
    /// Whether each session's row is what the gateway sent last, through Embudo.
    rows_equal: bool,
}

/// `target/embudo/full-stack.json`: the project's own application, and the panel beside it.
#[derive(Debug, Serialize)]
struct Both<'s> {
    #[serde(flatten)]
    own: &'s Summary,
    panel: &'s Summary,
}

pub(crate) async fn run(arguments: FullStackArguments) -> Result<()> {
    // First, so that a module that does not build is told before a minute of traffic.
    let envoy = EnvoyOptions::new("full-stack", SocketAddr::from(([127, 0, 0, 1], 0)));
    Envoy::prepare(&envoy).await?;
    if let Some(application) = arguments.application {
        let summary = arguments.compare(application, &envoy).await?;
        publish(&summary, &format!("full-stack-{}.json", application.name()))?;
        return summary.judge(arguments.secs);
    }
    let own = arguments.compare(Application::Own, &envoy).await?;
    let panel = arguments.compare(Application::Panel, &envoy).await?;
    let both = Both {
        own: &own,
        panel: &panel,
    };
    publish(&both, "full-stack.json")?;
    own.judge(arguments.secs)
        .context("the project's own application")?;
    panel.judge(arguments.secs).context("the panel")
}

// === impl FullStackArguments ===

impl FullStackArguments {
    /// Both arms before one application.
    async fn compare(&self, application: Application, envoy: &EnvoyOptions) -> Result<Summary> {
        println!("{}:", application.title());
        let (direct, ..) = self.arm(application, None).await?;
        let through = self.arm(application, Some(envoy.clone())).await?;
        let (through, ledger, before) = through;
        let summary = Summary::new(self, application, &direct, &through, before, ledger);
        println!(
            "{}",
            table::comparison(&direct.outcome, &through.outcome, &summary.run)
        );
        println!("{}", summary.text());
        println!("{}", ledger_line(&ledger));
        Ok(summary)
    }

    /// The traffic, straight to a fresh Laravel or through this Envoy.
    async fn arm(
        &self,
        application: Application,
        envoy: Option<EnvoyOptions>,
    ) -> Result<(Arm, Ledger, Proving)> {
        let epoch = Instant::now();
        let ids = session_ids(self.seed, self.sessions);
        let laravel = RealLaravel::start(RealLaravelOptions {
            application,
            workers: self.workers,
            accounts: ids.clone(),
            epoch,
            ..RealLaravelOptions::default()
        })
        .await?;
        let is_panel = application == Application::Panel;
        let gateway = match is_panel {
            true => GatewayConfig {
                scan_probability: PANEL_SCANS,
                tells_details: true,
                ..GatewayConfig::default()
            },
            false => GatewayConfig::default(),
        };
        let options = |base_url| LoadOptions {
            base_url,
            sessions: self.sessions,
            identities: ids.iter().cloned().map(Identity::plain).collect(),
            seed: self.seed,
            duration: Duration::from_secs(self.secs),
            gateway: gateway.clone(),
            note_reads: true,
            epoch,
            ..LoadOptions::default()
        };
        let stops = |ids: &[String]| if is_panel { ids.to_vec() } else { Vec::new() };
        let Some(envoy) = envoy else {
            let options = options(laravel.url());
            load::introduce(&options).await?;
            load::warm_up(&options).await?;
            let load = send("straight to Laravel", &laravel, options, &stops(&ids)).await?;
            return Ok((
                Arm::new(application, load, &laravel)?,
                Ledger::default(),
                Proving::default(),
            ));
        };
        let envoy = Envoy::start(EnvoyOptions {
            laravel: (&laravel).into(),
            ..envoy
        })
        .await?;
        let options = options(envoy.url());
        let first = Instant::now();
        load::meet(&envoy, &options).await?;
        let before = prove(&laravel, &options, first).await?;
        settled(&envoy).await?;
        // The comparison knows nothing of what was delivered before: no answer may still be taken for one from then.
        tokio::time::sleep(Duration::from_millis(reads::SETTLE_MS)).await;
        println!("{}", before.text());
        let load = send("through Embudo     ", &laravel, options, &stops(&ids)).await?;
        let ledger = settled(&envoy).await?;
        envoy.stop();
        Ok((Arm::new(application, load, &laravel)?, ledger, before))
    }
}

/// Lets the gateway send until something is believed of Laravel's answers, for a minute after the first delivery at most.
async fn prove(laravel: &RealLaravel, options: &LoadOptions, first: Instant) -> Result<Proving> {
    laravel.reset()?;
    let left = PROVEN_WITHIN.saturating_sub(first.elapsed());
    let options = LoadOptions {
        seed: options.seed ^ PROVING_SEED,
        duration: left,
        ..options.clone()
    };
    let progress = Arc::new(LoadProgress::default());
    let load = Load::start(options, progress.clone())?;
    let believes = async || (progress.believed.load(Ordering::Relaxed) > 0).then_some(());
    let proven = wait::some(left, POLL, believes).await;
    let proven_after_s = proven.map(|()| first.elapsed().as_secs_f64());
    load.stop();
    let load = load.finish().await?;
    Ok(Proving {
        proven_after_s,
        seconds: load.sent_for.as_secs_f64(),
        gateway_requests: load.sends_total(),
        laravel_requests: laravel.journal()?.counts(0).requests(),
        reads: reads::compare(&load.reads, &laravel.words()?, &load.sent),
    })
}

/// Sends and counts from now on. Of these sessions a user stops one a second.
async fn send(
    label: &str,
    laravel: &RealLaravel,
    options: LoadOptions,
    stops: &[String],
) -> Result<Sent> {
    laravel.reset()?;
    let cpu_before = laravel.cpu_seconds();
    let lasts = options.duration;
    let stopping = async {
        let mut every = tokio::time::interval(STOP_EVERY);
        let begun = Instant::now();
        // Neighbours in the list have nothing in common.
        for session in stops.iter().cycle() {
            every.tick().await;
            if begun.elapsed() >= lasts {
                break;
            }
            laravel.stop_session(session).await?;
        }
        anyhow::Ok(())
    };
    let (load, stopped) = tokio::join!(arm::send(label, options), stopping);
    stopped?;
    Ok(Sent {
        load: load?,
        cpu_before,
    })
}

// === impl Arm ===

impl Arm {
    /// Takes Laravel's books, once it has all that it will get.
    fn new(application: Application, sent: Sent, laravel: &RealLaravel) -> Result<Self> {
        let rows = laravel.rows()?;
        let words = laravel.words()?;
        let row = |session: &str| {
            let is_users = is_users(session, &words, &sent.load.sent);
            rows.get(session).filter(|_| !is_users).cloned()
        };
        let details = match application {
            Application::Own => Vec::new(),
            Application::Panel => laravel.details()?,
        };
        Ok(Self {
            ends: final_rows(row, &sent.load.sent),
            details_differ: details.iter().filter(|it| !is_told(it)).count(),
            reads: reads::compare(&sent.load.reads, &words, &sent.load.sent),
            cpu_seconds: laravel.cpu_seconds() - sent.cpu_before,
            memory_bytes: laravel.rss_bytes(),
            outcome: Outcome::new(sent.load, laravel.journal()?),
        })
    }
}

/// Whether a user of Laravel's has changed a session since the gateway has told its state.
fn is_users(session: &str, words: &Words, sent: &SentLog) -> bool {
    let words = words.get(session).map_or(&[][..], Vec::as_slice);
    let Some(last) = words.iter().rfind(|word| word.is_users) else {
        return false;
    };
    let states = sent.of_session(session).iter();
    let mut states = states.filter(|send| send.route == Route::Status && send.is_accepted());
    !states.any(|send| send.sent_us > last.at_ms * 1000)
}

/// Whether a row shows the phone or the reason that came with its state, and none else.
fn is_told(row: &Details) -> bool {
    let (phone, reason) = (row.phone.as_deref(), row.reason.as_deref());
    match row.state.as_str() {
        "active" => phone == Some(&*gateway::phone(&row.session)) && reason.is_none(),
        "inactive" => reason.is_some_and(|reason| REASONS.contains(&reason)),
        _ => phone.is_none() && reason.is_none(),
    }
}

// === impl Proving ===

impl Proving {
    fn text(&self) -> String {
        let proven = match self.proven_after_s {
            Some(after) => format!("{after:.1} s after the first delivery something is believed"),
            None => format!("{PROVEN_WITHIN:?} after the first delivery nothing is believed"),
        };
        let reach = share_percent(self.laravel_requests as f64, self.gateway_requests as f64);
        format!(
            "{proven} of Laravel's answers. Until then {} of the gateway's {} requests have reached it in {:.0} s \
             ({reach:.1} %), and {}.",
            self.laravel_requests,
            self.gateway_requests,
            self.seconds,
            told(&self.reads)
        )
    }
}

/// How the reads were.
fn told(reads: &Compared) -> String {
    let Compared {
        compared,
        from_the_store,
        patched,
        stale,
        wrong,
        ..
    } = reads;
    format!(
        "of {compared} reads, {from_the_store} of them from the store and {patched} with a newer state, {wrong} are \
         not what Laravel itself would have said; {stale} more were answered from the store because Laravel took too long"
    )
}

fn share_percent(reached: f64, sent: f64) -> f64 {
    100.0 * reached / sent.max(1.0)
}

// === impl Database ===

impl Database {
    fn new(arm: &Arm) -> Self {
        Self {
            rows_compared: arm.ends.compared,
            rows_differ: arm.ends.mismatches.len() + arm.details_differ,
            rows_undecided: arm.ends.undecided,
            reads: arm.reads.clone(),
            laravel_cpu_seconds: (arm.cpu_seconds * 100.0).round() / 100.0,
            laravel_memory_mib: arm.memory_bytes / (1024 * 1024),
        }
    }
}

// === impl Summary ===

impl Summary {
    fn new(
        arguments: &FullStackArguments,
        application: Application,
        direct: &Arm,
        through: &Arm,
        before: Proving,
        ledger: Ledger,
    ) -> Self {
        let through_database = Database::new(through);
        let run = RunSummary::new(
            (arguments.sessions, arguments.seed),
            ArmSummary::new(&direct.outcome),
            ArmSummary::new(&through.outcome),
            ledger,
        );
        let share = |arm: &ArmSummary| {
            share_percent(
                arm.laravel.laravel_requests_per_minute,
                arm.gateway.gateway_requests_per_minute,
            )
        };
        Self {
            application,
            direct_share_percent: share(&run.direct),
            through_share_percent: share(&run.through),
            before,
            run,
            direct_database: Database::new(direct),
            rows_equal: through_database.rows_compared > 0 && through_database.rows_differ == 0,
            through_database,
        }
    }

    fn text(&self) -> String {
        let (direct, through) = (&self.direct_database, &self.through_database);
        let named = |reads: &Compared| -> String {
            let lines = reads.named.iter();
            lines.map(|line| format!("\n  wrong: {line}")).collect()
        };
        format!(
            "Of {:.0} requests a minute, {:.0} reach Laravel: {:.1} %, where straight {:.1} % do.\n\
             nginx and PHP use {:.2} s of processor time instead of {:.2} s.\n\
             Of {} sessions whose last value is known, {} have another one in SQLite; straight {} of {}.\n\
             Through Embudo, {}.{}{}\n\
             Straight, {}.{}",
            self.run.gateway_requests_per_minute,
            self.run.laravel_requests_per_minute,
            self.through_share_percent,
            self.direct_share_percent,
            through.laravel_cpu_seconds,
            direct.laravel_cpu_seconds,
            through.rows_compared,
            through.rows_differ,
            direct.rows_differ,
            direct.rows_compared,
            told(&through.reads),
            named(&self.before.reads),
            named(&through.reads),
            told(&direct.reads),
            named(&direct.reads),
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
        let reads = &self.through_database.reads;
        ensure!(reads.compared > 0, "no read was compared");
        let wrong = reads.wrong + self.before.reads.wrong;
        ensure!(wrong == 0, "{wrong} reads are not Laravel's");
        let wrong = self.direct_database.reads.wrong;
        ensure!(
            wrong == 0,
            "{wrong} reads straight from Laravel are not its own: the comparison is wrong"
        );
        if self.run.sessions != PROMISED_SESSIONS || secs < PROMISED_SECONDS {
            return Ok(());
        }
        let stale = reads.stale;
        ensure!(
            stale as f64 <= reads.compared as f64 * STALE_PART_MAX,
            "{stale} reads were not Laravel's because it took too long: this machine is too busy to tell"
        );
        let (found, most) = (
            self.through_share_percent,
            self.application.promised_share_percent(),
        );
        ensure!(
            found <= most,
            "promised is that at most {most} % of the requests reach Laravel; it is {found:.1} %"
        );
        if self.application == Application::Panel {
            return Ok(());
        }
        ensure!(
            self.before.proven_after_s.is_some(),
            "nothing is believed of Laravel's answers within {PROVEN_WITHIN:?}"
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

/// What this command says of an application.
trait Promised {
    fn name(self) -> &'static str;
    fn title(self) -> &'static str;
    /// What of the gateway's requests reaches it at most.
    fn promised_share_percent(self) -> f64;
}

impl Promised for Application {
    fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Panel => "panel",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Own => "The project's own application",
            Self::Panel => "A panel: its answers show QR, phone and time, its QR sets no state",
        }
    }

    fn promised_share_percent(self) -> f64 {
        match self {
            Self::Own => 2.0,
            // A third of what the gateway sends are reads, and each goes to Laravel.
            Self::Panel => 40.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(application: Application, reaching: f64) -> Summary {
        let mut through = ArmSummary::default();
        through.gateway.gateway_requests_per_minute = 7_500.0;
        through.gateway.gateway_p50_ms = 0.5;
        through.laravel.laravel_requests_per_minute = reaching;
        let mut direct = ArmSummary::default();
        direct.gateway.gateway_p50_ms = 2.0;
        let database = || Database {
            rows_compared: 1_000,
            rows_differ: 0,
            rows_undecided: 0,
            reads: Compared {
                compared: 2_000,
                ..Compared::default()
            },
            laravel_cpu_seconds: 1.0,
            laravel_memory_mib: 1,
        };
        Summary {
            application,
            run: RunSummary::new((PROMISED_SESSIONS, 1), direct, through, Ledger::default()),
            direct_share_percent: 100.0,
            through_share_percent: share_percent(reaching, 7_500.0),
            before: Proving {
                proven_after_s: Some(21.0),
                ..Proving::default()
            },
            direct_database: database(),
            through_database: database(),
            rows_equal: true,
        }
    }

    /// The project's own, changed so.
    fn judged(secs: u64, change: impl FnOnce(&mut Summary)) -> Result<()> {
        let mut summary = summary(Application::Own, 150.0);
        change(&mut summary);
        summary.judge(secs)
    }

    #[test]
    fn it_fails_if_less_is_saved_than_promised_or_a_row_is_wrong() {
        assert!(judged(60, |_| {}).is_ok());
        let slow = |summary: &mut Summary| summary.run.through.gateway.gateway_p50_ms = 0.51;
        assert!(judged(60, slow).is_err(), "more than a quarter of 2 ms");
        assert!(judged(5, slow).is_ok(), "too short to tell");
        assert!(judged(60, |summary| summary.rows_equal = false).is_err());
        for (application, most) in [(Application::Own, 150.0), (Application::Panel, 3_000.0)] {
            assert!(summary(application, most).judge(60).is_ok());
            assert!(summary(application, most + 1.0).judge(60).is_err());
            assert!(summary(application, most + 1.0).judge(5).is_ok());
        }
    }

    #[test]
    fn it_fails_if_a_read_is_wrong_however_short_it_is_and_if_nothing_is_believed() {
        assert!(judged(5, |summary| summary.through_database.reads.wrong = 1).is_err());
        assert!(judged(5, |summary| summary.before.reads.wrong = 1).is_err());
        assert!(judged(5, |summary| summary.direct_database.reads.wrong = 1).is_err());
        assert!(judged(5, |summary| summary.through_database.reads.compared = 0).is_err());
        assert!(judged(60, |summary| summary.before.proven_after_s = None).is_err());
        let mut panel = summary(Application::Panel, 2_500.0);
        panel.before.proven_after_s = None;
        assert!(
            panel.judge(60).is_ok(),
            "of a panel nothing is to be believed"
        );
    }

    #[test]
    fn a_row_is_told_what_came_with_its_state() {
        let row = |state: &str, phone: Option<&str>, reason: Option<&str>| {
            is_told(&Details {
                session: "s1".to_owned(),
                state: state.to_owned(),
                phone: phone.map(str::to_owned),
                reason: reason.map(str::to_owned),
            })
        };
        let phone = gateway::phone("s1");
        assert!(row("active", Some(&phone), None) && !row("active", None, None));
        assert!(row("inactive", None, Some(EXPIRED)) && !row("inactive", None, None));
        assert!(row("pending", None, None) && !row("pending", Some(&phone), None));
    }

    #[test]
    fn the_file_has_the_names_that_are_promised() {
        let (own, panel) = (
            summary(Application::Own, 1.0),
            summary(Application::Panel, 1.0),
        );
        let both = Both {
            own: &own,
            panel: &panel,
        };
        let json = serde_json::to_value(both).unwrap();
        for name in ["laravel_requests_per_minute", "gateway_requests_per_minute"] {
            assert!(
                json[name].is_number() && json["panel"][name].is_number(),
                "{name}"
            );
        }
        for arm in ["direct", "through"] {
            assert!(
                json[arm]["gateway_p50_ms"].is_number() && json[arm]["gateway_p99_ms"].is_number()
            );
        }
        assert_eq!(json["rows_equal"], true);
        assert_eq!(json["panel"]["application"], "panel");
    }
}
