//! What is written is read, and nothing else.

use super::*;

fn sample() -> Shard<'static> {
    let entry = |route: &'static str, seq, state| Entry {
        route: route.into(),
        credential: 3,
        seq,
        value: 1 << 100,
        accepted_ms: 77,
        order: (seq == 8).then_some(5),
        text: (seq == 2).then(|| "active".into()),
        state,
    };
    let dirty = Dirty {
        since_ms: 5,
        timestamp_ms: 6,
        attempts: 7,
        priority: true,
        destination: b"dest".as_slice().into(),
        body: br#"{"a":1}"#.as_slice().into(),
    };
    let claim = Claim {
        id: ClaimId {
            epoch: 1,
            counter: 2,
        },
        route: "qr".into(),
        credential: 3,
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
        },
        sessions: Vec::from([
            Session::new(1, 0),
            Session {
                id: u128::MAX,
                newest_seq: 9,
                unread_seq: 4,
                passed_seq: 3,
                told_seq: 2,
                claim: Some(claim),
                entries: Vec::from([
                    entry("qr", 8, State::Dirty(dirty)),
                    entry("status", 8, State::Implied { by: 8 }),
                    entry("other", 2, State::Clean { until_ms: 1000 }),
                ]),
                kept: Vec::from([Kept {
                    read: "status".into(),
                    credential: 3,
                    fetched_ms: 11,
                    until_ms: 12,
                    floor: 8,
                    places: Vec::from([Place { start: 5, end: 8 }]),
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
            },
        ]),
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
    many.sessions = (0..=SESSIONS_PASSING_MAX as u128)
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
