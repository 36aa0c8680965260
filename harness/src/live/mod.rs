//! The live arm: the production `.wasm` in a real Envoy, started by the real func-e.
//!
//! A simulation shows what the filter decides; only the real binary shows whether the host does
//! what the filter believes of it. So nothing here imitates Envoy, and nothing configures it in its
//! own way: every test and `make run` load the `envoy.yaml` that operators copy, and change
//! addresses in it, no more.
//!
//! # Layout
//!
//! * [`tools`]: finds func-e and Envoy, or installs the pinned ones into the project's `.tools/`.
//! * [`wasm`]: builds the module once a process and puts it where Envoy reads it.
//! * [`bootstrap`]: `envoy.yaml` as a value, and the few changes a run may make to it.
//! * [`filter_config`]: Embudo's defaults, and the same configuration with its timers scaled.
//! * [`supervise`]: a child process that never outlives this one.
//! * [`envoy`]: all of it together, as [`Envoy::start`].
//! * [`admin`], [`stats`]: the admin page as a client, its figures by name and label.
//! * [`laravel`]: the stand-in Laravel at the other end, with PHP's manners.
//! * [`real_laravel`]: a real one, behind nginx and PHP-FPM, on SQLite.
//! * [`load`]: the gateway's traffic, an open loop with a report.
//! * [`staleness`]: how old a value is when Laravel has it.
//! * [`scenario`]: runs a scenario file with all of these.
//! * [`chaos`]: everything that can go wrong, at once, for minutes.
//! * [`bench`]: what a request costs Envoy, with Embudo and without.
//! * [`peers`]: Embudo beside what it is to be better than.
//! * [`node`]: programs of Node, with what they need from npm.
//! * [`paths`]: where files go.
//! * [`wait`]: waiting for a condition, with a bound.

pub mod admin;
pub mod bench;
pub mod bootstrap;
pub mod chaos;
pub mod envoy;
pub mod filter_config;
pub mod laravel;
pub mod load;
pub mod node;
pub mod paths;
pub mod peers;
mod proc;
pub mod real_laravel;
pub mod scenario;
pub mod staleness;
pub mod stats;
pub mod supervise;
pub mod tools;
pub mod wait;
pub mod wasm;

pub use admin::Admin;
pub use bootstrap::{Bootstrap, Endpoint, Twin};
pub use envoy::{Envoy, EnvoyOptions, Restart, Starter};
pub use filter_config::scaled;
pub use real_laravel::{Application, RealLaravel, RealLaravelOptions};
pub use stats::{Ledger, Stats};
