//! Every read was answered with Laravel's own word.
//!
//! Laravel writes down, with each update, what a status read is answered from then on. So for each read there is what
//! Laravel itself would have said at that moment, and the answer is compared with that, read by read: one of the words
//! that held between the read's beginning and its end, member by member.
//!
//! One thing may differ: the state, where the gateway was told 200 for a newer one that Laravel does not have yet. And
//! for [`SETTLE_MS`] after that was delivered an answer that shows the state from before may still be taken for one
//! from before: a Laravel may have a queue, or a replica.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::http::Route;
use super::order::{Sent, SentLog};

/// Embudo's `settle_ms`, if nothing else is configured.
pub const SETTLE_MS: u64 = 30_000;

/// From the moment that Laravel writes down until the row is there for others, at most: the rest of a transaction, on
/// a machine that does other things as well. Around an update of a session both words are right for so long.
const COMMIT_MAX_US: u64 = 100_000;

/// Laravel's clock has whole milliseconds.
const GRAIN_US: u64 = 2_000;

/// States from before that Laravel may still show, as many as Embudo remembers.
const BEFORE_MAX: usize = 3;

/// Where an answer shows the state; the second only where it says the same.
const STATES: [&str; 2] = ["estado_qr", "status"];

/// How many wrong ones a report names.
const NAMED_MAX: usize = 20;

/// A read that was answered 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// When it was sent, in µs.
    pub sent_us: u64,
    /// When it was answered.
    pub ended_us: u64,
    /// The answer.
    pub body: Bytes,
    /// Its `x-embudo`.
    pub outcome: Option<String>,
}

/// Reads by session, in the order of their ends.
pub type ReadLog = BTreeMap<String, Vec<Read>>;

/// What a status read of a session is answered from a moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// In ms of the same clock.
    pub at_ms: u64,
    /// The body.
    pub says: String,
    /// The state that was told, if it was one; `None` for a QR, and for what others have done.
    pub told: Option<String>,
    /// A user of Laravel's own has changed something, and the gateway knows nothing of it.
    pub is_users: bool,
}

/// Words by session, in the order of effect.
pub type Words = BTreeMap<String, Vec<Word>>;

/// What came of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Reads that were compared.
    pub compared: u64,
    /// Of these, answered in Laravel's stead.
    pub from_the_store: u64,
    /// Laravel's own word, with a newer state in its place.
    pub patched: u64,
    /// Answered while Laravel failed, or took too long: what it said last, whatever has changed since.
    pub stale: u64,
    /// Laravel has written down nothing of the session before.
    pub undecided: u64,
    /// Neither.
    pub wrong: u64,
    /// The first of them.
    pub named: Vec<String>,
}

/// Compares each read with Laravel's own word.
#[must_use]
pub fn compare(reads: &ReadLog, words: &Words, sent: &SentLog) -> Compared {
    let mut all = Compared::default();
    for (session, reads) in reads {
        let words = words.get(session).map_or(&[][..], Vec::as_slice);
        let told = Told::new(sent.of_session(session), words);
        for read in reads {
            if read.outcome.as_deref() == Some("stale") {
                all.stale += 1;
                continue;
            }
            let held = held(words, read);
            if held.is_empty() {
                all.undecided += 1;
                continue;
            }
            all.compared += 1;
            all.from_the_store += u64::from(is_from_the_store(read));
            let Ok(body) = serde_json::from_slice::<Value>(&read.body) else {
                all.is_wrong(session, read, words);
                continue;
            };
            let is_own = |at: &usize| says(words, *at).as_ref() == Some(&body);
            if held.iter().any(is_own) {
                continue;
            }
            match held.iter().any(|at| told.explains(&body, words, *at, read)) {
                true => all.patched += 1,
                false => all.is_wrong(session, read, words),
            }
        }
    }
    all
}

/// The words that held while the read was under way.
fn held(words: &[Word], read: &Read) -> Vec<usize> {
    let from_us = |word: &Word| (word.at_ms * 1000).saturating_sub(GRAIN_US);
    let holds = |at: &usize| {
        let begun = words.get(*at).is_some_and(|w| from_us(w) <= read.ended_us);
        let next = words.get(at + 1);
        begun && next.is_none_or(|next| next.at_ms * 1000 + COMMIT_MAX_US >= read.sent_us)
    };
    (0..words.len()).filter(holds).collect()
}

fn says(words: &[Word], at: usize) -> Option<Value> {
    serde_json::from_str(&words.get(at)?.says).ok()
}

fn is_from_the_store(read: &Read) -> bool {
    let outcome = read.outcome.as_deref();
    outcome.is_some_and(|outcome| outcome.starts_with("cached"))
}

/// A state that was accepted, and what became of it.
struct Accepted<'s> {
    sent: &'s Sent,
    /// When Laravel had it, and the state that it had before.
    delivered: Option<(u64, usize)>,
}

/// The states that the gateway was told 200 for, in the order of sending.
struct Told<'s>(Vec<Accepted<'s>>);

// === impl Told ===

impl<'s> Told<'s> {
    fn new(sends: &'s [Sent], words: &[Word]) -> Self {
        let is_news = |send: &&Sent| send.route == Route::Status && send.is_news();
        let accepted = sends.iter().filter(is_news).map(|sent| Accepted {
            sent,
            delivered: words
                .iter()
                .enumerate()
                .filter(|(_, word)| word.told.as_ref() == Some(&sent.value))
                .map(|(at, word)| (word.at_ms * 1000, at))
                .find(|(at_us, _)| at_us + GRAIN_US >= sent.sent_us),
        });
        Self(accepted.collect())
    }

    /// Whether an answer is this word with the newest accepted state in its place, and may be.
    fn explains(&self, body: &Value, words: &[Word], at: usize, read: &Read) -> bool {
        let Some(word) = says(words, at) else {
            return false;
        };
        self.newest(read).any(|accepted| {
            let state = Value::from(accepted.sent.value.as_str());
            if !patches(&word, &state).contains(body) {
                return false;
            }
            let Some((delivered_us, by)) = accepted.delivered else {
                return true;
            };
            // Not delivered when the read began; or a moment ago, and this is what was before.
            delivered_us + COMMIT_MAX_US >= read.sent_us
                || read.ended_us <= delivered_us + SETTLE_MS * 1000
                    && before(words, by).contains(&word[STATES[0]])
        })
    }

    /// What was the newest at some moment of the read.
    fn newest<'a>(&'a self, read: &'a Read) -> impl Iterator<Item = &'a Accepted<'s>> {
        let begun = self.0.iter().filter(|it| it.sent.sent_us <= read.ended_us);
        let begun: Vec<_> = begun.collect();
        let is_overtaken = move |at: usize, all: &[&Accepted<'s>]| {
            let later = all.get(at + 1..).unwrap_or_default();
            later
                .iter()
                .any(|it| it.sent.ended_us.is_some_and(|ended| ended < read.sent_us))
        };
        let newest: Vec<_> = (0..begun.len())
            .filter(|&at| !is_overtaken(at, &begun))
            .filter_map(|at| begun.get(at).copied())
            .collect();
        newest.into_iter()
    }
}

/// The last states before a word.
fn before(words: &[Word], by: usize) -> Vec<Value> {
    let mut states = BTreeSet::new();
    let mut last = Vec::new();
    for at in (0..by).rev() {
        let Some(state) = says(words, at).map(|word| word[STATES[0]].clone()) else {
            continue;
        };
        if last.len() < BEFORE_MAX && states.insert(state.to_string()) {
            last.push(state);
        }
    }
    last
}

/// The word with this state in its place; the other member follows, or does not.
fn patches(word: &Value, state: &Value) -> Vec<Value> {
    let mut one = word.clone();
    let was = std::mem::replace(&mut one[STATES[0]], state.clone());
    let mut all = one.clone();
    if let Some(other) = all.get_mut(STATES[1]).filter(|other| **other == was) {
        *other = state.clone();
    }
    vec![one, all]
}

// === impl Compared ===

impl Compared {
    fn is_wrong(&mut self, session: &str, read: &Read, words: &[Word]) {
        self.wrong += 1;
        if self.named.len() >= NAMED_MAX {
            return;
        }
        let at = held(words, read).first().copied().unwrap_or_default();
        let differing = serde_json::from_slice::<Value>(&read.body)
            .ok()
            .zip(says(words, at))
            .map(|(body, word)| differing(&body, &word));
        self.named.push(format!(
            "{session} at {} ms ({}): {}",
            read.sent_us / 1000,
            read.outcome.as_deref().unwrap_or("Laravel's own"),
            differing.unwrap_or_else(|| "no JSON".to_owned())
        ));
    }
}

/// The members in which an answer is not Laravel's word. A QR is a credential: not even a test's report shows one.
fn differing(body: &Value, word: &Value) -> String {
    let short = |value: &Value| {
        let text = value.to_string();
        match text.char_indices().nth(16) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text,
        }
    };
    let names = body.as_object().into_iter().flatten().map(|(name, _)| name);
    let differ = names.filter(|name| body.get(name) != word.get(name));
    let told: Vec<String> = differ
        .map(|name| {
            format!(
                "{name} {} where Laravel says {}",
                short(&body[name]),
                short(&word[name])
            )
        })
        .collect();
    told.join(", ")
}

#[cfg(test)]
mod tests;
