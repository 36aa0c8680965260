//! Many seeds, on all cores.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Coverage, Cut, Detail, Failure, Machine, Report, Scenario, run, shrink};

/// What to run.
#[derive(Clone, Debug)]
pub struct SwarmOptions {
    /// Seeds that run first, those that failed once.
    pub first: Vec<u64>,
    /// The first of the others.
    pub start: u64,
    /// How many.
    pub seeds: u64,
    /// Threads.
    pub threads: usize,
    /// Stop at the first failure.
    pub stop_at_failure: bool,
    /// Laid over every configuration: the sabotage.
    pub sabotage: Option<String>,
    /// Whether failures are shrunk; that costs a hundred runs each.
    pub shrink: bool,
}

/// A failing seed.
#[derive(Clone, Debug)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// How it failed.
    pub failure: Failure,
    /// What is left of it, and how that fails.
    pub shrunk: Option<(Cut, Failure)>,
}

/// What came of a swarm.
#[derive(Clone, Debug, Default)]
pub struct Swarm {
    /// Seeds that ran.
    pub seeds: u64,
    /// Those that failed, in order of their numbers.
    pub failures: Vec<Found>,
    /// Virtual time of all runs.
    pub virtual_ms: u64,
    /// Real time.
    pub wall: Duration,
    /// Host calls.
    pub host_calls: u64,
    /// Events and host calls.
    pub steps: u64,
    /// Accepted updates.
    pub updates: u64,
    /// Requests of the gateway.
    pub requests: u64,
    /// Calls of the dispatcher.
    pub calls: u64,
    /// VMs.
    pub vms: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Transitions.
    pub coverage: Coverage,
}

/// Lays a sabotage over a scenario.
fn sabotaged(scenario: &mut Scenario, sabotage: Option<&str>) {
    if let Some(name) = sabotage {
        scenario.config["sabotage"] = name.into();
    }
}

// === impl SwarmOptions ===

impl SwarmOptions {
    /// So many seeds from the first one, on all cores.
    #[must_use]
    pub fn of(seeds: u64) -> Self {
        Self {
            first: Vec::new(),
            start: 0,
            seeds,
            threads: thread::available_parallelism().map_or(1, usize::from),
            stop_at_failure: false,
            sabotage: None,
            shrink: true,
        }
    }
}

// === impl Swarm ===

impl Swarm {
    /// Runs a swarm. `progress` hears of every seed, how many have run and how many failed.
    pub fn run(
        machine: &Machine,
        options: &SwarmOptions,
        progress: &(dyn Fn(u64, usize) + Sync),
    ) -> Self {
        let begun = Instant::now();
        let next = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let first = options.first.len() as u64;
        let total = first + options.seeds;
        let swarm = Mutex::new(Self::default());
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return;
                }
                let known = usize::try_from(number)
                    .ok()
                    .and_then(|at| options.first.get(at));
                let seed = known.map_or_else(|| options.start + number - first, |seed| *seed);
                let mut scenario = Scenario::of_seed(seed);
                sabotaged(&mut scenario, options.sabotage.as_deref());
                let report = match run(machine, &scenario, Detail::Hash) {
                    Ok(report) => report,
                    Err(error) => panic!("seed {seed}: {error:#}"),
                };
                let mut swarm = swarm
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                swarm.add(seed, &report);
                if report.failure.is_some() && options.stop_at_failure {
                    stop.store(true, Ordering::Relaxed);
                }
                progress(swarm.seeds, swarm.failures.len());
            }
        };
        thread::scope(|scope| {
            for _ in 0..options.threads.max(1) {
                scope.spawn(work);
            }
        });
        let mut swarm = swarm
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        swarm.failures.sort_by_key(|found| found.seed);
        if options.shrink {
            for found in swarm.failures.iter_mut().take(3) {
                let change = |scenario: &mut Scenario| {
                    sabotaged(scenario, options.sabotage.as_deref());
                };
                found.shrunk = Some(shrink(machine, found.seed, &found.failure, &change));
            }
        }
        swarm.wall = begun.elapsed();
        swarm
    }

    fn add(&mut self, seed: u64, report: &Report) {
        self.seeds += 1;
        self.virtual_ms += report.virtual_ms;
        self.host_calls += report.host_calls;
        self.steps += report.steps;
        self.updates += report.updates;
        self.requests += report.requests;
        self.calls += report.calls;
        self.vms += u64::from(report.vms);
        for (name, count) in &report.faults {
            *self.faults.entry(name).or_default() += count;
        }
        self.coverage.add(&report.coverage);
        if let Some(failure) = &report.failure {
            self.failures.push(Found {
                seed,
                failure: failure.clone(),
                shrunk: None,
            });
        }
    }
}
