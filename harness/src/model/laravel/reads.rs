//! What a read of a session's state is answered.
//!
//! The project's own Laravel answers with the state and nothing else. Others show more beside it, show it later than they
//! have taken it, answer by the caller's language or origin, or say with a 200 that there is no such session.

use serde::Deserialize;

use super::answers;
use crate::model::http::{Request, Response};

/// How reads are answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reads {
    /// What stands beside the state.
    pub beside: Beside,
    /// Whether all of it stands below `data`.
    pub nested: bool,
    /// An update is seen so long after its 200, ms: Laravel has a queue, or reads a replica.
    pub seen_after_ms: u64,
    /// Whether a session that is no account is a 200 that says so, and no 404.
    pub unknown_is_200: bool,
    /// A header of the request that the answer depends on; its value stands in the answer.
    pub depends_on: Option<String>,
    /// `vary`.
    pub vary: Option<String>,
    /// Whether each answer sets a cookie.
    pub sets_cookie: bool,
    /// Whether the caller's `origin` is allowed, by name.
    pub allows_origin: bool,
    /// Whether `all` and `health` are routes of their own below that of the sessions.
    pub has_others: bool,
}

/// What stands beside the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beside {
    /// The state once more, under another name.
    #[default]
    Twice,
    /// Nothing.
    Nothing,
    /// Something else under a name that may be the state's.
    Account,
    /// A phone beside one of the states.
    Phone,
    /// A number that is new in each answer.
    Clock,
    /// The QR, beside `pending`.
    Qr,
}

// === impl Reads ===

impl Reads {
    /// The answer to a read of a session with this state and this QR; of none where there is no such account.
    pub(super) fn answer(
        &self,
        now_ms: u64,
        request: &Request,
        session: &str,
        shown: Option<(String, Option<String>)>,
    ) -> Response {
        let response = match (session, shown) {
            ("all" | "health", _) if self.has_others => text(r#"{"status":"ok"}"#.to_owned()),
            (_, Some((state, qr))) => text(self.body(now_ms, request, &state, qr.as_deref())),
            (_, None) if self.unknown_is_200 => {
                text(r#"{"success":false,"message":"Session not found"}"#.to_owned())
            }
            (_, None) => return answers::unknown_account(),
        };
        self.with_headers(request, response)
    }

    fn body(&self, now_ms: u64, request: &Request, state: &str, qr: Option<&str>) -> String {
        let more = self.beside.more(state, qr, now_ms);
        let depends_on = self.depends_on.as_deref();
        let whose = depends_on.map(|name| request.header(name).unwrap_or_default());
        let whose = whose.map_or(String::new(), |value| format!(r#","for":"{value}""#));
        let body = format!(r#"{{"estado_qr":{}{whose}{more}}}"#, word(state));
        match self.nested {
            true => format!(r#"{{"data":{body}}}"#),
            false => body,
        }
    }

    fn with_headers(&self, request: &Request, mut response: Response) -> Response {
        if let Some(vary) = &self.vary {
            response = response.with_header("vary", vary.as_str());
        }
        if self.sets_cookie {
            response = response.with_header("set-cookie", "laravel_session=1; path=/");
        }
        match request.header("origin").filter(|_| self.allows_origin) {
            Some(origin) => response.with_header("access-control-allow-origin", origin),
            None => response,
        }
    }
}

// === impl Beside ===

impl Beside {
    /// The members behind the state, a comma before each.
    #[must_use]
    pub fn more(self, state: &str, qr: Option<&str>, now_ms: u64) -> String {
        match self {
            Self::Twice => format!(r#","status":{}"#, word(state)),
            Self::Nothing => String::new(),
            Self::Account => r#","status":"inactive""#.to_owned(),
            Self::Phone if state == "active" => r#","connected":true,"phone":"55""#.to_owned(),
            Self::Phone => r#","connected":false,"phone":null"#.to_owned(),
            Self::Clock => format!(r#","at":{now_ms}"#),
            Self::Qr => format!(r#","qr":{}"#, qr.map_or("null".to_owned(), word)),
        }
    }
}

/// A state as it is written; null where there is none.
#[must_use]
fn word(state: &str) -> String {
    match state {
        "" => "null".to_owned(),
        state => format!(r#""{state}""#),
    }
}

fn text(body: String) -> Response {
    Response {
        body: body.into(),
        ..Response::json(200, &serde_json::Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(reads: &Reads, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::new("GET", "/");
        for (name, value) in headers {
            request = request.with_header(name, (*value).to_owned());
        }
        let shown = Some(("active".to_owned(), Some("2@x".to_owned())));
        reads.answer(7, &request, "s", shown)
    }

    #[test]
    fn each_kind_shows_its_own_beside_the_state() {
        for (beside, expected) in [
            (Beside::Nothing, r#"{"estado_qr":"active"}"#),
            (Beside::Twice, r#"{"estado_qr":"active","status":"active"}"#),
            (
                Beside::Account,
                r#"{"estado_qr":"active","status":"inactive"}"#,
            ),
            (Beside::Clock, r#"{"estado_qr":"active","at":7}"#),
            (Beside::Qr, r#"{"estado_qr":"active","qr":"2@x"}"#),
        ] {
            let reads = Reads {
                beside,
                ..Reads::default()
            };
            assert_eq!(answer(&reads, &[]).body, expected);
        }
    }

    #[test]
    fn what_it_depends_on_stands_in_the_answer() {
        let reads = Reads {
            beside: Beside::Nothing,
            nested: true,
            depends_on: Some("accept-language".to_owned()),
            allows_origin: true,
            ..Reads::default()
        };
        let response = answer(
            &reads,
            &[("accept-language", "es"), ("origin", "https://a")],
        );
        let expected = r#"{"data":{"estado_qr":"active","for":"es"}}"#;
        assert_eq!(response.body, expected);
        let origin = response.header("access-control-allow-origin");
        assert_eq!(origin, Some("https://a"));
    }
}
