//! A gateway's HTTP client whose connections are known one by one.
//!
//! Which of Envoy's workers a connection belongs to is decided by the kernel, and a test of what happens
//! *between* workers proves nothing if all its connections end on one. So connections are opened one after
//! the other, and Envoy's own figures tell whose each is; it goes on until every worker has some.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use embudo::live::{Admin, Envoy};
use embudo::model::http::Route;
use embudo::model::order::{Sent, SentLog};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::values::{qr_body, status_body};
use crate::wait::{BOUND, wait_until};

/// With fair dice 16 connections give each of two workers at least four; the kernel's hash is fair, but 64
/// throws without four of each would mean that it is not.
const CONNECTIONS_MAX: usize = 64;

/// The gateway.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    epoch: Instant,
    connections: Vec<Connection>,
    next: AtomicUsize,
    sent: Mutex<SentLog>,
}

#[derive(Debug)]
struct Connection {
    worker: String,
    sender: tokio::sync::Mutex<SendRequest<Full<Bytes>>>,
}

/// An answer, and when it came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// `x-embudo`, or nothing.
    pub outcome: String,
    /// The body.
    pub body: Bytes,
    /// When the request was sent, in ms of Laravel's clock. The update was accepted between this and
    /// `answered_ms`.
    pub sent_ms: u64,
    /// When the answer was there, in ms of Laravel's clock.
    pub answered_ms: u64,
}

// === impl Client ===

impl Client {
    /// Opens `connections` connections or some more, a quarter of them at each worker at least.
    pub(crate) async fn connect(envoy: &Envoy, epoch: Instant, connections: usize) -> Result<Self> {
        let mut client = Self {
            address: envoy.listener,
            epoch,
            connections: Vec::new(),
            next: AtomicUsize::new(0),
            sent: Mutex::default(),
        };
        let workers = accepted(&envoy.admin).await?;
        let is_enough = |client: &Self, workers: &BTreeMap<String, u64>| {
            let mut workers = workers.keys();
            client.connections.len() >= connections
                && workers.all(|worker| client.on_worker(worker).len() >= connections / 4)
        };
        while !is_enough(&client, &workers) {
            ensure!(
                client.connections.len() < CONNECTIONS_MAX,
                "the kernel gives all connections to one worker"
            );
            let (stream, worker) = open(envoy).await?;
            let sender = tokio::sync::Mutex::new(handshake_over(stream).await?);
            client.connections.push(Connection { worker, sender });
        }
        Ok(client)
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The workers that have connections.
    pub fn workers(&self) -> Vec<&str> {
        let mut workers: Vec<&str> = self.connections.iter().map(|c| &*c.worker).collect();
        workers.sort_unstable();
        workers.dedup();
        workers
    }

    /// The connections of one worker.
    pub fn on_worker(&self, worker: &str) -> Vec<usize> {
        let all = self.connections.iter().enumerate();
        all.filter_map(|(i, c)| (c.worker == worker).then_some(i))
            .collect()
    }

    /// Posts a QR over the next connection.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post_qr(&self, session: &str, qr: &str) -> Result<Answer> {
        self.post_qr_over(self.turn(), session, qr).await
    }

    /// Posts a QR over this connection.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post_qr_over(&self, at: usize, session: &str, qr: &str) -> Result<Answer> {
        let update = (session, Route::Qr, qr);
        self.update(at, "/api/qr", update, qr_body(session, qr))
            .await
    }

    /// Posts a state over the next connection.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post_status(&self, session: &str, value: &str) -> Result<Answer> {
        self.post_status_over(self.turn(), session, value).await
    }

    /// Posts a state over this connection.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post_status_over(&self, at: usize, session: &str, value: &str) -> Result<Answer> {
        let update = (session, Route::Status, value);
        let body = status_body(session, value);
        self.update(at, "/api/whatsapp/status", update, body).await
    }

    /// Posts any body over the next connection; it is left out of [`Client::sent`].
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Result<Answer> {
        self.exchange(self.turn(), path, body.into()).await
    }

    /// Every update that was sent, for the order check.
    pub fn sent(&self) -> SentLog {
        self.log().clone()
    }

    fn turn(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    async fn update(
        &self,
        at: usize,
        path: &str,
        (session, route, value): (&str, Route, &str),
        body: String,
    ) -> Result<Answer> {
        let place = {
            // The time is taken under the lock, so that the log's order is the order of its times.
            let mut log = self.log();
            log.sent(session, Sent::new(route, value, self.now_us()))
        };
        let answer = self.exchange(at, path, body.into()).await;
        let (status, outcome) = match &answer {
            Ok(answer) => (Some(answer.status), Some(answer.outcome.clone())),
            Err(_) => (None, None),
        };
        self.log()
            .ended(session, place, self.now_us(), status, outcome);
        answer
    }

    async fn exchange(&self, at: usize, path: &str, body: Bytes) -> Result<Answer> {
        let connection = &self.connections[at % self.connections.len()];
        let mut sender = connection.sender.lock().await;
        // Envoy closes connections when it drains a listener; a gateway opens another one.
        if sender.ready().await.is_err() {
            *sender = handshake_over(TcpStream::connect(self.address).await?).await?;
        }
        let request = Request::post(path)
            .header("host", "laravel.test")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/plain, */*")
            .body(Full::new(body))?;
        let sent_ms = self.now_us() / 1000;
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let outcome = head.headers.get("x-embudo");
        Ok(Answer {
            status: head.status.as_u16(),
            outcome: outcome.map_or_else(String::new, |value| {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            }),
            body,
            sent_ms,
            answered_ms: self.now_us() / 1000,
        })
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn log(&self) -> MutexGuard<'_, SentLog> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn handshake_over(stream: TcpStream) -> Result<SendRequest<Full<Bytes>>> {
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Its end shows at the sender.
    tokio::spawn(connection);
    Ok(sender)
}

/// Opens a connection to the gateway's port, and tells which worker took it. Nobody else may connect
/// meanwhile.
///
/// # Errors
/// When Envoy does not answer.
pub async fn open(envoy: &Envoy) -> Result<(TcpStream, String)> {
    let before = accepted(&envoy.admin).await?;
    let stream = TcpStream::connect(envoy.listener).await?;
    let mut after = before.clone();
    wait_until("Envoy accepts a connection", BOUND, async || {
        if let Ok(now) = accepted(&envoy.admin).await {
            after = now;
        }
        after != before
    })
    .await;
    let mut grown = after.iter().filter(|(w, n)| before.get(*w) != Some(n));
    let worker = grown.next().context("a worker that has accepted")?.0;
    Ok((stream, worker.clone()))
}

/// Connections that each worker has accepted.
async fn accepted(admin: &Admin) -> Result<BTreeMap<String, u64>> {
    let text = admin
        .get("/stats?filter=listener.*worker_.*downstream_cx_total")
        .await?;
    let of_worker = |line: &str| {
        let (name, count) = line.split_once(": ")?;
        let worker = name.split('.').find(|part| part.starts_with("worker_"))?;
        Some((worker.to_owned(), count.parse().ok()?))
    };
    Ok(text.lines().filter_map(of_worker).collect())
}
