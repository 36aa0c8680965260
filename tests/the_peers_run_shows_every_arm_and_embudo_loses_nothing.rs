//! A short form of `make peers`: every arm lives through everything, and Embudo loses and overtakes nothing. Who is
//! faster, or cheaper, is for the long form on a machine that does nothing else.

use anyhow::{Context as _, Result};
use embudo::live::peers::{self, Arm, Name, Plan};

#[tokio::test(flavor = "multi_thread")]
async fn the_peers_run_shows_every_arm_and_embudo_loses_nothing() -> Result<()> {
    let report = peers::run(&Plan::short(1), |line| println!("{line}")).await?;

    for phase in [Name::Lone, Name::Crowd, Name::Outage, Name::Poison] {
        let of = |arm| {
            let figures = report.of(phase, arm);
            figures.with_context(|| format!("{phase} shows nothing of {arm:?}"))
        };
        let direct = of(Arm::Direct)?;
        for arm in [Arm::Batcher, Arm::Embudo] {
            let figures = of(arm)?;
            assert_eq!(
                figures.events, direct.events,
                "{phase}: {arm:?} is told the same"
            );
            assert!(
                figures.laravel_requests > 0 && figures.laravel_requests < direct.laravel_requests,
                "{phase}: {arm:?} reaches Laravel, with fewer requests: {figures:#?}"
            );
            assert!(
                figures.accepted > 0 && figures.memory_mb > 0.0,
                "{figures:#?}"
            );
            assert!(
                figures.compared > 0,
                "{phase}: the ends of {arm:?}: {figures:#?}"
            );
        }
    }
    for criterion in report.invariants() {
        assert!(criterion.holds(), "{criterion:?} of {report:#?}");
    }
    let poison = report.of(Name::Poison, Arm::Embudo).context("poison")?;
    assert!(
        poison.refusals > 0,
        "Laravel did refuse its poison: {poison:#?}"
    );
    Ok(())
}
