//! Metrics: one for a name over all VMs. Counters add up, a gauge is whatever was set last.

use std::collections::BTreeMap;

/// All metrics of the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    ids: BTreeMap<String, u32>,
    values: Vec<u64>,
}

// === impl Metrics ===

impl Metrics {
    /// The id of a metric, which is created if need be.
    pub(crate) fn define(&mut self, name: &str) -> u32 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.ids.insert(name.to_owned(), id);
        self.values.push(0);
        id
    }

    /// Sets a gauge, or records in a histogram, of which the last value is kept.
    pub(crate) fn record(&mut self, metric: u32, value: u64) -> bool {
        let slot = self.values.get_mut(metric as usize);
        slot.map(|slot| *slot = value).is_some()
    }

    /// Adds to a counter.
    pub(crate) fn increment(&mut self, metric: u32, by: u64) -> bool {
        let slot = self.values.get_mut(metric as usize);
        slot.map(|slot| *slot = slot.saturating_add(by)).is_some()
    }

    /// Every metric's name and value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.ids.iter().map(|(name, id)| {
            let value = self.values.get(*id as usize).copied();
            (&**name, value.unwrap_or_default())
        })
    }
}
