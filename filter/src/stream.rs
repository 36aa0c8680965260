//! One intercepted request.
//!
//! # What it costs
//!
//! A duplicate, or an implied state, takes six host calls: the headers as one buffer, the body as one copy,
//! a clock, one get from the store, one counter, the answer. A new value takes a put more (seven), and one
//! more each where the dispatcher has to be told and where it takes another's place (eight; a counter then).
//! A request that is bypassed takes three or four: the headers, the body if it came to that, a counter,
//! and the header on the answer. Where its session can be seen all the same, it takes a clock and a get more: what is
//! known of that session must not be overtaken. The first ring of a VM resolves the queue, and the first bypass for a reason
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

mod barrier;
mod batch;

use std::rc::Rc;

use embudo_core::ack::{Told, Wait};
use embudo_core::config::Config;
use embudo_core::headers::{Header, Headers};
use embudo_core::hold::{Gone, Waiting};
use embudo_core::intake::{self, Reply, Taken};
use embudo_core::kept::{self, Answered, Fetch, Found, Fresh, Given};
use embudo_core::proof::{Ended, Standing, Subject, Turn, Word};
use embudo_core::route::{
    Asked, BATCH_BYTES_MAX, BODY_BYTES_MAX, Barred, BatchHead, Bypass, Bypassed, Numbered, Said,
};
use embudo_core::sabotage::{self, Sabotage};
use embudo_core::verdict::Voice;
use embudo_core::write_through::{Again, Answerer, Fate, WriteThrough};
use embudo_dispatch::Counter;
use log::warn;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use self::batch::OnItsWay;
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
    Bypassed(Bypass),
    /// Held until it is its turn; the root lets it go on.
    Held,
    /// Untouched, but with its session's claim: Laravel's answer settles it.
    WritingThrough(Bypass, Box<WriteThrough>),
    /// Laravel's 2xx to it, which its body may take back: that is held until it is whole.
    Judging(Option<u16>, Box<WriteThrough>),
    /// The headers are those of a batch of the gateway's own; its body is held until it is whole.
    Gathering(Box<BatchHead>),
    /// Such a batch, as it came.
    PassingBatch(Box<OnItsWay>),
    /// Laravel's 2xx to it, as in `Judging`.
    JudgingBatch(Option<u16>, Box<OnItsWay>),
    /// A barrier's request, which waits, or is on its way to Laravel; whether it was held.
    Barred(Barred, bool),
    /// A read that Laravel answers.
    Asking(Box<Fetch>),
    /// Laravel's 200 to a read, what is kept of its headers, and whether it may be kept; its body is held until it is
    /// whole.
    Relaying(Box<Fetch>, Vec<u8>, bool),
    /// Held until its update is settled; the root answers.
    Waiting,
    /// Answered here.
    Answered,
}

/// The form of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// JSON that can be read as it is, and is not too long to be held.
    Plain,
    /// Whatever else may be Laravel's.
    Opaque,
    /// A page: of a proxy, or of an application that renders one.
    Foreign,
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

    // ## New => Bypassed | Gathering | Barred
    //
    // No rule knows it: it may be a batch of the gateway's own, or wait for what one does know.
    fn other(&mut self, reason: Bypass, buffer: &[u8], end_of_stream: bool) -> Action {
        let plugin = Rc::clone(&self.plugin);
        let (rules, headers) = (&plugin.rules, Headers::new(buffer));
        if reason != Bypass::Path {
            return self.pass(None, reason);
        }
        match rules.batch_head(headers.clone()) {
            Some(Ok(head)) if end_of_stream => self.pass(Some(head.route()), Bypass::Empty),
            Some(Ok(head)) => {
                self.state = State::Gathering(Box::new(head));
                Action::Pause
            }
            Some(Err((route, reason))) => self.pass(Some(route), reason),
            None => match rules.barred(headers) {
                Some(barred) => self.stop(barred),
                None => self.pass(None, reason),
            },
        }
    }

    // ## New | Collecting => Bypassed
    fn pass(&mut self, route: Option<usize>, reason: Bypass) -> Action {
        self.plugin.stats.borrow_mut().bypass(route, reason);
        self.state = State::Bypassed(reason);
        Action::Continue
    }

    // ## Collecting => Bypassed | WritingThrough | Waiting | Answered
    //
    // Only once the request is whole: an answer before its end makes Envoy close the connection.
    fn decide(&mut self, body_size: usize) -> Action {
        let head = match std::mem::replace(&mut self.state, State::New) {
            State::Collecting(head) => head,
            // The trailers of a body that was too long: the request is on its way, and stays so.
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
            Err(bypassed) => return self.bypass(head.route, &bypassed, &body),
        };
        let now = plugin.now();
        let holding = plugin.holding.borrow();
        let mut worker = plugin.worker(&holding, &update.subject, now);
        // One at a time, while its caller is being proven.
        let proves = worker.view.standing == Standing::Unproven;
        let turn = match proves {
            true => plugin.proving.borrow_mut().begin(&update.subject, self.id),
            false => Turn::Go,
        };
        worker.may_send = turn == Turn::Go;
        let (store, keys) = (&mut SharedData, &plugin.keys);
        let taken = intake::take_in(store, keys, &plugin.rules, &update, &worker, now);
        drop(holding);
        // First the store, then the ring: a dispatcher that is woken finds what it was woken for.
        if let Some(shard) = taken.ring
            && !plugin.doorbell.ring(shard, update.priority, now.mono_ms)
        {
            plugin.poll();
        }
        let mut stats = plugin.stats.borrow_mut();
        for (route, end) in taken.superseded.ends() {
            stats.count(Counter::Items(route, end), 1);
        }
        stats.reply(update.route, taken.reply);
        drop(stats);
        match taken.reply {
            Reply::WriteThrough(_) | Reply::Outside(_) | Reply::Held(_) => {
                let again = taken.place.map(|_| Again::of(&update));
                let is_proving = turn == Turn::Hold;
                return self.write_through(taken, update.said, again, is_proving);
            }
            _ => {}
        }
        if proves {
            plugin.proving_ended(self.id, Ended::Other);
        }
        if let Some(wait) = taken.wait {
            if self.waits(wait) {
                return Action::Pause;
            }
            plugin.stats.borrow().told(update.route, None);
        }
        self.answer(taken.reply)
    }

    // ## Collecting => Bypassed | WritingThrough | Held
    //
    // Not ours to answer; but where something of its session is known, it must not be overtaken by what is queued.
    fn bypass(&mut self, route: usize, bypassed: &Bypassed, body: &[u8]) -> Action {
        if bypassed.seen.is_none() {
            return self.pass(Some(route), bypassed.reason);
        }
        let plugin = Rc::clone(&self.plugin);
        let now = plugin.now();
        let holding = plugin.holding.borrow();
        let worker = |subject: &Subject| plugin.worker(&holding, subject, now);
        let (store, keys, rules) = (&mut SharedData, &plugin.keys, &plugin.rules);
        let taken = intake::take_seen(store, keys, rules, bypassed, body, worker, now);
        drop(holding);
        let Some(seen) = bypassed.seen.filter(|_| taken.is_through()) else {
            return match taken.reply {
                Reply::Busy => {
                    plugin.stats.borrow_mut().reply(route, Reply::Busy);
                    self.answer(Reply::Busy)
                }
                _ => self.pass(Some(route), bypassed.reason),
            };
        };
        if let Some(shard) = taken.ring
            && !plugin.doorbell.ring(shard, true, now.mono_ms)
        {
            plugin.poll();
        }
        plugin.stats.borrow_mut().reply(seen.route, taken.reply);
        let said = Said::of_seen(&seen, bypassed.reason, body, rules);
        let again = Again {
            body: body.to_vec(),
            ..Again::default()
        };
        self.write_through(taken, said, Some(again), false)
    }

    // ## Collecting => WritingThrough | Held
    fn write_through(
        &mut self,
        taken: Taken,
        said: Said,
        again: Option<Again>,
        is_proving: bool,
    ) -> Action {
        let plugin = Rc::clone(&self.plugin);
        let is_seen = taken.is_seen;
        if let (Reply::Held(reason), Some((place, is_stranger)), Some(again)) =
            (taken.reply, taken.place, again)
        {
            let waiting = Waiting {
                stream: self.id,
                said,
                again,
                reason,
                is_stranger,
                is_seen,
                is_proving,
                place,
            };
            plugin.holding.borrow_mut().hold(&plugin.rules, waiting);
            plugin.stats.borrow().held(1);
            plugin.poll();
            self.state = State::Held;
            return Action::Pause;
        }
        if is_proving {
            // It does not wait.
            plugin.proving.borrow_mut().forget(self.id);
        }
        let (Reply::WriteThrough(reason) | Reply::Outside(reason), Some(through)) =
            (taken.reply, taken.through)
        else {
            return Action::Continue;
        };
        plugin.holding.borrow_mut().sent();
        // A bypass keeps its route's own time, and is untouched.
        if !is_seen {
            // So that its answer can be read.
            self.set_http_request_header("accept-encoding", None);
            // The claim is made for a call of this length: Laravel may not take longer here either.
            let times = &plugin.rules.config.times;
            let Some(ms) = through.may_take(times.call_timeout_ms, times, host::mono_ms()) else {
                self.end(&through, Fate::NeverHad);
                return self.answer(Reply::Busy);
            };
            self.let_take(ms);
        }
        self.state = State::WritingThrough(reason, Box::new(through));
        Action::Continue
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
            &mut plugin.proofs.borrow_mut(),
            asked,
            plugin.circuit.get().is_down(),
            plugin.now(),
        ) {
            Found::Cached(given) => {
                plugin.stats.borrow().read(index, ReadOutcome::Cached);
                self.reply_read("cached", &given)
            }
            Found::Stale(given) => {
                plugin.stats.borrow().read(index, ReadOutcome::Stale);
                self.reply_read("stale", &given)
            }
            Found::Ask(fetch) => {
                // So that the answer is whole, and in a form that can be kept and patched.
                for name in ["accept-encoding", "if-none-match", "if-modified-since"] {
                    self.set_http_request_header(name, None);
                }
                if fetch.has_kept {
                    self.let_take(plugin.rules.config.kept.refresh_timeout_ms);
                }
                self.state = State::Asking(Box::new(fetch));
                Action::Continue
            }
        }
    }

    fn reply_read(&mut self, outcome: &str, given: &Given) -> Action {
        self.state = State::Answered;
        reply(200, outcome, &given.headers, &given.body);
        Action::Pause
    }

    // ## Asking => Answered | Relaying
    fn read_is_answered(&mut self, fetch: Box<Fetch>) -> Action {
        let plugin = Rc::clone(&self.plugin);
        let (status, from_upstream) = self.response_head();
        let of = self.form();
        let is_failure = |status| matches!(status, 408 | 425 | 429 | 500..);
        let failed = !from_upstream || status.is_none_or(is_failure) || of == Form::Foreign;
        if failed
            && let Some(given) = kept::stale(
                &mut SharedData,
                &plugin.keys,
                &plugin.rules,
                &mut plugin.proofs.borrow_mut(),
                &fetch,
                plugin.now(),
            )
        {
            plugin
                .stats
                .borrow()
                .read(fetch.asked.read, ReadOutcome::Stale);
            return self.reply_read("stale", &given);
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
        if status != Some(200) || !from_upstream || of != Form::Plain {
            self.state = State::Answered;
            return Action::Continue;
        }
        let (headers, may_keep) = self.kept_headers();
        self.state = State::Relaying(fetch, headers, may_keep);
        Action::Pause
    }

    /// In what form Laravel, or something before it, has answered a read.
    fn form(&self) -> Form {
        let header = |name| self.get_http_response_header_bytes(name);
        let length = header("content-length")
            .and_then(|bytes| String::from_utf8(bytes).ok()?.parse::<usize>().ok());
        let holds = |value: &[u8], part: &[u8]| value.windows(part.len()).any(|at| at == part);
        match header("content-type") {
            // As a proxy's page is.
            Some(value) if holds(&value, b"text/html") => Form::Foreign,
            Some(value) if holds(&value, b"/json") || holds(&value, b"+json") => {
                let is_short = length.is_none_or(|length| length <= RELAYED_BYTES_MAX);
                match header("content-encoding").is_none() && is_short {
                    true => Form::Plain,
                    false => Form::Opaque,
                }
            }
            _ => Form::Opaque,
        }
    }

    /// What is kept of the headers of Laravel's answer to a read, and whether it may be kept at all.
    fn kept_headers(&self) -> (Vec<u8>, bool) {
        let buffer = host::response_headers();
        let all = Headers::new(&buffer);
        let mut may_keep = true;
        let mut kept: Vec<Header<'_>> = Vec::new();
        for (name, value) in all {
            let value_holds = |part: &str| {
                let value = value.to_ascii_lowercase();
                value.windows(part.len()).any(|at| at == part.as_bytes())
            };
            match name {
                b"set-cookie" => may_keep = false,
                b"cache-control" => may_keep &= !value_holds("no-store"),
                b"vary" => {
                    let known = |name: &[u8]| {
                        let name = name.trim_ascii();
                        let own = [&b"accept-encoding"[..], b"origin"];
                        name.is_empty() || own.iter().any(|own| own.eq_ignore_ascii_case(name))
                    };
                    may_keep &= value.split(|byte| *byte == b',').all(known);
                }
                name if name.starts_with(b"access-control-") => kept.push((name, value)),
                _ => {}
            }
        }
        (embudo_core::headers::encode(&kept), may_keep)
    }

    // ## Relaying => Answered
    fn relay(&mut self, body_size: usize) -> Action {
        let (fetch, headers, may_keep) = match std::mem::replace(&mut self.state, State::Answered) {
            State::Relaying(fetch, headers, may_keep) => (fetch, headers, may_keep),
            decided => {
                self.state = decided;
                return Action::Continue;
            }
        };
        let plugin = Rc::clone(&self.plugin);
        let body = self
            .get_http_response_body(0, body_size)
            .unwrap_or_default();
        let fresh = Fresh {
            body: &body,
            headers: &headers,
            may_keep,
        };
        let Answered {
            patched,
            result,
            disproved,
        } = kept::answered(
            &mut SharedData,
            &plugin.keys,
            &plugin.rules,
            &mut plugin.proofs.borrow_mut(),
            &fetch,
            &fresh,
            plugin.now(),
        );
        if let Some(result) = result {
            plugin.stats.borrow().compared(result);
        }
        if let Some(names) = disproved {
            plugin.warn_of_reads(&fetch.asked, &names);
        }
        if Voice::of(&body, None) == Some(Voice::Json) {
            let place = fetch.asked.subject.destination;
            let now_ms = plugin.now().mono_ms;
            let mut awaited = plugin.awaited.borrow_mut();
            awaited.hear(&mut SharedData, &plugin.keys, place, None, now_ms);
        }
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

    // ## WritingThrough => Judging | Answered
    fn through_is_answered(
        &mut self,
        outcome: &str,
        reason: Bypass,
        through: Box<WriteThrough>,
        end_of_stream: bool,
    ) {
        let outcome = match through.is_outside() {
            true => "outside",
            false => outcome,
        };
        self.set_http_response_header("x-embudo", Some(&format!("{outcome}; {reason}")));
        let (status, _) = self.response_head();
        let answerer = answerer();
        // Of these the body tells: whose voice it is, whether it says failure, and whether a proxy before Laravel has lost
        // the answer.
        let is_told = answerer == Answerer::Upstream
            && matches!(status, Some(200..=299 | 401 | 403 | 419 | 500..));
        match is_told && !end_of_stream {
            true => self.state = State::Judging(status, through),
            false => self.through_ends(&through, answerer, status, b""),
        }
    }

    // ## Held => Judging | Answered
    fn held_is_answered(&mut self, end_of_stream: bool) {
        let gone = self.plugin.holding.borrow_mut().take_gone(self.id);
        match gone {
            Some(Gone {
                reason,
                through: Some(through),
            }) => self.through_is_answered("held", reason, Box::new(through), end_of_stream),
            Some(Gone {
                reason,
                through: None,
            }) => {
                self.plugin.holding.borrow_mut().answered();
                self.plugin.proving_ended(self.id, Ended::Other);
                self.set_http_response_header("x-embudo", Some(&format!("outside; {reason}")));
            }
            // Envoy's own answer to one that still waits.
            None => self.leave(),
        }
    }

    /// Gives the place of a request back that was held.
    fn leave(&self) {
        let plugin = &self.plugin;
        let mut holding = plugin.holding.borrow_mut();
        let before = holding.len();
        holding.forget(&mut SharedData, &plugin.keys, &plugin.rules, self.id);
        if holding.len() < before {
            plugin.stats.borrow().held(-1);
        }
        drop(holding);
        plugin.proving_ended(self.id, Ended::Other);
    }

    // ## Judging => Answered
    fn judge(&mut self, body_size: usize) {
        match std::mem::replace(&mut self.state, State::Answered) {
            State::Judging(status, through) => {
                let body = self.get_http_response_body(0, body_size);
                let body = body.unwrap_or_default();
                self.through_ends(&through, Answerer::Upstream, status, &body);
            }
            decided => self.state = decided,
        }
    }

    /// Settles what was written through with its answer, and learns what that proves.
    fn through_ends(
        &self,
        through: &WriteThrough,
        answerer: Answerer,
        status: Option<u16>,
        body: &[u8],
    ) {
        let Plugin { keys, proofs, .. } = &*self.plugin;
        let (mut proofs, subject) = (proofs.borrow_mut(), &through.said.subject);
        let voice = proofs.voice_of(&SharedData, keys, subject);
        let mut ended = Ended::Other;
        if answerer == Answerer::Upstream && !through.is_seen {
            let word = Word::of(status, body, voice);
            let now = self.plugin.now();
            ended = proofs.heard(&mut SharedData, keys, subject, word, through.begun_ms, now);
        }
        let place = subject.destination;
        drop(proofs);
        self.plugin.proving_ended(self.id, ended);
        let fate = Fate::of(answerer, status, body, voice);
        if fate == Fate::Accepted {
            let caller = Some((through.said.caller, through.begun_ms));
            let now_ms = self.plugin.now().mono_ms;
            let mut awaited = self.plugin.awaited.borrow_mut();
            awaited.hear(&mut SharedData, keys, place, caller, now_ms);
        }
        self.end(through, fate);
    }

    /// Settles what was written through.
    fn end(&self, through: &WriteThrough, fate: Fate) {
        let plugin = &self.plugin;
        plugin.holding.borrow_mut().answered();
        plugin.end(through, fate);
        plugin.proving_ended(self.id, Ended::Other);
    }

    fn answer(&mut self, answer: Reply) -> Action {
        if let Reply::Bypass(reason) = answer {
            // Counted already.
            self.state = State::Bypassed(reason);
            return Action::Continue;
        }
        self.state = State::Answered;
        self::answer(answer, &self.plugin.rules.config);
        Action::Pause
    }
}

/// Answers the stream whose context is in effect.
pub(crate) fn answer(answer: Reply, config: &Config) {
    let status = config.answer_status;
    let (status, outcome, body): (u16, &str, &[u8]) = match answer {
        Reply::Queued => (status, "queued", br#"{"success":true,"queued":true}"#),
        Reply::Stale => (
            status,
            "stale",
            br#"{"success":true,"skipped":true,"reason":"stale"}"#,
        ),
        Reply::Duplicate => (status, "duplicate", SKIPPED),
        Reply::Implied => (status, "implied", SKIPPED),
        Reply::Busy => (503, "busy", BUSY),
        // Laravel's to answer.
        Reply::Bypass(_) | Reply::WriteThrough(_) | Reply::Outside(_) | Reply::Held(_) => return,
    };
    reply(status, outcome, &[], body);
}

/// Longest answer to a read that is held so that it can be patched, bytes: well below the connection's
/// buffer, beyond which Envoy would answer 500. What is longer is relayed as it is.
const RELAYED_BYTES_MAX: usize = 64 * 1024;

/// What a caller is told that has to come again.
const BUSY: &[u8] = br#"{"success":false,"message":"busy, try again"}"#;

/// As Laravel answers what it skips.
const SKIPPED: &[u8] = br#"{"success":true,"skipped":true,"reason":"duplicate"}"#;

/// Who has answered the stream whose context is in effect.
fn answerer() -> Answerer {
    Answerer::of(
        host::property(&["response", "code_details"]).as_deref(),
        || {
            let attempts = host::property(&["upstream", "request_attempt_count"])?;
            Some(u64::from_le_bytes(attempts.try_into().ok()?))
        },
        || host::property(&["upstream", "local_address"]).is_some(),
    )
}

/// Answers the stream whose context is in effect.
pub(crate) fn tell(told: Told, config: &Config) {
    let (status, body) = told.answer(config);
    reply(status, told.label(), &[], body);
}

/// An answer of Embudo's own. Whoever is asked to try again is told when.
/// An answer of Embudo's own; `more` are headers as the host has them.
fn reply(status: u16, outcome: &str, more: &[u8], body: &[u8]) {
    let own: [Header<'_>; 3] = [
        (b"content-type", b"application/json"),
        (b"x-embudo", outcome.as_bytes()),
        (b"retry-after", b"1"),
    ];
    let own = if status == 503 { &own } else { &own[..2] };
    let headers: Vec<Header<'_>>;
    let headers = match more {
        [] => own,
        more => {
            headers = own.iter().copied().chain(Headers::new(more)).collect();
            &headers
        }
    };
    if !host::answer(status, headers, body) {
        warn!("an answer was refused: {status} {outcome}");
    }
}

impl Context for Stream {
    fn on_done(&mut self) -> bool {
        match std::mem::replace(&mut self.state, State::Answered) {
            State::Waiting => self.waits_no_more(),
            State::Held => {
                let gone = self.plugin.holding.borrow_mut().take_gone(self.id);
                match gone.map(|gone| gone.through) {
                    Some(Some(through)) => self.through_ends(&through, answerer(), None, b""),
                    Some(None) => {
                        self.plugin.holding.borrow_mut().answered();
                        self.plugin.proving_ended(self.id, Ended::Other);
                    }
                    None => self.leave(),
                }
            }
            // Nobody has answered: not even that it was taken is known of a body that broke off.
            State::WritingThrough(_, through) => {
                self.through_ends(&through, answerer(), None, b"");
            }
            State::Judging(_, through) => self.end(&through, Fate::Unknown),
            State::PassingBatch(batch) | State::JudgingBatch(_, batch) => {
                self.batch_ends(&batch, None, b"");
            }
            State::Barred(barred, _) => self.barred_ends(barred),
            _ => {}
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
        let mut heads = self.plugin.heads.borrow_mut();
        let (head, news) = (heads.head(rules, buffer), heads.news());
        drop(heads);
        if let Some(header) = news {
            warn!(
                "header {}: {} of 512 values were new, so each of these requests is a caller of its own and \
                 goes to Laravel; see `headers.neutral` and `headers.rotating`",
                header.name, header.values
            );
        }
        match head {
            Err((reason, buffer)) => self.other(reason, &buffer, end_of_stream),
            Ok(head) if end_of_stream => self.pass(Some(head.route), Bypass::Empty),
            Ok(head) => {
                self.state = State::Collecting(head);
                // With allow_on_headers_stop_iteration this holds the headers and lets the body come.
                Action::Pause
            }
        }
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        match self.state {
            State::Collecting(_) => {}
            State::Gathering(_) => return self.gather(body_size, end_of_stream),
            State::Barred(..) => return self.is_stopped(body_size),
            _ => return Action::Continue,
        }
        if body_size > BODY_BYTES_MAX {
            // Its beginning may show whose session it speaks of.
            return self.decide(BODY_BYTES_MAX.saturating_add(1));
        }
        match end_of_stream {
            true => self.decide(body_size),
            false => Action::Pause,
        }
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        // A request with trailers never has its end in the body callback. The body is still readable.
        match self.state {
            State::Gathering(_) => self.gather(BATCH_BYTES_MAX, true),
            State::Barred(..) => self.is_stopped(0),
            _ => self.decide(BODY_BYTES_MAX),
        }
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        // Runs for our own answers too, which carry the header already.
        match std::mem::replace(&mut self.state, State::Answered) {
            State::Bypassed(reason) => {
                self.set_http_response_header("x-embudo", Some(&format!("bypass; {reason}")));
            }
            State::WritingThrough(reason, through) => {
                self.through_is_answered("write-through", reason, through, end_of_stream);
            }
            State::Held => self.held_is_answered(end_of_stream),
            State::PassingBatch(batch) => self.batch_is_answered(batch, end_of_stream),
            State::Barred(barred, was_held) => self.barred_is_answered(barred, was_held),
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
            State::New
            | State::Collecting(_)
            | State::Gathering(_)
            | State::Judging(..)
            | State::JudgingBatch(..)
            | State::Relaying(..)
            | State::Answered => {}
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        match std::mem::replace(&mut self.state, State::Answered) {
            relaying @ State::Relaying(..) => self.state = relaying,
            State::Judging(status, through) => {
                self.state = State::Judging(status, through);
                // What is longer is no controller's error.
                if end_of_stream || body_size > RELAYED_BYTES_MAX {
                    self.judge(body_size.min(RELAYED_BYTES_MAX));
                    return Action::Continue;
                }
                return Action::Pause;
            }
            judging @ State::JudgingBatch(..) => {
                self.state = judging;
                if end_of_stream || body_size > RELAYED_BYTES_MAX {
                    self.judge_batch(body_size);
                    return Action::Continue;
                }
                return Action::Pause;
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
        self.judge(RELAYED_BYTES_MAX);
        self.judge_batch(RELAYED_BYTES_MAX);
        self.relay(RELAYED_BYTES_MAX)
    }
}
