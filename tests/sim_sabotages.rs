//! The checker bites: every rule that is broken on purpose is noticed, at the seed where it was before.

use embudo::live::{paths, wasm};
use embudo::sim::sabotage::{self, Caught};
use embudo::sim::{Detail, Machine, Scenario};

#[test]
fn every_sabotage_is_noticed_at_its_seed() {
    let path = wasm::sabotaged().expect("the sabotaged module builds");
    let machine = Machine::new(&std::fs::read(path).expect("it is there")).expect("it links");
    let recorded =
        sabotage::recorded(&paths::root().join("tests/sabotages.txt")).expect("readable");
    let mut at_large = Vec::new();
    for name in sabotage::names() {
        let Some((_, seed)) = recorded.iter().find(|(known, _)| known == name) else {
            at_large.push(format!(
                "{name} has no seed: `embudo sim --sabotages` finds one"
            ));
            continue;
        };
        let mut scenario = Scenario::of_seed(*seed);
        let whole = embudo::sim::run(&machine, &scenario, Detail::Hash).expect("it runs");
        if let Some(failure) = whole.failure {
            at_large.push(format!("{name}: seed {seed} fails without it: {failure}"));
        }
        scenario.config["sabotage"] = name.into();
        let broken = embudo::sim::run(&machine, &scenario, Detail::Hash).expect("it runs");
        if broken.failure.is_none() {
            // The generator of scenarios has changed, perhaps: another seed will do.
            match sabotage::search(&machine, name, None) {
                Caught {
                    by: Some((seed, _)),
                    ..
                } => {
                    at_large.push(format!(
                        "{name} is noticed at another seed by now: {name} {seed}"
                    ));
                }
                Caught { by: None, .. } => at_large.push(format!("{name} is not noticed any more")),
            }
        }
    }
    assert!(at_large.is_empty(), "{}", at_large.join("\n"));
}
