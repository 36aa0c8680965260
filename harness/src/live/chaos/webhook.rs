//! The webhook that takes over while Laravel is down, as far as a run needs it: it takes everything, or it is
//! down.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::live::laravel::port::Port;

/// A webhook that answers 200 to whatever comes. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Webhook {
    port: Port,
    accepting: Option<JoinHandle<()>>,
}

// === impl Webhook ===

impl Webhook {
    pub(super) fn start() -> io::Result<Self> {
        let mut webhook = Self {
            port: Port::take(0)?,
            accepting: None,
        };
        webhook.up()?;
        Ok(webhook)
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    // ## Up => Down

    pub(super) async fn down(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // Its end is an abort: no news.
            let _ = accepting.await;
        }
    }

    // ## Down => Up

    pub(super) fn up(&mut self) -> io::Result<()> {
        if self.accepting.is_none() {
            self.accepting = Some(tokio::spawn(accept(self.port.listen()?)));
        }
        Ok(())
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

/// Takes connections until it is aborted; they end with it.
async fn accept(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                let http = hyper::server::conn::http1::Builder::new();
                connections.spawn(http.serve_connection(TokioIo::new(stream), service_fn(take)));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn take(
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    // Whole, as a real one reads it before it answers.
    let _ = request.into_body().collect().await;
    Ok(hyper::Response::new(Full::from(r#"{"success":true}"#)))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn post(addr: SocketAddr) -> io::Result<String> {
        let mut stream = TcpStream::connect(addr).await?;
        let request =
            "POST /webhook HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_webhook_that_is_down_refuses_and_is_back_at_the_same_place() {
        let mut webhook = Webhook::start().expect("a free port");
        let answer = post(webhook.addr()).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        webhook.down().await;
        let refused = post(webhook.addr()).await.map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused));
        webhook.up().expect("the port is ours");
        post(webhook.addr()).await.expect("an answer");
    }
}
