//! Which of the record's transitions a run has seen.
//!
//! The list follows the headings above the code that makes them (`// ## Dirty => …` in `shard`, `lease`
//! and `stream`), one name for each way through a heading. A test holds it against the sources.

use std::fmt;

macro_rules! transitions {
    ($( $name:ident = $text:literal, )*) => {
        /// One transition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each one's text says what it is")]
        pub enum Transition { $($name,)* }

        impl Transition {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// In words.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

transitions! {
    AbsentToDirty = "offer: absent => Dirty",
    CleanToDirty = "offer: Clean => Dirty",
    DirtyToNewer = "offer: Dirty => Dirty",
    ClaimedToNewer = "offer: Dirty under a claim => Dirty",
    ImpliedToNewer = "offer: Implied => Dirty",
    VoidedDirty = "voided routes: Dirty => absent",
    VoidedClean = "voided routes: Clean => absent",
    ImpliedFromAbsent = "the implied route: absent => Implied",
    ImpliedFromClean = "the implied route: Clean => Implied",
    ImpliedFromDirty = "the implied route: Dirty => Implied",
    ImpliedFromImplied = "the implied route: Implied => Implied",
    Slid = "offer: Clean => Clean, its expiry slides",
    Claimed = "Dirty => Dirty under a claim",
    Reclaimed = "Dirty under a claim that ran out => Dirty under a claim",
    Delivered = "Dirty under a claim => Clean",
    DeliveredNewer = "Dirty under a claim => Dirty, a newer value",
    ReleasedSame = "Dirty under a claim => Dirty, to be sent again",
    Attempted = "Dirty under a claim => Dirty, refused",
    Suspected = "Dirty under a claim => Dirty, a suspect",
    Forgiven = "Dirty => Dirty, another of its session was accepted",
    Overtaken = "overtaken: Dirty => absent",
    SupersededBehind = "superseded: Dirty => absent, behind the last of its route",
    DeliveredBehind = "Dirty under a claim => absent, delivered, behind the last of its route",
    Hurried = "Dirty => Dirty, at once: somebody is held behind it",
    HandedOver = "Dirty => Dirty, handed over",
    ImpliedToClean = "Implied => Clean, with the item that implies it",
    Expired = "Dirty => absent, expired",
    Revived = "Implied => Dirty",
    Forgotten = "Clean => absent, forgotten",
    LeaderToLeader = "Leader => Leader",
    LeaderToFollower = "Leader => Follower",
    FollowerToFollower = "Follower => Follower, a newer configuration says that it is there",
    FollowerToLeader = "Follower => Leader",
    NewToPassed = "stream: New => Passed",
    CollectingToPassed = "stream: Collecting => Passed",
    CollectingToAnswered = "stream: Collecting => Answered",
    CollectingToWaiting = "stream: Collecting => Waiting",
    ToldDelivered = "stream: Waiting => Answered, delivered",
    ToldRejected = "stream: Waiting => Answered, rejected",
    ToldExpired = "stream: Waiting => Answered, expired",
    ToldWaiting = "stream: Waiting => Answered, nothing yet",
    Doubted = "Clean => Clean, no duplicate any more",
    Rejected = "Dirty under a claim => absent, rejected",
    Passing = "passing: under a claim of its own",
    PassedDelivered = "passing: => Clean",
    PassedReleased = "passing: given back",
    PlaceTaken = "write-through: held, a place",
    PlaceLeft = "write-through: place => at Laravel | given back",
    Seen = "write-through: a request of which only the session was seen",
    WentBeside = "write-through: beside the claim",
    WentOutside = "write-through: outside the order",
    SaidAgain = "write-through: said once more",
    QueuedHeld = "write-through: held => Dirty",
    PassedOverClean = "passing: voided Clean => absent",
    AnsweredDuplicate = "answer: duplicate",
    AnsweredImplied = "answer: implied",
    AnsweredStale = "answer: stale",
    ReadCached = "read: answered from the store",
    ReadStale = "read: Laravel failed, and the store answers",
    ReadFresh = "read: Laravel's own answer",
    ReadPassed = "read: untouched",
    BatchQueued = "stream: Gathering => Answered",
    BatchPassed = "stream: Gathering => PassingBatch",
    Stopped = "stream: New => Barred, and waits",
    HungUp = "stream: Collecting | Passed => Gone",
    LostRace = "a race for a shard is lost",
}

/// Counts of transitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage([u64; Transition::ALL.len()]);

// === impl Coverage ===

impl Default for Coverage {
    fn default() -> Self {
        Self([0; Transition::ALL.len()])
    }
}

impl Coverage {
    /// Counts one.
    pub fn count(&mut self, transition: Transition) {
        if let Some(count) = self.0.get_mut(transition as usize) {
            *count += 1;
        }
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// Every transition with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Transition, u64)> {
        Transition::ALL.iter().copied().zip(self.0)
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
