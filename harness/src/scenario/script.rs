//! Posts and reads at given times: what the gateway's own schedule never does, or does too rarely to wait for.
//!
//! A stranger that hangs up, a burst within half a second, a refused update that comes again after a newer one,
//! a method or a path of its own: each is a line or two of a file. What a session of the run says so is part of
//! its log, and judged like everything else; what a stranger says is nobody's concern.

use serde::Deserialize;
use serde_json::Value;

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
    /// It is no update, but asks this.
    #[serde(default)]
    pub ask: Option<Ask>,
    /// So many sessions' updates in one body, from that one on: the gateway's own batch. 0: a post by itself.
    #[serde(default)]
    pub batch: usize,
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

/// What is asked of other routes than those of updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The session's state.
    State,
    /// The account is deleted.
    Delete,
    /// The account is logged out.
    LogOut,
    /// A message of the session.
    Message,
}

/// One read, or several alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
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
    /// Another name than the session's.
    #[serde(default)]
    pub name: Option<String>,
    /// What stands behind the path.
    #[serde(default)]
    pub query: String,
    /// Headers on top of the caller's.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// What it must be answered, one of these, as JSON; whatever it is where there is none.
    #[serde(default)]
    pub says: Vec<String>,
    /// What `x-embudo` must say, one of these; whatever it is where there is none.
    #[serde(default)]
    pub from: Vec<String>,
}

/// What a read must be answered.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    at_ms: u64,
    says: Vec<Value>,
    from: Vec<String>,
}

/// A post, or a read, that is to be sent.
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
    /// The updates in it, with the name of each one's log, where it is a batch.
    pub items: Vec<(String, Route, String)>,
    /// How often, and how long it waits.
    pub retries: RetryPolicy,
    /// What a read must be answered.
    pub expected: Option<Expected>,
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
        let mut items = Vec::new();
        let (kind, update, mut request) = match (&self.qr, &self.state, self.ask) {
            (Some(qr), ..) if self.batch > 0 => {
                let (request, all) = self.batch(identities, index, Route::Qr, &numbered(qr));
                items = all;
                (Kind::PostQrBatch, None, request)
            }
            (_, Some(state), _) if self.batch > 0 => {
                let (request, all) = self.batch(identities, index, Route::Status, &numbered(state));
                items = all;
                (Kind::PostStatusBatch, None, request)
            }
            (Some(qr), ..) => {
                let body = self.body(identity, Route::Qr, &numbered(qr));
                let request = Request::new("POST", "/api/qr").with_json(body.to_string());
                (Kind::PostQr, Some((Route::Qr, numbered(qr))), request)
            }
            (_, Some(state), _) => {
                let body = self.body(identity, Route::Status, &numbered(state));
                let request = Request::new("POST", "/api/whatsapp/status");
                let update = Some((Route::Status, numbered(state)));
                (
                    Kind::PostStatus,
                    update,
                    request.with_json(body.to_string()),
                )
            }
            (None, None, ask) => {
                let (kind, request) = ask?.request(&identity.session);
                (kind, None, request)
            }
        };
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
                update: update.filter(|_| !self.stranger),
                request,
            },
            items: match self.stranger {
                true => Vec::new(),
                false => items,
            },
            expected: None,
            retries: RetryPolicy {
                outer_waits_ms: self.again_ms.into_iter().collect(),
                timeout_ms: self.hang_up_ms.unwrap_or(usual.timeout_ms),
                ..usual
            },
        })
    }
}

impl Post {
    fn body(&self, identity: &Identity, route: Route, value: &str) -> serde_json::Value {
        let field = match route {
            Route::Qr => "qr",
            Route::Status => "estado_qr",
        };
        let mut body = self.members.clone();
        body.insert("session_id".to_owned(), identity.session.as_str().into());
        body.insert(field.to_owned(), value.into());
        serde_json::Value::Object(body)
    }

    /// One body for several sessions, and what it says of each of them. Of QRs each is the session's own.
    fn batch(
        &self,
        identities: &[Identity],
        first: usize,
        route: Route,
        value: &str,
    ) -> (Request, Vec<(String, Route, String)>) {
        let (path, field) = match route {
            Route::Qr => ("/api/qr/batch", "qrs"),
            Route::Status => ("/api/whatsapp/status/batch", "statuses"),
        };
        let (mut bodies, mut items) = (Vec::new(), Vec::new());
        for (at, identity) in identities.iter().enumerate().skip(first).take(self.batch) {
            let value = match route {
                Route::Qr => format!("{value}-{at}"),
                Route::Status => value.to_owned(),
            };
            bodies.push(self.body(identity, route, &value));
            items.push((identity.key.clone(), route, value));
        }
        let body = serde_json::json!({ field: bodies });
        (
            Request::new("POST", path).with_json(body.to_string()),
            items,
        )
    }
}

// === impl Ask ===

impl Ask {
    /// The request that asks this of a session.
    #[must_use]
    pub fn request(self, session: &str) -> (Kind, Request) {
        let get = |path| Request::new("GET", path).with_header("accept", "application/json");
        match self {
            Self::State => (
                Kind::GetStatus,
                get(format!("/api/whatsapp/status/{session}")),
            ),
            Self::Delete => {
                let request = Request::new("DELETE", format!("/api/whatsapp/account/{session}"));
                (
                    Kind::Other,
                    request.with_header("accept", "application/json"),
                )
            }
            Self::LogOut => {
                let request = Request::new("POST", format!("/api/whatsapp/logout/{session}"));
                (Kind::Other, request.with_json("{}"))
            }
            Self::Message => {
                let request = Request::new("POST", format!("/api/whatsapp-webhook/{session}"));
                (Kind::Other, request.with_json(r#"{"message":"hello"}"#))
            }
        }
    }
}

// === impl Reading ===

impl Reading {
    /// The reads, in the order of time.
    fn planned<'a>(&'a self, identities: &'a [Identity]) -> impl Iterator<Item = Planned> + 'a {
        (0..self.times).filter_map(move |n| self.nth(n, identities))
    }

    fn nth(&self, n: u64, identities: &[Identity]) -> Option<Planned> {
        let turn = usize::try_from(n).ok()? % self.sessions.max(1);
        let index = self.session + turn;
        let identity = identities.get(index)?;
        let name = self.name.as_ref().unwrap_or(&identity.session);
        let path = format!("/api/whatsapp/status/{name}{}", self.query);
        let mut request = Request::new("GET", path).with_header("accept", "application/json");
        for (name, text) in &self.headers {
            request.headers.retain(|(known, _)| known != name);
            request = request.with_header(name, text.clone());
        }
        let at_ms = self.at_ms + n * self.every_ms;
        let says = self.says.iter().map(|text| serde_json::from_str(text));
        Some(Planned {
            at_ms,
            index,
            key: Some(identity.key.clone()),
            caller: identity.caller.clone(),
            outgoing: Outgoing {
                kind: Kind::GetStatus,
                update: None,
                request,
            },
            items: Vec::new(),
            retries: RetryPolicy::none(),
            expected: Some(Expected {
                at_ms,
                // That each is JSON was seen when the file was read.
                says: says.filter_map(Result::ok).collect(),
                from: self.from.clone(),
            }),
        })
    }

    /// What of it can be no read's answer.
    pub(super) fn problem(&self) -> Option<String> {
        let is_json = |text: &String| serde_json::from_str::<Value>(text).is_ok();
        let odd = self.says.iter().find(|text| !is_json(text))?;
        Some(format!("a read is answered {odd}, which is no JSON"))
    }
}

// === impl Expected ===

impl Expected {
    /// What is wrong with an answer, if anything is.
    pub(crate) fn verdict(&self, body: Option<&[u8]>, outcome: Option<&str>) -> Option<String> {
        let said = body.and_then(|body| serde_json::from_slice::<Value>(body).ok());
        let is_said = said.as_ref().is_some_and(|said| self.says.contains(said));
        let is_from = outcome.is_some_and(|outcome| self.from.iter().any(|from| from == outcome));
        let is_right = (is_said || self.says.is_empty()) && (is_from || self.from.is_empty());
        (!is_right).then(|| {
            let body = String::from_utf8_lossy(body.unwrap_or_default());
            let outcome = outcome.unwrap_or("nothing");
            format!(
                "the read at {} ms is answered {outcome}: {body}",
                self.at_ms
            )
        })
    }
}

// === impl Scenario ===

impl Scenario {
    /// The posts and reads of the script, in the order of time.
    #[must_use]
    pub fn script(&self) -> Vec<Planned> {
        let identities = self.identities();
        let posts = self.posts.iter();
        let mut all: Vec<Planned> = posts.flat_map(|post| post.planned(&identities)).collect();
        let reads = self.reads.iter();
        all.extend(reads.flat_map(|read| read.planned(&identities)));
        all.sort_by_key(|planned| planned.at_ms);
        all
    }
}
