//! Another backend in the configuration, and a leader that has to go.

use super::world::{IMPLIES, OK, World};
use super::*;

/// Changes what the leader is configured to call, and what it stands for.
fn calls(world: &mut World, cluster: &str, id: u64) {
    world.rules.config.upstream.cluster = cluster.into();
    let mark = cluster_mark(&world.rules, cluster);
    let lease_ms = world.rules.config.times.lease_ms;
    let candidate = Candidate::new(id, id, world.now.mono_ms, lease_ms).calling(mark);
    world.dispatcher = Dispatcher::new(world.rules.clone(), world.keys.clone(), candidate, id);
}

/// Another root that stands for a cluster.
fn stands(world: &World, cluster: &str) -> Candidate {
    let mark = cluster_mark(&world.rules, cluster);
    let lease_ms = world.rules.config.times.lease_ms;
    Candidate::new(99, 7, 100_000, lease_ms).calling(mark)
}

#[test]
fn an_item_goes_to_its_own_cluster_while_a_root_stands_for_that() {
    let mut world = World::new("{}");
    world.to_cluster = "other".into();
    let mut other = stands(&world, "other");
    world.post("qr", "a", "2@x");
    let mut clusters = Vec::new();
    for n in 0..20 {
        other.tick(&mut world.store, &world.keys, world.now.mono_ms);
        world.post("qr", "a", &format!("2@{n}"));
        world.advance(500);
        while let Some((_, call)) = world.made.pop_front() {
            world.answer(&call, 200, OK);
            clusters.push(call.cluster);
        }
    }
    assert!(clusters.len() >= 2 && clusters.iter().all(|cluster| cluster == "other"));
    assert_eq!(world.logs(Level::Warn), 0);
}

#[test]
fn what_nobody_stands_for_any_more_is_taken_over_with_one_line() {
    let mut world = World::new("{}");
    world.post("qr", "a", "2@x");
    world.post("qr", "b", "2@x");
    calls(&mut world, "new_cluster", 2);
    let mut clusters = Vec::new();
    for _ in 0..200 {
        world.advance(100);
        while let Some((_, call)) = world.made.pop_front() {
            match call.cluster == "new_cluster" {
                true => world.answer(&call, 200, OK),
                false => world.step(Event::NotSent(call.id, NotSent::Ejected)),
            }
            clusters.push(call.cluster);
        }
    }
    assert_eq!(clusters.last().map(String::as_str), Some("new_cluster"));
    assert_eq!(world.pending(), 0);
    let says = |effect: &&Effect| matches!(effect, Effect::Log(Level::Warn, line) if line.starts_with("nobody stands"));
    assert_eq!(world.effects.iter().filter(says).count(), 1);
}

#[test]
fn what_is_taken_over_gives_way_to_what_its_session_has_said_since() {
    let mut world = World::new(IMPLIES);
    world.post("qr", "a", "2@old");
    world.post("status", "b", "inactive");
    world.post("qr", "c", "2@only");
    calls(&mut world, "new_cluster", 2);
    world.to_cluster = "new_cluster".into();
    world.advance(1);
    world.post("qr", "a", "2@new");
    // It implies a state, which is newer than the other.
    world.post("qr", "b", "2@new");
    let mut bodies = String::new();
    // The first leader's call takes its claim with it: that has to run out.
    for _ in 0..400 {
        world.advance(100);
        while let Some((_, call)) = world.made.pop_front() {
            if call.cluster != "new_cluster" {
                world.step(Event::NotSent(call.id, NotSent::Ejected));
                continue;
            }
            bodies += &String::from_utf8_lossy(&call.body);
            world.answer(&call, 200, OK);
        }
    }
    assert_eq!(world.pending(), 0);
    assert!(bodies.contains("2@only") && bodies.contains("2@new"));
    assert!(
        !bodies.contains("2@old") && !bodies.contains("inactive"),
        "{bodies}"
    );
    assert_eq!(world.ends(End::Superseded), 2);
}

#[test]
fn a_cluster_that_does_not_exist_is_taken_over_although_a_root_stands_for_it() {
    let mut world = World::new("{}");
    world.to_cluster = "other".into();
    let mut other = stands(&world, "other");
    world.post("qr", "a", "2@x");
    let mut clusters = Vec::new();
    for _ in 0..40 {
        other.tick(&mut world.store, &world.keys, world.now.mono_ms);
        world.advance(500);
        while let Some((_, call)) = world.made.pop_front() {
            match call.cluster == "other" {
                true => world.step(Event::NotSent(call.id, NotSent::Misconfigured)),
                false => world.answer(&call, 200, OK),
            }
            clusters.push(call.cluster);
        }
    }
    let own = &world.rules.config.upstream.cluster;
    assert_eq!(clusters, ["other", own.as_str()]);
    assert_eq!(world.circuit(), embudo_core::circuit::State::Closed);
}

#[test]
fn a_leader_that_has_to_go_says_so_where_nobody_takes_over_what_is_pending() {
    let mut world = World::new("{}");
    for n in 0..5 {
        world.post("status", &format!("s{n}"), "connecting");
    }
    world.step(Event::Done { is_last: false });
    assert!(
        !world.effects.contains(&Effect::Finished),
        "it waits for another"
    );
    world.advance(900);
    assert_eq!(world.logs(Level::Error), 0);
    world.advance(200);
    let says = |effect: &Effect| matches!(effect, Effect::Log(Level::Error, line) if line.starts_with("5 "));
    assert!(world.effects.iter().any(says));
    assert!(world.effects.contains(&Effect::Finished));
}

#[test]
fn a_leader_that_has_to_go_goes_without_a_word_once_another_leads() {
    let mut world = World::new("{}");
    world.post("status", "a", "connecting");
    world.step(Event::Done { is_last: false });
    let mut next = World::root(&world.rules, &world.keys, 2);
    next.step(Event::Tick, world.now, &mut world.store, &mut Vec::new());
    world.advance(100);
    assert!(world.effects.contains(&Effect::Finished));
    world.advance(2_000);
    assert_eq!(world.logs(Level::Error), 0);
}

#[test]
fn the_last_root_of_a_vm_that_has_to_go_says_at_once_what_it_leaves() {
    let mut world = World::new("{}");
    for n in 0..5 {
        world.post("status", &format!("s{n}"), "connecting");
    }
    world.step(Event::Done { is_last: true });
    assert_eq!(world.logs(Level::Error), 1);
    assert!(world.effects.contains(&Effect::Finished));
}
