//! "May I send this QR?" is answered from the store: without Laravel, and never with an older state than the
//! session's newest acknowledged one.

mod beliefs;
mod down;
mod panel;
mod shown;
mod whose;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use embudo::live::scaled;
use embudo::model::http::Kind;
use embudo::model::laravel::{Fault, Misbehaviour};
use embudo_tests::raw::{Answer, Message};
use embudo_tests::{BOUND, Stack, qr, session, wait_until};
use serde_json::{Value, json};

/// A read of a session's status, as axios sends it.
fn ask(session: &str) -> Message {
    Message::new("GET", &format!("/api/whatsapp/status/{session}"))
        .with("accept", "application/json, text/plain, */*")
        .with("accept-encoding", "gzip, compress, deflate, br")
}

/// Asks through Envoy.
async fn read(stack: &Stack, session: &str) -> Answer {
    let answer = ask(session).send(stack.envoy.listener).await;
    answer.expect("a read is answered")
}

fn outcome(answer: &Answer) -> String {
    answer.header("x-embudo").unwrap_or_default()
}

fn state(answer: &Answer) -> String {
    // The other member that tells it follows where it was seen to.
    let body: Value = serde_json::from_slice(&answer.body).expect("a body of JSON");
    body["estado_qr"].as_str().unwrap_or_default().to_owned()
}

/// What is believed of Laravel's answers is the business of `beliefs`.
fn assumed() -> Value {
    json!({"callers": true, "reads": true})
}

/// Reads until the store answers: only what was posted of is kept, and both workers have to know it.
async fn until_cached(stack: &Stack, session: &str) -> Answer {
    let mut last = None;
    wait_until("the store answers", BOUND, async || {
        let answer = read(stack, session).await;
        let is_cached = outcome(&answer) == "cached";
        last = Some(answer);
        is_cached
    })
    .await;
    last.expect("it was asked")
}

/// How many reads have reached Laravel.
fn asked(stack: &Stack) -> u64 {
    stack.laravel.counts().of(Kind::GetStatus).requests
}

#[tokio::test]
async fn a_kept_status_is_answered_without_laravel_byte_for_byte() -> Result<()> {
    let stack = Stack::configured("kept", json!({"assume": assumed()})).await?;
    let session = session();
    stack.post_status(&session, "active").await;
    stack.settled(BOUND).await;

    let fresh = read(&stack, &session).await;
    let kept = read(&stack, &session).await;
    let direct = ask(&session).send(stack.laravel.addr).await?;

    assert_eq!(
        (outcome(&fresh), outcome(&kept)),
        ("fresh".into(), "cached".into())
    );
    assert_eq!(kept.status, 200);
    assert_eq!(
        kept.body, direct.body,
        "what is kept is Laravel's, byte for byte"
    );
    assert_eq!(asked(&stack), 2, "one read and the test's own");
    assert_eq!(
        kept.header("content-type").as_deref(),
        Some("application/json")
    );
    let counted = [("route", "get_status"), ("outcome", "cached")];
    assert_eq!(stack.counter("embudo.requests", &counted).await, 1);
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_read_shows_what_was_accepted_before_it_pending_or_delivered() -> Result<()> {
    // Nothing leaves for a while, so that there is a time before delivery.
    let slow = json!([
        {"name": "qr", "batch": {"quiet_ms": 3_000}},
        {"name": "status", "priority": [], "batch": {"quiet_ms": 3_000}},
    ]);
    // What a QR sets is said by Laravel once it has it; before that only where it is assumed.
    for (implies, before, after, asks) in [
        (true, ("cached", "pending"), "cached", 3),
        (false, ("fresh", "inactive"), "fresh", 4),
    ] {
        let mut assume = assumed();
        assume["implies"] = json!(implies);
        let config = json!({"routes": slow, "assume": assume});
        let stack = Stack::configured("read-your-writes", config).await?;
        let session = session();

        for value in ["active", "connecting", "inactive"] {
            stack.post_status(&session, value).await;
            assert_eq!(state(&read(&stack, &session).await), value);
        }
        stack.post_qr(&session, &qr("1")).await;
        let pending = read(&stack, &session).await;
        assert_eq!(
            (outcome(&pending), state(&pending)),
            (before.0.into(), before.1.into())
        );
        assert_eq!(
            stack.values_of(&session),
            Vec::<String>::new(),
            "Laravel knows nothing yet"
        );
        // Whether `status` follows an `estado_qr` that is new, only an answer tells that shows it.
        assert_eq!(asked(&stack), asks);

        stack.settled(Duration::from_secs(20)).await;
        let read = read(&stack, &session).await;
        assert_eq!(
            (outcome(&read), state(&read)),
            (after.into(), "pending".into())
        );
        stack.finish().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_fresh_answer_is_patched_too() -> Result<()> {
    let slow = json!([{"name": "status", "priority": [], "batch": {"quiet_ms": 3_000}}]);
    let stack = Stack::configured("patched", json!({"routes": slow})).await?;
    let session = session();

    stack.post_status(&session, "active").await;
    let first = read(&stack, &session).await;

    assert_eq!(
        (outcome(&first), state(&first)),
        ("fresh".into(), "active".into())
    );
    let length = first.header("content-length").expect("a length");
    assert_eq!(length, first.body.len().to_string());
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn laravels_404_is_never_kept() -> Result<()> {
    let stack = Stack::with("unknown", |options| {
        options.laravel.config.any_account = false;
    })
    .await?;
    let session = session();

    for _ in 0..2 {
        let answer = read(&stack, &session).await;
        assert_eq!((answer.status, outcome(&answer)), (404, "fresh".into()));
    }
    stack.laravel.with(|laravel| laravel.add_account(&session));
    assert_eq!(
        read(&stack, &session).await.status,
        200,
        "it is known from the first moment on"
    );
    assert_eq!(asked(&stack), 3);
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn what_must_be_laravels_own_answer_of_this_moment_is() -> Result<()> {
    let stack = Stack::configured("own", json!({"assume": assumed()})).await?;
    let session = session();
    stack.post_status(&session, "active").await;
    until_cached(&stack, &session).await;
    let before = asked(&stack);
    let path = format!("/api/whatsapp/status/{session}");

    let no_cache = ask(&session)
        .with("cache-control", "no-cache")
        .send(stack.envoy.listener)
        .await?;
    assert_eq!(outcome(&no_cache), "fresh");
    let bypassed = ask(&session)
        .with("x-embudo-bypass", "1")
        .send(stack.envoy.listener)
        .await?;
    assert!(
        outcome(&bypassed).starts_with("bypass"),
        "{}",
        outcome(&bypassed)
    );
    let query = Message::new("GET", &format!("{path}?fresh=1"));
    let query = query.send(stack.envoy.listener).await?;
    assert_eq!(outcome(&query), "fresh");
    let head = Message::new("HEAD", &path)
        .send(stack.envoy.listener)
        .await?;
    assert_eq!((head.status, outcome(&head)), (200, String::new()));
    assert_eq!(asked(&stack), before + 4, "each of them reached Laravel");
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_too_old_is_fetched_again_and_serves_while_laravel_fails() -> Result<()> {
    let config = json!({"read_refresh_ms": 300, "stale_if_error_ms": 60_000, "assume": assumed()});
    let stack = Stack::configured("stale", config).await?;
    let session = session();
    stack.post_status(&session, "connecting").await;
    stack.settled(BOUND).await;
    until_cached(&stack, &session).await;
    let before = asked(&stack);
    wait_until("it is fetched again", BOUND, async || {
        outcome(&read(&stack, &session).await) == "fresh"
    })
    .await;
    assert_eq!(asked(&stack), before + 1, "once");

    stack.laravel.set_faults(vec![
        Fault::always(Misbehaviour::status(500)).on(Kind::GetStatus),
    ]);
    stack.post_status(&session, "active").await;
    let mut outcomes = BTreeSet::new();
    wait_until("it is too old again", BOUND, async || {
        let answer = read(&stack, &session).await;
        assert_eq!(answer.status, 200);
        assert_eq!(state(&answer), "active", "what was accepted since shows");
        outcomes.insert(outcome(&answer));
        outcomes.contains("stale")
    })
    .await;
    assert!(!outcomes.contains("fresh"), "{outcomes:?}");

    // One that hangs is not waited for longer than `refresh_timeout_ms`.
    stack.laravel.set_faults(vec![
        Fault::always(Misbehaviour::Hang {
            finish_after_ms: 5_000,
        })
        .on(Kind::GetStatus),
    ]);
    let began = std::time::Instant::now();
    let stale = read(&stack, &session).await;
    assert_eq!((stale.status, outcome(&stale)), (200, "stale".into()));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    stack.laravel.set_faults(Vec::new());
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_kept_answer_is_for_the_credential_that_it_was_given_to() -> Result<()> {
    let stack = Stack::configured("whose", json!({"assume": assumed()})).await?;
    let session = session();
    stack.post_status(&session, "active").await;
    stack.settled(BOUND).await;
    let as_tenant = |token: &str| ask(&session).with("authorization", token.as_bytes());

    let mut went = 0;
    for token in ["Bearer one", "Bearer two"] {
        let mut outcomes = Vec::new();
        // The other worker hears within a tick that a caller has read twice.
        wait_until("its answer is kept", BOUND, async || {
            let answer = as_tenant(token).send(stack.envoy.listener).await;
            outcomes.push(outcome(&answer.expect("a read is answered")));
            outcomes.last().is_some_and(|last| last == "cached")
        })
        .await;
        outcomes.pop();
        // Who reads once is given nothing to keep.
        assert!(outcomes.len() >= 2, "{token}: {outcomes:?}");
        assert!(outcomes.iter().all(|outcome| outcome == "fresh"));
        went += outcomes.len() as u64;
    }
    let nobody = read(&stack, &session).await;

    assert_eq!(outcome(&nobody), "fresh");
    assert_eq!(asked(&stack), went + 1);
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn the_account_can_be_kept_as_well() -> Result<()> {
    let config = json!({"reads": [{"name": "account", "enabled": true}], "assume": assumed()});
    let stack = Stack::with("account", |options| {
        options.filter_config = config;
        options.read_routes = vec!["(/api)?/whatsapp/account/[^/]+".to_owned()];
    })
    .await?;
    let session = session();
    let path = format!("/api/whatsapp/account/{session}");
    let get = || Message::new("GET", &path);
    stack.post_status(&session, "inactive").await;
    stack.settled(BOUND).await;

    let fresh = get().send(stack.envoy.listener).await?;
    let kept = get().send(stack.envoy.listener).await?;
    stack.post_status(&session, "active").await;
    let patched = get().send(stack.envoy.listener).await?;

    assert_eq!(
        (outcome(&fresh), outcome(&kept)),
        ("fresh".into(), "cached".into())
    );
    assert_eq!(fresh.body, kept.body);
    let body: Value = serde_json::from_slice(&patched.body)?;
    assert_eq!(body["estado_qr"], "active");
    assert_eq!(body["session_id"], session.as_str());
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn reads_and_writes_of_many_callers_agree() -> Result<()> {
    let stack = Stack::configured("agree", scaled(&json!({}), 10.0)).await?;
    let sessions = embudo_tests::sessions(20);
    for round in 0..10_u32 {
        for session in &sessions {
            let value = ["active", "connecting", "inactive"][(round % 3) as usize];
            stack.post_status(session, value).await;
            assert_eq!(state(&read(&stack, session).await), value, "round {round}");
        }
    }
    wait_until(
        "each has its last state",
        Duration::from_secs(20),
        async || {
            sessions
                .iter()
                .all(|session| stack.state_of(session).as_deref() == Some("active"))
        },
    )
    .await;
    stack.finish().await;
    Ok(())
}
