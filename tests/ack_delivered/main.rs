//! Callers of a route with `"ack": "delivered"` are answered with what became of their update: by the worker that
//! holds them, whoever the dispatcher is.

use std::time::{Duration, Instant};

use anyhow::Result;
use embudo::model::http::Kind;
use embudo::model::laravel::{Fault, Misbehaviour};
use embudo_tests::raw::Message;
use embudo_tests::{Answer, BOUND, Stack, qr, qr_body, session, sessions, wait_until};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const DELIVERED: &[u8] = br#"{"success":true,"delivered":true}"#;

/// A caller is answered at the latest so long after its time is over: two looks of its worker, on a busy machine.
const LATE_MS: u64 = 1_000;

fn acked() -> Value {
    json!({
        "routes": [{"name": "qr", "ack": "delivered"}, {"name": "status", "ack": "delivered"}],
    })
}

fn with_timeout(ms: u64) -> Value {
    let mut config = acked();
    config["ack_timeout_ms"] = json!(ms);
    config
}

/// The batch route says no until it is told otherwise.
fn fails(stack: &Stack, kind: Kind, what: Misbehaviour) {
    stack.laravel.set_faults(vec![Fault::always(what).on(kind)]);
}

fn status(code: u16) -> Misbehaviour {
    Misbehaviour::Status {
        code,
        headers: Vec::new(),
        body: String::new(),
        processed: false,
    }
}

async fn told(stack: &Stack, route: &str, end: &str) -> u64 {
    stack
        .counter("embudo.acks", &[("route", route), ("end", end)])
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_on_any_worker_is_answered_once_laravel_has_its_update() -> Result<()> {
    let stack = Stack::configured("ack-delivered", acked()).await?;

    // The dispatcher is on one thread, and at least one of the two workers is another.
    let workers: Vec<String> = stack
        .gateway
        .workers()
        .iter()
        .map(|w| (*w).to_owned())
        .collect();
    for worker in &workers {
        let session = session();
        let connection = stack.gateway.on_worker(worker)[0];
        let answer = stack
            .gateway
            .post_qr_over(connection, &session, &qr(1))
            .await?;

        assert_eq!(
            (answer.status, &*answer.outcome, &answer.body[..]),
            (200, "delivered", DELIVERED),
            "{worker}"
        );
        let stored = stack.of_session(&session);
        assert_eq!(
            stored.len(),
            1,
            "{worker}: Laravel had it before the caller was told"
        );
    }

    assert_eq!(told(&stack, "qr", "delivered").await, workers.len() as u64);
    stack.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_waits_with_its_original_and_not_after_it() -> Result<()> {
    let mut config = acked();
    config["assume"]["implies"] = json!(true);
    let stack = Stack::configured("ack-duplicate", config).await?;
    let (session, qr) = (session(), qr(1));

    // Within the time that a lone QR waits for company.
    let [first, second] = stack.gateway.on_worker(stack.gateway.workers()[0])[..2] else {
        panic!("two connections of a worker");
    };
    let other = stack.gateway.on_worker(stack.gateway.workers()[1])[0];
    let (first, second, third) = tokio::join!(
        stack.gateway.post_qr_over(first, &session, &qr),
        stack.gateway.post_qr_over(second, &session, &qr),
        stack.gateway.post_qr_over(other, &session, &qr),
    );

    for answer in [first?, second?, third?] {
        assert_eq!((answer.status, &*answer.outcome), (200, "delivered"));
        assert_eq!(answer.body, DELIVERED);
    }
    let again = stack.post_qr(&session, &qr).await;
    assert_eq!(
        again.outcome, "duplicate",
        "Laravel has it: nothing to wait for"
    );
    let pending = stack.post_status(&session, "pending").await;
    assert_eq!(
        pending.outcome, "implied",
        "and so it is with what it implies"
    );
    assert_eq!(stack.values_of(&session).len(), 1, "one call for all");
    stack.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_superseded_hears_of_its_successor() -> Result<()> {
    let stack = Stack::configured("ack-superseded", acked()).await?;
    let session = session();

    let older = async { stack.post_qr(&session, &qr(1)).await };
    let newer = async {
        wait_until("the first QR is queued", BOUND, async || {
            stack
                .counter("embudo.requests", &[("route", "qr"), ("outcome", "queued")])
                .await
                == 1
        })
        .await;
        // Voids the QR.
        stack.post_status(&session, "active").await
    };
    fails(&stack, Kind::PostQrBatch, status(503));

    let (older, newer): (Answer, Answer) = tokio::join!(older, newer);

    for answer in [older, newer] {
        assert_eq!((answer.status, &*answer.outcome), (200, "delivered"));
    }
    assert_eq!(stack.state_of(&session).as_deref(), Some("active"));
    stack.laravel.set_faults(Vec::new());
    stack.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_is_told_with_laravels_own_status() -> Result<()> {
    // Refused in every batch, the state is posted alone in the end; refused so twice, beside what Laravel accepts,
    // it is rejected with that answer.
    let mut config = with_timeout(60_000);
    config["routes"][1]["batch"] = json!({"max_wait_ms": 0});
    let stack = Stack::configured("ack-rejected", config).await?;
    stack.laravel.set_faults(vec![
        Fault::always(status(422)).on(Kind::PostStatusBatch),
        Fault::always(status(418)).on(Kind::PostStatus),
    ]);

    let accepted = stack.post_qr(&session(), &qr(1)).await;
    assert_eq!((accepted.status, &*accepted.outcome), (200, "delivered"));
    let answer = stack.post_status(&session(), "connecting").await;

    assert_eq!((answer.status, &*answer.outcome), (418, "rejected"));
    let body: Value = serde_json::from_slice(&answer.body)?;
    assert_eq!(body, json!({"success": false, "rejected": true}));
    assert_eq!(told(&stack, "status", "rejected").await, 1);
    stack.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_waits_too_long_is_told_so_and_its_update_is_delivered_all_the_same()
-> Result<()> {
    let timeout_ms = 500;
    let stack = Stack::configured("ack-timeout", with_timeout(timeout_ms)).await?;
    let session = session();
    fails(&stack, Kind::PostQrBatch, Misbehaviour::Slow { ms: 3_000 });

    let answer = Message::json("/api/qr", qr_body(&session, &qr(1)));
    let begun = Instant::now();
    let answer = answer.send(stack.envoy.listener).await?;
    let waited = begun.elapsed();

    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-embudo").as_deref(), Some("waiting"));
    assert_eq!(answer.header("retry-after").as_deref(), Some("1"));
    let range = Duration::from_millis(timeout_ms)..Duration::from_millis(timeout_ms + LATE_MS);
    assert!(
        range.contains(&waited),
        "after {waited:?}, and not within {range:?}"
    );
    assert!(
        stack.of_session(&session).is_empty(),
        "Laravel is at work on it"
    );
    assert_eq!(stack.arrived(&session, 1).await.len(), 1);
    assert_eq!(told(&stack, "qr", "waiting").await, 1);
    stack.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_up_while_it_waits_harms_nobody() -> Result<()> {
    let stack = Stack::configured("ack-hung-up", acked()).await?;
    fails(&stack, Kind::PostQrBatch, Misbehaviour::Slow { ms: 1_000 });
    let mut impatient = Vec::new();
    let sessions = sessions(8);
    for session in &sessions {
        let body = qr_body(session, &qr(1));
        let head = format!(
            "POST /api/qr HTTP/1.1\r\nhost: laravel.test\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(stack.envoy.listener).await?;
        stream.write_all((head + &body).as_bytes()).await?;
        impatient.push(stream);
    }
    wait_until("all of them are held", BOUND, async || {
        stack
            .counter("embudo.requests", &[("route", "qr"), ("outcome", "queued")])
            .await
            == 8
    })
    .await;

    drop(impatient);
    let patient = stack.post_qr(&session(), &qr(1)).await;

    assert_eq!(patient.outcome, "delivered");
    for session in &sessions {
        stack.arrived(session, 1).await;
    }
    assert_eq!(
        told(&stack, "qr", "delivered").await,
        1,
        "only one is there to be told"
    );
    stack.finish().await;
    Ok(())
}

/// A listener update while a caller is held, and Laravel takes this long.
async fn updated_while_one_waits(name: &str, drain_time_s: u32, slow_ms: u64) -> Result<Outcome> {
    let mut stack = Stack::with(name, |options| {
        options.filter_config = acked();
        options.watch_listener = true;
        options.drain_time_s = drain_time_s;
    })
    .await?;
    fails(
        &stack,
        Kind::PostQrBatch,
        Misbehaviour::Slow { ms: slow_ms },
    );
    let session = session();
    let message = Message::json("/api/qr", qr_body(&session, &qr(1)));
    let listener = stack.envoy.listener;
    let held = tokio::spawn(async move { message.send(listener).await });
    wait_until("its call is under way", BOUND, async || {
        stack.laravel.counts().of(Kind::PostQrBatch).requests == 1
    })
    .await;

    let mut config = acked();
    config["upstream"] = json!({"headers": {"x-generation": "1"}});
    stack.envoy.update_filter_config(&config).await?;
    let answer = held.await?;

    stack
        .drained(Duration::from_secs(u64::from(drain_time_s) + 20))
        .await;
    assert_eq!(
        stack.arrived(&session, 1).await.len(),
        1,
        "whatever the caller heard"
    );
    stack.finish().await;
    Ok(answer
        .ok()
        .map(|answer| (answer.status, answer.header("x-embudo").unwrap_or_default())))
}

/// Status and `x-embudo`, or a closed connection.
type Outcome = Option<(u16, String)>;

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_update_does_not_take_the_answer_from_who_waits() -> Result<()> {
    let answer = updated_while_one_waits("ack-updated", 10, 2_000).await?;

    assert_eq!(answer, Some((200, "delivered".to_owned())));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_longer_than_its_listener_lives_is_not_left_hanging() -> Result<()> {
    let answer = updated_while_one_waits("ack-drained", 1, 5_000).await?;

    assert_eq!(answer, None, "Envoy closes what is left of a listener");
    Ok(())
}
