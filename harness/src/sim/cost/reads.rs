//! Reads that the store answers. What is served has to be believed first, so Laravel's answers to some go before.

use anyhow::{Result, bail};
use bytes::Bytes;

use super::{Cost, Kind, Machine, Post, Process, Tally, words};
use crate::sim::abi::Headers;
use crate::sim::fuzz::wait;
use crate::sim::host::{Body, Job, JobResult, Out, Response, StreamEnd, StreamFate};

/// Ticks within which whatever waits is delivered, half a second each.
const DELIVERY_TICKS: u32 = 8;

/// QRs of each session until it is believed that they leave no trace in Laravel's answers.
const QRS: u32 = 3;

/// Reads of one state until it is believed, and one more that may be compared.
const READS_MAX: u32 = 6;

// === impl Cost ===

impl Cost {
    /// Measures both kinds of read, beside sessions of their own.
    pub(super) fn of_reads(machine: &Machine) -> Result<[Self; 2]> {
        let mut process = Process::start(machine)?;
        for session in ["a", "b", "c"] {
            for state in ["connecting", "pending"] {
                process.request(&Post::state(session, state))?;
                process.deliver()?;
                process.read(session, state)?;
            }
        }
        // As a pairing goes: a QR between two reads.
        for number in 0..QRS {
            for session in ["a", "b", "c"] {
                process.request(&Post::qr(session, number))?;
                process.deliver()?;
                process.request(&Post::state(session, "pending"))?;
                process.deliver()?;
                process.read(session, "pending")?;
            }
        }
        let kept = process.measure_read(Kind::Kept, "pending")?;
        process.request(&Post::state("a", "connecting"))?;
        process.deliver()?;
        process.read("a", "connecting")?;
        process.request(&Post::state("a", "pending"))?;
        let patched = process.measure_read(Kind::KeptPatched, "pending")?;
        Ok([kept, patched])
    }
}

// === impl Process ===

impl Process {
    /// One that is served. The first says when the next is to be compared with Laravel's own.
    fn measure_read(&mut self, kind: Kind, state: &str) -> Result<Cost> {
        let mut is_believed = false;
        for _ in 0..READS_MAX {
            self.vm.guest_mut().tally = Some(Box::default());
            let (outcome, instructions) = self.read("a", state)?;
            let tally: Tally = *self.vm.guest_mut().tally.take().unwrap_or_default();
            let is_first = !std::mem::replace(&mut is_believed, outcome == kind.outcome());
            if is_believed && !is_first {
                return Ok(Cost::of(kind, &tally, instructions));
            }
        }
        bail!("{kind}: Laravel is asked each time")
    }

    /// A read, and Laravel's answer where it is asked. Gives `x-embudo` and the instructions of the request.
    fn read(&mut self, session: &str, state: &str) -> Result<(String, u64)> {
        let path = format!("/api/whatsapp/status/{session}");
        let job = Job::Request {
            stream: 1,
            headers: headers(&[
                (":authority", "laravel.test"),
                (":path", &path),
                (":method", "GET"),
                (":scheme", "http"),
                ("user-agent", "axios/1.7.2"),
                ("accept", "application/json"),
                ("accept-encoding", "gzip, compress, deflate, br"),
                ("x-forwarded-proto", "http"),
                ("x-request-id", "6f3e2e5c-8a0b-4b57-9d3f-0d0a4f5b8c11"),
            ]),
            body: Body::default(),
        };
        let result = wait(self.vm.run(job, None)).map_err(words)?;
        let instructions = self.vm.cost().fuel;
        match result {
            JobResult::Stream(_, StreamEnd::Answered(reply)) => {
                let outcome = reply.headers.iter().find(|(name, _)| name == "x-embudo");
                let outcome = outcome.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
                Ok((outcome.unwrap_or_default(), instructions))
            }
            JobResult::Stream(_, StreamEnd::Passed(passed)) => {
                let body = format!(r#"{{"estado_qr":"{state}","status":"{state}"}}"#);
                let job = Job::Respond {
                    stream: 1,
                    context: passed.context,
                    headers: answered(),
                    body: Body {
                        pieces: vec![Bytes::from(body)],
                        ..Body::default()
                    },
                    fate: StreamFate::answered(1),
                };
                wait(self.vm.run(job, None)).map_err(words)?;
                Ok(("fresh".to_owned(), instructions))
            }
            other => bail!("the read came to {other:?}"),
        }
    }

    /// Laravel takes whatever waits.
    fn deliver(&mut self) -> Result<()> {
        for _ in 0..DELIVERY_TICKS {
            let mut hub = self.hub.lock();
            hub.clock.mono_us += 500_000;
            hub.clock.wall_us += 500_000;
            drop(hub);
            self.tick()?;
            let out = std::mem::take(&mut self.hub.lock().out);
            for out in out {
                if let Out::HttpCall {
                    token,
                    context,
                    call,
                    ..
                } = out
                {
                    let response = Response {
                        headers: answered(),
                        body: Bytes::from_static(br#"{"success":true}"#),
                    };
                    let job = Job::Answer {
                        context,
                        token,
                        call,
                        response,
                    };
                    wait(self.vm.run(job, None)).map_err(words)?;
                }
            }
        }
        Ok(())
    }
}

/// Of an answer of Laravel's.
fn answered() -> Headers {
    headers(&[
        (":status", "200"),
        ("content-type", "application/json"),
        ("x-envoy-upstream-service-time", "3"),
    ])
}

fn headers(headers: &[(&str, &str)]) -> Headers {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
    headers.iter().map(owned).collect()
}
