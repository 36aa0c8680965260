//! Everything that can go wrong, overlapping as a seed has it, and none of the guarantees gives way. `make chaos` is
//! the same for ten minutes, with more sessions and with Embudo's shipped times.

use anyhow::Result;
use embudo::live::chaos::{self, ChaosOptions};

/// A seed under which a hanging call would do harm if its session were free too early: with `late_ms` at 0, this
/// run finds older values after newer ones.
const OPTIONS: ChaosOptions = ChaosOptions {
    seconds: 60,
    sessions: 300,
    seed: 2,
};

#[tokio::test(flavor = "multi_thread")]
async fn chaos_for_a_minute_breaks_no_guarantee() -> Result<()> {
    let report = chaos::run(&OPTIONS, |line| println!("{line}")).await?;

    assert_eq!(
        report.failures(),
        Vec::<String>::new(),
        "every guarantee holds: {report:#?}"
    );
    assert!(
        report.updates > 3_000,
        "there was a load, and not only {} updates",
        report.updates
    );
    Ok(())
}
