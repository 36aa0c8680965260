//! Scenarios: traffic, Laravel's behaviour and what must come of it, as data.
//!
//! A scenario is a TOML file. The same file runs on the live arm (a real Envoy, real time) and on the
//! sim arm (the same module, virtual time), and one checker judges both: what differs between the arms
//! is a mistake of one of them. So a file says nothing of sockets, threads or Envoy; it says what the
//! gateway does, what happens to Laravel and when, and within which bounds the outcome must lie, each
//! bound with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::model::gateway::{GatewayConfig, session_ids, token};
use crate::model::laravel::{Fault, LaravelConfig, RetryAfter, Tenants};

/// A scenario, as its file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What the scenario shows, as a sentence.
    pub name: String,
    /// Decides everything that looks random.
    #[serde(default = "one")]
    pub seed: u64,
    /// WhatsApp sessions.
    pub sessions: usize,
    /// For how long events begin, seconds of the arm's clock.
    pub seconds: u64,
    /// How long after that everything must be settled, seconds.
    pub settled_within_seconds: u64,
    /// How much faster than in life the gateway is, and Embudo's own timers with it. Calls and claims
    /// keep their times: Laravel is as fast as ever.
    #[serde(default = "real_time")]
    pub compression: f64,
    /// Envoy's workers.
    #[serde(default = "two")]
    pub workers: u32,
    /// Whether each session is asked for once before the first event, so that Embudo has kept a body of
    /// each. It is not measured.
    #[serde(default)]
    pub warm_up: bool,
    /// Tenants that share the sessions, each with a token of its own that goes along with every request,
    /// and to whom Laravel answers for their own sessions only. 0: nobody has a token.
    #[serde(default)]
    pub tenants: usize,
    /// Embudo's own configuration.
    #[serde(default = "empty")]
    pub filter: Value,
    /// How the sessions behave.
    #[serde(default)]
    pub gateway: Gateway,
    /// How Laravel behaves.
    #[serde(default)]
    pub laravel: Laravel,
    /// What goes wrong at Laravel; times count from the first event.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
    /// The webhook behind Envoy's cluster `webhook`; without one, nothing listens there.
    #[serde(default)]
    pub webhook: Option<Webhook>,
    /// What else happens, in the order of time.
    #[serde(default, rename = "happening")]
    pub happenings: Vec<Happening>,
    /// What must come of it.
    #[serde(rename = "expect")]
    pub expectations: Vec<Expectation>,
}

/// How the sessions behave.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// How likely a QR cycle ends in a scan.
    pub scan_probability: f64,
    /// How likely a scan is followed by a reconnect before `active`.
    pub restart_probability: f64,
}

/// How Laravel behaves when nothing is wrong.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Laravel {
    /// PHP workers.
    pub workers: usize,
    /// Milliseconds a request.
    pub request_ms: u64,
    /// Milliseconds more a batch item.
    pub item_ms: u64,
    /// Whether a batch is judged and answered item by item.
    pub results: bool,
    /// The validation does not take the updates of so many sessions, the first of the run.
    pub poison: usize,
    /// Whether a failed validation says which items it is about.
    pub poison_indexes: bool,
    /// A body beyond this is answered 413; nginx's own limit if `None`.
    pub body_bytes_max: Option<usize>,
    /// What is behind the paths of the batches.
    pub batch_route: BatchRoute,
    /// Requests a minute before it answers 429.
    pub throttle_per_minute: Option<u32>,
    /// How a 429 says when to come back.
    pub retry_after: RetryAfter,
}

/// What is behind the paths of the batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchRoute {
    /// Batches are taken.
    #[default]
    There,
    /// Nothing: 404 for a batch of QRs, and 405 for one of states, whose path is that of a read.
    Missing,
    /// A catch-all route's page, with 200.
    Page,
}

/// How the webhook behaves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Milliseconds a call.
    #[serde(default = "webhook_request_ms")]
    pub request_ms: u64,
    /// What goes wrong there; times count from the first event.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
}

/// Something that happens at a time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Happening {
    /// Milliseconds from the first event.
    pub at_ms: u64,
    /// What.
    #[serde(rename = "do")]
    pub what: Verb,
}

/// What can happen.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Laravel's host refuses connections, and drops those it has.
    LaravelDown,
    /// It is back.
    LaravelUp,
    /// The webhook's host refuses connections, and drops those it has.
    WebhookDown,
    /// It is back.
    WebhookUp,
    /// The operator changes Embudo's configuration to this.
    UpdateFilter(Value),
}

/// A bound on the outcome.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// What is bounded.
    pub of: Measure,
    /// The least it may be.
    pub min: Option<f64>,
    /// The most it may be.
    pub max: Option<f64>,
    /// The reason for the bound.
    pub why: String,
}

/// What an arm measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// POSTs that the gateway sent, retries included.
    GatewayPosts,
    /// POSTs that the gateway got no 2xx for.
    GatewayFailures,
    /// Status reads that the gateway sent, retries included.
    GatewayGets,
    /// Status reads that the gateway got no 2xx for.
    ReadFailures,
    /// POSTs that reached Laravel.
    LaravelPosts,
    /// Status reads that reached Laravel.
    LaravelGets,
    /// Requests of any kind that reached Laravel.
    LaravelRequests,
    /// Updates answered `queued`.
    Queued,
    /// Updates answered `implied`.
    Implied,
    /// Updates that ended delivered.
    Delivered,
    /// Updates that ended superseded.
    Superseded,
    /// QRs that ended expired.
    Expired,
    /// Updates that ended rejected.
    Rejected,
    /// Those of them that no dead letter tells of.
    RejectedUntold,
    /// POSTs that Laravel answered, and not with a 2xx.
    LaravelRefused,
    /// Single POSTs that reached Laravel.
    LaravelSingles,
    /// How many of them for each update that Laravel took or did not want.
    SinglesPerUpdate,
    /// The longest that a row at Laravel lacked what a session had said, or something newer, milliseconds.
    /// Sessions that Laravel takes nothing of do not count.
    RowLagMaxMs,
    /// Calls that reached the webhook.
    WebhookCalls,
    /// Items that were handed over to it, dead letters not among them.
    WebhookItems,
    /// Items that came to it as dead letters.
    DeadLetters,
    /// Items that came to it once more although it had taken them.
    WebhookRepeats,
    /// Items of the largest batch.
    BatchItemsMax,
    /// 99th percentile of the age of a QR when Laravel had it, milliseconds.
    QrStalenessP99Ms,
}

/// What an arm measured.
pub type Measures = BTreeMap<Measure, f64>;

fn one() -> u64 {
    1
}

fn two() -> u32 {
    2
}

fn real_time() -> f64 {
    1.0
}

/// Some endpoint on the net.
fn webhook_request_ms() -> u64 {
    5
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

// === impl Scenario ===

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// If the file cannot be read, is no scenario, or contradicts itself; the message says where.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let scenario: Self =
            toml::from_str(&text).with_context(|| format!("{} is no scenario", path.display()))?;
        scenario
            .validate()
            .with_context(|| path.display().to_string())?;
        Ok(scenario)
    }

    /// The scenarios in a folder, by name.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn all_in(dir: &Path) -> Result<Vec<PathBuf>> {
        let entries =
            fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
            .collect();
        paths.sort();
        Ok(paths)
    }

    /// The gateway's model, as this scenario sets it up.
    #[must_use]
    pub fn gateway_config(&self) -> GatewayConfig {
        GatewayConfig {
            scan_probability: self.gateway.scan_probability,
            restart_probability: self.gateway.restart_probability,
            time_compression: self.compression,
        }
    }

    /// Laravel's model, as this scenario sets it up.
    #[must_use]
    pub fn laravel_config(&self) -> LaravelConfig {
        LaravelConfig {
            tenants: self.tenants(),
            poison: self.poison().into_iter().map(|name| (name, 0)).collect(),
            ..self.laravel.config()
        }
    }

    /// The sessions that Laravel takes nothing of.
    #[must_use]
    pub fn poison(&self) -> BTreeSet<String> {
        let ids = session_ids(self.seed, self.sessions).into_iter();
        ids.take(self.laravel.poison).collect()
    }

    /// The credentials that callers have for Laravel.
    #[must_use]
    pub fn secrets(&self) -> BTreeSet<String> {
        let tenants = 0..self.tenants;
        tenants.filter_map(|t| self.authorization(t)).collect()
    }

    /// The `authorization` that goes along with the requests of the session of this index.
    #[must_use]
    pub fn authorization(&self, session: usize) -> Option<String> {
        let tenant = session.checked_rem(self.tenants)?;
        Some(format!("Bearer {}", token(tenant)))
    }

    fn tenants(&self) -> Tenants {
        let mut tenants = Tenants::default();
        let ids = session_ids(self.seed, self.sessions);
        for (index, session) in ids.into_iter().enumerate() {
            if let Some(tenant) = index.checked_rem(self.tenants) {
                tenants.add(&token(tenant), &session);
            }
        }
        tenants
    }

    fn validate(&self) -> Result<()> {
        ensure!(
            self.sessions > 0 && self.seconds > 0,
            "nothing would happen"
        );
        ensure!(self.compression > 0.0, "compression must be more than 0");
        ensure!(
            !self.expectations.is_empty(),
            "a scenario that expects nothing shows nothing"
        );
        for expectation in &self.expectations {
            ensure!(
                expectation.min.is_some() || expectation.max.is_some(),
                "{:?} needs a min or a max",
                expectation.of
            );
        }
        let filter = self.filter.to_string();
        if let Err(problems) = embudo_core::config::Config::parse(filter.as_bytes()) {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::bail!("filter: {}", problems.join("; "));
        }
        Ok(())
    }
}

// === impl Gateway ===

impl Default for Gateway {
    fn default() -> Self {
        Self {
            scan_probability: 0.1,
            restart_probability: 0.5,
        }
    }
}

// === impl Laravel ===

impl Default for Laravel {
    /// PHP-FPM on a small machine.
    fn default() -> Self {
        Self {
            workers: 8,
            request_ms: 20,
            item_ms: 1,
            results: false,
            poison: 0,
            poison_indexes: true,
            body_bytes_max: None,
            batch_route: BatchRoute::There,
            throttle_per_minute: None,
            retry_after: RetryAfter::Seconds,
        }
    }
}

impl Laravel {
    /// Laravel's model, set up like this.
    #[must_use]
    pub fn config(&self) -> LaravelConfig {
        let default = LaravelConfig::default();
        let has_batches = self.batch_route == BatchRoute::There;
        LaravelConfig {
            request_ms: self.request_ms,
            item_ms: self.item_ms,
            qr_batch: has_batches,
            status_batch: has_batches,
            catch_all: self.batch_route == BatchRoute::Page,
            results: self.results,
            poison_indexes: self.poison_indexes,
            body_bytes_max: self.body_bytes_max.unwrap_or(default.body_bytes_max),
            throttle_per_minute: self.throttle_per_minute,
            retry_after: self.retry_after,
            ..default
        }
    }
}

// === impl Measure ===

impl Measure {
    /// Every measure, in the order reports show them.
    pub const ALL: [Self; 24] = [
        Self::GatewayPosts,
        Self::GatewayFailures,
        Self::GatewayGets,
        Self::ReadFailures,
        Self::LaravelPosts,
        Self::LaravelGets,
        Self::LaravelRequests,
        Self::Queued,
        Self::Implied,
        Self::Delivered,
        Self::Superseded,
        Self::Expired,
        Self::Rejected,
        Self::RejectedUntold,
        Self::LaravelRefused,
        Self::LaravelSingles,
        Self::SinglesPerUpdate,
        Self::RowLagMaxMs,
        Self::WebhookCalls,
        Self::WebhookItems,
        Self::DeadLetters,
        Self::WebhookRepeats,
        Self::BatchItemsMax,
        Self::QrStalenessP99Ms,
    ];

    /// As scenarios name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GatewayPosts => "gateway_posts",
            Self::GatewayFailures => "gateway_failures",
            Self::GatewayGets => "gateway_gets",
            Self::ReadFailures => "read_failures",
            Self::LaravelPosts => "laravel_posts",
            Self::LaravelGets => "laravel_gets",
            Self::LaravelRequests => "laravel_requests",
            Self::Queued => "queued",
            Self::Implied => "implied",
            Self::Delivered => "delivered",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::RejectedUntold => "rejected_untold",
            Self::LaravelRefused => "laravel_refused",
            Self::LaravelSingles => "laravel_singles",
            Self::SinglesPerUpdate => "singles_per_update",
            Self::RowLagMaxMs => "row_lag_max_ms",
            Self::WebhookCalls => "webhook_calls",
            Self::WebhookItems => "webhook_items",
            Self::DeadLetters => "dead_letters",
            Self::WebhookRepeats => "webhook_repeats",
            Self::BatchItemsMax => "batch_items_max",
            Self::QrStalenessP99Ms => "qr_staleness_p99_ms",
        }
    }
}

// === impl Expectation ===

impl Expectation {
    /// What is wrong with the measure, if anything is.
    #[must_use]
    pub fn verdict(&self, measures: &Measures) -> Option<String> {
        let Some(found) = measures.get(&self.of) else {
            return Some(format!("{:?} was not measured", self.of));
        };
        let low = self.min.is_some_and(|min| *found < min);
        let high = self.max.is_some_and(|max| *found > max);
        (low || high).then(|| format!("{self}, but it is {found}"))
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} must be", self.of)?;
        if let Some(min) = self.min {
            write!(f, " at least {min}")?;
        }
        if let Some(max) = self.max {
            write!(f, " at most {max}")?;
        }
        write!(f, " ({})", self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(more: &str) -> Scenario {
        let text = format!(
            "name = \"x\"\nsessions = 3\nseconds = 1\nsettled_within_seconds = 1\nexpect = []\n{more}"
        );
        toml::from_str(&text).expect("a scenario")
    }

    #[test]
    fn a_file_says_how_laravel_judges_batches() {
        let scenario = scenario(
            "[laravel]\nresults = true\npoison = 2\npoison_indexes = false\nbody_bytes_max = 4096\n\
             throttle_per_minute = 60\nretry_after = \"date\"",
        );
        let config = scenario.laravel_config();
        assert!(config.results && !config.poison_indexes);
        assert_eq!(config.body_bytes_max, 4096);
        assert_eq!(config.throttle_per_minute, Some(60));
        assert_eq!(config.retry_after, RetryAfter::Date);
        let poison = session_ids(1, 3).into_iter().take(2);
        let poison = poison.map(|name| (name, 0)).collect();
        assert_eq!(config.poison, poison, "the first sessions of the run");
        assert!(config.qr_batch && config.status_batch && !config.catch_all);
    }

    #[test]
    fn a_file_says_what_is_behind_the_paths_of_the_batches() {
        for (route, is_there, catches_all) in [
            ("there", true, false),
            ("missing", false, false),
            ("page", false, true),
        ] {
            let scenario = scenario(&format!("[laravel]\nbatch_route = \"{route}\""));
            let config = scenario.laravel_config();
            assert_eq!((config.qr_batch, config.status_batch), (is_there, is_there));
            assert_eq!(config.catch_all, catches_all, "{route}");
        }
    }

    #[test]
    fn a_webhook_has_its_own_faults_and_happenings() {
        let scenario = scenario(
            "[webhook]\nrequest_ms = 7\n[[webhook.fault]]\nwhat = {status = {code = 500}}\ncount = 1\n\
             [[happening]]\nat_ms = 1\ndo = \"webhook_down\"",
        );
        let webhook = scenario.webhook.expect("a webhook");
        assert_eq!((webhook.request_ms, webhook.faults.len()), (7, 1));
        assert!(matches!(scenario.happenings[0].what, Verb::WebhookDown));
    }

    #[test]
    fn the_secrets_are_those_that_go_along_with_requests() {
        let scenario = scenario("tenants = 2");
        let sent = (0..3).filter_map(|session| scenario.authorization(session));
        assert_eq!(scenario.secrets(), sent.collect());
        assert_eq!(scenario.secrets().len(), 2);
    }
}
