//! Envoy's admin page as a client.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::stats::Stats;

/// The main thread answers admin requests between other things; longer than this means that it
/// hangs.
const ANSWER_MAX: Duration = Duration::from_secs(10);

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
