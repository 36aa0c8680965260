//! Gateways that post every event to one address, for the seeds that run under one of Embudo's presets.
//!
//! The events have the shapes of those in `tests/presets`. Each says at its end, in the words of our own Laravel,
//! what it means: so the model of Laravel, and the checker, can read the body that arrives, whichever gateway it
//! is from, and the body must arrive whole for that.

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::scenario::pick;
use crate::model::gateway::Outgoing;
use crate::model::http::{Kind, Request, Route};

/// A gateway that Embudo has a preset for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Preset {
    name: &'static str,
    path: &'static str,
    /// What it says, each about as often as the others.
    events: &'static [Shape],
}

/// An event. In the body `<S>` is the session, `<V>` the QR, `<T>` the gateway's clock and `<W>` one of two
/// reasons.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    /// What our Laravel would be told; `None` for a QR.
    state: Option<&'static str>,
    body: &'static str,
}

const fn qr(body: &'static str) -> Shape {
    Shape { state: None, body }
}

/// What voids a QR in the preset is `active` or `inactive`, as in our own Laravel; nothing else is.
const fn state(state: &'static str, body: &'static str) -> Shape {
    Shape {
        state: Some(state),
        body,
    }
}

/// What no preset has a rule for.
const MESSAGE: &str = r#"{"event":"message","dataType":"message","session":"<S>","body":"hola"}"#;

/// Seeds with these remainders of 16 run under a preset: the others stay the runs that they were.
const REMAINDERS: [u64; 2] = [8, 14];

/// How far the gateway's clock moves from one event to the next, and how late an event is now and then, ms.
const CLOCK_STEP_MS: u64 = 10;
const LATE_MS: u64 = 35;

// One event a line, however long.
#[rustfmt::skip]
const PRESETS: [Preset; 6] = [
    Preset {
        name: "evolution",
        path: "/api/webhook",
        events: &[
            qr(r#"{"event":"qrcode.updated","instance":"<S>","data":{"qrcode":{"pairingCode":null,"code":"<V>"}}"#),
            state("connecting", r#"{"event":"connection.update","instance":"<S>","data":{"state":"connecting","statusReason":200}"#),
            state("active", r#"{"event":"connection.update","instance":"<S>","data":{"state":"open","statusReason":<W>}"#),
            state("inactive", r#"{"event":"connection.update","instance":"<S>","data":{"state":"close","statusReason":<W>}"#),
            state("inactive", r#"{"event":"status.instance","instance":"<S>","data":{"status":"closed","disconnectionReasonCode":<W>}"#),
            state("inactive", r#"{"event":"logout.instance","instance":"<S>","data":null"#),
            state("inactive", r#"{"event":"remove.instance","instance":"<S>","data":null"#),
        ],
    },
    Preset {
        name: "waha",
        path: "/api/webhook",
        events: &[
            state("pending", r#"{"timestamp":<T>,"event":"session.status","session":"<S>","me":null,"payload":{"status":"SCAN_QR_CODE","data":null}"#),
            state("connecting", r#"{"timestamp":<T>,"event":"session.status","session":"<S>","me":null,"payload":{"status":"STARTING","data":null}"#),
            state("active", r#"{"timestamp":<T>,"event":"session.status","session":"<S>","me":{"id":"<W>@c.us"},"payload":{"status":"WORKING","data":null}"#),
            state("inactive", r#"{"timestamp":<T>,"event":"session.status","session":"<S>","me":null,"payload":{"status":"FAILED","data":null}"#),
        ],
    },
    Preset {
        name: "wppconnect",
        path: "/api/webhook",
        events: &[
            qr(r#"{"event":"qrcode","session":"<S>","qrcode":"iVBOR","urlcode":"<V>""#),
            state("connecting", r#"{"event":"status-find","session":"<S>","status":"notLogged""#),
            state("active", r#"{"event":"status-find","session":"<S>","status":"inChat""#),
            state("inactive", r#"{"event":"status-find","session":"<S>","status":"browserClose""#),
            state("inactive", r#"{"event":"closesession","session":"<S>","message":"Session: <S> disconnected""#),
            state("inactive", r#"{"event":"logoutsession","session":"<S>","message":"Session: <S> logged out""#),
        ],
    },
    Preset {
        name: "wwebjs-api",
        path: "/api/webhook",
        events: &[
            qr(r#"{"dataType":"qr","data":{"qr":"<V>"},"sessionId":"<S>""#),
            state("active", r#"{"dataType":"change_state","data":{"state":"CONNECTED"},"sessionId":"<S>""#),
            state("connecting", r#"{"dataType":"change_state","data":{"state":"TIMEOUT"},"sessionId":"<S>""#),
            state("inactive", r#"{"dataType":"change_state","data":{"state":"UNPAIRED"},"sessionId":"<S>""#),
            state("active", r#"{"dataType":"authenticated","data":{},"sessionId":"<S>""#),
            state("active", r#"{"dataType":"ready","data":{},"sessionId":"<S>""#),
            state("inactive", r#"{"dataType":"disconnected","data":{"reason":"<W>"},"sessionId":"<S>""#),
        ],
    },
    Preset {
        name: "baileys-api",
        path: "/api/webhook",
        events: &[
            qr(r#"{"sessionId":"<S>","event":"qrcode.updated","data":{"qr":"<V>"},"status":"success""#),
            state("connecting", r#"{"sessionId":"<S>","event":"connection.update","data":{"status":"pulling_wa_data"},"status":"success""#),
            state("pending", r#"{"sessionId":"<S>","event":"connection.update","data":{"status":"wait_for_qrcode_auth"},"status":"success""#),
            state("active", r#"{"sessionId":"<S>","event":"connection.update","data":{"status":"connected"},"status":"success""#),
            state("inactive", r#"{"sessionId":"<S>","event":"connection.update","data":{"status":"disconected"},"status":"success""#),
        ],
    },
    Preset {
        name: "wa-gateway",
        path: "/api/session",
        events: &[
            state("connecting", r#"{"session":"<S>","status":"connecting""#),
            state("active", r#"{"session":"<S>","status":"connected""#),
            state("inactive", r#"{"session":"<S>","status":"disconnected""#),
        ],
    },
];

/// Puts the seed under a preset, if it is one of those that run under one.
pub(super) fn dress(seed: u64, config: &mut Value) {
    if !REMAINDERS.contains(&(seed % 16)) {
        return;
    }
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    dice.set_stream(4_000);
    let preset = pick(&mut dice, &PRESETS);
    let own = config["routes"].take();
    let of = |name: &str| own.as_array()?.iter().find(|route| route["name"] == name);
    // What the webhook is handed is read as our own gateway's items.
    if let Some(config) = config.as_object_mut() {
        config.remove("fallback");
    }
    config["preset"] = json!(preset.name);
    config["batch_webhooks"] = json!(dice.random_bool(0.5));
    let has_qr = preset.events.iter().any(|event| event.state.is_none());
    config["routes"] = match of("qr").filter(|_| has_qr) {
        Some(qr) => json!([{"name": "qr", "expire_after_ms": qr["expire_after_ms"]}]),
        None => json!([]),
    };
}

impl Preset {
    /// The one that a configuration names.
    pub(super) fn of(config: &Value) -> Option<&'static Self> {
        let name = config["preset"].as_str()?;
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// How many updates of one session may wait at once, at most.
    pub(super) fn kinds(&self) -> u64 {
        self.events.len() as u64
    }

    /// The `n`th event of a session: anything at any time, from a few values, so that they repeat.
    pub(super) fn event(&self, dice: &mut impl Rng, session: &str, n: u64) -> Outgoing {
        if dice.random_ratio(1, 25) {
            return Outgoing {
                kind: Kind::Other,
                update: None,
                request: self.post(MESSAGE.replace("<S>", session)),
            };
        }
        let shape = pick(dice, self.events);
        let number = match dice.random_bool(0.5) {
            true => dice.random_range(0..3),
            false => 3 + n / 2,
        };
        let late_ms = if dice.random_ratio(1, 10) { LATE_MS } else { 0 };
        let clock_ms = 1_772_615_700_000 + (n * CLOCK_STEP_MS).saturating_sub(late_ms);
        let code = format!("2@{}{number:04}", session.get(..8).unwrap_or(session));
        let (kind, route, field, value) = match shape.state {
            None => (Kind::PostQr, Route::Qr, "qr", &*code),
            Some(state) => (Kind::PostStatus, Route::Status, "estado_qr", state),
        };
        let reason = *pick::<&str>(dice, &["200", "401"]);
        let body = shape
            .body
            .replace("<S>", session)
            .replace("<V>", &code)
            .replace("<T>", &clock_ms.to_string())
            .replace("<W>", reason);
        let body = format!(r#"{body},"session_id":"{session}","{field}":"{value}"}}"#);
        Outgoing {
            kind,
            update: Some((route, value.to_owned())),
            request: self.post(body),
        }
    }

    fn post(&self, body: String) -> Request {
        Request::new("POST", self.path).with_json(body)
    }
}

/// A request as the model of Laravel knows it: events, alone or in a batch, are what they mean.
pub(super) fn as_laravel_has_it(mut request: Request) -> Request {
    let path = request.path.strip_suffix("/batch").unwrap_or(&request.path);
    if !PRESETS.iter().any(|preset| preset.path == path) {
        return request;
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return request;
    };
    let events = body["events"].as_array();
    let first = events.and_then(|events| events.first()).unwrap_or(&body);
    let is_qr = first.get("qr").is_some();
    if !is_qr && first.get("estado_qr").is_none() {
        return request;
    }
    let (path, field) = match is_qr {
        true => ("/api/qr", "qrs"),
        false => ("/api/whatsapp/status", "statuses"),
    };
    request.path = path.to_owned();
    if let Some(events) = events {
        request.path.push_str("/batch");
        request.body = Bytes::from(json!({field: events}).to_string());
    }
    request
}

#[cfg(test)]
mod tests {
    use embudo_core::config::Config;
    use embudo_core::hash::HashKey;
    use embudo_core::headers::borrowed;
    use embudo_core::route::{Bypass, Rules};

    use super::*;

    #[test]
    fn every_event_fits_a_rule_of_its_preset_and_a_message_fits_none() {
        for preset in &PRESETS {
            let config = json!({"preset": preset.name}).to_string();
            let rules = Rules {
                config: Config::parse(config.as_bytes()).expect(preset.name),
                key: HashKey::from_bytes([0; 16]),
            };
            let mut dice = ChaCha8Rng::seed_from_u64(1);
            let (mut updates, mut messages) = (0, 0);
            for n in 0..500 {
                let sent = preset.event(&mut dice, "a-session", n);
                let own = sent.request.headers.iter();
                let mut headers: Vec<_> = own.map(|(k, v)| (k.clone(), v.to_vec())).collect();
                for (name, value) in [
                    (":method", "POST"),
                    (":path", preset.path),
                    (":authority", "laravel.test"),
                ] {
                    headers.push((name.to_owned(), value.as_bytes().to_vec()));
                }
                let head = rules.head(borrowed(&headers)).expect(preset.name);
                let found = rules.update(&head, &sent.request.body);
                let text = String::from_utf8_lossy(&sent.request.body);
                match (&sent.update, found.map_err(|why| why.reason)) {
                    (Some(_), Ok(_)) => updates += 1,
                    (None, Err(Bypass::Unmatched | Bypass::NoValue)) => messages += 1,
                    (_, found) => panic!("{}: {text}: {found:?}", preset.name),
                }
            }
            assert!(updates > 400 && messages > 5, "{}", preset.name);
        }
    }

    #[test]
    fn an_event_is_to_laravel_what_it_means() {
        let preset = &PRESETS[0];
        let event = |body: &str, path: &str| {
            let request = Request::new("POST", path).with_json(body.to_owned());
            let request = as_laravel_has_it(request);
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            (request.path, body)
        };
        let one = r#"{"event":"x","session_id":"s","qr":"2@a"}"#;
        let (path, body) = event(one, preset.path);
        assert_eq!((&*path, &body["qr"]), ("/api/qr", &json!("2@a")));
        let two = r#"{"events":[{"session_id":"s","estado_qr":"active"}]}"#;
        let (path, body) = event(two, "/api/webhook/batch");
        assert_eq!(path, "/api/whatsapp/status/batch");
        assert_eq!(body["statuses"][0]["estado_qr"], "active");
        let (path, _) = event(MESSAGE, preset.path);
        assert_eq!(path, preset.path, "a message is none of ours");
    }
}
