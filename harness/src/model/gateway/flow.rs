//! Which requests an event makes.

use std::sync::Arc;

use serde_json::Value;

use super::{axios, schedule::What};
use crate::model::http::{Kind, Request, Route};

/// Why a session is `inactive`: nobody has scanned its QR.
pub const EXPIRED: &str = "qr_timeout";

/// Why a session is `inactive`: its user has logged out.
pub const LOGGED_OUT: &str = "logged_out";

/// A request the gateway wants to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What it counts as.
    pub kind: Kind,
    /// Route and value, if it is an update and no question.
    pub update: Option<(Route, String)>,
    /// The request itself; its path begins with the prefix.
    pub request: Request,
}

/// How a request ended, retries and all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With this status and body.
    Status(u16, bytes::Bytes),
    /// The connection was refused or broke.
    NetworkError,
    /// Nothing came in time.
    Timeout,
}

/// The requests of one event, one after the other.
#[derive(Clone, Debug)]
pub struct Flow {
    prefix: Arc<str>,
    session: Arc<str>,
    stage: Stage,
    tells_details: bool,
    gives_up: bool,
}

#[derive(Clone, Debug)]
enum Stage {
    Asking(What),
    SendingQr,
    SendingState,
    Start(What),
    Once(Box<Outgoing>),
    Done,
}

/// The phone that a session is paired with.
#[must_use]
pub fn phone(session: &str) -> String {
    let digits = session.bytes().filter(u8::is_ascii_hexdigit).take(9);
    let digits: String = digits.map(|byte| char::from(b'0' + byte % 10)).collect();
    format!("5491{digits}")
}

// === impl Flow ===

impl Flow {
    /// The flow of one event. `prefix` is what comes before `/qr`: `/api`.
    pub fn new(prefix: Arc<str>, session: Arc<str>, what: What) -> Self {
        Self {
            prefix,
            session,
            stage: Stage::Start(what),
            tells_details: false,
            gives_up: false,
        }
    }

    /// The same, where states say whose phone it is, or why it ended.
    #[must_use]
    pub fn telling_details(mut self, tells: bool) -> Self {
        self.tells_details = tells;
        self
    }

    /// A flow of this one request.
    pub fn once(outgoing: Outgoing) -> Self {
        Self {
            prefix: Arc::from(""),
            session: Arc::from(""),
            stage: Stage::Once(Box::new(outgoing)),
            tells_details: false,
            gives_up: false,
        }
    }

    /// The request that says that a session shows QRs.
    pub fn pending(prefix: Arc<str>, session: Arc<str>) -> Option<Outgoing> {
        Self {
            prefix,
            session,
            stage: Stage::Done,
            tells_details: false,
            gives_up: false,
        }
        .send_state("pending", None)
    }

    // ## Start => (Asking | SendingState)
    // ## Once => Done
    //
    // A QR and an expiry ask for the state first; the other two are told at once.

    /// The first request.
    pub fn start(&mut self) -> Option<Outgoing> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Start(What::Active) => {
                let phone = phone(&self.session);
                self.send_state("active", Some(("phone", &phone)))
            }
            Stage::Start(What::LoggedOut) => {
                self.send_state("inactive", Some(("reason", LOGGED_OUT)))
            }
            Stage::Start(what) => {
                self.stage = Stage::Asking(what);
                let path = format!("{}/whatsapp/status/{}", self.prefix, self.session);
                let request = axios("GET", path, None);
                Some(Outgoing {
                    kind: Kind::GetStatus,
                    update: None,
                    request,
                })
            }
            Stage::Once(outgoing) => Some(*outgoing),
            _ => None,
        }
    }

    // ## Asking => (SendingQr | SendingState | Done)
    // ## SendingQr => (SendingState | Done)
    // ## SendingState => Done
    //
    // axios rejects whatever is not 2xx, and the first rejection ends the flow: a 404 or an error on
    // the question means that the QR is not sent. The interceptor has asked four times by then; the origin gateway
    // gives the session up.

    /// The request that follows this answer to the last one.
    pub fn next(&mut self, answer: &Answer) -> Option<Outgoing> {
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        if !answer.is_success() {
            self.gives_up = matches!(stage, Stage::Asking(What::Qr(_)));
            return None;
        }
        match stage {
            Stage::Asking(What::Qr(qr)) => {
                self.stage = Stage::SendingQr;
                let path = format!("{}/qr", self.prefix);
                let request = axios("POST", path, Some(self.body("qr", &qr)));
                Some(Outgoing {
                    kind: Kind::PostQr,
                    update: Some((Route::Qr, qr)),
                    request,
                })
            }
            Stage::Asking(What::Expired) if answer.says_pending() => {
                self.send_state("inactive", Some(("reason", EXPIRED)))
            }
            Stage::SendingQr => self.send_state("pending", None),
            _ => None,
        }
    }

    /// Whether the state could not be read before a QR.
    pub fn gives_up(&self) -> bool {
        self.gives_up
    }

    fn send_state(&mut self, state: &str, detail: Option<(&str, &str)>) -> Option<Outgoing> {
        self.stage = Stage::SendingState;
        let path = format!("{}/whatsapp/status", self.prefix);
        let mut body = self.body("estado_qr", state);
        if let Some((name, detail)) = detail.filter(|_| self.tells_details) {
            body.pop();
            body.push_str(&format!(r#","{name}":{}}}"#, Value::from(detail)));
        }
        let request = axios("POST", path, Some(body));
        let update = Some((Route::Status, state.to_owned()));
        Some(Outgoing {
            kind: Kind::PostStatus,
            update,
            request,
        })
    }

    /// In the order in which JavaScript writes it, so that bodies are as long and as long to parse.
    fn body(&self, field: &str, value: &str) -> String {
        let (session, value) = (Value::from(&*self.session), Value::from(value));
        format!(r#"{{"session_id":{session},"{field}":{value}}}"#)
    }
}

// === impl Answer ===

impl Answer {
    /// What axios resolves instead of rejecting.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Status(200..=299, _))
    }

    fn says_pending(&self) -> bool {
        let Self::Status(_, body) = self else {
            return false;
        };
        let body: Option<Value> = serde_json::from_slice(body).ok();
        body.is_some_and(|body| body["estado_qr"] == "pending")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a flow on these answers and says what it sent.
    fn sent(what: What, answers: &[(u16, &'static str)]) -> Vec<(Kind, Option<String>)> {
        let mut flow = Flow::new("/api".into(), "s".into(), what);
        let mut next = flow.start();
        let mut sent = Vec::new();
        let mut answers = answers.iter();
        while let Some(outgoing) = next {
            sent.push((outgoing.kind, outgoing.update.map(|(_, value)| value)));
            next = answers.next().and_then(|(status, body)| {
                flow.next(&Answer::Status(
                    *status,
                    bytes::Bytes::from_static(body.as_bytes()),
                ))
            });
        }
        sent
    }

    fn some(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    #[test]
    fn a_qr_is_a_question_the_qr_and_its_state() {
        let sent = sent(
            What::Qr("2@a".to_owned()),
            &[(200, "{}"), (200, "{}"), (200, "{}")],
        );
        let expected = [
            (Kind::GetStatus, None),
            (Kind::PostQr, some("2@a")),
            (Kind::PostStatus, some("pending")),
        ];
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_qr_is_not_sent_if_laravel_does_not_know_the_session_or_fails() {
        for status in [404, 500, 302] {
            assert_eq!(sent(What::Qr("2@a".to_owned()), &[(status, "{}")]).len(), 1);
        }
    }

    #[test]
    fn a_session_is_given_up_where_its_state_cannot_be_read_before_a_qr_and_nowhere_else() {
        let after = |what: What, statuses: &[u16]| {
            let mut flow = Flow::new("/api".into(), "s".into(), what);
            flow.start();
            for status in statuses {
                flow.next(&Answer::Status(*status, bytes::Bytes::from_static(b"{}")));
            }
            flow.gives_up()
        };
        let qr = || What::Qr("2@a".to_owned());
        assert!(after(qr(), &[429]) && after(qr(), &[404]));
        assert!(!after(qr(), &[200]), "it can be read");
        assert!(!after(qr(), &[200, 500]), "the QR is lost, no more");
        assert!(
            !after(What::Expired, &[500]),
            "the timer has a try of its own"
        );
        assert!(!after(What::Active, &[500]));
    }

    #[test]
    fn a_state_says_whose_phone_it_is_or_why_it_ended_where_it_is_asked_to() {
        let body = |what: What, tells: bool| {
            let mut flow = Flow::new("/api".into(), "0b1c7d6e-1".into(), what);
            flow = flow.telling_details(tells);
            let body = flow.start().expect("a request").request.body;
            String::from_utf8(body.to_vec()).expect("text")
        };
        assert_eq!(
            body(What::Active, true),
            r#"{"session_id":"0b1c7d6e-1","estado_qr":"active","phone":"5491889950419"}"#
        );
        assert_eq!(
            body(What::LoggedOut, true),
            r#"{"session_id":"0b1c7d6e-1","estado_qr":"inactive","reason":"logged_out"}"#
        );
        assert_eq!(
            body(What::Active, false),
            r#"{"session_id":"0b1c7d6e-1","estado_qr":"active"}"#
        );
    }

    #[test]
    fn an_expiry_takes_down_only_what_is_pending() {
        let pending = sent(What::Expired, &[(200, r#"{"estado_qr":"pending"}"#)]);
        assert_eq!(pending.last(), Some(&(Kind::PostStatus, some("inactive"))));
        let active = sent(What::Expired, &[(200, r#"{"estado_qr":"active"}"#)]);
        assert_eq!(active, [(Kind::GetStatus, None)]);
    }

    #[test]
    fn a_scan_and_a_log_out_are_told_at_once() {
        assert_eq!(
            sent(What::Active, &[(200, "")]),
            [(Kind::PostStatus, some("active"))]
        );
        assert_eq!(
            sent(What::LoggedOut, &[(500, "")]),
            [(Kind::PostStatus, some("inactive"))]
        );
    }
}
