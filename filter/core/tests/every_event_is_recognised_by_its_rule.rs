//! The presets against their gateways' events, the same that are replayed through the real Envoy: each is
//! recognised by the rule that it was written for, and whatever is no state and no QR by none.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::path::Path;

use embudo_core::config::Config;
use embudo_core::hash::HashKey;
use embudo_core::headers::borrowed;
use embudo_core::json::Pointer;
use embudo_core::route::{Rules, Said};
use serde_json::{Value, json};

const PRESETS: [&str; 10] = [
    "evolution",
    "evolution-go",
    "codechat",
    "waha",
    "wppconnect",
    "wwebjs-api",
    "open-wa",
    "baileys-api",
    "baileys-api-fazer",
    "wa-gateway",
];

fn rules(config: &str) -> Rules {
    let config = Config::parse(config.as_bytes()).unwrap_or_else(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    });
    Rules {
        config,
        key: HashKey::from_bytes([7; 16]),
    }
}

fn events(preset: &str) -> Value {
    let file = format!("../../tests/presets/{preset}.json");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// The headers of an event, as its gateway sends them.
fn headers_of(gateway: &Value, event: &Value) -> Vec<(String, Vec<u8>)> {
    let path = event["path"].as_str().or(gateway["path"].as_str()).unwrap();
    let mut all = post(path);
    for of in [&gateway["headers"], &event["headers"]] {
        for (name, value) in of.as_object().into_iter().flatten() {
            all.retain(|(known, _)| known != name);
            all.push((name.clone(), value.as_str().unwrap().as_bytes().to_vec()));
        }
    }
    all
}

fn post(path: &str) -> Vec<(String, Vec<u8>)> {
    let headers = [
        (":method", "POST"),
        (":path", path),
        (":authority", "laravel.test"),
        ("content-type", "application/json"),
    ];
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.as_bytes().to_vec());
    headers.map(owned).to_vec()
}

/// What an event says to these rules.
fn said(rules: &Rules, headers: &[(String, Vec<u8>)], body: &Value) -> Option<Said> {
    let head = rules.head(borrowed(headers)).ok()?;
    let body = body.to_string();
    Some(rules.update(&head, body.as_bytes()).ok()?.said)
}

fn name_of<'r>(rules: &'r Rules, said: &Said) -> &'r str {
    &rules.route(said.route).unwrap().name
}

/// The JSON pointers of all that is no object and no array.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, member) in members {
                let key = key.replace('~', "~0").replace('/', "~1");
                leaves(member, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, &format!("{at}/{index}"), found);
            }
        }
        _ => found.push(at.to_owned()),
    }
}

/// Something else of the same kind, where there is one.
fn other(value: &Value) -> Value {
    match value {
        Value::String(text) => json!(format!("{text}x")),
        Value::Number(number) => json!(number.as_u64().unwrap() + 1),
        Value::Bool(flag) => json!(!flag),
        _ => json!("x"),
    }
}

#[test]
fn each_event_is_recognised_by_the_rule_it_was_written_for_and_a_message_by_none() {
    for preset in PRESETS {
        let rules = rules(&format!(
            r#"{{"preset":"{preset}","prefixes":["","/webhook"]}}"#
        ));
        let gateway = events(preset);
        let mut seen = Vec::new();
        for event in gateway["events"].as_array().unwrap() {
            let what = format!("{preset}: {}", event["what"]);
            let found = said(&rules, &headers_of(&gateway, event), &event["body"]);
            if ["bypass", "none"].contains(&event["outcome"].as_str().unwrap()) {
                assert_eq!(found, None, "{what}");
                continue;
            }
            let found = found.unwrap_or_else(|| panic!("{what} is recognised"));
            let rule = name_of(&rules, &found);
            assert_eq!(rule, event["rule"], "{what}");
            if event["priority"] == true || event["opens"] == true {
                assert!(found.priority, "{what} leaves at once");
            }
            seen.push(rule.to_owned());
        }
        for route in &rules.config.routes {
            assert!(
                seen.contains(&route.name),
                "{preset}: an event for {}",
                route.name
            );
        }
    }
}

#[test]
fn every_qr_expires_and_is_void_once_the_session_is_connected_and_by_no_end() {
    for preset in PRESETS {
        let rules = rules(&format!(r#"{{"preset":"{preset}"}}"#));
        let Some((qr, route)) = rules.config.route_named("qr") else {
            continue;
        };
        assert_eq!(route.expire_after_ms, Some(60_000), "{preset}");
        let gateway = events(preset);
        for event in gateway["events"].as_array().unwrap() {
            let opens = event["what"] == "scanned" || event["opens"] == true;
            if !opens && event["priority"] != true {
                continue;
            }
            let said = said(&rules, &headers_of(&gateway, event), &event["body"]).unwrap();
            // A QR before an end does no harm, and a timer's late end beside a younger QR would destroy it.
            assert_eq!(said.voids, opens, "{preset}: {}", event["what"]);
            if opens {
                let voids = rules.route(said.route).unwrap().voids.as_ref().unwrap();
                assert_eq!(voids.routes, [qr], "{preset}: {}", event["what"]);
            }
        }
        for (index, route) in rules.config.routes.iter().enumerate() {
            assert!(
                index == qr || route.expire_after_ms.is_none(),
                "{preset}: states never expire"
            );
        }
    }
}

/// Each event, with one thing in it that is otherwise.
#[test]
fn what_is_volatile_may_differ_in_a_duplicate_and_nothing_else() {
    for preset in PRESETS {
        let rules = rules(&format!(
            r#"{{"preset":"{preset}","prefixes":["","/webhook"]}}"#
        ));
        let gateway = events(preset);
        let mut hit = Vec::new();
        for event in gateway["events"].as_array().unwrap() {
            let headers = headers_of(&gateway, event);
            let Some(plain) = said(&rules, &headers, &event["body"]) else {
                continue;
            };
            let rule = rules.route(plain.route).unwrap();
            let is_in = |pointers: &[Pointer], leaf: &str| {
                pointers.iter().any(|pointer| {
                    let rest = leaf.strip_prefix(&text(pointer));
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
            };
            let mut all = Vec::new();
            leaves(&event["body"], "", &mut all);
            for leaf in all {
                let what = format!("{preset}: {}: {leaf}", event["what"]);
                let mut body = event["body"].clone();
                let place = body.pointer_mut(&leaf).unwrap();
                *place = other(place);
                let found = said(&rules, &headers, &body);
                if is_in(&rule.unsaid, &leaf) {
                    let found = found.expect(&what);
                    assert_eq!(
                        (found.session, found.value, found.word),
                        (plain.session, plain.value, plain.word),
                        "{what} changes with each delivery"
                    );
                    hit.push((rule.name.clone(), leaf));
                    continue;
                }
                // Another event, session or tenant, or no event any more.
                let Some(found) = found.filter(|found| found.route == plain.route) else {
                    continue;
                };
                assert_ne!(
                    (found.session, found.value),
                    (plain.session, plain.value),
                    "{what} is told apart"
                );
                if is_in(&rule.value, &leaf) {
                    assert_ne!(found.word, plain.word, "{what} is the value");
                }
                let sessions: Vec<Pointer> = rule.session_pointers().cloned().collect();
                let names = is_in(&rule.digested, &leaf) || is_in(&sessions, &leaf);
                assert_eq!(found.session != plain.session, names, "{what} names it");
            }
        }
        for rule in &rules.config.routes {
            for pointer in &rule.unsaid {
                let of_it = |(name, leaf): &(String, String)| {
                    *name == rule.name && leaf.starts_with(&text(pointer))
                };
                let what = text(pointer);
                assert!(hit.iter().any(of_it), "{preset}: an event with {what}");
            }
        }
    }
}

/// A pointer as it was written.
fn text(pointer: &Pointer) -> String {
    let segments = pointer.segments();
    segments.map(|segment| format!("/{segment}")).collect()
}

#[test]
fn an_event_with_a_batch_or_without_is_the_same_update() {
    // A batch has no session in its path.
    for preset in PRESETS
        .into_iter()
        .filter(|preset| *preset != "baileys-api-fazer")
    {
        let alone = rules(&format!(r#"{{"preset":"{preset}"}}"#));
        let batched = rules(&format!(r#"{{"preset":"{preset}","batch_webhooks":true}}"#));
        for (one, other) in alone.config.routes.iter().zip(&batched.config.routes) {
            assert!(
                one.batch.call.is_none(),
                "{preset}: single posts by default"
            );
            let call = other.batch.call.as_ref().unwrap();
            assert_eq!(call.path, format!("{}/batch", other.path), "{preset}");
            assert_eq!((call.field.as_str(), call.verbatim), ("events", true));
        }
    }
}

#[test]
fn a_gateway_whose_address_names_the_session_needs_one_line() {
    let rules = rules(
        r#"{"preset":"baileys-api","webhook_path":"/hooks/{session}/in",
            "routes":[{"name":"connection","session":["{session}"]},
                      {"name":"qr","session":[{"header":"x-session"},"/sessionId"]}]}"#,
    );
    let session = |path: &str, headers: &[(&str, &str)], body: &str| {
        let mut all = post(path);
        for (name, value) in headers {
            all.push(((*name).to_owned(), value.as_bytes().to_vec()));
        }
        let head = rules.head(borrowed(&all)).unwrap();
        rules
            .update(&head, body.as_bytes())
            .map(|update| update.session)
    };
    let nameless = r#"{"event":"connection.update","data":{"status":"connected"}}"#;
    let (a, b) = (
        session("/hooks/a/in", &[], nameless),
        session("/hooks/b/in", &[], nameless),
    );
    assert_ne!(
        a.unwrap(),
        b.unwrap(),
        "the segment tells two sessions apart"
    );
    let qr = r#"{"event":"qrcode.updated","data":{"qr":"data:x"}}"#;
    let header = session("/hooks/a/in", &[("x-session", "b")], qr);
    assert_eq!(header.unwrap(), b.unwrap(), "and so does a header");
    assert!(
        session("/hooks/a/in", &[], qr).is_err(),
        "no place, no session"
    );
}
