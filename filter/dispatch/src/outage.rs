//! What the leader knows of each destination: whether it accepts anything, and in whose voice it answers.
//!
//! A failure belongs to the destination and not to an item or a partition: one success ends everybody's wait,
//! so that recovery begins with full batches of all routes at once. Beside it stand the two things that only a
//! success can tell apart. A refusal is about an item only where the destination accepts others; and an answer
//! in a foreign voice is about no item at all, it is an outage, until the path that gave it is Laravel's again.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::backlog::PartitionKey;
use embudo_core::backoff::{Backoff, Rng};
use embudo_core::circuit::Trouble;
use embudo_core::config::BackoffRange;
use embudo_core::map::Map;
use embudo_core::route::{Destination, Rules};
use embudo_core::sabotage::{self, Sabotage};
use embudo_core::verdict::{Heard, Path};

/// How long an acceptance stands beside a refusal, milliseconds.
const SUCCESS_MS: u64 = 60_000;

/// What is left of a refused caller after this time is rejected, milliseconds.
const REFUSED_MS: u64 = 3_600_000;

/// After this time an outage's proof ends, milliseconds: the gateway shall see what happens.
const OUTAGE_PROOF_MS: u64 = 60_000;

/// Longest wait between two calls while Laravel cannot be reached, milliseconds: such a call costs it nothing, and
/// the first after an outage comes within 2.5 s.
const UNREACHED_MAX_MS: u64 = 2_000;

/// The same where it answers that it fails, or may be at work.
const FAILING_MAX_MS: u64 = 5_000;

/// A probe's distance where a 503 has asked for more: a maintenance of 4 s must not cost a QR its life.
const MAINTENANCE_MS: u64 = 5_000;

/// Probes of an outage, and tries of a refused caller: every second at first, milliseconds.
const PROBES: BackoffRange = BackoffRange {
    min_ms: 1_000,
    max_ms: 5_000,
};
const TRIES: BackoffRange = BackoffRange {
    min_ms: 1_000,
    max_ms: 30_000,
};

/// Items in a row that end in a 500, each by itself, before the destination backs off for them: where many rows
/// throw, the last that are left are mostly those.
const THROWN_MAX: u8 = 8;

/// A time of nothing but 500s that was this long was no row's, milliseconds.
const EVERYBODYS_MS: u64 = 5_000;

/// Batches in a row that are not accepted, while their items are, before items go one by one.
pub(super) const UNTAKEN_MAX: u8 = 3;

/// Destinations, and callers of one, that are remembered.
const KNOWN_MAX: usize = 256;

/// Whether a partition may call now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    /// As it likes.
    #[default]
    Open,
    /// As it likes, one call at a time: nothing is accepted there.
    Probe,
    /// The same, and it has failed just now, with 500s: what has come since then may go all the same. It may be
    /// rows that throw, and nothing else that waits.
    Fresh {
        /// Since when it was nobody's yet. Monotonic.
        since_ms: u64,
    },
    /// One item, by itself, to its own path.
    Alone,
    /// Not at all.
    Shut,
}

/// Every destination that something was sent to.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    all: Map<u64, Health>,
    /// Their hashes, by what a partition knows of them.
    names: Map<Rc<[u8]>, u64>,
}

/// What is known of one destination.
#[derive(Debug, Default)]
struct Health {
    /// When it accepted something last.
    accepted_ms: Option<u64>,
    /// It fails, whatever the items are.
    backoff: Backoff,
    /// Calls in a row that ended in a 500.
    thrown: u8,
    /// When the first of them was. Monotonic.
    thrown_ms: u64,
    /// What failed alone in this time, and only then, is no suspect: nothing was accepted.
    excused: Option<(u64, u64)>,
    routes: Map<Rc<str>, RouteHealth>,
    callers: Map<u64, Standing>,
    /// The proof of what is in an outage has been ended.
    suspended: bool,
    used_ms: u64,
}

/// One route of it.
#[derive(Debug, Default)]
struct RouteHealth {
    path: Path,
    /// A 429 has asked for this much.
    hold_until_ms: u64,
    /// Since when it answers in a foreign voice, and until the next probe.
    foreign: Option<(u64, Backoff)>,
    /// A batch was not accepted, and none of its items has told yet.
    is_untaken: bool,
    /// Batches in a row of which that was so, and whose items were accepted.
    untaken: u8,
    /// Its batch path may be none: the items tell.
    doubted: bool,
}

/// One caller of it.
#[derive(Debug, Default)]
struct Standing {
    accepted_ms: Option<u64>,
    /// Since when it is refused, and until the next try.
    refused: Option<(u64, Backoff)>,
}

/// What an acceptance ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Recovered {
    /// Failures in a row.
    pub(super) failures: u32,
    /// An outage, which had lasted so long.
    pub(super) outage_ms: Option<u64>,
    /// A batch of this path was not accepted, and its item was: how often in a row by now.
    pub(super) untaken: u8,
}

/// A call that is under way, as the destinations see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnderWay<'f> {
    pub(super) destination: u64,
    pub(super) route: &'f str,
    pub(super) caller: u64,
}

// === impl Destinations ===

impl Destinations {
    /// The hash of a partition's destination: of its cluster, authority and prefix.
    pub(super) fn of(&mut self, rules: &Rules, key: &PartitionKey) -> u64 {
        if let Some(hash) = self.names.get(&key.destination) {
            return *hash;
        }
        let destination = Destination::decode(&key.destination).unwrap_or_default();
        let hash = destination.hash(rules.key);
        if self.names.len() >= KNOWN_MAX {
            self.names.clear();
        }
        self.names.insert(Rc::clone(&key.destination), hash);
        hash
    }

    /// Nothing fails, nothing is refused: every way is open.
    pub(super) fn are_well(&self, mono_ms: u64) -> bool {
        self.all.values().all(|health| health.is_well(mono_ms))
    }

    /// Whether a partition may call, with these calls under way.
    pub(super) fn way<'f>(
        &self,
        destination: u64,
        route: &str,
        caller: u64,
        mut under_way: impl Iterator<Item = UnderWay<'f>>,
        mono_ms: u64,
    ) -> Way {
        let Some(health) = self.all.get(&destination) else {
            return Way::Open;
        };
        let route_health = health.routes.get(route);
        if route_health.is_some_and(|known| known.hold_until_ms > mono_ms) {
            return Way::Shut;
        }
        let (mut same, mut same_route, mut same_caller) = (false, false, false);
        for call in under_way.by_ref().filter(|c| c.destination == destination) {
            same = true;
            same_route |= call.route == route;
            same_caller |= call.caller == caller;
        }
        let one = |backoff: &Backoff, busy: bool| match backoff.is_over(mono_ms) && !busy {
            true => Way::Alone,
            false => Way::Shut,
        };
        let refused = health.callers.get(&caller).and_then(|c| c.refused.as_ref());
        let refused = refused.filter(|(since_ms, _)| mono_ms < since_ms.saturating_add(REFUSED_MS));
        if let Some((_, backoff)) = refused {
            return one(backoff, same_caller);
        }
        if let Some((_, backoff)) = route_health.and_then(|known| known.foreign.as_ref()) {
            return one(backoff, same_route);
        }
        if health.is_out() {
            return one(&health.backoff, same_route);
        }
        match health.backoff.failures() {
            0 => Way::Open,
            _ if same => Way::Shut,
            _ if health.backoff.is_over(mono_ms) => Way::Probe,
            _ if health.thrown >= THROWN_MAX => Way::Fresh {
                since_ms: health.thrown_ms,
            },
            _ => Way::Shut,
        }
    }

    /// The last time in which nothing but 500s came from there.
    pub(super) fn excused(&self, destination: u64) -> Option<(u64, u64)> {
        self.all.get(&destination)?.excused
    }

    /// Nothing is accepted there at the moment.
    pub(super) fn is_silent(&self, destination: u64) -> bool {
        let health = self.all.get(&destination);
        health.is_some_and(|health| health.backoff.failures() > 0)
    }

    /// Callers that are refused somewhere: what they have holds up nobody else.
    pub(super) fn refused_callers(&self) -> Vec<u64> {
        let callers = self.all.values().flat_map(|health| &health.callers);
        let refused = callers.filter(|(_, standing)| standing.refused.is_some());
        refused.map(|(caller, _)| *caller).collect()
    }

    /// What is known of a path.
    pub(super) fn path(&self, destination: u64, route: &str) -> Path {
        let health = self.all.get(&destination);
        let known = health.and_then(|health| health.routes.get(route));
        known.map(|known| known.path).unwrap_or_default()
    }

    /// Failures in a row, where a partition leads.
    pub(super) fn failures(&self, key: &PartitionKey) -> u32 {
        let destination = self.names.get(&key.destination);
        let health = destination.and_then(|destination| self.all.get(destination));
        health.map_or(0, |health| health.backoff.failures())
    }

    // ## failing | out | refused => well

    /// Laravel accepted something of this caller and route.
    pub(super) fn accepted(
        &mut self,
        (destination, route, caller): (u64, &Rc<str>, u64),
        alone: bool,
        heard: Heard,
        began_ms: u64,
        mono_ms: u64,
    ) -> Recovered {
        let health = self.health(destination, mono_ms);
        health.accepted_ms = Some(mono_ms);
        let standing = health.standing(caller);
        standing.accepted_ms = Some(mono_ms);
        // What had left before it was refused tells nothing of the time since.
        let is_over = |(since_ms, _): &mut (u64, Backoff)| *since_ms <= began_ms;
        standing.refused.take_if(is_over);
        let mut recovered = Recovered {
            failures: health.recovers(mono_ms),
            ..Recovered::default()
        };
        let known = health.routes.entry(Rc::clone(route)).or_default();
        if let Some((since_ms, _)) = known.foreign.take() {
            recovered.outage_ms = Some(mono_ms.saturating_sub(since_ms));
        }
        match alone {
            true => {
                known.path.accepted(heard);
                if core::mem::take(&mut known.is_untaken) {
                    known.untaken = known.untaken.saturating_add(1);
                    recovered.untaken = known.untaken;
                }
            }
            false => {
                known.path.took(heard);
                (known.is_untaken, known.untaken, known.doubted) = (false, 0, false);
            }
        }
        if !health.is_out() {
            health.suspended = false;
        }
        recovered
    }

    /// A worker saw Laravel answer there: to a read, which accepts nothing, or to this caller's update.
    pub(super) fn reported(&mut self, destination: u64, caller: Option<u64>, mono_ms: u64) {
        let Some(health) = self.all.get_mut(&destination) else {
            return;
        };
        health.recovers(mono_ms);
        for (_, backoff) in health
            .routes
            .values_mut()
            .filter_map(|r| r.foreign.as_mut())
        {
            backoff.hurry(mono_ms);
        }
        if let Some(caller) = caller {
            health.accepted_ms = Some(mono_ms);
            let standing = health.standing(caller);
            standing.accepted_ms = Some(mono_ms);
            standing.refused = None;
        }
    }

    /// Laravel answered, whatever it thinks of the items: the time of the failures is over.
    pub(super) fn spoke(&mut self, destination: u64, mono_ms: u64) -> u32 {
        self.health(destination, mono_ms).recovers(mono_ms)
    }

    // ## well => failing

    /// Laravel fails, or was not reached. Gives whether that is news.
    pub(super) fn failed(
        &mut self,
        destination: u64,
        reached: bool,
        range: &BackoffRange,
        rng: &mut Rng,
        mono_ms: u64,
    ) -> bool {
        let most_ms = match reached {
            true => FAILING_MAX_MS,
            false => UNREACHED_MAX_MS,
        };
        let range = BackoffRange {
            min_ms: range.min_ms.min(most_ms),
            max_ms: range.max_ms.min(most_ms),
        };
        let backoff = &mut self.health(destination, mono_ms).backoff;
        // Laravel has the work of each of these calls.
        let least_ms = match reached && backoff.failures() >= 3 {
            true => range.max_ms / 2,
            false => 0,
        };
        backoff.fail(&range, least_ms, rng, mono_ms);
        backoff.failures() == 1
    }

    /// A 503 has asked for time. Gives whether that is news.
    pub(super) fn in_maintenance(
        &mut self,
        destination: u64,
        retry_after_ms: u64,
        rng: &mut Rng,
        mono_ms: u64,
    ) -> bool {
        let wait_ms = match sabotage::is(Sabotage::RestAsAsked) {
            true => retry_after_ms,
            false => retry_after_ms.clamp(1, MAINTENANCE_MS),
        };
        let range = BackoffRange {
            min_ms: wait_ms,
            max_ms: wait_ms,
        };
        let backoff = &mut self.health(destination, mono_ms).backoff;
        backoff.fail(&range, 0, rng, mono_ms);
        backoff.failures() == 1
    }

    /// A 429 has asked for time, for its own path.
    pub(super) fn hold(
        &mut self,
        destination: u64,
        route: &Rc<str>,
        retry_after_ms: u64,
        mono_ms: u64,
    ) {
        let health = self.health(destination, mono_ms);
        let known = health.routes.entry(Rc::clone(route)).or_default();
        if !sabotage::is(Sabotage::IgnoreThrottling) {
            known.hold_until_ms = mono_ms.saturating_add(retry_after_ms);
        }
    }

    /// A 500. Once nothing else is accepted between a few of them, the destination fails. Gives whether that is
    /// news.
    pub(super) fn threw(
        &mut self,
        destination: u64,
        range: &BackoffRange,
        rng: &mut Rng,
        mono_ms: u64,
    ) -> bool {
        let health = self.health(destination, mono_ms);
        if health.thrown == 0 {
            health.thrown_ms = mono_ms;
        }
        health.thrown = health.thrown.saturating_add(1);
        match health.thrown >= THROWN_MAX {
            true => self.failed(destination, true, range, rng, mono_ms),
            false => false,
        }
    }

    // ## well => out

    /// An answer in a foreign voice. Gives whether that is news.
    pub(super) fn answered_foreign(
        &mut self,
        destination: u64,
        route: &Rc<str>,
        alone: bool,
        rng: &mut Rng,
        mono_ms: u64,
    ) -> bool {
        let health = self.health(destination, mono_ms);
        let was_out = health.is_out();
        let known = health.routes.entry(Rc::clone(route)).or_default();
        known.is_untaken |= !alone;
        let (_, backoff) = known
            .foreign
            .get_or_insert_with(|| (mono_ms, Backoff::default()));
        backoff.fail(&PROBES, 0, rng, mono_ms);
        health.backoff.fail(&PROBES, 0, rng, mono_ms);
        !was_out
    }

    /// A batch of a path that has taken others was not accepted.
    pub(super) fn untaken(&mut self, destination: u64, route: &Rc<str>, mono_ms: u64) {
        let health = self.health(destination, mono_ms);
        let known = health.routes.entry(Rc::clone(route)).or_default();
        known.is_untaken = true;
    }

    /// A batch of a path that never took one was not accepted: its items will tell whether that is one.
    pub(super) fn doubt(&mut self, destination: u64, route: &Rc<str>, mono_ms: u64) {
        let health = self.health(destination, mono_ms);
        health.routes.entry(Rc::clone(route)).or_default().doubted = true;
    }

    /// An item alone has told: whether it was the path's batches that were doubted.
    pub(super) fn was_doubted(&mut self, destination: u64, route: &str) -> bool {
        let health = self.all.get_mut(&destination);
        let known = health.and_then(|health| health.routes.get_mut(route));
        known.is_some_and(|known| core::mem::take(&mut known.doubted))
    }

    /// Destinations whose outage has lasted for so long that its proof ends; each once.
    pub(super) fn suspensions(&mut self, mono_ms: u64) -> Vec<u64> {
        let is_due = |health: &Health| {
            let since_ms = health.out_since_ms();
            !health.suspended
                && !sabotage::is(Sabotage::OutageKeepsProof)
                && since_ms.is_some_and(|ms| mono_ms >= ms.saturating_add(OUTAGE_PROOF_MS))
        };
        let due = self.all.iter_mut().filter(|(_, health)| is_due(health));
        due.map(|(destination, health)| {
            health.suspended = true;
            *destination
        })
        .collect()
    }

    // ## well => refused

    /// Whether something else was accepted there since a minute before: of this caller, or of anybody.
    pub(super) fn accepts(&self, destination: u64, caller: Option<u64>, mono_ms: u64) -> bool {
        let Some(health) = self.all.get(&destination) else {
            return false;
        };
        let accepted_ms = match caller {
            None => health.accepted_ms,
            Some(caller) => health.callers.get(&caller).and_then(|c| c.accepted_ms),
        };
        accepted_ms.is_some_and(|ms| mono_ms <= ms.saturating_add(SUCCESS_MS))
    }

    /// Whether this caller is refused there, and was not accepted since.
    pub(super) fn refuses(&self, destination: u64, caller: u64) -> bool {
        let health = self.all.get(&destination);
        let standing = health.and_then(|health| health.callers.get(&caller));
        standing.is_some_and(|standing| standing.refused.is_some())
    }

    /// A caller was refused: one of its items is tried for all. True where it has been so for an hour.
    pub(super) fn caller_refused(
        &mut self,
        destination: u64,
        caller: u64,
        rng: &mut Rng,
        mono_ms: u64,
    ) -> bool {
        let standing = self.health(destination, mono_ms).standing(caller);
        let (since_ms, backoff) = standing
            .refused
            .get_or_insert_with(|| (mono_ms, Backoff::default()));
        if !sabotage::is(Sabotage::TryAllRefused) {
            backoff.fail(&TRIES, 0, rng, mono_ms);
        }
        mono_ms >= since_ms.saturating_add(REFUSED_MS)
    }

    /// What the store is to know: who waits for a success.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        for (destination, health) in &self.all {
            let out_ms = health.out_since_ms();
            if health.backoff.failures() > 0 || out_ms.is_some() {
                troubles.push(Trouble {
                    destination: *destination,
                    refused: None,
                    failures: health.backoff.failures(),
                    until_ms: health.backoff.until_ms(),
                    since_ms: out_ms.unwrap_or(0),
                    accepted_ms: 0,
                });
            }
            for (caller, standing) in &health.callers {
                if let Some((since_ms, backoff)) = &standing.refused {
                    troubles.push(Trouble {
                        destination: *destination,
                        refused: Some(*caller),
                        failures: backoff.failures(),
                        until_ms: backoff.until_ms(),
                        since_ms: *since_ms,
                        accepted_ms: 0,
                    });
                }
            }
        }
        troubles
    }

    /// For a new leader: what its predecessor knew.
    pub(super) fn resume(&mut self, troubles: &[Trouble], mono_ms: u64) {
        for trouble in troubles {
            let backoff = Backoff::resume(trouble.failures, trouble.until_ms.min(mono_ms));
            let health = self.health(trouble.destination, mono_ms);
            match trouble.refused {
                None => health.backoff = backoff,
                Some(caller) => {
                    let since_ms = trouble.since_ms.min(mono_ms);
                    health.standing(caller).refused = Some((since_ms, backoff));
                }
            }
        }
    }

    /// Forgets what is of no use any more: anybody can make hosts and callers up.
    pub(super) fn tidy(&mut self, mono_ms: u64) {
        let is_new = |ms: u64| mono_ms < ms.saturating_add(2 * REFUSED_MS);
        for health in self.all.values_mut() {
            if health.callers.len() > KNOWN_MAX {
                let since_ms = mono_ms.saturating_sub(SUCCESS_MS);
                health.callers.retain(|_, standing| {
                    standing.refused.is_some()
                        || standing.accepted_ms.is_some_and(|ms| ms > since_ms)
                });
            }
        }
        self.all.retain(|_, health| is_new(health.used_ms));
    }

    fn health(&mut self, destination: u64, mono_ms: u64) -> &mut Health {
        let health = self.all.entry(destination).or_default();
        health.used_ms = mono_ms;
        health
    }
}

// === impl Health ===

impl Health {
    fn is_well(&self, mono_ms: u64) -> bool {
        self.backoff.failures() == 0
            && self.callers.values().all(|caller| caller.refused.is_none())
            && self
                .routes
                .values()
                .all(|route| route.foreign.is_none() && route.hold_until_ms <= mono_ms)
    }

    fn is_out(&self) -> bool {
        self.routes.values().any(|route| route.foreign.is_some())
    }

    fn out_since_ms(&self) -> Option<u64> {
        let all = self.routes.values().filter_map(|r| r.foreign.as_ref());
        all.map(|(since_ms, _)| *since_ms).min()
    }

    fn recovers(&mut self, mono_ms: u64) -> u32 {
        let is_over = self.thrown >= THROWN_MAX && self.backoff.failures() > 0;
        if is_over && mono_ms >= self.thrown_ms.saturating_add(EVERYBODYS_MS) {
            self.excused = Some((self.thrown_ms, mono_ms));
        }
        self.thrown = 0;
        if sabotage::is(Sabotage::SuccessEndsNothing) {
            return 0;
        }
        self.backoff.succeed()
    }

    fn standing(&mut self, caller: u64) -> &mut Standing {
        self.callers.entry(caller).or_default()
    }
}
