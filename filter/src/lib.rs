//! Embudo's shell: turns Envoy's callbacks into calls of `embudo-core`, and what the core wants into
//! host calls.
//!
//! # Layout
//!
//! * `root`: one for each thread and configuration. Configuration, timer, doorbell, calls: the
//!   dispatcher's hands.
//! * `stream`: one for each intercepted request. Intake's hands.
//! * `store`: Envoy's shared data as the core's `Store`.
//! * `doorbell`: how a worker wakes the dispatcher.
//! * `host`: clocks, headers and randomness.
//! * `stats`: the metrics.
//!
//! Nothing here decides anything, and nothing here may panic: a panic kills the VM of one worker, with
//! every stream that it holds.

mod doorbell;
mod host;
mod root;
mod stats;
mod store;
mod stream;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use embudo_core::ack::{POLL_MS, Waiters};
use embudo_core::circuit;
use embudo_core::route::{KnownBodies, KnownHeads, Rules};
use embudo_core::store::Keys;
use embudo_core::time::Now;
use proxy_wasm::hostcalls;

use crate::doorbell::Doorbell;
use crate::host::WallOffset;
use crate::stats::Stats;

mod start {
    use proxy_wasm::types::LogLevel;

    use crate::root::Root;

    proxy_wasm::main! {{
        // Lines are rare, none of them belongs to a request, and Envoy drops what its own level does
        // not want.
        proxy_wasm::set_log_level(LogLevel::Info);
        proxy_wasm::set_root_context(|id| Box::new(Root::new(id)));
    }}
}

/// What a root shares with its streams.
#[derive(Debug)]
struct Plugin {
    rules: Rules,
    keys: Keys,
    /// How this worker's last requests were recognised.
    heads: RefCell<KnownHeads>,
    bodies: RefCell<KnownBodies>,
    doorbell: Doorbell,
    stats: RefCell<Stats>,
    /// Of the last request that may have had to pass: random at first, so that no two VMs' meet.
    number: Cell<u64>,
    /// As it was at the root's last tick: a request does not ask the store for it.
    circuit: Cell<circuit::State>,
    /// The same for the wall clock.
    wall: Cell<WallOffset>,
    /// Streams that are held until their update is settled.
    waiters: RefCell<Waiters>,
    /// The root ticks faster than its dispatcher asks for, because of them or for the doorbell.
    polls: Cell<bool>,
}

// === impl Plugin ===

impl Plugin {
    /// The time.
    fn now(&self) -> Now {
        self.wall.get().now()
    }

    /// Lets the root tick soon.
    fn poll(&self) {
        // The timer is the root's, whoever sets it.
        if !self.polls.replace(true) {
            let _ = hostcalls::set_tick_period(Duration::from_millis(POLL_MS));
        }
    }

    /// A number that no other request of this process has.
    fn next_number(&self) -> u64 {
        let number = self.number.get().wrapping_add(1);
        self.number.set(number);
        number
    }
}
