//! The shard's protocol, explored: two workers, two dispatchers, a Laravel that fails in every way.
//!
//! Two dispatchers believe that they lead, at any time; any VM may die, any clock may be late, any answer
//! may be a failure, come late or never; and the gateway may post any updates of one session. What the
//! core makes of it is the core's own code: [`model`] only decides who is next. What is written through, by a proven
//! caller or a stranger, at once or held, is explored beside it, in [`model::through`].
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
use model::through::{self, Cast};
use model::value::Value;

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

/// Of one proven caller, and of a stranger: how many updates may be offered, and written through, and what they say.
const fn cast(
    [offers, throughs, strangers]: [u8; 3],
    values: &'static [Value],
    strange: &'static [Value],
) -> Cast {
    Cast {
        offers,
        throughs,
        strangers,
        values,
        strange,
    }
}

/// Explores everything that a cast can lead to, and fails with the story of the first thing that is wrong.
fn explore_throughs(cast: Cast) -> through::explore::Found {
    let mut protocol = through::Protocol::new(cast, None);
    let found = through::explore::explore(&mut protocol);
    println!(
        "{cast:?}: {} worlds, {} steps, {} records; held for {} ticks",
        found.worlds,
        found.steps,
        protocol.records.len(),
        found.held_ticks
    );
    if let Some(example) = &found.counterexample {
        let story = through::story::tell(&mut protocol, example);
        assert_eq!(None, Some(example.0), "\n{story}");
    }
    // `hold_ms`, and a second for each before it.
    let most = u32::from(cast.throughs + cast.strangers);
    assert!(found.held_ticks <= most, "held for too long");
    found
}

#[test]
fn nor_does_any_of_what_is_written_through_or_held_or_a_strangers() {
    use Value::*;
    let mut tried = BTreeMap::<_, u64>::new();
    for cast in [
        cast([1, 1, 1], &[QrA, Connecting], &[Active]),
        cast([2, 0, 1], &[QrA, Connecting], &[Active]),
        cast([2, 0, 1], &[Connecting, Active], &[Connecting]),
        cast([2, 0, 1], &[QrA, Pending], &[QrA]),
        cast([2, 1, 0], &[Connecting, Active], &[]),
        cast([2, 1, 0], &[QrA, Pending], &[]),
        cast([1, 2, 0], &[QrA, Connecting], &[]),
        cast([0, 3, 0], &[Connecting], &[]),
        cast([1, 0, 2], &[Connecting], &[Connecting]),
        cast([2, 0, 2], &[Connecting], &[Active]),
    ] {
        let found = explore_throughs(cast);
        for (kind, count) in found.taken {
            *tried.entry(kind).or_default() += count;
        }
    }
    for (kind, count) in &tried {
        println!("{count:>12}  {kind}");
    }
    assert_eq!(tried.len(), 16, "the model never tries some of it");
}

#[test]
#[ignore = "takes some seconds, and a gigabyte"]
fn nor_does_any_of_all_three_with_a_repetition() {
    use Value::*;
    explore_throughs(cast([2, 1, 1], &[Connecting], &[Connecting]));
    explore_throughs(cast([2, 1, 1], &[Connecting], &[Active]));
}

#[test]
fn without_any_one_of_the_rules_for_what_is_written_through_this_check_says_how_it_fails() {
    use Value::*;
    use through::{Broken::*, Mutation::*};
    let expected = [
        (HeldWithoutPlace, [2, 1, 0], OlderAfterNewer),
        (PlaceWithoutEnd, [1, 2, 0], Stuck),
        (ClaimPastPlaces, [2, 1, 0], OlderAfterNewer),
        (ThroughOverQueued, [1, 1, 0], OlderAfterNewer),
        (TurnDespiteClaim, [0, 2, 0], ClaimOverLiveClaim),
        (LateIsInOrder, [2, 1, 0], OlderAfterNewer),
        (StrangerClaims, [1, 0, 1], HeldUpByStranger),
        (UnknownIsDefinite, [1, 1, 0], Overlap),
        (StrangersUnknownIsDefinite, [2, 0, 1], NoDuplicate),
        (StrangerLeavesVerified, [2, 0, 1], NoDuplicate),
        (QueuedInPlaceVerified, [2, 0, 2], NoDuplicate),
    ];
    let mut all = BTreeMap::new();
    for (mutation, numbers, broken) in expected {
        // What is said of a QR that is queued before another caller's state is not promised: see `through`.
        let values: &[Value] = match mutation {
            QueuedInPlaceVerified => &[Connecting],
            _ => &[QrA, Connecting],
        };
        let cast = cast(numbers, values, &[Active]);
        let mut protocol = through::Protocol::new(cast, Some(mutation));
        let found = through::explore::explore(&mut protocol);
        let example = found.counterexample.as_ref();
        let story = example.map(|example| through::story::tell(&mut protocol, example));
        println!(
            "{mutation:?}, after {} worlds:\n{}",
            found.worlds,
            story.as_deref().unwrap_or("  NOT FOUND\n")
        );
        let name = format!("{mutation:?}");
        all.insert(name, (broken, example.map(|(broken, _)| *broken)));
    }
    for (mutation, (expected, found)) in all {
        assert_eq!(found, Some(expected), "{mutation}");
    }
}
