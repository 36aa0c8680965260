//! Until Embudo knows the sessions, and Laravel's answers to their reads.

use std::sync::Arc;
use std::time::Duration;

use super::{LoadOptions, introduce, run, warm_up};
use crate::live::{Envoy, Ledger, wait};

/// How long the last updates may take: a flush and a call, or, after an unknown outcome, the 31 s for which a session waits
/// and a call.
pub const SETTLE_MAX: Duration = Duration::from_secs(60);

/// Until enough of Laravel's answers were compared that kept ones are served.
const SEEN_WITHIN: Duration = Duration::from_secs(40);

/// How often the ledger is looked at. The leader sets its gauges ten times less often.
const POLL: Duration = Duration::from_millis(100);

/// Waits until everything accepted has reached its end, and returns the ledger as it is then.
///
/// # Errors
/// If Envoy does not tell.
pub async fn settled(envoy: &Envoy) -> anyhow::Result<Ledger> {
    let mut last = Ok(Ledger::default());
    wait::some(SETTLE_MAX, POLL, async || {
        last = envoy.admin.stats().await.map(|stats| stats.ledger());
        let goes_on = |ledger: &Ledger| ledger.pending > 0 || !ledger.balances();
        (!last.as_ref().is_ok_and(goes_on)).then_some(())
    })
    .await;
    last
}

/// A read is kept of a session that has had an update: lets each have one, and be asked for then. Nothing of it appears in
/// a later report.
///
/// # Errors
/// As [`introduce`] and [`warm_up`].
pub async fn meet(envoy: &Envoy, options: &LoadOptions) -> anyhow::Result<()> {
    introduce(options).await?;
    settled(envoy).await?;
    warm_up(options).await
}

/// The same, and lets the gateway send for so long as it takes to see what Laravel's answers are like: a kept one is served
/// only then.
///
/// # Errors
/// As [`meet`] and [`run`].
pub async fn make_known(envoy: &Envoy, options: &LoadOptions) -> anyhow::Result<()> {
    meet(envoy, options).await?;
    let before = LoadOptions {
        duration: SEEN_WITHIN,
        ..options.clone()
    };
    run(before, Arc::default()).await?;
    settled(envoy).await?;
    Ok(())
}
