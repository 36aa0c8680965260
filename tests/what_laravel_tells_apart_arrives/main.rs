//! What Laravel could tell apart by a header, a method or a host arrives at Laravel as it was sent, alone and in
//! a batch; and nothing of one caller is taken for another's.

use anyhow::Result;
use embudo::model::http::Kind;
use embudo::model::laravel::{Arrived, Required};
use embudo_tests::raw::{Answer, Message};
use embudo_tests::{BOUND, Stack, qr, qr_body, session, sessions, status_body, wait_until};
use serde_json::{Value, json};

const SECRET: &str = "x-webhook-secret";

/// What a case sends for a session.
type MessageOf = fn(&str) -> Message;

/// Whoever comes has to be accepted first.
fn unassumed() -> Value {
    json!({"assume": {"callers": false}})
}

fn outcome(answer: &Answer) -> String {
    answer.header("x-embudo").unwrap_or_default()
}

async fn send(stack: &Stack, message: Message) -> Answer {
    let message = message.with("accept", "application/json");
    let answer = message.send(stack.envoy.listener).await;
    answer.expect("every request is answered")
}

fn state(session: &str, value: &str) -> Message {
    Message::json("/api/whatsapp/status", status_body(session, value))
}

fn arrivals(stack: &Stack, kind: Kind) -> Vec<Arrived> {
    stack.laravel.with(|laravel| {
        let all = laravel.journal().arrivals().iter();
        all.filter(|arrived| arrived.kind == Some(kind))
            .cloned()
            .collect()
    })
}

#[tokio::test]
async fn a_header_that_laravel_wants_arrives_with_a_batch_and_a_stranger_hears_laravels_refusal()
-> Result<()> {
    let stack = Stack::with("secret-header", |options| {
        options.filter_config = unassumed();
        options.laravel.config.requires = vec![Required {
            header: SECRET.to_owned(),
            value: Some("s3cret".to_owned()),
            otherwise: 401,
        }];
    })
    .await?;
    let own = |message: Message| message.with(SECRET, "s3cret");
    let first = send(&stack, own(state(&session(), "connecting"))).await;
    assert_eq!(first.status, 200);
    assert!(outcome(&first).starts_with("write-through"), "{first:?}");

    let many = sessions(5);
    for session in &many {
        let answer = send(&stack, own(state(session, "connecting"))).await;
        assert_eq!((answer.status, outcome(&answer)), (200, "queued".into()));
    }
    let stranger = send(&stack, state(&many[0], "active")).await;
    let wrong = state(&many[0], "active").with(SECRET, "guessed");
    let wrong = send(&stack, wrong).await;
    for answer in [stranger, wrong] {
        assert_eq!(
            answer.status,
            401,
            "Laravel's own word: {}",
            outcome(&answer)
        );
    }
    for session in &many {
        let arrived = stack.arrived(session, 1).await.remove(0).arrived;
        assert_eq!(arrived.header(SECRET), Some("s3cret"));
    }
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn two_tenants_sessions_of_one_name_are_two_whatever_header_names_the_tenant() -> Result<()> {
    for header in ["x-tenant", "x-client"] {
        let stack = Stack::with("tenant-header", |options| {
            options.laravel.config.tenant_header = Some(header.to_owned());
        })
        .await?;
        let of = |tenant: &str, message: Message| message.with(header, tenant);
        for tenant in ["acme", "globex"] {
            let proof = send(&stack, of(tenant, state(&session(), "connecting"))).await;
            assert_eq!(proof.status, 200);
        }
        let shared = session();
        for (tenant, value) in [("acme", "connecting"), ("globex", "connecting")] {
            let answer = send(&stack, of(tenant, state(&shared, value))).await;
            assert_eq!(
                (answer.status, outcome(&answer)),
                (200, "queued".into()),
                "{header}: what one has said is no duplicate of the other's"
            );
        }
        for tenant in ["acme", "globex"] {
            let key = format!("{tenant}/{shared}");
            let arrived = stack.arrived(&key, 1).await.remove(0).arrived;
            assert_eq!(arrived.header(header), Some(tenant));
        }
        stack.finish().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_put_arrives_as_a_put() -> Result<()> {
    let any_method = json!([]);
    let route = "listeners/gateway/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/laravel\
                 /routes/embudo.api.status/match/headers";
    let stack = Stack::with("put", |options| {
        options.laravel.config.puts = true;
        // A batch is always a POST; without its route each item goes as it came.
        options.laravel.config.status_batch = false;
        options.filter_config = json!({"routes": [{"name": "status", "method": "PUT"}]});
        options.envoy_changes = vec![(route.to_owned(), any_method)];
    })
    .await?;
    let put = |session: &str, value: &str| {
        let mut message = state(session, value);
        message.method = "PUT".to_owned();
        message
    };
    let proof = send(&stack, put(&session(), "connecting")).await;
    assert_eq!(proof.status, 200);
    let one = session();
    let answer = send(&stack, put(&one, "connecting")).await;
    assert_eq!((answer.status, outcome(&answer)), (200, "queued".into()));
    let arrived = stack.arrived(&one, 1).await.remove(0);
    assert!(!arrived.batched);
    assert_eq!(arrived.arrived.method, "PUT");
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn what_is_signed_or_overridden_goes_by_untouched() -> Result<()> {
    let stack = Stack::start("signed").await?;
    stack.post_status(&session(), "connecting").await;
    stack.post_qr(&session(), &qr("proof")).await;
    let cases: [(&str, MessageOf); 5] = [
        ("a signature", |session| {
            state(session, "connecting").with("signature", "sig=:YWJj:")
        }),
        ("a digest of the body", |session| {
            state(session, "connecting").with("content-digest", "sha-256=:YWJj:")
        }),
        ("another method in a header", |session| {
            state(session, "connecting").with("x-http-method-override", "DELETE")
        }),
        ("another method in the body", |session| {
            let body =
                json!({"session_id": session, "estado_qr": "connecting", "_method": "DELETE"});
            Message::json("/api/whatsapp/status", body.to_string())
        }),
        ("a key that PHP makes no property of", |session| {
            let body =
                format!(r#"{{"\u0000k":1,"session_id":"{session}","estado_qr":"connecting"}}"#);
            Message::json("/api/whatsapp/status", body)
        }),
    ];
    for (case, message) in cases {
        let shown = session();
        let message = message(&shown);
        let body = message.body.clone();
        stack.laravel.record_raw(true);
        let answer = send(&stack, message).await;
        assert_ne!(outcome(&answer), "queued", "{case}");
        let raw = stack.laravel.raw();
        assert!(
            raw.iter().any(|request| request.body == body),
            "{case}: it arrives as it was sent"
        );
    }
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn an_owner_that_appears_in_the_middle_of_a_sessions_life_parts_nothing_but_the_batch()
-> Result<()> {
    let stack = Stack::start("owner").await?;
    let owner = |message: Message| message.with("resource-owner", "5511900000001@s.whatsapp.net");
    // Both callers are known before.
    send(&stack, state(&session(), "connecting")).await;
    send(&stack, owner(state(&session(), "connecting"))).await;
    let one = session();
    for (at, value) in ["connecting", "pending"].into_iter().enumerate() {
        let answer = send(&stack, state(&one, value)).await;
        assert_eq!(outcome(&answer), "queued", "{at}");
    }
    let answer = send(&stack, owner(state(&one, "active"))).await;
    assert_eq!(outcome(&answer), "queued");
    wait_until("the last state is in force", BOUND, async || {
        stack.state_of(&one).as_deref() == Some("active")
    })
    .await;
    let last = stack.of_session(&one).pop().expect("it has arrived");
    assert!(last.arrived.header("resource-owner").is_some());
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn two_prefixes_are_two_destinations() -> Result<()> {
    let stack = Stack::configured("prefixes", unassumed()).await?;
    stack.post_status(&session(), "connecting").await;
    let one = session();
    let queued = stack.post_status(&one, "connecting").await;
    assert_eq!(queued.outcome, "queued");
    let elsewhere = Message::json("/whatsapp/status", status_body(&one, "connecting"));
    let answer = send(&stack, elsewhere).await;
    assert_eq!(
        answer.status,
        404,
        "Laravel has nothing there: {}",
        outcome(&answer)
    );
    stack.arrived(&one, 1).await;
    let qr = Message::json("/qr", qr_body(&one, "2@a"));
    assert_eq!(send(&stack, qr).await.status, 404);
    assert_eq!(arrivals(&stack, Kind::Other).len(), 2);
    stack.finish().await;
    Ok(())
}
