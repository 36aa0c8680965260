//! The dispatcher over a store that another program has written into.

use super::world::World;
use super::*;

#[test]
fn shards_that_cannot_be_read_are_one_line_and_no_hindrance() {
    let mut world = World::new(r#"{"max_sessions":16}"#);
    let spoiled = world.keys.shard(0);
    world.store.put(&spoiled, b"x", Expect::Absent).unwrap();
    let sessions: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    let replies: Vec<Reply> = sessions
        .iter()
        .map(|s| world.post("qr", s, "2@x"))
        .collect();
    let passed = Reply::Bypass(embudo_core::route::Bypass::Store);
    assert!(replies.iter().all(|r| [Reply::Queued, passed].contains(r)));
    assert!(replies.contains(&Reply::Queued) && replies.contains(&passed));
    world.deliver_for(20_000);
    assert_eq!(
        world.ends(End::Delivered),
        replies.iter().filter(|r| **r == Reply::Queued).count(),
        "the other shard is served"
    );
    let errors = |effect: &&Effect| matches!(effect, Effect::Log(Level::Error, _));
    assert_eq!(world.effects.iter().filter(errors).count(), 1);
}

#[test]
fn claims_that_were_spoiled_do_not_take_up_the_calls_under_way_for_ever() {
    use embudo_core::shard::{Claim, Session};
    let mut world = World::new(r#"{"max_sessions":16}"#);
    let claimed = |n: u64| Session {
        claim: Some(Claim {
            id: ClaimId {
                epoch: 99,
                counter: n,
            },
            route: "qr".into(),
            caller: 0,
            seq: 0,
            deadline_ms: u64::MAX,
        }),
        ..Session::new(u128::from(n), 0)
    };
    let shard = Shard {
        sessions: (0..12).map(claimed).collect(),
        ..Shard::default()
    };
    let key = world.keys.shard(0);
    world
        .store
        .put(&key, &shard.encode(), Expect::Absent)
        .unwrap();
    world.advance(1_000);
    for n in 0..8 {
        assert_eq!(world.post("qr", &format!("s{n}"), "2@x"), Reply::Queued);
    }
    world.deliver_for(10_000);
    assert_eq!(world.ends(End::Delivered), 8);
}
