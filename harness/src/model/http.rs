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

    /// Whom it is for: HTTP/2's `:authority`, else `host`.
    pub fn authority(&self) -> Option<&str> {
        self.header(":authority").or_else(|| self.header("host"))
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

/// A moment as HTTP writes it, `Fri, 31 Dec 1999 23:59:59 GMT`; to the second, rounded up, so that whoever
/// waits until then has waited long enough.
pub fn http_date(unix_ms: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = unix_ms.div_ceil(1000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, so that the day that may be missing is the last; 400 of them are 146 097 days.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let name = |names: &[&'static str], at: u64| names[usize::try_from(at).unwrap_or(0)];
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        name(&DAYS, days % 7),
        name(&MONTHS, month),
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
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
    /// The routes that Embudo takes over: what "POSTs" are in every figure.
    pub const POSTS: [Self; 4] = [
        Self::PostQr,
        Self::PostStatus,
        Self::PostQrBatch,
        Self::PostStatusBatch,
    ];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_http_writes_it() {
        for (unix_ms, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (946_684_799_000, "Fri, 31 Dec 1999 23:59:59 GMT"),
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_709_164_800_000, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_709_251_200_000, "Fri, 01 Mar 2024 00:00:00 GMT"),
            (1_714_521_599_001, "Wed, 01 May 2024 00:00:00 GMT"),
        ] {
            assert_eq!(http_date(unix_ms), date, "{unix_ms}");
        }
    }
}
