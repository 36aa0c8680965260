//! A call's headers and body.
//!
//! An item is the caller's JSON object, byte for byte, with a few members spliced in before its closing
//! brace where it lacks them. Nothing is parsed into a tree and written out again: what Laravel reads in
//! a batch is what it would have read in the single post.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use embudo_core::config::{BatchCall, Fallback, Route};
use embudo_core::hash::HashKey;
use embudo_core::json::{self, Pointer};
use embudo_core::route::{Destination, Neutral, Rules};
use embudo_core::shard::Claimed;

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

/// The names of a batch's sessions, as its answer may name them.
#[must_use]
pub fn sessions(rules: &Rules, route: usize, items: &[Claimed]) -> Vec<String> {
    let name = |claimed: &Claimed| {
        let item = rules.item(route, &claimed.body)?;
        json::word(item.session_json.as_bytes()).map(|name| name.into_owned())
    };
    items
        .iter()
        .map(|item| name(item).unwrap_or_default())
        .collect()
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

/// The headers of a call to `path`: of a batch of these items, or of the first of them alone.
#[must_use]
pub fn headers(
    rules: &Rules,
    destination: &Destination,
    path: &str,
    items: &[Claimed],
    together: bool,
) -> Vec<(String, String)> {
    let alone = items.first().filter(|_| !together);
    let own = alone.map_or_else(Vec::new, |item| Neutral::decode(&item.neutral));
    let upstream = &rules.config.upstream;
    let configured = match destination.cluster == upstream.cluster {
        true => upstream.headers.as_slice(),
        // Another configuration's item has that one's with it.
        false => &[],
    };
    let is_configured = |name: &str| configured.iter().any(|(known, _)| known == name);
    let has_own = |name: &str| own.iter().any(|(known, _)| known == name) || is_configured(name);
    let method = match together {
        true => "POST",
        false => destination.method.as_str(),
    };
    let mut headers: Vec<(String, String)> = Vec::from([
        (":method".into(), method.into()),
        (":path".into(), [&destination.prefix, path].concat()),
        (":authority".into(), destination.authority.clone()),
    ]);
    // A single has what came, where that is not what is compared.
    let carried = destination.headers.iter();
    headers.extend(carried.filter(|(name, _)| !has_own(name)).cloned());
    headers.extend_from_slice(configured);
    let mut accepts_json = false;
    for (name, value) in own {
        if is_configured(&name) {
            continue;
        }
        if name == "accept" {
            if accepts_json || !begins_with_json(&value) {
                continue;
            }
            accepts_json = true;
        }
        headers.push((name, value));
    }
    let mut say = |name: &str, value: String| headers.push((name.into(), value));
    if !accepts_json {
        // Or Laravel answers a failed validation with a redirect.
        say("accept", JSON.into());
    }
    match alone {
        None => {
            say("x-batch-id", batch_id(rules.key, items));
            say("x-batch-size", items.len().to_string());
        }
        Some(item) => {
            let (epoch, shard) = (rules.epoch(), rules.shard_of(item.session));
            say(
                "x-embudo-item",
                format!("{epoch:016x}-{shard}-{}", item.seq),
            );
        }
    }
    if !headers.iter().any(|(name, _)| name == "content-type") {
        headers.push(("content-type".into(), JSON.into()));
    }
    headers
}

const JSON: &str = "application/json";

/// As Laravel's `wantsJson`: it looks at the first type only. (Nowhere in the module is one text looked for in another by
/// the library, nor a character that is not known beforehand: what does that is 10 KB, with its panics and their tables.)
fn begins_with_json(accept: &str) -> bool {
    let first = accept.split([',', ';']).next().unwrap_or_default();
    let mut parts = first.as_bytes().windows(5);
    parts.any(|part| part == b"/json" || part == b"+json")
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
    use crate::tests::world::rules;
    use embudo_core::route::KnownHeads;

    fn claimed(body: &str) -> Claimed {
        Claimed {
            session: 1,
            seq: 2,
            accepted_ms: 3,
            timestamp_ms: 1234,
            neutral: Vec::new(),
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
            let headers = headers(&rules, &Destination::default(), "/qr/batch", items, true);
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

    fn get<'h>(headers: &'h [(String, String)], name: &str) -> Vec<&'h str> {
        let of_name = headers.iter().filter(|(known, _)| known == name);
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    /// A request's head, and an item of it.
    fn item(rules: &Rules, headers: &[(&str, &str)]) -> (Destination, Claimed) {
        let base = [
            (":method", "PUT"),
            (":path", "/api/qr"),
            (":authority", "Laravel.Test:80"),
            ("content-type", "application/json; charset=utf-8"),
            ("content-length", "30"),
            ("connection", "keep-alive"),
            ("x-envoy-retry-on", "5xx"),
            ("expect", "100-continue"),
            ("x-request-id", "r-1"),
            ("x-forwarded-for", "10.0.0.1:4711"),
        ];
        let headers: Vec<(&[u8], &[u8])> = base
            .iter()
            .chain(headers)
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        let mut heads = KnownHeads::default();
        let head = heads
            .head(rules, embudo_core::headers::encode(&headers))
            .unwrap();
        let mut item = claimed("{}");
        item.neutral = head.neutral().encode();
        (head.destination.clone(), item)
    }

    const RULES: &str = r#"{"upstream":{"headers":{"x-source":"embudo"}},
        "routes":[{"name":"qr","method":"PUT"}]}"#;

    #[test]
    fn a_single_is_the_request_that_was_answered() {
        let rules = rules(RULES);
        let (destination, item) = item(
            &rules,
            &[
                ("authorization", "Bearer t"),
                ("x-webhook-secret", "w"),
                ("x-tenant", "acme"),
                ("accept", "application/json, text/plain, */*"),
                ("idempotency-key", "k-1"),
                ("x-embudo-item", "forged"),
            ],
        );
        let headers = headers(&rules, &destination, "/qr", &[item], false);
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        for (name, value) in [
            (":method", "PUT"),
            (":path", "/api/qr"),
            (":authority", "Laravel.Test:80"),
            ("content-type", "application/json; charset=utf-8"),
            ("authorization", "Bearer t"),
            ("x-webhook-secret", "w"),
            ("x-tenant", "acme"),
            ("accept", "application/json, text/plain, */*"),
            ("idempotency-key", "k-1"),
            ("x-request-id", "r-1"),
            ("x-forwarded-for", "10.0.0.1:4711"),
            ("x-source", "embudo"),
        ] {
            assert_eq!(get(&headers, name), [value], "{name} in {names:?}");
        }
        let id = get(&headers, "x-embudo-item");
        let wanted = format!("{:016x}-{}-2", rules.epoch(), rules.shard_of(1));
        assert_eq!(id, [wanted], "nobody else says which item it is");
        for name in ["connection", "content-length", "x-envoy-retry-on", "expect"] {
            assert_eq!(get(&headers, name), [""; 0], "{name} is not carried");
        }
    }

    #[test]
    fn a_batch_has_its_callers_headers_and_nothing_of_one_request() {
        let rules = rules(RULES);
        let more = [("x-webhook-secret", "w"), ("accept", "text/html")];
        let (destination, item) = item(&rules, &more);
        let headers = headers(&rules, &destination, "/qr/batch", &[item], true);
        for (name, value) in [
            (":method", "POST"),
            (":path", "/api/qr/batch"),
            ("content-type", "application/json"),
            ("x-webhook-secret", "w"),
            ("x-forwarded-for", "10.0.0.1"),
            ("accept", "application/json"),
            ("x-batch-size", "1"),
            ("x-source", "embudo"),
        ] {
            assert_eq!(get(&headers, name), [value], "{name}");
        }
        for name in ["x-request-id", "x-embudo-item"] {
            assert_eq!(get(&headers, name), [""; 0], "{name}");
        }
    }

    #[test]
    fn laravel_is_asked_for_json_unless_the_caller_asked_for_it_first() {
        let rules = rules(RULES);
        for (came, goes) in [
            ("*/*", "application/json"),
            ("text/html, application/json", "application/json"),
            ("application/vnd.api+json", "application/vnd.api+json"),
        ] {
            let (destination, item) = item(&rules, &[("accept", came)]);
            let headers = headers(&rules, &destination, "/qr", &[item], false);
            assert_eq!(get(&headers, "accept"), [goes]);
        }
    }
}
