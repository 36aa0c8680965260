//! What an arm measures, and the bounds that a file sets to it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// A bound on the outcome.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// What is bounded.
    pub of: Measure,
    /// The least it may be.
    pub min: Option<f64>,
    /// The most it may be.
    pub max: Option<f64>,
    /// The reason for the bound.
    pub why: String,
}

/// What an arm measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// POSTs that the gateway sent, retries included.
    GatewayPosts,
    /// POSTs that the gateway got no 2xx for.
    GatewayFailures,
    /// Status reads that the gateway sent, retries included.
    GatewayGets,
    /// Status reads that the gateway got no 2xx for.
    ReadFailures,
    /// POSTs that reached Laravel.
    LaravelPosts,
    /// Status reads that reached Laravel.
    LaravelGets,
    /// Requests of any kind that reached Laravel.
    LaravelRequests,
    /// Requests that reached Laravel, by those that the gateway sent.
    LaravelShare,
    /// The same for POSTs.
    LaravelPostsShare,
    /// Updates answered `queued`.
    Queued,
    /// Updates answered `implied`.
    Implied,
    /// Updates answered `stale`.
    Stale,
    /// Updates that ended delivered.
    Delivered,
    /// Updates that ended superseded.
    Superseded,
    /// QRs that ended expired.
    Expired,
    /// Updates that ended rejected.
    Rejected,
    /// Those of them that no dead letter tells of.
    RejectedUntold,
    /// POSTs that Laravel answered, and not with a 2xx.
    LaravelRefused,
    /// Single POSTs that reached Laravel.
    LaravelSingles,
    /// How many of them for each update that Laravel took or did not want.
    SinglesPerUpdate,
    /// The longest that a row at Laravel lacked what a session had said, or something newer, milliseconds.
    /// Sessions that Laravel takes nothing of do not count.
    RowLagMaxMs,
    /// The longest that it lacked an `inactive`, milliseconds.
    DisconnectLagMaxMs,
    /// The most times that a row threw within the first minute from its first time.
    RowThrowsMax,
    /// The most times that a QR was stored.
    QrStoredMax,
    /// The most times that an update was stored, states with their timestamps.
    StoredMax,
    /// QRs that were stored, each counted once.
    QrsStored,
    /// How many times the calls of full batches were needed once nothing was wrong any more.
    RecoveryCallsRatio,
    /// POSTs that Embudo let through at once, under their session's claim.
    WriteThrough,
    /// POSTs that it held first.
    Held,
    /// Those of them that went on outside the order.
    Outside,
    /// Calls that reached the webhook.
    WebhookCalls,
    /// Items that were handed over to it, dead letters not among them.
    WebhookItems,
    /// Items that came to it as dead letters.
    DeadLetters,
    /// Items that came to it once more although it had taken them.
    WebhookRepeats,
    /// Requests of other routes that got no 2xx.
    OtherFailures,
    /// Those of them that Embudo held first.
    OtherHeld,
    /// Batches of the gateway's own that were queued.
    BatchesQueued,
    /// Those that went to Laravel as they came.
    BatchesPassed,
    /// Status reads that were answered `inactive`.
    ReadsInactive,
    /// Updates that Laravel stored after another route had changed their account.
    StoredAfterChange,
    /// Items of the largest batch.
    BatchItemsMax,
    /// 99th percentile of the age of a QR when Laravel had it, milliseconds.
    QrStalenessP99Ms,
}

/// What an arm measured.
pub type Measures = BTreeMap<Measure, f64>;

// === impl Measure ===

impl Measure {
    /// Every measure, in the order reports show them.
    pub const ALL: [Self; 42] = [
        Self::GatewayPosts,
        Self::GatewayFailures,
        Self::GatewayGets,
        Self::ReadFailures,
        Self::LaravelPosts,
        Self::LaravelGets,
        Self::LaravelRequests,
        Self::LaravelShare,
        Self::LaravelPostsShare,
        Self::Queued,
        Self::Implied,
        Self::Stale,
        Self::Delivered,
        Self::Superseded,
        Self::Expired,
        Self::Rejected,
        Self::RejectedUntold,
        Self::LaravelRefused,
        Self::LaravelSingles,
        Self::SinglesPerUpdate,
        Self::RowLagMaxMs,
        Self::DisconnectLagMaxMs,
        Self::RowThrowsMax,
        Self::QrStoredMax,
        Self::StoredMax,
        Self::QrsStored,
        Self::RecoveryCallsRatio,
        Self::WriteThrough,
        Self::Held,
        Self::Outside,
        Self::WebhookCalls,
        Self::WebhookItems,
        Self::DeadLetters,
        Self::WebhookRepeats,
        Self::OtherFailures,
        Self::OtherHeld,
        Self::BatchesQueued,
        Self::BatchesPassed,
        Self::ReadsInactive,
        Self::StoredAfterChange,
        Self::BatchItemsMax,
        Self::QrStalenessP99Ms,
    ];

    /// As scenarios name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GatewayPosts => "gateway_posts",
            Self::GatewayFailures => "gateway_failures",
            Self::GatewayGets => "gateway_gets",
            Self::ReadFailures => "read_failures",
            Self::LaravelPosts => "laravel_posts",
            Self::LaravelGets => "laravel_gets",
            Self::LaravelRequests => "laravel_requests",
            Self::Queued => "queued",
            Self::Implied => "implied",
            Self::Delivered => "delivered",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::RejectedUntold => "rejected_untold",
            Self::LaravelRefused => "laravel_refused",
            Self::LaravelSingles => "laravel_singles",
            Self::SinglesPerUpdate => "singles_per_update",
            Self::RowLagMaxMs => "row_lag_max_ms",
            Self::DisconnectLagMaxMs => "disconnect_lag_max_ms",
            Self::RowThrowsMax => "row_throws_max",
            Self::QrStoredMax => "qr_stored_max",
            Self::StoredMax => "stored_max",
            Self::QrsStored => "qrs_stored",
            Self::Stale => "stale",
            Self::LaravelShare => "laravel_share",
            Self::LaravelPostsShare => "laravel_posts_share",
            Self::RecoveryCallsRatio => "recovery_calls_ratio",
            Self::WriteThrough => "write_through",
            Self::Held => "held",
            Self::Outside => "outside",
            Self::WebhookCalls => "webhook_calls",
            Self::WebhookItems => "webhook_items",
            Self::DeadLetters => "dead_letters",
            Self::WebhookRepeats => "webhook_repeats",
            Self::OtherFailures => "other_failures",
            Self::OtherHeld => "other_held",
            Self::BatchesQueued => "batches_queued",
            Self::BatchesPassed => "batches_passed",
            Self::ReadsInactive => "reads_inactive",
            Self::StoredAfterChange => "stored_after_change",
            Self::BatchItemsMax => "batch_items_max",
            Self::QrStalenessP99Ms => "qr_staleness_p99_ms",
        }
    }
}

// === impl Expectation ===

impl Expectation {
    /// What is wrong with the measure, if anything is.
    #[must_use]
    pub fn verdict(&self, measures: &Measures) -> Option<String> {
        let Some(found) = measures.get(&self.of) else {
            return Some(format!("{:?} was not measured", self.of));
        };
        let low = self.min.is_some_and(|min| *found < min);
        let high = self.max.is_some_and(|max| *found > max);
        (low || high).then(|| format!("{self}, but it is {found}"))
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} must be", self.of)?;
        if let Some(min) = self.min {
            write!(f, " at least {min}")?;
        }
        if let Some(max) = self.max {
            write!(f, " at most {max}")?;
        }
        write!(f, " ({})", self.why)
    }
}
