//! The stand-in Laravel: the model of [`crate::model::laravel`] behind a real socket, with the time
//! PHP takes.
//!
//! What makes PHP-FPM special, and is kept here:
//! * **Few workers.** A request waits, first come first served, for one of `workers`; a crowd makes
//!   everybody slow. Beyond the backlog nginx answers 502.
//! * **Nothing is taken back.** A request that reached the backlog runs to its end and takes effect,
//!   whether or not its client is still there. A client's timeout is therefore no answer at all.
//!
//! It speaks HTTP/1.1 and HTTP/2 with prior knowledge, on 127.0.0.1 only.

pub(super) mod port;
mod serve;
mod webhook;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{Semaphore, watch};

use self::port::Door;
pub use self::webhook::WebhookServer;
use crate::model::{
    http::Request,
    laravel::{Counts, Fault, Faults, Journal, Laravel, LaravelConfig},
};

/// PHP-FPM on a small machine: `pm.max_children` as most tutorials set it.
const WORKERS: usize = 8;

/// PHP-FPM's `listen.backlog`. One more, and nginx cannot connect and answers 502.
pub(crate) const BACKLOG: usize = 511;

/// How many raw requests are kept: a test looks at a handful, and a load must not eat the memory.
const RAW_MAX: usize = 100_000;

/// How the stand-in is set up.
#[derive(Clone, Debug)]
pub struct LaravelOptions {
    /// Routes, throttle and the cost of a request.
    pub config: LaravelConfig,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// Requests that run at once.
    pub workers: usize,
    /// Requests that wait for a worker; beyond it 502.
    pub backlog: usize,
    /// Sessions that are accounts from the start.
    pub accounts: Vec<String>,
    /// Faults from the start; their times are in ms since `epoch`.
    pub faults: Vec<Fault>,
    /// Seed of the faults' dice.
    pub seed: u64,
    /// When Laravel's clock was 0. Share it with the load, so that their times can be compared.
    pub epoch: Instant,
}

/// A running stand-in. Dropping it stops it.
#[derive(Debug)]
pub struct LaravelServer {
    /// Where it listens, or will listen again once it is up.
    pub addr: SocketAddr,
    door: Door,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    laravel: Mutex<Laravel>,
    workers: Semaphore,
    workers_total: usize,
    backlog: usize,
    /// Requests that wait or run.
    unfinished: watch::Sender<usize>,
    raw: Mutex<Option<Vec<Request>>>,
    epoch: Instant,
    seed: u64,
}

// === impl LaravelServer ===

impl LaravelServer {
    /// Starts it; it accepts connections when this returns.
    ///
    /// # Errors
    /// If the port is taken.
    pub async fn start(options: LaravelOptions) -> io::Result<Self> {
        let door = Door::take(options.port)?;
        let mut laravel = Laravel::new(LaravelConfig {
            unix_zero_ms: unix_ms().saturating_sub(elapsed_ms(options.epoch)),
            ..options.config
        });
        for session in &options.accounts {
            laravel.add_account(session);
        }
        laravel.set_faults(Faults::new(options.seed, options.faults));
        let shared = Arc::new(Shared {
            laravel: Mutex::new(laravel),
            workers: Semaphore::new(options.workers.max(1)),
            workers_total: options.workers.max(1),
            backlog: options.backlog,
            unfinished: watch::Sender::new(0),
            raw: Mutex::new(None),
            epoch: options.epoch,
            seed: options.seed,
        });
        let mut server = Self {
            addr: door.addr(),
            door,
            shared,
        };
        server.up().await?;
        Ok(server)
    }

    /// `http://127.0.0.1:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Laravel's clock.
    pub fn now_ms(&self) -> u64 {
        self.shared.now_ms()
    }

    /// Looks at the model, or changes it. Requests wait meanwhile, so be quick.
    pub fn with<R>(&self, f: impl FnOnce(&mut Laravel) -> R) -> R {
        f(&mut self.shared.laravel())
    }

    /// A copy of the journal.
    pub fn journal(&self) -> Journal {
        self.with(|laravel| laravel.journal().clone())
    }

    /// What arrived since the start or the last reset.
    pub fn counts(&self) -> Counts {
        let now_ms = self.now_ms();
        self.with(|laravel| laravel.journal().counts(now_ms))
    }

    /// Forgets journal and counts, as after a warm-up.
    pub fn reset(&self) {
        let now_ms = self.now_ms();
        self.with(|laravel| laravel.journal_mut().reset(now_ms));
    }

    /// Replaces the faults; none ends them.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        let faults = Faults::new(self.shared.seed, faults);
        self.with(|laravel| laravel.set_faults(faults));
    }

    /// Keeps every request as it came, from now on, or stops and forgets them.
    pub fn record_raw(&self, on: bool) {
        *lock(&self.shared.raw) = on.then(Vec::new);
    }

    /// The requests kept so far, in the order of arrival.
    pub fn raw(&self) -> Vec<Request> {
        lock(&self.shared.raw).clone().unwrap_or_default()
    }

    /// Waits until no request waits or runs; false if `bound` passes first.
    pub async fn idle(&self, bound: Duration) -> bool {
        let mut unfinished = self.shared.unfinished.subscribe();
        let idle = unfinished.wait_for(|&n| n == 0);
        tokio::time::timeout(bound, idle)
            .await
            .is_ok_and(|idle| idle.is_ok())
    }

    // ## Up => Down
    //
    // As when nginx is killed: the port refuses and every connection is gone. PHP's workers are
    // other processes and finish what they have.

    /// Refuses connections and drops those there are. Nothing happens if it is down.
    pub async fn down(&mut self) {
        self.door.close().await;
    }

    // ## Down => Up

    /// Accepts connections on the same port again. Nothing happens if it is up.
    ///
    /// # Errors
    /// If the kernel does not give the port back.
    pub async fn up(&mut self) -> io::Result<()> {
        self.door.open(&self.shared)
    }

    /// Goes down for good and gives the journal back.
    pub async fn stop(mut self) -> Journal {
        self.down().await;
        self.journal()
    }
}

// === impl LaravelOptions ===

impl LaravelOptions {
    /// A Laravel that knows every session, and where a request costs so much and an item nothing: for whatever is
    /// not about Laravel.
    pub fn costing(request_ms: u64) -> Self {
        let config = LaravelConfig {
            request_ms,
            item_ms: 0,
            any_account: true,
            ..LaravelConfig::default()
        };
        Self {
            config,
            ..Self::default()
        }
    }
}

impl Default for LaravelOptions {
    fn default() -> Self {
        Self {
            config: LaravelConfig::default(),
            port: 0,
            workers: WORKERS,
            backlog: BACKLOG,
            accounts: Vec::new(),
            faults: Vec::new(),
            seed: 0,
            epoch: Instant::now(),
        }
    }
}

// === impl Shared ===

impl Shared {
    fn now_ms(&self) -> u64 {
        elapsed_ms(self.epoch)
    }

    fn laravel(&self) -> MutexGuard<'_, Laravel> {
        lock(&self.laravel)
    }

    fn left(&self) {
        self.unfinished.send_modify(|n| *n = n.saturating_sub(1));
    }

    fn record(&self, request: &Request) {
        if let Some(raw) = lock(&self.raw).as_mut()
            && raw.len() < RAW_MAX
        {
            raw.push(request.clone());
        }
    }
}

fn elapsed_ms(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock; 0 where it is before 1970.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// A panic in one request must not make all others panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
