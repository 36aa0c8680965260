//! What was measured, the same way on both arms.

use crate::live::load::LoadReport;
use crate::live::staleness::staleness;
use crate::live::stats::Stats;
use crate::model::http::{Kind, Route};
use crate::model::laravel::Journal;
use crate::model::order;
use crate::model::webhook::{self, Reason, Received};
use crate::scenario::{Measure, Measures, Scenario};

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
    let lag_ms = order::row_lag_max_ms(journal.entries(), &report.sent, &scenario.poison());
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
        (
            Measure::LaravelPosts,
            batches
                .iter()
                .map(|kind| counts.of(*kind).requests)
                .sum::<u64>() as f64,
        ),
        (
            Measure::LaravelGets,
            counts.of(Kind::GetStatus).requests as f64,
        ),
        (Measure::LaravelRequests, counts.requests() as f64),
        (Measure::Queued, outcome("queued") as f64),
        (Measure::Implied, outcome("implied") as f64),
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
        (
            Measure::SinglesPerUpdate,
            // Nobody reads more than two decimals.
            (singles as f64 / judged.max(1) as f64 * 100.0).round() / 100.0,
        ),
        (Measure::RowLagMaxMs, lag_ms as f64),
        (Measure::WebhookCalls, received.len() as f64),
        (
            Measure::WebhookItems,
            webhook::items(received, |reason| reason != Reason::Rejected) as f64,
        ),
        (Measure::DeadLetters, dead_letters as f64),
        (Measure::WebhookRepeats, webhook::repeats(received) as f64),
        (Measure::BatchItemsMax, largest),
        (
            Measure::QrStalenessP99Ms,
            staleness.value_at_quantile(0.99) as f64,
        ),
    ]
    .into_iter()
    .collect()
}
