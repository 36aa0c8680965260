//! Waiting for a condition.

use std::time::Duration;

use embudo::live::wait;

/// For what takes a second at most when all is well. Two cores are shared with other tests.
pub const BOUND: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not hold within `bound`; `what` says what was waited for.
pub async fn wait_until(what: &str, bound: Duration, condition: impl AsyncFnMut() -> bool) {
    let held = wait::until(bound, condition).await;
    assert!(held, "not within {bound:?}: {what}");
}
