//! What comes of a job: answers, and VMs that die.

use super::threads::Ended;
use super::{Arm, Sim};
use crate::sim::host::{JobResult, StreamEnd};

// === impl Sim ===

impl Sim {
    /// A job is over.
    pub(super) fn ended(&mut self, thread: usize, ended: Ended) {
        let Ended { vm, results, error } = ended;
        let ticked = self.threads[thread].ticking.take();
        let refused = self.threads[thread].answering.take();
        self.threads[thread].vm = vm;
        let stream = self.threads[thread].stream;
        for result in results {
            self.result(thread, result);
        }
        if let Some(((call, status, body), from_us)) = refused.filter(|_| error.is_none()) {
            let clock = self.clock();
            let mut hub = self.hub.lock();
            hub.checker
                .credential_is_refused(clock, (call, status, &body), from_us);
        }
        if let Some(error) = error {
            self.died(thread, stream, &error);
        } else if let Some((context, _)) = ticked {
            // Envoy arms the timer again once the handler is through.
            let root = self.threads[thread].roots.get(&context).copied();
            if let Some(root) = root {
                self.arm(thread, context, root.period_us);
            }
        }
        self.held_are_looked_after(thread, ticked);
        self.threads[thread].stream = None;
    }

    fn result(&mut self, thread: usize, result: JobResult) {
        match result {
            JobResult::Started { context, accepted } => {
                if !accepted {
                    let now_us = self.now_us;
                    let what = format!("root {context} refuses its configuration");
                    self.hub.lock().checker.trapped(now_us, &what);
                }
            }
            JobResult::Acted(acts) => self.held_are_acted_on(thread, acts),
            JobResult::Stream(stream, end) => self.stream_ends(thread, stream, end),
            JobResult::Drained { context, gone } => {
                self.note("world", u64::from(context), || {
                    format!("root {context} of thread {thread} is asked to go; gone: {gone}")
                });
                if gone {
                    self.threads[thread].roots.remove(&context);
                }
            }
        }
    }

    fn stream_ends(&mut self, thread: usize, stream: u64, end: StreamEnd) {
        let clock = self.clock();
        match end {
            StreamEnd::Answered(reply) => self.local_reply(stream, reply),
            StreamEnd::Waits(waits) => self.stream_waits(thread, stream, waits),
            StreamEnd::Passed(passed) => self.request_passes(thread, stream, passed),
            StreamEnd::Held => {
                let what = format!("request {stream} is held without an answer");
                self.hub.lock().checker.trapped(clock.mono_us, &what);
            }
            StreamEnd::Relayed(relayed) => self.relay(stream, &relayed),
            StreamEnd::Gone => self.stream_is_gone(stream),
        }
    }

    /// A VM is dead: its streams, its calls and its timers with it.
    fn died(&mut self, thread: usize, stream: Option<u64>, error: &wasmtime::Error) {
        let name = self.threads[thread].name();
        let injected = error.is::<crate::sim::abi::InjectedTrap>();
        self.note(&name, 99, || format!("traps: {error:#}"));
        if injected {
            *self.strikes.struck.entry("trapped").or_default() += 1;
        } else {
            let what = format!("{error:#}").replace('\n', " ");
            let now_us = self.now_us;
            self.arm.iter_mut().for_each(Arm::trapped);
            self.hub.lock().checker.trapped(now_us, &what);
        }
        let place = &mut self.threads[thread];
        place.vm = None;
        place.roots.clear();
        if let Some(vm) = place.vm_id.take() {
            self.forget_calls_of(vm);
            self.held_are_lost(vm);
        }
        if let Some(stream) = stream {
            self.hub.lock().checker.stream_died(stream);
            self.answer_gateway(stream, 503, bytes::Bytes::new());
        }
        if !self.threads[thread].inbox.is_empty() {
            self.due(thread, 5);
        }
    }
}
