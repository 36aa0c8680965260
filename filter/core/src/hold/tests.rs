//! One session, a dispatcher, two workers, and whoever comes.

use alloc::format;
use alloc::string::{String, ToString};

use super::*;
use crate::circuit;
use crate::intake::{self, Reply, Taken, View, Worker};
use crate::proof::Standing;
use crate::route::tests::rules;
use crate::route::{Destination, Head};
use crate::shard::tests::claim_due;
use crate::shard::{ClaimId, Claimed, Ending, HELD_STRANGERS_MAX, Item, Outcome, State, balance};
use crate::store::MemoryStore;
use crate::write_through::{self, Fate};

/// What waits for its answer, and how it is there.
type At = WriteThrough;

struct World {
    rules: Rules,
    store: MemoryStore,
    keys: Keys,
    now: Now,
    workers: [Holding; 2],
    stream: u32,
    number: u64,
    proven: Vec<&'static str>,
    /// Those that a look finds to be proven.
    subjects: Vec<crate::proof::Subject>,
}

/// What became of a request.
#[derive(Debug)]
enum Sent {
    Answered(Reply),
    AtLaravel(Reply, Box<At>),
    Held(u32),
}

impl World {
    fn new() -> Self {
        Self::with(r#"{"max_sessions":8}"#)
    }

    fn with(configuration: &str) -> Self {
        Self {
            rules: rules(configuration),
            store: MemoryStore::default(),
            keys: Keys::new("p"),
            now: Now {
                mono_ms: 1_000,
                wall_ms: 5_000,
            },
            workers: Default::default(),
            stream: 0,
            number: 0,
            proven: Vec::new(),
            subjects: Vec::new(),
        }
    }

    fn prove(&mut self, caller: &'static str) {
        self.proven.push(caller);
    }

    fn request(&self, route: &str, session: &str, caller: &str, value: &str) -> (Head, String) {
        let (route, rule) = self.rules.config.route_named(route).unwrap();
        let field = if rule.name == "qr" { "qr" } else { "estado_qr" };
        let body = format!(r#"{{"session_id":"{session}","{field}":"{value}"}}"#);
        let destination = Destination {
            headers: [("x-api-key".to_string(), caller.to_string())].into(),
            ..Destination::default()
        };
        let head = self.rules.head_to(route, destination);
        (head, body)
    }

    /// A request of a caller for the session `s`, at a worker.
    fn post_at(&mut self, worker: usize, route: &str, caller: &str, value: &str) -> Sent {
        let (head, body) = self.request(route, "s", caller, value);
        let update = self.rules.update(&head, body.as_bytes()).unwrap();
        self.number += 1_000;
        self.stream += 1;
        let holding = &self.workers[worker];
        let it = Worker {
            number: self.number,
            vm: worker as u64 + 1,
            may_send: true,
            view: View {
                circuit: circuit::State::Closed,
                standing: match self.proven.contains(&caller) {
                    true => Standing::Proven,
                    false => Standing::Unproven,
                },
            },
            holding,
        };
        let Taken {
            reply,
            through,
            place,
            ..
        } = intake::take_in(
            &mut self.store,
            &self.keys,
            &self.rules,
            &update,
            &it,
            self.now,
        );
        let said = update.said.clone();
        if let (Reply::Held(reason), Some((place, is_stranger))) = (reply, place) {
            let waiting = Waiting {
                stream: self.stream,
                said,
                again: Again::of(&update),
                reason,
                is_stranger,
                is_seen: false,
                is_proving: false,
                place,
            };
            self.workers[worker].hold(&self.rules, waiting);
            return Sent::Held(self.stream);
        }
        match through {
            Some(through) => {
                self.workers[worker].sent();
                Sent::AtLaravel(reply, Box::new(through))
            }
            None => Sent::Answered(reply),
        }
    }

    fn post(&mut self, route: &str, caller: &str, value: &str) -> Sent {
        self.post_at(0, route, caller, value)
    }

    /// One that goes to Laravel at once.
    fn goes(&mut self, route: &str, caller: &str, value: &str) -> Box<At> {
        match self.post(route, caller, value) {
            Sent::AtLaravel(_, through) => through,
            other => panic!("{other:?}"),
        }
    }

    /// One that is held.
    fn held(&mut self, route: &str, caller: &str, value: &str) -> u32 {
        match self.post(route, caller, value) {
            Sent::Held(stream) => stream,
            other => panic!("{other:?}"),
        }
    }

    fn queued(&mut self, route: &str, caller: &str, value: &str) {
        match self.post(route, caller, value) {
            Sent::Answered(Reply::Queued) => {}
            other => panic!("{other:?}"),
        }
    }

    fn look_at(&mut self, worker: usize) -> Vec<Turn> {
        self.number += 1_000;
        let ask = Ask {
            body: b"",
            number: self.number,
            vm: worker as u64 + 1,
            is_stranger: false,
            is_seen: false,
            may_send: true,
            may_hold: false,
            refused: &[],
        };
        let proven = self.subjects.clone();
        self.workers[worker].look(
            &mut self.store,
            &self.keys,
            &self.rules,
            ask,
            |subject| proven.contains(subject),
            self.now,
        )
    }

    /// The streams that go on now.
    fn look(&mut self) -> Vec<u32> {
        self.look_at(0).iter().map(|turn| turn.stream).collect()
    }

    fn gone(&mut self, stream: u32) -> WriteThrough {
        let gone = self.workers[0].take_gone(stream).unwrap();
        gone.through.unwrap()
    }

    fn end(&mut self, through: &WriteThrough, fate: Fate) -> bool {
        self.workers[0].answered();
        let end = write_through::end(
            &mut self.store,
            &self.keys,
            &self.rules,
            through,
            fate,
            self.now,
        );
        self.shard(|shard| balance(shard).unwrap());
        end.is_some_and(|end| end.queued)
    }

    fn shard<T>(&mut self, change: impl FnOnce(&mut Shard<'_>) -> T) -> T {
        let (bytes, token) = self.store.get(&self.keys.shard(0)).unwrap_or_default();
        let mut shard = Shard::decode(&bytes).unwrap();
        let result = change(&mut shard);
        let bytes = shard.encode();
        let _ = self
            .store
            .put(&self.keys.shard(0), &bytes, Expect::Token(token));
        result
    }

    fn session(&self) -> u128 {
        let (head, body) = self.request("qr", "s", "one", "2@x");
        let update = self.rules.update(&head, body.as_bytes()).unwrap();
        update.session
    }

    /// What the dispatcher claims now.
    fn claims(&mut self) -> Option<Claimed> {
        self.number += 1;
        let (rules, now, session) = (self.rules.clone(), self.now, self.session());
        let id = ClaimId {
            epoch: 1,
            counter: self.number,
        };
        self.shard(|shard| claim_due(shard, &rules, session, id, now))
    }

    /// The dispatcher delivers what is next.
    fn delivers(&mut self) -> Option<String> {
        let claimed = self.claims()?;
        let (rules, now, session) = (self.rules.clone(), self.now, self.session());
        let id = ClaimId {
            epoch: 1,
            counter: self.number,
        };
        self.shard(|shard| shard.settle(&rules, session, id, Outcome::Delivered, None, now));
        Some(String::from_utf8(claimed.body).unwrap())
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono_ms += ms;
    }
}

fn hold_ms(it: &World) -> u64 {
    it.rules.config.hold_ms
}

#[test]
fn what_is_written_through_while_something_is_under_way_is_held_and_goes_on_in_order() {
    let mut it = World::new();
    let first = it.goes("status", "one", "authenticated");
    let [second, third] = ["ready", "CONNECTED"].map(|value| it.held("status", "one", value));
    assert!(it.look().is_empty(), "the first is not answered yet");
    it.end(&first, Fate::Accepted);
    assert_eq!(it.look(), [second], "one at a time");
    assert!(it.look().is_empty());
    let second = it.gone(second);
    it.end(&second, Fate::Refused);
    assert_eq!(it.look(), [third]);
    assert!(it.workers[0].is_empty());
}

#[test]
fn a_held_request_has_what_is_left_of_its_time() {
    let mut it = World::new();
    let first = it.goes("status", "one", "a");
    it.held("status", "one", "b");
    it.wait(1_500);
    it.end(&first, Fate::NeverHad);
    let turns = it.look_at(0);
    assert_eq!(turns[0].go, Go::Within(13_500));
}

#[test]
fn workers_see_each_others_places() {
    let mut it = World::new();
    let first = it.goes("status", "one", "a");
    let Sent::Held(second) = it.post_at(1, "status", "one", "b") else {
        panic!("held");
    };
    let third = it.held("status", "one", "c");
    it.end(&first, Fate::Accepted);
    assert!(it.look().is_empty(), "the other worker's is before it");
    let turns = it.look_at(1);
    assert_eq!(turns[0].stream, second);
    assert!(it.look().is_empty(), "it is at Laravel");
    let gone = it.workers[1].take_gone(second).unwrap().through.unwrap();
    it.end(&gone, Fate::Accepted);
    assert_eq!(it.look(), [third]);
}

#[test]
fn a_caller_that_hangs_up_gives_its_place_back() {
    let mut it = World::new();
    let first = it.goes("status", "one", "a");
    let second = it.held("status", "one", "b");
    let third = it.held("status", "one", "c");
    let mut holding = core::mem::take(&mut it.workers[0]);
    holding.forget(&mut it.store, &it.keys, &it.rules, second);
    it.workers[0] = holding;
    it.end(&first, Fate::Accepted);
    assert_eq!(it.look(), [third]);
}

#[test]
fn how_long_a_request_is_held_is_configured() {
    let mut it = World::with(r#"{"max_sessions":8,"hold_ms":1500}"#);
    it.goes("status", "one", "a");
    let second = it.held("status", "one", "b");
    it.wait(1_499);
    assert!(it.look().is_empty());
    it.wait(1);
    let turns = it.look_at(0);
    assert!(turns[0].stream == second && turns[0].is_outside);

    let mut it = World::with(r#"{"max_sessions":8,"hold_ms":0}"#);
    it.goes("status", "one", "a");
    it.goes("status", "one", "b");
}

#[test]
fn whoever_has_waited_for_too_long_goes_on_outside_the_order_one_after_the_other() {
    let mut it = World::new();
    let first = it.goes("status", "one", "a");
    let second = it.held("status", "one", "b");
    let third = it.held("status", "one", "c");
    it.wait(hold_ms(&it));
    let turns = it.look_at(0);
    assert_eq!(turns.len(), 1, "the lowest first");
    assert!(turns[0].stream == second && turns[0].is_outside);
    assert_eq!(turns[0].go, Go::Within(11_000));
    assert!(it.look().is_empty(), "the next waits for its answer");
    it.wait(1_000);
    assert_eq!(it.look(), [third], "or for a second");
    let third = it.gone(third);
    it.end(&third, Fate::Accepted);
    it.end(&first, Fate::Accepted);
}

#[test]
fn whoever_looks_after_its_time_goes_on_outside_the_order_where_something_newer_may_have_gone() {
    let mut it = World::new();
    let first = it.goes("status", "one", "a");
    let second = it.held("status", "one", "b");
    it.end(&first, Fate::Accepted);
    it.wait(hold_ms(&it));
    // Its place is nobody's by now.
    it.prove("one");
    it.queued("status", "one", "c");
    assert!(it.delivers().unwrap().contains(r#""c""#));
    let turns = it.look_at(0);
    assert!(turns[0].stream == second && turns[0].is_outside);
    let second = it.gone(second);
    it.end(&second, Fate::Accepted);
    // Laravel has the older one, and is told again.
    it.queued("status", "one", "c");
}

#[test]
fn a_place_of_a_worker_that_is_no_more_holds_nobody_up_for_long() {
    let mut it = World::new();
    it.prove("one");
    let session = it.session();
    it.queued("status", "one", "a");
    let deadline_ms = it.now.mono_ms + hold_ms(&it);
    it.shard(|shard| {
        let seq = shard.last_seq;
        let session = shard.sessions.iter_mut().find(|s| s.id == session).unwrap();
        session.held.push(crate::shard::HeldPlace {
            seq: seq - 1,
            vm: 9,
            caller: 5,
            is_stranger: false,
            deadline_ms,
        });
    });
    assert!(it.claims().is_none(), "somebody older is held");
    it.wait(hold_ms(&it));
    assert!(it.claims().is_some());
}

#[test]
fn the_dispatcher_claims_nothing_past_a_held_request_and_all_before_it() {
    let mut it = World::new();
    it.prove("one");
    it.queued("status", "one", "a");
    // Its caller is proven, but there is no room for its entry.
    let session = it.session();
    it.shard(|shard| {
        let session = shard.sessions.iter_mut().find(|s| s.id == session).unwrap();
        let entry = session.entries[0].clone();
        for caller in 0..crate::shard::ENTRIES_MAX as u64 {
            session.entries.push(crate::shard::Entry {
                caller,
                state: crate::shard::State::Clean { until_ms: 99_000 },
                ..entry.clone()
            });
        }
    });
    let held = it.held("qr", "one", "2@b");
    it.queued("status", "one", "c");
    // The newer state has taken the older one's place: what is before the held request is gone.
    assert!(it.claims().is_none(), "the held one is before it");
    assert_eq!(it.look(), [held]);
    assert!(it.claims().is_none(), "it is at Laravel");
    let gone = it.gone(held);
    it.end(&gone, Fate::Accepted);
    assert!(it.delivers().unwrap().contains(r#""c""#));
}

#[test]
fn a_strangers_request_holds_up_nobody_but_its_own_caller() {
    let mut it = World::new();
    it.prove("one");
    let junk = it.goes("status", "stranger", "x");
    it.queued("status", "one", "active");
    assert!(it.delivers().is_some(), "whatever the stranger does");
    it.held("status", "stranger", "y");
    it.end(&junk, Fate::Unknown);
    it.queued("status", "one", "inactive");
    assert!(it.delivers().is_some());
}

#[test]
fn while_a_strangers_request_is_at_laravel_and_after_it_nothing_is_a_duplicate() {
    let mut it = World::new();
    it.prove("one");
    it.queued("status", "one", "active");
    it.delivers();
    let duplicate = |it: &mut World| {
        matches!(
            it.post("status", "one", "active"),
            Sent::Answered(Reply::Duplicate)
        )
    };
    assert!(duplicate(&mut it));
    let stranger = it.goes("status", "stranger", "x");
    it.end(&stranger, Fate::NeverHad);
    assert!(duplicate(&mut it), "a definite no changes nothing");
    let stranger = it.goes("status", "stranger", "x");
    it.end(&stranger, Fate::Refused);
    assert!(duplicate(&mut it), "nor does Laravel's own");
    let stranger = it.goes("status", "stranger", "x");
    it.queued("status", "one", "active");
    it.delivers();
    it.end(&stranger, Fate::Unknown);
    it.queued("status", "one", "active");
    it.delivers();
    it.wait(it.rules.config.claim_ms());
    it.queued("status", "one", "active");
    it.delivers();
    assert!(duplicate(&mut it), "accepted after all that");
}

#[test]
fn what_went_outside_and_was_accepted_is_said_again_behind_what_is_older() {
    let (mut it, gone) = went_outside_past_an_active();
    assert!(it.end(&gone, Fate::Accepted), "queued, to be said again");
    it.wait(it.rules.config.claim_ms());
    assert!(it.delivers().unwrap().contains("active"));
    assert!(it.delivers().unwrap().contains("2@b"));
}

#[test]
fn what_went_outside_is_not_said_again_behind_something_newer() {
    let (mut it, gone) = went_outside_past_an_active();
    // Of a third route, for which what is older waits no more.
    let session = it.session();
    it.shard(|shard| {
        let session = shard.sessions.iter_mut().find(|s| s.id == session).unwrap();
        let entry = session.entries[0].clone();
        session.entries.push(crate::shard::Entry {
            route: "phone".into(),
            seq: gone.seq + 1,
            state: crate::shard::State::Clean { until_ms: 99_000 },
            ..entry
        });
    });
    assert!(!it.end(&gone, Fate::Accepted));
}

/// A QR that went on while another route's older update of its caller was under way, for longer than anybody waits.
fn went_outside_past_an_active() -> (World, At) {
    let mut it = World::new();
    it.prove("one");
    it.queued("status", "one", "active");
    assert!(it.claims().is_some());
    let session = it.session();
    it.shard(|shard| {
        let session = shard.sessions.iter_mut().find(|s| s.id == session).unwrap();
        let entry = session.entries[0].clone();
        for caller in 0..crate::shard::ENTRIES_MAX as u64 {
            session.entries.push(crate::shard::Entry {
                caller,
                state: crate::shard::State::Clean { until_ms: 99_000 },
                ..entry.clone()
            });
        }
    });
    let held = it.held("qr", "one", "2@b");
    it.wait(hold_ms(&it));
    let turns = it.look_at(0);
    assert!(turns[0].is_outside);
    let gone = it.gone(held);
    (it, gone)
}

#[test]
fn a_place_that_nobody_looks_at_any_more_is_nothing_older() {
    let mut it = World::new();
    let first = it.goes("status", "one", "authenticated");
    let lost = it.post_at(1, "status", "one", "ready");
    assert!(matches!(lost, Sent::Held(_)), "{lost:?}");
    let held = it.held("qr", "one", "2@a");
    it.wait(hold_ms(&it) + 1_000);
    let turns = it.look_at(0);
    assert!(turns[0].stream == held && turns[0].is_outside);
    let gone = it.gone(held);
    it.end(&first, Fate::Accepted);
    it.prove("one");
    it.queued("status", "one", "pending");
    it.delivers().unwrap();
    // Said once more now, it would follow what is newer.
    assert!(!it.end(&gone, Fate::Accepted));
    assert_eq!(it.delivers(), None);
}

/// A state of caller `one` whose row throws, or that is refused: it waits for a moment of its own.
fn passed_over(is_refused: bool) -> World {
    // Somebody may be waiting to hear how things end.
    let mut it = World::with(r#"{"max_sessions":8,"routes":[{"name":"qr","ack":"delivered"}]}"#);
    it.prove("one");
    it.queued("status", "one", "old");
    it.shard(|shard| {
        let mut entries = shard.sessions.iter_mut().flat_map(|s| &mut s.entries);
        if let Some(State::Dirty(dirty)) = entries.next().map(|entry| &mut entry.state) {
            dirty.trial.alone = true;
            dirty.trial.failures = u16::from(!is_refused);
            dirty.trial.refusals = u16::from(is_refused);
        }
    });
    it
}

#[test]
fn an_acceptance_ends_what_it_has_overtaken_on_its_route() {
    for (is_refused, caller) in [(false, "one"), (false, "two"), (true, "two")] {
        // Written through under the claim, or beside it.
        let mut it = passed_over(is_refused);
        it.proven.clear();
        let old = it.shard(|shard| {
            let old = &shard.sessions[0].entries[0];
            (old.caller, old.seq)
        });
        let new = it.goes("status", caller, "new");
        it.end(&new, Fate::Accepted);
        assert_eq!(it.delivers(), None, "{is_refused} {caller}");
        let item = |(caller, seq)| Item {
            place: it.rules.place("status", caller),
            seq,
        };
        let (old, new) = (item(old), item((new.said.caller, new.seq)));
        it.shard(|shard| {
            let [old, new] = [old, new].map(|item| shard.sessions[0].ending(item));
            assert_eq!(new, Some(Ending::Delivered), "{is_refused} {caller}");
            let heard = matches!(old, Some(Ending::Voided(_) | Ending::Delivered));
            assert!(heard, "{is_refused} {caller}: {old:?}");
        });
        // Refused, it has overtaken nobody.
        let mut it = passed_over(is_refused);
        it.proven.clear();
        let new = it.goes("status", caller, "new");
        it.end(&new, Fate::Refused);
        assert!(it.delivers().unwrap().contains("old"));
        // Of another route. (Its own caller's QR sets a state by itself.)
        let mut it = passed_over(is_refused);
        it.proven.clear();
        let new = it.goes("qr", "two", "2@new");
        it.end(&new, Fate::Accepted);
        assert!(it.delivers().unwrap().contains("old"));
    }
}

#[test]
fn what_a_refused_caller_has_queued_holds_up_no_other_caller() {
    let mut it = World::new();
    it.prove("one");
    it.queued("status", "one", "old");
    let caller = it.shard(|shard| shard.sessions[0].entries[0].caller);
    it.held("status", "two", "new");
    let here = it.workers[0].waiting[0].said.destination_hash;
    it.workers[0].set_refused([(here + 1, caller)].into());
    assert!(it.look().is_empty(), "somewhere else");
    it.workers[0].set_refused([(here, caller)].into());
    assert_eq!(it.look().len(), 1, "the leader has said so");
    it.goes("qr", "three", "2@x");
    // Its own caller's, it does.
    it.proven.clear();
    it.held("qr", "one", "2@y");
}

#[test]
fn strangers_have_half_of_a_sessions_places_and_what_has_none_goes_outside() {
    let mut it = World::new();
    it.goes("status", "stranger", "0");
    for n in 0..HELD_STRANGERS_MAX {
        it.held("status", "stranger", &format!("{n}"));
    }
    match it.post("status", "stranger", "z") {
        Sent::AtLaravel(Reply::Outside(_), _) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_has_no_more_than_so_many_at_laravel() {
    let mut it = World::new();
    for _ in 0..AT_LARAVEL_MAX {
        it.workers[0].sent();
    }
    let held = it.held("status", "one", "a");
    assert!(it.look().is_empty());
    it.workers[0].answered();
    assert_eq!(it.look(), [held]);
}

#[test]
fn a_refused_update_that_comes_again_after_a_newer_one_is_stale() {
    let mut it = World::new();
    let refused = it.goes("status", "one", "connecting");
    // As a rule with an order has it.
    let (_, body) = it.request("status", "s", "one", "connecting");
    let body = it.rules.body_hash(&refused.said, body.as_bytes());
    assert_eq!(
        refused.body, 0,
        "it has nothing that tells one from the next"
    );
    let mut with_order = (*refused).clone();
    with_order.body = body;
    it.end(&with_order, Fate::Failed);
    let again = it.goes("status", "one", "connecting");
    it.end(&again, Fate::NeverHad);
    let session = it.session();
    let now = it.now;
    it.shard(|shard| {
        let session = shard.sessions.iter_mut().find(|s| s.id == session);
        let session = session.expect("remembered for a minute");
        session.refused.push(crate::shard::RefusedBody {
            body,
            seq: again.seq,
            until_ms: now.mono_ms + 60_000,
        });
    });
    let newer = it.goes("status", "one", "open");
    it.end(&newer, Fate::Accepted);
    assert!(matches!(
        it.post("status", "one", "connecting"),
        Sent::Answered(Reply::Stale)
    ));
    it.wait(60_000);
    assert!(!matches!(
        it.post("status", "one", "connecting"),
        Sent::Answered(Reply::Stale)
    ));
}

/// A signed request for the session `s`: what it says is none of ours.
fn signed(it: &mut World, caller: &'static str) -> Taken {
    let (head, body) = it.request("status", "s", caller, "signed");
    let bypassed = it.rules.glimpsed(&head, body.as_bytes(), Bypass::Signature);
    assert!(bypassed.seen.is_some());
    it.number += 1_000;
    let worker = Worker {
        number: it.number,
        vm: 1,
        may_send: true,
        view: View::default(),
        holding: &it.workers[0],
    };
    intake::take_seen(
        &mut it.store,
        &it.keys,
        &it.rules,
        &bypassed,
        body.as_bytes(),
        |_| worker,
        it.now,
    )
}

#[test]
fn a_bypass_whose_session_is_unknown_goes_at_once() {
    let mut it = World::new();
    let taken = signed(&mut it, "one");
    assert_eq!(taken.reply, Reply::Bypass(Bypass::Signature));
}

#[test]
fn a_bypass_whose_session_is_known_goes_under_its_claim_and_leaves_it_unverified() {
    let mut it = World::new();
    it.prove("one");
    it.queued("status", "one", "active");
    let taken = signed(&mut it, "one");
    assert_eq!(taken.reply, Reply::Held(Bypass::Signature));
    assert!(it.delivers().is_some(), "what is queued goes first");
    let place = taken.place.unwrap().0;
    it.shard(|shard| {
        let session = shard.sessions[0].id;
        shard.leave(session, place.seq, place.before).unwrap();
    });
    assert!(matches!(
        it.post("status", "one", "active"),
        Sent::Answered(Reply::Duplicate)
    ));
    let taken = signed(&mut it, "one");
    assert_eq!(taken.reply, Reply::WriteThrough(Bypass::Signature));
    it.workers[0].sent();
    let through = taken.through.unwrap();
    assert!(it.claims().is_none());
    it.end(&through, Fate::Accepted);
    it.queued("status", "one", "active");
}

#[test]
fn what_waits_behind_a_bypass_that_nobody_answered_goes_out_once_it_may_have_ended() {
    let mut it = World::new();
    it.prove("one");
    it.queued("status", "one", "active");
    it.delivers();
    let through = signed(&mut it, "one").through.unwrap();
    it.workers[0].sent();
    it.end(&through, Fate::Unknown);
    it.queued("status", "one", "inactive");
    assert!(it.claims().is_none());
    it.wait(it.rules.config.times.late_ms);
    assert!(it.claims().is_some());
}

#[test]
fn what_is_held_for_the_proof_of_its_caller_is_queued_in_its_place_once_that_is_there() {
    let mut it = World::new();
    let first = it.goes("status", "one", "a");
    let [second, third] = ["b", "c"].map(|value| it.held("status", "one", value));
    it.subjects.push(first.said.subject);
    it.end(&first, Fate::Accepted);
    let turns = it.look_at(0);
    let queued = |stream| {
        turns
            .iter()
            .any(|turn| turn.stream == stream && turn.go == Go::Answer(Reply::Queued))
    };
    assert!(queued(second) && queued(third), "{turns:?}");
    assert!(it.workers[0].is_empty());
    assert!(it.delivers().unwrap().contains("\"c\""), "the newest");
    assert!(it.delivers().is_none());
    it.shard(|shard| balance(shard).unwrap());
}

#[test]
fn a_qr_that_is_held_for_the_proof_of_its_caller_is_queued_with_the_state_that_it_implies() {
    let mut it = World::with(
        r#"{"max_sessions":8,"assume":{"implies":true},"routes":[{"name":"qr","implies":{"route":"status","value":"pending"}},{"name":"status"}]}"#,
    );
    let first = it.goes("qr", "one", "a");
    let second = it.held("qr", "one", "b");
    it.subjects.push(first.said.subject);
    it.end(&first, Fate::Accepted);
    let turns = it.look_at(0);
    assert_eq!(turns[0].stream, second);
    assert_eq!(turns[0].go, Go::Answer(Reply::Queued));
    it.shard(|shard| {
        balance(shard).unwrap();
        let entries = &shard.sessions[0].entries;
        let implies = |entry: &crate::shard::Entry<'_>| {
            entry.route == "status" && matches!(entry.state, crate::shard::State::Implied { .. })
        };
        assert!(entries.iter().any(implies), "{entries:?}");
    });
}

#[test]
fn what_is_held_is_not_queued_once_its_time_is_over_and_something_newer_may_have_gone() {
    let mut it = World::new();
    let first = it.goes("qr", "one", "a");
    let second = it.held("qr", "one", "b");
    it.end(&first, Fate::Accepted);
    it.wait(hold_ms(&it));
    it.prove("one");
    it.subjects.push(first.said.subject);
    it.queued("status", "one", "active");
    assert!(it.delivers().unwrap().contains("active"));
    let turns = it.look_at(0);
    assert!(
        turns[0].stream == second && turns[0].is_outside,
        "{turns:?}"
    );
}

#[test]
fn what_is_queued_behind_anothers_that_has_gone_past_it_leaves_nothing_known() {
    let mut it = World::new();
    it.prove("one");
    let first = it.goes("status", "two", "a");
    let Sent::Held(_) = it.post("status", "two", "b") else {
        panic!("held");
    };
    it.subjects.push(first.said.subject);
    it.end(&first, Fate::Accepted);
    it.queued("status", "one", "c");
    assert!(
        it.delivers().unwrap().contains(r#""c""#),
        "it waits for no stranger"
    );
    let turns = it.look_at(0);
    assert_eq!(turns[0].go, Go::Answer(Reply::Queued));
    // Laravel will have the other one's.
    it.queued("status", "one", "c");
    assert!(it.delivers().unwrap().contains(r#""b""#));
    assert!(it.delivers().unwrap().contains(r#""c""#));
}
