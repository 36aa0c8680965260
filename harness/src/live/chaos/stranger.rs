//! Somebody who asks for other people's sessions.
//!
//! A tenant whose token is good asks, over and over, for the state of a session of the other tenant's. Laravel
//! says 403; Embudo has the answer in its store, kept for the session's own tenant.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{sleep, timeout};

use crate::model::gateway::session_ids;
use crate::scenario::Scenario;

/// Often enough for some hundreds of questions in a run, and nothing beside the gateway's own.
const EVERY: Duration = Duration::from_millis(500);

/// As long as the gateway waits.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// What the answers were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// 2xx, which is never right.
    pub(super) served: u64,
    /// 403.
    pub(super) refused: u64,
}

#[derive(Debug)]
pub(super) struct Stranger {
    client: Client<HttpConnector, Empty<Bytes>>,
    /// What is asked for, and the token of somebody else.
    questions: Vec<(Uri, String)>,
    pub(super) told: Told,
}

// === impl Stranger ===

impl Stranger {
    pub(super) fn new(base_url: &str, scenario: &Scenario) -> Result<Self> {
        let ids = session_ids(scenario.seed, scenario.sessions);
        let question = |(index, session): (usize, String)| {
            let uri = format!("{base_url}/api/whatsapp/status/{session}").parse()?;
            // Neighbours are never of one tenant.
            Ok((uri, scenario.authorization(index + 1).unwrap_or_default()))
        };
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            questions: ids
                .into_iter()
                .enumerate()
                .map(question)
                .collect::<Result<_>>()?,
            told: Told::default(),
        })
    }

    /// Asks until it is dropped.
    pub(super) async fn ask(&mut self) -> Infallible {
        loop {
            for (uri, token) in &self.questions {
                sleep(EVERY).await;
                let request = Request::get(uri.clone())
                    .header("accept", "application/json")
                    .header("authorization", token)
                    .body(Empty::new());
                let Ok(request) = request else { continue };
                let answer = timeout(ANSWER_MAX, self.client.request(request)).await;
                // No answer is none that should not have been given.
                if let Ok(Ok(answer)) = answer {
                    self.told.served += u64::from(answer.status().is_success());
                    self.told.refused += u64::from(answer.status() == 403);
                }
            }
        }
    }
}
