//! A call that Envoy has given up goes on in PHP, and takes effect whenever it likes. Whoever sends the next
//! value of that session before then may be overtaken by the old one: the one error that no retry repairs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use embudo::live::load::{Load, LoadOptions, LoadProgress};
use embudo::live::scaled;
use embudo::model::gateway::GatewayConfig;
use embudo::model::http::Kind;
use embudo::model::laravel::{Fault, Misbehaviour};
use embudo::model::order;
use embudo_tests::Stack;
use serde_json::json;

const CALL_TIMEOUT_MS: u64 = 500;

/// How long Laravel may go on after that.
const LATE_MS: u64 = 1_500;

/// The longest back-off and ejection, and the last claims, on a busy machine.
const RECOVERY: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_or_hanging_laravel_is_never_overtaken() -> Result<()> {
    let config = json!({
        "call_timeout_ms": CALL_TIMEOUT_MS,
        "late_ms": LATE_MS,
        "routes": [{"name": "qr", "expire_after_ms": 3_600_000}],
    });
    let stack = Stack::with("hanging", |options| {
        options.filter_config = scaled(&config, 10.0);
        options.laravel.seed = 11;
    })
    .await?;
    let hang = |finish_after_ms| Misbehaviour::Hang { finish_after_ms };
    let faults = [
        // Just after Envoy has given up, and nearly as late as Laravel may.
        (hang(CALL_TIMEOUT_MS + 100), 0.1),
        (hang(CALL_TIMEOUT_MS + LATE_MS - 200), 0.1),
        // In time.
        (Misbehaviour::Slow { ms: 300 }, 0.3),
        // Done, and nobody hears of it.
        (
            Misbehaviour::Reset {
                after_bytes: 0,
                processed: true,
            },
            0.1,
        ),
    ];
    let faults = faults.into_iter().flat_map(|(what, probability)| {
        [Kind::PostQrBatch, Kind::PostStatusBatch].map(|kind| {
            Fault::always(what.clone())
                .on(kind)
                .with_probability(probability)
        })
    });
    stack.laravel.set_faults(faults.collect());
    let options = LoadOptions {
        sessions: 50,
        duration: Duration::from_secs(15),
        gateway: GatewayConfig {
            time_compression: 20.0,
            scan_probability: 0.3,
            ..GatewayConfig::default()
        },
        ..stack.load_options()
    };

    let load = Load::start(options, Arc::new(LoadProgress::default()))?;
    let report = load.finish().await?;
    stack.laravel.set_faults(Vec::new());
    stack.settled(RECOVERY).await;

    assert_eq!(
        report.failures(),
        0,
        "the gateway notices nothing: {:?}",
        report.answers
    );
    let unknown = stack
        .counter("embudo.calls", &[("verdict", "unknown")])
        .await;
    assert!(
        unknown >= 3,
        "some calls had an unknown fate, and not only {unknown}"
    );
    let ends = stack
        .laravel
        .with(|laravel| order::final_states(laravel, &report.sent));
    assert!(
        ends.mismatches.is_empty() && ends.compared > 25,
        "every session ends at Laravel as it ended at the gateway: {ends:#?}"
    );
    stack.assert_order(Some(&report.sent));
    stack.finish().await;
    Ok(())
}
