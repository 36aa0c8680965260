//! Nanoseconds of the core for one request: from its headers and its body to the decision, in a shard that eight
//! sessions share.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use embudo_core::config::Config;
use embudo_core::hash::HashKey;
use embudo_core::headers::encode;
use embudo_core::hold::Holding;
use embudo_core::intake::{self, Reply, View};
use embudo_core::route::{KnownBodies, KnownHeads, Rules};
use embudo_core::store::{Keys, MemoryStore};
use embudo_core::time::Now;

const NOW: Now = Now {
    mono_ms: 500_000,
    wall_ms: 1_714_521_600_000,
};

struct World {
    rules: Rules,
    keys: Keys,
    headers: Vec<u8>,
}

/// What a worker remembers, and the store.
#[derive(Default)]
struct Worker {
    store: MemoryStore,
    heads: KnownHeads,
    bodies: KnownBodies,
}

// === impl World ===

impl World {
    fn new() -> Option<Self> {
        let headers = [
            (":authority", "laravel.test"),
            (":path", "/api/qr"),
            (":method", "POST"),
            (":scheme", "http"),
            ("user-agent", "axios/1.7.2"),
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("content-length", "290"),
            ("x-forwarded-proto", "http"),
        ];
        let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Some(Self {
            rules: Rules {
                config: Config::parse(br#"{"max_sessions":8}"#).ok()?,
                key: HashKey::from_bytes([9; 16]),
            },
            keys: Keys::new("embudo"),
            headers: encode(&headers),
        })
    }

    fn post(&self, worker: &mut Worker, body: &[u8]) -> Option<Reply> {
        let (keys, rules) = (&self.keys, &self.rules);
        let Worker {
            store,
            heads,
            bodies,
        } = worker;
        let head = heads.head(rules, self.headers.clone()).ok()?;
        let update = bodies.update(rules, &head, body).ok()?;
        let it = intake::Worker {
            number: 0,
            vm: 1,
            may_send: true,
            view: View::default(),
            holding: &Holding::default(),
        };
        Some(intake::take_in(store, keys, rules, &update, &it, NOW).reply)
    }

    /// One to which eight sessions have said something.
    fn worker(&self) -> Worker {
        let mut worker = Worker::default();
        for session in 0..8 {
            self.post(&mut worker, &qr(session, 1));
        }
        worker
    }
}

/// 237 characters, as WhatsApp's are.
fn qr(session: u32, number: u32) -> Vec<u8> {
    let id = format!("6f3e2e5c-8a0b-4b57-9d3f-{session:012}");
    format!(r#"{{"session_id":"{id}","qr":"2@{number:0>235}"}}"#).into()
}

fn requests(criterion: &mut Criterion) {
    let world = World::new();
    let Some(world) = world else { return };
    for (name, number, expected) in [
        ("duplicate", 1, Reply::Duplicate),
        ("new", 2, Reply::Queued),
    ] {
        let body = qr(3, number);
        let reply = world.post(&mut world.worker(), &body);
        assert_eq!(reply, Some(expected), "{name}");
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || world.worker(),
                |worker| world.post(worker, black_box(&body)),
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, requests);
criterion_main!(benches);
