//! The gateway was written against Laravel's answers, so Embudo's look like them: same status, same
//! content type, same fields.

use anyhow::Result;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::{Envoy, EnvoyOptions};
use embudo_tests::raw::{Answer, Message};
use serde_json::{Value, json};

const SESSION: &str = "00000000-0000-4000-8000-000000000001";

const SKIPPED: &str = r#"{"success":true,"skipped":true,"reason":"duplicate"}"#;

#[tokio::test]
async fn each_outcome_has_one_exact_answer() -> Result<()> {
    let laravel = LaravelServer::start(with_account()).await?;
    let envoy = start("answers", json!({"assume": {"implies": true}}), &laravel).await?;

    for (message, outcome, body) in [
        (qr("2@1"), "queued", r#"{"success":true,"queued":true}"#),
        (qr("2@1"), "duplicate", SKIPPED),
        (state("pending"), "implied", SKIPPED),
        (
            state("active"),
            "queued",
            r#"{"success":true,"queued":true}"#,
        ),
        (state("active"), "duplicate", SKIPPED),
    ] {
        let answer = message.send(envoy.listener).await?;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, body),
            "{outcome}"
        );
        let length = body.len().to_string();
        let expected = [
            ("content-length", length.as_str()),
            ("content-type", "application/json"),
            ("x-embudo", outcome),
        ];
        assert_eq!(
            headers(&answer),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned())),
            "{outcome}: these headers, and no others but the date"
        );
    }
    Ok(())
}

#[tokio::test]
async fn they_have_the_fields_that_laravels_own_answers_have() -> Result<()> {
    let laravel = LaravelServer::start(with_account()).await?;
    let envoy = start("fields", json!({}), &laravel).await?;
    let stored = qr("2@1").send(laravel.addr).await?;
    laravel.with(|laravel| laravel.remove_account(SESSION));
    let skipped = qr("2@2").send(laravel.addr).await?;

    let queued = qr("2@3").send(envoy.listener).await?;
    let duplicate = qr("2@3").send(envoy.listener).await?;

    for (own, laravels) in [(&queued, &stored), (&duplicate, &skipped)] {
        assert_eq!(own.status, laravels.status, "the same status");
        let (own_type, laravels_type) =
            (own.header("content-type"), laravels.header("content-type"));
        assert_eq!(own_type, laravels_type, "the same content type");
    }
    assert_eq!(
        json(&queued)["success"],
        json(&stored)["success"],
        "a gateway looks at `success`"
    );
    let fields = |answer| {
        let mut value: Value = json(answer);
        value["reason"] = json!("any");
        value
    };
    assert_eq!(
        fields(&duplicate),
        fields(&skipped),
        "the reason alone is another"
    );
    Ok(())
}

#[tokio::test]
async fn the_status_is_what_the_configuration_says() -> Result<()> {
    let laravel = LaravelServer::start(with_account()).await?;
    let envoy = start("accepted", json!({"answer_status": 202}), &laravel).await?;

    for outcome in ["queued", "duplicate"] {
        let answer = qr("2@1").send(envoy.listener).await?;
        assert_eq!(answer.header("x-embudo").as_deref(), Some(outcome));
        assert_eq!(answer.status, 202, "{outcome}: answered as configured");
    }
    Ok(())
}

/// Embudo's own answers begin once a caller is known to be accepted.
async fn start(name: &str, mut config: Value, laravel: &LaravelServer) -> Result<Envoy> {
    config["assume"]["callers"] = json!(true);
    let options = EnvoyOptions {
        filter_config: config,
        ..EnvoyOptions::new(name, laravel.addr)
    };
    Envoy::start(options).await
}

fn with_account() -> LaravelOptions {
    LaravelOptions {
        accounts: vec![SESSION.to_owned()],
        ..LaravelOptions::default()
    }
}

fn qr(qr: &str) -> Message {
    Message::json(
        "/api/qr",
        json!({"session_id": SESSION, "qr": qr}).to_string(),
    )
}

fn state(state: &str) -> Message {
    let body = json!({"session_id": SESSION, "estado_qr": state});
    Message::json("/api/whatsapp/status", body.to_string())
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).expect("an answer in JSON")
}

/// All but the date, in alphabetical order.
fn headers(answer: &Answer) -> Vec<(String, String)> {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name != "date")
        .map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()))
        .collect();
    headers.sort();
    headers
}
