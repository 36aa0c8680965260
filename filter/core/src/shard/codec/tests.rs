//! What is written is read, and nothing else.

use super::*;

fn sample() -> Shard<'static> {
    let entry = |route: &'static str, seq, state| Entry {
        route: route.into(),
        caller: 3,
        seq,
        value: 1 << 100,
        word: 12,
        accepted_ms: 77,
        order: (seq == 8).then_some(5),
        text: (seq == 2).then(|| "active".into()),
        state,
    };
    let dirty = Dirty {
        since_ms: 5,
        timestamp_ms: 6,
        attempts: 7,
        trial: Trial {
            alone: true,
            not_before_ms: 1,
            lost: true,
            failures: 2,
            failed_since_ms: 3,
            refusals: 4,
            refused_ms: 5,
        },
        priority: true,
        destination: b"dest".as_slice().into(),
        neutral: b"neutral".as_slice().into(),
        members: 21,
        body: br#"{"a":1}"#.as_slice().into(),
    };
    let claim = Claim {
        id: ClaimId {
            epoch: 1,
            counter: 2,
        },
        route: "qr".into(),
        caller: 3,
        seq: 8,
        deadline_ms: 99,
    };
    Shard {
        last_seq: 9,
        last_wall_ms: 10,
        rung: true,
        ledger: Ledger {
            accepted: 1,
            delivered: 2,
            superseded: 3,
            expired: 4,
            rejected: 5,
            voided: 6,
        },
        sessions: Vec::from([
            Session::new(1, 0),
            Session {
                id: u128::MAX,
                newest_seq: 9,
                unread_seq: 4,
                through_seq: 3,
                told_seq: 2,
                claim: Some(claim),
                entries: Vec::from([
                    entry("qr", 8, State::Dirty(dirty)),
                    entry("status", 8, State::Implied { by: 8 }),
                    entry("other", 2, State::Clean { until_ms: 1000 }),
                ]),
                kept: Vec::from([Kept {
                    read: "status".into(),
                    caller: 3,
                    reader: 4,
                    fetched_ms: 11,
                    until_ms: 12,
                    floor: 8,
                    has_more: false,
                    places: [Place { start: 5, end: 8 }].into_iter().collect(),
                    headers: Cow::Borrowed(b"h"),
                    body: br#"{"a":"b"}"#.as_slice().into(),
                }]),
                ended: [
                    Ending::Delivered,
                    Ending::Rejected(422),
                    Ending::Expired,
                    Ending::Voided(Item { place: 7, seq: 9 }),
                ]
                .into_iter()
                .zip(1..)
                .map(|(how, seq)| Ended {
                    item: Item { place: 6, seq },
                    how,
                    until_ms: 99,
                })
                .collect(),
                beside: Vec::from([Beside {
                    number: 1,
                    caller: 2,
                    seq: 3,
                    is_outside: true,
                    begun_ms: 4,
                    deadline_ms: 5,
                }]),
                held: Vec::from([HeldPlace {
                    seq: 7,
                    vm: 1,
                    caller: 2,
                    is_stranger: true,
                    deadline_ms: 3,
                }]),
                refused: Vec::from([RefusedBody {
                    body: 1,
                    seq: 2,
                    until_ms: 3,
                }]),
                settling: Some(Settling {
                    was: ["pending"].into_iter().collect(),
                    delivered_ms: 6,
                    awaits: true,
                }),
                hurry_until_ms: 13,
            },
        ]),
        orphans: Vec::from([Orphan {
            session: 5,
            caller: 6,
            until_ms: 7,
        }]),
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    assert_eq!(Shard::decode(&sample().encode()), Ok(sample()));
    assert_eq!(
        Shard::decode(&Shard::default().encode()),
        Ok(Shard::default())
    );
    assert_eq!(Shard::decode(&[]), Ok(Shard::default()));
}

#[test]
fn an_answered_ring_is_all_that_changes() {
    let answered = without_ring(&sample().encode());
    let wanted = Shard {
        rung: false,
        ..sample()
    };
    assert_eq!(Shard::decode(&answered), Ok(wanted));
    assert!(without_ring(&[]).is_empty());
}

#[test]
fn what_no_writer_writes_is_refused() {
    let mut twice = sample();
    twice.sessions.push(twice.sessions[0].clone());
    assert_eq!(Shard::decode(&twice.encode()), Err(Corrupt));
    let mut twice = sample();
    let entry = twice.sessions[1].entries[0].clone();
    twice.sessions[1].entries.push(entry);
    assert_eq!(Shard::decode(&twice.encode()), Err(Corrupt));
    let mut many = sample();
    many.sessions = (0..=SESSIONS_THROUGH_MAX as u128)
        .map(|id| Session::new(id, 0))
        .collect();
    assert_eq!(Shard::decode(&many.encode()), Err(Corrupt));
    many.sessions.pop();
    assert!(Shard::decode(&many.encode()).is_ok());
}

#[test]
fn bytes_that_are_no_shard_are_refused_and_never_panic() {
    let bytes = sample().encode();
    for cut in 1..bytes.len() {
        assert_eq!(Shard::decode(&bytes[..cut]), Err(Corrupt), "cut at {cut}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(Shard::decode(&longer), Err(Corrupt));
    for at in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[at] ^= 0xff;
        let _ = Shard::decode(&bent);
    }
}

/// The bytes of [`sample`] by their hash: whoever changes the format gives it a new version, or a running Envoy's
/// store would be read wrongly.
#[test]
fn a_changed_format_has_a_new_version() {
    let key = crate::hash::HashKey::from_bytes([7; 16]);
    let bytes = sample().encode();
    let found = (
        crate::layout::VERSION,
        bytes.len(),
        key.hash(&[&bytes]) as u64,
    );
    assert_eq!(
        found,
        (5, 956, 12_505_857_313_016_504_388),
        "the format has changed: raise layout::VERSION, and write down what is found here"
    );
}
