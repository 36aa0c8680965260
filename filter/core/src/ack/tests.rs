//! Callers that wait, and what they are told.

use alloc::format;
use alloc::string::String;

use super::*;
use crate::hold::Holding;
use crate::intake::{Reply, Taken, View, Worker, take_in};
use crate::route::Destination;
use crate::route::tests::rules;
use crate::shard::tests::claim_due;
use crate::shard::{ClaimId, Outcome};
use crate::store::{Expect, MemoryStore};
use crate::time::Now;

const QR: usize = 0;
const STATUS: usize = 1;

/// One session, a worker with its callers, and a dispatcher.
struct World {
    rules: Rules,
    store: MemoryStore,
    keys: Keys,
    waiters: Waiters,
    now: Now,
    streams: u32,
    calls: u64,
}

impl World {
    fn new() -> Self {
        Self {
            rules: rules(
                r#"{"max_sessions":1,"assume":{"implies":true},"routes":[
                    {"name":"qr","ack":"delivered"},{"name":"status","ack":"delivered"}]}"#,
            ),
            store: MemoryStore::default(),
            keys: Keys::new("p"),
            waiters: Waiters::default(),
            now: Now {
                mono_ms: 1_000,
                wall_ms: 1_000,
            },
            streams: 0,
            calls: 0,
        }
    }

    fn offer(&mut self, route: usize, value: &str, token: &str) -> Taken {
        let field = ["qr", "estado_qr"][route];
        let body: String = format!(r#"{{"session_id":"s","{field}":"{value}"}}"#);
        let headers = Vec::from([("x-api-key".into(), token.into())]);
        let destination = Destination {
            headers: if token.is_empty() {
                Vec::new()
            } else {
                headers
            },
            ..Destination::default()
        };
        let head = self.rules.head_to(route, destination);
        self.rules.config.assume.callers = true;
        let update = self.rules.update(&head, body.as_bytes()).unwrap();
        take_in(
            &mut self.store,
            &self.keys,
            &self.rules,
            &update,
            &Worker {
                number: 0,
                vm: 1,
                may_send: true,
                view: View::default(),
                holding: &Holding::default(),
            },
            self.now,
        )
    }

    /// A caller that is held; gives its stream.
    fn held(&mut self, route: usize, value: &str) -> u32 {
        self.held_under(route, value, "")
    }

    fn held_under(&mut self, route: usize, value: &str, token: &str) -> u32 {
        let wait = self
            .offer(route, value, token)
            .wait
            .expect("something to wait for");
        self.streams += 1;
        assert!(self.waiters.hold(self.streams, wait), "there is room");
        self.streams
    }

    fn swap<T>(&mut self, change: impl FnOnce(&mut Shard<'_>, &Rules, Now) -> T) -> T {
        let key = self.keys.shard(0);
        let read = self.store.get(&key);
        let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
        let mut shard = Shard::decode(bytes).unwrap();
        let result = change(&mut shard, &self.rules, self.now);
        shard.prune(self.now.mono_ms);
        self.store
            .put(&key, &shard.encode(), Expect::of(read.as_ref()))
            .unwrap();
        result
    }

    /// The session's next update is sent.
    fn sends(&mut self) -> ClaimId {
        self.calls += 1;
        let id = ClaimId {
            epoch: 1,
            counter: self.calls,
        };
        let claimed = self.swap(|shard, rules, now| {
            let session = shard.sessions.first()?.id;
            claim_due(shard, rules, session, id, now)
        });
        assert!(claimed.is_some(), "there is something to send");
        id
    }

    fn settles(&mut self, call: ClaimId, outcome: Outcome, status: u16) {
        self.swap(|shard, rules, now| {
            let session = shard.sessions.first().map(|session| session.id);
            shard.settle(rules, session.unwrap(), call, outcome, Some(status), now)
        });
    }

    fn told(&mut self) -> Vec<(u32, Told)> {
        let answers = self.waiters.poll(&self.store, &self.keys, self.now.mono_ms);
        answers
            .iter()
            .map(|answer| (answer.stream, answer.told))
            .collect()
    }
}

#[test]
fn a_caller_hears_of_its_delivery_once_and_not_before() {
    let mut world = World::new();
    let caller = world.held(QR, "2@a");
    assert_eq!(world.told(), [], "it is queued");
    let call = world.sends();
    assert_eq!(world.told(), [], "it is under way");
    world.settles(call, Outcome::Failed, 500);
    assert_eq!(
        world.told(),
        [],
        "Laravel did not take it, and it is tried again"
    );
    let call = world.sends();
    world.settles(call, Outcome::Delivered, 200);
    assert_eq!(world.told(), [(caller, Told::Delivered)]);
    assert!(world.waiters.is_empty());
}

#[test]
fn duplicates_and_what_is_implied_wait_for_the_item_and_not_for_what_is_settled() {
    let mut world = World::new();
    let first = world.held(QR, "2@a");
    let (again, implied) = (world.held(QR, "2@a"), world.held(STATUS, "pending"));
    let call = world.sends();
    world.settles(call, Outcome::Delivered, 200);
    let all = [first, again, implied].map(|stream| (stream, Told::Delivered));
    assert_eq!(world.told(), all);
    for (route, value, reply) in [
        (QR, "2@a", Reply::Duplicate),
        (STATUS, "pending", Reply::Implied),
    ] {
        let taken = world.offer(route, value, "");
        assert_eq!((taken.reply, taken.wait), (reply, None), "Laravel has it");
    }
}

#[test]
fn whoever_was_superseded_shares_the_fate_of_its_successor() {
    let mut world = World::new();
    let (older, newer) = (world.held(QR, "2@a"), world.held(QR, "2@b"));
    let call = world.sends();
    world.settles(call, Outcome::Rejected, 422);
    let both = [older, newer].map(|stream| (stream, Told::Rejected(422)));
    assert_eq!(world.told(), both);
}

#[test]
fn whoever_was_superseded_under_way_hears_what_became_of_its_own() {
    let mut world = World::new();
    let older = world.held(QR, "2@a");
    let call = world.sends();
    let newer = world.held(QR, "2@b");
    world.settles(call, Outcome::Delivered, 200);
    // Nobody has looked when the next one is settled.
    let call = world.sends();
    world.settles(call, Outcome::Rejected, 400);
    let told = [(older, Told::Delivered), (newer, Told::Rejected(400))];
    assert_eq!(world.told(), told);
}

#[test]
fn a_voided_qr_and_what_it_implied_hear_of_the_state_that_voids_them() {
    let mut world = World::new();
    let (voided, implied) = (world.held(QR, "2@a"), world.held(STATUS, "pending"));
    let active = world.held(STATUS, "active");
    assert_eq!(world.told(), []);
    let call = world.sends();
    world.settles(call, Outcome::Delivered, 200);
    let all = [voided, implied, active].map(|stream| (stream, Told::Delivered));
    assert_eq!(world.told(), all);
}

#[test]
fn a_qr_that_ran_out_has_expired_and_its_state_is_still_to_come() {
    let mut world = World::new();
    world.rules.config.ack_timeout_ms = 60_000;
    world.now.mono_ms += 1;
    let qr = world.held(QR, "2@a");
    let state = world.held(STATUS, "pending");
    world.rules.config.routes[QR].expire_after_ms = Some(10_000);
    world.now.mono_ms += 10_001;
    world.swap(|shard, rules, now| shard.expire(rules, now));
    assert_eq!(world.told(), [(qr, Told::Expired)]);
    let call = world.sends();
    world.settles(call, Outcome::Delivered, 200);
    assert_eq!(world.told(), [(state, Told::Delivered)]);
}

#[test]
fn whoever_has_waited_long_enough_is_told_so_and_its_update_stays() {
    let mut world = World::new();
    let caller = world.held(QR, "2@a");
    world.now.mono_ms += world.rules.config.ack_timeout_ms - 1;
    assert_eq!(world.told(), []);
    world.now.mono_ms += 1;
    assert_eq!(world.told(), [(caller, Told::Waiting)]);
    assert_eq!(world.swap(|shard, _, _| shard.pending()), 1);
}

#[test]
fn an_ending_is_kept_as_long_as_anybody_can_wait_for_it_and_then_forgotten() {
    let mut world = World::new();
    world.held(QR, "2@a");
    let call = world.sends();
    world.settles(call, Outcome::Rejected, 422);
    assert_eq!(world.swap(|shard, _, _| shard.sessions.len()), 1);
    world.now.mono_ms += world.rules.config.ack_timeout_ms;
    assert_eq!(
        world.swap(|shard, _, _| shard.sessions.len()),
        1,
        "as it was read"
    );
    assert_eq!(world.swap(|shard, _, _| shard.sessions.len()), 0);
}

/// A store that counts how often it is asked.
struct Counted(MemoryStore, core::cell::Cell<u32>);

impl Store for Counted {
    fn get(&self, key: &str) -> Option<(Vec<u8>, crate::store::Token)> {
        self.1.set(self.1.get() + 1);
        self.0.get(key)
    }

    fn put(&mut self, _: &str, _: &[u8], _: Expect) -> Result<(), crate::store::PutError> {
        panic!("whoever waits only looks")
    }
}

#[test]
fn a_shard_is_looked_at_once_however_many_wait_for_it() {
    let mut world = World::new();
    for _ in 0..100 {
        world.held(QR, "2@a");
    }
    let wait = world.offer(STATUS, "pending", "").wait.unwrap();
    world.waiters.hold(1_000, Wait { shard: 7, ..wait });
    world.held(QR, "2@b");
    let store = Counted(world.store.clone(), <_>::default());
    world.waiters.poll(&store, &world.keys, world.now.mono_ms);
    assert_eq!(store.1.get(), 2, "one for each of two shards");
}

#[test]
fn a_worker_holds_so_many_and_forgets_who_is_gone() {
    let mut world = World::new();
    let wait = world.offer(QR, "2@a", "").wait.unwrap();
    for stream in 0..u32::try_from(WAITERS_MAX).unwrap() {
        assert!(world.waiters.hold(stream, wait));
    }
    assert!(!world.waiters.hold(7_777, wait), "one too many");
    world.waiters.forget(3);
    assert!(world.waiters.hold(7_777, wait), "there is room again");
}

#[test]
fn where_callers_are_answered_at_once_nothing_is_written_down() {
    let mut world = World::new();
    world.rules = rules(r#"{"max_sessions":1}"#);
    assert_eq!(world.offer(QR, "2@a", "").wait, None);
    let call = world.sends();
    world.settles(call, Outcome::Delivered, 200);
    let written = world.swap(|shard, _, _| shard.sessions[0].ended.len());
    assert_eq!(written, 0);
}
