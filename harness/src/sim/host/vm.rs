//! One instance of the module, and the callbacks it can be asked for.
//!
//! A [`Job`] is what Envoy does with a VM in one go: a tick is one callback, a request is several, from
//! `on_context_create` to the answer's own response callbacks. Between the host calls of a job other
//! threads may run; between the callbacks of a job nothing else happens on this thread.

use bytes::Bytes;
use std::sync::Arc;
use wasmtime::{Store, TypedFunc};

use super::machine::FUEL_MAX;
use super::{Callback, Cost, Guest, LocalReply, Machine, Response, StreamFate};
use crate::sim::abi::Headers;

/// What a VM is to do.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    /// A listener update: one more root context.
    AddRoot {
        /// The plugin's configuration.
        configuration: Arc<[u8]>,
    },
    /// The timer of a root context.
    Tick {
        /// Which.
        context: u32,
    },
    /// The doorbell.
    QueueReady {
        /// The root context that registered.
        context: u32,
        /// The queue.
        queue: u32,
    },
    /// A call out was answered.
    Answer {
        /// The root context that made it.
        context: u32,
        /// The VM's token.
        token: u32,
        /// The checker's number of the call.
        call: u64,
        /// The answer.
        response: Response,
    },
    /// A request, whole.
    Request {
        /// The simulation's number of the stream.
        stream: u64,
        /// With pseudo headers.
        headers: Headers,
        /// The body, in the pieces in which it comes.
        body: Body,
    },
    /// Laravel's answer to a request that passed through.
    Respond {
        /// The simulation's number of the stream.
        stream: u64,
        /// The stream's context.
        context: u32,
        /// With `:status`.
        headers: Headers,
        /// The body, in the pieces in which it comes.
        body: Body,
        /// What Envoy knows of it.
        fate: StreamFate,
    },
    /// A request that passed through, or is held, has ended without an answer: its caller has hung up, say.
    HangUp {
        /// The simulation's number of the stream.
        stream: u64,
        /// The stream's context.
        context: u32,
        /// What Envoy knows of it.
        fate: StreamFate,
    },
    /// The listener of a root context is drained.
    Drain {
        /// Which.
        context: u32,
    },
    /// A root context that asked for time is done.
    Delete {
        /// Which.
        context: u32,
    },
}

/// A body of a request, or of an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    /// The pieces; none at all is a message that ends with its headers.
    pub pieces: Vec<Bytes>,
    /// The message ends in trailers.
    pub trailers: bool,
    /// The connection breaks after the last piece, and the message never ends.
    pub cut: bool,
}

/// What came of a job.
#[derive(Clone, Debug)]
pub(crate) enum JobResult {
    /// A root context took its configuration, or refused it.
    Started {
        /// Its id.
        context: u32,
        /// Whether it took it.
        accepted: bool,
    },
    /// What a root context has done to streams that were held, by their contexts and in its order.
    Acted(Vec<(u32, Acted)>),
    /// A stream came as far as this.
    Stream(u64, StreamEnd),
    /// A root context was asked to go.
    Drained {
        /// Which.
        context: u32,
        /// It is gone; otherwise it still has calls out.
        gone: bool,
    },
}

/// What became of a stream that was held.
#[derive(Clone, Debug)]
pub(crate) enum Acted {
    /// The guest answered it; none where its own response callbacks hold the answer.
    Answered(Option<LocalReply>),
    /// It goes on to Laravel.
    Resumed(Passed),
}

/// How far a stream came.
#[derive(Clone, Debug)]
pub(crate) enum StreamEnd {
    /// The guest answered.
    Answered(LocalReply),
    /// It goes on to Laravel, and its context waits for the answer.
    Passed(Passed),
    /// It is held until a root context answers it.
    Waits(Waits),
    /// The answer to it is held for ever.
    Held,
    /// Laravel's answer goes to the gateway, as the filter leaves it.
    Relayed(Relayed),
    /// Nobody is there any more to be answered.
    Gone,
}

/// A request that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waits {
    /// The stream's context.
    pub context: u32,
    /// The root context whose it is.
    pub root: u32,
}

/// A request as it leaves the filter.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    /// The stream's context.
    pub context: u32,
    /// The root context whose it is.
    pub root: u32,
    /// With pseudo headers.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

/// An answer as it leaves the filter.
#[derive(Clone, Debug)]
pub(crate) struct Relayed {
    /// With `:status`.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
    /// The guest's own, in the place of Laravel's.
    pub replaced: bool,
    /// It broke off.
    pub cut: bool,
}

/// One VM.
#[derive(Debug)]
pub(crate) struct Vm {
    /// The newest root context: new streams are its.
    pub root: u32,
    pub(super) store: Store<Guest>,
    pub(super) exports: Exports,
    pub(super) next_context: u32,
}

pub(super) struct Exports {
    pub(super) on_context_create: TypedFunc<(u32, u32), ()>,
    on_vm_start: TypedFunc<(u32, u32), u32>,
    on_configure: TypedFunc<(u32, u32), u32>,
    on_tick: TypedFunc<u32, ()>,
    on_queue_ready: TypedFunc<(u32, u32), ()>,
    on_http_call_response: TypedFunc<(u32, u32, u32, u32, u32), ()>,
    pub(super) on_request_headers: TypedFunc<(u32, u32, u32), u32>,
    pub(super) on_request_body: TypedFunc<(u32, u32, u32), u32>,
    pub(super) on_request_trailers: TypedFunc<(u32, u32), u32>,
    pub(super) on_response_headers: TypedFunc<(u32, u32, u32), u32>,
    pub(super) on_response_body: TypedFunc<(u32, u32, u32), u32>,
    pub(super) on_response_trailers: TypedFunc<(u32, u32), u32>,
    pub(super) on_done: TypedFunc<u32, u32>,
    pub(super) on_log: TypedFunc<u32, ()>,
    pub(super) on_delete: TypedFunc<u32, ()>,
}

pub(super) fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

// === impl Vm ===

impl Vm {
    /// Starts a VM with one root context, as Envoy does for a thread and after a trap.
    pub(crate) async fn start(
        machine: Machine,
        guest: Guest,
        configuration: Arc<[u8]>,
    ) -> wasmtime::Result<(Self, JobResult)> {
        let mut store = Store::new(&machine.engine, guest);
        store.set_fuel(FUEL_MAX)?;
        let instance = machine.instance.instantiate_async(&mut store).await?;
        store.data_mut().memory = instance.get_memory(&mut store, "memory");
        let allocate = instance.get_typed_func(&mut store, "proxy_on_memory_allocate")?;
        store.data_mut().allocate = Some(allocate);
        let initialize = instance.get_typed_func::<(), ()>(&mut store, "_initialize")?;
        let exports = Exports::of(&instance, &mut store)?;
        initialize.call_async(&mut store, ()).await?;
        let mut vm = Self {
            root: 0,
            store,
            exports,
            next_context: 1,
        };
        let result = vm.add_root(configuration).await?;
        Ok((vm, result))
    }

    /// Whether this is a root context of the VM that is still there.
    #[must_use]
    pub(crate) fn has_root(&self, context: u32) -> bool {
        self.store.data().is_root(context)
    }

    /// What the job that ran last has cost.
    #[must_use]
    pub(crate) fn cost(&self) -> Cost {
        let left = self.store.get_fuel().unwrap_or(FUEL_MAX);
        Cost {
            fuel: FUEL_MAX.saturating_sub(left),
            ..self.store.data().cost
        }
    }

    /// Its host's side.
    pub(crate) fn guest_mut(&mut self) -> &mut Guest {
        self.store.data_mut()
    }

    /// What its memory has grown to.
    #[must_use]
    pub(crate) fn memory_bytes(&self) -> usize {
        let memory = self.store.data().memory;
        memory.map_or(0, |memory| memory.data_size(&self.store))
    }

    /// Does a job, or traps. `trap_at` is the host call at which it is made to.
    pub(crate) async fn run(
        &mut self,
        job: Job,
        trap_at: Option<u32>,
    ) -> wasmtime::Result<JobResult> {
        self.store.set_fuel(FUEL_MAX)?;
        let (callback, context) = match &job {
            Job::AddRoot { .. } => (Callback::Start, 0),
            Job::Tick { context } => (Callback::Tick, *context),
            Job::QueueReady { context, .. } => (Callback::QueueReady, *context),
            Job::Answer { context, call, .. } => (Callback::Answer(*call), *context),
            Job::Request { stream, .. } => (Callback::Stream(*stream), 0),
            Job::Respond {
                stream, context, ..
            }
            | Job::HangUp {
                stream, context, ..
            } => (Callback::Stream(*stream), *context),
            Job::Drain { context } | Job::Delete { context } => (Callback::Done, *context),
        };
        self.store.data_mut().begin(callback, context, trap_at);
        match job {
            Job::AddRoot { configuration } => self.add_root(configuration).await,
            Job::Tick { context } => {
                let call = self.exports.on_tick.call_async(&mut self.store, context);
                call.await?;
                Ok(JobResult::Acted(self.acted().await?))
            }
            Job::QueueReady { context, queue } => {
                let ready = &self.exports.on_queue_ready;
                ready.call_async(&mut self.store, (context, queue)).await?;
                Ok(JobResult::Acted(self.acted().await?))
            }
            Job::Answer {
                context,
                token,
                response,
                ..
            } => self.answer(context, token, response).await,
            Job::Request {
                stream,
                headers,
                body,
            } => {
                let end = self.request(headers, body).await?;
                Ok(JobResult::Stream(stream, end))
            }
            Job::Respond {
                stream,
                context,
                headers,
                body,
                fate,
            } => {
                let end = self.relay(context, headers, body, fate).await?;
                Ok(JobResult::Stream(stream, end))
            }
            Job::HangUp {
                stream,
                context,
                fate,
            } => {
                self.hangs_up(context, fate).await?;
                Ok(JobResult::Stream(stream, StreamEnd::Gone))
            }
            Job::Drain { context } => self.drain(context).await,
            Job::Delete { context } => {
                self.delete(context).await?;
                Ok(JobResult::Drained {
                    context,
                    gone: true,
                })
            }
        }
    }

    async fn add_root(&mut self, configuration: Arc<[u8]>) -> wasmtime::Result<JobResult> {
        let context = self.next_context;
        self.next_context += 1;
        let length = size(configuration.len());
        let guest = self.store.data_mut();
        guest.add_root(context, configuration);
        guest.select(context);
        let (exports, store) = (&self.exports, &mut self.store);
        exports
            .on_context_create
            .call_async(&mut *store, (context, 0))
            .await?;
        let started = exports
            .on_vm_start
            .call_async(&mut *store, (context, 0))
            .await?;
        let accepted = started != 0
            && exports
                .on_configure
                .call_async(&mut *store, (context, length))
                .await?
                != 0;
        if accepted {
            self.root = context;
        }
        Ok(JobResult::Started { context, accepted })
    }

    async fn answer(
        &mut self,
        context: u32,
        token: u32,
        response: Response,
    ) -> wasmtime::Result<JobResult> {
        let headers = size(response.headers.len());
        let body = size(response.body.len());
        self.store.data_mut().call_response = Some(response);
        self.exports
            .on_http_call_response
            .call_async(&mut self.store, (context, token, headers, body, 0))
            .await?;
        self.store.data_mut().call_response = None;
        Ok(JobResult::Acted(self.acted().await?))
    }

    async fn drain(&mut self, context: u32) -> wasmtime::Result<JobResult> {
        // Ready only after it said that it is not: proxy_done within on_done would come too early.
        self.store.data_mut().is_leaving(context);
        let done = &self.exports.on_done;
        let gone = done.call_async(&mut self.store, context).await? != 0;
        if gone {
            self.delete(context).await?;
        }
        Ok(JobResult::Drained { context, gone })
    }

    async fn delete(&mut self, context: u32) -> wasmtime::Result<()> {
        let (exports, store) = (&self.exports, &mut self.store);
        exports.on_log.call_async(&mut *store, context).await?;
        exports.on_delete.call_async(&mut *store, context).await?;
        store.data_mut().remove_root(context);
        Ok(())
    }
}

// === impl Exports ===

impl Exports {
    fn of(instance: &wasmtime::Instance, store: &mut Store<Guest>) -> wasmtime::Result<Self> {
        let mut get = Getter(instance, store);
        Ok(Self {
            on_context_create: get.function("proxy_on_context_create")?,
            on_vm_start: get.function("proxy_on_vm_start")?,
            on_configure: get.function("proxy_on_configure")?,
            on_tick: get.function("proxy_on_tick")?,
            on_queue_ready: get.function("proxy_on_queue_ready")?,
            on_http_call_response: get.function("proxy_on_http_call_response")?,
            on_request_headers: get.function("proxy_on_request_headers")?,
            on_request_body: get.function("proxy_on_request_body")?,
            on_request_trailers: get.function("proxy_on_request_trailers")?,
            on_response_headers: get.function("proxy_on_response_headers")?,
            on_response_body: get.function("proxy_on_response_body")?,
            on_response_trailers: get.function("proxy_on_response_trailers")?,
            on_done: get.function("proxy_on_done")?,
            on_log: get.function("proxy_on_log")?,
            on_delete: get.function("proxy_on_delete")?,
        })
    }
}

impl std::fmt::Debug for Exports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exports(..)")
    }
}

struct Getter<'a>(&'a wasmtime::Instance, &'a mut Store<Guest>);

impl Getter<'_> {
    fn function<P: wasmtime::WasmParams, R: wasmtime::WasmResults>(
        &mut self,
        name: &str,
    ) -> wasmtime::Result<TypedFunc<P, R>> {
        self.0.get_typed_func(&mut *self.1, name)
    }
}
