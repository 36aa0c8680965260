//! `throttle:api`, Laravel's rate limit.
//!
//! A fixed window: it opens with the first hit and closes a minute later, however the hits lie within
//! it. So a limit of 60 lets through 120 within a second, if the second is the right one.

use serde_json::json;

use crate::model::http::Response;

/// The length of `throttle:api`'s window.
const THROTTLE_WINDOW_MS: u64 = 60_000;

/// `throttle:api`: the window opens with the first hit and closes a minute later.
#[derive(Clone, Debug, Default)]
pub(super) struct Throttle {
    window_from_ms: Option<u64>,
    hits: u32,
}

// === impl Throttle ===

impl Throttle {
    /// Counts a request, or refuses it.
    pub(super) fn hit(&mut self, limit: u32, now_ms: u64) -> Option<Response> {
        let from = self
            .window_from_ms
            .filter(|from| now_ms < from + THROTTLE_WINDOW_MS);
        if from.is_none() {
            self.hits = 0;
        }
        let from = from.unwrap_or(now_ms);
        self.window_from_ms = Some(from);
        if self.hits < limit {
            self.hits += 1;
            return None;
        }
        let wait_s = (from + THROTTLE_WINDOW_MS - now_ms).div_ceil(1000);
        Some(
            Response::json(429, &json!({ "message": "Too Many Attempts." }))
                .with_header("retry-after", wait_s.to_string())
                .with_header("x-ratelimit-limit", limit.to_string())
                .with_header("x-ratelimit-remaining", "0"),
        )
    }
}
