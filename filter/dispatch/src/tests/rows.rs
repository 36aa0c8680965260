//! One bad row: what it costs the others, and what it costs Laravel.

use alloc::collections::BTreeMap;

use super::world::{OK, World, items, path, text};
use super::*;

/// The call's timeout, and how a timeout is told.
const TIMEOUT_MS: u64 = 15_000;

const THROWS: &str = r#"{"message":"Server Error"}"#;

/// A call as Laravel had it.
pub(super) struct Had {
    pub(super) at_ms: u64,
    pub(super) call: Call,
    pub(super) status: u16,
    /// When it was answered.
    pub(super) end_ms: u64,
}

/// The sessions of a call, in its order.
pub(super) fn sessions(call: &Call) -> Vec<String> {
    let parts = text(call).split("\"session_id\":\"").skip(1);
    parts
        .filter_map(|part| Some(part.split('"').next()?.to_owned()))
        .collect()
}

/// Lets time pass while a model Laravel is at work: it takes its time for each call, several at once, and answers.
pub(super) fn serve(
    world: &mut World,
    ms: u64,
    takes_ms: impl Fn(&Call) -> u64,
    mut answer: impl FnMut(u64, &Call) -> (u16, String),
    mut each: impl FnMut(&mut World),
) -> Vec<Had> {
    let end_ms = world.now.mono_ms + ms;
    let mut under_way: Vec<(u64, u64, Call)> = Vec::new();
    let mut had = Vec::new();
    while world.now.mono_ms < end_ms {
        world.advance(10);
        each(world);
        let now_ms = world.now.mono_ms;
        while let Some((at_ms, call)) = world.made.pop_front() {
            under_way.push((at_ms, now_ms + takes_ms(&call).min(TIMEOUT_MS), call));
        }
        let (done, left) = under_way
            .into_iter()
            .partition(|(_, due_ms, _)| *due_ms <= now_ms);
        under_way = left;
        for (at_ms, _, call) in done {
            let (status, body) = match takes_ms(&call) > TIMEOUT_MS {
                true => (504, String::new()),
                false => answer(now_ms, &call),
            };
            match status {
                504 => world.step(Event::Answered(
                    call.id,
                    Answer {
                        status: Some(504),
                        ..Answer::default()
                    },
                )),
                _ => world.answer(&call, status, &body),
            }
            had.push(Had {
                at_ms,
                call,
                status,
                end_ms: now_ms,
            });
        }
    }
    had
}

/// A Laravel that throws for these sessions.
fn throws_for(bad: impl Fn(&str) -> bool) -> impl Fn(u64, &Call) -> (u16, String) {
    move |_, call| match sessions(call).iter().any(|session| bad(session)) {
        true => (500, THROWS.into()),
        false => (200, OK.into()),
    }
}

/// When each session was delivered last.
fn delivered(had: &[Had]) -> BTreeMap<String, u64> {
    let good = had.iter().filter(|had| had.status == 200);
    good.flat_map(|had| sessions(&had.call).into_iter().map(|s| (s, had.end_ms)))
        .collect()
}

#[test]
fn beside_a_row_that_always_throws_the_others_are_delivered_and_it_is_sent_ever_more_rarely() {
    for bad in ["s0", "s25", "s49"] {
        let mut world = World::new("{}");
        for n in 0..50 {
            world.post("status", &format!("s{n}"), "connecting");
        }
        let start_ms = world.now.mono_ms;
        let mut was_posted = false;
        let had = serve(
            &mut world,
            60_000,
            |_| 100,
            throws_for(|s| s == bad),
            |world| {
                let is_time = world.now.mono_ms >= start_ms + 1_000;
                if is_time && !core::mem::replace(&mut was_posted, true) {
                    world.post("status", "gone", "disconnected");
                }
            },
        );
        let ends = delivered(&had);
        assert_eq!(ends.len(), 50, "{bad}: 49 and the disconnect");
        let last_ms = ends.values().max().unwrap() - start_ms;
        assert!(last_ms < 30_000, "{bad}: the last after {last_ms} ms");
        let gone_ms = ends["gone"] - start_ms - 1_000;
        assert!(gone_ms < 2_000, "{bad}: the disconnect after {gone_ms} ms");
        let sent = had
            .iter()
            .filter(|had| sessions(&had.call).iter().any(|s| s == bad));
        let sent = sent.count();
        assert!(sent <= 30, "{bad}: sent {sent} times");
        assert_eq!(world.pending(), 1);
        assert_eq!(world.gauge(Gauge::Suspects), Some(1));
        assert_eq!(world.circuit(), embudo_core::circuit::State::Closed);
    }
}

#[test]
fn five_of_a_hundred_rows_that_throw_keep_nobody_else_for_long() {
    for count in [100, 1_000] {
        let mut world = World::new("{}");
        for n in 0..count {
            world.post("status", &format!("s{n}"), "connecting");
        }
        let start_ms = world.now.mono_ms;
        let bad = |session: &str| {
            session.ends_with("07")
                || session.ends_with("27")
                || session.ends_with("47")
                || session.ends_with("67")
                || session.ends_with("87")
        };
        let had = serve(&mut world, 60_000, |_| 100, throws_for(bad), |_| {});
        let ends = delivered(&had);
        let good = (0..count).filter(|n| !bad(&format!("s{n}"))).count();
        assert_eq!(ends.len(), good, "of {count}");
        let last_ms = ends.values().max().unwrap() - start_ms;
        assert!(last_ms < 45_000, "the last of {count} after {last_ms} ms");
        println!(
            "{count} rows: the last after {last_ms} ms, {} calls",
            had.len()
        );
    }
}

#[test]
fn after_an_outage_of_everything_the_backlog_leaves_in_full_batches() {
    for status in [500, 503, 502, 504] {
        let mut world = World::new("{}");
        world.post("status", "first", "connecting");
        serve(&mut world, 2_000, |_| 50, |_, _| (200, OK.into()), |_| {});
        for n in 0..1_000 {
            world.post("status", &format!("s{n}"), "connecting");
        }
        let over_ms = world.now.mono_ms + 60_000;
        let takes_ms = |_: &Call| 50;
        let answer = |now_ms: u64, _: &Call| match now_ms < over_ms {
            true => (status, String::new()),
            false => (200, OK.into()),
        };
        let had = serve(&mut world, 120_000, takes_ms, answer, |_| {});
        assert_eq!(world.pending(), 0, "{status}");
        let during = had.iter().filter(|had| had.end_ms < over_ms).count();
        let after: Vec<&Had> = had.iter().filter(|had| had.end_ms >= over_ms).collect();
        println!(
            "{status}: {during} calls during the outage, {} after it",
            after.len()
        );
        assert!(during <= 45, "{status}: {during} calls during the outage");
        // A hundred items a call. What was lost in the last half minute is held until it is safe, each call's
        // sessions until a moment of their own.
        let is_held = |had: &&Had| had.at_ms + 31_000 >= over_ms && had.end_ms < over_ms;
        let held = match status {
            502 | 504 => had.iter().filter(is_held).count(),
            _ => 0,
        };
        assert!(after.len() <= 13 + held, "{status}: {} calls", after.len());
        let first_ms = after[0].at_ms - over_ms.min(after[0].at_ms);
        assert!(first_ms <= 6_000, "{status}: the first after {first_ms} ms");
    }
}

#[test]
fn what_is_excused_after_an_outage_and_is_not_taken_with_others_goes_alone() {
    // Whether each of them has failed just once is a matter of how long it lasts.
    for (items, outage_s) in (6..10).flat_map(|items| (4..24).map(move |s| (items, s))) {
        let mut world = World::new("{}");
        world.post("status", "first", "connecting");
        serve(&mut world, 2_000, |_| 50, |_, _| (200, OK.into()), |_| {});
        for n in 0..items {
            world.post("status", &format!("s{n}"), "connecting");
        }
        let broken = |_: u64, _: &Call| (500, THROWS.to_owned());
        serve(&mut world, outage_s * 1_000, |_| 50, broken, |_| {});
        let forbidden = |_: u64, call: &Call| match path(call).ends_with("/batch") {
            true => (403, r#"{"message":"Forbidden."}"#.to_owned()),
            false => (200, OK.to_owned()),
        };
        let had = serve(&mut world, 60_000, |_| 50, forbidden, |_| {});
        let case = format!("{items} items, {outage_s} s");
        assert_eq!(world.pending(), 0, "{case}");
        let calls = had.len();
        println!("{case}: {calls} calls");
        assert!(calls <= 2 * items + 4, "{case}: {calls} calls");
    }
}

#[test]
fn a_row_that_results_say_has_failed_backs_off_by_itself() {
    let mut world = World::new("{}");
    for n in 0..50 {
        world.post("qr", &format!("s{n}"), "2@x");
    }
    let had = serve(
        &mut world,
        20_000,
        |_| 50,
        |_, call| {
            let lines = sessions(call).into_iter().map(|session| {
                let status = if session == "s7" { 500 } else { 200 };
                format!(r#"{{"session_id":"{session}","status":{status}}}"#)
            });
            let lines = lines.collect::<Vec<_>>().join(",");
            match path(call).ends_with("/batch") {
                true => (200, format!(r#"{{"success":true,"results":[{lines}]}}"#)),
                false => (500, THROWS.into()),
            }
        },
        |_| {},
    );
    assert!((4..=10).contains(&had.len()), "{} calls in 20 s", had.len());
    assert_eq!(world.ends(End::Delivered), 49);
}

#[test]
fn an_item_that_is_unknown_again_and_again_is_isolated() {
    let mut world = World::new("{}");
    let lost = |_: u64, call: &Call| match sessions(call).iter().any(|s| s == "s7") {
        true => (504, String::new()),
        false => (200, OK.into()),
    };
    for n in 0..50 {
        world.post("status", &format!("s{n}"), "connecting");
    }
    serve(&mut world, 400_000, |_| 50, lost, |_| {});
    assert_eq!((world.pending(), world.ends(End::Delivered)), (1, 49));
    for round in 0..3 {
        for n in 0..50 {
            world.post("status", &format!("s{n}"), &format!("v{round}"));
        }
        let start_ms = world.now.mono_ms;
        let had = serve(&mut world, 60_000, |_| 50, lost, |_| {});
        let ends = delivered(&had);
        let last_ms = ends.values().max().unwrap() - start_ms;
        assert_eq!(ends.len(), 49);
        assert!(last_ms < 3_000, "nobody else is held: {last_ms} ms");
    }
}

#[test]
fn a_laravel_that_is_slow_by_the_item_is_asked_for_less_and_stores_nothing_more_than_twice() {
    let mut world = World::new("{}");
    for n in 0..50 {
        world.post("status", &format!("s{n}"), "connecting");
    }
    let takes_ms = |call: &Call| 400 * items(call) as u64;
    let had = serve(
        &mut world,
        140_000,
        takes_ms,
        |_, _| (200, OK.into()),
        |_| {},
    );
    assert_eq!(world.pending(), 0);
    let mut stored: BTreeMap<String, u32> = BTreeMap::new();
    for session in had.iter().flat_map(|had| sessions(&had.call)) {
        *stored.entry(session).or_default() += 1;
    }
    assert!(stored.values().all(|times| *times <= 2), "{stored:?}");
    assert!(had.iter().skip(1).all(|had| items(&had.call) <= 16));
}

#[test]
fn a_server_that_takes_ten_at_once_says_so_once() {
    let mut world = World::new("{}");
    let answer = |_: u64, call: &Call| match items(call) > 10 {
        true => (
            422,
            r#"{"message":"too many","errors":{"statuses":["max 10"]}}"#.into(),
        ),
        false => (200, OK.into()),
    };
    // It has a batch route.
    world.post("status", "first", "connecting");
    serve(&mut world, 2_000, |_| 50, answer, |_| {});
    let mut calls = Vec::new();
    for round in 0..4 {
        for n in 0..100 {
            world.post("status", &format!("s{n}"), &format!("v{round}"));
        }
        let had = serve(&mut world, 30_000, |_| 50, answer, |_| {});
        let refused = had.iter().filter(|had| had.status == 422).count();
        calls.push((had.len(), refused));
        assert_eq!(world.pending(), 0);
    }
    assert!(calls[0].1 <= 12, "{calls:?}");
    assert!(
        calls[1..].iter().all(|calls| calls.1 == 0 && calls.0 <= 18),
        "{calls:?}"
    );
}

#[test]
fn what_follows_a_row_that_throws_in_its_session_goes_on_without_it() {
    let mut world = World::new("{}");
    for n in 0..3 {
        world.post("status", &format!("s{n}"), "connecting");
    }
    let is_bad = |call: &Call| text(call).contains("connecting") && text(call).contains("\"s1\"");
    let answer = |_: u64, call: &Call| match is_bad(call) {
        true => (500, THROWS.into()),
        false => (200, OK.into()),
    };
    serve(&mut world, 10_000, |_| 50, answer, |_| {});
    assert_eq!(world.ends(End::Delivered), 2);
    let start_ms = world.now.mono_ms;
    world.post("qr", "s1", "2@x");
    let had = serve(&mut world, 3_000, |_| 50, answer, |_| {});
    let qr = had
        .iter()
        .find(|had| text(&had.call).contains("2@x"))
        .unwrap();
    assert!(qr.status == 200 && qr.end_ms - start_ms < 1_500);
}

#[test]
fn what_repeats_rows_that_throw_is_a_small_part_of_all_calls() {
    let mut world = World::new("{}");
    for n in 0..100 {
        world.post("status", &format!("s{n}"), "connecting");
    }
    world.post("status", "good", "connecting");
    let mut round = 0_u64;
    let bad = |session: &str| session != "good";
    let had = serve(
        &mut world,
        300_000,
        |_| 50,
        throws_for(bad),
        |world| {
            round += 1;
            if round.is_multiple_of(100) {
                world.post("status", "good", &format!("v{round}"));
            }
        },
    );
    // Until the good one's turn comes nothing is accepted, and the whole destination backs off; in the minute after that
    // each of the others is found out.
    let found = had.iter().find(|had| had.status == 200).unwrap();
    let late_ms = found.at_ms + 60_000..found.at_ms + 120_000;
    let late = had
        .iter()
        .filter(|had| late_ms.contains(&had.at_ms))
        .count();
    println!("{late} calls in the second minute after that");
    assert!(late <= 150, "one good one and one repeat a second: {late}");
}
