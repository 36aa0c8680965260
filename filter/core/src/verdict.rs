//! What an answer to a batch means.
//!
//! Two questions, kept apart: did Laravel take the items, and if not, is it *certain* that it did not?
//! Only a certain no lets the same session be sent again at once. Where nobody can know, the claim stays
//! and runs out, because the request may still be at work in PHP.

use alloc::format;
use alloc::string::String;

use crate::hash::HashKey;
use crate::json::{self, Pointer, Scalar};

/// The longest `retry-after` that is honoured, seconds. Beyond it an operator would rather see a call.
const RETRY_AFTER_MAX_S: u64 = 300;

/// An answer, as the host gives it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// `:status`, absent where there are no headers at all: a reset in mid-body, or a response of more
    /// than 32 MiB.
    pub status: Option<u16>,
    /// It has `x-envoy-upstream-service-time`, so Laravel (or what stands before it) has spoken.
    pub from_upstream: bool,
    /// `retry-after`, raw.
    pub retry_after: Option<&'a [u8]>,
    /// The body, or as much of it as was asked for.
    pub body: &'a [u8],
}

/// What an answer to a call means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Laravel has every item.
    Delivered,
    /// Laravel has none, whatever the items are: try again later.
    Retry {
        /// For the log.
        why: String,
        /// What Laravel asked for, milliseconds.
        retry_after_ms: u64,
    },
    /// Laravel has none, and an item may be why.
    Refused {
        /// For the log.
        why: String,
    },
    /// Laravel does not want the items, and says so for good.
    Rejected {
        /// For the log.
        why: String,
        /// It is the credential that is not wanted.
        credential: bool,
    },
    /// Laravel may have the items, and may still be at work on them.
    Unknown {
        /// For the log.
        why: String,
    },
}

// === impl Verdict ===

impl Verdict {
    /// Judges the answer to an item that was posted alone, to the path it came to: as the gateway would
    /// have had it.
    #[must_use]
    pub fn of_single(answer: &Answer<'_>) -> Self {
        match answer.status {
            Some(200..=299) => Self::Delivered,
            Some(status) => match Self::of(answer) {
                Self::Refused { why } => Self::Rejected {
                    why,
                    credential: matches!(status, 401 | 403),
                },
                other => other,
            },
            None => Self::of(answer),
        }
    }

    /// Judges the answer to a batch.
    #[must_use]
    pub fn of(answer: &Answer<'_>) -> Self {
        let Some(status) = answer.status else {
            return Self::Unknown {
                why: "the answer broke off".into(),
            };
        };
        let why = format!("status {status}");
        match status {
            504 => Self::Unknown {
                why: "timeout (504)".into(),
            },
            502 => Self::Unknown { why },
            503 if !answer.from_upstream && !never_left(answer.body) => Self::Unknown {
                why: "connection lost (503)".into(),
            },
            200..=299 => match says_success(answer.body) {
                Success::Yes => Self::Delivered,
                Success::No => Self::Refused {
                    why: format!("{why}, \"success\" is false"),
                },
                Success::Silent => Self::Retry {
                    why: format!("{why}, but no JSON object: is there a batch route?"),
                    retry_after_ms: 0,
                },
            },
            503 if !answer.from_upstream => Self::Retry {
                why: "no connection to Laravel (503)".into(),
                retry_after_ms: 0,
            },
            408 | 425 | 429 | 500..=599 => Self::Retry {
                why,
                retry_after_ms: retry_after_ms(answer.retry_after),
            },
            401 | 403 => Self::Rejected {
                why,
                credential: true,
            },
            _ => Self::Refused { why },
        }
    }

    /// The label in metrics.
    #[must_use]
    pub fn label(&self) -> VerdictLabel {
        match self {
            Self::Delivered => VerdictLabel::Delivered,
            Self::Retry { .. } => VerdictLabel::Retry,
            Self::Refused { .. } => VerdictLabel::Refused,
            Self::Rejected { .. } => VerdictLabel::Rejected,
            Self::Unknown { .. } => VerdictLabel::Unknown,
        }
    }
}

/// A verdict as a label of `embudo.calls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VerdictLabel {
    /// [`Verdict::Delivered`].
    Delivered,
    /// [`Verdict::Retry`].
    Retry,
    /// [`Verdict::Refused`].
    Refused,
    /// [`Verdict::Rejected`].
    Rejected,
    /// [`Verdict::Unknown`].
    Unknown,
    /// Never sent: too late, or the cluster has no healthy host.
    Unsent,
}

// === impl VerdictLabel ===

impl VerdictLabel {
    /// Every label.
    pub const ALL: [Self; 6] = [
        Self::Delivered,
        Self::Retry,
        Self::Refused,
        Self::Rejected,
        Self::Unknown,
        Self::Unsent,
    ];

    /// The label's text.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
            Self::Unsent => "unsent",
        }
    }
}

enum Success {
    Yes,
    No,
    Silent,
}

/// A 2xx counts only as a JSON object: a login page, or a catch-all route's HTML, is no acceptance.
fn says_success(body: &[u8]) -> Success {
    let Ok(pointer) = Pointer::parse("/success") else {
        return Success::Silent;
    };
    // Nothing is digested, so the key does not matter.
    match json::read(body, &[&pointer], &[], HashKey::from_bytes([0; 16])) {
        Err(_) => Success::Silent,
        Ok(document) => match document.at(0) {
            Some(Scalar::Bool(false)) => Success::No,
            _ => Success::Yes,
        },
    }
}

/// Envoy's own 503 says in its body how far the request got. Only a connection that was never made is
/// certain; "connection termination" and "remote reset" come after the request went out.
pub(crate) fn never_left(body: &[u8]) -> bool {
    let text = core::str::from_utf8(body).unwrap_or("");
    text.contains("no healthy upstream")
        || ["connection failure", "connection timeout", "overflow"]
            .iter()
            .any(|reason| text.contains("reset reason:") && text.contains(reason))
}

/// Seconds; the HTTP-date form counts as not given.
fn retry_after_ms(raw: Option<&[u8]>) -> u64 {
    raw.and_then(|raw| core::str::from_utf8(raw).ok())
        .and_then(|text| text.trim().parse::<u64>().ok())
        .map_or(0, |seconds| {
            seconds.min(RETRY_AFTER_MAX_S).saturating_mul(1000)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(status: u16, from_upstream: bool, body: &str) -> VerdictLabel {
        let status = Some(status);
        Verdict::of(&Answer {
            status,
            from_upstream,
            body: body.as_bytes(),
            ..Answer::default()
        })
        .label()
    }

    #[test]
    fn only_a_2xx_with_a_json_object_that_is_not_unsuccessful_delivers() {
        use VerdictLabel::{Delivered, Refused, Retry};
        assert_eq!(
            judge(200, true, r#"{"success":true,"processed":3}"#),
            Delivered
        );
        assert_eq!(judge(201, true, "{}"), Delivered);
        assert_eq!(judge(200, true, r#"{"success":false}"#), Refused);
        for body in ["", "<html>login</html>", "[]", "\"ok\"", "{\"success\":tr"] {
            assert_eq!(judge(200, true, body), Retry, "{body}");
        }
        for status in [301, 302, 404, 405, 413, 419, 422] {
            assert_eq!(judge(status, true, "{}"), Refused, "{status}");
        }
        for status in [401, 403] {
            assert_eq!(
                judge(status, true, "{}"),
                VerdictLabel::Rejected,
                "{status}"
            );
        }
        for status in [408, 425, 429, 500, 503] {
            assert_eq!(judge(status, true, "{}"), Retry, "{status}");
        }
    }

    #[test]
    fn an_item_alone_gets_the_answer_that_the_gateway_would_have_got() {
        use VerdictLabel::{Delivered, Rejected, Retry, Unknown};
        let cases = [
            (200, Delivered),
            (204, Delivered),
            (302, Rejected),
            (401, Rejected),
            (404, Rejected),
            (422, Rejected),
            (429, Retry),
            (500, Retry),
            (504, Unknown),
        ];
        for (status, expected) in cases {
            let answer = Answer {
                status: Some(status),
                from_upstream: true,
                body: b"ok",
                ..Answer::default()
            };
            assert_eq!(Verdict::of_single(&answer).label(), expected, "{status}");
        }
    }

    #[test]
    fn what_nobody_can_know_is_unknown() {
        use VerdictLabel::{Retry, Unknown};
        assert_eq!(Verdict::of(&Answer::default()).label(), Unknown);
        assert_eq!(judge(504, false, "upstream request timeout"), Unknown);
        assert_eq!(judge(504, true, ""), Unknown);
        assert_eq!(judge(502, true, ""), Unknown);
        let prefix = "upstream connect error or disconnect/reset before headers. reset reason: ";
        assert_eq!(
            judge(503, false, &format!("{prefix}connection termination")),
            Unknown
        );
        let refused = "remote connection failure, transport failure reason: delayed connect error: \
                       Connection refused";
        assert_eq!(judge(503, false, &format!("{prefix}{refused}")), Retry);
        assert_eq!(judge(503, false, "no healthy upstream"), Retry);
        assert_eq!(judge(503, true, "maintenance"), Retry);
    }

    #[test]
    fn retry_after_is_honoured_up_to_its_cap() {
        let ask = |raw: &'static str| {
            Verdict::of(&Answer {
                status: Some(429),
                from_upstream: true,
                retry_after: Some(raw.as_bytes()),
                body: b"",
            })
        };
        let waits = |ms| Verdict::Retry {
            why: "status 429".into(),
            retry_after_ms: ms,
        };
        assert_eq!(ask("7"), waits(7_000));
        assert_eq!(ask("86400"), waits(300_000));
        assert_eq!(ask("soon"), waits(0));
    }
}
