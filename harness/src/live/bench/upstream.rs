//! The cheapest Laravel there is: it says yes to everything, at once, and keeps nothing.
//!
//! The stand-in of [`crate::live::laravel`] waits as PHP does and writes a journal; here both would be measured.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::live::Endpoint;

/// A batch that is late by more than this was the last one: twice the time that a batch waits for more, and
/// several times the pause between two calls.
const QUIET: Duration = Duration::from_millis(500);

/// A thousand items leave within a second; this says that something hangs.
const QUIET_MAX: Duration = Duration::from_secs(60);

const STATE: &str = r#"{"estado_qr":"pending","status":"pending"}"#;
const DONE: &str = r#"{"success":true}"#;

/// When the last batch came.
type LastBatch = Arc<Mutex<Instant>>;

/// A running one; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) endpoint: Endpoint,
    last_batch: LastBatch,
    task: JoinHandle<()>,
}

// === impl Upstream ===

impl Upstream {
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.context("no port for the upstream")?;
        let endpoint = listener.local_addr()?.into();
        let last_batch = LastBatch::new(Mutex::new(Instant::now()));
        let app = Router::new()
            .fallback(answer)
            .with_state(last_batch.clone());
        let task = tokio::spawn(async move {
            // It only ends with the task.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self {
            endpoint,
            last_batch,
            task,
        })
    }

    /// Waits until no batch has come for a while, counted from now at the earliest.
    pub(super) async fn quiet(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let last = *self
                .last_batch
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let quiet = last.max(began).elapsed();
            if quiet >= QUIET {
                return Ok(());
            }
            ensure!(began.elapsed() < QUIET_MAX, "batches come without an end");
            tokio::time::sleep(QUIET - quiet).await;
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(last_batch): State<LastBatch>, uri: Uri) -> Response {
    let body = match uri.path() {
        path if path.ends_with("/batch") => {
            *last_batch.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            DONE
        }
        path if path.contains("/whatsapp/status/") => STATE,
        _ => DONE,
    };
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], body).into_response()
}
