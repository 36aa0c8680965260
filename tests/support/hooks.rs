//! A gateway that posts webhooks, Envoy as a preset's snippet has it, and a target that writes down.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use embudo::live::{Envoy, EnvoyOptions, Ledger};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::target::{Answers, Call, Target};
use crate::wait::{BOUND, wait_until};

/// The whole way of a gateway's webhooks.
#[derive(Debug)]
pub struct Hooks {
    /// What is in the middle.
    pub envoy: Envoy,
    /// Laravel's end.
    pub target: Target,
    gateway: Client<HttpConnector, Full<Bytes>>,
}

/// What the gateway is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// `x-embudo`, or nothing.
    pub outcome: String,
    /// The body.
    pub body: Bytes,
}

// === impl Hooks ===

impl Hooks {
    /// Starts all of it; `over` is laid over the configuration in the preset's snippet.
    ///
    /// # Errors
    /// When Envoy does not start.
    pub async fn start(preset: &str, over: Value, answers: Answers) -> Result<Self> {
        let target = Target::start(answers).await?;
        let envoy = EnvoyOptions {
            preset: Some(preset.to_owned()),
            filter_config: over,
            ..EnvoyOptions::new(preset, target.addr)
        };
        let envoy = Envoy::start(envoy).await?;
        let gateway = Client::builder(TokioExecutor::new()).build_http();
        let hooks = Self {
            envoy,
            target,
            gateway,
        };
        wait_until("a root becomes the dispatcher", BOUND, async || {
            let stats = hooks.envoy.admin.stats().await;
            stats.is_ok_and(|stats| stats.gauge("embudo.leader_beat").unwrap_or(0) > 0)
        })
        .await;
        Ok(hooks)
    }

    /// Posts an event with the headers of its gateway.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn post(&self, path: &str, headers: &[(String, String)], body: &str) -> Reply {
        let mut request =
            Request::post(format!("{}{path}", self.envoy.url())).header("host", "laravel.test");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::from(body.to_owned()));
        let response = self.gateway.request(request.expect("a request")).await;
        let (head, body) = response.expect("an answer").into_parts();
        let outcome = head.headers.get("x-embudo");
        Reply {
            status: head.status.as_u16(),
            outcome: outcome.map_or_else(String::new, |value| {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            }),
            body: body.collect().await.expect("the answer's body").to_bytes(),
        }
    }

    /// Waits until the target has had `n` calls, and gives them all.
    ///
    /// # Panics
    /// When it takes longer than `bound`.
    pub async fn calls(&self, n: usize, bound: Duration, what: &str) -> Vec<Call> {
        wait_until(what, bound, async || self.target.calls().len() >= n).await;
        self.target.calls()
    }

    /// Embudo's ledger at this moment.
    ///
    /// # Panics
    /// When the admin page does not answer.
    pub async fn ledger(&self) -> Ledger {
        let stats = self.envoy.admin.stats().await;
        stats.expect("Envoy's figures").ledger()
    }

    /// Waits until every accepted event has met its end.
    ///
    /// # Panics
    /// When it takes longer than [`BOUND`].
    pub async fn settled(&self) -> Ledger {
        let mut ledger = self.ledger().await;
        wait_until("every accepted event meets its end", BOUND, async || {
            ledger = self.ledger().await;
            ledger.pending == 0 && ledger.balances()
        })
        .await;
        ledger
    }

    /// Asserts that no VM has trapped and that Embudo has logged no error, and stops everything.
    ///
    /// # Panics
    /// When one has.
    pub async fn finish(self) {
        let stats = self.envoy.admin.stats().await.expect("Envoy's figures");
        assert_eq!(stats.vm_reloads(), Default::default(), "no VM traps");
        let errors = self.envoy.grep_log("][error][wasm]");
        assert!(errors.is_empty(), "Embudo logs no error: {errors:#?}");
        self.envoy.stop();
    }
}
