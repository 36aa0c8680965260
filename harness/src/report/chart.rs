//! Charts as SVG text, readable in light and dark.
//!
//! A chart is drawn in the light colours; a style sheet, matched by these very colours, puts the dark ones in their
//! place where the reader prefers them. The background changes along, so that a picture is readable also where the
//! page around it follows another setting.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const WIDTH: u32 = 860;
const HEIGHT: u32 = 320;
const MARGIN: u32 = 14;

/// A bar with its name and figure.
const BAR_HEIGHT: u32 = 34;

/// What the names of the bars may take of the width.
const NAMES_SHARE: f64 = 0.42;

/// Each colour in light and in dark.
const COLOURS: [(RGBColor, RGBColor); 6] = [
    (BACKGROUND, RGBColor(0x0d, 0x11, 0x17)),
    (INK, RGBColor(0xe6, 0xed, 0xf3)),
    (GRID, RGBColor(0x3d, 0x44, 0x4d)),
    (BEFORE, RGBColor(0xf0, 0x88, 0x3e)),
    (AFTER, RGBColor(0x58, 0xa6, 0xff)),
    (BAD, RGBColor(0xff, 0x7b, 0x72)),
];
const BACKGROUND: RGBColor = RGBColor(0xff, 0xff, 0xff);
const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
const GRID: RGBColor = RGBColor(0xd0, 0xd7, 0xde);
/// Without Embudo, or what the gateway does.
pub(super) const BEFORE: RGBColor = RGBColor(0xbc, 0x4c, 0x00);
/// With it, or what Laravel sees.
pub(super) const AFTER: RGBColor = RGBColor(0x09, 0x69, 0xda);
/// What went wrong.
pub(super) const BAD: RGBColor = RGBColor(0xcf, 0x22, 0x2e);

/// How the x axis goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    Linear,
    Log,
}

/// Lines over one another.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: (&'static str, Axis),
    pub(super) y: &'static str,
    pub(super) lines: Vec<Line>,
    /// A span of x that is set off, and what it is.
    pub(super) span: Option<(Range<f64>, &'static str)>,
}

#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) colour: RGBColor,
    pub(super) points: Vec<(f64, f64)>,
}

/// The dark colours, for a style sheet.
pub(super) fn dark_css() -> String {
    let hex = |RGBColor(r, g, b): RGBColor| format!("#{r:02X}{g:02X}{b:02X}");
    let rule = |(light, dark): &(RGBColor, RGBColor)| {
        let (light, dark) = (hex(*light), hex(*dark));
        format!("svg [fill=\"{light}\"]{{fill:{dark}}}svg [stroke=\"{light}\"]{{stroke:{dark}}}")
    };
    let rules: String = COLOURS.iter().map(rule).collect();
    format!("@media (prefers-color-scheme: dark){{{rules}}}")
}

/// A chart that is a file of its own: the style sheet goes in.
pub(super) fn standalone(svg: &str) -> String {
    let style = format!(">\n<style>{}</style>", dark_css());
    svg.replacen('>', &style, 1)
}

/// Numbers on an axis: no more digits than there is to say.
fn label(value: f64) -> String {
    match value.abs() {
        10.0.. => format!("{value:.0}"),
        _ => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}

// === impl Chart ===

impl Chart {
    /// The picture; nothing where there is nothing to draw.
    ///
    /// # Errors
    /// Whatever the library cannot draw.
    pub(super) fn svg(&self) -> Result<Option<String>> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let ends = points().fold(None, |ends: Option<(f64, f64)>, (x, _)| {
            let (low, high) = ends.unwrap_or((*x, *x));
            Some((low.min(*x), high.max(*x)))
        });
        let Some((low, high)) = ends.filter(|(low, high)| high > low) else {
            return Ok(None);
        };
        let top = points().map(|(_, y)| *y).fold(1.0, f64::max);
        let svg = match self.x.1 {
            Axis::Linear => self.draw(low..high, top),
            Axis::Log => self.draw((low..high).log_scale(), top),
        };
        svg.map(Some)
            .map_err(|error| anyhow!("{}: {error}", self.title))
    }

    fn draw<X>(&self, x: X, top: f64) -> Result<String, Box<dyn std::error::Error>>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
    {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
            area.fill(&BACKGROUND)?;
            let mut chart = ChartBuilder::on(&area)
                .margin(MARGIN)
                .caption(&self.title, ("sans-serif", 17).into_font().color(&INK))
                .x_label_area_size(42)
                .y_label_area_size(56)
                .build_cartesian_2d(x, 0.0..top * 1.05)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .max_light_lines(0)
                .bold_line_style(GRID)
                .axis_style(INK)
                .label_style(("sans-serif", 13).into_font().color(&INK))
                .x_desc(self.x.0)
                .y_desc(self.y)
                .x_labels(8)
                .y_labels(6)
                .x_label_formatter(&|value| label(*value))
                .y_label_formatter(&|value| label(*value))
                .draw()?;
            if let Some((span, name)) = &self.span {
                let corners = [(span.start, 0.0), (span.end, top * 1.05)];
                let shade = Rectangle::new(corners, BAD.mix(0.14).filled());
                chart.draw_series([shade])?.label(*name).legend(|(x, y)| {
                    Rectangle::new([(x, y - 5), (x + 18, y + 5)], BAD.mix(0.14).filled())
                });
            }
            for line in &self.lines {
                let style = line.colour.stroke_width(2);
                chart
                    .draw_series(LineSeries::new(line.points.iter().copied(), style))?
                    .label(&line.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            }
            chart
                .configure_series_labels()
                .label_font(("sans-serif", 13).into_font().color(&INK))
                .background_style(BACKGROUND)
                .border_style(GRID)
                .position(SeriesLabelPosition::MiddleRight)
                .draw()?;
            area.present()?;
        }
        Ok(svg)
    }
}

/// One bar for each name, with its figure at its end; nothing without bars.
///
/// # Errors
/// Whatever the library cannot draw.
pub(super) fn bars(title: &str, unit: &str, bars: &[(String, f64)]) -> Result<Option<String>> {
    let most = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    if most <= 0.0 {
        return Ok(None);
    }
    let svg = draw_bars(title, unit, bars, most);
    svg.map(Some).map_err(|error| anyhow!("{title}: {error}"))
}

fn draw_bars(
    title: &str,
    unit: &str,
    bars: &[(String, f64)],
    most: f64,
) -> Result<String, Box<dyn std::error::Error>> {
    let rows = u32::try_from(bars.len())?;
    let mut svg = String::new();
    {
        let size = (WIDTH, rows * BAR_HEIGHT + 3 * MARGIN + 20);
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&BACKGROUND)?;
        // Names stand left of 0; right of the longest bar is room for its figure.
        let left = -most * NAMES_SHARE / (1.0 - NAMES_SHARE) * 1.2;
        let across: RangedCoordf64 = (left..most * 1.2).into();
        let mut chart = ChartBuilder::on(&area)
            .margin(MARGIN)
            .caption(title, ("sans-serif", 17).into_font().color(&INK))
            .build_cartesian_2d(across, f64::from(rows)..0.0)?;
        let text = |at| {
            let font = ("sans-serif", 13).into_font().color(&INK);
            font.pos(Pos::new(at, VPos::Center))
        };
        for (row, (name, value)) in bars.iter().enumerate() {
            let middle = row as f64 + 0.5;
            let corners = [(0.0, middle - 0.3), (*value, middle + 0.3)];
            chart.draw_series([Rectangle::new(corners, AFTER.filled())])?;
            let gap = most * 0.01;
            let figure = format!("{} {unit}", label(*value));
            let name = Text::new(name.clone(), (-gap, middle), text(HPos::Right));
            let figure = Text::new(figure, (value + gap, middle), text(HPos::Left));
            chart.draw_series([name, figure])?;
        }
        area.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>, axis: Axis) -> Chart {
        Chart {
            title: "a < b".to_owned(),
            x: ("x", axis),
            y: "y",
            lines: vec![Line {
                name: "through".to_owned(),
                colour: AFTER,
                points,
            }],
            span: Some((1.5..2.0, "down")),
        }
    }

    #[test]
    fn a_chart_has_its_texts_and_a_line_with_a_corner_for_each_point() {
        for axis in [Axis::Linear, Axis::Log] {
            let chart = chart(vec![(1.0, 1.0), (2.0, 4.0), (30.0, 2.0)], axis);
            let svg = chart.svg().unwrap().expect("a picture");
            for text in ["a &lt; b", "through", "down"] {
                assert!(svg.contains(text), "{text}: {svg}");
            }
            let line = "stroke=\"#0969DA\" stroke-width=\"2\" points=\"";
            let points = svg
                .split(line)
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            assert_eq!(
                points.map(|p| p.split_whitespace().count()),
                Some(3),
                "{svg}"
            );
        }
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(chart(vec![], Axis::Linear).svg().unwrap(), None);
        assert_eq!(chart(vec![(1.0, 1.0)], Axis::Log).svg().unwrap(), None);
        assert_eq!(bars("t", "µs", &[]).unwrap(), None);
        assert_eq!(bars("t", "µs", &[("a".to_owned(), 0.0)]).unwrap(), None);
    }

    #[test]
    fn the_longest_bar_is_as_many_times_longer_as_its_figure_says() {
        let found = [("short".to_owned(), 10.0), ("long".to_owned(), 40.0)];
        let svg = bars("t", "µs", &found).unwrap().expect("a picture");
        let widths: Vec<f64> = svg
            .lines()
            .filter(|line| line.starts_with("<rect") && line.contains("#0969DA"))
            .filter_map(|line| {
                line.split("width=\"")
                    .nth(1)?
                    .split('"')
                    .next()?
                    .parse()
                    .ok()
            })
            .collect();
        let [short, long] = widths[..] else {
            panic!("two bars: {svg}")
        };
        assert!((long / short - 4.0).abs() < 0.1, "{short} {long}");
        assert!(svg.contains("40 µs"), "{svg}");
    }

    #[test]
    fn every_colour_of_a_picture_has_one_for_the_dark() {
        let svg = chart(vec![(1.0, 1.0), (2.0, 4.0)], Axis::Linear)
            .svg()
            .unwrap()
            .expect("a picture");
        let css = dark_css();
        for used in svg.split("=\"#").skip(1) {
            let colour = &used[..6];
            assert!(css.contains(&format!("=\"#{colour}\"")), "{colour}");
        }
        let alone = standalone(&svg);
        assert!(
            alone.starts_with("<svg ") && alone.contains(&css),
            "{alone}"
        );
    }
}
