//! Events in order of time. Two at one moment are in the order that the seed gave them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::arm::ArmEvent;
use super::net::NetEvent;
use super::traffic::TrafficEvent;
use super::webhook::HookEvent;
use crate::sim::host::Job;

/// Something that happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A thread goes on: its next host call, or its next job.
    Step { thread: usize },
    /// A root context's timer.
    Timer {
        thread: usize,
        vm: u32,
        context: u32,
        generation: u64,
    },
    /// The doorbell.
    WakeUp { vm: u32, context: u32, queue: u32 },
    /// A job for a VM, if it is still there; for any VM of the thread where `vm` is none.
    Post {
        thread: usize,
        vm: Option<u32>,
        job: Job,
    },
    /// The gateway's.
    Traffic(TrafficEvent),
    /// Laravel's and the network's.
    Net(NetEvent),
    /// The webhook's.
    Hook(HookEvent),
    /// A scenario file's.
    Arm(ArmEvent),
    /// A fault begins or ends.
    Fault { index: usize, begins: bool },
    /// The listener is updated: to its first configuration, or to another one.
    Alternate { first: bool, every_ms: u64 },
    /// All faults are over.
    Calm,
    /// The checker looks at what waits.
    Look,
}

/// Events to come.
#[derive(Debug, Default)]
pub(super) struct Events {
    heap: BinaryHeap<Entry>,
    pushed: u64,
}

#[derive(Debug)]
struct Entry {
    at_us: u64,
    order: u64,
    number: u64,
    event: Event,
}

// === impl Events ===

impl Events {
    pub(super) fn push(&mut self, at_us: u64, order: u64, event: Event) {
        self.pushed += 1;
        self.heap.push(Entry {
            at_us,
            order,
            number: self.pushed,
            event,
        });
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|entry| (entry.at_us, entry.event))
    }
}

// === impl Entry ===

impl Entry {
    fn key(&self) -> (u64, u64, u64) {
        (self.at_us, self.order, self.number)
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first, and we want the earliest.
        other.key().cmp(&self.key())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}
