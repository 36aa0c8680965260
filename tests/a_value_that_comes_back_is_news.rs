//! Duplicates are judged against the *last* value. A set of seen values would swallow a session that comes
//! back: active, inactive, active.

use anyhow::Result;
use embudo::live::{Envoy, EnvoyOptions, scaled};
use embudo_tests::raw::Message;
use embudo_tests::{Answers, BOUND, Stack, Target, qr, session, wait_until};
use serde_json::{Value, json};

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

#[tokio::test]
async fn the_same_state_with_more_beside_it_is_news_and_arrives_whole() -> Result<()> {
    let target = Target::start(Answers::Json).await?;
    let options = EnvoyOptions {
        filter_config: scaled(&json!({"assume": {"callers": true}}), FASTER),
        ..EnvoyOptions::new("state-and-more", target.addr)
    };
    let envoy = Envoy::start(options).await?;
    let post = async |body: &Value| {
        let answer = Message::json("/api/whatsapp/status", body.to_string());
        let answer = answer.send(envoy.listener).await.expect("an answer");
        answer.header("x-embudo").unwrap_or_default()
    };
    // What has arrived of a session, whether it came in a batch or alone.
    let arrived = |session: &str| -> Vec<Value> {
        let calls = target.calls();
        let bodies = calls.iter().map(|call| serde_json::from_slice(&call.body));
        let bodies = bodies.map(|body: Result<Value, _>| body.expect("JSON"));
        let items = bodies.flat_map(|body| match body["statuses"].as_array() {
            Some(items) => items.clone(),
            None => vec![body],
        });
        let is_one = |item: &Value| item["session_id"] == session;
        items.filter(is_one).collect()
    };
    for more in [
        json!({"estado_qr": "active", "phone": "5215550001111"}),
        json!({"estado_qr": "inactive", "reason": "logged out"}),
        json!({"estado_qr": "connecting", "session_data": {"device": {"name": "a"}}}),
    ] {
        let session = session();
        let mut plain = json!({"session_id": session, "estado_qr": more["estado_qr"]});
        let mut body = more.clone();
        body["session_id"] = json!(session);
        for (number, said) in [&plain, &body, &plain].into_iter().enumerate() {
            assert_eq!(post(said).await, "queued", "{said}");
            wait_until("it arrives", BOUND, async || {
                arrived(&session).len() > number
            })
            .await;
            assert_eq!(post(said).await, "duplicate", "{said}");
        }
        let items = arrived(&session);
        for (name, value) in more.as_object().expect("an object") {
            assert_eq!(&items[1][name], value, "{name} arrives");
        }
        // What changes with each delivery is not news.
        plain["timestamp"] = json!(1_700_000_000);
        assert_eq!(post(&plain).await, "duplicate");
        assert_eq!(arrived(&session).len(), 3, "{items:?}");
    }
    envoy.stop();
    Ok(())
}
