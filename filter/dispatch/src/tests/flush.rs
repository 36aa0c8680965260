//! When a partition flushes, whose turn it is, and what that costs Laravel.

use super::rows::{Had, serve, sessions};
use super::world::{OK, World, path};
use super::*;

/// One session's cycle, milliseconds: six QRs, each with its `pending`, and the end.
const CYCLE_MS: u64 = 165_000;
const QRS_MS: [u64; 6] = [0, 60_000, 80_000, 100_000, 120_000, 140_000];
const END_MS: u64 = 160_000;

/// What unscanned sessions cost: calls a minute at Laravel, requests a minute of the gateway, and how late the QRs
/// are, sorted.
fn run(count: u64) -> (u64, u64, Vec<u64>) {
    let mut world = World::new(
        r#"{"max_sessions":16384,"routes":[
            {"name":"qr","batch":{"max_wait_ms":1000}},{"name":"status","batch":{"max_wait_ms":2000}}]}"#,
    );
    let from_ms = world.now.mono_ms;
    let measured_ms = from_ms + CYCLE_MS;
    let mut requests = 0_u64;
    let mut posted: alloc::collections::BTreeMap<String, u64> = Default::default();
    let had = serve(
        &mut world,
        CYCLE_MS + 120_000,
        |_| 50,
        |_, _| (200, OK.into()),
        |world| {
            let at_ms = world.now.mono_ms - from_ms;
            let counts = u64::from(world.now.mono_ms >= measured_ms);
            for n in 0..count {
                // Everybody begins at a moment of its own.
                let age_ms = at_ms + n * CYCLE_MS / count + (n * 7_919) % 1_000;
                let (cycle, age_ms) = (age_ms / CYCLE_MS, age_ms % CYCLE_MS / 10 * 10);
                let session = format!("s{n}");
                if QRS_MS.contains(&age_ms) {
                    let value = format!("2@{n}-{cycle}-{age_ms}");
                    world.post("qr", &session, &value);
                    world.post("status", &session, "pending");
                    posted.insert(value, world.now.mono_ms);
                    requests += 3 * counts;
                }
                if age_ms == END_MS {
                    world.post("status", &session, "inactive");
                    requests += 2 * counts;
                }
            }
        },
    );
    let late: Vec<&Had> = had.iter().filter(|had| had.at_ms >= measured_ms).collect();
    let mut waits: Vec<u64> = Vec::new();
    for had in late.iter().filter(|had| path(&had.call) == "/qr/batch") {
        let text = super::text(&had.call);
        let values = text.split("\"qr\":\"").skip(1);
        for value in values.filter_map(|part| part.split('"').next()) {
            waits.push(had.end_ms - posted[value]);
        }
    }
    waits.sort_unstable();
    (late.len() as u64 / 2, requests / 2, waits)
}

#[test]
fn few_of_the_gateways_requests_reach_laravel_and_its_qrs_are_in_time() {
    for (count, most_percent) in [(20, 55.0), (100, 15.0), (300, 6.0), (1_000, 2.0)] {
        let (calls, requests, waits) = run(count);
        // A kept read is asked for anew every 25 minutes.
        let calls = calls as f64 + count as f64 / 25.0;
        let percent = calls * 100.0 / requests as f64;
        let p99_ms = waits[waits.len() * 99 / 100];
        println!(
            "{count} sessions: {calls:.0} of {requests} a minute, {percent:.2} %; p99 {p99_ms} ms"
        );
        assert!(percent <= most_percent, "{count} sessions: {percent:.2} %");
        assert!(p99_ms <= 1_500, "{count} sessions: p99 {p99_ms} ms");
    }
}

#[test]
fn two_thousand_hosts_of_a_stranger_do_not_starve_an_honest_one() {
    let mut world = World::new(r#"{"max_sessions":16384}"#);
    for n in 0..2_000 {
        world.post_to(&format!("h{n}.test"), "qr", &format!("x{n}"), "2@x");
    }
    serve(&mut world, 1_000, |_| 50, |_, _| (200, OK.into()), |_| {});
    let start_ms = world.now.mono_ms;
    world.post("qr", "honest", "2@h");
    let had = serve(&mut world, 20_000, |_| 50, |_, _| (200, OK.into()), |_| {});
    let honest = had.iter().find(|had| sessions(&had.call) == ["honest"]);
    let wait_ms = honest.expect("it is delivered").end_ms - start_ms;
    assert!(wait_ms <= 10_000, "after {wait_ms} ms");
    // Among whatever else is said of so many destinations.
    let said = world.effects.iter().filter(
        |effect| matches!(effect, Effect::Log(Level::Warn, line) if line.contains("because of the pace")),
    );
    assert_eq!(said.count(), 1, "one line says that the pace is the limit");
}

#[test]
fn who_has_more_waiting_goes_first_until_somebody_has_waited_for_five_seconds() {
    let mut world = World::new(r#"{"max_requests_per_second":1,"max_in_flight":1}"#);
    // The few are older than the many; the many fill a call each second.
    for n in 0..300 {
        if n < 2 {
            world.post_to("few.test", "status", &format!("f{n}"), "connecting");
        }
        world.post("status", &format!("s{n}"), "connecting");
        world.post_to("other.test", "status", &format!("o{n}"), "connecting");
    }
    let start_ms = world.now.mono_ms;
    let had = serve(&mut world, 20_000, |_| 50, |_, _| (200, OK.into()), |_| {});
    let few = had
        .iter()
        .position(|had| sessions(&had.call).contains(&"f0".into()));
    let few = few.expect("they are delivered");
    assert!(few >= 2, "not at once: call {few}");
    assert!(
        had[few].at_ms - start_ms <= 7_500,
        "after {} ms",
        had[few].at_ms - start_ms
    );
}
