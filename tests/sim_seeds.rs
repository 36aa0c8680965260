//! The module that ships, under many seeds of the simulation: every invariant holds in all of them.

use embudo::live::{paths, wasm};
use embudo::sim::{self, Cut, Detail, Machine, Scenario, Swarm, SwarmOptions};

/// Seeds in `make test`; `make sim` runs twenty times as many.
const SEEDS: u64 = 500;

/// Far from the seeds that `make sim` begins with, so that both together see more.
const START: u64 = 1_000_000;

fn machine() -> Machine {
    let path = wasm::module().expect("the module builds");
    let bytes = std::fs::read(path).expect("the module is there");
    Machine::new(&bytes).expect("the host offers all that the module imports")
}

fn run_all(options: &SwarmOptions) -> Swarm {
    let swarm = Swarm::run(&machine(), options, &|_, _| {});
    let failures: Vec<String> = swarm
        .failures
        .iter()
        .map(|found| {
            let (cut, failure) = found
                .shrunk
                .clone()
                .unwrap_or_else(|| (Cut::none(found.seed), found.failure.clone()));
            format!("{failure}\n    replay: embudo sim {cut} --trace")
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    swarm
}

#[test]
fn every_invariant_holds_under_every_seed() {
    let swarm = run_all(&SwarmOptions {
        start: START,
        ..SwarmOptions::of(SEEDS)
    });
    assert_eq!(swarm.seeds, SEEDS);
    let unseen: Vec<&str> = swarm
        .coverage
        .iter()
        .filter(|(_, count)| *count == 0)
        .map(|(transition, _)| transition.text())
        .collect();
    assert!(unseen.is_empty(), "never seen: {unseen:?}");
}

#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    let path = paths::root().join("tests/regressions.txt");
    let first = sim::regressions(&path).expect("the file is readable");
    run_all(&SwarmOptions {
        first,
        ..SwarmOptions::of(0)
    });
}

#[test]
fn a_seed_is_one_run_and_another_seed_is_another() {
    let machine = machine();
    let hash = |seed, detail| {
        let report = sim::run(&machine, &Scenario::of_seed(seed), detail).expect("it runs");
        report.hash
    };
    for seed in [1, 2, 3] {
        let first = hash(seed, Detail::Hash);
        assert_eq!(first, hash(seed, Detail::Hash), "seed {seed} is one run");
        assert_eq!(
            first,
            hash(seed, Detail::HostCalls),
            "and to look changes nothing"
        );
        assert_ne!(
            first,
            hash(seed + 3, Detail::Hash),
            "another seed is another run"
        );
    }
}
