//! `embudo check`: the filter's own judgement of its configuration, before Envoy hears of it, and a look at
//! the Envoy round it.

mod clusters;
mod effective;
mod finding;
mod inspect;
mod listeners;
mod routes;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use embudo_core::config::Config;
use serde_json::Value;

use self::finding::{Finding, Severity};
use super::STRING_VALUE;

/// The type of Envoy's Wasm filter.
const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// Kept equal to what the core accepts by a test.
pub(crate) const SCHEMA: &str = include_str!("../../../filter/cold/src/config/schema.json");

/// Check a filter configuration, as Embudo itself would when Envoy starts
///
/// Every problem is reported with the place where it is. `envoy --mode validate` runs the same check of
/// Embudo's part, but needs Envoy and the module. Of an envoy.yaml, what Embudo needs from Envoy is looked
/// at too. Exits with 1 if there is an error, with `--strict` also if there is a warning.
#[derive(Args, Debug)]
pub(crate) struct CheckArguments {
    /// The configuration: JSON, or a whole envoy.yaml, from which Embudo's part is taken
    #[arg(required_unless_present = "schema")]
    file: Option<PathBuf>,

    /// Print the JSON Schema of the configuration
    #[arg(long, conflicts_with = "file")]
    schema: bool,

    /// Print the configuration with all its defaults, as JSON
    #[arg(long)]
    effective: bool,

    /// What Envoy is started with, `--drain-time-s`: whether it is long enough for a request is checked too
    #[arg(long, value_name = "SECONDS", conflicts_with = "schema")]
    drain_time_s: Option<u64>,

    /// Let a warning count as an error
    #[arg(long)]
    strict: bool,
}

pub(crate) fn run(arguments: &CheckArguments) -> Result<()> {
    let Some(path) = &arguments.file else {
        print!("{SCHEMA}");
        return Ok(());
    };
    let file = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
    let yaml = serde_yaml_ng::from_str::<Value>(&text).unwrap_or_default();
    let found = configurations(&text).with_context(|| format!("{file}"))?;
    let chains = listeners::chains(&yaml);
    let mut findings = Vec::new();
    for (index, configuration) in found.iter().enumerate() {
        let config = parse(configuration).with_context(|| format!("{file}"))?;
        if arguments.effective {
            println!("{:#}", effective::json(&config));
        } else {
            println!("{file}: valid: {}", summary(&config));
        }
        findings.extend(inspect::config(&config));
        let drain = arguments.drain_time_s;
        findings.extend(drain.and_then(|seconds| inspect::drain_time(seconds, &config)));
        if let Some(chain) = chains.get(index) {
            findings.extend(inspect::envoy(&yaml, chain, &config));
        }
    }
    findings.sort();
    findings.dedup();
    report(&findings, arguments.strict)
}

/// Prints what was found, and says whether it is too bad.
fn report(findings: &[Finding], strict: bool) -> Result<()> {
    for finding in findings {
        eprintln!("{finding}");
    }
    let errors = findings
        .iter()
        .filter(|finding| strict || finding.severity == Severity::Error)
        .count();
    match errors {
        0 => Ok(()),
        1 => bail!("1 finding that must be mended"),
        n => bail!("{n} findings that must be mended"),
    }
}

/// Validates one configuration.
fn parse(configuration: &str) -> Result<Config> {
    Config::parse(configuration.as_bytes()).map_err(|problems| {
        let lines: Vec<_> = problems
            .iter()
            .map(|problem| format!("\n  {problem}"))
            .collect();
        let s = if problems.len() == 1 { "" } else { "s" };
        anyhow::anyhow!("{} problem{s}{}", problems.len(), lines.concat())
    })
}

/// What a configuration comes to.
fn summary(config: &Config) -> String {
    let routes = config
        .routes
        .iter()
        .map(|route| format!("{} ({} …{})", route.name, route.method, route.path));
    let reads = config
        .reads
        .iter()
        .map(|read| format!("{} (GET …{})", read.name, read.path));
    let list = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>().join(", ");
    let pace = &config.pace;
    format!(
        "routes {}; reads {}; at most {} calls a second, {} at once",
        list(&mut routes.into_iter()),
        list(&mut reads.into_iter()),
        pace.max_requests_per_second,
        pace.max_in_flight
    )
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
mod tests;
