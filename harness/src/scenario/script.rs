//! Posts at given times: what the gateway's own schedule never does, or does too rarely to wait for.
//!
//! A stranger that hangs up, a burst within half a second, a refused update that comes again after a newer one,
//! a method or a path of its own: each is a line or two of a file. What a session of the run says so is part of
//! its log, and judged like everything else; what a stranger says is nobody's concern.

use serde::Deserialize;

use super::Scenario;
use crate::model::gateway::{Caller, Identity, Outgoing, RetryPolicy};
use crate::model::http::{Kind, Request, Route};

/// One post, or several alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Post {
    /// When the first is sent, milliseconds from the first event.
    pub at_ms: u64,
    /// Milliseconds from one to the next.
    #[serde(default)]
    pub every_ms: u64,
    /// How many.
    #[serde(default = "once")]
    pub times: u64,
    /// The session of the run that it is about.
    #[serde(default)]
    pub session: usize,
    /// How many sessions take turns, from that one on.
    #[serde(default = "only_one")]
    pub sessions: usize,
    /// The QR; `{n}` is the post's number, from 0.
    #[serde(default)]
    pub qr: Option<String>,
    /// The state, where there is no QR.
    #[serde(default)]
    pub state: Option<String>,
    /// Members of the body besides these.
    #[serde(default)]
    pub members: serde_json::Map<String, serde_json::Value>,
    /// Headers on top of the caller's; `{n}` is the post's number.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The caller's patience, where it is not the usual one.
    #[serde(default)]
    pub hang_up_ms: Option<u64>,
    /// What was not answered 2xx is sent once more, byte for byte, so much later.
    #[serde(default)]
    pub again_ms: Option<u64>,
    /// Whether somebody else sends it: without the caller's headers, and it is not judged.
    #[serde(default)]
    pub stranger: bool,
}

/// A post that is to be sent.
#[derive(Clone, Debug)]
pub struct Planned {
    /// When, milliseconds from the first event.
    pub at_ms: u64,
    /// The session's place.
    pub index: usize,
    /// The name of its log; none for a stranger's.
    pub key: Option<String>,
    /// Who sends it.
    pub caller: Caller,
    /// The request.
    pub outgoing: Outgoing,
    /// How often, and how long it waits.
    pub retries: RetryPolicy,
}

fn once() -> u64 {
    1
}

fn only_one() -> usize {
    1
}

// === impl Post ===

impl Post {
    /// The posts, in the order of time.
    pub(super) fn planned<'a>(
        &'a self,
        identities: &'a [Identity],
    ) -> impl Iterator<Item = Planned> + 'a {
        (0..self.times).filter_map(move |n| self.nth(n, identities))
    }

    fn nth(&self, n: u64, identities: &[Identity]) -> Option<Planned> {
        let turn = usize::try_from(n).ok()? % self.sessions.max(1);
        let index = self.session + turn;
        let identity = identities.get(index)?;
        let numbered = |text: &str| text.replace("{n}", &n.to_string());
        let (route, kind, path, field, value) = match (&self.qr, &self.state) {
            (Some(qr), _) => (Route::Qr, Kind::PostQr, "/api/qr", "qr", qr),
            (None, Some(state)) => {
                let path = "/api/whatsapp/status";
                (Route::Status, Kind::PostStatus, path, "estado_qr", state)
            }
            (None, None) => return None,
        };
        let value = numbered(value);
        let mut body = self.members.clone();
        body.insert("session_id".to_owned(), identity.session.as_str().into());
        body.insert(field.to_owned(), value.as_str().into());
        let body = serde_json::Value::Object(body);
        let mut request = Request::new("POST", path).with_json(body.to_string());
        for (name, text) in &self.headers {
            request = request.with_header(name, numbered(text));
        }
        let usual = RetryPolicy::none();
        Some(Planned {
            at_ms: self.at_ms + n * self.every_ms,
            index,
            key: (!self.stranger).then(|| identity.key.clone()),
            caller: match self.stranger {
                true => Caller::default(),
                false => identity.caller.clone(),
            },
            outgoing: Outgoing {
                kind,
                update: (!self.stranger).then_some((route, value)),
                request,
            },
            retries: RetryPolicy {
                outer_waits_ms: self.again_ms.into_iter().collect(),
                timeout_ms: self.hang_up_ms.unwrap_or(usual.timeout_ms),
                ..usual
            },
        })
    }
}

// === impl Scenario ===

impl Scenario {
    /// The posts of the script, in the order of time.
    #[must_use]
    pub fn script(&self) -> Vec<Planned> {
        let identities = self.identities();
        let posts = self.posts.iter();
        let mut all: Vec<Planned> = posts.flat_map(|post| post.planned(&identities)).collect();
        all.sort_by_key(|planned| planned.at_ms);
        all
    }
}
