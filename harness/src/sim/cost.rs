//! What one request costs, counted and not timed: the same on every machine, so that a test may hold it.
//!
//! Three things are counted. *Host calls*, by name: a crossing of the VM's border with a lookup on the
//! other side, 0.2 to 3 µs each on Envoy. *Bytes copied* at these calls, into the guest's buffers and out
//! of its memory; the fixed-width numbers and pointers of a call are not counted. *Allocations*: the
//! guest's buffers for what the host hands over (`proxy_on_memory_allocate`, counted in the VM), and
//! whatever the core allocates while it recognises, compares and stores (counted natively, around
//! `KnownHeads::head`, `KnownBodies::update` and `intake::take_in`, without the store's own). What the SDK allocates
//! between the two, a few for the stream and for the answer, is in neither. *Instructions* are the
//! VM's; they change with the compiler, so they are shown and not held.
//!
//! Every kind is measured once all is warm: the doorbell is resolved and every metric defined, as it is
//! for all requests of a VM's life but the first. Reads have sessions, and a process, of their own.

mod allocations;
mod core;
mod reads;

use std::fmt;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;

pub use self::allocations::Counting;
use super::abi::Headers;
use super::fuzz::{hub, wait};
use super::host::{
    Body, Guest, Job, JobResult, Machine, Out, SharedHub, StreamEnd, StreamFate, Tally, Vm,
};

/// One shard, so that all sessions meet in it; and a state that a QR sets is implied only where that is assumed.
const CONFIGURATION: &str = r#"{"max_sessions":8,"assume":{"implies":true}}"#;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Laravel has the value, or will get it.
    Duplicate,
    /// A state that its QR implies.
    Implied,
    /// A new value, and the dispatcher knows that there is something in the shard.
    New,
    /// A new value, and the dispatcher has to be told at once.
    NewWithRing,
    /// A new value in the place of one that waits.
    Superseding,
    /// A read that is answered from the store, as Laravel said it.
    Kept,
    /// The same, with a newer state in its place.
    KeptPatched,
    /// Passed on for its headers: no rule has its path.
    BypassedByHead,
    /// Passed on for its body: it is no JSON.
    BypassedByBody,
    /// Another route: the filter is disabled there, and Envoy never enters the VM.
    Untouched,
}

/// What one request of a kind costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The kind.
    pub kind: Kind,
    /// Host calls, by the function's name.
    pub calls: Vec<(&'static str, u32)>,
    /// Bytes copied into the guest.
    pub bytes_in: u64,
    /// Bytes copied out of it.
    pub bytes_out: u64,
    /// Buffers that the guest allocated for the host.
    pub buffers: u32,
    /// Allocations of the core; `None` where the program does not count them.
    pub allocations: Option<u64>,
    /// Instructions of the VM.
    pub instructions: u64,
}

struct Process {
    hub: SharedHub,
    vm: Vm,
}

/// What a gateway posts.
pub(super) struct Post {
    path: &'static str,
    body: String,
}

// === impl Cost ===

impl Cost {
    /// Measures every kind.
    ///
    /// # Errors
    /// The module does not start, or a request is not of the kind that it was meant to be.
    pub fn all(machine: &Machine) -> Result<Vec<Self>> {
        let mut process = Process::start(machine)?;
        let mut costs = Vec::new();
        for kind in Kind::IN_ORDER {
            let mut cost = process.measure(kind).with_context(|| kind.to_string())?;
            cost.allocations = self::core::allocations_of(kind);
            costs.push(cost);
        }
        costs.extend(Self::of_reads(machine)?);
        costs.sort_by_key(|cost| cost.kind);
        Ok(costs)
    }

    /// Host calls in all.
    #[must_use]
    pub fn host_calls(&self) -> u32 {
        self.calls.iter().map(|(_, count)| count).sum()
    }
}

// === impl Process ===

impl Process {
    fn start(machine: &Machine) -> Result<Self> {
        let hub = hub()?;
        let guest = Guest::new(hub.clone(), 1, 0, 1);
        let configuration = CONFIGURATION.as_bytes().into();
        let started = wait(Vm::start(machine.clone(), guest, configuration));
        let (vm, result) = started.map_err(words)?;
        if !matches!(result, JobResult::Started { accepted: true, .. }) {
            bail!("the module refuses its configuration");
        }
        let mut process = Self { hub, vm };
        process.tick()?;
        // Laravel's own 200 to one of each route proves the caller: a request is queued only then.
        for post in [Post::pending("warm"), Post::qr("warm", 1)] {
            let (outcome, _) = process.request(&post)?;
            if outcome != "write-through; unproven" {
                bail!("a caller that nobody knows was answered {outcome}");
            }
        }
        process.request(&Post::qr("warm", 2))?;
        process.answer_rings()?;
        for kind in [Kind::BypassedByHead, Kind::BypassedByBody] {
            process.request(&Post::of(kind))?;
        }
        process.request(&Post::qr("warm", 2))?;
        process.request(&Post::qr("warm", 3))?;
        process.request(&Post::pending("warm"))?;
        Ok(process)
    }

    fn measure(&mut self, kind: Kind) -> Result<Cost> {
        if kind == Kind::Untouched {
            return Ok(Cost::of(kind, &Tally::default(), 0));
        }
        if kind == Kind::NewWithRing {
            self.answer_rings()?;
        }
        self.vm.guest_mut().tally = Some(Box::default());
        let (outcome, instructions) = self.request(&Post::of(kind))?;
        let tally = self.vm.guest_mut().tally.take().unwrap_or_default();
        if outcome != kind.outcome() {
            bail!("answered {outcome}, and not {}", kind.outcome());
        }
        Ok(Cost::of(kind, &tally, instructions))
    }

    /// A request with all its callbacks, to the end of its stream. Gives `x-embudo` and the instructions.
    fn request(&mut self, post: &Post) -> Result<(String, u64)> {
        let body = Bytes::from(post.body.clone());
        let job = Job::Request {
            stream: 1,
            headers: post.headers(),
            body: Body {
                pieces: vec![body],
                ..Body::default()
            },
        };
        let result = wait(self.vm.run(job, None)).map_err(words)?;
        let mut instructions = self.vm.cost().fuel;
        let headers = match result {
            JobResult::Stream(_, StreamEnd::Answered(reply)) => reply.headers,
            JobResult::Stream(_, StreamEnd::Passed(passed)) => {
                let headers = vec![(":status".to_owned(), b"200".to_vec())];
                let job = Job::Respond {
                    stream: 1,
                    context: passed.context,
                    headers,
                    body: Body::default(),
                    fate: StreamFate::answered(1),
                };
                let result = wait(self.vm.run(job, None)).map_err(words)?;
                instructions += self.vm.cost().fuel;
                match result {
                    JobResult::Stream(_, StreamEnd::Relayed(relayed)) => relayed.headers,
                    other => bail!("the answer is not relayed: {other:?}"),
                }
            }
            other => bail!("the request came to {other:?}"),
        };
        let outcome = headers.iter().find(|(name, _)| name == "x-embudo");
        let outcome = outcome.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        Ok((outcome.unwrap_or_default(), instructions))
    }

    fn tick(&mut self) -> Result<()> {
        let context = self.vm.root;
        wait(self.vm.run(Job::Tick { context }, None)).map_err(words)?;
        Ok(())
    }

    fn answer_rings(&mut self) -> Result<()> {
        let out = std::mem::take(&mut self.hub.lock().out);
        for out in out {
            if let Out::Ring { queue, registrar } = out {
                let context = registrar.context;
                wait(self.vm.run(Job::QueueReady { context, queue }, None)).map_err(words)?;
            }
        }
        Ok(())
    }
}

fn words(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:?}")
}

impl Cost {
    fn of(kind: Kind, tally: &Tally, instructions: u64) -> Self {
        let calls = tally.calls.iter();
        Self {
            kind,
            calls: calls
                .map(|(function, count)| (function.name(), *count))
                .collect(),
            bytes_in: tally.bytes_in,
            bytes_out: tally.bytes_out,
            buffers: tally.buffers,
            allocations: None,
            instructions,
        }
    }
}

// === impl Post ===

impl Post {
    pub(super) fn of(kind: Kind) -> Self {
        match kind {
            Kind::NewWithRing | Kind::Duplicate => Self::qr("a", 1),
            Kind::New => Self::qr("b", 1),
            Kind::Superseding => Self::qr("a", 2),
            Kind::Implied => Self::pending("a"),
            // A read has no body.
            Kind::BypassedByHead | Kind::Untouched | Kind::Kept | Kind::KeptPatched => Self {
                path: "/api/message",
                body: Self::qr("a", 1).body,
            },
            Kind::BypassedByBody => Self {
                path: "/api/qr",
                body: Self::qr("a", 1).body.replace(':', " "),
            },
        }
    }

    /// 237 characters, as WhatsApp's are.
    pub(super) fn qr(session: &str, number: u32) -> Self {
        let qr = format!("2@{number:0>235}");
        Self {
            path: "/api/qr",
            body: format!(r#"{{"session_id":"{session}","qr":"{qr}"}}"#),
        }
    }

    pub(super) fn pending(session: &str) -> Self {
        Self::state(session, "pending")
    }

    pub(super) fn state(session: &str, state: &str) -> Self {
        Self {
            path: "/api/whatsapp/status",
            body: format!(r#"{{"session_id":"{session}","estado_qr":"{state}"}}"#),
        }
    }

    pub(super) fn body(&self) -> &str {
        &self.body
    }

    /// As Envoy has them behind its connection manager.
    pub(super) fn headers(&self) -> Headers {
        let length = self.body.len().to_string();
        [
            (":authority", "laravel.test"),
            (":path", self.path),
            (":method", "POST"),
            (":scheme", "http"),
            ("user-agent", "axios/1.7.2"),
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("content-length", &length),
            ("x-forwarded-proto", "http"),
            ("x-request-id", "6f3e2e5c-8a0b-4b57-9d3f-0d0a4f5b8c11"),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .into()
    }
}

// === impl Kind ===

impl Kind {
    /// Each leaves the store as the next one needs it.
    pub(super) const IN_ORDER: [Self; 8] = [
        Self::NewWithRing,
        Self::New,
        Self::Duplicate,
        Self::Superseding,
        Self::Implied,
        Self::BypassedByHead,
        Self::BypassedByBody,
        Self::Untouched,
    ];

    fn outcome(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Implied => "implied",
            Self::New | Self::NewWithRing | Self::Superseding => "queued",
            Self::Kept | Self::KeptPatched => "cached",
            Self::BypassedByHead => "bypass; path",
            Self::BypassedByBody => "bypass; syntax",
            Self::Untouched => "",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplicate => "duplicate",
            Self::Implied => "implied",
            Self::New => "new",
            Self::NewWithRing => "new, with a ring",
            Self::Superseding => "new, superseding",
            Self::Kept => "kept read",
            Self::KeptPatched => "kept read, patched",
            Self::BypassedByHead => "bypassed by its head",
            Self::BypassedByBody => "bypassed by its body",
            Self::Untouched => "untouched",
        })
    }
}
