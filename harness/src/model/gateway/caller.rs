//! Who sends a session's requests, as the headers tell.
//!
//! Most gateways send none of their own. Those that serve several customers tell them apart by a token or by a
//! header; some make the token anew for each request; and CodeChat says who owns a session as soon as that is
//! paired, so that one session's caller changes in the middle of its life.

use crate::model::http::Request;

/// What goes along with a session's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Headers that are always the same.
    pub headers: Vec<(String, String)>,
    /// A bearer token whose end is new in each request, as a fresh JWT is.
    pub fresh_token: Option<String>,
    /// `resource-owner`: there from the first request after the session's `active` until its end.
    pub owner: Option<String>,
}

/// What the requests of a session have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The session's name in bodies and paths.
    pub session: String,
    /// What tells it from every other, those of the same name included: the name of its log.
    pub key: String,
    /// Who sends them.
    pub caller: Caller,
}

// === impl Caller ===

impl Caller {
    /// The request with this caller's headers; it is the caller's `nth`.
    #[must_use]
    pub fn sign(&self, mut request: Request, nth: u64, is_paired: bool) -> Request {
        for (name, value) in &self.headers {
            request = request.with_header(name, value.clone());
        }
        if let Some(token) = &self.fresh_token {
            request = request.with_header("authorization", format!("Bearer {token}.{nth}"));
        }
        match self.owner.as_ref().filter(|_| is_paired) {
            Some(owner) => request.with_header("resource-owner", owner.clone()),
            None => request,
        }
    }
}

// === impl Identity ===

impl Identity {
    /// A session whose requests have no headers of their own.
    #[must_use]
    pub fn plain(session: String) -> Self {
        Self {
            key: session.clone(),
            session,
            caller: Caller::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_headers_go_along_and_its_owner_appears_with_the_pairing() {
        let caller = Caller {
            headers: vec![("x-tenant".to_owned(), "acme".to_owned())],
            fresh_token: Some("t".to_owned()),
            owner: Some("jid".to_owned()),
        };
        let before = caller.sign(Request::default(), 1, false);
        assert_eq!(before.header("x-tenant"), Some("acme"));
        assert_eq!(before.header("authorization"), Some("Bearer t.1"));
        assert_eq!(before.header("resource-owner"), None);
        let after = caller.sign(Request::default(), 2, true);
        assert_eq!(after.header("authorization"), Some("Bearer t.2"));
        assert_eq!(after.header("resource-owner"), Some("jid"));
    }
}
