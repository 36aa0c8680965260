//! `embudo top` as an operator or a script meets it, on the real Envoy, and where there is none.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::{Envoy, EnvoyOptions};
use embudo::model::gateway::session_ids;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// How long anything may take: it says that something hangs, and is no claim about speed.
const BOUND: Duration = Duration::from_secs(30);

/// Exit code, standard output, standard error.
type Outcome = (Option<i32>, String, String);

fn top(arguments: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_embudo"))
        .arg("top")
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.expect("cargo has built the command");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// One screen of this Envoy's, in another form by another argument.
async fn once(admin: &str, more: &'static [&'static str]) -> String {
    let admin = admin.to_owned();
    let run = move || top(&[&["--admin", &admin, "--once", "--over", "1"], more].concat());
    let (code, out, err) = tokio::task::spawn_blocking(run).await.expect("it ends");
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    out
}

async fn json_once(admin: &str) -> Value {
    let text = once(admin, &["--json"]).await;
    serde_json::from_str(&text).expect("JSON and nothing else")
}

/// A stand-in Laravel that costs no time and knows every session.
async fn laravel() -> Result<LaravelServer> {
    Ok(LaravelServer::start(LaravelOptions::costing(0)).await?)
}

/// Sends a request through Envoy; gives the outcome that Embudo names.
async fn send(envoy: &Envoy, method: &str, path: &str, body: Value) -> Result<String> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let body = if method == "GET" {
        String::new()
    } else {
        body.to_string()
    };
    let request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", envoy.url()))
        .header("content-type", "application/json")
        .body(Full::from(body))?;
    let answer = client.request(request).await?;
    let outcome = answer.headers().get("x-embudo").cloned();
    answer.into_body().collect().await?;
    Ok(outcome.map_or(String::new(), |text| {
        String::from_utf8_lossy(text.as_bytes()).into_owned()
    }))
}

#[tokio::test]
async fn the_figures_are_envoys_own_after_some_traffic() -> Result<()> {
    let laravel = laravel().await?;
    let options = EnvoyOptions {
        filter_config: json!({"assume": {"callers": true}}),
        ..EnvoyOptions::new("top", laravel.addr)
    };
    let envoy = Envoy::start(options).await?;
    let admin = format!("http://{}", envoy.admin.address);

    // Laravel takes no session that does not look like one.
    let sessions = session_ids(1, 4);
    let qr = json!({"session_id": sessions[0], "qr": "2@one"});
    let mut posts = Vec::new();
    for body in [
        qr.clone(),
        qr,
        json!({"session_id": sessions[1], "qr": "2@two"}),
        json!({"session_id": sessions[2]}),
    ] {
        posts.push(send(&envoy, "POST", "/api/qr", body).await?);
    }
    let read = format!("/api/whatsapp/status/{}", sessions[3]);
    for _ in 0..3 {
        posts.push(send(&envoy, "GET", &read, json!(null)).await?);
    }

    // Until everything has arrived and the histograms, a second old at most, show it.
    let begin = Instant::now();
    let figures = loop {
        let figures = json_once(&admin).await;
        let settled = figures["ledger_balances"] == true && figures["pending_items"] == 0;
        let arrived = figures["accepted_total"] != 0 && figures["leader_alive"] == true;
        if settled && arrived && figures["staleness_ms"]["samples"] != 0 {
            break figures;
        }
        assert!(begin.elapsed() < BOUND, "it settles; {figures:#}");
    };

    let stats = envoy.admin.stats().await?;
    let counted = |route: &str, outcome: &str| {
        stats.counter("embudo.requests", &[("route", route), ("outcome", outcome)])
    };
    let posts_of = |outcome: &str| posts.iter().filter(|o| o.starts_with(outcome)).count() as u64;
    let requests = &figures["requests_total"];
    for (route, outcome) in [
        ("qr", "queued"),
        ("qr", "write_through"),
        ("qr", "duplicate"),
        ("qr", "bypass"),
        ("get_status", "fresh"),
        ("get_status", "cached"),
    ] {
        let shown = requests[route][outcome].as_u64().unwrap_or(0);
        assert_eq!(shown, counted(route, outcome), "{route} {outcome}: Envoy's");
        assert_eq!(shown, posts_of(outcome), "{route} {outcome}: {posts:?}");
    }
    assert_eq!(posts_of("fresh") + posts_of("cached"), 3, "{posts:?}");
    assert_eq!(
        posts_of("bypass"),
        1,
        "a QR that is missing is Laravel's to judge"
    );
    assert!(posts_of("queued") >= 1, "{posts:?}");

    assert_eq!(
        figures["items_total"]["qr"]["delivered"],
        stats.ledger().delivered
    );
    let calls = stats.counter("embudo.calls", &[("verdict", "delivered")]);
    assert!(calls > 0);
    assert_eq!(figures["calls"]["qr"]["delivered"]["total"], calls);
    assert_eq!(figures["calls_total"], calls);
    assert_eq!(
        figures["staleness_ms"]["samples"],
        stats.histogram("embudo.staleness_ms", &[]).count()
    );
    assert!(figures["staleness_ms"]["p99"].as_f64().is_some());
    assert_eq!(
        figures["outlier_detection"],
        json!({"cluster": "laravel_batch", "ejections_active": 0, "ejections_total": 0,
               "hosts_healthy": 1, "hosts_total": 1})
    );
    assert_eq!(figures["vm_reloads_total"], 0);
    assert!(figures["window_ms"].as_u64() >= Some(1000), "{figures:#}");

    let screen = once(&admin, &[]).await;
    let queued = counted("qr", "queued").to_string();
    let line = screen.lines().find(|line| line.starts_with("qr "));
    let first = line.and_then(|line| line.split_whitespace().nth(1));
    assert_eq!(first, Some(queued.as_str()), "{screen}");
    assert!(screen.contains("leader alive"), "{screen}");
    envoy.stop();
    laravel.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_envoy_without_the_filter_and_a_page_that_is_no_envoys_are_told_apart() -> Result<()> {
    let laravel = laravel().await?;
    let options = EnvoyOptions {
        embudo: false,
        ..EnvoyOptions::new("top-bare", laravel.addr)
    };
    let envoy = Envoy::start(options).await?;
    let figures = json_once(&format!("http://{}", envoy.admin.address)).await;
    assert_eq!(figures["embudo_found"], false);
    assert_eq!(figures["circuit"], Value::Null);

    let url = laravel.url();
    let run = move || top(&["--admin", &url, "--once"]);
    let (code, out, err) = tokio::task::spawn_blocking(run).await?;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(
        err.starts_with("error: Envoy's admin page answered 404"),
        "{err}"
    );
    envoy.stop();
    laravel.stop().await;
    Ok(())
}

#[test]
fn an_address_where_nothing_listens_is_an_error_that_says_so() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = port.expect("a port that was free a moment ago").port();
    let url = format!("http://127.0.0.1:{port}");
    let (code, out, err) = top(&["--admin", &url, "--once", "--json"]);

    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.contains(&format!("nothing takes connections at {url}")),
        "{err}"
    );
    assert!(err.contains("is Envoy running"), "{err}");
}

#[test]
fn a_wrong_url_is_an_error_that_shows_a_right_one() {
    for url in [
        "https://127.0.0.1:9901",
        "http://127.0.0.1:9901/stats",
        "::",
    ] {
        let (code, out, err) = top(&["--admin", url, "--once"]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{url}");
        assert!(
            err.contains("such as http://127.0.0.1:9901"),
            "{url}: {err}"
        );
    }
}

#[test]
fn without_a_terminal_and_without_once_it_says_what_to_do() {
    let (code, out, err) = top(&["--admin", "http://127.0.0.1:9"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.contains("no terminal") && err.contains("--once"),
        "{err}"
    );
}
