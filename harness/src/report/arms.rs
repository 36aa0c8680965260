//! A comparison of arms in whatever figures its file has: the names are the file's.

use serde_json::{Map, Value};

use super::page::Table;

/// An arm with all its figures.
pub(super) type Arm = (String, Map<String, Value>);

/// The two arms of a file that is a comparison as `run.json` is.
const OF_A_RUN: [&str; 2] = ["direct", "through"];

/// The comparisons of a file, each with what it is called: its `arms`, the two arms of a run, and whatever arms each of
/// its `phases` has.
pub(super) fn comparisons(file: &Value) -> Vec<(String, Vec<Arm>)> {
    let of_file = file.get("arms").map(arms).unwrap_or_default();
    let of_run = OF_A_RUN.iter().filter_map(|name| {
        let figures = file.get(name)?.as_object()?;
        Some(((*name).to_owned(), figures.clone()))
    });
    let whole = (String::new(), of_file.into_iter().chain(of_run).collect());
    let phases = file.get("phases").and_then(Value::as_object);
    let phases = phases.into_iter().flatten();
    let phases = phases.map(|(name, phase)| (spoken(name), arms(phase)));
    let all = std::iter::once(whole).chain(phases);
    all.filter(|(_, arms)| !arms.is_empty()).collect()
}

/// `[{"name": …, figure: …}]`, or `{name: {figure: …}}`.
fn arms(of: &Value) -> Vec<Arm> {
    let named = |arm: &Value| {
        let arm = arm.as_object()?;
        Some((arm.get("name")?.as_str()?.to_owned(), arm.clone()))
    };
    match of {
        Value::Array(arms) => arms.iter().filter_map(named).collect(),
        Value::Object(arms) => {
            let arms = arms.iter();
            arms.filter_map(|(name, arm)| Some((name.clone(), arm.as_object()?.clone())))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// A row for each figure that any of them has, a column for each arm.
pub(super) fn table(arms: &[Arm]) -> Table {
    let figures: Vec<Vec<(String, f64)>> = arms.iter().map(|(_, arm)| numbers_in(arm)).collect();
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in figures.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let row = |name: &String| {
        let of = |arm: &Vec<(String, f64)>| {
            let found = arm.iter().find(|(known, _)| known == name);
            found.map_or("–".to_owned(), |(_, figure)| shown(*figure))
        };
        let cells = figures.iter().map(of);
        std::iter::once(name.clone()).chain(cells).collect()
    };
    let arms = arms.iter().map(|(name, _)| name.clone());
    Table {
        header: std::iter::once(String::new()).chain(arms).collect(),
        rows: names.into_iter().map(row).collect(),
    }
}

/// A figure of each arm that has it, for bars.
pub(super) fn figure(arms: &[Arm], name: &str) -> Vec<(String, f64)> {
    let of = |(arm, figures): &Arm| Some((arm.clone(), figures.get(name)?.as_f64()?));
    arms.iter().filter_map(of).collect()
}

/// The numbers of an object, one a row.
pub(super) fn numbers(object: Option<&Value>) -> Table {
    let all = object.and_then(Value::as_object).map(numbers_in);
    let all = all.unwrap_or_default().into_iter();
    Table {
        header: Vec::new(),
        rows: all
            .map(|(name, number)| vec![name, shown(number)])
            .collect(),
    }
}

/// Also of the objects within, under both names.
fn numbers_in(object: &Map<String, Value>) -> Vec<(String, f64)> {
    let of = |(name, value): (&String, &Value)| match value {
        Value::Object(inner) => {
            let inner = numbers_in(inner).into_iter();
            inner
                .map(|(more, number)| (format!("{} {more}", spoken(name)), number))
                .collect()
        }
        value => {
            let number = value.as_f64().map(|number| (spoken(name), number));
            number.into_iter().collect::<Vec<_>>()
        }
    };
    object.iter().flat_map(of).collect()
}

/// `cpu_us` as a person says it.
fn spoken(name: &str) -> String {
    name.replace('_', " ")
}

fn shown(figure: f64) -> String {
    format!("{}", (figure * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts<const N: usize>(cells: [&str; N]) -> Vec<String> {
        cells.map(str::to_owned).to_vec()
    }

    #[test]
    fn arms_are_found_in_a_list_and_under_their_names() {
        let list = json!([{"name": "bare", "cpu_us": 10}, {"name": "embudo", "cpu_us": 12.345, "p99_us": 7}]);
        let named = json!({"bare": {"cpu_us": 10}, "embudo": {"cpu_us": 12.345, "p99_us": 7}});
        for file in [
            json!({"arms": list}),
            json!({"arms": named}),
            json!({"phases": {"": named}}),
        ] {
            let found = comparisons(&file);
            let [(name, arms)] = &found[..] else {
                panic!("one: {found:?}")
            };
            assert_eq!(name, "");
            let table = table(arms);
            assert_eq!(table.header, texts(["", "bare", "embudo"]));
            let rows = [
                texts(["cpu us", "10", "12.35"]),
                texts(["p99 us", "–", "7"]),
            ];
            assert_eq!(table.rows, rows);
            assert_eq!(figure(arms, "p99_us"), [("embudo".to_owned(), 7.0)]);
        }
        let run = comparisons(&json!({"seed": 1, "direct": {"x": 1}, "through": {"x": 2}}));
        assert_eq!(table(&run[0].1).rows, [texts(["x", "1", "2"])]);
        assert!(comparisons(&json!({"arms": 3, "phases": []})).is_empty());
    }

    #[test]
    fn of_an_object_the_numbers_are_shown_and_those_within() {
        let found = numbers(Some(
            &json!({"of_bare": 1.5, "note": "x", "cpu": {"laravel": 2}}),
        ));
        assert_eq!(
            found.rows,
            [texts(["cpu laravel", "2"]), texts(["of bare", "1.5"])]
        );
        assert!(numbers(None).rows.is_empty());
    }
}
