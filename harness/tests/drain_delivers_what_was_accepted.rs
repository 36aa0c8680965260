//! `embudo drain` and the README's lines for a `preStop` hook, on the real Envoy: a planned stop loses nothing,
//! and one that cannot be had without loss says so and leaves Envoy running.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::Router;
use bytes::Bytes;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::paths;
use embudo::live::{Envoy, EnvoyOptions, wait};
use embudo::model::gateway::session_ids;
use embudo::model::laravel::{Fault, Misbehaviour};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// How long anything may take: it says that something hangs, and is no claim about speed.
const BOUND: Duration = Duration::from_secs(60);

/// Envoy's `--drain-time-s`.
const DRAIN_S: u32 = 3;

/// What a call to Laravel costs: with calls of eight items, one at a time, what is posted in a burst takes
/// longer than the drain time.
const CALL_MS: u64 = 1_500;
const SESSIONS: usize = 24;

/// Exit code, standard output, standard error.
type Outcome = (Option<i32>, String, String);

fn outcome(command: &mut Command) -> Outcome {
    let output = command.stdin(Stdio::null()).output();
    let output = output.expect("it can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Runs `embudo drain` beside the test.
async fn drain(admin: &str, more: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embudo"));
    command.args(["drain", "--admin", admin]).args(more);
    let run = tokio::task::spawn_blocking(move || outcome(&mut command));
    let ended = tokio::time::timeout(BOUND, run).await;
    ended.expect("it ends").expect("it can be run")
}

/// The lines of the README between the fences, whatever is around them.
fn readme_lines() -> String {
    let readme = std::fs::read_to_string(paths::root().join("README.md")).expect("the README");
    let mut blocks = readme.split("```sh\n").skip(1);
    let block = blocks.find(|block| block.contains("drain_listeners"));
    let block = block.expect("the lines for a preStop hook");
    block.split("```").next().expect("their end").to_owned()
}

/// A gateway, Envoy with Embudo, and a Laravel that is slow.
struct Way {
    gateway: Client<HttpConnector, Full<Bytes>>,
    envoy: Envoy,
    laravel: LaravelServer,
    admin: String,
    /// The last value that was answered `queued`, by session.
    queued: BTreeMap<String, String>,
}

impl Way {
    async fn start(name: &str, drain_time_s: u32) -> Result<Self> {
        let laravel = LaravelServer::start(LaravelOptions::costing(CALL_MS)).await?;
        let options = EnvoyOptions {
            drain_time_s,
            filter_config: json!({
                "assume": {"callers": true},
                "max_in_flight": 1,
                "routes": [{"name": "qr", "batch": {"max_items": 8}}],
            }),
            ..EnvoyOptions::new(name, laravel.addr)
        };
        let envoy = Envoy::start(options).await?;
        let admin = format!("http://{}", envoy.admin.address);
        let led = wait::until(BOUND, async || {
            let stats = envoy.admin.stats().await;
            stats.is_ok_and(|stats| stats.gauge("embudo.leader_beat") > Some(0))
        });
        assert!(led.await, "a root becomes the dispatcher");
        Ok(Self {
            gateway: Client::builder(TokioExecutor::new()).build_http(),
            envoy,
            laravel,
            admin,
            queued: BTreeMap::new(),
        })
    }

    /// Posts a QR; what is answered `queued` is owed.
    async fn post(&mut self, session: &str, qr: &str) -> Result<String> {
        let request = Request::post(format!("{}/api/qr", self.envoy.url()))
            .header("content-type", "application/json")
            .body(Full::from(
                json!({"session_id": session, "qr": qr}).to_string(),
            ))?;
        let answer = self.gateway.request(request).await?;
        let outcome = answer.headers().get("x-embudo").cloned();
        answer.into_body().collect().await?;
        let outcome = outcome.map_or(String::new(), |text| {
            String::from_utf8_lossy(text.as_bytes()).into_owned()
        });
        if outcome == "queued" {
            self.queued.insert(session.to_owned(), qr.to_owned());
        }
        Ok(outcome)
    }

    /// More than Laravel takes within the drain time.
    async fn burst(&mut self, seed: u64) -> Result<()> {
        for (n, session) in session_ids(seed, SESSIONS).iter().enumerate() {
            let outcome = self.post(session, &format!("2@{seed}-{n}")).await?;
            assert_eq!(outcome, "queued");
        }
        Ok(())
    }

    /// Asserts that Envoy is gone and Laravel has every value that was answered `queued`.
    async fn assert_gone_and_delivered(mut self) {
        assert_gone(&mut self.envoy).await;
        // Before anything else is asked of Laravel: what it is still busy with does not count.
        let journal = self.laravel.stop().await;
        let mut at_laravel = BTreeMap::new();
        for entry in journal.entries() {
            at_laravel.insert(entry.session.clone(), entry.value.clone());
        }
        assert!(self.queued.len() >= SESSIONS, "there was something to lose");
        assert_eq!(at_laravel, self.queued, "Laravel has what was accepted");
    }
}

async fn assert_gone(envoy: &mut Envoy) {
    let gone = wait::until(BOUND, async || !envoy.is_running());
    assert!(gone.await, "Envoy ends");
}

/// The lines of a `--json` run.
fn lines(out: &str) -> Vec<Value> {
    let lines = out.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("JSON, one a line")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_behind_a_slow_laravel_loses_nothing_and_ends_envoy() -> Result<()> {
    let mut way = Way::start("drain", DRAIN_S).await?;
    way.burst(1).await?;
    let admin = way.admin.clone();
    let draining = tokio::spawn(async move { drain(&admin, &["--json"]).await });
    // A gateway goes on posting until nobody takes its connections any more.
    let late = session_ids(2, 400);
    let begin = Instant::now();
    let mut refused = false;
    for (n, session) in late.iter().enumerate() {
        refused = way.post(session, &format!("2@late-{n}")).await.is_err();
        if refused || begin.elapsed() > BOUND {
            break;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(refused, "the listener closes");
    assert!(way.queued.len() > SESSIONS, "it served until then");
    let (code, out, err) = draining.await?;

    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let lines = lines(&out);
    let with = |state: &str| lines.iter().filter(|line| line["state"] == state).count();
    assert!(with("draining") >= 2, "a line a second: {out}");
    assert!(
        lines
            .iter()
            .any(|line| line["state"] == "flushing" && line["pending_items"].as_u64() > Some(0)),
        "there was something to wait for after the listeners had closed: {out}"
    );
    let beats: Vec<u64> = lines
        .iter()
        .filter_map(|l| l["leader_beat"].as_u64())
        .collect();
    assert!(beats.is_sorted() && beats.first() < beats.last(), "{out}");
    let last = lines.last().expect("a last line");
    assert_eq!(last["state"], "quit");
    assert_eq!(last["pending_items"], 0);
    assert_eq!(last["accepted_total"], last["settled_total"]);
    assert_eq!(last["accepted_total"], way.queued.len());
    way.assert_gone_and_delivered().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_lines_do_the_same_with_a_shell_and_curl() -> Result<()> {
    let mut way = Way::start("drain-curl", DRAIN_S).await?;
    way.burst(3).await?;
    let mut command = Command::new("sh");
    command
        .args(["-euc", &readme_lines()])
        .env("ADMIN", &way.admin)
        .env("DRAIN_S", DRAIN_S.to_string());
    let run = tokio::task::spawn_blocking(move || outcome(&mut command));
    let begin = Instant::now();
    let (code, out, err) = tokio::time::timeout(BOUND, run).await??;

    assert_eq!(code, Some(0), "{out}{err}");
    // 24 items, eight a call, one call at a time.
    let least = Duration::from_millis(3 * CALL_MS);
    assert!(begin.elapsed() > least, "it waited: {:?}", begin.elapsed());
    way.assert_gone_and_delivered().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_delivered_in_time_leaves_envoy_running_unless_forced() -> Result<()> {
    let mut way = Way::start("drain-down", 1).await?;
    way.laravel
        .set_faults(vec![Fault::always(Misbehaviour::status(500))]);
    way.burst(4).await?;

    let (code, out, err) = drain(&way.admin, &["--timeout", "4"]).await;
    assert_eq!(code, Some(1), "{out}");
    for said in [
        "not drained within 4 s",
        &format!("{SESSIONS} updates are still pending"),
        "Envoy was left running",
    ] {
        assert!(err.contains(said), "{said}: {err}");
    }
    let line = out.lines().last().unwrap_or_default();
    assert!(
        line.contains("listeners closed") && line.contains("leader alive"),
        "{out}"
    );
    assert!(way.envoy.is_running() && way.envoy.admin.is_ready().await);

    let (code, out, err) = drain(&way.admin, &["--timeout", "4", "--force", "--json"]).await;
    assert_eq!(code, Some(1), "something was lost: {out}");
    assert!(err.contains("--force has ended Envoy"), "{err}");
    let last = lines(&out).pop().expect("a last line");
    assert_eq!(last["state"], "failed");
    let error = last["error"].as_str().unwrap_or_default();
    assert!(err.contains(error) && !error.is_empty(), "{last}");
    assert_gone(&mut way.envoy).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keep_envoy_runs_on_and_a_second_drain_ends_it() -> Result<()> {
    let mut way = Way::start("drain-keep", 1).await?;
    way.burst(5).await?;
    let (code, out, err) = drain(&way.admin, &["--keep"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.ends_with("Envoy runs on\n"), "{out}");
    assert!(way.envoy.is_running() && way.envoy.admin.is_ready().await);
    assert_eq!(way.envoy.admin.stats().await?.ledger().pending, 0);

    let (code, out, err) = drain(&way.admin, &[]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.ends_with("Envoy is gone\n"), "{out}");
    way.assert_gone_and_delivered().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_cannot_be_drained_is_left_as_it_is() -> Result<()> {
    // Without Embudo.
    let laravel = LaravelServer::start(LaravelOptions::default()).await?;
    let options = EnvoyOptions {
        embudo: false,
        drain_time_s: 1,
        ..EnvoyOptions::new("drain-bare", laravel.addr)
    };
    let envoy = Envoy::start(options).await?;
    let admin = format!("http://{}", envoy.admin.address);
    let (code, out, err) = drain(&admin, &["--force"]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("there is no Embudo in the Envoy at"), "{err}");

    // With a drain time that the timeout does not hold.
    let (code, out, err) = drain(&admin, &["--timeout", "1"]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.contains("drains for 1 s, and --timeout is 1 s"),
        "{err}"
    );
    // A drain that had begun would close the listener after a second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stopped = "listener_manager.listener_stopped";
    assert_eq!(envoy.admin.stats().await?.find(stopped), Some(0));
    Ok(())
}

/// An admin page whose Embudo has no dispatcher: it stands for an Envoy whose VMs have all trapped.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_dispatcher_nothing_is_begun() -> Result<()> {
    let stats = json!({"stats": [
        {"name": "wasmcustom.embudo.pending;store=embudo", "value": 3},
        {"name": "wasmcustom.embudo.leader_beat;store=embudo", "value": 17},
    ]});
    let info = json!({"command_line_options": {"drain_time": "1s"}});
    let page = |body: Value| axum::routing::get(move || async move { body.to_string() });
    let router = Router::new()
        .route("/stats", page(stats))
        .route("/server_info", page(info));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let admin = format!("http://{}", listener.local_addr()?);
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });

    let (code, out, err) = drain(&admin, &[]).await;
    serving.abort();
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    for said in ["no dispatcher", "3 pending", "nothing was changed"] {
        assert!(err.contains(said), "{said}: {err}");
    }
    Ok(())
}

#[tokio::test]
async fn an_address_where_nothing_listens_is_an_error_that_says_so() -> Result<()> {
    let url = format!("http://{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    let (code, out, err) = drain(&url, &["--json"]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.contains(&format!("nothing takes connections at {url}")),
        "{err}"
    );
    Ok(())
}
