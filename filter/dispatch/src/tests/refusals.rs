//! Only Laravel decides about an item, and only beside a success.

use super::world::{OK, World, path, text};
use super::*;
use embudo_core::circuit::Record;

/// A Laravel that answers so. Gives the calls.
fn run(
    world: &mut World,
    ms: u64,
    mut answer: impl FnMut(&Call) -> (u16, &'static str),
) -> Vec<(u64, Call)> {
    let mut calls = Vec::new();
    for _ in 0..ms / 10 {
        world.advance(10);
        while let Some((at_ms, call)) = world.made.pop_front() {
            let (status, body) = answer(&call);
            world.answer(&call, status, body);
            calls.push((at_ms, call));
        }
    }
    calls
}

fn is_batch(call: &Call) -> bool {
    path(call).ends_with("/batch")
}

fn of(call: &Call, session: &str) -> bool {
    text(call).contains(&format!("\"{session}\""))
}

/// A world whose batch path of states has taken one.
fn proven() -> World {
    let mut world = World::new("{}");
    world.post("status", "first", "active");
    run(&mut world, 3_000, |_| (200, OK));
    assert_eq!(world.pending(), 0);
    world
}

const PAGE: &str = "<html><h1>404 Not Found</h1></html>";

#[test]
fn what_laravel_refuses_alone_twice_a_second_apart_and_beside_a_success_is_rejected() {
    for (status, body) in [
        (404, "{}"),
        (409, "{}"),
        (410, "{}"),
        (403, "{}"),
        (400, "{}"),
        (200, r#"{"error":"SQLSTATE"}"#),
    ] {
        let mut world = proven();
        world.post("status", "bad", "active");
        world.post("status", "good", "active");
        let calls = run(&mut world, 10_000, |call| match of(call, "bad") {
            true => (status, body),
            false => (200, OK),
        });
        assert_eq!(
            (world.ends(End::Rejected), world.pending()),
            (1, 0),
            "{status}"
        );
        let alone = calls
            .iter()
            .filter(|(_, call)| !is_batch(call) && of(call, "bad"));
        let times: Vec<u64> = alone.map(|(at_ms, _)| *at_ms).collect();
        assert_eq!(times.len(), 2, "{status}");
        assert!(times[1] - times[0] >= 1_000, "{status}");
        assert_eq!(world.dispatcher.rejections().count(), 1, "{status}");
    }
}

#[test]
fn what_is_refused_beside_no_success_is_kept_until_there_is_one() {
    let mut world = proven();
    world.advance(120_000);
    world.post("status", "bad", "active");
    let calls = run(&mut world, 120_000, |_| (404, "{}"));
    assert_eq!((world.ends(End::Rejected), world.pending()), (0, 1));
    assert!(
        (5..20).contains(&calls.len()),
        "{} calls in two minutes",
        calls.len()
    );
    world.post("status", "good", "active");
    run(&mut world, 60_000, |call| match of(call, "bad") {
        true => (404, "{}"),
        false => (200, OK),
    });
    assert_eq!((world.ends(End::Rejected), world.pending()), (1, 0));
}

#[test]
fn a_422_and_a_413_to_an_item_alone_are_final_at_once() {
    for status in [422, 413] {
        let mut world = proven();
        world.advance(120_000);
        world.post("status", "bad", "active");
        let calls = run(&mut world, 3_000, |_| (status, "{}"));
        assert_eq!(world.ends(End::Rejected), 1, "{status}");
        assert_eq!(calls.len(), 2, "the batch and the item, {status}");
    }
}

#[test]
fn of_a_refused_caller_one_item_is_tried_for_all_and_all_are_kept() {
    for status in [401, 419, 403] {
        let mut world = proven();
        world.advance(120_000);
        for n in 0..20 {
            world.post("status", &format!("s{n}"), "active");
        }
        let calls = run(&mut world, 120_000, |_| (status, "{}"));
        assert_eq!(
            (world.ends(End::Rejected), world.pending()),
            (0, 20),
            "{status}"
        );
        assert!(
            calls.len() < 40,
            "{status}: {} calls in two minutes",
            calls.len()
        );
        // The token is renewed where it was looked up.
        run(&mut world, 60_000, |_| (200, OK));
        assert_eq!(
            (world.ends(End::Delivered), world.pending()),
            (21, 0),
            "{status}"
        );
    }
}

#[test]
fn a_caller_that_was_accepted_a_moment_before_it_is_refused_loses_nothing() {
    for status in [401, 419] {
        let mut world = proven();
        world.post("status", "s", "inactive");
        run(&mut world, 4_000, |_| (status, "{}"));
        assert_eq!((world.ends(End::Rejected), world.pending()), (0, 1));
        // The caller is accepted again, and this is refused once more.
        world.post("status", "other", "active");
        run(&mut world, 30_000, |call| match of(call, "s") {
            true => (status, "{}"),
            false => (200, OK),
        });
        let ended = (world.ends(End::Rejected), world.pending());
        assert_eq!(ended, (1, 0), "{status}");
    }
}

#[test]
fn what_left_before_a_caller_was_refused_tells_nothing_of_it() {
    let mut world = proven();
    world.post("status", "slow", "inactive");
    world.advance(100);
    let (_, slow) = world.made.pop_front().unwrap();
    assert!(of(&slow, "slow"));
    // The token is refused for a moment.
    world.post("qr", "s", "2@s");
    run(&mut world, 1_500, |_| (401, "{}"));
    world.answer(&slow, 200, OK);
    run(&mut world, 4_000, |_| (401, "{}"));
    assert_eq!((world.ends(End::Rejected), world.pending()), (0, 1));
    run(&mut world, 10_000, |_| (200, OK));
    assert_eq!((world.ends(End::Rejected), world.pending()), (0, 0));
}

#[test]
fn what_is_left_of_a_refused_caller_after_an_hour_is_rejected() {
    let mut world = proven();
    world.advance(120_000);
    for n in 0..5 {
        world.post("status", &format!("s{n}"), "active");
    }
    for _ in 0..3_700 {
        world.advance(1_000);
        while let Some((_, call)) = world.made.pop_front() {
            world.answer(&call, 401, "{}");
        }
    }
    assert_eq!((world.ends(End::Rejected), world.pending()), (5, 0));
}

#[test]
fn a_page_where_laravel_answered_before_rejects_nothing_and_is_probed_alone() {
    for status in [200, 302, 403, 404] {
        let mut world = proven();
        for n in 0..50 {
            world.post("status", &format!("s{n}"), "active");
        }
        let calls = run(&mut world, 30_000, |_| (status, PAGE));
        assert_eq!(
            (world.ends(End::Rejected), world.pending()),
            (0, 50),
            "{status}"
        );
        let batches = calls.iter().filter(|(_, call)| is_batch(call)).count();
        assert_eq!(batches, 1, "{status}: from then on one item alone");
        assert!(
            (6..=31).contains(&calls.len()),
            "{status}: {} calls",
            calls.len()
        );
        let ended_ms = world.now.mono_ms;
        let calls = run(&mut world, 20_000, |_| (200, OK));
        assert!(calls[0].0 <= ended_ms + 5_100, "{status}");
        assert_eq!(
            (world.ends(End::Delivered), world.pending()),
            (51, 0),
            "{status}"
        );
    }
}

#[test]
fn a_proxy_that_knows_no_batch_path_costs_one_call_and_no_outage() {
    let mut world = World::new("{}");
    for n in 0..20 {
        world.post("status", &format!("s{n}"), "active");
    }
    let calls = run(&mut world, 5_000, |call| match is_batch(call) {
        true => (404, PAGE),
        false => (200, OK),
    });
    assert_eq!((world.ends(End::Delivered), world.pending()), (20, 0));
    let batches = calls.iter().filter(|(_, call)| is_batch(call)).count();
    assert_eq!((batches, calls.len()), (1, 21));
    assert_eq!(world.logs(Level::Warn), 1, "that there is no batch route");
}

#[test]
fn a_page_for_everything_tells_nothing_of_batches() {
    let mut world = World::new("{}");
    for n in 0..5 {
        world.post("status", &format!("s{n}"), "active");
    }
    run(&mut world, 10_000, |_| (404, PAGE));
    assert_eq!(world.pending(), 5);
    let calls = run(&mut world, 20_000, |_| (200, OK));
    assert_eq!(world.pending(), 0);
    assert!(calls.iter().any(|(_, call)| is_batch(call)));
}

#[test]
fn a_success_of_one_route_ends_the_wait_of_all() {
    let mut world = proven();
    world.post("qr", "q", "2@x");
    world.post("status", "a", "active");
    run(&mut world, 30_000, |_| (503, "{}"));
    world.post("status", "b", "active");
    let calls = run(&mut world, 7_000, |_| (200, OK));
    assert_eq!(world.pending(), 0);
    let (first, last) = (calls[0].0, calls[calls.len() - 1].0);
    assert!(last - first <= 2_500, "{} ms between them", last - first);
}

#[test]
fn a_429_holds_its_own_path_and_a_503_asks_for_five_seconds_at_most() {
    let mut world = proven();
    world.post("qr", "q", "2@x");
    world.post("status", "a", "active");
    world.advance(3_000);
    let mut held_ms = 0;
    while let Some((at_ms, call)) = world.made.pop_front() {
        let limited = path(&call).starts_with("/qr");
        let answer = Answer {
            status: Some(if limited { 429 } else { 200 }),
            from_upstream: true,
            retry_after: limited.then_some(b"30"),
            date: None,
            content_type: None,
            body: OK.as_bytes(),
        };
        held_ms = if limited { at_ms } else { held_ms };
        world.step(Event::Answered(call.id, answer));
    }
    world.post("status", "b", "active");
    let calls = run(&mut world, 90_000, |_| (200, OK));
    let first = |prefix: &str| {
        calls
            .iter()
            .find(|(_, call)| path(call).starts_with(prefix))
    };
    assert!(first("/whatsapp").unwrap().0 < held_ms + 10_000);
    assert!(first("/qr").unwrap().0 >= held_ms + 29_000);

    world.post("status", "c", "active");
    world.advance(3_000);
    let (at_ms, call) = world.call();
    world.step(Event::Answered(
        call.id,
        Answer {
            status: Some(503),
            from_upstream: true,
            retry_after: Some(b"3600"),
            date: None,
            content_type: None,
            body: PAGE.as_bytes(),
        },
    ));
    let calls = run(&mut world, 10_000, |_| (200, OK));
    assert!((4_000..9_000).contains(&(calls[0].0 - at_ms)));
}

#[test]
fn what_a_worker_saw_accepted_ends_the_wait() {
    let mut world = proven();
    world.post("status", "a", "active");
    run(&mut world, 60_000, |_| (503, "{}"));
    let record = Record::read(&world.store, &world.keys);
    let trouble = record.troubles[0];
    Record::report(
        &mut world.store,
        &world.keys,
        trouble.destination,
        None,
        world.now.mono_ms,
    );
    let from_ms = world.now.mono_ms;
    let calls = run(&mut world, 6_000, |_| (200, OK));
    assert!(calls[0].0 - from_ms <= 600, "{} ms", calls[0].0 - from_ms);
}

#[test]
fn a_new_leader_resumes_from_what_the_last_one_wrote() {
    let mut world = proven();
    world.post("status", "a", "active");
    run(&mut world, 30_000, |_| (503, "{}"));
    let before = Record::read(&world.store, &world.keys);
    assert_eq!(before.troubles.len(), 1);
    world.dispatcher = World::root(&world.rules, &world.keys, 2);
    world.advance(8_000);
    assert_eq!(world.made.len(), 1, "one call at a time, as before");
    assert!(!Record::read(&world.store, &world.keys).troubles.is_empty());
}

#[test]
fn a_call_whose_fate_nobody_knows_holds_its_session_and_counts_as_an_attempt() {
    let mut world = proven();
    world.post("status", "a", "active");
    world.advance(3_000);
    let (_, call) = world.call();
    world.answer(&call, 520, "");
    let attempts: Vec<u16> = (0..world.rules.config.shards)
        .filter_map(|index| world.store.get(&world.keys.shard(index)))
        .flat_map(|(bytes, _)| {
            let shard = Shard::decode(&bytes).unwrap();
            let entries = shard.sessions.iter().flat_map(|session| &session.entries);
            let attempts = entries.filter_map(|entry| match &entry.state {
                shard::State::Dirty(dirty) => Some(dirty.attempts),
                _ => None,
            });
            attempts.collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(attempts, [1]);
    world.advance(20_000);
    assert!(world.made.is_empty(), "its claim stays");
    world.advance(15_000);
    assert_eq!(world.made.len(), 1);
}

#[test]
fn a_session_whose_last_item_was_refused_for_good_is_an_orphan_until_something_is_accepted() {
    let mut world = proven();
    let orphans = |world: &World| -> usize {
        (0..world.rules.config.shards)
            .filter_map(|index| world.store.get(&world.keys.shard(index)))
            .map(|(bytes, _)| Shard::decode(&bytes).unwrap().orphans.len())
            .sum()
    };
    world.post("qr", "nobody", "2@x");
    run(&mut world, 10_000, |_| (422, "{}"));
    assert_eq!(
        (world.pending(), orphans(&world)),
        (0, 1),
        "and nothing of its state is sent"
    );
}

#[test]
fn a_batch_path_that_throws_for_every_batch_is_none_once_its_items_alone_were_accepted_three_times()
{
    let mut world = proven();
    let mut calls = Vec::new();
    for round in 0..40 {
        for n in 0..8 {
            world.post("status", &format!("{round}-{n}"), "connecting");
        }
        calls.extend(run(&mut world, 1_000, |call| match is_batch(call) {
            true => (500, r#"{"message":"Server Error"}"#),
            false => (200, OK),
        }));
    }
    run(&mut world, 10_000, |_| (200, OK));
    assert_eq!(world.pending(), 0, "all arrive, alone");
    let batches = calls.iter().filter(|(_, call)| is_batch(call)).count();
    assert!(batches <= 12, "{batches} batches were refused");
}
