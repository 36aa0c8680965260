//! The probe: a filter that asks every host function that Embudo uses, with ordinary and with odd arguments, and
//! writes down what it answers.
//!
//! It runs in the simulation and in a real Envoy, and a test compares the two transcripts line by line: a simulation
//! that answers otherwise than Envoy proves nothing. Each request names what is to be asked of its stream in the
//! header `x-probe`; a line of the transcript is `probe: <case> <callback> <call> -> <status>/<value>`. What differs
//! from one run to the next (tokens, times, ids) is not in it.

mod abi;
mod report;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

use crate::report::{Report, properties, say};

mod start {
    use super::Root;

    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|id| Box::new(Root { id, lines: Vec::new() }));
    }}
}

const REQUEST: u32 = 0;
const RESPONSE: u32 = 2;
const CALL_RESPONSE: u32 = 6;

const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const CALL_BODY: u32 = 4;
const VM_CONFIG: u32 = 6;
const PLUGIN_CONFIG: u32 = 7;

const OK: u32 = 0;

/// What the root is to do at its next callback, and to which stream.
#[derive(Clone, Debug)]
struct Todo {
    stream: u32,
    case: String,
}

thread_local! {
    static LATER: RefCell<Vec<Todo>> = const { RefCell::new(Vec::new()) };
    /// Streams that wait for a queue, or for a call: by their case.
    static WAITING: RefCell<BTreeMap<String, Todo>> = const { RefCell::new(BTreeMap::new()) };
    /// What the root's own beginning came to; told to the first who asks.
    static BEGINNING: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Root {
    id: u32,
    lines: Vec<String>,
}

struct Stream {
    id: u32,
    root: u32,
    case: String,
    metrics: [u32; 3],
}

// === impl Root ===

impl Root {
    /// What a root can ask at its beginning, before there is any stream. Each VM has its own; those of the canary
    /// and of the main thread are never told.
    fn begin(&mut self, configuration_size: usize) {
        let mut to = Report::new("start", "on_configure");
        to.value("configuration size", configuration_size);
        for kind in [
            PLUGIN_CONFIG,
            VM_CONFIG,
            REQUEST_BODY,
            RESPONSE_BODY,
            CALL_BODY,
            99,
        ] {
            to.given(&format!("buffer {kind}"), &abi::buffer(kind, 0, 64));
        }
        to.given("buffer 7 from 3", &abi::buffer(PLUGIN_CONFIG, 3, 5));
        to.given(
            "buffer 7 from its end",
            &abi::buffer(PLUGIN_CONFIG, configuration_size, 5),
        );
        to.given(
            "buffer 7 beyond",
            &abi::buffer(PLUGIN_CONFIG, configuration_size + 1, 5),
        );
        to.status("set buffer 0", abi::set_buffer(REQUEST_BODY, 0, 0, b"x"));
        for name in ["plugin_name", "plugin_root_id", "plugin_vm_id"] {
            to.given(&format!("property {name}"), &abi::property(name));
        }
        properties(&mut to);
        for kind in [REQUEST, RESPONSE, CALL_RESPONSE, 99] {
            to.given(&format!("headers {kind}"), &abi::headers(kind));
            to.given(&format!("header {kind}"), &abi::header(kind, ":path"));
            to.status(&format!("replace {kind}"), abi::replace(kind, "a", b"b"));
            to.status(&format!("add {kind}"), abi::add(kind, "a", b"b"));
            to.status(&format!("remove {kind}"), abi::remove(kind, "a"));
        }
        to.status("respond", abi::respond(200, &[], b""));
        to.status("resume 0", abi::resume(0));
        to.status("resume 1", abi::resume(1));
        to.status("resume 9", abi::resume(9));
        to.status("effective 0", abi::set_effective_context(0));
        to.status("effective own", abi::set_effective_context(self.id));
        to.status("effective none", abi::set_effective_context(9_999));
        to.status("done", abi::done());
        self.lines = to.lines();
    }

    /// What was put off until a callback of the root.
    fn work(&mut self, callback: &str) {
        let todo: Vec<Todo> = LATER.with_borrow_mut(std::mem::take);
        for todo in todo {
            self.do_it(callback, &todo);
        }
    }

    fn do_it(&mut self, callback: &str, todo: &Todo) {
        let mut to = Report::new(&todo.case, callback);
        match todo.case.as_str() {
            "gone" => self.acts_on_the_gone(&mut to, todo.stream),
            "reply" => self.replies(&mut to, todo.stream),
            "call" => self.calls(&mut to, todo),
            "queue" => {
                WAITING.with_borrow_mut(|all| all.insert("queue".into(), todo.clone()));
                let (_, queue) = abi::resolve_queue("embudo", "probe-queue");
                to.status("enqueue", abi::enqueue(queue, b"go"));
            }
            _ => self.resumes(&mut to, todo.stream),
        }
        for line in to.lines() {
            say(&line);
        }
    }

    /// A stream that is held is looked at, changed, and let go.
    fn resumes(&self, to: &mut Report, stream: u32) {
        properties(to);
        to.status("effective stream", abi::set_effective_context(stream));
        properties(to);
        let odd = |to: &mut Report, when: &str| {
            to.given(
                &format!("header x-probe {when}"),
                &abi::header(REQUEST, "x-probe"),
            );
            to.given(
                &format!("header absent {when}"),
                &abi::header(REQUEST, "x-absent"),
            );
            to.pairs(&format!("headers {when}"), &abi::headers(REQUEST));
            to.status(
                &format!("replace {when}"),
                abi::replace(REQUEST, "x-new", when.as_bytes()),
            );
            to.status(
                &format!("add {when}"),
                abi::add(REQUEST, "x-added", when.as_bytes()),
            );
            to.status(&format!("remove {when}"), abi::remove(REQUEST, "x-gone"));
            to.given(
                &format!("body {when}"),
                &abi::buffer(REQUEST_BODY, 0, 4_096),
            );
            to.given(
                &format!("response header {when}"),
                &abi::header(RESPONSE, ":status"),
            );
            to.given(
                &format!("response body {when}"),
                &abi::buffer(RESPONSE_BODY, 0, 4_096),
            );
        };
        odd(to, "held");
        if to.case() == "slow" {
            let after = abi::replace(REQUEST, "x-envoy-upstream-rq-timeout-ms", b"300");
            to.status("let take", after);
        }
        to.status("resume", abi::resume(0));
        odd(to, "resumed");
        properties(to);
        to.status("resume again", abi::resume(0));
        to.status("effective root", abi::set_effective_context(self.id));
        to.status("resume root", abi::resume(0));
        to.given("header of the root", &abi::header(REQUEST, "x-probe"));
    }

    fn replies(&self, to: &mut Report, stream: u32) {
        to.status("effective stream", abi::set_effective_context(stream));
        let headers: [(&str, &[u8]); 2] = [("x-probed", b"yes"), ("x-odd", &[0xff, b'a'])];
        to.status("respond", abi::respond(200, &headers, b"from the root"));
        // Once: of a second answer the caller hears the status, and the filter no body.
        to.given("header x-probe", &abi::header(REQUEST, "x-probe"));
        properties(to);
        to.status("effective root", abi::set_effective_context(self.id));
    }

    fn acts_on_the_gone(&self, to: &mut Report, stream: u32) {
        to.status("effective gone", abi::set_effective_context(stream));
        properties(to);
        to.given("header", &abi::header(REQUEST, "x-probe"));
        to.given("body", &abi::buffer(REQUEST_BODY, 0, 10));
        to.status("resume", abi::resume(0));
        to.status("respond", abi::respond(200, &[], b"nobody"));
        to.status("effective root", abi::set_effective_context(self.id));
    }

    /// Calls that cannot be made, and then one whose answer lets the stream go on.
    fn calls(&self, to: &mut Report, todo: &Todo) {
        let [method, path, authority]: [(&str, &[u8]); 3] = [
            (":method", b"POST"),
            (":path", b"/called"),
            (":authority", b"laravel.test"),
        ];
        let whole = [method, path, authority, ("x-odd", &[0xff, b'a'][..])];
        let body = b"call";
        let at = "laravel_batch";
        to.status("call nowhere", abi::call("nowhere", &whole, body, 1_000).0);
        to.status("call no cluster", abi::call("", &whole, body, 1_000).0);
        to.status(
            "call no method",
            abi::call(at, &[path, authority], body, 1_000).0,
        );
        to.status(
            "call no path",
            abi::call(at, &[method, authority], body, 1_000).0,
        );
        to.status(
            "call no authority",
            abi::call(at, &[method, path], body, 1_000).0,
        );
        to.status("call no headers", abi::call(at, &[], body, 1_000).0);
        // The one that is answered: the SDK wants to know of it, or it does not know the answer.
        let headers = vec![
            (":method", "POST"),
            (":path", "/called"),
            (":authority", "laravel.test"),
            ("x-probe", "call"),
        ];
        let timeout = Duration::from_secs(5);
        let sent = hostcalls::dispatch_http_call(at, headers, Some(body), vec![], timeout);
        to.value("call", sent.map_or_else(|status| status as u32, |_| OK));
        WAITING.with_borrow_mut(|all| all.insert("call".into(), todo.clone()));
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, _: u32, headers: usize, body_size: usize, trailers: usize) {
        let mut to = Report::new("call", "on_http_call_response");
        to.value("has headers", headers > 0);
        to.value("body size", body_size);
        to.value("trailers", trailers);
        for name in [":status", "x-answer", "x-absent", "X-ANSWER"] {
            to.given(&format!("header {name}"), &abi::header(CALL_RESPONSE, name));
        }
        let served = abi::header(CALL_RESPONSE, "x-envoy-upstream-service-time");
        to.status("served", served.status);
        to.given("body", &abi::buffer(CALL_BODY, 0, 4_096));
        to.given("body from 2", &abi::buffer(CALL_BODY, 2, 3));
        to.given("body from its end", &abi::buffer(CALL_BODY, body_size, 3));
        to.given("body beyond", &abi::buffer(CALL_BODY, body_size + 1, 3));
        to.given("request header", &abi::header(REQUEST, ":path"));
        properties(&mut to);
        for line in to.lines() {
            say(&line);
        }
        if let Some(todo) = WAITING.with_borrow_mut(|all| all.remove("call")) {
            let todo = Todo {
                case: "called".into(),
                ..todo
            };
            self.do_it("on_http_call_response", &todo);
        }
    }

    fn on_done(&mut self) -> bool {
        true
    }
}

impl RootContext for Root {
    fn on_vm_start(&mut self, _: usize) -> bool {
        true
    }

    fn on_configure(&mut self, size: usize) -> bool {
        self.begin(size);
        BEGINNING.with_borrow_mut(|lines| *lines = std::mem::take(&mut self.lines));
        true
    }

    fn on_tick(&mut self) {
        abi::tick_every(0);
        self.work("on_tick");
    }

    fn on_queue_ready(&mut self, queue: u32) {
        let mut to = Report::new("queue", "on_queue_ready");
        to.given("dequeue", &abi::dequeue(queue));
        to.given("dequeue empty", &abi::dequeue(queue));
        for line in to.lines() {
            say(&line);
        }
        if let Some(todo) = WAITING.with_borrow_mut(|all| all.remove("queue")) {
            let todo = Todo {
                case: "queued".into(),
                ..todo
            };
            self.do_it("on_queue_ready", &todo);
        }
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            id,
            root: self.id,
            case: String::new(),
            metrics: [0; 3],
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

// === impl Stream ===

impl Stream {
    fn report(&self, callback: &str) -> Report {
        Report::new(&self.case, callback)
    }

    /// The root does the rest.
    fn put_off(&self) {
        LATER.with_borrow_mut(|all| {
            all.push(Todo {
                stream: self.id,
                case: self.case.clone(),
            });
        });
        abi::tick_every(20);
    }

    /// What is asked of headers, of whichever side.
    fn headers(to: &mut Report, kind: u32) {
        to.pairs("headers", &abi::headers(kind));
        to.given("header :status", &abi::header(kind, ":status"));
        for name in [
            "x-one", "X-One", "x-empty", "x-odd", "x-two", "x-absent", "",
        ] {
            to.given(&format!("header {name}"), &abi::header(kind, name));
        }
    }

    fn changes(to: &mut Report, kind: u32) {
        to.status("replace x-one", abi::replace(kind, "x-one", b"2"));
        to.status("replace x-two", abi::replace(kind, "X-Two", b"once"));
        to.status("replace absent", abi::replace(kind, "x-new", b""));
        to.status("replace odd", abi::replace(kind, "x-odd", &[0xfe]));
        to.status("add x-one", abi::add(kind, "x-one", b"3"));
        to.status("add new", abi::add(kind, "x-added", b"4"));
        to.status("remove x-empty", abi::remove(kind, "X-Empty"));
        to.status("remove absent", abi::remove(kind, "x-absent"));
        to.pairs("headers then", &abi::headers(kind));
    }

    fn shared_data(to: &mut Report) {
        let get = |to: &mut Report, what: &str, key: &str| {
            let (given, token) = abi::shared(key);
            to.given(what, &given);
            token
        };
        get(to, "get absent", "probe/absent");
        to.status(
            "put a wrong token, absent",
            abi::set_shared("probe/a", Some(b"1"), 77),
        );
        let token = get(to, "get a", "probe/a");
        to.value("token is none", token == 0);
        let wrong = token.wrapping_add(1_000);
        to.status(
            "put a wrong token",
            abi::set_shared("probe/a", Some(b"2"), wrong),
        );
        to.status(
            "put create if absent",
            abi::set_shared("probe/a", Some(b"2"), u32::MAX),
        );
        to.status(
            "put the token",
            abi::set_shared("probe/a", Some(b"2"), token),
        );
        let next = get(to, "get a", "probe/a");
        to.value("token is another", next != token);
        to.status(
            "put the old token",
            abi::set_shared("probe/a", Some(b"3"), token),
        );
        to.status(
            "put without a token",
            abi::set_shared("probe/a", Some(b"4"), 0),
        );
        get(to, "get a", "probe/a");
        to.status("put empty", abi::set_shared("probe/a", Some(b""), 0));
        get(to, "get empty", "probe/a");
        to.status("put null", abi::set_shared("probe/a", None, 0));
        get(to, "get null", "probe/a");
        to.status(
            "create if absent",
            abi::set_shared("probe/b", Some(b"\xff\0"), u32::MAX),
        );
        get(to, "get b", "probe/b");
        to.status("no key", abi::set_shared("", Some(b"1"), 0));
        get(to, "get no key", "");
    }

    fn queues(to: &mut Report) {
        to.status(
            "resolve absent",
            abi::resolve_queue("embudo", "probe-none").0,
        );
        to.status(
            "resolve another vm",
            abi::resolve_queue("nobody", "probe-queue").0,
        );
        let (status, queue) = abi::register_queue("probe-own");
        to.status("register", status);
        let (again, same) = abi::register_queue("probe-own");
        to.status("register again", again);
        to.value("is the same", queue == same);
        let (found, resolved) = abi::resolve_queue("embudo", "probe-own");
        to.status("resolve", found);
        to.value("is the same", queue == resolved);
        to.given("dequeue empty", &abi::dequeue(queue));
        to.given("dequeue none", &abi::dequeue(9_999));
        to.status("enqueue none", abi::enqueue(9_999, b"x"));
    }

    fn metrics(&mut self, to: &mut Report) {
        for (kind, name) in [
            (0, "probe.counter"),
            (1, "probe.gauge"),
            (2, "probe.histogram"),
        ] {
            let (status, id) = abi::define_metric(kind, name);
            to.status(&format!("define {name}"), status);
            let (again, same) = abi::define_metric(kind, name);
            to.status("again", again);
            to.value("is the same", id == same);
            if let Some(place) = self.metrics.get_mut(kind as usize) {
                *place = id;
            }
        }
        to.status(
            "define a kind that is none",
            abi::define_metric(9, "probe.none").0,
        );
        let [counter, gauge, histogram] = self.metrics;
        for by in [1, 0, -1] {
            to.status(
                &format!("increment counter {by}"),
                abi::increment_metric(counter, by),
            );
            to.status(
                &format!("increment gauge {by}"),
                abi::increment_metric(gauge, by),
            );
            to.status(
                &format!("increment histogram {by}"),
                abi::increment_metric(histogram, by),
            );
        }
        for (what, id) in [
            ("counter", counter),
            ("gauge", gauge),
            ("histogram", histogram),
        ] {
            to.status(&format!("record {what}"), abi::record_metric(id, 5));
        }
        to.status("record none", abi::record_metric(99_999, 1));
        to.status("increment none", abi::increment_metric(99_999, 1));
    }

    fn odds(&mut self, to: &mut Report) {
        Self::shared_data(to);
        Self::queues(to);
        self.metrics(to);
        let (status, ns) = abi::time();
        to.status("time", status);
        to.value("is after 2020", ns > 1_577_836_800_000_000_000);
        to.status("effective 0", abi::set_effective_context(0));
        to.status("effective root", abi::set_effective_context(self.root));
        to.given("header of the root", &abi::header(REQUEST, ":path"));
        to.status("effective none", abi::set_effective_context(99_999));
        to.status("effective own", abi::set_effective_context(self.id));
        to.given("header of one's own", &abi::header(REQUEST, "x-probe"));
        for kind in [RESPONSE, CALL_RESPONSE, 99] {
            to.given(&format!("header {kind}"), &abi::header(kind, ":status"));
            to.status(&format!("replace {kind}"), abi::replace(kind, "a", b"b"));
            to.status(&format!("add {kind}"), abi::add(kind, "a", b"b"));
            to.status(&format!("remove {kind}"), abi::remove(kind, "a"));
        }
    }

    fn body(to: &mut Report, kind: u32, size: usize) {
        to.given("body", &abi::buffer(kind, 0, size));
        to.given("body, more than there is", &abi::buffer(kind, 0, size + 10));
        to.given("body, all", &abi::buffer(kind, 0, u32::MAX as usize));
        to.given("body, nothing", &abi::buffer(kind, 0, 0));
        to.given("body, a part", &abi::buffer(kind, 1, 3));
        to.given("body from its end", &abi::buffer(kind, size, 3));
        to.given("body beyond", &abi::buffer(kind, size + 1, 3));
    }
}

impl Context for Stream {
    fn on_done(&mut self) -> bool {
        let mut to = self.report("on_done");
        to.given("request header", &abi::header(REQUEST, "x-probe"));
        to.given("response header", &abi::header(RESPONSE, ":status"));
        properties(&mut to);
        to.tell();
        true
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, ends: bool) -> Action {
        let case = abi::header(REQUEST, "x-probe").bytes.unwrap_or_default();
        self.case = String::from_utf8_lossy(&case).into_owned();
        if self.case == "start" {
            BEGINNING.with_borrow(|lines| lines.iter().for_each(|line| say(line)));
            // The queue that wakes this VM's root.
            abi::set_effective_context(self.root);
            abi::register_queue("probe-queue");
            abi::set_effective_context(self.id);
        }
        let mut to = self.report("on_request_headers");
        to.value("ends", ends);
        if self.case == "headers" {
            Self::headers(&mut to, REQUEST);
            Self::changes(&mut to, REQUEST);
            self.odds(&mut to);
            to.given("body", &abi::buffer(REQUEST_BODY, 0, 10));
        }
        properties(&mut to);
        to.tell();
        match self.case.as_str() {
            "through" => Action::Continue,
            _ if ends => {
                self.put_off();
                Action::Pause
            }
            _ => Action::Pause,
        }
    }

    fn on_http_request_body(&mut self, size: usize, ends: bool) -> Action {
        if !ends {
            return Action::Pause;
        }
        let mut to = self.report("on_request_body");
        to.value("size", size);
        match self.case.as_str() {
            "headers" => {
                Self::body(&mut to, REQUEST_BODY, size);
                to.status("set part", abi::set_buffer(REQUEST_BODY, 1, 1, b"?"));
                to.given("then", &abi::buffer(REQUEST_BODY, 0, 99));
                to.status("set before", abi::set_buffer(REQUEST_BODY, 0, 0, b"<"));
                to.given("then", &abi::buffer(REQUEST_BODY, 0, 99));
                to.status("set behind", abi::set_buffer(REQUEST_BODY, 99, 0, b">"));
                to.given("then", &abi::buffer(REQUEST_BODY, 0, 99));
                to.status("set all", abi::set_buffer(REQUEST_BODY, 0, 99, b"new"));
                to.given("then", &abi::buffer(REQUEST_BODY, 0, 99));
                to.status("set response", abi::set_buffer(RESPONSE_BODY, 0, 0, b"x"));
                to.given("response body", &abi::buffer(RESPONSE_BODY, 0, 10));
                to.given("call body", &abi::buffer(CALL_BODY, 0, 10));
                to.status("remove length", abi::remove(REQUEST, "content-length"));
                properties(&mut to);
                to.tell();
                Action::Continue
            }
            "answer" => {
                let headers: [(&str, &[u8]); 3] =
                    [("x-one", b"1"), ("x-empty", b""), ("x-odd", &[0xff, b'a'])];
                to.status("respond", abi::respond(201, &headers, b"own"));
                to.given("request header", &abi::header(REQUEST, "x-probe"));
                to.status("respond again", abi::respond(500, &[], b"twice"));
                properties(&mut to);
                to.tell();
                Action::Pause
            }
            "through" | "pass" | "refused" | "lost" | "start" => {
                properties(&mut to);
                to.tell();
                Action::Continue
            }
            "timer" => {
                // Below a millisecond is off; the last one counts.
                to.status("tick every 0", abi::tick_every(0));
                to.status("tick every 50", abi::tick_every(50));
                to.status("tick every 20", abi::tick_every(20));
                self.put_off();
                to.tell();
                Action::Pause
            }
            "hangup" => {
                to.tell();
                Action::Pause
            }
            _ => {
                properties(&mut to);
                to.tell();
                self.put_off();
                Action::Pause
            }
        }
    }

    fn on_http_response_headers(&mut self, _: usize, ends: bool) -> Action {
        let mut to = self.report("on_response_headers");
        to.value("ends", ends);
        properties(&mut to);
        to.given("request header", &abi::header(REQUEST, "x-probe"));
        to.status("replace request header", abi::replace(REQUEST, "a", b"b"));
        to.given("header :status", &abi::header(RESPONSE, ":status"));
        to.given("header x-answer", &abi::header(RESPONSE, "x-answer"));
        let served = abi::header(RESPONSE, "x-envoy-upstream-service-time");
        to.status("served", served.status);
        if matches!(self.case.as_str(), "headers" | "answer") {
            Self::headers(&mut to, RESPONSE);
            Self::changes(&mut to, RESPONSE);
        }
        to.given("body", &abi::buffer(RESPONSE_BODY, 0, 10));
        if self.case == "replace" {
            // Once, as Embudo does.
            to.status("respond", abi::respond(202, &[("x-one", b"1")], b"instead"));
            properties(&mut to);
            to.tell();
            self.case = "replaced".into();
            return Action::Pause;
        }
        to.tell();
        match self.case.as_str() {
            "patch" => Action::Pause,
            _ => Action::Continue,
        }
    }

    fn on_http_response_body(&mut self, size: usize, ends: bool) -> Action {
        if !ends {
            return match self.case.as_str() {
                "patch" => Action::Pause,
                _ => Action::Continue,
            };
        }
        let mut to = self.report("on_response_body");
        if self.case == "patch" {
            to.value("size", size);
            Self::body(&mut to, RESPONSE_BODY, size);
            to.status(
                "set all",
                abi::set_buffer(RESPONSE_BODY, 0, size, b"patched"),
            );
            to.status("set length", abi::replace(RESPONSE, "content-length", b"7"));
            to.given("then", &abi::buffer(RESPONSE_BODY, 0, 99));
            to.given("header :status", &abi::header(RESPONSE, ":status"));
        } else {
            to.given("header :status", &abi::header(RESPONSE, ":status"));
            to.status("replace header", abi::replace(RESPONSE, "a", b"b"));
        }
        properties(&mut to);
        to.tell();
        Action::Continue
    }

    fn on_log(&mut self) {
        let mut to = self.report("on_log");
        to.given("request header", &abi::header(REQUEST, "x-probe"));
        to.given("absent request header", &abi::header(REQUEST, "x-absent"));
        to.given("response header", &abi::header(RESPONSE, ":status"));
        properties(&mut to);
        to.tell();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut to = self.report("on_delete");
        to.status("effective own", abi::set_effective_context(self.id));
        properties(&mut to);
        to.tell();
        if self.case == "hangup" {
            self.case = "gone".into();
            self.put_off();
        }
    }
}
