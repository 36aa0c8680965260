//! Duplicates are judged against the *last* value. A set of seen values would swallow a session that comes
//! back: active, inactive, active.

use anyhow::Result;
use embudo::live::scaled;
use embudo_tests::{BOUND, Stack, qr, session};
use serde_json::json;

/// Every timer, so that three deliveries do not take three times `max_wait_ms`.
const FASTER: f64 = 10.0;

#[tokio::test]
async fn a_state_that_comes_back_is_news() -> Result<()> {
    let stack = Stack::configured("state-aba", scaled(&json!({}), FASTER)).await?;
    let (quick, slow) = (session(), session());

    for state in ["active", "inactive", "active"] {
        let answer = stack.post_status(&quick, state).await;
        assert_eq!(answer.outcome, "queued", "{state} is news each time");
    }
    for (delivered, state) in ["active", "inactive", "active"].into_iter().enumerate() {
        let answer = stack.post_status(&slow, state).await;
        assert_eq!(answer.outcome, "queued", "{state} is news each time");
        stack.arrived(&slow, delivered + 1).await;
    }

    let ledger = stack.settled(BOUND).await;
    assert_eq!(ledger.accepted, 6, "A, B, A are three accepted updates");
    assert_eq!(
        stack.values_of(&slow),
        ["active", "inactive", "active"],
        "given the time, Laravel gets all three"
    );
    for session in [&quick, &slow] {
        assert_eq!(
            stack.state_of(session).as_deref(),
            Some("active"),
            "Laravel ends on A"
        );
    }
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_qr_that_comes_back_is_news() -> Result<()> {
    let stack = Stack::configured("qr-aba", scaled(&json!({}), FASTER)).await?;
    let (quick, slow) = (session(), session());
    let [a, b] = ["A", "B"].map(qr);

    for qr in [&a, &b, &a] {
        assert_eq!(
            stack.post_qr(&quick, qr).await.outcome,
            "queued",
            "a QR that is not the last one is news"
        );
    }
    for (delivered, qr) in [&a, &b, &a].into_iter().enumerate() {
        assert_eq!(
            stack.post_qr(&slow, qr).await.outcome,
            "queued",
            "a QR that is not the last one is news"
        );
        stack.arrived(&slow, delivered + 1).await;
    }

    let ledger = stack.settled(BOUND).await;
    assert_eq!(ledger.accepted, 6, "A, B, A are three accepted updates");
    assert_eq!(stack.values_of(&slow), [&*a, &*b, &*a]);
    assert_eq!(
        stack.values_of(&quick).last(),
        Some(&a),
        "Laravel ends on A"
    );
    stack.finish().await;
    Ok(())
}
