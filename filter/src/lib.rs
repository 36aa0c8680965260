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
use std::rc::Rc;
use std::time::Duration;

use embudo_core::ack::{POLL_MS, Waiters};
use embudo_core::barrier::Barriers;
use embudo_core::circuit;
use embudo_core::hold::Holding;
use embudo_core::intake::{View, Worker};
use embudo_core::proof::{Ended, Proofs, Proving, Release, Subject};
use embudo_core::route::{Asked, KnownBodies, KnownHeads, Rules};
use embudo_core::store::Keys;
use embudo_core::time::Now;
use embudo_core::write_through::{self, Fate, WriteThrough};
use embudo_dispatch::Counter;
use log::warn;
use proxy_wasm::hostcalls;

use crate::doorbell::Doorbell;
use crate::host::WallOffset;
use crate::stats::Stats;
use crate::store::SharedData;

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

/// How often a worker says at most that answers to reads differ, milliseconds.
const QUIET_MS: u64 = 60_000;

/// What a root shares with its streams.
#[derive(Debug)]
struct Plugin {
    rules: Rc<Rules>,
    keys: Keys,
    /// How this worker's last requests were recognised.
    heads: RefCell<KnownHeads>,
    bodies: RefCell<KnownBodies>,
    doorbell: Doorbell,
    stats: RefCell<Stats>,
    /// Of the last request that may have had to pass: random at first, so that no two VMs' meet.
    number: Cell<u64>,
    /// Whom Laravel has accepted, as this worker has read it.
    proofs: RefCell<Proofs>,
    /// As it was at the root's last tick: a request does not ask the store for it.
    circuit: Cell<circuit::State>,
    /// The rest of that record: what the leader waits for.
    awaited: RefCell<circuit::Record>,
    /// The same for the wall clock.
    wall: Cell<WallOffset>,
    /// Streams that are held until their update is settled.
    waiters: RefCell<Waiters>,
    /// Streams that are held until it is their turn.
    holding: RefCell<Holding>,
    /// Requests of other routes that are held until what is on its way of their session has arrived.
    barriers: RefCell<Barriers>,
    /// Who of them waits for another to prove its caller.
    proving: RefCell<Proving>,
    /// A random number of this VM.
    vm: u64,
    /// When it may be said again that answers to reads differ. Monotonic.
    quiet_until_ms: Cell<u64>,
    /// The root ticks faster than its dispatcher asks for, because of them or for the doorbell.
    polls: Cell<bool>,
}

// === impl Plugin ===

impl Plugin {
    /// The time.
    fn now(&self) -> Now {
        self.wall.get().now()
    }

    /// What this worker knows when a request of `subject` comes.
    fn worker<'h>(&self, holding: &'h Holding, subject: &Subject, now: Now) -> Worker<'h> {
        let mut proofs = self.proofs.borrow_mut();
        Worker {
            number: self.next_number(),
            vm: self.vm,
            may_send: true,
            view: View {
                circuit: self.circuit.get(),
                standing: proofs.standing(&SharedData, &self.keys, &self.rules, subject, now),
            },
            holding,
        }
    }

    /// A stream is over, or is held no more: others may have waited for it to prove their caller.
    fn proving_ended(&self, stream: u32, ended: Ended) {
        let mut proving = self.proving.borrow_mut();
        if proving.is_idle() {
            return;
        }
        proving.forget(stream);
        let streams = match proving.ended(stream, ended) {
            Release::Queue(streams) | Release::Through(streams) => streams,
            Release::Next(stream) => vec![stream],
            Release::Nobody => return,
        };
        self.holding.borrow_mut().open(&streams);
    }

    /// Settles what was written through, and tells the dispatcher what waits for that.
    fn end(&self, through: &WriteThrough, fate: Fate) {
        let now = self.now();
        let settled =
            write_through::end(&mut SharedData, &self.keys, &self.rules, through, fate, now);
        let Some(settled) = settled else { return };
        for (route, end) in settled.superseded.ends() {
            self.stats.borrow_mut().count(Counter::Items(route, end), 1);
        }
        if settled.queued {
            let again = Counter::Revived(through.said.route);
            self.stats.borrow_mut().count(again, 1);
        }
        if settled.ring {
            let shard = self.rules.shard_of(through.said.session);
            if !self.doorbell.ring(shard, true, now.mono_ms) {
                self.poll();
            }
        }
    }

    /// Says that answers to a read change in more than the state. Each pair of a caller's states is news, so not every
    /// one is said; what is assumed stays, and is said once.
    fn warn_of_reads(&self, asked: &Asked, names: &str) {
        let now_ms = self.now().mono_ms;
        if now_ms < self.quiet_until_ms.get() {
            return;
        }
        let read = self.rules.read(asked.read).map_or("", |read| &*read.name);
        let (quiet_until_ms, what) = match self.rules.config.assume.reads {
            true => (
                u64::MAX,
                "kept ones are served all the same, as `assume.reads` says",
            ),
            false => (
                now_ms.saturating_add(QUIET_MS),
                "those that do are asked of Laravel for ten minutes at least",
            ),
        };
        self.quiet_until_ms.set(quiet_until_ms);
        warn!("read {read}: Laravel's answers change in more than the state ({names}); {what}");
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
