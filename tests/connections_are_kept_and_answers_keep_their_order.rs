//! Embudo answers in the middle of Envoy's HTTP machinery, so it can spoil a connection for the
//! requests that follow: an answer before the end of the request makes Envoy close it, and one that is
//! held for ever blocks it. Here requests come in every rhythm a network can give them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::stats::VmReloads;
use embudo::live::{Envoy, EnvoyOptions, Stats, wait};
use embudo::model::laravel::LaravelConfig;
use embudo_tests::raw::{Answer, Connection, Message};
use serde_json::json;

/// Until Envoy has noticed something. It takes milliseconds.
const NOTICED_MAX: Duration = Duration::from_secs(20);

/// Clients that leave: enough to reach both workers.
const LEAVERS: u64 = 20;

#[tokio::test]
async fn pipelined_requests_of_all_kinds_are_answered_in_order_on_one_connection() -> Result<()> {
    let (_laravel, envoy) = start("pipelined", false).await?;
    let (a, b) = (session(1), session(2));
    // Whoever says nothing of itself is known to be accepted, and both routes are.
    for proof in [
        Message::json("/api/qr", qr(&session(9), "2@proof")),
        Message::json("/api/whatsapp/status", state(&session(9), "connecting")),
    ] {
        let answer = proof.send(envoy.listener).await?;
        let told = answer.header("x-embudo");
        assert_eq!(told.as_deref(), Some("write-through; unproven"));
    }
    let untouched = Message::new("GET", "/api/whatsapp/accounts/active");
    let read = Message::new("GET", &format!("/api/whatsapp/status/{a}"));
    let token = Message::json("/api/qr", qr(&session(3), "2@token"));
    let token = token.with("authorization", "Bearer t");
    let requests = [
        (Message::json("/api/qr", qr(&a, "2@1")), 200, Some("queued")),
        (
            Message::json("/api/qr", qr(&a, "2@1")),
            200,
            Some("duplicate"),
        ),
        (
            Message::json("/api/qr", "hello"),
            422,
            Some("bypass; syntax"),
        ),
        (untouched, 200, None),
        (read.clone(), 200, Some("fresh")),
        (read, 200, Some("cached")),
        (
            Message::json("/api/qr", qr(&b, "2@2")).in_chunks(5),
            200,
            Some("queued"),
        ),
        (
            Message::json("/api/whatsapp/status", state(&b, "pending")),
            200,
            Some("implied"),
        ),
        (token, 200, Some("write-through; unproven")),
        (
            Message::json("/api/qr", "x".repeat(100_000)).in_chunks(9_000),
            422,
            Some("bypass; too_large"),
        ),
        (Message::new("HEAD", "/api/qr"), 405, None),
        (Message::json("/api/qr", qr(&a, "2@3")), 200, Some("queued")),
        (Message::json("/api/qr", ""), 422, Some("bypass; empty")),
        (
            Message::json("/api/qr", qr(&a, "2@3")).in_chunks(1),
            200,
            Some("duplicate"),
        ),
    ];

    let mut connection = Connection::open(envoy.listener).await?;
    let all: Vec<u8> = requests
        .iter()
        .flat_map(|(message, ..)| message.bytes())
        .collect();
    connection.write(&all).await?;

    for (number, (message, status, outcome)) in requests.iter().enumerate() {
        let answer = connection.answer_to(&message.method).await;
        let answer = answer.with_context(|| format!("answer {number}"))?;
        assert_eq!(
            (answer.status, answer.header("x-embudo").as_deref()),
            (*status, *outcome),
            "answer {number} belongs to request {number}"
        );
        assert_kept(&answer);
    }
    let again = connection
        .send(&Message::json("/api/qr", qr(&a, "2@4")))
        .await?;
    assert_eq!(again.status, 200, "and the connection goes on");
    Ok(())
}

#[tokio::test]
async fn a_body_that_comes_piece_by_piece_is_answered_once_it_is_whole() -> Result<()> {
    let (_laravel, envoy) = start("pieces", true).await?;
    let a = session(1);
    let long = Message::json("/api/qr", "x".repeat(100_000));
    let mut connection = Connection::open(envoy.listener).await?;
    let mut sent = 0;

    for (message, pieces, outcome) in [
        (Message::json("/api/qr", qr(&a, "2@1")), 12, "queued"),
        (
            Message::json("/api/qr", qr(&a, "2@1")).in_chunks(4),
            12,
            "duplicate",
        ),
        (
            Message::json("/api/qr", qr(&a, "2@2")).in_chunks(7),
            12,
            "queued",
        ),
        (
            Message::json("/api/qr", r#"{"session_id":"#),
            5,
            "bypass; syntax",
        ),
        (long.clone(), 12, "bypass; too_large"),
        (long.in_chunks(3_000), 12, "bypass; too_large"),
    ] {
        let bytes = message.bytes();
        for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
            connection.write(piece).await?;
            sent += piece.len() as u64;
            let arrived = |stats: &Stats| {
                let read = stats.raw("http.gateway.downstream_cx_rx_bytes_total");
                ensure!(read >= sent, "Envoy has read {read} of {sent} bytes");
                Ok(())
            };
            eventually(&envoy, arrived).await?;
        }
        let answer = connection.answer_to("POST").await?;
        assert_eq!(
            answer.header("x-embudo").as_deref(),
            Some(outcome),
            "{answer:?}"
        );
        assert_kept(&answer);
    }
    Ok(())
}

#[tokio::test]
async fn a_sender_that_asks_before_its_body_is_told_to_go_on() -> Result<()> {
    let (_laravel, envoy) = start("expect", true).await?;
    let mut connection = Connection::open(envoy.listener).await?;

    for outcome in ["queued", "duplicate"] {
        let message =
            Message::json("/api/qr", qr(&session(1), "2@1")).with("expect", "100-continue");
        connection.write(&message.head()).await?;
        let interim = connection.next("POST").await?;
        assert_eq!(
            interim.status, 100,
            "the sender waits for this before it sends the body"
        );
        connection.write(&message.body).await?;
        let answer = connection.next("POST").await?;
        assert_eq!(
            answer.header("x-embudo").as_deref(),
            Some(outcome),
            "{answer:?}"
        );
        assert_kept(&answer);
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_body_leaves_nothing_behind() -> Result<()> {
    let (laravel, envoy) = start("leavers", true).await?;
    envoy.admin.post("/logging?wasm=trace").await?;
    let held = Message::json("/api/qr", qr(&session(1), "2@never"));
    let passing = Message::json("/api/qr", "x".repeat(300_000)).in_chunks(70_000);
    let mut leavers = Vec::new();

    for (message, bytes) in [(&held, 30), (&passing, 200_000)] {
        for _ in 0..LEAVERS {
            let mut connection = Connection::open(envoy.listener).await?;
            let head = message.head().len();
            connection.write(&message.bytes()[..head + bytes]).await?;
            leavers.push(connection);
        }
    }
    let holding = |stats: &Stats| {
        let active = stats.raw("http.gateway.downstream_rq_active");
        ensure!(active == 2 * LEAVERS, "{active} requests are under way");
        let passed = stats.counter("embudo.requests", &[("reason", "too_large")]);
        ensure!(
            passed == LEAVERS,
            "{passed} of the long ones have been let through"
        );
        Ok(())
    };
    eventually(&envoy, holding).await?;
    drop(leavers);

    let gone = |stats: &Stats| {
        for gauge in [
            "http.gateway.downstream_rq_active",
            "http.gateway.downstream_cx_active",
            "cluster.laravel.upstream_rq_active",
        ] {
            ensure!(stats.raw(gauge) == 0, "{gauge} is {}", stats.raw(gauge));
        }
        let calls = |name: &str| {
            let lines = envoy.grep_log(&format!("[host->vm] {name}("));
            lines.iter().filter(|line| !line.contains("return")).count()
        };
        let (made, deleted) = (calls("proxy_on_context_create"), calls("proxy_on_delete"));
        ensure!(
            made as u64 == 2 * LEAVERS,
            "{made} contexts were made for {} requests",
            2 * LEAVERS
        );
        ensure!(
            made == deleted,
            "{deleted} of {made} contexts have been deleted in the VM"
        );
        Ok(())
    };
    eventually(&envoy, gone).await?;
    let stats = envoy.admin.stats().await?;
    assert_eq!(stats.ledger().accepted, 0, "half an update is no update");
    assert_eq!(stats.vm_reloads(), VmReloads::default(), "nothing traps");
    assert!(
        laravel.journal().entries().is_empty(),
        "and Laravel has processed nothing"
    );
    let next = Message::json("/api/qr", qr(&session(1), "2@1"))
        .send(envoy.listener)
        .await?;
    assert_eq!(
        next.header("x-embudo").as_deref(),
        Some("queued"),
        "the next one is served"
    );
    Ok(())
}

// === helpers ===

/// `assumed`: every caller is taken to be accepted.
async fn start(name: &str, assumed: bool) -> Result<(LaravelServer, Envoy)> {
    let config = LaravelConfig {
        any_account: true,
        ..LaravelConfig::default()
    };
    let options = LaravelOptions {
        config,
        ..LaravelOptions::default()
    };
    let laravel = LaravelServer::start(options).await?;
    let options = EnvoyOptions {
        filter_config: json!({"assume": {"callers": assumed, "implies": true, "reads": true}}),
        ..EnvoyOptions::new(name, laravel.addr)
    };
    let envoy = Envoy::start(options).await?;
    Ok((laravel, envoy))
}

fn session(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn qr(session: &str, qr: &str) -> String {
    format!(r#"{{"session_id":"{session}","qr":"{qr}"}}"#)
}

fn state(session: &str, state: &str) -> String {
    format!(r#"{{"session_id":"{session}","estado_qr":"{state}"}}"#)
}

fn assert_kept(answer: &Answer) {
    assert_eq!(
        answer.header("connection"),
        None,
        "the connection is kept: {answer:?}"
    );
}

/// Asks Envoy until `condition` holds of its statistics.
async fn eventually(envoy: &Envoy, condition: impl Fn(&Stats) -> Result<()>) -> Result<()> {
    let mut last = Ok(());
    wait::until(NOTICED_MAX, async || {
        last = envoy
            .admin
            .stats()
            .await
            .and_then(|stats| condition(&stats));
        last.is_ok()
    })
    .await;
    last
}
