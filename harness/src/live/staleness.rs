//! How old a value is when Laravel has it.
//!
//! From the moment the gateway sent a value until the moment it took effect at Laravel, measured at
//! both ends by the same clock and in the same way with Embudo and without. A value that a newer
//! one replaced on its way has no staleness: nobody waits for it any more.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::model::http::Route;
use crate::model::laravel::Entry;
use crate::model::order::{Sent, SentLog};

/// An hour: nothing that is measured here takes as long.
const STALENESS_MAX_MS: u64 = 3_600_000;

/// Returns the staleness of every value of `route` that took effect, in ms.
///
/// A processed value is matched with the earliest send of that value which is not matched yet. So a
/// retried value counts from its first send, and a state that is sent again later counts anew.
/// Sends that Embudo answered as duplicate, implied or stale never reach Laravel and match nothing.
pub fn staleness(entries: &[Entry], sent: &SentLog, route: Route) -> Histogram<u64> {
    let mut histogram = histogram();
    let mut taken = BTreeMap::<&str, Vec<bool>>::new();
    for entry in entries.iter().filter(|entry| entry.route == route) {
        let sends = sent.of_session(&entry.session);
        let taken = taken
            .entry(&entry.session)
            .or_insert_with(|| vec![false; sends.len()]);
        let effect_us = entry.finished_ms * 1000;
        let first = sends.iter().zip(&*taken).position(|(send, taken)| {
            !taken && is_sent(send, route, &entry.value) && send.sent_us <= effect_us
        });
        let Some(first) = first else { continue };
        // Later sends of the same value that had begun by then are retries of this one.
        for (send, taken) in sends.iter().zip(taken).skip(first) {
            *taken |= is_sent(send, route, &entry.value) && send.sent_us <= effect_us;
        }
        let ms = (effect_us - sends[first].sent_us).div_ceil(1000);
        histogram.saturating_record(ms.max(1));
    }
    histogram
}

fn is_sent(send: &Sent, route: Route, value: &str) -> bool {
    let on_its_way = matches!(send.outcome.as_deref(), None | Some("queued"));
    on_its_way && send.route == route && send.value == value
}

fn histogram() -> Histogram<u64> {
    // Three digits up to an hour: constants, and valid; if not, an auto-resizing one would do.
    Histogram::new_with_bounds(1, STALENESS_MAX_MS, 3)
        .unwrap_or_else(|_| Histogram::new(1).expect("one digit is a valid precision"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, route: Route, value: &str, finished_ms: u64) -> Entry {
        Entry {
            seq,
            call: seq,
            session: "s".into(),
            route,
            value: value.into(),
            timestamp: None,
            batched: true,
            stored: true,
            credential: None,
            arrived: std::sync::Arc::default(),
            started_ms: finished_ms,
            finished_ms,
        }
    }

    fn log(sends: &[(Route, &str, u64, Option<&str>)]) -> SentLog {
        let mut log = SentLog::default();
        for (route, value, sent_us, outcome) in sends {
            let mut sent = Sent::new(*route, *value, *sent_us);
            sent.outcome = outcome.map(str::to_owned);
            log.sent("s", sent);
        }
        log
    }

    fn recorded(histogram: &Histogram<u64>) -> Vec<u64> {
        let each = histogram.iter_recorded();
        each.flat_map(|v| vec![v.value_iterated_to(); v.count_at_value() as usize])
            .collect()
    }

    #[test]
    fn a_retried_value_counts_from_its_first_send_and_a_replaced_one_not_at_all() {
        let sent = log(&[
            (Route::Qr, "replaced", 0, Some("queued")),
            (Route::Qr, "a", 10_000, None),
            (Route::Qr, "a", 40_000, Some("queued")),
        ]);
        let found = staleness(&[entry(1, Route::Qr, "a", 60)], &sent, Route::Qr);
        assert_eq!(recorded(&found), [50]);
    }

    #[test]
    fn a_state_that_comes_again_counts_anew_and_an_implied_one_never() {
        let sent = log(&[
            (Route::Status, "pending", 0, Some("implied")),
            (Route::Status, "inactive", 1_000, Some("queued")),
            (Route::Status, "pending", 2_000, Some("queued")),
            (Route::Status, "inactive", 90_000, Some("queued")),
        ]);
        let entries = [
            entry(1, Route::Status, "inactive", 11),
            entry(2, Route::Status, "pending", 22),
            entry(3, Route::Status, "inactive", 120),
        ];
        assert_eq!(
            recorded(&staleness(&entries, &sent, Route::Status)),
            [10, 20, 30]
        );
    }
}
