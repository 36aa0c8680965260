//! What a kept answer shows of its session, and when it is none any more.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::super::tests::{BOOT, ask, head_of, unsent};
use super::*;
use crate::route::tests::rules;
use crate::shard::{Ask, ClaimId, Manner, Outcome, Through, Trial, Wanted};
use crate::write_through::{Again, Fate, WriteThrough};

#[test]
fn what_nobody_knows_for_sure_is_served_only_while_laravel_fails_and_shows_what_was_said_once_more()
{
    let rules = rules("{}");
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
        fetched_ms: BOOT.mono_ms,
        until_ms: u64::MAX,
        floor,
        places: Vec::new(),
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
        subject: update.subject,
        no_cache: false,
    };
    let kept = Kept {
        read: "status".into(),
        caller: update.caller,
        fetched_ms: BOOT.mono_ms,
        until_ms: u64::MAX,
        floor,
        places: Vec::new(),
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
        subject: state.subject,
        no_cache: false,
    };
    let kept = Kept {
        read: "status".into(),
        caller: state.caller,
        fetched_ms: BOOT.mono_ms,
        until_ms: u64::MAX,
        floor,
        places: Vec::new(),
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
