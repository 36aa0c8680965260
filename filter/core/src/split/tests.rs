//! Batches of a gateway's own: what is queued of them, and what goes by.

use alloc::format;
use alloc::string::String;

use super::*;
use crate::headers::borrowed;
use crate::route::tests::rules;
use crate::shard::tests::claim_due;
use crate::shard::{Settled, balance};
use crate::store::{MemoryStore, Token};

const NOW: Now = Now {
    mono_ms: 1_000,
    wall_ms: 5_000,
};

/// A store that refuses or loses writes.
#[derive(Default)]
struct Odd {
    inner: MemoryStore,
    puts: usize,
    /// The put of this number is refused.
    refused: Option<usize>,
    /// The put of this number loses its race.
    lost: Option<usize>,
}

impl Store for Odd {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Token)> {
        self.inner.get(key)
    }

    fn put(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), PutError> {
        self.puts += 1;
        if self.refused == Some(self.puts) {
            return Err(PutError::Refused);
        }
        if self.lost == Some(self.puts) {
            return Err(PutError::Mismatch);
        }
        self.inner.put(key, value, expect)
    }
}

struct World {
    rules: Rules,
    keys: Keys,
    store: Odd,
    proofs: Proofs,
}

impl World {
    fn new() -> Self {
        Self::with("{}")
    }

    fn with(configuration: &str) -> Self {
        Self {
            rules: rules(configuration),
            keys: Keys::new("p"),
            store: Odd::default(),
            proofs: Proofs::default(),
        }
    }

    fn head(&self, path: &str, more: &[(&str, &str)]) -> BatchHead {
        let base = [
            (":method", "POST"),
            (":path", path),
            (":authority", "laravel.test"),
            ("content-type", "application/json"),
            ("x-request-id", "one"),
        ];
        let headers = base.iter().chain(more);
        let headers: Vec<(String, Vec<u8>)> = headers
            .map(|(name, value)| ((*name).into(), value.as_bytes().to_vec()))
            .collect();
        let found = self.rules.batch_head(borrowed(&headers));
        found.expect("a batch").expect("one that is looked at")
    }

    fn take(&mut self, body: &str, standing: Standing) -> Taken {
        let head = self.head("/api/qr/batch", &[]);
        let batch = self.rules.batch(&head, body.as_bytes());
        let view = View {
            standing,
            ..View::default()
        };
        take_in(&mut self.store, &self.keys, &self.rules, &batch, view, NOW)
    }

    /// What is pending in all shards.
    fn pending(&self) -> usize {
        let shards = (0..self.rules.config.shards).filter_map(|index| {
            let (bytes, _) = self.store.get(&self.keys.shard(index))?;
            let shard = Shard::decode(&bytes).unwrap();
            balance(&shard).unwrap();
            Some(shard.pending())
        });
        shards.sum()
    }
}

fn qrs(sessions: &[&str]) -> String {
    let items = sessions.iter().enumerate();
    let items: Vec<String> = items
        .map(|(at, session)| format!(r#"{{"session_id":"{session}","qr":"2@{at}"}}"#))
        .collect();
    format!(r#"{{"qrs":[{}]}}"#, items.join(","))
}

#[test]
fn each_item_is_an_update_and_a_shard_is_written_once() {
    let mut world = World::with(r#"{"max_sessions":16}"#);
    let taken = world.take(&qrs(&["a", "b", "c", "d", "e", "f"]), Standing::Proven);
    assert_eq!(taken.passes, None);
    assert_eq!(taken.replies, [Reply::Queued; 6]);
    assert_eq!((world.pending(), world.store.puts), (6, 2), "two shards");
    let taken = world.take(&qrs(&["a", "b"]), Standing::Proven);
    assert_eq!(taken.replies, [Reply::Duplicate; 2]);
    assert_eq!(world.store.puts, 2, "nothing has changed");
    let taken = world.take(&qrs(&["f", "f"]), Standing::Proven);
    assert_eq!(taken.superseded.len(), 2, "of one session the last counts");
    assert_eq!(world.pending(), 6);
}

#[test]
fn an_item_goes_where_the_gateway_would_have_posted_it_alone() {
    let world = World::new();
    let head = world.head("/api/whatsapp/status/batch", &[("x-api-key", "k")]);
    let body = br#"{"statuses":[{"session_id":"s","estado_qr":"active"}]}"#;
    let batch = world.rules.batch(&head, body);
    let [update] = &batch.updates[..] else {
        panic!("{batch:?}");
    };
    let destination = crate::route::Destination::decode(update.destination.bytes()).unwrap();
    let line = (
        &*destination.method,
        &*destination.prefix,
        &*destination.path,
    );
    assert_eq!(line, ("POST", "/api", "/whatsapp/status"));
    let carried = destination.headers.iter().map(|(name, _)| &**name);
    assert_eq!(carried.collect::<Vec<_>>(), ["content-type", "x-api-key"]);
    assert!(update.priority && update.voids, "it is a state like others");
    assert!(
        update.neutral.encode().is_empty(),
        "an id is the batch's own"
    );
    // The same as by itself.
    let single = crate::route::Destination {
        prefix: "/api".into(),
        ..destination
    };
    let alone = world.rules.head_to(head.route(), single);
    let alone = world.rules.update(&alone, update.body).unwrap();
    assert_eq!(alone.said, update.said);
}

#[test]
fn what_cannot_be_queued_whole_is_not_queued_at_all() {
    let good = r#"{"session_id":"s","qr":"x"}"#;
    let long = "x".repeat(64 * 1024);
    let huge = "x".repeat(60 * 1024);
    let many = [format!(r#"{{"session_id":"s","qr":"{huge}"}}"#)].concat();
    let many: Vec<&str> = (0..9).map(|_| many.as_str()).collect();
    for (body, reason) in [
        (r#"{"qrs":[]}"#.into(), Bypass::NoValue),
        (r#"{"other":[1]}"#.into(), Bypass::NoValue),
        (String::new(), Bypass::NoValue),
        (
            format!(r#"{{"qrs":[{good}],"gateway":"g"}}"#),
            Bypass::Batch,
        ),
        (
            format!(r#"{{"qrs":[{good},{{"session_id":"t"}}]}}"#),
            Bypass::NoValue,
        ),
        (format!(r#"{{"qrs":[{good},7]}}"#), Bypass::NotAnObject),
        (
            format!(r#"{{"qrs":[{good},{{"session_id":"t","qr":"x","qr":"y"}}]}}"#),
            Bypass::DuplicateKey,
        ),
        (
            format!(r#"{{"qrs":[{good},{{"session_id":"t","qr":"{long}"}}]}}"#),
            Bypass::TooLarge,
        ),
        (
            format!(r#"{{"qrs":[{}]}}"#, many.join(",")),
            Bypass::TooLarge,
        ),
    ] {
        let mut world = World::new();
        let taken = world.take(&body, Standing::Proven);
        assert_eq!(
            taken.passes,
            Some(reason),
            "{}",
            body.get(..80).unwrap_or(&body)
        );
        assert_eq!((world.pending(), world.store.puts), (0, 0));
    }
}

#[test]
fn a_batch_of_whom_nothing_was_accepted_goes_by_and_its_sessions_are_seen() {
    let mut world = World::new();
    let taken = world.take(&qrs(&["a", "b"]), Standing::Unproven);
    assert_eq!(taken.passes, Some(Bypass::Unproven));
    assert_eq!(world.store.puts, 0);
    let taken = world.take(&qrs(&["a", "b"]), Standing::Outage);
    assert_eq!(taken.passes, Some(Bypass::Outage));
    let head = world.head("/api/qr/batch?x=1", &[]);
    let whole = qrs(&["a", "b", "c"]);
    for cut in [0, 20] {
        let body = whole.as_bytes().get(..whole.len() - cut).unwrap();
        let batch = world.rules.batch(&head, body);
        assert_eq!(batch.refused, Some(Bypass::Query));
        assert!(batch.sessions.len() >= 2, "as far as they can be seen");
    }
    for (header, reason) in [
        ("x-hub-signature-256", Bypass::Signature),
        ("x-http-method-override", Bypass::Override),
    ] {
        let head = world.head("/qr/batch", &[(header, "1")]);
        let batch = world.rules.batch(&head, whole.as_bytes());
        assert_eq!((batch.refused, batch.sessions.len()), (Some(reason), 3));
    }
}

#[test]
fn callers_that_wait_for_the_end_are_promised_nothing_in_a_batch() {
    let mut world = World::with(r#"{"routes":[{"name":"qr","ack":"delivered"}]}"#);
    let taken = world.take(&qrs(&["a"]), Standing::Proven);
    assert_eq!(taken.passes, Some(Bypass::Batch));
}

#[test]
fn where_one_shard_has_no_room_none_is_queued() {
    let mut world = World::with(r#"{"max_sessions":16}"#);
    let names: Vec<String> = (0..200).map(|n| format!("s{n}")).collect();
    let of = |index: u32, world: &World| -> Vec<String> {
        let its = |name: &&String| {
            let batch = world.head("/api/qr/batch", &[]);
            let body = qrs(&[name]);
            let session = world.rules.batch(&batch, body.as_bytes()).sessions[0];
            world.rules.shard_of(session) == index
        };
        names.iter().filter(its).cloned().collect()
    };
    let (first, second) = (of(0, &world), of(1, &world));
    let full: Vec<&str> = second.iter().take(24).map(String::as_str).collect();
    assert_eq!(world.take(&qrs(&full), Standing::Proven).passes, None);
    let puts = world.store.puts;
    let both = qrs(&[&first[0], &second[30]]);
    let taken = world.take(&both, Standing::Proven);
    assert_eq!(taken.passes, Some(Bypass::ShardFull));
    assert_eq!(
        (world.pending(), world.store.puts),
        (24, puts),
        "the first had room"
    );
}

#[test]
fn a_write_that_fails_after_others_sends_the_whole_batch_as_well() {
    let mut world = World::with(r#"{"max_sessions":16}"#);
    world.store.refused = Some(2);
    let all = qrs(&["a", "b", "c", "d", "e", "f"]);
    let taken = world.take(&all, Standing::Proven);
    assert_eq!(taken.passes, Some(Bypass::Store));
    let queued = world.pending();
    assert!(queued > 0 && queued < 6, "{queued} go again");
    assert_eq!(taken.replies.len(), queued, "and are counted");
    assert_eq!(taken.rings.len(), 1);
}

#[test]
fn a_lost_race_is_run_again() {
    let mut world = World::with(r#"{"max_sessions":16}"#);
    world.store.lost = Some(2);
    let taken = world.take(&qrs(&["a", "b", "c", "d", "e", "f"]), Standing::Proven);
    assert_eq!(
        (taken.passes, world.pending(), world.store.puts),
        (None, 6, 3)
    );
}

#[test]
fn the_sessions_of_a_batch_that_goes_by_are_unverified_from_its_beginning_to_its_end() {
    let mut world = World::new();
    let body = qrs(&["a"]);
    let deliver = |world: &mut World| {
        let index = {
            let head = world.head("/api/qr/batch", &[]);
            let session = world.rules.batch(&head, body.as_bytes()).sessions[0];
            world.rules.shard_of(session)
        };
        let key = world.keys.shard(index);
        let (bytes, token) = world.store.get(&key).unwrap();
        let mut shard = Shard::decode(&bytes).unwrap();
        let session = shard.sessions[0].id;
        let id = crate::shard::ClaimId {
            epoch: 1,
            counter: 1,
        };
        claim_due(&mut shard, &world.rules, session, id, NOW).expect("due");
        let outcome = crate::shard::Outcome::Delivered;
        let settled = shard.settle(&world.rules, session, id, outcome, Some(200), NOW);
        assert!(matches!(
            settled,
            Settled::Ended {
                rejected: false,
                ..
            }
        ));
        world
            .store
            .put(&key, &shard.encode(), Expect::Token(token))
            .unwrap();
    };
    assert_eq!(world.take(&body, Standing::Proven).replies, [Reply::Queued]);
    deliver(&mut world);
    assert_eq!(
        world.take(&body, Standing::Proven).replies,
        [Reply::Duplicate]
    );
    let head = world.head("/api/qr/batch", &[]);
    let batch = world.rules.batch(&head, body.as_bytes());
    let passing = begin(
        &mut world.store,
        &world.keys,
        &world.rules,
        (&head, &batch),
        NOW,
    );
    assert_eq!(world.take(&body, Standing::Proven).replies, [Reply::Queued]);
    deliver(&mut world);
    assert_eq!(
        world.take(&body, Standing::Proven).replies,
        [Reply::Duplicate]
    );
    end(&mut world.store, &world.keys, &world.rules, &passing);
    assert_eq!(
        world.take(&body, Standing::Proven).replies,
        [Reply::Queued],
        "Laravel may have stored the batch after it"
    );
}

#[test]
fn an_accepted_batch_proves_its_caller_its_route_and_the_path_of_batches() {
    let mut world = World::new();
    let body = qrs(&["a", "b"]);
    let head = world.head("/api/qr/batch", &[("x-api-key", "k")]);
    let batch = world.rules.batch(&head, body.as_bytes());
    let passing = begin(
        &mut world.store,
        &world.keys,
        &world.rules,
        (&head, &batch),
        NOW,
    );
    let subject = head.subject(&world.rules);
    let says = |world: &mut World, status: u16, body: &str| {
        let answer = Answer {
            status: Some(status),
            from_upstream: true,
            body: body.as_bytes(),
            ..Answer::default()
        };
        let (store, proofs) = (&mut world.store, &mut world.proofs);
        heard(store, &world.keys, proofs, &passing, &answer, NOW)
    };
    for (status, body) in [
        (401, r#"{"message":"Unauthenticated."}"#),
        (500, ""),
        (200, "<html>"),
        (200, r#"{"success":false}"#),
        (
            200,
            r#"{"success":true,"results":[{"status":422},{"status":404}]}"#,
        ),
    ] {
        assert!(!says(&mut world, status, body), "{status} {body}");
        let standing =
            world
                .proofs
                .standing(&world.store, &world.keys, &world.rules, &subject, NOW);
        assert_eq!(standing, Standing::Unproven, "{status} {body}");
    }
    assert!(says(&mut world, 200, r#"{"success":true,"processed":2}"#));
    let standing = world
        .proofs
        .standing(&world.store, &world.keys, &world.rules, &subject, NOW);
    assert_eq!(standing, Standing::Proven);
    let path = world.proofs.path_of(&world.store, &world.keys, &subject);
    assert!(path.took && path.had_body && path.members.any());
    // What its answers have is missed from then on.
    assert!(!says(&mut world, 200, r#"{"hello":1}"#) && !says(&mut world, 200, ""));
}

#[test]
fn a_batch_elsewhere_says_nothing_of_the_dispatchers_path() {
    let json =
        r#"{"routes":[{"name":"mine","path":"/mine/many","split":{"at":"/data/qrs","as":"qr"}}]}"#;
    let world = World::with(json);
    assert!(!world.head("/mine/many", &[]).is_like_ours(&world.rules));
    assert!(world.head("/qr/batch", &[]).is_like_ours(&world.rules));
}
