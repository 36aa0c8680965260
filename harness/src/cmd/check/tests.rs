//! What is found in a configuration, and what is not.

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

/// Where the connection manager of the shipped file is.
const PLACE: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";

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
    type Change = (&'static str, fn(&mut Value), &'static [&'static str]);
    let changes: [Change; 14] = [
        (
            "the stop iteration",
            |y| {
                at(y, &format!("{MANAGER}/http_filters/0/typed_config/config"))["allow_on_headers_stop_iteration"] =
                    Value::Null;
            },
            &[
                "error: ….http_filters[0].typed_config.config.allow_on_headers_stop_iteration: must be true, or requests with a body hang: Embudo would wait for it and never get it",
            ],
        ),
        (
            "the failure policy",
            |y| {
                at(y, &format!("{MANAGER}/http_filters/0/typed_config/config"))["failure_policy"] =
                    "FAIL_OPEN".into();
            },
            &[
                "warning: ….http_filters[0].typed_config.config.failure_policy: should be FAIL_RELOAD, or a worker whose VM has trapped once answers 503 for ever",
            ],
        ),
        (
            "the vm id",
            |y| {
                at(
                    y,
                    &format!("{MANAGER}/http_filters/0/typed_config/config/vm_config"),
                )["vm_id"] = "".into();
            },
            &[
                "warning: ….http_filters[0].typed_config.config.vm_config.vm_id: is missing: what is pending lives under this id, and other plugins without one share it",
            ],
        ),
        (
            "envoy's headers",
            |y| {
                at(y, &format!("{MANAGER}/http_filters/1/typed_config"))["suppress_envoy_headers"] =
                    true.into();
            },
            &[
                "error: ….http_filters[1].typed_config.suppress_envoy_headers: must not be true: x-envoy-upstream-service-time is how Embudo tells Laravel's own answers from Envoy's",
            ],
        ),
        (
            "the routes of a rule",
            |y| {
                at(y, &format!("{MANAGER}/route_config/virtual_hosts/0/routes"))
                    .as_array_mut()
                    .unwrap()
                    .drain(..2);
            },
            &[
                r#"warning: ….route_config: no route enables Embudo for POST /qr or /api/qr: the rule "qr" is never used"#,
            ],
        ),
        (
            "the route of a read",
            |y| {
                at(y, &format!("{MANAGER}/route_config/virtual_hosts/0/routes"))
                    .as_array_mut()
                    .unwrap()
                    .remove(4);
            },
            &[
                r#"warning: ….route_config: no route enables Embudo for GET /whatsapp/status/session or /api/whatsapp/status/session: the rule "read status" is never used"#,
            ],
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
            &[
                r#"warning: ….route_config: no route enables Embudo for GET /whatsapp/status/session or /api/whatsapp/status/session: the rule "read status" is never used"#,
                r#"warning: ….route_config: no route enables Embudo for POST /qr or /api/qr: the rule "qr" is never used"#,
                r#"warning: ….route_config: no route enables Embudo for POST /whatsapp/status or /api/whatsapp/status: the rule "status" is never used"#,
            ],
        ),
        (
            "room for a body",
            |y| {
                at(
                    y,
                    &format!("{MANAGER}/route_config/virtual_hosts/0/routes/0"),
                )["request_body_buffer_limit"] = Value::Null;
            },
            &[
                "warning: ….route_config.virtual_hosts[0].routes[0].request_body_buffer_limit: should be at least 1114112, or a long body that Embudo would let through may be answered 413",
            ],
        ),
        (
            "the batch cluster",
            |y| {
                at(y, "/static_resources/clusters/1")["name"] = "other".into();
            },
            &[
                r#"error: static_resources.clusters: no cluster is called "laravel_batch": nothing would be delivered"#,
            ],
        ),
        (
            "the panic threshold",
            |y| {
                at(y, "/static_resources/clusters/1")["common_lb_config"] = Value::Null;
            },
            &[
                "warning: static_resources.clusters[1].common_lb_config.healthy_panic_threshold: must be {value: 0}, or a single host is used although it is ejected",
            ],
        ),
        (
            "the outlier detection",
            |y| {
                at(y, "/static_resources/clusters/1")
                    .as_object_mut()
                    .unwrap()
                    .remove("outlier_detection");
            },
            &[
                "warning: static_resources.clusters[1].outlier_detection: is missing: it is Embudo's circuit breaker",
            ],
        ),
        (
            "the ejection",
            |y| {
                let o = at(y, "/static_resources/clusters/1/outlier_detection");
                o["max_ejection_percent"] = 10.into();
                o["always_eject_one_host"] = false.into();
            },
            &[
                "warning: static_resources.clusters[1].outlier_detection.max_ejection_percent: must be 100, or always_eject_one_host true: a single host is never ejected otherwise",
            ],
        ),
        (
            "an ejection of the routes",
            |y| {
                at(y, "/static_resources/clusters/0")["outlier_detection"] = serde_json::json!({});
            },
            &[
                r#"warning: static_resources.clusters[0].outlier_detection: "laravel" carries untouched requests: with outlier detection, three failures of one route refuse all of them"#,
            ],
        ),
        (
            "the labels",
            |y| {
                at(y, "/stats_config/stats_tags")
                    .as_array_mut()
                    .unwrap()
                    .remove(0);
            },
            &[
                "warning: stats_config.stats_tags: no tags for route: Prometheus would show each label as a part of a name",
            ],
        ),
    ];
    for (what, change, expected) in changes {
        let found = findings(change, "{}");
        let mut found: Vec<String> = found.iter().map(|line| line.replace(PLACE, "…")).collect();
        found.sort();
        assert_eq!(found, expected, "without {what}");
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
