//! What is seldom read: the configuration when Envoy starts, an answer of Laravel once a call.
//!
//! A crate of its own because it is compiled for size, and what every request goes through for speed: see
//! `[profile.wasm]`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod config;
pub mod query;
pub mod sabotage;
pub mod time;
pub mod verdict;

use embudo_text::json;
