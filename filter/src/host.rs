//! Clocks, randomness and the doorbell.

use std::cell::Cell;

use embudo_core::time::Now;
use log::warn;
use proxy_wasm::hostcalls;
use std::time::{SystemTime, UNIX_EPOCH};

/// The shared queue as intake sees it: rung, never read.
#[derive(Debug)]
pub(crate) struct Doorbell {
    vm_id: String,
    name: String,
    /// Known once a dispatcher has registered the queue; the same for the life of the process.
    queue: Cell<Option<u32>>,
}

/// Both clocks. Two host calls of 0.2–0.3 µs.
pub(crate) fn now() -> Now {
    let wall = hostcalls::get_current_time().unwrap_or(UNIX_EPOCH);
    Now {
        mono_ms: mono_ms(),
        wall_ms: since_epoch_ms(wall),
    }
}

fn since_epoch_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = since.as_secs().saturating_mul(1_000);
    ms.saturating_add(u64::from(since.subsec_millis()))
}

/// The host's monotonic clock, the same for all threads of the process.
///
/// `std::time::Instant` reads it too, but will not say what it reads, and the store needs a number that
/// another VM understands.
#[cfg(target_os = "wasi")]
#[expect(
    unsafe_code,
    reason = "the WASI call has no safe wrapper; it only reads a clock"
)]
pub(crate) fn mono_ms() -> u64 {
    // SAFETY: takes two numbers and returns one; no memory is shared with the host.
    let ns = unsafe { wasip1::clock_time_get(wasip1::CLOCKID_MONOTONIC, 1) }.unwrap_or(0);
    ns / 1_000_000
}

/// So that the crate also builds where there is no host, for lints and documentation.
#[cfg(not(target_os = "wasi"))]
pub(crate) fn mono_ms() -> u64 {
    0
}

/// Random bytes; Envoy's are from a good source.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        // Predictable hashes are a weakness, no failure: go on, and say so.
        warn!("no randomness from the host ({error}): hashes are predictable");
    }
    bytes
}

// === impl Doorbell ===

impl Doorbell {
    pub(crate) fn new(vm_id: String, name: String) -> Self {
        Self {
            vm_id,
            name,
            queue: Cell::new(None),
        }
    }

    /// Tells the dispatcher of a shard. Best effort: a ring that is lost costs the time until the slow
    /// scan comes by.
    pub(crate) fn ring(&self, shard: u32) {
        if self.queue.get().is_none() {
            self.queue
                .set(hostcalls::resolve_shared_queue(&self.vm_id, &self.name).unwrap_or(None));
        }
        let Some(queue) = self.queue.get() else {
            return;
        };
        if hostcalls::enqueue_shared_queue(queue, Some(&shard.to_le_bytes())).is_err() {
            self.queue.set(None);
        }
    }

    /// Makes this VM the one that is woken.
    pub(crate) fn register(&self) {
        self.queue
            .set(hostcalls::register_shared_queue(&self.name).ok());
    }

    /// The next shard in the queue.
    pub(crate) fn next(queue: u32) -> Option<u32> {
        let bytes = hostcalls::dequeue_shared_queue(queue).ok().flatten()?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }
}
