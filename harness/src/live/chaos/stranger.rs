//! Somebody who asks for other people's sessions.
//!
//! Somebody whose token is good, and whose header names a tenant that does not exist, asks, over and over, for the
//! state of a session of that name. Laravel says 404; Embudo has answers in its store, kept for the tenants that
//! have a session of that name.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Empty};
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::plan::TENANT_HEADER;
use crate::scenario::Scenario;

/// Often enough for some hundreds of questions in a run, and nothing beside the gateway's own.
const EVERY: Duration = Duration::from_millis(500);

/// As long as the gateway waits.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// What the answers were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// A state, which is never right. (A proxy's page is a 2xx, too.)
    pub(super) served: u64,
    /// 404.
    pub(super) refused: u64,
}

#[derive(Debug)]
pub(super) struct Stranger {
    client: Client<HttpConnector, Empty<Bytes>>,
    /// What is asked for.
    questions: Vec<Uri>,
    /// What every request of the gateway's has.
    headers: Vec<(String, String)>,
    pub(super) told: Told,
}

/// Whether a body says anything of a session.
fn is_a_state(body: &[u8]) -> bool {
    let json: Result<Value, _> = serde_json::from_slice(body);
    json.is_ok_and(|json| json.get("estado_qr").is_some())
}

// === impl Stranger ===

impl Stranger {
    pub(super) fn new(base_url: &str, scenario: &Scenario) -> Result<Self> {
        let question = |session: &str| -> Result<Uri> {
            Ok(format!("{base_url}/api/whatsapp/status/{session}").parse()?)
        };
        let identities = scenario.identities();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            questions: identities
                .iter()
                .map(|identity| question(&identity.session))
                .collect::<Result<_>>()?,
            headers: scenario.gateway.headers.clone(),
            told: Told::default(),
        })
    }

    /// Asks until it is dropped.
    pub(super) async fn ask(&mut self) -> Infallible {
        loop {
            for uri in &self.questions {
                sleep(EVERY).await;
                let mut request = Request::get(uri.clone())
                    .header("accept", "application/json")
                    .header(TENANT_HEADER, "nobody");
                for (name, value) in &self.headers {
                    request = request.header(name, value);
                }
                let request = request.body(Empty::new());
                let Ok(request) = request else { continue };
                let answer = timeout(ANSWER_MAX, self.client.request(request)).await;
                // No answer is none that should not have been given.
                if let Ok(Ok(answer)) = answer {
                    self.told.refused += u64::from(answer.status() == 404);
                    if answer.status().is_success() {
                        let body = timeout(ANSWER_MAX, answer.into_body().collect()).await;
                        let body = body.ok().and_then(Result::ok).map(Collected::to_bytes);
                        let is_told = body.is_some_and(|body| is_a_state(&body));
                        self.told.served += u64::from(is_told);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_apart_from_a_proxys_page() {
        assert!(is_a_state(br#"{"estado_qr":"active","status":"active"}"#));
        assert!(!is_a_state(b"<html>Under maintenance</html>"));
        assert!(!is_a_state(br#"{"error":"Account not found"}"#));
        assert!(!is_a_state(b""));
    }
}
