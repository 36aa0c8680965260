//! The batcher and its Redis as processes, and the gateway's events for it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::live::load::pace::pace;
use crate::live::load::{LoadOptions, LoadReport, WARM_UP_AT_ONCE};
use crate::live::supervise::{self, Supervised};
use crate::live::{node, paths, tools};
use crate::model::gateway::{What, session_ids};
use crate::model::http::Route;
use crate::model::order::Sent;

const PROGRAM: &str = "harness/peers/batcher";

/// Until Redis listens; it takes some milliseconds.
const REDIS_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Longer than three tries of a read with the longest timeout.
const ANSWER_MAX: Duration = Duration::from_secs(90);

/// Lines on their way to the batcher; beyond it their senders wait.
const LINES_MAX: usize = 4_096;

/// What the batcher needs.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    redis: PathBuf,
    program: PathBuf,
}

/// The batcher, running. Dropping it ends both processes.
pub(super) struct Batcher {
    lines: mpsc::Sender<String>,
    waiting: Waiting,
    next_id: AtomicU64,
    node: Child,
    redis: Redis,
}

/// Redis on a socket in a folder of its own: a path below the project's might be too long for one.
struct Redis {
    process: Supervised,
    folder: TempDir,
}

/// What the batcher says to an event.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    id: u64,
    ok: bool,
    sent: Vec<(String, String, String)>,
    /// Items that Laravel has not taken yet.
    pub(super) pending: u64,
    /// Items that Laravel's validation refused.
    pub(super) rejected: u64,
}

/// Who waits for which answer.
type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>>;

// === impl Tools ===

impl Tools {
    /// Finds Node's program and Redis, and installs what is missing.
    pub(super) fn find_or_install() -> Result<Self> {
        Ok(Self {
            redis: find_or_install_redis()?,
            program: node::ready(PROGRAM)?,
        })
    }
}

/// Debian's own: where this process may install it, it does.
fn find_or_install_redis() -> Result<PathBuf> {
    let find = || tools::on_path("redis-server", std::env::var_os("PATH").as_deref());
    if let Some(found) = find() {
        return Ok(found);
    }
    let _lock = paths::lock(&paths::tools().join("lock"))?;
    if find().is_none() {
        tools::apt_install("Redis", &["redis-server"])?;
    }
    find().context("redis-server was installed and is not on the PATH")
}

// === impl Redis ===

impl Redis {
    async fn start(program: &Path, run_dir: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("embudo-redis-").tempdir();
        let folder = folder.context("cannot make a folder for Redis's socket")?;
        let socket = folder.path().join("redis.sock");
        // A cache: no port, nothing on the disk.
        let mut args: Vec<OsString> = ["--port", "0", "--save", "", "--appendonly", "no"]
            .map(OsString::from)
            .into();
        args.extend(["--dir".into(), folder.path().into()]);
        args.extend(["--unixsocket".into(), socket.clone().into()]);
        let mut process = Supervised::start(program, &args, &[], &run_dir.join("redis.log"))?;
        let deadline = Instant::now() + REDIS_MAX;
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            ensure!(
                process.ended().is_none() && Instant::now() < deadline,
                "Redis does not start; its log is in {}",
                run_dir.display()
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(Self { process, folder })
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }
}

// === impl Batcher ===

impl Batcher {
    pub(super) async fn start(tools: &Tools, laravel: &str, call_timeout_ms: u64) -> Result<Self> {
        let run_dir = paths::new_run("peers-batcher")?;
        let redis = Redis::start(&tools.redis, &run_dir).await?;
        let log = std::fs::File::create(run_dir.join("batcher.log"));
        let mut node = tokio::process::Command::new("node")
            .arg(tools.program.join("main.mjs"))
            .env("LARAVEL_URL", laravel)
            .env("REDIS_SOCKET", redis.socket())
            .env("CALL_TIMEOUT_MS", call_timeout_ms.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.context("cannot write the batcher's log")?)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start node; the batcher needs Node 20")?;
        let (lines, to_write) = mpsc::channel(LINES_MAX);
        let waiting = Waiting::default();
        // Both end with the process, whose ends of the pipes close.
        tokio::spawn(write(node.stdin.take().context("no input")?, to_write));
        let output = node.stdout.take().context("no output")?;
        tokio::spawn(read(output, waiting.clone()));
        Ok(Self {
            lines,
            waiting,
            next_id: AtomicU64::new(1),
            node,
            redis,
        })
    }

    /// The processes of the middle.
    pub(super) fn pids(&self) -> Vec<u32> {
        let mut pids = supervise::descendants(self.redis.process.id());
        pids.extend(self.node.id());
        pids
    }

    /// What of its items Laravel has not taken, or has refused.
    pub(super) async fn books(&self) -> Result<Answer> {
        self.ask(json!({"event": "pending"})).await
    }

    /// Asks for each session's state once, as the first event of a gateway's day does.
    pub(super) async fn warm_up(&self, options: &LoadOptions) -> Result<()> {
        let asks = session_ids(options.seed, options.sessions).into_iter();
        let asks = asks.map(|session| self.ask(json!({"event": "read", "session": session})));
        let asked: Vec<_> = futures::stream::iter(asks)
            .buffer_unordered(WARM_UP_AT_ONCE)
            .collect()
            .await;
        for answer in asked {
            ensure!(answer?.ok, "a state cannot be read before the start");
        }
        Ok(())
    }

    /// Sends the events at their times, in an open loop as `load` does with requests.
    pub(super) async fn load(self: &Arc<Self>, options: &LoadOptions) -> Result<LoadReport> {
        let ids = session_ids(options.seed, options.sessions);
        let begun = Instant::now();
        let report = Arc::new(Mutex::new(LoadReport::default()));
        let mut events = pace(options, begun);
        let mut under_way = JoinSet::new();
        while let Some((index, event)) = events.recv().await {
            let Some(session) = ids.get(index).cloned() else {
                continue;
            };
            let due = begun + Duration::from_millis(event.at_ms);
            let (batcher, report) = (self.clone(), report.clone());
            let epoch = options.epoch;
            under_way.spawn(async move {
                batcher
                    .event(&session, event.what, due, epoch, &report)
                    .await
            });
        }
        let sent_for = begun.elapsed();
        while let Some(ended) = under_way.join_next().await {
            ended.context("an event")??;
        }
        let report = std::mem::take(&mut *lock(&report));
        Ok(LoadReport { sent_for, ..report })
    }

    async fn event(
        &self,
        session: &str,
        what: What,
        due: Instant,
        epoch: Instant,
        report: &Mutex<LoadReport>,
    ) -> Result<()> {
        let event = match what {
            What::Qr(qr) => json!({"event": "qr", "session": session, "qr": qr}),
            What::Expired => json!({"event": "expired", "session": session}),
            What::Active => json!({"event": "active", "session": session}),
            What::LoggedOut => json!({"event": "logged_out", "session": session}),
        };
        let began = Instant::now();
        let answer = self.ask(event).await?;
        let mut report = lock(report);
        report.events += 1;
        report.events_took.record(due.elapsed(), began.elapsed());
        report.unfinished += u64::from(!answer.ok);
        // Taken at once, and answered so: the event's wait for its state comes before.
        let now_us = u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        for (route, value, outcome) in answer.sent {
            let route = if route == "qr" {
                Route::Qr
            } else {
                Route::Status
            };
            let place = report.sent.sent(session, Sent::new(route, value, now_us));
            report
                .sent
                .ended(session, place, now_us, Some(200), Some(outcome));
        }
        Ok(())
    }

    async fn ask(&self, mut event: Value) -> Result<Answer> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        event["id"] = id.into();
        let (answer, answered) = oneshot::channel();
        lock(&self.waiting).insert(id, answer);
        let line = self.lines.send(format!("{event}\n")).await;
        line.ok().context("the batcher has ended")?;
        let answer = tokio::time::timeout(ANSWER_MAX, answered).await;
        answer
            .context("the batcher does not answer")?
            .context("the batcher has ended")
    }
}

async fn write(mut input: ChildStdin, mut lines: mpsc::Receiver<String>) {
    while let Some(line) = lines.recv().await {
        if input.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(output: ChildStdout, waiting: Waiting) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(answer) = serde_json::from_str::<Answer>(&line) else {
            break;
        };
        if let Some(waits) = lock(&waiting).remove(&answer.id) {
            // Whoever has stopped waiting wants no answer.
            let _ = waits.send(answer);
        }
    }
    // Nobody will answer those who wait.
    lock(&waiting).clear();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
