//! Gateway, Envoy, Laravel.

use std::time::{Duration, Instant};

use anyhow::Result;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::load::LoadOptions;
use embudo::live::stats::VmReloads;
use embudo::live::{Envoy, EnvoyOptions, Ledger, Twin};
use embudo::model::laravel::{Entry, Journal};
use embudo::model::order::{SentLog, Violation};
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::wait::{BOUND, wait_until};

/// Enough for every call that Embudo may have under way, and some.
const WORKERS: usize = 64;

/// Half of them on each worker, on average.
const CONNECTIONS: usize = 8;

/// How a stack differs from the usual one.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// Embudo's configuration; `{}` unless changed. Where it does not say so itself, every caller is assumed to be
    /// accepted: what a test is about begins after that.
    pub filter_config: Value,
    /// Paths, as regular expressions, whose GETs enter the filter besides status reads.
    pub read_routes: Vec<String>,
    /// What an operator may have written into Envoy's configuration besides.
    pub envoy_changes: Vec<(String, Value)>,
    /// Listeners beside the gateway's.
    pub twins: Vec<Twin>,
    /// Another Envoy between this one and Laravel, with what is written into its configuration.
    pub between: Option<Vec<(String, Value)>>,
    /// The stand-in Laravel: one that costs no time and knows every session, unless changed.
    pub laravel: LaravelOptions,
    /// How many connections the client opens.
    pub connections: usize,
    /// Whether the listener can be updated while it serves.
    pub watch_listener: bool,
    /// How long the old listener goes on after an update, in seconds.
    pub drain_time_s: u32,
}

/// The whole way.
#[derive(Debug)]
pub struct Stack {
    /// The gateway's end.
    pub gateway: Client,
    /// What is between them.
    pub envoy: Envoy,
    /// Another Envoy between that and Laravel, if there is one.
    pub between: Option<Envoy>,
    /// Laravel's end.
    pub laravel: LaravelServer,
    epoch: Instant,
}

// === impl StackOptions ===

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            filter_config: json!({}),
            read_routes: Vec::new(),
            envoy_changes: Vec::new(),
            twins: Vec::new(),
            between: None,
            laravel: LaravelOptions {
                workers: WORKERS,
                ..LaravelOptions::costing(0)
            },
            connections: CONNECTIONS,
            watch_listener: false,
            drain_time_s: 10,
        }
    }
}

// === impl Stack ===

impl Stack {
    /// Starts all of it with the defaults; `name` is the beginning of the run folder's name.
    ///
    /// # Errors
    /// When Envoy does not start.
    pub async fn start(name: &str) -> Result<Self> {
        Self::with(name, |_| {}).await
    }

    /// Starts all of it with this configuration of Embudo's.
    ///
    /// # Errors
    /// When Envoy does not start.
    pub async fn configured(name: &str, filter_config: Value) -> Result<Self> {
        Self::with(name, |options| options.filter_config = filter_config).await
    }

    /// Starts all of it, changed as `change` says.
    ///
    /// # Errors
    /// When Envoy does not start.
    pub async fn with(name: &str, change: impl FnOnce(&mut StackOptions)) -> Result<Self> {
        let mut options = StackOptions::default();
        change(&mut options);
        if let Some(config) = options.filter_config.as_object_mut() {
            let assume = config.entry("assume").or_insert_with(|| json!({}));
            if let Some(assume) = assume.as_object_mut() {
                assume.entry("callers").or_insert(json!(true));
            }
        }
        let epoch = options.laravel.epoch;
        let laravel = LaravelServer::start(options.laravel).await?;
        let between = match options.between {
            None => None,
            Some(changes) => {
                let between = EnvoyOptions {
                    embudo: false,
                    changes,
                    ..EnvoyOptions::new(&format!("{name}-between"), laravel.addr)
                };
                Some(Envoy::start(between).await?)
            }
        };
        let next = between
            .as_ref()
            .map_or(laravel.addr, |envoy| envoy.listener);
        let envoy = EnvoyOptions {
            filter_config: options.filter_config,
            read_routes: options.read_routes,
            changes: options.envoy_changes,
            twins: options.twins,
            watch_listener: options.watch_listener,
            drain_time_s: options.drain_time_s,
            ..EnvoyOptions::new(name, next)
        };
        let envoy = Envoy::start(envoy).await?;
        let gateway = Client::connect(&envoy, epoch, options.connections).await?;
        let stack = Self {
            gateway,
            envoy,
            between,
            laravel,
            epoch,
        };
        // Before its first election nobody would be late but the test's first call.
        wait_until("a root becomes the dispatcher", BOUND, async || {
            stack.gauge("embudo.leader_beat").await.unwrap_or(0) > 0
        })
        .await;
        Ok(stack)
    }

    /// Posts a QR.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn post_qr(&self, session: &str, qr: &str) -> Answer {
        let answer = self.gateway.post_qr(session, qr).await;
        answer.expect("a QR is answered")
    }

    /// Posts a state.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn post_status(&self, session: &str, value: &str) -> Answer {
        let answer = self.gateway.post_status(session, value).await;
        answer.expect("a state is answered")
    }

    /// What Laravel has processed of one session, in the order of effect.
    pub fn of_session(&self, session: &str) -> Vec<Entry> {
        self.laravel.with(|laravel| {
            let entries = laravel.journal().of_session(session);
            entries.cloned().collect()
        })
    }

    /// The values that Laravel has processed of one session, in the order of effect.
    pub fn values_of(&self, session: &str) -> Vec<String> {
        let entries = self.of_session(session).into_iter();
        entries.map(|entry| entry.value).collect()
    }

    /// The session's state at Laravel.
    pub fn state_of(&self, session: &str) -> Option<String> {
        self.laravel
            .with(|laravel| Some(laravel.account(session)?.estado_qr.clone()))
    }

    /// Waits until Laravel has processed `n` updates of one session, and gives them.
    ///
    /// # Panics
    /// When it takes longer than [`BOUND`].
    pub async fn arrived(&self, session: &str, n: usize) -> Vec<Entry> {
        let what = format!("Laravel has {n} updates of {session}");
        wait_until(&what, BOUND, async || self.of_session(session).len() >= n).await;
        self.of_session(session)
    }

    /// Embudo's ledger at this moment.
    ///
    /// # Panics
    /// When the admin page does not answer.
    pub async fn ledger(&self) -> Ledger {
        let stats = self.envoy.admin.stats().await;
        stats.expect("Envoy's figures").ledger()
    }

    /// One of Embudo's gauges.
    pub async fn gauge(&self, name: &str) -> Option<u64> {
        self.envoy.admin.stats().await.ok()?.gauge(name)
    }

    /// The sum of Embudo's counters with these labels.
    ///
    /// # Panics
    /// When the admin page does not answer.
    pub async fn counter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let stats = self.envoy.admin.stats().await;
        stats.expect("Envoy's figures").counter(name, labels)
    }

    /// Waits until every accepted update has met its end and the gauge says so too, and gives the ledger.
    ///
    /// # Panics
    /// When it takes longer than `bound`: something is lost or stuck.
    pub async fn settled(&self, bound: Duration) -> Ledger {
        let mut ledger = self.ledger().await;
        wait_until("every accepted update meets its end", bound, async || {
            ledger = self.ledger().await;
            ledger.pending == 0 && ledger.balances()
        })
        .await;
        ledger
    }

    /// Waits until the listeners of before the last update are gone, and with them their root contexts.
    ///
    /// # Panics
    /// When it takes longer than `bound`.
    pub async fn drained(&self, bound: Duration) {
        wait_until("the old listeners have drained", bound, async || {
            let stats = self.envoy.admin.stats().await;
            stats.is_ok_and(|s| s.raw("listener_manager.total_filter_chains_draining") == 0)
        })
        .await;
    }

    /// A load through this Envoy, on Laravel's clock.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions {
            base_url: self.envoy.url(),
            epoch: self.epoch,
            ..LoadOptions::default()
        }
    }

    /// Asserts that the books balance, now or in a moment: the gauge follows the counters by a tick.
    ///
    /// # Panics
    /// When they do not.
    pub async fn assert_ledger_balances(&self) {
        let what = "accepted = delivered + superseded + expired + rejected + pending";
        wait_until(what, BOUND, async || self.ledger().await.balances()).await;
    }

    /// Asserts that no VM has trapped.
    ///
    /// # Panics
    /// When one has.
    pub async fn assert_no_vm_reload(&self) {
        let stats = self.envoy.admin.stats().await.expect("Envoy's figures");
        assert_eq!(
            stats.vm_reloads(),
            VmReloads::default(),
            "no worker's VM traps"
        );
        let errors: Vec<String> = ["][error][wasm]", "][critical]"]
            .iter()
            .flat_map(|level| self.envoy.grep_log(level))
            .collect();
        assert!(errors.is_empty(), "Embudo logs no error: {errors:#?}");
    }

    /// Asserts that for no session an older value took effect after a newer one, and that no two calls of
    /// a session overlapped. `sent` is what was sent besides [`Stack::gateway`]'s own.
    ///
    /// # Panics
    /// When one did.
    pub fn assert_order(&self, sent: Option<&SentLog>) {
        let journal = self.laravel.journal();
        let mut violations = journal.check_order(&self.gateway.sent());
        if let Some(sent) = sent {
            violations.extend(journal.check_order(sent));
        }
        assert_none(&violations, "no older value takes effect after a newer one");
        assert_none(&journal.check_overlap(), "a session's calls never overlap");
    }

    /// Asserts what holds at the end of every run (nothing lost, nothing overtaken, no VM dead), stops
    /// everything and gives Laravel's journal.
    ///
    /// # Panics
    /// When something does not hold.
    pub async fn finish(self) -> Journal {
        self.settled(BOUND).await;
        self.assert_no_vm_reload().await;
        self.assert_order(None);
        self.envoy.stop();
        self.laravel.stop().await
    }
}

fn assert_none(violations: &[Violation], must_hold: &str) {
    let first: Vec<String> = violations.iter().take(5).map(ToString::to_string).collect();
    let count = violations.len();
    assert!(violations.is_empty(), "{must_hold}; {count} do: {first:#?}");
}
