//! What an answer to a call means.
//!
//! Three questions, kept apart. Did Laravel take the items? If not, is it *certain* that it did not? And who
//! speaks: Laravel, or something that stands before it? Only a certain no lets the same session be sent again
//! at once: where nobody can know, the claim stays and runs out, because the request may still be at work in
//! PHP. And only Laravel decides about an item: a deploy's 404 page, a firewall's 403 and a parking page's 200
//! say nothing of it.
//!
//! The order of the judgements is the contract's (its table of answers, from the top).

mod date;
mod items;
mod members;
mod path;
mod voice;

#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub use self::items::ItemFate;
pub use self::path::{Heard, Members, Path};
pub use self::voice::{Voice, says_failure, says_skipped};
use crate::sabotage::{self, Sabotage};

/// The longest `retry-after` that is honoured, seconds. Beyond it an operator would rather see a call.
const RETRY_AFTER_MAX_S: u64 = 300;

/// How Envoy's texts about a connection that was lost, or never made, begin.
const ENVOY_TEXT: &str = "upstream connect error or disconnect/reset before headers";

/// An answer, as the host gives it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// `:status`, absent where there are no headers at all: a reset in mid-body, a response of more than
    /// 32 MiB, or an update of the cluster while the call was under way.
    pub status: Option<u16>,
    /// It has `x-envoy-upstream-service-time`, so Laravel (or what stands before it) has spoken.
    pub from_upstream: bool,
    /// `retry-after`, raw.
    pub retry_after: Option<&'a [u8]>,
    /// `date`, raw: a `retry-after` that is a date is by the clock of whoever has said it.
    pub date: Option<&'a [u8]>,
    /// `content-type`, raw.
    pub content_type: Option<&'a [u8]>,
    /// The body, or as much of it as was asked for.
    pub body: &'a [u8],
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The name of each item's session, in the batch's order.
    pub sessions: &'a [String],
    /// The array's key in the body, as in `qrs`.
    pub field: &'a str,
    /// What is known of the path.
    pub path: Path,
    /// For a `retry-after` that is a date.
    pub wall_ms: u64,
}

/// What an answer to a call means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Laravel has every item.
    Delivered,
    /// Laravel has passed over the one item, because it knows something newer.
    Skipped,
    /// Laravel has spoken of each item by itself.
    Items {
        /// In the batch's order.
        fates: Vec<ItemFate>,
        /// For the log.
        why: String,
    },
    /// 413: Laravel, or what stands before it, takes no body of this length.
    TooLarge {
        /// For the log.
        why: String,
    },
    /// 500: perhaps one row.
    Threw {
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
    /// Laravel may have the items, and may still be at work on them.
    Unknown {
        /// For the log.
        why: String,
    },
    /// What was sent is not valid: of a batch, the array as a whole or an item that has no name; of an item
    /// alone, the item.
    Invalid {
        /// For the log.
        why: String,
        /// It is the array that is not wanted: it is too long.
        array: bool,
    },
    /// Laravel has none, and says so: of a batch, each item is tried alone; of an item alone, this counts.
    Refused {
        /// For the log.
        why: String,
        /// The status; a 2xx says failure in its body.
        status: u16,
    },
    /// Nothing is wrong, but nobody can say what was taken: each item goes alone.
    Apart {
        /// For the log.
        why: String,
    },
    /// A batch path that never took a batch did not take this one: its items go alone, and tell.
    NoBatch {
        /// For the log.
        why: String,
    },
    /// It was not Laravel that answered: this says nothing of any item.
    Foreign {
        /// For the log.
        why: String,
    },
}

// === impl Verdict ===

impl Verdict {
    /// Judges the answer to an item that was posted alone, to the path it came to: as the gateway would
    /// have had it.
    #[must_use]
    pub fn of_single(answer: &Answer<'_>, path: Path, wall_ms: u64) -> Self {
        if let Some(verdict) = Self::of_any(answer, wall_ms) {
            return verdict;
        }
        let status = answer.status.unwrap_or(0);
        let why = format!("status {status}");
        match status {
            _ if !path.is_laravels(answer) && !sabotage::is(Sabotage::BelieveForeigners) => {
                Self::foreign(why)
            }
            200..=299 if answer.is_cut() => Self::cut(why),
            200..=299 if says_failure(answer.body) && !sabotage::is(Sabotage::BelieveTheStatus) => {
                Self::Refused {
                    why: format!("{why}, but it says failure"),
                    status,
                }
            }
            200..=299 if says_skipped(answer.body) => Self::Skipped,
            200..=299 => Self::Delivered,
            422 => Self::Invalid { why, array: false },
            _ => Self::Refused { why, status },
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
        let path = asked.path;
        if status < 300 {
            return Self::of_success(answer, asked, why);
        }
        match status {
            _ if !path.took => Self::NoBatch { why },
            _ if !path.is_laravels(answer) && !sabotage::is(Sabotage::BelieveForeigners) => {
                Self::foreign(why)
            }
            422 => match items::of_errors(answer.body, asked) {
                items::Named::Items(fates) => Self::Items { fates, why },
                items::Named::Array => Self::Invalid { why, array: true },
                items::Named::Nobody => Self::Invalid { why, array: false },
            },
            _ => Self::Refused { why, status },
        }
    }

    /// A 2xx for a batch.
    fn of_success(answer: &Answer<'_>, asked: &Asked<'_>, why: String) -> Self {
        let path = asked.path;
        let heard = Heard::of(answer);
        match heard.voice {
            Some(Voice::Json)
                if says_failure(answer.body) && !sabotage::is(Sabotage::BelieveTheStatus) =>
            {
                // Its lines say more than it does.
                match items::of_results(answer.body, asked, why) {
                    Self::Delivered | Self::Apart { .. } if !path.took => Self::NoBatch {
                        why: "it says failure".into(),
                    },
                    Self::Delivered | Self::Apart { .. } => Self::Refused {
                        why: "it says failure".into(),
                        status: 200,
                    },
                    each => each,
                }
            }
            Some(Voice::Json) if path.members.any() && !path.members.meets(heard.members) => {
                Self::foreign(format!("{why}, without what its answers had"))
            }
            Some(Voice::Json) => items::of_results(answer.body, asked, why),
            None if path.had_body => Self::Apart {
                why: format!("{why}, without a body"),
            },
            None => Self::Delivered,
            Some(Voice::Text) if path.voice == Some(Voice::Text) && !path.members.any() => {
                Self::Delivered
            }
            _ if path.took && answer.is_cut() => Self::cut(why),
            _ if path.took => Self::foreign(why),
            _ => Self::NoBatch {
                why: format!("{why}, but no JSON object"),
            },
        }
    }

    /// What means the same for one as for many, whoever says it.
    fn of_any(answer: &Answer<'_>, wall_ms: u64) -> Option<Self> {
        let Some(status) = answer.status else {
            return Some(Self::Unknown {
                why: "the answer broke off".into(),
            });
        };
        let why = format!("status {status}");
        if !answer.from_upstream {
            return Some(match status {
                503 if never_left(answer.body) => Self::Retry {
                    why: "no connection to Laravel (503)".into(),
                    retry_after_ms: 0,
                    status: None,
                },
                _ => Self::unknown(format!("{why}, not from Laravel")),
            });
        }
        let retry = |why| Self::Retry {
            why,
            retry_after_ms: retry_after_ms(answer, wall_ms),
            status: Some(status),
        };
        Some(match status {
            413 => Self::TooLarge { why },
            500 => Self::Threw { why },
            408 | 425 | 429 => retry(why),
            502 | 504 | 520..=527 => Self::unknown(why),
            503 if answer.retry_after.is_some() => retry(why),
            // What stands between may have given up while PHP works on.
            501..=599 if answer.is_proxys() => Self::unknown(format!("{why}, from a proxy")),
            501..=599 => retry(why),
            _ => return None,
        })
    }

    fn unknown(why: String) -> Self {
        Self::Unknown { why }
    }

    fn cut(why: String) -> Self {
        Self::unknown(format!("{why}, and the answer broke off"))
    }

    fn foreign(why: String) -> Self {
        Self::Foreign { why }
    }

    /// Whether the host has answered, and is well enough to say anything but 5xx. `None` where it has said
    /// 500: that is Laravel's word about a row, and closes nothing and opens nothing.
    #[must_use]
    pub fn is_alive(&self) -> Option<bool> {
        match self {
            Self::Unknown { .. } => Some(false),
            Self::Threw { .. } => None,
            Self::Retry { status, .. } => Some(status.is_some_and(|status| status < 500)),
            _ => Some(true),
        }
    }

    /// The label in metrics.
    #[must_use]
    pub fn label(&self) -> VerdictLabel {
        match self {
            Self::Delivered | Self::Skipped => VerdictLabel::Delivered,
            Self::Items { .. } => VerdictLabel::Partial,
            Self::Retry { .. } => VerdictLabel::Retry,
            Self::Threw { .. } => VerdictLabel::Threw,
            Self::NoBatch { .. } | Self::Apart { .. } => VerdictLabel::NoRoute,
            Self::TooLarge { .. } => VerdictLabel::TooLarge,
            Self::Refused { .. } => VerdictLabel::Refused,
            Self::Invalid { .. } => VerdictLabel::Rejected,
            Self::Foreign { .. } => VerdictLabel::Foreign,
            Self::Unknown { .. } => VerdictLabel::Unknown,
        }
    }
}

// === impl Answer ===

impl Answer<'_> {
    /// It says that it is JSON and is none: the rest of it was lost on the way.
    fn is_cut(&self) -> bool {
        let kind = self.content_type.unwrap_or_default();
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
        let kind = kind.trim_ascii();
        let is_json = kind.eq_ignore_ascii_case(b"application/json") || kind.ends_with(b"+json");
        is_json && !self.body.is_empty() && Voice::of(self.body, None) != Some(Voice::Json)
    }

    /// A 5xx that Laravel did not say: a page, or an Envoy's own text.
    fn is_proxys(&self) -> bool {
        match Voice::of(self.body, None) {
            None | Some(Voice::Json) => false,
            Some(Voice::Foreign) => true,
            Some(Voice::Text) => is_envoys(self.body),
        }
    }
}

/// A verdict as a label of `embudo.calls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VerdictLabel {
    /// [`Verdict::Delivered`], [`Verdict::Skipped`].
    Delivered,
    /// [`Verdict::Items`].
    Partial,
    /// [`Verdict::Retry`].
    Retry,
    /// [`Verdict::Threw`].
    Threw,
    /// [`Verdict::NoBatch`], [`Verdict::Apart`].
    NoRoute,
    /// [`Verdict::TooLarge`].
    TooLarge,
    /// [`Verdict::Refused`].
    Refused,
    /// [`Verdict::Invalid`].
    Rejected,
    /// [`Verdict::Foreign`].
    Foreign,
    /// [`Verdict::Unknown`].
    Unknown,
    /// Never sent: too late, or the cluster has no healthy host.
    Unsent,
}

// === impl VerdictLabel ===

impl VerdictLabel {
    /// Every label.
    pub const ALL: [Self; 11] = [
        Self::Delivered,
        Self::Partial,
        Self::Retry,
        Self::Threw,
        Self::NoRoute,
        Self::TooLarge,
        Self::Refused,
        Self::Rejected,
        Self::Foreign,
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
            Self::Threw => "threw",
            Self::NoRoute => "no_route",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Foreign => "foreign",
            Self::Unknown => "unknown",
            Self::Unsent => "unsent",
        }
    }
}

/// Whether a body is a text of an Envoy's.
fn is_envoys(body: &[u8]) -> bool {
    let texts = [ENVOY_TEXT, "no healthy upstream", "upstream "];
    texts.iter().any(|own| body.starts_with(own.as_bytes()))
}

/// Whether an Envoy between this one and Laravel says that it has lost the request, or does not say where.
pub fn was_lost(body: &[u8]) -> bool {
    is_envoys(body) && !never_left(body)
}

/// Envoy's own 503 says in its body how far the request got. Certain is only what failed at the first try, and
/// before the request was out: after a retry the text tells of the last try, and "no healthy upstream" and
/// "overflow" never come but after one, because a first try without a host is refused on the spot.
pub fn never_left(body: &[u8]) -> bool {
    let text = core::str::from_utf8(body).unwrap_or("");
    let reason = text
        .strip_prefix(ENVOY_TEXT)
        .and_then(|rest| rest.strip_prefix(". reset reason: "));
    let certain = [
        "remote connection failure",
        "local connection failure",
        "connection failure",
        "connection timeout",
        "remote refused stream reset",
    ];
    let is_last = sabotage::is(Sabotage::BelieveTheLastTry);
    reason.is_some_and(|reason| certain.iter().any(|known| reason.starts_with(known)))
        || is_last && certain.iter().any(|known| text.contains(known))
}

/// Seconds, or a date, by the clock of whoever has said it where that is known; what is neither counts as not given.
fn retry_after_ms(answer: &Answer<'_>, wall_ms: u64) -> u64 {
    fn text(raw: Option<&[u8]>) -> Option<&str> {
        core::str::from_utf8(raw?).ok().map(str::trim)
    }
    let ms = text(answer.retry_after).and_then(|when| {
        let seconds = when.parse::<u64>().ok();
        let ms = seconds.map(|seconds| seconds.saturating_mul(1000));
        ms.or_else(|| {
            let said_ms = text(answer.date).and_then(date::epoch_ms);
            let said_ms = said_ms.unwrap_or(wall_ms);
            Some(date::epoch_ms(when)?.saturating_sub(said_ms))
        })
    });
    ms.unwrap_or(0).min(RETRY_AFTER_MAX_S * 1000)
}
