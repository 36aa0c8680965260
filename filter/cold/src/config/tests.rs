use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::*;

fn problems(json: &str) -> Vec<String> {
    match Config::parse(json.as_bytes()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn an_empty_object_is_a_whole_configuration() {
    let config = Config::parse(b"{}").expect("the defaults are valid");
    assert_eq!(config.shards, 2048);
    assert_eq!(config.claim_ms(), 31_000, "D = W + T + L");
    let names: Vec<_> = config
        .routes
        .iter()
        .map(|route| route.name.as_str())
        .collect();
    assert_eq!(names, ["qr", "status"]);
    let (_, status) = config.route_named("status").unwrap();
    assert_eq!(status.implied_by, Some(0));
    assert_eq!(status.voids.as_ref().unwrap().routes, [0]);
    assert!(Config::parse(b"").is_ok(), "and so is nothing at all");
}

#[test]
fn an_entry_with_a_built_in_name_changes_only_what_it_gives() {
    let json = br#"{"routes":[{"name":"qr","batch":{"quiet_ms":10}},
        {"name":"mine","path":"/mine","session":["/s"],"value":["/v"],
         "batch":{"path":"/mine/batch","field":"items"}}]}"#;
    let config = Config::parse(json).unwrap();
    let (_, qr) = config.route_named("qr").unwrap();
    assert_eq!((qr.batch.quiet_ms, qr.batch.max_wait_ms), (10, 1000));
    assert_eq!(config.routes.len(), 3);
}

#[test]
fn every_problem_is_reported_at_its_place() {
    assert_eq!(
        problems(
            r#"{"max_in_fligth":2,"call_timeout_ms":"15s","prefixes":["api"],
                "routes":[{"name":"qr","value":["qr"],"batch":{"max_items":0}}]}"#
        ),
        [
            "/call_timeout_ms: expected a whole number from 100 to 300000, found a string",
            "/prefixes/0: a prefix starts with '/' and does not end with one, as in \"/api\"",
            "/max_in_fligth: unknown key; did you mean \"max_in_flight\"?",
            "/routes/0/value/0: a JSON pointer starts with '/', as in \"/session_id\"",
            "/routes/0/batch/max_items: expected a whole number from 1 to 1000, found 0",
        ]
    );
}

#[test]
fn a_rule_has_no_more_pointers_than_a_walk_can_follow() {
    let many = |count: usize| {
        let pointers: Vec<_> = (0..count).map(|n| alloc::format!("\"/{n}\"")).collect();
        let list = pointers.join(",");
        problems(&alloc::format!(
            r#"{{"routes":[{{"name":"qr","session":[{list}],"tenant":[{list}],"value":[{list}],"same":[{list}],"order":[{list}],"volatile":[{list}]}}]}}"#
        ))
    };
    assert_eq!(many(12), [""; 0]);
    let too_many = |name| alloc::format!("/routes/0/{name}: at most 12, found 13");
    let mut found = many(13);
    found.sort();
    assert_eq!(
        found,
        ["order", "same", "session", "tenant", "value", "volatile"].map(too_many)
    );
}

#[test]
fn one_mistake_is_one_problem() {
    assert_eq!(
        problems(r#"{"routes":[{"name":"qr","batch":3}]}"#),
        ["/routes/0/batch: expected an object, found a number"]
    );
    assert_eq!(
        problems("[]"),
        ["the configuration: expected an object, found an array"]
    );
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    assert!(problems("[]")[0].contains("expected an object, found an array"));
    assert!(problems("{")[0].contains("not valid JSON"));
    assert!(problems(r#"{"routes":[{"path":"/x"}]}"#)[0].contains("/routes/0/"));
    let unknown = r#"{"routes":[{"name":"qr","implies":{"route":"nope","value":"x"}}]}"#;
    assert_eq!(
        problems(unknown),
        ["/routes/0/implies/route: no other route is called \"nope\""]
    );
    let steering = r#"{"upstream":{"headers":{"x-envoy-retry-on":"5xx"}}}"#;
    assert!(problems(steering)[0].contains("steer"));
    let twice = r#"{"routes":[{"name":"a","path":"/a","session":["/s"],"value":["/v"],
        "implies":{"route":"status","value":"x"},"batch":{"path":"/b","field":"f"}}]}"#;
    assert!(problems(twice)[0].contains("two routes"));
}
