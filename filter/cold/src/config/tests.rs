use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::*;
use crate::json::PATHS_MAX;

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
        let list = |name: char| -> String {
            let pointers: Vec<_> = (0..count).map(|n| format!("\"/{name}{n}\"")).collect();
            pointers.join(",")
        };
        let [s, t, v, o, w] = ['s', 't', 'v', 'o', 'w'].map(list);
        format!(
            r#"{{"routes":[{{"name":"qr","session":[{s}],"tenant":[{t}],"value":[{v}],"order":[{o}],"volatile":[{w}]}}]}}"#
        )
    };
    let config = Config::parse(many(10).as_bytes()).expect("each list is as long as it may be");
    let (_, rule) = config.route_named("qr").unwrap();
    let wanted = rule.session_pointers().count() + rule.value.len() + rule.order.len();
    let walked = wanted + rule.digested.len() + rule.unsaid.len();
    assert!(walked <= PATHS_MAX, "a walk follows {walked}");

    let too_many = |name| format!("/routes/0/{name}: at most 10, found 11");
    let mut found = problems(&many(11));
    found.sort();
    assert_eq!(
        found,
        ["order", "session", "tenant", "value", "volatile"].map(too_many)
    );
}

#[test]
fn what_is_compared_is_no_list_any_more() {
    let json = |same: &str| format!(r#"{{"routes":[{{"name":"qr","same":{same}}}]}}"#);
    let told = "/routes/0/same: is no key any more: all of a body is compared but what \"volatile\" and \"order\" name";
    assert_eq!(problems(&json(r#"["/numero"]"#)), [told]);
    assert_eq!(problems(&json("[]")), [told], "not even an empty one");
}

#[test]
fn names_that_records_hold_and_headers_of_each_call_are_bounded() {
    let named = |length: usize| {
        let name = |first: &str| format!("{first}{}", "x".repeat(length - first.len()));
        let (rule, split, read) = (name("rule"), name("split"), name("read"));
        format!(
            r#"{{"routes":[{{"name":"{rule}","path":"/mine","session":["/s"],"value":["/v"]}},
                {{"name":"{split}","path":"/all","split":{{"at":"/all","as":"{rule}"}}}}],
                "reads":[{{"name":"{read}","path":"/mine/{{session}}","state":"{rule}","value":["/v"]}}]}}"#
        )
    };
    assert_eq!(problems(&named(64)), [""; 0]);
    let mut found = problems(&named(65));
    found.sort();
    let places = ["/reads/0/name", "/routes/0/name", "/routes/1/name"];
    let told = places.map(|place| format!("{place}: a name has at most 64 bytes, found 65"));
    assert_eq!(found, told);

    let added = |key: &str, length: usize| {
        let value = "v".repeat(length - "x-name".len());
        problems(&format!(
            r#"{{"{key}":{{"headers":{{"x-name":"{value}"}}}}}}"#
        ))
    };
    for key in ["upstream", "fallback"] {
        assert_eq!(added(key, 4096), [""; 0]);
        let told = "headers: x-name and its value have at most 4096 bytes, found 4097";
        assert_eq!(added(key, 4097), [format!("/{key}/{told}")]);
    }
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
