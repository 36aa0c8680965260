//! A gateway's events, from `tests/presets/<preset>.json`.
//!
//! They have the headers and the members, in their order, that the gateway's own sender puts on the wire, with
//! invented names, ids and keys, in the order in which one session's life has them. The text of a body in the file is
//! what is posted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// One gateway's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Where they are posted.
    path: String,
    /// The headers, but for the host and the length.
    headers: BTreeMap<String, String>,
    /// JSON pointer of the session in a body, or `{session}` for the last segment of the path.
    session: String,
    /// The events.
    pub events: Vec<Event>,
}

/// One event.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// What happens, in words.
    pub what: String,
    /// The rule that should recognise it.
    pub rule: Option<String>,
    /// What `x-embudo` should say when the events are posted one by one, each delivered before the next:
    /// `bypass` for any bypass, `none` where the filter is never asked.
    pub outcome: String,
    /// Whether it is an end, which should leave at once.
    #[serde(default)]
    pub priority: bool,
    /// Whether it opens a gate: it should leave at once, and void a QR that waits.
    #[serde(default)]
    pub opens: bool,
    /// Headers of its own, or with another value than usual.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Where it is posted, if elsewhere.
    path: Option<String>,
    /// Strings that are this much longer in truth (images), by JSON pointer.
    #[serde(default)]
    pad: BTreeMap<String, usize>,
    body: Box<RawValue>,
}

// === impl Events ===

impl Events {
    /// Reads the events of a preset's gateway.
    ///
    /// # Panics
    /// When the file is not as it should be.
    pub fn of(preset: &str) -> Self {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/presets/{preset}.json"));
        let text = fs::read_to_string(&file).expect(preset);
        serde_json::from_str(&text).expect(preset)
    }

    /// The headers that the gateway sends with an event.
    pub fn headers_of(&self, event: &Event) -> Vec<(String, String)> {
        let mut headers = self.headers.clone();
        headers.extend(event.headers.clone());
        headers.into_iter().collect()
    }

    /// Where the gateway posts an event.
    pub fn path_of(&self, event: &Event) -> String {
        event.path.as_ref().unwrap_or(&self.path).clone()
    }

    /// An event of another session: where it is posted, and its body.
    ///
    /// # Panics
    /// When the event has no session.
    pub fn of_session(&self, event: &Event, session: &str) -> (String, String) {
        let path = self.path_of(event);
        if self.session != "{session}" {
            return (path, self.body_of(event, session));
        }
        let (parent, _) = path.rsplit_once('/').expect("a segment");
        (format!("{parent}/{session}"), event.body())
    }

    /// The first event that is described like this.
    ///
    /// # Panics
    /// When there is none.
    pub fn named(&self, what: &str) -> &Event {
        let found = self.events.iter().find(|event| event.what == what);
        found.unwrap_or_else(|| panic!("no event is described as {what:?}"))
    }

    /// An event's body with another session in it, wherever its name stands.
    ///
    /// # Panics
    /// When the event has no session in its body.
    pub fn body_of(&self, event: &Event, session: &str) -> String {
        let body = event.body();
        let parsed: Value = serde_json::from_str(&body).expect("JSON");
        let own = parsed.pointer(&self.session).and_then(Value::as_str);
        body.replace(
            &format!("\"{}\"", own.expect("a session")),
            &format!("\"{session}\""),
        )
    }

    /// The session that a body names.
    pub fn session_of(&self, body: &Value) -> Option<String> {
        Some(body.pointer(&self.session)?.as_str()?.to_owned())
    }
}

// === impl Event ===

impl Event {
    /// The body, byte for byte as it goes over the wire.
    ///
    /// # Panics
    /// When a string that is to be padded is not there.
    pub fn body(&self) -> String {
        let mut body = self.body.get().to_owned();
        for (pointer, length) in &self.pad {
            let parsed: Value = serde_json::from_str(&body).expect("JSON");
            let short = parsed.pointer(pointer).and_then(Value::as_str);
            let short = short.expect("a string to pad");
            body = body.replace(short, &format!("{short:A<length$}"));
        }
        body
    }
}
