//! How long to leave a destination alone after a failure.
//!
//! Exponential with full jitter. It belongs to a destination and never to an item: if every item had its
//! own, recovery would begin with a drizzle of single calls instead of full batches, and an item that is
//! replaced by a newer one would start over each time.

use crate::config::BackoffRange;

/// A small generator for jitter and ids. Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

/// One destination's back-off.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
    until_ms: u64,
}

/// Doublings after which the upper bound rules; keeps the shift within a u64.
const DOUBLINGS_MAX: u32 = 16;

// === impl Rng ===

impl Rng {
    /// All randomness of the core comes from this seed.
    #[must_use]
    #[inline]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform from `least` to `most`, both included.
    #[inline]
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        let width = most.saturating_sub(least).saturating_add(1);
        least.saturating_add(self.next_u64().checked_rem(width).unwrap_or(0))
    }
}

// === impl Backoff ===

impl Backoff {
    /// Whether a call may be made.
    #[must_use]
    #[inline]
    pub fn is_over(&self, mono_ms: u64) -> bool {
        self.until_ms <= mono_ms
    }

    /// Failures in a row.
    #[must_use]
    #[inline]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// One that a predecessor had come to.
    #[must_use]
    #[inline]
    pub fn resume(failures: u32, until_ms: u64) -> Self {
        Self { failures, until_ms }
    }

    /// When the next call may be made. Monotonic.
    #[must_use]
    #[inline]
    pub fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// It may be over: the next call may be made now.
    #[inline]
    pub fn hurry(&mut self, mono_ms: u64) {
        self.until_ms = self.until_ms.min(mono_ms);
    }

    /// A failure: waits up to twice as long as the last time, and at least `retry_after_ms`.
    #[inline]
    pub fn fail(&mut self, range: &BackoffRange, retry_after_ms: u64, rng: &mut Rng, mono_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        let doublings = self.failures.min(DOUBLINGS_MAX);
        let ceiling = range
            .min_ms
            .saturating_mul(1 << doublings)
            .min(range.max_ms);
        let wait_ms = rng
            .between(range.min_ms.min(ceiling), ceiling)
            .max(retry_after_ms);
        self.until_ms = self.until_ms.max(mono_ms.saturating_add(wait_ms));
    }

    /// A success. Gives the number of failures that it ends.
    #[inline]
    pub fn succeed(&mut self) -> u32 {
        self.until_ms = 0;
        core::mem::take(&mut self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: BackoffRange = BackoffRange {
        min_ms: 500,
        max_ms: 30_000,
    };

    #[test]
    fn waits_grow_within_their_bounds_and_end_with_a_success() {
        let mut rng = Rng::new(1);
        let mut longest_ms = 0;
        for seed in 0..200 {
            let mut backoff = Backoff::default();
            rng = Rng::new(seed ^ rng.next_u64());
            for failure in 1..20_u32 {
                backoff.until_ms = 0;
                backoff.fail(&RANGE, 0, &mut rng, 0);
                let ceiling = (500_u64 << failure.min(10)).min(30_000);
                assert!(
                    (500..=ceiling).contains(&backoff.until_ms),
                    "{}",
                    backoff.until_ms
                );
                longest_ms = longest_ms.max(backoff.until_ms);
            }
            assert_eq!(backoff.succeed(), 19);
            assert!(backoff.is_over(0));
        }
        assert!(longest_ms > 29_000, "the jitter is full: {longest_ms}");
    }

    #[test]
    fn what_laravel_asks_for_is_the_least() {
        let mut backoff = Backoff::default();
        backoff.fail(&RANGE, 60_000, &mut Rng::new(1), 1_000);
        assert!(!backoff.is_over(60_999) && backoff.is_over(61_000));
    }
}
