//! `embudo bench`: what the filter costs Envoy.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use embudo::live::bench::{self, BenchOptions, BenchReport};

use super::progress::Progress;
use super::summary::publish;

/// Measure what a request costs Envoy with Embudo, and hold it against what is promised
///
/// A real Envoy has one core to itself, the load another. What Embudo costs is set beside the floor: a filter that
/// reads the path and the body and answers, no more. Exits with 1 where a promise is broken.
#[derive(Args, Debug)]
pub(crate) struct BenchArguments {
    /// Rounds, each with all arms
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Requests a second at which latencies are taken
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,
    /// Sessions in the largest of three stores
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(20_000..=500_000))]
    sessions: u32,
}

/// Requests of a burst: a quarter of a second's.
const BURST: usize = 4000;

/// Requests before the first round: five minutes of a thousand sessions.
const WARM_UP: usize = 40_000;

const STREAM: Duration = Duration::from_millis(500);

/// Sessions in the two smaller stores.
const SESSIONS: [usize; 2] = [1_000, 10_000];

pub(crate) async fn run(arguments: BenchArguments) -> Result<()> {
    let options = BenchOptions {
        rounds: arguments.rounds.into(),
        rate: arguments.rate.into(),
        stream: STREAM,
        burst: BURST,
        warm_up: WARM_UP,
        sessions: [SESSIONS[0], SESSIONS[1], arguments.sessions as usize],
    };
    let mut progress = Progress::endless("bench");
    let report = bench::run(&options, |line| progress.update(line)).await?;
    progress.finish("over");
    println!("{}", arms(&report));
    println!("{}", promises(&report));
    publish(&report, "bench.json")?;
    let judged = report.judged();
    let missed: Vec<_> = judged.iter().filter(|it| !it.holds()).collect();
    match missed.is_empty() {
        true => Ok(()),
        false => bail!("{} of {} promises are broken", missed.len(), judged.len()),
    }
}

fn arms(report: &BenchReport) -> Table {
    let floor = report.arms.iter().find(|arm| arm.name == "floor");
    let floor = floor.map_or(f64::NAN, |floor| floor.cpu_us);
    let header = [
        "arm",
        "CPU µs",
        "/ floor",
        "to its answer",
        "p50 µs",
        "p99 µs",
        "in the VM",
    ];
    let mut table = table(header);
    for arm in &report.arms {
        row(
            &mut table,
            &arm.name,
            [
                format!("{:.1}", arm.cpu_us),
                format!("{:.2}", arm.cpu_us / floor),
                format!("{:.1}", arm.answered_us),
                format!("{:.0}", arm.p50_us),
                format!("{:.0}", arm.p99_us),
                arm.entered_vm.to_string(),
            ],
        );
    }
    table
}

fn promises(report: &BenchReport) -> Table {
    let mut table = table(["", "found", "at most", ""]);
    for judged in report.judged() {
        let verdict = if judged.holds() { "pass" } else { "FAIL" };
        row(
            &mut table,
            judged.name,
            [
                figure(judged.found),
                figure(judged.bound),
                verdict.to_owned(),
            ],
        );
    }
    table
}

/// A ratio with two decimals, a count with none.
fn figure(number: f64) -> String {
    match number.fract() == 0.0 || number >= 100.0 {
        true => format!("{number:.0}"),
        false => format!("{number:.2}"),
    }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    table
}

fn row<const N: usize>(table: &mut Table, name: &str, figures: [String; N]) {
    let right = |figure: String| Cell::new(figure).set_alignment(CellAlignment::Right);
    let cells = std::iter::once(Cell::new(name)).chain(figures.into_iter().map(right));
    table.add_row(cells);
}
