//! What every accepted update said is at Laravel in the end, member by member.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::route::tests::rules;
use crate::shard::tests::{BOOT, claim_due, head_of};
use crate::shard::{ClaimId, Decision, Outcome, Settled, Shard, Wanted, balance};
use crate::time::Now;

const ROUTE: &str = "status";

/// A state with what is beside it.
fn body(state: &str, beside: &[(&str, u32)]) -> String {
    let beside = beside
        .iter()
        .map(|(name, value)| format!(r#","{name}":{value}"#));
    let beside: String = beside.collect();
    format!(r#"{{"session_id":"s","estado_qr":"{state}"{beside}}}"#)
}

fn at(mono_ms: u64) -> Now {
    Now {
        mono_ms,
        wall_ms: mono_ms,
    }
}

/// A shard, and a Laravel that keeps of each member what was said last.
struct World {
    rules: Rules,
    stored: Vec<u8>,
    now: Now,
    claim: Option<(u128, ClaimId, Vec<u8>, u64)>,
    claims: u64,
    delivered: Vec<u64>,
    accepted: BTreeMap<String, String>,
    laravel: BTreeMap<String, String>,
}

impl World {
    fn new() -> Self {
        Self {
            rules: rules("{}"),
            stored: Vec::new(),
            now: BOOT,
            claim: None,
            claims: 0,
            delivered: Vec::new(),
            accepted: BTreeMap::new(),
            laravel: BTreeMap::new(),
        }
    }

    fn offer(&mut self, body: &str) -> bool {
        let head = head_of(&self.rules, ROUTE, "k");
        let update = self.rules.update(&head, body.as_bytes()).unwrap();
        let mut shard = Shard::decode(&self.stored).unwrap();
        let decision = shard.offer(&self.rules, &update, self.now);
        balance(&shard).unwrap();
        let stored = shard.encode();
        self.stored = stored;
        said(body.as_bytes(), &mut self.accepted);
        matches!(decision, Decision::Queued { .. })
    }

    fn claim(&mut self) -> bool {
        let mut shard = Shard::decode(&self.stored).unwrap();
        let Some(session) = shard.sessions.first().map(|session| session.id) else {
            return false;
        };
        self.claims += 1;
        let id = ClaimId {
            epoch: 1,
            counter: self.claims,
        };
        let Some(item) = claim_due(&mut shard, &self.rules, session, id, self.now) else {
            return false;
        };
        self.claim = Some((session, id, item.body, item.seq));
        self.stored = shard.encode();
        true
    }

    fn settle(&mut self, outcome: Outcome) {
        let Some((session, id, body, seq)) = self.claim.take() else {
            return;
        };
        let mut shard = Shard::decode(&self.stored).unwrap();
        let settled = shard.settle(&self.rules, session, id, outcome, None, self.now);
        assert_ne!(settled, Settled::Foreign);
        balance(&shard).unwrap();
        self.stored = shard.encode();
        if outcome == Outcome::Delivered {
            assert!(
                self.delivered.last().is_none_or(|last| *last < seq),
                "in order"
            );
            self.delivered.push(seq);
            said(&body, &mut self.laravel);
        }
    }

    fn drain(&mut self) {
        for _ in 0..16 {
            self.settle(Outcome::Delivered);
            if !self.claim() {
                break;
            }
        }
        let shard = Shard::decode(&self.stored).unwrap();
        assert_eq!((shard.pending(), self.claim.is_none()), (0, true));
    }

    fn pending(&self) -> usize {
        Shard::decode(&self.stored).unwrap().pending()
    }
}

fn said(body: &[u8], by: &mut BTreeMap<String, String>) {
    for (name, value) in json::members(body).unwrap() {
        by.insert(
            name.into_owned(),
            String::from_utf8(value.to_vec()).unwrap(),
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Offer(usize, Option<u32>, Option<u32>),
    Claim,
    Settle(Outcome),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = || proptest::option::of(0..3_u32);
    let outcome = prop_oneof![
        3 => Just(Outcome::Delivered),
        1 => Just(Outcome::Failed),
        1 => Just(Outcome::Refused),
    ];
    let step = prop_oneof![
        5 => (0..3_usize, number(), number()).prop_map(|(s, a, b)| Step::Offer(s, a, b)),
        2 => Just(Step::Claim),
        2 => outcome.prop_map(Step::Settle),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn what_was_said_of_each_member_last_is_at_laravel_in_the_end(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Offer(state, phone, reason) => {
                    let state = ["connecting", "active", "inactive"][state];
                    let phone = phone.map(|phone| ("phone", phone));
                    let beside: Vec<_> = phone.into_iter().chain(reason.map(|r| ("reason", r))).collect();
                    world.offer(&body(state, &beside));
                }
                Step::Claim if world.claim.is_none() => {
                    world.claim();
                }
                Step::Claim => {}
                Step::Settle(outcome) => world.settle(outcome),
            }
        }
        world.drain();
        prop_assert_eq!(&world.laravel, &world.accepted);
    }
}

#[test]
fn an_update_supersedes_what_it_says_anew_and_nothing_else() {
    for (first, second, pending) in [
        (body("active", &[("phone", 4)]), body("inactive", &[]), 2),
        (body("active", &[]), body("inactive", &[("reason", 1)]), 1),
        (
            body("active", &[("phone", 4)]),
            body("inactive", &[("reason", 1)]),
            2,
        ),
        (
            body("active", &[("phone", 4)]),
            body("inactive", &[("phone", 5)]),
            1,
        ),
        // What the rule calls volatile is nothing to have.
        (
            body("active", &[("timestamp", 4)]),
            body("inactive", &[]),
            1,
        ),
    ] {
        let mut world = World::new();
        assert!(world.offer(&first) && world.offer(&second));
        assert_eq!(world.pending(), pending, "{first} {second}");
        assert!(!world.offer(&second), "the last one again");
        world.drain();
        assert_eq!(world.delivered.len(), pending);
    }
}

#[test]
fn a_fifth_takes_the_place_of_the_newest_with_what_that_alone_had() {
    let mut world = World::new();
    for (n, name) in ["a", "b", "c", "d", "e"].iter().enumerate() {
        assert!(world.offer(&body("active", &[(name, n as u32)])));
        assert_eq!(world.pending(), UNSENT_MAX.min(n + 1));
    }
    world.drain();
    let has = |name: &str| world.laravel.contains_key(name);
    assert_eq!(
        ["a", "b", "c", "d", "e"].map(has),
        [true, true, true, false, true]
    );
}

#[test]
fn what_was_passed_over_ends_with_the_next_of_its_route() {
    let mut world = World::new();
    world.offer(&body("active", &[("phone", 4)]));
    world.claim();
    world.settle(Outcome::Threw);
    world.offer(&body("inactive", &[]));
    assert_eq!(world.pending(), 2);
    let mut shard = Shard::decode(&world.stored).unwrap();
    let session = shard.sessions.first().unwrap();
    let newest = session.entries.first().unwrap();
    let State::Dirty(dirty) = &newest.state else {
        panic!("it is unsent");
    };
    assert_eq!(
        dirty.trial,
        Trial::default(),
        "what it did not take the place of is not its own"
    );
    let (name, destination) = (session.id, dirty.destination.to_vec());
    let wanted = Wanted {
        route: ROUTE,
        caller: newest.caller,
        seq: newest.seq,
        destination: &destination,
        bytes_max: usize::MAX,
        refused: &[],
    };
    let id = ClaimId {
        epoch: 1,
        counter: 9,
    };
    let now = at(1_100);
    let claimed = shard.claim(&world.rules, name, &wanted, id, now).unwrap();
    assert_eq!(
        claimed.body,
        body("inactive", &[]).as_bytes(),
        "and not what waits by itself"
    );
    shard.settle(&world.rules, name, id, Outcome::Delivered, None, now);
    balance(&shard).unwrap();
    assert_eq!(
        (
            shard.pending(),
            shard.ledger.superseded,
            shard.ledger.delivered
        ),
        (0, 1, 1)
    );
}
