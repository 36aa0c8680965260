//! What was measured, the same way on both arms.

use std::collections::BTreeMap;

use crate::live::load::LoadReport;
use crate::live::staleness::staleness;
use crate::live::stats::Stats;
use crate::model::http::{Kind, Route};
use crate::model::laravel::{Entry, Journal};
use crate::model::order;
use crate::model::webhook::{self, Reason, Received};
use crate::scenario::{Measure, Measures, Scenario};

/// Items of a full batch, by Embudo's own configuration: QRs, and states.
const FULL_BATCH: [(Route, usize); 2] = [(Route::Qr, 50), (Route::Status, 100)];

/// How long a row's exceptions are counted, from its first one on.
const THROWS_COUNTED_MS: u64 = 60_000;

/// Every measure, from the gateway's report, Laravel's journal, what the webhook received, and the module's
/// own metrics.
pub(crate) fn measures(
    scenario: &Scenario,
    report: &LoadReport,
    journal: &Journal,
    received: &[Received],
    stats: &Stats,
) -> Measures {
    let posts = [Kind::PostQr, Kind::PostStatus];
    let batches = Kind::POSTS;
    let sent = posts
        .iter()
        .filter_map(|kind| report.sends.get(kind))
        .sum::<u64>();
    let answered_well = |kinds: &[Kind]| -> u64 {
        let well = |(kind, status, _): &(Kind, u16, Option<String>)| {
            kinds.contains(kind) && (200..300).contains(status)
        };
        let answers = report.answers.iter().filter(|(key, _)| well(key));
        answers.map(|(_, count)| count).sum()
    };
    let asked = report.sends.get(&Kind::GetStatus).copied().unwrap_or(0);
    let counts = journal.counts(u64::MAX);
    let outcome = |outcome: &str| -> u64 {
        let of = |kind: &Kind| report.outcomes(*kind, Some(outcome));
        posts.iter().map(of).sum()
    };
    let staleness = staleness(journal.entries(), &report.sent, Route::Qr);
    let ledger = stats.ledger();
    let singles: u64 = posts.iter().map(|kind| counts.of(*kind).requests).sum();
    let refused: u64 = journal
        .answers()
        .iter()
        .filter(|((kind, status), _)| batches.contains(kind) && !(200..300).contains(status))
        .map(|(_, count)| count)
        .sum();
    let dead_letters = webhook::items(received, |reason| reason == Reason::Rejected);
    let judged = ledger.delivered + ledger.rejected;
    let unpromised = scenario.unpromised();
    let lag_ms = order::row_lag_max_ms(journal.entries(), &report.sent, &unpromised);
    let down_ms = order::disconnect_lag_max_ms(journal.entries(), &report.sent, &unpromised);
    let qrs = times_stored(journal, |entry| entry.route == Route::Qr);
    let most = |times: &[u64]| times.iter().copied().max().unwrap_or(0) as f64;
    let arrived: u64 = batches.iter().map(|kind| counts.of(*kind).requests).sum();
    let told = |kinds: &[Kind], word: &str| -> u64 {
        let is_it = |(kind, _, outcome): &(Kind, u16, Option<String>)| {
            let outcome = outcome.as_deref().unwrap_or_default();
            kinds.contains(kind) && outcome.starts_with(word)
        };
        let answers = report.answers.iter().filter(|(key, _)| is_it(key));
        answers.map(|(_, count)| count).sum()
    };
    let said = |word: &str| told(&posts, word);
    let own = [Kind::PostQrBatch, Kind::PostStatusBatch];
    let others = report.sends.get(&Kind::Other).copied().unwrap_or(0);
    let largest = stats
        .histogram("embudo.batch_items", &[])
        .quantile(1.0)
        .unwrap_or(0.0);
    [
        (Measure::GatewayPosts, sent as f64),
        (
            Measure::GatewayFailures,
            sent.saturating_sub(answered_well(&posts)) as f64,
        ),
        (Measure::GatewayGets, asked as f64),
        (
            Measure::ReadFailures,
            asked.saturating_sub(answered_well(&[Kind::GetStatus])) as f64,
        ),
        (Measure::LaravelPosts, arrived as f64),
        (
            Measure::LaravelGets,
            counts.of(Kind::GetStatus).requests as f64,
        ),
        (Measure::LaravelRequests, counts.requests() as f64),
        (
            Measure::LaravelShare,
            share(counts.requests(), report.sends_total()),
        ),
        (Measure::LaravelPostsShare, share(arrived, sent)),
        (Measure::Queued, outcome("queued") as f64),
        (Measure::Implied, outcome("implied") as f64),
        (Measure::Stale, outcome("stale") as f64),
        (Measure::Delivered, ledger.delivered as f64),
        (Measure::Superseded, ledger.superseded as f64),
        (Measure::Expired, ledger.expired as f64),
        (Measure::Rejected, ledger.rejected as f64),
        (
            Measure::RejectedUntold,
            ledger.rejected.saturating_sub(dead_letters) as f64,
        ),
        (Measure::LaravelRefused, refused as f64),
        (Measure::LaravelSingles, singles as f64),
        (Measure::SinglesPerUpdate, share(singles, judged)),
        (Measure::RowLagMaxMs, lag_ms as f64),
        (Measure::DisconnectLagMaxMs, down_ms as f64),
        (Measure::RowThrowsMax, row_throws_max(journal) as f64),
        (Measure::QrStoredMax, most(&qrs)),
        (Measure::StoredMax, most(&times_stored(journal, |_| true))),
        (Measure::QrsStored, qrs.len() as f64),
        (
            Measure::RecoveryCallsRatio,
            recovery_calls_ratio(scenario, journal),
        ),
        (Measure::WriteThrough, said("write-through") as f64),
        (Measure::Held, said("held") as f64),
        (Measure::Outside, said("outside") as f64),
        (Measure::WebhookCalls, received.len() as f64),
        (
            Measure::WebhookItems,
            webhook::items(received, |reason| reason != Reason::Rejected) as f64,
        ),
        (Measure::DeadLetters, dead_letters as f64),
        (Measure::WebhookRepeats, webhook::repeats(received) as f64),
        (
            Measure::OtherFailures,
            others.saturating_sub(answered_well(&[Kind::Other])) as f64,
        ),
        (Measure::OtherHeld, told(&[Kind::Other], "held") as f64),
        (Measure::BatchesQueued, told(&own, "queued") as f64),
        (Measure::BatchesPassed, told(&own, "bypass") as f64),
        (Measure::ReadsInactive, report.reads_inactive as f64),
        (
            Measure::StoredAfterChange,
            stored_after_change(journal) as f64,
        ),
        (Measure::BatchItemsMax, largest),
        (
            Measure::QrStalenessP99Ms,
            staleness.value_at_quantile(0.99) as f64,
        ),
    ]
    .into_iter()
    .collect()
}

/// The most times that one row threw within a minute from its first time.
fn row_throws_max(journal: &Journal) -> u64 {
    let mut rows = BTreeMap::<&str, (u64, u64)>::new();
    for (at_ms, account) in journal.thrown() {
        let (first_ms, throws) = rows.entry(account).or_insert((*at_ms, 0));
        *throws += u64::from(*at_ms < *first_ms + THROWS_COUNTED_MS);
    }
    rows.values().map(|(_, throws)| *throws).max().unwrap_or(0)
}

/// How often each update took effect. Equal states are told apart by their timestamps; QRs never repeat in life.
fn times_stored(journal: &Journal, is_counted: impl Fn(&Entry) -> bool) -> Vec<u64> {
    let mut times = BTreeMap::new();
    for entry in journal.entries().iter().filter(|entry| is_counted(entry)) {
        let timestamp = entry.timestamp.filter(|_| entry.route == Route::Status);
        let update = (&entry.session, entry.route, &entry.value, timestamp);
        *times.entry(update).or_default() += 1;
    }
    times.into_values().collect()
}

/// Updates that took effect after another route had changed their account.
fn stored_after_change(journal: &Journal) -> usize {
    let entries = journal.entries().iter();
    let is_after = |entry: &&Entry| {
        let changed = journal.changed().get(&entry.session);
        entry.stored && changed.is_some_and(|at_ms| entry.finished_ms > *at_ms)
    };
    entries.filter(is_after).count()
}

/// To two decimals: nobody reads more.
fn share(part: u64, whole: u64) -> f64 {
    (part as f64 / whole.max(1) as f64 * 100.0).round() / 100.0
}

/// The POSTs that reached Laravel from the recovery on, by those that full batches of what they brought would
/// have been. 0 where nothing recovers, or nothing came.
fn recovery_calls_ratio(scenario: &Scenario, journal: &Journal) -> f64 {
    let Some(recovers_at_ms) = scenario.recovers_at_ms() else {
        return 0.0;
    };
    let from_ms = journal.since_ms() + recovers_at_ms;
    let is_post = |kind: Option<Kind>| kind.is_some_and(|kind| Kind::POSTS.contains(&kind));
    let arrivals = journal.arrivals().iter();
    let calls = arrivals
        .filter(|a| a.at_ms >= from_ms && is_post(a.kind))
        .count();
    let full: usize = FULL_BATCH
        .into_iter()
        .map(|(route, items)| {
            let brought = journal.entries().iter();
            let brought = brought.filter(|e| e.route == route && e.arrived.at_ms >= from_ms);
            brought.count().div_ceil(items)
        })
        .sum();
    match full {
        0 => 0.0,
        full => share(calls as u64, full as u64),
    }
}
