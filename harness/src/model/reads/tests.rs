use super::*;

const SESSION: &str = "s";

fn word(at_ms: u64, state: &str, qr: &str, told: Option<&str>) -> Word {
    Word {
        at_ms,
        says: format!(r#"{{"estado_qr":"{state}","qr":"{qr}"}}"#),
        told: told.map(str::to_owned),
        is_users: false,
    }
}

/// Laravel is told `pending`, shows a QR from 1 s on and another from 21 s on; a user stops it at 40 s.
fn words() -> Vec<Word> {
    vec![
        word(0, "inactive", "-", Some("inactive")),
        word(500, "pending", "-", Some("pending")),
        word(1_000, "pending", "a", None),
        word(21_000, "pending", "b", None),
        word(40_000, "inactive", "b", None),
    ]
}

/// States that the gateway has sent: value, when it was sent and answered in ms, `x-embudo`.
type States<'a> = &'a [(&'a str, u64, u64, &'a str)];

fn judged(words: Vec<Word>, states: States<'_>, (from, to): (u64, u64), body: &str) -> Compared {
    let mut sent = SentLog::default();
    for (value, from_ms, to_ms, outcome) in states {
        let send = Sent::new(Route::Status, *value, from_ms * 1000);
        let at = sent.sent(SESSION, send);
        let outcome = Some((*outcome).to_owned());
        sent.ended(SESSION, at, to_ms * 1000, Some(200), outcome);
    }
    let read = Read {
        sent_us: from * 1000,
        ended_us: to * 1000,
        body: Bytes::from(body.to_owned()),
        outcome: Some("cached".to_owned()),
    };
    let reads = ReadLog::from([(SESSION.to_owned(), vec![read])]);
    compare(&reads, &Words::from([(SESSION.to_owned(), words)]), &sent)
}

fn wrong(words: Vec<Word>, states: States<'_>, at: u64, body: &str) -> u64 {
    judged(words, states, (at, at + 5), body).wrong
}

const PENDING: States<'static> = &[("pending", 400, 401, "queued")];

#[test]
fn an_answer_is_right_while_laravel_says_it_and_wrong_before_and_after() {
    let body = r#"{"qr":"a","estado_qr":"pending"}"#;
    assert_eq!(wrong(words(), PENDING, 10_000, body), 0);
    assert_eq!(wrong(words(), PENDING, 800, body), 1, "not yet shown");
    assert_eq!(wrong(words(), PENDING, 30_000, body), 1, "an older QR");
    let of_nobody = r#"{"qr":"c","estado_qr":"pending"}"#;
    assert_eq!(wrong(words(), PENDING, 10_000, of_nobody), 1);
    assert_eq!(wrong(words(), PENDING, 10_000, "pending"), 1, "no JSON");
}

#[test]
fn a_read_that_overlaps_an_update_may_show_either() {
    for qr in ["a", "b"] {
        let body = format!(r#"{{"qr":"{qr}","estado_qr":"pending"}}"#);
        let all = judged(words(), PENDING, (20_990, 21_010), &body);
        assert_eq!((all.compared, all.wrong), (1, 0), "{qr}");
    }
}

#[test]
fn a_newer_state_may_be_in_its_place_until_laravel_has_it() {
    let body = r#"{"qr":"b","estado_qr":"active"}"#;
    let queued = [PENDING[0], ("active", 25_000, 25_001, "queued")];
    let all = judged(words(), &queued, (30_000, 30_001), body);
    assert_eq!((all.patched, all.wrong), (1, 0));
    assert_eq!(
        wrong(words(), &queued, 24_000, body),
        1,
        "before it was accepted"
    );
    let refused = [PENDING[0], ("active", 25_000, 25_001, "stale")];
    assert_eq!(wrong(words(), &refused, 30_000, body), 1, "never accepted");
    let mut delivered = words();
    delivered.insert(4, word(26_000, "active", "b", Some("active")));
    delivered.insert(5, word(31_000, "pending", "b", Some("pending")));
    let newer = [queued[0], queued[1], ("pending", 30_900, 30_901, "queued")];
    assert_eq!(
        wrong(delivered, &newer, 39_000, body),
        1,
        "there is a newer one"
    );
}

#[test]
fn what_others_have_done_is_shown_but_for_what_may_be_from_before_a_delivery() {
    let stopped = r#"{"qr":"b","estado_qr":"inactive"}"#;
    let patched = r#"{"qr":"b","estado_qr":"pending"}"#;
    assert_eq!(wrong(words(), PENDING, 45_000, stopped), 0);
    assert_eq!(
        wrong(words(), PENDING, 45_000, patched),
        1,
        "long delivered"
    );
    let mut again = words();
    again.insert(4, word(39_000, "pending", "b", Some("pending")));
    let states = [PENDING[0], ("pending", 38_900, 38_901, "queued")];
    assert_eq!(wrong(again.clone(), &states, 45_000, patched), 0, "settles");
    assert_eq!(wrong(again, &states, 70_000, patched), 1, "has settled");
    let duplicate = [PENDING[0], ("pending", 42_000, 42_001, "duplicate")];
    assert_eq!(
        wrong(words(), &duplicate, 45_000, patched),
        1,
        "nothing new"
    );
}

#[test]
fn both_members_may_follow_the_state_or_the_first_alone() {
    let says = |a: &str, b: &str| format!(r#"{{"estado_qr":"{a}","status":"{b}"}}"#);
    let words = vec![Word {
        at_ms: 0,
        says: says("pending", "pending"),
        told: None,
        is_users: false,
    }];
    let states: States<'_> = &[("active", 400, 401, "queued")];
    for (a, b, is_wrong) in [
        ("active", "pending", 0),
        ("active", "active", 0),
        ("pending", "active", 1),
        ("active", "inactive", 1),
    ] {
        assert_eq!(
            wrong(words.clone(), states, 500, &says(a, b)),
            is_wrong,
            "{a} {b}"
        );
    }
}

#[test]
fn a_session_that_laravel_has_written_nothing_of_is_undecided() {
    let all = judged(Vec::new(), PENDING, (500, 501), "{}");
    assert_eq!((all.compared, all.undecided, all.wrong), (0, 1, 0));
}
