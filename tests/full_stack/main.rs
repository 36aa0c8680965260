//! The whole way with a real Laravel at its end: the gateway's traffic, Envoy with Embudo, PHP, and the rows in SQLite.
//!
//! What the other tests ask of a stand-in's memory is asked here of a database: in the end each session's row is what
//! the gateway sent last. Sessions live ten times faster than in life, and Embudo's timers keep up with them.

mod run;

use std::time::Duration;

use anyhow::Result;
use embudo::live::{Application, RealLaravelOptions};
use embudo::model::http::Kind;

use self::run::Run;

/// What reaches Laravel of what the gateway sends, with batches: 2 % in `make full-stack`, of a thousand sessions. Of a
/// hundred it may be 15 %, and here are fifty: a state waits for company for two seconds at most.
const PART_WITH_BATCHES: f64 = 0.25;

/// Status reads that tell whether `status` follows `estado_qr`: one for each pair of states, with a QR between them and
/// without, and a few that are asked at once.
const ASKED_MAX: u64 = 25;

/// Without: a third of the gateway's requests are status reads, a third are states that the QR implies,
/// as is assumed there.
const PART_WITHOUT_BATCHES: f64 = 0.40;

/// Its reads, a third of all, go to Laravel.
const PART_OF_A_PANEL: f64 = 0.60;

#[tokio::test(flavor = "multi_thread")]
async fn with_the_package_every_row_is_the_last_value_and_all_of_it_came_in_batches() -> Result<()>
{
    let run = Run::start("full-stack-package", |_| {}).await?;

    let done = run.traffic(None).await?;

    let arrived = done.journal.counts(0);
    assert!(
        done.journal.entries().iter().all(|entry| entry.batched),
        "no item comes alone"
    );
    let asked = arrived.of(Kind::GetStatus).requests;
    assert!(
        asked < ASKED_MAX,
        "every session has been read before, and {asked} reads reach Laravel"
    );
    let part = arrived.requests() as f64 / done.report.sends_total() as f64;
    assert!(
        part < PART_WITH_BATCHES,
        "{part:.3} of the gateway's requests reach Laravel"
    );
    let answers = done.journal.answers();
    assert!(
        answers.keys().all(|(_, status)| *status == 200),
        "{answers:?}"
    );
    done.assert_nothing_lost();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_package_single_posts_are_collapsed_all_the_same() -> Result<()> {
    let change = |options: &mut RealLaravelOptions| options.with_package = false;
    let run = Run::start("full-stack-singles", change).await?;

    let done = run.traffic(None).await?;

    let arrived = done.journal.counts(0);
    let answers = done.journal.answers();
    // That states have no batch route was seen when the sessions were introduced.
    assert!(
        answers.contains_key(&(Kind::PostQrBatch, 404)),
        "the batch route was tried: {answers:?}"
    );
    assert!(
        done.journal.entries().iter().all(|entry| !entry.batched),
        "there are no batches"
    );
    let part = arrived.requests() as f64 / done.report.sends_total() as f64;
    assert!(
        part < PART_WITHOUT_BATCHES,
        "{part:.3} of the gateway's requests reach Laravel"
    );
    done.assert_nothing_lost();
    Ok(())
}

/// Its answers show the QR, the phone and the time, and its QR sets no state: little of what holds for the project's own
/// Laravel does.
#[tokio::test(flavor = "multi_thread")]
async fn a_panel_that_shows_more_than_the_state_is_read_as_it_is() -> Result<()> {
    let change = |options: &mut RealLaravelOptions| options.application = Application::Panel;
    let run = Run::start("full-stack-panel", change).await?;

    let done = run.traffic(None).await?;

    let arrived = done.journal.counts(0);
    let part = arrived.requests() as f64 / done.report.sends_total() as f64;
    assert!(
        part < PART_OF_A_PANEL,
        "{part:.3} of the gateway's requests reach Laravel"
    );
    done.assert_nothing_lost();
    Ok(())
}

/// A minute's allowance is gone within seconds; what comes then waits, and is superseded, until the minute is over. That
/// minute is Laravel's, and nobody can make it shorter.
#[tokio::test(flavor = "multi_thread")]
async fn under_laravels_throttle_updates_wait_and_only_the_newest_arrive() -> Result<()> {
    let change = |options: &mut RealLaravelOptions| {
        options.throttle_per_minute = Some(60);
        // Each is asked for once before the traffic, within the first minute's allowance.
        options.accounts.truncate(35);
    };
    let run = Run::start("full-stack-throttled", change).await?;

    let done = run.traffic(None).await?;

    let answers = done.journal.answers();
    let throttled: u64 = answers
        .iter()
        .filter(|((_, status), _)| *status == 429)
        .map(|(_, n)| n)
        .sum();
    assert!(throttled > 0, "the allowance was used up: {answers:?}");
    assert!(
        done.ledger.superseded > done.ledger.accepted / 4,
        "who waits is superseded: {:?}",
        done.ledger
    );
    let [p50, p99, max] = done.qr_ms();
    println!(
        "60 requests a minute: {throttled} times 429; a QR is in its row after {p50} ms, p99 {p99} ms, max {max} ms"
    );
    done.assert_nothing_lost();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laravel_that_freezes_under_load_gets_everything_when_it_thaws() -> Result<()> {
    let run = Run::start("full-stack-frozen", |_| {}).await?;
    let frozen = Duration::from_secs(2)..Duration::from_secs(5);

    let done = run.traffic(Some(frozen)).await?;

    let [p50, p99, max] = done.qr_ms();
    println!("frozen for 3 s: a QR is in its row after {p50} ms, p99 {p99} ms, max {max} ms");
    assert!(
        max > 1_500,
        "Laravel stood still, but no QR was {max} ms late"
    );
    done.assert_nothing_lost();
    Ok(())
}
