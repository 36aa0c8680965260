//! Envoy's admin page as a client.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpStream;

use super::stats::Stats;

/// The main thread answers admin requests between other things; longer than this means that it
/// hangs.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A page on this machine or in this cluster takes a connection within milliseconds; beyond this the
/// address is one that nobody answers at.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// The port of the admin page in `envoy.yaml`.
const PORT: u16 = 9901;

/// A client of one Envoy's admin page. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where the page is.
    pub address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

// === impl Admin ===

impl Admin {
    /// A client of the admin page at `address`; nothing is sent yet.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// A client of the admin page at `url`: `http://host:port`, or without the scheme or the port
    /// (9901). Of a name's addresses, the first that takes a connection.
    ///
    /// # Errors
    /// When `url` is something else, when the name is not known, or when nothing listens there.
    pub async fn at(url: &str) -> Result<Self> {
        let (host, port) = host_and_port(url)?;
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port))
            .await
            .with_context(|| format!("{url}: the name {host} is not known"))?
            .collect();
        let mut refused = Vec::new();
        for address in addresses {
            match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await {
                Ok(Ok(_)) => return Ok(Self::new(address)),
                Ok(Err(error)) => refused.push(format!("{address}: {error}")),
                Err(_) => refused.push(format!(
                    "{address}: no answer within {} s",
                    CONNECT_MAX.as_secs()
                )),
            }
        }
        bail!(
            "nothing takes connections at {url} ({}); is Envoy running, and is this its admin page?",
            refused.join("; ")
        );
    }

    /// Sends a GET.
    ///
    /// # Errors
    /// When Envoy does not answer, or answers with anything but 200.
    pub async fn get(&self, path: &str) -> Result<String> {
        self.send(Method::GET, path).await
    }

    /// Sends a POST, which everything that changes something needs.
    ///
    /// # Errors
    /// When Envoy does not answer, or answers with anything but 200.
    pub async fn post(&self, path: &str) -> Result<String> {
        self.send(Method::POST, path).await
    }

    /// Whether Envoy serves: its listeners are open and its clusters are known.
    pub async fn is_ready(&self) -> bool {
        self.get("/ready").await.is_ok()
    }

    /// Every figure Envoy has now, histograms included (those are up to a second old).
    ///
    /// # Errors
    /// When Envoy does not answer, or with something that is not its statistics.
    pub async fn stats(&self) -> Result<Stats> {
        Stats::parse(
            &self
                .get("/stats?format=json&histogram_buckets=detailed")
                .await?,
        )
    }

    /// The figures whose names match `filter` (a regular expression), histograms included: a page of
    /// all clusters' figures is large, and Envoy's main thread writes it.
    ///
    /// # Errors
    /// When Envoy does not answer, or with something that is not its statistics.
    pub async fn stats_matching(&self, filter: &str) -> Result<Stats> {
        let filter = encoded(filter);
        let path = format!("/stats?format=json&histogram_buckets=detailed&filter={filter}");
        Stats::parse(&self.get(&path).await?)
            .with_context(|| format!("{} does not answer as Envoy does", self.address))
    }

    /// The whole configuration in use.
    ///
    /// # Errors
    /// When Envoy does not answer, or not with JSON.
    pub async fn config_dump(&self) -> Result<Value> {
        let text = self.get("/config_dump").await?;
        serde_json::from_str(&text).context("the config dump is not JSON")
    }

    /// The address that the listener `name` got, or `None` while it has none.
    ///
    /// # Errors
    /// When Envoy does not answer, or not with JSON.
    pub async fn listener(&self, name: &str) -> Result<Option<SocketAddr>> {
        let text = self.get("/listeners?format=json").await?;
        let answer: Value = serde_json::from_str(&text).context("the listeners are not JSON")?;
        let mut all = answer["listener_statuses"].as_array().into_iter().flatten();
        let address = all
            .find(|listener| listener["name"] == name)
            .map(|listener| &listener["local_address"]["socket_address"]);
        Ok(address.and_then(|address| {
            let ip = address["address"].as_str()?.parse().ok()?;
            let port = u16::try_from(address["port_value"].as_u64()?).ok()?;
            Some(SocketAddr::new(ip, port))
        }))
    }

    /// How long a graceful drain goes on before the listeners close: Envoy's `--drain-time-s`.
    ///
    /// # Errors
    /// When Envoy does not answer, or with something else.
    pub async fn drain_time(&self) -> Result<Duration> {
        let text = self.get("/server_info").await?;
        let info: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} does not answer as Envoy does", self.address))?;
        let time = info["command_line_options"]["drain_time"].as_str();
        let seconds = time.and_then(|time| time.strip_suffix('s')?.parse().ok());
        let seconds = seconds.context("Envoy does not tell its drain time")?;
        Duration::try_from_secs_f64(seconds).context("Envoy's drain time is no time")
    }

    /// Begins to drain the listeners: connections are asked to close, ticks and calls go on.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn drain(&self) -> Result<()> {
        self.post("/drain_listeners?graceful").await.map(drop)
    }

    /// Ends Envoy, flushing nothing.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn quit(&self) -> Result<()> {
        self.post("/quitquitquit").await.map(drop)
    }

    async fn send(&self, method: Method, path: &str) -> Result<String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .body(Full::default())
            .context("not a path")?;
        let answer = async {
            let response = self.client.request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, body))
        };
        let (status, body) = tokio::time::timeout(ANSWER_MAX, answer)
            .await
            .with_context(|| format!("Envoy's admin page did not answer {path} in time"))?
            .with_context(|| format!("Envoy's admin page at {} is gone ({path})", self.address))?;
        let text = String::from_utf8_lossy(&body).into_owned();
        if status != 200 {
            bail!(
                "Envoy's admin page answered {status} to {path}: {}",
                text.trim()
            );
        }
        Ok(text)
    }
}

/// The host (without the brackets of an IPv6 address) and the port of an admin page's URL.
fn host_and_port(url: &str) -> Result<(String, u16)> {
    const EXPECTED: &str = "expected http://HOST:PORT, such as http://127.0.0.1:9901";
    let uri: Uri = url
        .parse()
        .with_context(|| format!("{url:?} is not a URL; {EXPECTED}"))?;
    let scheme = uri.scheme_str().unwrap_or("http");
    ensure!(
        scheme == "http",
        "{url}: Envoy's admin page speaks plain http, not {scheme}; {EXPECTED}"
    );
    let authority = uri
        .authority()
        .filter(|authority| !authority.host().is_empty())
        .with_context(|| format!("{url:?} names no host; {EXPECTED}"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    ensure!(
        matches!(path, "" | "/"),
        "{url}: {path} is not part of an admin page's address; {EXPECTED}"
    );
    let host = authority.host();
    // `Uri` takes any digits for a port, and has then none: that must not become the usual one.
    let port = match authority.as_str().strip_prefix(host) {
        Some("") => PORT,
        rest => rest
            .and_then(|rest| rest.strip_prefix(':')?.parse().ok())
            .filter(|port| *port > 0)
            .with_context(|| {
                format!("{url}: {authority} has no port from 1 to 65535; {EXPECTED}")
            })?,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), port))
}

/// A query parameter's value, percent-encoded wherever that might matter.
fn encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_pages_url_may_lack_its_scheme_and_its_port() {
        for (url, host, port) in [
            ("http://127.0.0.1:9902", "127.0.0.1", 9902),
            ("http://envoy.local/", "envoy.local", 9901),
            ("localhost:15000", "localhost", 15000),
            ("envoy", "envoy", 9901),
            ("http://[::1]:9901", "::1", 9901),
        ] {
            let found = host_and_port(url).expect(url);
            assert_eq!(found, (host.to_owned(), port), "{url}");
        }
    }

    #[test]
    fn what_is_no_admin_pages_url_is_refused_with_the_reason() {
        for (url, reason) in [
            ("https://127.0.0.1:9901", "plain http"),
            ("http://127.0.0.1:9901/stats", "/stats is not part"),
            ("http://127.0.0.1:99011", "no port from 1 to 65535"),
            ("http://127.0.0.1:0", "no port from 1 to 65535"),
            ("http://127.0.0.1:", "no port from 1 to 65535"),
            ("http://user@127.0.0.1", "no port from 1 to 65535"),
            ("/stats", "names no host"),
            ("not a url", "is not a URL"),
            ("", "is not a URL"),
        ] {
            let error = format!("{:#}", host_and_port(url).expect_err(url));
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn a_filter_survives_the_query_string() {
        assert_eq!(encoded("^a.b|c_d&e"), "%5Ea.b%7Cc_d%26e");
    }
}
