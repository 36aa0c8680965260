//! The checker bites: every rule that is broken on purpose is noticed.
//!
//! A module of its own, built with the feature `sabotage`, breaks the one rule that its configuration
//! names. The swarm looks for a seed that shows it; the seed is kept in `tests/sabotages.txt`, so that a
//! test need not search again. A sabotage that no seed shows is a hole in the checker.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use embudo_core::sabotage::Sabotage;

use super::{Failure, Machine, Swarm, SwarmOptions};

/// Seeds within which a sabotage has to be caught.
pub const SEEDS_MAX: u64 = 2_000;

/// A sabotage and what caught it.
#[derive(Clone, Debug)]
pub struct Caught {
    /// Its name.
    pub name: &'static str,
    /// The first seed that showed it, and how; `None`: it got away.
    pub by: Option<(u64, Failure)>,
}

/// All sabotages, by name.
pub fn names() -> impl Iterator<Item = &'static str> {
    Sabotage::ALL.iter().map(|sabotage| sabotage.name())
}

/// Looks for the first seed that shows a sabotage.
#[must_use]
pub fn search(machine: &Machine, name: &'static str, first: Option<u64>) -> Caught {
    let options = SwarmOptions {
        first: first.into_iter().collect(),
        stop_at_failure: true,
        sabotage: Some(name.to_owned()),
        shrink: false,
        ..SwarmOptions::of(SEEDS_MAX)
    };
    let swarm = Swarm::run(machine, &options, &|_, _| {});
    let found = swarm.failures.into_iter().next();
    Caught {
        name,
        by: found.map(|found| (found.seed, found.failure)),
    }
}

/// The seeds that showed a sabotage once: a name and a seed a line.
///
/// # Errors
/// The file cannot be read, or a line is something else.
pub fn recorded(path: &Path) -> Result<Vec<(String, u64)>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let (name, seed) = line
                .split_once(' ')
                .with_context(|| format!("{line}: a name and a seed were expected"))?;
            Ok((name.to_owned(), seed.trim().parse()?))
        })
        .collect()
}
