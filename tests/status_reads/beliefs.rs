//! What is served from the store is what Laravel would have said, as far as Laravel itself has shown; where it shows
//! more than the state, it is asked.

use serde_json::json;

use super::panel::Panel;
use super::{BOUND, Result, ask, outcome, session, wait_until};

/// What is logged where answers differ.
const DIFFERS: &str = "change in more than the state";

/// How many of a belief are in this state.
async fn beliefs(panel: &Panel, state: &str) -> u64 {
    let labels = [("belief", "reads"), ("state", state)];
    panel.counter("embudo.beliefs", &labels).await
}

/// What the log says of answers that differ, once it says something.
async fn differences(panel: &Panel) -> Vec<String> {
    let mut lines = Vec::new();
    wait_until("the log names what differs", BOUND, async || {
        lines = panel.envoy.grep_log(DIFFERS);
        !lines.is_empty()
    })
    .await;
    lines
}

#[tokio::test]
async fn three_answers_that_differ_in_the_state_alone_make_it_believed() -> Result<()> {
    let panel = Panel::start("believed", json!({}), |account, _| {
        (
            Vec::new(),
            json!({"estado_qr": account.state, "status": account.state}),
        )
    })
    .await?;
    for _ in 0..3 {
        let session = session();
        for state in ["connecting", "active"] {
            panel.has_state(&session, state).await;
            let read = panel.read(&session).await;
            assert_eq!(outcome(&read), "fresh", "nothing is believed yet");
            assert_eq!(read.body, panel.straight(&session).await.body);
        }
    }
    wait_until("it shows as proven", BOUND, async || {
        beliefs(&panel, "proven").await > 0
    })
    .await;
    let session = session();
    panel.has_state(&session, "connecting").await;
    panel.read(&session).await;
    let before = panel.account(&session).reads;
    panel.post_state(&session, "active").await;
    let read = panel.until_cached(&ask(&session)).await;
    panel.settled().await;

    assert_eq!(
        read.body,
        panel.straight(&session).await.body,
        "both members follow, as they have at other sessions"
    );
    assert!(
        panel.account(&session).reads <= before + 2,
        "one may be compared"
    );
    let same = panel
        .counter("embudo.reads_compared", &[("result", "same")])
        .await;
    assert!(same >= 3, "{same}");
    assert!(panel.envoy.grep_log(DIFFERS).is_empty());
    panel.envoy.stop();
    Ok(())
}

#[tokio::test]
async fn what_changes_beside_the_state_is_laravels_own_each_time_and_the_log_names_it() -> Result<()>
{
    let panel = Panel::start("qr-beside", json!({}), |account, _| {
        let is_connected = account.state == "active";
        (
            Vec::new(),
            json!({"estado_qr": account.state, "connected": is_connected, "qr": account.qr}),
        )
    })
    .await?;
    let session = session();
    let right = async |what: &str| {
        panel.settled().await;
        let read = panel.read(&session).await;
        assert_eq!(read.body, panel.straight(&session).await.body, "{what}");
        assert_eq!(outcome(&read), "fresh", "{what}");
    };
    panel.has_state(&session, "pending").await;
    right("the first").await;
    for number in 0..3 {
        let qr = json!({"session_id": session, "qr": format!("2@secret-{number}")});
        panel.post("/api/qr", qr).await;
        right("a new QR").await;
    }
    panel.post_state(&session, "active").await;
    right("active").await;

    let lines = differences(&panel).await;
    assert!(lines.len() <= 2, "one a worker: {lines:#?}");
    // After a new QR nothing is compared: it may have set a state.
    assert!(lines[0].contains("(connected)"), "{lines:#?}");
    assert!(
        panel.envoy.grep_log("2@secret").is_empty(),
        "a QR is a credential"
    );
    wait_until("it shows as disproved", BOUND, async || {
        beliefs(&panel, "disproved").await > 0
    })
    .await;
    let differs = [("result", "differs")];
    assert!(panel.counter("embudo.reads_compared", &differs).await > 0);
    panel.envoy.stop();
    Ok(())
}

#[tokio::test]
async fn what_is_assumed_is_contradicted_in_the_log_and_served_all_the_same() -> Result<()> {
    let config = json!({"assume": {"reads": true}});
    let panel = Panel::start("assumed", config, |account, _| {
        (
            Vec::new(),
            json!({"estado_qr": account.state, "phone": account.reads}),
        )
    })
    .await?;
    let session = session();
    panel.has_state(&session, "active").await;
    panel.until_cached(&ask(&session)).await;
    for _ in 0..6 {
        let fresh = ask(&session).with("cache-control", "no-cache");
        let fresh = fresh.send(panel.envoy.listener).await?;
        assert_eq!(outcome(&fresh), "fresh");
    }

    assert_eq!(outcome(&panel.read(&session).await), "cached");
    let lines = differences(&panel).await;
    assert!(lines.len() <= 2, "once a worker: {lines:#?}");
    assert!(
        lines[0].contains("(phone)") && lines[0].contains("assume.reads"),
        "{lines:#?}"
    );
    wait_until("it shows as assumed", BOUND, async || {
        beliefs(&panel, "assumed").await == 1
    })
    .await;
    assert_eq!(beliefs(&panel, "disproved").await, 0);
    panel.envoy.stop();
    Ok(())
}
