//! What an answer does to the lane that its call came from: back-off, sizes, and the form in which the rest goes on.

use alloc::format;
use alloc::vec::Vec;

use super::index::PLACE_MEMORY_MS;
use super::{Dispatcher, Effect, Flight, Level};
use crate::shard::Outcome;
use crate::time::Now;

/// Bodies in a row that are too large although longer ones were taken, before the server is believed.
const DOUBTS_MAX: u8 = 20;

/// Doublings of the time for which a size is remembered.
const LEARNED_MAX: u8 = 10;

// === impl Dispatcher ===

impl Dispatcher {
    pub(super) fn succeeded(&mut self, flight: &Flight, now: Now, effects: &mut Vec<Effect>) {
        let rule = self.rules.config.route_named(&flight.lane.route);
        let max_items = rule.map_or(1, |(_, rule)| rule.batch.max_items);
        let lane = self.index.lane_mut(&flight.lane);
        lane.rejects = false;
        let failures = lane.backoff.succeed();
        if failures > 0 {
            let route = flight.lane.name();
            let line = format!("{route}: Laravel takes updates again after {failures} failures");
            effects.push(Effect::Log(Level::Info, line));
        }
        if flight.alone {
            return;
        }
        let place = self.index.place_mut(&flight.lane, now.mono_ms);
        place.is_known = true;
        place.refused = 0;
        place.singles_until_ms = None;
        place.bytes_taken = place.bytes_taken.max(flight.bytes);
        if place.bytes.is_some_and(|(bytes, _)| bytes < flight.bytes) {
            (place.bytes, place.learned) = (None, 0);
        }
        place.doubts = 0;
        // Back to full batches, a doubling at a time.
        place.limit = place
            .limit
            .map(|limit| limit.saturating_mul(2))
            .filter(|limit| *limit < max_items);
    }

    /// Somebody in the batch is not wanted, and nobody says who: smaller ones, and after a few times each
    /// item alone.
    pub(super) fn halves(
        &mut self,
        flight: &Flight,
        why: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let size = flight.items.len();
        let place = self.index.place_mut(&flight.lane, now.mono_ms);
        place.limit = Some((size / 2).max(1));
        self.goes_on(flight, why, "all of these", effects);
    }

    /// The size is learned, between what was taken and what was not. Where as much was taken before, it is
    /// something else, until it has been so a few times.
    pub(super) fn too_large(
        &mut self,
        flight: &Flight,
        why: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let learned_ms = self.rules.config.backoff.max_ms;
        let place = self.index.place_mut(&flight.lane, now.mono_ms);
        if flight.bytes <= place.bytes_taken && place.doubts < DOUBTS_MAX {
            place.doubts = place.doubts.saturating_add(1);
            place.bytes = None;
            self.halves(flight, why, now, effects);
            return Outcome::Refused;
        }
        if flight.bytes <= place.bytes_taken {
            place.bytes_taken = 0;
        }
        let bytes = (flight.bytes / 2).max(place.bytes_taken);
        let memory_ms = learned_ms.checked_shl(place.learned.into());
        let memory_ms = memory_ms.unwrap_or(u64::MAX).min(PLACE_MEMORY_MS);
        place.learned = place.learned.saturating_add(1).min(LEARNED_MAX);
        place.bytes = Some((bytes, now.mono_ms.saturating_add(memory_ms)));
        self.goes_on(flight, why, "so many bytes at once", effects);
        Outcome::Failed
    }

    /// There is no batch route: one by one for a while.
    pub(super) fn goes_singly(
        &mut self,
        flight: &Flight,
        why: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let until_ms = now.mono_ms.saturating_add(PLACE_MEMORY_MS);
        let place = self.index.place_mut(&flight.lane, now.mono_ms);
        let is_news = place.singles_until_ms.is_none();
        place.singles_until_ms = Some(until_ms);
        place.refused = 0;
        self.index.lane_mut(&flight.lane).backoff.succeed();
        if is_news {
            let route = flight.lane.name();
            let line = format!(
                "{route}: Laravel takes no batches ({why}); items go one by one, and a batch is tried again \
                 every {} minutes",
                PLACE_MEMORY_MS / 60_000
            );
            effects.push(Effect::Log(Level::Warn, line));
        }
    }

    /// What is left of a batch goes on in another form. A line for the first of a row.
    pub(super) fn goes_on(
        &mut self,
        flight: &Flight,
        why: &str,
        what: &str,
        effects: &mut Vec<Effect>,
    ) {
        let lane = self.index.lane_mut(&flight.lane);
        lane.backoff.succeed();
        if !core::mem::replace(&mut lane.rejects, true) {
            let (route, size) = (flight.lane.name(), flight.items.len());
            let line = format!(
                "{route}: of {size} items Laravel does not take {what} ({why}); trying them otherwise"
            );
            effects.push(Effect::Log(Level::Warn, line));
        }
    }

    /// A line for the first of a row; the counter tells how many.
    pub(super) fn rejected(&mut self, flight: &Flight, why: &str, effects: &mut Vec<Effect>) {
        let lane = self.index.lane_mut(&flight.lane);
        lane.backoff.succeed();
        if !core::mem::replace(&mut lane.rejects, true) {
            let route = flight.lane.name();
            let size = flight.items.len();
            let line = format!("{route}: Laravel rejects {size} items ({why}); they are dropped");
            effects.push(Effect::Log(Level::Warn, line));
        }
    }

    pub(super) fn back_off(
        &mut self,
        flight: &Flight,
        why: &str,
        retry_after_ms: u64,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let range = self.rules.config.backoff.clone();
        let lane = self.index.lane_mut(&flight.lane);
        lane.backoff
            .fail(&range, retry_after_ms, &mut self.rng, now.mono_ms);
        if lane.backoff.failures() == 1 {
            let route = flight.lane.name();
            let line = format!("{route}: a call failed ({why}); nothing is lost, trying again");
            effects.push(Effect::Log(Level::Warn, line));
        }
    }
}
