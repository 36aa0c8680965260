//! What the host keeps for one VM.

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use wasmtime::{Memory, TypedFunc};

use super::Tally;
use super::hub::{Cluster, Out, SharedHub};
use super::queue::Registrar;
use crate::sim::abi::{Headers, HostFunction, Status};
use crate::sim::check::Actor;

/// The plugin's name, as `envoy.yaml` has it.
pub(super) const PLUGIN_NAME: &str = "embudo";

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

/// One VM, as the host sees it.
pub(crate) struct Guest {
    pub(crate) memory: Option<Memory>,
    pub(crate) allocate: Option<TypedFunc<u32, u32>>,
    /// What the job under way has cost so far.
    pub cost: Cost,
    /// The VM is to trap instead of this host call of the callback under way.
    pub trap_at: Option<u32>,
    /// Headers of the request under way; none once they have gone on.
    pub request_headers: Option<Headers>,
    /// As much of its body as is buffered.
    pub request_body: Bytes,
    /// Headers of the response under way; none once they have gone on.
    pub response_headers: Option<Headers>,
    /// As much of its body as is buffered; none but within the body's callback.
    pub response_body: Option<Bytes>,
    /// The answer that is handed over.
    pub call_response: Response,
    /// The guest's own answer.
    pub reply: Option<LocalReply>,
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
    /// Root contexts that were asked to go and are not ready.
    leaving: Vec<u32>,
    dice: ChaCha8Rng,
    last_token: u32,
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
            request_headers: None,
            request_body: Bytes::new(),
            response_headers: None,
            response_body: None,
            call_response: Response::default(),
            reply: None,
            tally: None,
            hub,
            vm,
            thread,
            callback: Callback::Start,
            context: 0,
            roots: BTreeMap::new(),
            leaving: Vec::new(),
            dice,
            last_token: 0,
        }
    }

    /// Begins a callback.
    pub(super) fn begin(&mut self, callback: Callback, context: u32, trap_at: Option<u32>) {
        (self.callback, self.context) = (callback, context);
        (self.cost, self.trap_at) = (Cost::default(), trap_at);
    }

    pub(super) fn select(&mut self, context: u32) {
        self.context = context;
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

    pub(crate) fn set_tick_period(&mut self, ms: u32) {
        let context = self.context;
        self.hub.lock().out.push(Out::Tick { context, ms });
    }

    /// The plugin's configuration, for the context that asks.
    pub(crate) fn configuration(&self) -> Arc<[u8]> {
        self.roots.get(&self.context).cloned().unwrap_or_default()
    }

    pub(crate) fn property(&self, path: &str) -> Option<String> {
        match path {
            "plugin_name" => Some(PLUGIN_NAME.to_owned()),
            "plugin_vm_id" => Some(VM_ID.to_owned()),
            "plugin_root_id" => Some(String::new()),
            _ => None,
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

    pub(crate) fn define_metric(&mut self, kind: u32, name: &str) -> u32 {
        self.hub.lock().metrics.define(kind, name)
    }

    pub(crate) fn record_metric(&mut self, metric: u32, value: u64) -> bool {
        self.hub.lock().metrics.record(metric, value)
    }

    pub(crate) fn increment_metric(&mut self, metric: u32, by: u64) -> bool {
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
        self.context = context;
        true
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
