//! What a kept answer shows of its session, and when it is none any more.

use alloc::boxed::Box;

use super::super::tests::{BOOT, ask, head_of, unsent};
use super::*;
use crate::route::tests::rules;
use crate::shard::{Ask, ClaimId, Manner, Outcome, Through, Trial, Wanted};
use crate::write_through::{Again, Fate, WriteThrough};

#[test]
fn what_nobody_knows_for_sure_is_served_only_while_laravel_fails_and_shows_what_was_said_once_more()
{
    let rules = rules(r#"{"assume":{"implies":true}}"#);
    let (state, qr) = (head_of(&rules, "status", "a"), head_of(&rules, "qr", "a"));
    let state = rules
        .update(&state, br#"{"session_id":"s","estado_qr":"connecting"}"#)
        .unwrap();
    let qr = rules
        .update(&qr, br#"{"session_id":"s","qr":"2@a"}"#)
        .unwrap();
    let mut shard = Shard::default();
    shard.offer(&rules, &state, BOOT);
    let floor = shard.last_seq - 1;
    let session = shard.session_mut(state.session).expect("it is known");
    session.kept.push(Kept {
        read: "status".into(),
        caller: state.caller,
        reader: state.caller,
        fetched_ms: BOOT.mono_ms,
        until_ms: u64::MAX,
        floor,
        has_more: false,
        places: Places::default(),
        headers: Cow::Borrowed(&[]),
        body: (&b"{}"[..]).into(),
    });
    assert!(!session.kept[0].is_in_doubt());
    assert!(shard.unverify(state.session));
    let session = shard.session(state.session).expect("it is known");
    assert!(session.kept[0].is_in_doubt(), "kept, and in doubt");
    let (route, shown) = (1, session.unshown(&rules, 1, state.caller, floor));
    assert_eq!(shown, Some("connecting"));

    // A QR that went outside the order, and is to be said once more: it implies a state.
    let item = Again::of(&qr);
    let outside = Ask {
        may_send: false,
        may_hold: false,
        refused: &[],
        ..ask(2)
    };
    let Through::Begun {
        seq,
        manner,
        before,
        ..
    } = shard.write_through(&rules, &qr, &outside, BOOT)
    else {
        panic!("there is no place for it");
    };
    let begun = (seq, manner, before);
    let through = WriteThrough::of(&rules, &qr, &outside, begun, Some(Box::new(item)), BOOT);
    let settled = shard.settle_through(&rules, &through, Fate::Accepted, BOOT);
    assert!(settled.is_some_and(|settled| settled.queued));
    let session = shard.session(state.session).expect("it is known");
    let shown = session.unshown(&rules, route, state.caller, floor);
    assert_eq!(shown, Some("pending"), "what the newer one implies");
}

#[test]
fn while_something_is_at_laravel_beside_the_claim_nothing_is_kept_and_what_was_delivered_is_shown()
{
    let rules = rules("{}");
    let head = head_of(&rules, "status", "a");
    let update = rules
        .update(&head, br#"{"session_id":"s","estado_qr":"active"}"#)
        .unwrap();
    let stranger = Ask {
        is_stranger: true,
        ..ask(1)
    };
    let mut shard = Shard::default();
    let through = shard.write_through(&rules, &update, &stranger, BOOT);
    let Through::Begun {
        seq,
        manner,
        before,
        ..
    } = through
    else {
        panic!("{through:?}");
    };
    assert_eq!(manner, Manner::Beside);
    let floor = shard.floor(update.session, BOOT.mono_ms);
    assert_eq!(
        floor, shard.last_seq,
        "what was settled is not patched in again"
    );
    let asked = Asked {
        destination_hash: 0,
        read: 0,
        session: update.session,
        caller: update.caller,
        reader: update.caller,
        subject: update.subject,
        no_cache: false,
        may_keep: true,
    };
    let kept = Kept {
        read: "status".into(),
        caller: update.caller,
        reader: update.caller,
        fetched_ms: BOOT.mono_ms,
        until_ms: u64::MAX,
        floor,
        has_more: false,
        places: Places::default(),
        headers: Cow::Borrowed(&[]),
        body: (&b"{}"[..]).into(),
    };
    assert!(
        !shard.keep(&asked, kept.clone(), BOOT),
        "it may be stored at any time"
    );
    let begun = (seq, manner, before);
    let through = WriteThrough::of(&rules, &update, &stranger, begun, None, BOOT);
    shard.settle_through(&rules, &through, Fate::Accepted, BOOT);
    assert!(
        !shard.keep(&asked, kept.clone(), BOOT),
        "it was read before that"
    );
    let floor = shard.floor(update.session, BOOT.mono_ms);
    assert!(shard.keep(&asked, Kept { floor, ..kept }, BOOT));
}

#[test]
fn an_item_that_failed_alone_and_was_overtaken_makes_no_read_show_what_it_overtook() {
    let rules = rules("{}");
    let qr = head_of(&rules, "qr", "a");
    let qr = rules
        .update(&qr, br#"{"session_id":"s","qr":"2@a"}"#)
        .unwrap();
    let state = head_of(&rules, "status", "a");
    let state = rules
        .update(&state, br#"{"session_id":"s","estado_qr":"connecting"}"#)
        .unwrap();
    let id = ClaimId {
        epoch: 1,
        counter: 1,
    };
    let mut shard = Shard::default();
    shard.offer(&rules, &qr, BOOT);
    shard.offer(&rules, &state, BOOT);
    let late = Trial {
        alone: true,
        failures: 1,
        not_before_ms: BOOT.mono_ms + 1,
        ..Trial::default()
    };
    unsent(&mut shard, "qr", qr.caller).trial = late;
    let name = state.session;
    let wanted = |shard: &Shard<'_>, route: &str| {
        let entry = shard.session(name).unwrap().entry(route, state.caller);
        match &entry.unwrap().state {
            State::Dirty(dirty) => dirty.destination.to_vec(),
            other => panic!("{other:?} is not unsent"),
        }
    };
    let settle = |shard: &mut Shard<'_>, route: &str, now: Now| {
        let destination = wanted(shard, route);
        let wanted = Wanted {
            route,
            caller: state.caller,
            seq: 0,
            destination: &destination,
            bytes_max: usize::MAX,
            refused: &[],
        };
        shard.claim(&rules, name, &wanted, id, now).unwrap();
        shard.settle(&rules, name, id, Outcome::Delivered, None, now);
    };
    settle(&mut shard, "status", BOOT);
    let floor = shard.floor(name, BOOT.mono_ms);
    let session = shard.session(name).unwrap();
    assert_eq!(floor, shard.last_seq, "the older item hides nothing");
    assert_eq!(session.unshown(&rules, 1, state.caller, floor), None);

    let asked = Asked {
        destination_hash: 0,
        read: 0,
        session: name,
        caller: state.caller,
        reader: state.caller,
        subject: state.subject,
        no_cache: false,
        may_keep: true,
    };
    let kept = Kept {
        read: "status".into(),
        caller: state.caller,
        reader: state.caller,
        fetched_ms: BOOT.mono_ms,
        until_ms: u64::MAX,
        floor,
        has_more: false,
        places: Places::default(),
        headers: Cow::Borrowed(&[]),
        body: (&b"{}"[..]).into(),
    };
    assert!(shard.keep(&asked, kept.clone(), BOOT));
    let later = Now {
        mono_ms: BOOT.mono_ms + 1_000,
        ..BOOT
    };
    settle(&mut shard, "qr", later);
    let session = shard.session(name).unwrap();
    assert!(
        session.kept.iter().all(Kept::is_in_doubt),
        "Laravel has the older one now, which no kept answer shows"
    );
    assert!(
        !shard.keep(&asked, kept, later),
        "and this one was read before"
    );
}

#[test]
fn a_qr_that_may_have_set_a_state_ends_what_was_kept_unless_its_caller_has_said_what_it_is() {
    let doubted = |is_assumed: bool, is_said: bool| {
        let rules = rules(match is_assumed {
            true => r#"{"assume":{"implies":true}}"#,
            false => "{}",
        });
        let (qr, state) = (head_of(&rules, "qr", "a"), head_of(&rules, "status", "a"));
        let qr = rules
            .update(&qr, br#"{"session_id":"s","qr":"2@a"}"#)
            .unwrap();
        let state = rules
            .update(&state, br#"{"session_id":"s","estado_qr":"connecting"}"#)
            .unwrap();
        let mut shard = Shard::default();
        shard.offer(&rules, &qr, BOOT);
        let floor = shard.floor(qr.session, BOOT.mono_ms);
        let session = shard.session_mut(qr.session).expect("it is known");
        session.kept.push(Kept {
            read: "status".into(),
            caller: qr.caller,
            reader: qr.caller,
            fetched_ms: BOOT.mono_ms,
            until_ms: u64::MAX,
            floor,
            has_more: false,
            places: Places::default(),
            headers: Cow::Borrowed(&[]),
            body: (&b"{}"[..]).into(),
        });
        if is_said {
            shard.offer(&rules, &state, BOOT);
        }
        let id = ClaimId {
            epoch: 1,
            counter: 1,
        };
        let destination = match &shard.session(qr.session).unwrap().entry("qr", qr.caller) {
            Some(Entry {
                state: State::Dirty(dirty),
                ..
            }) => dirty.destination.to_vec(),
            other => panic!("{other:?} is not unsent"),
        };
        let wanted = Wanted {
            route: "qr",
            caller: qr.caller,
            seq: 0,
            destination: &destination,
            bytes_max: usize::MAX,
            refused: &[],
        };
        shard.claim(&rules, qr.session, &wanted, id, BOOT).unwrap();
        shard.settle(&rules, qr.session, id, Outcome::Delivered, None, BOOT);
        shard.session(qr.session).unwrap().kept[0].is_in_doubt()
    };
    assert!(doubted(false, false), "nobody knows what it has set");
    assert!(!doubted(false, true), "what was said after it is shown");
    assert!(!doubted(true, false), "it has set `pending`");
}

#[test]
fn the_last_states_are_remembered_each_once_and_no_long_one() {
    let mut session = Session::new(1, 0);
    let long = "x".repeat(WAS_BYTES_MAX + 1);
    for state in ["a", "b", &*long, "a", "", "c", "d", "e"] {
        session.gives_way(state);
    }
    let was = session.settling.unwrap().was;
    let was: Vec<&[u8]> = was.iter().collect();
    assert_eq!(was, [&b""[..], b"c", b"d", b"e"]);
    // What is none, as memory may be corrupt, has no states.
    assert_eq!(Was(Cow::Borrowed(b"\x05abc")).iter().count(), 0);
}

#[test]
fn places_beyond_the_third_are_not_remembered() {
    let place = |start| Place { start, end: 9 };
    let places: Places = (0..5).map(place).collect();
    assert_eq!(*places, [place(0), place(1), place(2)]);
    assert!(Places::default().is_empty());
}

#[test]
fn what_laravel_does_not_take_ends_what_it_said_of_the_session() {
    let rules = rules("{}");
    let head = head_of(&rules, "status", "a");
    let update = |body| rules.update(&head, body).unwrap();
    let state = update(br#"{"session_id":"s","estado_qr":"connecting"}"#);
    let next = update(br#"{"session_id":"s","estado_qr":"active"}"#);
    for (fate, stays) in [(Fate::Refused, 0), (Fate::Failed, 1), (Fate::NeverHad, 1)] {
        let mut shard = Shard::default();
        shard.offer(&rules, &state, BOOT);
        let floor = shard.last_seq;
        let session = shard.session_mut(state.session).expect("it is known");
        session.entries[0].state = State::Clean { until_ms: u64::MAX };
        session.kept.push(Kept {
            read: "status".into(),
            caller: state.caller,
            reader: state.caller,
            fetched_ms: BOOT.mono_ms,
            until_ms: u64::MAX,
            floor,
            has_more: false,
            places: Places::default(),
            headers: Cow::Borrowed(&[]),
            body: (&b"{}"[..]).into(),
        });
        let asks = ask(2);
        let Through::Begun {
            seq,
            manner,
            before,
            ..
        } = shard.write_through(&rules, &next, &asks, BOOT)
        else {
            panic!("it goes");
        };
        let begun = (seq, manner, before);
        let through = WriteThrough::of(&rules, &next, &asks, begun, None, BOOT);
        shard.settle_through(&rules, &through, fate, BOOT);
        let session = shard.session(state.session).expect("it is known");
        assert_eq!(session.kept.len(), stays, "{fate:?}");
    }
}

#[test]
fn what_a_written_through_item_implies_has_its_time_to_be_applied() {
    let rules = rules(r#"{"assume":{"implies":true}}"#);
    let head = head_of(&rules, "qr", "a");
    let body = br#"{"session_id":"s","qr":"2@a"}"#;
    let (qr, asks) = (rules.update(&head, body).unwrap(), ask(1));
    let mut shard = Shard::default();
    let Through::Begun {
        seq,
        manner,
        before,
        ..
    } = shard.write_through(&rules, &qr, &asks, BOOT)
    else {
        panic!("it may go");
    };
    let begun = (seq, manner, before);
    let through = WriteThrough::of(&rules, &qr, &asks, begun, None, BOOT);
    shard.settle_through(&rules, &through, Fate::Accepted, BOOT);
    let session = shard.session(qr.session).unwrap();
    let is_from_before = |ms: u64| {
        let mono_ms = BOOT.mono_ms + ms;
        session.may_be_from_before("", 30_000, mono_ms)
    };
    assert!(is_from_before(29_000) && !is_from_before(31_000));
}
