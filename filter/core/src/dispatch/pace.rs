//! How fast calls may leave.
//!
//! Evenly spaced, no burst, in recovery too. A 429 halves the pace at once, so that batches become fuller;
//! it recovers slowly: Laravel's own throttle shapes Embudo, not the reverse. Calls of single items, where
//! there is no batch route, have a pace of their own that shares the same fate.

use crate::config;

/// The whole pace, in parts per million.
const WHOLE: u64 = 1_000_000;

/// From nothing to the whole pace, seconds.
const RECOVERY_S: u64 = 600;

/// What is regained in a second at least, in calls in a thousand seconds: a small pace recovers too.
const RECOVERY_MIN: u64 = 25;

/// Fewest calls in a thousand seconds, however often Laravel says 429: one in five seconds.
const CALLS_MIN: u64 = 200;

/// How early a call may leave without counting as a burst: ticks come a little late or early.
const SLACK_MS: u64 = 10;

/// The same for single items, which are faster than ticks.
const SINGLES_SLACK_MS: u64 = 50;

/// The pace of one dispatcher.
#[derive(Debug)]
pub(super) struct Pace {
    /// Of the whole, as far as Laravel lets us.
    share: u64,
    halved_ms: u64,
    grown_ms: u64,
    /// When the next batch may leave, and the next single item. Monotonic.
    next_ms: [u64; 2],
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            share: WHOLE,
            halved_ms: 0,
            grown_ms: 0,
            next_ms: [0, 0],
        }
    }

    /// Whether another may leave.
    pub(super) fn allows(&self, single: bool, mono_ms: u64) -> bool {
        let [batch_ms, single_ms] = self.next_ms;
        match single {
            true => mono_ms.saturating_add(SINGLES_SLACK_MS) >= single_ms,
            false => mono_ms.saturating_add(SLACK_MS) >= batch_ms,
        }
    }

    /// One leaves.
    pub(super) fn takes(&mut self, pace: &config::Pace, single: bool, mono_ms: u64) {
        let per_second = match single {
            true => pace.max_singles_per_second,
            false => pace.max_requests_per_second,
        };
        let slack_ms = if single { SINGLES_SLACK_MS } else { SLACK_MS };
        let calls = per_second.saturating_mul(self.share).max(1);
        let interval_ms = (1_000 * WHOLE).div_ceil(calls);
        let [batch_ms, single_ms] = &mut self.next_ms;
        let next_ms = if single { single_ms } else { batch_ms };
        *next_ms = (*next_ms)
            .max(mono_ms.saturating_sub(slack_ms))
            .saturating_add(interval_ms);
    }

    /// Laravel has said 429 to a call that left then: half the pace, but once for all the calls that left
    /// before it was halved.
    pub(super) fn throttled(&mut self, pace: &config::Pace, left_ms: u64, mono_ms: u64) {
        if left_ms < self.halved_ms {
            return;
        }
        self.share = (self.share / 2).max(share_of(CALLS_MIN, pace));
        self.halved_ms = mono_ms.saturating_add(1);
        self.grown_ms = mono_ms;
    }

    /// Time passes.
    pub(super) fn recover(&mut self, pace: &config::Pace, mono_ms: u64) {
        let seconds = mono_ms.saturating_sub(self.grown_ms) / 1_000;
        if self.share >= WHOLE || seconds == 0 {
            return;
        }
        self.grown_ms = self.grown_ms.saturating_add(seconds.saturating_mul(1_000));
        let grown = (WHOLE / RECOVERY_S).max(share_of(RECOVERY_MIN, pace));
        let grown = seconds.saturating_mul(grown);
        self.share = self.share.saturating_add(grown).min(WHOLE);
    }
}

/// So many calls in a thousand seconds as a part of the whole pace.
fn share_of(calls: u64, pace: &config::Pace) -> u64 {
    calls
        .saturating_mul(WHOLE / 1_000)
        .checked_div(pace.max_requests_per_second)
        .unwrap_or(WHOLE)
        .min(WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: config::Pace = config::Pace {
        max_requests_per_second: 20,
        max_in_flight: 4,
        max_singles_per_second: 100,
    };

    /// Calls that leave in this time, with ticks of 50 ms.
    fn calls(pace: &mut Pace, single: bool, from_ms: u64, ms: u64) -> usize {
        let mut calls = 0;
        for at_ms in (from_ms..from_ms + ms).step_by(50) {
            pace.recover(&LIMITS, at_ms);
            while pace.allows(single, at_ms) {
                pace.takes(&LIMITS, single, at_ms);
                calls += 1;
            }
        }
        calls
    }

    #[test]
    fn the_pace_is_kept_and_no_second_has_a_burst() {
        let mut pace = Pace::new();
        assert!((19..=21).contains(&calls(&mut pace, false, 10_000, 1_000)));
        assert!((19..=21).contains(&calls(&mut pace, false, 90_000, 1_000)));
        assert!((95..=106).contains(&calls(&mut pace, true, 10_000, 1_000)));
    }

    #[test]
    fn a_429_halves_it_once_for_all_calls_under_way_and_it_recovers_slowly() {
        let mut pace = Pace::new();
        for _ in 0..4 {
            pace.throttled(&LIMITS, 9_990, 10_000);
        }
        assert!((9..=11).contains(&calls(&mut pace, false, 10_000, 1_000)));
        assert!((100..=130).contains(&calls(&mut pace, false, 11_000, 10_000)));
        for second in 0..100 {
            pace.throttled(&LIMITS, 30_000 + second * 10, 30_005 + second * 10);
        }
        let least = calls(&mut pace, false, 31_100, 10_000);
        assert!((2..=6).contains(&least), "{least} calls in ten seconds");
        assert_eq!(pace.share.min(WHOLE / 20), pace.share);
        calls(&mut pace, false, 41_100, 600_000);
        assert_eq!(pace.share, WHOLE);
    }
}
