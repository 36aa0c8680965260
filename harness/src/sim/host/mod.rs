//! The process: what Envoy gives to all VMs, and what it keeps for each.
//!
//! # Layout
//! * `hub`: what one process has once: clocks, shared data, queues, metrics, clusters, and the ears of
//!   the checker and the trace.
//! * `shared`, `queue`, `metrics`: its parts, with the semantics that were measured on Envoy 1.40.
//! * `guest`: what the host keeps for one VM while it runs a callback.
//! * `vm`: one instance of the module and the callbacks it can be asked for.
//! * `stream`: the callbacks of one request and of its answer; `fate`: what its properties say.
//! * `machine`: the compiled module.
//! * `tally`: what a VM's host calls came to.

mod fate;
mod guest;
mod hub;
mod machine;
mod metrics;
mod queue;
mod shared;
mod stream;
mod tally;
mod vm;

pub(super) use self::fate::StreamFate;
pub(super) use self::guest::{
    Act, Callback, Cost, Guest, HttpCall, LocalReply, Response, WEBHOOK_CLUSTER,
};
pub(super) use self::hub::{Clock, Cluster, Hub, Out, SharedHub};
pub use self::machine::Machine;
pub(super) use self::metrics::Metrics;
pub(super) use self::queue::Queues;
pub(super) use self::shared::SharedData;
pub(super) use self::tally::Tally;
pub(super) use self::vm::{Acted, Body, Job, JobResult, Passed, Relayed, StreamEnd, Vm, Waits};
