//! The shard's protocol, explored: two workers, two dispatchers, a Laravel that fails in every way.
//!
//! Two dispatchers believe that they lead, at any time; any VM may die, any clock may be late, any answer
//! may be a failure, come late or never; and the gateway may post any updates of one session. What the
//! core makes of it is the core's own code: [`model`] only decides who is next.
//!
//! Then the check is checked. Each rule of the protocol is taken away once, and what goes wrong without
//! it has to be found. `cargo test --test the_record_protocol_is_exhaustively_checked -- --nocapture`
//! prints how.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a model that is wrong about itself should stop"
)]

mod model;

use std::collections::{BTreeMap, BTreeSet};

use model::action::{Grain, Scale};
use model::explore::{Found, explore};
use model::mutation::Mutation;
use model::state::State;
use model::step::{Broken, Protocol};
use model::story;

/// Explores, and fails with the story of the first thing that is wrong.
fn explore_all(protocol: &mut Protocol, offers: u8) -> Found {
    let found = explore(protocol, offers);
    println!(
        "{:?}, {:?}, {offers} updates: {} states, {} steps, {} records",
        protocol.grain, protocol.scale, found.states, found.steps, found.records
    );
    if let Some(example) = &found.counterexample {
        let story = story::tell(protocol, offers, example);
        println!("{story}");
        assert_eq!(None, Some(example.broken), "\n{story}");
    }
    let mut kinds = BTreeMap::<_, u64>::new();
    for (action, count) in &found.taken {
        *kinds.entry(action.kind()).or_default() += count;
    }
    for (kind, count) in kinds {
        println!("{count:>12}  {kind}");
        let tried = count > 0 || (protocol.grain == Grain::Coarse && kind.ends_with(" writes"));
        assert!(tried, "{kind}: the model never tries it");
    }
    found
}

#[test]
fn no_order_of_events_loses_overtakes_or_blocks_an_update() {
    for scale in [Scale::LongCall, Scale::LongWindow] {
        explore_all(&mut Protocol::new(Grain::Coarse, scale, None), 3);
    }
}

#[test]
fn a_get_and_its_put_may_be_taken_for_one_step() {
    let mut protocol = Protocol::new(Grain::Fine, Scale::LongCall, None);
    let fine = explore_all(&mut protocol, 2);
    protocol.grain = Grain::Coarse;
    // Two offers that overlap may be stored in either order.
    protocol.names_in_order = false;
    let coarse: BTreeSet<u128> = explore_all(&mut protocol, 2).keys.into_iter().collect();
    let between = fine
        .keys
        .iter()
        .filter(|key| State::unpack(**key).is_between_swaps());
    let missed = between.filter(|key| !coarse.contains(key)).count();
    assert_eq!(missed, 0, "states that only the finer steps reach");
}

#[test]
#[ignore = "takes some minutes and some gigabytes"]
fn no_finer_order_of_three_updates_does_either() {
    explore_all(&mut Protocol::new(Grain::Fine, Scale::LongCall, None), 3);
}

#[test]
#[ignore = "takes some minutes and some gigabytes"]
fn no_order_of_four_updates_does_either() {
    explore_all(&mut Protocol::new(Grain::Coarse, Scale::LongCall, None), 4);
}

#[test]
fn without_any_one_of_its_rules_the_protocol_fails_and_this_check_says_how() {
    use Broken::*;
    use Grain::{Coarse, Fine};
    use Mutation::*;
    let expected = [
        (SettleWithoutId, Fine, 1, Overlap),
        (ClaimNamedBySeq, Fine, 1, Overlap),
        (ForeignClaimsIgnored, Fine, 1, ClaimOverLiveClaim),
        (UnknownIsDefinite, Fine, 1, Overlap),
        (UnknownIsDelivered, Fine, 1, LaravelEndsElsewhere),
        (DeadlineWithoutLateness, Fine, 1, Overlap),
        (ClaimForEver, Fine, 1, Stuck),
        (NoSendCheck, Fine, 1, Overlap),
        (WindowFromWrite, Fine, 1, Overlap),
        (NewestFirst, Fine, 2, OlderAfterNewer),
        (CleanWhateverIsThere, Fine, 2, LaravelEndsElsewhere),
        (IntakePutsBlindly, Fine, 2, LaravelEndsElsewhere),
        (DispatcherPutsBlindly, Fine, 2, Overlap),
        (AnswerBeforeWrite, Fine, 1, LaravelEndsElsewhere),
        (DuplicateOfAnythingSeen, Coarse, 3, NoDuplicate),
        (NothingIsVoid, Coarse, 3, NoDuplicate),
        (VoidOnlyWhatIsUnsent, Coarse, 3, NoDuplicate),
        (ImpliedByAnyQr, Coarse, 3, NoDuplicate),
        (ExpireDespiteClaim, Fine, 1, ExpiredUnderWay),
        (ExpireToClean, Fine, 2, NoDuplicate),
        (ImpliedDiesWithQr, Fine, 1, LaravelEndsElsewhere),
        (NothingExpires, Fine, 1, Stuck),
    ];
    let mut all = BTreeMap::new();
    for (mutation, grain, offers, broken) in expected {
        let mut protocol = Protocol::new(grain, Scale::LongCall, Some(mutation));
        let found = explore(&mut protocol, offers);
        let story = found
            .counterexample
            .as_ref()
            .map(|example| story::tell(&mut protocol, offers, example));
        println!(
            "{mutation:?}, after {} states:\n{}",
            found.states,
            story.as_deref().unwrap_or("  NOT FOUND\n")
        );
        all.insert(
            format!("{mutation:?}"),
            (broken, found.counterexample.map(|found| found.broken)),
        );
    }
    for (mutation, (expected, found)) in all {
        assert_eq!(found, Some(expected), "{mutation}");
    }
}
