//! How often a request is sent.
//!
//! Two loops nest in the gateway, and neither knows of the other. The inner one sends up to three
//! times on 429, 5xx and network errors. The outer one, an axios interceptor, starts the inner one
//! again up to three times on *any* error, a 404 included. One event can be twelve sends.

use rand::{Rng, RngExt};

use super::flow::Answer;

/// The policy as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Sends of the inner loop.
    pub inner_sends: u32,
    /// The inner loop's first wait; it doubles each time.
    pub inner_base_ms: u64,
    /// Added to each inner wait at random, from 0 up to this.
    pub inner_jitter_ms: u64,
    /// The outer loop's waits; as many as it has retries.
    pub outer_waits_ms: Vec<u64>,
    /// How long each send waits for its answer.
    pub timeout_ms: u64,
}

/// Where one request is in both loops.
#[derive(Clone, Debug, Default)]
pub struct Retries {
    inner: u32,
    outer: usize,
}

// === impl RetryPolicy ===

impl RetryPolicy {
    /// One send and no more, with the usual timeout.
    pub fn none() -> Self {
        Self {
            inner_sends: 1,
            outer_waits_ms: Vec::new(),
            ..Self::default()
        }
    }

    /// The same policy with waits and timeout divided, for a compressed run. Take care with the
    /// timeout: Laravel's 20 ms are not compressed.
    #[must_use]
    pub fn compressed(&self, by: f64) -> Self {
        let divide = |ms: u64| (ms as f64 / by.max(f64::EPSILON)) as u64;
        Self {
            inner_sends: self.inner_sends,
            inner_base_ms: divide(self.inner_base_ms),
            inner_jitter_ms: divide(self.inner_jitter_ms),
            outer_waits_ms: self.outer_waits_ms.iter().map(|&ms| divide(ms)).collect(),
            timeout_ms: divide(self.timeout_ms),
        }
    }

    /// The most sends one request can become.
    pub fn sends_max(&self) -> u64 {
        u64::from(self.inner_sends.max(1)) * (self.outer_waits_ms.len() as u64 + 1)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            inner_sends: 3,
            inner_base_ms: 600,
            inner_jitter_ms: 400,
            outer_waits_ms: vec![2_000, 4_000, 8_000],
            timeout_ms: 15_000,
        }
    }
}

// === impl Retries ===

impl Retries {
    // ## Answered => (Waiting | GivenUp)

    /// How long to wait before the next send after this answer; `None` takes it as final.
    pub fn after(
        &mut self,
        policy: &RetryPolicy,
        answer: &Answer,
        dice: &mut impl Rng,
    ) -> Option<u64> {
        if answer.is_success() {
            return None;
        }
        let transient = match answer {
            Answer::Status(status, _) => *status == 429 || *status >= 500,
            Answer::NetworkError | Answer::Timeout => true,
        };
        if transient && self.inner + 1 < policy.inner_sends {
            let doubled = policy.inner_base_ms << self.inner.min(16);
            self.inner += 1;
            return Some(doubled + dice.random_range(0..=policy.inner_jitter_ms));
        }
        let wait = policy.outer_waits_ms.get(self.outer).copied()?;
        self.outer += 1;
        self.inner = 0;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn waits(answer: &Answer) -> Vec<u64> {
        let policy = RetryPolicy {
            inner_jitter_ms: 0,
            ..RetryPolicy::default()
        };
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        let mut retries = Retries::default();
        std::iter::from_fn(|| retries.after(&policy, answer, &mut dice))
            .take(100)
            .collect()
    }

    fn status(status: u16) -> Answer {
        Answer::Status(status, bytes::Bytes::new())
    }

    #[test]
    fn an_error_of_the_server_is_twelve_sends() {
        let inner = [600, 1200];
        let expected = [
            &inner[..],
            &[2000],
            &inner,
            &[4000],
            &inner,
            &[8000],
            &inner,
        ]
        .concat();
        for answer in [
            status(500),
            status(429),
            Answer::NetworkError,
            Answer::Timeout,
        ] {
            assert_eq!(waits(&answer), expected);
        }
        assert_eq!(RetryPolicy::default().sends_max(), 12);
    }

    #[test]
    fn an_error_of_the_client_is_four_sends() {
        assert_eq!(waits(&status(404)), [2000, 4000, 8000]);
    }

    #[test]
    fn a_success_is_final() {
        assert!(waits(&status(200)).is_empty());
    }

    #[test]
    fn no_retries_is_one_send() {
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        let policy = RetryPolicy::none();
        let wait = Retries::default().after(&policy, &status(500), &mut dice);
        assert_eq!((wait, policy.sends_max()), (None, 1));
    }
}
