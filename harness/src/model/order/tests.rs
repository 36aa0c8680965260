use serde_json::json;

use super::*;
use crate::model::{http::Request, laravel::LaravelConfig};

const SESSION: &str = "0189dcd2-0b0b-4c3a-8c3a-0189dcd20b0b";

/// Sends one after the other, each answered before the next, at 10, 20, 30 … µs.
fn sent(values: &[(Route, &str)]) -> SentLog {
    let mut log = SentLog::default();
    for (i, (route, value)) in values.iter().enumerate() {
        let now = 10 * (i as u64 + 1);
        let at = log.sent(SESSION, Sent::new(*route, *value, now));
        log.ended(SESSION, at, now + 5, Some(200), None);
    }
    log
}

fn processed(values: &[(Route, &str, Option<u64>)]) -> Vec<Entry> {
    let entry = |(i, (route, value, timestamp)): (usize, &(Route, &str, Option<u64>))| Entry {
        seq: i as u64 + 1,
        call: i as u64 + 1,
        session: SESSION.to_owned(),
        route: *route,
        value: (*value).to_owned(),
        timestamp: *timestamp,
        batched: true,
        stored: true,
        credential: None,
        arrived: std::sync::Arc::default(),
        started_ms: 10 * i as u64,
        finished_ms: 10 * i as u64 + 5,
    };
    values.iter().enumerate().map(entry).collect()
}

use Route::{Qr, Status};

#[test]
fn skipping_values_is_in_order_and_going_back_is_not() {
    let log = sent(&[(Qr, "2@a"), (Qr, "2@b"), (Qr, "2@c")]);
    assert_eq!(
        check(&processed(&[(Qr, "2@a", None), (Qr, "2@c", None)]), &log),
        []
    );
    let back = check(&processed(&[(Qr, "2@c", None), (Qr, "2@b", None)]), &log);
    assert_eq!(back.iter().map(|v| v.seq).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_state_that_came_back_is_in_order() {
    let log = sent(&[(Status, "pending"), (Status, "active"), (Status, "pending")]);
    let seen = [
        (Status, "pending", None),
        (Status, "active", None),
        (Status, "pending", None),
    ];
    assert_eq!(check(&processed(&seen), &log), []);
    let log = sent(&[(Status, "pending"), (Status, "active")]);
    assert_eq!(
        check(&processed(&seen), &log).len(),
        1,
        "nothing was sent after `active`"
    );
}

#[test]
fn the_same_update_twice_in_a_row_is_at_least_once_and_no_violation() {
    let log = sent(&[(Qr, "2@a"), (Qr, "2@b")]);
    let twice = [
        (Qr, "2@a", Some(1)),
        (Qr, "2@a", Some(1)),
        (Qr, "2@b", Some(2)),
    ];
    assert_eq!(check(&processed(&twice), &log), []);
}

#[test]
fn sends_that_overlap_may_come_in_either_order() {
    let mut log = SentLog::default();
    let a = log.sent(SESSION, Sent::new(Qr, "2@a", 10));
    let b = log.sent(SESSION, Sent::new(Qr, "2@b", 12));
    log.ended(SESSION, a, 20, Some(200), None);
    log.ended(SESSION, b, 22, Some(200), None);
    assert_eq!(
        check(&processed(&[(Qr, "2@b", None), (Qr, "2@a", None)]), &log),
        []
    );
}

#[test]
fn a_send_that_was_given_up_must_not_overtake_a_later_one() {
    let mut log = SentLog::default();
    let a = log.sent(SESSION, Sent::new(Qr, "2@a", 10));
    log.ended(SESSION, a, 20, None, None);
    let b = log.sent(SESSION, Sent::new(Qr, "2@b", 30));
    log.ended(SESSION, b, 40, Some(200), None);
    assert_eq!(
        check(&processed(&[(Qr, "2@b", None), (Qr, "2@a", None)]), &log).len(),
        1
    );
}

#[test]
fn timestamps_never_fall_and_are_never_shared() {
    let none = SentLog::default();
    let fall = [(Qr, "2@a", Some(2)), (Status, "pending", Some(1))];
    assert_eq!(check(&processed(&fall), &none).len(), 1);
    let shared = [(Qr, "2@a", Some(2)), (Status, "pending", Some(2))];
    assert_eq!(check(&processed(&shared), &none).len(), 1);
}

#[test]
fn a_value_that_was_never_sent_is_found() {
    let found = check(&processed(&[(Qr, "2@x", None)]), &sent(&[(Qr, "2@a")]));
    assert!(
        found.first().is_some_and(|v| v.what.contains("never sent")),
        "{found:?}"
    );
}

#[test]
fn a_long_call_overlaps_every_call_within_it() {
    let mut entries = processed(&[(Qr, "2@a", None), (Qr, "2@b", None), (Qr, "2@c", None)]);
    entries[0].finished_ms = 100;
    assert_eq!(check_overlap(&entries).len(), 2);
    entries[0].finished_ms = 5;
    assert_eq!(check_overlap(&entries), []);
}

#[test]
fn the_end_at_laravel_is_what_was_sent_last() {
    let mut laravel = Laravel::new(LaravelConfig::default());
    laravel.add_account(SESSION);
    let qr = Request::new("POST", "/api/qr")
        .with_json(json!({"session_id": SESSION, "qr": "2@a"}).to_string());
    laravel.handle(0, &qr);
    let same = final_states(&laravel, &sent(&[(Qr, "2@a"), (Status, "pending")]));
    assert_eq!((same.compared, same.mismatches.len()), (1, 0));
    let state = final_states(&laravel, &sent(&[(Qr, "2@a"), (Status, "active")]));
    assert_eq!(
        state.mismatches.iter().map(|m| m.route).collect::<Vec<_>>(),
        [Status]
    );
    let both = final_states(&laravel, &sent(&[(Qr, "2@b")]));
    assert_eq!(
        both.mismatches.iter().map(|m| m.route).collect::<Vec<_>>(),
        [Qr]
    );
}

#[test]
fn a_last_send_without_an_answer_decides_nothing() {
    let mut laravel = Laravel::new(LaravelConfig::default());
    laravel.add_account(SESSION);
    let mut log = SentLog::default();
    log.sent(SESSION, Sent::new(Status, "active", 10));
    let result = final_states(&laravel, &log);
    assert_eq!((result.compared, result.undecided), (0, 1));
}

#[test]
fn a_rows_lag_runs_until_the_update_or_a_newer_one_is_in_force() {
    let entry = |session: &str, value: &str, finished_ms| Entry {
        seq: 1,
        call: 1,
        session: session.into(),
        route: Status,
        value: value.into(),
        timestamp: None,
        batched: true,
        stored: true,
        credential: None,
        arrived: std::sync::Arc::default(),
        started_ms: finished_ms,
        finished_ms,
    };
    let mut log = SentLog::default();
    let mut send = |session: &str, value: &str, at_ms: u64, outcome: &str| {
        let at = log.sent(session, Sent::new(Status, value, at_ms * 1000));
        let outcome = Some(outcome.to_owned());
        log.ended(session, at, at_ms * 1000, Some(200), outcome);
    };
    // The first is replaced by the second, which comes late; equal to the first, it is not taken for it.
    send("a", "active", 100, "queued");
    send("a", "inactive", 150, "queued");
    send("a", "active", 200, "queued");
    send("a", "active", 300, "duplicate");
    send("b", "active", 0, "queued");
    send("c", "active", 0, "queued");
    let entries = [entry("a", "active", 450), entry("b", "active", 2_000)];
    let lag = |except: &[&str]| {
        let except = except.iter().map(ToString::to_string).collect();
        row_lag_max_ms(&entries, &log, &except)
    };
    assert_eq!(lag(&[]), 2_000, "b");
    assert_eq!(
        lag(&["b"]),
        350,
        "a, since its first; c was never made up for"
    );
}

#[test]
fn nothing_is_promised_for_a_session_that_laravel_takes_nothing_of() {
    let config = LaravelConfig {
        poison: [("s".to_owned(), 0)].into(),
        ..LaravelConfig::default()
    };
    let mut laravel = Laravel::new(config);
    laravel.add_account("s");
    let mut log = SentLog::default();
    let at = log.sent("s", Sent::new(Status, "active", 1));
    log.ended("s", at, 2, Some(200), Some("queued".into()));
    let ends = final_states(&laravel, &log);
    assert_eq!((ends.compared, ends.undecided), (0, 1));
}

#[test]
fn what_went_outside_the_order_is_before_nobody() {
    let mut log = sent(&[
        (Route::Qr, "first"),
        (Route::Qr, "second"),
        (Route::Status, "connecting"),
        (Route::Qr, "third"),
    ]);
    let journal = processed(&[
        (Route::Qr, "first", None),
        (Route::Status, "connecting", None),
        (Route::Qr, "second", None),
        (Route::Status, "connecting", None),
        (Route::Qr, "third", None),
    ]);
    assert_eq!(check(&journal, &log).len(), 1, "the second QR");
    let sends = log.sessions.values_mut().flatten();
    for send in sends.filter(|send| send.route == Route::Status) {
        send.outcome = Some("outside; unproven".into());
    }
    assert_eq!(check(&journal, &log), []);
}
