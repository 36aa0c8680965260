//! A listener update that leaves nobody to deliver what was accepted says so, with the number: the store is still there,
//! under a name that nobody reads.

use anyhow::Result;
use embudo::model::laravel::{Fault, Misbehaviour};
use embudo_tests::{BOUND, Stack, qr, session, wait_until};
use serde_json::json;

const LINE: &str = "5 updates are pending and no filter of this name is left ";

/// An Envoy with five updates that Laravel does not take.
async fn five_pending(name: &str) -> Result<Stack> {
    let stack = Stack::with(name, |options| {
        options.watch_listener = true;
        options.drain_time_s = 1;
        options.filter_config = json!({"assume": {"callers": true}});
    })
    .await?;
    let unwell = Misbehaviour::Status {
        code: 503,
        headers: Vec::new(),
        body: String::new(),
        processed: false,
    };
    stack.laravel.set_faults(vec![Fault::always(unwell)]);
    for _ in 0..5 {
        let answer = stack.post_qr(&session(), &qr("x")).await;
        assert_eq!(answer.outcome, "queued");
    }
    Ok(stack)
}

async fn is_told(stack: &Stack) {
    wait_until("an ERROR with the number", BOUND, async || {
        let lines = stack.envoy.grep_log(LINE);
        assert!(lines.len() <= 1, "once: {lines:?}");
        lines
            .iter()
            .any(|line| line.contains("[error]") || line.contains("[E]"))
    })
    .await;
}

#[tokio::test]
async fn where_the_plugin_is_renamed() -> Result<()> {
    let mut stack = five_pending("renamed-plugin").await?;
    stack.envoy.rename_plugin("another").await?;
    is_told(&stack).await;
    stack.envoy.stop();
    Ok(())
}

#[tokio::test]
async fn where_the_listener_is_taken_out() -> Result<()> {
    let mut stack = five_pending("listener-taken-out").await?;
    stack.envoy.remove_listener().await?;
    is_told(&stack).await;
    stack.envoy.stop();
    Ok(())
}
