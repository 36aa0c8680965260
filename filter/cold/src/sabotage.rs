//! Ways of breaking the rules on purpose, so that the simulation can show that it would notice.
//!
//! A check that never failed proves little. Each rule of the record, taken away alone, has a name here;
//! a module built with the feature `sabotage` lets the configuration choose one (`"sabotage": "…"`), and
//! the simulation must catch it. Without the feature [`is`] is a constant, the key does not exist, and
//! nothing of this is in the module.

macro_rules! sabotages {
    ($( $(#[$doc:meta])* $name:ident = $text:literal, )*) => {
        /// A rule that is not followed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Sabotage { $( $(#[$doc])* $name, )* }

        impl Sabotage {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in a configuration.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

sabotages! {
    /// An answer settles whatever claim the session has.
    SettleAnyClaim = "settle_any_claim",
    /// An answer settles whatever value the entry has.
    SettleAnyValue = "settle_any_value",
    /// Another leader's claims are not waited for.
    IgnoreForeignClaims = "ignore_foreign_claims",
    /// A call of unknown outcome counts as failed.
    NoHoldAfterTimeout = "no_hold_after_timeout",
    /// A value is a duplicate if it was ever seen.
    DedupBySet = "dedup_by_set",
    /// A value that is too old to be sent still answers for its duplicates.
    DuplicateOfExpired = "duplicate_of_expired",
    /// A delivered value answers for its duplicates without end.
    NeverHeals = "never_heals",
    /// A duplicate need not be the newest of its route: another credential's value may be newer.
    DuplicateOfOlder = "duplicate_of_older",
    /// The implying item need not be the session's newest update.
    ImpliedByOlder = "implied_by_older",
    /// What an answer shows beside the state is never compared.
    BelieveUnseen = "believe_unseen",
    /// What was believed once is never compared again.
    NeverSample = "never_sample",
    /// What Laravel says a moment after a delivery is the truth.
    BelieveTheLate = "believe_the_late",
    /// What was kept a moment after a delivery needs no belief.
    SettledAtOnce = "settled_at_once",
    /// What was seen where nothing came between holds where a QR did.
    NothingBetween = "nothing_between",
    /// An answer that says failure is kept.
    KeepFailures = "keep_failures",
    /// An answer is kept whatever its headers say.
    KeepWhateverIsSaid = "keep_whatever_is_said",
    /// An answer is kept of whatever has a session's place in its path.
    KeepOfAnything = "keep_of_anything",
    /// A kept answer outlives an update that Laravel passes over.
    KeepTheSkipped = "keep_the_skipped",
    /// A kept answer is served to whoever speaks another language.
    AnyLanguage = "any_language",
    /// A kept answer is served to a page of another origin.
    AnyOrigin = "any_origin",
    /// What is for one host answers for all.
    AnyAuthority = "any_authority",
    /// A new state stands in each member that had the old one's text.
    PatchEveryMember = "patch_every_member",
    /// A QR sets a state, whether or not that is assumed.
    ImplyUnassumed = "imply_unassumed",
    /// Voided items go in a second write.
    VoidLater = "void_later",
    /// Nobody looks at the clock before a call leaves.
    SendAtAnyTime = "send_at_any_time",
    /// A leader leads until it hears of another.
    LeaseWithoutEnd = "lease_without_end",
    /// What a lost doorbell left is never found.
    NoSlowScan = "no_slow_scan",
    /// A write does not ask what is there.
    PutUnconditionally = "put_unconditionally",
    /// A lost race counts as won.
    AnswerBeforeStored = "answer_before_stored",
    /// What was refused together is never sent alone.
    StarveTheRefused = "starve_the_refused",
    /// An update supersedes another that has members which it has not.
    SupersedeWhatSaysMore = "supersede_what_says_more",
    /// The value that supersedes another knows nothing of the calls that failed with that one.
    AttemptsAreForgotten = "attempts_are_forgotten",
    /// A batch that fails is sent again as large as it was.
    NeverHalve = "never_halve",
    /// The youngest item of a session goes first.
    YoungestFirst = "youngest_first",
    /// Items expire while Laravel may be storing them.
    ExpireUnderClaim = "expire_under_claim",
    /// An implied state is forgotten with the item that implied it.
    NeverRevive = "never_revive",
    /// The ledger does not count deliveries.
    LedgerForgets = "ledger_forgets",
    /// Any number of calls may be under way.
    NoLimitInFlight = "no_limit_in_flight",
    /// A body that is no JSON ends the VM.
    TrapOnBadJson = "trap_on_bad_json",
    /// A kept answer is served as Laravel gave it.
    ServeUnpatched = "serve_unpatched",
    /// A kept answer outlives another credential's update.
    KeepAcrossCredentials = "keep_across_credentials",
    /// An answer of Laravel's counts as showing what has not been sent yet.
    FloorIgnoresUnsettled = "floor_ignores_unsettled",
    /// A kept answer is served to whoever asks.
    ReadUnderAnyName = "read_under_any_name",
    /// An update that passes takes no claim.
    PassWithoutClaim = "pass_without_claim",
    /// An update passes while older ones are queued.
    PassOverQueued = "pass_over_queued",
    /// A passing update of unknown fate counts as failed.
    PassUnknownIsOver = "pass_unknown_is_over",
    /// A held request has no place in its session's record.
    HoldWithoutPlace = "hold_without_place",
    /// A place has no deadline.
    PlaceWithoutEnd = "place_without_end",
    /// The dispatcher claims what comes after a held request.
    ClaimPastPlaces = "claim_past_places",
    /// What Laravel may have is what Laravel has.
    NeverUnverify = "never_unverify",
    /// A caller that is not proven takes the session's claim.
    StrangersClaim = "strangers_claim",
    /// A retry that was refused counts as the first try.
    IgnoreAttempts = "ignore_attempts",
    /// A half-open circuit lets everything through.
    ProbeWithMany = "probe_with_many",
    /// A batch that was taken was taken whole, whatever Laravel says of its items.
    BelieveTheWhole = "believe_the_whole",
    /// The webhook is told of an item again and again.
    HandOverAgain = "hand_over_again",
    /// Whoever comes is proven.
    ProveNothing = "prove_nothing",
    /// A caller that Laravel refuses stays proven.
    KeepProof = "keep_proof",
    /// A route counts as proven wherever its caller is.
    ForgetRoutes = "forget_routes",
    /// A caller that waits is told `delivered` as soon as its session has a call under way.
    AckBeforeSettled = "ack_before_settled",
    /// A session's name says nothing of the tenant that a header names.
    IgnoreTenants = "ignore_tenants",
    /// Headers of no class that is known are left behind.
    CarryNoIdentity = "carry_no_identity",
    /// What Laravel may redirect or allow by shares a batch, and is left behind.
    PartNothing = "part_nothing",
    /// A state voids what another caller has queued.
    VoidAnybodys = "void_anybodys",
    /// What Envoy says of a call's last try counts for the first.
    BelieveTheLastTry = "believe_the_last_try",
    /// A 2xx is a success, whatever its body says.
    BelieveTheStatus = "believe_the_status",
    /// A page is an answer of Laravel's.
    BelieveForeigners = "believe_foreigners",
    /// What is refused once is refused for good.
    RejectAtOnce = "reject_at_once",
    /// ... the second time, whether or not anything else is accepted.
    RejectBesideNothing = "reject_beside_nothing",
    /// A session that Laravel knows nothing of is queued for again.
    ForgetOrphans = "forget_orphans",
    /// What failed alone goes with others again.
    RowsTravelTogether = "rows_travel_together",
    /// What failed alone goes again as soon as there is room.
    RowsNeverWait = "rows_never_wait",
    /// What was lost alone is passed over, like what threw.
    PassTheLost = "pass_the_lost",
    /// Repeats may be any part of all calls.
    NoRetryBudget = "no_retry_budget",
    /// How many items a batch may have is learned anew each time.
    RelearnTheLimit = "relearn_the_limit",
    /// A destination that accepts again is waited for all the same.
    SuccessEndsNothing = "success_ends_nothing",
    /// A `retry-after` is kept to the end.
    RestAsAsked = "rest_as_asked",
    /// The largest group goes first, however long another waits.
    NoFairness = "no_fairness",
    /// A signed body shares a batch.
    QueueTheSigned = "queue_the_signed",
    /// What was refused, and comes again after something newer, is news.
    QueueStaleRepeats = "queue_stale_repeats",
    /// A sender's clock that was set back makes everything stale for ever.
    StaleForEver = "stale_for_ever",
    /// What names an owner names a tenant.
    OwnersAreTenants = "owners_are_tenants",
    /// What went outside the order is not said once more where others of its caller were still before it.
    OutsideOnce = "outside_once",
    /// A held request waits for its turn, however long that takes.
    HoldForEver = "hold_for_ever",
    /// Everybody proves a new caller at once.
    ProveTogether = "prove_together",
    /// Of a refused caller everything is tried.
    TryAllRefused = "try_all_refused",
    /// What a rejected item implied is sent by itself.
    ReviveTheRejected = "revive_the_rejected",
    /// However long an outage lasts, its gateway is told that all is well.
    OutageKeepsProof = "outage_keeps_proof",
    /// Everything waits for its window.
    NothingIsUrgent = "nothing_is_urgent",
    /// A path that has answered 429 is asked again at once.
    IgnoreThrottling = "ignore_throttling",
    /// A path whose batches are never taken is sent batches.
    BatchesForEver = "batches_for_ever",
    /// A batch of the gateway's own is queued whoever sends it.
    QueueUnprovenSplit = "queue_unproven_split",
    /// What is known of its sessions is believed although a batch goes by.
    BatchGoesBy = "batch_goes_by",
    /// A barrier's request goes at once.
    BarrierWaitsForNothing = "barrier_waits_for_nothing",
    /// What a barrier waits for keeps its time.
    BarrierHurriesNobody = "barrier_hurries_nobody",
    /// A session is known after a log-out as it was before.
    ForgetNothing = "forget_nothing",
}

#[cfg(feature = "sabotage")]
mod chosen {
    use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    use super::Sabotage;

    /// 0 for none: a VM has one configuration's choice.
    static CHOSEN: AtomicU8 = AtomicU8::new(0);

    /// What [`Sabotage::DedupBySet`] has seen, by hash.
    static SEEN: [AtomicU64; 4096] = [const { AtomicU64::new(0) }; 4096];

    /// Whether this rule is broken.
    #[must_use]
    pub fn is(sabotage: Sabotage) -> bool {
        CHOSEN.load(Ordering::Relaxed) == (sabotage as u8).wrapping_add(1)
    }

    /// Chooses one by its name; false where there is none.
    pub fn choose(name: &str) -> bool {
        let found = Sabotage::ALL.iter().find(|known| known.name() == name);
        if let Some(sabotage) = found {
            CHOSEN.store((*sabotage as u8).wrapping_add(1), Ordering::Relaxed);
        }
        found.is_some()
    }

    /// Whether this hash was asked for before.
    pub fn was_seen(hash: u128) -> bool {
        let hash = hash as u64;
        let slot = SEEN.get((hash % 4096) as usize);
        slot.is_some_and(|slot| slot.swap(hash, Ordering::Relaxed) == hash)
    }
}

#[cfg(feature = "sabotage")]
pub use chosen::{choose, is, was_seen};

/// Whether this rule is broken: never.
#[cfg(not(feature = "sabotage"))]
#[must_use]
pub const fn is(_: Sabotage) -> bool {
    false
}

/// Only a sabotaged module remembers.
#[cfg(not(feature = "sabotage"))]
#[must_use]
pub const fn was_seen(_: u128) -> bool {
    false
}
