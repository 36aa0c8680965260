//! What an expression of Prometheus asks for, and whether anybody exports it: a small scan of the language.

use std::collections::{BTreeMap, BTreeSet};

/// Labels that Prometheus adds to everything it scrapes.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

/// The bounds of a histogram's buckets go into a quantile, and nowhere else.
const BOUND_OF_BUCKET: &str = "le";

/// The words that are no names of metrics though nothing stands behind them in parentheses.
const OPERATORS: [&str; 4] = ["and", "or", "unless", "bool"];

/// A metric with its label matchers, as an expression asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selector {
    name: String,
    matchers: Vec<Matcher>,
}

/// `label="a"`, `label=~"a|b"`, or `label!="a"`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Matcher {
    label: String,
    values: Vec<String>,
    negated: bool,
}

/// What an expression asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    selectors: Vec<Selector>,
    /// The labels of `by (…)`.
    grouped_by: Vec<String>,
    /// The labels of `on (…)`: what both sides of a set operator have.
    joined_on: Vec<String>,
}

/// Series by name, each with its labels.
pub(crate) type Exported = BTreeMap<String, Vec<Series>>;

type Series = BTreeMap<String, String>;

/// Reads `/stats/prometheus`.
pub(crate) fn exported(page: &str) -> Exported {
    let mut all = Exported::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else {
            continue;
        };
        let (labels, _) = rest.rsplit_once('}').expect("labels end");
        let pairs = labels.split("\",").filter_map(|pair| {
            let (name, value) = pair.split_once("=\"")?;
            Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        let series = all.entry(name.to_owned()).or_default();
        series.push(pairs.collect());
    }
    all
}

/// What is wrong with an expression on this Envoy, and with texts that show these labels of its result.
pub(crate) fn mistakes(expr: &str, shown: &BTreeSet<String>, exported: &Exported) -> Vec<String> {
    let asked = asked(expr);
    let mut wrong = Vec::new();
    let mut has: BTreeSet<&str> = OF_PROMETHEUS.into();
    for selector in &asked.selectors {
        let series = exported.get(&selector.name).map_or(&[][..], Vec::as_slice);
        wrong.extend(selector.mistakes(series));
        has.extend(series.iter().flat_map(Series::keys).map(String::as_str));
    }
    if asked.selectors.is_empty() {
        wrong.push("it asks for nothing".to_owned());
    }
    let labels = shown.iter().chain(&asked.grouped_by);
    let labels = labels.chain(&asked.joined_on);
    let unknown = labels.filter(|label| !has.contains(&***label));
    wrong.extend(unknown.map(|label| format!("no label {label}")));
    // What a sum does not keep apart has no label any more.
    let grouped = !asked.grouped_by.is_empty();
    let lost = shown
        .iter()
        .filter(|label| grouped && !asked.grouped_by.contains(label));
    wrong.extend(lost.map(|label| format!("{label} is summed up")));
    wrong
}

/// What an expression asks for. The scan knows names, functions, matchers, ranges, numbers, operators, `by`, `on` and
/// the three set operators; at anything else it panics rather than overlook a name.
fn asked(expr: &str) -> Asked {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Asked::default();
    let mut rest = expr.trim_start();
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after.trim_start();
            if word == "by" || word == "on" {
                let inside = rest.strip_prefix('(').expect("labels in parentheses");
                let (labels, after) = inside.split_once(')').expect("a closing parenthesis");
                let labels = labels.split(',').map(|label| label.trim().to_owned());
                let of_word = match word {
                    "by" => &mut found.grouped_by,
                    _ => &mut found.joined_on,
                };
                of_word.extend(labels.filter(|label| label != BOUND_OF_BUCKET));
                rest = after;
            } else if !OPERATORS.contains(&word) && !is_function(word, rest, expr) {
                let (matchers, after) = matchers(rest);
                let name = word.to_owned();
                found.selectors.push(Selector { name, matchers });
                rest = after;
            }
        } else if first == '[' {
            rest = rest.split_once(']').expect("a closing bracket").1;
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        } else {
            assert!("()+-*/<>=!,".contains(first), "{first:?} in {expr}");
            rest = &rest[first.len_utf8()..];
        }
        rest = rest.trim_start();
    }
    found
}

/// Whether a word names what is done, and not what it is done with.
fn is_function(word: &str, rest: &str, expr: &str) -> bool {
    let unknown = ["without", "ignoring", "offset", "group_left", "group_right"];
    assert!(
        !unknown.contains(&word),
        "the scan does not know {word}: {expr}"
    );
    rest.starts_with('(') || rest.starts_with("by ")
}

/// The matchers at the beginning of a text, and what is behind them.
fn matchers(text: &str) -> (Vec<Matcher>, &str) {
    let Some(inside) = text.strip_prefix('{') else {
        return (Vec::new(), text);
    };
    let (matchers, after) = inside.split_once('}').expect("a closing brace");
    (matchers.split(',').map(Matcher::new).collect(), after)
}

// === impl Matcher ===

impl Matcher {
    fn new(text: &str) -> Self {
        let (left, value) = text.split_once('=').expect("a matcher");
        let (label, negated) = left
            .strip_suffix('!')
            .map_or((left, false), |left| (left, true));
        let (value, any_of) = value
            .strip_prefix('~')
            .map_or((value, false), |value| (value, true));
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        let value = value.unwrap_or_else(|| panic!("the scan does not know {text}"));
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || (any_of && c == '|');
        let label = label.trim().to_owned();
        // Whose values Prometheus gives, the dashboard asks for with a variable.
        assert!(
            OF_PROMETHEUS.contains(&&*label) || value.chars().all(plain),
            "the scan does not know {text}"
        );
        Self {
            label,
            values: value.split('|').map(str::to_owned).collect(),
            negated,
        }
    }

    fn takes(&self, series: &Series) -> bool {
        let value = series.get(&self.label);
        let named = value.is_some_and(|value| self.values.contains(value));
        named != self.negated
    }
}

// === impl Selector ===

impl Selector {
    /// What nobody exports of it: the whole, or a value that one of its matchers names.
    fn mistakes(&self, series: &[Series]) -> Vec<String> {
        let ours = self.matchers.iter();
        let ours = ours.filter(|matcher| !OF_PROMETHEUS.contains(&&*matcher.label));
        let taken = |series: &Series| ours.clone().all(|matcher| matcher.takes(series));
        if !series.iter().any(taken) {
            return vec![format!("nobody exports {self:?}")];
        }
        let values = ours.clone().flat_map(|matcher| {
            let values = matcher.values.iter();
            values.map(|value| (&matcher.label, value))
        });
        let has =
            |label: &String, value: &String| series.iter().any(|s| s.get(label) == Some(value));
        let absent = values.filter(|(label, value)| !has(label, value));
        absent
            .map(|(label, value)| format!("{} has no {label} {value}", self.name))
            .collect()
    }
}

#[test]
fn a_name_or_a_label_that_nobody_exports_is_found() {
    let exported = exported(
        "# TYPE embudo_items counter\n\
         embudo_items{route=\"qr\",end=\"rejected\"} 1\n\
         embudo_items{route=\"qr\",end=\"expired\"} 1\n\
         embudo_pending{} 0\n\
         embudo_ms_bucket{le=\"5\"} 0\n",
    );
    for (expr, shown, right) in [
        (
            "increase(embudo_items{end=\"rejected\"}[5m]) > 0",
            "route",
            true,
        ),
        (
            "embudo_pending > 0.5 and embudo_items{route=\"qr\"}",
            "",
            true,
        ),
        (
            "embudo_items{instance=~\"$instance\",end=~\"rejected|expired\"}",
            "route",
            true,
        ),
        ("embudo_items{end!=\"rejected\"}", "", true),
        (
            "sum by (route, end) (rate(embudo_items[$__rate_interval]))",
            "end",
            true,
        ),
        (
            "histogram_quantile(0.99, sum by (le) (rate(embudo_ms_bucket[5m])))",
            "",
            true,
        ),
        ("min(changes(embudo_pending[5m]) > bool 0)", "", true),
        (
            "embudo_pending > 0 and on (instance) embudo_items",
            "",
            true,
        ),
        ("embudo_pending > 0 and on (route) embudo_items", "", true),
        ("embudo_pending > 0 and on (rout) embudo_items", "", false),
        ("embudo_itmes > 0", "", false),
        ("embudo_pending > 0 or (embudo_penidng == 1)", "", false),
        ("increase(embudo_items{end=\"refused\"}[5m]) > 0", "", false),
        ("embudo_items{route=\"qr\",end=\"refused\"} > 0", "", false),
        ("embudo_items{end=~\"rejected|refused\"}", "", false),
        ("embudo_items{end!=\"refused\"}", "", false),
        ("sum by (outcome) (embudo_items)", "", false),
        ("sum by (route) (embudo_items)", "end", false),
        (
            "histogram_quantile(0.99, sum by (le) (rate(embudo_s_bucket[5m])))",
            "",
            false,
        ),
        ("embudo_pending > 0", "route", false),
        ("embudo_pending > 0", "instance", true),
        ("vector(1)", "", false),
    ] {
        let shown = shown.split_whitespace().map(str::to_owned).collect();
        let wrong = mistakes(expr, &shown, &exported);
        assert_eq!(wrong.is_empty(), right, "{expr}: {wrong:?}");
    }
}
