//! The WhatsApp gateway, as far as Laravel can see it.
//!
//! Three parts, each a value without I/O, so that the live load and the simulation send the same
//! requests for the same seed:
//!
//! * [`Schedule`]: *when* something happens to a session: a QR, an expiry, a scan, a log-out.
//! * [`Flow`]: *which requests* that event makes, one after the other, each depending on the last
//!   one's answer.
//! * [`RetryPolicy`]: *how often* each of them is sent until it is answered or given up.
//!
//! Events of one session do not wait for each other: a flow that is still retrying when the next QR
//! comes goes on beside it. That is what Node does, and it is why a slow Laravel sees a load that
//! grows, and why order is not given.

mod caller;
mod flow;
mod retry;
mod schedule;

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::{
    caller::{Caller, Identity},
    flow::{Answer, EXPIRED, Flow, LOGGED_OUT, Outgoing, phone},
    retry::{Retries, RetryPolicy},
    schedule::{Event, GatewayConfig, Schedule, What},
};
use super::http::Request;

/// What axios sends with everything. Credentials come on top, where there are any.
const HEADERS: [(&str, &str); 2] = [
    ("accept", "application/json, text/plain, */*"),
    ("user-agent", "axios/1.7.9"),
];

/// Each session draws from its own stream of the seed; this one is for the session ids.
const ID_STREAM: u64 = u64::MAX;

/// The ids of the first `n` sessions of a seed: the accounts Laravel has to know.
pub fn session_ids(seed: u64, n: usize) -> Vec<String> {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    dice.set_stream(ID_STREAM);
    let id = |_| {
        let mut bytes = [0; 16];
        dice.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes)
            .into_uuid()
            .to_string()
    };
    (0..n).map(id).collect()
}

/// The token of a tenant: what a gateway that serves several has in its `authorization`.
pub fn token(tenant: usize) -> String {
    format!("tenant-{tenant}-token")
}

/// A request as axios makes it.
fn axios(method: &str, path: String, body: Option<String>) -> Request {
    let mut request = Request::new(method, path);
    for (name, value) in HEADERS {
        request = request.with_header(name, value);
    }
    if let Some(body) = body {
        request = request.with_header("content-type", "application/json");
        request.body = Bytes::from(body);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_for_a_seed_and_more_sessions_only_add_some() {
        let few = session_ids(1, 3);
        assert_eq!(session_ids(1, 5).get(..3), Some(&few[..]));
        assert_ne!(session_ids(2, 3), few);
        assert!(few.iter().all(|id| id.len() == 36));
    }
}
