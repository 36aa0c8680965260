//! The doorbell: how a worker tells the dispatcher that a shard has something new.
//!
//! A ring wakes another thread, which costs more than all else that a new value costs. So the first one goes at
//! once, and whatever follows within a poll of the root goes together at the end of that, unless it is urgent.
//! Nothing is due that soon: an item waits for its quiet time anyway.
//!
//! Best effort. A ring that is lost, with its VM for instance, costs the time until the slow scan comes by.

use std::cell::{Cell, RefCell};

use embudo_core::ack::POLL_MS;
use proxy_wasm::hostcalls;

/// Shards in one ring.
const SHARDS_MAX: usize = 64;

/// The shared queue.
#[derive(Debug)]
pub(crate) struct Doorbell {
    vm_id: String,
    name: String,
    /// Known once a dispatcher has registered the queue; the same for the life of the process.
    queue: Cell<Option<u32>>,
    /// Monotonic.
    rung_ms: Cell<u64>,
    /// Shards that the dispatcher has not been told of.
    untold: RefCell<Vec<u32>>,
}

// === impl Doorbell ===

impl Doorbell {
    pub(crate) fn new(vm_id: String, name: String) -> Self {
        Self {
            vm_id,
            name,
            queue: Cell::new(None),
            rung_ms: Cell::new(0),
            untold: RefCell::default(),
        }
    }

    /// Tells the dispatcher of a shard; false where that is left to [`Doorbell::tell_the_rest`].
    pub(crate) fn ring(&self, shard: u32, urgent: bool, mono_ms: u64) -> bool {
        let mut untold = self.untold.borrow_mut();
        untold.push(shard);
        let soon = mono_ms < self.rung_ms.get().saturating_add(POLL_MS);
        let told = urgent || !soon || untold.len() >= SHARDS_MAX;
        if told {
            self.rung_ms.set(mono_ms);
            self.tell(&mut untold);
        }
        told
    }

    /// For the root's tick.
    pub(crate) fn tell_the_rest(&self) {
        let mut untold = self.untold.borrow_mut();
        if !untold.is_empty() {
            self.tell(&mut untold);
        }
    }

    fn tell(&self, shards: &mut Vec<u32>) {
        if self.queue.get().is_none() {
            self.queue
                .set(hostcalls::resolve_shared_queue(&self.vm_id, &self.name).unwrap_or(None));
        }
        let bytes: Vec<u8> = shards.drain(..).flat_map(u32::to_le_bytes).collect();
        let Some(queue) = self.queue.get() else {
            return;
        };
        if hostcalls::enqueue_shared_queue(queue, Some(&bytes)).is_err() {
            self.queue.set(None);
        }
    }

    /// Makes this VM the one that is woken.
    pub(crate) fn register(&self) {
        self.queue
            .set(hostcalls::register_shared_queue(&self.name).ok());
    }

    /// The shards of the next ring in the queue. What is none was rung by somebody else.
    pub(crate) fn next(queue: u32) -> Option<Vec<u32>> {
        let bytes = hostcalls::dequeue_shared_queue(queue).ok().flatten()?;
        let (shards, _) = bytes.as_chunks::<4>();
        let shards = shards.iter().take(SHARDS_MAX);
        Some(shards.map(|shard| u32::from_le_bytes(*shard)).collect())
    }
}
