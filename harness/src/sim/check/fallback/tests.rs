use bytes::Bytes;
use embudo_core::config::Config;
use serde_json::json;

use super::super::ReadLimits;
use super::super::history::{Accepted, History};
use super::*;

const SESSION: &str = "0189dcd2-0b0b-4c3a-8c3a-0189dcd20b0b";
const TOKEN: &str = "Bearer of-a-caller";
const NOW: Clock = Clock {
    mono_us: 1_000_000,
    wall_us: 1_000_000,
};

/// One with a fallback, and with updates of these timestamps that a caller with a token made.
fn checker(timestamps: &[u64]) -> Checker {
    let config = Config::parse(b"{}").expect("a configuration");
    let limits = ReadLimits::of(&Value::Null);
    let fallback = Fallback::of(&json!({"fallback": {
        "cluster": "webhook",
        "path": "/webhook",
        "headers": {"x-api-key": "of-the-webhook"},
    }}));
    let mut checker = Checker::new(config, limits).with_fallback(fallback.reliable(true));
    let accepted = |(seq, timestamp_ms): (u64, &u64)| Accepted {
        seq,
        route: "qr".into(),
        value: value(*timestamp_ms),
        hash: 0,
        timestamp_ms: *timestamp_ms,
        token: TOKEN.into(),
        at_us: 1,
        known_us: 1,
        ended_us: 2,
        accepted_ms: 0,
        fate: Fate::Pending,
        is_void: false,
        in_effect: false,
        beside: false,
        begun: false,
        passed_over: false,
        members: Default::default(),
        said: None,
        touched_ms: 0,
    };
    let history = History {
        name: SESSION.into(),
        accepted: (1..).zip(timestamps).map(accepted).collect(),
        ..History::default()
    };
    checker.sessions.insert(1, history);
    checker.led_since_us = 1;
    checker
}

fn value(timestamp_ms: u64) -> String {
    format!("2@{timestamp_ms}")
}

fn event(name: &str, reason: &str, timestamps: &[u64]) -> HttpCall {
    let items: Vec<Value> = timestamps
        .iter()
        .map(|ms| json!({"session_id": SESSION, "qr": value(*ms), "timestamp": ms}))
        .collect();
    let body = json!({"event": name, "reason": reason, "batchId": "b", "items": items});
    let headers = [
        (":method", "POST"),
        (":path", "/webhook"),
        (":authority", "webhook"),
        ("content-type", "application/json"),
        ("x-api-key", "of-the-webhook"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    HttpCall {
        cluster: "webhook".into(),
        headers: headers.to_vec(),
        body: Bytes::from(body.to_string()),
        timeout_ms: 1_000,
    }
}

fn open(timestamps: &[u64]) -> HttpCall {
    event("qr.batch", "circuit_open", timestamps)
}

fn dead(timestamps: &[u64]) -> HttpCall {
    event("dead_letter", "rejected", timestamps)
}

fn broken(checker: &Checker) -> Option<Invariant> {
    checker.failure().map(|failure| failure.invariant)
}

#[test]
fn an_item_that_was_taken_or_is_under_way_is_not_handed_over_again() {
    for end in [None, Some(CallEnd::Delivered)] {
        let mut checker = checker(&[5]);
        let first = checker.hands_over(NOW, &open(&[5]));
        if end.is_some() {
            checker.event_ends(first, end);
            checker.event_is_heard(first);
        }
        assert_eq!(broken(&checker), None);
        checker.hands_over(NOW, &open(&[5]));
        assert_eq!(broken(&checker), Some(Invariant::HandedOverOnce), "{end:?}");
    }
}

#[test]
fn an_item_of_which_nobody_knows_is_handed_over_again_and_so_it_is_by_another_leader() {
    for end in [Some(CallEnd::Failed), Some(CallEnd::Unknown), None] {
        let mut checker = checker(&[5]);
        let first = checker.hands_over(NOW, &open(&[5]));
        checker.event_ends(first, end);
        checker.event_is_heard(first);
        checker.hands_over(NOW, &open(&[5]));
        assert_eq!(broken(&checker), None, "{end:?}");
    }
    let mut asleep = checker(&[5]);
    let first = asleep.hands_over(NOW, &open(&[5]));
    asleep.event_ends(first, Some(CallEnd::Delivered));
    asleep.hands_over(NOW, &open(&[5]));
    assert_eq!(broken(&asleep), None, "it has not heard the answer");

    let mut checker = checker(&[5]);
    checker.hands_over(NOW, &open(&[5]));
    checker.lease.epoch = 2;
    checker.hands_over(NOW, &open(&[5]));
    assert_eq!(broken(&checker), None, "the new leader knows nothing of it");
}

#[test]
fn what_was_never_accepted_or_is_addressed_astray_is_noticed() {
    let mut other = open(&[5]);
    other.headers[1].1 = b"/other".to_vec();
    let mut without_its_header = open(&[5]);
    without_its_header.headers.pop();
    for call in [
        open(&[6]),
        event("status.batch", "attempts", &[5]),
        other,
        without_its_header,
    ] {
        let mut checker = checker(&[5]);
        checker.hands_over(NOW, &call);
        assert_eq!(
            broken(&checker),
            Some(Invariant::TheWebhookIsTold),
            "{call:?}"
        );
    }
}

#[test]
fn a_callers_credential_is_noticed_under_any_name() {
    for (name, value) in [
        ("authorization", TOKEN),
        ("authorization", "Bearer of-nobody"),
        ("x-api-key", "of-a-caller"),
        ("x-forwarded-authorization", TOKEN),
    ] {
        let mut checker = checker(&[5]);
        let mut call = open(&[5]);
        call.headers.push((name.into(), value.as_bytes().to_vec()));
        checker.hands_over(NOW, &call);
        assert_eq!(
            broken(&checker),
            Some(Invariant::CallersNeverMix),
            "{name}: {value}"
        );
    }
}

#[test]
fn events_that_overtake_each_other_are_noticed_where_they_arrive() {
    let mut checker = checker(&[5, 7]);
    let older = checker.hands_over(NOW, &open(&[5]));
    let newer = checker.hands_over(NOW, &open(&[7]));
    checker.event_arrives(NOW, newer);
    assert_eq!(broken(&checker), None);
    checker.event_arrives(NOW, older);
    assert_eq!(broken(&checker), Some(Invariant::NeverOlderAfterNewer));
}

#[test]
fn a_dead_letter_tells_of_what_was_rejected_also_where_it_was_handed_over_before() {
    let mut checker = checker(&[5]);
    let first = checker.hands_over(NOW, &open(&[5]));
    checker.event_ends(first, Some(CallEnd::Delivered));
    checker.event_is_heard(first);
    let update = |checker: &mut Checker, fate| {
        let history = checker.sessions.get_mut(&1).expect("the session");
        history.accepted[0].fate = fate;
    };
    update(&mut checker, Fate::Rejected);
    assert_eq!(checker.dead_letters_owed().len(), 1);
    checker.hands_over(NOW, &dead(&[5]));
    assert_eq!(checker.dead_letters_owed(), Vec::<String>::new());
    assert_eq!(broken(&checker), None);
    update(&mut checker, Fate::Delivered);
    checker.hands_over(NOW, &dead(&[5]));
    assert!(broken(&checker).is_some(), "Laravel wants it");
}

#[test]
fn a_webhook_that_fails_excuses_a_dead_letter() {
    let mut checker = checker(&[5]);
    let history = checker.sessions.get_mut(&1).expect("the session");
    history.accepted[0].fate = Fate::Rejected;
    assert_eq!(checker.dead_letters_owed().len(), 1);
    checker.fallback.is_reliable = false;
    assert_eq!(checker.dead_letters_owed(), Vec::<String>::new());
}
