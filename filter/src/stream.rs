//! One intercepted request.
//!
//! # What it costs
//!
//! A duplicate, or an implied state, takes seven host calls: the headers as one map, the body as one copy,
//! two clocks, one get from the store, one counter, the answer. A new value takes a put more (eight), and one
//! more each where the dispatcher has to be told and where it takes another's place (nine; a counter then).
//! A request that passes through takes three or four: the headers, the body if it came to that, a counter,
//! and the header on the answer. The first ring of a VM resolves the queue, and the first bypass for a reason
//! defines its metric: one more, once. `embudo cost` counts them, and a test holds them.

use std::rc::Rc;

use embudo_core::dispatch::{Counter, End};
use embudo_core::intake::{self, Reply};
use embudo_core::route::{BODY_BYTES_MAX, Bypass, Head};
use embudo_core::sabotage::{self, Sabotage};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::Plugin;
use crate::host;
use crate::store::SharedData;

/// A request, from its headers to its answer.
pub(crate) struct Stream {
    plugin: Rc<Plugin>,
    state: State,
}

enum State {
    /// Nothing is known yet.
    New,
    /// The headers fit a rule; the body is coming, and is held until it is whole.
    Collecting(Head),
    /// Untouched: Laravel answers.
    Passed(Bypass),
    /// Answered here.
    Answered,
}

// === impl Stream ===

impl Stream {
    pub(crate) fn new(plugin: Rc<Plugin>) -> Self {
        Self {
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

    // ## Collecting => Passed | Answered
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
        let update = match plugin.rules.update(&head, &body) {
            Ok(update) => update,
            Err(_) if sabotage::is(Sabotage::TrapOnBadJson) => std::process::abort(),
            Err(reason) => return self.pass(Some(head.route), reason),
        };
        let taken = intake::take_in(
            &mut SharedData,
            &plugin.keys,
            &plugin.rules,
            &update,
            host::now(),
        );
        // First the store, then the ring: a dispatcher that is woken finds what it was woken for.
        if let Some(shard) = taken.ring {
            plugin.doorbell.ring(shard);
        }
        let mut stats = plugin.stats.borrow_mut();
        for route in taken.superseded {
            stats.count(Counter::Items(route, End::Superseded), 1);
        }
        stats.reply(head.route, taken.reply);
        drop(stats);
        self.answer(taken.reply)
    }

    fn answer(&mut self, reply: Reply) -> Action {
        let status = u32::from(self.plugin.rules.config.answer_status);
        let (status, outcome, body): (u32, &str, &[u8]) = match reply {
            Reply::Pass(reason) => {
                // Counted already.
                self.state = State::Passed(reason);
                return Action::Continue;
            }
            Reply::Queued => (status, "queued", br#"{"success":true,"queued":true}"#),
            Reply::Duplicate => (status, "duplicate", SKIPPED),
            Reply::Implied => (status, "implied", SKIPPED),
            Reply::Busy => (
                503,
                "busy",
                br#"{"success":false,"message":"busy, try again"}"#,
            ),
        };
        let mut headers = vec![("content-type", "application/json"), ("x-embudo", outcome)];
        if reply == Reply::Busy {
            headers.push(("retry-after", "1"));
        }
        self.state = State::Answered;
        self.send_http_response(status, headers, Some(body));
        Action::Pause
    }
}

/// As Laravel answers what it skips.
const SKIPPED: &[u8] = br#"{"success":true,"skipped":true,"reason":"duplicate"}"#;

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let head = self
            .plugin
            .rules
            .head(&self.get_http_request_headers_bytes());
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

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        // Runs for our own answers too, which carry the header already.
        if let State::Passed(reason) = self.state {
            self.set_http_response_header("x-embudo", Some(&format!("bypass; {reason}")));
        }
        Action::Continue
    }
}
