//! Who calls for a session: under which credential, how often it asks Laravel, and how patiently it waits.
//!
//! All chance here is of a stream of its own, so that what a session sends is the same with and without it.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Scenario;

/// Callers of a run, in percent of what their sessions do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Callers {
    /// Of what chaotic sessions do, how much are reads of their state.
    pub reads: u32,
    /// Of the reads, how many want Laravel's own answer (`cache-control: no-cache`).
    pub no_cache: u32,
    /// Of all requests, how many are hung up on.
    pub hang_ups: u32,
    /// Two tenants with credentials that have to be learned, and a stranger.
    pub tenants: bool,
    /// Percent of a session's sends that are batches of the gateway's own, or requests of other routes.
    pub others: u32,
}

/// Whoever hangs up does so within this time, µs: in the VM, on the way, and at Laravel.
const PATIENCE_US: [u64; 3] = [300, 20_000, 400_000];

/// A session's caller.
#[derive(Debug)]
pub(super) struct Caller {
    callers: Callers,
    tenancy: Option<Tenancy>,
    tenant: usize,
    /// Its session's number, where its requests have headers that only an application knows.
    dressed: Option<usize>,
    dice: ChaCha8Rng,
    /// Whoever reads, where reads are not all alike.
    reader: Option<ChaCha8Rng>,
}

/// How a read is said.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// Another name than the session's.
    pub(super) other: Option<&'static str>,
    /// What stands behind the path.
    pub(super) query: &'static str,
    /// Headers of its own.
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

/// In so many of the runs reads have hosts, languages, origins and addresses of their own.
const READERS: f64 = 0.4;

/// In so many of the runs requests have headers that only an application knows.
const DRESSED: f64 = 0.15;

// === impl Callers ===

impl Callers {
    /// As a seed has them. Half of the seeds know no reads at all.
    pub(super) fn drawn(dice: &mut impl rand::Rng) -> Self {
        let one_of = |dice: &mut _, from: &[u32]| *super::scenario::pick(dice, from);
        Self {
            reads: one_of(dice, &[0, 0, 5, 20, 50, 80]),
            no_cache: one_of(dice, &[0, 0, 10, 50]),
            hang_ups: one_of(dice, &[0, 0, 0, 5, 20]),
            tenants: dice.random_bool(0.25),
            // Drawn by itself: see `Scenario::of_seed`.
            others: 0,
        }
    }
}

// === impl Caller ===

impl Caller {
    pub(super) fn new(scenario: &Scenario, index: usize) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(scenario.seed);
        dice.set_stream(2_000 + index as u64);
        let mut reader = ChaCha8Rng::seed_from_u64(scenario.seed);
        reader.set_stream(7_000);
        let has_readers = reader.random_bool(READERS);
        reader.set_stream(7_001 + index as u64);
        Self {
            reader: has_readers.then_some(reader),
            dressed: Self::are_dressed(scenario).then_some(index),
            callers: scenario.callers,
            tenancy: Tenancy::of(scenario),
            tenant: Tenancy::tenant_of(index),
            dice,
        }
    }

    /// Whether requests have headers that tell tenants and callers apart, or part a batch.
    pub(super) fn are_dressed(scenario: &Scenario) -> bool {
        let mut dice = ChaCha8Rng::seed_from_u64(scenario.seed);
        dice.set_stream(4_000);
        // Whom Laravel refuses it refuses by token: beside those nothing else may tell callers apart.
        dice.random_bool(DRESSED) && !scenario.callers.tenants
    }

    fn percent(&mut self, percent: u32) -> bool {
        percent > 0 && self.dice.random_ratio(percent.min(100), 100)
    }

    /// Whether it reads this time.
    pub(super) fn reads(&mut self) -> bool {
        self.percent(self.callers.reads)
    }

    /// Whether a read is to go to Laravel.
    pub(super) fn wants_the_truth(&mut self) -> bool {
        self.percent(self.callers.no_cache)
    }

    /// How this read is said.
    pub(super) fn reading(&mut self) -> Reading {
        let Some(dice) = &mut self.reader else {
            return Reading::default();
        };
        let mut reading = Reading::default();
        // Most are alike, so that some of them find an answer that is kept.
        let mut odd = |percent: u32| dice.random_ratio(percent, 100);
        if odd(4) {
            reading.other = Some(if odd(50) { "all" } else { "health" });
        }
        if odd(8) {
            reading.query = "?_=1";
        }
        for (name, percent, values) in [
            ("host", 15, ["panel.test", "Laravel.test:80"]),
            ("accept-language", 25, ["es", "en"]),
            ("origin", 25, ["https://a.test", "https://b.test"]),
            ("x-forwarded-for", 10, ["10.0.0.1", "10.0.0.2"]),
        ] {
            if odd(percent) {
                reading.headers.push((name, values[usize::from(odd(50))]));
            }
        }
        reading
    }

    /// When it hangs up on a request, µs after it was sent.
    pub(super) fn hangs_up(&mut self) -> Option<u64> {
        self.percent(self.callers.hang_ups).then(|| {
            let patience_us = *super::scenario::pick(&mut self.dice, &PATIENCE_US);
            self.dice.random_range(0..=patience_us)
        })
    }

    /// Whether it hangs up before its body is whole.
    pub(super) fn breaks_off(&mut self) -> bool {
        self.percent(self.callers.hang_ups / 4)
    }

    /// Headers that tell tenants and callers apart, part a batch, or say nothing.
    pub(super) fn dress(&mut self) -> Vec<(&'static str, String)> {
        let Some(session) = self.dressed else {
            return Vec::new();
        };
        let scheme = *super::scenario::pick(&mut self.dice, &["http", "https", "https"]);
        vec![
            ("x-organization-id", format!("organization-{}", session % 3)),
            ("x-instance", format!("instance-{}", session % 4)),
            ("x-forwarded-proto", scheme.to_owned()),
            ("x-request-id", format!("{:x}", self.dice.random::<u64>())),
        ]
    }

    /// Under which credential this request goes, where tenants have them.
    pub(super) fn token(&mut self, now_ms: u64) -> Option<String> {
        let tenancy = self.tenancy.as_ref()?;
        let (own, other) = (self.tenant, 1 - self.tenant);
        let current = tenancy.token(own, now_ms);
        let (old, foreign) = (token(own, 0), tenancy.token(other, now_ms));
        match self.dice.random_range(0..100) {
            0..=4 => Some(STRANGER.to_owned()),
            5..=9 => Some(foreign),
            10..=11 => None,
            12..=19 => Some(old),
            _ => Some(current),
        }
    }
}

/// Two tenants that have the sessions between them, and whose tokens rotate once.
#[derive(Clone, Debug)]
pub(super) struct Tenancy {
    /// When each of them takes its second token, ms of the run, and when the first one is revoked.
    pub(super) rotations: [(u64, u64); TENANTS],
}

/// How many tenants.
pub(super) const TENANTS: usize = 2;

/// What no Laravel ever gave to anybody.
const STRANGER: &str = "Bearer stranger";

/// How long both tokens of a tenant are valid, ms at most.
const BOTH_VALID_MS: u64 = 3_000;

/// A tenant's token, before and after it rotates.
pub(super) fn token(tenant: usize, generation: usize) -> String {
    format!("Bearer tenant-{tenant}-{generation}")
}

// === impl Tenancy ===

impl Tenancy {
    /// That of a run, where it has one.
    pub(super) fn of(scenario: &Scenario) -> Option<Self> {
        scenario.callers.tenants.then(|| {
            let mut dice = ChaCha8Rng::seed_from_u64(scenario.seed);
            dice.set_stream(3_000);
            let mut rotation = || {
                let at_ms = dice.random_range(0..scenario.traffic_ms);
                (at_ms, at_ms + dice.random_range(0..BOTH_VALID_MS))
            };
            Self {
                rotations: [rotation(), rotation()],
            }
        })
    }

    /// Whose session this is.
    pub(super) fn tenant_of(session: usize) -> usize {
        session % TENANTS
    }

    fn token(&self, tenant: usize, now_ms: u64) -> String {
        let (rotates_ms, _) = self.rotations[tenant];
        token(tenant, usize::from(now_ms >= rotates_ms))
    }
}
