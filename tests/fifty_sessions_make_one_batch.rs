//! A full batch leaves at once, as one call, and every item in it is what the gateway wrote: byte for byte,
//! with a few members added before the closing brace.

use std::time::Duration;

use anyhow::{Context as _, Result};
use embudo::live::scaled;
use embudo::model::http::{Kind, Request};
use embudo_tests::{Stack, qr, sessions, wait_until};
use serde_json::json;

/// The default size of a QR batch.
const ITEMS: usize = 50;

/// So long that only a full batch can leave, however slow the posts are.
const QUIET_MS: u64 = 60_000;

#[tokio::test]
async fn fifty_sessions_make_one_batch() -> Result<()> {
    let batch = json!({"quiet_ms": QUIET_MS, "max_wait_ms": QUIET_MS});
    let routes = json!([{"name": "qr", "expire_after_ms": 2 * QUIET_MS, "batch": batch}]);
    let stack = Stack::configured("fifty", scaled(&json!({"routes": routes}), 1.0)).await?;
    stack.laravel.record_raw(true);
    let items: Vec<Item> = sessions(ITEMS).into_iter().enumerate().map(item).collect();

    for item in &items {
        let answer = stack.gateway.post("/api/qr", item.posted.clone()).await?;
        assert_eq!(answer.outcome, "queued", "{}", item.posted);
    }

    wait_until(
        "the fiftieth session completes the batch, which leaves at once",
        Duration::from_secs(5),
        async || stack.laravel.counts().of(Kind::PostQrBatch).requests > 0,
    )
    .await;
    for item in &items {
        stack.arrived(&item.session, 1).await;
    }
    let raw = stack.laravel.raw();
    let [call] = &raw[..] else {
        panic!("fifty sessions make one call, not {}", raw.len());
    };
    assert_eq!((&*call.method, &*call.path), ("POST", "/api/qr/batch"));
    let headers = ["content-type", "accept", "x-batch-size", "host"].map(|h| call.header(h));
    assert_eq!(
        headers,
        ["application/json", "application/json", "50", "laravel.test"].map(Some)
    );
    assert_batch_of(&items, call)?;
    stack.finish().await;
    Ok(())
}

/// A body as it was posted, and how it goes on in the batch instead of with its closing brace.
struct Item {
    session: String,
    posted: String,
    kept: String,
    added: String,
}

/// Bodies that a parser that writes them anew would change: blanks, escapes, numbers, the order of keys.
fn item((at, session): (usize, String)) -> Item {
    let qr = qr(at);
    let both_names = format!(r#","sessionId":"{session}","timestamp":T,"estado_qr":"pending""#);
    let (posted, added) = match at % 5 {
        0 => (
            format!(r#"{{"session_id":"{session}","qr":"{qr}"}}"#),
            both_names,
        ),
        1 => (
            format!("\r\n{{ \"qr\" : \"{qr}\",\n\t\"session_id\":\"{session}\" }}\n"),
            both_names,
        ),
        2 => (
            format!(
                r#"{{"a":1.50e+2,"b":12345678901234567890,"z":null,"session_id":"{session}","qr":"{qr}\/\u00e9é","n":[{{}},[]]}}"#
            ),
            both_names,
        ),
        3 => (
            format!(
                r#"{{"session_id":"{session}","sessionId":"other","timestamp":7,"estado_qr":"x","qr":"{qr}"}}"#
            ),
            String::new(),
        ),
        _ => (
            format!(r#"{{"estado_qr":"pending","qr":"{qr}","session_id":"{session}"}}"#),
            format!(r#","sessionId":"{session}","timestamp":T"#),
        ),
    };
    let kept = posted
        .trim()
        .strip_suffix('}')
        .unwrap_or_default()
        .to_owned();
    Item {
        session,
        posted,
        kept,
        added,
    }
}

/// Takes the body apart from its front, item by item in whatever order, until nothing is left.
fn assert_batch_of(items: &[Item], call: &Request) -> Result<()> {
    let body = std::str::from_utf8(&call.body)?;
    let mut left: Vec<&Item> = items.iter().collect();
    let mut rest = body
        .strip_prefix(r#"{"qrs":["#)
        .context("a batch begins with its field")?;
    while !left.is_empty() {
        let next = left
            .iter()
            .position(|item| rest.starts_with(&item.kept))
            .with_context(|| format!("no original item, byte for byte, at {rest:.200}"))?;
        let item = left.swap_remove(next);
        rest = &rest[item.kept.len()..];
        rest = match item.added.split_once('T') {
            None => rest.strip_prefix(&item.added),
            Some((before, after)) => rest.strip_prefix(before).and_then(|rest| {
                let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                assert_eq!(digits, 13, "a timestamp in ms: {rest:.60}");
                rest[digits..].strip_prefix(after)
            }),
        }
        .with_context(|| format!("expected {:?} to be added at {rest:.200}", item.added))?;
        let end = if left.is_empty() { "}]}" } else { "}," };
        rest = rest
            .strip_prefix(end)
            .with_context(|| format!("an item ends with {end} at {rest:.200}"))?;
    }
    assert_eq!(rest, "", "nothing follows the last item");
    Ok(())
}
