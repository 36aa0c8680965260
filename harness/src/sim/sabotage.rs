//! The checker bites: every rule that is broken on purpose is noticed.
//!
//! A module of its own, built with the feature `sabotage`, breaks the one rule that its configuration
//! names. The swarm looks for a seed that shows it; the seed is kept in `tests/sabotages.txt`, so that a
//! test need not search again. Where a rule is about how much or how soon, and not about right and wrong, a scenario
//! file of `tests/data` shows it instead, by what it expects. A sabotage that nothing shows is a hole in the checker.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use embudo_core::sabotage::Sabotage;

use super::{Detail, Machine, Swarm, SwarmOptions};
use crate::check::check;
use crate::live::paths;
use crate::scenario;

/// Seeds within which a sabotage has to be caught.
pub const SEEDS_MAX: u64 = 2_000;

/// What shows a sabotage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bait {
    /// A seed of the swarm.
    Seed(u64),
    /// A scenario file of `tests/data`, by its name.
    File(String),
}

/// A sabotage and what caught it.
#[derive(Clone, Debug)]
pub struct Caught {
    /// Its name.
    pub name: &'static str,
    /// The first that showed it, and how; `None`: it got away.
    pub by: Option<(Bait, String)>,
}

/// All sabotages, by name.
pub fn names() -> impl Iterator<Item = &'static str> {
    Sabotage::ALL.iter().map(|sabotage| sabotage.name())
}

/// Tries one bait, with a rule broken or with none.
///
/// # Errors
/// There is no such file, or it does not run.
pub fn tried(machine: &Machine, bait: &Bait, broken: Option<&str>) -> Result<Option<String>> {
    match bait {
        Bait::Seed(seed) => {
            let mut scenario = super::Scenario::of_seed(*seed);
            if let Some(name) = broken {
                scenario.config["sabotage"] = name.into();
            }
            let run = super::run(machine, &scenario, Detail::Hash)?;
            Ok(run.failure.map(|failure| failure.to_string()))
        }
        Bait::File(file) => {
            let path = paths::root().join(format!("tests/data/{file}.toml"));
            let mut scenario = scenario::Scenario::load(&path)?;
            if let Some(name) = broken {
                scenario.filter["sabotage"] = name.into();
            }
            let outcome = super::scenario::run(machine, &scenario)?;
            let failure = check(&scenario, &outcome).into_iter().next();
            Ok(failure.map(|failure| format!("{}: {}", failure.rule, failure.what)))
        }
    }
}

/// Looks for what shows a sabotage: the bait that did before, and then the first seed.
///
/// # Errors
/// The bait's file does not run.
pub fn search(machine: &Machine, name: &'static str, first: Option<&Bait>) -> Result<Caught> {
    if let Some(bait) = first
        && let Some(how) = tried(machine, bait, Some(name))?
    {
        let by = Some((bait.clone(), how));
        return Ok(Caught { name, by });
    }
    let options = SwarmOptions {
        stop_at_failure: true,
        sabotage: Some(name.to_owned()),
        shrink: false,
        ..SwarmOptions::of(SEEDS_MAX)
    };
    let swarm = Swarm::run(machine, &options, &|_, _| {});
    let found = swarm.failures.into_iter().next();
    Ok(Caught {
        name,
        by: found.map(|found| (Bait::Seed(found.seed), found.failure.to_string())),
    })
}

/// What showed the sabotages before: a name, and a seed or a scenario's name, a line.
///
/// # Errors
/// The file cannot be read, or a line is something else.
pub fn recorded(path: &Path) -> Result<Vec<(String, Bait)>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let (name, bait) = line.split_once(' ').with_context(|| {
                format!("{line}: a name, and a seed or a scenario's name, were expected")
            })?;
            let bait = match bait.trim().parse() {
                Ok(seed) => Bait::Seed(seed),
                Err(_) => Bait::File(bait.trim().to_owned()),
            };
            Ok((name.to_owned(), bait))
        })
        .collect()
}

// === impl Bait ===

impl std::fmt::Display for Bait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Seed(seed) => seed.fmt(f),
            Self::File(file) => file.fmt(f),
        }
    }
}
