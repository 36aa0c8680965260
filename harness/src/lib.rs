//! The harness.

pub mod live;
pub mod model;
