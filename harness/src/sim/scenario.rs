//! The sim arm: a scenario on the simulated host, in virtual time.
//!
//! The same file, the same gateway and the same Laravel as on the live arm, and the same measures and
//! checker after it. The host around the module is ours, so that a minute takes a second and is the
//! same each time; and the simulation's own checker, which sees every write of the store, watches too.

use anyhow::Result;

use super::{Detail, Line, Machine, world};
use crate::check::Outcome;
use crate::scenario::Scenario;

/// Runs a scenario.
///
/// # Errors
/// If the module does not start, or the run does not end. What does not hold is no error: the checker
/// says it.
pub fn run(machine: &Machine, scenario: &Scenario) -> Result<Outcome> {
    let (outcome, _) = run_with_chance(machine, scenario, scenario.seed, Detail::Hash)?;
    Ok(outcome)
}

/// The same scenario with other luck: gateway and faults keep the scenario's seed, while the host's
/// timing and the module's own dice have this one. Many of them show how much is noise. With what happened, as far
/// as `detail` wants it.
///
/// # Errors
/// As [`run`].
pub fn run_with_chance(
    machine: &Machine,
    scenario: &Scenario,
    chance: u64,
    detail: Detail,
) -> Result<(Outcome, Vec<Line>)> {
    world::run_file(machine, scenario, chance, detail)
}
