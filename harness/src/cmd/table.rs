//! The tables: one side by side for a comparison, one for a load alone.

use std::collections::BTreeMap;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use embudo::live::load::LoadReport;
use embudo::model::http::Kind;

use super::arm::Outcome;
use super::summary::{ArmSummary, GatewaySide, RunSummary};

/// What stands where a figure makes no sense.
const NONE: &str = "–";

/// The comparison: what was promised, in the order in which it was promised.
pub(crate) fn comparison(direct: &Outcome, through: &Outcome, summary: &RunSummary) -> String {
    let mut rows = Rows::new(&["", "straight to Laravel", "through Embudo", "change"]);
    let (d, t) = (&summary.direct, &summary.through);
    rows.heading(&format!("The gateway, {} sessions", summary.sessions));
    rows.text(
        "  requests a minute",
        |arm| whole(arm.gateway.gateway_requests_per_minute),
        d,
        t,
    );
    rows.text("  sends for", |arm| seconds(arm.gateway.seconds), d, t);
    for kind in [Kind::GetStatus, Kind::PostQr, Kind::PostStatus] {
        rows.row(
            &format!("  {} a minute", kind.name()),
            [
                sends(&direct.load, kind),
                sends(&through.load, kind),
                String::new(),
            ],
        );
    }
    rows.text(
        "  of all, retries",
        |arm| arm.gateway.gateway_retries.to_string(),
        d,
        t,
    );
    rows.text(
        "  failed",
        |arm| arm.gateway.gateway_failures.to_string(),
        d,
        t,
    );
    rows.heading("Answers to its POSTs");
    answers(&mut rows, &direct.load, &through.load);
    rows.heading("Latency of its POSTs");
    rows.ratio("  p50", |arm| arm.gateway.gateway_p50_ms, ms, d, t);
    rows.ratio("  p99", |arm| arm.gateway.gateway_p99_ms, ms, d, t);
    rows.ratio("  max", |arm| arm.gateway.gateway_max_ms, ms, d, t);
    rows.heading("Latency of its GETs");
    rows.ratio("  p50", |arm| arm.gateway.gateway_get_p50_ms, ms, d, t);
    rows.ratio("  p99", |arm| arm.gateway.gateway_get_p99_ms, ms, d, t);
    rows.heading("Reaches Laravel, once each session has been asked for");
    rows.ratio(
        "  requests a minute",
        |arm| arm.laravel.laravel_requests_per_minute,
        whole,
        d,
        t,
    );
    rows.ratio(
        "  POSTs a minute",
        |arm| arm.laravel.laravel_posts_per_minute,
        whole,
        d,
        t,
    );
    rows.ratio(
        "  GETs a minute",
        |arm| arm.laravel.laravel_gets_per_minute,
        whole,
        d,
        t,
    );
    rows.ratio(
        "  KB a minute in POSTs",
        |arm| arm.laravel.laravel_bytes_per_minute / 1000.0,
        whole,
        d,
        t,
    );
    let batch = |arm: &ArmSummary| match arm.laravel.batch_items_max {
        0 => NONE.to_owned(),
        max => format!("{:.1} / {max}", arm.laravel.batch_items_mean),
    };
    rows.text("  items a batch, mean / max", batch, d, t);
    rows.heading("Age of a value when Laravel has it");
    let pair = |p50: u64, p99: u64| format!("{p50} / {p99} ms");
    rows.text(
        "  QR, p50 / p99",
        |a| pair(a.laravel.staleness_p50_ms, a.laravel.staleness_p99_ms),
        d,
        t,
    );
    rows.text(
        "  state sent by itself, p50 / p99",
        |a| {
            pair(
                a.laravel.state_staleness_p50_ms,
                a.laravel.state_staleness_p99_ms,
            )
        },
        d,
        t,
    );
    rows.text(
        "  older value after a newer one",
        |a| a.laravel.older_after_newer.to_string(),
        d,
        t,
    );
    rows.table.to_string()
}

/// A load alone: what the gateway saw.
pub(crate) fn load(report: &LoadReport) -> String {
    let gateway = GatewaySide::new(report);
    let mut rows = Rows::new(&["", ""]);
    rows.row("sent for", [seconds(gateway.seconds)]);
    for kind in Kind::ALL
        .into_iter()
        .filter(|kind| report.sends.contains_key(kind))
    {
        rows.row(&format!("{} a minute", kind.name()), [sends(report, kind)]);
    }
    rows.row("of all, retries", [gateway.gateway_retries.to_string()]);
    rows.row("failed", [gateway.gateway_failures.to_string()]);
    for (answer, count) in post_answers(report) {
        rows.row(&format!("POSTs answered {answer}"), [count.to_string()]);
    }
    let GatewaySide {
        gateway_p50_ms: p50,
        gateway_p99_ms: p99,
        gateway_max_ms: max,
        ..
    } = gateway;
    rows.row(
        "POSTs, p50 / p99 / max",
        [format!("{} / {} / {}", ms(p50), ms(p99), ms(max))],
    );
    rows.table.to_string()
}

fn answers(rows: &mut Rows, direct: &LoadReport, through: &LoadReport) {
    let (direct, through) = (post_answers(direct), post_answers(through));
    let mut all: Vec<&String> = direct.keys().chain(through.keys()).collect();
    all.sort();
    all.dedup();
    for answer in all {
        let shown = |of: &BTreeMap<_, u64>| of.get(answer).map_or(NONE.to_owned(), u64::to_string);
        rows.row(
            &format!("  {answer}"),
            [shown(&direct), shown(&through), String::new()],
        );
    }
}

/// How many POSTs were answered how: the status, and Embudo's outcome where it answered.
fn post_answers(load: &LoadReport) -> BTreeMap<String, u64> {
    let mut answers = BTreeMap::new();
    let posts = [Kind::PostQr, Kind::PostStatus];
    for ((_, status, outcome), count) in load
        .answers
        .iter()
        .filter(|((kind, ..), _)| posts.contains(kind))
    {
        let by = outcome
            .as_ref()
            .map(|outcome| format!(" {outcome}"))
            .unwrap_or_default();
        *answers.entry(format!("{status}{by}")).or_default() += count;
    }
    let lost = |of: &BTreeMap<Kind, u64>| posts.iter().filter_map(|k| of.get(k)).sum::<u64>();
    for (name, of) in [
        ("timeout", &load.timeouts),
        ("no connection", &load.network_errors),
    ] {
        if lost(of) > 0 {
            answers.insert(name.to_owned(), lost(of));
        }
    }
    answers
}

fn sends(load: &LoadReport, kind: Kind) -> String {
    let seconds = load.sent_for.as_secs_f64().max(f64::MIN_POSITIVE);
    whole(load.sends.get(&kind).copied().unwrap_or(0) as f64 * 60.0 / seconds)
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.0} s")
}

fn ms(ms: f64) -> String {
    if ms < 100.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// A whole number with its thousands apart.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How much less, or how many times more.
fn change(from: f64, to: f64) -> String {
    if from <= 0.0 {
        return String::new();
    }
    let percent = 100.0 * (to / from - 1.0);
    if percent > 100.0 {
        format!("× {:.1}", to / from)
    } else {
        format!("{percent:+.1} %")
    }
}

struct Rows {
    table: Table,
    columns: usize,
}

// === impl Rows ===

impl Rows {
    fn new(header: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        if header.iter().any(|title| !title.is_empty()) {
            table.set_header(header);
        }
        Self {
            table,
            columns: header.len(),
        }
    }

    fn heading(&mut self, title: &str) {
        let mut cells = vec![Cell::new(title)];
        cells.resize(self.columns, Cell::new(""));
        self.table.add_row(cells);
    }

    fn row<const N: usize>(&mut self, name: &str, values: [String; N]) {
        let values = values
            .into_iter()
            .map(|v| Cell::new(v).set_alignment(CellAlignment::Right));
        self.table
            .add_row(std::iter::once(Cell::new(name)).chain(values));
    }

    fn text(
        &mut self,
        name: &str,
        of: impl Fn(&ArmSummary) -> String,
        d: &ArmSummary,
        t: &ArmSummary,
    ) {
        self.row(name, [of(d), of(t), String::new()]);
    }

    fn ratio(
        &mut self,
        name: &str,
        of: impl Fn(&ArmSummary) -> f64,
        show: impl Fn(f64) -> String,
        d: &ArmSummary,
        t: &ArmSummary,
    ) {
        self.row(name, [show(of(d)), show(of(t)), change(of(d), of(t))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(whole(0.4), "0");
        assert_eq!(whole(999.0), "999");
        assert_eq!(whole(7_512.3), "7,512");
        assert_eq!(whole(1_234_567.0), "1,234,567");
        assert_eq!(ms(0.5), "0.50 ms");
        assert_eq!(ms(1234.6), "1235 ms");
    }

    #[test]
    fn a_change_says_how_much_less_or_how_many_times_more() {
        assert_eq!(change(5_000.0, 100.0), "-98.0 %");
        assert_eq!(change(20.0, 50.0), "× 2.5");
        assert_eq!(change(0.0, 50.0), "");
    }

    #[test]
    fn answers_are_counted_by_status_and_outcome() {
        let mut load = LoadReport::default();
        let queued = Some("queued".to_owned());
        load.answers.insert((Kind::PostQr, 200, queued.clone()), 3);
        load.answers.insert((Kind::PostStatus, 200, queued), 2);
        load.answers.insert((Kind::GetStatus, 200, None), 9);
        load.timeouts.insert(Kind::PostQr, 1);
        let expected = [("200 queued".to_owned(), 5), ("timeout".to_owned(), 1)];
        assert_eq!(post_answers(&load), expected.into());
    }
}
