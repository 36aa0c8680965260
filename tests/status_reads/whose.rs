//! A kept answer is for whoever asks in the same words, at the same place, and for nobody else.

use embudo_tests::raw::Message;
use serde_json::{Value, json};

use super::panel::{Account, Panel};
use super::{Result, ask, outcome, session};
use hyper::header::HeaderMap;

/// What is believed is not what these tests are about.
fn assumed() -> Value {
    json!({"assume": {"reads": true}})
}

fn plain(account: &Account, _: &HeaderMap) -> (Vec<(&'static str, String)>, Value) {
    (Vec::new(), json!({"estado_qr": account.state}))
}

#[tokio::test]
async fn another_language_address_identity_or_certificate_is_answered_by_laravel() -> Result<()> {
    let echoed = [
        "accept-language",
        "x-forwarded-for",
        "cf-access-authenticated-user-email",
    ];
    let panel = Panel::start("reader", assumed(), move |account, headers| {
        let told = echoed.map(|name| headers.get(name).map(|value| format!("{value:?}")));
        (Vec::new(), json!({"estado_qr": account.state, "for": told}))
    })
    .await?;
    let session = session();
    panel.has_state(&session, "active").await;
    let kept = panel.until_cached(&ask(&session)).await;

    // (`x-forwarded-client-cert` is Envoy's own, and takes a listener with TLS.)
    for (name, value) in [
        ("accept-language", "es"),
        ("x-forwarded-for", "203.0.113.7"),
        ("cf-access-authenticated-user-email", "a@example.com"),
        ("x-client-cert", "01"),
    ] {
        let asked = ask(&session).with(name, value);
        let other = asked.send(panel.envoy.listener).await?;
        assert_eq!(outcome(&other), "fresh", "{name}");
        if echoed.contains(&name) {
            assert!(other.text().contains(value), "{name}: {}", other.text());
        }
    }
    let again = panel.until_cached(&ask(&session)).await;
    assert_eq!(again.body, kept.body, "the first has its own still");
    // Nobody is told apart by these.
    let traced = ask(&session)
        .with(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .with("user-agent", "another/2");
    assert_eq!(outcome(&traced.send(panel.envoy.listener).await?), "cached");
    panel.envoy.stop();
    Ok(())
}

#[tokio::test]
async fn another_host_name_is_another_place_but_for_its_case_and_the_default_port() -> Result<()> {
    let panel = Panel::start("authority", assumed(), plain).await?;
    let session = session();
    panel.has_state(&session, "active").await;
    panel.until_cached(&ask(&session)).await;

    for (host, kept) in [
        ("LARAVEL.test", "cached"),
        ("laravel.test:80", "cached"),
        ("other.test", "fresh"),
        ("laravel.test:8080", "fresh"),
    ] {
        let asked = ask(&session).replacing("host", host);
        let answer = asked.send(panel.envoy.listener).await?;
        assert_eq!(outcome(&answer), kept, "{host}");
    }
    // What is posted under one name is unknown under the other: there Laravel answers each time.
    panel.post_state(&session, "inactive").await;
    for _ in 0..2 {
        let other = ask(&session).replacing("host", "other.test");
        let other = other.send(panel.envoy.listener).await?;
        assert_eq!(outcome(&other), "fresh");
    }
    panel.settled().await;
    panel.envoy.stop();
    Ok(())
}

#[tokio::test]
async fn an_answer_that_varies_sets_a_cookie_or_forbids_it_is_not_kept() -> Result<()> {
    for (name, value, is_kept) in [
        ("vary", "accept-encoding, Origin", true),
        ("vary", "accept, accept-language", false),
        ("vary", "*", false),
        ("set-cookie", "laravel_session=1", false),
        ("cache-control", "no-store, private", false),
        ("cache-control", "no-cache, private", true),
    ] {
        let panel = Panel::start("varies", assumed(), move |account, _| {
            (
                vec![(name, value.to_owned())],
                json!({"estado_qr": account.state}),
            )
        })
        .await?;
        let session = session();
        panel.has_state(&session, "active").await;
        match is_kept {
            true => drop(panel.until_cached(&ask(&session)).await),
            false => {
                for _ in 0..4 {
                    let read = panel.read(&session).await;
                    assert_eq!(outcome(&read), "fresh", "{name}: {value}");
                    assert_eq!(read.header(name).as_deref(), Some(value));
                }
            }
        }
        panel.envoy.stop();
    }
    Ok(())
}

#[tokio::test]
async fn an_origin_has_its_own_cors_headers_from_the_store_and_two_of_them_none() -> Result<()> {
    let panel = Panel::start("origin", assumed(), |account, headers| {
        let origin = headers.get("origin").and_then(|value| value.to_str().ok());
        let cors = origin.map(|origin| ("access-control-allow-origin", origin.to_owned()));
        let all = cors.into_iter().chain([("vary", "Origin".to_owned())]);
        (all.collect(), json!({"estado_qr": account.state}))
    })
    .await?;
    let session = session();
    panel.has_state(&session, "active").await;
    let from = |origin: &str| -> Message { ask(&session).with("origin", origin) };
    for origin in ["https://a.test", "https://b.test"] {
        let kept = panel.until_cached(&from(origin)).await;
        assert_eq!(
            kept.header("access-control-allow-origin").as_deref(),
            Some(origin)
        );
    }
    let none = panel.until_cached(&ask(&session)).await;
    assert_eq!(none.header("access-control-allow-origin"), None);
    for _ in 0..3 {
        let twice = from("https://a.test").with("origin", "https://b.test");
        assert_eq!(outcome(&twice.send(panel.envoy.listener).await?), "fresh");
    }
    panel.envoy.stop();
    Ok(())
}
