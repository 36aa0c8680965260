//! The gateway's load over real HTTP.
//!
//! It is an *open* loop: an event begins when its schedule says so, however many are still under
//! way, and latency counts from the moment a request was due. A closed loop would send less the
//! slower Laravel gets, and hide the very thing that is measured.
//!
//! Bounds: the run has a duration; flows under way have a maximum, beyond which events are shed and
//! counted; each request has at most [`RetryPolicy::sends_max`] sends, each with a timeout; and what
//! is still under way at the end gets `drain` and is then dropped and counted.

mod known;
pub(super) mod pace;
mod report;
mod send;

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::StreamExt as _;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

pub use self::known::{SETTLE_MAX, make_known, meet, settled};
pub use self::report::{Latencies, LoadProgress, LoadReport, Second, Window};
use self::send::Sender;
use crate::model::gateway::{
    Caller, Flow, GatewayConfig, Identity, RetryPolicy, What, session_ids,
};
use crate::scenario::Planned;

/// Node's agents with `keepAlive` keep 256 free sockets; more at once would be new to the gateway.
pub(crate) const CONNECTIONS_MAX: usize = 256;

/// With Laravel down, a thousand sessions retrying for three minutes are some 7,000 flows.
const FLOWS_MAX: usize = 50_000;

/// Longer than one send may take; a flow deep in its retries takes longer and is dropped.
const DRAIN: Duration = Duration::from_secs(20);

/// An answer that takes Laravel longer is not kept: it may have waited for something.
const KEPT_WITHIN: Duration = Duration::from_secs(1);

/// So often a session is asked for, where a busy machine takes longer than that.
const WARM_UP_ASKS_MAX: u32 = 5;

/// As many as the stand-in has PHP workers: more would only wait there.
pub(super) const WARM_UP_AT_ONCE: usize = 8;

/// What to send, where, and for how long.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Scheme, host and port: `http://127.0.0.1:8080`.
    pub base_url: String,
    /// What comes before `/qr`.
    pub prefix: String,
    /// How many sessions; their ids are [`session_ids`] of the seed.
    pub sessions: usize,
    /// Decides ids, QR strings, phases, scans and the jitter of retries.
    pub seed: u64,
    /// For how long events begin.
    pub duration: Duration,
    /// How sessions behave, and how much faster than in life.
    pub gateway: GatewayConfig,
    /// How often a request is sent. It is not compressed here: see [`RetryPolicy::compressed`].
    pub retries: RetryPolicy,
    /// Connections at once; a request waits for a free one, as in Node's agent.
    pub connections_max: usize,
    /// Flows at once; an event beyond it is shed and counted.
    pub flows_max: usize,
    /// How long to wait at the end for what is under way.
    pub drain: Duration,
    /// Who each session is, by its index; empty, all have the names of the seed, and nothing tells their
    /// callers apart.
    pub identities: Vec<Identity>,
    /// Whether the sessions do nothing by themselves: only the script is sent.
    pub quiet: bool,
    /// Posts at given times from the first event on, in the order of time.
    pub script: Vec<Planned>,
    /// Headers on every request besides the gateway's own, credentials for example.
    pub headers: Vec<(String, String)>,
    /// Spans of the run, in ms since its first event was due, whose latencies are kept apart; a send belongs to
    /// the first in which it was due.
    pub windows: Vec<Range<u64>>,
    /// Whether every answered read is noted, to be compared with Laravel's own.
    pub note_reads: bool,
    /// When the clock of the report was 0; give Laravel the same one.
    pub epoch: Instant,
}

/// A load that is running. Dropping it ends it at once.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<LoadReport>>,
}

/// Runs a load from start to end.
///
/// # Errors
/// If the base URL is none, or the load's task panicked.
pub async fn run(options: LoadOptions, progress: Arc<LoadProgress>) -> anyhow::Result<LoadReport> {
    Load::start(options, progress)?.finish().await
}

/// Says of each session that it shows QRs, once: Embudo keeps the reads of a session that has had an update.
/// Nothing of it appears in a later report.
///
/// # Errors
/// If the base URL is none, or Laravel does not take it of a session.
pub async fn introduce(options: &LoadOptions) -> anyhow::Result<()> {
    let sender = Arc::new(Sender::new(options, Arc::default())?);
    let identities = options.identities().into_iter().enumerate();
    let tells = identities.filter_map(|(index, identity)| {
        let sender = sender.clone();
        let session = Arc::from(identity.session.as_str());
        let flow = Flow::once(Flow::pending(sender.prefix(), session)?);
        Some(async move { sender.ask(index, &identity.key, flow).await })
    });
    let told: Vec<_> = futures::stream::iter(tells)
        .buffer_unordered(WARM_UP_AT_ONCE)
        .collect()
        .await;
    let failed = told.iter().filter(|answer| !answer.is_success()).count();
    anyhow::ensure!(
        failed == 0,
        "{failed} of {} sessions cannot be introduced",
        told.len()
    );
    Ok(())
}

/// Asks for each session's state, as the first event of a gateway's day does, so that Embudo has seen every session
/// before anything is counted. Nothing of it appears in a later report. Of each caller one session is asked for before
/// all others, and again with them: a caller's first answer is not kept.
///
/// # Errors
/// If the base URL is none, or a session's state cannot be had: what is counted afterwards would not be
/// what it claims.
pub async fn warm_up(options: &LoadOptions) -> anyhow::Result<()> {
    let sender = Arc::new(Sender::new(options, Arc::default())?);
    let all: Vec<(usize, Identity)> = options.identities().into_iter().enumerate().collect();
    let mut met: Vec<&Caller> = Vec::new();
    let firsts = all.iter().filter(|(_, identity)| {
        let is_new = !met.contains(&&identity.caller);
        if is_new {
            met.push(&identity.caller);
        }
        is_new
    });
    let firsts: Vec<(usize, Identity)> = firsts.cloned().collect();
    ask_each(&sender, firsts).await?;
    ask_each(&sender, all).await
}

/// Asks for the state of each of these.
async fn ask_each(sender: &Arc<Sender>, whom: Vec<(usize, Identity)>) -> anyhow::Result<()> {
    let asks = whom.into_iter().map(|(index, identity)| {
        let sender = sender.clone();
        let session: Arc<str> = Arc::from(identity.session.as_str());
        async move {
            let mut asks_left = WARM_UP_ASKS_MAX;
            loop {
                let flow = Flow::new(sender.prefix(), session.clone(), What::Expired);
                let begun = Instant::now();
                let answer = sender.ask(index, &identity.key, flow).await;
                asks_left -= 1;
                if asks_left == 0 || !answer.is_success() || begun.elapsed() < KEPT_WITHIN {
                    return answer;
                }
            }
        }
    });
    let asked: Vec<_> = futures::stream::iter(asks)
        .buffer_unordered(WARM_UP_AT_ONCE)
        .collect()
        .await;
    let failed = asked.iter().filter(|answer| !answer.is_success()).count();
    anyhow::ensure!(
        failed == 0,
        "the state of {failed} of {} sessions cannot be read before the start",
        asked.len()
    );
    Ok(())
}

// === impl Load ===

impl Load {
    /// Starts a load in the background.
    ///
    /// # Errors
    /// If the base URL is none.
    pub fn start(options: LoadOptions, progress: Arc<LoadProgress>) -> anyhow::Result<Self> {
        let sender = Arc::new(Sender::new(&options, progress)?);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(drive(options, sender, stopped));
        Ok(Self {
            stop,
            task: Some(task),
        })
    }

    /// No event begins from now on; those under way go on to their end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for the end and takes the report.
    ///
    /// # Errors
    /// If the load's task panicked.
    pub async fn finish(mut self) -> anyhow::Result<LoadReport> {
        let task = self.task.take().context("the load was finished before")?;
        task.await.context("the load ended without a report")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

// ## Sending => Draining => Done

async fn drive(
    options: LoadOptions,
    sender: Arc<Sender>,
    mut stopped: watch::Receiver<bool>,
) -> LoadReport {
    let identities = options.identities().into_iter();
    let names: Vec<(Arc<str>, Arc<str>)> = identities
        .map(|identity| (Arc::from(identity.session), Arc::from(identity.key)))
        .collect();
    let mut flows = JoinSet::new();
    let begun = Instant::now();
    for planned in options.script.iter().cloned() {
        let sender = sender.clone();
        flows.spawn(async move {
            let due = begun + Duration::from_millis(planned.at_ms);
            tokio::time::sleep_until(due.into()).await;
            sender.scripted(planned, due).await;
        });
    }
    let mut events = pace::pace(&options, begun);
    sender.started(begun);
    loop {
        let next = tokio::select! {
            next = events.recv() => next,
            // A stop that cannot come any more is a stop as well.
            _ = stopped.wait_for(|&stop| stop) => None,
        };
        let Some((index, event)) = next else { break };
        while flows.try_join_next().is_some() {}
        let Some((session, key)) = names.get(index).cloned() else {
            continue;
        };
        if options.quiet || sender.has_given_up(index) {
            continue;
        }
        if flows.len() >= options.flows_max {
            sender.shed();
        } else {
            let due = begun + Duration::from_millis(event.at_ms);
            flows.spawn(sender.clone().flow(index, session, key, event.what, due));
        }
    }
    // The pacer sees that nobody listens any more, and ends.
    drop(events);
    // The last event may come well before the end, and the rates are over the whole duration.
    tokio::select! {
        () = tokio::time::sleep_until((begun + options.duration).into()) => {}
        _ = stopped.wait_for(|&stop| stop) => {}
    }
    let sent_for = begun.elapsed();
    let all_done = async { while flows.join_next().await.is_some() {} };
    // Too late is counted, not an error.
    let _ = tokio::time::timeout(options.drain, all_done).await;
    let unfinished = flows.len();
    flows.shutdown().await;
    sender.report(sent_for, unfinished)
}

// === impl LoadOptions ===

impl LoadOptions {
    /// Who each session is.
    fn identities(&self) -> Vec<Identity> {
        match self.identities.is_empty() {
            true => {
                let ids = session_ids(self.seed, self.sessions).into_iter();
                ids.map(Identity::plain).collect()
            }
            false => self.identities.clone(),
        }
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            prefix: "/api".to_owned(),
            sessions: 1000,
            seed: 0,
            duration: Duration::from_secs(60),
            gateway: GatewayConfig::default(),
            retries: RetryPolicy::default(),
            connections_max: CONNECTIONS_MAX,
            flows_max: FLOWS_MAX,
            drain: DRAIN,
            identities: Vec::new(),
            quiet: false,
            script: Vec::new(),
            headers: Vec::new(),
            windows: Vec::new(),
            note_reads: false,
            epoch: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests;
