use std::io::ErrorKind;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::model::{http::Kind, laravel::Misbehaviour};

const SESSION: &str = "0189dcd2-0b0b-4c3a-8c3a-0189dcd20b0b";
const BOUND: Duration = Duration::from_secs(10);

async fn laravel(request_ms: u64, workers: usize, backlog: usize) -> LaravelServer {
    let config = LaravelConfig {
        request_ms,
        item_ms: 0,
        ..LaravelConfig::default()
    };
    let accounts = vec![SESSION.to_owned()];
    let options = LaravelOptions {
        config,
        workers,
        backlog,
        accounts,
        ..LaravelOptions::default()
    };
    LaravelServer::start(options)
        .await
        .expect("a server on a free port")
}

fn client(http2: bool) -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

fn state(server: &LaravelServer, value: &str) -> hyper::Request<Full<Bytes>> {
    let body = format!(r#"{{"session_id":"{SESSION}","estado_qr":"{value}"}}"#);
    hyper::Request::post(format!("{}/api/whatsapp/status", server.url()))
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .header(
            "x-odd",
            hyper::header::HeaderValue::from_bytes(b"\xff").expect("a header value"),
        )
        .body(Full::from(body))
        .expect("a request")
}

fn values(server: &LaravelServer) -> Vec<String> {
    server
        .journal()
        .entries()
        .iter()
        .map(|entry| entry.value.clone())
        .collect()
}

async fn arrivals(server: &LaravelServer, n: u64) {
    let arrived = async {
        while server.counts().requests() < n {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, arrived)
        .await
        .expect("the request arrives");
}

#[tokio::test]
async fn it_answers_over_both_versions_and_records_what_came() {
    let server = laravel(0, 8, 511).await;
    server.record_raw(true);
    for http2 in [false, true] {
        let answer = client(http2)
            .request(state(&server, "active"))
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 200);
    }
    let raw = server.raw();
    assert_eq!(raw.len(), 2);
    for request in &raw {
        assert_eq!(request.path, "/api/whatsapp/status");
        let odd = request.headers.iter().find(|(name, _)| name == "x-odd");
        assert_eq!(odd.map(|(_, value)| &value[..]), Some(&b"\xff"[..]));
    }
    assert_eq!(server.counts().of(Kind::PostStatus).requests, 2);
}

#[tokio::test]
async fn work_goes_on_after_its_client_has_left_even_from_the_queue() {
    let server = laravel(50, 1, 511).await;
    for (i, value) in (0..).zip(["active", "inactive"]) {
        let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
        let body = format!(r#"{{"session_id":"{SESSION}","estado_qr":"{value}"}}"#);
        let head =
            "POST /api/whatsapp/status HTTP/1.1\r\nhost: x\r\ncontent-type: application/json";
        let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.expect("written");
        arrivals(&server, i + 1).await;
    }
    assert!(server.idle(BOUND).await, "both end");
    assert_eq!(values(&server), ["active", "inactive"]);
}

#[tokio::test]
async fn a_full_backlog_is_a_502_from_nginx() {
    let server = laravel(200, 1, 0).await;
    let http = client(false);
    let first = tokio::spawn(http.request(state(&server, "active")));
    let busy = async {
        let mut unfinished = server.shared.unfinished.subscribe();
        unfinished.wait_for(|&n| n == 1).await.map(|_| ())
    };
    tokio::time::timeout(BOUND, busy)
        .await
        .expect("in time")
        .expect("it begins");
    let second = http
        .request(state(&server, "inactive"))
        .await
        .expect("an answer");
    assert_eq!(second.status(), 502);
    let first = first.await.expect("no panic").expect("an answer");
    assert_eq!(first.status(), 200);
}

#[tokio::test]
async fn down_refuses_and_drops_and_up_is_the_same_port() {
    let mut server = laravel(0, 8, 511).await;
    let mut open = TcpStream::connect(server.addr).await.expect("a connection");
    server.down().await;
    let refused = TcpStream::connect(server.addr)
        .await
        .map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
    let dropped = tokio::time::timeout(BOUND, open.read_u8())
        .await
        .expect("in time");
    assert!(dropped.is_err(), "the open connection is gone");
    server.up().await.expect("the port is still ours");
    let answer = client(false)
        .request(state(&server, "active"))
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_reset_in_mid_body_sends_that_much_and_has_been_processed() {
    for http2 in [false, true] {
        let server = laravel(0, 8, 511).await;
        let reset = Misbehaviour::Reset {
            after_bytes: 5,
            processed: true,
        };
        server.set_faults(vec![Fault::always(reset)]);
        let answer = client(http2)
            .request(state(&server, "active"))
            .await
            .expect("a head");
        let mut body = answer.into_body();
        let first = body
            .frame()
            .await
            .expect("a frame")
            .expect("the bytes before the break");
        assert_eq!(first.into_data().map(|data| data.len()).ok(), Some(5));
        assert!(
            body.frame().await.expect("a frame").is_err(),
            "then it breaks"
        );
        assert_eq!(values(&server), ["active"]);
    }
}

#[tokio::test]
async fn a_reset_before_the_head_is_no_answer() {
    let server = laravel(0, 8, 511).await;
    let reset = Misbehaviour::Reset {
        after_bytes: 0,
        processed: false,
    };
    server.set_faults(vec![Fault::always(reset)]);
    assert!(
        client(false)
            .request(state(&server, "active"))
            .await
            .is_err()
    );
    assert!(values(&server).is_empty());
}

#[tokio::test]
async fn a_hang_is_never_answered_but_takes_effect() {
    let server = laravel(0, 8, 511).await;
    server.set_faults(vec![Fault::always(Misbehaviour::Hang {
        finish_after_ms: 30,
    })]);
    let answer = tokio::spawn(client(false).request(state(&server, "active")));
    arrivals(&server, 1).await;
    assert!(server.idle(BOUND).await, "the worker is free again");
    assert_eq!(values(&server), ["active"]);
    assert!(!answer.is_finished(), "no answer, and no end either");
    answer.abort();
}
