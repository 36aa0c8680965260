//! Shared helpers of the live tests.

pub mod raw;
