//! What one process has once.
//!
//! VMs run one host call at a time, so the lock is never contended; it is there because a VM's state has
//! to be `Send` for the machine that runs it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::guest::HttpCall;
use super::queue::Registrar;
use super::{Metrics, Queues, SharedData};
use crate::sim::abi::HostFunction;
use crate::sim::check::Checker;
use crate::sim::trace::Trace;

/// Both clocks, in µs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// The monotonic one: what the simulation lives by.
    pub mono_us: u64,
    /// The wall clock, which may step.
    pub wall_us: u64,
}

/// What a cluster does with a call at dispatch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cluster {
    /// Takes it.
    #[default]
    Healthy,
    /// Its one host is ejected: `InternalFailure`, and no callback.
    Ejected,
    /// It does not exist: `BadArgument`.
    Missing,
}

/// What a host call leaves for the simulation to do.
#[derive(Debug)]
pub(crate) enum Out {
    /// A call out, with the token under which it is answered.
    HttpCall {
        /// The VM's token.
        token: u32,
        /// The root context that is called back.
        context: u32,
        /// The checker's number of the call.
        call: u64,
        /// The call.
        http: HttpCall,
    },
    /// A timer to be armed.
    Tick {
        /// Whose.
        context: u32,
        /// 0 turns it off.
        ms: u32,
    },
    /// An item came into a queue.
    Ring {
        /// The queue.
        queue: u32,
        /// Who is to be woken.
        registrar: Registrar,
    },
    /// A root context that was asked to go is done.
    Done {
        /// Which.
        context: u32,
    },
}

/// The process.
#[derive(Debug)]
pub(crate) struct Hub {
    /// The clocks.
    pub clock: Clock,
    /// Shared data.
    pub data: SharedData,
    /// Shared queues.
    pub queues: Queues,
    /// Metrics.
    pub metrics: Metrics,
    /// The cluster of the batches.
    pub cluster: Cluster,
    /// The cluster of the webhook.
    pub webhook: Cluster,
    /// What the last host call left to be done.
    pub out: Vec<Out>,
    /// The host function at which the VM that ran last has yielded.
    pub yielded_at: HostFunction,
    /// Host calls so far.
    pub host_calls: u64,
    /// The checker.
    pub checker: Checker,
    /// The trace.
    pub trace: Trace,
}

/// The process, as every VM holds it.
#[derive(Clone, Debug)]
pub(crate) struct SharedHub(Arc<Mutex<Hub>>);

// === impl Clock ===

impl Clock {
    /// Monotonic milliseconds.
    #[must_use]
    pub(crate) fn mono_ms(self) -> u64 {
        self.mono_us / 1000
    }
}

// === impl SharedHub ===

impl SharedHub {
    /// Shares a process.
    #[must_use]
    pub(crate) fn new(hub: Hub) -> Self {
        Self(Arc::new(Mutex::new(hub)))
    }

    /// The process. A panic while it was held leaves a test that fails anyway.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Hub> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
