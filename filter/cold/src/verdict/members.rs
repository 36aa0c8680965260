//! A JSON answer's members, read as loosely as PHP's servers write them.

use alloc::vec::Vec;

use crate::json::{self, Member};

/// The members of a JSON object; `None` for anything else.
pub(super) fn object(body: &[u8]) -> Option<Vec<Member<'_>>> {
    json::members(body).ok()
}

/// A member's value as it is written; of equal keys the last, as PHP reads them.
pub(super) fn raw<'b>(object: &[Member<'b>], key: &str) -> Option<&'b [u8]> {
    let found = object.iter().rev().find(|(known, _)| known == key);
    found.map(|(_, raw)| *raw)
}

/// A literal, a number or a string without its quotes.
pub(super) fn bare(raw: &[u8]) -> &[u8] {
    match raw {
        [b'"', inner @ .., b'"'] => inner,
        other => other,
    }
}

/// `false`, 0, "false", "0".
pub(super) fn is_false(raw: &[u8]) -> bool {
    matches!(bare(raw), b"false" | b"0")
}
