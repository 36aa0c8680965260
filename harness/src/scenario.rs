//! Scenarios: traffic, Laravel's behaviour and what must come of it, as data.
//!
//! A scenario is a TOML file. The same file runs on the live arm (a real Envoy, real time) and on the
//! sim arm (the same module, virtual time), and one checker judges both: what differs between the arms
//! is a mistake of one of them. So a file says nothing of sockets, threads or Envoy; it says what the
//! gateway does, what happens to Laravel and when, and within which bounds the outcome must lie, each
//! bound with its reason.

mod expectation;
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

pub use self::expectation::{Expectation, Measure, Measures};
pub use self::script::{Ask, Expected, Planned, Post, Reading};
use crate::model::gateway::{Caller, GatewayConfig, Identity, session_ids, token};
use crate::model::laravel::{Fault, LaravelConfig, Reads, Required, RetryAfter, Tenants, Throwing};

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
    /// The header that says which tenant it is, where it is not a token.
    #[serde(default)]
    pub tenant_header: Option<String>,
    /// Whether each tenant has sessions of the same names.
    #[serde(default)]
    pub shared_names: bool,
    /// Embudo's own configuration.
    #[serde(default = "empty")]
    pub filter: Value,
    /// How the sessions behave.
    #[serde(default)]
    pub gateway: Gateway,
    /// Posts at given times, beside what the sessions do by themselves.
    #[serde(default, rename = "post")]
    pub posts: Vec<Post>,
    /// Reads at given times, and what they must be answered.
    #[serde(default, rename = "read")]
    pub reads: Vec<Reading>,
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
    #[serde(default, rename = "expect")]
    pub expectations: Vec<Expectation>,
}

/// How the sessions behave.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Whether they do nothing by themselves: only the posts of the file are sent.
    pub quiet: bool,
    /// Headers of every request.
    pub headers: Vec<(String, String)>,
    /// Whether the tenants' tokens are new in each request.
    pub fresh_tokens: bool,
    /// Whether a session says who owns it once it is paired.
    pub owners: bool,
    /// How likely a QR cycle ends in a scan.
    pub scan_probability: f64,
    /// How likely a scan is followed by a reconnect before `active`.
    pub restart_probability: f64,
}

/// How Laravel behaves when nothing is wrong.
#[derive(Clone, Debug, Deserialize)]
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
    /// The rows of so many sessions throw, those after the poison ones.
    pub throwing: usize,
    /// Until then, milliseconds from the first event: somebody mends them. All must be settled in the end.
    pub throwing_until_ms: u64,
    /// What an item's line says of such a row, with `results`.
    pub throwing_line: u16,
    /// So many sessions are no accounts, the last of the run.
    pub orphans: usize,
    /// Whether such a one is a 404, instead of `skipped`.
    pub unknown_is_404: bool,
    /// Headers that every request must have.
    pub requires: Vec<Required>,
    /// A batch of more is a 422 that names the array.
    pub batch_items_max: Option<usize>,
    /// Whether a batch is answered 204.
    pub silent_batches: bool,
    /// Whether a message of a session that is not active is refused.
    pub messages_need_active: bool,
    /// Whether an update of an account that is not there makes one.
    pub upserts: bool,
    /// A body beyond this is answered 413; nginx's own limit if `None`.
    pub body_bytes_max: Option<usize>,
    /// What is behind the paths of the batches.
    pub batch_route: BatchRoute,
    /// Requests a minute before it answers 429.
    pub throttle_per_minute: Option<u32>,
    /// How a 429 says when to come back.
    pub retry_after: RetryAfter,
    /// How reads are answered.
    pub reads: Reads,
    /// Whether a QR leaves the state alone.
    pub qr_leaves_state: bool,
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
    /// Another route than Embudo's changes the state of a session.
    SetState {
        /// Its place in the run.
        session: usize,
        /// To this.
        state: String,
    },
    /// Laravel answers reads like this from now on.
    Reads(Reads),
    /// A session becomes an account.
    AddAccount(usize),
    /// A session is no account any more.
    RemoveAccount(usize),
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
            ..GatewayConfig::default()
        }
    }

    /// Laravel's model, as this scenario sets it up.
    #[must_use]
    pub fn laravel_config(&self) -> LaravelConfig {
        LaravelConfig {
            tenants: self.tenants(),
            tenant_header: self.tenant_header.clone(),
            poison: self
                .poison()
                .into_iter()
                .map(|name| (name, 0))
                .collect::<BTreeMap<_, _>>(),
            ..self.laravel.config()
        }
    }

    /// The sessions that Laravel takes nothing of.
    #[must_use]
    pub fn poison(&self) -> BTreeSet<String> {
        let ids = session_ids(self.seed, self.sessions).into_iter();
        ids.take(self.laravel.poison).collect()
    }

    /// The sessions whose rows throw, if the first event is then, in ms of Laravel's clock.
    #[must_use]
    pub fn throwing(&self, begun_ms: u64) -> Throwing {
        let until_ms = begun_ms.saturating_add(self.laravel.throwing_until_ms);
        let keys = self.identities().into_iter().skip(self.laravel.poison);
        let throwing = keys.take(self.laravel.throwing);
        throwing
            .map(|identity| (identity.key, 0..until_ms))
            .collect()
    }

    /// The name of a session's account.
    #[must_use]
    pub fn account(&self, session: usize) -> String {
        let identity = self.identities().into_iter().nth(session);
        identity.map(|identity| identity.key).unwrap_or_default()
    }

    /// The sessions that are accounts from the start.
    #[must_use]
    pub fn accounts(&self) -> Vec<String> {
        let known = self.sessions.saturating_sub(self.laravel.orphans);
        let all = self.identities().into_iter().take(known);
        all.map(|identity| identity.key).collect()
    }

    /// The sessions of which nothing is promised: those that Laravel does not take, does not know, or cannot
    /// store.
    #[must_use]
    pub fn unpromised(&self) -> BTreeSet<String> {
        let mut all = self.poison();
        all.extend(self.throwing(0).into_keys());
        let known = self.sessions.saturating_sub(self.laravel.orphans);
        let orphans = self.identities().into_iter().skip(known);
        all.extend(orphans.map(|identity| identity.key));
        all
    }

    /// The sessions that something else than their updates happens to: nobody can say where they end.
    #[must_use]
    pub fn touched(&self) -> BTreeSet<String> {
        let sessions = self.happenings.iter().filter_map(|it| match it.what {
            Verb::SetState { session, .. }
            | Verb::AddAccount(session)
            | Verb::RemoveAccount(session) => Some(self.account(session)),
            _ => None,
        });
        sessions.collect()
    }

    /// The last moment at which something stops going wrong by itself, milliseconds from the first event.
    #[must_use]
    pub fn recovers_at_ms(&self) -> Option<u64> {
        let faults = self.faults.iter().map(|fault| fault.to_ms);
        let ups = self.happenings.iter().filter_map(|happening| {
            matches!(happening.what, Verb::LaravelUp).then_some(happening.at_ms)
        });
        faults.filter(|to_ms| *to_ms < u64::MAX).chain(ups).max()
    }

    /// The credentials that callers have for Laravel.
    #[must_use]
    pub fn secrets(&self) -> BTreeSet<String> {
        if self.tenant_header.is_some() {
            return BTreeSet::new();
        }
        let tenants = 0..self.tenants;
        tenants
            .map(|tenant| format!("Bearer {}", token(tenant)))
            .collect()
    }

    /// What the requests of each session have in common.
    #[must_use]
    pub fn identities(&self) -> Vec<Identity> {
        let ids = session_ids(self.seed, self.sessions);
        (0..self.sessions)
            .map(|index| self.identity(index, &ids))
            .collect()
    }

    fn identity(&self, index: usize, ids: &[String]) -> Identity {
        let tenant = index.checked_rem(self.tenants);
        let place = match self.shared_names {
            true => index.checked_div(self.tenants).unwrap_or(index),
            false => index,
        };
        let session = ids.get(place).cloned().unwrap_or_default();
        let mut identity = Identity::plain(session);
        identity.caller.headers.clone_from(&self.gateway.headers);
        if self.gateway.owners {
            identity.caller.owner = Some(format!("551190000{index:04}@s.whatsapp.net"));
        }
        let Some(tenant) = tenant else {
            return identity;
        };
        let Caller {
            headers,
            fresh_token,
            ..
        } = &mut identity.caller;
        match &self.tenant_header {
            Some(name) => {
                let value = format!("tenant-{tenant}");
                identity.key = format!("{value}/{}", identity.session);
                headers.push((name.clone(), value));
            }
            None if self.gateway.fresh_tokens => *fresh_token = Some(token(tenant)),
            None => headers.push((
                "authorization".to_owned(),
                format!("Bearer {}", token(tenant)),
            )),
        }
        identity
    }

    /// The `authorization` that goes along with the requests of the session of this index.
    #[must_use]
    pub fn authorization(&self, session: usize) -> Option<String> {
        let tenant = session.checked_rem(self.tenants)?;
        let is_token = self.tenant_header.is_none() && !self.gateway.fresh_tokens;
        is_token.then(|| format!("Bearer {}", token(tenant)))
    }

    fn tenants(&self) -> Tenants {
        let mut tenants = Tenants::default();
        if self.tenant_header.is_some() {
            return tenants;
        }
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
        for happening in &self.happenings {
            if let Verb::SetState { session, .. }
            | Verb::AddAccount(session)
            | Verb::RemoveAccount(session) = happening.what
            {
                ensure!(
                    session < self.sessions,
                    "something happens to session {session}, which is none"
                );
            }
        }
        ensure!(
            self.laravel.throwing == 0 || self.laravel.throwing_until_ms < u64::MAX,
            "rows that throw for ever are never settled: say throwing_until_ms"
        );
        ensure!(
            !self.shared_names || self.tenant_header.is_some(),
            "shared names need a tenant_header"
        );
        for post in &self.posts {
            let said = [post.qr.is_some(), post.state.is_some(), post.ask.is_some()];
            let said = said.into_iter().filter(|is_said| *is_said).count();
            ensure!(said == 1, "a post says a qr, a state, or what it asks");
            ensure!(
                post.batch == 0 || post.ask.is_none(),
                "a batch is of qrs or states"
            );
            let last_ms = post.at_ms + post.times.saturating_sub(1) * post.every_ms;
            ensure!(
                last_ms < self.seconds * 1000,
                "a post is sent after the end"
            );
            let last = post.session + post.sessions;
            ensure!(
                last <= self.sessions,
                "a post is about session {last}, which is none"
            );
        }
        for read in &self.reads {
            let last = read.session + read.sessions;
            ensure!(
                last <= self.sessions,
                "a read is about session {last}, which is none"
            );
            if let Some(problem) = read.problem() {
                anyhow::bail!(problem);
            }
        }
        ensure!(self.compression > 0.0, "compression must be more than 0");
        ensure!(
            !self.expectations.is_empty() || !self.reads.is_empty(),
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
            quiet: false,
            headers: Vec::new(),
            fresh_tokens: false,
            owners: false,
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
            throwing: 0,
            throwing_until_ms: u64::MAX,
            throwing_line: 500,
            orphans: 0,
            unknown_is_404: false,
            requires: Vec::new(),
            batch_items_max: None,
            silent_batches: false,
            messages_need_active: false,
            upserts: false,
            body_bytes_max: None,
            batch_route: BatchRoute::There,
            throttle_per_minute: None,
            retry_after: RetryAfter::Seconds,
            reads: Reads::default(),
            qr_leaves_state: false,
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
            throwing_line: self.throwing_line,
            unknown_is_404: self.unknown_is_404,
            requires: self.requires.clone(),
            batch_items_max: self.batch_items_max,
            silent_batches: self.silent_batches,
            messages_need_active: self.messages_need_active,
            any_account: self.upserts,
            poison_indexes: self.poison_indexes,
            body_bytes_max: self.body_bytes_max.unwrap_or(default.body_bytes_max),
            throttle_per_minute: self.throttle_per_minute,
            retry_after: self.retry_after,
            reads: self.reads.clone(),
            qr_leaves_state: self.qr_leaves_state,
            ..default
        }
    }
}

#[cfg(test)]
mod tests;
