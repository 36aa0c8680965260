//! The sim arm: the production module in a deterministic simulation.
//!
//! The very `.wasm` that ships runs in a host of our own on wasmtime, one VM for each thread of Envoy.
//! One seed decides everything: who sends what, how long each host call and each message takes, what
//! goes wrong and when. Time is virtual, so an hour of outages costs a few seconds; a run can be
//! repeated exactly, so whatever is found once can be looked at as often as need be.
//!
//! # Layout
//! * `abi`: the host functions.
//! * `host`: the process: shared data, queues, metrics; VMs and their callbacks.
//! * `world`: threads, clock, network, gateway, Laravel, and what goes wrong.
//! * `check`: what must hold.
//! * `trace`: what happened.
//! * [`scenario`]: a scenario file on the simulated host.
//! * `swarm`, `shrink`: many seeds, and less of one that failed.
//! * `sabotage`: rules broken on purpose, to see that it is noticed.
//! * `fuzz`: the module under whatever may come.
//! * `cost`: what a request costs.
//! * [`probe`]: what the host answers, for the comparison with a real Envoy.

mod abi;
mod check;
mod cost;
mod fuzz;
mod host;
pub mod probe;
pub mod sabotage;
pub mod scenario;
mod shrink;
mod swarm;
mod trace;
mod world;

use anyhow::Context as _;

pub use self::check::{Coverage, Failure, Invariant, Transition};
pub use self::cost::{Cost, Counting, Kind};
pub use self::fuzz::{Case, Failed, Flaw, Found as FuzzFound, Fuzz, FuzzOptions, Pick};
pub use self::host::Machine;
pub use self::shrink::{Cut, shrink};
pub use self::swarm::{Found, Swarm, SwarmOptions};
pub use self::trace::{Detail, Line, table};
pub use self::world::{
    Callers, Fault, Pace, Plan, Report, Scenario, Setup, Style, Verb, When, Who,
};

/// The gateway's name for Laravel.
pub(crate) const AUTHORITY: &str = "laravel.test";

/// Seeds that failed once: the first word of each line that is no comment.
///
/// # Errors
/// The file cannot be read, or a line begins with something else.
pub fn regressions(path: &std::path::Path) -> anyhow::Result<Vec<u64>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    lines
        .filter(|word| !word.starts_with('#'))
        .map(|word| word.parse().with_context(|| format!("{word} is no seed")))
        .collect()
}

/// Runs one scenario to its end, or to the first thing that must not be.
///
/// # Errors
/// The module does not start at all.
pub fn run(machine: &Machine, scenario: &Scenario, detail: Detail) -> anyhow::Result<Report> {
    world::Sim::new(machine, scenario, detail)?.run()
}
