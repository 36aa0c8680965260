//! The live arm: a real Envoy and what stands around it.

pub mod laravel;
pub mod load;
