//! What a request costs at the border between host and guest, by what became of it.
//!
//! Figures that do not depend on the machine: a change that makes intake dearer shows here before any
//! benchmark notices.

use std::collections::BTreeMap;

use crate::sim::host::{Cost, StreamEnd};

/// Sums, by outcome: `queued`, `duplicate`, `implied`, `untouched`, …
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs(BTreeMap<String, Total>);

/// The requests of one outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// How many.
    pub requests: u64,
    /// Host calls of all of them.
    pub host_calls: u64,
    /// Allocations in the guest that the host asked for.
    pub allocations: u64,
    /// Bytes copied across the border.
    pub bytes: u64,
    /// Instructions of the guest.
    pub fuel: u64,
}

// === impl Costs ===

impl Costs {
    pub(super) fn add(&mut self, end: &StreamEnd, cost: Cost) {
        let outcome = match end {
            StreamEnd::Answered(reply) => {
                let header = reply.headers.iter().find(|(name, _)| name == "x-embudo");
                header.map_or("unmarked".into(), |(_, value)| {
                    String::from_utf8_lossy(value)
                })
            }
            StreamEnd::Passed(_) => "untouched, on its way in".into(),
            StreamEnd::Relayed(_) => "untouched, on its way out".into(),
            StreamEnd::Held => "held".into(),
        };
        let total = self.0.entry(outcome.into_owned()).or_default();
        total.requests += 1;
        total.host_calls += u64::from(cost.host_calls);
        total.allocations += u64::from(cost.allocations);
        total.bytes += cost.bytes;
        total.fuel += cost.fuel;
    }

    /// Adds another run's.
    pub fn merge(&mut self, other: &Self) {
        for (outcome, more) in &other.0 {
            let total = self.0.entry(outcome.clone()).or_default();
            total.requests += more.requests;
            total.host_calls += more.host_calls;
            total.allocations += more.allocations;
            total.bytes += more.bytes;
            total.fuel += more.fuel;
        }
    }

    /// Every outcome and its sums.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Total)> {
        self.0.iter().map(|(outcome, total)| (&**outcome, total))
    }
}
