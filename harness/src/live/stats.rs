//! Envoy's figures, by name and label.
//!
//! Embudo's metric names carry their labels (`embudo.requests;route=qr;outcome=queued`), and Envoy
//! shows them with `wasmcustom.` in front. A question such as "how many were queued, whatever the
//! route" is a sum over all names that have the labels asked for.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What Envoy puts in front of a filter's own metrics.
const CUSTOM: &str = "wasmcustom.";

/// Gauges that are no counts: of several stores the worst counts.
const WORST: [&str; 3] = [
    "embudo.oldest_pending_ms",
    "embudo.circuit",
    "embudo.laravel_slow",
];

/// All figures of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    numbers: BTreeMap<String, u64>,
    histograms: BTreeMap<String, Histogram>,
}

/// A histogram since Envoy's start. Its bins are Envoy's own: two significant digits, so a quantile
/// is exact to within 10 %.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    bins: Vec<Bin>,
}

/// Samples from `from`, less than `from + width`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
struct Bin {
    #[serde(rename = "lower_bound")]
    from: f64,
    width: f64,
    count: u64,
}

/// The conservation law: everything accepted has exactly one fate, or still waits for it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Updates that were answered `queued`, and implied ones that came back to life.
    pub accepted: u64,
    /// Taken by Laravel.
    pub delivered: u64,
    /// Replaced by a newer one of the same session before they were sent.
    pub superseded: u64,
    /// Too old to be of use (QR only).
    pub expired: u64,
    /// Refused by Laravel for good.
    pub rejected: u64,
    /// Made meaningless by a state that opens a gate.
    #[serde(default)]
    pub voided: u64,
    /// Still to be sent.
    pub pending: u64,
}

/// What became of VMs that trapped. A trap shows here only once the next request has reached its
/// worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmReloads {
    /// A new VM runs.
    pub success: u64,
    /// A request came before the back-off had passed, and got 503.
    pub backoff: u64,
    /// No new VM could be made.
    pub failure: u64,
}

// === impl Stats ===

impl Stats {
    /// Reads the answer to `/stats?format=json&histogram_buckets=detailed`.
    ///
    /// # Errors
    /// When it is not that.
    pub fn parse(text: &str) -> Result<Self> {
        let answer: Value = serde_json::from_str(text).context("the statistics are not JSON")?;
        let all = answer["stats"]
            .as_array()
            .context("the statistics hold no `stats`")?;
        let mut stats = Self::default();
        for one in all {
            if let (Some(name), Some(value)) = (one["name"].as_str(), one["value"].as_u64()) {
                stats.numbers.insert(name.to_owned(), value);
            }
            for details in one["histograms"]["details"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let name = details["name"]
                    .as_str()
                    .context("a histogram without a name")?;
                let bins = Vec::deserialize(&details["totals"])
                    .with_context(|| format!("the bins of {name} are not as expected"))?;
                stats.histograms.insert(name.to_owned(), Histogram { bins });
            }
        }
        Ok(stats)
    }

    /// The module's own numbers and histograms, as Envoy would show them: from a host that keeps every
    /// value that was recorded, with how often it was.
    pub fn of_module<'a>(
        numbers: impl Iterator<Item = (&'a str, u64)>,
        histograms: impl Iterator<Item = (&'a str, &'a BTreeMap<u64, u64>)>,
    ) -> Self {
        let shown = |name: &str| format!("{CUSTOM}{name}");
        let bins = |counts: &BTreeMap<u64, u64>| {
            let bins = counts.iter().map(|(value, count)| Bin::of(*value, *count));
            bins.collect()
        };
        Self {
            numbers: numbers.map(|(name, n)| (shown(name), n)).collect(),
            histograms: histograms
                .map(|(name, counts)| (shown(name), Histogram { bins: bins(counts) }))
                .collect(),
        }
    }

    /// A figure by Envoy's full name, such as `cluster.laravel.upstream_rq_total`; 0 if there is
    /// none.
    pub fn raw(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or(0)
    }

    /// The sum of the figures whose full name `is_wanted`.
    pub fn sum(&self, is_wanted: impl Fn(&str) -> bool) -> u64 {
        let wanted = self.numbers.iter().filter(|(name, _)| is_wanted(name));
        wanted.map(|(_, count)| count).sum()
    }

    /// The sum of Embudo's counters called `name` (`embudo.requests`) that have all of `labels`.
    pub fn counter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        matching(&self.numbers, name, labels)
            .map(|(_, count)| count)
            .sum()
    }

    /// The counters called `name`, summed by the value of one label.
    pub fn counters_by(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for (labels, count) in matching(&self.numbers, name, &[]) {
            if let Some((_, value)) = pairs(labels).find(|(key, _)| *key == label) {
                *sums.entry(value.to_owned()).or_default() += count;
            }
        }
        sums
    }

    /// The counters called `name`, summed by the values of two labels: the first label's value, then
    /// the second's. Counters that lack one of them are left out.
    pub fn counters_by_two(
        &self,
        name: &str,
        first: &str,
        second: &str,
    ) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut sums: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for (labels, count) in matching(&self.numbers, name, &[]) {
            let of = |label| pairs(labels).find(|(key, _)| *key == label);
            if let (Some((_, outer)), Some((_, inner))) = (of(first), of(second)) {
                let group = sums.entry(outer.to_owned()).or_default();
                *group.entry(inner.to_owned()).or_default() += count;
            }
        }
        sums
    }

    /// A figure by Envoy's full name, or `None` if there is none: unlike [`Stats::raw`] it tells "0"
    /// from "not counted here".
    pub fn find(&self, name: &str) -> Option<u64> {
        self.numbers.get(name).copied()
    }

    /// Whether Embudo has defined any metric in this Envoy.
    pub fn has_embudo(&self) -> bool {
        let ours = format!("{CUSTOM}embudo.");
        self.numbers.keys().any(|name| name.starts_with(&ours))
    }

    /// A gauge of Embudo's over all stores of this Envoy: the sum of what is counted, and the worst of what is not.
    /// `None` while no leader has set it.
    pub fn gauge(&self, name: &str) -> Option<u64> {
        let values = matching(&self.numbers, name, &[]).map(|(_, value)| *value);
        match WORST.contains(&name) {
            true => values.max(),
            false => values.reduce(u64::saturating_add),
        }
    }

    /// A gauge of Embudo's by the store that it is of.
    pub fn gauge_by_store(&self, name: &str) -> BTreeMap<String, u64> {
        self.counters_by(name, "store")
    }

    /// Embudo's histograms called `name` that have all of `labels`, as one.
    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Histogram {
        let mut bins: Vec<Bin> = matching(&self.histograms, name, labels)
            .flat_map(|(_, h)| h.bins.clone())
            .collect();
        bins.sort_by(|a, b| a.from.total_cmp(&b.from));
        Histogram { bins }
    }

    /// The ledger, from Embudo's own counters.
    pub fn ledger(&self) -> Ledger {
        let end = |end| self.counter("embudo.items", &[("end", end)]);
        Ledger {
            accepted: self.counter("embudo.requests", &[("outcome", "queued")])
                + self.counter("embudo.revived", &[]),
            delivered: end("delivered"),
            superseded: end("superseded"),
            expired: end("expired"),
            rejected: end("rejected"),
            voided: end("voided"),
            pending: self.gauge("embudo.pending").unwrap_or(0),
        }
    }

    /// What became of trapped VMs, over all plugins (`wasm.<plugin>.vm_reload_success` and its
    /// siblings).
    pub fn vm_reloads(&self) -> VmReloads {
        let sum = |what: &str| {
            let ours = |name: &str| name.starts_with("wasm.") && name.ends_with(what);
            self.numbers
                .iter()
                .filter(|(name, _)| ours(name))
                .map(|(_, count)| count)
                .sum()
        };
        VmReloads {
            success: sum(".vm_reload_success"),
            backoff: sum(".vm_reload_backoff"),
            failure: sum(".vm_reload_failure"),
        }
    }
}

/// The entries called `name` that have all of `labels`, each with its own labels.
fn matching<'a, T>(
    all: &'a BTreeMap<String, T>,
    name: &'a str,
    labels: &'a [(&str, &str)],
) -> impl Iterator<Item = (&'a str, &'a T)> {
    all.iter().filter_map(move |(full, value)| {
        let rest = full.strip_prefix(CUSTOM)?.strip_prefix(name)?;
        (rest.is_empty() || rest.starts_with(';')).then_some(())?;
        labels
            .iter()
            .all(|label| pairs(rest).any(|pair| pair == *label))
            .then_some((rest, value))
    })
}

fn pairs(labels: &str) -> impl Iterator<Item = (&str, &str)> {
    labels.split(';').filter_map(|label| label.split_once('='))
}

// === impl Bin ===

impl Bin {
    /// Envoy's bin of a value: two significant digits wide.
    fn of(value: u64, count: u64) -> Self {
        let width = 10_f64.powi(value.max(1).ilog10().try_into().unwrap_or(0) - 1);
        let from = (value as f64 / width).floor() * width;
        Self { from, width, count }
    }
}

// === impl Histogram ===

impl Histogram {
    /// How many samples there are.
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|bin| bin.count).sum()
    }

    /// The value below which the share `q` (0 to 1) of the samples lies, or `None` without samples.
    ///
    /// It is the upper edge of the bin, so a promise "at most" that holds for it holds for the
    /// samples.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = (q * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bin = self.bins.iter().find(|bin| {
            seen += bin.count;
            seen >= rank
        })?;
        // A bin that is no wider than 1 holds exactly one whole number.
        Some(if bin.width <= 1.0 {
            bin.from
        } else {
            bin.from + bin.width
        })
    }

    /// The mean, with each sample in the middle of its bin; `None` without samples.
    pub fn mean(&self) -> Option<f64> {
        let middle = |bin: &Bin| {
            if bin.width <= 1.0 {
                bin.from
            } else {
                bin.from + bin.width / 2.0
            }
        };
        let sum: f64 = self
            .bins
            .iter()
            .map(|bin| middle(bin) * bin.count as f64)
            .sum();
        (self.count() > 0).then(|| sum / self.count() as f64)
    }
}

// === impl Ledger ===

impl Ledger {
    /// Whether every accepted update is accounted for. True only between two steps of the leader:
    /// it sets the gauge a moment after the counters.
    pub fn balances(&self) -> bool {
        self.accepted == self.settled() + self.pending
    }

    /// How many updates have reached their end.
    pub fn settled(&self) -> u64 {
        self.delivered + self.superseded + self.expired + self.rejected + self.voided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shortened from a real answer of Envoy 1.40.
    const ANSWER: &str = r#"{"stats":[
        {"name":"wasm.embudo.vm_reload","value":0},
        {"name":"wasm.embudo.vm_reload_backoff","value":3},
        {"name":"wasm.embudo.vm_reload_success","value":1},
        {"name":"wasmcustom.embudo.items;route=qr;end=delivered","value":5},
        {"name":"wasmcustom.embudo.items;route=status;end=superseded","value":2},
        {"name":"wasmcustom.embudo.oldest_pending_ms;store=embudo","value":900},
        {"name":"wasmcustom.embudo.oldest_pending_ms;store=second","value":40},
        {"name":"wasmcustom.embudo.pending;store=embudo","value":2},
        {"name":"wasmcustom.embudo.pending;store=second","value":1},
        {"name":"wasmcustom.embudo.requests;route=qr;outcome=queued","value":6},
        {"name":"wasmcustom.embudo.requests;route=status;outcome=queued","value":3},
        {"name":"wasmcustom.embudo.requests;route=qr;outcome=bypass;reason=size","value":9},
        {"name":"wasmcustom.embudo.requests_of_another;route=qr;outcome=queued","value":100},
        {"name":"wasmcustom.embudo.revived","value":1},
        {"name":"wasmcustom.text","value":"not a number"},
        {"histograms":{"supported_percentiles":[50],"details":[
            {"name":"wasmcustom.embudo.staleness_ms;route=qr","intervals":[],"percentiles":[],
             "totals":[{"lower_bound":7,"width":0.1,"count":3},{"lower_bound":120,"width":10,"count":1}]},
            {"name":"wasmcustom.embudo.staleness_ms;route=status","intervals":[],"percentiles":[],
             "totals":[{"lower_bound":90,"width":1,"count":4}]}]}}]}"#;

    #[test]
    fn counters_add_up_over_the_labels_that_are_not_asked_for() {
        let stats = Stats::parse(ANSWER).unwrap();
        assert_eq!(
            stats.counter("embudo.requests", &[("outcome", "queued")]),
            9
        );
        let qr = [("route", "qr"), ("outcome", "queued")];
        assert_eq!(stats.counter("embudo.requests", &qr), 6);
        assert_eq!(stats.counter("embudo.requests", &[("reason", "size")]), 9);
        assert_eq!(
            stats.counter("embudo.requests", &[("route", "q")]),
            0,
            "labels match whole"
        );
        let by = stats.counters_by("embudo.requests", "outcome");
        assert_eq!(
            by,
            [("bypass".to_owned(), 9), ("queued".to_owned(), 9)].into()
        );
        assert_eq!(stats.raw("wasm.embudo.vm_reload_backoff"), 3);
        let by = stats.counters_by_two("embudo.requests", "route", "outcome");
        assert_eq!(
            by["qr"],
            [("bypass".to_owned(), 9), ("queued".to_owned(), 6)].into()
        );
        assert_eq!(by["status"], [("queued".to_owned(), 3)].into());
        assert_eq!(stats.find("wasm.embudo.vm_reload"), Some(0));
        assert_eq!(stats.find("wasm.embudo.vm_created"), None);
        assert!(stats.has_embudo());
        assert!(!Stats::default().has_embudo());
    }

    #[test]
    fn the_ledger_balances_or_says_by_how_much_not() {
        let ledger = Stats::parse(ANSWER).unwrap().ledger();
        let expected = Ledger {
            accepted: 10,
            delivered: 5,
            superseded: 2,
            pending: 3,
            ..Ledger::default()
        };
        assert_eq!(ledger, expected);
        assert!(ledger.balances());
        assert!(
            !Ledger {
                accepted: 11,
                ..ledger
            }
            .balances()
        );
    }

    #[test]
    fn histograms_of_several_routes_merge() {
        let stats = Stats::parse(ANSWER).unwrap();
        let all = stats.histogram("embudo.staleness_ms", &[]);
        assert_eq!(all.count(), 8);
        assert_eq!(
            all.quantile(0.25),
            Some(7.0),
            "a narrow bin is one whole number"
        );
        assert_eq!(
            all.quantile(0.5),
            Some(90.0),
            "so is one of width 1, which ends before the next"
        );
        assert_eq!(
            all.quantile(1.0),
            Some(130.0),
            "a wide bin counts with its upper edge"
        );
        let qr = stats.histogram("embudo.staleness_ms", &[("route", "qr")]);
        assert_eq!(qr.mean(), Some((3.0 * 7.0 + 125.0) / 4.0));
        assert_eq!(stats.histogram("embudo.call_ms", &[]).quantile(0.99), None);
    }

    #[test]
    fn what_a_module_recorded_is_shown_in_the_bins_of_envoy() {
        let counts: BTreeMap<u64, u64> = [(0, 1), (7, 2), (50, 1), (124, 3)].into();
        let stats = Stats::of_module(
            [("embudo.pending", 4)].into_iter(),
            [("embudo.call_ms", &counts)].into_iter(),
        );
        assert_eq!(stats.gauge("embudo.pending"), Some(4));
        let shown = stats.histogram("embudo.call_ms", &[]);
        assert_eq!(shown.count(), 7);
        let at = |q| shown.quantile(q);
        assert_eq!(
            [at(0.1), at(0.4), at(0.5), at(1.0)],
            [Some(0.0), Some(7.0), Some(50.0), Some(130.0)]
        );
    }

    #[test]
    fn reloads_are_summed_over_the_plugins() {
        let reloads = Stats::parse(ANSWER).unwrap().vm_reloads();
        assert_eq!(
            reloads,
            VmReloads {
                success: 1,
                backoff: 3,
                failure: 0
            }
        );
    }

    #[test]
    fn a_gauge_that_nobody_has_set_is_none() {
        let stats = Stats::parse(ANSWER).unwrap();
        assert_eq!(stats.gauge("embudo.pending"), Some(3));
        assert_eq!(stats.gauge("embudo.circuit"), None);
    }

    #[test]
    fn gauges_of_several_stores_are_summed_and_the_worst_is_taken_of_what_is_no_count() {
        let stats = Stats::parse(ANSWER).unwrap();
        assert_eq!(stats.gauge("embudo.pending"), Some(3));
        assert_eq!(stats.gauge("embudo.oldest_pending_ms"), Some(900));
        let by = stats.gauge_by_store("embudo.pending");
        assert_eq!(
            by,
            [("embudo".to_owned(), 2), ("second".to_owned(), 1)].into()
        );
    }
}
