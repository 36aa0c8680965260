//! Metrics: one for a name over all VMs. Counters add up, a gauge is whatever was set last, and a
//! histogram keeps what was recorded.

use std::collections::BTreeMap;

/// The ABI's number of a histogram; 0 is a counter, 1 a gauge.
const HISTOGRAM: u32 = 2;

/// All metrics of the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    ids: BTreeMap<String, u32>,
    values: Vec<Metric>,
}

/// One metric's value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Metric {
    /// A counter's or a gauge's.
    Number(u64),
    /// How often each value was recorded.
    Histogram(BTreeMap<u64, u64>),
}

// === impl Metrics ===

impl Metrics {
    /// The id of a metric, which is created if need be.
    pub(crate) fn define(&mut self, kind: u32, name: &str) -> u32 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.ids.insert(name.to_owned(), id);
        self.values.push(match kind {
            HISTOGRAM => Metric::Histogram(BTreeMap::new()),
            _ => Metric::Number(0),
        });
        id
    }

    /// Sets a gauge, or records in a histogram.
    pub(crate) fn record(&mut self, metric: u32, value: u64) -> bool {
        match self.values.get_mut(metric as usize) {
            Some(Metric::Number(number)) => *number = value,
            Some(Metric::Histogram(counts)) => *counts.entry(value).or_default() += 1,
            None => return false,
        }
        true
    }

    /// Adds to a counter.
    pub(crate) fn increment(&mut self, metric: u32, by: u64) -> bool {
        let Some(Metric::Number(number)) = self.values.get_mut(metric as usize) else {
            return false;
        };
        *number = number.saturating_add(by);
        true
    }

    /// Counters and gauges, by name.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = (&str, u64)> {
        self.all().filter_map(|(name, metric)| match metric {
            Metric::Number(number) => Some((name, *number)),
            Metric::Histogram(_) => None,
        })
    }

    /// Histograms, by name: how often each value was recorded.
    pub(crate) fn histograms(&self) -> impl Iterator<Item = (&str, &BTreeMap<u64, u64>)> {
        self.all().filter_map(|(name, metric)| match metric {
            Metric::Number(_) => None,
            Metric::Histogram(counts) => Some((name, counts)),
        })
    }

    fn all(&self) -> impl Iterator<Item = (&str, &Metric)> {
        let all = self.ids.iter();
        all.filter_map(|(name, id)| Some((&**name, self.values.get(*id as usize)?)))
    }
}
