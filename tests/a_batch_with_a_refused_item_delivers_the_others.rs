//! Laravel validates a batch as a whole: one session that is no UUID, and none of the others is stored.

use std::time::Duration;

use anyhow::Result;
use embudo::live::scaled;
use embudo::model::http::Kind;
use embudo_tests::{Stack, sessions, wait_until};
use serde_json::json;

const GOOD: usize = 19;

/// Not a UUID: the stand-in answers 422, as Laravel's validator does.
const REFUSED: &str = "session-of-another-age";

#[tokio::test]
async fn a_batch_with_a_refused_item_delivers_the_others() -> Result<()> {
    // Twenty make a batch, so that the first one holds the bad one and all the others.
    let routes = json!([{"name": "status", "batch": {"max_items": GOOD + 1, "quiet_ms": 60_000}}]);
    let stack = Stack::configured("refused", scaled(&json!({"routes": routes}), 10.0)).await?;
    let good = sessions(GOOD);

    for session in good.iter().take(GOOD / 2) {
        stack.post_status(session, "active").await;
    }
    let refused = stack.post_status(REFUSED, "active").await;
    for session in good.iter().skip(GOOD / 2) {
        stack.post_status(session, "active").await;
    }

    assert_eq!(refused.outcome, "queued");
    wait_until(
        "Laravel has every item that it does not refuse",
        Duration::from_secs(10),
        async || {
            good.iter()
                .all(|session| stack.state_of(session).as_deref() == Some("active"))
        },
    )
    .await;
    assert!(
        stack.laravel.journal().answers()[&(Kind::PostStatusBatch, 422)] > 0,
        "the batch was refused for one of its items"
    );
    wait_until(
        "the refused item has been posted alone, and what Laravel says there is final",
        Duration::from_secs(20),
        async || stack.ledger().await.rejected == 1,
    )
    .await;
    stack.assert_ledger_balances().await;
    let ledger = stack.ledger().await;
    assert_eq!(
        (ledger.accepted, ledger.delivered, ledger.pending),
        (20, 19, 0)
    );
    let posts = stack.laravel.journal().answers()[&(Kind::PostStatus, 422)];
    assert_eq!(posts, 1, "once, and no more");

    // Nobody waits behind it.
    let later = sessions(GOOD + 1);
    for session in &later {
        stack.post_status(session, "active").await;
    }
    for session in &later {
        stack.arrived(session, 1).await;
    }
    stack.assert_order(None);
    stack.assert_no_vm_reload().await;
    Ok(())
}
