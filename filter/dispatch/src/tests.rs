mod circuit;
mod clusters;
mod fallback;
mod flush;
mod refusals;
mod rows;
mod spoiled;
mod turns;
mod verdicts;
pub(crate) mod world;

use self::world::{IMPLIES, OK, World, items, path, text, timestamp};
use super::*;
use embudo_core::intake::Reply;

#[test]
fn a_lone_qr_leaves_as_soon_as_it_has_been_quiet() {
    let mut world = World::new(IMPLIES);
    let posted_ms = world.now.mono_ms;
    assert_eq!(world.post("qr", "a", "2@x"), Reply::Queued);
    assert_eq!(world.post("qr", "a", "2@x"), Reply::Duplicate);
    world.advance(1_000);
    let (at_ms, call) = world.call();
    assert!(
        (250..=300).contains(&(at_ms - posted_ms)),
        "after {} ms",
        at_ms - posted_ms
    );
    assert_eq!(path(&call), "/qr/batch");
    assert!(
        text(&call).contains(r#""qr":"2@x""#) && text(&call).contains(r#""estado_qr":"pending""#)
    );
    world.answer(&call, 200, OK);
    assert_eq!((world.pending(), world.ends(End::Delivered)), (0, 1));
    assert_eq!(
        world.post("qr", "a", "2@x"),
        Reply::Duplicate,
        "Laravel has it"
    );
    assert_eq!(world.post("status", "a", "pending"), Reply::Implied);
}

#[test]
fn a_full_batch_leaves_at_once_and_alone() {
    let mut world = World::new("{}");
    for n in 0..50 {
        world.post("qr", &format!("s{n}"), "2@x");
    }
    let (_, call) = world.call();
    assert_eq!(items(&call), 50);
    world.answer(&call, 200, OK);
    world.advance(6_000);
    assert!(world.made.is_empty(), "nothing is left to be sent");
    assert_eq!(world.pending(), 0);
}

#[test]
fn a_batch_is_bounded_by_its_bytes_too() {
    let mut world = World::new(r#"{"routes":[{"name":"qr","batch":{"max_bytes":20000}}]}"#);
    for n in 0..10 {
        world.post("qr", &format!("s{n}"), &"x".repeat(6_000));
    }
    let calls = world.deliver_for(10_000);
    assert!(calls.iter().all(|(_, call)| call.body.len() <= 20_000));
    assert_eq!(world.pending(), 0);
}

#[test]
fn time_alone_makes_no_more_than_a_call_of_qrs_a_second_and_one_of_states_in_two() {
    for (route, least, most) in [("qr", 58, 60), ("status", 28, 30)] {
        let mut world = World::new("{}");
        world.deliver_for(10_000);
        let mut calls = Vec::new();
        for n in 0..600 {
            world.post(route, &format!("s{}", n % 40), &format!("2@{n}"));
            calls.extend(world.deliver_for(100));
        }
        let count = calls.len();
        assert!((least..=most).contains(&count), "{count} calls of {route}");
    }
}

#[test]
fn what_is_urgent_leaves_on_the_ring_and_shares_the_calls_that_follow() {
    let mut world = World::new("{}");
    world.post("status", "waiting", "connecting");
    world.advance(100);
    world.post("status", "a", "inactive");
    let (at_ms, call) = world.call();
    assert_eq!(at_ms, world.now.mono_ms, "without any timer");
    assert_eq!(items(&call), 2, "and takes along what waits on its route");
    world.answer(&call, 200, OK);
    for n in 0..20 {
        world.post("status", &format!("b{n}"), "inactive");
    }
    assert!(world.made.is_empty(), "the gap is not over");
    let calls = world.deliver_for(1_100);
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].0 - at_ms, items(&calls[0].1)), (1_000, 20));
}

#[test]
fn a_qr_that_ran_out_is_no_disconnect() {
    let mut world = World::new(IMPLIES);
    world.post("qr", "a", "2@x");
    world.deliver_for(1_000);
    assert_eq!(world.post("status", "a", "inactive"), Reply::Queued);
    assert!(world.made.is_empty(), "`inactive` after `pending` can wait");
    assert_eq!(world.deliver_for(300).len(), 1);
}

#[test]
fn a_qr_is_not_believed_to_set_a_state() {
    let mut world = World::new("{}");
    world.post("qr", "a", "2@x");
    assert_eq!(world.post("status", "a", "pending"), Reply::Queued);
    assert_eq!(world.post("status", "a", "pending"), Reply::Duplicate);
    let calls = world.deliver_for(2_500);
    let paths: Vec<&str> = calls.iter().map(|(_, call)| path(call)).collect();
    assert_eq!(paths, ["/qr/batch", "/whatsapp/status/batch"]);
    assert!(text(&calls[0].1).contains(r#""estado_qr":"pending""#));
    assert_eq!(world.post("status", "a", "pending"), Reply::Duplicate);
    // Another QR may have changed the state, or not.
    world.post("qr", "a", "2@y");
    assert_eq!(world.post("status", "a", "pending"), Reply::Queued);
}

#[test]
fn an_active_state_voids_the_qr_before_it() {
    let mut world = World::new("{}");
    world.post("qr", "a", "2@x");
    world.post("status", "a", "active");
    let calls = world.deliver_for(10_000);
    assert_eq!(calls.len(), 1);
    assert_eq!(path(&calls[0].1), "/whatsapp/status/batch");
    assert_eq!(world.ends(End::Delivered), 1);
    assert_eq!(world.pending(), 0);
    assert_eq!(
        world.post("qr", "a", "2@x"),
        Reply::Queued,
        "after `active` it is news again"
    );
}

#[test]
fn updates_of_one_session_leave_in_order_and_never_overlap() {
    let mut world = World::new("{}");
    world.post("qr", "a", "2@x");
    world.post("status", "a", "connecting");
    world.advance(400);
    let (_, first) = world.call();
    assert_eq!(path(&first), "/qr/batch");
    world.advance(8_000);
    assert!(
        world.made.is_empty(),
        "the younger one waits for the answer"
    );
    world.answer(&first, 200, OK);
    let (at_ms, second) = world.call();
    assert_eq!(path(&second), "/whatsapp/status/batch");
    assert_eq!(at_ms, world.now.mono_ms, "and no longer");
}

#[test]
fn what_waits_behind_an_older_sibling_makes_the_sibling_due() {
    let mut world = World::new(r#"{"routes":[{"name":"status","not_priority_after":[]}]}"#);
    world.post("qr", "other", "2@x");
    world.deliver_for(300);
    // The QR route has just flushed and would wait for 5 s; an urgent state does not.
    world.post("qr", "a", "2@y");
    world.post("status", "a", "disconnected");
    let (at_ms, call) = world.call();
    assert_eq!((path(&call), at_ms), ("/qr/batch", world.now.mono_ms));
    world.answer(&call, 200, OK);
    world.advance(50);
    assert_eq!(path(&world.call().1), "/whatsapp/status/batch");
}

#[test]
fn a_flush_that_an_item_could_not_be_part_of_does_not_put_it_off() {
    let mut world = World::new(r#"{"routes":[{"name":"status","batch":{"max_items":2}}]}"#);
    world.post("status", "a", "connecting");
    world.advance(300);
    let (at_ms, call) = world.call();
    world.answer(&call, 504, "upstream request timeout");
    world.post("status", "a", "active");
    // Others flush just before the session may be called again.
    world.advance(at_ms + 30_900 - world.now.mono_ms);
    world.post("status", "b", "active");
    world.post("status", "c", "active");
    let (_, others) = world.call();
    world.answer(&others, 200, OK);
    world.advance(400);
    assert!(text(&world.call().1).contains(r#""a""#));
}

#[test]
fn a_newer_value_that_comes_while_the_older_is_under_way_is_sent_after_it() {
    let mut world = World::new("{}");
    world.post("status", "a", "active");
    world.advance(300);
    let (_, first) = world.call();
    world.post("status", "a", "connecting");
    world.answer(&first, 200, OK);
    assert_eq!(
        world.ends(End::Delivered),
        0,
        "it was superseded before the answer came"
    );
    let calls = world.deliver_for(6_000);
    assert_eq!(calls.len(), 1);
    assert!(text(&calls[0].1).contains("connecting"));
    assert_eq!(world.pending(), 0);
}

#[test]
fn an_unknown_fate_holds_the_session_until_the_deadline_and_nobody_else() {
    let mut world = World::new("{}");
    world.post("status", "a", "active");
    world.advance(300);
    let (at_ms, call) = world.call();
    world.advance(15_000);
    world.step(Event::Answered(
        call.id,
        Answer {
            status: Some(504),
            ..Answer::default()
        },
    ));
    world.post("status", "a", "inactive");
    world.post("status", "b", "active");
    let calls = world.deliver_for(40_000);
    let of = |session: &str| {
        let name = format!("\"{session}\"");
        calls
            .iter()
            .find(|(_, call)| text(call).contains(&name))
            .map(|(ms, _)| ms - at_ms)
            .unwrap()
    };
    assert!(of("a") >= 31_000, "sent again after {} ms", of("a"));
    assert!(
        of("b") < 20_000,
        "b is held by the back-off only: {} ms",
        of("b")
    );
    assert_eq!(world.pending(), 0);
}

#[test]
fn a_failed_call_is_repeated_after_a_while_with_whatever_is_newest_then() {
    let mut world = World::new("{}");
    world.post("qr", "a", "2@old");
    world.advance(300);
    let (_, call) = world.call();
    world.answer(&call, 500, "");
    // It was a batch of one: what is left of it goes alone, and fails by itself.
    let (at_ms, call) = world.call();
    assert_eq!(path(&call), "/x");
    world.answer(&call, 503, "");
    world.post("qr", "a", "2@new");
    assert!(world.made.is_empty());
    let calls = world.deliver_for(8_000);
    assert!(calls[0].0 - at_ms >= 500);
    assert!(text(&calls[0].1).contains("2@new") && !text(&calls[0].1).contains("2@old"));
    let warnings = |effect: &&Effect| matches!(effect, Effect::Log(Level::Warn, _));
    assert_eq!(
        world.effects.iter().filter(warnings).count(),
        1,
        "one WARN when it starts"
    );
}

#[test]
fn an_outage_costs_one_item_a_session() {
    let mut world = World::new("{}");
    let mut calls = 0;
    for n in 0..1_200_u64 {
        world.post("status", &format!("s{}", n % 30), &format!("v{n}"));
        world.advance(100);
        while let Some((_, call)) = world.made.pop_front() {
            calls += 1;
            world.answer(&call, 503, "");
        }
    }
    assert!(
        calls < 40,
        "backed off, not hammered: {calls} calls in two minutes"
    );
    let after = world.deliver_for(40_000);
    assert_eq!(after.iter().map(|(_, call)| items(call)).sum::<usize>(), 30);
    assert_eq!(world.pending(), 0);
}

#[test]
fn one_item_that_laravel_refuses_holds_up_nobody_else() {
    let mut world = World::new("{}");
    world.post("qr", "poison", "2@x");
    for n in 0..39 {
        world.post("qr", &format!("s{n}"), "2@x");
    }
    for _ in 0..600 {
        while let Some((_, call)) = world.made.pop_front() {
            match text(&call).contains("\"poison\"") {
                true => world.answer(&call, 422, r#"{"message":"no"}"#),
                false => world.answer(&call, 200, OK),
            }
        }
        world.advance(50);
    }
    assert_eq!(world.ends(End::Delivered), 39);
    // It was posted alone, once, to its original path: what Laravel says there of its validity is final. The
    // state that it implied is not sent.
    assert_eq!((world.ends(End::Rejected), world.pending()), (1, 0));
    assert_eq!(
        world.post("qr", "poison", "2@x"),
        embudo_core::intake::Reply::WriteThrough(embudo_core::route::Bypass::Orphan),
        "a rejected value is no duplicate: its gateway hears for itself"
    );
}

#[test]
fn a_call_that_comes_too_late_is_not_made_and_its_claims_go_back() {
    let mut world = World::new("{}");
    world.post("qr", "a", "2@x");
    world.advance(300);
    let (at_ms, call) = world.call();
    assert!(call.send_by_ms <= at_ms + 1_000, "W");
    world.step(Event::NotSent(call.id, NotSent::Late));
    world.advance(6_000);
    let (_, again) = world.call();
    assert_eq!(again.body, call.body);
    let id = |call: &Call| {
        call.headers
            .iter()
            .find(|(n, _)| n == "x-batch-id")
            .cloned()
            .unwrap()
    };
    assert_eq!(id(&again), id(&call), "an unchanged batch keeps its id");
}

#[test]
fn a_new_leader_respects_the_claims_it_finds() {
    let mut world = World::new("{}");
    world.post("status", "a", "connecting");
    world.post("status", "b", "connecting");
    world.advance(300);
    let (at_ms, _lost) = world.call();
    // The leader dies with its call under way: nobody renews, nobody will settle.
    world.dispatcher = World::root(&world.rules, &world.keys, 2);
    world.post("status", "a", "inactive");
    let calls = world.deliver_for(60_000);
    assert!(!calls.is_empty() && calls.iter().all(|(ms, _)| ms - at_ms >= 31_000));
    assert_eq!(world.pending(), 0);
}

#[test]
fn the_answer_to_an_old_claim_changes_nothing_for_the_new_one() {
    let mut world = World::new("{}");
    world.post("status", "a", "active");
    world.advance(300);
    let (_, lost) = world.call();
    let mut old = core::mem::replace(
        &mut world.dispatcher,
        World::root(&world.rules, &world.keys, 2),
    );
    world.advance(40_000);
    let (_, again) = world.call();
    let answer = Answer {
        status: Some(500),
        from_upstream: true,
        ..Answer::default()
    };
    old.step(
        Event::Answered(lost.id, answer),
        world.now,
        &mut world.store,
        &mut Vec::new(),
    );
    world.post("status", "a", "inactive");
    world.advance(2_000);
    assert!(world.made.is_empty(), "the newer claim still stands");
    world.answer(&again, 200, OK);
    assert_eq!(world.deliver_for(6_000).len(), 1);
}

#[test]
fn a_qr_that_is_too_old_is_dropped_and_its_pending_sent_by_itself() {
    let mut world = World::new(IMPLIES);
    world.post("qr", "a", "2@x");
    world.advance(300);
    let qr_timestamp = timestamp(&world.made[0].1);
    let mut calls = Vec::new();
    for _ in 0..1_300 {
        while let Some((at_ms, call)) = world.made.pop_front() {
            match text(&call).contains("2@x") {
                true => world.answer(&call, 500, ""),
                false => {
                    world.answer(&call, 200, OK);
                    calls.push((at_ms, call));
                }
            }
        }
        world.advance(50);
    }
    assert_eq!(world.ends(End::Expired), 1);
    assert_eq!(calls.len(), 1);
    assert_eq!(path(&calls[0].1), "/whatsapp/status/batch");
    assert!(text(&calls[0].1).contains(r#""estado_qr":"pending""#));
    assert!(
        timestamp(&calls[0].1) > qr_timestamp,
        "Laravel may have seen the QR"
    );
    assert_eq!(world.pending(), 0);
    assert_eq!(
        world.post("qr", "a", "2@x"),
        Reply::Queued,
        "an expired value is no duplicate"
    );
}

#[test]
fn a_revived_state_goes_where_the_gateway_would_have_posted_it() {
    let mut world = World::new(IMPLIES);
    world.post("qr", "a", "2@x");
    world.advance(300);
    let mut alone = Vec::new();
    for _ in 0..2_400 {
        while let Some((_, call)) = world.made.pop_front() {
            if !path(&call).ends_with("/batch") && text(&call).contains("pending") {
                alone.push(path(&call).to_owned());
            }
            // The QR runs out, and the state is refused until it travels alone.
            let status = if text(&call).contains("2@x") {
                500
            } else {
                422
            };
            world.answer(&call, status, "{}");
        }
        world.advance(50);
    }
    assert_eq!(world.ends(End::Expired), 1);
    alone.dedup();
    assert_eq!(alone, ["/whatsapp/status"]);
}

#[test]
fn a_lost_ring_is_made_good_by_the_slow_scan() {
    let mut world = World::new("{}");
    world.doorbell_works = false;
    world.post("qr", "a", "2@x");
    assert_eq!(world.deliver_for(20_000).len(), 1);
    // The flag in the shard is down again, or nobody would ever ring for it.
    world.doorbell_works = true;
    world.post("status", "a", "inactive");
    assert_eq!(world.deliver_for(6_000).len(), 1);
}

#[test]
fn calls_are_paced_and_bounded() {
    let mut world = World::new(r#"{"max_in_flight":2,"max_requests_per_second":10}"#);
    for n in 0..1_000 {
        world.post("status", &format!("s{n}"), "active");
    }
    world.advance(1_000);
    assert_eq!(world.made.len(), 2, "two under way");
    let calls = world.deliver_for(1_000);
    let mut times: Vec<u64> = calls.iter().skip(2).map(|(ms, _)| *ms).collect();
    times.dedup();
    let gaps = times.iter().zip(times.iter().skip(1)).map(|(a, b)| b - a);
    assert!(
        gaps.clone().all(|gap| gap >= 90),
        "evenly spaced: {:?}",
        gaps.collect::<Vec<_>>()
    );
    world.deliver_for(5_000);
    assert_eq!(world.pending(), 0);
}

#[test]
fn a_storm_of_disconnects_does_not_starve_the_qrs() {
    let mut world =
        World::new(r#"{"max_requests_per_second":2,"priority_gap_ms":0,"max_in_flight":1}"#);
    for n in 0..2_000 {
        world.post("status", &format!("d{n}"), "disconnected");
    }
    for n in 0..200 {
        world.post("qr", &format!("q{n}"), "2@x");
    }
    let calls = world.deliver_for(5_000);
    let qrs = calls
        .iter()
        .filter(|(_, call)| path(call) == "/qr/batch")
        .count();
    assert!(
        qrs * 2 + 1 >= calls.len().min(8),
        "{qrs} of {}",
        calls.len()
    );
}

#[test]
fn a_call_that_is_never_answered_gives_its_place_back() {
    let mut world = World::new(r#"{"max_in_flight":1}"#);
    world.post("status", "a", "active");
    world.advance(300);
    let _never_answered = world.call();
    world.post("status", "b", "active");
    let calls = world.deliver_for(60_000);
    assert_eq!(calls.len(), 2, "b first, and a when its claim has run out");
    assert_eq!(world.pending(), 0);
}

#[test]
fn a_root_that_must_go_finishes_when_its_calls_are_answered() {
    let mut world = World::new("{}");
    world.post("qr", "a", "2@x");
    world.advance(300);
    let (_, call) = world.call();
    world.step(Event::Done { is_last: false });
    assert!(!world.dispatcher.is_idle());
    assert!(!world.effects.contains(&Effect::Finished));
    world.answer(&call, 200, OK);
    assert_eq!(world.effects.last(), Some(&Effect::Finished));
    assert_eq!(world.pending(), 0);
    world.dispatcher = World::root(&world.rules, &world.keys, 2);
    world.step(Event::Tick);
    let leads = world.dispatcher.candidate.epoch(world.now.mono_ms);
    assert_eq!(leads, Some(2), "the lease was free at once");
}
