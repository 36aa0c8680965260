//! What is replaced before it is sent is not sent: Laravel gets the first value at once, because nobody
//! else is waiting, and after that one value a window.

use anyhow::Result;
use embudo::live::scaled;
use embudo_tests::{BOUND, Stack, qr, session};
use serde_json::json;

/// Long enough that ten posts fit into it on a busy machine.
const WINDOW_MS: u64 = 3_000;

#[tokio::test]
async fn the_newest_value_wins_inside_a_window() -> Result<()> {
    let batch = json!({"quiet_ms": 250, "max_wait_ms": WINDOW_MS});
    let routes = json!([{"name": "qr", "batch": batch}]);
    let stack = Stack::configured("newest", scaled(&json!({"routes": routes}), 1.0)).await?;
    let (shown, other) = (session(), session());
    stack.post_qr(&shown, &qr(0)).await;
    let first = stack.arrived(&shown, 1).await.remove(0);
    // Its answer is on its way back: until it is heard, what is posted takes the first one's place, too.
    stack.settled(BOUND).await;

    for turn in 1..=10 {
        let answer = stack.post_qr(&shown, &qr(turn)).await;
        assert_eq!(answer.outcome, "queued", "every new QR is accepted");
    }
    stack.post_qr(&other, &qr("other")).await;

    let ledger = stack.settled(BOUND).await;
    assert_eq!(
        stack.values_of(&shown),
        [qr(0), qr(10)],
        "of ten QRs inside the window only the newest is sent"
    );
    assert_eq!((ledger.accepted, ledger.superseded), (12, 9));
    let entries = stack.of_session(&shown);
    let apart_ms = entries[1].started_ms - first.started_ms;
    // The window begins when Embudo sends, a moment before Laravel begins with the call.
    assert!(
        apart_ms + 100 >= WINDOW_MS,
        "time alone makes no two calls within a window, and here are only {apart_ms} ms between them"
    );
    assert_eq!(
        stack.of_session(&other)[0].call,
        entries[1].call,
        "a window's sessions share one call"
    );
    stack.finish().await;
    Ok(())
}
