//! A port that leads to Laravel, byte for byte, but for one HTTP/2 stream that it refuses before anybody has seen it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const SETTINGS_ACK: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];

/// How long a connection stays open once it has refused a stream.
const OPEN_FOR: Duration = Duration::from_millis(100);

/// How a stream is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// RST_STREAM with REFUSED_STREAM.
    Stream,
    /// GOAWAY with a last stream below it.
    GoAway,
}

/// The port.
#[derive(Debug)]
pub(crate) struct Refusing {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    to: Mutex<Option<SocketAddr>>,
    next: Mutex<Option<Refusal>>,
    refused: AtomicU64,
    /// Connections that lead to Laravel end when this changes.
    generation: watch::Sender<u64>,
}

// === impl Refusing ===

impl Refusing {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let shared = Arc::new(Shared {
            to: Mutex::default(),
            next: Mutex::default(),
            refused: AtomicU64::new(0),
            generation: watch::Sender::new(0),
        });
        let addr = listener.local_addr()?;
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        Ok(Self { addr, shared })
    }

    pub(crate) fn leads_to(&self, laravel: SocketAddr) {
        *lock(&self.shared.to) = Some(laravel);
    }

    /// The next stream is refused so. Whatever is connected is ended: the next stream has a new connection.
    pub(crate) async fn refuse_next(&self, refusal: Refusal) {
        *lock(&self.shared.next) = Some(refusal);
        self.shared
            .generation
            .send_modify(|generation| *generation += 1);
    }

    pub(crate) fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let refusal = lock(&shared.next).take();
    if let Some(refusal) = refusal {
        let _ = refuse(&mut stream, refusal, &shared).await;
        return;
    }
    let to = *lock(&shared.to);
    let Some(to) = to else { return };
    let Ok(mut laravel) = TcpStream::connect(to).await else {
        return;
    };
    let mut generation = shared.generation.subscribe();
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut stream, &mut laravel) => {}
        _ = generation.changed() => {}
    }
}

async fn refuse(stream: &mut TcpStream, refusal: Refusal, shared: &Shared) -> Result<()> {
    stream.read_exact(&mut [0; PREFACE_BYTES]).await?;
    stream.write_all(&EMPTY_SETTINGS).await?;
    stream.write_all(&SETTINGS_ACK).await?;
    loop {
        let mut head = [0; FRAME_HEAD_BYTES];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await?;
        if head[3] != HEADERS {
            continue;
        }
        let frame: Vec<u8> = match refusal {
            // RST_STREAM of this stream: REFUSED_STREAM is 7.
            Refusal::Stream => [&[0, 0, 4, 3, 0][..], &head[5..9], &[0, 0, 0, 7]].concat(),
            // GOAWAY on stream 0: the last that was seen is 0, and nothing is wrong.
            Refusal::GoAway => vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        shared.refused.fetch_add(1, Ordering::Relaxed);
        stream.write_all(&frame).await?;
        stream.flush().await?;
        break;
    }
    // What still comes is read and forgotten; then the connection closes, so that the next stream has another.
    let forgotten = async {
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    };
    let _ = tokio::time::timeout(OPEN_FOR, forgotten).await;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
