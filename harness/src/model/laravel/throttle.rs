//! `throttle:api`, Laravel's rate limit.
//!
//! A fixed window: it opens with the first hit and closes a minute later, however the hits lie within
//! it. So a limit of 60 lets through 120 within a second, if the second is the right one.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::model::http::{Response, http_date};

/// The length of `throttle:api`'s window.
const THROTTLE_WINDOW_MS: u64 = 60_000;

/// How an answer says when to come back. Laravel counts seconds; a proxy before it may name the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// `retry-after: 7`
    #[default]
    Seconds,
    /// `retry-after: Fri, 31 Dec 1999 23:59:59 GMT`
    Date,
}

/// `throttle:api`: the window opens with the first hit and closes a minute later.
#[derive(Clone, Debug, Default)]
pub(super) struct Throttle {
    window_from_ms: Option<u64>,
    hits: u32,
}

// === impl Throttle ===

impl Throttle {
    /// Counts a request, or refuses it.
    pub(super) fn hit(
        &mut self,
        limit: u32,
        now_ms: u64,
        retry_after: RetryAfter,
        unix_zero_ms: u64,
    ) -> Option<Response> {
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
        let wait_ms = from + THROTTLE_WINDOW_MS - now_ms;
        let unix_ms = now_ms + unix_zero_ms;
        let when = retry_after.text(wait_ms, unix_ms);
        Some(refusal(when, unix_ms).with_header("x-ratelimit-limit", limit.to_string()))
    }
}

// === impl RetryAfter ===

impl RetryAfter {
    /// The header's value, for a wait from this moment on.
    pub(super) fn text(self, wait_ms: u64, unix_ms: u64) -> String {
        match self {
            Self::Seconds => wait_ms.div_ceil(1000).to_string(),
            Self::Date => http_date(unix_ms + wait_ms),
        }
    }
}

/// `throttle:api`'s answer.
pub(super) fn refusal(retry_after: String, unix_ms: u64) -> Response {
    Response::json(429, &json!({ "message": "Too Many Attempts." }))
        .with_header("date", http_date(unix_ms))
        .with_header("retry-after", retry_after)
        .with_header("x-ratelimit-remaining", "0")
}
