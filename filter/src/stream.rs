//! One intercepted request.
//!
//! # What it costs
//!
//! A duplicate, or an implied state, takes six host calls: the headers as one buffer, the body as one copy,
//! a clock, one get from the store, one counter, the answer. A new value takes a put more (seven), and one
//! more each where the dispatcher has to be told and where it takes another's place (eight; a counter then).
//! A request that passes through takes three or four: the headers, the body if it came to that, a counter,
//! and the header on the answer. The first ring of a VM resolves the queue, and the first bypass for a reason
//! defines its metric: one more, once. `embudo cost` counts them, and a test holds them.
//!
//! What was read before is not read again: the core compares a request's headers and body with those of earlier ones
//! ([`embudo_core::route::KnownHeads`], [`embudo_core::route::KnownBodies`]), which is half of what a duplicate takes.
//!
//! Where the route's callers wait for what becomes of their updates, the answer comes from the root's tick; the
//! first of them to wait sets the timer, one call more.
//!
//! A read that is answered from the store takes five: the headers, a clock, one get, the answer, and a
//! counter. A credential costs one get more.

use std::rc::Rc;

use embudo_core::ack::{Told, Wait};
use embudo_core::config::Config;
use embudo_core::dispatch::{Counter, End};
use embudo_core::headers::{Header, Headers};
use embudo_core::intake::{self, Reply};
use embudo_core::kept::{self, Fetch, Found};
use embudo_core::passing::{self, Fate, Pass};
use embudo_core::route::{Asked, BODY_BYTES_MAX, Bypass, Numbered};
use embudo_core::sabotage::{self, Sabotage};
use log::warn;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::Plugin;
use crate::host;
use crate::stats::ReadOutcome;
use crate::store::SharedData;

/// A request, from its headers to its answer.
pub(crate) struct Stream {
    /// The host's name for it in this VM.
    id: u32,
    plugin: Rc<Plugin>,
    state: State,
}

enum State {
    /// Nothing is known yet.
    New,
    /// The headers fit a rule; the body is coming, and is held until it is whole.
    Collecting(Numbered),
    /// Untouched: Laravel answers.
    Passed(Bypass),
    /// Untouched, but with its session's claim: Laravel's answer settles it.
    Passing(Bypass, Pass),
    /// A read that Laravel answers.
    Asking(Fetch),
    /// Laravel's 200 to a read; its body is held until it is whole.
    Relaying(Fetch),
    /// Held until its update is settled; the root answers.
    Waiting,
    /// Answered here.
    Answered,
}

// === impl Stream ===

impl Stream {
    pub(crate) fn new(id: u32, plugin: Rc<Plugin>) -> Self {
        Self {
            id,
            plugin,
            state: State::New,
        }
    }

    // ## New | Collecting => Passed
    fn pass(&mut self, route: Option<usize>, reason: Bypass) -> Action {
        self.plugin.stats.borrow_mut().bypass(route, reason);
        self.state = State::Passed(reason);
        Action::Continue
    }

    // ## Collecting => Passed | Waiting | Answered
    //
    // Only once the request is whole: an answer before its end makes Envoy close the connection.
    fn decide(&mut self, body_size: usize) -> Action {
        let head = match std::mem::replace(&mut self.state, State::New) {
            State::Collecting(head) => head,
            // The trailers of a body that was too long: the request has passed, and stays so.
            decided => {
                self.state = decided;
                return Action::Continue;
            }
        };
        let body = self.get_http_request_body(0, body_size).unwrap_or_default();
        let plugin = Rc::clone(&self.plugin);
        let update = plugin
            .bodies
            .borrow_mut()
            .update(&plugin.rules, &head, &body);
        let update = match update {
            Ok(update) => update,
            Err(_) if sabotage::is(Sabotage::TrapOnBadJson) => std::process::abort(),
            Err(reason) => return self.pass(Some(head.route), reason),
        };
        let now = plugin.now();
        let taken = intake::take_in(
            &mut SharedData,
            &plugin.keys,
            &plugin.rules,
            &update,
            plugin.next_number(),
            plugin.circuit.get(),
            now,
        );
        // First the store, then the ring: a dispatcher that is woken finds what it was woken for.
        if let Some(shard) = taken.ring
            && !plugin.doorbell.ring(shard, update.priority, now.mono_ms)
        {
            plugin.poll();
        }
        let mut stats = plugin.stats.borrow_mut();
        for route in taken.superseded {
            stats.count(Counter::Items(route, End::Superseded), 1);
        }
        stats.reply(update.route, taken.reply);
        drop(stats);
        if let (Reply::Passing(reason), Some(pass)) = (taken.reply, taken.pass) {
            let late = host::mono_ms() > pass.send_by_ms;
            if late && !sabotage::is(Sabotage::PassAtAnyTime) {
                let now = plugin.now();
                passing::end(
                    &mut SharedData,
                    &plugin.keys,
                    &plugin.rules,
                    &pass,
                    Fate::Failed,
                    now,
                );
                return self.answer(Reply::Busy);
            }
            // The claim is made for a call of this length: Laravel may not take longer here either.
            self.let_take(plugin.rules.config.times.call_timeout_ms);
            self.state = State::Passing(reason, pass);
            return Action::Continue;
        }
        if let Some(wait) = taken.wait {
            if self.waits(wait) {
                return Action::Pause;
            }
            plugin.stats.borrow().told(update.route, None);
        }
        self.answer(taken.reply)
    }

    /// Holds the request until the root answers it; false where it holds too many already.
    fn waits(&mut self, wait: Wait) -> bool {
        let plugin = &self.plugin;
        let held = plugin.waiters.borrow_mut().hold(self.id, wait);
        if held {
            self.state = State::Waiting;
            plugin.poll();
        }
        held
    }

    /// Nobody is there any more to be answered by the root.
    fn waits_no_more(&self) {
        self.plugin.waiters.borrow_mut().forget(self.id);
    }

    /// How long Envoy's router gives Laravel for this request.
    fn let_take(&self, ms: u64) {
        self.set_http_request_header("x-envoy-upstream-rq-timeout-ms", Some(&ms.to_string()));
    }

    // ## New => Answered | Asking
    fn read(&mut self, asked: Asked) -> Action {
        let plugin = Rc::clone(&self.plugin);
        let index = asked.read;
        match kept::look(
            &mut SharedData,
            &plugin.keys,
            &plugin.rules,
            asked,
            plugin.circuit.get().is_down(),
            plugin.now(),
        ) {
            Found::Cached(body) => {
                plugin.stats.borrow().read(index, ReadOutcome::Cached);
                self.reply_read("cached", &body)
            }
            Found::Stale(body) => {
                plugin.stats.borrow().read(index, ReadOutcome::Stale);
                self.reply_read("stale", &body)
            }
            Found::Ask(fetch) => {
                // So that the answer is whole, and in a form that can be kept and patched.
                for name in ["accept-encoding", "if-none-match", "if-modified-since"] {
                    self.set_http_request_header(name, None);
                }
                if fetch.has_kept {
                    self.let_take(plugin.rules.config.kept.refresh_timeout_ms);
                }
                self.state = State::Asking(fetch);
                Action::Continue
            }
        }
    }

    fn reply_read(&mut self, outcome: &str, body: &[u8]) -> Action {
        self.state = State::Answered;
        reply(200, outcome, body);
        Action::Pause
    }

    // ## Asking => Answered | Relaying | Passed
    fn read_is_answered(&mut self, fetch: Fetch) -> Action {
        let plugin = Rc::clone(&self.plugin);
        let (status, from_upstream) = self.response_head();
        let failed = !from_upstream || status.is_none_or(|status| status >= 500);
        if failed
            && let Some(body) = kept::stale(
                &mut SharedData,
                &plugin.keys,
                &plugin.rules,
                &fetch,
                plugin.now(),
            )
        {
            plugin
                .stats
                .borrow()
                .read(fetch.asked.read, ReadOutcome::Stale);
            return self.reply_read("stale", &body);
        }
        plugin
            .stats
            .borrow()
            .read(fetch.asked.read, ReadOutcome::Fresh);
        self.set_http_response_header("x-embudo", Some("fresh"));
        let refused = from_upstream && matches!(status, Some(401 | 403 | 404 | 410));
        if refused {
            kept::refused(&mut SharedData, &plugin.keys, &plugin.rules, &fetch);
        }
        if status != Some(200) || !from_upstream || !self.is_plain_json() {
            self.state = State::Answered;
            return Action::Continue;
        }
        self.state = State::Relaying(fetch);
        Action::Pause
    }

    /// Whether a response is JSON that can be read as it is, and not too long to be held.
    fn is_plain_json(&self) -> bool {
        let header = |name| self.get_http_response_header_bytes(name);
        let length = header("content-length")
            .and_then(|bytes| String::from_utf8(bytes).ok()?.parse::<usize>().ok());
        let json = header("content-type").is_some_and(|value| {
            value
                .windows(5)
                .any(|part| part == b"/json" || part == b"+json")
        });
        json && header("content-encoding").is_none()
            && length.is_none_or(|length| length <= RELAYED_BYTES_MAX)
    }

    // ## Relaying => Answered
    fn relay(&mut self, body_size: usize) -> Action {
        let fetch = match std::mem::replace(&mut self.state, State::Answered) {
            State::Relaying(fetch) => fetch,
            decided => {
                self.state = decided;
                return Action::Continue;
            }
        };
        let plugin = Rc::clone(&self.plugin);
        let body = self
            .get_http_response_body(0, body_size)
            .unwrap_or_default();
        let patched = kept::answered(
            &mut SharedData,
            &plugin.keys,
            &plugin.rules,
            &fetch,
            &body,
            plugin.now(),
        );
        if let Some(patched) = patched {
            self.set_http_response_header("content-length", Some(&patched.len().to_string()));
            self.set_http_response_body(0, body_size, &patched);
        }
        Action::Continue
    }

    /// Status, and whether it is Laravel's own.
    fn response_head(&self) -> (Option<u16>, bool) {
        let status = self
            .get_http_response_header_bytes(":status")
            .and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
        let served = self.get_http_response_header_bytes("x-envoy-upstream-service-time");
        (status, served.is_some())
    }

    // ## Passing => Answered
    fn pass_is_answered(&mut self, pass: &Pass, body: &[u8]) {
        let plugin = Rc::clone(&self.plugin);
        let (status, from_upstream) = self.response_head();
        passing::end(
            &mut SharedData,
            &plugin.keys,
            &plugin.rules,
            pass,
            Fate::of(status, from_upstream, body),
            plugin.now(),
        );
        self.state = State::Answered;
    }

    fn answer(&mut self, answer: Reply) -> Action {
        let status = self.plugin.rules.config.answer_status;
        let (status, outcome, body): (u16, &str, &[u8]) = match answer {
            Reply::Pass(reason) => {
                // Counted already.
                self.state = State::Passed(reason);
                return Action::Continue;
            }
            Reply::Queued => (status, "queued", br#"{"success":true,"queued":true}"#),
            Reply::Passing(_) => return Action::Continue,
            Reply::Stale => (
                status,
                "stale",
                br#"{"success":true,"skipped":true,"reason":"stale"}"#,
            ),
            Reply::Duplicate => (status, "duplicate", SKIPPED),
            Reply::Implied => (status, "implied", SKIPPED),
            Reply::Busy => (
                503,
                "busy",
                br#"{"success":false,"message":"busy, try again"}"#,
            ),
        };
        self.state = State::Answered;
        reply(status, outcome, body);
        Action::Pause
    }
}

/// Longest answer to a read that is held so that it can be patched, bytes: well below the connection's
/// buffer, beyond which Envoy would answer 500. What is longer is relayed as it is.
const RELAYED_BYTES_MAX: usize = 64 * 1024;

/// As Laravel answers what it skips.
const SKIPPED: &[u8] = br#"{"success":true,"skipped":true,"reason":"duplicate"}"#;

/// Answers the stream whose context is in effect.
pub(crate) fn tell(told: Told, config: &Config) {
    let (status, body) = told.answer(config);
    reply(status, told.label(), body);
}

/// An answer of Embudo's own. Whoever is asked to try again is told when.
fn reply(status: u16, outcome: &str, body: &[u8]) {
    let headers: [Header<'_>; 3] = [
        (b"content-type", b"application/json"),
        (b"x-embudo", outcome.as_bytes()),
        (b"retry-after", b"1"),
    ];
    let headers = if status == 503 {
        &headers
    } else {
        &headers[..2]
    };
    if !host::answer(status, headers, body) {
        warn!("an answer was refused: {status} {outcome}");
    }
}

impl Context for Stream {
    fn on_done(&mut self) -> bool {
        if matches!(self.state, State::Waiting) {
            self.waits_no_more();
        }
        true
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let buffer = host::request_headers();
        let rules = &self.plugin.rules;
        if end_of_stream && let Some(asked) = rules.asked(Headers::new(&buffer)) {
            return self.read(asked);
        }
        let head = self.plugin.heads.borrow_mut().head(rules, buffer);
        match head {
            Err(reason) => self.pass(None, reason),
            Ok(head) if end_of_stream => self.pass(Some(head.route), Bypass::Empty),
            Ok(head) => {
                self.state = State::Collecting(head);
                // With allow_on_headers_stop_iteration this holds the headers and lets the body come.
                Action::Pause
            }
        }
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        let State::Collecting(head) = &self.state else {
            return Action::Continue;
        };
        if body_size > BODY_BYTES_MAX {
            let route = head.route;
            return self.pass(Some(route), Bypass::TooLarge);
        }
        match end_of_stream {
            true => self.decide(body_size),
            false => Action::Pause,
        }
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        // A request with trailers never has its end in the body callback. The body is still readable.
        self.decide(BODY_BYTES_MAX)
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        // Runs for our own answers too, which carry the header already.
        match std::mem::replace(&mut self.state, State::Answered) {
            State::Passed(reason) => {
                self.set_http_response_header("x-embudo", Some(&format!("bypass; {reason}")));
            }
            State::Passing(reason, pass) => {
                self.set_http_response_header("x-embudo", Some(&format!("passing; {reason}")));
                let (status, from_upstream) = self.response_head();
                // Envoy's own answer says in its body whether anything was sent.
                match status == Some(503) && !from_upstream && !end_of_stream {
                    true => {
                        self.state = State::Passing(reason, pass);
                        return Action::Pause;
                    }
                    false => self.pass_is_answered(&pass, b""),
                }
            }
            State::Asking(fetch) => {
                let action = self.read_is_answered(fetch);
                if !end_of_stream || matches!(self.state, State::Answered) {
                    return action;
                }
                // A 200 without a body.
                self.state = State::Answered;
            }
            // The root's answer, or Envoy's own.
            State::Waiting => self.waits_no_more(),
            State::New | State::Collecting(_) | State::Relaying(_) | State::Answered => {}
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        match std::mem::replace(&mut self.state, State::Answered) {
            State::Relaying(fetch) => self.state = State::Relaying(fetch),
            State::Passing(_, pass) => {
                let body = self
                    .get_http_response_body(0, body_size)
                    .unwrap_or_default();
                self.pass_is_answered(&pass, &body);
                return Action::Continue;
            }
            decided => {
                self.state = decided;
                return Action::Continue;
            }
        }
        if body_size > RELAYED_BYTES_MAX {
            self.state = State::Answered;
            return Action::Continue;
        }
        match end_of_stream {
            true => self.relay(body_size),
            false => Action::Pause,
        }
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.relay(RELAYED_BYTES_MAX)
    }
}
