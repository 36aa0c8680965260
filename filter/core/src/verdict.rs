//! What an answer to a call means.
//!
//! Two questions, kept apart: did Laravel take the items, and if not, is it *certain* that it did not?
//! Only a certain no lets the same session be sent again at once. Where nobody can know, the claim stays
//! and runs out, because the request may still be at work in PHP.

mod date;
mod items;

#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub use self::items::ItemFate;
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

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Items in the batch.
    pub items: usize,
    /// The array's key in the body, as in `qrs`.
    pub field: &'a str,
    /// The path has answered as a batch route does before.
    pub is_known: bool,
    /// For a `retry-after` that is a date.
    pub wall_ms: u64,
}

/// What an answer to a call means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Laravel has every item.
    Delivered,
    /// Laravel has spoken of each item by itself.
    Items {
        /// In the batch's order.
        fates: Vec<ItemFate>,
        /// For the log.
        why: String,
    },
    /// Laravel has none, whatever the items are: try again later.
    Retry {
        /// For the log.
        why: String,
        /// What Laravel asked for, milliseconds.
        retry_after_ms: u64,
        /// The status; `None` where Laravel was not reached.
        status: Option<u16>,
    },
    /// Laravel has no such route: items go one by one.
    NoRoute {
        /// For the log.
        why: String,
    },
    /// Laravel, or what stands before it, takes no body of this length.
    TooLarge {
        /// For the log.
        why: String,
    },
    /// Laravel has none, and an item may be why: nobody says which.
    Refused {
        /// For the log.
        why: String,
    },
    /// Laravel has none, and would not have taken any of them in this way: each is tried alone.
    Suspects {
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
    pub fn of_single(answer: &Answer<'_>, wall_ms: u64) -> Self {
        if let Some(verdict) = Self::of_any(answer, wall_ms) {
            return verdict;
        }
        match answer.status.unwrap_or(0) {
            200..=299 => Self::Delivered,
            status => Self::Rejected {
                why: format!("status {status}"),
                credential: matches!(status, 401 | 403),
            },
        }
    }

    /// Judges the answer to a batch.
    #[must_use]
    pub fn of(answer: &Answer<'_>, asked: &Asked<'_>) -> Self {
        if let Some(verdict) = Self::of_any(answer, asked.wall_ms) {
            return verdict;
        }
        let status = answer.status.unwrap_or(0);
        let why = format!("status {status}");
        match status {
            200..=299 => match says_success(answer.body) {
                Success::Yes => items::of_results(answer.body, asked.items, why),
                Success::No => match items::of_results(answer.body, asked.items, why.clone()) {
                    Self::Delivered => Self::Refused {
                        why: format!("{why}, \"success\" is false"),
                    },
                    each => each,
                },
                Success::Silent => Self::NoRoute {
                    why: format!("{why}, but no JSON object"),
                },
            },
            404 | 405 if !asked.is_known => Self::NoRoute { why },
            404 | 405 => Self::Refused { why },
            422 => match items::of_errors(answer.body, asked) {
                Some(fates) => Self::Items { fates, why },
                None => Self::Refused { why },
            },
            413 => Self::TooLarge { why },
            401 => Self::Rejected {
                why,
                credential: true,
            },
            // A policy may object to one item's session only: 403 too, alone, says which.
            _ => Self::Suspects { why },
        }
    }

    /// What has nothing to do with the items, and means the same for one as for many.
    fn of_any(answer: &Answer<'_>, wall_ms: u64) -> Option<Self> {
        let Some(status) = answer.status else {
            return Some(Self::Unknown {
                why: "the answer broke off".into(),
            });
        };
        let why = format!("status {status}");
        let verdict = match status {
            504 => Self::Unknown {
                why: "timeout (504)".into(),
            },
            502 => Self::Unknown { why },
            503 if !answer.from_upstream && !never_left(answer.body) => Self::Unknown {
                why: "connection lost (503)".into(),
            },
            503 if !answer.from_upstream => Self::Retry {
                why: "no connection to Laravel (503)".into(),
                retry_after_ms: 0,
                status: None,
            },
            408 | 425 | 429 | 500..=599 => Self::Retry {
                why,
                retry_after_ms: retry_after_ms(answer.retry_after, wall_ms),
                status: Some(status),
            },
            _ => return None,
        };
        Some(verdict)
    }

    /// Whether Laravel itself has spoken, and is well enough to say anything but 5xx.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match self {
            Self::Unknown { .. } => false,
            Self::Retry { status, .. } => status.is_some_and(|status| status < 500),
            _ => true,
        }
    }

    /// The label in metrics.
    #[must_use]
    pub fn label(&self) -> VerdictLabel {
        match self {
            Self::Delivered => VerdictLabel::Delivered,
            Self::Items { .. } => VerdictLabel::Partial,
            Self::Retry { .. } => VerdictLabel::Retry,
            Self::NoRoute { .. } => VerdictLabel::NoRoute,
            Self::TooLarge { .. } => VerdictLabel::TooLarge,
            Self::Refused { .. } | Self::Suspects { .. } => VerdictLabel::Refused,
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
    /// [`Verdict::Items`].
    Partial,
    /// [`Verdict::Retry`].
    Retry,
    /// [`Verdict::NoRoute`].
    NoRoute,
    /// [`Verdict::TooLarge`].
    TooLarge,
    /// [`Verdict::Refused`], [`Verdict::Suspects`].
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
    pub const ALL: [Self; 9] = [
        Self::Delivered,
        Self::Partial,
        Self::Retry,
        Self::NoRoute,
        Self::TooLarge,
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
            Self::Partial => "partial",
            Self::Retry => "retry",
            Self::NoRoute => "no_route",
            Self::TooLarge => "too_large",
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

/// Seconds, or a date; what is neither counts as not given.
fn retry_after_ms(raw: Option<&[u8]>, wall_ms: u64) -> u64 {
    let text = raw.and_then(|raw| core::str::from_utf8(raw).ok());
    let ms = text.map(str::trim).and_then(|text| {
        let seconds = text.parse::<u64>().ok();
        let ms = seconds.map(|seconds| seconds.saturating_mul(1000));
        ms.or_else(|| Some(date::epoch_ms(text)?.saturating_sub(wall_ms)))
    });
    ms.unwrap_or(0).min(RETRY_AFTER_MAX_S * 1000)
}
