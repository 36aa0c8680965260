//! Never an older value after a newer one.
//!
//! What is compared: the sends of the gateway, session by session, with the journal of Laravel. QR
//! strings are unique and would do, but states repeat: `pending, active, pending` processed as
//! `active, pending` may be right (the first was superseded) or wrong, depending on which `pending`
//! it was. So there are two checks, and both must hold.
//!
//! * **By timestamp**, where items carry one: within a session it never falls, and two different
//!   updates never share one. That is exact, but it trusts whoever stamped.
//! * **By embedding**: what was processed of a session must fit into what was sent, in order.
//!   Each processed value is matched with a send of that value that did not end before the latest
//!   send matched so far began. Always taking the earliest such send leaves the most room to the
//!   rest, so if the greedy match fails, none exists. That never cries wolf; it may miss a swap of
//!   two equal states.
//!
//! Sends that overlap in time have no order, and either may come first. A send the gateway gave up
//! ends there: if Laravel runs it after a newer one, that *is* an older value after a newer one, and
//! the user sees it, whoever is to blame. The same send processed twice in a row is no violation:
//! delivery is at least once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Serialize;

use crate::model::{
    http::Route,
    laravel::{Entry, Laravel},
};

/// One send of the gateway: one attempt, not one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// The route.
    pub route: Route,
    /// The QR string or the state.
    pub value: String,
    /// When it was sent, in µs: on loopback several fit into one ms, and order is all that counts.
    pub sent_us: u64,
    /// When its answer came or the gateway gave it up; `None` while it is under way.
    pub ended_us: Option<u64>,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// The `x-embudo` header of the answer, if there was one.
    pub outcome: Option<String>,
}

/// What the gateway sent, session by session, in the order of sending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SentLog {
    sessions: BTreeMap<String, Vec<Sent>>,
}

/// One thing that must not happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The session.
    pub session: String,
    /// The journal's `seq` of the entry that is out of place.
    pub seq: u64,
    /// What is wrong with it, QR strings shortened.
    pub what: String,
}

/// A session whose end at Laravel is not what the gateway sent last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The session.
    pub session: String,
    /// Which of the two differs: the state, or the QR.
    pub route: Route,
    /// What the gateway sent last, shortened.
    pub expected: String,
    /// What Laravel has, shortened.
    pub found: Option<String>,
}

/// What Laravel has of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `estado_qr`.
    pub state: String,
    /// The newest QR, if there was one.
    pub qr: Option<String>,
}

/// The outcome of [`final_states`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FinalStates {
    /// Sessions that were compared.
    pub compared: u64,
    /// Sessions whose last send was not answered 2xx, or overlapped another, and those that Laravel takes
    /// nothing of: nothing is promised.
    pub undecided: u64,
    /// Those that differ.
    pub mismatches: Vec<Mismatch>,
}

/// Checks the journal against what was sent. Sessions that are not in the log are checked by their
/// timestamps alone.
pub fn check(entries: &[Entry], sent: &SentLog) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (session, entries) in by_session(entries) {
        check_timestamps(&entries, &mut violations);
        if let Some(sends) = sent.sessions.get(session) {
            check_embedding(&entries, sends, &mut violations);
        }
    }
    violations
}

/// Checks that Laravel never ran two calls with the same session at once.
pub fn check_overlap(entries: &[Entry]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (session, mut entries) in by_session(entries) {
        entries.sort_by_key(|entry| (entry.started_ms, entry.finished_ms));
        let mut busy: Option<&Entry> = None;
        for entry in entries {
            if let Some(other) = busy
                && other.call != entry.call
                && entry.started_ms < other.finished_ms
            {
                let what = format!(
                    "{} began at {} ms while {} ran until {} ms",
                    name(entry.route, &entry.value),
                    entry.started_ms,
                    name(other.route, &other.value),
                    other.finished_ms,
                );
                violations.push(Violation {
                    session: session.to_owned(),
                    seq: entry.seq,
                    what,
                });
            }
            if busy.is_none_or(|other| other.finished_ms <= entry.finished_ms) {
                busy = Some(entry);
            }
        }
    }
    violations
}

/// Compares each session's end at Laravel with the last thing the gateway sent.
///
/// Call it once everything has been delivered. A QR is expected only while it is still the session's
/// newest QR and neither `active` nor `inactive` came after it; whoever lets QRs expire has to leave
/// those mismatches out.
pub fn final_states(laravel: &Laravel, sent: &SentLog) -> FinalStates {
    let row = |session: &str| {
        let account = laravel.account(session)?;
        let is_changed = laravel.journal().changed().contains_key(session);
        let is_wanted = !laravel.is_poison(session, u64::MAX) && !is_changed;
        is_wanted.then(|| Row {
            state: account.estado_qr.clone(),
            qr: account.last_qr.clone(),
        })
    };
    final_rows(row, sent)
}

/// The same for a Laravel whose row of a session is what `row` says.
pub fn final_rows(row: impl Fn(&str) -> Option<Row>, sent: &SentLog) -> FinalStates {
    let mut result = FinalStates::default();
    for (session, sends) in &sent.sessions {
        let accepted: Vec<&Sent> = sends.iter().filter(|send| !send.is_stale()).collect();
        let Some((last, before)) = accepted.split_last() else {
            continue;
        };
        let overlapped = before
            .iter()
            .any(|send| send.ended_us.is_none_or(|e| e > last.sent_us));
        let (true, false, Some(row)) = (last.is_accepted(), overlapped, row(session)) else {
            result.undecided += 1;
            continue;
        };
        result.compared += 1;
        let mut expect = |route, expected: &str, found: Option<&str>| {
            if found != Some(expected) {
                result.mismatches.push(Mismatch {
                    session: session.clone(),
                    route,
                    expected: short(expected),
                    found: found.map(short),
                });
            }
        };
        let state = match last.route {
            Route::Qr => "pending",
            Route::Status => last.value.as_str(),
        };
        expect(Route::Status, state, Some(&row.state));
        if let Some(qr) = standing_qr(&accepted) {
            expect(Route::Qr, qr, row.qr.as_deref());
        }
    }
    result
}

/// The longest that Laravel's row lacked what its session had said, or something newer: from the send of an
/// update that was queued until it, or a later one of the session, took effect. An update that was never made
/// up for has no lag; [`final_states`] tells of those.
pub fn row_lag_max_ms(entries: &[Entry], sent: &SentLog, except: &BTreeSet<String>) -> u64 {
    lag_max_ms(entries, sent, except, |_| true)
}

/// The same for the sends that say that a session is down.
pub fn disconnect_lag_max_ms(entries: &[Entry], sent: &SentLog, except: &BTreeSet<String>) -> u64 {
    let is_end = |send: &Sent| send.route == Route::Status && send.value == "inactive";
    lag_max_ms(entries, sent, except, is_end)
}

fn lag_max_ms(
    entries: &[Entry],
    sent: &SentLog,
    except: &BTreeSet<String>,
    is_counted: impl Fn(&Sent) -> bool,
) -> u64 {
    let mut longest = 0;
    for (session, entries) in by_session(entries) {
        if except.contains(session) {
            continue;
        }
        let sends = sent.of_session(session);
        // For each send, when it took effect. Of equal ones the latest that had begun counts: what came
        // before it was replaced, or is known to be delivered.
        let mut effects = vec![None; sends.len()];
        for entry in entries {
            let done_us = entry.finished_ms * 1000 + 999;
            let is_it = |send: &Sent| {
                let equal = send.route == entry.route && send.value == entry.value;
                equal && send.is_news() && send.sent_us <= done_us
            };
            if let Some(at) = sends.iter().rposition(is_it) {
                effects[at].get_or_insert(done_us);
            }
        }
        let mut effect_us: Option<u64> = None;
        for (send, own_us) in sends.iter().zip(effects).rev() {
            effect_us = [effect_us, own_us].into_iter().flatten().min();
            if let Some(us) = effect_us.filter(|_| send.is_news() && is_counted(send)) {
                longest = longest.max(us.saturating_sub(send.sent_us) / 1000);
            }
        }
    }
    longest
}

/// The newest QR, if it was accepted and nothing has made it meaningless.
fn standing_qr<'a>(sends: &[&'a Sent]) -> Option<&'a str> {
    let voids = |send: &Sent| matches!(send.value.as_str(), "active" | "inactive");
    let last = sends
        .iter()
        .rev()
        .find(|send| send.route == Route::Qr || voids(send))?;
    (last.route == Route::Qr && last.is_accepted()).then_some(last.value.as_str())
}

fn check_timestamps(entries: &[&Entry], violations: &mut Vec<Violation>) {
    let mut newest: Option<(u64, &Entry)> = None;
    for &entry in entries {
        let Some(timestamp) = entry.timestamp else {
            continue;
        };
        let what = match newest {
            Some((time, other)) if timestamp < time => Some(format!(
                "{} of {timestamp} after {} of {time}",
                name(entry.route, &entry.value),
                name(other.route, &other.value)
            )),
            Some((time, other))
                if timestamp == time
                    && (other.route, &other.value) != (entry.route, &entry.value) =>
            {
                Some(format!(
                    "{} and {} share the timestamp {time}",
                    name(other.route, &other.value),
                    name(entry.route, &entry.value)
                ))
            }
            _ => None,
        };
        if let Some(what) = what {
            violations.push(Violation {
                session: entry.session.clone(),
                seq: entry.seq,
                what,
            });
        }
        if newest.is_none_or(|(time, _)| time <= timestamp) {
            newest = Some((timestamp, entry));
        }
    }
}

fn check_embedding(entries: &[&Entry], sends: &[Sent], violations: &mut Vec<Violation>) {
    // When the latest send matched so far began: a send that ended before is older than it.
    let mut front_us = 0;
    let mut newest: Option<(&Sent, &Entry)> = None;
    let mut outside = BTreeSet::new();
    for entry in entries {
        let equal = |send: &&Sent| send.route == entry.route && send.value == entry.value;
        let still = |send: &&Sent| send.ended_us.is_none_or(|ended| ended >= front_us);
        let found = sends.iter().filter(equal).find(still);
        if let Some(send) = found {
            // What went on outside the order is before nobody; said once more, it is in its place.
            if !send.is_outside() || !outside.insert((send.route, &send.value)) {
                if newest.is_none_or(|(newest, _)| newest.sent_us <= send.sent_us) {
                    newest = Some((send, *entry));
                }
                front_us = front_us.max(send.sent_us);
            }
            continue;
        }
        let own = sends.iter().rfind(equal);
        let what = if let (Some(own), Some(newer)) = (own, newest) {
            overtaken((own, entry), newer)
        } else {
            format!("{} was never sent", name(entry.route, &entry.value))
        };
        violations.push(Violation {
            session: entry.session.clone(),
            seq: entry.seq,
            what,
        });
    }
}

/// With the times, in ms: they tell a late Laravel from a wrong order.
fn overtaken((own, entry): (&Sent, &Entry), (newer, before): (&Sent, &Entry)) -> String {
    format!(
        "{} took effect after a newer update: sent at {}, at Laravel from {} to {}; {} was sent at {}, at Laravel from {} to {}",
        name(entry.route, &entry.value),
        own.sent_us / 1000,
        entry.started_ms,
        entry.finished_ms,
        name(before.route, &before.value),
        newer.sent_us / 1000,
        before.started_ms,
        before.finished_ms
    )
}

fn by_session(entries: &[Entry]) -> BTreeMap<&str, Vec<&Entry>> {
    let mut sessions = BTreeMap::<&str, Vec<&Entry>>::new();
    for entry in entries {
        sessions.entry(&entry.session).or_default().push(entry);
    }
    sessions
}

fn name(route: Route, value: &str) -> String {
    format!("{} {}", route.name(), short(value))
}

/// A QR string pairs a device, so not even a test's report shows one whole.
fn short(value: &str) -> String {
    const SHOWN_CHARS: usize = 12;
    match value.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", value.get(..end).unwrap_or_default()),
        None => value.to_owned(),
    }
}

// === impl Sent ===

impl Sent {
    /// A send that has no answer yet.
    pub fn new(route: Route, value: impl Into<String>, sent_us: u64) -> Self {
        let value = value.into();
        Self {
            route,
            value,
            sent_us,
            ended_us: None,
            status: None,
            outcome: None,
        }
    }

    /// Whether it was answered 2xx, and not as a late-comer.
    pub fn is_accepted(&self) -> bool {
        self.status
            .is_some_and(|status| (200..300).contains(&status))
            && !self.is_stale()
    }

    /// Whether it was taken as something new: no duplicate, and not implied.
    pub(crate) fn is_news(&self) -> bool {
        let is_known = matches!(self.outcome.as_deref(), Some("duplicate" | "implied"));
        self.is_accepted() && !is_known
    }

    /// Embudo let it go to Laravel outside the order, and said so.
    fn is_outside(&self) -> bool {
        let outcome = self.outcome.as_deref();
        outcome.is_some_and(|outcome| outcome.starts_with("outside"))
    }

    fn is_stale(&self) -> bool {
        self.outcome.as_deref() == Some("stale")
    }
}

// === impl SentLog ===

impl SentLog {
    /// Adds a send, in the order of sending, and says where it is for [`SentLog::ended`].
    pub fn sent(&mut self, session: &str, sent: Sent) -> usize {
        let sends = match self.sessions.get_mut(session) {
            Some(sends) => sends,
            None => self.sessions.entry(session.to_owned()).or_default(),
        };
        sends.push(sent);
        sends.len() - 1
    }

    /// Closes a send: answered with a status, or given up.
    pub fn ended(
        &mut self,
        session: &str,
        at: usize,
        now_us: u64,
        status: Option<u16>,
        outcome: Option<String>,
    ) {
        if let Some(sent) = self
            .sessions
            .get_mut(session)
            .and_then(|sends| sends.get_mut(at))
        {
            (sent.ended_us, sent.status, sent.outcome) = (Some(now_us), status, outcome);
        }
    }

    /// The sends of one session.
    pub fn of_session(&self, session: &str) -> &[Sent] {
        self.sessions.get(session).map_or(&[], Vec::as_slice)
    }

    /// All sessions, with their sends.
    pub fn sessions(&self) -> impl Iterator<Item = (&str, &[Sent])> {
        self.sessions
            .iter()
            .map(|(session, sends)| (session.as_str(), sends.as_slice()))
    }
}

// === impl Violation ===

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "session {}, journal entry {}: {}",
            self.session, self.seq, self.what
        )
    }
}

#[cfg(test)]
mod tests;
