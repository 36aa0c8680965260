//! Less of a scenario that failed: as few sessions and faults, and as short, as still fail.
//!
//! A cut names what is kept by its place in the seed's own scenario, so that the whole of it fits into
//! a line that replays it.

use std::fmt;

use super::{Detail, Failure, Machine, Scenario, run};

/// Runs that one shrinking may cost.
const RUNS_MAX: usize = 150;

/// What is left of a seed's scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// The seed.
    pub seed: u64,
    /// Sessions that are kept, by number; `None` is all.
    pub sessions: Option<Vec<usize>>,
    /// Faults that are kept, by place; `None` is all.
    pub faults: Option<Vec<usize>>,
    /// When the traffic ends, if sooner.
    pub until_ms: Option<u64>,
}

// === impl Cut ===

impl Cut {
    /// All of a seed's scenario.
    #[must_use]
    pub fn none(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// What is left.
    #[must_use]
    pub fn scenario(&self) -> Scenario {
        let mut scenario = Scenario::of_seed(self.seed);
        if let Some(kept) = &self.sessions {
            scenario.sessions.retain(|plan| kept.contains(&plan.index));
        }
        if let Some(kept) = &self.faults {
            let mut at = 0..;
            scenario
                .faults
                .retain(|_| at.next().is_some_and(|at| kept.contains(&at)));
        }
        if let Some(until_ms) = self.until_ms {
            scenario.traffic_ms = scenario.traffic_ms.min(until_ms);
            scenario.faults.retain(|fault| fault.at_ms <= until_ms);
        }
        scenario
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {}", self.seed)?;
        let list = |all: &[usize]| {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            all.join(",")
        };
        if let Some(kept) = &self.sessions {
            write!(f, " --sessions {}", list(kept))?;
        }
        if let Some(kept) = &self.faults {
            write!(f, " --faults '{}'", list(kept))?;
        }
        match self.until_ms {
            Some(until_ms) => write!(f, " --until {until_ms}"),
            None => Ok(()),
        }
    }
}

/// Shrinks a failing seed. `change` is laid over every scenario, as a sabotage is. Gives what is left
/// and how it fails; nothing of it need be the same failure as at first, only a failure it must be.
#[must_use]
pub fn shrink(
    machine: &Machine,
    seed: u64,
    failure: &Failure,
    change: &dyn Fn(&mut Scenario),
) -> (Cut, Failure) {
    let whole = Scenario::of_seed(seed);
    let mut best = Cut::none(seed);
    let mut found = failure.clone();
    let mut runs = 0;
    let mut fails = |cut: &Cut| {
        runs += 1;
        if runs > RUNS_MAX {
            return None;
        }
        let mut scenario = cut.scenario();
        if scenario.sessions.is_empty() {
            return None;
        }
        change(&mut scenario);
        run(machine, &scenario, Detail::Hash).ok()?.failure
    };
    let mut keep = |cut: Cut, best: &mut Cut| match fails(&cut) {
        Some(failure) => {
            *best = cut;
            found = failure;
            true
        }
        None => false,
    };
    // Nothing after the failure matters, most of the time.
    let at_ms = failure.at_us.saturating_sub(super::world::START_US) / 1000;
    keep(
        Cut {
            until_ms: Some(at_ms + 1),
            ..best.clone()
        },
        &mut best,
    );
    let mut faults: Vec<usize> = (0..whole.faults.len()).collect();
    for at in (0..faults.len()).rev() {
        let mut fewer = faults.clone();
        fewer.remove(at);
        let cut = Cut {
            faults: Some(fewer.clone()),
            ..best.clone()
        };
        if keep(cut, &mut best) {
            faults = fewer;
        }
    }
    let mut sessions: Vec<usize> = whole.sessions.iter().map(|plan| plan.index).collect();
    for at in (0..sessions.len()).rev() {
        let mut fewer = sessions.clone();
        fewer.remove(at);
        let cut = Cut {
            sessions: Some(fewer.clone()),
            ..best.clone()
        };
        if keep(cut, &mut best) {
            sessions = fewer;
        }
    }
    for percent in [50, 75, 90] {
        let until_ms = best.until_ms.unwrap_or(whole.traffic_ms) * percent / 100;
        let cut = Cut {
            until_ms: Some(until_ms),
            ..best.clone()
        };
        keep(cut, &mut best);
    }
    (best, found)
}
