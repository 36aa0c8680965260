//! A root context that is told to go while its call is under way asks Envoy to wait. If it went, the answer
//! would reach nobody, and the call's sessions would be held until their claims run out.

use std::time::Duration;

use anyhow::Result;
use embudo::model::http::Kind;
use embudo::model::laravel::{Fault, Misbehaviour};
use embudo_tests::{BOUND, Stack, qr, session, wait_until};
use serde_json::json;

const DRAIN_TIME_S: u32 = 1;

/// Well over the drain time, well under the call's timeout (15 s).
const SLOW_MS: u64 = 7_000;

/// A window (5 s) and a busy machine; a claim would hold the session for 31 s.
const NEXT_MAX_MS: u64 = 10_000;

#[tokio::test]
async fn a_call_that_outlives_its_listener_is_settled() -> Result<()> {
    let mut stack = Stack::with("outlives", |options| {
        options.watch_listener = true;
        options.drain_time_s = DRAIN_TIME_S;
    })
    .await?;
    let slow = Fault::always(Misbehaviour::Slow { ms: SLOW_MS });
    stack
        .laravel
        .set_faults(vec![slow.on(Kind::PostQrBatch).times(1)]);
    let (quiet, busy) = (session(), session());
    stack.post_qr(&quiet, &qr("first")).await;
    stack.post_qr(&busy, &qr("first")).await;
    wait_until("a call is under way", BOUND, async || {
        stack.laravel.counts().of(Kind::PostQrBatch).requests == 1
    })
    .await;

    stack
        .envoy
        .update_filter_config(&json!({
            "assume": {"callers": true},
            "upstream": {"headers": {"x-generation": "1"}},
        }))
        .await?;
    stack.drained(Duration::from_secs(20)).await;
    assert!(
        stack.of_session(&quiet).is_empty(),
        "the listener is gone while its dispatcher's call is under way"
    );
    stack.post_qr(&busy, &qr("second")).await;

    let of_busy = stack.arrived(&busy, 2).await;
    assert_eq!(stack.values_of(&busy), [qr("first"), qr("second")]);
    let after_ms = of_busy[1]
        .started_ms
        .checked_sub(of_busy[0].finished_ms)
        .expect("the new dispatcher respects a call that is not its own");
    assert!(
        after_ms < NEXT_MAX_MS,
        "the answer frees the session; it is not held for {after_ms} ms"
    );
    let ledger = stack.settled(BOUND).await;
    assert_eq!(
        (ledger.accepted, ledger.delivered, ledger.superseded),
        (3, 2, 1),
        "what the old dispatcher delivered is in the books"
    );
    assert_eq!(
        stack.values_of(&quiet),
        [qr("first")],
        "and is not sent again"
    );
    stack.finish().await;
    Ok(())
}
