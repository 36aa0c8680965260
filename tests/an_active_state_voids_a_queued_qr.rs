//! Laravel's own code sets `pending` when it stores a QR. A QR that arrives after `active` would therefore
//! take down a session that has just come up.

use anyhow::Result;
use embudo::live::scaled;
use embudo_tests::{BOUND, Stack, qr, session};
use serde_json::json;

/// How long the QR waits in the queue: long enough for a state to reach Laravel meanwhile.
const QUIET_MS: u64 = 1_500;

#[tokio::test]
async fn an_active_state_voids_a_queued_qr() -> Result<()> {
    let routes = json!([{"name": "qr", "batch": {"quiet_ms": QUIET_MS}}]);
    let stack = Stack::configured("voids", scaled(&json!({"routes": routes}), 1.0)).await?;
    let (scanned, other) = (session(), session());

    let queued = stack.post_qr(&scanned, &qr("scanned")).await;
    stack.post_qr(&other, &qr("other")).await;
    let active = stack.post_status(&scanned, "active").await;

    assert_eq!([&*queued.outcome, &*active.outcome], ["queued", "queued"]);
    // The other's QR was queued after the voided one, and would have had its company.
    stack.arrived(&other, 1).await;
    let ledger = stack.settled(BOUND).await;
    assert_eq!(
        stack.values_of(&scanned),
        ["active"],
        "a QR that was queued before `active` never reaches Laravel"
    );
    assert_eq!(stack.state_of(&scanned).as_deref(), Some("active"));
    assert_eq!(
        (ledger.delivered, ledger.voided, ledger.superseded),
        (2, 1, 0),
        "a voided QR counts as such"
    );

    // The session was closed again, and the gateway shows the QR that it had: nothing Laravel has.
    let again = stack.post_qr(&scanned, &qr("scanned")).await;
    assert_eq!(
        again.outcome, "queued",
        "after `active` the same QR is news"
    );
    stack.arrived(&scanned, 2).await;
    assert_eq!(
        stack.state_of(&scanned).as_deref(),
        Some("pending"),
        "and Laravel hears of it"
    );
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_delivered_qr_is_news_after_an_active_state() -> Result<()> {
    let stack = Stack::configured("voids-delivered", scaled(&json!({}), 10.0)).await?;
    let scanned = session();
    stack.post_qr(&scanned, &qr("scanned")).await;
    stack.arrived(&scanned, 1).await;
    stack.settled(BOUND).await;
    stack.post_status(&scanned, "active").await;

    let again = stack.post_qr(&scanned, &qr("scanned")).await;

    assert_eq!(
        again.outcome, "queued",
        "after `active` the same QR is news, delivered or not"
    );
    stack.arrived(&scanned, 2).await;
    stack.settled(BOUND).await;
    assert_eq!(
        stack.values_of(&scanned).last(),
        Some(&qr("scanned")),
        "Laravel ends on the QR, as the gateway does"
    );
    stack.finish().await;
    Ok(())
}
