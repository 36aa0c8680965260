//! From a connection to the model and back.
//!
//! The request's work is a task of its own, so that a client that leaves takes nothing with it but
//! its wish for an answer.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use super::Shared;
use crate::model::{
    http::{Request, Response},
    laravel::Reply,
};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Connections at once: far above what any test opens, and below a usual limit of open files.
const CONNECTIONS_MAX: usize = 8192;

/// What is read of a body at all. The model refuses much less; this only bounds the memory.
const BODY_READ_MAX: usize = 32 * 1024 * 1024;

/// How long `accept` rests after an error. The only likely one is "too many open files", which goes
/// away when connections do, and which would spin without a rest.
const ACCEPT_REST: Duration = Duration::from_millis(10);

/// Who answers the requests that come to a port.
pub(super) trait Serves: Send + Sync + 'static {
    /// The reply to a request.
    fn reply(self: Arc<Self>, request: Request) -> impl Future<Output = Reply> + Send;
}

impl Serves for Shared {
    async fn reply(self: Arc<Self>, request: Request) -> Reply {
        self.record(&request);
        work(request, self).await
    }
}

/// Accepts connections until it is aborted; they end with it.
pub(super) async fn accept<S: Serves>(listener: TcpListener, server: Arc<S>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(connection(stream, server.clone()));
                }
                // Dropped at once, as nginx does beyond its `worker_connections`.
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "a stand-in cannot accept a connection");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection<S: Serves>(stream: TcpStream, server: Arc<S>) {
    // Answers are small; waiting for more to send would only blur what is measured.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, server.clone()));
    let http = auto::Builder::new(TokioExecutor::new());
    // An error is the client's end or a fault that was asked for.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer<S: Serves>(
    request: hyper::Request<Incoming>,
    server: Arc<S>,
) -> io::Result<hyper::Response<Body>> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_READ_MAX).collect().await else {
        // Too long for any server, or the client left in the middle: either way, no request.
        return whole(Response::html(413, "413 Request Entity Too Large"));
    };
    let request = plain(&head, body.to_bytes());
    match server.reply(request).await {
        Reply::Whole(response) => whole(response),
        Reply::Cut(_, 0) => Err(io::ErrorKind::ConnectionReset.into()),
        Reply::Cut(response, after_bytes) => cut(response, after_bytes),
        Reply::Never => std::future::pending().await,
    }
}

/// Takes the request into the queue and waits for its reply.
async fn work(request: Request, shared: Arc<Shared>) -> Reply {
    // Before it is counted, so that whoever has seen it counted finds Laravel busy.
    let mut waiting = 0;
    shared.unfinished.send_modify(|n| {
        waiting = *n;
        *n += 1;
    });
    let full = waiting >= shared.backlog + shared.workers_total;
    {
        let mut laravel = shared.laravel();
        laravel.arrive(shared.now_ms(), &request);
        if full {
            shared.left();
            return Reply::Whole(laravel.refuse(&request));
        }
    }
    let (reply, replied) = oneshot::channel();
    tokio::spawn(async move {
        run(request, reply, &shared).await;
        shared.left();
    });
    // The sender goes without a word only if the runtime is shutting down.
    replied.await.unwrap_or(Reply::Never)
}

async fn run(request: Request, reply: oneshot::Sender<Reply>, shared: &Shared) {
    // The semaphore is fair: first come, first served. It is never closed.
    let Ok(_worker) = shared.workers.acquire().await else {
        return;
    };
    let began = Instant::now();
    let call = shared.laravel().begin(shared.now_ms(), request);
    // Even a sleep of nothing takes tokio a millisecond.
    if call.busy_ms > 0 {
        let until = began + Duration::from_millis(call.busy_ms);
        tokio::time::sleep_until(until.into()).await;
    }
    let outcome = shared.laravel().finish(shared.now_ms(), call);
    // Nobody may be listening any more. That changes nothing.
    let _ = reply.send(outcome);
}

fn plain(head: &hyper::http::request::Parts, body: Bytes) -> Request {
    let mut headers: Vec<(String, Bytes)> = head
        .headers
        .iter()
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                Bytes::copy_from_slice(value.as_bytes()),
            )
        })
        .collect();
    // In HTTP/2 it is no header, but those who look for it should find it.
    if let Some(authority) = head.uri.authority() {
        headers.push((":authority".to_owned(), Bytes::from(authority.to_string())));
    }
    let path = head
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    Request {
        method: head.method.as_str().to_owned(),
        path,
        headers,
        body,
    }
}

fn whole(response: Response) -> io::Result<hyper::Response<Body>> {
    let body = Full::new(response.body.clone())
        .map_err(|never| match never {})
        .boxed_unsync();
    head(&response, body)
}

/// Promises the whole body and breaks off before its end.
fn cut(response: Response, after_bytes: usize) -> io::Result<hyper::Response<Body>> {
    let length = response.body.len();
    let sent = response
        .body
        .slice(..after_bytes.min(length.saturating_sub(1)));
    let frames = stream::unfold(0, move |step| {
        let sent = sent.clone();
        async move {
            if step == 0 {
                return Some((Ok(Frame::data(sent)), 1));
            }
            // One turn in which hyper has nothing to do but flush what it has.
            tokio::task::yield_now().await;
            Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), 2))
        }
    });
    let response = response.with_header("content-length", length.to_string());
    head(&response, StreamBody::new(frames).boxed_unsync())
}

fn head(response: &Response, body: Body) -> io::Result<hyper::Response<Body>> {
    let mut builder = hyper::Response::builder().status(response.status);
    for (name, value) in &response.headers {
        builder = builder.header(name, value);
    }
    builder.body(body).map_err(io::Error::other)
}
