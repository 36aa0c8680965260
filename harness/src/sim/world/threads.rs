//! Envoy's threads. Each has a VM, does one job at a time, and yields at every host call.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use anyhow::{Result, bail};
use bytes::Bytes;
use rand::RngExt;

use super::Sim;
use super::fault::When;
use super::queue::Event;
use crate::sim::abi::HostFunction;
use crate::sim::host::{Clock, Guest, Job, JobResult, Vm};

/// What a thread is busy with: gives back the VM, unless it trapped.
type Running = Pin<Box<dyn Future<Output = Ended> + Send>>;

pub(super) struct Ended {
    /// `None`: it trapped.
    pub(super) vm: Option<Vm>,
    pub(super) results: Vec<JobResult>,
    pub(super) error: Option<wasmtime::Error>,
}

/// A way to interrupt the next job that fits.
#[derive(Clone, Debug)]
pub(super) struct Armed {
    pub(super) when: When,
    pub(super) at_call: u32,
    /// `None` is a trap.
    pub(super) stall_us: Option<u64>,
}

/// One thread.
pub(super) struct Thread {
    pub(super) index: usize,
    /// The VM, while it has nothing to do.
    pub(super) vm: Option<Vm>,
    /// Its number, dead or alive; none after a trap.
    pub(super) vm_id: Option<u32>,
    pub(super) running: Option<Running>,
    pub(super) inbox: VecDeque<(Option<u32>, Job)>,
    /// Whether a step is in the queue of events.
    is_due: bool,
    /// Root contexts of the VM, with the number of their configuration.
    pub(super) roots: BTreeMap<u32, Root>,
    /// Those that will be asked to go, or were.
    pub(super) leaving: BTreeSet<u32>,
    pub(super) armed: Vec<Armed>,
    /// A stall for the job under way: host calls left until then.
    stall: Option<(u32, u64)>,
    /// The stream under way, for when the VM traps.
    pub(super) stream: Option<u64>,
    /// The job under way is a request.
    requesting: bool,
    /// The root context whose tick is under way, and when it began.
    pub(super) ticking: Option<(u32, Clock)>,
    /// The call that it hears was refused for its credential, and since when it hears it, µs.
    pub(super) answering: Option<((u64, u16, Bytes), u64)>,
}

/// A root context's timer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Root {
    pub(super) period_us: u64,
    pub(super) generation: u64,
}

// === impl Thread ===

impl Thread {
    pub(super) fn new(index: usize) -> Self {
        Self {
            index,
            vm: None,
            vm_id: None,
            running: None,
            inbox: VecDeque::new(),
            is_due: false,
            roots: BTreeMap::new(),
            leaving: BTreeSet::new(),
            armed: Vec::new(),
            stall: None,
            stream: None,
            requesting: false,
            ticking: None,
            answering: None,
        }
    }

    pub(super) fn name(&self) -> String {
        match self.index {
            0 => "main".to_owned(),
            worker => format!("w{worker}"),
        }
    }
}

fn fits(when: When, job: &Job) -> bool {
    match when {
        When::Any => true,
        When::Request => matches!(job, Job::Request { .. }),
        When::Tick => matches!(job, Job::Tick { .. }),
        When::Answer => matches!(job, Job::Answer { .. }),
        When::Doorbell => matches!(job, Job::QueueReady { .. }),
    }
}

// === impl Sim ===

impl Sim {
    /// The canary first, to its end; then the main thread and the workers, side by side.
    pub(super) fn start_process(&mut self) -> Result<()> {
        let canary = self.threads.len();
        self.threads.push(Thread::new(canary));
        self.begin_start(canary, None);
        while self.threads[canary].running.is_some() {
            self.poll(canary);
        }
        let accepted = self.threads[canary].vm.is_some();
        self.threads.pop();
        self.hub.lock().out.clear();
        if !accepted {
            bail!("the canary does not start");
        }
        for thread in 0..self.threads.len() {
            self.begin_start(thread, None);
        }
        Ok(())
    }

    /// Starts a VM on a thread, and lets it do its first job right after.
    fn begin_start(&mut self, thread: usize, first: Option<(Job, Option<u32>)>) {
        self.vms += 1;
        let (id, machine) = (self.vms, self.machine.clone());
        let guest = Guest::new(self.hub.clone(), id, thread, self.scenario.seed);
        let configuration = Arc::clone(&self.configuration);
        let place = &mut self.threads[thread];
        place.vm_id = Some(id);
        place.roots.clear();
        place.leaving.clear();
        place.running = Some(Box::pin(async move {
            let (mut vm, started) = match Vm::start(machine, guest, configuration).await {
                Ok(started) => started,
                Err(error) => return Ended::trapped(error),
            };
            let mut results = vec![started];
            if let Some((job, trap_at)) = first {
                match vm.run(job, trap_at).await {
                    Ok(result) => results.push(result),
                    Err(error) => {
                        return Ended {
                            results,
                            ..Ended::trapped(error)
                        };
                    }
                }
            }
            Ended {
                vm: Some(vm),
                results,
                error: None,
            }
        }));
        self.due(thread, 0);
    }

    pub(super) fn due(&mut self, thread: usize, after_us: u64) {
        if !std::mem::replace(&mut self.threads[thread].is_due, true) {
            self.after_us(after_us, Event::Step { thread });
        }
    }

    /// A job for a thread; dropped where it is for a VM that is gone.
    pub(super) fn post(&mut self, thread: usize, vm: Option<u32>, job: Job) {
        if vm.is_some() && self.threads[thread].vm_id != vm {
            return self.dropped(&job);
        }
        if let Job::Drain { context } = job {
            self.closes_connections(thread, context);
        }
        self.threads[thread].inbox.push_back((vm, job));
        self.due(thread, 1);
    }

    /// A job for a VM that is gone: nobody is there to let Laravel's answer through.
    fn dropped(&mut self, job: &Job) {
        match job {
            Job::Respond { stream, .. } => self.filter_is_dead(*stream),
            Job::HangUp { stream, .. } => self.stream_is_gone(*stream),
            _ => {}
        }
    }

    pub(super) fn step(&mut self, thread: usize) {
        if thread >= self.threads.len() {
            return;
        }
        self.threads[thread].is_due = false;
        if self.threads[thread].running.is_none() && !self.begin_next(thread) {
            return;
        }
        self.poll(thread);
        let place = &self.threads[thread];
        if place.running.is_some() {
            let us = self.call_takes_us(thread);
            self.due(thread, us);
        } else if !place.inbox.is_empty() {
            self.due(thread, 2);
        }
    }

    /// How long it takes until the host call that the thread has come to.
    fn call_takes_us(&mut self, thread: usize) -> u64 {
        let pace = self.scenario.pace;
        let usual_us = self.dice.random_range(1..=pace.call_us);
        let function = self.hub.lock().yielded_at;
        // The design's one assumption: no stall between the send check and the dispatch. Where a request
        // passes, its timeout is the last thing before it goes on; a root lets those go on that it holds at the end
        // of its tick.
        let ticks = self.threads[thread].ticking.is_some();
        let sends = match function {
            HostFunction::proxy_http_call => true,
            HostFunction::proxy_replace_header_map_value => {
                ticks || self.threads[thread].requesting
            }
            HostFunction::proxy_set_effective_context | HostFunction::proxy_continue_stream => {
                ticks
            }
            _ => false,
        };
        if sends {
            return usual_us.min(10);
        }
        let stall = &mut self.threads[thread].stall;
        match stall {
            Some((0, us)) => {
                let us = *us;
                *stall = None;
                let name = self.threads[thread].name();
                self.note(&name, us, || format!("stalls for {} ms", us / 1000));
                return us;
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        let hiccup = pace.hiccup_one_in > 0 && self.dice.random_ratio(1, pace.hiccup_one_in);
        match hiccup {
            true => self.dice.random_range(0..=pace.hiccup_us),
            false => usual_us,
        }
    }

    /// Takes the next job, if there is one for a VM that is there.
    fn begin_next(&mut self, thread: usize) -> bool {
        while let Some((vm, job)) = self.threads[thread].inbox.pop_front() {
            if vm.is_some() && self.threads[thread].vm_id != vm {
                self.dropped(&job);
                continue;
            }
            let (trap_at, note) = self.interruption(thread, &job);
            let is_request = matches!(job, Job::Request { .. });
            let clock = self.clock();
            let place = &mut self.threads[thread];
            place.stream = match &job {
                Job::Request { stream, .. }
                | Job::Respond { stream, .. }
                | Job::HangUp { stream, .. } => Some(*stream),
                _ => None,
            };
            place.requesting = is_request;
            place.answering = match &job {
                Job::Answer { call, response, .. } => {
                    let status = response.status();
                    let refused = status.filter(|status| matches!(status, 401 | 403 | 419));
                    let body = response.body.clone();
                    refused.map(|status| ((*call, status, body), clock.mono_us))
                }
                _ => None,
            };
            if let Some(((call, ..), _)) = &place.answering {
                self.hub.lock().checker.caller_may_be_refused(clock, *call);
            }
            place.ticking = match &job {
                Job::Tick { context } => Some((*context, clock)),
                _ => None,
            };
            if let Some(stream) = place.stream.filter(|_| is_request)
                && let Some((request, update)) = self.traffic.request_of(stream)
            {
                let update = update.map(|(name, value)| (&**name, &**value));
                let mut hub = self.hub.lock();
                hub.checker.stream_begins(clock, stream, request, update);
            }
            if let Job::Answer { call, .. } = &job {
                self.hub.lock().checker.event_is_heard(*call);
            }
            self.begin_job_note(thread, &job, note);
            match self.threads[thread].vm.take() {
                Some(mut vm) => {
                    let gone = match &job {
                        Job::Tick { context }
                        | Job::QueueReady { context, .. }
                        | Job::Answer { context, .. }
                        | Job::Drain { context }
                        | Job::Delete { context } => !vm.has_root(*context),
                        _ => false,
                    };
                    if gone {
                        self.threads[thread].vm = Some(vm);
                        continue;
                    }
                    self.threads[thread].running = Some(Box::pin(async move {
                        match vm.run(job, trap_at).await {
                            Ok(result) => Ended {
                                vm: Some(vm),
                                results: vec![result],
                                error: None,
                            },
                            Err(error) => Ended::trapped(error),
                        }
                    }));
                }
                // FAIL_RELOAD: only a stream brings a VM back, and the main thread never gets one.
                None if is_request => self.begin_start(thread, Some((job, trap_at))),
                None => continue,
            }
            return true;
        }
        false
    }

    fn begin_job_note(&self, thread: usize, job: &Job, trap_at: Option<u32>) {
        let name = self.threads[thread].name();
        let (number, what) = match job {
            Job::AddRoot { .. } => (1, "is given a new configuration".to_owned()),
            Job::Tick { context } => (2, format!("tick of root {context}")),
            Job::QueueReady { context, .. } => (3, format!("doorbell of root {context}")),
            Job::Answer { call, response, .. } => {
                let status = response.headers.iter().find(|(name, _)| name == ":status");
                let status = status.map_or("broken off".into(), |(_, value)| {
                    String::from_utf8_lossy(value).into_owned()
                });
                (4, format!("is answered: call {call}, {status}"))
            }
            Job::Request { stream, .. } => (5, format!("request {stream}")),
            Job::Respond { stream, .. } => (6, format!("response to request {stream}")),
            Job::HangUp { stream, .. } => (9, format!("request {stream} is hung up on")),
            Job::Drain { context } => (7, format!("root {context} is to go")),
            Job::Delete { context } => (8, format!("root {context} goes")),
        };
        self.note(&name, number, || match trap_at {
            Some(call) => format!("{what} (traps at host call {call})"),
            None => what,
        });
    }

    /// Whether the job is to be interrupted: gives the host call to trap at.
    fn interruption(&mut self, thread: usize, job: &Job) -> (Option<u32>, Option<u32>) {
        let place = &mut self.threads[thread];
        place.stall = None;
        let Some(at) = place.armed.iter().position(|armed| fits(armed.when, job)) else {
            return (None, None);
        };
        let armed = place.armed.remove(at);
        match armed.stall_us {
            Some(us) => {
                place.stall = Some((armed.at_call.saturating_sub(1), us));
                (None, None)
            }
            None => (Some(armed.at_call), Some(armed.at_call)),
        }
    }

    /// Runs a thread up to its next host call, or to the end of its job.
    fn poll(&mut self, thread: usize) {
        let Some(running) = &mut self.threads[thread].running else {
            return;
        };
        let mut context = Context::from_waker(Waker::noop());
        let ended = match running.as_mut().poll(&mut context) {
            Poll::Pending => None,
            Poll::Ready(ended) => Some(ended),
        };
        let out = std::mem::take(&mut self.hub.lock().out);
        for out in out {
            self.carry_out(thread, out);
        }
        if let Some(ended) = ended {
            self.threads[thread].running = None;
            self.ended(thread, ended);
        }
    }
}

// === impl Ended ===

impl Ended {
    fn trapped(error: wasmtime::Error) -> Self {
        Self {
            vm: None,
            results: Vec::new(),
            error: Some(error),
        }
    }
}
