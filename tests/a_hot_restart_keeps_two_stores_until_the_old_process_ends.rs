//! Envoy's hot restart starts a second process beside the first. The store is in a process's memory: the old one
//! delivers what it has accepted, for as long as it lives; the new one begins with nothing, and neither knows
//! what the other has under way.

use anyhow::Result;
use bytes::Bytes;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::{Envoy, EnvoyOptions, Restart, Stats};
use embudo::model::http::Kind;
use embudo::model::laravel::{Entry, Fault, Misbehaviour};
use embudo_tests::{BOUND, qr, qr_body, sessions, wait_until};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// Longer than a new process takes to start on a busy machine; the old one's first call to Laravel takes it, and
/// everything else that is pending there waits behind it.
const FIRST_CALL_MS: u64 = 8_000;

/// `--parent-shutdown-time-s`, where the old process is to deliver everything first.
const LONG_S: u32 = 20;

/// And where it is not.
const SHORT_S: u32 = 4;

/// `--drain-time-s`.
const DRAIN_S: u32 = 2;

fn config() -> Value {
    json!({
        // The new process knows of no acceptance either, and what is queued is what this is about.
        "assume": {"callers": true},
        "max_in_flight": 1,
        // A destination that failed is tried again soon.
        "backoff_max_ms": 1_000,
        "routes": [{"name": "qr", "expire_after_ms": 3_600_000, "batch": {"max_items": 4}}],
    })
}

async fn laravel() -> Result<LaravelServer> {
    Ok(LaravelServer::start(LaravelOptions::costing(0)).await?)
}

async fn first(name: &str, laravel: &LaravelServer) -> Result<Envoy> {
    let options = EnvoyOptions {
        filter_config: config(),
        drain_time_s: DRAIN_S,
        ..EnvoyOptions::new(name, laravel.addr)
    };
    let envoy = Envoy::start(options).await?;
    wait_until("a root becomes the dispatcher", BOUND, async || {
        let stats = envoy.admin.stats().await;
        stats.is_ok_and(|stats| stats.gauge("embudo.leader_beat") > Some(0))
    })
    .await;
    Ok(envoy)
}

/// Starts a second Envoy that takes over from `old`, and waits until it is the one that answers.
async fn restarted(
    name: &str,
    old: &Envoy,
    laravel: &LaravelServer,
    parent_shutdown_time_s: u32,
    known: (&str, &str),
) -> Result<Envoy> {
    let options = EnvoyOptions {
        filter_config: config(),
        drain_time_s: DRAIN_S,
        listener: old.listener,
        admin: old.admin.address,
        restarts: Some(Restart {
            base_id: old.base_id().expect("the first Envoy's number"),
            epoch: 1,
            parent_shutdown_time_s,
        }),
        ..EnvoyOptions::new(name, laravel.addr)
    };
    let new = Envoy::start(options).await?;
    // The last value of a session, once more: only who does not know the session queues it.
    wait_until("the new process answers", BOUND, async || {
        post(&new, known.0, known.1).await.unwrap_or_default() == "queued"
    })
    .await;
    Ok(new)
}

/// Posts a QR over a connection of its own, since an open one stays with the process that took it; gives the
/// outcome.
async fn post(envoy: &Envoy, session: &str, qr: &str) -> Result<String> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("{}/api/qr", envoy.url()))
        .header("content-type", "application/json")
        .body(Full::from(qr_body(session, qr)))?;
    let answer = client.request(request).await?;
    let outcome = answer.headers().get("x-embudo").cloned();
    answer.into_body().collect().await?;
    Ok(outcome.map_or_else(String::new, |value| {
        String::from_utf8_lossy(value.as_bytes()).into_owned()
    }))
}

fn of_session(laravel: &LaravelServer, session: &str) -> Vec<Entry> {
    laravel.with(|laravel| laravel.journal().of_session(session).cloned().collect())
}

async fn stats(envoy: &Envoy) -> Stats {
    envoy.admin.stats().await.expect("Envoy's figures")
}

async fn gone(envoy: &mut Envoy) {
    wait_until("the old process ends", BOUND, async || !envoy.is_running()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_process_delivers_what_it_accepted_and_a_sessions_order_is_not_kept_across_both()
-> Result<()> {
    let laravel = laravel().await?;
    let slow = Fault::always(Misbehaviour::Slow { ms: FIRST_CALL_MS }).on(Kind::PostQrBatch);
    laravel.set_faults(vec![Fault {
        count: Some(1),
        ..slow
    }]);
    let mut old = first("hot-old", &laravel).await?;
    let sessions = sessions(8);
    for session in &sessions {
        assert_eq!(post(&old, session, &qr("old")).await?, "queued");
    }
    wait_until("the old process's first call", BOUND, async || {
        laravel.counts().of(Kind::PostQrBatch).requests > 0
    })
    .await;

    let known = (&*sessions[0], &*qr("old"));
    let mut new = restarted("hot-new", &old, &laravel, LONG_S, known).await?;
    // It is in the second half, which the old process has not sent yet.
    let last = &sessions[7];
    assert_eq!(post(&new, last, &qr("newer")).await?, "queued");
    wait_until("the new process delivers", BOUND, async || {
        !of_session(&laravel, last).is_empty()
    })
    .await;
    assert!(old.is_running(), "the old process is there beside it");
    let pending = stats(&new).await.gauge("embudo.pending");
    assert!(
        pending >= Some(7),
        "the figures are those of both processes: {pending:?}"
    );

    gone(&mut old).await;
    for session in &sessions {
        let values = of_session(&laravel, session).into_iter().map(|e| e.value);
        assert!(
            values.into_iter().any(|value| value == qr("old")),
            "the old process has delivered {session} before its end"
        );
    }
    let entries = of_session(&laravel, last);
    let values: Vec<&str> = entries.iter().map(|entry| &*entry.value).collect();
    assert_eq!(
        values,
        [qr("newer"), qr("old")],
        "the new process does not know that an older value is under way"
    );
    assert!(
        entries[0].timestamp > entries[1].timestamp,
        "Laravel can tell by the timestamp which is newer"
    );
    let beat = stats(&new).await.gauge("embudo.leader_beat");
    wait_until(
        "the books balance without the old process",
        BOUND,
        async || {
            let stats = stats(&new).await;
            let ledger = stats.ledger();
            ledger.pending == 0
                && ledger.balances()
                && ledger.delivered == 10
                && stats.gauge("embudo.leader_beat") > beat
        },
    )
    .await;
    assert!(new.is_running());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_old_process_has_not_delivered_when_it_is_ended_is_lost() -> Result<()> {
    let laravel = laravel().await?;
    laravel.set_faults(vec![Fault::always(Misbehaviour::status(500))]);
    let mut old = first("hot-short-old", &laravel).await?;
    let sessions = sessions(6);
    for session in &sessions {
        assert_eq!(post(&old, session, &qr("old")).await?, "queued");
    }
    let known = (&*sessions[0], &*qr("old"));
    let new = restarted("hot-short-new", &old, &laravel, SHORT_S, known).await?;
    gone(&mut old).await;
    laravel.set_faults(Vec::new());

    wait_until("the new process delivers", BOUND, async || {
        let of_new = of_session(&laravel, &sessions[0]);
        !of_new.is_empty() && stats(&new).await.gauge("embudo.pending") == Some(0)
    })
    .await;
    for session in &sessions[1..] {
        assert!(
            of_session(&laravel, session).is_empty(),
            "nobody knows of {session} any more"
        );
    }
    let ledger = stats(&new).await.ledger();
    assert_eq!(
        ledger.accepted - ledger.settled(),
        6,
        "the counters, which go on, show what was lost: {ledger:?}"
    );
    Ok(())
}
