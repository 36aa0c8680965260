//! A Laravel that is not the project's own: it says of a session whatever a test wants.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use embudo::live::{Envoy, EnvoyOptions};
use embudo_tests::raw::{Answer, Message};
use embudo_tests::{BOUND, wait_until};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// What it knows of one session.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// The state that was posted last.
    pub(super) state: String,
    /// The QR.
    pub(super) qr: String,
    /// All that was posted, in its order.
    pub(super) posts: Vec<Value>,
    /// Reads so far.
    pub(super) reads: usize,
}

/// How a read is answered: the headers beside the content type, and the body.
type Shows = dyn Fn(&Account, &HeaderMap) -> (Vec<(&'static str, String)>, Value) + Send + Sync;

/// An Envoy before it, with Embudo in between.
pub(super) struct Panel {
    pub(super) envoy: Envoy,
    addr: SocketAddr,
    accounts: Arc<Mutex<BTreeMap<String, Account>>>,
    accepting: JoinHandle<()>,
}

// === impl Panel ===

impl Panel {
    pub(super) async fn start(
        name: &str,
        mut config: Value,
        shows: impl Fn(&Account, &HeaderMap) -> (Vec<(&'static str, String)>, Value)
        + Send
        + Sync
        + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let accounts = Arc::<Mutex<BTreeMap<String, Account>>>::default();
        let accepting = tokio::spawn(accept(listener, accounts.clone(), Arc::new(shows)));
        config["assume"]["callers"] = json!(true);
        let options = EnvoyOptions {
            filter_config: config,
            ..EnvoyOptions::new(name, addr)
        };
        let envoy = Envoy::start(options).await?;
        let panel = Self {
            envoy,
            addr,
            accounts,
            accepting,
        };
        wait_until("a root becomes the dispatcher", BOUND, async || {
            let stats = panel.envoy.admin.stats().await;
            stats.is_ok_and(|stats| stats.gauge("embudo.leader_beat").unwrap_or(0) > 0)
        })
        .await;
        Ok(panel)
    }

    pub(super) fn account(&self, session: &str) -> Account {
        lock(&self.accounts)
            .get(session)
            .cloned()
            .unwrap_or_default()
    }

    /// Posts an update, and gives Embudo's outcome.
    pub(super) async fn post(&self, path: &str, body: Value) -> String {
        let answer = Message::json(path, body.to_string());
        let answer = answer.send(self.envoy.listener).await;
        let answer = answer.expect("an update is answered");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.header("x-embudo").unwrap_or_default()
    }

    pub(super) async fn post_state(&self, session: &str, state: &str) -> String {
        let body = json!({"session_id": session, "estado_qr": state});
        self.post("/api/whatsapp/status", body).await
    }

    /// The same, and waits until it was delivered.
    pub(super) async fn has_state(&self, session: &str, state: &str) {
        self.post_state(session, state).await;
        self.settled().await;
        assert_eq!(self.account(session).state, state);
    }

    pub(super) async fn settled(&self) {
        wait_until("every update is delivered", BOUND, async || {
            let stats = self.envoy.admin.stats().await;
            stats.is_ok_and(|stats| {
                let ledger = stats.ledger();
                ledger.pending == 0 && ledger.balances()
            })
        })
        .await;
    }

    /// A read through Embudo.
    pub(super) async fn read(&self, session: &str) -> Answer {
        let answer = super::ask(session).send(self.envoy.listener).await;
        answer.expect("a read is answered")
    }

    /// A read as the panel itself answers it.
    pub(super) async fn straight(&self, session: &str) -> Answer {
        let answer = super::ask(session).send(self.addr).await;
        answer.expect("a read is answered")
    }

    /// Reads until the store answers.
    pub(super) async fn until_cached(&self, message: &Message) -> Answer {
        let mut cached = None;
        wait_until("the store answers", BOUND, async || {
            let answer = message.send(self.envoy.listener).await;
            let answer = answer.expect("a read is answered");
            let is_cached = super::outcome(&answer) == "cached";
            cached = Some(answer);
            is_cached
        })
        .await;
        cached.expect("it was asked")
    }

    pub(super) async fn counter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let stats = self.envoy.admin.stats().await;
        stats.expect("Envoy's figures").counter(name, labels)
    }

    /// It is away, and takes no connections.
    pub(super) fn dies(&self) {
        self.accepting.abort();
    }
}

fn lock(accounts: &Mutex<BTreeMap<String, Account>>) -> MutexGuard<'_, BTreeMap<String, Account>> {
    accounts.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    accounts: Arc<Mutex<BTreeMap<String, Account>>>,
    shows: Arc<Shows>,
) {
    // The connections end with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (accounts, shows) = (accounts.clone(), shows.clone());
        let service = service_fn(move |request| answer(request, accounts.clone(), shows.clone()));
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    accounts: Arc<Mutex<BTreeMap<String, Account>>>,
    shows: Arc<Shows>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_or_else(|_| Bytes::new(), |body| body.to_bytes());
    let mut accounts = lock(&accounts);
    let (headers, body) = if head.method == Method::GET {
        let session = head.uri.path().rsplit('/').next().unwrap_or_default();
        let account = accounts.entry(session.to_owned()).or_default();
        account.reads += 1;
        shows(account, &head.headers)
    } else {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let items = ["qrs", "updates", "statuses"]
            .iter()
            .find_map(|name| body[*name].as_array());
        let items = items.cloned().unwrap_or_else(|| vec![body]);
        for item in &items {
            let session = item["session_id"].as_str().unwrap_or_default();
            let account = accounts.entry(session.to_owned()).or_default();
            match item["qr"].as_str() {
                Some(qr) => account.qr = qr.to_owned(),
                None => account.state = item["estado_qr"].as_str().unwrap_or_default().to_owned(),
            }
            account.posts.push(item.clone());
        }
        let said = json!({"success": true, "processed": items.len()});
        (Vec::new(), said)
    };
    let mut response = Response::new(Full::from(body.to_string()));
    let all = response.headers_mut();
    all.insert("content-type", HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        let value = HeaderValue::from_str(&value).expect("a header's value");
        all.append(HeaderName::from_static(name), value);
    }
    Ok(response)
}
