//! `embudo check`: the filter's own judgement of its configuration, before Envoy hears of it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use embudo_core::config::Config;
use serde_json::Value;

/// The type of Envoy's Wasm filter.
const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

const STRING_VALUE: &str = "type.googleapis.com/google.protobuf.StringValue";

/// Check a filter configuration, as Embudo itself would when Envoy starts
///
/// Every problem is reported with the place where it is. `envoy --mode validate` runs the same
/// check, but needs Envoy and the module.
#[derive(Args, Debug)]
pub(crate) struct CheckArguments {
    /// The configuration: JSON, or a whole envoy.yaml, from which Embudo's part is taken
    file: PathBuf,
}

pub(crate) fn run(arguments: &CheckArguments) -> Result<()> {
    let file = arguments.file.display();
    let text =
        fs::read_to_string(&arguments.file).with_context(|| format!("cannot read {file}"))?;
    let found = configurations(&text).with_context(|| format!("{file}"))?;
    for configuration in &found {
        println!(
            "{file}: valid: {}",
            check(configuration).with_context(|| format!("{file}"))?
        );
    }
    Ok(())
}

/// Validates one configuration, and says what it comes to.
fn check(configuration: &str) -> Result<String> {
    let config = match Config::parse(configuration.as_bytes()) {
        Ok(config) => config,
        Err(problems) => {
            let lines: Vec<_> = problems
                .iter()
                .map(|problem| format!("\n  {problem}"))
                .collect();
            let s = if problems.len() == 1 { "" } else { "s" };
            bail!("{} problem{s}{}", problems.len(), lines.concat());
        }
    };
    let routes: Vec<_> = config
        .routes
        .iter()
        .map(|route| format!("{} ({} …{})", route.name, route.method, route.path))
        .collect();
    let pace = &config.pace;
    Ok(format!(
        "routes {}; at most {} calls a second, {} at once",
        routes.join(", "),
        pace.max_requests_per_second,
        pace.max_in_flight
    ))
}

/// The configurations in a file: the file itself, or what an Envoy configuration holds for Embudo.
fn configurations(text: &str) -> Result<Vec<String>> {
    // A filter configuration has no `static_resources`, and not valid JSON is for the core to say.
    let Ok(yaml) = serde_yaml_ng::from_str::<Value>(text) else {
        return Ok(vec![text.to_owned()]);
    };
    let mut filters = Vec::new();
    wasm_filters(&yaml, &mut filters);
    let embudo = |filter: &&Value| filter.to_string().contains("embudo");
    let ours: Vec<_> = filters.iter().copied().filter(embudo).collect();
    match (ours.as_slice(), is_envoy_configuration(&yaml)) {
        ([], true) => bail!("an Envoy configuration without Embudo: no Wasm filter names it"),
        ([], false) => Ok(vec![text.to_owned()]),
        (filters, _) => filters
            .iter()
            .map(|filter| configuration_of(filter))
            .collect(),
    }
}

fn is_envoy_configuration(yaml: &Value) -> bool {
    [
        "static_resources",
        "dynamic_resources",
        "resources",
        "admin",
    ]
    .iter()
    .any(|key| yaml.get(key).is_some())
}

/// Collects Wasm filters wherever they are: a bootstrap and a listener's file differ in depth only.
fn wasm_filters<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) if fields.get("@type").is_some_and(|t| t == WASM) => {
            found.push(value);
        }
        Value::Object(fields) => fields.values().for_each(|field| wasm_filters(field, found)),
        Value::Array(items) => items.iter().for_each(|item| wasm_filters(item, found)),
        _ => {}
    }
}

fn configuration_of(filter: &Value) -> Result<String> {
    match filter.pointer("/config/configuration") {
        None => Ok(String::new()),
        Some(configuration) if configuration["@type"] == STRING_VALUE => Ok(configuration["value"]
            .as_str()
            .unwrap_or_default()
            .to_owned()),
        Some(_) => bail!(
            "the filter's configuration is not a StringValue; anything else reaches Embudo as \
             protobuf bytes, so write `\"@type\": {STRING_VALUE}` with `value: |` and JSON below"
        ),
    }
}

#[cfg(test)]
mod tests {
    use embudo::live::paths;

    use super::*;

    fn problems(text: &str) -> String {
        let checked = configurations(text).and_then(|found| check(&found[0]));
        format!("{:#}", checked.expect_err("this must not pass"))
    }

    #[test]
    fn the_shipped_envoy_yaml_is_valid() {
        let text = fs::read_to_string(paths::root().join("envoy.yaml")).unwrap();
        let found = configurations(&text).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].trim(), "{}");
        let summary = check(&found[0]).unwrap();
        assert!(summary.starts_with("routes qr (POST …/qr), status (POST …/whatsapp/status);"));
    }

    #[test]
    fn problems_are_reported_with_their_places() {
        let text = problems(
            r#"{"max_in_flight": "many", "routes": [{"name": "qr", "batch": {"max_items": 0}}]}"#,
        );
        assert!(text.starts_with("2 problems"), "{text}");
        assert!(text.contains("\n  /max_in_flight: "), "{text}");
        assert!(text.contains("\n  /routes/0/batch/max_items: "), "{text}");
        assert!(problems("{").contains("JSON"), "what is no JSON is told so");
    }

    #[test]
    fn an_envoy_configuration_must_hold_embudo_as_a_string_value() {
        assert!(problems("static_resources: {listeners: []}").contains("without Embudo"));
        let filter = format!(
            r#"{{"admin": {{}}, "x": [{{"@type": "{WASM}", "config":
                {{"name": "embudo", "configuration": {{"@type": "…Struct", "value": {{}}}}}}}}]}}"#
        );
        assert!(problems(&filter).contains("not a StringValue"));
    }
}
