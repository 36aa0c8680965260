//! `embudo scenario`: scenario files on the simulated host, on a real Envoy, or on both side by side.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use embudo::check::{Failure, Outcome, check};
use embudo::live::{self, wasm};
use embudo::scenario::{Measure, Scenario};
use embudo::sim::{self, Machine};

/// What stands where nothing was measured or nothing is expected.
const NONE: &str = "–";

/// Run scenario files, and show what was measured
///
/// Every file is run on the simulated host, on a real Envoy, or on both. Where both measure something
/// else, one of them is wrong.
#[derive(Args, Debug)]
pub(crate) struct ScenarioArguments {
    /// The files, such as tests/data/*.toml
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Where to run them
    #[arg(long, value_enum, default_value_t = Arms::Sim)]
    arm: Arms,
    /// Another seed than the files'
    #[arg(long)]
    seed: Option<u64>,
}

/// Which arms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Arms {
    /// The simulated host, in virtual time
    Sim,
    /// A real Envoy, in real time
    Live,
    /// One after the other
    Both,
}

/// A scenario with what came of it.
struct Ran {
    file: String,
    scenario: Scenario,
    sim: Option<Outcome>,
    live: Option<Outcome>,
}

pub(crate) async fn run(arguments: ScenarioArguments) -> Result<()> {
    let machine = match arguments.arm {
        Arms::Live => None,
        Arms::Sim | Arms::Both => Some(tokio::task::spawn_blocking(machine).await??),
    };
    let mut table = table(arguments.arm);
    let mut wrong = Vec::new();
    for path in &arguments.files {
        let mut scenario = Scenario::load(path)?;
        scenario.seed = arguments.seed.unwrap_or(scenario.seed);
        let stem = path.file_stem().unwrap_or_default();
        let mut ran = Ran {
            file: stem.to_string_lossy().into_owned(),
            scenario,
            sim: None,
            live: None,
        };
        eprintln!("{}: {}", ran.file, ran.scenario.name);
        if let Some(machine) = machine.clone() {
            let scenario = ran.scenario.clone();
            let run = move || sim::scenario::run(&machine, &scenario);
            ran.sim = Some(tokio::task::spawn_blocking(run).await??);
        }
        if arguments.arm != Arms::Sim {
            ran.live = Some(live::scenario::run(&ran.scenario).await?);
        }
        ran.rows(&mut table);
        wrong.extend(ran.failures());
    }
    println!("{table}");
    for line in &wrong {
        println!("{line}");
    }
    match wrong.len() {
        0 => Ok(()),
        failed => bail!("{failed} rules do not hold"),
    }
}

fn machine() -> Result<Machine> {
    let path = wasm::module()?;
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Machine::new(&bytes)
}

fn table(arms: Arms) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let found: &[&str] = match arms {
        Arms::Sim => &["sim"],
        Arms::Live => &["live"],
        Arms::Both => &["sim", "live"],
    };
    let columns = ["scenario", "measure"].iter().chain(found);
    table.set_header(columns.chain(&["expected"]));
    table
}

// === impl Ran ===

impl Ran {
    fn rows(&self, table: &mut Table) {
        for (at, measure) in Measure::ALL.into_iter().enumerate() {
            let file = if at == 0 { self.file.as_str() } else { "" };
            let mut row = vec![Cell::new(file), Cell::new(measure.name())];
            for outcome in [&self.sim, &self.live].into_iter().flatten() {
                let found = outcome.measures.get(&measure);
                let text = found.map_or_else(|| NONE.to_owned(), f64::to_string);
                row.push(Cell::new(text).set_alignment(CellAlignment::Right));
            }
            row.push(Cell::new(self.expected(measure)));
            table.add_row(row);
        }
    }

    fn expected(&self, measure: Measure) -> String {
        let all = self.scenario.expectations.iter();
        let bounds: Vec<String> = all
            .filter(|expectation| expectation.of == measure)
            .map(|expectation| match (expectation.min, expectation.max) {
                (Some(min), Some(max)) => format!("{min} to {max}"),
                (Some(min), None) => format!("at least {min}"),
                (None, Some(max)) => format!("at most {max}"),
                (None, None) => NONE.to_owned(),
            })
            .collect();
        match bounds.is_empty() {
            true => NONE.to_owned(),
            false => bounds.join(", "),
        }
    }

    fn failures(&self) -> Vec<String> {
        let arms = [("sim", &self.sim), ("live", &self.live)];
        let found = arms.into_iter().filter_map(|(arm, outcome)| {
            let failures = check(&self.scenario, outcome.as_ref()?);
            Some(failures.into_iter().map(move |failure| (arm, failure)))
        });
        found
            .flatten()
            .map(|(arm, Failure { rule, what })| format!("{} ({arm}): {rule}: {what}", self.file))
            .collect()
    }
}
