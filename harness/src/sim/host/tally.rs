//! What a VM's host calls came to, for those who ask: what a request costs, and what a VM logged.

use std::collections::BTreeMap;

use crate::sim::abi::HostFunction;

/// Lines that are kept; all are counted.
const LINES_KEPT: usize = 64;

/// Since it was taken last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Host calls by function.
    pub(crate) calls: BTreeMap<HostFunction, u32>,
    /// Bytes that the host wrote into buffers of the guest; numbers and pointers are not counted.
    pub(crate) bytes_in: u64,
    /// Bytes that the host read from the guest's memory: keys, values, header maps, bodies.
    pub(crate) bytes_out: u64,
    /// Buffers that the guest allocated for the host (`proxy_on_memory_allocate`).
    pub(crate) buffers: u32,
    /// The first lines of its log, with their levels.
    pub(crate) lines: Vec<(u32, String)>,
    /// Lines of its log in all.
    pub(crate) lines_total: u64,
    /// Every line is kept.
    keeps_all: bool,
}

// === impl Tally ===

impl Tally {
    /// One that keeps every line.
    pub(crate) fn keeping_all() -> Self {
        Self {
            keeps_all: true,
            ..Self::default()
        }
    }

    pub(super) fn called(&mut self, function: HostFunction) {
        *self.calls.entry(function).or_default() += 1;
    }

    pub(super) fn given(&mut self, bytes: usize) {
        self.bytes_in += bytes as u64;
        self.buffers += u32::from(bytes > 0);
    }

    pub(super) fn taken(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    pub(super) fn log(&mut self, level: u32, line: &str) {
        self.lines_total += 1;
        if self.keeps_all || self.lines.len() < LINES_KEPT {
            self.lines.push((level, line.to_owned()));
        }
    }
}
