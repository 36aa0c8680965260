//! What is shown: Laravel's own answer, with the caller's newest state in the one place where it stands.

use embudo_tests::raw::Message;
use serde_json::{Value, json};

use super::panel::Panel;
use super::{BOUND, Result, ask, outcome, session, wait_until};

/// Nothing leaves for a while, so that there is a time before delivery.
fn slow() -> Value {
    json!({
        "assume": {"reads": true},
        "routes": [{"name": "status", "priority": [], "batch": {"quiet_ms": 3_000, "max_wait_ms": 3_000}}],
    })
}

#[tokio::test]
async fn the_state_is_patched_in_the_first_place_that_holds_it_and_in_no_other() -> Result<()> {
    type Form = fn(&str) -> Value;
    let forms: [(&str, Form, &str); 3] = [
        (
            "both",
            |state| json!({"estado_qr": state, "status": state}),
            r#"{"estado_qr":"active","status":"inactive"}"#,
        ),
        (
            "data",
            |state| json!({"data": {"estado_qr": state}}),
            r#"{"data":{"estado_qr":"active"}}"#,
        ),
        (
            "null",
            |_| json!({"estado_qr": null, "ok": 1}),
            r#"{"estado_qr":"active","ok":1}"#,
        ),
    ];
    for (name, form, patched) in forms {
        let panel = Panel::start(name, slow(), move |account, _| {
            (Vec::new(), form(&account.state))
        })
        .await?;
        let session = session();
        panel.has_state(&session, "inactive").await;
        panel.read(&session).await;
        panel.post_state(&session, "active").await;
        let read = panel.read(&session).await;
        let expected: Value = serde_json::from_str(patched)?;
        let body: Value = serde_json::from_slice(&read.body)?;
        assert_eq!(body, expected, "{name}");
        assert_eq!(
            read.header("content-length"),
            Some(read.body.len().to_string())
        );
        panel.settled().await;
        panel.envoy.stop();
    }
    Ok(())
}

#[tokio::test]
async fn a_read_with_a_query_is_laravels_and_shows_what_was_accepted() -> Result<()> {
    let panel = Panel::start("query", slow(), |account, _| {
        (Vec::new(), json!({"estado_qr": account.state}))
    })
    .await?;
    let session = session();
    panel.has_state(&session, "inactive").await;
    panel.until_cached(&ask(&session)).await;
    let before = panel.account(&session).reads;
    panel.post_state(&session, "active").await;
    for number in 1..=2 {
        let path = format!("/api/whatsapp/status/{session}?_={number}");
        let read = Message::new("GET", &path)
            .send(panel.envoy.listener)
            .await?;
        assert_eq!(outcome(&read), "fresh");
        assert_eq!(
            read.text(),
            r#"{"estado_qr":"active"}"#,
            "what was accepted shows"
        );
        assert_eq!(
            panel.account(&session).reads,
            before + number,
            "Laravel was asked"
        );
    }
    assert_eq!(
        panel.account(&session).state,
        "inactive",
        "it has nothing yet"
    );
    panel.settled().await;
    panel.envoy.stop();
    Ok(())
}

#[tokio::test]
async fn what_says_failure_is_relayed_and_the_account_shows_from_its_first_moment() -> Result<()> {
    let config = json!({"assume": {"reads": true}});
    let panel = Panel::start("failure", config, |account, _| match account.reads {
        0..=3 => (
            Vec::new(),
            json!({"success": false, "message": "Session not found", "status": "error"}),
        ),
        _ => (
            Vec::new(),
            json!({"success": true, "estado_qr": account.state}),
        ),
    })
    .await?;
    let session = session();
    panel.has_state(&session, "pending").await;
    for _ in 0..3 {
        let read = panel.read(&session).await;
        assert_eq!(outcome(&read), "fresh");
        assert!(read.text().contains("Session not found"), "{}", read.text());
    }
    let read = panel.read(&session).await;
    assert!(read.text().contains("pending"), "{}", read.text());
    panel.until_cached(&ask(&session)).await;
    panel.envoy.stop();
    Ok(())
}

#[tokio::test]
async fn a_name_that_nothing_was_posted_of_is_never_kept() -> Result<()> {
    let config = json!({"assume": {"reads": true}});
    let panel = Panel::start("health", config, |_, _| {
        (Vec::new(), json!({"status": "ok"}))
    })
    .await?;
    // Laravel's own voice is known, as it is where a gateway posts.
    panel.has_state(&session(), "active").await;
    for name in ["all", "health"] {
        for _ in 0..3 {
            let read = panel.read(name).await;
            assert_eq!(
                (read.status, outcome(&read)),
                (200, "fresh".into()),
                "{name}"
            );
        }
    }
    panel.dies();
    wait_until("Laravel's absence shows", BOUND, async || {
        panel.read("health").await.status == 503
    })
    .await;
    for name in ["all", "health"] {
        let read = panel.read(name).await;
        assert_eq!(read.status, 503, "{name}: {}", read.text());
    }
    panel.envoy.stop();
    Ok(())
}
