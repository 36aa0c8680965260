//! A disconnect is what somebody has to act on. It waits for no window, and yet for everything older of its
//! own session.

use std::time::Duration;

use anyhow::Result;
use embudo::model::http::Kind;
use embudo::model::laravel::{Fault, Misbehaviour};
use embudo_tests::{BOUND, Stack, session, sessions, wait_until};

const PROMISE_MS: u64 = 150;

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_reaches_laravel_within_150_ms_of_its_acceptance() -> Result<()> {
    let stack = Stack::start("disconnect").await?;
    let sessions = sessions(3);
    for session in &sessions {
        // A state that opens a gate would leave at once as well.
        stack.post_status(session, "connecting").await;
    }
    stack.settled(BOUND).await;

    let mut last_priority_ms = None;
    for session in &sessions {
        // Those that come within a second of each other share a call; these are to be alone.
        let gap_is_over = |now_ms| last_priority_ms.is_none_or(|last| now_ms > last + 1_100);
        wait_until("a second without a priority call", BOUND, async || {
            gap_is_over(stack.laravel.now_ms())
        })
        .await;
        let answer = stack.post_status(session, "inactive").await;

        let arrived = stack.arrived(session, 2).await.remove(1);
        last_priority_ms = Some(arrived.started_ms);
        // From before it was sent, which is before it was accepted.
        let took_ms = arrived.started_ms - answer.sent_ms;
        assert!(
            took_ms <= PROMISE_MS,
            "a disconnect reaches Laravel within {PROMISE_MS} ms, and this one took {took_ms} ms"
        );
        assert_eq!(arrived.value, "inactive");
    }
    stack.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_follows_what_is_older_of_its_session_and_not_what_is_slow_of_another()
-> Result<()> {
    const SLOW_MS: u64 = 1_500;
    let stack = Stack::start("disconnect-after").await?;
    let (busy, idle) = (session(), session());
    stack.laravel.set_faults(vec![
        Fault::always(Misbehaviour::Slow { ms: SLOW_MS })
            .on(Kind::PostStatusBatch)
            .times(1),
    ]);
    stack.post_status(&busy, "connecting").await;
    wait_until("Laravel is busy with the older state", BOUND, async || {
        stack.laravel.counts().of(Kind::PostStatusBatch).requests == 1
    })
    .await;

    let answers = [
        stack.post_status(&busy, "inactive").await,
        stack.post_status(&idle, "inactive").await,
    ];

    assert!(
        answers.iter().all(|answer| answer.outcome == "queued"),
        "the gateway is answered while Laravel is slow: {answers:?}"
    );
    let of_busy = stack.arrived(&busy, 2).await;
    let of_idle = stack.arrived(&idle, 1).await.remove(0);
    assert_eq!(stack.values_of(&busy), ["connecting", "inactive"]);
    let after_ms = of_busy[1]
        .started_ms
        .checked_sub(of_busy[0].finished_ms)
        .expect("a disconnect does not overtake what is older of its session");
    assert!(
        after_ms <= PROMISE_MS,
        "it follows at once, and not after {after_ms} ms"
    );
    assert!(
        of_idle.finished_ms < of_busy[0].finished_ms,
        "another session's disconnect does not wait for it"
    );
    assert!(
        Duration::from_millis(of_busy[0].finished_ms - of_busy[0].started_ms)
            >= Duration::from_millis(SLOW_MS),
        "the older state was under way all the time"
    );
    stack.finish().await;
    Ok(())
}
