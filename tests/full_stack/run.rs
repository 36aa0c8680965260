//! A real Laravel behind a real Envoy, traffic through both, and the questions asked at the end.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use embudo::live::load::{self, Load, LoadOptions, LoadProgress, LoadReport};
use embudo::live::real_laravel::Rows;
use embudo::live::staleness::staleness;
use embudo::live::{
    Application, Envoy, EnvoyOptions, Ledger, RealLaravel, RealLaravelOptions, scaled,
};
use embudo::model::gateway::{GatewayConfig, session_ids};
use embudo::model::http::Route;
use embudo::model::laravel::Journal;
use embudo::model::order::final_rows;
use embudo::model::reads::{self, Compared};
use embudo_tests::wait_until;
use serde_json::json;

/// Few enough for two cores that other tests use too.
const SESSIONS: usize = 50;

/// Two of a session's QRs and more.
const LASTS: Duration = Duration::from_secs(8);

/// How much faster than in life.
const SPEED: f64 = 10.0;

/// A throttled minute, and the calls after it.
const SETTLE_MAX: Duration = Duration::from_secs(100);

/// Laravel and Envoy, and no traffic yet.
pub(crate) struct Run {
    laravel: RealLaravel,
    envoy: Envoy,
    epoch: Instant,
    sessions: usize,
    application: Application,
}

/// What came of it.
pub(crate) struct Done {
    pub(crate) report: LoadReport,
    pub(crate) journal: Journal,
    pub(crate) ledger: Ledger,
    pub(crate) reads: Compared,
    rows: Rows,
}

// === impl Run ===

impl Run {
    /// Starts a Laravel that knows the sessions, changed as `change` says, and Envoy before it.
    pub(crate) async fn start(
        name: &str,
        change: impl FnOnce(&mut RealLaravelOptions),
    ) -> Result<Self> {
        let mut options = RealLaravelOptions {
            name: format!("{name}-laravel"),
            accounts: session_ids(0, SESSIONS),
            ..RealLaravelOptions::default()
        };
        change(&mut options);
        let (epoch, application) = (options.epoch, options.application);
        let sessions = options.accounts.len();
        let has_package = options.with_package;
        let laravel = RealLaravel::start(options).await?;
        // No QR runs out: what is lost must not hide behind that. That Laravel accepts the gateway is another test's
        // matter, and so is what is believed of the project's own answers; a panel's are not to be. That its QR sets
        // `pending` is only worth it where each state costs a request.
        let is_panel = application == Application::Panel;
        let config = json!({
            "assume": {"callers": true, "reads": !is_panel, "implies": !is_panel && !has_package},
            "routes": [{"name": "qr", "expire_after_ms": 3_600_000}],
        });
        let envoy = Envoy::start(EnvoyOptions {
            filter_config: scaled(&config, SPEED),
            ..EnvoyOptions::new(name, &laravel)
        })
        .await?;
        Ok(Self {
            laravel,
            envoy,
            epoch,
            sessions,
            application,
        })
    }

    /// Sends traffic to its end, waits until every update has met its own, and takes Laravel's books.
    /// Laravel stands still for the time of `frozen`, counted from the start of the traffic.
    pub(crate) async fn traffic(self, frozen: Option<Range<Duration>>) -> Result<Done> {
        let options = LoadOptions {
            base_url: self.envoy.url(),
            sessions: self.sessions,
            duration: LASTS,
            gateway: GatewayConfig {
                time_compression: SPEED,
                scan_probability: 0.2,
                tells_details: self.application == Application::Panel,
                ..GatewayConfig::default()
            },
            note_reads: true,
            epoch: self.epoch,
            ..LoadOptions::default()
        };
        // What is kept is kept of a session that has had an update.
        load::introduce(&options).await?;
        self.settled().await;
        load::warm_up(&options).await?;
        self.laravel.reset()?;
        let load = Load::start(options, Arc::new(LoadProgress::default()))?;
        let (report, frozen) = tokio::join!(load.finish(), self.freeze(frozen));
        frozen?;
        let ledger = self.settled().await;
        let report = report?;
        Ok(Done {
            reads: reads::compare(&report.reads, &self.laravel.words()?, &report.sent),
            report,
            journal: self.laravel.journal()?,
            ledger,
            rows: self.laravel.rows()?,
        })
    }

    /// Waits until every accepted update has met its end.
    async fn settled(&self) -> Ledger {
        let mut ledger = Ledger::default();
        wait_until(
            "every accepted update meets its end",
            SETTLE_MAX,
            async || {
                let stats = self.envoy.admin.stats().await;
                ledger = stats.map_or(ledger, |stats| stats.ledger());
                ledger.accepted > 0 && ledger.pending == 0 && ledger.balances()
            },
        )
        .await;
        ledger
    }

    async fn freeze(&self, frozen: Option<Range<Duration>>) -> Result<()> {
        let Some(frozen) = frozen else { return Ok(()) };
        tokio::time::sleep(frozen.start).await;
        self.laravel.pause()?;
        tokio::time::sleep(frozen.end - frozen.start).await;
        self.laravel.resume()
    }
}

// === impl Done ===

impl Done {
    /// Asserts what holds whatever Laravel did: the gateway noticed nothing, every accepted update is accounted for, no
    /// older value came after a newer one, each session's row is what the gateway sent last, and every read what Laravel
    /// itself would have said.
    ///
    /// # Panics
    /// When one of these does not hold.
    pub(crate) fn assert_nothing_lost(&self) {
        let report = &self.report;
        assert_eq!(
            (report.failures(), report.unfinished, report.shed),
            (0, 0, 0),
            "the gateway notices nothing: {:?}",
            report.answers
        );
        assert!(
            report.sends_total() > 200,
            "there was traffic, and not only {}",
            report.sends_total()
        );
        assert_eq!(
            (self.ledger.expired, self.ledger.rejected),
            (0, 0),
            "nothing is lost"
        );
        let order = self.journal.check_order(&report.sent);
        assert!(
            order.is_empty(),
            "no older value takes effect after a newer one: {order:#?}"
        );
        let overlap = self.journal.check_overlap();
        assert!(
            overlap.is_empty(),
            "a session's calls never overlap: {overlap:#?}"
        );
        assert!(
            self.reads.compared > 50 && self.reads.wrong == 0,
            "every read is Laravel's word: {:#?}",
            self.reads
        );
        let ends = final_rows(|session| self.rows.get(session).cloned(), &report.sent);
        assert!(
            ends.mismatches.is_empty() && ends.compared > ends.undecided,
            "every row is what the gateway sent last: {ends:#?}"
        );
    }

    /// How old a QR is when Laravel has it, in ms: in half of all cases, in all but a hundredth, and at most.
    pub(crate) fn qr_ms(&self) -> [u64; 3] {
        let qrs = staleness(self.journal.entries(), &self.report.sent, Route::Qr);
        [0.5, 0.99, 1.0].map(|q| qrs.value_at_quantile(q))
    }
}
