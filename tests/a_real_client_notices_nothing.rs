//! axios on Node, configured as the gateway has it, between the same calls straight to Laravel and through Embudo:
//! every promise settles as before, on one kept-alive connection, and none is rejected where Laravel is down.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use embudo::live::laravel::LaravelServer;
use embudo::live::node;
use embudo_tests::{Stack, StackOptions};
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

const SESSION: &str = "3f1c9a52-6f0b-4d0e-9a3e-0c1d2e3f4a5b";

/// A program that hangs, on a busy machine; each call takes some milliseconds.
const CLIENT_MAX: Duration = Duration::from_secs(60);

/// Until everything is settled once Laravel is back: a probe's schedule, and a session that waits.
const SETTLED_MAX: Duration = Duration::from_secs(60);

/// How a promise settled.
#[derive(Debug, Deserialize)]
struct Settled {
    call: String,
    resolved: bool,
    status: Option<u16>,
    data: Value,
}

/// The calls of a session's life, one after the other. Waits between retries are 100 times shorter.
async fn axios(base_url: &str, calls: &[&str]) -> Result<Vec<Settled>> {
    let folder = tokio::task::spawn_blocking(|| node::ready("tests/axios-client")).await??;
    let client = Command::new("node")
        .arg(folder.join("client.mjs"))
        .args([&format!("{base_url}/api"), SESSION])
        .args(calls)
        .env("WAITS_DIVIDED_BY", "100")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(CLIENT_MAX, client).await;
    let output = output.context("the client hangs")?.context("Node 20")?;
    ensure!(
        output.status.success(),
        "the client ends with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let settled = String::from_utf8(output.stdout)?;
    let settled: Result<Vec<Settled>, _> = settled.lines().map(serde_json::from_str).collect();
    Ok(settled?)
}

/// Connections of the gateway that Envoy has accepted so far.
async fn connections(stack: &Stack) -> Result<u64> {
    let stats = stack.envoy.admin.stats().await?;
    Ok(stats.raw("http.gateway.downstream_cx_total"))
}

#[tokio::test]
async fn every_promise_settles_as_straight_to_laravel_and_on_one_connection() -> Result<()> {
    // An account is read from Laravel itself, which has an update a moment later: so it is asked for first.
    let calls = [
        "account",
        "status",
        "qr=2@a",
        "state=pending",
        "qr=2@a",
        "qr=2@b",
        "state=active",
        "status",
        "state=inactive",
        // Without a value it is Laravel's to refuse, and both loops try it four times.
        "qr",
        "status",
    ];
    let straight = LaravelServer::start(StackOptions::default().laravel).await?;
    let stack = Stack::start("axios").await?;

    let before = axios(&straight.url(), &calls).await?;
    let accepted = connections(&stack).await?;
    let now = axios(&stack.envoy.url(), &calls).await?;

    assert_eq!((before.len(), now.len()), (calls.len(), calls.len()));
    let rejected: Vec<_> = now.iter().filter(|settled| !settled.resolved).collect();
    assert!(
        rejected.len() == 1 && rejected[0].status == Some(422),
        "{rejected:?}"
    );
    for (before, now) in before.iter().zip(&now) {
        let call = &now.call;
        assert_eq!(
            (now.resolved, now.status),
            (before.resolved, before.status),
            "{call}"
        );
        // That the other member of a read follows the state was not seen here yet.
        let fields = match call.as_str() {
            "status" => &["success", "estado_qr"][..],
            _ => &["success", "estado_qr", "status"],
        };
        for field in fields {
            assert_eq!(
                now.data[field], before.data[field],
                "{call}: {field} of {now:?}"
            );
        }
    }
    assert_eq!(
        connections(&stack).await? - accepted,
        1,
        "axios keeps its connection"
    );
    stack.settled(SETTLED_MAX).await;
    Ok(())
}

#[tokio::test]
async fn no_promise_is_rejected_while_laravel_is_down() -> Result<()> {
    let mut stack = Stack::start("axios-down").await?;
    let url = stack.envoy.url();
    // Of a session that nothing was posted of nothing is kept.
    axios(&url, &["state=inactive"]).await?;
    stack.settled(SETTLED_MAX).await;
    let known = axios(&url, &["status"]).await?;
    assert!(known.iter().all(|settled| settled.resolved), "{known:?}");
    stack.laravel.down().await;
    let accepted = connections(&stack).await?;

    let calls = [
        "status",
        "qr=2@a",
        "state=pending",
        "status",
        "state=active",
        "status",
    ];
    let down = axios(&url, &calls).await?;

    assert_eq!(down.len(), calls.len());
    for settled in &down {
        assert!(
            settled.resolved && settled.status == Some(200),
            "{settled:?}"
        );
    }
    assert_eq!(
        down[5].data["estado_qr"], "active",
        "it reads what it wrote"
    );
    assert_eq!(
        connections(&stack).await? - accepted,
        1,
        "axios keeps its connection"
    );

    stack.laravel.up().await?;
    stack.settled(SETTLED_MAX).await;
    assert_eq!(
        stack.state_of(SESSION).as_deref(),
        Some("active"),
        "nothing was lost"
    );
    Ok(())
}
