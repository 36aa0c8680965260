//! Each promise is judged by itself.

use super::*;

fn good() -> ChaosReport {
    ChaosReport {
        seconds: 600,
        ledger: BALANCED.to_owned(),
        rss_mb_middle: 100.0,
        rss_mb_last: 104.9,
        p99_ms_healthy: 2.0,
        p99_ms_outage: 3.0,
        outage_seconds: 60,
        compared: 90,
        undecided: 10,
        calls: ["delivered", "retry", "refused", "rejected", "unknown"]
            .map(|verdict| (verdict.to_owned(), 1))
            .into(),
        laravel_answers: [200, 422].map(|status| (status, 1)).into(),
        finished_late: 1,
        strangers_refused: 1,
        webhook_events: 1,
        ..ChaosReport::default()
    }
}

#[test]
fn what_was_promised_and_no_more_passes() {
    assert_eq!(good().failures(), Vec::<String>::new());
}

#[test]
fn each_broken_promise_is_a_failure_of_its_own() {
    let breaks: [fn(&mut ChaosReport); 16] = [
        |r| r.lost = 1,
        |r| r.out_of_order = 1,
        |r| r.overlapping = 1,
        |r| r.credentials_mixed = 1,
        |r| r.traps = 1,
        |r| r.ledger = "2 accepted, 1 accounted for: 1 missing".to_owned(),
        |r| r.counts.pending = 1,
        |r| r.failures_outage = 1,
        |r| r.failures_healthy = 1,
        |r| r.p99_ms_outage = 3.1,
        |r| r.rss_mb_last = 105.1,
        |r| {
            r.calls.remove("unknown");
        },
        |r| r.finished_late = 0,
        |r| r.strangers_refused = 0,
        |r| r.webhook_events = 0,
        |r| r.compared = 89,
    ];
    for (at, break_it) in breaks.iter().enumerate() {
        let mut report = good();
        break_it(&mut report);
        assert_eq!(report.failures().len(), 1, "the promise at {at}");
    }
}

#[test]
fn a_short_run_is_judged_by_neither_its_p99_nor_its_memory() {
    let report = ChaosReport {
        seconds: 30,
        outage_seconds: 6,
        p99_ms_outage: 9.0,
        rss_mb_last: 150.0,
        ..good()
    };
    assert_eq!(report.failures(), Vec::<String>::new());
}

#[test]
fn a_ledger_that_does_not_balance_says_by_how_much_not() {
    let counts = Ledger {
        accepted: 5,
        delivered: 2,
        superseded: 1,
        ..Ledger::default()
    };
    assert_eq!(ledger(&counts), "5 accepted, 3 accounted for: 2 missing");
    let counts = Ledger {
        delivered: 4,
        ..counts
    };
    assert_eq!(ledger(&counts), BALANCED);
}
