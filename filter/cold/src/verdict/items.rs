//! What an answer says of each item of a batch.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::members::{bare, is_false, object, raw};
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
    /// Laravel has not taken it, because of this row and not for good: the row backs off.
    Threw,
    /// Laravel has not taken it, and it is not to blame.
    Again,
}

/// Whom a failed validation names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    Items(Vec<ItemFate>),
    /// The array itself, and no item.
    Array,
    Nobody,
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

/// Members by which a line names its session, beside the rule's own.
const SESSIONS: [&str; 3] = ["session_id", "sessionId", "session"];

/// `results`: a line for each item, named by its session where the batch has that name once, by its position
/// otherwise. An item without a line goes alone. Without `results` the batch was taken whole.
pub(super) fn of_results(body: &[u8], asked: &Asked<'_>, why: String) -> Verdict {
    let answer = object(body).unwrap_or_default();
    let results = raw(&answer, "results").and_then(|raw| json::elements(raw).ok());
    let Some(results) = results else {
        return Verdict::Delivered;
    };
    let mut fates: Vec<Option<ItemFate>> = vec![None; asked.sessions.len()];
    let mut by_position = Vec::new();
    for (at, text) in results.iter().enumerate() {
        let line = object(text).unwrap_or_default();
        match named(&line, asked.sessions).and_then(|at| fates.get_mut(at)) {
            Some(fate @ None) => *fate = Some(of_line(&line)),
            _ => by_position.push((at, of_line(&line))),
        }
    }
    for (at, fate) in by_position {
        if let Some(place @ None) = fates.get_mut(at) {
            *place = Some(fate);
        }
    }
    let lines = results.len();
    let fates: Vec<ItemFate> = fates
        .into_iter()
        .map(|fate| fate.unwrap_or(ItemFate::Suspect))
        .collect();
    if fates.iter().all(|fate| *fate == ItemFate::Delivered) {
        return Verdict::Delivered;
    }
    if lines == 0 {
        let why = format!("{why}, without any result");
        return Verdict::Apart { why };
    }
    Verdict::Items { fates, why }
}

/// The one item whose session a line names.
fn named(line: &[Member<'_>], sessions: &[String]) -> Option<usize> {
    let name = SESSIONS.iter().find_map(|key| raw(line, key))?;
    let name = json::word(name)?;
    let is = |known: &&String| **known == name;
    match sessions.iter().filter(is).count() {
        1 => sessions.iter().position(|known| is(&known)),
        _ => None,
    }
}

fn of_line(line: &[Member<'_>]) -> ItemFate {
    if raw(line, "skipped") == Some(b"true") {
        return ItemFate::Skipped;
    }
    let status = raw(line, "status").unwrap_or_default();
    let word = core::str::from_utf8(bare(status)).unwrap_or("");
    if let Ok(code) = word.parse::<u16>() {
        return match code {
            0..=299 => ItemFate::Delivered,
            408 | 425 | 429 | 500.. => ItemFate::Threw,
            _ => ItemFate::Suspect,
        };
    }
    if SKIPS.contains(&word) {
        return ItemFate::Skipped;
    }
    match REFUSALS.contains(&word) || raw(line, "success").is_some_and(is_false) {
        true => ItemFate::Suspect,
        false => ItemFate::Delivered,
    }
}

/// `errors`, as Laravel's validation has them: the keys of those that name an item, as in `qrs.3.qr`, or the
/// array, as in `qrs`.
pub(super) fn of_errors(body: &[u8], asked: &Asked<'_>) -> Named {
    let answer = object(body).unwrap_or_default();
    let errors = raw(&answer, "errors").and_then(object).unwrap_or_default();
    let mut fates = vec![ItemFate::Again; asked.sessions.len()];
    let (mut is_named, mut is_array) = (false, false);
    for (key, _) in &errors {
        let Some(rest) = key.strip_prefix(asked.field) else {
            continue;
        };
        is_array |= rest.is_empty();
        let index = rest.strip_prefix('.');
        let index = index.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        if let Some(fate) = index.and_then(|index| fates.get_mut(index)) {
            *fate = ItemFate::Suspect;
            is_named = true;
        }
    }
    match (is_named, is_array) {
        (true, _) => Named::Items(fates),
        (false, true) => Named::Array,
        (false, false) => Named::Nobody,
    }
}
