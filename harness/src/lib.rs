//! Embudo's harness: the production module between a gateway and a Laravel that behave as the real ones
//! do, and a checker for what comes of it.
//!
//! # Layout
//!
//! * [`model`]: the gateway and Laravel, without I/O and clocks.
//! * [`live`]: a real Envoy, started by func-e, and both models behind sockets.
//! * [`scenario`]: what happens, as data.
//! * [`sim`]: the same module in a deterministic simulation.
//! * [`check`]: what must hold after it.
//! * [`probe`]: what both hosts are asked, to be compared.
//! * [`report`]: pictures of what was measured; [`figures`]: what the README says of it.

pub mod check;
pub mod figures;
pub mod live;
mod measure;
pub mod model;
pub mod probe;
pub mod report;
pub mod scenario;
pub mod sim;
