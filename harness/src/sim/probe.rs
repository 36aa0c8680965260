//! The probe on the simulated host: its transcript, to be held against the real one.
//!
//! # What it does not ask
//! For more than one answer to one stream: Embudo gives one, and the simulation's host takes a second one for a trap
//! of the guest.

use std::collections::VecDeque;

use anyhow::{Context as _, Result, bail};

use super::fuzz::wait;
use super::host::{
    Acted, Body, Cluster, Guest, Job, JobResult, Machine, Out, Passed, Response, SharedHub,
    StreamEnd, StreamFate, Tally, Vm,
};
use crate::probe::{ANSWER, CASE, CONFIGURATION, Fate, HEADERS, STEPS, Sent, Step};
use crate::sim::abi::Headers;
use crate::sim::world::{self, LOST, REFUSED, TIMEOUT};

/// A process of one thread.
struct Process {
    hub: SharedHub,
    vm: Vm,
    /// Timers, rings and calls, in the order in which they came up.
    due: VecDeque<Out>,
    lines: Vec<String>,
}

/// Plays all steps, and gives the lines.
///
/// # Errors
/// The module does not start, or a step does not end.
pub fn transcript(machine: &Machine) -> Result<Vec<String>> {
    let hub = super::fuzz::hub()?;
    hub.lock().cluster = Cluster::Healthy;
    let guest = Guest::new(hub.clone(), 1, 1, 1);
    let started = wait(Vm::start(
        machine.clone(),
        guest,
        CONFIGURATION.as_bytes().into(),
    ));
    let (vm, result) = started.map_err(words)?;
    if !matches!(result, JobResult::Started { accepted: true, .. }) {
        bail!("the probe refuses its configuration");
    }
    let mut process = Process {
        hub,
        vm,
        due: VecDeque::new(),
        lines: Vec::new(),
    };
    for step in &STEPS {
        process.play(step)?;
    }
    Ok(process.lines)
}

fn words(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:?}")
}

fn headers(pseudo: &[(&str, &str)]) -> Headers {
    let pseudo = pseudo
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    let own = HEADERS
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.to_vec()));
    pseudo.chain(own).collect()
}

// === impl Process ===

impl Process {
    fn play(&mut self, step: &Step) -> Result<()> {
        let (method, path, pieces) = match step.sent {
            Sent::Get => ("GET", "/api/whatsapp/status/s", vec![]),
            Sent::Post(body) | Sent::AndHungUp(body) => ("POST", "/api/qr", vec![body.into()]),
        };
        let job = Job::Request {
            stream: 1,
            headers: headers(&[
                (":authority", "laravel.test"),
                (":path", path),
                (":method", method),
                (CASE, step.case),
            ]),
            body: Body {
                pieces,
                ..Body::default()
            },
        };
        let result = self.job(job)?;
        self.goes_on(step, result)?;
        // What was put off; each of them may put off more.
        while let Some(out) = self.due.pop_front() {
            let job = match out {
                Out::Tick { ms: 0, .. } | Out::Done { .. } => continue,
                // Only the last period counts, and the probe turns it off in its tick.
                Out::Tick { .. } if self.due.iter().any(|o| matches!(o, Out::Tick { .. })) => {
                    continue;
                }
                Out::Tick { context, .. } => Job::Tick { context },
                Out::Ring { queue, registrar } => Job::QueueReady {
                    context: registrar.context,
                    queue,
                },
                Out::HttpCall {
                    token,
                    context,
                    call,
                    ..
                } => Job::Answer {
                    context,
                    token,
                    call,
                    response: answer(),
                },
            };
            let result = self.job(job)?;
            self.goes_on(step, result)?;
        }
        Ok(())
    }

    fn goes_on(&mut self, step: &Step, result: JobResult) -> Result<()> {
        match result {
            JobResult::Stream(_, StreamEnd::Passed(passed)) => self.passes(step, &passed),
            JobResult::Stream(_, StreamEnd::Waits(waits)) => {
                if let Sent::AndHungUp(_) = step.sent {
                    self.job(Job::HangUp {
                        stream: 1,
                        context: waits.context,
                        fate: StreamFate::hung_up(false),
                    })?;
                }
                Ok(())
            }
            JobResult::Acted(acts) => {
                for (_, act) in acts {
                    if let Acted::Resumed(passed) = act {
                        self.passes(step, &passed)?;
                    }
                }
                Ok(())
            }
            JobResult::Stream(_, StreamEnd::Held) => bail!("{step:?} is held for ever"),
            _ => Ok(()),
        }
    }

    fn passes(&mut self, step: &Step, passed: &Passed) -> Result<()> {
        let (response, fate) = match step.fate {
            Fate::Answered => (answer(), StreamFate::answered(1)),
            Fate::TooLate => (world::response(504, &[], TIMEOUT), StreamFate::timed_out()),
            Fate::Lost => (world::response(503, &[], LOST), StreamFate::lost()),
            Fate::Refused => (world::response(503, &[], REFUSED), StreamFate::refused()),
        };
        self.job(Job::Respond {
            stream: 1,
            context: passed.context,
            headers: response.headers,
            body: Body {
                pieces: vec![response.body],
                ..Body::default()
            },
            fate,
        })?;
        Ok(())
    }

    fn job(&mut self, job: Job) -> Result<JobResult> {
        self.vm.guest_mut().tally = Some(Box::new(Tally::keeping_all()));
        let result = wait(self.vm.run(job, None)).map_err(words);
        let tally = self.vm.guest_mut().tally.take().unwrap_or_default();
        let lines = tally.lines.iter().map(|(_, line)| line.as_str());
        let result = result.with_context(|| lines.clone().next_back().unwrap_or("").to_owned())?;
        let lines = lines.filter_map(|line| line.split_once("probe: "));
        self.lines
            .extend(lines.map(|(_, line)| line.trim_end().to_owned()));
        self.due.extend(std::mem::take(&mut self.hub.lock().out));
        Ok(result)
    }
}

/// Laravel's.
fn answer() -> Response {
    let mut headers = headers(&[(":status", "200")]);
    headers.push(("x-answer".into(), b"yes".to_vec()));
    headers.push(("x-envoy-upstream-service-time".into(), b"1".to_vec()));
    headers.push(("content-length".into(), b"11".to_vec()));
    Response {
        headers,
        body: ANSWER.into(),
    }
}
