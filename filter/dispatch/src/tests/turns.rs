//! What a plan asks for, and what the store gives.

use alloc::borrow::Cow;

use super::world::{World, rules, text};
use super::*;
use crate::backlog::Waiting;
use embudo_core::shard::{Beside, Dirty, Entry, Session, State, Trial};

const SESSION: u128 = 7;
const NOW_MS: u64 = 10_000;

fn unsent(seq: u64, caller: u64, trial: Trial) -> Entry<'static> {
    Entry {
        route: Cow::Owned(format!("r{seq}")),
        caller,
        seq,
        value: seq.into(),
        word: 0,
        accepted_ms: seq,
        order: None,
        text: None,
        state: State::Dirty(Dirty {
            since_ms: seq,
            timestamp_ms: 0,
            attempts: 0,
            trial,
            priority: false,
            destination: Cow::Borrowed(b""),
            neutral: Cow::Borrowed(b""),
            members: 0,
            body: Cow::Borrowed(b"{}"),
        }),
    }
}

/// What may have happened to an item: nothing, a failure or a refusal by itself, and a wait that is not over.
fn trials() -> [Trial; 4] {
    let failed = Trial {
        failures: 1,
        ..Trial::default()
    };
    let turned = Trial {
        refusals: 1,
        ..Trial::default()
    };
    let waits = Trial {
        not_before_ms: NOW_MS + 1,
        ..failed
    };
    [Trial::default(), failed, turned, waits]
}

/// Every session of four items of three callers, with whatever may have happened to them, and every set of callers
/// that are refused. One of the plan's choices that the store denies starves everybody else.
#[test]
fn what_a_plan_asks_for_is_what_the_store_gives() {
    let rules = rules("{}");
    let callers = [1, 2, 3];
    let kinds: Vec<(u64, Trial)> = callers
        .into_iter()
        .flat_map(|caller| trials().map(|trial| (caller, trial)))
        .collect();
    let mut compared = 0_usize;
    for number in 0..kinds.len().pow(4) {
        let mut session = Session::new(SESSION, 0);
        for place in 0..4 {
            let (caller, trial) = kinds[number / kinds.len().pow(place) % kinds.len()];
            session
                .entries
                .push(unsent(u64::from(place) + 1, caller, trial));
        }
        let mut shard = Shard::default();
        shard.sessions.push(session);
        let mut backlog = Backlog::default();
        backlog.refresh(&rules, 0, &shard, NOW_MS);
        for set in 0..8_u64 {
            let refused: Vec<u64> = callers
                .into_iter()
                .filter(|caller| set >> (caller - 1) & 1 == 1)
                .collect();
            let (_, waiting): (u32, &Waiting) = backlog.sessions().next().unwrap();
            let mut asked = Vec::new();
            waiting.eligible(&refused, NOW_MS, |_, item| asked.push(item.seq));
            let session = &shard.sessions[0];
            let may_go = session
                .entries
                .iter()
                .filter(|entry| session.may_go(entry, &refused, NOW_MS));
            let given: Vec<u64> = may_go.map(|entry| entry.seq).collect();
            assert_eq!(asked, given, "refused {refused:?}, {session:?}");
            compared += 1;
        }
    }
    assert_eq!(compared, 12_usize.pow(4) * 8);
}

/// A row that throws is the session's next one, and a stranger's is at Laravel: no plan knows that it holds up what
/// else that stranger has, and the store says no.
#[test]
fn who_cannot_be_claimed_costs_nobody_else_the_turn() {
    const STRANGER: u64 = 9;
    // All in one shard.
    let mut world = World::new(r#"{"max_sessions":8}"#);
    world.doorbell_works = false;
    world.post("status", "held", "active");
    world.post("status", "also held", "active");
    let index = (0..world.rules.config.shards)
        .find(|index| world.store.get(&world.keys.shard(*index)).is_some())
        .unwrap();
    let place = world.keys.shard(index);
    let (bytes, token) = world.store.get(&place).unwrap();
    let mut shard = Shard::decode(&bytes).unwrap();
    for session in &mut shard.sessions {
        let mut waits = session.entries[0].clone();
        (waits.seq, waits.caller) = (session.newest_seq + 1, STRANGER);
        if let State::Dirty(dirty) = &mut waits.state {
            dirty.trial.alone = true;
        }
        if let State::Dirty(dirty) = &mut session.entries[0].state {
            dirty.trial = Trial {
                alone: true,
                failures: 1,
                not_before_ms: u64::MAX,
                ..Trial::default()
            };
        }
        session.entries.push(waits);
        session.beside.push(Beside {
            number: 1,
            caller: STRANGER,
            seq: 1,
            is_outside: false,
            begun_ms: world.now.mono_ms,
            deadline_ms: world.now.mono_ms + 60_000,
        });
    }
    world
        .store
        .put(&place, &shard.encode(), Expect::Token(token))
        .unwrap();
    world.doorbell_works = true;
    world.step(Event::Doorbell(&[index]));
    world.advance(1_500);
    assert_eq!(world.dispatcher.backlog.pending(), 4);
    assert!(world.made.is_empty(), "nothing of it may go");
    world.post("status", "other", "pending");
    let calls = world.deliver_for(3_000);
    assert!(
        calls.iter().any(|(_, call)| text(call).contains("other")),
        "{calls:?}"
    );
    // The stranger's worker is no more: nobody rings when its time is over.
    world.advance(57_000);
    let calls = world.deliver_for(2_000);
    assert!(calls.iter().any(|(_, call)| text(call).contains("held")));
}
