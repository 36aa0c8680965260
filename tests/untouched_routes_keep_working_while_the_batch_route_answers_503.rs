//! Envoy's outlier detection ejects a *host*, whatever the path that failed. With one cluster, three
//! failures of the batch route would cost the message that arrives next; so the batches have a cluster
//! of their own. What counts there speaks of the host, as a 503 does; a 500 is a word about a row.

use std::time::{Duration, Instant};

use anyhow::Result;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::{Envoy, EnvoyOptions, Ledger, scaled, wait};
use embudo::model::http::Kind;
use embudo::model::laravel::{Fault, LaravelConfig, Misbehaviour};
use embudo_tests::raw::{Connection, Message};
use serde_json::json;

/// Three failures with back-off between them make an ejection; then it is seen within a second.
const EJECTED_MAX: Duration = Duration::from_secs(30);

/// The ejection ends after 3 s, and the back-off is 3 s at most.
const DELIVERED_MAX: Duration = Duration::from_secs(30);

/// Rounds of the other traffic while the host is ejected.
const ROUNDS: u32 = 30;

/// Sessions from here on have no QR that waits.
const OTHERS: u32 = 5_000;

/// Embudo's timers so much faster, so that three failures take a second instead of ten.
const FASTER: f64 = 10.0;

#[tokio::test]
async fn only_the_batches_are_cut_off() -> Result<()> {
    let (laravel, envoy) = start().await?;
    laravel.set_faults(vec![
        Fault::always(Misbehaviour::status(503)).on(Kind::PostQrBatch),
        Fault::always(Misbehaviour::status(503)).on(Kind::PostStatusBatch),
    ]);

    let deadline = Instant::now() + EJECTED_MAX;
    let (mut round, mut rounds_ejected) = (0, 0);
    while rounds_ejected < ROUNDS {
        round += 1;
        assert!(
            Instant::now() < deadline,
            "the batch cluster's host must be ejected; so far {rounds_ejected} of {round} rounds"
        );
        let ejected = ejected(&envoy).await?;
        everything_else_works(&envoy, round).await?;
        rounds_ejected += u32::from(ejected && self::ejected(&envoy).await?);
    }

    let stats = envoy.admin.stats().await?;
    assert!(
        stats.raw("cluster.laravel_batch.outlier_detection.ejections_enforced_total") > 0,
        "the batches' host has been ejected"
    );
    let dump = envoy.admin.get("/stats?filter=outlier_detection").await?;
    assert!(
        dump.lines()
            .all(|line| line.starts_with("cluster.laravel_batch.")),
        "no other cluster has a breaker that could open:\n{dump}"
    );
    assert_eq!(
        stats.raw("cluster.laravel.membership_healthy"),
        1,
        "the other cluster is whole"
    );
    assert_eq!(
        stats.counter("embudo.items", &[("end", "delivered")]),
        0,
        "no batch came through"
    );
    everything_arrives_in_the_end(&laravel, &envoy, round).await;
    Ok(())
}

/// One new QR, which is accepted whatever happens to the batches, and one of each of the others.
async fn everything_else_works(envoy: &Envoy, round: u32) -> Result<()> {
    let mut connection = Connection::open(envoy.listener).await?;
    let session = session(round);
    // Of a session that has nothing queued: what would wait for that is another matter.
    let unreadable = json!({"session_id": self::session(OTHERS + round), "qr": null}).to_string();
    let direct = json!({"session_id": session, "qr": "2@direct"}).to_string();
    let other = "/api/whatsapp/status/00000000-0000-4000-8000-00000000dead";
    for (message, status, outcome) in [
        (Message::json("/api/qr", qr(round)), 200, Some("queued")),
        (
            Message::new("GET", &format!("/api/whatsapp/account/{session}")),
            200,
            None,
        ),
        (
            Message::new("GET", &format!("/api/whatsapp/status/{session}")),
            200,
            Some("fresh"),
        ),
        (Message::new("GET", other), 404, Some("fresh")),
        (
            Message::json("/api/whatsapp-webhook/t", "a message"),
            200,
            None,
        ),
        (
            Message::json("/api/qr", unreadable),
            422,
            Some("bypass; no_value"),
        ),
        (
            Message::json("/api/qr", direct).with("x-embudo-bypass", "1"),
            200,
            Some("bypass; header"),
        ),
    ] {
        let answer = connection.send(&message).await?;
        assert_eq!(
            (answer.status, answer.header("x-embudo").as_deref()),
            (status, outcome),
            "round {round}, {} {}: as ever, whatever the batch route does; {}",
            message.method,
            message.target.escape_ascii(),
            answer.text()
        );
    }
    Ok(())
}

async fn everything_arrives_in_the_end(laravel: &LaravelServer, envoy: &Envoy, rounds: u32) {
    laravel.set_faults(Vec::new());
    let mut ledger = Ledger::default();
    let delivered = wait::until(DELIVERED_MAX, async || {
        let stats = envoy.admin.stats().await;
        ledger = stats.map_or(ledger, |stats| stats.ledger());
        ledger.delivered == u64::from(rounds) && ledger.balances()
    });
    assert!(
        delivered.await,
        "once the route works, all {rounds} updates must be delivered: {ledger:?}"
    );
}

async fn ejected(envoy: &Envoy) -> Result<bool> {
    let stats = envoy.admin.stats().await?;
    Ok(stats.raw("cluster.laravel_batch.outlier_detection.ejections_active") > 0)
}

fn session(round: u32) -> String {
    format!("00000000-0000-4000-8000-{round:012}")
}

fn qr(round: u32) -> String {
    json!({"session_id": session(round), "qr": "2@x"}).to_string()
}

async fn start() -> Result<(LaravelServer, Envoy)> {
    let config = LaravelConfig {
        request_ms: 0,
        ..LaravelConfig::default()
    };
    let options = LaravelOptions {
        config,
        accounts: (0..10_000).map(session).collect(),
        ..LaravelOptions::default()
    };
    let laravel = LaravelServer::start(options).await?;
    // A QR must outlive the outage: the question here is not whether it expires.
    let config = scaled(
        &json!({
            "assume": {"callers": true},
            "routes": [{"name": "qr", "expire_after_ms": 3_600_000}],
        }),
        FASTER,
    );
    let envoy = Envoy::start(EnvoyOptions {
        filter_config: config,
        ..EnvoyOptions::new("ejected", laravel.addr)
    })
    .await?;
    Ok((laravel, envoy))
}
