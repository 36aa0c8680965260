//! What is kept of Laravel's answers, and what of them is served and believed.

use alloc::format;
use alloc::string::ToString;

use super::*;
use crate::headers::borrowed;
use crate::route::tests::rules;
use crate::shard::{ClaimId, Outcome, State, Wanted};
use crate::store::MemoryStore;

/// A worker in front of one Laravel.
struct World {
    rules: Rules,
    store: MemoryStore,
    keys: Keys,
    proofs: Proofs,
    now: Now,
    claims: u64,
}

/// What a read was answered with, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Cached(String),
    Stale(String),
    /// Laravel's answer, as the reader has it.
    Fresh(String),
}

impl World {
    fn new(json: &str) -> Self {
        Self {
            rules: rules(json),
            store: MemoryStore::default(),
            keys: Keys::new("p"),
            proofs: Proofs::default(),
            now: Now {
                mono_ms: 1_000_000,
                wall_ms: 1_000_000,
            },
            claims: 0,
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
    }

    fn asked(&self, session: &str, more: &[(&str, &str)]) -> Option<Asked> {
        let path = format!("/api/whatsapp/status/{session}");
        let mut headers = Vec::from([
            (":method".to_string(), b"GET".to_vec()),
            (":path".to_string(), path.into_bytes()),
            (":authority".to_string(), b"laravel.test".to_vec()),
            ("accept".to_string(), b"application/json".to_vec()),
        ]);
        for (name, value) in more {
            headers.retain(|(known, _)| known != name || *name == "origin");
            headers.push((name.to_string(), value.as_bytes().to_vec()));
        }
        self.rules.asked(borrowed(&headers))
    }

    fn stored(&self, session: u128) -> (String, Option<(Vec<u8>, crate::store::Token)>) {
        let key = self.keys.shard(self.rules.shard_of(session));
        let stored = self.store.get(&key);
        (key, stored)
    }

    /// Posts a state; unsent.
    fn posts(&mut self, session: &str, state: &str) {
        self.offers(session, ("/api/whatsapp/status", "estado_qr", state));
    }

    /// Posts a QR; unsent.
    fn posts_qr(&mut self, session: &str, qr: &str) {
        self.offers(session, ("/api/qr", "qr", qr));
    }

    /// A QR and its `pending`, as the gateway posts them; both are delivered.
    fn shows_qr(&mut self, session: &str, qr: &str) {
        self.posts_qr(session, qr);
        self.posts(session, "pending");
        self.delivers(session);
    }

    fn offers(&mut self, session: &str, what: (&str, &str, &str)) {
        self.offers_as(session, what, &[]);
    }

    fn offers_as(
        &mut self,
        session: &str,
        (path, member, value): (&str, &str, &str),
        more: &[(&str, &str)],
    ) {
        let headers = [
            (":method", "POST"),
            (":path", path),
            (":authority", "laravel.test"),
            ("content-type", "application/json"),
        ];
        let headers: Vec<_> = headers
            .iter()
            .chain(more)
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect();
        let body = format!(r#"{{"session_id":"{session}","{member}":"{value}"}}"#);
        let head = self.rules.head(borrowed(&headers)).unwrap();
        let update = self.rules.update(&head, body.as_bytes()).unwrap();
        let (key, stored) = self.stored(update.session);
        let bytes = stored.as_ref().map_or(&[][..], |(bytes, _)| bytes);
        let mut shard = Shard::decode(bytes).unwrap();
        let _ = shard.offer(&self.rules, &update, self.now);
        let encoded = shard.encode();
        let expect = Expect::of(stored.as_ref());
        self.store.put(&key, &encoded, expect).unwrap();
    }

    /// Whatever is unsent is delivered, in order.
    fn delivers(&mut self, session: &str) {
        assert!(self.delivers_one(session), "nothing is unsent");
        while self.delivers_one(session) {}
    }

    /// The oldest that is unsent is delivered, if there is one.
    fn delivers_one(&mut self, session: &str) -> bool {
        let id = self.asked(session, &[]).unwrap().session;
        let (key, stored) = self.stored(id);
        let bytes = stored.as_ref().map_or(&[][..], |(bytes, _)| bytes);
        let mut shard = Shard::decode(bytes).unwrap();
        let unsent = shard.session(id).unwrap().entries.iter();
        let unsent = unsent.filter_map(|entry| match &entry.state {
            State::Dirty(dirty) => Some((entry, dirty)),
            _ => None,
        });
        let Some((entry, dirty)) = unsent.min_by_key(|(entry, _)| entry.seq) else {
            return false;
        };
        let (route, caller) = (entry.route.to_string(), entry.caller);
        let destination = dirty.destination.to_vec();
        let wanted = Wanted {
            route: &route,
            caller,
            seq: 0,
            destination: &destination,
            bytes_max: usize::MAX,
            refused: &[],
        };
        self.claims += 1;
        let claim = ClaimId {
            epoch: 1,
            counter: self.claims,
        };
        let (rules, now) = (&self.rules, self.now);
        shard.claim(rules, id, &wanted, claim, now).unwrap();
        shard.settle(rules, id, claim, Outcome::Delivered, None, now);
        let encoded = shard.encode();
        let expect = Expect::of(stored.as_ref());
        self.store.put(&key, &encoded, expect).unwrap();
        true
    }

    /// Answers that are kept in the shard of a session, of all its sessions.
    fn kept(&self, session: &str) -> usize {
        let id = self.asked(session, &[]).unwrap().session;
        let (_, stored) = self.stored(id);
        let (bytes, _) = stored.unwrap();
        assert!(bytes.len() <= SHARD_BYTES_MAX + 16_000, "{}", bytes.len());
        let shard = Shard::decode(&bytes).unwrap();
        shard
            .sessions
            .iter()
            .map(|session| session.kept.len())
            .sum()
    }

    /// A read, and what Laravel says where it is asked.
    fn reads_as(&mut self, session: &str, more: &[(&str, &str)], laravel: &str) -> Got {
        let asked = self.asked(session, more).expect("it is a read");
        self.read(asked, laravel, 20, true, false).0
    }

    fn reads(&mut self, session: &str, laravel: &str) -> Got {
        self.reads_as(session, &[], laravel)
    }

    fn read(
        &mut self,
        asked: Asked,
        laravel: &str,
        took_ms: u64,
        may_keep: bool,
        is_down: bool,
    ) -> (Got, Option<String>) {
        let text = |given: Given| String::from_utf8(given.body).unwrap();
        let (store, keys, rules) = (&mut self.store, &self.keys, &self.rules);
        let proofs = &mut self.proofs;
        match look(store, keys, rules, proofs, asked, is_down, self.now) {
            Found::Cached(given) => (Got::Cached(text(given)), None),
            Found::Stale(given) => (Got::Stale(text(given)), None),
            Found::Ask(fetch) => {
                self.now.mono_ms += took_ms;
                let fresh = Fresh {
                    body: laravel.as_bytes(),
                    headers: b"",
                    may_keep,
                };
                let answered = answered(store, keys, rules, proofs, &fetch, &fresh, self.now);
                let body = answered.patched.unwrap_or_else(|| laravel.into());
                (
                    Got::Fresh(String::from_utf8(body).unwrap()),
                    answered.disproved,
                )
            }
        }
    }

    /// How many pairs of states are proven, unproven and disproved.
    fn beliefs(&mut self) -> [u64; 3] {
        let counts = self.proofs.count(&self.store, &self.keys);
        [counts.reads, counts.reads_unproven, counts.reads_disproved]
    }

    /// A session that has gone from `before` to `state`, each read after it was delivered.
    fn goes(&mut self, session: &str, before: &str, state: &str, shows: impl Fn(&str) -> String) {
        for state in [before, state] {
            self.posts(session, state);
            self.wait(1_000);
            self.delivers(session);
            let said = shows(state);
            assert_eq!(
                self.reads(session, &said),
                Got::Fresh(said),
                "{session} {state}"
            );
        }
    }
}

fn plain(state: &str) -> String {
    format!(r#"{{"estado_qr":"{state}"}}"#)
}

/// As the project's own Laravel.
fn twice(state: &str) -> String {
    format!(r#"{{"estado_qr":"{state}","status":"{state}"}}"#)
}

fn patched(body: &str, follows: Follows) -> Option<String> {
    let rules = rules("{}");
    let places = places(body.as_bytes(), &rules.config.reads[0].value)?;
    String::from_utf8(patch(body.as_bytes(), &places, "pen\"ding", follows)?).ok()
}

#[test]
fn the_state_is_replaced_in_one_place_and_nothing_else_is() {
    for (body, one) in [
        (
            r#"{ "estado_qr" : "active","x":[1.50],"status":"active"}"#,
            Some(r#"{ "estado_qr" : "pen\"ding","x":[1.50],"status":"active"}"#),
        ),
        (
            r#"{"status":"ok","estado_qr":"active"}"#,
            Some(r#"{"status":"ok","estado_qr":"pen\"ding"}"#),
        ),
        (
            r#"{"data":{"estado_qr":"active"}}"#,
            Some(r#"{"data":{"estado_qr":"pen\"ding"}}"#),
        ),
        (
            r#"{"status":"success","data":{"estado":"active"}}"#,
            Some(r#"{"status":"success","data":{"estado":"pen\"ding"}}"#),
        ),
        (
            r#"{"estado_qr":null,"status":null}"#,
            Some(r#"{"estado_qr":"pen\"ding","status":null}"#),
        ),
        (r#"{"estado_qr":1,"status":"active"}"#, None),
        ("[]", None),
        ("<html>", None),
    ] {
        assert_eq!(patched(body, Follows::One).as_deref(), one, "{body}");
    }
    assert_eq!(
        patched(r#"{"status":"active","estado_qr":"active"}"#, Follows::All).unwrap(),
        r#"{"status":"pen\"ding","estado_qr":"pen\"ding"}"#
    );
}

#[test]
fn a_state_is_served_once_three_fresh_answers_were_what_the_one_before_would_have_been() {
    for shows in [plain, twice] {
        let mut world = World::new("{}");
        for session in ["a", "b", "c"] {
            world.goes(session, "connecting", "pending", shows);
        }
        // The first three have proven `pending`; `connecting` was never compared.
        assert_eq!(world.beliefs(), [1, 0, 0]);
        world.posts("a", "connecting");
        world.delivers("a");
        let said = shows("connecting");
        assert_eq!(world.reads("a", &said), Got::Fresh(said));
        world.posts("a", "pending");
        let said = shows("pending");
        assert_eq!(
            world.reads("a", "not asked"),
            Got::Cached(said.clone()),
            "unsent"
        );
        world.delivers("a");
        assert_eq!(
            world.reads("a", "not asked"),
            Got::Cached(said),
            "delivered"
        );
    }
}

#[test]
fn what_changes_beside_the_state_is_laravels_own_word_for_ten_minutes() {
    let with_qr = |qr: u32| format!(r#"{{"estado_qr":"pending","qr":"2@{qr}"}}"#);
    let mut world = World::new("{}");
    let mut named = Vec::new();
    for (session, qr) in ["a", "b", "c", "d"].into_iter().zip(1..) {
        world.posts(session, "connecting");
        world.delivers(session);
        world.reads(session, &plain("connecting"));
        world.posts(session, "pending");
        world.delivers(session);
        let said = with_qr(qr);
        let asked = world.asked(session, &[]).unwrap();
        let (got, disproved) = world.read(asked, &said, 20, true, false);
        assert_eq!(got, Got::Fresh(said));
        named.extend(disproved);
    }
    assert_eq!(named, ["qr"], "the first tells what it is, and no other");
    assert_eq!(world.beliefs(), [0, 0, 1]);
    for _ in 0..20 {
        world.wait(29_000);
        world.posts("a", "connecting");
        world.posts("a", "pending");
        assert!(matches!(world.reads("a", &with_qr(9)), Got::Fresh(_)));
        world.delivers("a");
    }
}

#[test]
fn answers_between_which_nothing_arrived_prove_nothing() {
    let with_qr = |qr: &str| format!(r#"{{"estado_qr":"pending","qr":"{qr}"}}"#);
    let mut world = World::new("{}");
    world.posts("a", "pending");
    world.delivers("a");
    // A dashboard polls.
    for _ in 0..10 {
        assert_eq!(world.reads("a", &with_qr("-")), Got::Fresh(with_qr("-")));
    }
    world.shows_qr("a", "2@a");
    assert_eq!(
        world.reads("a", &with_qr("2@a")),
        Got::Fresh(with_qr("2@a"))
    );
}

#[test]
fn what_a_state_leaves_as_it_was_a_qr_may_change() {
    let with_qr = |state: &str, qr: &str| format!(r#"{{"estado_qr":"{state}","qr":"{qr}"}}"#);
    let mut world = World::new("{}");
    for session in ["a", "b", "c"] {
        world.goes(session, "inactive", "pending", |state| with_qr(state, "-"));
    }
    // By itself it is believed.
    let goes_down = |world: &mut World| {
        world.posts("d", "inactive");
        world.delivers("d");
        world.reads("d", &with_qr("inactive", "-"));
    };
    goes_down(&mut world);
    world.posts("d", "pending");
    world.delivers("d");
    assert_eq!(world.reads("d", ""), Got::Cached(with_qr("pending", "-")));
    goes_down(&mut world);
    world.shows_qr("d", "2@d");
    let said = with_qr("pending", "2@d");
    assert_eq!(world.reads("d", &said), Got::Fresh(said));
}

#[test]
fn what_a_qr_leaves_as_it_was_is_believed_after_three_of_them() {
    let mut world = World::new("{}");
    let mut rounds = Vec::new();
    world.posts("a", "pending");
    world.delivers("a");
    for qr in ["2@a", "2@b", "2@c", "2@d", "2@e"] {
        rounds.push(world.reads("a", &twice("pending")));
        world.shows_qr("a", qr);
        world.wait(5_000);
    }
    rounds.push(world.reads("a", &twice("pending")));
    let is_fresh = |got: &Got| matches!(got, Got::Fresh(_));
    let fresh = rounds.iter().filter(|got| is_fresh(got)).count();
    assert_eq!(fresh, 4, "{rounds:?}");
    // Nor does it matter whether Laravel was late with the last of them.
    world.posts("b", "pending");
    world.delivers("b");
    let said = twice("pending");
    assert_eq!(world.reads("b", &said), Got::Fresh(said.clone()));
    assert_eq!(world.reads("b", ""), Got::Cached(said));
}

#[test]
fn a_state_that_is_said_again_after_all_was_settled_is_from_after_everything() {
    for implies in [false, true] {
        let json = format!(r#"{{"assume":{{"callers":true,"implies":{implies}}}}}"#);
        let mut world = World::new(&json);
        world.shows_qr("a", "2@1");
        // The first QR lives for a minute.
        world.wait(60_000);
        world.shows_qr("a", "2@2");
        let stopped = plain("inactive");
        assert_eq!(world.reads("a", &stopped), Got::Fresh(stopped), "{implies}");
    }
}

#[test]
fn a_state_that_voids_a_qr_does_not_hide_that_there_was_one() {
    let mut world = World::new("{}");
    for session in ["a", "b", "c"] {
        world.goes(session, "connecting", "active", plain);
    }
    world.posts("d", "connecting");
    world.delivers("d");
    let with_qr = |state: &str, qr: &str| format!(r#"{{"estado_qr":"{state}","qr":"{qr}"}}"#);
    world.reads("d", &with_qr("connecting", "1"));
    for qr in ["2@2", "2@3"] {
        world.posts_qr("d", qr);
        if qr == "2@2" {
            world.delivers("d");
        }
        world.posts("d", "active");
        world.delivers("d");
        let said = with_qr("active", "2");
        assert_eq!(world.reads("d", &said), Got::Fresh(said));
        world.posts("d", "connecting");
        world.delivers("d");
        world.reads("d", &with_qr("connecting", "2"));
    }
}

#[test]
fn a_state_that_is_said_again_hides_nothing_that_others_have_done() {
    let mut world = World::new("{}");
    world.goes("a", "inactive", "pending", plain);
    for qr in ["2@a", "2@b", "2@c"] {
        world.wait(20_000);
        world.shows_qr("a", qr);
    }
    // A panel's *stop*: the state from before the first `pending`, which was a minute ago.
    assert_eq!(
        world.reads("a", &plain("inactive")),
        Got::Fresh(plain("inactive"))
    );
}

#[test]
fn what_was_believed_ends_with_the_first_answer_that_differs_and_says_what_differed() {
    let mut world = World::new("{}");
    for session in ["a", "b", "c"] {
        world.goes(session, "connecting", "active", plain);
    }
    world.posts("d", "connecting");
    world.delivers("d");
    world.reads("d", &plain("connecting"));
    world.posts("d", "active");
    world.delivers("d");
    assert!(matches!(world.reads("d", ""), Got::Cached(_)));
    world.wait(16_000);
    let asked = world.asked("d", &[]).unwrap();
    let said = r#"{"estado_qr":"active","phone":"55"}"#;
    let (got, disproved) = world.read(asked, said, 20, true, false);
    assert_eq!(
        got,
        Got::Fresh(said.into()),
        "one in fifteen seconds is compared"
    );
    assert_eq!(disproved.as_deref(), Some("phone"));
    world.posts("a", "connecting");
    world.delivers("a");
    assert!(matches!(
        world.reads("a", &plain("connecting")),
        Got::Fresh(_)
    ));
    world.posts("a", "active");
    assert!(matches!(world.reads("a", &plain("active")), Got::Fresh(_)));
}

#[test]
fn who_could_compare_nothing_takes_nobodys_turn_to_ask() {
    let mut world = World::new("{}");
    for session in ["a", "b", "c"] {
        world.goes(session, "connecting", "active", plain);
    }
    for session in ["d", "e"] {
        world.posts(session, "connecting");
        world.delivers(session);
        world.reads(session, &plain("connecting"));
        world.posts(session, "active");
    }
    world.delivers("e");
    assert!(matches!(world.reads("e", ""), Got::Cached(_)));
    world.wait(16_000);
    // Laravel shows what was before: that says nothing.
    assert_eq!(world.reads("d", ""), Got::Cached(plain("active")));
    world.delivers("d");
    assert_eq!(
        world.reads("d", &plain("active")),
        Got::Fresh(plain("active"))
    );
}

#[test]
fn what_was_seen_from_one_state_says_nothing_of_another() {
    let with_phone = |state: &str| match state {
        "active" => r#"{"estado_qr":"active","phone":"55"}"#.into(),
        _ => plain(state),
    };
    let mut world = World::new("{}");
    for session in ["a", "b", "c"] {
        world.goes(session, "connecting", "pending", with_phone);
    }
    world.posts("d", "active");
    world.delivers("d");
    world.reads("d", &with_phone("active"));
    world.posts("d", "pending");
    assert_eq!(
        world.reads("d", &plain("active")),
        Got::Fresh(plain("pending"))
    );
    world.delivers("d");
    assert_eq!(
        world.reads("d", &plain("pending")),
        Got::Fresh(plain("pending"))
    );
}

#[test]
fn what_laravel_has_said_since_all_was_settled_needs_no_belief() {
    let mut world = World::new("{}");
    let said = r#"{"estado_qr":"active","phone":"55"}"#;
    world.posts("a", "active");
    world.delivers("a");
    for _ in 0..3 {
        world.wait(10_100);
        assert_eq!(world.reads("a", said), Got::Fresh(said.into()));
    }
    assert_eq!(world.reads("a", ""), Got::Cached(said.into()));
    // A panel's word is shown by the next fresh answer.
    world.wait(1_900_000);
    assert_eq!(
        world.reads("a", &plain("stopped")),
        Got::Fresh(plain("stopped"))
    );
}

#[test]
fn what_was_kept_before_all_was_settled_is_asked_for_once_more_after_that() {
    let mut world = World::new("{}");
    let with_qr = |qr: u32| format!(r#"{{"estado_qr":"pending","qr":"2@{qr}"}}"#);
    world.posts("a", "pending");
    world.delivers("a");
    // The QR that was posted with it is not there yet.
    let early = with_qr(1);
    for _ in 0..4 {
        world.wait(100);
        assert_eq!(world.reads("a", &early), Got::Fresh(early.clone()));
    }
    world.wait(31_000);
    let said = with_qr(2);
    assert_eq!(world.reads("a", &said), Got::Fresh(said.clone()));
    assert_eq!(world.reads("a", "not asked"), Got::Cached(said));
}

#[test]
fn what_shows_the_newest_state_is_not_asked_for_once_more_where_it_is_believed() {
    let mut world = World::new("{}");
    for qr in ["2@1", "2@2", "2@3", "2@4"] {
        world.shows_qr("a", qr);
        world.reads("a", &plain("pending"));
    }
    world.posts("b", "pending");
    world.delivers("b");
    world.reads("b", &plain("pending"));
    world.wait(31_000);
    assert_eq!(world.reads("b", ""), Got::Cached(plain("pending")));
}

#[test]
fn a_qr_that_was_delivered_late_has_its_time_to_be_applied() {
    let mut world = World::new("{}");
    world.posts("a", "active");
    world.delivers("a");
    world.posts_qr("a", "2@1");
    world.wait(31_000);
    world.delivers("a");
    let early = plain("active");
    assert_eq!(world.reads("a", &early), Got::Fresh(early));
    // It may set a state, and has not had the time.
    let set = plain("pending");
    assert_eq!(world.reads("a", &set), Got::Fresh(set));
}

#[test]
fn a_state_that_a_qr_may_have_set_is_older_than_the_one_after_it() {
    let mut world = World::new("{}");
    world.goes("a", "inactive", "active", plain);
    world.posts_qr("a", "2@1");
    world.delivers("a");
    world.posts("a", "connecting");
    world.delivers("a");
    let set = plain("pending");
    assert_eq!(world.reads("a", &set), Got::Fresh(plain("connecting")));
}

#[test]
fn a_laravel_that_is_late_shows_nothing_older_than_what_it_has_accepted() {
    let mut world = World::new("{}");
    // Nobody knows what was there first: whatever it says may be from before.
    world.posts("a", "pending");
    world.delivers("a");
    let stopped = plain("stopped");
    assert_eq!(world.reads("a", &stopped), Got::Fresh(plain("pending")));
    world.wait(31_000);
    world.posts("a", "connecting");
    world.delivers("a");
    world.posts("a", "active");
    world.delivers("a");
    for older in ["pending", "connecting"] {
        assert_eq!(world.reads("a", &plain(older)), Got::Fresh(plain("active")));
    }
    let null = r#"{"estado_qr":null}"#;
    assert_eq!(world.reads("a", null), Got::Fresh(plain("active")));
    // Anything else is its own word.
    assert_eq!(
        world.reads("a", &plain("stopped")),
        Got::Fresh(plain("stopped"))
    );
    world.wait(31_000);
    assert_eq!(
        world.reads("a", &plain("pending")),
        Got::Fresh(plain("pending"))
    );
}

#[test]
fn a_qr_makes_no_late_answer_the_truth_but_of_the_state_that_it_may_have_set() {
    let mut world = World::new("{}");
    world.goes("a", "pending", "connecting", plain);
    world.posts("a", "active");
    world.delivers("a");
    world.posts_qr("a", "2@1");
    world.delivers("a");
    let older = plain("connecting");
    assert_eq!(world.reads("a", &older), Got::Fresh(plain("active")));
    let set = plain("pending");
    assert_eq!(world.reads("a", &set), Got::Fresh(set));
}

#[test]
fn a_state_that_is_delivered_long_after_its_qr_has_its_own_time_to_be_applied() {
    let mut world = World::new(r#"{"assume":{"implies":true}}"#);
    world.posts_qr("a", "2@1");
    world.delivers("a");
    world.wait(31_000);
    world.posts_qr("a", "2@2");
    world.posts("a", "connecting");
    for _ in 0..2 {
        world.wait(20_000);
        assert!(world.delivers_one("a"));
    }
    world.wait(20_000);
    let set = plain("pending");
    assert_eq!(world.reads("a", &set), Got::Fresh(plain("connecting")));
    world.wait(11_000);
    assert_eq!(world.reads("a", &set), Got::Fresh(set));
}

#[test]
fn a_state_that_is_said_again_after_a_qr_has_its_time_to_be_applied() {
    let mut world = World::new("{}");
    world.posts("a", "connecting");
    world.delivers("a");
    world.wait(20_000);
    world.posts_qr("a", "2@1");
    world.delivers("a");
    world.posts("a", "connecting");
    world.delivers("a");
    world.wait(20_000);
    let set = plain("pending");
    assert_eq!(world.reads("a", &set), Got::Fresh(plain("connecting")));
    world.wait(11_000);
    assert_eq!(world.reads("a", &set), Got::Fresh(set));
}

#[test]
fn what_another_caller_has_set_is_from_before_a_state_that_is_said_again() {
    let as_two = [("authorization", "Bearer two")];
    for implies in [false, true] {
        let json = format!(r#"{{"assume":{{"callers":true,"implies":{implies}}}}}"#);
        let mut world = World::new(&json);
        world.offers_as(
            "a",
            ("/api/whatsapp/status", "estado_qr", "pending"),
            &as_two,
        );
        world.delivers("a");
        world.posts("a", "active");
        world.delivers("a");
        match implies {
            true => world.offers_as("a", ("/api/qr", "qr", "2@1"), &as_two),
            false => {
                world.offers_as(
                    "a",
                    ("/api/whatsapp/status", "estado_qr", "pending"),
                    &as_two,
                );
            }
        }
        world.delivers("a");
        let late = plain("active");
        assert_eq!(
            world.reads_as("a", &as_two, &late),
            Got::Fresh(plain("pending"))
        );
        // It is not what the other has said last, nor is it to be kept.
        assert_eq!(world.reads("a", &late), Got::Fresh(late.clone()));
        let stale = world.asked("a", &[]).unwrap();
        let (got, _) = world.read(stale, &late, 20, true, true);
        assert_eq!(got, Got::Fresh(late), "nothing is kept");
    }
}

#[test]
fn a_state_has_its_time_to_be_applied_though_another_callers_was_delivered_before_it() {
    let as_two = [("authorization", "Bearer two")];
    let mut world = World::new(r#"{"assume":{"callers":true}}"#);
    world.posts("a", "pending");
    world.delivers("a");
    world.wait(10_000);
    let status = ("/api/whatsapp/status", "estado_qr", "connecting");
    world.offers_as("a", status, &as_two);
    world.posts("a", "active");
    // The other's first, and the own one long after it.
    assert!(world.delivers_one("a"));
    world.wait(31_000);
    assert!(world.delivers_one("a"));
    world.wait(20_000);
    let late = plain("pending");
    assert_eq!(world.reads("a", &late), Got::Fresh(plain("active")));
    world.wait(11_000);
    assert_eq!(world.reads("a", &late), Got::Fresh(late));
}

#[test]
fn what_holds_where_nothing_came_between_is_not_believed_where_a_qr_did() {
    let with_qr = |state: &str, qr: u32| format!(r#"{{"estado_qr":"{state}","qr":"2@{qr}"}}"#);
    let mut world = World::new("{}");
    // Seen with one QR the whole time.
    let shows = |world: &mut World, session, state| {
        world.posts(session, state);
        world.delivers(session);
        let said = with_qr(state, 1);
        assert_eq!(world.reads(session, &said), Got::Fresh(said));
    };
    for session in ["a", "b", "c"] {
        shows(&mut world, session, "pending");
        shows(&mut world, session, "connecting");
    }
    shows(&mut world, "a", "pending");
    world.posts("a", "connecting");
    let said = Got::Cached(with_qr("connecting", 1));
    assert_eq!(world.reads("a", "not asked"), said, "it is believed");
    shows(&mut world, "b", "pending");
    // The QR is delivered before the state, so that it makes nothing of what is kept doubtful.
    world.posts_qr("b", "2@2");
    world.posts("b", "connecting");
    world.delivers("b");
    let said = with_qr("connecting", 2);
    assert_eq!(world.reads("b", &said), Got::Fresh(said));
}

#[test]
fn a_state_that_nothing_is_known_before_is_not_followed_by_an_older_one() {
    let mut world = World::new("{}");
    world.posts("a", "active");
    world.delivers("a");
    assert_eq!(
        world.reads("a", &plain("inactive")),
        Got::Fresh(plain("active"))
    );
    world.wait(31_000);
    assert_eq!(
        world.reads("a", &plain("inactive")),
        Got::Fresh(plain("inactive"))
    );
}

#[test]
fn only_what_may_be_said_again_is_kept() {
    let long = format!(
        r#"{{"estado_qr":"active","x":"{}"}}"#,
        "x".repeat(BODY_BYTES_MAX)
    );
    for (why, said, took_ms, may_keep) in [
        (
            "a failure",
            r#"{"success":false,"message":"Session not found"}"#,
            20,
            true,
        ),
        (
            "a failure with a state",
            r#"{"success":false,"estado_qr":"active"}"#,
            20,
            true,
        ),
        ("null", r#"{"estado_qr":null}"#, 20, true),
        ("no state", r#"{"ok":true}"#, 20, true),
        ("a long poll", r#"{"estado_qr":"active"}"#, 1_001, true),
        ("its headers", r#"{"estado_qr":"active"}"#, 20, false),
        ("its length", &long, 20, true),
    ] {
        let mut world = World::new("{}");
        world.posts("a", "active");
        world.delivers("a");
        world.wait(60_000);
        let asked = world.asked("a", &[]).unwrap();
        world.read(asked.clone(), said, took_ms, may_keep, false);
        let (again, _) = world.read(asked, said, 20, true, true);
        assert!(matches!(again, Got::Fresh(_)), "{why}: {again:?}");
    }
}

#[test]
fn of_a_session_that_nothing_was_posted_of_nothing_is_kept() {
    let mut world = World::new("{}");
    for session in ["all", "health"] {
        for _ in 0..3 {
            let said = r#"{"status":"ok"}"#;
            assert_eq!(world.reads(session, said), Got::Fresh(said.into()));
        }
    }
}

#[test]
fn another_reader_has_another_answer() {
    let mut world = World::new("{}");
    world.posts("a", "active");
    world.delivers("a");
    world.wait(60_000);
    assert!(matches!(world.reads("a", &plain("active")), Got::Fresh(_)));
    for more in [
        ("accept-language", "pt"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("origin", "https://panel.test"),
        ("sec-fetch-mode", "cors"),
    ] {
        let got = world.reads_as("a", &[more], &plain("theirs"));
        assert_eq!(got, Got::Fresh(plain("theirs")), "{more:?}");
    }
    for more in [
        ("user-agent", "x"),
        ("x-request-id", "1"),
        ("traceparent", "2"),
    ] {
        let mut world = World::new("{}");
        world.posts("a", "active");
        world.delivers("a");
        world.wait(60_000);
        world.reads("a", &plain("active"));
        let got = world.reads_as("a", &[more], "");
        assert_eq!(got, Got::Cached(plain("active")), "{more:?}");
    }
    // Two of them are answered by Laravel, whatever it makes of that.
    let asked = world.asked(
        "a",
        &[("origin", "https://a.test"), ("origin", "https://b.test")],
    );
    assert!(!asked.unwrap().may_keep);
}

#[test]
fn a_query_shows_what_was_acknowledged_and_is_kept_for_nobody() {
    let mut world = World::new("{}");
    world.goes("a", "pending", "connecting", plain);
    world.posts("a", "active");
    for _ in 0..2 {
        let got = world.reads("a?_=1", &plain("connecting"));
        assert_eq!(got, Got::Fresh(plain("active")));
    }
}

#[test]
fn while_laravel_is_down_the_kept_answer_serves_whatever_is_believed() {
    let mut world = World::new("{}");
    world.goes("a", "pending", "connecting", plain);
    world.posts("a", "active");
    let asked = world.asked("a", &[]).unwrap();
    let (got, _) = world.read(asked, "", 20, true, true);
    assert_eq!(got, Got::Stale(plain("active")));
}

#[test]
fn where_reads_are_assumed_a_kept_answer_serves_at_once() {
    let mut world = World::new(r#"{"assume":{"reads":true}}"#);
    world.posts("a", "connecting");
    world.delivers("a");
    world.reads("a", &plain("connecting"));
    world.posts("a", "active");
    assert_eq!(world.reads("a", ""), Got::Cached(plain("active")));
}

#[test]
fn where_reads_are_assumed_one_answer_tells_whether_another_member_follows() {
    let mut world = World::new(r#"{"assume":{"reads":true}}"#);
    for session in ["a", "b"] {
        world.posts(session, "connecting");
        world.delivers(session);
        world.reads(session, &twice("connecting"));
        world.posts(session, "active");
        world.delivers(session);
    }
    let active = twice("active");
    assert_eq!(world.reads("a", &active), Got::Fresh(active.clone()));
    assert_eq!(world.reads("b", ""), Got::Cached(active));
}

#[test]
fn answers_under_many_credentials_leave_half_of_the_shard_to_the_updates() {
    let mut world = World::new("{}");
    let body = format!(
        r#"{{"estado_qr":"active","x":"{}"}}"#,
        "x".repeat(BODY_BYTES_MAX - 30)
    );
    assert!(body.len() <= BODY_BYTES_MAX);
    // In one shard, by its number.
    let shard = world
        .rules
        .shard_of(world.asked("s0", &[]).unwrap().session);
    let names = (0..).map(|n| format!("s{n}")).filter(|name| {
        let asked = world.asked(name, &[]).unwrap();
        world.rules.shard_of(asked.session) == shard
    });
    let names: Vec<String> = names.take(30).collect();
    let mut kept = 0;
    for name in names {
        world.posts(&name, "active");
        for n in 0..6 {
            let token = format!("Bearer {n}");
            for _ in 0..2 {
                let asked = world.asked(&name, &[("authorization", &token)]).unwrap();
                world.read(asked, &body, 1, true, false);
            }
        }
        kept = world.kept(&name);
    }
    let fits = SHARD_BYTES_MAX / (body.len() + 200);
    assert!(
        (fits - 4..=fits).contains(&kept),
        "as many as fit: {kept} of {fits}"
    );
}

#[test]
fn a_caller_that_comes_once_takes_nobodys_room() {
    let mut world = World::new("{}");
    world.posts("a", "active");
    world.delivers("a");
    world.wait(60_000);
    for n in 0..20 {
        let token = format!("Bearer {n}");
        let more = [("authorization", &*token)];
        world.reads_as("a", &more, &plain("active"));
    }
    assert_eq!(world.kept("a"), 0);
}

#[test]
fn a_state_that_was_implied_is_newer_than_none() {
    let mut world = World::new(r#"{"assume":{"implies":true}}"#);
    world.posts_qr("a", "2@1");
    world.delivers("a");
    let null = r#"{"estado_qr":null}"#;
    assert_eq!(world.reads("a", null), Got::Fresh(plain("pending")));
}
