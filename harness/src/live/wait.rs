//! Waiting for a condition, with a bound.

use std::time::{Duration, Instant};

/// How often a condition is looked at where nobody says otherwise: a test loses no more than this, and Envoy's admin
/// page can bear it.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; says whether it did within `bound`.
pub async fn until(bound: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let held = some(bound, POLL, async || condition().await.then_some(()));
    held.await.is_some()
}

/// Waits until `look` finds something, and looks every so often; `None` if it is not there within `bound`. It looks
/// once at least. What must end the waiting early, an error for example, is something as well.
pub async fn some<T>(
    bound: Duration,
    every: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + bound;
    loop {
        let found = look().await;
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_is_found_and_what_does_not_is_given_up() {
        let mut looks = 0;
        let found = some(Duration::from_secs(30), Duration::ZERO, async || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.await, Some(3));
        assert!(!until(Duration::from_millis(10), async || false).await);
        assert!(until(Duration::ZERO, async || true).await, "it looks once");
    }
}
