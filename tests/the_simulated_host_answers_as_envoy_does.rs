//! The simulation's host is Envoy's: one probe module asks every host function that Embudo uses, with ordinary and
//! with odd arguments, in both, and the two transcripts are equal line by line.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use embudo::live::{Envoy, EnvoyOptions, wasm};
use embudo::probe::{ANSWER, CASE, CONFIGURATION, Fate, HEADERS, STEPS, Sent, Step, transcript};
use embudo::sim::{self, Machine};
use embudo_tests::raw::{Connection, Message};
use embudo_tests::{BOUND, wait_until};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// Longer than the request may take.
const TOO_LATE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn the_simulated_host_answers_line_by_line_as_envoy_does() -> Result<()> {
    let module = tokio::task::spawn_blocking(wasm::probe).await??;
    let machine = Machine::new(&std::fs::read(&module)?)?;
    let simulated = sim::probe::transcript(&machine)?;

    let (laravel, address) = laravel().await?;
    let envoy = Envoy::start(EnvoyOptions {
        module: Some(module),
        filter_config: serde_json::from_str(CONFIGURATION)?,
        concurrency: 1,
        ..EnvoyOptions::new("probe", address)
    })
    .await?;
    for step in &STEPS {
        if step.fate == Fate::Refused {
            laravel.abort();
            let refuses = async || tokio::net::TcpStream::connect(address).await.is_err();
            wait_until("nothing listens", BOUND, refuses).await;
        }
        play(&envoy, step).await.with_context(|| {
            let log = envoy.grep_log("probe: ");
            format!("{step:?}, behind {:#?}", log.last())
        })?;
    }
    let real = transcript(&envoy.log());

    let differs = |at: &usize| simulated.get(*at) != real.get(*at);
    let mut all = (0..simulated.len().max(real.len())).filter(differs);
    if let Some(first) = all.next() {
        for at in std::iter::once(first).chain(all).take(80) {
            println!(
                "line {at}\n  sim:   {:?}\n  envoy: {:?}",
                simulated.get(at),
                real.get(at)
            );
        }
        bail!("the two hosts differ from line {first} on");
    }
    assert!(real.len() > 500, "{} lines are no probe", real.len());
    Ok(())
}

/// Sends a step's request, and waits until the probe is through with it.
async fn play(envoy: &Envoy, step: &Step) -> Result<()> {
    let mut message = match step.sent {
        Sent::Get => Message::new("GET", "/api/whatsapp/status/s"),
        Sent::Post(body) | Sent::AndHungUp(body) => Message::new("POST", "/api/qr").with_body(body),
    };
    message = message.with(CASE, step.case);
    for (name, value) in HEADERS {
        message = message.with(name, value);
    }
    let mut connection = Connection::open(envoy.listener).await?;
    if let Sent::AndHungUp(_) = step.sent {
        connection.write(&message.bytes()).await?;
        let held = format!("probe: {} on_request_body", step.case);
        said(envoy, &held).await;
        drop(connection);
    } else {
        connection.send(&message).await?;
    }
    said(envoy, &format!("probe: {}", step.last)).await;
    Ok(())
}

async fn said(envoy: &Envoy, line: &str) {
    wait_until(line, BOUND, async || envoy.log().contains(line)).await;
}

/// A Laravel that does what the request's case says.
async fn laravel() -> Result<(JoinHandle<()>, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let accepting = tokio::spawn(async move {
        // The connections end with this task.
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(answer);
            connections
                .spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok((accepting, address))
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let case = request.headers().get(CASE).cloned();
    let case = case.as_ref().and_then(|case| case.to_str().ok());
    let step = STEPS.iter().find(|step| Some(step.case) == case);
    let _ = request.into_body().collect().await;
    match step.map(|step| step.fate) {
        Some(Fate::Lost) => return Err(std::io::Error::other("closed without a byte")),
        Some(Fate::TooLate) => tokio::time::sleep(TOO_LATE).await,
        _ => {}
    }
    let mut response = Response::new(Full::from(ANSWER));
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        let value = HeaderValue::from_bytes(value).map_err(std::io::Error::other)?;
        headers.append(name, value);
    }
    headers.insert("x-answer", HeaderValue::from_static("yes"));
    Ok(response)
}
