//! Laravel, and the way there and back.
//!
//! Two kinds of requests reach it: the dispatcher's calls, through the cluster of the batches, and what
//! passes the filter untouched. Laravel itself is the model that the live arm uses too; here it is given
//! its times.
//!
//! What the guest is told follows what was measured: a refused connection is a 503 that says so, a lost
//! one is a 503 that says that, a timeout is a 504, and a connection that breaks in mid-body has no
//! headers at all.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

use super::events;
use super::queue::Event;
use super::streams::{Waiting, text};
use super::traffic::SESSIONS_MAX;
use super::{Scenario, Sim, UNIX_ZERO_MS, Verb};
use crate::model::gateway::session_ids;
use crate::model::http::{Request, Response as LaravelResponse};
use crate::model::laravel::{
    Call, ENVOY_LOST, ENVOY_OVERLOADED, ENVOY_PROTOCOL, ENVOY_REFUSED, ENVOY_RETRIED,
    ENVOY_TIMEOUT, Fault as LaravelFault, Faults, Laravel, LaravelConfig, Reply,
};
use crate::scenario::BatchRoute;
use crate::sim::abi::Headers;
use crate::sim::check::CallEnd;
use crate::sim::host::{HttpCall, Job, Response, StreamFate, WEBHOOK_CLUSTER};

/// Laravel ends this long before the bound that `late_ms` gives, at the latest: the bound counts from the
/// dispatch, and both ends look at clocks of whole milliseconds.
pub(super) const BOUND_MARGIN_US: u64 = 3_000;

pub(in crate::sim) const REFUSED: &str = ENVOY_REFUSED;
pub(in crate::sim) const LOST: &str = ENVOY_LOST;
pub(in crate::sim) const TIMEOUT: &str = ENVOY_TIMEOUT;
pub(super) const IDLE: &str = "stream timeout";

/// Header lines of an answer that Envoy reads: `max_headers_count` of `envoy.yaml`.
const HEADER_LINES_MAX: usize = 1000;

/// The root context that called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) thread: usize,
    pub(super) vm: u32,
    pub(super) context: u32,
    pub(super) token: u32,
    /// The checker's number of the call.
    pub(super) call: u64,
}

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub(super) enum Client {
    /// A root context.
    Guest(Caller),
    /// A request that passed through; an update of it is a call to the checker.
    Stream { stream: u64, call: Option<u64> },
    /// A request that never entered a VM.
    Direct { stream: u64 },
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) client: Client,
    pub(super) request: Option<Request>,
    call: Option<Call>,
    /// Laravel may work on it until then, µs.
    bound_us: Option<u64>,
    /// The client still waits.
    pub(super) open: bool,
}

/// Laravel's and the network's events; the number is the exchange's.
#[derive(Debug)]
pub(super) enum NetEvent {
    /// It reaches Laravel.
    Arrives(u64),
    /// Laravel is done with it.
    Finishes(u64),
    /// The answer reaches Envoy.
    Answers(u64, Response, CallEnd, StreamFate),
    /// As much of it as there is, and then the connection breaks. Its head is whole, and says how it went.
    BreaksOff(u64, Response, CallEnd),
    /// Envoy's patience is over.
    TimesOut(u64),
    /// The route's `idle_timeout` is over for a stream that is held.
    Idle(u64),
}

/// Laravel's side.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) laravel: Laravel,
    pub(super) refusing: u32,
    /// Answers are lost, and the try after that is refused.
    pub(super) retrying: u32,
    pub(super) exchanges: BTreeMap<u64, Exchange>,
    last: u64,
    calls: u64,
    usual_call_ms: u64,
    /// Streams that passed and wait for Laravel's answer.
    pub(super) waiting: BTreeMap<u64, Waiting>,
}

// === impl Client ===

impl Client {
    /// The checker's number of the call, where it is one.
    fn call(&self) -> Option<u64> {
        match self {
            Self::Guest(caller) => Some(caller.call),
            Self::Stream { call, .. } => *call,
            Self::Direct { .. } => None,
        }
    }
}

// === impl Exchange ===

impl Exchange {
    /// Nobody waits for it, and nobody works on it.
    fn is_over(&self) -> bool {
        !self.open && self.request.is_none() && self.call.is_none()
    }
}

// === impl Net ===

impl Net {
    /// Sessions whose rows throw, some time or other.
    pub(super) fn throwing(&mut self) -> BTreeSet<String> {
        self.laravel.throwing_mut().keys().cloned().collect()
    }

    pub(super) fn new(scenario: &Scenario, start_ms: u64) -> Self {
        let setup = &scenario.laravel;
        let names = session_ids(scenario.seed, SESSIONS_MAX);
        let poison = setup.poison.iter().filter_map(|index| names.get(*index));
        let throwing = setup.throwing.iter().filter_map(|(index, from_ms, to_ms)| {
            let during = start_ms + from_ms..start_ms + to_ms;
            Some((names.get(*index)?.clone(), during))
        });
        let unborn = setup.unborn.iter();
        let unborn = unborn
            .filter_map(|(index, to_ms)| Some((names.get(*index)?.clone(), start_ms + to_ms)));
        let has_batches = setup.batch_route == BatchRoute::There;
        let usual = LaravelConfig::default();
        let config = LaravelConfig {
            any_account: true,
            unix_zero_ms: UNIX_ZERO_MS,
            results: setup.results,
            poison: poison.cloned().map(|name| (name, 0)).collect(),
            poison_indexes: !setup.anonymous,
            qr_batch: has_batches,
            status_batch: has_batches,
            catch_all: setup.batch_route == BatchRoute::Page,
            body_bytes_max: setup.body_bytes_max.unwrap_or(usual.body_bytes_max),
            throwing: throwing.collect(),
            throwing_line: match setup.throwing_line {
                0 => usual.throwing_line,
                line => line,
            },
            batch_items_max: setup.batch_items_max,
            silent_batches: setup.silent_batches,
            item_ms: setup.item_ms.unwrap_or(usual.item_ms),
            reads: setup.reads.clone(),
            qr_leaves_state: setup.qr_leaves_state,
            initial_state: match setup.null_at_first {
                true => String::new(),
                false => usual.initial_state.clone(),
            },
            unborn: unborn.collect(),
            ..usual
        };
        let usual_call_ms = config.request_ms + config.item_ms * scenario.sessions.len() as u64;
        let mut laravel = Laravel::new(config);
        let rules = scenario
            .faults
            .iter()
            .filter_map(|fault| match &fault.verb {
                Verb::Laravel(what, probability) | Verb::Batches(what, probability) => {
                    let from_ms = start_ms + fault.at_ms;
                    let rule = LaravelFault::always(what.clone()).with_probability(*probability);
                    let rule = rule.between(from_ms, from_ms + fault.for_ms);
                    Some(match fault.verb {
                        Verb::Batches(..) => rule.on_path("*/batch"),
                        _ => rule,
                    })
                }
                _ => None,
            });
        laravel.set_faults(Faults::new(scenario.seed, rules.collect()));
        Self {
            laravel,
            refusing: 0,
            retrying: 0,
            exchanges: BTreeMap::new(),
            last: 0,
            calls: 0,
            usual_call_ms,
            waiting: BTreeMap::new(),
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.exchanges.is_empty()
    }

    /// Forgets an exchange, unless Laravel is still at work on it.
    pub(super) fn retire(&mut self, id: u64) {
        if self.exchanges.get(&id).is_some_and(Exchange::is_over) {
            self.exchanges.remove(&id);
        }
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    pub(super) fn usual_call_ms(&self) -> u64 {
        self.usual_call_ms
    }
}

pub(in crate::sim) fn response(
    status: u16,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Response {
    let mut all: Headers = vec![(":status".into(), status.to_string().into_bytes())];
    let own = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    all.extend(own);
    Response {
        headers: all,
        body: body.into(),
    }
}

/// Laravel's answer, as Envoy hands it on.
pub(super) fn relayed(answer: &LaravelResponse) -> Response {
    let own = answer.headers.iter();
    let mut headers: Vec<(&str, &str)> = own.map(|(name, value)| (&**name, &**value)).collect();
    headers.push(("x-envoy-upstream-service-time", "1"));
    let length = answer.body.len().to_string();
    headers.push(("content-length", &length));
    response(answer.status, &headers, answer.body.clone())
}

/// What anybody at this end can know of a call that was answered with this.
fn judge(answer: &LaravelResponse) -> CallEnd {
    let says_no = || {
        let json = serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
        let is_well = json.is_some_and(|json| json.is_object() && !says_failure(&json));
        !is_well && !answer.body.is_empty()
    };
    match answer.status {
        // Laravel's own 503, or that of a proxy that says when to come back; any other may be an Envoy's, whose
        // connection was lost while Laravel was at work.
        503 if speaks_as_laravel(&answer.body) || answer.header("retry-after").is_some() => {
            CallEnd::Failed
        }
        // An Envoy's that says itself that it had no room, or no connection.
        503 if answer.body == ENVOY_OVERLOADED || answer.body == ENVOY_REFUSED => CallEnd::Failed,
        501.. => CallEnd::Unknown,
        200..=299 if says_no() => CallEnd::Failed,
        200..=299 => CallEnd::Delivered,
        _ => CallEnd::Failed,
    }
}

/// Whether the body of a 2xx says that it is none (design, section 6).
fn says_failure(json: &serde_json::Value) -> bool {
    let is_one_of = |member: &str, words: &[&str]| {
        let word = json[member].as_str().unwrap_or_default();
        words.iter().any(|w| word.eq_ignore_ascii_case(w))
    };
    let success = &json["success"];
    if *success == false || *success == 0 || is_one_of("success", &["false", "0"]) {
        return true;
    }
    let has = |member: &str| match &json[member] {
        serde_json::Value::Null | serde_json::Value::Bool(false) => false,
        serde_json::Value::Number(number) => number.as_f64() != Some(0.0),
        serde_json::Value::String(text) => !text.is_empty(),
        serde_json::Value::Array(list) => !list.is_empty(),
        serde_json::Value::Object(map) => !map.is_empty(),
        serde_json::Value::Bool(true) => true,
    };
    *success != true
        && (json["ok"] == false
            || is_one_of("status", &["fail", "failed", "error"])
            || has("error")
            || has("failed"))
}

/// Whether an answer with this body is JSON, or empty: nobody else speaks so.
fn speaks_as_laravel(body: &[u8]) -> bool {
    body.is_empty() || serde_json::from_slice::<serde_json::Value>(body).is_ok()
}

/// Whether an answer may end an item: Laravel's own that it takes it or not, and a 413, whoever says it.
fn speaks_of_items(status: u16, body: &[u8]) -> bool {
    let is_word = matches!(status, 200..=299 | 400..=499) && !matches!(status, 408 | 425 | 429);
    status == 413 || is_word && speaks_as_laravel(body)
}

/// The sessions whose items a 2xx says not to have been taken, where it speaks of them one by one.
fn refused(answer: &LaravelResponse) -> BTreeSet<String> {
    let json = serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap_or_default();
    let results = json["results"].as_array().into_iter().flatten();
    let taken = |line: &serde_json::Value| line["status"] == "ok" || line["status"] == "skipped";
    let session = |line: &serde_json::Value| line["session_id"].as_str().map(str::to_owned);
    results
        .filter(|line| !taken(line))
        .filter_map(session)
        .collect()
}

// === impl Sim ===

impl Sim {
    /// The dispatcher's call leaves.
    pub(super) fn call_leaves(&mut self, caller: Caller, http: HttpCall) {
        if http.cluster == WEBHOOK_CLUSTER {
            return self.event_leaves(caller, http);
        }
        self.net.calls += 1;
        let client = Client::Guest(caller);
        // A scenario file says itself how long Laravel takes.
        let bound_us = self.arm.is_none().then(|| self.bound_us());
        let request = to_request(http.headers, http.body);
        self.send(client, request, http.timeout_ms, bound_us);
    }

    pub(super) fn send(
        &mut self,
        client: Client,
        request: Request,
        timeout_ms: u64,
        bound_us: Option<u64>,
    ) -> u64 {
        self.net.last += 1;
        let id = self.net.last;
        let exchange = Exchange {
            client,
            request: Some(events::as_laravel_has_it(request)),
            call: None,
            bound_us,
            open: true,
        };
        self.net.exchanges.insert(id, exchange);
        let us = self.way_us();
        if self.net.refusing > 0 {
            if let Some(exchange) = self.net.exchanges.get_mut(&id) {
                exchange.request = None;
            }
            let refused = response(503, &[], REFUSED);
            let fate = StreamFate::refused();
            let event = NetEvent::Answers(id, refused, CallEnd::Failed, fate);
            self.after_us(us, Event::Net(event));
            return id;
        }
        self.after_us(us, Event::Net(NetEvent::Arrives(id)));
        self.after_us(timeout_ms * 1000, Event::Net(NetEvent::TimesOut(id)));
        id
    }

    pub(super) fn net_event(&mut self, event: NetEvent) {
        match event {
            NetEvent::Arrives(id) => self.arrives(id),
            NetEvent::Finishes(id) => {
                self.finishes(id);
                self.worker_is_free();
            }
            NetEvent::Answers(id, response, end, fate) => {
                self.answers(id, response, end, fate, false);
            }
            NetEvent::BreaksOff(id, response, end) => {
                self.answers(id, response, end, StreamFate::answered(1), true);
            }
            NetEvent::Idle(stream) => self.idles(stream),
            NetEvent::TimesOut(id) => {
                if self
                    .net
                    .exchanges
                    .get(&id)
                    .is_some_and(|exchange| exchange.open)
                {
                    let timeout = response(504, &[], TIMEOUT);
                    let fate = StreamFate::timed_out();
                    self.answers(id, timeout, CallEnd::Unknown, fate, false);
                }
            }
        }
    }

    fn arrives(&mut self, id: u64) {
        let now_ms = self.now_us / 1000;
        let exchange = self.net.exchanges.get(&id);
        let Some(request) = exchange.and_then(|exchange| exchange.request.as_ref()) else {
            return;
        };
        self.net.laravel.arrive(now_ms, request);
        if self.finds_a_worker(id) {
            self.begins(id);
        }
    }

    pub(super) fn begins(&mut self, id: u64) {
        let (now_us, now_ms, clock) = (self.now_us, self.now_us / 1000, self.clock());
        let Some(exchange) = self.net.exchanges.get_mut(&id) else {
            return;
        };
        let Some(request) = exchange.request.take() else {
            return;
        };
        let call = self.net.laravel.begin(now_ms, request);
        let mut busy_us = call.busy_ms * 1000;
        if let Some(bound_us) = exchange.bound_us {
            busy_us = busy_us.min(bound_us.saturating_sub(now_us));
        }
        let number = call.id;
        exchange.call = Some(call);
        if let Some(call) = exchange.client.call() {
            self.hub.lock().checker.laravel_begins(clock, call);
        }
        self.note("laravel", number, || format!("begins exchange {id}"));
        self.after_us(busy_us, Event::Net(NetEvent::Finishes(id)));
    }

    fn finishes(&mut self, id: u64) {
        let now_ms = self.now_us / 1000;
        let Some(exchange) = self.net.exchanges.get_mut(&id) else {
            return;
        };
        let Some(call) = exchange.call.take() else {
            return;
        };
        let (client, open) = (exchange.client.clone(), exchange.open);
        let known = self.net.laravel.journal().entries().len();
        let reply = self.net.laravel.finish(now_ms, call);
        let entries = self.net.laravel.journal().entries();
        let in_effect: BTreeSet<String> = entries[known..]
            .iter()
            .map(|entry| entry.session.clone())
            .collect();
        let stored = in_effect.len() as u64;
        self.note("laravel", stored, || {
            format!("ends exchange {id}: {stored} sessions stored")
        });
        self.others_have_set(now_ms);
        if let Some(call) = client.call() {
            let mut hub = self.hub.lock();
            hub.checker.laravel_ends(self.now_us, call, &in_effect);
            if let Reply::Whole(answer) = &reply {
                hub.checker.laravel_refuses(call, &refused(answer));
            }
        }
        let reply = self.as_served(&client, reply);
        if !open {
            return self.net.retire(id);
        }
        let (answer, end, fate) = match reply {
            Reply::Whole(_) | Reply::Cut(..) if self.net.retrying > 0 => (
                response(503, &[], ENVOY_RETRIED),
                CallEnd::Unknown,
                StreamFate::retried_and_refused(),
            ),
            Reply::Whole(answer) if answer.headers.len() > HEADER_LINES_MAX => (
                response(502, &[], ENVOY_PROTOCOL),
                CallEnd::Unknown,
                StreamFate::protocol_error(),
            ),
            Reply::Whole(answer) => {
                let end = judge(&answer);
                (relayed(&answer), end, StreamFate::answered(1))
            }
            Reply::Cut(_, 0) => (
                response(503, &[], LOST),
                CallEnd::Unknown,
                StreamFate::lost(),
            ),
            Reply::Cut(answer, bytes) if matches!(client, Client::Stream { .. }) => {
                let mut part = relayed(&answer);
                part.body.truncate(bytes);
                let (us, end) = (self.way_us(), judge(&answer));
                return self.after_us(us, Event::Net(NetEvent::BreaksOff(id, part, end)));
            }
            Reply::Cut(..) => (
                Response::default(),
                CallEnd::Unknown,
                StreamFate::broken_off(),
            ),
            Reply::Never => return,
        };
        let us = self.way_us();
        self.after_us(us, Event::Net(NetEvent::Answers(id, answer, end, fate)));
    }

    /// Another route's request has changed accounts: the checker hears of it, and Embudo does not.
    fn others_have_set(&mut self, now_ms: u64) {
        let laravel = &self.net.laravel;
        let changed = laravel.journal().changed().iter();
        let changed = changed.filter(|(_, at_ms)| **at_ms == now_ms);
        let states = changed.map(|(name, _)| {
            let account = laravel.account(name);
            (
                name.clone(),
                account.map(|account| account.estado_qr.clone()),
            )
        });
        for (name, state) in states.collect::<Vec<_>>() {
            let checker = &mut self.hub.lock().checker;
            match state {
                Some(state) => checker.panel_sets(&name, &state),
                None => checker.account_changes(&name),
            }
        }
    }

    fn answers(&mut self, id: u64, response: Response, end: CallEnd, fate: StreamFate, cut: bool) {
        let Some(exchange) = self.net.exchanges.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut exchange.open, false) {
            return;
        }
        let client = exchange.client.clone();
        self.net.retire(id);
        match client {
            Client::Guest(caller) => {
                let call = caller.call;
                let clock = self.clock();
                self.hub.lock().checker.call_ends(clock, call, Some(end));
                let own = text(&response.headers, "x-envoy-upstream-service-time").is_some();
                if let Some(status) = response.status().filter(|_| own) {
                    let mut hub = self.hub.lock();
                    hub.checker.laravel_lives(call, status);
                    if speaks_of_items(status, &response.body) {
                        hub.checker.laravel_judges(call);
                    }
                }
                self.call_ended(&response);
                self.guest_hears(caller, response);
            }
            Client::Direct { stream } => {
                let status = response.status().unwrap_or(0);
                self.answer_gateway(stream, status, response.body);
            }
            Client::Stream { stream, call } => {
                if let Some(call) = call {
                    let clock = self.clock();
                    self.hub.lock().checker.call_ends(clock, call, Some(end));
                }
                self.stream_is_answered(stream, response, fate, cut);
            }
        }
    }

    /// The connection breaks while Laravel is at work, or before; the client never hears from it.
    pub(super) fn breaks(&mut self, id: u64) {
        let us = self.way_us();
        let lost = response(503, &[], LOST);
        let event = NetEvent::Answers(id, lost, CallEnd::Unknown, StreamFate::lost());
        self.after_us(us, Event::Net(event));
    }

    /// nginx has no room for it, and answers so.
    pub(super) fn overflows(&mut self, id: u64) {
        let exchange = self.net.exchanges.get_mut(&id);
        let Some(request) = exchange.and_then(|exchange| exchange.request.take()) else {
            return;
        };
        let answer = self.net.laravel.refuse(&request);
        let us = self.way_us();
        let end = judge(&answer);
        let answer = relayed(&answer);
        let fate = StreamFate::answered(1);
        self.after_us(us, Event::Net(NetEvent::Answers(id, answer, end, fate)));
    }

    /// The answer to a call reaches the thread that waits for it.
    pub(super) fn guest_hears(&mut self, caller: Caller, response: Response) {
        let job = Job::Answer {
            context: caller.context,
            token: caller.token,
            call: caller.call,
            response,
        };
        self.post(caller.thread, Some(caller.vm), job);
    }

    /// A VM is dead: nobody waits for its calls any more, and Laravel does not know.
    pub(super) fn forget_calls_of(&mut self, dead: u32) {
        self.forget_events_of(dead);
        let mut gone = Vec::new();
        for exchange in self.net.exchanges.values_mut() {
            if let Client::Guest(caller) = &exchange.client
                && caller.vm == dead
                && std::mem::replace(&mut exchange.open, false)
            {
                gone.push(caller.call);
            }
        }
        self.net.exchanges.retain(|_, exchange| !exchange.is_over());
        let mut hub = self.hub.lock();
        let clock = hub.clock;
        for call in gone {
            hub.checker.call_ends(clock, call, None);
        }
    }
}

pub(super) fn to_request(headers: Headers, body: Bytes) -> Request {
    let mut request = Request::new("POST", "/");
    for (name, value) in headers {
        let text = || String::from_utf8_lossy(&value).into_owned();
        match name.as_str() {
            ":method" => request.method = text(),
            ":path" => request.path = text(),
            ":authority" => request.headers.push((name, value.into())),
            name if name.starts_with(':') => {}
            _ => request.headers.push((name, value.into())),
        }
    }
    request.body = body;
    request
}
