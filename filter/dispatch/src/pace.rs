//! How fast calls may leave.
//!
//! Evenly spaced, no burst, in recovery too. A 429 halves the pace at once, so that batches become fuller;
//! it recovers slowly: Laravel's own throttle shapes Embudo, not the reverse. Calls of single items, where
//! there is no batch route, have a pace of their own that shares the same fate.

use embudo_core::config;
use embudo_core::sabotage::{self, Sabotage};

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

/// Seconds over which calls that repeat something are counted, and their part of all: one of so many.
const BUDGET_S: usize = 10;
const BUDGET_PART: u32 = 5;

/// One such call is always allowed after this time, milliseconds.
const BUDGET_LEAST_MS: u64 = 1_000;

/// The calls of the last seconds. A call that repeats what has failed alone, or that is made while nothing is
/// accepted, does nobody good but by chance: however many such there are, they are a small part of all calls.
#[derive(Debug, Default)]
struct Budget {
    /// The newest second that was counted.
    second: u64,
    all: [u32; BUDGET_S],
    repeats: [u32; BUDGET_S],
    repeated_ms: Option<u64>,
}

/// The pace of one dispatcher.
#[derive(Debug)]
pub(super) struct Pace {
    /// Of the whole, as far as Laravel lets us.
    share: u64,
    halved_ms: u64,
    grown_ms: u64,
    /// When the next batch may leave, and the next single item. Monotonic.
    next_ms: [u64; 2],
    budget: Budget,
}

/// How long others must have been due at every call before the pace is said to be the limit, milliseconds, and how
/// often it is said.
const STARVED_MS: u64 = 5_000;
const SAID_EVERY_MS: u64 = 60_000;

/// Whether the pace keeps somebody waiting.
#[derive(Debug, Default)]
pub(super) struct Starved {
    since_ms: Option<u64>,
    said_ms: Option<u64>,
}

// === impl Starved ===

impl Starved {
    /// Everything that was due has been sent.
    pub(super) fn ends(&mut self) {
        self.since_ms = None;
    }

    /// A call was made while others were due, if `overdue` says whether one of them has waited for too long. True
    /// where somebody must be told.
    pub(super) fn is_news(&mut self, overdue: Option<bool>, mono_ms: u64) -> bool {
        let Some(is_overdue) = overdue else {
            return false;
        };
        let since_ms = *self.since_ms.get_or_insert(mono_ms);
        let is_due = |last_ms: u64, ms: u64| mono_ms >= last_ms.saturating_add(ms);
        let is_news = is_overdue
            && is_due(since_ms, STARVED_MS)
            && self.said_ms.is_none_or(|ms| is_due(ms, SAID_EVERY_MS));
        if is_news {
            self.said_ms = Some(mono_ms);
        }
        is_news
    }
}

// === impl Budget ===

impl Budget {
    /// Forgets the seconds that have gone by.
    fn advance(&mut self, mono_ms: u64) {
        let second = mono_ms / 1_000;
        let gone = second.saturating_sub(self.second).min(BUDGET_S as u64);
        for back in 0..gone {
            let at = usize::try_from(second.saturating_sub(back)).unwrap_or(0) % BUDGET_S;
            for counts in [&mut self.all, &mut self.repeats] {
                if let Some(count) = counts.get_mut(at) {
                    *count = 0;
                }
            }
        }
        self.second = self.second.max(second);
    }

    fn allows(&self) -> bool {
        let [all, repeats] = [&self.all, &self.repeats].map(|counts| counts.iter().sum::<u32>());
        repeats.saturating_add(1).saturating_mul(BUDGET_PART) <= all
            || sabotage::is(Sabotage::NoRetryBudget)
    }

    /// A repeat was taken after all: it has cost nobody anything, and the next one need not wait for its share.
    fn gives_back(&mut self) {
        if let Some(count) = self.repeats.iter_mut().find(|count| **count > 0) {
            *count = count.saturating_sub(1);
        }
        self.repeated_ms = None;
    }

    fn takes(&mut self, repeats: bool, mono_ms: u64) {
        self.advance(mono_ms);
        let at = usize::try_from(self.second).unwrap_or(0) % BUDGET_S;
        if let Some(count) = self.all.get_mut(at) {
            *count = count.saturating_add(1);
        }
        if let Some(count) = self.repeats.get_mut(at).filter(|_| repeats) {
            *count = count.saturating_add(1);
            self.repeated_ms = Some(mono_ms);
        }
    }
}

// === impl Pace ===

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            share: WHOLE,
            halved_ms: 0,
            grown_ms: 0,
            next_ms: [0, 0],
            budget: Budget::default(),
        }
    }

    /// A predecessor's.
    pub(super) fn resume(&mut self, share: u32) {
        self.share = u64::from(share);
    }

    /// The share that is left, in parts per million.
    pub(super) fn share(&self) -> u32 {
        u32::try_from(self.share).unwrap_or(u32::MAX)
    }

    /// Whether another may leave.
    pub(super) fn allows(&self, single: bool, mono_ms: u64) -> bool {
        let [batch_ms, single_ms] = self.next_ms;
        match single {
            true => mono_ms.saturating_add(SINGLES_SLACK_MS) >= single_ms,
            false => mono_ms.saturating_add(SLACK_MS) >= batch_ms,
        }
    }

    /// Whether one may leave that repeats what has failed alone, or that goes where nothing is accepted.
    pub(super) fn allows_repeat(&mut self, mono_ms: u64) -> bool {
        self.budget.advance(mono_ms);
        let last_ms = self.budget.repeated_ms;
        self.budget.allows()
            || last_ms.is_none_or(|ms| mono_ms >= ms.saturating_add(BUDGET_LEAST_MS))
    }

    /// Laravel has taken what had failed alone.
    pub(super) fn repeat_was_taken(&mut self) {
        self.budget.gives_back();
    }

    /// One leaves.
    pub(super) fn takes(&mut self, pace: &config::Pace, single: bool, repeats: bool, mono_ms: u64) {
        self.budget.takes(repeats, mono_ms);
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
                pace.takes(&LIMITS, single, false, at_ms);
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
    fn what_repeats_is_a_fifth_of_all_calls_or_one_a_second() {
        let mut pace = Pace::new();
        let mut run = |from_ms: u64, others: u64| {
            let mut repeats = 0;
            for at_ms in (from_ms..from_ms + 20_000).step_by(50) {
                if at_ms % 1_000 < others * 50 {
                    pace.takes(&LIMITS, false, false, at_ms);
                }
                // The first ten seconds are the last run's.
                if pace.allows_repeat(at_ms) {
                    pace.takes(&LIMITS, false, true, at_ms);
                    repeats += u64::from(at_ms >= from_ms + 10_000);
                }
            }
            repeats
        };
        let alone = run(100_000, 0);
        assert!((9..=10).contains(&alone), "{alone} calls in ten seconds");
        let few = run(200_000, 2);
        assert!((9..=10).contains(&few), "{few} beside two a second");
        let many = run(300_000, 16);
        assert!((35..=42).contains(&many), "{many} beside sixteen a second");
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

    #[test]
    fn a_repeat_that_is_taken_makes_room_for_the_next_and_one_that_is_not_waits_a_second() {
        let mut it = Pace::new();
        it.takes(&LIMITS, true, true, 1_000);
        assert!(!it.allows_repeat(1_500), "one a second");
        it.repeat_was_taken();
        assert!(it.allows_repeat(1_500), "it has cost nobody anything");
    }
}
