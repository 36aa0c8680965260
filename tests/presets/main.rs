//! Gateways that post every event to one address, replayed through the real Envoy with the snippet that an
//! operator would use: states and QRs arrive once, the newest first of all, and messages are left alone.

use std::time::Duration;

use anyhow::Result;
use embudo_tests::{Answers, BOUND, Event, Events, Hooks, Reply};
use serde_json::{Value, json};

/// Far above what a test takes until its last assertion, and below [`BOUND`]: whoever waits for this timer is
/// late.
const QUIET_MS: u64 = 20_000;

/// What "at once" may take here; a third of [`QUIET_MS`], on a machine that other tests share.
const AT_ONCE: Duration = Duration::from_secs(6);

/// Enough for a batch that is not only one.
const SESSIONS: usize = 8;

/// One test for each gateway.
macro_rules! for_each_gateway {
    ($($name:ident: $replay:path { $($gateway:ident: $preset:literal,)* })*) => { $(
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $gateway() -> anyhow::Result<()> {
                    $replay($preset).await
                }
            )*
        }
    )* };
}

for_each_gateway! {
    each_event_is_told_once_and_each_message_untouched: crate::replay {
        evolution: "evolution",
        waha: "waha",
        wppconnect: "wppconnect",
        wwebjs_api: "wwebjs-api",
        baileys_api: "baileys-api",
        wa_gateway: "wa-gateway",
        evolution_go: "evolution-go",
        codechat: "codechat",
        open_wa: "open-wa",
        baileys_api_fazer: "baileys-api-fazer",
    }
    an_end_waits_for_no_timer_and_takes_along_what_is_older: crate::end_at_once {
        evolution: "evolution",
        waha: "waha",
        wppconnect: "wppconnect",
        wwebjs_api: "wwebjs-api",
        baileys_api: "baileys-api",
        wa_gateway: "wa-gateway",
        evolution_go: "evolution-go",
        codechat: "codechat",
        open_wa: "open-wa",
        baileys_api_fazer: "baileys-api-fazer",
    }
    so_does_a_state_that_opens_a_gate: crate::gate_at_once {
        evolution: "evolution",
        waha: "waha",
        wppconnect: "wppconnect",
        wwebjs_api: "wwebjs-api",
        baileys_api: "baileys-api",
        wa_gateway: "wa-gateway",
        evolution_go: "evolution-go",
        codechat: "codechat",
        open_wa: "open-wa",
        baileys_api_fazer: "baileys-api-fazer",
    }
    no_qr_follows_the_scan: crate::scan_voids_qr {
        evolution: "evolution",
        wppconnect: "wppconnect",
        wwebjs_api: "wwebjs-api",
        baileys_api: "baileys-api",
        evolution_go: "evolution-go",
        codechat: "codechat",
        baileys_api_fazer: "baileys-api-fazer",
    }
    with_batch_webhooks_events_arrive_together_and_as_they_were: crate::batches {
        evolution: "evolution",
        waha: "waha",
        wppconnect: "wppconnect",
        wwebjs_api: "wwebjs-api",
        baileys_api: "baileys-api",
        wa_gateway: "wa-gateway",
        evolution_go: "evolution-go",
        codechat: "codechat",
        open_wa: "open-wa",
    }
}

/// Posts the story of one session's life, each event once what came before it has arrived.
async fn replay(preset: &str) -> Result<()> {
    let gateway = Events::of(preset);
    let hooks = Hooks::start(
        preset,
        trusting(json!({"priority_gap_ms": 0})),
        Answers::Json,
    )
    .await?;

    let mut told: Vec<(String, String)> = Vec::new();
    for event in &gateway.events {
        let reply = post(&hooks, &gateway, event).await;
        let what = &event.what;
        let is_ours = match event.outcome.as_str() {
            // What a rule knows the session of keeps that session's order.
            "bypass" if event.rule.is_some() => {
                let ways = ["bypass", "write-through", "held"];
                ways.map(|way| format!("{way}; no_value"))
                    .contains(&reply.outcome)
            }
            "bypass" => reply.outcome.starts_with("bypass; "),
            "none" => reply.outcome.is_empty(),
            outcome => reply.outcome == outcome,
        };
        assert!(is_ours, "{what}: {}, not {}", reply.outcome, event.outcome);
        assert_eq!(reply.status, 200, "{what}");
        if !["duplicate", "stale"].contains(&&*event.outcome) {
            told.push((gateway.path_of(event), event.body()));
        }
        if ["bypass", "none"].contains(&&*event.outcome) {
            let own = format!("{{\"call\":{}}}", told.len());
            assert_eq!(reply.body, own, "{what}: the target answers itself");
            assert_eq!(hooks.target.calls().len(), told.len(), "{what}: at once");
        } else {
            assert!(reply.body.starts_with(b"{\"success\":true"), "{what}");
        }
        hooks.calls(told.len(), BOUND, what).await;
    }

    hooks.settled().await;
    let calls = hooks.target.calls().into_iter();
    let heard: Vec<(String, String)> = calls
        .map(|call| (call.path, String::from_utf8_lossy(&call.body).into_owned()))
        .collect();
    assert_eq!(
        heard, told,
        "the target hears everything once, byte for byte"
    );
    hooks.finish().await;
    Ok(())
}

/// An event that can wait, and then one that cannot.
async fn end_at_once(preset: &str) -> Result<()> {
    at_once(preset, |event| event.priority).await
}

/// An event that can wait, and then one that other routes follow on.
async fn gate_at_once(preset: &str) -> Result<()> {
    at_once(preset, |event| event.opens).await
}

async fn at_once(preset: &str, is_urgent: impl Fn(&Event) -> bool) -> Result<()> {
    let gateway = Events::of(preset);
    let over = trusting(quiet(&gateway, |_| true));
    let hooks = Hooks::start(preset, over, Answers::Json).await?;
    let is_queued = |event: &&Event| event.outcome == "queued";
    let mut queued = gateway.events.iter().filter(is_queued);
    let first = queued.next().expect("an event that waits");
    let end = queued
        .find(|event| is_urgent(event))
        .expect("an urgent one");

    for event in [first, end] {
        let (path, body) = gateway.of_session(event, "mine");
        let reply = hooks.post(&path, &gateway.headers_of(event), &body).await;
        assert_eq!(reply.outcome, "queued", "{}", event.what);
        if !is_urgent(event) {
            assert!(hooks.target.calls().is_empty(), "{} waits", event.what);
        }
    }
    let what = "the urgent one arrives without waiting";
    let (_, newest) = gateway.of_session(end, "mine");
    let mut calls = hooks.calls(1, AT_ONCE, what).await;
    if calls[0].body != newest {
        // Another rule's event is not superseded: it comes first.
        let (_, older) = gateway.of_session(first, "mine");
        assert_eq!(calls[0].body, older, "{preset}");
        calls = hooks.calls(2, AT_ONCE, what).await;
        calls.remove(0);
    }
    assert_eq!(calls.len(), 1, "nothing else arrives");
    assert_eq!(calls[0].body, newest, "{what}");
    hooks.finish().await;
    Ok(())
}

/// A QR that has not left yet when the session is connected.
async fn scan_voids_qr(preset: &str) -> Result<()> {
    let gateway = Events::of(preset);
    let over = trusting(quiet(&gateway, |rule| rule == "qr"));
    let hooks = Hooks::start(preset, over, Answers::Json).await?;

    for what in ["the first QR", "scanned"] {
        let reply = post(&hooks, &gateway, gateway.named(what)).await;
        assert_eq!(reply.outcome, "queued", "{what}");
    }

    let ledger = hooks.settled().await;
    let bodies: Vec<_> = hooks.target.calls().into_iter().map(|c| c.body).collect();
    assert_eq!(bodies, [gateway.named("scanned").body()], "the QR is void");
    assert_eq!((ledger.delivered, ledger.voided), (1, 1));

    // Had the first one been remembered as told, this would be its duplicate.
    let again = post(&hooks, &gateway, gateway.named("the first QR")).await;
    assert_eq!(again.outcome, "queued", "the same QR after it is news");
    hooks.finish().await;
    Ok(())
}

/// Many sessions' first events at one moment, where the target takes batches.
async fn batches(preset: &str) -> Result<()> {
    let gateway = Events::of(preset);
    let over = trusting(json!({"batch_webhooks": true}));
    let hooks = Hooks::start(preset, over, Answers::Json).await?;
    let queued = |event: &&Event| event.outcome == "queued";
    let event = gateway.events.iter().find(queued).expect("an event");
    let sessions: Vec<String> = (0..SESSIONS).map(|n| format!("session-{n}")).collect();

    for session in &sessions {
        let (path, body) = gateway.of_session(event, session);
        let reply = hooks.post(&path, &gateway.headers_of(event), &body).await;
        assert_eq!(reply.outcome, "queued", "{session}");
    }
    let message = gateway.named("a message about the events themselves");
    let reply = post(&hooks, &gateway, message).await;
    assert!(!["queued", "duplicate"].contains(&&*reply.outcome));
    hooks.settled().await;

    let calls = hooks.target.calls();
    let is_message = |path: &str| path == gateway.path_of(message);
    let alone: Vec<_> = calls.iter().filter(|c| is_message(&c.path)).collect();
    assert_eq!(alone.len(), 1, "the message alone goes where it went");
    assert_eq!(alone[0].body, message.body(), "and as it was");

    let mut told = Vec::new();
    let batches: Vec<_> = calls.iter().filter(|c| !is_message(&c.path)).collect();
    assert!(batches.len() < SESSIONS, "a crowd is batched");
    for batch in batches {
        assert_eq!(batch.path, format!("{}/batch", gateway.path_of(event)));
        assert_eq!(batch.headers["content-type"], "application/json");
        let body: Value = serde_json::from_slice(&batch.body)?;
        let events = body["events"].as_array().expect("events");
        let own: Vec<String> = events
            .iter()
            .map(|one| gateway.session_of(one).expect("a session"))
            .collect();
        let originals: Vec<_> = own.iter().map(|s| gateway.body_of(event, s)).collect();
        let expected = format!("{{\"events\":[{}]}}", originals.join(","));
        assert_eq!(batch.body, expected, "the bodies are the original ones");
        told.extend(own);
    }
    told.sort_unstable();
    assert_eq!(told, sessions, "each session's event arrives once");
    hooks.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_webhooks_need_not_answer_json() -> Result<()> {
    let gateway = Events::of("evolution");
    for answers in [Answers::Text, Answers::Empty] {
        let hooks = Hooks::start("evolution", json!({}), answers).await?;
        let first = gateway.named("the socket connects");
        let second = gateway.named("the refusal after it");

        let reply = post(&hooks, &gateway, first).await;
        assert_eq!(reply.outcome, "write-through; unproven", "{answers:?}");
        let reply = post(&hooks, &gateway, second).await;
        assert_eq!(reply.outcome, "queued", "{answers:?} proves");

        let ledger = hooks.settled().await;
        assert_eq!(ledger.delivered, 1, "{answers:?} is a yes");
        let calls = hooks.target.calls();
        let bodies: Vec<_> = calls.into_iter().map(|call| call.body).collect();
        assert_eq!(
            bodies,
            [first.body(), second.body()],
            "{answers:?}: nothing is repeated"
        );
        hooks.finish().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_key_is_learnt_and_carried_on() -> Result<()> {
    for (preset, header) in [("wwebjs-api", "x-api-key"), ("wa-gateway", "key")] {
        let gateway = Events::of(preset);
        let hooks = Hooks::start(preset, json!({"priority_gap_ms": 0}), Answers::Json).await?;
        let mut queued = gateway.events.iter().filter(|e| e.outcome == "queued");
        let first = queued.next().expect("one");
        // Another rule's event would have to prove its route first.
        let second = queued.find(|event| event.rule == first.rule).expect("two");

        let stranger = post(&hooks, &gateway, first).await;
        assert_eq!(stranger.outcome, "write-through; unproven", "{preset}");
        assert_eq!(stranger.body, "{\"call\":1}", "{preset}: Laravel judges it");
        let known = post(&hooks, &gateway, second).await;
        assert_eq!(known.outcome, "queued", "{preset}: Laravel took the key");

        let calls = hooks.calls(2, BOUND, "the second event arrives").await;
        for call in calls {
            let headers = gateway.headers_of(second);
            let (_, key) = headers
                .iter()
                .find(|(name, _)| name == header)
                .expect("a key");
            assert_eq!(call.headers[header], key.as_str(), "{preset}");
        }
        hooks.finish().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_events_pass_through() -> Result<()> {
    let gateway = Events::of("waha");
    let hooks = Hooks::start("waha", json!({}), Answers::Json).await?;
    let event = gateway.named("the session starts");
    let mut headers = gateway.headers_of(event);
    headers.push(("x-webhook-hmac".to_owned(), "00ff".repeat(32)));
    headers.push(("x-webhook-hmac-algorithm".to_owned(), "sha512".to_owned()));

    for n in 1..=2 {
        let path = gateway.path_of(event);
        let reply = hooks.post(&path, &headers, &event.body()).await;
        assert_eq!(reply.outcome, "bypass; signature");
        assert_eq!(reply.body, format!("{{\"call\":{n}}}"));
    }
    hooks.finish().await;
    Ok(())
}

/// The page reloads while the phone unlinks it: there is no other word of it.
#[tokio::test(flavor = "multi_thread")]
async fn not_logged_in_after_in_the_chat_waits_for_no_timer() -> Result<()> {
    let gateway = Events::of("wppconnect");
    let over = trusting(quiet(&gateway, |_| true));
    let hooks = Hooks::start("wppconnect", over, Answers::Json).await?;
    post(&hooks, &gateway, gateway.named("in the chat")).await;
    hooks.calls(1, AT_ONCE, "the gate opens at once").await;

    let story = [
        "unlinked while the page reloads: a QR",
        "and nothing but that nobody is logged in",
    ];
    for what in story {
        let reply = post(&hooks, &gateway, gateway.named(what)).await;
        assert_eq!(reply.outcome, "queued", "{what}");
    }
    let calls = hooks.calls(3, AT_ONCE, "the news does not wait").await;
    let bodies: Vec<_> = calls[1..].iter().map(|call| call.body.clone()).collect();
    assert_eq!(bodies, story.map(|what| gateway.named(what).body()));
    hooks.finish().await;
    Ok(())
}

/// Gateways that repeat what was refused, byte for byte, seconds later, while the next event is through already.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_that_comes_back_behind_a_newer_one_is_stale() -> Result<()> {
    for (preset, refused, newer) in [
        ("evolution", "the socket connects", "scanned"),
        ("evolution", "the first QR", "scanned"),
        ("evolution-go", "the first QR", "the next QR"),
        ("evolution-go", "the first QR", "scanned"),
        ("baileys-api-fazer", "the socket connects", "scanned"),
        ("baileys-api-fazer", "the first QR", "scanned"),
    ] {
        let gateway = Events::of(preset);
        let hooks = Hooks::start(preset, json!({}), Answers::Json).await?;
        let (refused, newer) = (gateway.named(refused), gateway.named(newer));
        let what = format!("{preset}: {}, {}", refused.what, newer.what);
        hooks.target.refuse_next();

        let reply = post(&hooks, &gateway, refused).await;
        assert_eq!(reply.status, 503, "{what}: the target's own word");
        let reply = post(&hooks, &gateway, newer).await;
        assert_eq!(reply.status, 200, "{what}");
        let reply = post(&hooks, &gateway, refused).await;
        assert_eq!((reply.status, &*reply.outcome), (200, "stale"), "{what}");
        hooks.settled().await;
        let bodies: Vec<_> = hooks.target.calls().into_iter().map(|c| c.body).collect();
        assert_eq!(bodies, [newer.body()], "{what}");
        hooks.finish().await;
    }
    Ok(())
}

/// CodeChat names the owner in a header as soon as it knows it: in the middle of a session's life.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_appears_in_mid_life_arrives_and_breaks_no_order() -> Result<()> {
    let gateway = Events::of("codechat");
    let over = trusting(json!({"priority_gap_ms": 0}));
    let hooks = Hooks::start("codechat", over, Answers::Json).await?;
    let story = ["scanned", "the line breaks", "logged out from the phone"];
    for what in story {
        let reply = post(&hooks, &gateway, gateway.named(what)).await;
        assert_eq!(reply.outcome, "queued", "{what}");
    }
    hooks.settled().await;
    let calls = hooks.target.calls();
    let bodies: Vec<_> = calls.iter().map(|call| call.body.clone()).collect();
    assert_eq!(bodies, story.map(|what| gateway.named(what).body()));
    let owners: Vec<_> = calls
        .iter()
        .map(|c| c.headers.get("resource-owner"))
        .collect();
    let is_named: Vec<_> = owners.iter().map(Option::is_some).collect();
    assert_eq!(
        is_named,
        [false, true, true],
        "each with the headers it had"
    );
    hooks.finish().await;
    Ok(())
}

async fn post(hooks: &Hooks, gateway: &Events, event: &Event) -> Reply {
    let headers = gateway.headers_of(event);
    hooks
        .post(&gateway.path_of(event), &headers, &event.body())
        .await
}

/// The keys of the gateways are not what most of these tests are about.
fn trusting(mut config: Value) -> Value {
    config["assume"] = json!({"callers": true});
    config
}

/// A configuration in which the items of these rules wait for company much longer than usual.
fn quiet(gateway: &Events, of: impl Fn(&str) -> bool) -> Value {
    let mut rules: Vec<&str> = gateway
        .events
        .iter()
        .filter_map(|e| e.rule.as_deref())
        .collect();
    rules.sort_unstable();
    rules.dedup();
    let routes = rules
        .into_iter()
        .filter(|rule| of(rule))
        .map(|rule| json!({"name": rule, "batch": {"quiet_ms": QUIET_MS, "max_wait_ms": 0}}));
    json!({"routes": routes.collect::<Vec<_>>()})
}
