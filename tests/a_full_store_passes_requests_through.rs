//! Everything that Embudo keeps has a bound. At each of them requests go to Laravel as they would without Embudo, a
//! counter tells, and what is already pending keeps its place.

use anyhow::Result;
use embudo::live::laravel::LaravelOptions;
use embudo::model::http::Kind;
use embudo::model::laravel::{Fault, Misbehaviour};
use embudo_tests::raw::{Answer, Message};
use embudo_tests::{BOUND, Stack, qr, qr_body, sessions, wait_until};
use serde_json::{Value, json};

/// Sessions of a shard that one credential may hold.
const SHARE: usize = 24;

/// Sessions of a shard.
const ALL: usize = 32;

/// Sessions of a shard, with those that only pass through a full one.
const PLACES: usize = 64;

/// Keys of the proofs, which callers are spread over by a hash.
const PROOF_KEYS: usize = 16;

/// Callers of a key that were accepted once, and are remembered while nobody came again.
const ONCE: usize = 64;

/// So many that every key gets more of them than it has places.
const CALLERS: usize = 1_800;

/// Three of them fit a credential's 192 KiB of a shard, and four its 256 KiB.
const BIG_BYTES: usize = 60 * 1024;

/// Longer than a test posts.
const CALL_MS: u64 = 10_000;

/// One shard, which every session is in; whoever has a credential is trusted.
fn one_shard() -> Value {
    json!({"max_sessions": 8, "assume": {"callers": true}})
}

async fn post(stack: &Stack, caller: &str, body: String) -> Answer {
    let message = Message::json("/api/qr", body)
        .with("accept", "application/json")
        .with("x-api-key", caller);
    let answer = message.send(stack.envoy.listener).await;
    answer.expect("every request is answered")
}

fn outcome(answer: &Answer) -> String {
    answer.header("x-embudo").unwrap_or_default()
}

/// Posts a QR and gives the outcome; whatever it is, the answer is a success.
async fn outcome_of(stack: &Stack, caller: &str, session: &str) -> String {
    let answer = post(stack, caller, qr_body(session, &qr(session))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    outcome(&answer)
}

/// A QR that makes a body of so many bytes.
fn big(session: &str, label: &str, bytes: usize) -> String {
    let rest = bytes - qr_body(session, label).len();
    format!("{label}{}", "x".repeat(rest))
}

async fn full(stack: &Stack, outcome: &str) -> u64 {
    let labels = [
        ("route", "qr"),
        ("outcome", outcome),
        ("reason", "store_full"),
    ];
    stack.counter("embudo.requests", &labels).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_credential_gets_three_quarters_of_a_shards_sessions_and_others_the_rest() -> Result<()>
{
    let stack = Stack::configured("full-sessions", one_shard()).await?;
    let sessions = sessions(ALL + 1);
    // The first that passes holds a place as well: what Laravel answered to it is remembered.
    for (n, session) in sessions.iter().enumerate() {
        let caller = if n <= SHARE { "one" } else { "two" };
        let expected = match n {
            SHARE | ALL => "write-through; store_full",
            _ => "queued",
        };
        assert_eq!(outcome_of(&stack, caller, session).await, expected, "{n}");
    }
    assert_eq!(
        full(&stack, "write_through").await,
        2,
        "the counter says how many"
    );
    assert_eq!(full(&stack, "bypass").await, 0);
    stack.settled(BOUND).await;

    for (n, session) in sessions.iter().enumerate() {
        let entries = stack.of_session(session);
        let [entry] = &entries[..] else {
            panic!("{n} has arrived once: {entries:?}");
        };
        assert_eq!(entry.value, qr(session));
        assert_eq!(entry.batched, n != SHARE && n != ALL, "{n}");
    }
    stack.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_every_place_requests_reach_laravel_untouched() -> Result<()> {
    let stack = Stack::configured("full-places", one_shard()).await?;
    let sessions = sessions(PLACES + 2);
    for (n, session) in sessions.iter().enumerate() {
        let expected = match n {
            0..SHARE => "queued",
            SHARE..PLACES => "write-through; store_full",
            _ => "bypass; store_full",
        };
        assert_eq!(outcome_of(&stack, "one", session).await, expected, "{n}");
    }
    assert_eq!(full(&stack, "write_through").await, (PLACES - SHARE) as u64);
    assert_eq!(full(&stack, "bypass").await, 2);
    stack.settled(BOUND).await;
    for session in &sessions {
        assert_eq!(stack.values_of(session), [qr(session)], "all have arrived");
    }
    stack.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shards_bytes_are_bounded_and_what_is_pending_keeps_its_place() -> Result<()> {
    let slow = Fault::always(Misbehaviour::Slow { ms: CALL_MS }).on(Kind::PostQrBatch);
    let stack = Stack::with("full-bytes", |options| {
        options.filter_config = one_shard();
        options.filter_config["max_in_flight"] = json!(1);
        options.laravel = LaravelOptions {
            faults: vec![Fault {
                count: Some(1),
                ..slow
            }],
            ..options.laravel.clone()
        };
    })
    .await?;
    // Nothing leaves the shard while it is being filled: the only call is that of another session.
    let sessions = sessions(8);
    assert_eq!(outcome_of(&stack, "one", &sessions[0]).await, "queued");
    wait_until("a call is under way", BOUND, async || {
        stack.laravel.counts().of(Kind::PostQrBatch).requests > 0
    })
    .await;
    let passing = "write-through; store_full";
    for (at, caller, label, expected) in [
        (1, "one", "2@1", "queued"),
        (2, "one", "2@2", "queued"),
        (3, "one", "2@3", "queued"),
        // 240 KiB of one credential.
        (4, "one", "2@4", passing),
        (5, "two", "2@5", "queued"),
        // 300 KiB in all.
        (6, "two", "2@6", passing),
        (1, "one", "2@7", "queued"),
    ] {
        let session = &sessions[at];
        let body = qr_body(session, &big(session, label, BIG_BYTES));
        let answer = post(&stack, caller, body).await;
        assert_eq!(
            (answer.status, &*outcome(&answer)),
            (200, expected),
            "{label} of {caller}"
        );
    }
    // It would make the shard longer, and must not overtake what is pending of its session.
    let body = qr_body(&sessions[2], &big(&sessions[2], "2@8", BIG_BYTES));
    let other = post(&stack, "three", body).await;
    assert_eq!(other.status, 200, "it waits, and Laravel answers");
    let waited = outcome(&other);
    let waited = ["held; store_full", "outside; store_full"].contains(&&*waited);
    assert!(waited, "{}", outcome(&other));
    assert_eq!(full(&stack, "write_through").await, 2);
    let ledger = stack.ledger().await;
    assert_eq!(
        (ledger.accepted, ledger.superseded),
        (6, 1),
        "only what had room was queued"
    );

    stack.settled(BOUND).await;
    for (at, label) in [
        (1, "2@7"),
        (2, "2@2"),
        (3, "2@3"),
        (4, "2@4"),
        (5, "2@5"),
        (6, "2@6"),
    ] {
        let session = &sessions[at];
        let last = stack.values_of(session).pop();
        assert_eq!(last, Some(big(session, label, BIG_BYTES)), "{label}");
    }
    stack.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_more_than_64_kib_is_laravels() -> Result<()> {
    let stack = Stack::start("full-body").await?;
    let [session, stranger] = &sessions(2)[..] else {
        panic!("two of them");
    };
    let limit = 64 * 1024;
    for (session, bytes, expected, label) in [
        (stranger, limit + 1, "bypass; too_large", "2@1"),
        (session, limit, "queued", "2@2"),
        // Whoever is known keeps its order, and Laravel's word.
        (session, limit + 1, "write-through; too_large", "2@3"),
    ] {
        let value = big(session, label, bytes);
        let answer = stack.post_qr(session, &value).await;
        assert_eq!((answer.status, &*answer.outcome), (200, expected));
        wait_until("Laravel has it", BOUND, async || {
            stack.values_of(session).contains(&value)
        })
        .await;
        stack.settled(BOUND).await;
    }
    // Too long to be held until what is under way has come back.
    let slow = Fault::always(Misbehaviour::Slow { ms: CALL_MS }).on(Kind::PostQrBatch);
    stack.laravel.set_faults(vec![slow.times(1)]);
    let before = stack.laravel.counts().of(Kind::PostQrBatch).requests;
    assert_eq!(stack.post_qr(session, "2@4").await.outcome, "queued");
    wait_until("a call is under way", BOUND, async || {
        stack.laravel.counts().of(Kind::PostQrBatch).requests > before
    })
    .await;
    let value = big(session, "2@5", limit + 1);
    let answer = stack.post_qr(session, &value).await;
    assert_eq!(
        (answer.status, &*answer.outcome),
        (200, "outside; too_large")
    );
    for outcome in ["bypass", "write_through", "outside"] {
        let labels = [("outcome", outcome), ("reason", "too_large")];
        let counted = match outcome {
            "outside" => stack.counter("embudo.requests", &labels[..1]).await,
            _ => stack.counter("embudo.requests", &labels).await,
        };
        assert_eq!(counted, 1, "{outcome}");
    }
    stack.settled(BOUND).await;
    stack.envoy.stop();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_callers_that_were_accepted_once_the_latest_are_remembered_and_the_others_begin_again()
-> Result<()> {
    // Each caller's update is a call of its own: at the default pace a thousand of them would take a minute.
    let config = json!({"assume": {"callers": false}, "max_requests_per_second": 200});
    let stack = Stack::configured("full-proofs", config).await?;
    let sessions = sessions(2 * CALLERS);
    let mut sessions = sessions.iter();
    let mut next = || sessions.next().expect("enough of them");
    let unproven = "write-through; unproven";
    for n in 0..CALLERS {
        let caller = format!("token-{n}");
        assert_eq!(outcome_of(&stack, &caller, next()).await, unproven, "{n}");
    }
    // Meanwhile each worker has looked again.
    let posted_ms = stack.laravel.now_ms();
    wait_until("a second is over", BOUND, async || {
        stack.laravel.now_ms() > posted_ms + 1_000
    })
    .await;
    // The latest first: who comes again has a place among others, and whoever begins again is too late to push
    // one of these out.
    let mut remembered = Vec::new();
    for n in (0..CALLERS).rev() {
        let caller = format!("token-{n}");
        let told = outcome_of(&stack, &caller, next()).await;
        assert!(["queued", unproven].contains(&&*told), "{n}: {told}");
        remembered.extend((told == "queued").then_some(n));
    }
    assert_eq!(
        remembered.len(),
        PROOF_KEYS * ONCE,
        "every place is taken, and there are no more: {remembered:?}"
    );
    assert_eq!(remembered.first(), Some(&(CALLERS - 1)), "the latest is");
    // Which key a caller falls into is luck, and one that few of the latest fell into remembers older ones: of places given
    // to anybody a quarter would be such.
    let old = remembered.iter().filter(|n| **n < CALLERS / 4).count();
    assert!(old <= PROOF_KEYS * ONCE / 10, "{old} of {remembered:?}");
    let labels = [("outcome", "write_through"), ("reason", "unproven")];
    let passed = stack.counter("embudo.requests", &labels).await;
    assert_eq!(passed, (2 * CALLERS - PROOF_KEYS * ONCE) as u64);
    stack.settled(BOUND).await;
    assert_eq!(
        stack.gauge("embudo.proven").await.map(|n| n <= 1024),
        Some(true)
    );
    stack.finish().await;
    Ok(())
}
