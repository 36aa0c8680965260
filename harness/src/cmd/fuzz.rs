//! `embudo fuzz`: the production module under whatever may come.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use embudo::live::wasm;
use embudo::sim::{Fuzz, FuzzOptions, Machine, Pick};

use super::progress::Progress;

/// Throw arbitrary bytes at the module that ships
///
/// Requests, answers, configurations, doorbell and stored values: a case is a fresh process and a dozen of
/// them. It must never trap, never hang, never flood its log, and must deliver an update at the end.
#[derive(Args, Debug)]
pub(crate) struct FuzzArguments {
    /// How many cases
    #[arg(long, default_value_t = 100_000)]
    cases: u64,
    /// The seed of all
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The first case
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// How many at once; all cores by default
    #[arg(long)]
    threads: Option<usize>,
    /// Replay one case, and print it
    #[arg(long, conflicts_with_all = ["cases", "start", "threads"])]
    case: Option<u64>,
    /// Replay: only these steps, by place
    #[arg(long, requires = "case", value_parser = steps)]
    steps: Option<Steps>,
    /// A module other than the one that is built here
    #[arg(long)]
    module: Option<PathBuf>,
}

/// A list that may be empty.
#[derive(Clone, Debug)]
struct Steps(Vec<usize>);

fn steps(text: &str) -> Result<Steps, String> {
    let all = text.split(',').filter(|part| !part.is_empty());
    let numbers = all.map(|part| part.trim().parse::<usize>().map_err(|e| e.to_string()));
    Ok(Steps(numbers.collect::<Result<_, _>>()?))
}

/// Compiles the module that was built here, or the one that was named.
pub(super) fn machine(module: Option<&PathBuf>) -> Result<Machine> {
    let path = match module {
        Some(path) => path.clone(),
        None => wasm::module()?,
    };
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Machine::new(&bytes)
}

pub(crate) async fn run(arguments: FuzzArguments) -> Result<()> {
    tokio::task::spawn_blocking(move || run_here(&arguments)).await?
}

fn run_here(arguments: &FuzzArguments) -> Result<()> {
    let machine = machine(arguments.module.as_ref())?;
    match arguments.case {
        Some(number) => replay(
            &machine,
            &Pick {
                seed: arguments.seed,
                number,
                steps: arguments.steps.clone().map(|steps| steps.0),
            },
        ),
        None => search(&machine, arguments),
    }
}

fn replay(machine: &Machine, pick: &Pick) -> Result<()> {
    print!("{}", pick.case());
    match pick.play(machine) {
        Ok(()) => {
            println!("nothing is wrong with it");
            Ok(())
        }
        Err(found) => bail!("{found}"),
    }
}

fn search(machine: &Machine, arguments: &FuzzArguments) -> Result<()> {
    let mut options = FuzzOptions::of(arguments.seed, arguments.cases);
    options.start = arguments.start;
    if let Some(threads) = arguments.threads {
        options.threads = threads;
    }
    let progress = std::sync::Mutex::new(Progress::endless("fuzz"));
    let total = options.cases;
    let fuzz = Fuzz::run(machine, &options, &|cases, failures| {
        if let Ok(mut progress) = progress.lock() {
            progress.update(&format!("{cases} of {total} cases, {failures} failed"));
        }
    });
    if let Ok(progress) = progress.into_inner() {
        progress.finish(&format!("{} cases", fuzz.cases));
    }
    print_summary(&fuzz);
    for failed in &fuzz.failures {
        println!("\n{failed}");
    }
    match fuzz.failures.len() {
        0 => Ok(()),
        failed => bail!("{failed} cases failed"),
    }
}

fn print_summary(fuzz: &Fuzz) {
    let wall = fuzz.wall.as_secs_f64().max(0.001);
    println!(
        "{} cases in {wall:.1} s ({:.0} a second): {} callbacks' jobs, {} host calls",
        fuzz.cases,
        fuzz.cases as f64 / wall,
        fuzz.jobs,
        fuzz.host_calls
    );
    println!(
        "{} requests answered, {} passed on; {} calls; {} processes refused to start, {} delivered at their end",
        fuzz.answered, fuzz.passed, fuzz.calls, fuzz.refused, fuzz.survived
    );
    println!(
        "at most {} instructions in one callback, {} KiB in one VM",
        fuzz.instructions_max,
        fuzz.memory_bytes_max / 1024
    );
}
