//! Some requests never get as far as a filter: Envoy's HTTP codec refuses them. For those the promise
//! is that Embudo changes nothing, so each goes to two Envoys, with Embudo and without.

use std::net::SocketAddr;

use anyhow::Result;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::stats::VmReloads;
use embudo::live::{Envoy, EnvoyOptions};
use embudo_tests::raw::{Answer, Connection};

#[tokio::test]
async fn what_envoy_itself_refuses_it_refuses_the_same_with_and_without_embudo() -> Result<()> {
    let laravel = LaravelServer::start(LaravelOptions::default()).await?;
    let plain = EnvoyOptions {
        embudo: false,
        ..EnvoyOptions::new("refusals-plain", laravel.addr)
    };
    let with = EnvoyOptions::new("refusals", laravel.addr);
    let (with, without) = tokio::try_join!(Envoy::start(with), Envoy::start(plain))?;

    let mut wrong = Vec::new();
    for (name, bytes, status) in refusals() {
        let (with, without) = (
            outcome(with.listener, &bytes).await,
            outcome(without.listener, &bytes).await,
        );
        if with != without || with.as_ref().map(|answer| answer.status) != Some(status) {
            wrong.push(format!(
                "{name}: expected {status}\n   with {with:?}\n   without {without:?}"
            ));
        }
    }

    assert!(
        wrong.is_empty(),
        "Envoy must judge HTTP, not Embudo:\n{}",
        wrong.join("\n")
    );
    let stats = with.admin.stats().await?;
    assert_eq!(
        stats.counter("embudo.requests", &[]),
        0,
        "what Envoy refuses never gets to Embudo"
    );
    assert_eq!(stats.vm_reloads(), VmReloads::default(), "nothing traps");
    Ok(())
}

/// What Envoy refuses, as bytes, and its answer.
fn refusals() -> Vec<(&'static str, Vec<u8>, u16)> {
    let body = r#"{"session_id":"20000000-0000-4000-8000-000000000001","qr":"2@x"}"#;
    let with = |line: &[u8], headers: &[u8]| {
        let mut bytes = line.to_vec();
        bytes.extend_from_slice(b"\r\nhost: laravel.test\r\ncontent-type: application/json\r\n");
        bytes.extend_from_slice(headers);
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
        bytes
    };
    let post = |headers: &[u8]| with(b"POST /api/qr HTTP/1.1", headers);
    let many: String = (0..120).map(|i| format!("x-many-{i}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "v".repeat(70_000));
    let framed = |framing: &str, body: &str| {
        let head = "POST /api/qr HTTP/1.1\r\nhost: laravel.test\r\ncontent-type: application/json";
        format!("{head}\r\n{framing}\r\n\r\n{body}").into_bytes()
    };
    vec![
        ("not HTTP", b"hello\r\n\r\n".to_vec(), 400),
        (
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
            400,
        ),
        (
            "a path that is no UTF-8",
            with(b"POST /api/qr\xff HTTP/1.1", b""),
            400,
        ),
        ("a fragment", with(b"POST /api/qr#x HTTP/1.1", b""), 400),
        ("a NUL in a header", post(b"x-custom: a\0b\r\n"), 400),
        ("a header without a colon", post(b"x-custom\r\n"), 400),
        ("a space in a header's name", post(b"x custom: 1\r\n"), 400),
        ("a name that is no ASCII", post(b"x-\xff: 1\r\n"), 400),
        ("120 headers", post(many.as_bytes()), 431),
        ("a header of 70,000 bytes", post(long.as_bytes()), 431),
        (
            "a second, other length",
            post(b"content-length: 1\r\n"),
            400,
        ),
        (
            "length and chunks",
            post(b"transfer-encoding: chunked\r\n"),
            400,
        ),
        (
            "an unknown transfer-encoding",
            framed("transfer-encoding: zip", ""),
            501,
        ),
        (
            "a length that is none",
            framed("content-length: x", ""),
            400,
        ),
        ("a negative length", framed("content-length: -1", ""), 400),
        (
            "a chunk size that is none",
            framed("transfer-encoding: chunked", "zz\r\n{}\r\n0\r\n\r\n"),
            400,
        ),
        (
            "no host",
            b"POST /api/qr HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
            400,
        ),
        (
            "HTTP/1.0",
            b"POST /api/qr HTTP/1.0\r\nhost: laravel.test\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
            426,
        ),
        (
            "an authority that is no UTF-8",
            b"POST /api/qr HTTP/1.1\r\nhost: \xff\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
            400,
        ),
    ]
}

/// The answer, or `None` where the connection ends without one.
async fn outcome(to: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut connection = Connection::open(to).await.ok()?;
    // Refused before all of it is written, perhaps.
    let _ = connection.write(bytes).await;
    let mut answer = connection.answer_to("POST").await.ok()?;
    answer.headers.retain(|(name, _)| name != "date");
    Some(answer)
}
