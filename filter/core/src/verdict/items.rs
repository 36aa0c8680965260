//! What an answer says of each item of a batch.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::{Asked, Verdict};
use crate::json::{self, Member};

/// One item's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemFate {
    /// Laravel has it.
    Delivered,
    /// Laravel has passed over it, because it knows something newer: nothing is left to do.
    Skipped,
    /// Laravel has not taken it, and it is to blame: it is tried alone.
    Suspect,
    /// Laravel has not taken it, and it is not to blame.
    Again,
}

/// Words with which servers turn an item down. Any other word may be the state of a session that the item
/// is about, and says nothing.
const REFUSALS: [&str; 10] = [
    "error",
    "failed",
    "failure",
    "rejected",
    "invalid",
    "not_found",
    "account_not_found",
    "session_not_found",
    "unauthorized",
    "forbidden",
];

/// Words with which servers pass over an item.
const SKIPS: [&str; 3] = ["skipped", "stale", "outdated"];

/// `results`: one for each item, in order. Without it the batch was taken whole.
pub(super) fn of_results(body: &[u8], items: usize, why: String) -> Verdict {
    let answer = json::members(body).unwrap_or_default();
    let results = raw(&answer, "results").and_then(|raw| json::elements(raw).ok());
    let Some(results) = results else {
        return Verdict::Delivered;
    };
    let fates: Vec<ItemFate> = results.iter().map(|raw| of_result(raw)).collect();
    if fates.iter().all(|fate| *fate == ItemFate::Delivered) {
        return Verdict::Delivered;
    }
    // Nobody can say whose they are.
    if fates.len() != items {
        let why = format!("{why}, {} results for {items} items", fates.len());
        return Verdict::Suspects { why };
    }
    Verdict::Items { fates, why }
}

fn of_result(text: &[u8]) -> ItemFate {
    let result = json::members(text).unwrap_or_default();
    let is = |key: &str, wanted: &str| raw(&result, key) == Some(wanted.as_bytes());
    if is("skipped", "true") {
        return ItemFate::Skipped;
    }
    let status = raw(&result, "status").unwrap_or_default();
    let word = core::str::from_utf8(status).unwrap_or("").trim_matches('"');
    if let Ok(code) = word.parse::<u16>() {
        return match code {
            0..=299 => ItemFate::Delivered,
            408 | 425 | 429 | 500.. => ItemFate::Again,
            _ => ItemFate::Suspect,
        };
    }
    if SKIPS.contains(&word) {
        return ItemFate::Skipped;
    }
    match REFUSALS.contains(&word) || is("success", "false") {
        true => ItemFate::Suspect,
        false => ItemFate::Delivered,
    }
}

/// `errors`, as Laravel's validation has them: the keys of those that name an item, as in `qrs.3.qr`. `None`
/// where no item is named.
pub(super) fn of_errors(body: &[u8], asked: &Asked<'_>) -> Option<Vec<ItemFate>> {
    let answer = json::members(body).ok()?;
    let errors = json::members(raw(&answer, "errors")?).ok()?;
    let mut fates = vec![ItemFate::Again; asked.items];
    let mut is_named = false;
    for (key, _) in &errors {
        let rest = key
            .strip_prefix(asked.field)
            .and_then(|key| key.strip_prefix('.'));
        let index = rest.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        if let Some(fate) = index.and_then(|index| fates.get_mut(index)) {
            *fate = ItemFate::Suspect;
            is_named = true;
        }
    }
    is_named.then_some(fates)
}

/// A member's value as it is written; of equal keys the last, as PHP reads them.
fn raw<'b>(object: &[Member<'b>], key: &str) -> Option<&'b [u8]> {
    let found = object.iter().rev().find(|(known, _)| known == key);
    found.map(|(_, raw)| *raw)
}
