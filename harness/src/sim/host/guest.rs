//! What the host keeps for one VM.

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use wasmtime::{Memory, TypedFunc};

use super::hub::{Cluster, Out, SharedHub};
use super::queue::Registrar;
use super::vm::Passed;
use super::{StreamFate, Tally};
use crate::sim::abi::{Headers, HostFunction, Status};
use crate::sim::check::Actor;

/// The plugin's name, as `envoy.yaml` has it.
pub(super) const PLUGIN_NAME: &str = "embudo";

/// The root's id, as `envoy.yaml` has it.
const ROOT_ID: &str = "embudo";

/// The VM's id: one map of shared data.
const VM_ID: &str = "embudo";

/// The clusters that exist, besides the one of the routes.
const BATCH_CLUSTER: &str = "laravel_batch";
pub(crate) const WEBHOOK_CLUSTER: &str = "webhook";

/// What the guest was called for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Callback {
    /// `_initialize`, `on_vm_start`, `on_configure`.
    #[default]
    Start,
    /// `on_tick`.
    Tick,
    /// `on_queue_ready`.
    QueueReady,
    /// A stream's.
    Stream(u64),
    /// `on_http_call_response`, of the checker's call.
    Answer(u64),
    /// `on_done`, `on_delete`.
    Done,
}

/// What a job has cost, for the limits on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Host calls.
    pub host_calls: u32,
    /// Instructions of the guest, as wasmtime counts them.
    pub fuel: u64,
}

/// A call out, as the guest asked for it.
#[derive(Clone, Debug)]
pub(crate) struct HttpCall {
    /// The cluster.
    pub cluster: String,
    /// With the pseudo headers.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
    /// The timeout.
    pub timeout_ms: u64,
}

/// The guest's own answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalReply {
    /// The status.
    pub status: u16,
    /// Without `:status`.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

/// An answer to a call out. No headers at all: the connection broke in mid-body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    /// With `:status`.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

/// What a root's callback did to a stream that it holds.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// It answered it.
    Reply(LocalReply),
    /// It let it go on, as it stood.
    Resume(Box<Passed>),
}

/// One stream, as far as the guest can reach it.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamState {
    /// Whose it is.
    pub root: u32,
    /// The request's headers; none once they have gone on.
    pub request_headers: Option<Headers>,
    /// As much of its body as is buffered.
    pub request_body: Bytes,
    /// What of it went on before it was held.
    pub gone_on: (Option<Headers>, Bytes),
    /// Headers of the response under way; none once they have gone on.
    pub response_headers: Option<Headers>,
    /// As much of its body as is buffered; none but within the body's callback.
    pub response_body: Bytes,
    /// Both once more, for the access log.
    pub logged: (Headers, Headers),
    /// Its answer was replaced by the guest's own.
    pub replaced: bool,
    /// `on_log` is under way.
    pub logs: bool,
    /// It waits for its root to answer it, or to let it go on.
    pub waits: bool,
    /// Its properties.
    pub fate: StreamFate,
}

/// One VM, as the host sees it.
pub(crate) struct Guest {
    pub(crate) memory: Option<Memory>,
    pub(crate) allocate: Option<TypedFunc<u32, u32>>,
    /// What the job under way has cost so far.
    pub cost: Cost,
    /// The VM is to trap instead of this host call of the callback under way.
    pub trap_at: Option<u32>,
    /// The answer that is handed over, while it is.
    pub call_response: Option<Response>,
    /// The guest's own answer to the stream whose callback is under way.
    pub reply: Option<LocalReply>,
    /// What a root's callback did to streams that it holds: carried out once the callback is over.
    pub acts: Vec<(u32, Act)>,
    /// What its host calls came to, where somebody wants to know.
    pub(crate) tally: Option<Box<Tally>>,
    hub: SharedHub,
    vm: u32,
    thread: usize,
    callback: Callback,
    /// The context that host calls are about.
    context: u32,
    /// Root contexts and their configurations.
    roots: BTreeMap<u32, Arc<[u8]>>,
    /// Streams that are not over.
    streams: BTreeMap<u32, StreamState>,
    /// The stream that the callback under way is about.
    under_way: Option<u32>,
    /// Root contexts that were asked to go and are not ready.
    leaving: Vec<u32>,
    dice: ChaCha8Rng,
    last_token: u32,
}

fn value_of(headers: &Headers, name: &str) -> Option<Vec<u8>> {
    let (_, value) = headers.iter().find(|(known, _)| known == name)?;
    Some(value.clone())
}

// === impl Response ===

impl Response {
    /// The status; none where there are no headers.
    #[must_use]
    pub(crate) fn status(&self) -> Option<u16> {
        let (_, value) = self.headers.iter().find(|(name, _)| name == ":status")?;
        std::str::from_utf8(value).ok()?.parse().ok()
    }
}

// === impl Guest ===

impl Guest {
    /// A VM of this process, on this thread.
    #[must_use]
    pub(crate) fn new(hub: SharedHub, vm: u32, thread: usize, seed: u64) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(u64::from(vm));
        Self {
            memory: None,
            allocate: None,
            cost: Cost::default(),
            trap_at: None,
            call_response: None,
            reply: None,
            acts: Vec::new(),
            tally: None,
            hub,
            vm,
            thread,
            callback: Callback::Start,
            context: 0,
            roots: BTreeMap::new(),
            streams: BTreeMap::new(),
            under_way: None,
            leaving: Vec::new(),
            dice,
            last_token: 0,
        }
    }

    /// Begins a callback.
    pub(super) fn begin(&mut self, callback: Callback, context: u32, trap_at: Option<u32>) {
        (self.callback, self.context) = (callback, context);
        self.under_way = None;
        (self.cost, self.trap_at) = (Cost::default(), trap_at);
    }

    pub(super) fn select(&mut self, context: u32) {
        self.context = context;
    }

    /// A stream's callbacks begin, or go on.
    pub(super) fn select_stream(&mut self, context: u32) {
        self.select(context);
        self.under_way = Some(context);
    }

    pub(super) fn add_stream(&mut self, context: u32, root: u32, headers: Headers) {
        let state = StreamState {
            root,
            logged: (headers.clone(), Headers::new()),
            request_headers: Some(headers),
            ..StreamState::default()
        };
        self.streams.insert(context, state);
    }

    pub(super) fn remove_stream(&mut self, context: u32) {
        self.streams.remove(&context);
    }

    pub(super) fn has_stream(&self, context: u32) -> bool {
        self.streams.contains_key(&context)
    }

    /// A stream that is not over.
    pub(super) fn stream_mut(&mut self, context: u32) -> &mut StreamState {
        self.streams.entry(context).or_default()
    }

    /// The stream of the effective context; none where that is a root.
    pub(crate) fn stream(&mut self) -> Option<&mut StreamState> {
        self.streams.get_mut(&self.context)
    }

    /// The guest's own answer to the stream of the effective context. The first one counts.
    pub(crate) fn send_reply(&mut self, reply: LocalReply) {
        let context = self.context;
        if self.under_way == Some(context) {
            self.reply.get_or_insert(reply);
            return;
        }
        if !self.has_stream(context) {
            return;
        }
        if self.acts.iter().any(|(of, _)| *of == context) {
            let mut hub = self.hub.lock();
            let at_us = hub.clock.mono_us;
            let what = "a root answers what it has answered, or let go: Envoy mixes the two up";
            return hub.checker.trapped(at_us, what);
        }
        self.acts.push((context, Act::Reply(reply)));
    }

    // ## Held => Resumed
    /// The request of the effective context goes on, once the callback is over. From now on its headers are out of
    /// reach. A root has no request, and one that has gone on goes on: both are fine.
    pub(crate) fn resume_request(&mut self) {
        let context = self.context;
        let Some(stream) = self.streams.get_mut(&context).filter(|stream| stream.waits) else {
            return;
        };
        stream.waits = false;
        let headers = stream.request_headers.take().or(stream.gone_on.0.take());
        let passed = Passed {
            context,
            root: stream.root,
            headers: headers.unwrap_or_default(),
            // It is in reach until the callback is over.
            body: Bytes::new(),
        };
        self.acts.push((context, Act::Resume(Box::new(passed))));
    }

    pub(super) fn add_root(&mut self, context: u32, configuration: Arc<[u8]>) {
        self.roots.insert(context, configuration);
    }

    pub(super) fn remove_root(&mut self, context: u32) {
        self.roots.remove(&context);
    }

    pub(super) fn is_root(&self, context: u32) -> bool {
        self.roots.contains_key(&context)
    }

    pub(super) fn is_leaving(&mut self, context: u32) {
        self.leaving.push(context);
    }

    /// Who this is.
    fn actor(&self) -> Actor {
        Actor {
            vm: self.vm,
            thread: self.thread,
            callback: self.callback,
        }
    }

    pub(crate) fn about_to_call(&mut self, function: HostFunction) {
        self.hub.lock().yielded_at = function;
    }

    pub(crate) fn called(&mut self, function: HostFunction, code: i32) {
        if let Some(tally) = &mut self.tally {
            tally.called(function);
        }
        let mut hub = self.hub.lock();
        hub.host_calls += 1;
        let at_us = hub.clock.mono_us;
        hub.trace
            .host_call(at_us, self.thread, self.vm, function, code);
    }

    /// Bytes that the host wrote into memory that the guest allocated for them.
    pub(crate) fn given(&mut self, bytes: usize) {
        if let Some(tally) = &mut self.tally {
            tally.given(bytes);
        }
    }

    /// Bytes that the host read from the guest's memory.
    pub(crate) fn taken(&mut self, bytes: usize) {
        if let Some(tally) = &mut self.tally {
            tally.taken(bytes);
        }
    }

    pub(crate) fn mono_ns(&self) -> u64 {
        self.hub.lock().clock.mono_us * 1000
    }

    pub(crate) fn wall_ns(&self) -> u64 {
        self.hub.lock().clock.wall_us * 1000
    }

    pub(crate) fn random(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.dice.fill_bytes(&mut bytes);
        bytes
    }

    pub(crate) fn log(&mut self, level: u32, line: &str) {
        if let Some(tally) = &mut self.tally {
            tally.log(level, line);
        }
        let mut hub = self.hub.lock();
        let at_us = hub.clock.mono_us;
        hub.trace.log(at_us, self.thread, self.vm, level, line);
        hub.checker.logged(self.actor(), level, line);
    }

    /// A stream sets the timer of its root. (proxy-wasm-cpp-host, `ContextBase::setTimerPeriod`)
    pub(crate) fn set_tick_period(&mut self, ms: u32) {
        let stream = self.streams.get(&self.context);
        let context = stream.map_or(self.context, |stream| stream.root);
        self.hub.lock().out.push(Out::Tick { context, ms });
    }

    /// The plugin's configuration, for the context that asks.
    pub(crate) fn configuration(&self) -> Arc<[u8]> {
        let stream = self.streams.get(&self.context);
        let root = stream.map_or(self.context, |stream| stream.root);
        self.roots.get(&root).cloned().unwrap_or_default()
    }

    /// A property of the effective context. The parts of a path are parted by zero bytes.
    pub(crate) fn property(&self, path: &str) -> Option<Vec<u8>> {
        match path {
            "plugin_name" => return Some(PLUGIN_NAME.into()),
            "plugin_vm_id" => return Some(VM_ID.into()),
            "plugin_root_id" => return Some(ROOT_ID.into()),
            _ => {}
        }
        let stream = self.streams.get(&self.context)?;
        let (head, rest) = path.split_once('\0')?;
        let request = stream.request_headers.as_ref();
        let request = request.or_else(|| stream.logs.then_some(&stream.logged.0));
        match (head, rest) {
            ("request", "path") => value_of(request?, ":path"),
            ("request", "method") => value_of(request?, ":method"),
            ("request", "host") => value_of(request?, ":authority"),
            _ => stream.fate.property(head, rest),
        }
    }

    pub(crate) fn get_shared(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        let mut hub = self.hub.lock();
        let hub = &mut *hub;
        let found = hub.data.get(key);
        hub.checker.got(
            hub.clock,
            self.actor(),
            key,
            found.as_ref().map(|(value, _)| value),
        );
        found.map(|(value, token)| (value.to_vec(), token))
    }

    pub(crate) fn set_shared(&mut self, key: &str, value: Vec<u8>, token: u32) -> bool {
        let mut hub = self.hub.lock();
        let hub = &mut *hub;
        let value: Arc<[u8]> = value.into();
        let result = hub.data.put(key, Arc::clone(&value), token);
        hub.trace.put(
            hub.clock.mono_us,
            self.thread,
            self.vm,
            key,
            &value,
            result.is_ok(),
        );
        match result {
            Ok(before) => {
                let before = before.unwrap_or_default();
                hub.checker
                    .put(hub.clock, self.actor(), key, &before, &value);
                true
            }
            Err(()) => {
                hub.checker.lost_race(self.actor(), key);
                false
            }
        }
    }

    pub(crate) fn register_queue(&mut self, name: &str) -> u32 {
        let registrar = Registrar {
            vm: self.vm,
            context: self.context,
        };
        self.hub.lock().queues.register(VM_ID, name, registrar)
    }

    pub(crate) fn resolve_queue(&self, vm_id: &str, name: &str) -> Option<u32> {
        self.hub.lock().queues.resolve(vm_id, name)
    }

    pub(crate) fn enqueue(&mut self, queue: u32, item: Vec<u8>) -> bool {
        let mut hub = self.hub.lock();
        match hub.queues.enqueue(queue, item) {
            Some(registrar) => {
                hub.out.push(Out::Ring { queue, registrar });
                true
            }
            None => false,
        }
    }

    pub(crate) fn dequeue(&mut self, queue: u32) -> Result<Vec<u8>, Status> {
        match self.hub.lock().queues.dequeue(queue) {
            None => Err(Status::NotFound),
            Some(None) => Err(Status::Empty),
            Some(Some(item)) => Ok(item),
        }
    }

    pub(crate) fn define_metric(&mut self, kind: u32, name: &str) -> Option<u32> {
        self.hub.lock().metrics.define(kind, name)
    }

    pub(crate) fn record_metric(&mut self, metric: u32, value: u64) -> bool {
        self.hub.lock().metrics.record(metric, value)
    }

    pub(crate) fn increment_metric(&mut self, metric: u32, by: i64) -> bool {
        self.hub.lock().metrics.increment(metric, by)
    }

    /// Sends a call, or refuses at once.
    pub(crate) fn http_call(&mut self, http: HttpCall) -> Result<u32, Status> {
        let mut hub = self.hub.lock();
        let hub = &mut *hub;
        let cluster = match http.cluster.as_str() {
            BATCH_CLUSTER => hub.cluster,
            WEBHOOK_CLUSTER => hub.webhook,
            _ => Cluster::Missing,
        };
        let refused = match cluster {
            Cluster::Missing => Some(Status::BadArgument),
            Cluster::Ejected => Some(Status::InternalFailure),
            Cluster::Healthy => None,
        };
        let actor = self.actor();
        hub.trace
            .http_call(hub.clock.mono_us, self.thread, self.vm, &http, refused);
        if let Some(status) = refused {
            if http.cluster == BATCH_CLUSTER {
                hub.checker.refused_on_the_spot(actor);
            }
            return Err(status);
        }
        self.last_token += 1;
        let token = self.last_token;
        let call = match http.cluster.as_str() {
            WEBHOOK_CLUSTER => hub.checker.hands_over(hub.clock, &http),
            _ => hub.checker.dispatched(hub.clock, actor, &http, &hub.data),
        };
        hub.out.push(Out::HttpCall {
            token,
            context: self.context,
            call,
            http,
        });
        Ok(token)
    }

    pub(crate) fn set_effective_context(&mut self, context: u32) -> bool {
        // 0 is the VM's own, which belongs to no root.
        let known = context == 0 || self.is_root(context) || self.has_stream(context);
        if known {
            self.context = context;
        }
        known
    }

    /// A root that was asked to go is ready.
    pub(crate) fn done(&mut self) -> bool {
        let context = self.context;
        let waits = self.leaving.contains(&context);
        if waits {
            self.leaving.retain(|other| *other != context);
            self.hub.lock().out.push(Out::Done { context });
        }
        waits
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest")
            .field("vm", &self.vm)
            .field("thread", &self.thread)
            .field("callback", &self.callback)
            .finish_non_exhaustive()
    }
}
