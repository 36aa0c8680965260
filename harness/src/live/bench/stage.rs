//! One Envoy with its sessions in the store, and what they take there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::cores::{Cores, cpu_time, pin};
use super::report::Memory;
use super::sessions::Sessions;
use super::upstream::Upstream;
use super::volley::{Shot, Volley};
use crate::live::bootstrap::{LISTENER, Twin};
use crate::live::filter_config::merge;
use crate::live::{Envoy, EnvoyOptions, Starter};

/// A hundred thousand sessions settle within a minute; this says that something hangs.
const SETTLED_MAX: Duration = Duration::from_secs(180);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Of what was just posted, the part that must still wait for the figure to mean what it says.
const PENDING_SHARE_MIN: f64 = 0.95;

/// Every request that enters Embudo is counted under this.
const REQUESTS: &str = "embudo.requests";

/// The answer to a duplicate, which the arms without Embudo give as well.
const SKIPPED: &str = r#"{"success":true,"skipped":true,"reason":"duplicate"}"#;

/// An Envoy on its core.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) sessions: Sessions,
    /// What the sessions took while they were put into the store, where that was weighed.
    pub(super) memory: Option<Memory>,
    envoy: Envoy,
}

// === impl Stage ===

impl Stage {
    /// Starts an Envoy, lets each session post a QR, and lets all of them be delivered: at once, or, to be `weighed`,
    /// not before all are posted. Without `floor` it has the gateway's listener only.
    pub(super) async fn start(
        sessions: usize,
        floor: Option<PathBuf>,
        weighed: bool,
        upstream: &Upstream,
        cores: Cores,
    ) -> Result<Self> {
        let twins = floor.map(|floor| {
            let direct = Twin::DirectResponse(SKIPPED.to_owned());
            vec![Twin::WithoutEmbudo, Twin::Module(floor), direct]
        });
        let envoy = Envoy::start(EnvoyOptions {
            concurrency: 1,
            starter: Starter::Direct,
            watch_listener: true,
            drain_time_s: 1,
            twins: twins.unwrap_or_default(),
            filter_config: if weighed {
                slow(sessions)
            } else {
                fast(sessions)
            },
            ..EnvoyOptions::new("bench", upstream.endpoint.clone())
        })
        .await?;
        pin(envoy.pid, cores.envoy)?;
        let mut stage = Self {
            sessions: Sessions::new(sessions),
            memory: None,
            envoy,
        };
        stage
            .volley(LISTENER, Sessions::proof(), None)
            .await?
            .fire()
            .await?;
        let before = stage.allocated().await?;
        let shots = stage.sessions.first_values();
        stage.volley(LISTENER, shots, None).await?.fire().await?;
        if weighed {
            stage.weigh(before).await?;
        }
        stage.settled().await?;
        // The store stays through an update of the listener.
        stage.envoy.update_filter_config(&config(sessions)).await?;
        // Only what has been heard of is kept.
        for shots in [stage.sessions.introduced(), stage.sessions.first_reads()] {
            stage.volley(LISTENER, shots, None).await?.fire().await?;
            stage.settled().await?;
        }
        Ok(stage)
    }

    /// What the sessions take while all of them wait, and once all are delivered.
    async fn weigh(&mut self, before: u64) -> Result<()> {
        let (count, pending) = (self.sessions.len(), self.pending().await?);
        ensure!(
            pending as f64 >= count as f64 * PENDING_SHARE_MIN,
            "only {pending} of {count} are pending when all are posted"
        );
        let each = |after: u64| after.saturating_sub(before) as f64 / count as f64;
        let pending_bytes_per_session = each(self.allocated().await?);
        self.envoy.update_filter_config(&fast(count)).await?;
        self.settled().await?;
        self.memory = Some(Memory {
            pending_bytes_per_session,
            settled_bytes_per_session: each(self.allocated().await?),
        });
        Ok(())
    }

    /// Requests to one of the listeners.
    pub(super) async fn volley(
        &self,
        listener: &str,
        shots: Vec<Shot>,
        rate: Option<f64>,
    ) -> Result<Volley> {
        let target: SocketAddr = match listener {
            LISTENER => self.envoy.listener,
            other => (self.envoy.admin.listener(other).await?)
                .with_context(|| format!("no listener {other}"))?,
        };
        let pid = self.envoy.pid;
        Ok(Volley {
            target,
            pid,
            shots,
            rate,
        })
    }

    /// How long Envoy has run.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.envoy.pid)
    }

    /// How many requests have entered the VM.
    pub(super) async fn entered(&self) -> Result<u64> {
        let stats = self.envoy.admin.stats_matching(REQUESTS).await?;
        Ok(stats.counter(REQUESTS, &[]))
    }

    /// Waits until nothing is pending.
    pub(super) async fn settled(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLED_MAX;
        loop {
            let pending = self.pending().await?;
            if pending == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{pending} are still pending");
            tokio::time::sleep(POLL).await;
        }
    }

    async fn pending(&self) -> Result<u64> {
        let stats = self.envoy.admin.stats_matching(REQUESTS_AND_ITEMS).await?;
        let ledger = stats.ledger();
        Ok(ledger.accepted.saturating_sub(ledger.settled()))
    }

    /// What `server.memory_allocated` says, without its second of delay.
    async fn allocated(&self) -> Result<u64> {
        let text = self.envoy.admin.get("/memory").await?;
        let memory: Value = serde_json::from_str(&text).context("/memory is not JSON")?;
        let allocated = memory["allocated"].as_str().and_then(|n| n.parse().ok());
        allocated.context("/memory has no `allocated`")
    }
}

/// The figures that make up the ledger.
const REQUESTS_AND_ITEMS: &str = "embudo\\.(requests|items|revived)";

/// The defaults, but for room for all sessions, values that are remembered to the bench's end, and a Laravel that is known
/// to have applied what it accepted: a kept read is not asked for once more meanwhile.
fn config(sessions: usize) -> Value {
    json!({
        "settle_ms": 0,
        "max_sessions": (sessions + sessions / 4).max(16_384),
        "dedup_ttl_ms": 3_600_000,
        "max_age_ms": 3_600_000,
    })
}

/// The same, and what is posted is delivered as fast as it goes.
fn fast(sessions: usize) -> Value {
    paced(sessions, 1000, 50)
}

/// The same, and an item a second is delivered: nearly everything waits until all are posted.
fn slow(sessions: usize) -> Value {
    paced(sessions, 1, 1)
}

/// A QR may wait for as long as it has to.
fn paced(sessions: usize, calls_per_second: u32, items_per_call: u32) -> Value {
    let mut paced = config(sessions);
    let change = json!({
        "max_requests_per_second": calls_per_second,
        "routes": [
            {"name": "qr", "expire_after_ms": 0, "batch": {"max_items": items_per_call}},
        ],
    });
    merge(&mut paced, &change);
    paced
}
