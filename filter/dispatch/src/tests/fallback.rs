//! The webhook.

use super::world::{OK, World, path, text};
use super::*;

const CONFIG: &str = r#"{"fallback":{"path":"/hook","headers":{"x-key":"k"}}}"#;

/// Lets time pass while Laravel and the webhook answer so. Gives the webhook's events.
fn run(world: &mut World, ms: u64, laravel: Option<u16>, webhook: u16) -> Vec<Call> {
    let mut events = Vec::new();
    for _ in 0..ms / 50 {
        world.advance(50);
        while let Some((_, call)) = world.made.pop_front() {
            match (call.cluster == "webhook", laravel) {
                (true, _) => {
                    world.answer(&call, webhook, "");
                    events.push(call);
                }
                (false, Some(status)) => world.answer(&call, status, OK),
                (false, None) => world.step(Event::NotSent(call.id, NotSent::Ejected)),
            }
        }
    }
    events
}

#[test]
fn while_the_circuit_is_open_each_value_is_handed_over_once_and_still_delivered() {
    let mut world = World::new(CONFIG);
    for n in 0..60 {
        world.post("status", &format!("s{n}"), "connecting");
    }
    let events = run(&mut world, 60_000, None, 200);
    let items: usize = events
        .iter()
        .map(|call| text(call).matches("\"session_id\"").count())
        .sum();
    assert_eq!((events.len(), items), (2, 60));
    let event = &events[0];
    assert_eq!(path(event), "/hook");
    assert!(text(event).starts_with(r#"{"event":"status.batch","reason":"circuit_open","#));
    assert!(event.headers.contains(&("x-key".into(), "k".into())));
    // A newer value is news to the webhook too.
    world.post("status", "s1", "inactive");
    let events = run(&mut world, 5_000, None, 200);
    assert_eq!(events.len(), 1);
    assert!(text(&events[0]).contains("inactive"));
    let events = run(&mut world, 20_000, Some(200), 200);
    assert_eq!((events.len(), world.pending()), (0, 0));
    assert_eq!(world.ends(End::Delivered), 60);
}

#[test]
fn a_healthy_laravel_keeps_the_webhook_out_of_it() {
    let mut world = World::new(CONFIG);
    for n in 0..60 {
        world.post("status", &format!("s{n}"), "active");
    }
    assert!(run(&mut world, 20_000, Some(200), 200).is_empty());
}

#[test]
fn a_destination_that_keeps_failing_is_handed_over_too() {
    let mut world = World::new(r#"{"fallback":{"after_attempts":2}}"#);
    world.post("status", "a", "active");
    let events = run(&mut world, 30_000, Some(500), 200);
    assert_eq!(events.len(), 1);
    assert!(text(&events[0]).contains(r#""reason":"attempts""#));
    assert_eq!(world.pending(), 1);
}

#[test]
fn a_session_is_told_in_order() {
    let mut world = World::new(CONFIG);
    world.post("qr", "a", "2@x");
    world.post("status", "a", "connecting");
    let events = run(&mut world, 20_000, None, 200);
    let names: Vec<bool> = events
        .iter()
        .map(|event| text(event).contains("qr.batch"))
        .collect();
    assert_eq!(names, [true, false]);
}

#[test]
fn a_webhook_that_fails_is_tried_again_and_holds_up_nobody() {
    let mut world = World::new(CONFIG);
    world.post("status", "a", "active");
    let events = run(&mut world, 60_000, None, 500);
    assert!((3..40).contains(&events.len()), "{} events", events.len());
    assert_eq!(run(&mut world, 40_000, None, 204).len(), 1);
    world.post("status", "b", "active");
    let _never_answered = run(&mut world, 1_000, Some(200), 500);
    run(&mut world, 10_000, Some(200), 500);
    assert_eq!(world.pending(), 0);
}

#[test]
fn what_laravel_rejects_is_a_dead_letter() {
    let mut world = World::new(CONFIG);
    world.post("qr", "a", "2@x");
    let events = run(&mut world, 10_000, Some(422), 500);
    assert!(!events.is_empty());
    let events = run(&mut world, 60_000, Some(200), 200);
    // The QR, and nothing of the state that it implied: of a session that Laravel does not know it wants nothing.
    let dead: Vec<&Call> = events
        .iter()
        .filter(|event| text(event).starts_with(r#"{"event":"dead_letter","reason":"rejected","#))
        .collect();
    assert_eq!(dead.len(), 1);
    assert!(text(dead[0]).contains("2@x"));
    assert!(run(&mut world, 60_000, Some(200), 200).is_empty(), "once");
}

#[test]
fn a_root_that_leads_no_more_still_tells_of_its_dead() {
    let mut world = World::new(CONFIG);
    world.post("status", "a", "active");
    world.advance(300);
    let (_, batch) = world.call();
    world.answer(&batch, 422, "{}");
    world.advance(100);
    let (_, alone) = world.call();
    // Somebody else leads by the time that the answer comes.
    world.now.mono_ms += 10_000;
    world.next_tick_ms = world.now.mono_ms + 50;
    let mut next = World::root(&world.rules, &world.keys, 2);
    next.step(Event::Tick, world.now, &mut world.store, &mut Vec::new());
    world.answer(&alone, 422, "{}");
    world.advance(600);
    let (_, event) = world.call();
    assert!(text(&event).starts_with(r#"{"event":"dead_letter","#));
}
