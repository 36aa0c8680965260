//! A person is standing before the screen: a QR that nobody else is waiting with must not wait for a batch.

use anyhow::Result;
use embudo_tests::{Stack, qr, session};

/// `quiet_ms` (250), the tick that notices it (50), and the way.
const PROMISE_MS: u64 = 500;

#[tokio::test]
async fn a_lone_qr_leaves_within_half_a_second() -> Result<()> {
    let stack = Stack::start("lone-qr").await?;
    let shown = session();

    let answer = stack.post_qr(&shown, &qr("lone")).await;

    assert_eq!(answer.outcome, "queued");
    let arrived = stack.arrived(&shown, 1).await.remove(0);
    // From before it was sent, which is before it was accepted.
    let took_ms = arrived.started_ms - answer.sent_ms;
    assert!(
        took_ms <= PROMISE_MS,
        "a lone QR reaches Laravel within {PROMISE_MS} ms, and this one took {took_ms} ms"
    );
    assert!(arrived.batched, "by the batch route, though it is alone");
    stack.finish().await;
    Ok(())
}
