//! Every scenario in `tests/data`, on the simulated host: what a real Envoy shows in minutes, in seconds.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use embudo::check::check;
use embudo::live::wasm;
use embudo::scenario::Scenario;
use embudo::sim::{self, Machine};

#[test]
fn every_scenario_holds() -> Result<()> {
    let machine = machine()?;
    let mut wrong = Vec::new();
    for (name, scenario) in scenarios()? {
        let outcome = sim::scenario::run(&machine, &scenario).with_context(|| name.clone())?;
        println!("{name}: {:?}", outcome.measures);
        let failures = check(&scenario, &outcome).into_iter();
        wrong.extend(failures.map(|f| format!("{name}: {}: {}", f.rule, f.what)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_scenario_is_the_same_each_time() -> Result<()> {
    let machine = machine()?;
    let (name, scenario) = scenarios()?.into_iter().next().context("no scenario")?;
    let first = sim::scenario::run(&machine, &scenario)?;
    let second = sim::scenario::run(&machine, &scenario)?;
    assert_eq!(first.measures, second.measures, "{name}");
    assert_eq!(first.processed, second.processed, "{name}");
    assert_eq!(first.sent, second.sent, "{name}");
    Ok(())
}

fn machine() -> Result<Machine> {
    let path = wasm::module()?;
    let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
    Machine::new(&bytes)
}

fn scenarios() -> Result<Vec<(String, Scenario)>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let paths = Scenario::all_in(&dir)?;
    ensure!(paths.len() >= 10, "only {} scenarios", paths.len());
    let load = |path: &std::path::PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok((name.into_owned(), Scenario::load(path)?))
    };
    paths.iter().map(load).collect()
}
