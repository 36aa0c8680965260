//! `embudo sim`: the production module in the deterministic simulation.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use embudo::live::{paths, wasm};
use embudo::sim::sabotage::{self, Caught};
use embudo::sim::{self, Cut, Detail, Machine, Swarm, SwarmOptions, Transition};
use serde_json::json;

use super::progress::Progress;

/// Run the module that ships in a deterministic simulation
///
/// One seed is one run: who sends what, what goes wrong and when, and in which order threads take
/// turns. Many seeds are a search. Whatever is found can be replayed by its seed.
#[derive(Args, Debug)]
pub(crate) struct SimArguments {
    /// Replay one seed, twice, and say whether both runs were the same
    #[arg(long, conflicts_with_all = ["seeds", "start"])]
    seed: Option<u64>,
    /// Search: run so many seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Search: the first seed
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Search: how many at once; all cores by default
    #[arg(long)]
    threads: Option<usize>,
    /// Search: stop at the first failure
    #[arg(long)]
    stop: bool,
    /// Replay: print what happened
    #[arg(long)]
    trace: bool,
    /// Replay: print every host call too
    #[arg(long)]
    host_calls: bool,
    /// Replay: only these sessions
    #[arg(long, value_delimiter = ',')]
    sessions: Option<Vec<usize>>,
    /// Replay: only these faults, by place
    #[arg(long, value_parser = list)]
    faults: Option<List>,
    /// Replay: end the traffic then, in ms
    #[arg(long)]
    until: Option<u64>,
    /// Search: also break every rule on purpose, and see that it is noticed
    #[arg(long)]
    sabotages: bool,
    /// A module other than the one that is built here
    #[arg(long)]
    module: Option<PathBuf>,
    /// Break the module on purpose; needs a module that was built for it
    #[arg(long)]
    sabotage: Option<String>,
}

/// A list that may be empty.
#[derive(Clone, Debug)]
struct List(Vec<usize>);

fn list(text: &str) -> Result<List, String> {
    let all = text.split(',').filter(|part| !part.is_empty());
    let numbers = all.map(|part| part.trim().parse::<usize>().map_err(|e| e.to_string()));
    Ok(List(numbers.collect::<Result<_, _>>()?))
}

pub(crate) async fn run(arguments: SimArguments) -> Result<()> {
    tokio::task::spawn_blocking(move || run_here(&arguments)).await?
}

fn run_here(arguments: &SimArguments) -> Result<()> {
    let path = match &arguments.module {
        Some(path) => path.clone(),
        None => wasm::module()?,
    };
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let machine = Machine::new(&bytes)?;
    match arguments.seed {
        Some(seed) => replay(&machine, seed, arguments),
        None => search(&machine, arguments),
    }
}

fn replay(machine: &Machine, seed: u64, arguments: &SimArguments) -> Result<()> {
    let cut = Cut {
        seed,
        sessions: arguments.sessions.clone(),
        faults: arguments.faults.clone().map(|list| list.0),
        until_ms: arguments.until,
    };
    let mut scenario = cut.scenario();
    if let Some(name) = &arguments.sabotage {
        scenario.config["sabotage"] = name.as_str().into();
    }
    let detail = match (arguments.host_calls, arguments.trace) {
        (true, _) => Detail::HostCalls,
        (_, true) => Detail::Events,
        _ => Detail::Hash,
    };
    let first = sim::run(machine, &scenario, detail)?;
    let second = sim::run(machine, &scenario, Detail::Hash)?;
    if detail != Detail::Hash {
        println!("{}", serde_json::to_string(&scenario.config)?);
        for (at, fault) in scenario.faults.iter().enumerate() {
            let (from, to) = (fault.at_ms, fault.at_ms + fault.for_ms);
            println!("fault {at}: {from} to {to} ms: {:?}", fault.verb);
        }
        print!("{}", sim::table(&first.lines));
    }
    println!(
        "seed {seed}: {} ms of virtual time, {} requests, {} updates, {} calls, {} host calls, {} VMs",
        first.virtual_ms, first.requests, first.updates, first.calls, first.host_calls, first.vms
    );
    if first.hash != second.hash {
        bail!(
            "two runs differ: {:016x} and {:016x}",
            first.hash,
            second.hash
        );
    }
    println!("run twice, and the same both times: {:016x}", first.hash);
    match first.failure {
        Some(failure) => bail!("{failure}"),
        None => Ok(()),
    }
}

fn search(machine: &Machine, arguments: &SimArguments) -> Result<()> {
    let mut options = SwarmOptions::of(arguments.seeds);
    options.start = arguments.start;
    options.stop_at_failure = arguments.stop;
    options.sabotage.clone_from(&arguments.sabotage);
    if let Some(threads) = arguments.threads {
        options.threads = threads;
    }
    if arguments.start == 0 {
        options.first = sim::regressions(&paths::root().join("tests/regressions.txt"))?;
    }
    let progress = std::sync::Mutex::new(Progress::endless("sim"));
    let total = options.seeds + options.first.len() as u64;
    let swarm = Swarm::run(machine, &options, &|seeds, failures| {
        if seeds.is_multiple_of(20) || seeds == total {
            let line = format!("{seeds} of {total} seeds, {failures} failed");
            if let Ok(mut progress) = progress.lock() {
                progress.update(&line);
            }
        }
    });
    if let Ok(progress) = progress.into_inner() {
        progress.finish(&format!("{} seeds", swarm.seeds));
    }
    print_summary(&swarm);
    let sabotages = match arguments.sabotages {
        true => search_sabotages()?,
        false => Vec::new(),
    };
    let caught: Vec<_> = sabotages
        .iter()
        .map(|caught| {
            let bait = caught.by.as_ref().map(|(bait, _)| bait.to_string());
            json!({"name": caught.name, "caught_by": bait})
        })
        .collect();
    let at_large = sabotages
        .iter()
        .filter(|caught| caught.by.is_none())
        .count();
    let transitions: Vec<_> = swarm
        .coverage
        .iter()
        .map(|(transition, count)| json!({"name": transition.text(), "count": count}))
        .collect();
    let report = json!({
        "seeds": swarm.seeds,
        "failures": swarm.failures.len(),
        "virtual_ms": swarm.virtual_ms,
        "wall_ms": u64::try_from(swarm.wall.as_millis()).unwrap_or(u64::MAX),
        "host_calls": swarm.host_calls,
        "sabotages": caught,
        "transitions": transitions,
    });
    std::fs::create_dir_all(paths::output())?;
    let path = paths::output().join("sim.json");
    paths::write_atomically(&path, serde_json::to_string_pretty(&report)?.as_bytes())?;
    for found in &swarm.failures {
        println!("seed {}: {}", found.seed, found.failure);
        if let Some((cut, failure)) = &found.shrunk {
            println!("  shrunk: {failure}\n  replay: embudo sim {cut} --trace");
        }
    }
    match swarm.failures.len() {
        0 if at_large > 0 => bail!("{at_large} sabotages were not noticed"),
        0 => Ok(()),
        failed => bail!("{failed} of {} seeds failed", swarm.seeds),
    }
}

/// Every sabotage at its recorded seed first, then at others. The recorded seeds are printed in the form
/// of their file.
fn search_sabotages() -> Result<Vec<Caught>> {
    let module = wasm::sabotaged()?;
    let bytes =
        std::fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
    let machine = Machine::new(&bytes)?;
    let recorded = sabotage::recorded(&paths::root().join("tests/sabotages.txt"))?;
    let mut all = Vec::new();
    for name in sabotage::names() {
        let known = recorded.iter().find(|(known, _)| known == name);
        let caught = sabotage::search(&machine, name, known.map(|(_, bait)| bait))?;
        match &caught.by {
            Some((bait, how)) => println!("{name} {bait}\n# {how}"),
            None => println!("# {name} was not noticed in {} seeds", sabotage::SEEDS_MAX),
        }
        all.push(caught);
    }
    Ok(all)
}

fn print_summary(swarm: &Swarm) {
    let wall = swarm.wall.max(Duration::from_millis(1)).as_secs_f64();
    let hours = swarm.virtual_ms as f64 / 3_600_000.0;
    println!(
        "{} seeds in {wall:.1} s ({:.1} a second); {hours:.2} virtual hours ({:.2} in a second)",
        swarm.seeds,
        swarm.seeds as f64 / wall,
        hours / wall
    );
    println!(
        "{} host calls ({:.0} a second), {} steps, {} requests, {} updates, {} calls, {} VMs",
        swarm.host_calls,
        swarm.host_calls as f64 / wall,
        swarm.steps,
        swarm.requests,
        swarm.updates,
        swarm.calls,
        swarm.vms
    );
    let counted = |wanted: Transition| {
        let mut all = swarm.coverage.iter();
        all.find(|(known, _)| *known == wanted)
            .map_or(0, |(_, n)| n)
    };
    let [cached, stale, fresh] = [
        Transition::ReadCached,
        Transition::ReadStale,
        Transition::ReadFresh,
    ]
    .map(counted);
    let reads = cached + stale + fresh;
    println!(
        "{reads} reads: {} % answered from the store, {} % while Laravel failed",
        100 * (cached + stale) / reads.max(1),
        100 * stale / reads.max(1)
    );
    let faults: Vec<String> = swarm
        .faults
        .iter()
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    println!("faults: {}", faults.join(", "));
    for (transition, count) in swarm.coverage.iter() {
        println!("{count:>12}  {transition}");
    }
}
