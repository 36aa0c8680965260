//! A comparison of arms in whatever figures its file has: the names are the file's.

use serde_json::{Map, Value};

use super::page::Table;

/// The arms of a file, `[{"name": …, figure: …}]` or `{name: {figure: …}}`, with the figures of all.
pub(super) fn arms(file: &Value) -> Vec<(String, Map<String, Value>)> {
    let named = |arm: &Value| {
        let arm = arm.as_object()?;
        Some((arm.get("name")?.as_str()?.to_owned(), arm.clone()))
    };
    match file.get("arms") {
        Some(Value::Array(arms)) => arms.iter().filter_map(named).collect(),
        Some(Value::Object(arms)) => {
            let arms = arms.iter();
            arms.filter_map(|(name, arm)| Some((name.clone(), arm.as_object()?.clone())))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// A row for each arm, a column for each figure that any of them has.
pub(super) fn table(arms: &[(String, Map<String, Value>)]) -> Table {
    let mut columns: Vec<&String> = Vec::new();
    for (name, figure) in arms.iter().flat_map(|(_, figures)| figures) {
        if figure.is_number() && !columns.contains(&name) {
            columns.push(name);
        }
    }
    let header = [String::new()].into_iter();
    let row = |(name, figures): &(String, Map<String, Value>)| {
        let cells = columns.iter().map(|column| shown(figures.get(*column)));
        [name.clone()].into_iter().chain(cells).collect()
    };
    Table {
        header: header.chain(columns.iter().map(|c| spoken(c))).collect(),
        rows: arms.iter().map(row).collect(),
    }
}

/// A figure of each arm that has it, for bars.
pub(super) fn figure(arms: &[(String, Map<String, Value>)], name: &str) -> Vec<(String, f64)> {
    let of = |(arm, figures): &(String, Map<String, Value>)| {
        Some((arm.clone(), figures.get(name)?.as_f64()?))
    };
    arms.iter().filter_map(of).collect()
}

/// The plain numbers of an object, one a row.
pub(super) fn numbers(object: Option<&Value>) -> Table {
    let all = object.and_then(Value::as_object).into_iter().flatten();
    let numbers = all.filter(|(_, value)| value.is_number());
    Table {
        header: Vec::new(),
        rows: numbers
            .map(|(name, value)| vec![spoken(name), shown(Some(value))])
            .collect(),
    }
}

/// `cpu_us` as a person says it.
fn spoken(name: &str) -> String {
    name.replace('_', " ")
}

fn shown(figure: Option<&Value>) -> String {
    match figure.and_then(Value::as_f64) {
        Some(figure) => format!("{}", (figure * 100.0).round() / 100.0),
        None => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arms_are_found_in_a_list_and_under_their_names() {
        let list = json!({"arms": [{"name": "bare", "cpu_us": 10}, {"name": "embudo", "cpu_us": 12.345, "p99_us": 7}]});
        let named =
            json!({"arms": {"bare": {"cpu_us": 10}, "embudo": {"cpu_us": 12.345, "p99_us": 7}}});
        let texts = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        for file in [list, named] {
            let arms = arms(&file);
            let table = table(&arms);
            assert_eq!(table.header, texts(&["", "cpu us", "p99 us"]));
            let rows = [
                texts(&["bare", "10", "–"]),
                texts(&["embudo", "12.35", "7"]),
            ];
            assert_eq!(table.rows, rows);
            assert_eq!(figure(&arms, "p99_us"), [("embudo".to_owned(), 7.0)]);
        }
        assert!(arms(&json!({"arms": 3})).is_empty());
    }

    #[test]
    fn of_an_object_only_the_numbers_are_shown() {
        let found = numbers(Some(&json!({"of_bare": 1.5, "note": "x"})));
        assert_eq!(found.rows, [["of bare", "1.5"].map(str::to_owned).to_vec()]);
        assert!(numbers(None).rows.is_empty());
    }
}
