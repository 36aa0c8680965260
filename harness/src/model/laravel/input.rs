//! What Laravel makes of a body: PHP's JSON, then the validator.
//!
//! Laravel reads `(array) json_decode(body, true)`. A body PHP cannot decode is therefore no error
//! but an *empty input*, and the caller gets a 422 that says the fields are missing. For a batch it
//! means that one item PHP cannot read blinds it to all the others.
//!
//! The validator runs over the whole batch before anything is processed: one bad item, and none of
//! them is stored. `TrimStrings` and `ConvertEmptyStringsToNull` run first, as they do by default.
//!
//! Left out, because no sender of ours needs it: form bodies, fields taken from the query string,
//! and numbers beyond a double, which PHP reads as infinity and this as undecodable.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::model::http::{Request, Response, Route};

/// `json_decode`'s default depth: the 513th nested array is an error.
const PHP_JSON_DEPTH_MAX: usize = 512;

/// What the validator says of a value that it does not take.
const INVALID: &str = "is invalid.";

/// The states the running Laravel accepts.
const STATES: [&str; 4] = ["pending", "active", "connecting", "inactive"];

/// One validated update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) session: String,
    pub(super) value: String,
    pub(super) timestamp: Option<u64>,
}

/// Field → messages, as in the body of a 422.
#[derive(Debug, Default)]
pub(super) struct Errors {
    fields: Map<String, Value>,
    first: Option<String>,
}

/// The input of a request: its JSON object, or nothing.
pub(super) fn read(request: &Request) -> Map<String, Value> {
    let json = request
        .header("content-type")
        .is_some_and(|value| value.contains("/json") || value.contains("+json"));
    match json.then(|| php_json_decode(&request.body)) {
        Some(Some(Value::Object(object))) => object,
        _ => Map::new(),
    }
}

/// `json_decode($body, true)`, `None` standing for PHP's `null`.
///
/// serde_json agrees with PHP on what matters: of duplicate keys the last wins; an unpaired
/// surrogate and bad UTF-8 are errors. Only its depth limit is another one.
pub(super) fn php_json_decode(body: &[u8]) -> Option<Value> {
    if depth(body) > PHP_JSON_DEPTH_MAX {
        return None;
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    reader.disable_recursion_limit();
    let value = Value::deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    Some(value)
}

/// One update of `POST /qr` or `POST /whatsapp/status`.
pub(super) fn single(route: Route, input: &Map<String, Value>) -> Result<Item, Errors> {
    let mut errors = Errors::default();
    match item(route, input, "", &mut errors) {
        Some(item) if errors.fields.is_empty() => Ok(item),
        _ => Err(errors),
    }
}

/// All updates of a batch, or none; with `by_item` those that are valid, each in its place.
pub(super) fn batch(
    route: Route,
    input: &Map<String, Value>,
    by_item: bool,
) -> Result<Vec<Option<Item>>, Errors> {
    let mut errors = Errors::default();
    let field = batch_field(route);
    let list = match input.get(field) {
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(Value::Array(_)) | None | Some(Value::Null) => {
            errors.add(field, "is required.");
            return Err(errors);
        }
        Some(_) => {
            errors.add(field, "must be an array.");
            return Err(errors);
        }
    };
    let empty = Map::new();
    let mut items = Vec::with_capacity(list.len());
    for (i, value) in list.iter().enumerate() {
        let object = value.as_object().unwrap_or(&empty);
        let before = errors.fields.len();
        let item = item(route, object, &format!("{field}.{i}."), &mut errors);
        items.push(item.filter(|_| errors.fields.len() == before));
    }
    if by_item || errors.fields.is_empty() {
        Ok(items)
    } else {
        Err(errors)
    }
}

/// The sessions of a batch's items, as they stand there.
pub(super) fn sessions(route: Route, input: &Map<String, Value>) -> Vec<Value> {
    let list = input.get(batch_field(route)).and_then(Value::as_array);
    let session = |item: &Value| item.get("session_id").cloned().unwrap_or_default();
    list.into_iter().flatten().map(session).collect()
}

/// A validation that fails for reasons of its own: of a single update, or of the items of a batch at these
/// places; of no place in particular where there are none.
pub(super) fn poison(route: Route, places: Option<&[usize]>) -> Errors {
    let mut errors = Errors::default();
    let (list, field) = (batch_field(route), field(route));
    match places {
        None => errors.add(field, INVALID),
        Some([]) => errors.add(list, INVALID),
        Some(places) => {
            for at in places {
                errors.add(&format!("{list}.{at}.{field}"), INVALID);
            }
        }
    }
    errors
}

/// `max`: the array is longer than the validation takes.
pub(super) fn too_many(route: Route, max: usize) -> Errors {
    let mut errors = Errors::default();
    let what = format!("must not have more than {max} items.");
    errors.add(batch_field(route), &what);
    errors
}

/// The message of such a validation.
pub(super) fn invalid(route: Route) -> String {
    message(field(route), INVALID)
}

fn batch_field(route: Route) -> &'static str {
    match route {
        Route::Qr => "qrs",
        Route::Status => "statuses",
    }
}

fn field(route: Route) -> &'static str {
    match route {
        Route::Qr => "qr",
        Route::Status => "estado_qr",
    }
}

fn message(field: &str, what: &str) -> String {
    format!("The {} field {what}", field.replace('_', " "))
}

fn item(route: Route, object: &Map<String, Value>, at: &str, errors: &mut Errors) -> Option<Item> {
    let session = string(object, at, "session_id", errors);
    if session.as_deref().is_some_and(|session| !is_uuid(session)) {
        errors.add(&format!("{at}session_id"), "must be a valid UUID.");
    }
    let field = field(route);
    let value = string(object, at, field, errors);
    if route == Route::Status
        && value
            .as_deref()
            .is_some_and(|value| !STATES.contains(&value))
    {
        errors.add(&format!("{at}{field}"), INVALID);
    }
    let timestamp = object.get("timestamp").and_then(Value::as_u64);
    Some(Item {
        session: session?,
        value: value?,
        timestamp,
    })
}

/// The rules `required|string`.
fn string(
    object: &Map<String, Value>,
    at: &str,
    field: &str,
    errors: &mut Errors,
) -> Option<String> {
    let name = format!("{at}{field}");
    match object.get(field) {
        Some(Value::String(text)) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        None | Some(Value::Null | Value::String(_)) => {
            errors.add(&name, "is required.");
            None
        }
        Some(_) => {
            errors.add(&name, "must be a string.");
            None
        }
    }
}

/// Laravel's `uuid` rule: the hyphenated form, any version, either case.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    lengths == [8, 4, 4, 4, 12]
        && groups
            .iter()
            .all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// How deep arrays and objects nest, strings left out. Meaningful for JSON only; for anything else
/// any number will do, because decoding fails anyway.
fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut quoted, mut escaped) = (false, false);
    for &byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

// === impl Errors ===

impl Errors {
    fn add(&mut self, field: &str, what: &str) {
        let message = message(field, what);
        self.first.get_or_insert_with(|| message.clone());
        let entry = self.fields.entry(field).or_insert_with(|| json!([]));
        if let Value::Array(messages) = entry {
            messages.push(Value::String(message));
        }
    }

    /// A 422 for those who ask for JSON first; the browser's redirect for everybody else.
    pub(super) fn response(self, request: &Request) -> Response {
        if !wants_json(request) {
            return Response::html(302, "Redirecting to /").with_header("location", "/");
        }
        let mut message = self.first.unwrap_or_default();
        match self.fields.len().saturating_sub(1) {
            0 => {}
            1 => message.push_str(" (and 1 more error)"),
            more => message.push_str(&format!(" (and {more} more errors)")),
        }
        Response::json(422, &json!({ "message": message, "errors": self.fields }))
    }
}

/// Laravel's `wantsJson()`: the *first* acceptable type is JSON.
pub(super) fn wants_json(request: &Request) -> bool {
    request
        .header("accept")
        .and_then(|accept| accept.split(',').next())
        .is_some_and(|first| first.contains("/json") || first.contains("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_duplicate_keys_wins() {
        let value = php_json_decode(br#"{"a":1,"a":2}"#);
        assert_eq!(value, Some(json!({"a": 2})));
    }

    #[test]
    fn what_php_cannot_decode_is_nothing() {
        for body in [
            &b"{"[..],
            b"",
            b"\"\xff\"",
            br#""\ud800""#,
            b"{} x",
            b"{'a':1}",
        ] {
            assert_eq!(
                php_json_decode(body),
                None,
                "{:?}",
                String::from_utf8_lossy(body)
            );
        }
    }

    #[test]
    fn arrays_nest_512_deep_and_no_deeper() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(php_json_decode(nested(512).as_bytes()).is_some());
        assert!(php_json_decode(nested(513).as_bytes()).is_none());
        let text = format!("\"\\\"{}\"", "[".repeat(600));
        assert!(
            php_json_decode(text.as_bytes()).is_some(),
            "brackets in a string nest nothing"
        );
    }

    #[test]
    fn a_uuid_is_hyphenated() {
        assert!(is_uuid("0189DCD2-0b0b-7c3a-8c3a-0189dcd20b0b"));
        assert!(!is_uuid("0189dcd20b0b7c3a8c3a0189dcd20b0b"));
        assert!(!is_uuid("{189dcd2-0b0b-7c3a-8c3a-0189dcd20b0b}"));
    }
}
