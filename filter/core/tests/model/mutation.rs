//! Ways to get the protocol wrong.
//!
//! Each takes away one rule. They live in the model's driver and not in the core: what is bent is what
//! the core is asked, or what is done with its answer.

/// A rule taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// An answer settles whatever claim it finds.
    SettleWithoutId,
    /// Claims are known by the update's `seq` alone, so that two calls with it are one.
    ClaimNamedBySeq,
    /// A leader claims over anybody's live claim, as a takeover that cleans up would.
    ForeignClaimsIgnored,
    /// A timeout gives the claim back.
    UnknownIsDefinite,
    /// A timeout counts as delivered.
    UnknownIsDelivered,
    /// D = W + T.
    DeadlineWithoutLateness,
    /// A claim without a deadline.
    ClaimForEver,
    /// No look at the clock before a call leaves.
    NoSendCheck,
    /// W counts from the write of the claim, not from the *t* that its deadline was made of.
    WindowFromWrite,
    /// The newest update of a session goes first.
    NewestFirst,
    /// A delivery makes the entry clean even if it holds a newer value by now.
    CleanWhateverIsThere,
    /// Intake puts without the token.
    IntakePutsBlindly,
    /// The dispatcher puts without the token.
    DispatcherPutsBlindly,
    /// Intake answers before it writes.
    AnswerBeforeWrite,
    /// A value is a duplicate if it was ever seen.
    DuplicateOfAnythingSeen,
    /// `active` and `inactive` leave a QR alone.
    NothingIsVoid,
    /// They drop it only where it is unsent: a delivered one stays comparable.
    VoidOnlyWhatIsUnsent,
    /// `pending` is implied by a QR that is not the newest update any more.
    ImpliedByAnyQr,
    /// A QR runs out although Laravel may be storing it.
    ExpireDespiteClaim,
    /// A QR that ran out counts as delivered.
    ExpireToClean,
    /// What a QR implied is forgotten with it.
    ImpliedDiesWithQr,
    /// A QR that ran out is neither sent nor dropped.
    NothingExpires,
}
