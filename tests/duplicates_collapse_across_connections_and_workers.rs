//! The reason Embudo exists: whatever is repeated, over whichever connection and worker, reaches Laravel
//! once.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use embudo::live::scaled;
use embudo::model::http::Kind;
use embudo_tests::{Stack, qr, qr_body, session, sessions};
use futures::future::join_all;
use serde_json::json;

const CONNECTIONS: usize = 16;
const SESSIONS: usize = 20;

/// Two workers meet within the few µs between a read and a write of the store once in some hundred posts.
const SIMULTANEOUS: usize = 4_000;
const VOLLEY: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_collapse_across_connections_and_workers() -> Result<()> {
    let stack = Stack::with("duplicates", |options| options.connections = CONNECTIONS).await?;
    assert_eq!(
        stack.gateway.workers().len(),
        2,
        "both workers have connections"
    );
    let sessions = sessions(SESSIONS);

    // Every connection posts every session's QR and state, all connections at once.
    let posts = (0..stack.gateway.connections()).map(async |at| {
        let mut outcomes = Vec::new();
        for session in &sessions {
            let qr = qr(session);
            outcomes.push(stack.gateway.post_qr_over(at, session, &qr).await?);
        }
        anyhow::Ok(outcomes)
    });
    let answers: Vec<_> = join_all(posts).await.into_iter().collect::<Result<_>>()?;

    for (at, session) in sessions.iter().enumerate() {
        let mut outcomes = BTreeMap::<&str, usize>::new();
        for answers in &answers {
            assert_eq!(answers[at].status, 200, "every post is answered 200");
            *outcomes.entry(&answers[at].outcome).or_default() += 1;
        }
        let duplicates = stack.gateway.connections() - 1;
        assert_eq!(
            outcomes,
            [("queued", 1), ("duplicate", duplicates)].into(),
            "of equal posts for {session}, exactly one is queued"
        );
    }
    stack.settled(embudo_tests::BOUND).await;
    for session in &sessions {
        assert_eq!(
            stack.values_of(session),
            [qr(session)],
            "Laravel gets it once"
        );
    }
    stack.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_equal_posts_at_one_moment_on_two_workers_one_is_queued() -> Result<()> {
    let stack = Stack::configured("simultaneous", scaled(&json!({}), 10.0)).await?;
    let mut connections = BTreeMap::<String, Vec<TcpStream>>::new();
    while connections.len() < 2 || connections.values().any(|all| all.len() < VOLLEY) {
        let (stream, worker) = embudo_tests::open(&stack.envoy).await?;
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        connections.entry(worker).or_default().push(stream);
    }
    let sessions = sessions(SIMULTANEOUS);

    // Threads of their own and plain sockets: between two such writes lie a few µs, as between a read and a
    // write of the store.
    let arrived = AtomicUsize::new(0);
    let outcomes: Vec<Vec<String>> = std::thread::scope(|scope| {
        let (arrived, sessions) = (&arrived, &sessions);
        let threads: Vec<_> = connections
            .into_values()
            .map(|of_worker| scope.spawn(move || post_together(of_worker, sessions, arrived)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|outcomes| outcomes.expect("the thread ends"))
            .collect::<Result<_>>()
    })?;

    assert_eq!(outcomes[0].len(), SIMULTANEOUS, "every post is answered");
    for (one, other) in outcomes[0].iter().zip(&outcomes[1]) {
        let mut both = [&**one, &**other];
        both.sort_unstable();
        assert_eq!(
            both,
            ["duplicate", "queued"],
            "of two equal posts at one moment, one is queued and one is its duplicate"
        );
    }
    let ledger = stack.settled(embudo_tests::BOUND).await;
    assert_eq!(ledger.accepted, SIMULTANEOUS as u64);
    stack.finish().await;
    Ok(())
}

/// Posts every session's QR, a volley at a time over as many connections of one worker, and each volley only
/// when the other thread is about to post it too.
fn post_together(
    mut connections: Vec<TcpStream>,
    sessions: &[String],
    arrived: &AtomicUsize,
) -> Result<Vec<String>> {
    let mut outcomes = Vec::new();
    for (turn, volley) in sessions.chunks(VOLLEY).enumerate() {
        let requests: Vec<String> = volley.iter().map(|session| request(session)).collect();
        arrived.fetch_add(1, Ordering::AcqRel);
        while arrived.load(Ordering::Acquire) < 2 * (turn + 1) {
            // Not a moment longer than needed, and not at Envoy's cost either.
            std::thread::yield_now();
        }
        for (connection, request) in connections.iter_mut().zip(&requests) {
            connection.write_all(request.as_bytes())?;
        }
        for (connection, _) in connections.iter_mut().zip(&requests) {
            outcomes.push(read_outcome(connection)?);
        }
    }
    Ok(outcomes)
}

fn request(session: &str) -> String {
    let body = qr_body(session, &qr(session));
    format!(
        "POST /api/qr HTTP/1.1\r\nhost: laravel.test\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads one of Embudo's answers, which end with the only closing brace in them.
fn read_outcome(connection: &mut TcpStream) -> Result<String> {
    let mut text = String::new();
    let mut piece = [0; 4_096];
    while !text.ends_with('}') {
        let read = connection.read(&mut piece)?;
        ensure!(read > 0, "Envoy closed the connection");
        text.push_str(std::str::from_utf8(&piece[..read])?);
    }
    let mut lines = text.lines();
    let outcome = lines.find_map(|line| line.strip_prefix("x-embudo: "));
    Ok(outcome.context("an answer of Embudo's")?.to_owned())
}

#[tokio::test]
async fn a_delivered_value_is_still_a_duplicate_on_every_worker() -> Result<()> {
    let stack = Stack::start("delivered-duplicates").await?;
    let (scanned, shown) = (session(), session());
    stack.post_status(&scanned, "active").await;
    stack.post_qr(&shown, &qr("shown")).await;
    stack.settled(embudo_tests::BOUND).await;
    let posts_before = posts(&stack);

    for at in 0..stack.gateway.connections() {
        let state = stack
            .gateway
            .post_status_over(at, &scanned, "active")
            .await?;
        let qr = stack.gateway.post_qr_over(at, &shown, &qr("shown")).await?;
        assert_eq!(
            [&*state.outcome, &*qr.outcome],
            ["duplicate", "duplicate"],
            "what Laravel has is a duplicate on connection {at}"
        );
        assert_eq!(
            &state.body[..],
            br#"{"success":true,"skipped":true,"reason":"duplicate"}"#,
            "the gateway reads what Laravel answers when it skips"
        );
    }

    // Had one of them been queued, it would leave before this one or together with it.
    let last = session();
    stack.post_status(&last, "active").await;
    stack.arrived(&last, 1).await;
    assert_eq!(stack.values_of(&scanned), ["active"]);
    assert_eq!(stack.values_of(&shown), [qr("shown")]);
    assert_eq!(
        posts(&stack),
        posts_before + 1,
        "only the last session's state is one more call"
    );
    stack.finish().await;
    Ok(())
}

fn posts(stack: &Stack) -> u64 {
    let counts = stack.laravel.counts();
    counts.requests() - counts.of(Kind::GetStatus).requests
}
