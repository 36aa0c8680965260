//! Who waits at a barrier, for what, and for how long.

use alloc::format;
use alloc::string::String;

use super::*;
use crate::circuit::{State as Circuit, Trouble};
use crate::headers::borrowed;
use crate::hold::Holding;
use crate::intake::{self, Reply, View, Worker};
use crate::route::Destination;
use crate::route::tests::rules;
use crate::shard::tests::claim_due;
use crate::shard::{ClaimId, Outcome};
use crate::store::MemoryStore;

const RULES: &str = r#"{"max_sessions":8,"assume":{"callers":true},"barriers":[
    {"method":"POST","path":"/whatsapp-webhook/{session}"},
    {"method":"DELETE","path":"/whatsapp/accounts/{session}","forgets":true}]}"#;

struct World {
    rules: Rules,
    keys: Keys,
    store: MemoryStore,
    barriers: Barriers,
    record: Record,
    now: Now,
    number: u64,
}

impl World {
    fn new() -> Self {
        Self {
            rules: rules(RULES),
            keys: Keys::new("p"),
            store: MemoryStore::default(),
            barriers: Barriers::default(),
            record: Record::default(),
            now: Now {
                mono_ms: 1_000,
                wall_ms: 5_000,
            },
            number: 0,
        }
    }

    fn later(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
    }

    fn barred(&self, method: &str, path: &str) -> Option<Barred> {
        let headers: Vec<(String, Vec<u8>)> = [
            (":method", method),
            (":path", path),
            (":authority", "laravel.test"),
        ]
        .iter()
        .map(|(name, value)| ((*name).into(), value.as_bytes().to_vec()))
        .collect();
        self.rules.barred(borrowed(&headers))
    }

    fn post(&mut self, route: &str, session: &str, value: &str) -> Reply {
        let (route, _) = self.rules.config.route_named(route).unwrap();
        let field = if route == 0 { "qr" } else { "estado_qr" };
        let body = format!(r#"{{"session_id":"{session}","{field}":"{value}"}}"#);
        let destination = Destination {
            authority: "laravel.test".into(),
            ..Destination::default()
        };
        let head = self.rules.head_to(route, destination);
        let update = self.rules.update(&head, body.as_bytes()).unwrap();
        self.number += 1;
        let worker = Worker {
            number: self.number,
            vm: 1,
            may_send: true,
            view: View::default(),
            holding: &Holding::default(),
        };
        intake::take_in(
            &mut self.store,
            &self.keys,
            &self.rules,
            &update,
            &worker,
            self.now,
        )
        .reply
    }

    /// A message for a session comes.
    fn message(&mut self, stream: u32, session: &str) -> Stop {
        let path = format!("/whatsapp-webhook/{session}");
        let barred = self.barred("POST", &path).unwrap();
        self.stop(stream, barred)
    }

    fn stop(&mut self, stream: u32, barred: Barred) -> Stop {
        let (store, keys, rules) = (&mut self.store, &self.keys, &self.rules);
        self.barriers
            .stop(store, keys, rules, stream, barred, &self.record, self.now)
    }

    fn look(&mut self) -> Vec<u32> {
        let (store, keys, rules) = (&self.store, &self.keys, &self.rules);
        self.barriers
            .look(store, keys, rules, &self.record, self.now)
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Shard<'_>, &Rules, Now) -> T) -> T {
        let key = self.keys.shard(0);
        let (bytes, token) = self.store.get(&key).unwrap();
        let mut shard = Shard::decode(&bytes).unwrap();
        let done = change(&mut shard, &self.rules, self.now);
        let encoded = shard.encode();
        self.store
            .put(&key, &encoded, Expect::Token(token))
            .unwrap();
        done
    }

    fn claim(&mut self) -> ClaimId {
        self.number += 1;
        let id = ClaimId {
            epoch: 1,
            counter: self.number,
        };
        self.change(|shard, rules, now| {
            let session = shard.sessions[0].id;
            claim_due(shard, rules, session, id, now).expect("due");
        });
        id
    }

    fn settle(&mut self, id: ClaimId, outcome: Outcome) {
        self.change(|shard, rules, now| {
            let session = shard.sessions[0].id;
            shard.settle(rules, session, id, outcome, Some(200), now);
        });
    }
}

#[test]
fn a_barrier_is_a_method_and_a_path_and_no_route() {
    let world = World::new();
    let message = world
        .barred("POST", "/api/whatsapp-webhook/s%201?x=1")
        .unwrap();
    assert!(!message.forgets);
    assert!(
        world
            .barred("DELETE", "/whatsapp/accounts/s")
            .unwrap()
            .forgets
    );
    for (method, path) in [
        ("GET", "/whatsapp-webhook/s"),
        ("POST", "/whatsapp-webhook"),
        ("POST", "/whatsapp-webhook/s/t"),
        ("POST", "/qr"),
    ] {
        assert_eq!(world.barred(method, path), None, "{method} {path}");
    }
}

#[test]
fn a_message_waits_for_what_is_queued_and_then_for_what_is_at_laravel() {
    let mut world = World::new();
    assert_eq!(world.message(1, "s"), Stop::Go, "nothing is known of it");
    assert_eq!(world.post("status", "s", "connecting"), Reply::Queued);
    world.change(|shard, _, _| shard.rung = false);
    assert_eq!(world.message(2, "t"), Stop::Go, "another session's");
    assert_eq!(world.message(3, "s"), Stop::Held(Some(0)), "and rings");
    let hurries = world.change(|shard, _, now| shard.sessions[0].hurries(now.mono_ms));
    assert!(hurries, "it leaves at once");
    assert_eq!(
        world.message(4, "s"),
        Stop::Held(None),
        "it hurries already"
    );
    world.later(25);
    assert_eq!(world.look(), []);
    let id = world.claim();
    world.later(25);
    assert_eq!(world.look(), []);
    world.settle(id, Outcome::Delivered);
    assert_eq!(world.look(), [3, 4], "in the order in which they came");
    assert!(world.barriers.is_empty());
}

#[test]
fn what_comes_after_it_is_not_waited_for_but_what_takes_the_place_of_the_awaited_is() {
    let mut world = World::new();
    world.post("status", "s", "active");
    let id = world.claim();
    assert_eq!(
        world.message(1, "s"),
        Stop::Held(None),
        "the ring is on its way"
    );
    world.later(10);
    world.post("qr", "s", "2@1");
    world.settle(id, Outcome::Delivered);
    assert_eq!(world.look(), [1], "the QR came later");
    world.later(WAIT_MS);
    world.change(|shard, _, _| shard.rung = false);
    assert_eq!(world.message(2, "s"), Stop::Held(Some(0)));
    world.later(10);
    world.post("qr", "s", "2@2");
    assert_eq!(
        world.look(),
        [],
        "the newer QR stands for the one that it waits for"
    );
    let id = world.claim();
    world.settle(id, Outcome::Delivered);
    assert_eq!(world.look(), [2]);
}

#[test]
fn nobody_waits_longer_than_two_seconds() {
    let mut world = World::new();
    world.post("qr", "s", "2@1");
    world.message(1, "s");
    world.later(WAIT_MS - 1);
    assert_eq!(world.look(), []);
    world.later(1);
    assert_eq!(world.look(), [1]);
    let hurries = world.change(|shard, _, now| {
        shard.prune(now.mono_ms);
        shard.sessions[0].hurry_until_ms
    });
    assert_eq!(hurries, 0, "and nothing hurries any more");
}

#[test]
fn where_waiting_would_not_help_nobody_waits() {
    let mut world = World::new();
    world.post("qr", "s", "2@1");
    world.record.state = Circuit::Open;
    assert_eq!(world.message(1, "s"), Stop::Go, "the circuit is open");
    world.record.state = Circuit::Closed;
    let destination = world.barred("POST", "/whatsapp-webhook/s").unwrap();
    let trouble = Trouble {
        destination: destination.destination_hash,
        failures: 1,
        ..Trouble::default()
    };
    world.record.troubles = Vec::from([trouble]);
    assert_eq!(world.message(2, "s"), Stop::Go, "its destination backs off");
    world.record.troubles = Vec::from([Trouble {
        refused: Some(0),
        ..trouble
    }]);
    assert_eq!(world.message(3, "s"), Stop::Go, "its caller is refused");
    world.record.troubles = Vec::from([Trouble {
        refused: Some(7),
        ..trouble
    }]);
    assert!(
        matches!(world.message(4, "s"), Stop::Held(_)),
        "another caller is"
    );
    world.record.state = Circuit::HalfOpen;
    assert_eq!(world.look(), [4], "nor does anybody wait on");
    world.record = Record::default();
    let id = world.claim();
    world.settle(id, Outcome::Threw);
    assert_eq!(world.message(5, "s"), Stop::Go, "the row backs off");
}

#[test]
fn a_session_has_eight_that_wait_and_a_worker_so_many() {
    let mut world = World::new();
    world.post("qr", "s", "2@1");
    for stream in 0..8 {
        assert!(
            matches!(world.message(stream, "s"), Stop::Held(_)),
            "{stream}"
        );
    }
    assert_eq!(world.message(8, "s"), Stop::Go);
    assert!(world.barriers.forget(3) && !world.barriers.forget(3));
    assert!(!world.barriers.holds(3) && world.barriers.holds(4));
    assert!(matches!(world.message(9, "s"), Stop::Held(_)));
    let barred = world.barred("POST", "/whatsapp-webhook/s").unwrap();
    for stream in 100..100 + HELD_MAX as u32 {
        let other = Barred {
            session: stream.into(),
            ..barred
        };
        world.barriers.hold(
            stream,
            other,
            Mark {
                seq: 0,
                since_ms: 0,
            },
        );
    }
    world.barriers.forget(9);
    assert_eq!(world.message(10, "s"), Stop::Go, "the worker has too many");
}

#[test]
fn after_a_delete_nothing_that_was_known_is() {
    let mut world = World::new();
    let barred = world.barred("DELETE", "/whatsapp/accounts/s").unwrap();
    forget(&mut world.store, &world.keys, &world.rules, barred.session);
    world.post("status", "s", "active");
    let id = world.claim();
    world.settle(id, Outcome::Delivered);
    assert_eq!(world.post("status", "s", "active"), Reply::Duplicate);
    world.change(|shard, _, now| {
        let kept = crate::shard::Kept {
            read: "status".into(),
            caller: 0,
            reader: 0,
            fetched_ms: now.mono_ms,
            until_ms: now.mono_ms + 10_000,
            floor: shard.last_seq,
            has_more: false,
            places: Default::default(),
            headers: (&b""[..]).into(),
            body: (&b"{}"[..]).into(),
        };
        shard.sessions[0].kept.push(kept);
    });
    forget(&mut world.store, &world.keys, &world.rules, barred.session);
    let kept = world.change(|shard, _, _| shard.sessions[0].kept.len());
    assert_eq!(kept, 0, "not even for a Laravel that fails");
    assert_eq!(
        world.post("status", "s", "active"),
        Reply::Queued,
        "it is news again"
    );
}
