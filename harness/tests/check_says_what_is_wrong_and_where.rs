//! `embudo check` as an operator or a deployment script meets it: the exit code, and what is printed
//! where.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use embudo::live::{Bootstrap, paths};
use serde_json::{Value, json};

/// Exit code, standard output, standard error.
type Outcome = (Option<i32>, String, String);

fn run(arguments: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_embudo"))
        .args(arguments)
        .output();
    let output = output.expect("cargo has built the command");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn check(content: &[u8]) -> Outcome {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("config");
    fs::write(&file, content).expect("a file");
    run(&["check", path(&file)])
}

fn path(file: &Path) -> &str {
    file.to_str().expect("a path in UTF-8")
}

fn shipped() -> PathBuf {
    paths::root().join("envoy.yaml")
}

/// The shipped configuration with this one for the filter.
fn envoy_yaml(config: &Value) -> String {
    let mut bootstrap = Bootstrap::read(&shipped()).expect("the shipped file");
    bootstrap
        .filter_config(config)
        .expect("a place for the configuration");
    bootstrap.to_json()
}

#[test]
fn what_is_valid_is_summed_up_and_exits_with_0() {
    let tuned = json!({"max_requests_per_second": 7, "max_in_flight": 2}).to_string();
    for (content, pace) in [
        ("{}".to_owned(), "at most 20 calls a second, 4 at once"),
        (String::new(), "at most 20 calls a second, 4 at once"),
        (tuned, "at most 7 calls a second, 2 at once"),
        (
            envoy_yaml(&json!({"max_in_flight": 3})),
            "at most 20 calls a second, 3 at once",
        ),
    ] {
        let (code, out, err) = check(content.as_bytes());
        assert_eq!((code, err.as_str()), (Some(0), ""), "{content} is valid");
        assert!(
            out.contains("valid: routes qr (POST …/qr), status (POST …/whatsapp/status);"),
            "the routes are shown: {out}"
        );
        assert!(out.contains(pace), "and the pace: {out}");
    }
}

#[test]
fn the_shipped_envoy_yaml_is_valid() {
    let (code, out, err) = run(&["check", path(&shipped())]);
    assert_eq!(
        (code, err.as_str()),
        (Some(0), ""),
        "what is shipped is valid"
    );
    assert!(
        out.starts_with(&format!("{}: valid: ", path(&shipped()))),
        "it is named: {out}"
    );
}

#[test]
fn every_problem_is_reported_with_its_place_and_what_would_be_right() {
    let wrong = json!({
        "max_in_flight": "many",
        "max_request_per_second": 10,
        "routes": [{"name": "qr", "batch": {"max_items": 0}}],
    });
    for content in [wrong.to_string(), envoy_yaml(&wrong)] {
        let (code, out, err) = check(content.as_bytes());
        assert_eq!((code, out.as_str()), (Some(1), ""), "it is not valid");
        assert!(err.starts_with("error: "), "{err}");
        for line in [
            "3 problems",
            "\n  /max_in_flight: expected a whole number from 1 to 12, found a string",
            "\n  /max_request_per_second: unknown key; did you mean \"max_requests_per_second\"?",
            "\n  /routes/0/batch/max_items: expected a whole number from 1 to 1000, found 0",
        ] {
            assert!(
                err.contains(line),
                "all of them at once, and {line:?} among them: {err}"
            );
        }
    }
}

#[test]
fn what_cannot_be_a_configuration_exits_with_1_and_says_why() {
    let mut as_struct: Value = serde_json::from_str(&envoy_yaml(&json!({}))).expect("JSON");
    let filter =
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0";
    let configuration = format!("{filter}/typed_config/config/configuration");
    as_struct
        .pointer_mut(&configuration)
        .expect("the configuration")["@type"] = json!("type.googleapis.com/google.protobuf.Struct");
    let as_struct = as_struct.to_string();
    for (content, why) in [
        (&b"{"[..], "not valid JSON"),
        (b"max_in_flight: 4", "not valid JSON"),
        (b"[]", "the configuration: "),
        (b"\xff\xfe", "valid UTF-8"),
        (
            b"static_resources: {listeners: []}",
            "an Envoy configuration without Embudo",
        ),
        (as_struct.as_bytes(), "not a StringValue"),
    ] {
        let (code, out, err) = check(content);
        assert_eq!(
            (code, out.as_str()),
            (Some(1), ""),
            "{} is refused",
            content.escape_ascii()
        );
        assert!(err.contains(why), "the message must say {why:?}: {err}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let (code, out, err) = run(&["check", "/nowhere/envoy.yaml"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.contains("cannot read /nowhere/envoy.yaml: No such file"),
        "{err}"
    );
}

#[test]
fn without_a_file_the_usage_is_shown_and_the_exit_code_is_2() {
    let (code, out, err) = run(&["check"]);
    assert_eq!(
        (code, out.as_str()),
        (Some(2), ""),
        "as for every wrong command line"
    );
    assert!(err.contains("Usage: embudo check <FILE>"), "{err}");
}
