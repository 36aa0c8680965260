//! The stand-in Laravel for one arm, on a runtime of its own: its threads have a name, and the kernel keeps the
//! books of their CPU apart from the gateway's.
//!
//! A Laravel of another kind would take the place of this one: it needs an address, a journal, and a door that can
//! be closed.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};

use crate::live::laravel::{LaravelOptions, LaravelServer};
use crate::live::proc;
use crate::model::gateway::session_ids;

use super::phase::{Phase, Plan};

/// What [`LaravelOptions`] needs before there is a Laravel.
pub(super) const NOWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// At most 15 bytes, or the kernel cuts it.
const THREADS: &str = "laravel-peers";

/// Its work is to wait: one thread has enough of it.
const THREADS_TOTAL: usize = 1;

pub(super) struct StandIn {
    server: Option<LaravelServer>,
    runtime: Option<Runtime>,
}

// === impl StandIn ===

impl StandIn {
    pub(super) async fn start(phase: &Phase, plan: &Plan, epoch: Instant) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS_TOTAL)
            .thread_name(THREADS)
            .enable_all()
            .build()
            .context("cannot start the stand-in's threads")?;
        let mut options = LaravelOptions {
            accounts: session_ids(plan.seed, phase.sessions),
            seed: plan.seed,
            epoch,
            ..LaravelOptions::default()
        };
        options.config.poison_indexes = true;
        let server = runtime.spawn(LaravelServer::start(options)).await;
        Ok(Self {
            server: Some(server.context("the stand-in's start")??),
            runtime: Some(runtime),
        })
    }

    pub(super) fn server(&self) -> Result<&LaravelServer> {
        self.server.as_ref().context("the stand-in has ended")
    }

    /// Refuses connections within the phase's time for it, counted from `started`.
    pub(super) async fn happen(&mut self, phase: &Phase, started: Instant) -> Result<()> {
        let Some(down) = phase.down() else {
            return Ok(());
        };
        tokio::time::sleep_until((started + down.start).into()).await;
        let mut server = self.server.take().context("the stand-in has ended")?;
        server.down().await;
        let runtime = self.runtime.as_ref().context("the stand-in has ended")?;
        let back = runtime.spawn(async move {
            tokio::time::sleep_until((started + down.end).into()).await;
            let up = server.up().await;
            (server, up)
        });
        let (server, up) = back.await.context("the stand-in's return")?;
        self.server = Some(server);
        up.context("the stand-in cannot open its port again")
    }

    /// Waits until no request is under way.
    pub(super) async fn idle(&self, bound: Duration) -> Result<()> {
        self.server()?.idle(bound).await;
        Ok(())
    }

    pub(super) fn cpu_s() -> f64 {
        proc::threads_cpu_s(THREADS)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        drop(self.server.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
