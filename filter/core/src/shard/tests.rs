//! The shard against a model a page long: random updates, calls, crashes and times.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::route::tests::rules;
use crate::route::{Destination, Head, Rules, Update};
use crate::time::Now;
use crate::write_through::{Fate, WriteThrough};

/// What can happen to a shard.
#[derive(Clone, Debug)]
enum Step {
    Offer {
        session: u8,
        route: usize,
        value: usize,
    },
    Claim {
        session: u8,
    },
    Settle {
        call: usize,
        outcome: Outcome,
    },
    Expire,
    Wait {
        ms: u64,
    },
}

const VALUES: [[&str; 4]; 2] = [
    ["2@a", "2@b", "2@c", "2@d"],
    ["pending", "connecting", "active", "inactive"],
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Delivered),
        1 => Just(Outcome::Failed),
        1 => Just(Outcome::Refused),
        1 => Just(Outcome::Unsent),
    ];
    let step = prop_oneof![
        6 => (0..3_u8, 0..2_usize, 0..4_usize)
            .prop_map(|(session, route, value)| Step::Offer { session, route, value }),
        4 => (0..3_u8).prop_map(|session| Step::Claim { session }),
        4 => (0..8_usize, outcome).prop_map(|(call, outcome)| Step::Settle { call, outcome }),
        1 => Just(Step::Expire),
        2 => prop_oneof![0..100_u64, 1_000..40_000_u64, 100_000..700_000_u64]
            .prop_map(|ms| Step::Wait { ms }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Claims whatever is due of a session, as a plan made from this very shard would.
pub(crate) fn claim_due(
    shard: &mut Shard<'_>,
    rules: &Rules,
    session: u128,
    id: ClaimId,
    now: Now,
) -> Option<Claimed> {
    let due = shard.session(session)?.next_due()?;
    let State::Dirty(dirty) = &due.state else {
        return None;
    };
    let (route, destination) = (due.route.to_string(), dirty.destination.to_vec());
    let wanted = Wanted {
        route: &route,
        caller: due.caller,
        seq: 0,
        destination: &destination,
        bytes_max: usize::MAX,
        refused: &[],
    };
    shard.claim(rules, session, &wanted, id, now)
}

/// Laravel and the gateway, as far as they matter.
#[derive(Default)]
struct Model {
    /// The gateway's updates that were answered `queued`, by session, as (seq, route, value).
    queued: BTreeMap<u8, Vec<(u64, usize, usize)>>,
    /// The highest sequence that was sent, by session.
    sent: BTreeMap<u8, u64>,
    /// Laravel's state: (route, value), the last one delivered, by session. A QR makes it pending.
    laravel: BTreeMap<u8, Vec<(usize, usize)>>,
    /// Calls under way: (session, claim, seq, deadline).
    calls: Vec<(u8, ClaimId, u64, u64)>,
}

struct World {
    rules: Rules,
    stored: Vec<u8>,
    now: Now,
    claims: u64,
    model: Model,
}

impl World {
    fn new() -> Self {
        Self {
            rules: rules("{}"),
            stored: Vec::new(),
            now: Now {
                mono_ms: 1_000,
                wall_ms: 50,
            },
            claims: 0,
            model: Model::default(),
        }
    }

    /// One compare-and-swap that wins: decode, change, encode.
    fn swap<T>(&mut self, change: impl FnOnce(&mut Shard<'_>, &Rules, Now) -> T) -> T {
        let mut shard = Shard::decode(&self.stored).expect("what was written is readable");
        let result = change(&mut shard, &self.rules, self.now);
        balance(&shard).expect("the ledger balances");
        assert!(
            shard.sessions.iter().all(|session| {
                session
                    .entries
                    .iter()
                    .all(|entry| entry.seq <= session.newest_seq)
            }),
            "no entry is newer than its session"
        );
        self.stored = shard.encode();
        result
    }

    fn session(&self, session: u8) -> u128 {
        let destination = Destination {
            authority: "h".into(),
            ..<_>::default()
        };
        let origin = self.rules.head_to(0, destination).origin;
        self.rules
            .session_hash(origin, None, &format!("s{session}"))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait { ms } => {
                self.now.mono_ms += ms;
                // The wall clock steps back now and then.
                self.now.wall_ms = self.now.wall_ms.wrapping_add(ms) % 100_000;
            }
            Step::Expire => {
                self.swap(|shard, rules, now| shard.expire(rules, now));
            }
            Step::Offer {
                session,
                route,
                value,
            } => self.offer(session, route, value),
            Step::Claim { session } => self.claim(session),
            Step::Settle { call, outcome } => self.settle(call, outcome),
        }
    }

    fn offer(&mut self, session: u8, route: usize, value: usize) {
        let field = ["qr", "estado_qr"][route];
        let body: String = format!(
            r#"{{"session_id":"s{session}","{field}":"{}"}}"#,
            VALUES[route][value]
        );
        let destination = Destination {
            authority: "h".into(),
            ..<_>::default()
        };
        let rules = self.rules.clone();
        let head = rules.head_to(route, destination);
        let update = rules.update(&head, body.as_bytes()).unwrap();
        let mut shard = Shard::decode(&self.stored).unwrap();
        let decision = shard.offer(&rules, &update, self.now);
        balance(&shard).expect("the ledger balances");
        let seq = shard.last_seq;
        let known = self.model.queued.entry(session).or_default();
        match decision {
            Decision::Queued { .. } => {
                assert!(
                    known.last().is_none_or(|(last, _, _)| *last < seq),
                    "seq only grows"
                );
                known.push((seq, route, value));
                self.stored = shard.encode();
            }
            Decision::Duplicate { .. } => {
                // The last update of this route was the same value, and no other has come in between
                // that changes what Laravel has: a QR sets `pending`.
                let last = known
                    .iter()
                    .rev()
                    .find(|(_, r, _)| *r == route || (route == 1 && *r == 0));
                let is_same = last.is_some_and(|(_, r, v)| {
                    (*r == route && *v == value) || (route == 1 && *r == 0 && value == 0)
                });
                assert!(is_same, "{body} is no duplicate of {last:?}");
                self.stored = shard.encode();
            }
            Decision::Implied => {
                assert!(
                    matches!(known.last(), Some((_, 0, _))),
                    "only right after a QR"
                );
                assert_eq!((route, value), (1, 0), "only `pending`");
            }
            Decision::Full => panic!("three sessions always fit"),
            Decision::Stale => panic!("no rule here has an order"),
        }
    }

    fn claim(&mut self, session: u8) {
        self.claims += 1;
        let id = ClaimId {
            epoch: 1,
            counter: self.claims,
        };
        let name = self.session(session);
        let now = self.now;
        let claimed = self.swap(|shard, rules, now| claim_due(shard, rules, name, id, now));
        let Some(claimed) = claimed else { return };
        let others = self
            .model
            .calls
            .iter()
            .filter(|(s, _, _, deadline)| *s == session && now.mono_ms < *deadline);
        assert_eq!(others.count(), 0, "one call of a session at a time");
        let sent = self.model.sent.entry(session).or_default();
        assert!(
            *sent <= claimed.seq,
            "never older after newer: {} after {sent}",
            claimed.seq
        );
        *sent = claimed.seq;
        let deadline = now.mono_ms + self.rules.config.claim_ms();
        self.model.calls.push((session, id, claimed.seq, deadline));
    }

    fn settle(&mut self, call: usize, outcome: Outcome) {
        let Some(index) = call.checked_rem(self.model.calls.len()) else {
            return;
        };
        let (session, id, seq, _) = self.model.calls.remove(index);
        let name = self.session(session);
        let settled =
            self.swap(|shard, rules, now| shard.settle(rules, name, id, outcome, None, now));
        // An answer that comes after the deadline tells of something that Laravel did before it, and
        // so before whatever was sent since.
        if outcome == Outcome::Delivered
            && settled != Settled::Foreign
            && let Some((_, route, value)) = self
                .model
                .queued
                .get(&session)
                .and_then(|q| q.iter().find(|(s, _, _)| *s == seq))
        {
            self.model
                .laravel
                .entry(session)
                .or_default()
                .push((*route, *value));
        }
        assert!(
            !matches!(settled, Settled::Ended { .. }) || outcome == Outcome::Delivered,
            "only a delivery delivers"
        );
    }

    /// Laravel is well from now on: everything must end, and end on the newest.
    fn drain(&mut self) {
        self.now.mono_ms += self.rules.config.claim_ms();
        for _ in 0..20 {
            for session in 0..3 {
                self.swap(|shard, rules, now| shard.expire(rules, now));
                self.claim(session);
                self.settle(0, Outcome::Delivered);
                while !self.model.calls.is_empty() {
                    self.settle(0, Outcome::Failed);
                }
            }
        }
        let shard = Shard::decode(&self.stored).unwrap();
        assert_eq!(shard.pending(), 0, "everything ends");
        for (session, queued) in &self.model.queued {
            let Some((_, 1, value)) = queued.last() else {
                continue;
            };
            let last = self.model.laravel.get(session).and_then(|all| all.last());
            assert_eq!(
                last,
                Some(&(1, *value)),
                "Laravel ends on the gateway's last state"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_lost_overtaken_or_stuck(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.drain();
    }
}

#[test]
fn a_shard_keeps_its_limits_and_never_drops_for_space() {
    let rules = rules("{}");
    let now = Now {
        mono_ms: 1,
        wall_ms: 1,
    };
    let bodies: Vec<String> = (0..=SESSIONS_MAX)
        .map(|n| format!(r#"{{"session_id":"s{n}","qr":"2@x"}}"#))
        .collect();
    // One credential alone may not fill it.
    let head = |caller: usize| {
        let headers = Vec::from([("x-api-key".into(), caller.to_string())]);
        let destination = Destination {
            headers,
            ..Destination::default()
        };
        rules.head_to(0, destination)
    };
    let heads = [0, 1].map(head);
    let update = |caller: usize, body| rules.update(&heads[caller], body).unwrap();
    let bodies = bodies.iter().enumerate();
    let updates: Vec<_> = bodies
        .map(|(index, body)| update(index % 2, body.as_bytes()))
        .collect();
    let newer = update(0, br#"{"session_id":"s0","qr":"2@y"}"#);
    let mut shard = Shard::default();
    let decisions = updates
        .iter()
        .map(|update| shard.offer(&rules, update, now));
    let full = decisions.filter(|d| *d == Decision::Full).count();
    assert_eq!((full, shard.pending()), (1, SESSIONS_MAX));
    let decision = shard.offer(&rules, &newer, now);
    assert!(
        matches!(decision, Decision::Queued { .. }),
        "what is pending keeps its place"
    );
}

#[test]
fn a_state_that_outlives_its_qr_goes_to_its_own_path() {
    let rules = rules(r#"{"assume":{"implies":true}}"#);
    let mut now = Now {
        mono_ms: 1,
        wall_ms: 1,
    };
    let destination = Destination {
        prefix: "/api".into(),
        path: "/qr".into(),
        ..<_>::default()
    };
    let head = rules.head_to(0, destination);
    let body = br#"{"session_id":"s","qr":"2@x"}"#;
    let update = rules.update(&head, body).unwrap();
    let mut shard = Shard::default();
    shard.offer(&rules, &update, now);
    now.mono_ms += 60_001;
    assert_eq!(shard.expire(&rules, now), (vec![0], vec![1]));
    let State::Dirty(revived) = &shard.sessions[0].entries[0].state else {
        panic!("`pending` has to be sent by itself");
    };
    let destination = Destination::decode(&revived.destination).unwrap();
    assert_eq!(
        (destination.prefix.as_str(), destination.path.as_str()),
        ("/api", "/whatsapp/status"),
        "where it is posted if it goes alone"
    );
}

/// A host that has just started: its monotonic clock is younger than any value may be.
pub(crate) const BOOT: Now = Now {
    mono_ms: 1_000,
    wall_ms: 1,
};

pub(crate) fn head_of(rules: &Rules, route: &str, caller: &str) -> Head {
    let (route, _) = rules.config.route_named(route).unwrap();
    let destination = Destination {
        headers: Vec::from([("x-api-key".into(), caller.into())]),
        ..Destination::default()
    };
    rules.head_to(route, destination)
}

/// A shard in which one caller's update was delivered, and another's rejected after it.
fn delivered_and_rejected<'a>(
    rules: &'a Rules,
    delivered: &'a Update<'a>,
    rejected: &'a Update<'a>,
) -> Shard<'a> {
    let mut shard = Shard::default();
    let id = ClaimId {
        epoch: 1,
        counter: 1,
    };
    for (update, outcome) in [
        (delivered, Outcome::Delivered),
        (rejected, Outcome::Rejected),
    ] {
        shard.offer(rules, update, BOOT);
        claim_due(&mut shard, rules, update.session, id, BOOT).unwrap();
        shard.settle(rules, update.session, id, outcome, None, BOOT);
    }
    shard
}

#[test]
fn a_value_below_a_rejected_one_is_no_duplicate_even_on_a_host_that_has_just_started() {
    let rules = rules("{}");
    let [a, b] = ["a", "b"].map(|caller| head_of(&rules, "qr", caller));
    let older = rules
        .update(&a, br#"{"session_id":"s","qr":"2@a"}"#)
        .unwrap();
    let newer = rules
        .update(&b, br#"{"session_id":"s","qr":"2@b"}"#)
        .unwrap();
    let mut shard = delivered_and_rejected(&rules, &older, &newer);
    // Whatever Laravel says: after a call of unknown fate it may have what it has rejected now.
    let decision = shard.offer(&rules, &older, BOOT);
    assert!(matches!(decision, Decision::Queued { .. }), "{decision:?}");
}

#[test]
fn a_write_through_that_is_given_back_leaves_the_session_as_it_was() {
    let rules = rules("{}");
    let [a, b] = ["a", "b"].map(|caller| head_of(&rules, "status", caller));
    let active = br#"{"session_id":"s","estado_qr":"active"}"#;
    let inactive = br#"{"session_id":"s","estado_qr":"inactive"}"#;
    let [older, stranger] = [&a, &b].map(|head| rules.update(head, active).unwrap());
    let newer = rules.update(&b, inactive).unwrap();
    let mut shard = delivered_and_rejected(&rules, &older, &newer);
    let session = older.session;
    shard.prune(BOOT.mono_ms);
    let before = shard.session(session).cloned();
    let ask = Ask {
        body: stranger.body,
        number: 9,
        vm: 1,
        is_stranger: false,
        is_seen: false,
        may_send: true,
        may_hold: false,
        refused: &[],
    };
    let Through::Begun {
        seq,
        manner,
        before: was,
        ..
    } = shard.write_through(&rules, &stranger, &ask, BOOT)
    else {
        panic!("nothing is under way");
    };
    let through = WriteThrough::of(&rules, &stranger, &ask, (seq, manner, was), None, BOOT);
    shard
        .settle_through(&rules, &through, Fate::Refused, BOOT)
        .unwrap();
    assert_eq!(shard.session(session), before.as_ref());
}

/// What is unsent of the session `s`, by route and caller, to be changed by hand.
pub(crate) fn unsent<'s, 'a>(
    shard: &'s mut Shard<'a>,
    route: &str,
    caller: u64,
) -> &'s mut Dirty<'a> {
    let entries = shard.sessions[0].entries.iter_mut();
    let state = entries
        .filter(|entry| entry.is(route, caller))
        .map(|entry| &mut entry.state)
        .next();
    match state {
        Some(State::Dirty(dirty)) => dirty,
        other => panic!("{other:?} is not unsent"),
    }
}

#[test]
fn what_threw_alone_waits_by_itself_and_what_follows_it_goes_on_without_it_unless_it_was_lost() {
    let rules = rules("{}");
    let qr = head_of(&rules, "qr", "a");
    let qr = rules
        .update(&qr, br#"{"session_id":"s","qr":"2@a"}"#)
        .unwrap();
    let status = head_of(&rules, "status", "a");
    let status = rules
        .update(&status, br#"{"session_id":"s","estado_qr":"connecting"}"#)
        .unwrap();
    let mut shard = Shard::default();
    shard.offer(&rules, &qr, BOOT);
    shard.offer(&rules, &status, BOOT);
    let may_go = |shard: &Shard<'_>, route: &str, mono_ms: u64| {
        let session = &shard.sessions[0];
        let entry = session.entry(route, status.caller).unwrap();
        session.may_go(entry, &[], mono_ms)
    };
    assert!(may_go(&shard, "qr", 1_000) && !may_go(&shard, "status", 1_000));
    unsent(&mut shard, "qr", qr.caller).trial = Trial {
        alone: true,
        failures: 1,
        not_before_ms: 2_000,
        ..Trial::default()
    };
    assert!(!may_go(&shard, "qr", 1_999) && may_go(&shard, "status", 1_999));
    assert!(may_go(&shard, "status", 2_000) && may_go(&shard, "qr", 2_000));
    // Nobody knows what became of one that was lost: its next try must not come after what it precedes.
    unsent(&mut shard, "qr", qr.caller).trial.lost = true;
    assert!(!may_go(&shard, "status", 2_000) && may_go(&shard, "qr", 2_000));
}

#[test]
fn what_a_refused_caller_has_holds_up_nobody_but_that_caller() {
    let rules = rules("{}");
    let [old, new] = ["old", "new"].map(|caller| head_of(&rules, "qr", caller));
    let older = rules
        .update(&old, br#"{"session_id":"s","qr":"2@a"}"#)
        .unwrap();
    let newer = rules
        .update(&new, br#"{"session_id":"s","qr":"2@b"}"#)
        .unwrap();
    let mut shard = Shard::default();
    shard.offer(&rules, &older, BOOT);
    shard.offer(&rules, &newer, BOOT);
    let session = &shard.sessions[0];
    let entry = session.entry("qr", newer.caller).unwrap();
    assert!(!session.may_go(entry, &[], 1_000), "in its turn");
    assert!(
        session.may_go(entry, &[older.caller], 1_000),
        "the old token was renewed"
    );
}

#[test]
fn a_newer_value_inherits_what_happened_to_the_one_it_supersedes() {
    let rules = rules("{}");
    let head = head_of(&rules, "qr", "a");
    let [first, second] = ["2@a", "2@b"].map(|qr| format!(r#"{{"session_id":"s","qr":"{qr}"}}"#));
    let first = rules.update(&head, first.as_bytes()).unwrap();
    let second = rules.update(&head, second.as_bytes()).unwrap();
    let mut shard = Shard::default();
    shard.offer(&rules, &first, BOOT);
    let trial = Trial {
        alone: true,
        failures: 3,
        not_before_ms: 9_000,
        ..Trial::default()
    };
    let dirty = unsent(&mut shard, "qr", first.caller);
    (dirty.attempts, dirty.trial) = (5, trial);
    shard.offer(&rules, &second, BOOT);
    let dirty = unsent(&mut shard, "qr", first.caller);
    assert_eq!((dirty.attempts, dirty.trial), (5, trial));
}

#[test]
fn a_state_voids_what_its_own_caller_has_queued_and_nobody_elses() {
    let rules = rules("{}");
    let of = |route: &str, caller: &str| head_of(&rules, route, caller);
    let (qr, state, stranger) = (of("qr", "a"), of("status", "a"), of("status", "b"));
    let update = |head, body: &'static [u8]| rules.update(head, body).unwrap();
    let queued = update(&qr, br#"{"session_id":"s","qr":"2@a"}"#);
    let active = br#"{"session_id":"s","estado_qr":"active"}"#;
    let (theirs, own) = (update(&stranger, active), update(&state, active));
    let ended = br#"{"session_id":"s","estado_qr":"inactive"}"#;
    let end = update(&state, ended);
    let mut shard = Shard::default();
    shard.offer(&rules, &queued, BOOT);
    for update in [&theirs, &end] {
        shard.offer(&rules, update, BOOT);
        assert_eq!(
            shard.ledger.voided, 0,
            "another's state, and an end, void nothing"
        );
    }
    shard.offer(&rules, &own, BOOT);
    assert_eq!((shard.ledger.voided, shard.pending()), (1, 2));
    balance(&shard).expect("the ledger balances");
}

#[test]
fn what_follows_one_of_these_values_is_urgent_and_so_is_a_first_one() {
    let rules =
        rules(r#"{"routes":[{"name":"status","priority":[],"priority_after":["active"]}]}"#);
    let (qr, state) = (head_of(&rules, "qr", "a"), head_of(&rules, "status", "a"));
    let said = |word: &str| match word.starts_with("2@") {
        true => (&qr, alloc::format!(r#"{{"session_id":"s","qr":"{word}"}}"#)),
        false => (
            &state,
            alloc::format!(r#"{{"session_id":"s","estado_qr":"{word}"}}"#),
        ),
    };
    // Each is delivered before the next, which comes `quiet_ms` later; but for the last one.
    let is_urgent = |story: &[&str], quiet_ms: u64| {
        let story: Vec<_> = story.iter().map(|word| said(word)).collect();
        let updates: Vec<_> = story
            .iter()
            .map(|(head, body)| rules.update(head, body.as_bytes()).unwrap())
            .collect();
        let mut shard = Shard::default();
        let (mut now, mut counter) = (BOOT, 0);
        for update in &updates {
            if shard.pending() > 0 {
                counter += 1;
                let id = ClaimId { epoch: 1, counter };
                claim_due(&mut shard, &rules, update.session, id, now).unwrap();
                shard.settle(&rules, update.session, id, Outcome::Delivered, None, now);
                now.mono_ms += quiet_ms;
            }
            let decision = shard.offer(&rules, update, now);
            assert!(matches!(decision, Decision::Queued { .. }), "{decision:?}");
        }
        unsent(&mut shard, "status", updates[0].caller).priority
    };
    let week_ms = 7 * 24 * 3_600_000;
    for (story, quiet_ms, wanted) in [
        (&["inactive"][..], 0, true),
        (&["connecting", "inactive"], 0, false),
        (&["connecting", "active"], 0, false),
        (&["active", "inactive"], 0, true),
        (&["active", "2@a", "inactive"], 0, true),
        (&["active", "connecting", "inactive"], 0, false),
        // What is that old has been forgotten when the QR comes.
        (&["active", "2@a", "inactive"], week_ms, true),
    ] {
        let found = is_urgent(story, quiet_ms);
        assert_eq!(found, wanted, "{story:?}, {quiet_ms} ms apart");
    }
}

#[test]
fn a_queued_qr_before_anothers_newer_state_is_no_duplicate() {
    let rules = rules("{}");
    let (qr, active) = (head_of(&rules, "qr", "a"), head_of(&rules, "status", "b"));
    let qr = rules
        .update(&qr, br#"{"session_id":"s","qr":"2@a"}"#)
        .unwrap();
    let active = rules
        .update(&active, br#"{"session_id":"s","estado_qr":"active"}"#)
        .unwrap();
    let mut shard = Shard::default();
    shard.offer(&rules, &qr, BOOT);
    let again = shard.offer(&rules, &qr, BOOT);
    assert_eq!(again, Decision::Duplicate { slid: false });
    shard.offer(&rules, &active, BOOT);
    let again = shard.offer(&rules, &qr, BOOT);
    assert!(
        matches!(again, Decision::Queued { .. }),
        "Laravel would end on active: {again:?}"
    );
    let again = shard.offer(&rules, &qr, BOOT);
    assert_eq!(again, Decision::Duplicate { slid: false }, "now it is last");
}

#[test]
fn a_clock_that_was_set_back_is_news_once_what_it_contradicts_has_grown_old() {
    let rules = rules(r#"{"routes":[{"name":"status","order":["/at"]}]}"#);
    let head = head_of(&rules, "status", "a");
    let update = |body: &'static str| rules.update(&head, body.as_bytes()).unwrap();
    let newest = update(r#"{"session_id":"s","estado_qr":"active","at":1000}"#);
    let back = update(r#"{"session_id":"s","estado_qr":"inactive","at":400}"#);
    let mut shard = Shard::default();
    shard.offer(&rules, &newest, BOOT);
    assert_eq!(shard.offer(&rules, &back, BOOT), Decision::Stale);
    let later = |ms: u64| Now {
        mono_ms: BOOT.mono_ms + ms,
        ..BOOT
    };
    let ttl_ms = rules.config.dedup.ttl_ms;
    assert_eq!(
        shard.offer(&rules, &back, later(ttl_ms - 1)),
        Decision::Stale
    );
    let decision = shard.offer(&rules, &back, later(ttl_ms));
    assert!(matches!(decision, Decision::Queued { .. }), "{decision:?}");
}

#[test]
fn a_worker_whose_clock_is_read_a_little_earlier_takes_no_place_away() {
    let rules = rules("{}");
    let head = head_of(&rules, "qr", "a");
    let update = rules
        .update(&head, br#"{"session_id":"s","qr":"2@a"}"#)
        .unwrap();
    let mut shard = Shard::default();
    let ask = Ask {
        may_send: false,
        ..ask(1)
    };
    let through = shard.write_through(&rules, &update, &ask, BOOT);
    assert!(matches!(through, Through::Held { .. }), "{through:?}");
    let earlier_ms = BOOT.mono_ms - 1;
    shard.prune(earlier_ms);
    let session = shard.session(update.session).expect("it is known");
    let until_ms = session.held_up_until(update.caller, u64::MAX, earlier_ms);
    assert_eq!(session.held.len(), 1);
    assert!(until_ms.is_some(), "and it holds up who comes after it");
}

pub(crate) fn ask(number: u64) -> Ask<'static> {
    Ask {
        body: b"{}",
        number,
        vm: 1,
        is_stranger: false,
        is_seen: false,
        may_send: true,
        may_hold: true,
        refused: &[],
    }
}
