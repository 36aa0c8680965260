//! Embudo beside what it is to be better than, driven by the same events against the same Laravel.
//!
//! Three arms: the gateway straight to Laravel; a gateway that batches by itself, a program of Node with a cache in
//! Redis (`harness/peers/batcher`); and Embudo in Envoy. Every arm lives through the same phases, each with a
//! Laravel and a middle of its own.
//!
//! # What is fair
//!
//! The batcher is a part of its gateway, so its events come over a pipe and not over HTTP: a line for an event and a
//! line back. What that costs it is small, and less than the three requests for which Envoy is charged in the other
//! arm. All of its batches, reads and answers go to Laravel as they would. Where Laravel is the same and sleeps for
//! its work, arms do not disturb each other, and a phase in which no CPU is compared runs all of them at once.
//!
//! # Layout
//!
//! * `phase`: what the arms live through.
//! * `arm`: one arm in one phase.
//! * `batcher`: the batcher and its Redis as processes, and their load.
//! * `stand_in`: the Laravel, on threads whose CPU can be told from the gateway's.
//! * `figures`: what is measured of an arm in a phase.
//! * `report`: all of it, and what must hold.

mod arm;
mod batcher;
mod figures;
mod phase;
mod report;
mod stand_in;

use anyhow::Result;

pub use self::arm::Arm;
pub use self::figures::{Cpu, Figures};
pub use self::phase::{Name, Plan};
pub use self::report::{Criterion, PeersReport};
use super::envoy::{Envoy, EnvoyOptions};

/// Runs all phases of the plan, and tells `tell` what begins.
///
/// # Errors
/// If something cannot be started, or dies. What does not hold is no error: [`PeersReport::criteria`] says it.
pub async fn run(plan: &Plan, mut tell: impl FnMut(&str)) -> Result<PeersReport> {
    tell("setting up");
    Envoy::prepare(&EnvoyOptions::new("peers", stand_in::NOWHERE)).await?;
    let tools = tokio::task::spawn_blocking(batcher::Tools::find_or_install).await??;
    let mut report = PeersReport::new(plan);
    let (one_by_one, at_once): (Vec<_>, Vec<_>) =
        plan.phases.iter().partition(|phase| phase.compares_cpu);
    for phase in one_by_one {
        for arm in Arm::ALL {
            tell(&format!("{}: {}", phase.name, arm.name()));
            let figures = arm::live_through(arm, phase, plan, &tools).await?;
            report.add(phase.name, arm, figures);
        }
    }
    let names: Vec<_> = at_once.iter().map(|phase| phase.name.to_string()).collect();
    tell(&format!("{}: all arms at once", names.join(", ")));
    let all = at_once
        .into_iter()
        .flat_map(|phase| Arm::ALL.map(|arm| (phase, arm)));
    let all = all.map(async |(phase, arm)| {
        let figures = arm::live_through(arm, phase, plan, &tools).await?;
        anyhow::Ok((phase.name, arm, figures))
    });
    for (name, arm, figures) in futures::future::try_join_all(all).await? {
        report.add(name, arm, figures);
    }
    Ok(report)
}
