//! The shard's protocol, explored: two workers, two dispatchers, a Laravel that fails in every way.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a model that is wrong about itself should stop"
)]

mod model;

use std::collections::BTreeMap;

use model::explore::explore;
use model::mutation::Mutation;
use model::step::{Grain, Protocol};
use model::story;

/// Explores the protocol as it is, and stops at the first thing that is wrong with it.
fn explore_all(grain: Grain, offers: u8) {
    let mut protocol = Protocol::new(grain, None);
    let found = explore(&mut protocol, offers);
    println!(
        "{grain:?}, {offers} updates: {} states, {} steps, {} records",
        found.states, found.steps, found.records
    );
    let story = found
        .counterexample
        .map(|example| story::tell(&mut protocol, offers, &example));
    assert_eq!(
        story.as_deref(),
        None,
        "\n{}",
        story.as_deref().unwrap_or_default()
    );
    let mut kinds = BTreeMap::<_, u64>::new();
    for (action, count) in found.taken {
        *kinds.entry(action.kind()).or_default() += count;
    }
    for (kind, count) in kinds {
        println!("{count:>12}  {kind}");
    }
}

#[test]
fn no_interleaving_loses_overtakes_or_blocks_an_update() {
    let offers = std::env::var("OFFERS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3);
    let grain = if std::env::var("FINE").is_ok() {
        Grain::Fine
    } else {
        Grain::Coarse
    };
    explore_all(grain, offers);
}

#[test]
fn every_rule_of_the_protocol_is_needed() {
    let offers = std::env::var("OFFERS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3);
    let grain = if std::env::var("FINE").is_ok() {
        Grain::Fine
    } else {
        Grain::Coarse
    };
    for mutation in Mutation::ALL {
        let mut protocol = Protocol::new(grain, Some(mutation));
        let found = explore(&mut protocol, offers);
        match found.counterexample {
            Some(example) => {
                let story = story::tell(&mut protocol, offers, &example);
                println!("{mutation:?} ({} states)\n{story}", found.states);
            }
            None => println!("{mutation:?} SURVIVES {} states\n", found.states),
        }
    }
}
