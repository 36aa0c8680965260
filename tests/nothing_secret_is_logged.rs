//! Whoever has a QR string can link a device to the account, and whoever has a token can speak for
//! the gateway. Logs and metrics go to many more people than that, so neither ever appears there: not
//! when all goes well, and not in the messages about what went wrong, which are the tempting place.

use std::time::Duration;

use anyhow::Result;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::{Envoy, EnvoyOptions, scaled};
use embudo::model::laravel::{Fault, LaravelConfig, Misbehaviour};
use embudo_tests::raw::Message;
use embudo_tests::wait_until;
use serde_json::json;

/// In every secret, and nowhere else. Neither Envoy's hex dumps nor a random id can hold it.
const PLANTED: &str = "Planted-Secret";

/// Until a call has been made and judged.
const JUDGED_MAX: Duration = Duration::from_secs(30);

/// Every page that a monitoring system or a curious colleague reads.
const PAGES: [&str; 8] = [
    "/stats",
    "/stats?format=json&histogram_buckets=detailed",
    "/stats/prometheus",
    "/config_dump",
    "/clusters",
    "/listeners",
    "/runtime",
    "/server_info",
];

#[tokio::test]
async fn neither_qr_strings_nor_credentials_appear_in_logs_statistics_or_configuration()
-> Result<()> {
    let (mut laravel, envoy) = start().await?;
    let mut sessions = 1..;
    let mut next = || sessions.next().unwrap_or_default();

    // All goes well, and what passes through.
    let before = judged(&envoy, "delivered").await?;
    post_each_kind(&envoy, next()).await?;
    post_what_passes(&envoy, next()).await?;
    until_judged(&envoy, "delivered", before).await;
    // Laravel fails, and says what it was given, as its validation and its stack traces do.
    let echo = format!("{PLANTED} 2@{PLANTED} Bearer {PLANTED}");
    let echoing = |code| Misbehaviour::Status {
        code,
        headers: vec![
            ("retry-after".to_owned(), PLANTED.to_owned()),
            ("content-type".to_owned(), "application/json".to_owned()),
        ],
        body: json!({"message": echo, "errors": {"qrs.0.qr": [echo]}}).to_string(),
        processed: false,
    };
    // And the connection breaks in the middle of an answer.
    let cut = Misbehaviour::Reset {
        after_bytes: 5,
        processed: false,
    };
    for (fault, verdict) in [
        (echoing(500), "threw"),
        (echoing(422), "rejected"),
        (echoing(401), "refused"),
        (echoing(504), "unknown"),
        (cut, "unknown"),
    ] {
        laravel.set_faults(vec![Fault::always(fault)]);
        let before = judged(&envoy, verdict).await?;
        post_each_kind(&envoy, next()).await?;
        until_judged(&envoy, verdict, before).await;
    }
    // And there is nobody at all.
    laravel.down().await;
    let before = judged(&envoy, "retry").await?;
    post_each_kind(&envoy, next()).await?;
    until_judged(&envoy, "retry", before).await;

    // Whichever of the routes has failed first.
    let warnings = envoy.grep_log("[warning][wasm]");
    let is_told = warnings.iter().any(|line| line.contains(": a call failed"));
    assert!(
        is_told,
        "the failures are in the log:\n{}",
        warnings.join("\n")
    );
    let leaks = envoy.grep_log(PLANTED);
    assert!(
        leaks.is_empty(),
        "and nothing secret with them:\n{}",
        leaks.join("\n")
    );
    for page in PAGES {
        let text = envoy.admin.get(page).await?;
        assert!(!text.is_empty(), "{page} has something to say");
        let leaks: Vec<&str> = text.lines().filter(|line| line.contains(PLANTED)).collect();
        assert!(
            leaks.is_empty(),
            "nothing secret on {page}:\n{}",
            leaks.join("\n")
        );
    }
    Ok(())
}

#[tokio::test]
async fn nor_where_credentials_are_learned_and_answers_kept() -> Result<()> {
    let config = json!({"upstream": {"headers": {"x-source": PLANTED}}, "assume": {"reads": true}});
    let (laravel, envoy) = start_with(config).await?;
    let session = session(1);
    let state = |value: &str| {
        let body = json!({"session_id": session, "estado_qr": value, "session_data": PLANTED});
        with_credentials("/api/whatsapp/status", body.to_string())
    };
    let mut read = Message::new("GET", &format!("/api/whatsapp/status/{session}"));
    for (name, value) in with_credentials("/", "").headers {
        // One host: the read is of the session that was posted of.
        if name != "content-type" && name != "host" {
            read = read.with(&name, value);
        }
    }

    let mut answers = Vec::new();
    for (message, outcome) in [
        (state("connecting"), "write-through; unproven"),
        // The answers to a caller that has read twice are kept, and the other worker hears of it within a tick.
        (read.clone(), "cached"),
        (state("active"), "queued"),
        (read.clone(), "cached"),
    ] {
        wait_until(outcome, JUDGED_MAX, async || {
            let answer = message.send(envoy.listener).await;
            let answer = answer.expect("every request is answered");
            let told = answer.header("x-embudo");
            answers.push(answer);
            let is_asked = outcome == "cached" && told.as_deref() == Some("fresh");
            assert!(is_asked || told.as_deref() == Some(outcome), "{told:?}");
            !is_asked
        })
        .await;
    }
    until_judged(&envoy, "delivered", 0).await;
    laravel.set_faults(vec![Fault::always(Misbehaviour::status(401))]);
    answers.push(state("inactive").send(envoy.listener).await?);
    until_judged(&envoy, "refused", 0).await;
    answers.push(state("inactive").send(envoy.listener).await?);

    for answer in &answers {
        let mut text = answer.text();
        for (name, value) in &answer.headers {
            text += &format!("\n{name}: {}", String::from_utf8_lossy(value));
        }
        assert!(
            !text.contains(PLANTED),
            "no answer gives anything away: {text}"
        );
    }
    let leaks = envoy.grep_log(PLANTED);
    assert!(
        leaks.is_empty(),
        "nothing secret in the log:\n{}",
        leaks.join("\n")
    );
    // The configuration is Envoy's own, and shows `upstream.headers` to whoever may see that page.
    for page in PAGES.into_iter().filter(|page| *page != "/config_dump") {
        let text = envoy.admin.get(page).await?;
        assert!(!text.contains(PLANTED), "nothing secret on {page}");
    }
    Ok(())
}

/// A QR, its duplicate, a state with data, each with every credential there is.
async fn post_each_kind(envoy: &Envoy, number: u32) -> Result<()> {
    let session = session(number);
    let qr = json!({"session_id": session, "qr": format!("2@{PLANTED}-{number}")});
    let state = json!({
        "session_id": session,
        "estado_qr": "connecting",
        "session_data": {"token": PLANTED},
    });
    for (path, body, outcome) in [
        ("/api/qr", &qr, "queued"),
        ("/api/qr", &qr, "duplicate"),
        ("/api/whatsapp/status", &state, "queued"),
    ] {
        let answer = with_credentials(path, body.to_string())
            .send(envoy.listener)
            .await?;
        assert_eq!(
            answer.header("x-embudo").as_deref(),
            Some(outcome),
            "{path} of {session}"
        );
    }
    Ok(())
}

/// The same, where Embudo has a reason to count and perhaps a temptation to quote.
async fn post_what_passes(envoy: &Envoy, number: u32) -> Result<()> {
    let session = session(number);
    let qr = |value: &str| format!(r#"{{"session_id":"{session}","qr":{value}}}"#);
    let valid = qr(&format!(r#""2@{PLANTED}""#));
    let twice = qr(&format!(r#""2@{PLANTED}","qr":"{PLANTED}""#));
    for (message, reason) in [
        (
            with_credentials("/api/qr", format!("not JSON: {PLANTED}")),
            "syntax",
        ),
        (with_credentials("/api/qr", twice), "duplicate_key"),
        (
            with_credentials("/api/qr", qr(&format!(r#"["{PLANTED}"]"#))),
            "no_value",
        ),
        (
            with_credentials("/api/qr", &*valid).with("x-hmac-signature", PLANTED),
            "signature",
        ),
        (
            with_credentials("/api/qr", &*valid).with("x-embudo-bypass", PLANTED),
            "header",
        ),
        (
            with_credentials("/api/qr", &*valid).with("content-encoding", PLANTED),
            "encoding",
        ),
        (
            with_credentials(&format!("/api/qr?token={PLANTED}"), &*valid),
            "query",
        ),
        (
            Message::json("/api/qr", &*valid)
                .with("x-api-key", [PLANTED.as_bytes(), b"\xff"].concat()),
            "header_bytes",
        ),
    ] {
        let answer = message.send(envoy.listener).await?;
        assert_eq!(answer.header("x-embudo"), Some(format!("bypass; {reason}")));
    }
    Ok(())
}

fn with_credentials(path: &str, body: impl Into<Vec<u8>>) -> Message {
    Message::json(path, body)
        .with("authorization", format!("Bearer {PLANTED}"))
        .with("x-api-key", PLANTED)
        .with("cookie", format!("laravel_session={PLANTED}"))
}

/// How many calls have met this verdict.
async fn judged(envoy: &Envoy, verdict: &str) -> Result<u64> {
    let stats = envoy.admin.stats().await?;
    Ok(stats.counter("embudo.calls", &[("verdict", verdict)]))
}

async fn until_judged(envoy: &Envoy, verdict: &str, before: u64) {
    let what = format!("a call is judged {verdict:?}");
    wait_until(&what, JUDGED_MAX, async || {
        judged(envoy, verdict).await.is_ok_and(|now| now != before)
    })
    .await;
}

fn session(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

async fn start() -> Result<(LaravelServer, Envoy)> {
    start_with(json!({"assume": {"callers": true}})).await
}

async fn start_with(config: serde_json::Value) -> Result<(LaravelServer, Envoy)> {
    let filter_config = scaled(&config, 10.0);
    let config = LaravelConfig {
        any_account: true,
        ..LaravelConfig::default()
    };
    let options = LaravelOptions {
        config,
        ..LaravelOptions::default()
    };
    let laravel = LaravelServer::start(options).await?;
    let envoy = Envoy::start(EnvoyOptions {
        filter_config,
        ..EnvoyOptions::new("secrets", laravel.addr)
    })
    .await?;
    // Beyond what an operator sees, but for the moment in which he looks for an error: each call into
    // the VM and out of it, with its numbers.
    envoy.admin.post("/logging?wasm=trace").await?;
    Ok((laravel, envoy))
}
