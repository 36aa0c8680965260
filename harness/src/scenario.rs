//! Scenarios: traffic, Laravel's behaviour and what must come of it, as data.
//!
//! A scenario is a TOML file. The same file runs on the live arm (a real Envoy, real time) and on the
//! sim arm (the same module, virtual time), and one checker judges both: what differs between the arms
//! is a mistake of one of them. So a file says nothing of sockets, threads or Envoy; it says what the
//! gateway does, what happens to Laravel and when, and within which bounds the outcome must lie, each
//! bound with its reason.

mod expectation;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

pub use self::expectation::{Expectation, Measure, Measures};
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

#[cfg(test)]
mod tests;
