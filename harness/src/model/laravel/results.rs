//! Batches: taken whole or not at all, or judged item by item.
//!
//! The application that exists validates a batch before it stores anything, so one item that it does not
//! want costs all the others their turn; its 422 names the items, unless somebody replaced the handler. One
//! that was written for batches judges each item by itself and says so in `results`, in the order of the
//! items: 200 for the whole, and in it whatever a single post would have been answered.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Call, Laravel, Misbehaviour, input, tenants};
use crate::model::http::{Response, Route};

/// What became of an item.
enum Taken {
    Stored,
    /// No such account: nothing to store, and nothing wrong.
    Skipped,
    /// It is not valid.
    Invalid,
    /// It is valid, and was not stored all the same.
    Failed,
    /// Its row threw, or was not found; the line says it with this status.
    Threw(u16),
}

// === impl Laravel ===

impl Laravel {
    pub(super) fn batch(&mut self, now_ms: u64, route: Route, call: &Call) -> Response {
        let failing = match &call.fault {
            Some(Misbehaviour::Partly { one_in, status }) => Some((*one_in, status.clone())),
            _ => None,
        };
        // An application that answers its batches without a word has no lines for what it did not take.
        let failing = failing.filter(|_| !self.config.silent_batches);
        let by_item = (self.config.results && !self.config.silent_batches) || failing.is_some();
        let input = input::read(&call.request);
        let list = match input::batch(route, &input, by_item) {
            Ok(list) => list,
            Err(errors) => return errors.response(&call.request),
        };
        if let Some(max) = self.config.batch_items_max.filter(|max| list.len() > *max) {
            return input::too_many(route, max).response(&call.request);
        }
        let foreign = |item: &input::Item| !self.permits(&call.request, &item.session);
        if list.iter().flatten().any(foreign) {
            return tenants::forbidden();
        }
        let is_poison = |item: &Option<input::Item>| {
            let session = item.as_ref().map(|item| &item.session);
            session.is_some_and(|session| self.is_poison(session, now_ms))
        };
        let poison: Vec<usize> = (0..list.len()).filter(|at| is_poison(&list[*at])).collect();
        if !by_item && !poison.is_empty() {
            let named = match self.config.poison_indexes {
                true => poison,
                false => Vec::new(),
            };
            return input::poison(route, Some(&named)).response(&call.request);
        }
        let sessions = input::sessions(route, &input);
        let items = list.len();
        let mut results = Vec::with_capacity(items);
        let mut processed = 0;
        for (at, item) in list.into_iter().enumerate() {
            let fails = failing
                .as_ref()
                .is_some_and(|(one_in, _)| (call.id + at as u64).is_multiple_of(*one_in.max(&1)));
            let exception = item.as_ref().and_then(|item| {
                let key = self.key(&call.request, &item.session);
                self.exception(now_ms, &key)
            });
            let taken = match item {
                None => Taken::Invalid,
                // Nobody caught it: what came before it is stored, and the rest never had its turn.
                Some(_) if !by_item && exception.is_some() => {
                    return exception.unwrap_or_else(super::rows::server_error);
                }
                Some(_) if exception.is_some() => match exception.map(|answer| answer.status) {
                    Some(404) => Taken::Threw(404),
                    _ => Taken::Threw(self.config.throwing_line),
                },
                Some(item) if self.is_poison(&item.session, now_ms) => Taken::Invalid,
                Some(_) if fails => Taken::Failed,
                Some(item) => match self.store(now_ms, route, item, true, call) {
                    true => Taken::Stored,
                    false => Taken::Skipped,
                },
            };
            processed += usize::from(matches!(taken, Taken::Stored | Taken::Skipped));
            let status = failing.as_ref().map_or("error", |(_, status)| status);
            results.push(result(&taken, route, sessions.get(at), status));
        }
        let mut body = json!({ "success": true, "processed": processed });
        if by_item {
            body["results"] = Value::Array(results);
        }
        if self.config.silent_batches {
            return Response {
                status: 204,
                headers: Vec::new(),
                body: Bytes::new(),
                items,
            };
        }
        Response {
            items,
            ..Response::json(200, &body)
        }
    }
}

/// An item's line in `results`.
fn result(taken: &Taken, route: Route, session: Option<&Value>, failed: &str) -> Value {
    let mut line = json!({ "session_id": session });
    line["status"] = match taken {
        Taken::Stored => json!("ok"),
        Taken::Skipped => json!("skipped"),
        Taken::Invalid => json!(422),
        Taken::Failed => failed
            .parse::<u16>()
            .map_or_else(|_| json!(failed), Value::from),
        Taken::Threw(status) => json!(status),
    };
    match taken {
        Taken::Skipped => line["reason"] = json!("account_not_found"),
        Taken::Invalid => line["message"] = json!(input::invalid(route)),
        Taken::Stored | Taken::Failed | Taken::Threw(_) => {}
    }
    line
}
