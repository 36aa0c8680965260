//! A mistake in the configuration is found before any traffic, by Envoy's own check, and the message
//! says where it is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use embudo::live::{Bootstrap, Envoy, EnvoyOptions, paths};
use serde_json::{Value, json};

/// Nothing listens there, and no request is sent.
const NO_LARAVEL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

#[tokio::test]
async fn envoys_own_check_accepts_the_shipped_configuration() -> Result<()> {
    for config in [
        json!({}),
        json!({"max_requests_per_second": 10, "routes": [{"name": "qr", "batch": {"max_items": 20}}]}),
    ] {
        let output = validate(&config).await?;
        assert!(
            output.status.success(),
            "{config} is valid:\n{}",
            log(&output)
        );
        assert!(
            log(&output).contains("OK"),
            "and Envoy says so:\n{}",
            log(&output)
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_value_is_refused_with_its_place() -> Result<()> {
    let wrong = json!({
        "max_in_flight": "many",
        "bypass_header": "X-Embudo-Bypass",
        "assume": {"callers": "sometimes"},
        "routes": [{"name": "status", "batch": {"max_items": 0}}],
    });

    let output = validate(&wrong).await?;

    assert!(
        !output.status.success(),
        "Envoy refuses it:\n{}",
        log(&output)
    );
    for place in [
        "/max_in_flight",
        "/bypass_header",
        "/assume/callers",
        "/routes/0/batch/max_items",
    ] {
        let line = format!("embudo: {place}: ");
        assert!(
            log(&output).contains(&line),
            "the log names {place}:\n{}",
            log(&output)
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_field_is_refused_with_its_place() -> Result<()> {
    let output = validate(&json!({"routes": [{"name": "qr", "batch": {"max_itmes": 20}}]})).await?;

    assert!(
        !output.status.success(),
        "a typo must not be ignored:\n{}",
        log(&output)
    );
    let place = "embudo: /routes/0/batch/max_itmes: ";
    assert!(
        log(&output).contains(place),
        "the log names it:\n{}",
        log(&output)
    );
    Ok(())
}

#[tokio::test]
async fn what_is_no_object_is_refused() -> Result<()> {
    for wrong in [json!([]), json!("{}"), json!(1)] {
        let output = validate(&wrong).await?;
        assert!(
            !output.status.success(),
            "{wrong} is refused:\n{}",
            log(&output)
        );
        let place = "embudo: the configuration: ";
        assert!(
            log(&output).contains(place),
            "the log says what is wrong:\n{}",
            log(&output)
        );
    }
    Ok(())
}

/// The same twenty that `embudo check` explains.
#[tokio::test]
async fn envoy_refuses_what_embudo_check_refuses_in_the_same_words() -> Result<()> {
    let dir = paths::root().join("harness/tests/broken");
    let mut refused = 0;
    for entry in std::fs::read_dir(&dir)? {
        let file = entry?.path();
        let is_json = file
            .extension()
            .is_some_and(|extension| extension == "json");
        // What is no JSON at all cannot be put in here; the core's own tests have it.
        let text = std::fs::read_to_string(&file)?;
        let Some(config) = is_json.then(|| serde_json::from_str(&text).ok()).flatten() else {
            continue;
        };
        let output = validate(&config).await?;
        assert!(!output.status.success(), "{} is refused", file.display());
        let explained = std::fs::read_to_string(file.with_extension("txt"))?;
        for problem in explained.lines().skip(1) {
            let line = format!("embudo: {}", problem.trim_start());
            assert!(
                log(&output).contains(&line),
                "Envoy's log says of {}: {line}\n{}",
                file.display(),
                log(&output)
            );
        }
        refused += 1;
    }
    assert!(refused >= 19, "{refused} of twenty");
    Ok(())
}

/// Runs `envoy --mode validate` on the shipped configuration with this one for the filter.
async fn validate(config: &Value) -> Result<Output> {
    let (tools, module) = Envoy::prepare(&EnvoyOptions::new("validate", NO_LARAVEL)).await?;
    let mut bootstrap = Bootstrap::shipped()?;
    bootstrap.module(&module.context("a module, since Embudo is wanted")?)?;
    bootstrap.filter_config(config)?;
    let file = paths::new_run("validate")?.join("bootstrap.json");
    paths::write_atomically(&file, bootstrap.to_json().as_bytes())?;
    let run = move || check(&tools.envoy, &file);
    tokio::task::spawn_blocking(run).await?
}

fn check(envoy: &Path, file: &Path) -> Result<Output> {
    Command::new(envoy)
        .args([
            "--mode",
            "validate",
            "--use-dynamic-base-id",
            "--config-path",
        ])
        .arg(file)
        .output()
        .context("Envoy does not run")
}

/// What an operator sees.
fn log(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}
