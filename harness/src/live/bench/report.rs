//! The figures, and what they are promised to be.

use serde::Serialize;

use super::{Arm, Bench, Round};

/// What the bench has found.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// Rounds of each arm.
    pub rounds: usize,
    /// Requests a second of the steady stream.
    pub rate: f64,
    /// Every arm, in the order of measuring.
    pub arms: Vec<ArmFigures>,
    /// What is compared.
    pub ratios: Ratios,
    /// Of the store that was weighed.
    pub memory: Memory,
    /// Requests on an untouched route for which the VM was entered.
    pub untouched_entered_vm: u64,
}

/// The figures of an arm.
#[derive(Clone, Debug, Serialize)]
pub struct ArmFigures {
    /// Its name.
    pub name: String,
    /// Time of Envoy's process for a request, the lower quartile of the rounds.
    pub cpu_us: f64,
    /// The part of it up to the last answer; what is delivered later, and Envoy's own life meanwhile, is the rest.
    pub answered_us: f64,
    /// Latencies of the steady stream, from when a request was due; the medians of the rounds.
    pub p50_us: f64,
    /// See `p50_us`.
    pub p99_us: f64,
    /// Requests that entered Embudo's VM.
    pub entered_vm: u64,
}

/// One arm beside another.
#[derive(Clone, Debug, Serialize)]
pub struct Ratios {
    /// A duplicate's time beside the floor's.
    pub duplicate_cpu: f64,
    /// A new value's, delivery included, beside the floor's.
    pub new_cpu: f64,
    /// The same up to its answer.
    pub new_answered_cpu: f64,
    /// An untouched route's beside the same without Embudo.
    pub untouched_cpu: f64,
    /// A duplicate's p99 beside the floor's.
    pub duplicate_p99: f64,
    /// A request's time in the largest store beside that in the smallest: duplicate or new, what is worse.
    pub sessions_100k_cpu: f64,
}

/// Bytes that Envoy allocates for a session.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// While its QR waits.
    pub pending_bytes_per_session: f64,
    /// Once that is delivered.
    pub settled_bytes_per_session: f64,
}

/// A figure and its promise.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What it is.
    pub name: &'static str,
    /// What was found.
    pub found: f64,
    /// What it may be at most.
    pub bound: f64,
}

// === impl Bench ===

impl Bench<'_> {
    pub(super) fn report(&self, arms: &[Arm]) -> BenchReport {
        let figures: Vec<_> = arms.iter().map(ArmFigures::of).collect();
        let arm = |name: &str| figures.iter().find(|arm| arm.name == name);
        let ratio = |one: &str, other: &str, of: fn(&ArmFigures) -> f64| {
            arm(one).map_or(f64::NAN, of) / arm(other).map_or(f64::NAN, of)
        };
        let cpu = |arm: &ArmFigures| arm.cpu_us;
        let most = self.stages.last();
        let sessions = most.map_or(0, |stage| stage.sessions.len());
        let larger = |name: &str| ratio(&format!("{name}_{sessions}"), name, cpu);
        let memory = self.stages.iter().find_map(|stage| stage.memory.clone());
        BenchReport {
            rounds: self.options.rounds,
            rate: self.options.rate,
            ratios: Ratios {
                duplicate_cpu: ratio("duplicate", "floor", cpu),
                new_cpu: ratio("new", "floor", cpu),
                new_answered_cpu: ratio("new", "floor", |arm| arm.answered_us),
                untouched_cpu: ratio("untouched", "without_embudo", cpu),
                duplicate_p99: ratio("duplicate", "floor", |arm| arm.p99_us),
                sessions_100k_cpu: larger("duplicate").max(larger("new")),
            },
            memory: memory.unwrap_or(Memory {
                pending_bytes_per_session: f64::NAN,
                settled_bytes_per_session: f64::NAN,
            }),
            untouched_entered_vm: arm("untouched").map_or(u64::MAX, |arm| arm.entered_vm),
            arms: figures,
        }
    }
}

// === impl BenchReport ===

impl BenchReport {
    /// Every promise.
    #[must_use]
    pub fn judged(&self) -> [Judged; 8] {
        let Self { ratios, memory, .. } = self;
        let untouched = self.untouched_entered_vm as f64;
        [
            ("duplicate, CPU / floor's", ratios.duplicate_cpu, 1.20),
            ("new value, CPU / floor's", ratios.new_cpu, 1.35),
            ("untouched, CPU / without", ratios.untouched_cpu, 1.05),
            ("untouched that entered the VM", untouched, 0.0),
            ("duplicate, p99 / floor's", ratios.duplicate_p99, 1.25),
            (
                "most sessions, CPU / fewest",
                ratios.sessions_100k_cpu,
                1.25,
            ),
            (
                "bytes a session, QR pending",
                memory.pending_bytes_per_session,
                1536.0,
            ),
            (
                "bytes a session, settled",
                memory.settled_bytes_per_session,
                400.0,
            ),
        ]
        .map(|(name, found, bound)| Judged { name, found, bound })
    }
}

// === impl Judged ===

impl Judged {
    /// Whether the promise is kept; a figure that is none keeps nothing.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.found <= self.bound
    }
}

// === impl ArmFigures ===

impl ArmFigures {
    fn of(arm: &Arm) -> Self {
        let quantile = |of: fn(&Round) -> f64, share: f64| {
            let mut all: Vec<f64> = arm.rounds.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            let at = (all.len().saturating_sub(1)) as f64 * share;
            all.get(at.round() as usize).copied().unwrap_or(f64::NAN)
        };
        Self {
            name: arm.name.clone(),
            cpu_us: quantile(|round| round.cpu_us, 0.25),
            answered_us: quantile(|round| round.answered_us, 0.25),
            p50_us: quantile(|round| round.p50_us, 0.5),
            p99_us: quantile(|round| round.p99_us, 0.5),
            entered_vm: arm.entered,
        }
    }
}
