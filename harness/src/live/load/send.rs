//! One flow: its requests, their retries, and what is noted of each send.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
    http::uri::{Authority, PathAndQuery, Scheme},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::Semaphore;

use super::{LoadOptions, LoadProgress, LoadReport, Window};
use crate::model::{
    gateway::{Answer, Caller, Flow, Outgoing, Retries, RetryPolicy, What},
    http::{Kind, Request, Route},
    order::Sent,
    reads::{Read, SETTLE_MS},
};
use crate::scenario::{Expected, Planned};

/// Everything the flows share.
pub(super) struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    authority: Authority,
    headers: Vec<(HeaderName, HeaderValue)>,
    callers: Vec<Caller>,
    /// Sessions that are up, and have said so.
    paired: Mutex<BTreeSet<usize>>,
    /// Sessions that were given up, and show nothing any more.
    given_up: Mutex<BTreeSet<usize>>,
    gives_up: bool,
    tells_details: bool,
    note_reads: bool,
    /// Requests signed so far.
    signed: AtomicU64,
    prefix: Arc<str>,
    connections: Semaphore,
    retries: RetryPolicy,
    windows: Vec<Range<u64>>,
    epoch: Instant,
    seed: u64,
    flows: AtomicU64,
    progress: Arc<LoadProgress>,
    report: Mutex<LoadReport>,
}

/// Counts a flow as under way until it ends, however it ends.
struct UnderWay<'a>(&'a LoadProgress);

/// Whose request it is.
struct Whose<'a> {
    /// The session's place.
    index: usize,
    /// The name of its log; none for a stranger's.
    key: Option<&'a str>,
    caller: Option<&'a Caller>,
    /// The updates in it, where it is a batch.
    items: &'a [(String, Route, String)],
    /// What it must be answered, if it is a read of the script.
    expected: Option<&'a Expected>,
}

/// Whether the store has answered a read between two QRs, so soon that it must believe something of what QRs do to
/// Laravel's answers: most reads are such.
fn is_believed(read: &Read, sent: &[Sent]) -> bool {
    let is_cached = read.outcome.as_deref() == Some("cached");
    let mut last = sent.iter().rev().filter(|send| send.is_news());
    let (Some(pending), Some(qr)) = (last.next(), last.next()) else {
        return false;
    };
    let is_young = pending
        .ended_us
        .is_some_and(|ended| read.sent_us < ended + SETTLE_MS * 1000);
    is_cached && is_young && qr.route == Route::Qr && pending.route == Route::Status
}

/// A panic in one flow must not make all others panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Sender ===

impl Sender {
    pub(super) fn new(options: &LoadOptions, progress: Arc<LoadProgress>) -> anyhow::Result<Self> {
        let url: Uri = options
            .base_url
            .parse()
            .with_context(|| format!("the load's base URL {:?} is none", options.base_url))?;
        let authority = url.authority().cloned().with_context(|| {
            format!(
                "the load's base URL {:?} needs a host and a port",
                options.base_url
            )
        })?;
        let mut headers = Vec::new();
        for (name, value) in &options.headers {
            let name: HeaderName = name.parse().with_context(|| format!("header {name:?}"))?;
            headers.push((
                name,
                value.parse().context("the value of a header of the load")?,
            ));
        }
        let identities = options.identities.iter();
        let callers = identities.map(|identity| identity.caller.clone()).collect();
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(options.connections_max)
            .build(connector);
        Ok(Self {
            client,
            authority,
            headers,
            callers,
            paired: Mutex::default(),
            given_up: Mutex::default(),
            gives_up: options.gateway.gives_up,
            tells_details: options.gateway.tells_details,
            note_reads: options.note_reads,
            signed: AtomicU64::new(0),
            prefix: options.prefix.as_str().into(),
            connections: Semaphore::new(options.connections_max.max(1)),
            retries: options.retries.clone(),
            windows: options.windows.clone(),
            epoch: options.epoch,
            seed: options.seed,
            flows: AtomicU64::new(0),
            progress,
            report: Mutex::new(LoadReport::default()),
        })
    }

    pub(super) fn started(&self, begun: Instant) {
        let mut report = self.lock();
        report.started_ms = self.ms(begun);
        report.windows = self.windows.iter().map(|_| Window::default()).collect();
    }

    pub(super) fn shed(&self) {
        self.lock().shed += 1;
    }

    pub(super) fn has_given_up(&self, index: usize) -> bool {
        lock(&self.given_up).contains(&index)
    }

    pub(super) fn prefix(&self) -> Arc<str> {
        self.prefix.clone()
    }

    /// The first request of a flow, with its retries, and nothing after it.
    pub(super) async fn ask(&self, index: usize, key: &str, mut flow: Flow) -> Answer {
        let mut dice = ChaCha8Rng::seed_from_u64(self.seed);
        let Some(outgoing) = flow.start() else {
            return Answer::NetworkError;
        };
        let whose = Whose {
            index,
            key: Some(key),
            caller: self.callers.get(index),
            items: &[],
            expected: None,
        };
        let due = Instant::now();
        self.until_final(&whose, &outgoing, &self.retries, due, &mut dice)
            .await
    }

    /// A post of the script.
    pub(super) async fn scripted(&self, planned: Planned, due: Instant) {
        let _under_way = UnderWay::begin(&self.progress);
        let whose = Whose {
            index: planned.index,
            key: planned.key.as_deref(),
            caller: Some(&planned.caller),
            items: &planned.items,
            expected: planned.expected.as_ref(),
        };
        let mut dice = ChaCha8Rng::seed_from_u64(self.seed);
        self.until_final(&whose, &planned.outgoing, &planned.retries, due, &mut dice)
            .await;
    }

    /// The requests of one event, one after the other.
    pub(super) async fn flow(
        self: Arc<Self>,
        index: usize,
        session: Arc<str>,
        key: Arc<str>,
        what: What,
        due: Instant,
    ) {
        let _under_way = UnderWay::begin(&self.progress);
        self.lock().events += 1;
        let mut dice = ChaCha8Rng::seed_from_u64(self.seed);
        dice.set_stream(self.flows.fetch_add(1, Ordering::Relaxed));
        let comes_up = matches!(what, What::Active);
        if matches!(what, What::LoggedOut) {
            lock(&self.paired).remove(&index);
        }
        let mut flow = Flow::new(self.prefix.clone(), session, what);
        flow = flow.telling_details(self.tells_details);
        let whose = Whose {
            index,
            key: Some(&key),
            caller: self.callers.get(index),
            items: &[],
            expected: None,
        };
        let (event_due, began) = (due, Instant::now());
        let (mut next, mut due) = (flow.start(), due);
        // Bounded: a flow has three requests at most.
        while let Some(outgoing) = next {
            let answer = self
                .until_final(&whose, &outgoing, &self.retries, due, &mut dice)
                .await;
            next = flow.next(&answer);
            due = Instant::now();
        }
        if self.gives_up && flow.gives_up() && lock(&self.given_up).insert(index) {
            let now_us = self.now_us();
            self.lock().given_up.insert(key.to_string(), now_us / 1000);
        }
        if comes_up {
            lock(&self.paired).insert(index);
        }
        let took = &mut self.lock().events_took;
        took.record(event_due.elapsed(), began.elapsed());
    }

    /// The request as its caller sends it.
    fn signed(&self, whose: &Whose<'_>, request: Request) -> Request {
        let Some(caller) = whose.caller else {
            return request;
        };
        let nth = self.signed.fetch_add(1, Ordering::Relaxed);
        let is_paired = lock(&self.paired).contains(&whose.index);
        caller.sign(request, nth, is_paired)
    }

    /// One request with its retries.
    async fn until_final(
        &self,
        whose: &Whose<'_>,
        outgoing: &Outgoing,
        policy: &RetryPolicy,
        mut due: Instant,
        dice: &mut ChaCha8Rng,
    ) -> Answer {
        let mut retries = Retries::default();
        let mut retry = false;
        // Bounded: the policy says when it is enough.
        loop {
            let answer = self.send(whose, outgoing, policy, due, retry).await;
            let Some(wait_ms) = retries.after(policy, &answer, dice) else {
                return answer;
            };
            due = Instant::now() + Duration::from_millis(wait_ms);
            tokio::time::sleep_until(due.into()).await;
            retry = true;
        }
    }

    /// One send, noted from its beginning to its end.
    async fn send(
        &self,
        whose: &Whose<'_>,
        outgoing: &Outgoing,
        policy: &RetryPolicy,
        due: Instant,
        retry: bool,
    ) -> Answer {
        // As in Node's agent, the timeout begins with the connection. It is never closed.
        let Ok(_connection) = self.connections.acquire().await else {
            return Answer::NetworkError;
        };
        let request = self.signed(whose, outgoing.request.clone());
        let timeout = Duration::from_millis(policy.timeout_ms);
        let Some(session) = whose.key else {
            // A stranger's: it is sent, and nobody notes it.
            let exchange = self.exchange(&request);
            return match tokio::time::timeout(timeout, exchange).await {
                Ok(Some((status, body, _))) => Answer::Status(status, body),
                Ok(None) => Answer::NetworkError,
                Err(_) => Answer::Timeout,
            };
        };
        let sent = Instant::now();
        let places: Vec<(&str, usize)> = {
            // The time is taken under the lock, so that the log's order is the order of its times.
            let mut report = self.lock();
            let now_us = self.now_us();
            report.sending(now_us, outgoing.kind, retry);
            let single = outgoing.update.iter();
            let single = single.map(|(route, value)| (session, *route, value.as_str()));
            let items = whose.items.iter();
            let items = items.map(|(key, route, value)| (key.as_str(), *route, value.as_str()));
            let sent = single.chain(items);
            sent.map(|(key, route, value)| {
                (key, report.sent.sent(key, Sent::new(route, value, now_us)))
            })
            .collect()
        };
        self.progress.sends.fetch_add(1, Ordering::Relaxed);
        let exchange = self.exchange(&request);
        let (answer, outcome) = match tokio::time::timeout(timeout, exchange).await {
            Ok(Some((status, body, outcome))) => (Answer::Status(status, body), outcome),
            Ok(None) => (Answer::NetworkError, None),
            Err(_) => (Answer::Timeout, None),
        };
        let ended = Instant::now();
        let mut report = self.lock();
        let now_us = self.now_us();
        report.ended(now_us, outgoing.kind, &answer, &outcome);
        if let Some(expected) = whose.expected {
            let body = match &answer {
                Answer::Status(_, body) => Some(&body[..]),
                Answer::NetworkError | Answer::Timeout => None,
            };
            let wrong = expected.verdict(body, outcome.as_deref());
            report.wrong_reads.extend(wrong);
        }
        let succeeded = answer.is_success();
        if self.note_reads
            && outgoing.kind == Kind::GetStatus
            && let Answer::Status(200, body) = &answer
        {
            let read = Read {
                sent_us: self.us(sent),
                ended_us: now_us,
                body: body.clone(),
                outcome: outcome.clone(),
            };
            if is_believed(&read, report.sent.of_session(session)) {
                self.progress.believed.fetch_add(1, Ordering::Relaxed);
            }
            report
                .reads
                .entry(session.to_owned())
                .or_default()
                .push(read);
        }
        let status = match answer {
            Answer::Status(status, _) => Some(status),
            Answer::NetworkError | Answer::Timeout => None,
        };
        if status.is_some() {
            report.latency(
                outgoing.kind,
                ended.duration_since(due),
                ended.duration_since(sent),
            );
            self.progress.answers.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(window) = self.window(report.started_ms, due) {
            let latency = [ended.duration_since(due), ended.duration_since(sent)];
            let failed = (!succeeded).then(|| match (status, &outcome) {
                (Some(status), Some(outcome)) => {
                    format!("{} {status} {outcome}", outgoing.kind.name())
                }
                (Some(status), None) => format!("{} {status}", outgoing.kind.name()),
                (None, _) => format!("{} without an answer", outgoing.kind.name()),
            });
            report.in_window(window, failed, status.map(|_| latency));
        }
        if !succeeded {
            self.progress.failures.fetch_add(1, Ordering::Relaxed);
        }
        for (key, place) in places {
            let outcome = outcome.clone();
            report.sent.ended(key, place, now_us, status, outcome);
        }
        answer
    }

    /// Status, body and `x-embudo` of the answer, whole, or nothing.
    async fn exchange(&self, request: &Request) -> Option<(u16, Bytes, Option<String>)> {
        let response = self.client.request(self.hyper(request)?).await.ok()?;
        let (head, body) = response.into_parts();
        let outcome = head.headers.get("x-embudo");
        let outcome = outcome.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let body = body.collect().await.ok()?.to_bytes();
        Some((head.status.as_u16(), body, outcome))
    }

    fn hyper(&self, request: &Request) -> Option<hyper::Request<Full<Bytes>>> {
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::try_from(request.path.as_str()).ok()?);
        let mut builder = hyper::Request::builder()
            .method(request.method.as_str())
            .uri(uri.build().ok()?);
        for (name, value) in &request.headers {
            builder = builder.header(name, &value[..]);
        }
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        builder.body(Full::new(request.body.clone())).ok()
    }

    /// The report so far.
    pub(super) fn report(&self, sent_for: Duration, unfinished: usize) -> LoadReport {
        let report = std::mem::take(&mut *self.lock());
        LoadReport {
            sent_for,
            unfinished: unfinished as u64,
            ..report
        }
    }

    /// The window in which a send was due, if it is in any.
    fn window(&self, started_ms: u64, due: Instant) -> Option<usize> {
        let into_ms = self.ms(due).checked_sub(started_ms)?;
        self.windows.iter().position(|w| w.contains(&into_ms))
    }

    fn ms(&self, moment: Instant) -> u64 {
        self.us(moment) / 1000
    }

    fn us(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.epoch);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, LoadReport> {
        lock(&self.report)
    }
}

// === impl UnderWay ===

impl<'a> UnderWay<'a> {
    fn begin(progress: &'a LoadProgress) -> Self {
        progress.events.fetch_add(1, Ordering::Relaxed);
        progress.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(progress)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
