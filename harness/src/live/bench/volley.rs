//! Requests, all at once or at a steady rate, and how long each took.
//!
//! Each connection is a thread's own: Tokio's timers are too coarse for a latency of 0.1 ms. At a rate, a request
//! is due when the schedule says so, whatever became of those before it, and its latency counts from then.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::cores;

/// An answer takes a tenth of a millisecond; this says that something hangs.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// As many as keep one worker busy without a queue in front of it.
const BURST_CONNECTIONS: usize = 4;

/// More than are ever under way at a steady rate, so that no request waits for a connection.
const PACED_CONNECTIONS: usize = 8;

/// One request, and the `x-embudo` that its answer must have.
#[derive(Clone, Debug)]
pub(super) struct Shot {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Bytes,
    pub(super) outcome: Option<&'static str>,
}

/// What to send, where, and how fast.
#[derive(Debug)]
pub(super) struct Volley {
    pub(super) target: SocketAddr,
    /// Of the Envoy whose time is taken.
    pub(super) pid: u32,
    pub(super) shots: Vec<Shot>,
    /// Requests a second; as fast as the answers come if `None`.
    pub(super) rate: Option<f64>,
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Fired {
    /// Envoy's time when the connections were open and nothing was sent.
    pub(super) cpu_before: Duration,
    /// Nanoseconds.
    pub(super) latencies: Histogram<u64>,
}

/// What the threads of a volley share.
struct Range<'a> {
    volley: &'a Volley,
    next: AtomicUsize,
    gate: Barrier,
    begun: OnceLock<Instant>,
}

// === impl Volley ===

impl Volley {
    /// Sends all of it, and fails on the first answer that is not as it must be.
    pub(super) async fn fire(self) -> Result<Fired> {
        tokio::task::spawn_blocking(move || self.fire_here()).await?
    }

    fn fire_here(&self) -> Result<Fired> {
        let connections = match self.rate {
            Some(_) => PACED_CONNECTIONS,
            None => BURST_CONNECTIONS,
        };
        let range = Range {
            volley: self,
            next: AtomicUsize::new(0),
            gate: Barrier::new(connections + 1),
            begun: OnceLock::new(),
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..connections)
                .map(|_| scope.spawn(|| range.shoot()))
                .collect();
            range.gate.wait();
            let cpu_before = cores::cpu_time(self.pid);
            range.begun.get_or_init(Instant::now);
            range.gate.wait();
            let mut latencies = nanoseconds()?;
            for thread in threads {
                let one = thread.join().map_err(|_| anyhow!("a sender panicked"))?;
                latencies.add(one?)?;
            }
            let cpu_before = cpu_before?;
            Ok(Fired {
                cpu_before,
                latencies,
            })
        })
    }
}

/// Up to a minute, to three digits.
fn nanoseconds() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(60_000_000_000, 3)?)
}

// === impl Range ===

impl Range<'_> {
    fn shoot(&self) -> Result<Histogram<u64>> {
        let connected = connect(self.volley.target);
        // Twice: all are connected; Envoy's time has been taken.
        self.gate.wait();
        self.gate.wait();
        let (runtime, mut sender) = connected?;
        let begun = *self.begun.get().context("no beginning")?;
        let mut latencies = nanoseconds()?;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(shot) = self.volley.shots.get(number) else {
                return Ok(latencies);
            };
            let due = match self.volley.rate {
                Some(rate) => begun + Duration::from_secs_f64(number as f64 / rate),
                None => Instant::now(),
            };
            thread::sleep(due.saturating_duration_since(Instant::now()));
            runtime.block_on(async {
                tokio::time::timeout(ANSWER_MAX, shot.send(&mut sender))
                    .await
                    .with_context(|| format!("no answer within {ANSWER_MAX:?}"))?
            })?;
            latencies.saturating_record(due.elapsed().as_nanos() as u64);
        }
    }
}

fn connect(target: SocketAddr) -> Result<(Runtime, SendRequest<Full<Bytes>>)> {
    // Threads wake up to 50 µs late unless they ask for less.
    nix::sys::prctl::set_timerslack(1)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let sender = runtime.block_on(async {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // A broken connection shows in the answers.
        tokio::spawn(connection);
        anyhow::Ok(sender)
    })?;
    Ok((runtime, sender))
}

// === impl Shot ===

impl Shot {
    async fn send(&self, sender: &mut SendRequest<Full<Bytes>>) -> Result<()> {
        let request = Request::builder()
            .method(self.method.clone())
            .uri(self.path.as_str())
            .header("host", "laravel.test")
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .header("user-agent", "axios/1.7.2")
            .body(Full::new(self.body.clone()))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        body.collect().await?;
        let outcome = head.headers.get("x-embudo").map(|value| value.as_bytes());
        ensure!(
            head.status == StatusCode::OK && outcome == self.outcome.map(str::as_bytes),
            "{} {} was answered {} {:?}, and not {:?}",
            self.method,
            self.path,
            head.status,
            outcome.map(String::from_utf8_lossy),
            self.outcome
        );
        Ok(())
    }
}
