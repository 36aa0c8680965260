//! `embudo check`: the filter's own judgement of its configuration, before Envoy hears of it, and a look at
//! the Envoy round it.

mod clusters;
mod effective;
mod finding;
mod inspect;
mod listeners;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use embudo_core::config::Config;
use serde_json::Value;

use self::finding::{Finding, Severity};

/// The type of Envoy's Wasm filter.
const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

const STRING_VALUE: &str = "type.googleapis.com/google.protobuf.StringValue";

/// Kept equal to what the core accepts by a test.
pub(crate) const SCHEMA: &str = include_str!("../../../filter/core/src/config/schema.json");

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
mod tests {
    use embudo::live::paths;

    use super::*;

    fn problems(text: &str) -> String {
        let checked = configurations(text).and_then(|found| parse(&found[0]));
        format!("{:#}", checked.expect_err("this must not pass"))
    }

    #[test]
    fn the_shipped_envoy_yaml_is_valid() {
        let text = fs::read_to_string(paths::root().join("envoy.yaml")).unwrap();
        let found = configurations(&text).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].trim(), "{}");
        let summary = summary(&parse(&found[0]).unwrap());
        assert!(summary.starts_with(
            "routes qr (POST …/qr), status (POST …/whatsapp/status); reads status (GET …/whatsapp/status/{session});"
        ));
    }

    /// The shipped file after this change, and with this configuration of Embudo's.
    fn findings(change: impl FnOnce(&mut Value), config: &str) -> Vec<String> {
        let text = fs::read_to_string(paths::root().join("envoy.yaml")).unwrap();
        let mut yaml: Value = serde_yaml_ng::from_str(&text).unwrap();
        change(&mut yaml);
        let config = parse(config).unwrap();
        let chains = listeners::chains(&yaml);
        assert_eq!(chains.len(), 1);
        let mut findings = inspect::config(&config);
        findings.extend(inspect::envoy(&yaml, &chains[0], &config));
        findings.iter().map(ToString::to_string).collect()
    }

    fn at<'v>(yaml: &'v mut Value, pointer: &str) -> &'v mut Value {
        yaml.pointer_mut(pointer).expect(pointer)
    }

    const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

    #[test]
    fn the_shipped_file_and_every_preset_come_out_clean() {
        assert_eq!(findings(|_| {}, "{}"), Vec::<String>::new());
        for preset in fs::read_dir(paths::root().join("deploy/presets")).unwrap() {
            let file = preset.unwrap().path();
            let name = file.file_stem().unwrap().to_str().unwrap();
            let mut bootstrap = embudo::live::Bootstrap::shipped().unwrap();
            bootstrap.preset(name, &serde_json::json!({})).unwrap();
            let yaml: Value = serde_json::from_str(&bootstrap.to_json()).unwrap();
            let chains = listeners::chains(&yaml);
            let config =
                parse(&configuration_of(&chains[0].filter()["typed_config"]).unwrap()).unwrap();
            assert_eq!(
                inspect::envoy(&yaml, &chains[0], &config),
                Vec::new(),
                "{name}"
            );
        }
    }

    #[test]
    fn each_thing_that_embudo_needs_of_envoy_is_missed_where_it_should_be() {
        type Change = (&'static str, fn(&mut Value), &'static str);
        let changes: [Change; 14] = [
            (
                "the stop iteration",
                |y| {
                    at(y, &format!("{MANAGER}/http_filters/0/typed_config/config"))["allow_on_headers_stop_iteration"] =
                        Value::Null;
                },
                "error: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.config.allow_on_headers_stop_iteration: must be true",
            ),
            (
                "the failure policy",
                |y| {
                    at(y, &format!("{MANAGER}/http_filters/0/typed_config/config"))["failure_policy"] =
                        "FAIL_OPEN".into();
                },
                "config.failure_policy: should be FAIL_RELOAD",
            ),
            (
                "the vm id",
                |y| {
                    at(
                        y,
                        &format!("{MANAGER}/http_filters/0/typed_config/config/vm_config"),
                    )["vm_id"] = "".into();
                },
                "config.vm_config.vm_id: is missing",
            ),
            (
                "envoy's headers",
                |y| {
                    at(y, &format!("{MANAGER}/http_filters/1/typed_config"))["suppress_envoy_headers"] =
                        true.into();
                },
                "error: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[1].typed_config.suppress_envoy_headers",
            ),
            (
                "the routes of a rule",
                |y| {
                    at(y, &format!("{MANAGER}/route_config/virtual_hosts/0/routes"))
                        .as_array_mut()
                        .unwrap()
                        .drain(..2);
                },
                "no route enables Embudo for POST /qr or /api/qr: the rule \"qr\" is never used",
            ),
            (
                "the route of a read",
                |y| {
                    at(y, &format!("{MANAGER}/route_config/virtual_hosts/0/routes"))
                        .as_array_mut()
                        .unwrap()
                        .remove(4);
                },
                "no route enables Embudo for GET /whatsapp/status/session",
            ),
            (
                "a route before it",
                |y| {
                    let routes = at(y, &format!("{MANAGER}/route_config/virtual_hosts/0/routes"))
                        .as_array_mut()
                        .unwrap();
                    let last = routes.pop().unwrap();
                    routes.insert(0, last);
                },
                "the rule \"status\" is never used",
            ),
            (
                "room for a body",
                |y| {
                    at(
                        y,
                        &format!("{MANAGER}/route_config/virtual_hosts/0/routes/0"),
                    )["request_body_buffer_limit"] = Value::Null;
                },
                "routes[0].request_body_buffer_limit: should be at least",
            ),
            (
                "the batch cluster",
                |y| {
                    at(y, "/static_resources/clusters/1")["name"] = "other".into();
                },
                "error: static_resources.clusters: no cluster is called \"laravel_batch\"",
            ),
            (
                "the panic threshold",
                |y| {
                    at(y, "/static_resources/clusters/1")["common_lb_config"] = Value::Null;
                },
                "static_resources.clusters[1].common_lb_config.healthy_panic_threshold: must be {value: 0}",
            ),
            (
                "the outlier detection",
                |y| {
                    at(y, "/static_resources/clusters/1")
                        .as_object_mut()
                        .unwrap()
                        .remove("outlier_detection");
                },
                "clusters[1].outlier_detection: is missing",
            ),
            (
                "the ejection",
                |y| {
                    let o = at(y, "/static_resources/clusters/1/outlier_detection");
                    o["max_ejection_percent"] = 10.into();
                    o["always_eject_one_host"] = false.into();
                },
                "max_ejection_percent: must be 100",
            ),
            (
                "an ejection of the routes",
                |y| {
                    at(y, "/static_resources/clusters/0")["outlier_detection"] =
                        serde_json::json!({});
                },
                "warning: static_resources.clusters[0].outlier_detection: \"laravel\" carries untouched requests",
            ),
            (
                "the labels",
                |y| {
                    at(y, "/stats_config/stats_tags")
                        .as_array_mut()
                        .unwrap()
                        .remove(0);
                },
                "warning: stats_config.stats_tags: no tags for route",
            ),
        ];
        for (what, change, expected) in changes {
            let found = findings(change, "{}");
            assert!(
                found.iter().any(|line| line.contains(expected)),
                "without {what}: {found:#?}"
            );
            assert!(
                found.len() <= 3,
                "and nothing that has nothing to do with it: {found:#?}"
            );
        }
    }

    #[test]
    fn dangerous_combinations_are_named() {
        let one = findings(|_| {}, r#"{"upstream": {"cluster": "laravel"}}"#);
        assert!(
            one.iter()
                .any(|line| line.contains("is a route's cluster too")),
            "{one:#?}"
        );
        let many = findings(
            |yaml| {
                at(
                    yaml,
                    "/static_resources/clusters/1/circuit_breakers/thresholds/0",
                )["max_requests"] = 12.into()
            },
            r#"{"max_in_flight": 12}"#,
        );
        assert_eq!(many.len(), 1, "{many:#?}");
        assert!(many[0].contains("thresholds[0].max_requests: 12 is not more than the 12 calls"));
        let nowhere = findings(|_| {}, r#"{"fallback": {"cluster": "hooks"}}"#);
        assert!(
            nowhere[0].contains("error: static_resources.clusters: no cluster is called \"hooks\""),
            "{nowhere:#?}"
        );
        let shared = findings(|_| {}, r#"{"fallback": {"cluster": "laravel_batch"}}"#);
        assert!(shared[0].contains("there is no fallback"), "{shared:#?}");
        assert_eq!(
            findings(|_| {}, r#"{"fallback": {}}"#),
            Vec::<String>::new()
        );
        let large = findings(
            |_| {},
            r#"{"routes": [{"name": "qr", "batch": {"max_bytes": 2000000}}]}"#,
        );
        assert!(
            large[0].contains("routes.qr.batch.max_bytes: 2000000 is more than nginx takes"),
            "{large:#?}"
        );
        assert!(report(&[], true).is_ok());
        let warning = [Finding::warning("", "x")];
        assert!(report(&warning, false).is_ok() && report(&warning, true).is_err());
    }

    #[test]
    fn the_effective_configuration_is_a_configuration_and_hides_secrets() {
        let config =
            parse(r#"{"preset": "waha", "upstream": {"headers": {"x-key": "hidden"}}}"#).unwrap();
        let json = effective::json(&config);
        assert!(!json.to_string().contains("hidden"));
        assert_eq!(json["routes"][0]["session"][0], "/session");
        assert_eq!(json["max_in_flight"], 4);
        let default = effective::json(&parse("{}").unwrap());
        assert_eq!(default["reads"][0]["path"], "/whatsapp/status/{session}");
        assert_eq!(default["routes"][0]["implies"]["route"], "status");
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
