//! How long Laravel takes.

/// A call counts for this part of the smoothed time.
const WEIGHT: u64 = 8;

/// The smoothed time of calls.
#[derive(Debug, Default)]
pub(super) struct Smoothed {
    ms: Option<u64>,
    slow: bool,
}

// === impl Smoothed ===

impl Smoothed {
    /// Whether Laravel is slow.
    pub(super) fn is_slow(&self) -> bool {
        self.slow
    }

    /// A call has taken this long. Gives the smoothed time where Laravel has become slow by that, or is slow
    /// no more: a fifth below the limit, so that a time about the limit makes no noise.
    pub(super) fn take(&mut self, took_ms: u64, slow_ms: u64) -> Option<u64> {
        let old_ms = self.ms.unwrap_or(took_ms);
        let sum_ms = old_ms.saturating_mul(WEIGHT - 1).saturating_add(took_ms);
        let ms = sum_ms / WEIGHT;
        self.ms = Some(ms);
        let limit_ms = match self.slow {
            true => slow_ms.saturating_sub(slow_ms / 5),
            false => slow_ms,
        };
        let slow = ms > limit_ms;
        (core::mem::replace(&mut self.slow, slow) != slow).then_some(ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_when_it_begins_and_when_it_ends_and_nothing_between() {
        let mut time = Smoothed::default();
        let mut said = 0;
        for took_ms in [100, 100, 5_000, 100] {
            said += usize::from(time.take(took_ms, 2_000).is_some());
        }
        assert_eq!((said, time.is_slow()), (0, false), "one call is no trend");
        for _ in 0..20 {
            said += usize::from(time.take(4_000, 2_000).is_some());
        }
        assert_eq!((said, time.is_slow()), (1, true));
        for took_ms in [1_900, 2_100].repeat(20) {
            said += usize::from(time.take(took_ms, 2_000).is_some());
        }
        assert_eq!((said, time.is_slow()), (1, true), "about the limit");
        for _ in 0..20 {
            said += usize::from(time.take(100, 2_000).is_some());
        }
        assert_eq!((said, time.is_slow()), (2, false));
    }
}
