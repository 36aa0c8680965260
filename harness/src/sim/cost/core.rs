//! What the core allocates for one request: the same code that the module runs, natively.

use embudo_core::config::Config;
use embudo_core::hash::HashKey;
use embudo_core::headers::{Header, encode};
use embudo_core::hold::Holding;
use embudo_core::intake::{self, View};
use embudo_core::route::{KnownBodies, KnownHeads, Rules};
use embudo_core::store::{Expect, Keys, MemoryStore, PutError, Store, Token};
use embudo_core::time::Now;
use std::cell::Cell;

use super::allocations::allocations;
use super::{CONFIGURATION, Kind, Post};

/// A store whose own allocations do not count: the host's are not the guest's, and the buffer of a read
/// is counted in the VM.
#[derive(Debug, Default)]
struct Aside {
    store: MemoryStore,
    allocations: Cell<u64>,
}

/// What the VM holds for its requests.
struct Worker {
    store: Aside,
    keys: Keys,
    rules: Rules,
    heads: KnownHeads,
    bodies: KnownBodies,
}

// === impl Aside ===

impl Aside {
    fn beside<T>(&self, before: u64, result: T) -> T {
        let more = allocations() - before;
        self.allocations.set(self.allocations.get() + more);
        result
    }
}

impl Store for Aside {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Token)> {
        let before = allocations();
        self.beside(before, self.store.get(key))
    }

    fn put(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), PutError> {
        let before = allocations();
        let result = self.store.put(key, value, expect);
        self.beside(before, result)
    }
}

/// `None` in a program that does not count.
pub(super) fn allocations_of(kind: Kind) -> Option<u64> {
    let before = allocations();
    drop(std::hint::black_box(Box::new(0_u64)));
    if allocations() == before {
        return None;
    }
    if kind == Kind::Untouched {
        return Some(0);
    }
    let mut worker = Worker {
        store: Aside::default(),
        keys: Keys::new("embudo"),
        rules: Rules {
            config: Config::parse(CONFIGURATION.as_bytes()).ok()?,
            key: HashKey::from_bytes([9; 16]),
        },
        heads: KnownHeads::default(),
        bodies: KnownBodies::default(),
    };
    // As in the VM: a warm session, and what comes before the kind in its order.
    worker.take_in(&Post::qr("warm", 1));
    worker.take_in(&Post::qr("warm", 2));
    worker.take_in(&Post::pending("warm"));
    let mut last = 0;
    for earlier in Kind::IN_ORDER {
        last = worker.take_in(&Post::of(earlier));
        if earlier == kind {
            break;
        }
    }
    Some(last)
}

// === impl Worker ===

impl Worker {
    /// Allocations of one request. The ring's number and the metrics are the shell's.
    fn take_in(&mut self, post: &Post) -> u64 {
        let now = Now {
            mono_ms: 500_000,
            wall_ms: 1_714_521_600_000,
        };
        let headers = post.headers();
        let headers: Vec<Header<'_>> = headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_slice()))
            .collect();
        let (buffer, body) = (encode(&headers), post.body().as_bytes());
        let (keys, rules) = (&self.keys, &self.rules);
        self.store.allocations.set(0);
        let before = allocations();
        if let Ok(head) = self.heads.head(rules, buffer)
            && let Ok(update) = self.bodies.update(rules, &head, body)
        {
            let store = &mut self.store;
            let worker = intake::Worker {
                number: 0,
                vm: 1,
                may_send: true,
                view: View::default(),
                holding: &Holding::default(),
            };
            let taken = intake::take_in(store, keys, rules, &update, &worker, now);
            drop(taken);
        }
        allocations() - before - self.store.allocations.get()
    }
}
