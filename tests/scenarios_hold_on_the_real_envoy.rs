//! Every scenario in `tests/data`, on a real Envoy.

use std::cmp::Reverse;
use std::path::Path;

use anyhow::Result;
use embudo::check::check;
use embudo::live;
use embudo::scenario::Scenario;
use futures::StreamExt as _;

/// Envoys side by side: each has two workers, and the machine may have two cores; but most of their time they wait.
const AT_ONCE: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_holds() -> Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut paths = Scenario::all_in(&dir)?;
    assert!(
        paths.len() >= 8,
        "only {} scenarios in {}",
        paths.len(),
        dir.display()
    );

    // The longest first: one that began last would keep everybody waiting.
    paths.sort_by_cached_key(|path| Reverse(Scenario::load(path).map_or(0, |s| s.seconds)));
    let results: Vec<(String, Result<Vec<String>>)> = futures::stream::iter(paths)
        .map(|path| async move {
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let failures = async {
                let scenario = Scenario::load(&path)?;
                let outcome = live::scenario::run(&scenario).await?;
                let mut failures: Vec<String> = check(&scenario, &outcome)
                    .into_iter()
                    .map(|f| format!("{}: {}", f.rule, f.what))
                    .collect();
                if !failures.is_empty() {
                    failures.push(format!("it measured {:?}", outcome.measures));
                }
                Ok(failures)
            };
            (name, failures.await)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;

    let mut wrong = Vec::new();
    for (name, failures) in results {
        let failures = failures.unwrap_or_else(|error| vec![format!("{error:#}")]);
        wrong.extend(failures.iter().map(|failure| format!("{name}: {failure}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
