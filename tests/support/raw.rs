//! Requests byte by byte, for what no well-behaved client would send.
//!
//! An HTTP library refuses or repairs most of what a broken gateway, a proxy or a stranger puts on the
//! wire. [`Connection`] writes exactly the bytes it is given and reads one answer after another;
//! [`Message`] makes those bytes where nothing is wrong with the framing; [`http2`] sends a message
//! over HTTP/2 with prior knowledge, trailers included.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than anything here takes on a busy machine: a connection that is silent for this long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A head, or a chunk's size line, beyond this is not HTTP.
const LINE_BYTES_MAX: usize = 256 * 1024;

/// How a body is framed in HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One `content-length`.
    Length,
    /// Chunks of at most so many bytes.
    Chunked(usize),
    /// Neither: there is no body. What the message has as its body is not sent.
    None,
}

/// A request: well framed, whatever is in it.
#[derive(Clone, Debug)]
pub struct Message {
    /// The method, as it goes on the wire.
    pub method: String,
    /// The target, as it goes on the wire.
    pub target: Vec<u8>,
    /// Headers in their order; `host` comes first, the framing last.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
    /// How the body is framed in HTTP/1.1.
    pub framing: Framing,
    /// Sent after the body, if it is chunked or in HTTP/2.
    pub trailers: Vec<(String, Vec<u8>)>,
}

/// An answer, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// In their order, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body after transfer decoding.
    pub body: Vec<u8>,
}

/// One HTTP/1.1 connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

// === impl Message ===

impl Message {
    /// A request without a body.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.as_bytes().to_vec(),
            headers: vec![("host".to_owned(), b"laravel.test".to_vec())],
            body: Vec::new(),
            framing: Framing::None,
            trailers: Vec::new(),
        }
    }

    /// What the gateway's HTTP client sends: a POST with JSON headers and a `content-length`.
    pub fn json(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target)
            .with("content-type", "application/json")
            .with("accept", "application/json, text/plain, */*")
            .with_body(body)
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Replaces all headers of this name by one, in the place of the first.
    #[must_use]
    pub fn replacing(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let at = self.headers.iter().position(|(have, _)| have == name);
        self = self.without(name);
        let header = (name.to_owned(), value.as_ref().to_vec());
        self.headers
            .insert(at.unwrap_or(self.headers.len()), header);
        self
    }

    /// Takes all headers of this name out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(have, _)| have != name);
        self
    }

    /// Sets the body, with its length declared.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.framing = Framing::Length;
        self
    }

    /// Sends the body in chunks of at most `bytes`.
    #[must_use]
    pub fn in_chunks(mut self, bytes: usize) -> Self {
        self.framing = Framing::Chunked(bytes);
        self
    }

    /// Adds a trailer.
    #[must_use]
    pub fn with_trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.trailers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Everything up to the body, for whoever sends that in a way of its own.
    pub fn head(&self) -> Vec<u8> {
        let mut out = self.method.as_bytes().to_vec();
        out.push(b' ');
        out.extend_from_slice(&self.target);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        for (name, value) in &self.headers {
            line(&mut out, name, value);
        }
        match self.framing {
            Framing::Length => {
                line(
                    &mut out,
                    "content-length",
                    self.body.len().to_string().as_bytes(),
                );
            }
            Framing::Chunked(_) => line(&mut out, "transfer-encoding", b"chunked"),
            Framing::None => {}
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    /// The whole message.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.head();
        match self.framing {
            Framing::Length => out.extend_from_slice(&self.body),
            Framing::Chunked(size) => {
                for chunk in self.body.chunks(size.max(1)) {
                    out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    out.extend_from_slice(chunk);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"0\r\n");
                for (name, value) in &self.trailers {
                    line(&mut out, name, value);
                }
                out.extend_from_slice(b"\r\n");
            }
            Framing::None => {}
        }
        out
    }

    /// Sends it down a connection of its own and returns the answer.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub async fn send(&self, to: SocketAddr) -> Result<Answer> {
        let mut connection = Connection::open(to).await?;
        connection.send(self).await
    }
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

// === impl Answer ===

impl Answer {
    /// The first header of this name as text, a broken byte shown as `\u{fffd}`.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers
            .iter()
            .find(|(have, _)| have == name)
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    /// The body as text, a broken byte shown as `\u{fffd}`.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

// === impl Connection ===

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to)
            .await
            .with_context(|| format!("cannot connect to {to}"))?;
        // Pieces that are written one by one must leave one by one.
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            read: Vec::new(),
        })
    }

    /// Writes a message and reads its answer.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub async fn send(&mut self, message: &Message) -> Result<Answer> {
        // Whoever refuses a request may close before all of it is written; what counts is the answer.
        let written = self.write(&message.bytes()).await;
        match self.answer_to(&message.method).await {
            Ok(answer) => Ok(answer),
            Err(unread) => Err(written.err().unwrap_or(unread)),
        }
    }

    /// Writes exactly these bytes.
    ///
    /// # Errors
    /// When the other side has closed, or does not read.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        tokio::time::timeout(SILENCE_MAX, self.stream.write_all(bytes))
            .await
            .context("the other side does not read")?
            .context("the other side has closed")
    }

    /// Reads the final answer to a request of this method; interim ones (1xx) are skipped.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub async fn answer_to(&mut self, method: &str) -> Result<Answer> {
        loop {
            let answer = self.next(method).await?;
            if answer.status >= 200 {
                return Ok(answer);
            }
        }
    }

    /// Reads the next answer to a request of this method, an interim one included.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub async fn next(&mut self, method: &str) -> Result<Answer> {
        let mut head = self.until(b"\r\n\r\n").await?;
        head.truncate(head.len() - 2);
        let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .with_context(|| format!("no status line: {first:?}"))?;
        let headers: Vec<(String, Vec<u8>)> = lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                let colon = line.iter().position(|byte| *byte == b':');
                let (name, value) = line.split_at(colon.unwrap_or(line.len()));
                let name = String::from_utf8_lossy(name).to_ascii_lowercase();
                (
                    name,
                    value.get(1..).unwrap_or_default().trim_ascii().to_vec(),
                )
            })
            .collect();
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        answer.body = self.body(method, &answer).await?;
        Ok(answer)
    }

    async fn body(&mut self, method: &str, answer: &Answer) -> Result<Vec<u8>> {
        if method == "HEAD" || answer.status < 200 || [204, 304].contains(&answer.status) {
            return Ok(Vec::new());
        }
        if answer
            .header("transfer-encoding")
            .is_some_and(|encoding| encoding.eq_ignore_ascii_case("chunked"))
        {
            return self.chunks().await;
        }
        match answer.header("content-length") {
            Some(length) => {
                self.exactly(length.parse().context("no content-length")?)
                    .await
            }
            None => {
                while self.more().await? {}
                Ok(std::mem::take(&mut self.read))
            }
        }
    }

    async fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?;
            let size = String::from_utf8_lossy(line.trim_ascii()).into_owned();
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16)
                .with_context(|| format!("no chunk size: {size:?}"))?;
            if size == 0 {
                while self.until(b"\r\n").await? != b"\r\n" {}
                return Ok(body);
            }
            body.extend(self.exactly(size).await?);
            ensure!(
                self.exactly(2).await? == b"\r\n",
                "a chunk ends with its line"
            );
        }
    }

    /// Whether the other side has closed or closes the connection without a further byte.
    ///
    /// # Errors
    /// When it sends something, or nothing happens in time.
    pub async fn is_closed(&mut self) -> Result<()> {
        ensure!(self.read.is_empty(), "bytes are left over: {:?}", self.read);
        match self.more().await {
            Ok(true) => bail!("it sends more: {:?}", String::from_utf8_lossy(&self.read)),
            Ok(false) => Ok(()),
            // A reset is an end too.
            Err(error) if error.is::<std::io::Error>() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn until(&mut self, mark: &[u8]) -> Result<Vec<u8>> {
        loop {
            let found = self
                .read
                .windows(mark.len())
                .position(|window| window == mark);
            if let Some(at) = found {
                return Ok(self.take(at + mark.len()));
            }
            ensure!(
                self.read.len() < LINE_BYTES_MAX,
                "no end of a head or a line"
            );
            if !self.more().await? {
                let read = String::from_utf8_lossy(&self.read);
                bail!("closed before the end of the answer; so far: {read:?}");
            }
        }
    }

    async fn exactly(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.read.len() < count {
            if !self.more().await? {
                bail!("closed after {} of {count} bytes", self.read.len());
            }
        }
        Ok(self.take(count))
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.read.split_off(count);
        std::mem::replace(&mut self.read, rest)
    }

    /// Reads what comes next; false at the end.
    async fn more(&mut self) -> Result<bool> {
        let read = self.stream.read_buf(&mut self.read);
        let count = tokio::time::timeout(SILENCE_MAX, read)
            .await
            .context("no answer: the request hangs")??;
        Ok(count > 0)
    }
}

// === HTTP/2 ===

/// Sends a message over an HTTP/2 connection of its own, with prior knowledge, and returns the answer.
///
/// The body goes in pieces of 16 KiB; trailers, if any, end the request instead of the last piece.
///
/// # Errors
/// When there is no whole answer in time, or a name or value is none.
pub async fn http2(to: SocketAddr, message: &Message) -> Result<Answer> {
    tokio::time::timeout(SILENCE_MAX, async {
        let stream = TokioIo::new(TcpStream::connect(to).await?);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(http2_request(message)?).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        connection.abort();
        let headers = head.headers.iter();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: headers
                .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                .collect(),
            body,
        })
    })
    .await
    .context("no answer over HTTP/2: the request hangs")?
}

type Http2Body = UnsyncBoxBody<Bytes, anyhow::Error>;

fn http2_request(message: &Message) -> Result<hyper::Request<Http2Body>> {
    let target = std::str::from_utf8(&message.target)?;
    let host = message.headers.iter().find(|(name, _)| name == "host");
    let host = host.map_or("laravel.test".into(), |(_, value)| {
        String::from_utf8_lossy(value)
    });
    let mut request = hyper::Request::builder()
        .method(message.method.as_str())
        .uri(format!("http://{host}{target}"))
        .body(http2_body(message)?)?;
    let rest = message.headers.iter().filter(|(name, _)| name != "host");
    *request.headers_mut() = header_map(rest)?;
    Ok(request)
}

fn http2_body(message: &Message) -> Result<Http2Body> {
    if message.framing == Framing::None && message.trailers.is_empty() {
        // The headers end the request.
        return Ok(Empty::new().map_err(|never| match never {}).boxed_unsync());
    }
    let pieces = message.body.chunks(16 * 1024);
    let mut frames: Vec<_> = pieces
        .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    if !message.trailers.is_empty() {
        frames.push(Ok(Frame::trailers(header_map(message.trailers.iter())?)));
    }
    Ok(StreamBody::new(futures::stream::iter(frames)).boxed_unsync())
}

fn header_map<'a>(headers: impl Iterator<Item = &'a (String, Vec<u8>)>) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::from_bytes(name.as_bytes())?,
            HeaderValue::from_bytes(value)?,
        );
    }
    Ok(map)
}
