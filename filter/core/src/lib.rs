//! Everything Embudo decides about a request.
//!
//! What the dispatcher decides is in `embudo-dispatch` above it; `embudo-text` and `embudo-cold` are beneath it, under
//! the names that they would have here.
//!
//! This crate is compiled for speed, for the path of an ordinary update. What is marked `#[inline]` is off that path: it
//! is compiled in the crates that call it, for size, and it is inlined no more than anything else. See
//! `[profile.wasm]`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub use embudo_cold::{config, query, sabotage, time, verdict};
pub use embudo_text::{bytes, hash, headers, json, sort};

pub mod ack;
pub mod backoff;
pub mod barrier;
pub mod circuit;
pub mod hold;
pub mod intake;
pub mod kept;
pub mod layout;
pub mod lease;
pub mod map;
pub mod proof;
pub mod route;
pub mod shard;
pub mod split;
pub mod store;
pub mod write_through;
