//! The checker bites: every rule that is broken on purpose is noticed, by the seed or the scenario that noticed it
//! before.

use anyhow::{Context as _, Result};
use embudo::live::{paths, wasm};
use embudo::sim::Machine;
use embudo::sim::sabotage::{self, Bait, Caught};

#[test]
fn every_sabotage_is_noticed_where_it_was_before() -> Result<()> {
    let machine = Machine::new(&std::fs::read(wasm::sabotaged()?)?)?;
    let recorded = sabotage::recorded(&paths::root().join("tests/sabotages.txt"))?;
    let mut at_large = Vec::new();
    for name in sabotage::names() {
        let known = recorded.iter().find(|(known, _)| known == name);
        let Some((_, bait)) = known else {
            at_large.push(format!(
                "{name} has no seed: `embudo sim --sabotages` finds one"
            ));
            continue;
        };
        if let Some(failure) = sabotage::tried(&machine, bait, None)? {
            at_large.push(format!("{name}: {bait} fails without it: {failure}"));
        }
        let caught = sabotage::tried(&machine, bait, Some(name));
        if caught.with_context(|| name.to_owned())?.is_some() {
            continue;
        }
        if let Bait::File(file) = bait {
            at_large.push(format!("{name} is not noticed by {file} any more"));
            continue;
        }
        // The generator of scenarios has changed, perhaps: another seed will do.
        match sabotage::search(&machine, name, None)? {
            Caught {
                by: Some((bait, _)),
                ..
            } => at_large.push(format!(
                "{name} is noticed at another seed by now: {name} {bait}"
            )),
            Caught { by: None, .. } => at_large.push(format!("{name} is not noticed any more")),
        }
    }
    assert!(at_large.is_empty(), "{}", at_large.join("\n"));
    Ok(())
}
