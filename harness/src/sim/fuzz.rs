//! The module under whatever may come: never a trap, never an endless loop, never a flood.
//!
//! A *case* is a fresh process with one thread and a dozen things that happen to it: requests with any
//! headers and bodies, answers to its calls, rings of the doorbell, configurations, and stored values
//! that another program has written or spoiled. A case follows from its seed and its number, so whatever
//! is found can be played again; and since the process is fresh, it depends on nothing that came before.
//!
//! What must hold whatever comes is in [`Flaw`]. At the end of most cases stands a question: a new update
//! is posted, and must be on its way to Laravel within three minutes. A dispatcher that stays alive but never
//! does anything again would pass for healthy otherwise.
//!
//! # Layout
//! * `case`: what happens.
//! * `generate`, `stored`: cases from dice.
//! * `play`: plays a case, and judges it by what is in `flaw`.

mod case;
mod flaw;
mod generate;
mod play;
mod stored;

use std::fmt;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use self::case::Case;
pub use self::flaw::{Flaw, Found};
use self::play::{Played, play};
pub(super) use self::play::{hub, wait};
use super::host::Machine;

/// Failed cases after which there is nothing more to learn.
const FAILURES_MAX: usize = 8;

/// Cases to be played.
#[derive(Clone, Copy, Debug)]
pub struct FuzzOptions {
    /// The seed of all.
    pub seed: u64,
    /// The first case.
    pub start: u64,
    /// How many.
    pub cases: u64,
    /// How many at once.
    pub threads: usize,
}

/// What came of them.
#[derive(Clone, Debug, Default)]
pub struct Fuzz {
    /// Cases that were played.
    pub cases: u64,
    /// How long it took.
    pub wall: Duration,
    /// Jobs of the VM: a request, a tick, an answer.
    pub jobs: u64,
    /// Host calls.
    pub host_calls: u64,
    /// The most instructions of one callback.
    pub instructions_max: u64,
    /// The most memory of one VM.
    pub memory_bytes_max: usize,
    /// Requests that Embudo answered.
    pub answered: u64,
    /// Requests that went on to Laravel.
    pub passed: u64,
    /// Calls of the dispatcher.
    pub calls: u64,
    /// Processes that did not start: their configuration or their layout was refused.
    pub refused: u64,
    /// Processes that delivered an update at the end of it all.
    pub survived: u64,
    /// What must not be, shrunk.
    pub failures: Vec<Failed>,
}

/// A case that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Which, and what is left of it.
    pub pick: Pick,
    /// What is left of it, step by step.
    pub case: Case,
    /// How it failed.
    pub found: Found,
}

/// A case, or some steps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The seed of all.
    pub seed: u64,
    /// Its number.
    pub number: u64,
    /// The steps that are played; all if `None`.
    pub steps: Option<Vec<usize>>,
}

// === impl FuzzOptions ===

impl FuzzOptions {
    /// So many cases of this seed, on all cores.
    #[must_use]
    pub fn of(seed: u64, cases: u64) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            seed,
            start: 0,
            cases,
            threads,
        }
    }
}

// === impl Fuzz ===

impl Fuzz {
    /// Plays cases. `progress` hears of every thousandth, with the number of failures.
    #[must_use]
    pub fn run(
        machine: &Machine,
        options: &FuzzOptions,
        progress: &(dyn Fn(u64, usize) + Sync),
    ) -> Self {
        let started = Instant::now();
        let next = AtomicU64::new(0);
        let all = Mutex::new(Self::default());
        let work = || {
            let mut own = Played::default();
            let mut cases = 0;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= options.cases {
                    break;
                }
                cases += 1;
                let pick = Pick {
                    seed: options.seed,
                    number: options.start + index,
                    steps: None,
                };
                match play(machine, &pick.case()) {
                    Ok(played) => own.add(&played),
                    Err(found) => {
                        let failed = pick.shrink(machine, found);
                        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                        all.failures.push(failed);
                        if all.failures.len() >= FAILURES_MAX {
                            next.store(options.cases, Ordering::Relaxed);
                        }
                    }
                }
                if index.is_multiple_of(1_000) {
                    let failed = all.lock().unwrap_or_else(PoisonError::into_inner);
                    progress(index, failed.failures.len());
                }
            }
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.take_in(cases, &own);
        };
        std::thread::scope(|scope| {
            for _ in 0..options.threads.max(1) {
                scope.spawn(work);
            }
        });
        let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.failures.sort_by_key(|failed| failed.pick.number);
        all.wall = started.elapsed();
        all
    }

    fn take_in(&mut self, cases: u64, played: &Played) {
        self.cases += cases;
        self.jobs += played.jobs;
        self.host_calls += played.host_calls;
        self.instructions_max = self.instructions_max.max(played.instructions_max);
        self.memory_bytes_max = self.memory_bytes_max.max(played.memory_bytes_max);
        self.answered += played.answered;
        self.passed += played.passed;
        self.calls += played.calls;
        self.refused += played.refused;
        self.survived += played.survived;
    }
}

// === impl Pick ===

impl Pick {
    /// The case, as far as it is picked.
    #[must_use]
    pub fn case(&self) -> Case {
        let mut case = Case::new(self.seed, self.number);
        if let Some(kept) = &self.steps {
            let steps = std::mem::take(&mut case.steps);
            let kept = steps
                .into_iter()
                .enumerate()
                .filter(|(at, _)| kept.contains(at));
            case.steps = kept.map(|(_, step)| step).collect();
        }
        case
    }

    /// Plays it.
    ///
    /// # Errors
    /// What must not be.
    pub fn play(&self, machine: &Machine) -> Result<(), Found> {
        play(machine, &self.case()).map(|_| ())
    }

    /// Leaves out whatever is not needed to fail in the same way.
    fn shrink(mut self, machine: &Machine, mut found: Found) -> Failed {
        let mut steps: Vec<usize> = (0..self.case().steps.len()).collect();
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.remove(at);
            let pick = Self {
                steps: Some(fewer.clone()),
                ..self.clone()
            };
            match play(machine, &pick.case()) {
                Err(same) if same.flaw == found.flaw => {
                    (found, steps) = (same, fewer);
                    // What came before may be needless now.
                    at = 0;
                }
                _ => at += 1,
            }
        }
        self.steps = Some(steps);
        Failed {
            case: self.case(),
            pick: self,
            found,
        }
    }
}

/// As the command takes it.
impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {} --case {}", self.seed, self.number)?;
        match &self.steps {
            None => Ok(()),
            Some(steps) => {
                let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
                write!(f, " --steps \"{}\"", steps.join(","))
            }
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pick, case, found } = self;
        write!(f, "{found}\n{case}  replay: embudo fuzz {pick}")
    }
}
