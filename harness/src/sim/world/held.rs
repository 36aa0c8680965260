//! Requests that are held in a VM: until their root answers them, or lets them go on to Laravel.

use super::Sim;
use super::net::{IDLE, NetEvent, response};
use super::queue::Event;
use super::traffic::TrafficEvent;
use crate::sim::abi::Headers;
use crate::sim::host::{Acted, Body, Clock, Job, LocalReply, StreamFate, Waits};

/// The route's `idle_timeout`, as `envoy.yaml` has it, µs.
const IDLE_TIMEOUT_US: u64 = 20_000_000;

/// The root looks this often while it holds somebody, µs.
const POLL_US: u64 = embudo_core::ack::POLL_MS * 1000;

/// A stream that is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    thread: usize,
    vm: u32,
    waits: Waits,
}

fn outcome_of(headers: &Headers) -> String {
    let outcome = headers.iter().find(|(name, _)| name == "x-embudo");
    outcome.map_or(String::new(), |(_, value)| {
        String::from_utf8_lossy(value).into_owned()
    })
}

// === impl Sim ===

impl Sim {
    /// The guest answers a request by itself.
    pub(super) fn local_reply(&mut self, stream: u64, reply: LocalReply) {
        let clock = self.clock();
        let outcome = outcome_of(&reply.headers);
        self.note("envoy", stream, || {
            format!("request {stream} is answered {} {outcome}", reply.status)
        });
        let mut hub = self.hub.lock();
        hub.checker.stream_answered(
            clock,
            stream,
            reply.status,
            &outcome,
            &reply.headers,
            &reply.body,
        );
        drop(hub);
        self.outcome_is(stream, &outcome);
        self.answer_gateway(stream, reply.status, reply.body);
    }

    // ## => Waiting

    pub(super) fn stream_waits(&mut self, thread: usize, stream: u64, waits: Waits) {
        let Some(vm) = self.threads[thread].vm_id else {
            return;
        };
        self.note("envoy", stream, || format!("request {stream} waits"));
        let clock = self.clock();
        self.hub.lock().checker.stream_waits(clock, stream);
        let held = Held { thread, vm, waits };
        self.held.insert(stream, held);
        self.after_us(IDLE_TIMEOUT_US, Event::Net(NetEvent::Idle(stream)));
        if self.traffic.has_hung_up(stream) {
            self.lets_go(stream, StreamFate::hung_up(false));
        }
    }

    // ## Waiting => Answered

    /// A root has answered streams that it held, or has let them go on.
    pub(super) fn held_are_acted_on(&mut self, thread: usize, acts: Vec<(u32, Acted)>) {
        for (context, act) in acts {
            let of = |(_, held): &(&u64, &Held)| {
                held.thread == thread
                    && Some(held.vm) == self.threads[thread].vm_id
                    && held.waits.context == context
            };
            // Its caller was quicker.
            let Some(stream) = self.held.iter().find(of).map(|(stream, _)| *stream) else {
                continue;
            };
            self.held.remove(&stream);
            match act {
                Acted::Answered(Some(reply)) => self.local_reply(stream, reply),
                Acted::Answered(None) => {
                    let (now_us, what) = (self.now_us, format!("the answer to {stream} is held"));
                    self.hub.lock().checker.trapped(now_us, &what);
                }
                Acted::Resumed(passed) => {
                    self.note("envoy", stream, || format!("request {stream} goes on"));
                    self.request_passes(thread, stream, passed);
                }
            }
        }
    }

    /// The route's `idle_timeout` is over, and the stream is held still. A filter that is dead is not asked.
    pub(super) fn idles(&mut self, stream: u64) {
        let Some(Held { thread, vm, waits }) = self.held.remove(&stream) else {
            return;
        };
        self.note("envoy", stream, || format!("request {stream} has idled"));
        if self.threads[thread].vm_id != Some(vm) {
            return self.filter_is_dead(stream);
        }
        let answer = response(504, &[], IDLE);
        let job = Job::Respond {
            stream,
            context: waits.context,
            headers: answer.headers,
            body: Body {
                pieces: vec![answer.body],
                ..Body::default()
            },
            fate: StreamFate::idle(),
        };
        self.post(thread, Some(vm), job);
    }

    // ## Waiting => Gone

    /// The caller of a held request is gone; false where it is none.
    pub(super) fn lets_go(&mut self, stream: u64, fate: StreamFate) -> bool {
        let Some(Held { thread, vm, waits }) = self.held.remove(&stream) else {
            return false;
        };
        if self.threads[thread].vm_id == Some(vm) {
            let context = waits.context;
            let job = Job::HangUp {
                stream,
                context,
                fate,
            };
            self.post(thread, Some(vm), job);
        } else {
            self.stream_is_gone(stream);
        }
        true
    }

    /// A listener is drained: Envoy closes what connections it has left, of those that are held and of those that
    /// Laravel works for, without a byte.
    pub(super) fn closes_connections(&mut self, thread: usize, root: u32) {
        let vm = self.threads[thread].vm_id;
        let its = |held: &Held| (held.thread, Some(held.vm), held.waits.root) == (thread, vm, root);
        let held = self.held.iter().filter(|(_, held)| its(held));
        let mut streams: Vec<u64> = held.map(|(stream, _)| *stream).collect();
        streams.extend(self.streams_of(thread, vm, root));
        for stream in streams {
            self.traffic_event(TrafficEvent::Closed(stream));
        }
    }

    /// A VM is dead, and nobody will answer what it held: no callback tells of it, and the gateway waits until the
    /// route's `idle_timeout`, or until it gives up.
    pub(super) fn held_are_lost(&mut self, vm: u32) {
        let mut hub = self.hub.lock();
        for (stream, _) in self.held.iter().filter(|(_, held)| held.vm == vm) {
            hub.checker.stream_died(*stream);
        }
    }

    /// Whoever holds a request looks for what has become of its update, and a look that finds something, or that
    /// the time is over, answers. `ticked` is the root whose tick has just ended, and when it began.
    pub(super) fn held_are_looked_after(&mut self, thread: usize, ticked: Option<(u32, Clock)>) {
        let place = &self.threads[thread];
        let mut hub = self.hub.lock();
        let clock = hub.clock;
        let here = |held: &Held| held.thread == thread && Some(held.vm) == place.vm_id;
        for (stream, held) in self.held.iter().filter(|(_, held)| here(held)) {
            let root = place.roots.get(&held.waits.root);
            if root.is_some_and(|root| !(1..=POLL_US).contains(&root.period_us)) {
                hub.checker.nobody_looks(clock, *stream);
            }
            if let Some((_, began)) = ticked.filter(|(root, _)| *root == held.waits.root) {
                hub.checker.still_waits(clock, *stream, began);
            }
        }
    }
}
