//! The journal: what Laravel processed, in the order it took effect.
//!
//! An entry is written when the request *finishes*, for that is when its value is what Laravel has.
//! A slow request with an old value that ends after a quick one with a newer value is therefore
//! last in the journal, as it is last in the database.
//!
//! Beside the entries the journal counts what *arrived*, processed or not, second by second: the
//! claim of requests a minute is about what reaches Laravel, and a 429 has reached it too.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::model::{
    http::{Kind, Request, Route},
    order::{self, SentLog, Violation},
};

/// Requests that are kept with all their headers: some minutes of a thousand sessions without Embudo.
const ARRIVALS_MAX: usize = 100_000;

/// A request as it arrived, without its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// When.
    pub at_ms: u64,
    /// What it counts as; `None` where nobody knows.
    pub kind: Option<Kind>,
    /// The method.
    pub method: String,
    /// `:authority` or `host`.
    pub authority: String,
    /// The path with its query.
    pub path: String,
    /// Every header, in the order they came, names in lower case.
    pub headers: Vec<(String, Bytes)>,
}

/// One processed update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Place in the order of effect, from 1, over all sessions.
    pub seq: u64,
    /// The call it came with; the items of a batch share one.
    pub call: u64,
    /// The session.
    pub session: String,
    /// The route, whether single or batched.
    pub route: Route,
    /// The QR string or the state.
    pub value: String,
    /// The item's `timestamp`, if it had one.
    pub timestamp: Option<u64>,
    /// Whether it came in a batch.
    pub batched: bool,
    /// Whether the account exists; if not, Laravel answers `skipped` and stores nothing.
    pub stored: bool,
    /// The call's `authorization`, if it had one.
    pub credential: Option<String>,
    /// The call's request: where to, how, and with which headers.
    #[serde(skip)]
    pub arrived: Arc<Arrived>,
    /// When a worker began with the call.
    pub started_ms: u64,
    /// When the call was done and this value in force.
    pub finished_ms: u64,
}

/// How much of one kind arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Requests.
    pub requests: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// What arrived within a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// How long the span is, for rates.
    pub span_ms: u64,
    by_kind: BTreeMap<Kind, Count>,
}

/// Entries and counts since the start, or since the last [`Journal::reset`].
#[derive(Clone, Debug, Default)]
pub struct Journal {
    since_ms: u64,
    seq: u64,
    entries: Vec<Entry>,
    seconds: BTreeMap<u64, BTreeMap<Kind, Count>>,
    answers: BTreeMap<(Kind, u16), u64>,
    arrivals: Vec<Arrived>,
    thrown: Vec<(u64, String)>,
    /// Accounts that another route has changed, and when it did so first.
    changed: BTreeMap<String, u64>,
}

// === impl Arrived ===

impl Arrived {
    /// A request that arrived then.
    pub fn of(at_ms: u64, kind: Kind, request: &Request) -> Self {
        Self {
            at_ms,
            kind: Some(kind),
            method: request.method.clone(),
            authority: request.authority().unwrap_or_default().to_owned(),
            path: request.path.clone(),
            headers: request.headers.clone(),
        }
    }

    /// The first header of that name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(n, _)| n == name);
        header.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

// === impl Journal ===

impl Journal {
    /// A journal of what another Laravel has kept: its updates in the order of effect, and for each request that
    /// arrived its time, kind, body and the status of its answer.
    pub fn of_records(
        entries: impl IntoIterator<Item = Entry>,
        requests: impl IntoIterator<Item = (u64, Kind, usize, u16)>,
    ) -> Self {
        let mut journal = Self::default();
        for entry in entries {
            journal.processed(entry);
        }
        for (at_ms, kind, bytes, status) in requests {
            journal.arrived(at_ms, kind, bytes);
            journal.answered(kind, status);
        }
        journal
    }

    pub(super) fn arrived(&mut self, now_ms: u64, kind: Kind, bytes: usize) {
        let second = self.seconds.entry(now_ms / 1000).or_default();
        second.entry(kind).or_default().add(1, bytes as u64);
    }

    /// Keeps a request as it arrived, as long as there is room.
    pub(super) fn keep(&mut self, arrived: Arrived) {
        if self.arrivals.len() < ARRIVALS_MAX {
            self.arrivals.push(arrived);
        }
    }

    /// The row of this account threw.
    pub(super) fn threw(&mut self, now_ms: u64, account: &str) {
        self.thrown.push((now_ms, account.to_owned()));
    }

    /// Another route has deleted this account, or set its state.
    pub(super) fn changed_by_another_route(&mut self, now_ms: u64, account: &str) {
        self.changed.entry(account.to_owned()).or_insert(now_ms);
    }

    pub(super) fn answered(&mut self, kind: Kind, status: u16) {
        *self.answers.entry((kind, status)).or_default() += 1;
    }

    pub(super) fn processed(&mut self, entry: Entry) {
        self.seq += 1;
        self.entries.push(Entry {
            seq: self.seq,
            ..entry
        });
    }

    /// Forgets entries and counts, as after a warm-up. Numbering goes on.
    pub fn reset(&mut self, now_ms: u64) {
        *self = Self {
            since_ms: now_ms,
            seq: self.seq,
            ..Self::default()
        };
    }

    /// When the last reset was, in ms of Laravel's clock.
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// The requests that arrived, the first [`ARRIVALS_MAX`] of them.
    pub fn arrivals(&self) -> &[Arrived] {
        &self.arrivals
    }

    /// When which account's row threw, in the order of time.
    pub fn thrown(&self) -> &[(u64, String)] {
        &self.thrown
    }

    /// Accounts that another route has deleted, or set the state of, and when it did so first.
    pub fn changed(&self) -> &BTreeMap<String, u64> {
        &self.changed
    }

    /// Every processed update, in the order of effect.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The processed updates of one session, in the order of effect.
    pub fn of_session<'a>(&'a self, session: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.session == session)
    }

    /// What arrived from the start or the last reset until `now_ms`.
    pub fn counts(&self, now_ms: u64) -> Counts {
        let seconds = self.seconds.values();
        Counts::sum(now_ms.saturating_sub(self.since_ms), seconds)
    }

    /// What arrived within these whole seconds of Laravel's clock, the last excluded. Seconds are
    /// the grain of the series; a window in ms would promise more than is kept.
    pub fn window(&self, from_s: u64, to_s: u64) -> Counts {
        let to_s = to_s.max(from_s);
        let seconds = self.seconds.range(from_s..to_s).map(|(_, second)| second);
        Counts::sum((to_s - from_s) * 1000, seconds)
    }

    /// Requests of each second since the first that had any; the silent ones are zeros.
    pub fn per_second(&self) -> Vec<(u64, u64)> {
        let (Some((&first, _)), Some((&last, _))) = (
            self.seconds.first_key_value(),
            self.seconds.last_key_value(),
        ) else {
            return Vec::new();
        };
        let total = |second| {
            let kinds = self
                .seconds
                .get(&second)
                .into_iter()
                .flat_map(BTreeMap::values);
            kinds.map(|count: &Count| count.requests).sum()
        };
        (first..=last)
            .map(|second| (second, total(second)))
            .collect()
    }

    /// How many requests of each kind were answered with each status.
    pub fn answers(&self) -> &BTreeMap<(Kind, u16), u64> {
        &self.answers
    }

    /// Where an older value took effect after a newer one; see [`order::check`].
    pub fn check_order(&self, sent: &SentLog) -> Vec<Violation> {
        order::check(&self.entries, sent)
    }

    /// Where two calls with the same session ran at once; see [`order::check_overlap`].
    pub fn check_overlap(&self) -> Vec<Violation> {
        order::check_overlap(&self.entries)
    }
}

// === impl Counts ===

impl Counts {
    fn sum<'a>(span_ms: u64, seconds: impl Iterator<Item = &'a BTreeMap<Kind, Count>>) -> Self {
        let mut by_kind = BTreeMap::<Kind, Count>::new();
        for (&kind, count) in seconds.flatten() {
            by_kind
                .entry(kind)
                .or_default()
                .add(count.requests, count.bytes);
        }
        Self { span_ms, by_kind }
    }

    /// One kind.
    pub fn of(&self, kind: Kind) -> Count {
        self.by_kind.get(&kind).copied().unwrap_or_default()
    }

    /// Requests of all kinds.
    pub fn requests(&self) -> u64 {
        self.by_kind.values().map(|count| count.requests).sum()
    }

    /// Body bytes of all kinds.
    pub fn bytes(&self) -> u64 {
        self.by_kind.values().map(|count| count.bytes).sum()
    }

    /// Requests a minute over the span; 0 for an empty span.
    pub fn per_minute(&self) -> f64 {
        if self.span_ms == 0 {
            return 0.0;
        }
        self.requests() as f64 * 60_000.0 / self.span_ms as f64
    }
}

// === impl Count ===

impl Count {
    fn add(&mut self, requests: u64, bytes: u64) {
        self.requests += requests;
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_taken_over_the_window_and_nothing_else() {
        let mut journal = Journal::default();
        for now_ms in [100, 1_500, 1_900, 3_000] {
            journal.arrived(now_ms, Kind::PostQr, 10);
        }
        let window = journal.window(1, 3);
        assert_eq!(
            window.of(Kind::PostQr),
            Count {
                requests: 2,
                bytes: 20
            }
        );
        assert_eq!(window.per_minute(), 60.0);
        assert_eq!(journal.per_second(), [(0, 1), (1, 2), (2, 0), (3, 1)]);
    }

    #[test]
    fn a_reset_forgets_counts_and_measures_from_there() {
        let mut journal = Journal::default();
        journal.arrived(100, Kind::Other, 1);
        journal.reset(5_000);
        journal.arrived(5_500, Kind::Other, 1);
        let counts = journal.counts(35_000);
        assert_eq!((counts.requests(), counts.per_minute()), (1, 2.0));
    }
}
