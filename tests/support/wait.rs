//! Waiting for a condition.

use std::time::{Duration, Instant};

/// For what takes a second at most when all is well. Two cores are shared with other tests.
pub const BOUND: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not hold within `bound`; `what` says what was waited for.
pub async fn wait_until(what: &str, bound: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + bound;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {bound:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}
