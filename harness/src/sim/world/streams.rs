//! Requests that pass the filter: on to Laravel, back through the filter, and callers that hang up on them.

use bytes::Bytes;
use rand::RngExt;

use super::Sim;
use super::net::{Client, to_request};
use crate::model::http::{Kind, Request, Response as LaravelResponse};
use crate::model::laravel::Reply;
use crate::sim::abi::Headers;
use crate::sim::check::{Said, Transition, dress, reader_of, token_of};
use crate::sim::host::{Body, Job, Passed, Relayed, Response, StreamFate};

/// Envoy's route timeout, as `envoy.yaml` has it.
const ROUTE_TIMEOUT_MS: u64 = 15_000;

/// What the router takes for the request's timeout, in the place of the route's.
const TIMEOUT_HEADER: &str = "x-envoy-upstream-rq-timeout-ms";

/// What Envoy answers for a filter whose VM is dead: 503, and nothing more.
const DEAD: u16 = 503;

/// A stream that has passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    thread: usize,
    vm: u32,
    context: u32,
    root: u32,
    exchange: u64,
}

pub(super) fn text<'h>(headers: &'h Headers, name: &str) -> Option<&'h str> {
    let (_, value) = headers.iter().find(|(known, _)| known == name)?;
    std::str::from_utf8(value).ok()
}

// === impl Sim ===

impl Sim {
    /// A request passes through to Laravel, as the filter has left it.
    pub(super) fn request_passes(&mut self, thread: usize, stream: u64, passed: Passed) {
        let Some(vm) = self.threads[thread].vm_id else {
            return;
        };
        let clock = self.clock();
        let had_body = self.traffic.had_body(stream);
        let call = {
            let mut hub = self.hub.lock();
            hub.checker
                .stream_passes(clock, (vm, stream), had_body, &passed.headers)
        };
        let Passed {
            context,
            root,
            mut headers,
            body,
        } = passed;
        let timeout_ms = text(&headers, TIMEOUT_HEADER).and_then(|ms| ms.parse().ok());
        headers.retain(|(name, _)| !name.starts_with("x-envoy-"));
        let request = to_request(headers, body);
        let bound_us = call.map(|_| self.bound_us()).filter(|_| self.arm.is_none());
        let client = Client::Stream { stream, call };
        let timeout_ms = match timeout_ms {
            // The header's way to say "no limit".
            Some(0) => ROUTE_TIMEOUT_MS * 1_000,
            timeout_ms => timeout_ms.unwrap_or(ROUTE_TIMEOUT_MS),
        };
        let exchange = self.send(client, request, timeout_ms, bound_us);
        let waiting = Waiting {
            thread,
            vm,
            context,
            root,
            exchange,
        };
        self.net.waiting.insert(stream, waiting);
        if self.traffic.has_hung_up(stream) {
            self.hangs_up(stream);
        }
    }

    /// Laravel's answer, or Envoy's own for the lack of one, is on its way back to the gateway.
    pub(super) fn stream_is_answered(
        &mut self,
        stream: u64,
        response: Response,
        fate: StreamFate,
        cut: bool,
    ) {
        let Some(waiting) = self.net.waiting.remove(&stream) else {
            return;
        };
        let Waiting {
            thread,
            vm,
            context,
            ..
        } = waiting;
        if self.threads[thread].vm_id != Some(vm) {
            return self.filter_is_dead(stream);
        }
        let own = text(&response.headers, "x-envoy-upstream-service-time").is_some();
        let is_page = text(&response.headers, "content-type").is_some_and(|of| of.contains("html"));
        let given = response.status().filter(|_| own && !is_page);
        {
            let clock = self.clock();
            let mut hub = self.hub.lock();
            hub.checker.read_is_given(stream, given);
            hub.checker.other_is_given(clock, stream);
            if let Some(status) = given {
                hub.checker.batch_is_given(stream, status, &response.body);
            }
        }
        let body = self.in_pieces(response.body, cut);
        let job = Job::Respond {
            stream,
            context,
            headers: response.headers,
            body,
            fate,
        };
        self.post(thread, Some(vm), job);
    }

    /// An answer comes whole, mostly; sometimes in pieces.
    fn in_pieces(&mut self, whole: Bytes, cut: bool) -> Body {
        let pieces = match (whole.is_empty(), self.dice.random_ratio(1, 3)) {
            (true, _) => Vec::new(),
            (false, false) => vec![whole],
            (false, true) => {
                let at = self.dice.random_range(0..=whole.len());
                vec![whole.slice(..at), whole.slice(at..)]
            }
        };
        Body {
            pieces,
            trailers: false,
            cut,
        }
    }

    /// Laravel's answer has been through the filter.
    pub(super) fn relay(&mut self, stream: u64, relayed: &Relayed) {
        let Relayed {
            headers, body, cut, ..
        } = relayed;
        let (now_us, clock) = (self.now_us, self.clock());
        let outcome = text(headers, "x-embudo").unwrap_or("").to_owned();
        if outcome.is_empty() && !*cut {
            let what = format!("the answer to request {stream} does not say why it passed");
            self.hub.lock().checker.trapped(now_us, &what);
        }
        let length = text(headers, "content-length").and_then(|length| length.parse().ok());
        if length.is_some_and(|length: usize| length != body.len()) && !*cut {
            let what = format!(
                "the answer to request {stream} has {} bytes and promises {length:?}",
                body.len()
            );
            self.hub.lock().checker.trapped(now_us, &what);
        }
        let status = match cut {
            true => 0,
            false => text(headers, ":status")
                .and_then(|s| s.parse().ok())
                .unwrap_or(0),
        };
        self.note("envoy", stream, || {
            let shown = String::from_utf8_lossy(body);
            format!("request {stream} is answered {status} {outcome}: {shown}")
        });
        let mut hub = self.hub.lock();
        hub.checker
            .stream_relayed(clock, stream, status, &outcome, relayed);
        drop(hub);
        self.outcome_is(stream, &outcome);
        self.answer_gateway(stream, status, body.clone());
    }

    /// The VM that the stream was in has died since.
    pub(super) fn filter_is_dead(&mut self, stream: u64) {
        self.hub.lock().checker.stream_died(stream);
        self.answer_gateway(stream, DEAD, Bytes::new());
    }

    /// The streams at Laravel that came in by a root's listener.
    pub(super) fn streams_of(&self, thread: usize, vm: Option<u32>, root: u32) -> Vec<u64> {
        let its = |w: &Waiting| (w.thread, Some(w.vm), w.root) == (thread, vm, root);
        let all = self.net.waiting.iter().filter(|(_, waiting)| its(waiting));
        all.map(|(stream, _)| *stream).collect()
    }

    // ## => Gone

    /// A caller has hung up. Envoy resets what it has under way for him; Laravel does not notice.
    pub(super) fn hangs_up(&mut self, stream: u64) {
        self.connection_ends(stream, StreamFate::hung_up);
    }

    /// A caller's connection has ended, whoever ended it. `fate` is told whether Laravel had the request.
    pub(super) fn connection_ends(&mut self, stream: u64, fate: fn(bool) -> StreamFate) {
        if !self.traffic.hangs_up(stream) {
            return;
        }
        if self.lets_go(stream, fate(false)) {
            return self.note("gateway", stream, || {
                format!("hangs up on request {stream}")
            });
        }
        let Some(waiting) = self.net.waiting.remove(&stream) else {
            // Not there yet, or on its way back: where it would go on, it ends.
            return;
        };
        self.note("gateway", stream, || {
            format!("hangs up on request {stream}")
        });
        if let Some(exchange) = self.net.exchanges.get_mut(&waiting.exchange) {
            exchange.open = false;
            let call = match &exchange.client {
                Client::Stream { call, .. } => *call,
                _ => None,
            };
            if let Some(call) = call {
                let mut hub = self.hub.lock();
                let clock = hub.clock;
                hub.checker.call_ends(clock, call, None);
            }
        }
        self.net.retire(waiting.exchange);
        let Waiting {
            thread,
            vm,
            context,
            ..
        } = waiting;
        if self.threads[thread].vm_id == Some(vm) {
            let fate = fate(true);
            let job = Job::HangUp {
                stream,
                context,
                fate,
            };
            self.post(thread, Some(vm), job);
        } else {
            self.stream_is_gone(stream);
        }
    }

    /// Nobody waits for the stream any more.
    pub(super) fn stream_is_gone(&mut self, stream: u64) {
        let mut hub = self.hub.lock();
        hub.checker.coverage.count(Transition::HungUp);
        hub.checker.stream_died(stream);
        drop(hub);
        self.traffic.forget(stream);
    }

    /// Laravel's answer to a read is given a mark, so that whoever shows it later can be held to it: byte
    /// for byte, under the credential it was given to, and not older than it may be.
    pub(super) fn as_served(&mut self, client: &Client, reply: Reply) -> Reply {
        let Client::Stream { stream, .. } = client else {
            return reply;
        };
        let Some((request, _)) = self.traffic.request_of(*stream) else {
            return reply;
        };
        let is_read = self.net.laravel.kind(request) == Kind::GetStatus;
        match reply {
            Reply::Whole(answer) if is_read => {
                let marked = match self.has_scripted_reads() {
                    true => answer.clone(),
                    false => mark(&answer, request),
                };
                let said = Said {
                    status: marked.status,
                    headers: &marked.headers,
                    body: &marked.body,
                };
                let mut hub = self.hub.lock();
                hub.checker.laravel_serves(self.now_us, *stream, said);
                drop(hub);
                Reply::Whole(marked)
            }
            other => other,
        }
    }

    /// Laravel ends what it has begun by then, where something depends on it.
    pub(super) fn bound_us(&self) -> u64 {
        let bound_ms = self.timers.call_timeout + self.timers.late;
        self.now_us + bound_ms * 1000 - super::net::BOUND_MARGIN_US
    }
}

/// A 200 says whom it is for.
fn mark(answer: &LaravelResponse, request: &Request) -> LaravelResponse {
    let mut marked = answer.clone();
    if answer.status == 200 {
        let path = request.path.split('?').next().unwrap_or_default();
        let whose = [path, &token_of(request), &reader_of(request)].concat();
        let mark = whose.bytes().fold(7_u64, |mark, byte| {
            (mark.wrapping_mul(31) ^ u64::from(byte)) % 1_000_000
        });
        if let Some(body) = dress(&answer.body, mark) {
            marked.body = body.into();
        }
    }
    marked
}
