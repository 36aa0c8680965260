//! After an outage Laravel gets the newest value of every session, and never more calls at once than the
//! pace allows: ten thousand sessions that wait must not knock over what has just come back.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use embudo::live::scaled;
use embudo::model::http::Kind;
use embudo::model::laravel::Journal;
use embudo_tests::{BOUND, Stack, qr, sessions, wait_until};
use futures::StreamExt as _;
use serde_json::json;

const SESSIONS: usize = 10_000;

/// Calls a second: the default, said here because the test is about it.
const PACE: u64 = 20;

/// The shortest time in which the pace lets 200 full batches go, doubled, with the circuit's probes before.
const RECOVERY: Duration = Duration::from_secs(60);

const POSTS_AT_ONCE: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_sessions_recover_at_the_pace() -> Result<()> {
    let config = scaled(
        &json!({
            "max_sessions": 65_536,
            "max_requests_per_second": PACE,
            "routes": [{"name": "qr", "expire_after_ms": 3_600_000}],
        }),
        1.0,
    );
    let mut stack = Stack::configured("recovery", config).await?;
    let sessions = sessions(SESSIONS);
    stack.laravel.down().await;

    // Each has an older value first, and the newest is what must arrive.
    for value in ["old", "new"] {
        post_to_all(&stack, &sessions, value).await?;
    }
    wait_until("all wait", BOUND, async || {
        stack.gauge("embudo.pending").await == Some(SESSIONS as u64)
    })
    .await;
    stack.laravel.up().await?;
    wait_until("nobody waits any more", RECOVERY, async || {
        stack.gauge("embudo.pending").await == Some(0)
    })
    .await;

    let ledger = stack.settled(BOUND).await;
    assert_eq!((ledger.expired, ledger.rejected), (0, 0), "nothing is lost");
    let journal = stack.laravel.journal();
    for session in &sessions {
        let values: Vec<&str> = journal.of_session(session).map(|e| &*e.value).collect();
        assert_eq!(
            values,
            [qr(format_args!("{session}-new"))],
            "the newest, once"
        );
    }
    let posts = journal.counts(stack.laravel.now_ms()).of(Kind::PostQrBatch);
    let (most, calls) = most_in_a_second(&journal);
    println!("{calls} calls for {SESSIONS} sessions, at most {most} in a second");
    assert_eq!(posts.requests, calls, "each call that arrived took effect");
    assert!(
        calls >= SESSIONS as u64 / 50,
        "{calls} calls are too few for it"
    );
    assert!(
        most <= PACE + 1,
        "{most} calls in one second, at a pace of {PACE}"
    );
    stack.finish().await;
    Ok(())
}

async fn post_to_all(stack: &Stack, sessions: &[String], value: &str) -> Result<()> {
    let posts = sessions.iter().map(|session| async move {
        let value = qr(format_args!("{session}-{value}"));
        let answer = stack.gateway.post_qr(session, &value).await?;
        ensure!(answer.outcome == "queued", "{}", answer.outcome);
        Ok(())
    });
    let mut posts = futures::stream::iter(posts).buffer_unordered(POSTS_AT_ONCE);
    while let Some(posted) = posts.next().await {
        posted?;
    }
    Ok(())
}

/// The most calls that began in any 1,000 ms, and how many there were in all.
fn most_in_a_second(journal: &Journal) -> (u64, u64) {
    let calls: BTreeMap<u64, u64> = journal
        .entries()
        .iter()
        .map(|entry| (entry.call, entry.started_ms))
        .collect();
    let mut starts: Vec<u64> = calls.into_values().collect();
    starts.sort_unstable();
    let within = |(at, from): (usize, &u64)| {
        let rest = starts.get(at..).unwrap_or_default();
        rest.partition_point(|start| *start < from + 1_000) as u64
    };
    let most = starts.iter().enumerate().map(within).max();
    (most.unwrap_or(0), starts.len() as u64)
}
