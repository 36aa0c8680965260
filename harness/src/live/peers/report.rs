//! All of it, and what must hold.

use std::collections::BTreeMap;

use serde::Serialize;

use super::arm::Arm;
use super::figures::Figures;
use super::phase::{Name, Plan};

/// Of everything between the gateway and Laravel, Embudo may use so much of what the batcher uses.
const CPU_MAX: f64 = 0.5;

/// A lone session's QR may be so old, in ms, whatever it is with the batcher.
const LONE_STALENESS_MAX_MS: f64 = 400.0;

/// And in a crowd, as a part of what it is with the batcher.
const CROWD_STALENESS_MAX: f64 = 1.1;

/// The figures of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PeersReport {
    /// Decided the traffic.
    pub seed: u64,
    /// By phase, and in it by arm.
    pub phases: BTreeMap<Name, BTreeMap<Arm, Figures>>,
}

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Criterion {
    /// What.
    pub what: String,
    /// Embudo's figure.
    pub found: f64,
    /// The most that it may be.
    pub most: f64,
}

/// A figure in a phase, and how much of the batcher's it may be.
type Compared = (Name, &'static str, f64, fn(&Figures) -> Option<f64>);

// === impl Criterion ===

impl Criterion {
    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.found <= self.most
    }
}

// === impl PeersReport ===

impl PeersReport {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            phases: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, phase: Name, arm: Arm, figures: Figures) {
        self.phases.entry(phase).or_default().insert(arm, figures);
    }

    /// The figures of an arm in a phase.
    pub fn of(&self, phase: Name, arm: Arm) -> Option<&Figures> {
        self.phases.get(&phase)?.get(&arm)
    }

    /// What must hold of Embudo whatever the machine: nothing lost, nothing overtaken.
    pub fn invariants(&self) -> Vec<Criterion> {
        let mut criteria = Vec::new();
        for (phase, arms) in &self.phases {
            let Some(embudo) = arms.get(&Arm::Embudo) else {
                continue;
            };
            for (what, found) in [("lost", embudo.lost), ("out of order", embudo.out_of_order)] {
                criteria.push(Criterion {
                    what: format!("{phase}: values {what}"),
                    found: found as f64,
                    most: 0.0,
                });
            }
        }
        criteria
    }

    /// What must hold: the invariants, and Embudo beside the batcher.
    pub fn criteria(&self) -> Vec<Criterion> {
        let compared: [Compared; 3] = [
            (Name::Crowd, "requests at Laravel", 1.0, |figures| {
                Some(figures.laravel_requests as f64)
            }),
            (
                Name::Crowd,
                "CPU s between gateway and Laravel for 1,000 events",
                CPU_MAX,
                |figures| Some(figures.cpu_s_per_1000_events?.middle),
            ),
            (
                Name::Crowd,
                "staleness p50, ms",
                CROWD_STALENESS_MAX,
                |figures| Some(figures.staleness_ms_p50 as f64),
            ),
        ];
        let mut criteria = self.invariants();
        criteria.extend(self.of(Name::Lone, Arm::Embudo).map(|embudo| Criterion {
            what: format!("{}: staleness p50, ms", Name::Lone),
            found: embudo.staleness_ms_p50 as f64,
            most: LONE_STALENESS_MAX_MS,
        }));
        for (phase, what, of_the_batchers, figure) in compared {
            let arms = [Arm::Embudo, Arm::Batcher].map(|arm| self.of(phase, arm).and_then(figure));
            if let [Some(found), Some(batchers)] = arms {
                criteria.push(Criterion {
                    what: format!("{phase}: {what}; {of_the_batchers} × the batcher's"),
                    found,
                    most: batchers * of_the_batchers,
                });
            }
        }
        criteria
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::Cpu;
    use super::*;

    /// What makes a figure of a phase worse than it may be.
    type Break = (Name, fn(&mut Figures));

    fn middle(seconds: f64) -> Option<Cpu> {
        Some(Cpu {
            middle: seconds,
            ..Cpu::default()
        })
    }

    fn report() -> PeersReport {
        let mut report = PeersReport::default();
        for phase in [Name::Lone, Name::Crowd, Name::Outage, Name::Poison] {
            let mut batcher = Figures {
                laravel_requests: 100,
                staleness_ms_p50: 1_000,
                lost: 3,
                ..Figures::default()
            };
            batcher.cpu_s_per_1000_events = middle(1.0);
            let mut embudo = Figures {
                staleness_ms_p50: 400,
                lost: 0,
                ..batcher.clone()
            };
            embudo.cpu_s_per_1000_events = middle(0.5);
            report.add(phase, Arm::Batcher, batcher);
            report.add(phase, Arm::Embudo, embudo);
        }
        report
    }

    fn broken(report: &PeersReport) -> Vec<String> {
        let criteria = report.criteria().into_iter();
        criteria.filter(|c| !c.holds()).map(|c| c.what).collect()
    }

    #[test]
    fn what_is_exactly_good_enough_passes_and_the_batchers_losses_are_its_own() {
        assert_eq!(broken(&report()), Vec::<String>::new());
        assert_eq!(report().criteria().len(), 12);
    }

    #[test]
    fn each_figure_that_is_worse_breaks_a_criterion_of_its_own() {
        let breaks: [Break; 6] = [
            (Name::Crowd, |f| f.laravel_requests = 101),
            (Name::Crowd, |f| f.cpu_s_per_1000_events = middle(0.51)),
            (Name::Crowd, |f| f.staleness_ms_p50 = 1_101),
            (Name::Lone, |f| f.staleness_ms_p50 = 401),
            (Name::Outage, |f| f.lost = 1),
            (Name::Poison, |f| f.out_of_order = 1),
        ];
        for (phase, break_it) in breaks {
            let mut report = report();
            let arms = report.phases.get_mut(&phase).expect("a phase");
            break_it(arms.get_mut(&Arm::Embudo).expect("an arm"));
            assert_eq!(broken(&report).len(), 1, "{phase}: {:?}", broken(&report));
        }
    }
}
