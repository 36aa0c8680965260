//! Metrics: one for a name over all VMs. Counters add up, a gauge is whatever was set last, and a
//! histogram keeps what was recorded.

use std::collections::BTreeMap;

const COUNTER: u32 = 0;
const GAUGE: u32 = 1;
const HISTOGRAM: u32 = 2;

/// All metrics of the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    places: BTreeMap<String, usize>,
    values: Vec<Metric>,
    /// Each definition has an id of its own, and those of one name share its metric.
    ids: Vec<usize>,
}

/// One metric's value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Metric {
    Counter(u64),
    Gauge(u64),
    /// How often each value was recorded.
    Histogram(BTreeMap<u64, u64>),
}

// === impl Metrics ===

impl Metrics {
    /// An id for a metric, which is created if need be; none for a kind that is none.
    pub(crate) fn define(&mut self, kind: u32, name: &str) -> Option<u32> {
        let new = match kind {
            COUNTER => Metric::Counter(0),
            GAUGE => Metric::Gauge(0),
            HISTOGRAM => Metric::Histogram(BTreeMap::new()),
            _ => return None,
        };
        let next = self.values.len();
        let place = *self.places.entry(name.to_owned()).or_insert(next);
        if place == next {
            self.values.push(new);
        }
        self.ids.push(place);
        u32::try_from(self.ids.len()).ok()
    }

    fn of(&mut self, metric: u32) -> Option<&mut Metric> {
        let place = self.ids.get((metric as usize).checked_sub(1)?)?;
        self.values.get_mut(*place)
    }

    /// Sets a gauge, adds to a counter, or records in a histogram.
    pub(crate) fn record(&mut self, metric: u32, value: u64) -> bool {
        match self.of(metric) {
            Some(Metric::Counter(number)) => *number = number.saturating_add(value),
            Some(Metric::Gauge(number)) => *number = value,
            Some(Metric::Histogram(counts)) => *counts.entry(value).or_default() += 1,
            None => return false,
        }
        true
    }

    /// Adds to a counter, or to a gauge.
    pub(crate) fn increment(&mut self, metric: u32, by: i64) -> bool {
        match self.of(metric) {
            Some(Metric::Counter(number)) if by > 0 => {
                *number = number.saturating_add_signed(by);
            }
            Some(Metric::Gauge(number)) => *number = number.saturating_add_signed(by),
            _ => return false,
        }
        true
    }

    /// Counters and gauges, by name.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = (&str, u64)> {
        self.all().filter_map(|(name, metric)| match metric {
            Metric::Counter(number) | Metric::Gauge(number) => Some((name, *number)),
            Metric::Histogram(_) => None,
        })
    }

    /// Histograms, by name: how often each value was recorded.
    pub(crate) fn histograms(&self) -> impl Iterator<Item = (&str, &BTreeMap<u64, u64>)> {
        self.all().filter_map(|(name, metric)| match metric {
            Metric::Counter(_) | Metric::Gauge(_) => None,
            Metric::Histogram(counts) => Some((name, counts)),
        })
    }

    fn all(&self) -> impl Iterator<Item = (&str, &Metric)> {
        let all = self.places.iter();
        all.filter_map(|(name, place)| Some((&**name, self.values.get(*place)?)))
    }
}
