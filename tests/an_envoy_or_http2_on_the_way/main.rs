//! What is between Embudo and Laravel speaks too: another Envoy, retries that hide a first try, limits of the
//! cluster's, HTTP/2. Who answered, and whether Laravel had the request, decides whether a session's next update
//! may go at once.

mod refusing;

use std::time::Duration;

use anyhow::Result;
use embudo::live::scaled;
use embudo::model::http::Kind;
use embudo::model::laravel::{Fault, Misbehaviour};
use embudo_tests::{BOUND, Stack, StackOptions, qr, session, wait_until};
use serde_json::{Value, json};

use self::refusing::{Refusal, Refusing};

const SEND_WINDOW_MS: u64 = 200;
const CALL_TIMEOUT_MS: u64 = 1_500;
const LATE_MS: u64 = 1_500;

/// For how long a claim protects its session when nobody knows.
const HELD_MS: u64 = SEND_WINDOW_MS + CALL_TIMEOUT_MS + LATE_MS;

const ROUTES: &str = "listeners/gateway/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/laravel/routes";
const OPTIONS: &str =
    "typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn times() -> Value {
    let times = json!({
        "send_window_ms": SEND_WINDOW_MS,
        "call_timeout_ms": CALL_TIMEOUT_MS,
        "late_ms": LATE_MS,
    });
    scaled(&times, 10.0)
}

async fn stack(name: &str, change: impl FnOnce(&mut StackOptions)) -> Result<Stack> {
    let stack = Stack::with(name, |options| {
        options.filter_config = times();
        change(options);
    })
    .await?;
    // Caller and routes are proven, and the batch path has taken a batch.
    let proof = session();
    stack.post_qr(&proof, &qr("proof")).await;
    stack.post_qr(&session(), &qr("batch")).await;
    stack.post_status(&proof, "connecting").await;
    stack.settled(BOUND).await;
    Ok(stack)
}

async fn calls(stack: &Stack, verdict: &str) -> u64 {
    stack.counter("embudo.calls", &[("verdict", verdict)]).await
}

/// The next call is unknown: its session waits until nothing can be under way any more.
async fn the_next_call_is_unknown(stack: &Stack) {
    let before = calls(stack, "unknown").await;
    let held = session();
    let first = stack.post_qr(&held, &qr("first")).await;
    assert_eq!(first.outcome, "queued");
    wait_until("a call's fate is unknown", BOUND, async || {
        calls(stack, "unknown").await > before
    })
    .await;
    stack.post_qr(&held, &qr("second")).await;
    wait_until("the newest value arrives", BOUND, async || {
        stack.values_of(&held).last() == Some(&qr("second"))
    })
    .await;
    let second = stack.of_session(&held).pop().expect("it has arrived");
    assert!(
        second.started_ms >= first.sent_ms + HELD_MS,
        "nothing of the session is sent before {} ms, and this was at {}",
        first.sent_ms + HELD_MS,
        second.started_ms
    );
}

#[tokio::test]
async fn a_connection_that_another_envoy_loses_while_laravel_works_is_unknown() -> Result<()> {
    let stack = stack("envoy-between", |options| {
        options.between = Some(Vec::new());
    })
    .await?;
    let lost = Misbehaviour::Reset {
        after_bytes: 0,
        processed: true,
    };
    let lost = Fault::always(lost).on(Kind::PostQrBatch).times(1);
    stack.laravel.set_faults(vec![lost]);
    the_next_call_is_unknown(&stack).await;
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_stream_that_may_last_only_so_long_is_unknown_when_its_time_is_over() -> Result<()> {
    let stack = stack("max-stream-duration", |options| {
        let place = format!(
            "clusters/laravel_batch/{OPTIONS}/common_http_protocol_options/max_stream_duration"
        );
        options.envoy_changes = vec![(place, json!("0.4s"))];
    })
    .await?;
    let slow = Misbehaviour::Slow { ms: 900 };
    let slow = Fault::always(slow).on(Kind::PostQrBatch).times(1);
    stack.laravel.set_faults(vec![slow]);
    the_next_call_is_unknown(&stack).await;
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_retry_that_is_refused_hides_a_first_try_that_was_taken() -> Result<()> {
    let mut stack = stack("hidden-try", |options| {
        let retry = json!({
            "retry_on": "connect-failure,reset",
            "num_retries": 1,
            "retry_back_off": {"base_interval": "0.2s", "max_interval": "0.2s"},
        });
        let place = format!("clusters/laravel_batch/{OPTIONS}/retry_policy");
        options.envoy_changes = vec![(place, retry)];
    })
    .await?;
    let slow = Fault::always(Misbehaviour::Slow { ms: 300 }).on(Kind::PostQrBatch);
    stack.laravel.set_faults(vec![slow]);
    let held = session();
    let first = stack.post_qr(&held, &qr("first")).await;
    let arrived = || {
        let counts = stack.laravel.counts();
        counts.of(Kind::PostQrBatch).requests
    };
    let before = arrived();
    wait_until("the call is at Laravel", BOUND, async || arrived() > before).await;
    // The connection breaks while Laravel works, and the port refuses the second try.
    stack.laravel.down().await;
    wait_until("the call's fate is unknown", BOUND, async || {
        calls(&stack, "unknown").await == 1
    })
    .await;
    stack.post_qr(&held, &qr("second")).await;
    stack.laravel.set_faults(Vec::new());
    stack.laravel.up().await?;
    wait_until("the newest value arrives", BOUND, async || {
        stack.values_of(&held).last() == Some(&qr("second"))
    })
    .await;
    let second = stack.of_session(&held).pop().expect("it has arrived");
    assert!(second.started_ms >= first.sent_ms + HELD_MS);
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_redirect_that_envoy_follows_gives_the_sessions_claim_back() -> Result<()> {
    let stack = stack("internal-redirect", |options| {
        let place = format!("{ROUTES}/embudo.api.status/route/internal_redirect_policy");
        let policy = json!({"redirect_response_codes": [308], "max_internal_redirects": 1});
        options.envoy_changes = vec![(place, policy)];
        options.filter_config["assume"] = json!({"callers": false});
    })
    .await?;
    let away = Misbehaviour::Status {
        code: 308,
        headers: vec![(
            "location".to_owned(),
            "http://laravel.test/api/whatsapp/status".to_owned(),
        )],
        body: String::new(),
        processed: false,
    };
    let away = Fault::always(away).on(Kind::PostStatus).times(1);
    stack.laravel.set_faults(vec![away]);
    // A caller that nobody knows is written through, and its request is the one that is redirected.
    let one = session();
    let message = embudo_tests::raw::Message::json(
        "/api/whatsapp/status",
        embudo_tests::status_body(&one, "connecting"),
    );
    let message = message
        .with("x-api-key", "new")
        .with("accept", "application/json");
    let began_ms = stack.laravel.now_ms();
    let answer = message.send(stack.envoy.listener).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.header("x-embudo").as_deref(),
        Some("write-through; unproven")
    );
    let answer = stack.post_status(&one, "active").await;
    assert_eq!(answer.status, 200);
    wait_until("the next state is in force", BOUND, async || {
        stack.state_of(&one).as_deref() == Some("active")
    })
    .await;
    let took_ms = stack.laravel.now_ms() - began_ms;
    assert!(took_ms < 10_000, "nobody waits for a claim: {took_ms} ms");
    stack.settled(BOUND).await;
    stack.assert_no_vm_reload().await;
    stack.envoy.stop();
    Ok(())
}

#[tokio::test]
async fn what_a_filter_behind_embudo_denies_was_never_at_laravel() -> Result<()> {
    let deny = json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "DENY", "policies": {"all": {
                "permissions": [{"any": true}],
                "principals": [{"any": true}],
            }}},
        },
    });
    let filters = "listeners/gateway/filter_chains/0/filters/0/typed_config/http_filters/+1";
    let stack = Stack::with("denied", |options| {
        // What is denied proves nobody, so each is written through.
        options.filter_config = json!({"assume": {"callers": false}});
        options.envoy_changes = vec![(filters.to_owned(), deny)];
    })
    .await?;
    let one = session();
    for value in ["connecting", "pending", "active"] {
        let answer = stack.post_status(&one, value).await;
        assert_eq!(
            answer.status, 403,
            "the gateway hears what denies it: {}",
            answer.outcome
        );
        let took_ms = answer.answered_ms - answer.sent_ms;
        assert!(took_ms < 2_000, "and at once: {took_ms} ms");
    }
    assert!(stack.of_session(&one).is_empty());
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_stream_that_http2_refuses_goes_again_at_once() -> Result<()> {
    for refusal in [Refusal::Stream, Refusal::GoAway] {
        let refusing = Refusing::start().await?;
        let front = refusing.addr;
        let stack = Stack::with("http2", |options| {
            options.filter_config = json!({});
            let http2 = json!({"http2_protocol_options": {}});
            options.envoy_changes = ["laravel", "laravel_batch"]
                .into_iter()
                .flat_map(|cluster| {
                    let socket = "load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
                    [
                        (format!("clusters/{cluster}/{OPTIONS}/explicit_http_config"), http2.clone()),
                        (format!("clusters/{cluster}/{socket}/port_value"), json!(front.port())),
                    ]
                })
                .collect();
        })
        .await?;
        refusing.leads_to(stack.laravel.addr);
        stack.post_qr(&session(), &qr("proof")).await;
        stack.post_qr(&session(), &qr("batch")).await;
        stack.settled(BOUND).await;
        refusing.refuse_next(refusal).await;
        let one = session();
        let answer = stack.post_qr(&one, &qr("one")).await;
        assert_eq!(answer.outcome, "queued");
        let arrived = stack.arrived(&one, 1).await.remove(0);
        let took = Duration::from_millis(arrived.started_ms - answer.sent_ms);
        assert!(
            took < Duration::from_secs(6),
            "{refusal:?}: it is tried again after {took:?}"
        );
        assert_eq!(refusing.refused(), 1, "{refusal:?}");
        assert_eq!(
            calls(&stack, "unknown").await,
            0,
            "{refusal:?}: nobody is in doubt"
        );
        stack.finish().await;
    }
    Ok(())
}
