//! Where a listener names another cluster for Embudo's calls, what comes through it goes there, and nowhere else.

use anyhow::{Context as _, Result};
use embudo::live::Twin;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo_tests::raw::Message;
use embudo_tests::{BOUND, Stack, session, status_body, wait_until};
use serde_json::{Value, json};

/// A cluster for Embudo's calls to another Laravel.
fn cluster(name: &str, laravel: &LaravelServer) -> Value {
    let port = laravel.addr.port();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        }}]}]},
    })
}

async fn other() -> Result<LaravelServer> {
    Ok(LaravelServer::start(LaravelOptions::costing(0)).await?)
}

fn values(laravel: &LaravelServer, session: &str) -> Vec<String> {
    laravel.with(|laravel| {
        let entries = laravel.journal().of_session(session);
        entries.map(|entry| entry.value.clone()).collect()
    })
}

#[tokio::test]
async fn a_copied_listener_with_another_laravel_has_its_updates_there() -> Result<()> {
    let other = other().await?;
    let clusters = [cluster("other", &other), cluster("other_batch", &other)];
    let stack = Stack::with("copied-listener", |options| {
        options.envoy_changes = clusters
            .map(|cluster| ("clusters/+".to_owned(), cluster))
            .to_vec();
        options.twins = vec![Twin::Backend("other".to_owned())];
    })
    .await?;
    let twin = stack
        .envoy
        .admin
        .listener("backend")
        .await?
        .context("the other listener")?;
    let shown = session();
    for (to, value) in [(stack.envoy.listener, "connecting"), (twin, "pending")] {
        // The first is written through, and proves.
        for session in [session(), shown.clone()] {
            let message = Message::json("/api/whatsapp/status", status_body(&session, value));
            let answer = message.with("accept", "application/json").send(to).await?;
            assert_eq!(answer.status, 200);
        }
    }
    stack.arrived(&shown, 1).await;
    wait_until("each goes where it came from", BOUND, async || {
        values(&other, &shown) == ["pending"]
    })
    .await;
    assert_eq!(stack.values_of(&shown), ["connecting"]);
    stack.settled(BOUND).await;
    stack.envoy.stop();
    Ok(())
}
