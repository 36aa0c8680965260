//! Where Laravel sets `pending` when it stores a QR, the gateway posts it once more: a third of all requests, and none of
//! them says anything new. That it does is the operator's to know: it is not believed where it is not assumed. And it
//! holds only while the QR is the newest there is.

use anyhow::Result;
use embudo::live::scaled;
use embudo::model::http::Kind;
use embudo_tests::{BOUND, Stack, qr, session};
use serde_json::{Value, json};

fn assumed() -> Value {
    json!({"assume": {"callers": true, "implies": true}})
}

#[tokio::test]
async fn a_pending_state_is_implied_by_its_qr() -> Result<()> {
    let stack = Stack::configured("implied", assumed()).await?;
    let shown = session();

    stack.post_qr(&shown, &qr("shown")).await;
    let queued = stack.post_status(&shown, "pending").await;
    stack.arrived(&shown, 1).await;
    let ledger = stack.settled(BOUND).await;
    let delivered = stack.post_status(&shown, "pending").await;

    assert_eq!(
        [&*queued.outcome, &*delivered.outcome],
        ["implied", "implied"],
        "`pending` says no more than the QR did, delivered or not"
    );
    assert_eq!(ledger.accepted, 1, "an implied state is no update");
    // Had it been queued, it would leave before this one or together with it.
    let last = session();
    stack.post_status(&last, "active").await;
    stack.arrived(&last, 1).await;
    assert_eq!(stack.values_of(&shown), [qr("shown")]);
    let counts = stack.laravel.counts();
    assert_eq!(
        counts.of(Kind::PostStatusBatch).requests,
        1,
        "only the last session's state is a call"
    );
    assert_eq!(counts.of(Kind::PostStatus).requests, 0);
    assert_eq!(
        stack.state_of(&shown).as_deref(),
        Some("pending"),
        "Laravel has the state from the QR"
    );
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn where_nobody_says_so_the_pending_state_arrives_behind_its_qr() -> Result<()> {
    let stack = Stack::configured("not-implied", scaled(&json!({}), 10.0)).await?;
    let (quick, slow) = (session(), session());

    for session in [&quick, &slow] {
        stack.post_status(session, "inactive").await;
        stack.arrived(session, 1).await;
        assert_eq!(stack.post_qr(session, &qr("shown")).await.outcome, "queued");
        if session == &slow {
            stack.arrived(session, 2).await;
        }
        let pending = stack.post_status(session, "pending").await;
        assert_eq!(
            pending.outcome, "queued",
            "Laravel may leave the state alone"
        );
        let again = stack.post_status(session, "pending").await;
        assert_eq!(again.outcome, "duplicate");
    }

    stack.settled(BOUND).await;
    for session in [&quick, &slow] {
        assert_eq!(
            stack.values_of(session),
            ["inactive", &qr("shown"), "pending"],
            "in their order"
        );
    }
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_pending_state_after_another_state_is_news() -> Result<()> {
    let stack = Stack::configured("implied-no-more", scaled(&assumed(), 10.0)).await?;
    let (quick, slow) = (session(), session());

    let mut answers = Vec::new();
    for session in [&quick, &slow] {
        answers.push(stack.post_qr(session, &qr("shown")).await.outcome);
        answers.push(stack.post_status(session, "connecting").await.outcome);
        if session == &slow {
            stack.settled(BOUND).await;
        }
        answers.push(stack.post_status(session, "pending").await.outcome);
    }

    assert_eq!(
        answers, ["queued"; 6],
        "the QR implies `pending` only as long as it is the session's newest update"
    );
    stack.settled(BOUND).await;
    for session in [&quick, &slow] {
        assert_eq!(
            stack.values_of(session).last().map(String::as_str),
            Some("pending"),
            "Laravel hears it last"
        );
    }
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn inactive_qr_pending_inactive_ends_on_inactive() -> Result<()> {
    let stack = Stack::configured("implied-order", scaled(&assumed(), 10.0)).await?;
    let (quick, slow) = (session(), session());

    let mut outcomes = Vec::new();
    for at in 0..4 {
        outcomes.push(post(&stack, &quick, at).await);
    }
    assert_eq!(outcomes, OUTCOMES, "before anything is delivered");
    outcomes.clear();
    for at in 0..4 {
        outcomes.push(post(&stack, &slow, at).await);
        stack.settled(BOUND).await;
    }
    assert_eq!(outcomes, OUTCOMES, "each after the one before is delivered");

    for session in [&quick, &slow] {
        assert_eq!(
            stack.state_of(session).as_deref(),
            Some("inactive"),
            "Laravel ends on inactive"
        );
    }
    assert_eq!(
        stack.values_of(&slow),
        ["inactive", &qr("shown"), "inactive"],
        "given the time, Laravel gets every change"
    );
    stack.finish().await;
    Ok(())
}

/// The second `inactive` is news: the QR changed the state in between.
const OUTCOMES: [&str; 4] = ["queued", "queued", "implied", "queued"];

async fn post(stack: &Stack, session: &str, at: usize) -> String {
    let answer = match at {
        1 => stack.post_qr(session, &qr("shown")).await,
        2 => stack.post_status(session, "pending").await,
        _ => stack.post_status(session, "inactive").await,
    };
    answer.outcome
}
