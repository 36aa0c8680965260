//! One arm in one phase.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::batcher::{Batcher, Tools};
use super::figures::{Cpu, Evidence, Figures};
use super::phase::{Phase, Plan};
use super::stand_in::StandIn;
use crate::live::envoy::{Envoy, EnvoyOptions};
use crate::live::load::{self, LoadOptions, LoadReport};
use crate::live::proc;
use crate::model::gateway::{GatewayConfig, RetryPolicy, session_ids};
use crate::model::laravel::Fault;

/// How often the end is looked for.
const POLL: Duration = Duration::from_millis(200);

/// What is between the gateway and Laravel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// Nothing.
    Direct,
    /// A batcher in the gateway, with Redis.
    Batcher,
    /// Envoy with Embudo.
    Embudo,
}

/// The same, running.
enum Middle {
    Direct { laravel: String },
    Batcher(Arc<Batcher>),
    Embudo(Box<Envoy>),
}

/// What an arm still holds.
struct Books {
    pending: u64,
    expired: u64,
    rejected: u64,
}

/// Lets an arm live through a phase with a Laravel of its own.
pub(super) async fn live_through(
    arm: Arm,
    phase: &Phase,
    plan: &Plan,
    tools: &Tools,
) -> Result<Figures> {
    let epoch = Instant::now();
    let mut laravel = StandIn::start(phase, plan, epoch).await?;
    let middle = Middle::start(arm, &laravel.server()?.url(), plan, tools).await?;
    let options = load_options(phase, plan, epoch);
    middle.warm_up(&options).await?;
    let started_ms = laravel.server()?.now_ms();
    prepare(&laravel, phase, plan, started_ms)?;

    let before = cpu(&middle);
    let started = Instant::now();
    let (load, ()) = tokio::try_join!(middle.load(&options), laravel.happen(phase, started))?;
    let sent = Instant::now();
    let books = middle.settled(plan.settle_max).await?;
    let settled_after = sent.elapsed();
    laravel.idle(plan.settle_max).await?;
    let after = cpu(&middle);

    let memory_kb = middle.pids().into_iter().filter_map(proc::rss_kb).sum();
    let evidence = Evidence {
        load,
        cpu: phase.compares_cpu.then(|| after.since(&before)),
        // The batcher stamps a QR and its state one after the other, and they have no order.
        timestamps_order: arm == Arm::Embudo,
        memory_kb,
        pending: books.pending,
        expired: books.expired,
        rejected: books.rejected,
        settled_after,
    };
    let server = laravel.server()?;
    Ok(server.with(|laravel| Figures::new(&evidence, laravel, server.now_ms())))
}

fn load_options(phase: &Phase, plan: &Plan, epoch: Instant) -> LoadOptions {
    LoadOptions {
        sessions: phase.sessions,
        seed: plan.seed,
        duration: phase.lasts,
        gateway: GatewayConfig {
            time_compression: phase.compression,
            ..GatewayConfig::default()
        },
        retries: RetryPolicy {
            timeout_ms: plan.call_timeout_ms,
            ..RetryPolicy::default()
        },
        drain: plan.settle_max,
        epoch,
        ..LoadOptions::default()
    }
}

/// From here on it counts, and the phase's troubles have their times.
fn prepare(laravel: &StandIn, phase: &Phase, plan: &Plan, started_ms: u64) -> Result<()> {
    let server = laravel.server()?;
    server.reset();
    let faults = phase.faults(plan.call_timeout_ms);
    let later = |fault: &Fault| fault.later(started_ms);
    server.set_faults(faults.iter().map(later).collect());
    if let Some(index) = phase.poison() {
        let ids = session_ids(plan.seed, phase.sessions);
        server.with(|laravel| {
            if let Some(session) = ids.get(index) {
                laravel.refuse_session(session, started_ms);
            }
        });
    }
    Ok(())
}

/// What gateway, middle and Laravel have used so far. The gateway is what of this process is not Laravel.
fn cpu(middle: &Middle) -> Cpu {
    let laravel = StandIn::cpu_s();
    Cpu {
        gateway: proc::cpu_s(std::process::id()).unwrap_or_default() - laravel,
        middle: middle.pids().into_iter().filter_map(proc::cpu_s).sum(),
        laravel,
    }
}

// === impl Arm ===

impl Arm {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Direct, Self::Batcher, Self::Embudo];

    /// As a reader knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "straight to Laravel",
            Self::Batcher => "batcher in the gateway",
            Self::Embudo => "Embudo",
        }
    }
}

// === impl Middle ===

impl Middle {
    async fn start(arm: Arm, laravel: &str, plan: &Plan, tools: &Tools) -> Result<Self> {
        Ok(match arm {
            Arm::Direct => Self::Direct {
                laravel: laravel.to_owned(),
            },
            Arm::Batcher => {
                let batcher = Batcher::start(tools, laravel, plan.call_timeout_ms).await?;
                Self::Batcher(Arc::new(batcher))
            }
            Arm::Embudo => {
                let addr: std::net::SocketAddr = laravel.trim_start_matches("http://").parse()?;
                let options = EnvoyOptions {
                    filter_config: plan.filter_config(),
                    ..EnvoyOptions::new("peers", addr)
                };
                Self::Embudo(Box::new(Envoy::start(options).await?))
            }
        })
    }

    fn pids(&self) -> Vec<u32> {
        match self {
            Self::Direct { .. } => Vec::new(),
            Self::Batcher(batcher) => batcher.pids(),
            Self::Embudo(envoy) => vec![envoy.pid],
        }
    }

    /// The load's options with the address of this middle.
    fn towards(&self, options: &LoadOptions) -> LoadOptions {
        let base_url = match self {
            Self::Direct { laravel } => laravel.clone(),
            Self::Embudo(envoy) => envoy.url(),
            // It has none: its events come over a pipe.
            Self::Batcher(_) => String::new(),
        };
        LoadOptions {
            base_url,
            ..options.clone()
        }
    }

    async fn warm_up(&self, options: &LoadOptions) -> Result<()> {
        match self {
            Self::Batcher(batcher) => batcher.warm_up(options).await,
            Self::Direct { .. } => load::warm_up(&self.towards(options)).await,
            Self::Embudo(envoy) => load::make_known(envoy, &self.towards(options)).await,
        }
    }

    async fn load(&self, options: &LoadOptions) -> Result<LoadReport> {
        match self {
            Self::Batcher(batcher) => batcher.load(options).await,
            Self::Direct { .. } | Self::Embudo(_) => {
                load::run(self.towards(options), Arc::default()).await
            }
        }
    }

    async fn books(&self) -> Result<Books> {
        Ok(match self {
            Self::Direct { .. } => Books {
                pending: 0,
                expired: 0,
                rejected: 0,
            },
            Self::Batcher(batcher) => {
                let books = batcher.books().await?;
                Books {
                    pending: books.pending,
                    expired: 0,
                    rejected: books.rejected,
                }
            }
            Self::Embudo(envoy) => {
                let ledger = envoy.admin.stats().await?.ledger();
                let unaccounted = ledger.accepted.abs_diff(ledger.settled() + ledger.pending);
                Books {
                    pending: ledger.pending + unaccounted,
                    expired: ledger.expired,
                    rejected: ledger.rejected,
                }
            }
        })
    }

    /// Waits until nothing is pending, at most `bound`.
    async fn settled(&self, bound: Duration) -> Result<Books> {
        let deadline = Instant::now() + bound;
        loop {
            let books = self.books().await?;
            if books.pending == 0 || Instant::now() > deadline {
                return Ok(books);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
