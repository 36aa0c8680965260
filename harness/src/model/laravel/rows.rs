//! Rows of Laravel's that do not do what the others do, and what it wants to see on a request.
//!
//! The commonest failure of an application is an exception for one row: a deadlock, a column that is too
//! short, an account whose customer is gone. Nobody catches it, so it is a 500 for the whole batch, and those
//! rows that came before it are stored. An application that was written for batches catches it, and says so in
//! the line of that item.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::model::http::{Request, Response};

/// Sessions, and from when until when their rows throw, in ms of Laravel's clock.
pub type Throwing = BTreeMap<String, Range<u64>>;

/// A header that every request must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Required {
    /// Its name, in lower case.
    pub header: String,
    /// Its value; `None` takes any.
    #[serde(default)]
    pub value: Option<String>,
    /// What a request without it is answered: 401 by a middleware, 500 where the code trips over it.
    #[serde(default = "unauthorized")]
    pub otherwise: u16,
}

fn unauthorized() -> u16 {
    401
}

// === impl Required ===

impl Required {
    /// The refusal, if the request lacks the header.
    pub(super) fn refusal(&self, request: &Request) -> Option<Response> {
        let found = request.header(&self.header);
        let is_there = match &self.value {
            Some(value) => found == Some(value),
            None => found.is_some(),
        };
        (!is_there).then(|| match self.otherwise {
            401 => Response::json(401, &json!({ "message": "Unauthenticated." })),
            403 => Response::json(403, &json!({ "message": "This action is unauthorized." })),
            500.. => server_error(),
            code => Response::json(code, &json!({ "message": "The header is missing." })),
        })
    }
}

/// An exception that nobody caught, to those who want JSON.
pub(super) fn server_error() -> Response {
    Response::json(500, &json!({ "message": "Server Error" }))
}

/// `findOrFail` found nothing.
pub(super) fn not_found() -> Response {
    Response::json(
        404,
        &json!({ "message": "No query results for model [App\\Models\\Account]." }),
    )
}
