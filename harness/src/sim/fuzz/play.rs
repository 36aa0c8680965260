//! Plays a case against a fresh process, and looks at what must hold whatever comes.

use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use embudo_core::config::Config;
use embudo_core::shard::Shard;

use super::case::{Case, Key, Step, whole};
use super::flaw::{Flaw, Found};
use crate::sim::check::Checker;
use crate::sim::host::{
    Acted, Clock, Cluster, Guest, Hub, Job, JobResult, Machine, Metrics, Out, Queues, Response,
    SharedData, SharedHub, StreamEnd, StreamFate, Tally, Vm,
};
use crate::sim::trace::{Detail, Trace};

/// Instructions of one job: a tenth of a second of real time, and far more than any needs.
const INSTRUCTIONS_MAX: u64 = 200_000_000;

/// What a VM may grow to, bytes: ten times what it has after a day's work.
const MEMORY_BYTES_MAX: usize = 12 << 20;

/// WARN and ERROR lines of a case, besides those about its configuration: each kind of trouble is worth
/// one, for each root and route.
const TROUBLES_MAX: u64 = 12;

/// Lines of a case in all: who leads is no trouble, but one line at a change.
const LINES_MAX: u64 = 64;

/// Time between two ticks that no lease outlives, ms: whoever leads then begins anew, and may say again
/// what is wrong, of each route.
const NEW_LEADER_MS: u64 = 3_000;
const LINES_OF_A_NEW_LEADER: u64 = 3;

/// Lines about one configuration: enough for every mistake that a person makes at once.
const PROBLEMS_MAX: u64 = 33;

const WARN: u32 = 3;
const ERROR: u32 = 4;

/// A spoiled lease may look like one of the longest that can be, twice over, and must be abandoned then.
const PATIENCE_S: u32 = 180;

/// Names that are tried, until one is in a shard that can be read and has room.
const SURVIVORS_MAX: u32 = 32;

/// Longer than any timer of a plain configuration, and than any `retry-after` that is honoured.
const LONG_MS: u64 = 400_000;

/// What a case came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Played {
    /// Callbacks' jobs.
    pub(super) jobs: u64,
    pub(super) host_calls: u64,
    pub(super) instructions_max: u64,
    pub(super) memory_bytes_max: usize,
    pub(super) answered: u64,
    pub(super) passed: u64,
    pub(super) calls: u64,
    pub(super) refused: u64,
    pub(super) survived: u64,
}

/// A call under way.
struct Call {
    context: u32,
    token: u32,
    /// The checker's number.
    number: u64,
    body: Bytes,
}

/// A process of one thread.
struct Process {
    hub: SharedHub,
    vm: Vm,
    /// Root contexts.
    roots: Vec<u32>,
    /// Calls under way.
    calls: Vec<Call>,
    /// Streams that passed.
    passed: VecDeque<u32>,
    rings: VecDeque<(u32, u32)>,
    streams: u64,
    /// Ticks after which somebody may lead anew.
    new_leaders: u64,
    /// A configuration says that callers of some route wait.
    holds_callers: bool,
    played: Played,
}

/// Runs to the end; a VM yields before each host call, and here nobody else wants to run.
pub(in crate::sim) fn wait<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = work.as_mut().poll(&mut context) {
            return value;
        }
    }
}

/// Plays `steps` of a case: all of them, or those that shrinking has left.
pub(super) fn play(machine: &Machine, case: &Case) -> Result<Played, Found> {
    let Some(mut process) = Process::start(machine, case)? else {
        return Ok(Played {
            jobs: 1,
            refused: 1,
            ..Played::default()
        });
    };
    for step in &case.steps {
        process.step(step)?;
    }
    if case.plain {
        process.survives()?;
    }
    process.looks_after_its_log()?;
    Ok(process.played)
}

/// A process's surroundings, with their clocks at a time that is no age.
pub(in crate::sim) fn hub() -> anyhow::Result<SharedHub> {
    let config = Config::parse(b"{}").map_err(|_| anyhow::anyhow!("the default is wrong"))?;
    Ok(SharedHub::new(Hub {
        clock: Clock {
            mono_us: 500_000_000,
            wall_us: 1_714_521_600_000_000,
        },
        data: SharedData::default(),
        queues: Queues::default(),
        metrics: Metrics::default(),
        cluster: Cluster::Healthy,
        webhook: Cluster::Healthy,
        out: Vec::new(),
        yielded_at: <_>::default(),
        host_calls: 0,
        checker: Checker::deaf(config),
        trace: Trace::new(Detail::Hash),
    }))
}

fn trap(error: &wasmtime::Error) -> Found {
    Found::new(Flaw::Traps, format!("{error:?}"))
}

// === impl Played ===

impl Played {
    pub(super) fn add(&mut self, other: &Self) {
        self.jobs += other.jobs;
        self.host_calls += other.host_calls;
        self.instructions_max = self.instructions_max.max(other.instructions_max);
        self.memory_bytes_max = self.memory_bytes_max.max(other.memory_bytes_max);
        self.answered += other.answered;
        self.passed += other.passed;
        self.calls += other.calls;
        self.refused += other.refused;
        self.survived += other.survived;
    }
}

// === impl Process ===

impl Process {
    /// `None` where the configuration is refused, and Envoy would not start.
    fn start(machine: &Machine, case: &Case) -> Result<Option<Self>, Found> {
        let hub = hub().map_err(|error| Found::new(Flaw::Traps, error.to_string()))?;
        if let Some(layout) = &case.layout {
            store(&hub, Key::Layout, layout.clone());
        }
        let mut guest = Guest::new(hub.clone(), 1, 0, 1);
        guest.tally = Some(Box::default());
        let configuration = case.configuration.clone().into();
        let started = wait(Vm::start(machine.clone(), guest, configuration));
        let (mut vm, result) = started.map_err(|error| trap(&error))?;
        let JobResult::Started { context, accepted } = result else {
            return Ok(None);
        };
        let told = vm.guest_mut().tally.replace(Box::default());
        explains(&told.unwrap_or_default(), accepted)?;
        let mut process = Self {
            hub,
            vm,
            roots: vec![context],
            calls: Vec::new(),
            passed: VecDeque::new(),
            rings: VecDeque::new(),
            streams: 0,
            new_leaders: 0,
            holds_callers: holds_callers(&case.configuration),
            played: Played::default(),
        };
        process.within_bounds()?;
        process.collect();
        Ok(accepted.then_some(process))
    }

    fn job(&mut self, job: Job) -> Result<JobResult, Found> {
        let result = wait(self.vm.run(job, None)).map_err(|error| trap(&error))?;
        self.within_bounds()?;
        self.collect();
        if let JobResult::Acted(acts) = &result {
            for (context, act) in acts {
                if let Acted::Resumed(_) = act {
                    self.passed.push_back(*context);
                }
            }
        }
        Ok(result)
    }

    fn within_bounds(&mut self) -> Result<(), Found> {
        let cost = self.vm.cost();
        let memory = self.vm.memory_bytes();
        let played = &mut self.played;
        played.jobs += 1;
        played.host_calls += u64::from(cost.host_calls);
        played.instructions_max = played.instructions_max.max(cost.fuel);
        played.memory_bytes_max = played.memory_bytes_max.max(memory);
        if cost.fuel > INSTRUCTIONS_MAX {
            let what = format!("{} instructions in one job", cost.fuel);
            return Err(Found::new(Flaw::TakesTooLong, what));
        }
        if memory > MEMORY_BYTES_MAX {
            let what = format!("the VM has grown to {memory} bytes");
            return Err(Found::new(Flaw::TakesTooMuchMemory, what));
        }
        Ok(())
    }

    /// What the last job leaves to be done.
    fn collect(&mut self) {
        let out = std::mem::take(&mut self.hub.lock().out);
        for out in out {
            match out {
                Out::HttpCall {
                    token,
                    context,
                    call: number,
                    http,
                } => {
                    self.played.calls += 1;
                    let body = http.body;
                    self.calls.push(Call {
                        context,
                        token,
                        number,
                        body,
                    });
                }
                Out::Ring { queue, registrar } => self.rings.push_back((registrar.context, queue)),
                // Time passes by the case's own steps.
                Out::Tick { .. } | Out::Done { .. } => {}
            }
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), Found> {
        match step {
            Step::Request { headers, body } => {
                self.streams += 1;
                let job = Job::Request {
                    stream: self.streams,
                    headers: headers.clone(),
                    body: body.clone(),
                };
                let readable = self.has_a_readable_shard();
                let result = self.job(job)?;
                self.judge(result, readable)?;
            }
            Step::Relay { headers, body } => {
                if let Some(context) = self.passed.pop_front() {
                    let (stream, headers, body) = (self.streams, headers.clone(), body.clone());
                    let result = self.job(Job::Respond {
                        stream,
                        context,
                        headers,
                        body,
                        fate: StreamFate::answered(1),
                    })?;
                    if let JobResult::Stream(_, StreamEnd::Held) = result {
                        let what = "an answer is held for ever";
                        return Err(Found::new(Flaw::HoldsARequest, what));
                    }
                }
            }
            Step::Answer { which, response } => self.answer(*which, response.clone())?,
            Step::Ring { item } => {
                let mut hub = self.hub.lock();
                if let Some(queue) = hub.queues.resolve("embudo", "embudo/embudo/doorbell")
                    && let Some(registrar) = hub.queues.enqueue(queue, item.clone())
                {
                    self.rings.push_back((registrar.context, queue));
                }
            }
            Step::Spoil { key, edits } => {
                let old = self.hub.lock().data.get(&key.name());
                let mut value = old.map(|(value, _)| value.to_vec()).unwrap_or_default();
                edits.iter().for_each(|edit| edit.apply(&mut value));
                store(&self.hub, *key, value);
            }
            Step::Store { key, value } => store(&self.hub, *key, value.clone()),
            Step::Time { ms, ticks } => self.pass(*ms, *ticks)?,
            Step::Cluster(cluster) => self.hub.lock().cluster = *cluster,
            Step::Configure { configuration } => {
                self.holds_callers |= holds_callers(configuration);
                let configuration = configuration.clone().into();
                let before = self.vm.guest_mut().tally.replace(Box::default());
                let result = self.job(Job::AddRoot { configuration })?;
                let told = std::mem::replace(&mut self.vm.guest_mut().tally, before);
                if let JobResult::Started { context, accepted } = result {
                    explains(&told.unwrap_or_default(), accepted)?;
                    self.roots.extend(accepted.then_some(context));
                }
            }
        }
        while let Some((context, queue)) = self.rings.pop_front() {
            self.job(Job::QueueReady { context, queue })?;
        }
        Ok(())
    }

    fn answer(&mut self, which: usize, response: Response) -> Result<(), Found> {
        if self.calls.is_empty() {
            return Ok(());
        }
        let call = self.calls.remove(which % self.calls.len());
        self.job(Job::Answer {
            context: call.context,
            token: call.token,
            call: call.number,
            response,
        })?;
        Ok(())
    }

    fn pass(&mut self, ms: u64, ticks: u64) -> Result<(), Found> {
        for _ in 0..ticks {
            let us = ms * 1000 / ticks;
            {
                let clock = &mut self.hub.lock().clock;
                clock.mono_us += us;
                clock.wall_us += us;
            }
            if ms / ticks >= NEW_LEADER_MS {
                self.new_leaders += self.roots.len() as u64;
            }
            for context in self.roots.clone() {
                self.job(Job::Tick { context })?;
            }
        }
        Ok(())
    }

    fn has_a_readable_shard(&self) -> bool {
        let hub = self.hub.lock();
        (0..2).any(|index| match hub.data.get(&Key::Shard(index).name()) {
            None => true,
            Some((value, _)) => Shard::decode(&value).is_ok(),
        })
    }

    fn judge(&mut self, result: JobResult, readable: bool) -> Result<(), Found> {
        match result {
            JobResult::Stream(_, StreamEnd::Passed(passed)) => {
                self.played.passed += 1;
                self.passed.push_back(passed.context);
            }
            // Its route's callers wait, and a tick answers; or it is held for its turn, and a tick lets it go on.
            JobResult::Stream(_, StreamEnd::Waits(_)) => self.played.answered += 1,
            JobResult::Stream(_, StreamEnd::Answered(reply)) => {
                self.played.answered += 1;
                // A credential that is not trusted yet has to pass, and waits for what is queued.
                let is_busy = (":status".to_owned(), b"503".to_vec());
                let is_busy = reply.headers.contains(&is_busy)
                    && reply
                        .headers
                        .iter()
                        .any(|(n, v)| n == "x-embudo" && v == b"busy");
                if !(200..300).contains(&reply.status) && !is_busy {
                    let what = format!("answered with {}", reply.status);
                    return Err(Found::new(Flaw::AnswersWithAnError, what));
                }
                // Two shards are all there are in a plain process, and in no other are they looked at.
                if !readable && self.roots.len() == 1 && self.shards() == Some(2) {
                    let what = format!("{:?}", reply.headers);
                    return Err(Found::new(Flaw::TakesWhatItCannotStore, what));
                }
            }
            JobResult::Stream(_, StreamEnd::Held) => {
                return Err(Found::new(Flaw::HoldsARequest, "held for ever"));
            }
            _ => {}
        }
        Ok(())
    }

    /// As the layout says; `None` where it was changed since.
    fn shards(&self) -> Option<u32> {
        let (layout, _) = self.hub.lock().data.get(&Key::Layout.name())?;
        let version = layout.first_chunk::<4>()?;
        let shards = layout.get(4..8)?.try_into().ok()?;
        (layout.len() == 24 && u32::from_le_bytes(*version) == embudo_core::layout::VERSION)
            .then_some(u32::from_le_bytes(shards))
    }

    /// A cluster that is well, a Laravel that answers, and a shard that somebody has emptied: the update of a
    /// new session must be on its way within three minutes, whatever was before, and whatever is in the others.
    fn survives(&mut self) -> Result<(), Found> {
        if self.roots.len() > 1 {
            // The other configuration may have any timers.
            return Ok(());
        }
        self.hub.lock().cluster = Cluster::Healthy;
        let healed = if self.streams.is_multiple_of(2) {
            0..2
        } else {
            0..1
        };
        for index in healed {
            store(&self.hub, Key::Shard(index), Vec::new());
        }
        self.pass(LONG_MS, 1)?;
        // Somebody leads again, and finds that the cluster is there: until then, updates pass through.
        self.pass(20_000, 20)?;
        let taken = (0..SURVIVORS_MAX).find_map(|number| match self.post_survivor(number) {
            Ok(true) => Some(Ok(number)),
            Ok(false) => None,
            Err(found) => Some(Err(found)),
        });
        let Some(number) = taken.transpose()? else {
            let what = "no update is taken any more";
            return Err(Found::new(Flaw::DispatcherIsDead, what));
        };
        let session = survivor(number);
        for _ in 0..PATIENCE_S {
            // An answer may bring forth the next call.
            while let Some(call) = self.calls.first() {
                let mut names = call.body.windows(session.len());
                if names.any(|name| name == session.as_bytes()) {
                    self.played.survived += 1;
                    return Ok(());
                }
                self.answer(0, accepted())?;
            }
            self.pass(1_000, 1)?;
        }
        let what = "an update was taken and not sent within three minutes";
        Err(Found::new(Flaw::DispatcherIsDead, what))
    }

    /// Whether his update is taken.
    fn post_survivor(&mut self, number: u32) -> Result<bool, Found> {
        let session = survivor(number);
        let body = format!("{{\"session_id\":\"{session}\",\"qr\":\"2@x\"}}");
        let headers = [
            (":method", "POST"),
            (":path", "/api/qr"),
            (":authority", "survivor.test"),
            ("content-type", "application/json"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let before = self.played.answered;
        self.step(&Step::Request {
            headers: headers.into(),
            body: whole(body.as_bytes()),
        })?;
        Ok(self.played.answered > before)
    }

    fn looks_after_its_log(&mut self) -> Result<(), Found> {
        let tally = self.vm.guest_mut().tally.take().unwrap_or_default();
        let troubles = tally.lines.iter().filter(|(level, _)| *level >= WARN);
        let troubles: Vec<&str> = troubles.map(|(_, line)| line.as_str()).collect();
        let more = self.new_leaders * LINES_OF_A_NEW_LEADER;
        let few = troubles.len() as u64 <= TROUBLES_MAX + more;
        if few && tally.lines_total <= LINES_MAX + more {
            return Ok(());
        }
        let shown = troubles.get(..8).unwrap_or(&troubles).join(" | ");
        let (all, troubles) = (tally.lines_total, troubles.len());
        let what = format!("{all} lines, {troubles} of them WARN or ERROR: {shown}");
        Err(Found::new(Flaw::FloodsTheLog, what))
    }
}

fn holds_callers(configuration: &[u8]) -> bool {
    Config::parse(configuration).is_ok_and(|config| config.holds_callers())
}

/// His session; nobody else's has such a name.
fn survivor(number: u32) -> String {
    format!("survivor-{number}")
}

fn accepted() -> Response {
    Response {
        headers: vec![
            (":status".to_owned(), b"200".to_vec()),
            ("x-envoy-upstream-service-time".to_owned(), b"1".to_vec()),
        ],
        body: br#"{"success":true}"#.as_slice().into(),
    }
}

/// As another program does it: whatever is there.
fn store(hub: &SharedHub, key: Key, value: Vec<u8>) {
    const WHATEVER: u32 = 0;
    // Token 0 always fits.
    let _ = hub.lock().data.put(&key.name(), value.into(), WHATEVER);
}

/// What a configuration had to say for itself: a refusal is explained, and in not too many lines.
fn explains(tally: &Tally, accepted: bool) -> Result<(), Found> {
    if tally.lines_total > PROBLEMS_MAX {
        let what = format!("{} lines about one configuration", tally.lines_total);
        return Err(Found::new(Flaw::FloodsTheLog, what));
    }
    if !accepted && !tally.lines.iter().any(|(level, _)| *level == ERROR) {
        let what = "on_configure returned false without an ERROR line";
        return Err(Found::new(Flaw::RefusesSilently, what));
    }
    Ok(())
}
