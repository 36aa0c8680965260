//! A request and a response as plain values.
//!
//! Header values are bytes, because a test that says "byte for byte" has to see a 0xFF that some
//! sender put there. Names are lower case, as HTTP/2 and hyper deliver them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One HTTP request, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Upper case, as on the wire.
    pub method: String,
    /// The path with its query string, as on the wire.
    pub path: String,
    /// In the order they came, names in lower case.
    pub headers: Vec<(String, Bytes)>,
    /// The body after transfer decoding.
    pub body: Bytes,
}

/// One HTTP response, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case; `content-length` is left to whoever writes it out.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// How many items were processed to make this answer: PHP's time depends on it.
    pub items: usize,
}

/// The two routes whose values Embudo collapses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// `POST …/qr`: the value is the QR string.
    Qr,
    /// `POST …/whatsapp/status`: the value is `estado_qr`.
    Status,
}

/// What requests are counted by, at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `GET …/whatsapp/status/{session_id}`
    GetStatus,
    /// `POST …/qr`
    PostQr,
    /// `POST …/whatsapp/status`
    PostStatus,
    /// `POST …/qr/batch`
    PostQrBatch,
    /// `POST …/whatsapp/status/batch`
    PostStatusBatch,
    /// Everything else.
    Other,
}

// === impl Request ===

impl Request {
    /// A request without headers and body.
    pub fn new(method: &str, path: impl Into<String>) -> Self {
        Self {
            method: method.to_owned(),
            path: path.into(),
            ..Self::default()
        }
    }

    /// The same request with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// The same request with a JSON body and the two headers a JSON client sends.
    #[must_use]
    pub fn with_json(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.with_header("content-type", "application/json")
            .with_header("accept", "application/json, text/plain, */*")
    }

    /// The first header of that name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

// === impl Response ===

impl Response {
    /// A JSON answer.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: Bytes::from(body.to_string()),
            items: 0,
        }
    }

    /// An HTML page, as Laravel and nginx answer those who did not ask for JSON.
    pub fn html(status: u16, title: &str) -> Self {
        Self {
            status,
            headers: vec![(
                "content-type".to_owned(),
                "text/html; charset=UTF-8".to_owned(),
            )],
            body: Bytes::from(format!(
                "<!DOCTYPE html><html><title>{title}</title></html>\n"
            )),
            items: 0,
        }
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }
}

// === impl Route ===

impl Route {
    /// The name the field uses: `qr` or `status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qr => "qr",
            Self::Status => "status",
        }
    }
}

// === impl Kind ===

impl Kind {
    /// Every kind, in the order reports show them.
    pub const ALL: [Self; 6] = [
        Self::GetStatus,
        Self::PostQr,
        Self::PostStatus,
        Self::PostQrBatch,
        Self::PostStatusBatch,
        Self::Other,
    ];

    /// A name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::GetStatus => "get status",
            Self::PostQr => "post qr",
            Self::PostStatus => "post status",
            Self::PostQrBatch => "post qr batch",
            Self::PostStatusBatch => "post status batch",
            Self::Other => "other",
        }
    }
}
