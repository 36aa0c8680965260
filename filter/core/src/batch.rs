//! A call's headers and body.
//!
//! An item is the caller's JSON object, byte for byte, with a few members spliced in before its closing
//! brace where it lacks them. Nothing is parsed into a tree and written out again: what Laravel reads in
//! a batch is what it would have read in the single post.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::config::{BatchCall, Fallback, Route};
use crate::hash::HashKey;
use crate::json::{self, Pointer};
use crate::route::{Destination, Rules};
use crate::shard::Claimed;

/// One call to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The dispatcher's name for it.
    pub id: u64,
    /// Envoy cluster.
    pub cluster: String,
    /// Pseudo headers first.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Timeout, milliseconds.
    pub timeout_ms: u64,
    /// Monotonic: not to be sent after this. The host looks at its clock as the last thing before it
    /// dispatches.
    pub send_by_ms: u64,
}

/// Members that an item may get, and their size at most: both session names, timestamp, implied state.
pub const SPLICED_BYTES_MAX: usize = 256;

/// The body of a batch.
#[must_use]
pub fn batch_body(
    rules: &Rules,
    route: usize,
    rule: &Route,
    call: &BatchCall,
    items: &[Claimed],
) -> Vec<u8> {
    let size = items
        .iter()
        .map(|item| item.body.len().saturating_add(SPLICED_BYTES_MAX));
    let mut out = Vec::with_capacity(size.fold(64, usize::saturating_add));
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(call.field.as_bytes());
    out.extend_from_slice(b"\":");
    put_items(rules, route, rule, call.verbatim, items, &mut out);
    out.push(b'}');
    out
}

/// The body of an event for the webhook: its name, its reason and its batch's id, then the items.
#[must_use]
pub fn event_body(
    rules: &Rules,
    route: usize,
    rule: &Route,
    (event, reason, id): (&str, &str, &str),
    items: &[Claimed],
) -> Vec<u8> {
    let head =
        format!("{{\"event\":\"{event}\",\"reason\":\"{reason}\",\"batchId\":\"{id}\",\"items\":");
    let mut out = head.into_bytes();
    let verbatim = rule.batch.call.as_ref().is_none_or(|call| call.verbatim);
    put_items(rules, route, rule, verbatim, items, &mut out);
    out.push(b'}');
    out
}

/// The headers of an event: nothing of any caller's.
#[must_use]
pub fn event_headers(fallback: &Fallback, id: &str, items: usize) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::from([
        (":method".into(), "POST".into()),
        (":path".into(), fallback.path.clone()),
        (":authority".into(), fallback.authority.clone()),
        ("content-type".into(), "application/json".into()),
        ("x-batch-id".into(), id.into()),
        ("x-batch-size".into(), items.to_string()),
    ]);
    headers.extend(fallback.headers.iter().cloned());
    headers
}

fn put_items(
    rules: &Rules,
    route: usize,
    rule: &Route,
    verbatim: bool,
    items: &[Claimed],
    out: &mut Vec<u8>,
) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match verbatim {
            true => out.extend_from_slice(item.body.trim_ascii()),
            false => splice(rules, route, rule, item, out),
        }
    }
    out.push(b']');
}

/// One item: the body with what it lacks.
fn splice(rules: &Rules, route: usize, rule: &Route, claimed: &Claimed, out: &mut Vec<u8>) {
    let body = claimed.body.trim_ascii();
    let (Some(item), Some(open)) = (rules.item(route, body), body.strip_suffix(b"}")) else {
        // It was readable when it was accepted; a rule that has changed since may not find its session.
        out.extend_from_slice(body);
        return;
    };
    let mut extra = String::new();
    let mut add = |key: &str, json: &str| {
        if !item.document.has_key(key) {
            for part in [",\"", key, "\":", json] {
                extra.push_str(part);
            }
        }
    };
    for key in rule.session_pointers().filter_map(Pointer::top_level_key) {
        add(key, &item.session_json);
    }
    add("timestamp", &claimed.timestamp_ms.to_string());
    if let Some(implies) = &rule.implies {
        add(&implies.key, &json::quoted(&implies.value));
    }
    out.extend_from_slice(open);
    // A recognised body has a session, so there is always something before the comma.
    out.extend_from_slice(extra.as_bytes());
    out.push(b'}');
}

/// The headers of a call to `path`.
#[must_use]
pub fn headers(
    rules: &Rules,
    destination: &Destination,
    path: &str,
    batch: Option<&[Claimed]>,
) -> Vec<(String, String)> {
    let upstream = &rules.config.upstream;
    let prefix = upstream
        .prefix_rewrite
        .as_ref()
        .unwrap_or(&destination.prefix);
    let authority = upstream
        .authority
        .as_ref()
        .unwrap_or(&destination.authority);
    let mut headers: Vec<(String, String)> = Vec::from([
        (":method".into(), "POST".into()),
        (":path".into(), format!("{prefix}{path}")),
        (":authority".into(), authority.clone()),
        ("content-type".into(), "application/json".into()),
        // Or Laravel answers a failed validation with a redirect.
        ("accept".into(), "application/json".into()),
    ]);
    if !destination.scheme.is_empty() {
        headers.push(("x-forwarded-proto".into(), destination.scheme.clone()));
    }
    if let Some(items) = batch {
        headers.push(("x-batch-id".into(), batch_id(rules.key, items)));
        headers.push(("x-batch-size".into(), items.len().to_string()));
    }
    headers.extend(destination.credentials.iter().cloned());
    headers.extend(upstream.headers.iter().cloned());
    headers
}

/// The same as long as the batch is repeated unchanged: Laravel may use it to recognise a repetition.
#[must_use]
pub fn batch_id(key: HashKey, items: &[Claimed]) -> String {
    let bytes: Vec<u8> = items
        .iter()
        .flat_map(|item| {
            item.session
                .to_le_bytes()
                .into_iter()
                .chain(item.seq.to_le_bytes())
        })
        .collect();
    format!("{:032x}", key.hash(&[&bytes]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::rules;

    fn claimed(body: &str) -> Claimed {
        Claimed {
            session: 1,
            seq: 2,
            accepted_ms: 3,
            timestamp_ms: 1234,
            body: body.into(),
        }
    }

    fn body(route: usize, bodies: &[&str]) -> String {
        let rules = rules("{}");
        let items: Vec<_> = bodies.iter().copied().map(claimed).collect();
        let rule = rules.route(route).unwrap();
        String::from_utf8(batch_body(
            &rules,
            route,
            rule,
            rule.batch.call.as_ref().unwrap(),
            &items,
        ))
        .unwrap()
    }

    #[test]
    fn an_item_is_the_original_object_with_what_it_lacks() {
        assert_eq!(
            body(
                0,
                &[
                    r#"{"session_id":"a","qr":"2\u0040x", "z":1.50}"#,
                    r#" {"sessionId":7,"qr":"y"} "#
                ]
            ),
            concat!(
                r#"{"qrs":[{"session_id":"a","qr":"2\u0040x", "z":1.50,"#,
                r#""sessionId":"a","timestamp":1234,"estado_qr":"pending"},"#,
                r#"{"sessionId":7,"qr":"y","session_id":7,"timestamp":1234,"estado_qr":"pending"}]}"#
            )
        );
    }

    #[test]
    fn what_the_caller_gave_is_never_overwritten() {
        let full = r#"{"session_id":"a","sessionId":"b","timestamp":5,"estado_qr":"active"}"#;
        assert_eq!(body(1, &[full]), format!(r#"{{"statuses":[{full}]}}"#));
    }

    #[test]
    fn a_repeated_batch_keeps_its_id_and_another_gets_its_own() {
        let rules = rules("{}");
        let id = |items: &[Claimed]| {
            let headers = headers(&rules, &Destination::default(), "/qr/batch", Some(items));
            headers
                .into_iter()
                .find(|(name, _)| name == "x-batch-id")
                .unwrap()
                .1
        };
        let one = [claimed("{}")];
        let mut other = one.clone();
        other[0].seq = 9;
        assert_eq!(id(&one), id(&one.clone()));
        assert_ne!(id(&one), id(&other));
    }

    #[test]
    fn the_call_looks_like_the_callers_requests() {
        let rules = rules(r#"{"upstream":{"headers":{"x-source":"embudo"}}}"#);
        let destination = Destination {
            authority: "laravel.test".into(),
            scheme: "https".into(),
            prefix: "/api".into(),
            path: "/qr".into(),
            credentials: Vec::from([("authorization".into(), "Bearer t".into())]),
        };
        let headers = headers(&rules, &destination, "/qr/batch", Some(&[claimed("{}")]));
        let get = |name: &str| {
            headers
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(get(":path"), Some("/api/qr/batch"));
        assert_eq!(get(":authority"), Some("laravel.test"));
        assert_eq!(get("x-forwarded-proto"), Some("https"));
        assert_eq!(get("authorization"), Some("Bearer t"));
        assert_eq!(get("accept"), Some("application/json"));
        assert_eq!(get("x-batch-size"), Some("1"));
        assert_eq!(get("x-source"), Some("embudo"));
    }
}
