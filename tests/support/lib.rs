//! What the live tests share: the whole way from a gateway to Laravel, and the questions asked at its end.
//!
//! A test starts a [`Stack`] (a stand-in Laravel, the real Envoy with the production module, a client with
//! connections on every worker), acts, asserts, and ends with [`Stack::finish`], which asks what every run
//! must answer: is everything accounted for, did an older value ever follow a newer one, did a VM die.
//!
//! Nothing here sleeps for synchronisation. Everything waits for a condition with a bound ([`wait_until`]),
//! and the bound is generous: it says that something hangs, and is no claim about speed. Claims about speed
//! are made in the tests, from times that were taken where they happened.

pub mod raw;

mod client;
mod events;
mod hooks;
mod stack;
mod target;
mod values;
mod wait;

pub use client::{Answer, Client, open};
pub use events::{Event, Events};
pub use hooks::{Hooks, Reply};
pub use stack::{Stack, StackOptions};
pub use target::{Answers, Call, Target};
pub use values::{qr, qr_body, session, sessions, status_body};
pub use wait::{BOUND, wait_until};
