//! What the answers to batches lead to.

use super::world::{OK, World, items, path, text};
use super::*;

/// A Laravel that answers a batch in one way and single items in another.
fn run(
    world: &mut World,
    ms: u64,
    mut answer: impl FnMut(&Call) -> (u16, String),
) -> Vec<(u64, Call)> {
    let mut calls = Vec::new();
    for _ in 0..ms / 10 {
        world.advance(10);
        while let Some((at_ms, call)) = world.made.pop_front() {
            let (status, body) = answer(&call);
            world.answer(&call, status, &body);
            calls.push((at_ms, call));
        }
    }
    calls
}

fn is_batch(call: &Call) -> bool {
    path(call).ends_with("/batch")
}

fn crowd(world: &mut World, sessions: usize) {
    for n in 0..sessions {
        world.post("qr", &format!("s{n}"), "2@x");
    }
}

/// Where a session's item is in a batch.
fn place_of(call: &Call, session: &str) -> Option<usize> {
    let name = format!("\"session_id\":\"{session}\"");
    let items: Vec<&str> = text(call).split("},{").collect();
    items.iter().position(|item| item.contains(&name))
}

/// The batch path takes one, so that it is known to be one.
fn took_one(world: &mut World) {
    world.post("qr", "first", "2@x");
    run(world, 1_000, |_| (200, OK.into()));
    assert_eq!(world.pending(), 0);
}

#[test]
fn a_named_suspect_is_posted_once_alone_and_the_rest_goes_again_at_once() {
    let mut world = World::new("{}");
    took_one(&mut world);
    crowd(&mut world, 50);
    let started_ms = world.now.mono_ms;
    let calls = run(&mut world, 3_000, |call| match place_of(call, "s7") {
        Some(at) if is_batch(call) => (422, format!(r#"{{"errors":{{"qrs.{at}.qr":["no"]}}}}"#)),
        Some(_) => (422, "{}".into()),
        None => (200, OK.into()),
    });
    // The batch, what is left of it, and the suspect. The state that the suspect implied is not sent.
    assert!(calls.len() <= 3, "{} calls", calls.len());
    assert_eq!(world.ends(End::Delivered), 50);
    assert_eq!((world.ends(End::Rejected), world.pending()), (1, 0));
    let rest = calls.iter().find(|(_, call)| items(call) == 49).unwrap();
    assert!(rest.0 - started_ms <= 100, "at once");
}

#[test]
fn an_innocent_suspect_is_delivered() {
    let mut world = World::new("{}");
    crowd(&mut world, 50);
    run(&mut world, 3_000, |call| match is_batch(call) {
        true => {
            let results = vec![r#"{"status":"error"}"#; items(call)].join(",");
            (200, format!(r#"{{"success":true,"results":[{results}]}}"#))
        }
        false => (200, "saved".into()),
    });
    assert_eq!((world.ends(End::Delivered), world.pending()), (50, 0));
}

#[test]
fn without_names_the_batch_is_halved_until_the_one_is_found() {
    let mut world = World::new("{}");
    took_one(&mut world);
    crowd(&mut world, 50);
    let calls = run(&mut world, 60_000, |call| {
        match text(call).contains("\"s7\"") {
            true => (422, "{}".into()),
            false => (200, OK.into()),
        }
    });
    assert_eq!(world.ends(End::Delivered), 50);
    assert_eq!((world.ends(End::Rejected), world.pending()), (1, 0));
    assert!(calls.len() <= 20, "{} calls", calls.len());
}

#[test]
fn a_body_that_is_too_large_teaches_the_size() {
    let mut world = World::new("{}");
    let answer = |call: &Call| match call.body.len() > 3_000 {
        true => (413, String::new()),
        false => (200, OK.into()),
    };
    crowd(&mut world, 50);
    let first = run(&mut world, 20_000, answer);
    assert_eq!(world.pending(), 0);
    assert!(first.iter().any(|(_, call)| call.body.len() > 3_000));
    for n in 0..50 {
        world.post("qr", &format!("s{n}"), "2@y");
    }
    let second = run(&mut world, 20_000, answer);
    assert_eq!(world.pending(), 0);
    assert!(second.iter().all(|(_, call)| call.body.len() <= 3_000));
}

#[test]
fn without_a_batch_route_items_go_one_by_one_and_a_batch_tries_again_later() {
    for status in [404, 405, 200] {
        let mut world = World::new("{}");
        crowd(&mut world, 50);
        let answer = |call: &Call| match is_batch(call) {
            true => (status, "<html></html>".to_owned()),
            false => (200, "saved".to_owned()),
        };
        let calls = run(&mut world, 3_000, answer);
        assert_eq!((world.ends(End::Delivered), world.pending()), (50, 0));
        let batches = |calls: &[(u64, Call)]| calls.iter().filter(|(_, c)| is_batch(c)).count();
        assert_eq!((calls.len(), batches(&calls)), (51, 1), "{status}");
        for n in 0..50 {
            world.post("qr", &format!("s{n}"), "2@y");
        }
        let calls = run(&mut world, 600_000, answer);
        assert_eq!((calls.len(), batches(&calls)), (50, 0));
        crowd(&mut world, 100);
        let calls = run(&mut world, 20_000, answer);
        assert_eq!(world.pending(), 0);
        assert_eq!(batches(&calls), 1, "one try");
    }
}

#[test]
fn single_items_keep_their_pace_and_their_places() {
    let mut world = World::new(r#"{"max_singles_per_second":20}"#);
    crowd(&mut world, 200);
    run(&mut world, 1_000, |call| match is_batch(call) {
        true => (404, String::new()),
        false => (200, String::new()),
    });
    let calls = run(&mut world, 5_000, |_| (200, String::new()));
    assert!((95..=105).contains(&calls.len()), "{} calls", calls.len());
    crowd(&mut world, 400);
    world.advance(3_000);
    assert_eq!(world.made.len(), 8, "under way");
}

#[test]
fn a_path_that_has_taken_batches_has_a_batch_route_until_three_in_a_row_are_not_accepted() {
    let mut world = World::new("{}");
    took_one(&mut world);
    let mut batches = 0;
    for round in 0..6 {
        for n in 0..50 {
            world.post("qr", &format!("s{n}"), &format!("2@{round}"));
        }
        run(&mut world, 6_000, |call| match is_batch(call) {
            true => {
                batches += 1;
                (403, "{}".into())
            }
            false => (200, "{}".into()),
        });
    }
    assert_eq!((world.ends(End::Delivered), world.pending()), (301, 0));
    assert_eq!(batches, 3);
}

#[test]
fn batches_that_end_in_a_500_while_their_items_alone_are_accepted_have_no_route() {
    let mut world = World::new("{}");
    took_one(&mut world);
    let mut batches = 0;
    for round in 0..6 {
        for n in 0..50 {
            world.post("qr", &format!("s{n}"), &format!("2@{round}"));
        }
        run(&mut world, 20_000, |call| match is_batch(call) {
            true => {
                batches += 1;
                (500, "{}".into())
            }
            false => (200, "{}".into()),
        });
    }
    assert_eq!((world.ends(End::Delivered), world.pending()), (301, 0));
    assert!(
        (5..=12).contains(&batches),
        "{batches}: halved down to one, and twice more"
    );
}

#[test]
fn a_batch_of_one_that_is_too_large_is_a_single_from_then_on() {
    let mut world = World::new("{}");
    took_one(&mut world);
    let mut batches = 0;
    let mut post = |world: &mut World, from: usize, to: usize| {
        for round in from..to {
            for n in 0..10 {
                world.post("qr", &format!("s{n}"), &format!("2@{round}"));
            }
            run(world, 6_000, |call| match is_batch(call) {
                true => {
                    batches += 1;
                    (413, String::new())
                }
                false => (200, "{}".into()),
            });
        }
        core::mem::take(&mut batches)
    };
    let learned = post(&mut world, 0, 1);
    assert!(learned > 1, "halved");
    assert_eq!(post(&mut world, 1, 6), 0, "it is known");
    assert_eq!((world.ends(End::Delivered), world.pending()), (61, 0));
    let asked: usize = (3..9)
        .map(|tens| {
            run(&mut world, 600_000, |_| (200, "{}".into()));
            post(&mut world, tens * 2, tens * 2 + 2)
        })
        .sum();
    assert!(
        (1..=12).contains(&asked),
        "{asked}: a step every ten minutes"
    );
    assert_eq!(world.pending(), 0);
}

#[test]
fn a_429_makes_batches_fuller() {
    let mut world = World::new(r#"{"max_requests_per_second":4}"#);
    let mut calls = 0;
    for n in 0..600_u64 {
        world.post("status", &format!("s{}", n % 60), &format!("v{n}"));
        calls += run(&mut world, 50, |_| (429, String::new())).len();
    }
    assert!(calls <= 30, "{calls} calls in half a minute");
    run(&mut world, 120_000, |_| (200, OK.into()));
    assert_eq!(world.pending(), 0);
}

#[test]
fn a_laravel_that_is_slow_is_said_to_be() {
    let mut world = World::new(r#"{"slow_ms":1000}"#);
    for n in 0..20 {
        world.post("status", "a", &format!("v{n}"));
        world.advance(6_000);
        while let Some((_, call)) = world.made.pop_front() {
            world.advance(3_000);
            world.answer(&call, 200, OK);
        }
    }
    world.advance(100);
    assert_eq!(
        (world.gauge(Gauge::LaravelSlow), world.logs(Level::Warn)),
        (Some(1), 1)
    );
}

#[test]
fn after_an_hour_the_backlog_leaves_newest_only_urgent_first_at_the_pace() {
    let mut world = World::new(
        r#"{"max_sessions":16384,"routes":[{"name":"status","priority":["disconnected"]}]}"#,
    );
    for n in 0..10_000 {
        world.post("qr", &format!("s{n}"), "2@old");
        world.post("status", &format!("s{n}"), "active");
        if n % 10 == 0 {
            world.post("status", &format!("s{n}"), "disconnected");
        }
        // Laravel refuses every call until the backlog is whole.
        while let Some((_, call)) = world.made.pop_front() {
            world.step(Event::NotSent(call.id, NotSent::Ejected));
        }
    }
    assert_eq!(world.pending(), 10_000, "one item a session");
    let calls = world.deliver_for(30_000);
    assert_eq!(world.pending(), 0);
    assert!(calls.iter().all(|(_, call)| path(call) != "/qr/batch"));
    let times: Vec<u64> = calls.iter().map(|(ms, _)| *ms).collect();
    for (at, from_ms) in times.iter().enumerate() {
        let within = times[at..].iter().take_while(|ms| **ms < from_ms + 1_000);
        assert!(within.count() <= 21, "more than the pace from {from_ms} on");
    }
    let full = calls.iter().filter(|(_, call)| items(call) == 100).count();
    assert!(full >= 95, "{full} full batches");
    // A full batch takes the urgent ones first, whoever made it due.
    let urgent = calls
        .iter()
        .rposition(|(_, call)| text(call).contains("disconnected"));
    assert!(urgent < Some(12), "the last urgent one in call {urgent:?}");
}
