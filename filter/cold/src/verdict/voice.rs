//! Whose answer it is, and whether it says failure: the one place where that is read from a body.
//!
//! Laravel answers in JSON, or with nothing; a route whose controller returns a string answers in text, and the
//! type of that is `text/html` as well. So the body tells, not its type: a login page, a parking page and a
//! proxy's error begin with `<`, and nothing that Laravel says of an update does.

use alloc::vec::Vec;

use crate::json::{self, Member};

/// The voice in which a body speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// JSON: always Laravel's.
    Json,
    /// Text that is no markup: Laravel's where the route answers so.
    Text,
    /// A page, or text from a route that answers in JSON: a proxy's.
    Foreign,
}

/// Values that stand for no, as they are written.
const NO: [&str; 4] = ["false", "0", "\"false\"", "\"0\""];

/// Values that stand for yes.
const YES: [&str; 4] = ["true", "1", "\"true\"", "\"1\""];

/// Values that say nothing.
const NOTHING: [&str; 7] = ["null", "false", "0", "\"0\"", "\"\"", "[]", "{}"];

/// States of an answer that stand for no, without case.
const FAILURES: [&str; 3] = ["fail", "failed", "error"];

// === impl Voice ===

impl Voice {
    /// The voice of a body, from a route that is known to speak like this. `None` where it is empty: that is
    /// Laravel's, too, and says nothing of how it speaks.
    #[must_use]
    pub fn of(body: &[u8], known: Option<Self>) -> Option<Self> {
        let body = body.trim_ascii();
        Some(match body.first()? {
            b'{' if json::members(body).is_ok() => Self::Json,
            b'[' if json::elements(body).is_ok() => Self::Json,
            b'"' | b't' | b'f' | b'n' if is_scalar(body) => Self::Json,
            b'<' => Self::Foreign,
            // The mark that some editors put before a page.
            0xef if body.starts_with(b"\xef\xbb\xbf<") => Self::Foreign,
            _ if known == Some(Self::Json) => Self::Foreign,
            _ => Self::Text,
        })
    }
}

/// Whether a body is JSON that is neither an object, an array nor a number: a number is what a controller
/// returns that returns text.
fn is_scalar(body: &[u8]) -> bool {
    let mut array = Vec::with_capacity(body.len().saturating_add(2));
    array.push(b'[');
    array.extend_from_slice(body);
    array.push(b']');
    json::elements(&array).is_ok_and(|elements| elements.len() == 1)
}

/// Whether the body of a 2xx says failure all the same.
#[must_use]
pub fn says_failure(body: &[u8]) -> bool {
    let Ok(answer) = json::members(body) else {
        return false;
    };
    let is = |key, values: &[&str]| member(&answer, key).is_some_and(|raw| is_one_of(raw, values));
    if is("success", &NO) {
        return true;
    }
    if is("success", &YES) {
        return false;
    }
    let says = |key| member(&answer, key).is_some_and(|raw| !is_nothing(raw));
    let state = member(&answer, "status").unwrap_or_default();
    is("ok", &NO) || is_failure(state) || says("error") || says("failed")
}

/// Whether the body of an answer to one item says that Laravel passed over it: then it has not taken it.
#[must_use]
pub fn says_skipped(body: &[u8]) -> bool {
    let answer = json::members(body).unwrap_or_default();
    member(&answer, "skipped") == Some(b"true")
}

/// A member's value as it is written; of equal keys the last, as PHP reads them.
fn member<'b>(object: &[Member<'b>], key: &str) -> Option<&'b [u8]> {
    let found = object.iter().rev().find(|(known, _)| known == key);
    found.map(|(_, raw)| raw.trim_ascii())
}

fn is_one_of(raw: &[u8], values: &[&str]) -> bool {
    let mut values = values.iter();
    values.any(|value| raw.eq_ignore_ascii_case(value.as_bytes()))
}

fn is_failure(raw: &[u8]) -> bool {
    let text = raw
        .strip_prefix(b"\"")
        .and_then(|raw| raw.strip_suffix(b"\""));
    text.is_some_and(|text| is_one_of(text, &FAILURES))
}

/// Also where there is space between its brackets.
fn is_nothing(raw: &[u8]) -> bool {
    let inner = |open, close| {
        let inner = raw.strip_prefix(open)?.strip_suffix(close)?;
        Some(inner.trim_ascii().is_empty())
    };
    is_one_of(raw, &NOTHING)
        || inner(b"[".as_slice(), b"]".as_slice()) == Some(true)
        || inner(b"{", b"}") == Some(true)
        || inner(b"\"", b"\"") == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_failure_in_the_ways_that_applications_have() {
        for body in [
            r#"{"success":false}"#,
            r#"{"success":0,"id":7}"#,
            r#"{"success":"false"}"#,
            r#"{"success" : "0" }"#,
            r#"{"ok":false}"#,
            r#"{"status":"fail"}"#,
            r#"{"status":"Error"}"#,
            r#"{"status":"failed","success":null}"#,
            r#"{"error":"SQLSTATE[HY000]"}"#,
            r#"{"error":{"code":7}}"#,
            r#"{"failed":2,"processed":3}"#,
            r#"{"failed":["s1"]}"#,
            r#"{"success":true,"success":false}"#,
        ] {
            assert!(says_failure(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn whatever_else_an_application_says_is_no_failure() {
        for body in [
            "",
            "OK",
            "[]",
            "{}",
            r#"{"success":true}"#,
            r#"{"success":true,"error":"the webhook was slow","failed":1}"#,
            r#"{"success":1,"status":"error"}"#,
            r#"{"error":null}"#,
            r#"{"error":"","failed":0}"#,
            r#"{"error":[ ],"failed":{}}"#,
            r#"{"status":"pending"}"#,
            r#"{"status":500}"#,
            r#"{"data":{"success":false}}"#,
            r#"{"ok":true}"#,
        ] {
            assert!(!says_failure(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn a_count_of_what_was_skipped_is_not_that_it_was() {
        assert!(says_skipped(br#"{"success":true,"skipped":true}"#));
        assert!(!says_skipped(br#"{"success":true,"skipped":3}"#));
        assert!(!says_skipped(b"skipped"));
    }

    #[test]
    fn a_page_is_nobodys_word_and_text_is_where_the_route_speaks_so() {
        let of = |body: &str, known| Voice::of(body.as_bytes(), known);
        for known in [None, Some(Voice::Json), Some(Voice::Text)] {
            assert_eq!(of("", known), None);
            assert_eq!(of(" \r\n", known), None);
            assert_eq!(of(r#" {"a":[1,{"b":2}]} "#, known), Some(Voice::Json));
            assert_eq!(of("[]", known), Some(Voice::Json));
            assert_eq!(of("true", known), Some(Voice::Json));
            assert_eq!(of(r#""ok""#, known), Some(Voice::Json));
            assert_eq!(of("<html>", known), Some(Voice::Foreign));
            assert_eq!(of("\n<!doctype", known), Some(Voice::Foreign));
            assert_eq!(of("\u{feff}<!doctype", known), Some(Voice::Foreign));
        }
        for body in ["OK", "7", "truth", r#"x{"success":true}"#, r#"{"cut":"#] {
            assert_eq!(of(body, None), Some(Voice::Text), "{body}");
            assert_eq!(of(body, Some(Voice::Text)), Some(Voice::Text), "{body}");
            assert_eq!(of(body, Some(Voice::Json)), Some(Voice::Foreign), "{body}");
        }
    }
}
