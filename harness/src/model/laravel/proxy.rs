//! What a proxy before Laravel says in Laravel's stead.
//!
//! The texts and codes are those that were seen on the real ones. To whoever calls through another Envoy they
//! come with a service time, as if Laravel had spoken: only the voice gives them away. Whether Laravel has done
//! the work all the same is the proxy's secret, so a fault that uses these says it by itself.

use serde::{Deserialize, Serialize};

use crate::model::http::Response;

/// Envoy's own text for a connection that could not be made.
pub const ENVOY_REFUSED: &str = "upstream connect error or disconnect/reset before headers. reset reason: \
     remote connection failure, transport failure reason: delayed connect error: Connection refused";

/// ... for one that was lost before the answer.
pub const ENVOY_LOST: &str = "upstream connect error or disconnect/reset before headers. reset reason: \
     connection termination";

/// ... for a request that took too long.
pub const ENVOY_TIMEOUT: &str = "upstream request timeout";

/// What an Envoy answers that has no room for another request.
pub const ENVOY_OVERLOADED: &str = "envoy overloaded";

/// ... after a retry: it tells of the last try only.
pub const ENVOY_RETRIED: &str = "upstream connect error or disconnect/reset before headers. retried and the \
     latest reset reason: remote connection failure, transport failure reason: delayed connect error: \
     Connection refused";

/// ... for what is no HTTP, or has too many headers.
pub const ENVOY_PROTOCOL: &str = "upstream connect error or disconnect/reset before headers. reset reason: \
     protocol error";

/// ... for HTTP/2's REFUSED_STREAM, and a GOAWAY below the stream.
pub const ENVOY_REFUSED_STREAM: &str = "upstream connect error or disconnect/reset before headers. reset \
     reason: remote refused stream reset";

/// Who says what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proxy {
    /// An Envoy that cannot connect.
    EnvoyRefused,
    /// An Envoy whose connection was lost.
    EnvoyLost,
    /// An Envoy whose patience is over.
    EnvoyTimeout,
    /// An Envoy that tried twice.
    EnvoyRetried,
    /// An Envoy without a healthy host.
    EnvoyNoHost,
    /// An Envoy whose circuit breaker is open.
    EnvoyOverflow,
    /// An Envoy that cannot read the answer.
    EnvoyProtocol,
    /// An Envoy that stops new requests.
    EnvoyOverloaded,
    /// An Envoy whose policy lets nobody through.
    EnvoyDenied,
    /// nginx, with this status: its own page.
    Nginx(u16),
    /// A CDN, with this status: its own page.
    Cloudflare(u16),
}

// === impl Proxy ===

impl Proxy {
    /// Its answer.
    pub fn response(self) -> Response {
        let envoy = |status, text: &str| Response {
            status,
            headers: vec![
                ("content-type".to_owned(), "text/plain".to_owned()),
                ("server".to_owned(), "envoy".to_owned()),
            ],
            body: text.to_owned().into(),
            items: 0,
        };
        match self {
            Self::EnvoyRefused => envoy(503, ENVOY_REFUSED),
            Self::EnvoyLost => envoy(503, ENVOY_LOST),
            Self::EnvoyTimeout => envoy(504, ENVOY_TIMEOUT),
            Self::EnvoyRetried => envoy(503, ENVOY_RETRIED),
            Self::EnvoyNoHost => envoy(503, "no healthy upstream"),
            Self::EnvoyOverflow => envoy(
                503,
                "upstream connect error or disconnect/reset before headers. reset reason: overflow",
            ),
            Self::EnvoyProtocol => envoy(502, ENVOY_PROTOCOL),
            Self::EnvoyOverloaded => envoy(503, ENVOY_OVERLOADED),
            Self::EnvoyDenied => envoy(403, "RBAC: access denied"),
            Self::Nginx(status) => page(status, nginx_reason(status), "nginx"),
            Self::Cloudflare(status) => {
                page(status, "Web server is returning an error", "cloudflare")
            }
        }
    }
}

fn page(status: u16, reason: &str, server: &str) -> Response {
    let page = format!(
        "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n<center><h1>{status} {reason}\
         </h1></center>\r\n<hr><center>{server}</center>\r\n</body>\r\n</html>\r\n"
    );
    Response {
        status,
        headers: vec![
            ("content-type".to_owned(), "text/html".to_owned()),
            ("server".to_owned(), server.to_owned()),
        ],
        body: page.into(),
        items: 0,
    }
}

fn nginx_reason(status: u16) -> &'static str {
    match status {
        403 => "Forbidden",
        404 => "Not Found",
        413 => "Request Entity Too Large",
        429 => "Too Many Requests",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        _ => "Error",
    }
}
