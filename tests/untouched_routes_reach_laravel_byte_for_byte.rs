//! Messages, accounts, status reads, and all that Embudo has never heard of: between gateway and
//! Laravel there is nothing but Envoy. Each request goes straight to the stand-in Laravel and through
//! Envoy; what Laravel received and what the gateway got back must be the same, but for the headers
//! that Envoy adds, which are named here. And the requests must not even enter the VM.

use std::time::Duration;

use anyhow::{Context as _, Result};
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::{Envoy, EnvoyOptions};
use embudo::model::http::Request;
use embudo::model::laravel::{Fault, LaravelConfig, Misbehaviour};
use embudo_tests::raw::{self, Answer, Message};
use embudo_tests::wait_until;

const SESSION: &str = "00000000-0000-4000-8000-000000000001";

/// What Envoy adds on the way to Laravel; and `content-length: 0` where there is no body and none was
/// stated.
const ADDED_TO_REQUESTS: [&str; 2] = ["x-forwarded-proto", "x-envoy-expected-rq-timeout-ms"];

/// What Envoy adds on the way back.
const ADDED_TO_ANSWERS: [&str; 1] = ["x-envoy-upstream-service-time"];

/// Beyond nginx's default limit, and beyond what Envoy reads at once.
const UPLOAD_BYTES: usize = 3 * 1024 * 1024;

/// Until Envoy's log shows what has happened; it is flushed at once.
const LOGGED_MAX: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_laravel_receives_and_answers_is_what_it_would_be_without_envoy() -> Result<()> {
    let laravel = start_laravel().await?;
    let envoy = Envoy::start(EnvoyOptions::new("untouched", laravel.addr)).await?;

    for (number, (message, http2)) in requests().into_iter().enumerate() {
        let name = format!(
            "{number}: {} {}",
            message.method,
            message.target.escape_ascii()
        );
        laravel.record_raw(true);
        // Envoy speaks HTTP/1.1 to Laravel, whatever the gateway speaks.
        let direct = send(&message, false, laravel.addr).await;
        let direct = direct.with_context(|| format!("{name}: straight"))?;
        let through = send(&message, http2, envoy.listener).await;
        let through = through.with_context(|| format!("{name}: through Envoy"))?;

        let arrived = laravel.raw();
        let [straight, proxied] = arrived.as_slice() else {
            panic!(
                "{name} must reach Laravel once each way, not {} times",
                arrived.len()
            );
        };
        let expected_body = if message.framing == raw::Framing::None {
            &[][..]
        } else {
            &message.body
        };
        assert!(
            straight.body == expected_body,
            "{name}: the stand-in records what was sent"
        );
        assert!(
            proxied.body == expected_body,
            "{name}: the body arrives byte for byte"
        );
        assert_eq!(
            (&proxied.method, &proxied.path),
            (&straight.method, &straight.path),
            "{name}: method, path and query string arrive as they were sent"
        );
        assert_eq!(
            received(proxied),
            received(straight),
            "{name}: so do the headers"
        );
        assert_eq!(
            through.status, direct.status,
            "{name}: the status comes back"
        );
        assert!(
            through.body == direct.body,
            "{name}: the body comes back byte for byte"
        );
        assert_eq!(
            answered(&through),
            answered(&direct),
            "{name}: so do the headers"
        );
        assert_eq!(
            through.header("x-embudo"),
            None,
            "{name}: Embudo has no part in it"
        );
    }
    let stats = envoy.admin.stats().await?;
    assert_eq!(
        stats.counter("embudo.requests", &[]),
        0,
        "Embudo has counted none of them"
    );
    Ok(())
}

#[tokio::test]
async fn none_of_them_enters_the_vm() -> Result<()> {
    let laravel = start_laravel().await?;
    let envoy = Envoy::start(EnvoyOptions::new("outside", laravel.addr)).await?;
    // At this level Envoy logs each call into the VM.
    envoy.admin.post("/logging?wasm=trace").await?;

    for (message, http2) in requests() {
        send(&message, http2, envoy.listener).await?;
    }
    let control = Message::json(
        "/api/qr",
        format!(r#"{{"session_id":"{SESSION}","qr":"2@x"}}"#),
    );
    control.send(envoy.listener).await?;

    wait_until(
        "the control request ends in the log",
        LOGGED_MAX,
        async || !envoy.grep_log("[host->vm] proxy_on_delete(").is_empty(),
    )
    .await;
    for call in [
        "proxy_on_context_create",
        "proxy_on_request_headers",
        "proxy_on_request_body",
    ] {
        let calls = envoy.grep_log(&format!("[host->vm] {call}("));
        assert_eq!(
            calls.len(),
            1,
            "{call} is called for the control request alone: {calls:#?}"
        );
    }
    Ok(())
}

// === the requests ===

fn requests() -> Vec<(Message, bool)> {
    let get = |path: &str| Message::new("GET", path).with("accept", "application/json");
    let mut all = vec![
        get(&format!("/api/whatsapp/account/{SESSION}")),
        get(&format!(
            "/api/whatsapp/account/{SESSION}?fresh=1&fresh=2&q=%C3%A9+%2F"
        )),
        get("/api/whatsapp/account/00000000-0000-4000-8000-00000000dead"),
        get(&format!("/api/whatsapp/account/{SESSION}")),
        get("/api/whatsapp/accounts/active"),
        get("/"),
        get("/unknown//path/./x;y=1/%2e%2E/%00?"),
        get("/api/qr"),
        get("/api/qr/batch"),
        Message::new("HEAD", "/api/whatsapp/accounts/active"),
        Message::new("OPTIONS", "/api/qr").with("origin", "https://a.test"),
        Message::new("DELETE", "/api/whatsapp/account/1"),
        Message::json("/api/qr/batches", r#"{"qrs":[]}"#),
        Message::json("/api/message/batch", r#"{"messages":[]}"#),
        Message::json("/api/qr/", "not JSON"),
        Message::json("/api/login", r#"{"user":"a","password":"b"}"#),
    ];
    for method in ["PUT", "PATCH", "DELETE", "PROPFIND"] {
        let mut message = Message::json("/api/whatsapp/account/1", "{}");
        message.method = method.to_owned();
        all.push(message);
    }
    let webhook = |body: Vec<u8>| {
        Message::new("POST", "/api/whatsapp-webhook/to%20ken?x=1")
            .with("content-type", "multipart/form-data; boundary=----x")
            .with_body(body)
    };
    all.push(webhook(multipart(
        b"a \0 NUL, a \xff, a CRLF \r\n and a boundary \r\n------x\r\n",
    )));
    all.push(webhook(multipart(&noise(UPLOAD_BYTES))));
    all.push(webhook(multipart(&noise(UPLOAD_BYTES))).in_chunks(100_000));
    all.push(webhook(multipart(b"piece by piece")).in_chunks(3));
    all.push(webhook(Vec::new()));
    let mut odd = webhook(multipart(b"odd headers"));
    for (name, value) in [
        ("authorization", &b"Bearer se\xffcret"[..]),
        ("cookie", b"a=1; b=2"),
        ("cookie", b"c=3"),
        ("x-twice", b"1"),
        ("x-twice", b"2"),
        ("X-Upper-Case", b"Value"),
        ("x-empty", b""),
        ("x-bytes", b"\xff\xfe\x80 \xc3\xa9"),
        ("user-agent", b"axios/1.7 \xff"),
        ("x-request-id", b"mine"),
        ("x-forwarded-for", b"203.0.113.7, 10.0.0.1"),
        ("x-forwarded-host", b"public.test"),
        ("via", b"1.1 other"),
        ("x-hub-signature-256", b"sha256=00"),
        ("x-embudo-bypass", b"1"),
        ("x_underscore", b"1"),
        ("accept-encoding", b"gzip, br"),
        ("content-encoding", b"gzip"),
        ("if-none-match", b"\"tag\""),
        ("range", b"bytes=0-1"),
    ] {
        odd = odd.with(name, value);
    }
    all.push(odd.clone());
    // Laravel's answer as odd: see `start_laravel`.
    for code in ODD_ANSWERS {
        all.push(get(&format!("/answers/{code}")));
    }
    let mut both: Vec<_> = all.into_iter().map(|message| (message, false)).collect();
    // Without its length, which HTTP/2 does not need, a body goes on in chunks.
    both.push((odd.without("cookie").in_chunks(100), true));
    both.push((get(&format!("/api/whatsapp/account/{SESSION}")), true));
    both
}

const ODD_ANSWERS: [u16; 8] = [201, 204, 301, 304, 418, 429, 500, 503];

fn multipart(content: &[u8]) -> Vec<u8> {
    let mut body =
        b"------x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.bin\"\r\n".to_vec();
    body.extend_from_slice(b"Content-Type: application/octet-stream\r\n\r\n");
    body.extend_from_slice(content);
    body.extend_from_slice(b"\r\n------x--\r\n");
    body
}

/// Every byte value, in an order that repeats late.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

async fn start_laravel() -> Result<LaravelServer> {
    let config = LaravelConfig {
        body_bytes_max: 2 * UPLOAD_BYTES,
        request_ms: 0,
        ..LaravelConfig::default()
    };
    let headers = [
        ("content-type", "text/html; charset=ISO-8859-1"),
        ("server", "nginx/1.18.0"),
        ("set-cookie", "a=1; Path=/; HttpOnly"),
        ("set-cookie", "b=2"),
        ("location", "https://elsewhere.test/?a=b#c"),
        ("retry-after", "7"),
        ("x-ratelimit-remaining", "0"),
        ("cache-control", "no-cache, private"),
        ("etag", "\"x\""),
        ("x-empty", ""),
        ("x-request-id", "laravels"),
        ("x-powered-by", "PHP/8.3"),
    ];
    let headers: Vec<_> = headers.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    let odd = |code: u16| {
        let body = if [204, 304].contains(&code) {
            ""
        } else {
            "odd \u{0} body"
        };
        let (headers, body) = (headers.clone(), body.to_owned());
        let answer = Misbehaviour::Status {
            code,
            headers,
            body,
            processed: false,
        };
        Fault::always(answer).on_path(&format!("/answers/{code}"))
    };
    let options = LaravelOptions {
        config,
        accounts: vec![SESSION.to_owned()],
        faults: ODD_ANSWERS.map(odd).into(),
        ..LaravelOptions::default()
    };
    Ok(LaravelServer::start(options).await?)
}

// === what is compared ===

async fn send(message: &Message, http2: bool, to: std::net::SocketAddr) -> Result<Answer> {
    match http2 {
        true => raw::http2(to, message).await,
        false => message.send(to).await,
    }
}

/// The headers that Laravel received but for Envoy's additions, by name; those of one name in order.
fn received(request: &Request) -> Vec<(String, String)> {
    let headers = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), &value[..]));
    let mut headers = comparable(headers, &ADDED_TO_REQUESTS);
    headers.retain(|(name, value)| (name.as_str(), value.as_str()) != ("content-length", "0"));
    headers
}

/// The headers that the gateway received but for Envoy's additions; the date is another second's.
fn answered(answer: &Answer) -> Vec<(String, String)> {
    let headers = answer
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), &value[..]));
    let mut headers = comparable(headers, &ADDED_TO_ANSWERS);
    headers.retain(|(name, _)| name != "date");
    headers
}

fn comparable<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    added: &[&str],
) -> Vec<(String, String)> {
    let mut headers: Vec<_> = headers
        .filter(|(name, _)| !added.contains(name))
        .map(|(name, value)| (name.to_owned(), value.escape_ascii().to_string()))
        .collect();
    // Names in any order, which HTTP says means nothing; the values of one name stay in theirs.
    headers.sort_by(|(a, _), (b, _)| a.cmp(b));
    headers
}
