//! What Envoy knows of a request's way: who answered it, and whether Laravel had it. The guest asks by
//! `get_property`.
//!
//! Each constructor is a row of what was measured on Envoy 1.40.0 and 1.36.4, in `on_http_response_headers`, `on_log`
//! and `on_done` alike.

/// Where Envoy's end of the connection to Laravel is. The guest asks only whether it is anywhere.
const LOCAL_ADDRESS: &str = "127.0.0.1:40000";

/// A stream's properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamFate {
    /// `response.code_details`: none until there is an answer, or an end.
    pub(crate) code_details: Option<String>,
    /// `response.code`: none where nobody was answered.
    pub(crate) code: Option<u16>,
    /// `upstream.request_attempt_count`.
    pub(crate) attempts: u64,
    /// Whether there is an `upstream.local_address`: a connection to Laravel stood.
    pub(crate) connected: bool,
}

// === impl StreamFate ===

impl StreamFate {
    fn of(code_details: &str, attempts: u64, connected: bool) -> Self {
        Self {
            code_details: Some(code_details.to_owned()),
            code: None,
            attempts,
            connected,
        }
    }

    /// The request is at Laravel.
    #[must_use]
    pub(crate) fn under_way() -> Self {
        Self {
            attempts: 1,
            connected: true,
            ..Self::default()
        }
    }

    /// Laravel answered, whatever it said; at its how manieth try.
    #[must_use]
    pub(crate) fn answered(attempts: u64) -> Self {
        Self::of("via_upstream", attempts, true)
    }

    /// Nothing listens.
    #[must_use]
    pub(crate) fn refused() -> Self {
        Self::of(
            "upstream_reset_before_response_started{remote_connection_failure|\
             delayed_connect_error:_Connection_refused}",
            1,
            false,
        )
    }

    /// The first try was taken, or lost, and the one after it refused: no connection shows the first.
    #[must_use]
    pub(crate) fn retried_and_refused() -> Self {
        Self {
            attempts: 2,
            ..Self::refused()
        }
    }

    /// The connection was lost once the request was out.
    #[must_use]
    pub(crate) fn lost() -> Self {
        Self::of(
            "upstream_reset_before_response_started{connection_termination}",
            1,
            true,
        )
    }

    /// What came back was no HTTP that Envoy reads.
    #[must_use]
    pub(crate) fn protocol_error() -> Self {
        Self::of(
            "upstream_reset_before_response_started{protocol_error}",
            1,
            true,
        )
    }

    /// Envoy's patience was over.
    #[must_use]
    pub(crate) fn timed_out() -> Self {
        Self::of("response_timeout", 1, true)
    }

    /// The answer broke off in its body.
    #[must_use]
    pub(crate) fn broken_off() -> Self {
        Self::of(
            "upstream_reset_after_response_started{connection_termination}",
            1,
            true,
        )
    }

    /// The caller has hung up: while it was held, or while Laravel worked.
    #[must_use]
    pub(crate) fn hung_up(sent: bool) -> Self {
        Self::of("downstream_remote_disconnect", u64::from(sent), sent)
    }

    /// The listener's drain is over, and Envoy has closed what connections were left.
    #[must_use]
    pub(crate) fn drained(sent: bool) -> Self {
        let details = "downstream_local_disconnect(filter_chain_is_being_removed)";
        Self::of(details, u64::from(sent), sent)
    }

    /// The route's `idle_timeout` was over while the request was held.
    #[must_use]
    pub(crate) fn idle() -> Self {
        Self::of("stream_idle_timeout", 0, false)
    }

    /// The guest's own answer: details there are, and they are empty.
    #[must_use]
    pub(crate) fn own(self) -> Self {
        Self {
            code_details: Some(String::new()),
            ..self
        }
    }

    pub(super) fn property(&self, head: &str, rest: &str) -> Option<Vec<u8>> {
        match (head, rest) {
            ("response", "code_details") => self.code_details.as_deref().map(Vec::from),
            ("response", "code") => self.code.map(|code| u64::from(code).to_le_bytes().into()),
            ("upstream", "request_attempt_count") => Some(self.attempts.to_le_bytes().into()),
            ("upstream", "local_address") => self.connected.then(|| LOCAL_ADDRESS.into()),
            _ => None,
        }
    }
}
