//! `embudo peers`: Embudo beside what it is to be better than.

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use embudo::live::peers::{self, Arm, Cpu, Figures, PeersReport, Plan};
use serde_json::json;

use super::summary::publish;

/// Run the same events without anything, with a batcher in the gateway, and with Embudo
///
/// The batcher is a program of Node with a cache in Redis. Every arm lives through a crowd of sessions, a lone
/// session, an outage of Laravel and a session that Laravel refuses. Exits with 1 where Embudo is not better than
/// the batcher by what was promised, or loses or overtakes a value. Takes some twelve minutes.
#[derive(Args, Debug)]
pub(crate) struct PeersArguments {
    /// WhatsApp sessions of the crowd
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    sessions: u32,
    /// For how long the crowd sends; longer than a session's cycle of 160 s, or what the batcher has cached for
    /// 60 s before the start would not run out as it does in life
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(10..))]
    seconds: u64,
    /// Decides the traffic
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A quarter of a minute of everything, judged by what was lost or overtaken alone
    #[arg(long)]
    short: bool,
}

pub(crate) async fn run(arguments: PeersArguments) -> Result<()> {
    let plan = match arguments.short {
        true => Plan::short(arguments.seed),
        false => {
            let sessions = usize::try_from(arguments.sessions)?;
            Plan::whole(sessions, arguments.seconds, arguments.seed)
        }
    };
    let started = Instant::now();
    let tell = |line: &str| eprintln!("{:>4} s  {line}", started.elapsed().as_secs());
    let report = peers::run(&plan, tell).await?;
    let criteria = match arguments.short {
        true => report.invariants(),
        false => report.criteria(),
    };

    let written = json!({
        "seed": report.seed,
        "phases": report.phases,
        "criteria": criteria.iter().map(|c| json!({
            "what": c.what, "found": c.found, "most": c.most, "holds": c.holds(),
        })).collect::<Vec<_>>(),
    });
    println!("{}", figures(&report));
    for criterion in &criteria {
        let verdict = if criterion.holds() { "pass" } else { "FAIL" };
        let (what, found, most) = (&criterion.what, criterion.found, criterion.most);
        println!("{verdict}  {what}: {found:.3}, at most {most:.3}");
    }
    publish(&written, "peers.json")?;
    match criteria.iter().filter(|c| !c.holds()).count() {
        0 => Ok(()),
        n => bail!(
            "{n} of {} criteria fail (seed {})",
            criteria.len(),
            report.seed
        ),
    }
}

/// A row of the table: what it shows, and how.
type Row = (&'static str, fn(&Figures) -> String);

const ROWS: [Row; 15] = [
    ("events", |f| f.events.to_string()),
    ("updates accepted", |f| f.accepted.to_string()),
    ("requests at Laravel", |f| f.laravel_requests.to_string()),
    ("  kB of bodies", |f| (f.laravel_bytes / 1000).to_string()),
    ("  a minute", |f| {
        format!("{:.0}", f.laravel_requests_per_minute)
    }),
    ("ms for an event, p50 / p99", |f| {
        format!("{:.2} / {:.2}", f.event_ms_p50, f.event_ms_p99)
    }),
    ("ms until Laravel has a QR, p50 / p99", |f| {
        format!("{} / {}", f.staleness_ms_p50, f.staleness_ms_p99)
    }),
    ("CPU s for 1,000 events: gateway", |f| {
        cpu(f, |cpu| cpu.gateway)
    }),
    ("  between gateway and Laravel", |f| {
        cpu(f, |cpu| cpu.middle)
    }),
    ("  stand-in Laravel", |f| cpu(f, |cpu| cpu.laravel)),
    ("MB between gateway and Laravel", |f| {
        format!("{:.0}", f.memory_mb)
    }),
    ("values lost / expired / rejected", |f| {
        format!("{} / {} / {}", f.lost, f.expired, f.rejected)
    }),
    ("values out of order", |f| f.out_of_order.to_string()),
    ("sessions compared / undecided", |f| {
        format!("{} / {}", f.compared, f.undecided)
    }),
    ("Laravel's 422s; s to settle", |f| {
        format!("{}; {:.1}", f.refusals, f.settled_after_ms as f64 / 1000.0)
    }),
];

fn cpu(figures: &Figures, whose: fn(Cpu) -> f64) -> String {
    let seconds = figures.cpu_s_per_1000_events.map(whose);
    seconds.map_or("–".to_owned(), |seconds| format!("{seconds:.3}"))
}

fn figures(report: &PeersReport) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let arms = Arm::ALL.map(Arm::name);
    table.set_header([&[""][..], &arms].concat());
    for (phase, figures) in &report.phases {
        table.add_row([Cell::new(phase.to_string().to_uppercase())]);
        for (name, show) in ROWS {
            let mut row = vec![Cell::new(name)];
            for arm in Arm::ALL {
                let text = figures.get(&arm).map(show).unwrap_or_default();
                row.push(Cell::new(text).set_alignment(CellAlignment::Right));
            }
            table.add_row(row);
        }
    }
    table
}
