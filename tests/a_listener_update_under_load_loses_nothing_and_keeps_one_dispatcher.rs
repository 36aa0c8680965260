//! A configuration update makes new root contexts beside the old ones, which go on until their listener has
//! drained: with two workers and two updates within the drain time, nine would-be dispatchers in one process.
//! Whatever is pending, and whatever is under way, belongs to none of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use embudo::live::load::{Load, LoadOptions, LoadProgress};
use embudo::live::scaled;
use embudo::model::gateway::{GatewayConfig, RetryPolicy};
use embudo::model::http::{Kind, Request};
use embudo::model::order;
use embudo_tests::{BOUND, Stack, wait_until};
use serde_json::{Value, json};

/// The header that tells which configuration a call was made with.
const GENERATION: &str = "x-generation";

/// Envoy's `--drain-time-s`, and a busy machine.
const DRAINED_MAX: Duration = Duration::from_secs(40);

/// Calls of one generation before the next one comes.
const CALLS: usize = 5;

/// A leader that is asked to go gives the lease back; one that is not asked keeps it for 3 s.
const HAND_OVER_MAX_MS: u64 = 2_000;

fn config(generation: &str) -> Value {
    let config = json!({
        "upstream": {"headers": {GENERATION: generation}},
        "routes": [{"name": "qr", "expire_after_ms": 3_600_000}],
    });
    scaled(&config, 10.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_update_under_load_loses_nothing_and_keeps_one_dispatcher() -> Result<()> {
    let mut stack = Stack::with("listener-update", |options| {
        options.filter_config = config("0");
        options.watch_listener = true;
        // Calls that take their time, so that some are always under way when an update comes.
        options.laravel.config.request_ms = 200;
    })
    .await?;
    stack.laravel.record_raw(true);
    let options = LoadOptions {
        sessions: 200,
        duration: Duration::from_secs(600),
        gateway: GatewayConfig {
            time_compression: 10.0,
            scan_probability: 0.3,
            ..GatewayConfig::default()
        },
        // A request that fails must show.
        retries: RetryPolicy::none(),
        ..stack.load_options()
    };
    let load = Load::start(options, Arc::new(LoadProgress::default()))?;

    for generation in ["0", "1", "2"] {
        if generation != "0" {
            stack
                .envoy
                .update_filter_config(&config(generation))
                .await?;
        }
        let what = format!("the dispatcher of configuration {generation} is at work");
        wait_until(&what, BOUND, async || {
            let generations = generations(&stack);
            let calls = generations.iter().filter(|g| *g == generation);
            calls.count() >= CALLS
        })
        .await;
    }
    stack.drained(DRAINED_MAX).await;
    let before = generations(&stack).len();
    wait_until("the last dispatcher goes on alone", BOUND, async || {
        generations(&stack).len() >= before + CALLS
    })
    .await;
    load.stop();
    let report = load.finish().await?;

    assert_eq!(
        (report.failures(), report.unfinished),
        (0, 0),
        "no request fails: {:?} {:?} {:?}",
        report.answers,
        report.network_errors,
        report.timeouts
    );
    let ledger = stack.settled(BOUND).await;
    assert_eq!((ledger.expired, ledger.rejected), (0, 0), "nothing is lost");
    let ends = stack
        .laravel
        .with(|laravel| order::final_states(laravel, &report.sent));
    assert!(
        ends.mismatches.is_empty() && ends.compared > 100,
        "every session ends at Laravel as it ended at the gateway: {ends:#?}"
    );
    stack.assert_order(Some(&report.sent));

    let generations = generations(&stack);
    assert!(
        generations.is_sorted(),
        "once a newer configuration's dispatcher acts, no older one does: {generations:?}"
    );
    let (won, lost) = (
        times_ms(&stack, "this root is the dispatcher now"),
        times_ms(&stack, "another root is the dispatcher"),
    );
    assert_eq!(
        won.len(),
        lost.len() + 1,
        "exactly one dispatcher is left at the end"
    );
    assert!(won.len() >= 3, "each configuration had a dispatcher");
    for (lost, won) in lost.iter().zip(won.iter().skip(1)) {
        assert!(
            (*lost..lost + HAND_OVER_MAX_MS).contains(won),
            "the next dispatcher begins after the last one has given way, and soon: {lost} {won}"
        );
    }
    let beat = stack.gauge("embudo.leader_beat").await;
    wait_until("the dispatcher's beat advances", BOUND, async || {
        stack.gauge("embudo.leader_beat").await > beat
    })
    .await;
    stack.finish().await;
    Ok(())
}

/// Which configuration each batch was sent with, in the order of arrival.
fn generations(stack: &Stack) -> Vec<String> {
    let is_batch = |request: &Request| {
        let kind = stack.laravel.with(|laravel| laravel.kind(request));
        matches!(kind, Kind::PostQrBatch | Kind::PostStatusBatch)
    };
    let raw = stack.laravel.raw().into_iter().filter(is_batch);
    raw.map(|request| request.header(GENERATION).unwrap_or("none").to_owned())
        .collect()
}

/// When Envoy logged `line`, in ms of the day.
fn times_ms(stack: &Stack, line: &str) -> Vec<u64> {
    let time = |line: String| {
        // [2026-11-24 07:36:28.100][…
        let time = line.split([' ', ']']).nth(1)?.to_owned();
        let parts: Vec<u64> = time
            .split([':', '.'])
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        let [hours, minutes, seconds, ms] = parts[..] else {
            return None;
        };
        Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + ms)
    };
    let lines = stack.envoy.grep_log(line).into_iter();
    lines.filter_map(time).collect()
}
