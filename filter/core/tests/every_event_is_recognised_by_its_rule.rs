//! The presets against their gateways' events, the same that are replayed through the real Envoy: each is
//! recognised by the rule that it was written for, and whatever is no state and no QR by none.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::path::Path;

use embudo_core::config::Config;
use embudo_core::hash::HashKey;
use embudo_core::headers::borrowed;
use embudo_core::route::Rules;
use serde_json::Value;

const PRESETS: [&str; 6] = [
    "evolution",
    "waha",
    "wppconnect",
    "wwebjs-api",
    "baileys-api",
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

/// The rule that recognises an event, and whether its value is one for at once.
fn recognised(rules: &Rules, path: &str, body: &[u8]) -> Option<(String, bool)> {
    let head = rules.head(borrowed(&post(path))).ok()?;
    let update = rules.update(&head, body).ok()?;
    Some((
        rules.route(update.route).unwrap().name.clone(),
        update.priority,
    ))
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
            let path = event["path"].as_str().or(gateway["path"].as_str()).unwrap();
            let found = recognised(&rules, path, event["body"].to_string().as_bytes());
            if ["bypass", "none"].contains(&event["outcome"].as_str().unwrap()) {
                assert_eq!(found, None, "{what}");
                continue;
            }
            let (rule, priority) = found.unwrap_or_else(|| panic!("{what} is recognised"));
            assert_eq!(rule, event["rule"], "{what}");
            if event["priority"] == true {
                assert!(priority, "{what} leaves at once");
            }
            seen.push(rule);
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
    for preset in ["evolution", "wppconnect", "wwebjs-api", "baileys-api"] {
        let rules = rules(&format!(r#"{{"preset":"{preset}"}}"#));
        let (qr, route) = rules.config.route_named("qr").unwrap();
        assert_eq!(route.expire_after_ms, Some(60_000), "{preset}");
        let gateway = events(preset);
        for event in gateway["events"].as_array().unwrap() {
            let opens = event["what"] == "scanned";
            if !opens && event["priority"] != true {
                continue;
            }
            let head = rules.head(borrowed(&post("/webhook"))).unwrap();
            let body = event["body"].to_string();
            let update = rules.update(&head, body.as_bytes()).unwrap();
            // A QR before an end does no harm, and a timer's late end beside a younger QR would destroy it.
            assert_eq!(update.voids, opens, "{preset}: {}", event["what"]);
            if opens {
                let voids = rules.route(update.route).unwrap().voids.as_ref().unwrap();
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

#[test]
fn an_event_with_a_batch_or_without_is_the_same_update() {
    for preset in PRESETS {
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
