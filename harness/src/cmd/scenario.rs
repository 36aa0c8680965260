//! `embudo scenario`: scenario files on the simulated host, on a real Envoy, or on both side by side.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use embudo::check::{Failure, Outcome, check};
use embudo::live::{self, wasm};
use embudo::scenario::{Measure, Scenario};
use embudo::sim::{self, Detail, Machine};

const SIM: &str = "sim";
const LIVE: &str = "live";

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
    /// How often on each arm: the first run on the simulated host is the file's own, the others have
    /// other luck, and a real Envoy is never twice the same
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Break a rule on purpose, on the simulated host, and see whether it is noticed
    #[arg(long, conflicts_with = "arm")]
    sabotage: Option<String>,
    /// Print what happened on the simulated host, run by run
    #[arg(long, conflicts_with = "arm")]
    trace: bool,
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
    /// By arm.
    outcomes: BTreeMap<&'static str, Vec<Outcome>>,
}

pub(crate) async fn run(arguments: ScenarioArguments) -> Result<()> {
    let machine = match arguments.arm {
        Arms::Live => None,
        Arms::Sim | Arms::Both => {
            let broken = arguments.sabotage.is_some();
            Some(tokio::task::spawn_blocking(move || machine(broken)).await??)
        }
    };
    let detail = match arguments.trace {
        true => Detail::Events,
        false => Detail::Hash,
    };
    let mut table = table(arguments.arm);
    let mut wrong = Vec::new();
    for path in &arguments.files {
        let mut scenario = Scenario::load(path)?;
        scenario.seed = arguments.seed.unwrap_or(scenario.seed);
        if let Some(name) = &arguments.sabotage {
            scenario.filter["sabotage"] = name.as_str().into();
        }
        let stem = path.file_stem().unwrap_or_default();
        let mut ran = Ran {
            file: stem.to_string_lossy().into_owned(),
            scenario,
            outcomes: BTreeMap::new(),
        };
        eprintln!("{}: {}", ran.file, ran.scenario.name);
        for run in 0..arguments.runs {
            if let Some(machine) = machine.clone() {
                let scenario = ran.scenario.clone();
                let chance = scenario.seed.wrapping_add(run);
                let run =
                    move || sim::scenario::run_with_chance(&machine, &scenario, chance, detail);
                let (outcome, lines) = tokio::task::spawn_blocking(run).await??;
                print!("{}", sim::table(&lines));
                ran.ended(SIM, outcome);
            }
            if arguments.arm != Arms::Sim {
                ran.ended(LIVE, live::scenario::run(&ran.scenario).await?);
            }
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

fn machine(broken: bool) -> Result<Machine> {
    let path = match broken {
        true => wasm::sabotaged()?,
        false => wasm::module()?,
    };
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Machine::new(&bytes)
}

fn table(arms: Arms) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let found: &[&str] = match arms {
        Arms::Sim => &[SIM],
        Arms::Live => &[LIVE],
        Arms::Both => &[SIM, LIVE],
    };
    let columns = ["scenario", "measure"].iter().chain(found);
    table.set_header(columns.chain(&["expected"]));
    table
}

/// The least and the most of several runs.
fn range(outcomes: &[Outcome], measure: Measure) -> String {
    let all = outcomes.iter();
    let found: Vec<f64> = all
        .filter_map(|outcome| outcome.measures.get(&measure).copied())
        .collect();
    let least = found.iter().copied().reduce(f64::min);
    let most = found.iter().copied().reduce(f64::max);
    match (least, most) {
        (Some(least), Some(most)) if least < most => format!("{least} to {most}"),
        (Some(only), _) => only.to_string(),
        (None, _) => NONE.to_owned(),
    }
}

// === impl Ran ===

impl Ran {
    fn ended(&mut self, arm: &'static str, outcome: Outcome) {
        self.outcomes.entry(arm).or_default().push(outcome);
    }

    fn rows(&self, table: &mut Table) {
        for (at, measure) in Measure::ALL.into_iter().enumerate() {
            let file = if at == 0 { self.file.as_str() } else { "" };
            let mut row = vec![Cell::new(file), Cell::new(measure.name())];
            for arm in [SIM, LIVE] {
                if let Some(outcomes) = self.outcomes.get(arm) {
                    let text = range(outcomes, measure);
                    row.push(Cell::new(text).set_alignment(CellAlignment::Right));
                }
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
        let mut lines = Vec::new();
        for (arm, outcomes) in &self.outcomes {
            for (run, outcome) in outcomes.iter().enumerate() {
                let failures = check(&self.scenario, outcome).into_iter();
                lines.extend(failures.map(|Failure { rule, what }| {
                    format!("{} ({arm}, run {run}): {rule}: {what}", self.file)
                }));
            }
        }
        lines
    }
}
