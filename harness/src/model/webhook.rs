//! The webhook at the other end of the fallback, as pure logic.
//!
//! It takes events, `{"event":"qr.batch","reason":"circuit_open","batchId":"…","items":[…]}`, and keeps a
//! journal of them as they came: what it is shown, when, and whether the sender could know that it was taken.
//! Like [`super::laravel`] it has no clock and no sockets, and goes wrong in the same ways, so that the
//! interesting case is there too: an event that took effect though its sender never heard of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::http::{Kind, Request, Response, Route};
use super::laravel::{Fault, Faults, Misbehaviour, Reply};

/// The header names under which callers have their credentials for Laravel.
const CREDENTIALS: [&str; 4] = ["authorization", "x-api-key", "apikey", "cookie"];

/// Why an event was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Laravel cannot be called.
    CircuitOpen,
    /// It was called in vain too often.
    Attempts,
    /// It does not want the items: a dead letter.
    Rejected,
}

/// One item of an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handed {
    /// The session.
    pub session: String,
    /// The QR string or the state.
    pub value: String,
    /// The item's `timestamp`.
    pub timestamp: u64,
}

/// One event, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The route; none for dead letters.
    pub route: Option<Route>,
    /// Why it was sent.
    pub reason: Reason,
    /// `batchId`
    pub batch_id: String,
    /// The items, in their order.
    pub items: Vec<Handed>,
}

/// One call, as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// When it arrived.
    pub at_ms: u64,
    /// The event, or what is wrong with it.
    pub event: Result<Event, String>,
    /// What went along as a credential.
    pub credentials: Vec<String>,
    /// The status of the answer that left for the sender; none yet, or none at all.
    pub answer: Option<u16>,
}

/// The webhook.
#[derive(Clone, Debug, Default)]
pub struct Webhook {
    request_ms: u64,
    faults: Faults,
    received: Vec<Received>,
}

/// A call that the webhook is busy with.
#[derive(Clone, Debug)]
#[must_use = "a call that has begun is answered when it finishes"]
pub struct Call {
    /// How long.
    pub busy_ms: u64,
    place: usize,
    fault: Option<Misbehaviour>,
}

// === impl Webhook ===

impl Webhook {
    /// One that takes this long for a call.
    pub fn new(request_ms: u64) -> Self {
        Self {
            request_ms,
            ..Self::default()
        }
    }

    /// Replaces the faults in force.
    pub fn set_faults(&mut self, seed: u64, faults: Vec<Fault>) {
        self.faults = Faults::new(seed, faults);
    }

    /// Every call, in the order of arrival.
    pub fn received(&self) -> &[Received] {
        &self.received
    }

    // ## Arrived => Busy

    /// A call is there.
    pub fn begin(&mut self, now_ms: u64, request: &Request) -> Call {
        let fault = self.faults.strike(now_ms, Kind::Other, request);
        let credential = |name: &&str| request.header(name).map(str::to_owned);
        self.received.push(Received {
            at_ms: now_ms,
            event: read(request),
            credentials: CREDENTIALS.iter().filter_map(credential).collect(),
            answer: None,
        });
        let busy_ms = match &fault {
            Some(Misbehaviour::Slow { ms }) => self.request_ms + ms,
            Some(Misbehaviour::Hang { finish_after_ms }) => *finish_after_ms,
            _ => self.request_ms,
        };
        Call {
            busy_ms,
            place: self.received.len() - 1,
            fault,
        }
    }

    // ## Busy => Answered

    /// It is done with a call.
    pub fn finish(&mut self, call: Call) -> Reply {
        let taken = Response::json(200, &serde_json::json!({ "ok": true }));
        let reply = match call.fault {
            Some(Misbehaviour::Status {
                code,
                headers,
                body,
                ..
            }) => Reply::Whole(Response {
                status: code,
                headers,
                body: body.into(),
                items: 0,
            }),
            Some(Misbehaviour::Throttled { retry_after_s, .. }) => {
                let refused = Response::json(429, &serde_json::json!({ "ok": false }));
                Reply::Whole(refused.with_header("retry-after", retry_after_s.to_string()))
            }
            Some(Misbehaviour::Reset { after_bytes, .. }) => Reply::Cut(taken, after_bytes),
            Some(Misbehaviour::Hang { .. }) => Reply::Never,
            Some(Misbehaviour::Proxy { says, .. }) => Reply::Whole(says.response()),
            Some(Misbehaviour::Page { code, .. }) => Reply::Whole(Response::html(code, "Page")),
            Some(
                Misbehaviour::Slow { .. }
                | Misbehaviour::Partly { .. }
                | Misbehaviour::Headers { .. },
            )
            | None => Reply::Whole(taken),
        };
        if let (Reply::Whole(response), Some(received)) =
            (&reply, self.received.get_mut(call.place))
        {
            received.answer = Some(response.status);
        }
        reply
    }
}

// === impl Event ===

impl Event {
    /// Whether it tells of what Laravel does not want.
    pub fn is_dead_letter(&self) -> bool {
        self.reason == Reason::Rejected
    }

    /// Reads a body.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        let body: Value =
            serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
        let text = |key: &str| {
            let text = body.get(key).and_then(Value::as_str);
            text.ok_or_else(|| format!("no \"{key}\""))
        };
        let reason = match text("reason")? {
            "circuit_open" => Reason::CircuitOpen,
            "attempts" => Reason::Attempts,
            "rejected" => Reason::Rejected,
            other => return Err(format!("\"{other}\" is no reason")),
        };
        let route = match text("event")? {
            "qr.batch" => Some(Route::Qr),
            "status.batch" => Some(Route::Status),
            "dead_letter" => None,
            other => return Err(format!("\"{other}\" is no event")),
        };
        if route.is_none() != (reason == Reason::Rejected) {
            return Err("an event is a dead letter if, and only if, it was rejected".into());
        }
        let batch_id = text("batchId")?.to_owned();
        let items = body.get("items").and_then(Value::as_array);
        let items = items.filter(|items| !items.is_empty()).ok_or("no items")?;
        let items = items.iter().map(handed).collect::<Result<_, _>>()?;
        Ok(Self {
            route,
            reason,
            batch_id,
            items,
        })
    }
}

fn read(request: &Request) -> Result<Event, String> {
    if request.method != "POST" {
        return Err(format!("{} is not POST", request.method));
    }
    let json = request.header("content-type");
    if json.is_none_or(|kind| !kind.starts_with("application/json")) {
        return Err(format!("the content is {json:?}"));
    }
    Event::read(&request.body)
}

fn handed(item: &Value) -> Result<Handed, String> {
    let session = item.get("session_id").and_then(Value::as_str);
    let value = item.get("qr").or_else(|| item.get("estado_qr"));
    let timestamp = item.get("timestamp").and_then(Value::as_u64);
    Ok(Handed {
        session: session.ok_or("an item without a session")?.to_owned(),
        value: value
            .and_then(Value::as_str)
            .ok_or("an item without a value")?
            .to_owned(),
        timestamp: timestamp.ok_or("an item without a timestamp")?,
    })
}

/// Items of all events of these reasons, whatever was answered.
pub fn items(received: &[Received], of: impl Fn(Reason) -> bool) -> u64 {
    let events = received.iter().filter_map(|call| call.event.as_ref().ok());
    let events = events.filter(|event| of(event.reason));
    events.map(|event| event.items.len() as u64).sum()
}

/// Items that came again although the webhook had taken them and said so. A dead letter is news, also of an
/// item that was handed over before.
pub fn repeats(received: &[Received]) -> u64 {
    let mut taken = BTreeSet::new();
    let mut repeats = 0;
    for call in received {
        let Ok(event) = &call.event else { continue };
        for item in &event.items {
            let key = (item, event.is_dead_letter());
            repeats += u64::from(taken.contains(&key));
            if call
                .answer
                .is_some_and(|status| (200..300).contains(&status))
            {
                taken.insert(key);
            }
        }
    }
    repeats
}

/// What must not be, seen from the webhook: events that it cannot read, a session's items out of order, and
/// one of these secrets, with which callers come to Laravel.
pub fn check(received: &[Received], secrets: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut newest = BTreeMap::<&str, u64>::new();
    for call in received {
        let shown = call.credentials.iter().find(|c| secrets.contains(*c));
        if let Some(secret) = shown {
            let bytes = secret.len();
            found.push(format!(
                "the webhook is shown a credential of {bytes} bytes"
            ));
        }
        let event = match &call.event {
            Ok(event) => event,
            Err(why) => {
                found.push(format!("the webhook cannot read an event: {why}"));
                continue;
            }
        };
        for item in &event.items {
            let newest = newest.entry(&item.session).or_default();
            if item.timestamp < *newest {
                found.push(format!(
                    "session {}: the item of {} is handed over after that of {newest}",
                    item.session, item.timestamp
                ));
            }
            *newest = item.timestamp.max(*newest);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(event: &str, reason: &str, items: &Value) -> Request {
        let body = json!({"event": event, "reason": reason, "batchId": "b", "items": items});
        Request::new("POST", "/webhook").with_json(body.to_string())
    }

    fn qr(session: &str, timestamp: u64) -> Value {
        json!({"session_id": session, "qr": "2@a", "timestamp": timestamp})
    }

    fn open(items: &Value) -> Request {
        event("qr.batch", "circuit_open", items)
    }

    fn call(webhook: &mut Webhook, request: &Request) -> Reply {
        let call = webhook.begin(0, request);
        webhook.finish(call)
    }

    #[test]
    fn an_event_is_kept_with_its_items_in_their_order() {
        let mut webhook = Webhook::new(5);
        let state = json!({"session_id": "b", "estado_qr": "active", "timestamp": 7});
        let began = webhook.begin(
            3,
            &event("status.batch", "attempts", &json!([state, state])),
        );
        assert_eq!(began.busy_ms, 5);
        assert!(matches!(webhook.finish(began), Reply::Whole(answer) if answer.status == 200));
        let [received] = webhook.received() else {
            panic!("one call")
        };
        assert_eq!((received.at_ms, received.answer), (3, Some(200)));
        let item = Handed {
            session: "b".into(),
            value: "active".into(),
            timestamp: 7,
        };
        let expected = Event {
            route: Some(Route::Status),
            reason: Reason::Attempts,
            batch_id: "b".into(),
            items: vec![item.clone(), item],
        };
        assert_eq!(received.event, Ok(expected));
    }

    #[test]
    fn what_is_no_event_is_said_to_be_none() {
        for request in [
            Request::new("POST", "/webhook").with_json("{"),
            Request::new("GET", "/webhook"),
            open(&json!([])),
            open(&json!([{"session_id": "a", "qr": "2@a"}])),
            event("dead_letter", "attempts", &json!([qr("a", 1)])),
            event("qr.batch", "rejected", &json!([qr("a", 1)])),
            event("qr.batch", "because", &json!([qr("a", 1)])),
            event("message", "attempts", &json!([qr("a", 1)])),
        ] {
            let mut webhook = Webhook::default();
            let _ = call(&mut webhook, &request);
            assert_eq!(
                check(webhook.received(), &BTreeSet::new()).len(),
                1,
                "{request:?}"
            );
        }
    }

    #[test]
    fn a_webhook_fails_hangs_and_breaks_off_and_has_seen_the_event_all_the_same() {
        let mut webhook = Webhook::default();
        let faults = [
            Misbehaviour::status(500),
            Misbehaviour::Hang { finish_after_ms: 9 },
            Misbehaviour::Reset {
                after_bytes: 0,
                processed: true,
            },
        ];
        let faults = faults.map(|what| Fault::always(what).times(1));
        webhook.set_faults(1, faults.to_vec());
        let request = open(&json!([qr("a", 1)]));
        let refused = call(&mut webhook, &request);
        assert!(matches!(refused, Reply::Whole(answer) if answer.status == 500));
        let hanging = webhook.begin(0, &request);
        assert_eq!(hanging.busy_ms, 9);
        assert_eq!(webhook.finish(hanging), Reply::Never);
        assert!(matches!(call(&mut webhook, &request), Reply::Cut(_, 0)));
        let answers = webhook.received().iter().map(|call| call.answer);
        assert_eq!(answers.collect::<Vec<_>>(), [Some(500), None, None]);
        assert_eq!(items(webhook.received(), |r| r == Reason::CircuitOpen), 3);
        assert_eq!(
            repeats(webhook.received()),
            0,
            "nothing was taken for certain"
        );
    }

    #[test]
    fn what_was_taken_and_comes_again_is_a_repeat_and_a_dead_letter_is_news() {
        let mut webhook = Webhook::default();
        let _ = call(&mut webhook, &open(&json!([qr("a", 1), qr("b", 1)])));
        let dead = event("dead_letter", "rejected", &json!([qr("a", 1)]));
        let _ = call(&mut webhook, &dead);
        assert_eq!(repeats(webhook.received()), 0);
        let _ = call(&mut webhook, &open(&json!([qr("b", 1), qr("a", 2)])));
        assert_eq!(repeats(webhook.received()), 1);
        let dead_letters = items(webhook.received(), |reason| reason == Reason::Rejected);
        assert_eq!(dead_letters, 1);
    }

    #[test]
    fn a_session_out_of_order_is_noticed_and_others_have_nothing_to_do_with_it() {
        let mut webhook = Webhook::default();
        let _ = call(&mut webhook, &open(&json!([qr("a", 5), qr("b", 1)])));
        let _ = call(&mut webhook, &open(&json!([qr("a", 5), qr("b", 2)])));
        assert_eq!(
            check(webhook.received(), &BTreeSet::new()),
            Vec::<String>::new()
        );
        let _ = call(&mut webhook, &open(&json!([qr("a", 4)])));
        assert_eq!(check(webhook.received(), &BTreeSet::new()).len(), 1);
    }

    #[test]
    fn laravels_credentials_are_noticed_and_not_repeated_and_its_own_are_not() {
        let secrets = BTreeSet::from(["Bearer secret".to_owned()]);
        for (name, value, noticed) in [
            ("Authorization", "Bearer secret", true),
            ("cookie", "Bearer secret", true),
            ("authorization", "Bearer webhook", false),
        ] {
            let mut webhook = Webhook::default();
            let request = open(&json!([qr("a", 1)])).with_header(name, value);
            let _ = call(&mut webhook, &request);
            let found = check(webhook.received(), &secrets).join(" ");
            assert_eq!(found.contains("13 bytes"), noticed, "{found}");
            assert!(!found.contains("secret"), "{found}");
        }
    }
}
