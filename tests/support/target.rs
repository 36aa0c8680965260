//! A target of webhooks that only writes down what comes.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// How the target answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answers {
    /// 200 and `{"call":<n>}`, so that each answer is told from every other.
    #[default]
    Json,
    /// 200 and `OK`.
    Text,
    /// 204.
    Empty,
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Call {
    /// Path and query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
    /// When all of it was there.
    pub at: Instant,
}

/// The target; it ends when it is dropped.
#[derive(Debug)]
pub struct Target {
    /// Where it listens.
    pub addr: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    refuses_next: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

// === impl Target ===

impl Target {
    /// Starts one on a port that the system chooses.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(answers: Answers) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let calls = Arc::<Mutex<Vec<Call>>>::default();
        let refuses_next = Arc::<AtomicBool>::default();
        let accepting = tokio::spawn(accept(
            listener,
            calls.clone(),
            refuses_next.clone(),
            answers,
        ));
        Ok(Self {
            addr,
            calls,
            refuses_next,
            accepting,
        })
    }

    /// The next call is answered 503, and not written down.
    pub fn refuse_next(&self) {
        self.refuses_next.store(true, Ordering::SeqCst);
    }

    /// What has come so far, in the order in which the bodies were complete.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(calls: &Mutex<Vec<Call>>) -> MutexGuard<'_, Vec<Call>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    calls: Arc<Mutex<Vec<Call>>>,
    refuses_next: Arc<AtomicBool>,
    answers: Answers,
) {
    // The connections end with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (calls, refuses_next) = (calls.clone(), refuses_next.clone());
        let service = service_fn(move |request| {
            let refuses = refuses_next.swap(false, Ordering::SeqCst);
            answer(request, calls.clone(), refuses, answers)
        });
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    calls: Arc<Mutex<Vec<Call>>>,
    refuses: bool,
    answers: Answers,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Full::default());
    let Ok(body) = body.collect().await else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    if refuses {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return Ok(response);
    }
    let call = Call {
        path: head.uri.to_string(),
        headers: head.headers,
        body: body.to_bytes(),
        at: Instant::now(),
    };
    let n = {
        let mut calls = lock(&calls);
        calls.push(call);
        calls.len()
    };
    match answers {
        Answers::Json => {
            *response.body_mut() = Full::from(format!("{{\"call\":{n}}}"));
            let json = hyper::header::HeaderValue::from_static("application/json");
            response.headers_mut().insert("content-type", json);
        }
        Answers::Text => *response.body_mut() = Full::from("OK"),
        Answers::Empty => *response.status_mut() = StatusCode::NO_CONTENT,
    }
    Ok(response)
}
