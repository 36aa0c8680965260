//! Who pays for a bad row, and how much Laravel gets: the bounds of what one update may cost another, and of what
//! Embudo may add to what the gateway sends.

use std::collections::BTreeSet;

use super::history::{Accepted, Fate};
use super::{CallEnd, Checker, Clock, Invariant, answers::short};

/// From one probe of what is silent to the next; µs.
const PROBE_EVERY_US: u64 = 5_000_000;

/// What was sent, and by whom.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    /// Updates and reads that the gateway sent.
    asked: u64,
    /// Requests that Laravel began with.
    had: u64,
    /// Items that may have to be said again: a call was refused, failed, or was never answered.
    again: u64,
    /// States that outlive their items, and what went outside the order: each is sent once more.
    more: u64,
    /// Requests before, since the beginning, that were none of these.
    probes: u64,
}

// === impl Checker ===

impl Checker {
    // ## 13: a row that throws holds up nobody else

    /// Only these sessions' rows throw, and nothing else is wrong: nobody else's update may have been pending for
    /// longer than this.
    pub(crate) fn nobody_else_waits(
        &mut self,
        clock: Clock,
        throwing: &BTreeSet<String>,
        limit_ms: u64,
    ) {
        let now_us = clock.mono_us;
        // Whoever has hung up on an update that went by itself has left its session to wait until that is surely over.
        let claim_us = (self.config.claim_ms() + limit_ms) * 1_000;
        let is_unknown = |update: &Accepted| {
            update.fate == Fate::Passing && now_us < update.at_us.saturating_add(claim_us)
        };
        let healthy = self.sessions.values().filter(|history| {
            let waits_for_one = history.accepted.iter().any(is_unknown);
            !throwing.contains(&history.name) && !waits_for_one
        });
        let late = healthy.into_iter().find_map(|history| {
            let mut all = history.accepted.iter();
            let late = all.find(|update| {
                let age_ms = now_us.saturating_sub(update.at_us) / 1_000;
                update.fate == Fate::Pending && age_ms > limit_ms && !self.is_refused(&update.token)
            })?;
            Some((
                history.name.clone(),
                short(&late.value).to_owned(),
                late.at_us,
            ))
        });
        if let Some((name, value, at_us)) = late {
            let what = format!(
                "{value} of session {name} waits for {} ms, and only others' rows throw",
                (now_us - at_us) / 1_000
            );
            self.fail(now_us, Invariant::Isolation, what);
        }
    }

    // ## 15: never more

    /// The gateway has sent an update or a read.
    pub(super) fn is_asked(&mut self) {
        self.traffic.asked += 1;
    }

    /// A request is at Laravel, with so many items.
    pub(super) fn is_had(&mut self, items: usize) {
        self.traffic.had += 1;
        self.traffic.again += items as u64;
    }

    /// A call was taken, all of it but so many items.
    pub(super) fn is_taken(&mut self, end: Option<CallEnd>, items: usize, refused: usize) {
        if end == Some(CallEnd::Delivered) {
            let taken = items.saturating_sub(refused) as u64;
            self.traffic.again = self.traffic.again.saturating_sub(taken);
        }
    }

    /// One item more has to be sent, that nobody asked for by itself.
    pub(super) fn is_more(&mut self) {
        self.traffic.more += 1;
    }

    /// Nothing is pending, and nothing under way: since that was so last, Laravel had at most what the gateway sent and
    /// one repeat for each item that it did not take, and in all a probe every five seconds more.
    pub(crate) fn never_more(&mut self, clock: Clock, start_us: u64) {
        let Traffic {
            asked,
            had,
            again,
            more,
            probes,
        } = std::mem::take(&mut self.traffic);
        let probes = probes + had.saturating_sub(asked + again + more);
        self.traffic.probes = probes;
        let most = clock.mono_us.saturating_sub(start_us) / PROBE_EVERY_US + 1;
        if probes > most {
            let what = format!(
                "Laravel had {had} requests for {asked} of the gateway's, {again} items that it did not take, and {more} \
                 that outlived theirs: with those before, {probes} are nobody's, and {most} may be probes"
            );
            self.fail(clock.mono_us, Invariant::NeverMore, what);
        }
    }
}
