//! What every request goes through, byte by byte: its headers, its JSON, the hashes of both.
//!
//! A crate of its own because the module is compiled for size, and this for speed: see `[profile.wasm]`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod bytes;
pub mod hash;
pub mod headers;
pub mod json;
pub mod sort;
