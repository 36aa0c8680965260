//! What is looked at once a second while it runs: Envoy's memory, and what Embudo says of itself.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::time::{MissedTickBehavior, interval};

use crate::live::admin::Admin;
use crate::live::proc::rss_kb;

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// Of Embudo's figures, those that are looked at: few, since Envoy's main thread writes them.
const FIGURES: &str = r"^wasmcustom\.embudo\.(pending|items)";

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// Envoy's resident memory.
    pub(super) rss_kb: u64,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) samples: Vec<Sample>,
    /// When the number of expired QRs was last seen to have grown.
    pub(super) last_expiry: Option<Instant>,
    expired: u64,
}

/// Medians of the memory, in MB, of the middle and of the last third of the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Memory {
    pub(super) middle_mb: f64,
    pub(super) last_mb: f64,
}

// === impl Watched ===

impl Watched {
    /// Looks until it is dropped, or until Envoy is gone; `tell` hears what is pending, and the memory in
    /// MB.
    pub(super) async fn watch(
        &mut self,
        admin: &Admin,
        pid: u32,
        mut tell: impl FnMut(u64, u64),
    ) -> Result<()> {
        let mut every = interval(EVERY);
        // A late look is no reason to look twice.
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let at = Instant::now();
            let Some(rss_kb) = rss_kb(pid) else {
                bail!("Envoy died");
            };
            self.samples.push(Sample { at, rss_kb });
            // One that does not come is missed, and no more: whether Envoy lives was asked above.
            let Ok(stats) = admin.stats_matching(FIGURES).await else {
                continue;
            };
            let ledger = stats.ledger();
            if ledger.expired > self.expired {
                self.expired = ledger.expired;
                self.last_expiry = Some(Instant::now());
            }
            tell(ledger.pending, rss_kb / 1024);
        }
    }

    /// The memory within this span; `None` where there are too few samples for a median.
    pub(super) fn memory(&self, from: Instant, lasts: Duration) -> Option<Memory> {
        let third = |n: u32| {
            let (start, end) = (from + lasts / 3 * n, from + lasts / 3 * (n + 1));
            let within = self.samples.iter().filter(|s| (start..end).contains(&s.at));
            median_mb(within.map(|sample| sample.rss_kb).collect())
        };
        Some(Memory {
            middle_mb: third(1)?,
            last_mb: third(2)?,
        })
    }
}

// === impl Memory ===

impl Memory {
    /// By how much the last third is above the middle one, in percent.
    pub(super) fn growth_percent(&self) -> f64 {
        100.0 * (self.last_mb / self.middle_mb - 1.0)
    }
}

fn median_mb(mut kb: Vec<u64>) -> Option<f64> {
    kb.sort_unstable();
    let median = kb.get(kb.len() / 2)?;
    Some((*median as f64 / 1024.0 * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(from: Instant, kb: &[u64]) -> Watched {
        let at = |i: usize| from + Duration::from_millis(500) + EVERY * i as u32;
        let sample = |(i, rss_kb): (usize, &u64)| Sample {
            at: at(i),
            rss_kb: *rss_kb,
        };
        Watched {
            samples: kb.iter().enumerate().map(sample).collect(),
            ..Watched::default()
        }
    }

    #[test]
    fn memory_is_the_median_of_the_middle_and_of_the_last_third() {
        let from = Instant::now();
        let mb = [50, 60, 70, 100, 900, 100, 110, 110, 1, 5_000];
        let watched = watched(from, &mb.map(|mb| mb * 1024));
        let memory = watched.memory(from, EVERY * 9).expect("enough samples");
        assert_eq!((memory.middle_mb, memory.last_mb), (100.0, 110.0));
        assert!((memory.growth_percent() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn without_samples_there_is_no_memory() {
        let from = Instant::now();
        assert_eq!(watched(from, &[1]).memory(from, EVERY * 9), None);
    }
}
