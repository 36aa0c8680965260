//! The process: what Envoy gives to all VMs, and what it keeps for each.
//!
//! # Layout
//! * `hub`: what one process has once: clocks, shared data, queues, metrics, clusters, and the ears of
//!   the checker and the trace.
//! * `shared`, `queue`, `metrics`: its parts, with the semantics that were measured on Envoy 1.40.
//! * `guest`: what the host keeps for one VM while it runs a callback.
//! * `vm`: one instance of the module and the callbacks it can be asked for.
//! * `machine`: the compiled module.
//! * `tally`: what a VM's host calls came to.

mod guest;
mod hub;
mod machine;
mod metrics;
mod queue;
mod shared;
mod tally;
mod vm;

pub use self::guest::{Callback, Guest, HttpCall, LocalReply, Response};
pub use self::hub::{Clock, Cluster, Hub, Out, SharedHub};
pub use self::machine::Machine;
pub use self::metrics::Metrics;
pub use self::queue::Queues;
pub use self::shared::SharedData;
pub(crate) use self::tally::Tally;
pub use self::vm::{Body, Job, JobResult, StreamEnd, Vm};
