//! The reason Embudo exists: whatever is repeated, over whichever connection and worker, reaches Laravel
//! once.

use std::collections::BTreeMap;

use anyhow::Result;
use embudo::model::http::Kind;
use embudo_tests::{Stack, qr, session, sessions};
use futures::future::join_all;

const CONNECTIONS: usize = 16;
const SESSIONS: usize = 20;

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
