//! The harness.

pub mod live;
pub mod model;
pub mod sim;
