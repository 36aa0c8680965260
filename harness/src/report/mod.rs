//! Pictures of what was measured: one page, `target/embudo/report.html`, from the JSON files beside it.
//!
//! Every command that measures writes a file of figures; the page shows whichever of them are there, so that it can be
//! written at the end of each. It is one file without scripts, and nothing in it comes from anywhere else.
//!
//! # Layout
//!
//! * `series`: what a picture is drawn from, as it stands in the files.
//! * `chart`: pictures as SVG text.
//! * `arms`: comparisons in whatever figures a file has.
//! * `page`: the HTML around them.

mod arms;
mod chart;
mod page;
mod series;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::chart::{AFTER, Axis, BAD, BEFORE, Chart, Line};
use self::page::Page;
pub use self::series::{ArmSeries, ChaosSeries, Distribution, WholeSeconds};
use crate::live::paths;

/// Of `run.json`, what is drawn.
#[derive(Debug, Deserialize)]
struct Run {
    sessions: usize,
    direct: Arm<ArmSeries>,
    through: Arm<ArmSeries>,
}

/// Of an arm, or of `chaos.json`. A file of an earlier version has no series.
#[derive(Debug, Deserialize)]
struct Arm<S> {
    series: Option<S>,
}

/// Writes the page from the figures in `target/embudo/`, and returns where it is; `None` where there are none that can
/// be drawn.
///
/// # Errors
/// If a file of figures cannot be read, or the page cannot be written.
pub fn write() -> Result<Option<PathBuf>> {
    let (folder, file) = (paths::output(), paths::output().join("report.html"));
    let Some(html) = html(&folder)? else {
        return Ok(None);
    };
    paths::write_atomically(&file, html.as_bytes())?;
    Ok(Some(file))
}

/// Writes the picture of the requests at Laravel as a file of its own.
///
/// # Errors
/// If `run.json` is missing or has no series, or the picture cannot be written.
pub fn write_requests_svg(file: &Path) -> Result<()> {
    let run: Option<Run> = read(&paths::output(), "run.json")?;
    let svg = run.map(|run| run.requests().svg()).transpose()?.flatten();
    let svg = svg.context("there are no figures yet: `make run` makes target/embudo/run.json")?;
    paths::write_atomically(file, chart::standalone(&svg).as_bytes())
}

/// The page of the figures in a folder; `None` without any.
fn html(folder: &Path) -> Result<Option<String>> {
    let mut page = Page::default();
    if let Some(run) = read::<Run>(folder, "run.json")? {
        run.show(&mut page)?;
    }
    if let Some(Arm {
        series: Some(series),
    }) = read::<Arm<ChaosSeries>>(folder, "chaos.json")?
    {
        outage(&mut page, &series)?;
    }
    for (name, title, text) in COMPARISONS {
        if let Some(file) = read::<Value>(folder, name)? {
            compared(&mut page, title, text, &file)?;
        }
    }
    Ok((!page.is_empty()).then(|| page.html()))
}

/// Files with arms, each with what stands above it.
const COMPARISONS: [(&str, &str, &str); 3] = [
    (
        "bench.json",
        "What a request costs",
        "CPU time of Envoy for a request, and what its sender waits, in µs, measured by turns.",
    ),
    (
        "peers.json",
        "Beside others",
        "The same traffic through what else could stand in this place.",
    ),
    (
        "full-stack.json",
        "A real gateway and a real Laravel",
        "The whole way, with nothing standing in for either end.",
    ),
];

/// What is in a file; `None` if there is no such file.
fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>> {
    let file = folder.join(name);
    let text = match fs::read_to_string(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let read = serde_json::from_str(&text);
    read.map(Some)
        .with_context(|| format!("{} has not the figures that are expected", file.display()))
}

fn outage(page: &mut Page, series: &ChaosSeries) -> Result<()> {
    page.section(
        "While Laravel is down",
        "Everything goes wrong in turn (`embudo chaos`); in the marked time Laravel refuses connections.",
    );
    let over_time = Chart {
        title: "Requests a second, in a run of troubles".to_owned(),
        x: ("seconds", Axis::Linear),
        y: "requests a second",
        lines: vec![
            Line::over_time("the gateway sends", BEFORE, &series.sent_per_second),
            Line::over_time("reach Laravel", AFTER, &series.laravel_per_second),
            Line::over_time("get no 2xx", BAD, &series.failed_per_second),
        ],
        span: Some((series.outage_from_s..series.outage_to_s, "Laravel is down")),
    };
    page.picture(over_time.svg()?);
    let lines = [
        ("while nothing is wrong", BEFORE, &series.healthy_latency),
        ("while Laravel is down", AFTER, &series.outage_latency),
    ];
    page.picture(shares("What the gateway waits for an answer", lines).svg()?);
    Ok(())
}

fn compared(page: &mut Page, title: &str, text: &str, file: &Value) -> Result<()> {
    page.section(title, text);
    for (name, arms) in arms::comparisons(file) {
        page.heading(&name);
        for (figure, title) in [("cpu_us", "CPU time a request"), ("p99_us", "p99")] {
            page.picture(chart::bars(title, "µs", &arms::figure(&arms, figure))?);
        }
        page.table(&arms::table(&arms));
    }
    for name in ["ratios", "memory"] {
        page.table(&arms::numbers(file.get(name)));
    }
    Ok(())
}

/// How many percent took at most how long.
fn shares<'a>(
    title: &str,
    lines: impl IntoIterator<Item = (&'a str, plotters::style::RGBColor, &'a Distribution)>,
) -> Chart {
    let line = |(name, colour, distribution): (&str, _, &Distribution)| Line {
        name: name.to_owned(),
        colour,
        points: distribution.cumulative(),
    };
    let mut lines: Vec<Line> = lines.into_iter().map(line).collect();
    // All that there are stay all that there are, up to the other line's end.
    let ends = lines.iter().filter_map(|line| line.points.last());
    let end = ends.map(|(ms, _)| *ms).fold(0.0, f64::max);
    for line in lines.iter_mut().filter(|line| !line.points.is_empty()) {
        line.points.push((end, 100.0));
    }
    Chart {
        title: title.to_owned(),
        x: ("at most so many ms", Axis::Log),
        y: "% of all",
        lines,
        span: None,
    }
}

// === impl Run ===

impl Run {
    fn show(&self, page: &mut Page) -> Result<()> {
        let (Some(direct), Some(through)) = (&self.direct.series, &self.through.series) else {
            return Ok(());
        };
        page.section(
            "Straight to Laravel, and through Embudo",
            "The same traffic twice, counted once each session has been asked for.",
        );
        page.picture(self.requests().svg()?);
        let both = |title, of: fn(&ArmSeries) -> &Distribution| {
            let lines = [
                ("straight to Laravel", BEFORE, of(direct)),
                ("through Embudo", AFTER, of(through)),
            ];
            shares(title, lines).svg()
        };
        page.picture(both(
            "What the gateway waits for an answer to a POST",
            |s| &s.post_latency,
        )?);
        page.picture(both("And to a status read", |s| &s.get_latency)?);
        page.picture(both("How old a QR is when Laravel has it", |s| {
            &s.qr_staleness
        })?);
        page.picture(both("And a state that travels by itself", |s| {
            &s.state_staleness
        })?);
        Ok(())
    }

    /// The picture that says what Embudo is for.
    fn requests(&self) -> Chart {
        let line = |name, colour, arm: &Arm<ArmSeries>| {
            let seconds = arm
                .series
                .iter()
                .flat_map(|series| &series.laravel_per_second);
            Line::over_time(name, colour, seconds)
        };
        Chart {
            title: format!("Requests that reach Laravel, {} sessions", self.sessions),
            x: ("seconds", Axis::Linear),
            y: "requests a second",
            lines: vec![
                line("straight to Laravel", BEFORE, &self.direct),
                line("through Embudo", AFTER, &self.through),
            ],
            span: None,
        }
    }
}

// === impl Line ===

impl Line {
    /// Counts of one second after the other.
    fn over_time<'a>(
        name: &str,
        colour: plotters::style::RGBColor,
        seconds: impl IntoIterator<Item = &'a u64>,
    ) -> Self {
        let seconds = seconds.into_iter().enumerate();
        Self {
            name: name.to_owned(),
            colour,
            points: seconds
                .map(|(second, count)| (second as f64, *count as f64))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
