//! `make bench` in little: every figure is there, and what Embudo does not touch never enters its VM. What the
//! figures have to be is not asked here, since tests run side by side.

use std::time::Duration;

use anyhow::Result;
use embudo::live::bench::{self, BenchOptions};

#[tokio::test(flavor = "multi_thread")]
async fn bench_is_complete_and_untouched_routes_stay_out_of_the_vm() -> Result<()> {
    let options = BenchOptions {
        rounds: 1,
        rate: 1000.0,
        stream: Duration::from_millis(100),
        burst: 200,
        warm_up: 200,
        sessions: [100, 200, 300],
    };
    let report = bench::run(&options, |line| println!("{line}")).await?;

    let names: Vec<_> = report.arms.iter().map(|arm| arm.name.as_str()).collect();
    let expected = [
        "direct_response",
        "floor",
        "duplicate",
        "new",
        "kept_read",
        "without_embudo",
        "untouched",
        "duplicate_200",
        "new_200",
        "duplicate_300",
        "new_300",
    ];
    assert_eq!(names, expected);
    // One round; what came before, to warm up, does not count.
    let requests = 100 + 200;
    for arm in &report.arms {
        assert!(
            arm.cpu_us > 0.0 && arm.p50_us > 0.0 && arm.p99_us >= arm.p50_us,
            "{arm:?}"
        );
        let enters = ["duplicate", "new", "kept"];
        let enters = enters.iter().any(|name| arm.name.starts_with(name));
        assert_eq!(arm.entered_vm, if enters { requests } else { 0 }, "{arm:?}");
    }
    for judged in report.judged() {
        assert!(judged.found.is_finite(), "{judged:?}");
    }
    Ok(())
}
