//! A call whose connection was refused never left; one whose connection broke afterwards may still be at
//! work in PHP. What Envoy makes of both is a 503, and the difference is in its text. So this is asked of
//! the real Envoy, by what Embudo then does: a session whose call has an unknown fate is held until nothing
//! of it can be under way any more, and then goes on with its newest value; nobody else waits.

use anyhow::Result;
use embudo::live::scaled;
use embudo::model::http::Kind;
use embudo::model::laravel::{Fault, Misbehaviour};
use embudo_tests::{BOUND, Stack, qr, session, wait_until};
use serde_json::json;

const SEND_WINDOW_MS: u64 = 200;
const CALL_TIMEOUT_MS: u64 = 800;
const LATE_MS: u64 = 1_500;

/// For how long a claim protects its session.
const HELD_MS: u64 = SEND_WINDOW_MS + CALL_TIMEOUT_MS + LATE_MS;

#[tokio::test]
async fn a_refused_connection_holds_nothing() -> Result<()> {
    let mut stack = Stack::start("refused-connection").await?;
    let shown = session();
    stack.laravel.down().await;

    let answer = stack.post_qr(&shown, &qr("shown")).await;

    assert_eq!(answer.outcome, "queued", "the gateway notices nothing");
    wait_until("a call is refused", BOUND, async || {
        calls(&stack, "retry").await > 0
    })
    .await;
    assert_eq!(
        calls(&stack, "unknown").await,
        0,
        "nobody can be at work on a call whose connection was refused"
    );
    stack.laravel.up().await?;
    let up_ms = stack.laravel.now_ms();
    let arrived = stack.arrived(&shown, 1).await.remove(0);
    let took_ms = arrived.started_ms - up_ms;
    // Back-off up to 2 s after so few failures, or Envoy's shortest ejection (3 s); a held session would
    // need 31 s by default.
    assert!(
        took_ms < 10_000,
        "it is tried again after a back-off, and not only after {took_ms} ms"
    );
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_connection_lost_after_the_request_holds_its_sessions_and_nobody_else() -> Result<()> {
    let times = json!({
        "send_window_ms": SEND_WINDOW_MS,
        "call_timeout_ms": CALL_TIMEOUT_MS,
        "late_ms": LATE_MS,
    });
    let stack = Stack::configured("lost-connection", scaled(&times, 10.0)).await?;
    let lost = |after_bytes, processed| Misbehaviour::Reset {
        after_bytes,
        processed,
    };
    let bad_gateway = Misbehaviour::status(502);
    let cases = [
        ("closed without a word, processed", lost(0, true), true),
        (
            "closed without a word, not processed",
            lost(0, false),
            false,
        ),
        ("broken off in mid-answer", lost(5, true), true),
        ("lost between nginx and PHP", bad_gateway, false),
    ];
    for (at, (case, what, processed)) in cases.into_iter().enumerate() {
        let fault = Fault::always(what).on(Kind::PostQrBatch).times(1);
        stack.laravel.set_faults(vec![fault]);
        let (held, other) = (session(), session());
        let first = stack.post_qr(&held, &qr("first")).await;
        wait_until(case, BOUND, async || {
            calls(&stack, "unknown").await == at as u64 + 1
        })
        .await;

        stack.post_qr(&held, &qr("second")).await;
        stack.post_qr(&other, &qr("other")).await;

        let of_other = stack.arrived(&other, 1).await.remove(0);
        let of_held = stack.arrived(&held, 1 + usize::from(processed)).await;
        let second = of_held.last().expect("it has arrived");
        let mut values = vec![qr("first"), qr("second")];
        values.drain(..usize::from(!processed));
        assert_eq!(
            stack.values_of(&held),
            values,
            "{case}: the session goes on with its newest value"
        );
        // The claim was made after the post began.
        let until_ms = first.sent_ms + HELD_MS;
        assert!(
            second.started_ms >= until_ms,
            "{case}: nothing of the session is sent before {until_ms}, and this was at {}",
            second.started_ms
        );
        assert!(
            of_other.started_ms < until_ms,
            "{case}: another session does not wait for it"
        );
    }
    stack.finish().await;
    Ok(())
}

async fn calls(stack: &Stack, verdict: &str) -> u64 {
    stack.counter("embudo.calls", &[("verdict", verdict)]).await
}
