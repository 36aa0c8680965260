//! What a picture is drawn from, as it stands in the JSON files: counts a second, and distributions.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::live::load::LoadReport;

/// Twenty buckets a decade: as close as a picture shows.
const BUCKETS_A_DECADE: f64 = 20.0;

/// How often what took how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// The upper end of each bucket, in ms; twenty of them make a decade.
    pub up_to_ms: Vec<f64>,
    /// How many are in it.
    pub count: Vec<u64>,
}

/// One arm of a comparison over time, and what it took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmSeries {
    /// Requests that the gateway sent, each second from the first whole one.
    pub sent_per_second: Vec<u64>,
    /// Requests of any kind that reached Laravel, likewise.
    pub laravel_per_second: Vec<u64>,
    /// What the gateway waited for answers to its POSTs.
    pub post_latency: Distribution,
    /// And to its status reads.
    pub get_latency: Distribution,
    /// From the gateway's send of a QR until Laravel has it.
    pub qr_staleness: Distribution,
    /// The same of states that travel by themselves.
    pub state_staleness: Distribution,
}

/// A run under troubles, over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChaosSeries {
    /// Requests that the gateway sent, each second from the first whole one.
    pub sent_per_second: Vec<u64>,
    /// Those of them that got no 2xx.
    pub failed_per_second: Vec<u64>,
    /// Requests of any kind that reached Laravel.
    pub laravel_per_second: Vec<u64>,
    /// When Laravel was down, in seconds of the run.
    pub outage_from_s: f64,
    /// Until when.
    pub outage_to_s: f64,
    /// What the gateway waited for its answers while nothing was wrong.
    pub healthy_latency: Distribution,
    /// And during the outage.
    pub outage_latency: Distribution,
}

/// The whole seconds of a run: those that it fills from their beginning to their end.
#[derive(Clone, Copy, Debug)]
pub struct WholeSeconds {
    first: u64,
    count: usize,
}

/// How many times its lower end a bucket's upper one is.
fn bucket_width() -> f64 {
    10_f64.powf(1.0 / BUCKETS_A_DECADE)
}

// === impl Distribution ===

impl Distribution {
    /// What a histogram of µs holds.
    pub fn of_us(histogram: &Histogram<u64>) -> Self {
        Self::of(histogram, 1000.0)
    }

    /// What a histogram of ms holds.
    pub fn of_ms(histogram: &Histogram<u64>) -> Self {
        Self::of(histogram, 1.0)
    }

    fn of(histogram: &Histogram<u64>, to_the_ms: f64) -> Self {
        let mut all = Self::default();
        // Below ten, not every bucket would hold a whole number.
        for bucket in histogram.iter_log(10, bucket_width()) {
            let up_to = bucket.value_iterated_to() as f64 / to_the_ms;
            let count = bucket.count_since_last_iteration();
            // Empty ones before the first value would only make the file longer.
            if count > 0 || !all.count.is_empty() {
                all.up_to_ms.push(up_to);
                all.count.push(count);
            }
        }
        all
    }

    /// Of all, how many percent took at most how many ms: from none of them to all.
    pub(super) fn cumulative(&self) -> Vec<(f64, f64)> {
        let total = self.count.iter().sum::<u64>().max(1) as f64;
        let mut sum = 0;
        let buckets = self.up_to_ms.iter().zip(&self.count);
        let begin = self.up_to_ms.first();
        let begin = begin.map(|up_to| (up_to / bucket_width(), 0.0));
        let points = buckets.map(|(up_to, count)| {
            sum += count;
            (*up_to, 100.0 * sum as f64 / total)
        });
        begin.into_iter().chain(points).collect()
    }
}

// === impl WholeSeconds ===

impl WholeSeconds {
    /// Of a load, from its first event until it began no more.
    pub fn of(load: &LoadReport) -> Self {
        let lasted_ms = u64::try_from(load.sent_for.as_millis()).unwrap_or(u64::MAX);
        Self::new(load.started_ms, lasted_ms)
    }

    fn new(started_ms: u64, lasted_ms: u64) -> Self {
        let first = started_ms.div_ceil(1000);
        let end = (started_ms + lasted_ms) / 1000;
        let count = usize::try_from(end.saturating_sub(first)).unwrap_or(0);
        Self { first, count }
    }

    /// What was counted in each of them; in those that nobody names, nothing.
    pub fn pick(self, counted: impl IntoIterator<Item = (u64, u64)>) -> Vec<u64> {
        let mut picked = vec![0; self.count];
        for (second, count) in counted {
            let place = second.checked_sub(self.first);
            let place = place.and_then(|place| picked.get_mut(usize::try_from(place).ok()?));
            if let Some(place) = place {
                *place += count;
            }
        }
        picked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 600_000_000, 3).unwrap();
        for value in values {
            histogram.record(*value).unwrap();
        }
        histogram
    }

    #[test]
    fn a_distribution_has_every_value_and_its_last_share_is_all() {
        let values = [3, 200, 210, 21_000, 5_000_000];
        let found = Distribution::of_us(&histogram(&values));
        assert_eq!(found.count.iter().sum::<u64>(), values.len() as u64);
        let shares = found.cumulative();
        assert_eq!(shares.first().map(|(_, percent)| *percent), Some(0.0));
        assert_eq!(shares.last().map(|(_, percent)| *percent), Some(100.0));
        for (value, share) in [(0.21, 60.0), (21.0, 80.0)] {
            let at = shares.iter().find(|(up_to, _)| *up_to >= value * 1.001);
            let at = at.expect("a bucket that ends behind it");
            assert!((at.1 - share).abs() < 1e-9, "{value} ms: {shares:?}");
            assert!(
                at.0 < value * 1.15,
                "a bucket is a twentieth of a decade wide"
            );
        }
        assert_eq!(Distribution::of_us(&histogram(&[])).cumulative(), []);
    }

    #[test]
    fn only_seconds_that_the_run_fills_are_counted() {
        let seconds = WholeSeconds::new(1_500, 3_000);
        let counted = [(0, 9), (1, 9), (2, 1), (3, 2), (4, 9)];
        assert_eq!(seconds.pick(counted), [1, 2]);
        assert_eq!(seconds.pick([]), [0, 0]);
        assert_eq!(WholeSeconds::new(1_500, 400).pick([(1, 9)]), [0; 0]);
    }
}
