//! Everything Embudo decides.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod config;
pub mod hash;
pub mod json;
