//! Who may ask for what: `auth:sanctum` and a policy, as an application with several customers has them.
//!
//! The middleware runs before anything is read: without a known token, 401. The policy runs over every
//! session of a call before anything is stored: one of another tenant's, and the whole call is 403.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::model::http::{Request, Response};

/// Tokens, and the sessions that each may speak for. Empty: nobody is asked for a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenants {
    owned: BTreeMap<String, BTreeSet<String>>,
}

// === impl Tenants ===

impl Tenants {
    /// Gives a session to the tenant with this token.
    pub fn add(&mut self, token: &str, session: &str) {
        let sessions = self.owned.entry(token.to_owned()).or_default();
        sessions.insert(session.to_owned());
    }

    /// The token is not known from now on, and its sessions are nobody's.
    pub fn revoke(&mut self, token: &str) {
        self.owned.remove(token);
    }

    /// The middleware: who asks, or the 401. `Ok(None)` where nobody is asked for a token.
    pub(super) fn admit(&self, request: &Request) -> Result<Option<&BTreeSet<String>>, Response> {
        if self.owned.is_empty() {
            return Ok(None);
        }
        let token = request.header("authorization");
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        // A token that is new in each request, as a JWT is, says after a dot which it is.
        let lasting = token.map(|token| token.split('.').next().unwrap_or_default());
        match lasting.and_then(|token| self.owned.get(token)) {
            Some(sessions) => Ok(Some(sessions)),
            None => Err(Response::json(
                401,
                &json!({ "message": "Unauthenticated." }),
            )),
        }
    }
}

/// The policy's refusal.
pub(super) fn forbidden() -> Response {
    Response::json(403, &json!({ "message": "This action is unauthorized." }))
}
