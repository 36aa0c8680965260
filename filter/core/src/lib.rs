//! Everything Embudo decides.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod ack;
pub mod backoff;
pub mod batch;
pub mod bytes;
pub mod circuit;
pub mod config;
pub mod dispatch;
pub mod hash;
pub mod headers;
pub mod intake;
pub mod json;
pub mod kept;
pub mod layout;
pub mod lease;
pub mod passing;
pub mod route;
pub mod sabotage;
pub mod shard;
pub mod sort;
pub mod store;
pub mod time;
pub mod trust;
pub mod verdict;
