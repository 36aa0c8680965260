//! What a mutation does to the driver's part. The core itself is never touched.

use embudo_core::shard::{Beside, Entry, Shard};

use super::level::NOW_MS;
use super::record::Records;
use super::{Mutation, Who};

/// What is known of a session by its sequences: nothing older than these is surely what Laravel has.
#[derive(Clone, Copy)]
pub(super) struct Verified {
    newest_seq: u64,
    through_seq: u64,
}

// === impl Records ===

impl Records {
    pub(super) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Takes what is queued out of sight of a write-through.
    pub(super) fn hide_queued<'a>(&self, shard: &mut Shard<'a>) -> Vec<Entry<'a>> {
        let session = shard.sessions.first_mut();
        let Some(session) = session.filter(|_| self.is(Mutation::ThroughOverQueued)) else {
            return Vec::new();
        };
        let (hidden, rest) = std::mem::take(&mut session.entries)
            .into_iter()
            .partition(Entry::is_dirty);
        session.entries = rest;
        hidden
    }

    pub(super) fn show_queued<'a>(&self, shard: &mut Shard<'a>, hidden: Vec<Entry<'a>>) {
        if let Some(session) = shard.sessions.first_mut() {
            session.entries.extend(hidden);
        }
    }

    /// Takes what a stranger has at Laravel out of sight of an offer.
    pub(super) fn hide_beside(&self, shard: &mut Shard<'_>) -> Vec<Beside> {
        let session = shard.sessions.first_mut();
        let bent = session.filter(|_| self.is(Mutation::StrangerLeavesVerified));
        bent.map(|session| std::mem::take(&mut session.beside))
            .unwrap_or_default()
    }

    pub(super) fn show_beside(&self, shard: &mut Shard<'_>, hidden: Vec<Beside>) {
        if let Some(session) = shard.sessions.first_mut() {
            session.beside.extend(hidden);
        }
    }

    /// What is verified now.
    pub(super) fn verified(&self, shard: &Shard<'_>) -> Option<Verified> {
        let session = shard.sessions.first();
        session.map(|session| Verified {
            newest_seq: session.newest_seq,
            through_seq: session.through_seq,
        })
    }

    /// After something of a stranger's it is verified still.
    pub(super) fn verify_again(&self, shard: &mut Shard<'_>, who: Who, before: Option<Verified>) {
        if who == Who::Stranger && self.is(Mutation::StrangerLeavesVerified) {
            verify(shard, before);
        }
    }

    /// After something of a stranger's was queued in its place it is.
    pub(super) fn verify_queued(&self, shard: &mut Shard<'_>, before: Option<Verified>) {
        if self.is(Mutation::QueuedInPlaceVerified) {
            verify(shard, before);
        }
    }

    /// The place of a request that has just been held.
    pub(super) fn bend_places(&self, shard: &mut Shard<'_>, seq: u64) {
        let Some(session) = shard.sessions.first_mut() else {
            return;
        };
        if self.is(Mutation::HeldWithoutPlace) {
            session.held.retain(|place| place.seq != seq);
        }
    }

    /// A place without a deadline is always an hour ahead: the core takes none for true that is much further.
    pub(super) fn bend_deadlines(&self, shard: &mut Shard<'_>) {
        if self.is(Mutation::PlaceWithoutEnd) {
            let places = shard
                .sessions
                .iter_mut()
                .flat_map(|session| &mut session.held);
            places.for_each(|place| place.deadline_ms = NOW_MS + 3_600_000);
        }
    }
}

fn verify(shard: &mut Shard<'_>, before: Option<Verified>) {
    if let (Some(session), Some(before)) = (shard.sessions.first_mut(), before) {
        session.newest_seq = before.newest_seq;
        session.through_seq = before.through_seq;
    }
}
