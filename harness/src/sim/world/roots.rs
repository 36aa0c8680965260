//! Root contexts: their timers, their doorbell, and how a listener update replaces them.

use std::sync::Arc;

use rand::RngExt;

use super::Sim;
use super::net::Caller;
use super::queue::Event;
use crate::sim::host::{Job, Out};

// === impl Sim ===

impl Sim {
    /// What a host call left to be done.
    pub(super) fn carry_out(&mut self, thread: usize, out: Out) {
        let vm = self.threads[thread].vm_id.unwrap_or(0);
        match out {
            Out::HttpCall {
                token,
                context,
                call,
                http,
            } => {
                let caller = Caller {
                    thread,
                    vm,
                    context,
                    token,
                    call,
                };
                self.call_leaves(caller, http);
            }
            Out::Tick { context, ms } => self.arm(thread, context, u64::from(ms) * 1000),
            Out::Ring { queue, registrar } => {
                if self.strikes.lose_ring() {
                    return self.note("world", 9, || "a wake-up is lost".to_owned());
                }
                let us = self.dice.random_range(1..=50);
                let (vm, context) = (registrar.vm, registrar.context);
                self.after_us(us, Event::WakeUp { vm, context, queue });
            }
            Out::Done { context } => {
                let vm = Some(vm);
                self.threads[thread]
                    .inbox
                    .push_front((vm, Job::Delete { context }));
                self.due(thread, 1);
            }
        }
    }

    pub(super) fn arm(&mut self, thread: usize, context: u32, period_us: u64) {
        let place = &mut self.threads[thread];
        let Some(vm) = place.vm_id else { return };
        let root = place.roots.entry(context).or_default();
        root.generation += 1;
        root.period_us = period_us;
        let generation = root.generation;
        if period_us > 0 {
            let late_us = self.dice.random_range(0..=200);
            let event = Event::Timer {
                thread,
                vm,
                context,
                generation,
            };
            self.after_us(period_us + late_us, event);
        }
    }

    pub(super) fn timer(&mut self, thread: usize, vm: u32, context: u32, generation: u64) {
        // The canary's timer outlives its thread.
        let Some(place) = self.threads.get(thread) else {
            return;
        };
        let root = place.roots.get(&context);
        if place.vm_id == Some(vm) && root.is_some_and(|root| root.generation == generation) {
            self.post(thread, Some(vm), Job::Tick { context });
        }
    }

    pub(super) fn wake_up(&mut self, vm: u32, context: u32, queue: u32) {
        let thread = self.threads.iter().position(|t| t.vm_id == Some(vm));
        match thread {
            Some(thread) => self.post(thread, Some(vm), Job::QueueReady { context, queue }),
            None => self.note("world", 8, || "a wake-up finds its VM dead".to_owned()),
        }
    }

    /// What traffic would do: a request for each worker, so that a dead VM comes back.
    pub(super) fn revive_workers(&mut self) {
        for thread in 1..self.threads.len() {
            self.probe(thread);
        }
    }

    /// The thread of the leader, as far as the lease says.
    pub(super) fn leader(&self) -> Option<usize> {
        let vm = self.hub.lock().checker.leader_vm()?;
        self.threads
            .iter()
            .position(|thread| thread.vm_id == Some(vm))
    }

    /// A listener update: one more root in every VM, and later the old ones go.
    pub(super) fn update_listener(&mut self, drain_ms: u64) {
        self.updates += 1;
        let number = self.updates;
        let mut json = self.scenario.config.clone();
        // Another configuration must differ in its bytes, and change nothing that the checker relies on.
        json["bypass_header"] = format!("x-bypass-{number}").into();
        self.reconfigure(json.to_string().into_bytes().into(), drain_ms);
    }

    /// The same, to the configuration that the run began with, or to one that comes back byte for byte.
    pub(super) fn alternate(&mut self, first: bool, drain_ms: u64) {
        let mut json = self.scenario.config.clone();
        if !first {
            json["bypass_header"] = "x-bypass-other".into();
        }
        self.reconfigure(json.to_string().into_bytes().into(), drain_ms);
    }

    /// From now on this is the plugin's configuration.
    pub(super) fn reconfigure(&mut self, configuration: Arc<[u8]>, drain_ms: u64) {
        self.configuration = Arc::clone(&configuration);
        for thread in 0..self.threads.len() {
            let Some(vm) = self.threads[thread].vm_id else {
                continue;
            };
            let place = &mut self.threads[thread];
            let all = place.roots.keys().copied();
            let old: Vec<u32> = all.filter(|root| !place.leaving.contains(root)).collect();
            place.leaving.extend(&old);
            let us = self.dice.random_range(10..=5_000);
            let job = Job::AddRoot {
                configuration: Arc::clone(&configuration),
            };
            let vm = Some(vm);
            self.after_us(us, Event::Post { thread, vm, job });
            for context in old {
                let job = Job::Drain { context };
                let us = drain_ms * 1000 + self.dice.random_range(10..=5_000);
                self.after_us(us, Event::Post { thread, vm, job });
            }
        }
    }
}
