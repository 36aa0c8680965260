use alloc::collections::BTreeSet;
use alloc::format;
use core::cell::Cell;

use super::record::{self, Entry, Kind, Record};
use super::*;
use crate::hash::HashKey;
use crate::route::tests::rules;
use crate::store::MemoryStore;
use crate::verdict::{Answer, Members};

fn now(mono_ms: u64) -> Now {
    Now {
        mono_ms,
        wall_ms: 0,
    }
}

fn subject(caller: u64, destination: u64, route: &str) -> Subject {
    let hash = |n: u64| HashKey::from_bytes([7; 16]).hash(&[&n.to_le_bytes()]) as u64;
    let caller = match caller {
        0 => 0,
        n => hash(n),
    };
    Subject::new(caller, hash(destination), route)
}

/// A store that counts what it is asked for, and that loses races.
#[derive(Default)]
struct Counted {
    store: MemoryStore,
    gets: Cell<u32>,
    puts: u32,
    lost: u32,
}

impl Store for Counted {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Token)> {
        self.gets.set(self.gets.get() + 1);
        self.store.get(key)
    }

    fn put(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), PutError> {
        self.puts += 1;
        if self.lost > 0 {
            self.lost -= 1;
            return Err(PutError::Mismatch);
        }
        self.store.put(key, value, expect)
    }
}

/// A process: one store, and workers with a copy each.
struct Process {
    store: Counted,
    keys: Keys,
    rules: Rules,
    workers: [Proofs; 2],
}

impl Process {
    fn new() -> Self {
        Self {
            store: Counted::default(),
            keys: Keys::new("p"),
            rules: rules("{}"),
            workers: Default::default(),
        }
    }

    fn standing(&mut self, worker: usize, of: Subject, ms: u64) -> Standing {
        self.workers[worker].standing(&self.store, &self.keys, &self.rules, &of, now(ms))
    }

    fn is_proven(&mut self, worker: usize, of: Subject, ms: u64) -> bool {
        self.standing(worker, of, ms) == Standing::Proven
    }

    fn accepted(&mut self, worker: usize, of: Subject, began_ms: u64, ms: u64) {
        let voice = Some(Voice::Json);
        let Self { store, keys, .. } = self;
        self.workers[worker].accepted(store, keys, &of, voice, began_ms, now(ms));
    }

    fn refused(&mut self, worker: usize, of: Subject, status: u16, ms: u64) -> bool {
        let Self { store, keys, .. } = self;
        self.workers[worker].refused(store, keys, &of, status, now(ms))
    }

    fn tick(&mut self, worker: usize, ms: u64) {
        self.workers[worker].tick(&mut self.store, &self.keys, now(ms));
    }

    fn host_calls(&mut self) -> u32 {
        let calls = self.store.gets.take() + self.store.puts;
        self.store.puts = 0;
        calls
    }
}

#[test]
fn a_caller_is_proven_where_it_was_accepted_and_on_routes_that_anybody_has_proven() {
    let mut it = Process::new();
    let qr = subject(1, 1, "qr");
    assert!(!it.is_proven(0, qr, 0));
    it.accepted(0, qr, 0, 10);
    assert!(it.is_proven(0, qr, 10));
    assert!(it.is_proven(1, qr, 10), "another worker asks the store");
    assert!(
        !it.is_proven(0, subject(1, 1, "status"), 10),
        "another route"
    );
    assert!(!it.is_proven(0, subject(2, 1, "qr"), 10), "another caller");
    assert!(
        !it.is_proven(0, subject(1, 2, "qr"), 10),
        "another destination"
    );
    it.accepted(1, subject(2, 1, "status"), 10, 20);
    assert!(it.is_proven(0, subject(1, 1, "status"), 20), "by anybody");
}

#[test]
fn a_caller_without_any_header_needs_proof_as_well() {
    let mut it = Process::new();
    let nobody = subject(0, 1, "qr");
    assert!(!it.is_proven(0, nobody, 0));
    it.accepted(0, nobody, 0, 0);
    assert!(it.is_proven(0, nobody, 0));
    assert!(!it.is_proven(0, subject(1, 1, "qr"), 0));
    assert!(!it.is_proven(0, Subject::default(), 0));
}

#[test]
fn what_is_known_to_be_proven_costs_no_host_call_and_what_is_not_one_get() {
    let mut it = Process::new();
    let (known, stranger) = (subject(1, 1, "qr"), subject(2, 1, "qr"));
    it.accepted(0, known, 0, 0);
    it.accepted(0, known, 1, 1);
    it.is_proven(0, known, 1);
    it.host_calls();
    for ms in 0..1_000 {
        assert!(it.is_proven(0, known, ms));
        it.accepted(0, known, ms, ms);
    }
    assert_eq!(it.host_calls(), 0);
    it.is_proven(0, stranger, 1_000);
    assert_eq!(it.host_calls(), 1);
}

#[test]
fn a_refusal_elsewhere_is_seen_within_a_tick_and_an_acceptance_at_once() {
    let mut it = Process::new();
    let qr = subject(1, 1, "qr");
    it.accepted(0, qr, 0, 0);
    it.tick(1, 500);
    assert!(it.is_proven(1, qr, 500));
    assert!(it.refused(0, qr, 401, 600));
    assert!(!it.is_proven(0, qr, 600), "where it was refused, at once");
    it.tick(1, 1_000);
    assert!(!it.is_proven(1, qr, 1_000));
    it.accepted(0, qr, 601, 1_100);
    assert!(it.is_proven(1, qr, 1_100));
}

#[test]
fn only_what_began_after_the_refusal_proves_the_caller_again() {
    let mut it = Process::new();
    let (qr, status) = (subject(1, 1, "qr"), subject(1, 1, "status"));
    it.accepted(0, qr, 0, 0);
    assert!(it.refused(0, status, 419, 100));
    it.accepted(1, qr, 99, 200);
    it.accepted(1, qr, 100, 200);
    assert!(!it.is_proven(0, qr, 200) && !it.is_proven(1, qr, 200));
    it.accepted(1, qr, 101, 300);
    assert!(it.is_proven(0, qr, 300));
}

#[test]
fn a_403_beside_a_success_is_about_the_item_and_so_is_every_other_refusal() {
    let mut it = Process::new();
    let qr = subject(1, 1, "qr");
    it.accepted(0, qr, 0, 0);
    for status in [400, 404, 409, 410, 413, 422, 500] {
        assert!(!it.refused(0, qr, status, 100_000));
    }
    assert!(!it.refused(1, qr, 403, BESIDE_MS));
    assert!(it.is_proven(0, qr, BESIDE_MS));
    assert!(it.refused(1, qr, 403, BESIDE_MS + 1));
    assert!(!it.is_proven(1, qr, BESIDE_MS + 1));
}

#[test]
fn a_refusal_that_loses_every_race_is_written_at_the_next_tick() {
    let mut it = Process::new();
    let qr = subject(1, 1, "qr");
    it.accepted(0, qr, 0, 0);
    it.store.lost = CAS_ATTEMPTS_MAX;
    assert!(it.refused(0, qr, 401, 600));
    assert!(!it.is_proven(0, qr, 600), "here it is known");
    it.tick(0, 1_000);
    assert!(!it.is_proven(1, qr, 1_000), "and everywhere, a tick later");
}

#[test]
fn a_token_that_is_new_in_each_request_pushes_nobody_out_that_comes_again() {
    let mut it = Process::new();
    let tenant = |n| subject(n, 1, "qr");
    for n in 1..=100 {
        it.accepted(0, tenant(n), 0, 0);
        it.accepted(0, tenant(n), 1, 1);
    }
    for n in 1_000..5_000 {
        it.accepted(0, tenant(n), n, n);
        it.tick(0, n);
    }
    let proven = (1..=100).filter(|n| it.is_proven(1, tenant(*n), 5_000));
    assert_eq!(proven.count(), 100);
    let strangers = (1_000..5_000).filter(|n| it.is_proven(1, tenant(*n), 5_000));
    assert!(strangers.count() <= 64 * KEYS - 100);
    let mut bytes = 0;
    for at in 0..KEYS {
        bytes += it
            .store
            .get(&it.keys.proof(at))
            .map_or(0, |(bytes, _)| bytes.len());
    }
    assert!(
        bytes < (64 + 16 + 64) * KEYS * record::ENTRY_BYTES,
        "{bytes}"
    );
}

#[test]
fn a_fleet_with_a_token_for_each_session_is_proven_although_nobody_comes_twice_in_a_row() {
    let mut it = Process::new();
    let caller = |n| subject(n, 1, "qr");
    for round in 0..2 {
        for n in 1..=600 {
            it.accepted(0, caller(n), round * 1_000 + n, round * 1_000 + n);
        }
    }
    it.tick(1, 3_000);
    let proven = (1..=600).filter(|n| it.is_proven(1, caller(*n), 3_000));
    assert!(
        proven.count() >= 590,
        "they have a place each, but for a key that is crowded"
    );
}

#[test]
fn a_thousand_callers_have_a_place_and_those_in_use_keep_it() {
    let mut it = Process::new();
    let caller = |n| subject(n, 1, "qr");
    let in_use: Vec<u64> = (1..=100).collect();
    let mut ms = 0;
    for n in 1..=2_000 {
        ms += 200;
        it.accepted(0, caller(n), ms, ms);
        it.accepted(0, caller(n), ms, ms);
        // They are used every five seconds and nothing else is.
        if n % 50 == 0 {
            for n in in_use.iter().filter(|known| **known <= n) {
                assert!(it.is_proven(0, caller(*n), ms), "{n} after {ms} ms");
            }
            it.tick(0, ms);
        }
    }
    let known: BTreeSet<u64> = (1..=2_000)
        .filter(|n| it.is_proven(1, caller(*n), ms))
        .collect();
    assert!(known.len() <= 64 * KEYS);
    assert!(known.len() > 700, "{}", known.len());
    assert!(in_use.iter().all(|n| known.contains(n)));
    let Process {
        store,
        keys,
        workers,
        ..
    } = &mut it;
    let [worker, _] = workers;
    assert_eq!(worker.count(store, keys).callers, known.len() as u64);
}

#[test]
fn who_was_used_is_written_once_a_minute() {
    let mut it = Process::new();
    let qr = subject(1, 1, "qr");
    it.accepted(0, qr, 0, 0);
    it.tick(0, 500);
    it.tick(0, 1_000);
    it.host_calls();
    let mut puts = 0;
    for second in 1..=600 {
        it.is_proven(0, qr, second * 1_000);
        it.tick(0, second * 1_000);
        puts += core::mem::take(&mut it.store.puts);
    }
    // The caller and its route, in a key each.
    assert!((10..=20).contains(&puts), "{puts}");
}

#[test]
fn an_outage_of_a_minute_ends_the_proof_and_an_acceptance_gives_it_back_to_all() {
    let mut it = Process::new();
    let all = [
        subject(1, 1, "qr"),
        subject(1, 1, "status"),
        subject(2, 1, "qr"),
    ];
    for of in all {
        it.accepted(0, of, 0, 0);
    }
    it.accepted(0, subject(1, 2, "qr"), 0, 0);
    let Process {
        store,
        keys,
        workers,
        ..
    } = &mut it;
    workers[0].suspend(store, keys, all[0].destination, now(60_000));
    it.tick(1, 60_500);
    for worker in [0, 1] {
        for of in all {
            assert_eq!(it.standing(worker, of, 60_500), Standing::Outage);
        }
        assert!(
            it.is_proven(worker, subject(1, 2, "qr"), 60_500),
            "elsewhere"
        );
    }
    it.accepted(1, all[1], 60_600, 60_700);
    for of in all {
        assert!(it.is_proven(0, of, 60_700) && it.is_proven(1, of, 60_700));
    }
}

#[test]
fn a_reader_enters_with_its_second_read_and_proves_nothing_for_updates() {
    let mut it = Process::new();
    let reader = subject(1, 1, "status");
    let Process {
        store,
        keys,
        workers,
        ..
    } = &mut it;
    let [worker, other] = workers;
    let is_reader =
        |worker: &mut Proofs, store: &Counted| worker.is_reader(store, keys, &reader, now(1));
    worker.has_read(store, keys, &reader, now(0));
    assert!(!is_reader(worker, store));
    worker.has_read(store, keys, &reader, now(1));
    assert!(is_reader(worker, store) && is_reader(other, store));
    for n in 2..500 {
        worker.has_read(store, keys, &subject(n, 1, "status"), now(n));
    }
    assert!(is_reader(other, store), "cookies that rotate stay below");
    assert!(!it.is_proven(0, reader, 1));
    it.accepted(0, reader, 1, 2);
    it.refused(0, reader, 401, 3);
    it.tick(1, 500);
    let Process {
        store,
        keys,
        workers,
        ..
    } = &mut it;
    for worker in workers {
        assert!(
            !worker.is_reader(store, keys, &reader, now(500)),
            "refused as a caller"
        );
    }
}

#[test]
fn a_routes_voice_is_the_first_that_was_heard_and_a_batchs_is_its_own() {
    let mut it = Process::new();
    let qr = subject(1, 1, "qr");
    let Process {
        store,
        keys,
        workers,
        ..
    } = &mut it;
    let [worker, other] = workers;
    assert_eq!(worker.voice_of(store, keys, &qr), None);
    worker.accepted(store, keys, &qr, None, 0, now(0));
    assert_eq!(worker.voice_of(store, keys, &qr), None, "it was empty");
    let heard = |body: &str| {
        let body = body.as_bytes();
        Heard::of(&Answer {
            status: Some(200),
            body,
            ..Answer::default()
        })
    };
    let first = heard(r#"{"success":true,"results":[]}"#);
    worker.took_batch(store, keys, &qr, first, now(1));
    worker.accepted(store, keys, &qr, Some(Voice::Text), 1, now(1));
    worker.accepted(store, keys, &qr, Some(Voice::Json), 1, now(1));
    let path = other.path_of(store, keys, &qr);
    assert_eq!(path.voice, Some(Voice::Text));
    assert_eq!(other.voice_of(store, keys, &qr), Some(Voice::Text));
    assert!(path.took && path.had_body && path.members == first.members);
    let more = heard(r#"{"processed":3}"#);
    worker.took_batch(store, keys, &qr, more, now(2));
    let path = worker.path_of(store, keys, &qr);
    assert!(path.members.meets(first.members) && path.members.meets(more.members));
    let elsewhere = subject(1, 2, "qr");
    assert_eq!(other.path_of(store, keys, &elsewhere), Path::default());
}

#[test]
fn an_answer_proves_what_laravel_took_and_nothing_else() {
    let of = |status, body: &str, known| Word::of(Some(status), body.as_bytes(), known);
    let json = Some(Voice::Json);
    assert_eq!(of(200, r#"{"success":true}"#, None), Word::Accepted(json));
    assert_eq!(of(204, "", json), Word::Accepted(None));
    assert_eq!(of(201, "OK", None), Word::Accepted(Some(Voice::Text)));
    for (status, body) in [
        (200, "OK"),
        (200, "<html>"),
        (200, r#"{"success":false}"#),
        (200, r#"{"success":true,"skipped":true}"#),
        (302, ""),
        (404, "{}"),
        (422, "{}"),
        (500, "{}"),
        (403, "<html>"),
        (401, "<html>"),
    ] {
        assert_eq!(of(status, body, json), Word::Neither, "{status} {body}");
    }
    for status in [401, 403, 419] {
        assert_eq!(of(status, "{}", json), Word::Refused(status));
        assert_eq!(of(status, "<html>", None), Word::Refused(status));
    }
    assert_eq!(Word::of(None, b"", None), Word::Neither);
}

#[test]
fn one_is_at_laravel_and_the_others_wait_for_its_answer() {
    let (qr, status, other) = (
        subject(1, 1, "qr"),
        subject(1, 1, "status"),
        subject(2, 1, "qr"),
    );
    let mut it = Proving::default();
    assert_eq!(it.begin(&qr, 1), Turn::Go);
    assert_eq!(it.begin(&status, 2), Turn::Go, "another route");
    assert_eq!(it.begin(&other, 3), Turn::Go, "another caller");
    for stream in [4, 5, 6, 7, 5] {
        assert_eq!(it.begin(&qr, stream), Turn::Hold);
    }
    assert_eq!(it.begin(&status, 8), Turn::Hold);
    it.forget(6);
    assert_eq!(
        it.ended(1, Ended::Other),
        Release::Next(4),
        "the first in line"
    );
    assert_eq!(it.ended(1, Ended::Accepted), Release::Nobody, "only once");
    assert_eq!(it.ended(4, Ended::Accepted), Release::Queue([5, 7].into()));
    assert_eq!(it.begin(&qr, 9), Turn::Go);
    assert_eq!(it.begin(&qr, 10), Turn::Hold);
    let released = it.ended(9, Ended::Refused);
    assert_eq!(
        released,
        Release::Through([10, 8].into()),
        "all of the caller's"
    );
    assert_eq!(it.ended(2, Ended::Other), Release::Nobody);
    assert_eq!(it.ended(3, Ended::Accepted), Release::Nobody);
    assert!(it.is_idle());
}

#[test]
fn what_is_proven_elsewhere_is_waited_for_no_longer() {
    let (qr, status) = (subject(1, 1, "qr"), subject(1, 1, "status"));
    let mut it = Proving::default();
    for (stream, of) in [(1, qr), (2, status), (3, qr), (4, status)] {
        it.begin(&of, stream);
    }
    assert_eq!(it.proven(|_, route| route == qr.route), [3]);
    assert!(it.is_at_laravel(1) && !it.is_at_laravel(3));
    assert_eq!(it.ended(1, Ended::Other), Release::Nobody);
}

#[test]
fn the_records_bytes_are_those_of_this_layout() {
    let mut record = Record::default();
    record.accept(
        Kind::Caller,
        0x0102_0304_0506_0708,
        0x1112_1314_1516_1718,
        1_000,
    );
    record.accept(
        Kind::Caller,
        0x0102_0304_0506_0708,
        0x1112_1314_1516_1718,
        2_000,
    );
    record
        .find_mut(Kind::Caller, 0x0102_0304_0506_0708)
        .unwrap()
        .end(3_000);
    record.accept(Kind::Reader, 9, 8, 4_000);
    let route = record.accept(Kind::Route, 7, 8, 5_000).unwrap();
    route.flags = route.learns(record::JSON | record::BATCH | record::members(Members(1)));
    let bytes = record.encode();
    let hex: Vec<_> = bytes
        .chunks(record::ENTRY_BYTES)
        .map(|entry| format!("{:02x?}", entry))
        .collect();
    let golden = [
        "01 0300 0807060504030201 1817161514131211 d007000000000000 d007000000000000 b80b000000000000",
        "02 0000 0900000000000000 0800000000000000 a00f000000000000 a00f000000000000 0000000000000000",
        "03 5400 0700000000000000 0800000000000000 8813000000000000 8813000000000000 0000000000000000",
    ];
    for (found, wanted) in hex.iter().zip(golden) {
        let digits = |text: &str| {
            text.chars()
                .filter(char::is_ascii_hexdigit)
                .collect::<String>()
        };
        assert_eq!(
            digits(found),
            digits(wanted),
            "another format needs another layout::VERSION"
        );
    }
    assert_eq!(bytes.len(), 3 * record::ENTRY_BYTES);
    assert_eq!(Record::decode(&bytes), record);
    assert_eq!(Record::decode(b"odd"), Record::default());
    assert_eq!(Record::decode(&[0; record::ENTRY_BYTES]), Record::default());
    let _: Option<&Entry> = record.find(Kind::Route, 7);
}
