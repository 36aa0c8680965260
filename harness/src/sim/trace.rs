//! What happened, as a hash and, where somebody wants to read it, as a table.
//!
//! The hash is over everything: every host call with its result, every write, every event. Two runs
//! with one hash are the same run. Lines are kept only on demand, because formatting them costs more
//! than running the guest.

use std::fmt::Write as _;

use super::abi::{HostFunction, Status};
use super::host::HttpCall;

/// The trace of one run.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    steps: u64,
    /// `None` where nobody reads it.
    lines: Option<Vec<Line>>,
    /// Host calls are lines of their own.
    verbose: bool,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Monotonic µs.
    pub at_us: u64,
    /// Who: `w0`, `main`, `laravel`, `gateway`, `world`.
    pub who: String,
    /// What.
    pub what: String,
}

/// How much of a trace is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// The hash.
    #[default]
    Hash,
    /// Events and writes.
    Events,
    /// Every host call too.
    HostCalls,
}

// === impl Trace ===

impl Trace {
    /// An empty trace.
    #[must_use]
    pub(super) fn new(detail: Detail) -> Self {
        Self {
            hash: 0x9e37_79b9_7f4a_7c15,
            steps: 0,
            lines: (detail != Detail::Hash).then(Vec::new),
            verbose: detail == Detail::HostCalls,
        }
    }

    /// The hash of everything so far.
    #[must_use]
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Steps so far.
    #[must_use]
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// The lines, where they were kept.
    pub(super) fn take_lines(&mut self) -> Vec<Line> {
        self.lines.take().unwrap_or_default()
    }

    fn mix(&mut self, number: u64) {
        let mut z = (self.hash ^ number).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^= z >> 29;
        self.hash = z.wrapping_mul(0x94d0_49bb_1331_11eb) ^ (z >> 32);
    }

    fn mix_bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let tail = rest
            .iter()
            .fold(rest.len() as u64, |tail, byte| tail << 8 | u64::from(*byte));
        self.mix(tail);
    }

    fn line(&mut self, at_us: u64, who: impl FnOnce() -> String, what: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(Line {
                at_us,
                who: who(),
                what: what(),
            });
        }
    }

    /// Something in the world. `what` is part of the hash.
    pub(super) fn event(
        &mut self,
        at_us: u64,
        who: &str,
        number: u64,
        what: impl FnOnce() -> String,
    ) {
        self.steps += 1;
        self.mix(at_us);
        self.mix(number);
        self.mix_bytes(who.as_bytes());
        self.line(at_us, || who.to_owned(), what);
    }

    pub(super) fn host_call(
        &mut self,
        at_us: u64,
        thread: usize,
        vm: u32,
        function: HostFunction,
        code: i32,
    ) {
        self.steps += 1;
        self.mix(at_us);
        self.mix(u64::from(vm) << 40 ^ (function as u64) << 32 ^ u64::from(code.cast_unsigned()));
        if self.verbose {
            self.line(
                at_us,
                || who(thread, vm),
                || format!("  {} = {code}", function.name()),
            );
        }
    }

    pub(super) fn put(
        &mut self,
        at_us: u64,
        thread: usize,
        vm: u32,
        key: &str,
        value: &[u8],
        fits: bool,
    ) {
        self.mix_bytes(key.as_bytes());
        self.mix_bytes(value);
        self.mix(u64::from(fits));
        self.line(
            at_us,
            || who(thread, vm),
            || match fits {
                true => format!("put {key}: {}", super::check::describe(key, value)),
                false => format!("put {key}: lost the race"),
            },
        );
    }

    pub(super) fn http_call(
        &mut self,
        at_us: u64,
        thread: usize,
        vm: u32,
        http: &HttpCall,
        refused: Option<Status>,
    ) {
        self.mix_bytes(&http.body);
        self.line(
            at_us,
            || who(thread, vm),
            || {
                let path = http.headers.iter().find(|(name, _)| name == ":path");
                let path = path.map_or("?".into(), |(_, value)| String::from_utf8_lossy(value));
                let body = String::from_utf8_lossy(&http.body);
                match refused {
                    None => format!("calls {path} {body}"),
                    Some(status) => format!("calls {path}: {status:?} {body}"),
                }
            },
        );
    }

    pub(super) fn log(&mut self, at_us: u64, thread: usize, vm: u32, level: u32, line: &str) {
        self.mix_bytes(line.as_bytes());
        self.line(
            at_us,
            || who(thread, vm),
            || format!("log {}: {line}", level_name(level)),
        );
    }
}

fn level_name(level: u32) -> &'static str {
    match level {
        0 | 1 => "debug",
        2 => "info",
        3 => "WARN",
        4 => "ERROR",
        _ => "CRITICAL",
    }
}

/// The main thread is number 0, as in Envoy's own logs.
fn who(thread: usize, vm: u32) -> String {
    match thread {
        0 => format!("main/{vm}"),
        worker => format!("w{worker}/{vm}"),
    }
}

/// The lines as a table.
#[must_use]
pub fn table(lines: &[Line]) -> String {
    let mut out = String::new();
    for Line { at_us, who, what } in lines {
        let (ms, us) = (at_us / 1000, at_us % 1000);
        let _ = writeln!(out, "{ms:>9}.{us:03} {who:<9} {what}");
    }
    out
}
