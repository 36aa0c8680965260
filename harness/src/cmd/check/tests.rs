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

fn shipped_yaml() -> Value {
    let text = fs::read_to_string(paths::root().join("envoy.yaml")).unwrap();
    serde_yaml_ng::from_str(&text).unwrap()
}

/// The shipped file after this change, and with this configuration of Embudo's.
fn findings(change: impl FnOnce(&mut Value), config: &str) -> Vec<String> {
    let mut yaml = shipped_yaml();
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
                    .remove(5);
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

/// Where the first route is, which Embudo is on.
const ROUTE: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0";

fn add_header(value: &str) -> Value {
    serde_json::json!([{"header": {"key": "X-Webhook-Secret", "value": value}}])
}

/// A finding's first words, where there is one and no other.
type Found = &'static str;

#[test]
fn what_envoy_does_on_a_route_and_not_to_a_call_is_an_error_that_names_the_key() {
    type Change = (fn(&mut Value), &'static str, Option<Found>);
    let routes = "error: ….route_config.virtual_hosts[0].routes[0]";
    let changes: [Change; 20] = [
        (
            |y| at(y, ROUTE)["request_headers_to_add"] = add_header("s3cret"),
            "{}",
            Some(
                r#".request_headers_to_add[0]: x-webhook-secret is not added to Embudo's own calls; say it there too: "upstream": {"headers": {"x-webhook-secret": "s3cret"}}"#,
            ),
        ),
        (
            |y| at(y, ROUTE)["request_headers_to_add"] = add_header("s3cret"),
            r#"{"upstream": {"headers": {"x-webhook-secret": "s3cret"}}}"#,
            None,
        ),
        (
            |y| at(y, ROUTE)["request_headers_to_add"] = add_header("s3cret"),
            r#"{"upstream": {"headers": {"x-webhook-secret": "another"}}}"#,
            Some(".request_headers_to_add[0]: x-webhook-secret is not added"),
        ),
        (
            |y| at(y, ROUTE)["request_headers_to_add"] = add_header("%REQ(:path)%"),
            "{}",
            Some(
                ".request_headers_to_add[0]: x-webhook-secret is not added to Embudo's own calls; no key of `upstream` makes a value anew for each call",
            ),
        ),
        (
            |y| at(y, ROUTE)["request_headers_to_remove"] = serde_json::json!(["Authorization"]),
            "{}",
            Some(
                ".request_headers_to_remove[0]: authorization is not taken off Embudo's own calls",
            ),
        ),
        (
            // No call carries it.
            |y| {
                at(y, ROUTE)["request_headers_to_remove"] =
                    serde_json::json!(["user-agent", "x-mine"])
            },
            r#"{"headers": {"neutral": ["x-mine"]}}"#,
            None,
        ),
        (
            |y| at(y, ROUTE)["route"]["host_rewrite_literal"] = "app.test".into(),
            "{}",
            Some(
                r#".route.host_rewrite_literal: Embudo's own calls keep the caller's host; say it there too: "upstream": {"authority": "app.test"}"#,
            ),
        ),
        (
            |y| at(y, ROUTE)["route"]["host_rewrite_literal"] = "app.test".into(),
            r#"{"upstream": {"authority": "app.test"}}"#,
            None,
        ),
        (
            |y| at(y, ROUTE)["route"]["host_rewrite_literal"] = "app.test".into(),
            r#"{"upstream": {"authority": "other.test"}}"#,
            Some(".route.host_rewrite_literal: Embudo's own calls keep"),
        ),
        (
            |y| at(y, ROUTE)["route"]["auto_host_rewrite"] = true.into(),
            "{}",
            Some(".route.auto_host_rewrite: Embudo's own calls keep the caller's host"),
        ),
        (
            |y| at(y, ROUTE)["route"]["auto_host_rewrite"] = false.into(),
            "{}",
            None,
        ),
        (
            |y| at(y, ROUTE)["route"]["host_rewrite_header"] = "x-host".into(),
            "{}",
            Some(".route.host_rewrite_header: Embudo's own calls keep the caller's host"),
        ),
        (
            |y| at(y, ROUTE)["route"]["prefix_rewrite"] = "/v2/qr".into(),
            "{}",
            Some(
                ".route.prefix_rewrite: Embudo's own calls keep the caller's path; say it there too, in upstream.prefix_rewrite",
            ),
        ),
        (
            |y| at(y, ROUTE)["route"]["prefix_rewrite"] = "/v2/qr".into(),
            r#"{"upstream": {"prefix_rewrite": "/v2"}}"#,
            None,
        ),
        (
            |y| at(y, ROUTE)["route"]["prefix_rewrite"] = "/v2/qr".into(),
            r#"{"upstream": {"prefix_rewrite": "/v3"}}"#,
            Some(".route.prefix_rewrite: Embudo's own calls keep the caller's path"),
        ),
        (
            |y| at(y, ROUTE)["route"]["regex_rewrite"] = serde_json::json!({"substitution": "/x"}),
            r#"{"upstream": {"prefix_rewrite": "/x"}}"#,
            Some(
                ".route.regex_rewrite: Embudo's own calls keep the caller's path, and no key of `upstream` does this",
            ),
        ),
        (
            |y| at(y, ROUTE)["route"]["path_rewrite"] = "/x".into(),
            "{}",
            Some(".route.path_rewrite: Embudo's own calls keep the caller's path, and no key"),
        ),
        (
            |y| at(y, ROUTE)["route"]["path_rewrite_policy"] = serde_json::json!({"name": "x"}),
            "{}",
            Some(
                ".route.path_rewrite_policy: Embudo's own calls keep the caller's path, and no key",
            ),
        ),
        (
            // Embudo is not on this one.
            |y| {
                at(y, &ROUTE.replace("routes/0", "routes/6"))["request_headers_to_add"] =
                    add_header("s")
            },
            "{}",
            None,
        ),
        (|_| {}, r#"{"upstream": {"authority": "app.test"}}"#, None),
    ];
    for (change, config, expected) in changes {
        let found = findings(change, config);
        let expected = expected.map(|found| format!("{routes}{found}"));
        expect_only(&found, expected.as_slice());
    }
}

/// Holds findings against the beginning of each that is expected.
fn expect_only(found: &[String], expected: &[String]) {
    let found: Vec<String> = found.iter().map(|line| line.replace(PLACE, "…")).collect();
    let fits = found.len() == expected.len()
        && (found.iter().zip(expected)).all(|(line, begin)| line.starts_with(begin.as_str()));
    assert!(fits, "{found:#?} instead of {expected:#?}");
}

#[test]
fn what_a_virtual_host_or_the_route_configuration_adds_is_found_there_once() {
    for (at_level, place) in [
        ("route_config", "route_config"),
        (
            "route_config/virtual_hosts/0",
            "route_config.virtual_hosts[0]",
        ),
    ] {
        let pointer = format!("{MANAGER}/{at_level}");
        let mut found = findings(
            |y| at(y, &pointer)["request_headers_to_add"] = add_header("s"),
            "{}",
        );
        found.dedup();
        expect_only(
            &found,
            &[format!(
                "error: ….{place}.request_headers_to_add[0]: x-webhook-secret"
            )],
        );
        let retries = serde_json::json!({"retry_on": "5xx"});
        let mut found = findings(|y| at(y, &pointer)["retry_policy"] = retries, "{}");
        found.dedup();
        expect_only(
            &found,
            &[format!(
                "warning: ….{place}.retry_policy: hides the first try"
            )],
        );
    }
}

#[test]
fn retries_times_and_filters_that_embudo_does_not_get_on_with_are_warned_of() {
    type Change = (fn(&mut Value), &'static str);
    let options = "/static_resources/clusters/1/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    assert!(at(&mut shipped_yaml(), options).is_object());
    let changes: [Change; 16] = [
        (
            |y| at(y, ROUTE)["route"]["retry_policy"] = serde_json::json!({"retry_on": "reset"}),
            "….route_config.virtual_hosts[0].routes[0].route.retry_policy: hides the first try, which Laravel may have taken",
        ),
        (
            |y| {
                at(
                    y,
                    "/static_resources/clusters/1/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                )["retry_policy"] = serde_json::json!({"retry_on": "5xx"});
            },
            "static_resources.clusters[1].retry_policy: hides the first try",
        ),
        (
            |y| {
                at(y, ROUTE)["route"]["timeout"] = "60s".into();
                at(y, ROUTE)["route"]["idle_timeout"] = "61s".into();
            },
            "….route_config.virtual_hosts[0].routes[0].route.timeout: should not be more than call_timeout_ms (15000)",
        ),
        (
            |y| at(y, ROUTE)["route"]["idle_timeout"] = Value::Null,
            "….route_config.virtual_hosts[0].routes[0].route.idle_timeout: is missing: nothing else answers the callers",
        ),
        (
            |y| at(y, ROUTE)["route"]["idle_timeout"] = "5s".into(),
            "….route_config.virtual_hosts[0].routes[0].route.idle_timeout: must be more than `timeout` (15000 ms)",
        ),
        (
            |y| {
                at(y, ROUTE)["route"]["max_stream_duration"] =
                    serde_json::json!({"max_stream_duration": "10s"})
            },
            "….route_config.virtual_hosts[0].routes[0].route.max_stream_duration.max_stream_duration: must be more than 19000 ms",
        ),
        (
            |y| {
                at(y, MANAGER)["common_http_protocol_options"]["max_stream_duration"] = "19s".into()
            },
            "….common_http_protocol_options.max_stream_duration: must be more than 19000 ms: a request that Embudo holds",
        ),
        (
            |y| {
                at(
                    y,
                    "/static_resources/clusters/1/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/common_http_protocol_options",
                )["max_stream_duration"] = "15s".into();
            },
            "static_resources.clusters[1].common_http_protocol_options.max_stream_duration: must be more than 15000 ms: a call that it ends, with 408",
        ),
        (
            |y| {
                let rbac =
                    serde_json::json!({"name": "envoy.filters.http.rbac", "typed_config": {}});
                at(y, &format!("{MANAGER}/http_filters"))
                    .as_array_mut()
                    .unwrap()
                    .insert(1, rbac);
            },
            "….http_filters[1]: envoy.filters.http.rbac is behind Embudo: it does nothing to what Embudo answers",
        ),
        (
            |y| {
                at(y, "/static_resources/clusters/1/outlier_detection")["enforcing_consecutive_5xx"] =
                    Value::Null
            },
            "static_resources.clusters[1].outlier_detection.enforcing_consecutive_5xx: must be 0: a 500 is Laravel's word about a row",
        ),
        (
            |y| {
                at(y, "/static_resources/clusters/1/outlier_detection")["enforcing_consecutive_gateway_failure"] =
                    Value::Null
            },
            "static_resources.clusters[1].outlier_detection.enforcing_consecutive_gateway_failure: must be 100",
        ),
        (
            |y| {
                at(y, "/static_resources/clusters/1/outlier_detection")["max_ejection_time"] =
                    "30s".into()
            },
            "static_resources.clusters[1].outlier_detection.max_ejection_time: should be base_ejection_time",
        ),
        (
            |y| at(y, "/static_resources/clusters/0")["wait_for_warm_on_init"] = Value::Null,
            r#"static_resources.clusters[0].wait_for_warm_on_init: should be false for "laravel""#,
        ),
        (
            |y| at(y, "/static_resources/clusters/1")["wait_for_warm_on_init"] = true.into(),
            r#"static_resources.clusters[1].wait_for_warm_on_init: should be false for "laravel_batch""#,
        ),
        (
            // A filter before Embudo is where it belongs.
            |y| {
                let filters = at(y, &format!("{MANAGER}/http_filters"))
                    .as_array_mut()
                    .unwrap();
                filters.insert(0, serde_json::json!({"name": "envoy.filters.http.rbac"}));
            },
            "",
        ),
        (
            // One that is off everywhere is none.
            |y| {
                let off = serde_json::json!({"name": "envoy.filters.http.rbac", "disabled": true});
                at(y, &format!("{MANAGER}/http_filters"))
                    .as_array_mut()
                    .unwrap()
                    .insert(1, off);
            },
            "",
        ),
    ];
    for (change, expected) in changes {
        let expected = match expected {
            "" => Vec::new(),
            expected => vec![format!("warning: {expected}")],
        };
        expect_only(&findings(change, "{}"), &expected);
    }
}

#[test]
fn a_route_to_another_laravel_than_the_calls_go_to_is_an_error() {
    let port = "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
    let mut found = findings(|y| at(y, port)["port_value"] = 8001.into(), "{}");
    assert_eq!(found.len(), 6, "each of the six routes: {found:#?}");
    found.truncate(1);
    expect_only(
        &found,
        &[
            r#"error: ….route_config.virtual_hosts[0].routes[0].route.cluster: "laravel" is 127.0.0.1:8001, and "laravel_batch", where Embudo's own calls go, is 127.0.0.1:8000"#
                .to_owned(),
        ],
    );
}

#[test]
fn a_short_drain_and_rotating_headers_are_warned_of() {
    let config = |text: &str| parse(text).unwrap();
    let drain = |seconds, text: &str| inspect::drain_time(seconds, &config(text));
    assert_eq!(drain(20, "{}"), None);
    let text = drain(15, "{}").expect("it cuts a request").to_string();
    assert!(text.starts_with("warning: --drain-time-s: must be more than call_timeout_ms (15000)"));
    assert_eq!(drain(10, r#"{"call_timeout_ms": 5000}"#), None);
    let rotating = inspect::config(&config(r#"{"headers": {"rotating": ["authorization"]}}"#));
    assert_eq!(rotating.len(), 1);
    assert!(
        rotating[0]
            .to_string()
            .starts_with("warning: headers.rotating: tells no callers apart")
    );
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
fn the_effective_configuration_has_every_option() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let config = parse(r#"{"fallback": {"after_attempts": 3}}"#).unwrap();
    let effective = effective::json(&config);
    // What these say is in the rules.
    let elsewhere = ["preset", "webhook_path", "batch_webhooks"];
    let lacks = |options: &Value, given: &Value| -> Vec<String> {
        let names = options.as_object().unwrap().keys();
        names
            .filter(|name| !elsewhere.contains(&&***name) && given.get(name).is_none())
            .cloned()
            .collect()
    };
    let options = &schema["properties"];
    assert_eq!(lacks(options, &effective), [""; 0]);
    for part in ["assume", "upstream"] {
        let options = &options[part]["properties"];
        assert_eq!(lacks(options, &effective[part]), [""; 0], "{part}");
    }
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
