//! The figures as a screen: drawn into a buffer of ratatui's, of which a terminal shows a part and
//! `--once` prints all.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table as Grid, Widget};

use super::figures::{Circuit, Figures, Percentiles, StoreFigures, Table};

/// What stands where there is no figure.
const NONE: &str = "–";

/// The columns of a POST's answers, in the order of a request's way through Embudo.
const ANSWERS: [&str; 9] = [
    "queued",
    "duplicate",
    "implied",
    "stale",
    "write_through",
    "held",
    "outside",
    "busy",
    "bypass",
];

/// What is too long for its column has a shorter heading.
const HEADINGS: [(&str, &str); 1] = [("write_through", "through")];

/// The columns of a read's answers.
const READS: [&str; 4] = ["cached", "stale", "fresh", "bypass"];

/// What the names of reads begin with, among the routes.
const READ_PREFIX: &str = "get_";

const VERDICTS: [&str; 6] = [
    "delivered",
    "retry",
    "refused",
    "rejected",
    "unknown",
    "unsent",
];

/// More verdicts, shown as refused.
const NOT_TAKEN: [&str; 3] = ["partial", "no_route", "too_large"];

/// What is believed of Laravel, and what answers to reads were beside that.
const BELIEFS: [&str; 4] = ["proven", "unproven", "disproved", "assumed"];
const COMPARED: [&str; 3] = ["same", "differs", "late"];

const ENDS: [&str; 5] = ["delivered", "superseded", "expired", "rejected", "voided"];

/// Nine digits and a blank: a count that needs more is years old. "superseded" needs one more.
const COLUMN: u16 = 10;

/// Room for a route's name; longer ones are cut.
const FIRST_COLUMN: u16 = 20;

/// A block of the screen: a heading over its columns, and the rows under them.
struct Block {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// The whole screen as text, as high as it needs to be.
pub(super) fn text(figures: &Figures, columns: u16) -> String {
    let buffer = draw(figures, columns);
    let area = buffer.area;
    let mut text = String::new();
    for y in area.top()..area.bottom() {
        let cells = (area.left()..area.right()).map(|x| buffer[(x, y)].symbol());
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

/// The whole screen, `columns` wide and as high as it needs to be.
pub(super) fn draw(figures: &Figures, columns: u16) -> Buffer {
    let blocks = blocks(figures);
    let summary = summary(figures);
    let height: usize = summary.len() + blocks.iter().map(Block::height).sum::<usize>();
    let height = u16::try_from(height).unwrap_or(u16::MAX);
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, height));
    let mut y = 0;
    for line in summary {
        line.render(Rect::new(0, y, columns, 1), &mut buffer);
        y += 1;
    }
    for block in blocks {
        let rows = u16::try_from(block.height()).unwrap_or(u16::MAX);
        let area = Rect::new(0, y.saturating_add(1), columns, rows.saturating_sub(1));
        y = y.saturating_add(rows);
        block.render(area.intersection(buffer.area), &mut buffer);
    }
    buffer
}

/// The lines at the top: what one looks at first.
fn summary(figures: &Figures) -> Vec<Line<'static>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let good = Style::new().fg(Color::Green);
    let bad = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
    let either = |fine: bool| if fine { good } else { bad };

    let mut lines = vec![Line::from(vec![
        Span::styled("Embudo", bold),
        Span::raw(format!(
            "  {}  up {}  rates over {}",
            figures.admin,
            duration(figures.uptime_s.map(|s| s.saturating_mul(1000))),
            duration(Some(figures.window_ms)),
        )),
    ])];
    if !figures.embudo_found {
        lines.push(Line::styled(
            "This Envoy has no metrics of Embudo's: the filter is not loaded here.",
            bad,
        ));
        return lines;
    }
    lines.push(store_line("", &figures.all));
    if figures.stores.len() > 1 {
        let each = figures.stores.iter();
        lines.extend(each.map(|(name, store)| store_line(name, store)));
    }
    let all = &figures.all;
    lines.push(Line::from(format!(
        "held {}   failed alone {}   proven callers {}",
        number(all.held_requests),
        number(all.suspect_items),
        number(all.proven_callers)
    )));

    let outlier = match &figures.outlier_detection {
        None => vec![Span::raw(format!("outlier detection {NONE}"))],
        Some(outlier) => vec![
            Span::raw(format!("outlier detection of {}: ", outlier.cluster)),
            Span::styled(
                format!("{} ejected now", outlier.ejections_active),
                either(outlier.ejections_active == 0),
            ),
            Span::raw(format!(
                ", {} so far; {} of {} hosts healthy",
                outlier.ejections_total, outlier.hosts_healthy, outlier.hosts_total
            )),
        ],
    };
    lines.push(Line::from(outlier));
    if figures.vm_reloads_total + figures.vm_reload_failures_total > 0 {
        let text = format!(
            "VMs that trapped: {} replaced, {} not",
            figures.vm_reloads_total, figures.vm_reload_failures_total
        );
        lines.push(Line::styled(text, bad));
    }
    lines
}

/// What a store's leader says of it; all of them without a name.
fn store_line(name: &str, store: &StoreFigures) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let good = Style::new().fg(Color::Green);
    let bad = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
    let circuit = store.circuit.map_or_else(
        || Span::raw(NONE),
        |circuit| match circuit {
            Circuit::Closed => Span::styled(circuit.text(), good),
            _ => Span::styled(circuit.text(), bad),
        },
    );
    let leader = match store.leader_alive {
        None => Span::raw(NONE),
        Some(true) => Span::styled("alive", good),
        Some(false) => Span::styled("NOT ALIVE", bad),
    };
    let mut spans = match name {
        "" => Vec::new(),
        name => vec![Span::raw(format!("  {name}: "))],
    };
    spans.extend([
        Span::raw("pending "),
        Span::styled(number(store.pending_items), bold),
        Span::raw("   oldest "),
        Span::styled(duration(store.oldest_pending_ms), bold),
        Span::raw("   circuit "),
        circuit,
        Span::raw("   leader "),
        leader,
    ]);
    if store.laravel_slow == Some(true) {
        spans.push(Span::styled("   LARAVEL IS SLOW", bad));
    }
    Line::from(spans)
}

fn blocks(figures: &Figures) -> Vec<Block> {
    if !figures.embudo_found {
        return Vec::new();
    }
    let (reads, answers): (Table, Table) = figures
        .requests_total
        .clone()
        .into_iter()
        .partition(|(route, _)| route.starts_with(READ_PREFIX));
    let mut blocks = vec![Block::counts("ANSWERS", &ANSWERS, &answers)];
    if !reads.is_empty() {
        blocks.push(Block::counts("READS", &READS, &reads));
    }
    if !figures.beliefs.is_empty() {
        blocks.push(beliefs(figures));
    }
    blocks.push(calls(figures));
    blocks.push(Block::counts("ITEMS", &ENDS, &figures.items_total));
    blocks.push(times(figures));
    blocks
}

/// A row for each belief, and behind that of the reads what it was seen by.
fn beliefs(figures: &Figures) -> Block {
    let heading = std::iter::once("BELIEFS").chain(BELIEFS).chain(COMPARED);
    let rows = figures.beliefs.iter().map(|(belief, states)| {
        let states = BELIEFS.map(|state| number(states.get(state).copied()));
        let compared = COMPARED.map(|result| match belief.as_str() {
            "reads" => number(figures.reads_compared_total.get(result).copied()),
            _ => String::new(),
        });
        let cells = std::iter::once(belief.clone()).chain(states);
        cells.chain(compared).collect()
    });
    Block {
        heading: heading.map(str::to_owned).collect(),
        rows: rows.collect(),
    }
}

/// Two rows a route: how often each verdict was, and how often a minute it is.
fn calls(figures: &Figures) -> Block {
    let heading = std::iter::once("CALLS").chain(VERDICTS).chain(["all"]);
    let mut rows = Vec::new();
    for (route, verdicts) in &figures.calls {
        let all: u64 = verdicts.values().map(|rate| rate.total).sum();
        let all_per_minute: f64 = verdicts.values().map(|rate| rate.per_minute).sum();
        // Batches that were not taken as they were share a column.
        let of = |column: &'static str| {
            let others = NOT_TAKEN.iter().filter(move |_| column == "refused");
            let names = std::iter::once(column).chain(others.copied());
            names.filter_map(|verdict| verdicts.get(verdict))
        };
        let totals = VERDICTS.map(|verdict| {
            let known = of(verdict).next().is_some();
            number(known.then(|| of(verdict).map(|rate| rate.total).sum()))
        });
        let rates = VERDICTS.map(|verdict| match of(verdict).next() {
            None => NONE.to_owned(),
            Some(_) => {
                let rate: f64 = of(verdict).map(|rate| rate.per_minute).sum();
                format!("{rate:.1}")
            }
        });
        rows.push(row(route.clone(), totals, Some(all.to_string())));
        let all = format!("{all_per_minute:.1}");
        rows.push(row("  a minute".to_owned(), rates, Some(all)));
    }
    Block {
        heading: heading.map(str::to_owned).collect(),
        rows,
    }
}

fn times(figures: &Figures) -> Block {
    let plain = |value: f64| format!("{value:.0}");
    let ms = |value: f64| duration(Some(value as u64));
    let heading = ["TIMES", "p50", "p90", "p99", "max", "samples"];
    let row = |name: &str, p: &Percentiles, show: &dyn Fn(f64) -> String| {
        let values = [p.p50, p.p90, p.p99, p.max].map(|value| value.map_or(NONE.to_owned(), show));
        row(name.to_owned(), values, Some(p.samples.to_string()))
    };
    Block {
        heading: heading.map(str::to_owned).to_vec(),
        rows: vec![
            row("staleness", &figures.staleness_ms, &ms),
            row("call time", &figures.call_ms, &ms),
            row("items in a call", &figures.batch_items, &plain),
        ],
    }
}

fn row<const N: usize>(name: String, values: [String; N], last: Option<String>) -> Vec<String> {
    std::iter::once(name).chain(values).chain(last).collect()
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| value.to_string())
}

/// Milliseconds in the two largest units that say something.
fn duration(ms: Option<u64>) -> String {
    let Some(ms) = ms else {
        return NONE.to_owned();
    };
    let s = ms / 1000;
    match s {
        0 => format!("{ms} ms"),
        1..60 => format!("{s}.{} s", ms % 1000 / 100),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {:02} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {:02} h", s / 86_400, s / 3600 % 24),
    }
}

// === impl Block ===

impl Block {
    /// A row a route, a column each of `columns`; what a route cannot have is [`NONE`].
    fn counts(title: &'static str, columns: &[&'static str], table: &Table) -> Self {
        let short = |name: &'static str| {
            let mut shorter = HEADINGS.iter().filter(|(long, _)| *long == name);
            shorter.next().map_or(name, |(_, short)| short)
        };
        let heading = std::iter::once(title).chain(columns.iter().map(|name| short(name)));
        let rows = table.iter().map(|(route, counts)| {
            let values = columns
                .iter()
                .map(|column| number(counts.get(*column).copied()));
            std::iter::once(route.clone()).chain(values).collect()
        });
        Self {
            heading: heading.map(str::to_owned).collect(),
            rows: rows.collect(),
        }
    }

    /// A blank line, the heading and the rows.
    fn height(&self) -> usize {
        2 + self.rows.len()
    }

    fn render(self, area: Rect, buffer: &mut Buffer) {
        let columns = self.heading.len();
        let longest = self.heading.iter().skip(1).map(|name| name.chars().count());
        let longest = u16::try_from(longest.max().unwrap_or(0)).unwrap_or(COLUMN);
        let width = COLUMN.max(longest.saturating_add(1));
        let widths = std::iter::once(FIRST_COLUMN)
            .chain(std::iter::repeat_n(width - 1, columns.saturating_sub(1)));
        let line = |cells: Vec<String>| {
            let cells = cells.into_iter().enumerate().map(|(i, text)| {
                let line = Line::raw(text);
                Cell::new(if i == 0 { line } else { line.right_aligned() })
            });
            Row::new(cells.collect::<Vec<_>>())
        };
        let heading = Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD);
        let grid = Grid::new(
            self.rows.into_iter().map(line),
            widths.map(Constraint::Length),
        )
        .header(line(self.heading).style(heading))
        .column_spacing(1);
        Widget::render(grid, area, buffer);
    }
}
