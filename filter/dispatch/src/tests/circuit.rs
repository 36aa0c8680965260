//! Envoy refuses calls on the spot.

use super::world::{OK, World, items};
use super::*;
use embudo_core::circuit::{PROBE_ITEMS_MAX, State};
use embudo_core::intake::Reply;
use embudo_core::route::Bypass;

/// A world of many waiting sessions, whose circuit has just opened.
fn open(config: &str) -> World {
    let mut world = World::new(config);
    for n in 0..60 {
        world.post("status", &format!("s{n}"), "active");
    }
    world.advance(6_000);
    while let Some((_, call)) = world.made.pop_front() {
        world.step(Event::NotSent(call.id, NotSent::Ejected));
    }
    assert_eq!(world.circuit(), State::Open);
    world
}

#[test]
fn while_it_is_open_one_small_call_at_a_time_probes_on_a_growing_schedule() {
    let mut world = open("{}");
    let mut times = Vec::new();
    for _ in 0..1_200 {
        world.advance(50);
        assert!(world.made.len() <= 1, "half-open means one");
        while let Some((at_ms, call)) = world.made.pop_front() {
            assert!(items(&call) <= PROBE_ITEMS_MAX);
            times.push(at_ms);
            world.step(Event::NotSent(call.id, NotSent::Ejected));
        }
    }
    assert!(
        (55..=120).contains(&times.len()),
        "{} probes, which Envoy refuses on the spot",
        times.len()
    );
    let gaps = times.iter().zip(times.iter().skip(1)).map(|(a, b)| b - a);
    assert!(gaps.max().unwrap() <= 1_100);
    assert_eq!(world.logs(Level::Warn), 1, "one WARN when it opens");
}

#[test]
fn the_answer_to_the_probe_decides() {
    let mut world = open("{}");
    world.advance(6_000);
    let (_, probe) = world.call();
    assert_eq!(world.circuit(), State::HalfOpen);
    world.advance(3_000);
    assert!(world.made.is_empty(), "nothing beside the probe");
    world.answer(&probe, 502, "");
    assert_eq!(
        world.circuit(),
        State::Open,
        "one gateway failure is enough"
    );
    world.advance(10_000);
    let (_, probe) = world.call();
    world.answer(&probe, 500, "");
    assert_eq!(world.circuit(), State::Open, "a 500 closes nothing");
    world.advance(10_000);
    let (_, probe) = world.call();
    world.answer(&probe, 422, "{}");
    assert_eq!(
        world.circuit(),
        State::Closed,
        "Laravel lives, whatever it thinks of the items"
    );
    world.deliver_for(10_000);
    assert_eq!(world.pending(), 0);
    assert_eq!(world.gauge(Gauge::Circuit), Some(0));
}

#[test]
fn the_answer_to_an_older_call_closes_nothing() {
    let mut world = World::new("{}");
    world.post("qr", "old", "2@x");
    world.advance(300);
    let (_, older) = world.call();
    world.post("status", "a", "active");
    world.advance(300);
    let (_, refused) = world.call();
    world.step(Event::NotSent(refused.id, NotSent::Ejected));
    world.answer(&older, 200, OK);
    assert_eq!(world.circuit(), State::Open);
    assert_eq!(world.ends(End::Delivered), 1, "but counts");
}

#[test]
fn a_probe_that_is_never_answered_is_followed_by_another() {
    let mut world = open("{}");
    world.advance(6_000);
    let _never_answered = world.call();
    world.advance(30_000);
    assert!(!world.made.is_empty());
}

#[test]
fn a_successor_finds_it_open_and_probes() {
    let mut world = open("{}");
    world.dispatcher = World::root(&world.rules, &world.keys, 2);
    world.advance(10_000);
    assert_eq!(world.made.len(), 1, "one call, as long as it is open");
    let (_, probe) = world.call();
    world.answer(&probe, 200, OK);
    world.deliver_for(10_000);
    assert_eq!(world.pending(), 0);
}

#[test]
fn a_cluster_that_does_not_exist_is_said_once_and_tried_again() {
    let mut world = World::new("{}");
    world.post("status", "a", "active");
    let mut tries = 0;
    for _ in 0..400 {
        world.advance(50);
        while let Some((_, call)) = world.made.pop_front() {
            world.step(Event::NotSent(call.id, NotSent::Misconfigured));
            tries += 1;
        }
    }
    assert!((3..20).contains(&tries), "{tries} tries in 20 s");
    assert_eq!(world.logs(Level::Error), 1);
    assert_eq!(world.gauge(Gauge::Circuit), Some(3));
    assert_eq!(State::read(&world.store, &world.keys), State::Misconfigured);
    let passes = world.post("status", "b", "active");
    assert_eq!(passes, Reply::WriteThrough(Bypass::Misconfigured));
    let waits = world.post("status", "a", "inactive");
    assert_eq!(waits, Reply::Queued, "behind what waits already");
    world.deliver_for(10_000);
    assert_eq!((world.pending(), world.gauge(Gauge::Circuit)), (0, Some(0)));
}

#[test]
fn a_cluster_that_came_into_being_is_found_although_nothing_waits() {
    let mut world = World::new("{}");
    world.post("qr", "a", "2@x");
    world.advance(300);
    let (_, call) = world.call();
    world.step(Event::NotSent(call.id, NotSent::Misconfigured));
    world.advance(500);
    let passes = world.post("status", "b", "active");
    assert_eq!(passes, Reply::WriteThrough(Bypass::Misconfigured));
    // What waited is delivered, or was forgotten with its shard.
    for index in 0..world.rules.config.shards {
        let key = world.keys.shard(index);
        if let Some((_, token)) = world.store.get(&key) {
            let empty = Shard::default().encode();
            world.store.put(&key, &empty, Expect::Token(token)).unwrap();
        }
    }
    world.advance(15_000);
    assert_eq!(world.post("status", "b", "active"), Reply::Queued);
    world.deliver_for(10_000);
    assert_eq!((world.pending(), world.circuit()), (0, State::Closed));
}
