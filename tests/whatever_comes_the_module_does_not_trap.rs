//! The module that ships, under arbitrary requests, answers, configurations, rings and stored values: it
//! never traps, never hangs, never floods its log, and delivers an update at the end.
//!
//! The search goes on in `make fuzz`, with a million cases and another seed.

use anyhow::{Result, ensure};
use embudo::live::wasm;
use embudo::sim::{Fuzz, FuzzOptions, Machine};

/// Some twenty seconds on one core.
const CASES: u64 = 30_000;

#[test]
fn whatever_comes_the_module_does_not_trap() -> Result<()> {
    let machine = Machine::new(&std::fs::read(wasm::module()?)?)?;
    let mut options = FuzzOptions::of(0, CASES);
    // Other tests measure times meanwhile.
    options.threads = 1;
    let fuzz = Fuzz::run(&machine, &options, &|_, _| {});
    let failures: Vec<String> = fuzz.failures.iter().map(ToString::to_string).collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));

    // A search that meets closed doors only is none.
    ensure!(fuzz.cases == CASES, "{} cases were played", fuzz.cases);
    ensure!(fuzz.answered > CASES, "{} requests answered", fuzz.answered);
    ensure!(fuzz.passed > CASES, "{} requests passed on", fuzz.passed);
    ensure!(fuzz.calls > CASES / 2, "{} calls", fuzz.calls);
    ensure!(fuzz.survived > CASES / 2, "{} survived", fuzz.survived);
    Ok(())
}
