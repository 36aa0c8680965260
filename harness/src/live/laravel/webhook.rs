//! The webhook of the fallback behind a real socket: the model of [`crate::model::webhook`], which takes as
//! many calls at once as come. A call that has arrived goes on to its end, whoever still waits for it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::port::Door;
use super::serve::Serves;
use super::{elapsed_ms, lock};
use crate::model::http::Request;
use crate::model::laravel::{Fault, Reply};
use crate::model::webhook::{Received, Webhook};

/// A running webhook. Dropping it stops it.
#[derive(Debug)]
pub struct WebhookServer {
    /// Where it listens, or will listen again once it is up.
    pub addr: SocketAddr,
    door: Door,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    webhook: Mutex<Webhook>,
    epoch: Instant,
}

// === impl WebhookServer ===

impl WebhookServer {
    /// Starts it on a free port; it accepts connections when this returns. Its clock was 0 at `epoch`.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(request_ms: u64, epoch: Instant) -> io::Result<Self> {
        let door = Door::take(0)?;
        let shared = Arc::new(Shared {
            webhook: Mutex::new(Webhook::new(request_ms)),
            epoch,
        });
        let addr = door.addr();
        let mut server = Self { addr, door, shared };
        server.up().await?;
        Ok(server)
    }

    /// Replaces the faults; none ends them.
    pub fn set_faults(&self, seed: u64, faults: Vec<Fault>) {
        lock(&self.shared.webhook).set_faults(seed, faults);
    }

    /// Every call so far.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.webhook).received().to_vec()
    }

    /// Refuses connections and drops those there are. Nothing happens if it is down.
    pub async fn down(&mut self) {
        self.door.close().await;
    }

    /// Accepts connections on the same port again. Nothing happens if it is up.
    ///
    /// # Errors
    /// If the kernel does not give the port back.
    pub async fn up(&mut self) -> io::Result<()> {
        self.door.open(&self.shared)
    }
}

// === impl Shared ===

impl Serves for Shared {
    async fn reply(self: Arc<Self>, request: Request) -> Reply {
        let now_ms = elapsed_ms(self.epoch);
        let call = lock(&self.webhook).begin(now_ms, &request);
        let work = async move {
            tokio::time::sleep(Duration::from_millis(call.busy_ms)).await;
            lock(&self.webhook).finish(call)
        };
        // A task of its own; it fails only if the runtime is shutting down.
        tokio::spawn(work).await.unwrap_or(Reply::Never)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::model::laravel::Misbehaviour;

    const BOUND: Duration = Duration::from_secs(10);

    const EVENT: &str = r#"{"event":"qr.batch","reason":"attempts","batchId":"b","items":[{"session_id":"a","qr":"2@a","timestamp":1}]}"#;

    /// The status line, or nothing where the connection breaks.
    async fn post(webhook: &WebhookServer) -> io::Result<String> {
        let mut stream = TcpStream::connect(webhook.addr).await?;
        let head = "POST /webhook HTTP/1.1\r\nhost: w\r\ncontent-type: application/json";
        let length = EVENT.len();
        let request =
            format!("{head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{EVENT}");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        Ok(answer.lines().next().unwrap_or_default().to_owned())
    }

    #[tokio::test]
    async fn it_takes_events_fails_when_told_to_and_refuses_when_it_is_down() {
        let mut webhook = WebhookServer::start(0, Instant::now())
            .await
            .expect("a free port");
        let faults = [
            Misbehaviour::status(500),
            Misbehaviour::Reset {
                after_bytes: 0,
                processed: true,
            },
        ];
        let faults = faults.map(|what| Fault::always(what).times(1));
        webhook.set_faults(1, faults.to_vec());
        for status in ["HTTP/1.1 500", "", "HTTP/1.1 200"] {
            let answered = tokio::time::timeout(BOUND, post(&webhook)).await;
            let line = answered.expect("in time").expect("a connection");
            assert!(
                line.starts_with(status) && line.is_empty() == status.is_empty(),
                "{line}"
            );
        }
        webhook.down().await;
        let refused = post(&webhook).await.map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
        webhook.up().await.expect("its port");
        assert!(post(&webhook).await.is_ok_and(|line| line.contains("200")));
        let answers: Vec<_> = webhook.received().iter().map(|call| call.answer).collect();
        assert_eq!(answers, [Some(500), None, Some(200), Some(200)]);
    }
}
