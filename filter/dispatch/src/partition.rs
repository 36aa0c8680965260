//! What an answer does to the partition that its call came from: back-off, sizes, and the form in which the rest goes on.

use alloc::format;
use alloc::vec::Vec;

use super::backlog::BATCH_ROUTE_MEMORY_MS;
use super::limit::Cause;
use super::{Dispatcher, Effect, Flight, Level};
use embudo_core::time::Now;

// === impl Dispatcher ===

impl Dispatcher {
    /// Something of this partition was accepted.
    pub(super) fn succeeded(&mut self, flight: &Flight, now: Now) {
        let rule = self.rules.config.route_named(&flight.partition.route);
        let most = rule.map_or((1, 1), |(_, rule)| {
            (rule.batch.max_items, rule.batch.max_bytes)
        });
        let timeout_ms = self.rules.config.times.call_timeout_ms;
        let took_ms = now.mono_ms.saturating_sub(flight.started_ms);
        let partition = self.backlog.partition_mut(&flight.partition);
        partition.rejects = false;
        let known = self.backlog.batch_route_mut(&flight.partition, now.mono_ms);
        if flight.alone {
            // Down to one, and that one was accepted: two.
            match known.limit.is_one() {
                true => known.limit.accepted(most, now.mono_ms),
                // Where everything goes alone by a rule of the server's, no batch asks.
                false => _ = known.limit.asks_again(most, now.mono_ms),
            }
            return;
        }
        known.singles_until_ms = None;
        let limit = known.limit.items(most.0, timeout_ms);
        known.limit.took(flight.items.len(), took_ms, limit);
        known.limit.accepted(most, now.mono_ms);
    }

    /// Somebody in the batch may be to blame, and nobody says who: smaller ones, down to each item alone.
    pub(super) fn halves(
        &mut self,
        flight: &Flight,
        why: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let size = flight.items.len();
        let known = self.backlog.batch_route_mut(&flight.partition, now.mono_ms);
        known.limit.halve(size, Cause::Row);
        match size {
            1 => self.backlog.partition_mut(&flight.partition).hurries = true,
            _ => self.goes_on(flight, why, "all of these", effects),
        }
    }

    /// It is their number that is not wanted: the server's rule is remembered.
    pub(super) fn too_many(
        &mut self,
        flight: &Flight,
        why: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let size = flight.items.len();
        let known = self.backlog.batch_route_mut(&flight.partition, now.mono_ms);
        known.limit.too_many(size, now.mono_ms);
        self.goes_on(flight, why, "so many at once", effects);
    }

    /// It is their size.
    pub(super) fn too_large(
        &mut self,
        flight: &Flight,
        why: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let known = self.backlog.batch_route_mut(&flight.partition, now.mono_ms);
        known.limit.too_large(flight.bytes, now.mono_ms);
        self.goes_on(flight, why, "so many bytes at once", effects);
    }

    /// There is no batch route: one by one for a while.
    pub(super) fn goes_singly(
        &mut self,
        flight: &Flight,
        why: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let until_ms = now.mono_ms.saturating_add(BATCH_ROUTE_MEMORY_MS);
        let place = self.backlog.batch_route_mut(&flight.partition, now.mono_ms);
        let is_news = !core::mem::replace(&mut place.is_said, true);
        place.singles_until_ms = Some(until_ms);
        if is_news {
            let route = flight.partition.name();
            let line = format!(
                "{route}: Laravel takes no batches ({why}); items go one by one, and a batch is tried again \
                 every {} minutes",
                BATCH_ROUTE_MEMORY_MS / 60_000
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
        let partition = self.backlog.partition_mut(&flight.partition);
        // Nothing is wrong with the rest: it goes again at once.
        partition.hurries = true;
        if !core::mem::replace(&mut partition.rejects, true) {
            let (route, size) = (flight.partition.name(), flight.items.len());
            let line = format!(
                "{route}: of {size} items Laravel does not take {what} ({why}); trying them otherwise"
            );
            effects.push(Effect::Log(Level::Warn, line));
        }
    }

    /// A batch whose fate nobody knows: the next ones are smaller, and are sized by what its items took at least.
    pub(super) fn shrinks(&mut self, flight: &Flight, now: Now) {
        let size = flight.items.len();
        let took_ms = now.mono_ms.saturating_sub(flight.started_ms);
        let is_late = took_ms >= self.rules.config.times.call_timeout_ms;
        let known = self.backlog.batch_route_mut(&flight.partition, now.mono_ms);
        known.limit.halve(size, Cause::Time);
        if is_late {
            known.limit.timed_out(size, took_ms);
        }
    }

    /// Its destination accepts again, after a time of nothing.
    pub(super) fn recover_limits(&mut self, destination: u64) {
        let Self {
            backlog,
            destinations,
            rules,
            ..
        } = self;
        backlog.recover_limits(|key| destinations.of(rules, key) == destination);
    }

    /// There may be no batch route: its items tell.
    pub(super) fn tries_singles(&mut self, flight: &Flight, now: Now) {
        let until_ms = now.mono_ms.saturating_add(BATCH_ROUTE_MEMORY_MS);
        let place = self.backlog.batch_route_mut(&flight.partition, now.mono_ms);
        place.singles_until_ms = Some(until_ms);
    }

    /// They told of the path, and nothing of batches.
    pub(super) fn tries_batches(&mut self, flight: &Flight, now: Now) {
        let place = self.backlog.batch_route_mut(&flight.partition, now.mono_ms);
        place.singles_until_ms = None;
    }
}
