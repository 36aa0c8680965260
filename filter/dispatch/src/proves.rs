//! What the answers to the dispatcher's calls prove, and of whom: see [`embudo_core::proof`].

use alloc::vec::Vec;

use super::{Dispatcher, Effect, Flight, FlightItem, Gauge};
use embudo_core::proof::{BESIDE_MS, Subject};
use embudo_core::shard::Outcome;
use embudo_core::store::Store;
use embudo_core::time::Now;
use embudo_core::verdict::{Heard, Path};

// === impl Dispatcher ===

impl Dispatcher {
    /// What is known of the path that a call went to: by this leader, and by those before it and the workers.
    pub(super) fn path(&mut self, flight: &Flight, store: &impl Store) -> Path {
        let subject = subject(flight);
        let known = self.proofs.path_of(store, &self.keys, &subject);
        let own = self
            .destinations
            .path(flight.destination, &flight.partition.route);
        own.or(known)
    }

    /// These were the outcomes of a call's items. A batch proves those that were taken, and refuses nobody.
    pub(super) fn proves(
        &mut self,
        flight: &Flight,
        heard: Heard,
        items: &[(FlightItem, Outcome)],
        now: Now,
        store: &mut impl Store,
    ) {
        let mut outcomes = items.iter();
        if !outcomes.any(|(_, outcome)| *outcome == Outcome::Delivered) {
            return;
        }
        let (keys, subject) = (&self.keys, subject(flight));
        let voice = heard.voice.filter(|_| flight.alone);
        let began_ms = flight.started_ms;
        self.proofs
            .accepted(store, keys, &subject, voice, began_ms, now);
        if !flight.alone {
            self.proofs.took_batch(store, keys, &subject, heard, now);
        }
    }

    /// An item alone was refused with this status. True where that is about its caller.
    pub(super) fn refuses(
        &mut self,
        flight: &Flight,
        status: u16,
        now: Now,
        store: &mut impl Store,
    ) -> bool {
        let subject = subject(flight);
        self.proofs
            .refused(store, &self.keys, &subject, status, now)
    }

    /// Whether something else was accepted at a call's destination since a minute before: of this caller, where it is
    /// not refused since, or of anybody. What a worker has heard counts as well.
    pub(super) fn accepts(
        &mut self,
        flight: &Flight,
        caller: Option<u64>,
        now: Now,
        store: &impl Store,
    ) -> bool {
        if caller.is_some_and(|caller| self.destinations.refuses(flight.destination, caller)) {
            return false;
        }
        if self
            .destinations
            .accepts(flight.destination, caller, now.mono_ms)
        {
            return true;
        }
        let (keys, subject) = (&self.keys, subject(flight));
        match caller {
            Some(_) => {
                let proofs = &mut self.proofs;
                proofs.was_accepted_within(store, keys, &subject, BESIDE_MS, now)
            }
            None => self.proofs.accepts(store, keys, &subject, BESIDE_MS, now),
        }
    }

    /// At a leader's tick: what other workers have learned, whose outage has lasted too long, and how many callers
    /// are proven.
    pub(super) fn looks_at_proofs(
        &mut self,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) {
        self.proofs.tick(store, &self.keys, now);
        for destination in self.destinations.suspensions(now.mono_ms) {
            self.proofs.suspend(store, &self.keys, destination, now);
        }
        let counts = self.proofs.count(store, &self.keys);
        effects.push(Effect::Set(Gauge::Proven, counts.callers));
        let config = &self.rules.config;
        let routes = config.routes.iter();
        let implying = routes.filter_map(|route| route.implies.as_ref());
        let implied = implying.clone().filter(|implies| implies.is_assumed);
        let implied = implied.count();
        let not_implied = implying.count().saturating_sub(implied);
        // Nothing disproves what is assumed.
        let assumed = u64::from(config.assume.reads);
        let differ = match config.assume.reads {
            true => 0,
            false => counts.reads_disproved,
        };
        for (gauge, count) in [
            (Gauge::BatchProven, counts.batches),
            (Gauge::BatchUnproven, counts.batches_unproven),
            (
                Gauge::BatchDisproved,
                self.backlog.singly(now.mono_ms) as u64,
            ),
            (Gauge::ReadsProven, counts.reads),
            (Gauge::ReadsUnproven, counts.reads_unproven),
            (Gauge::ReadsDisproved, differ),
            (Gauge::ReadsAssumed, assumed),
            (Gauge::ImpliesUnproven, not_implied as u64),
            (Gauge::ImpliesAssumed, implied as u64),
        ] {
            effects.push(Effect::Set(gauge, count));
        }
    }
}

/// What an acceptance of a call's items proves something of.
fn subject(flight: &Flight) -> Subject {
    let partition = &flight.partition;
    Subject::new(partition.caller, flight.destination, &partition.route)
}
