//! Laravel's route table, as far as the gateway knows it.

use crate::model::http::Kind;

/// Where a request leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint<'a> {
    Qr,
    Status,
    QrBatch,
    StatusBatch,
    ReadStatus(&'a str),
    Account(&'a str),
    ActiveAccounts,
    /// A message for a session.
    Message(&'a str),
    /// An account is deleted.
    Delete(&'a str),
    /// An account is logged out.
    LogOut(&'a str),
    /// A path that exists under another method; the methods it has.
    WrongMethod(&'static str),
    Unknown,
}

/// Which of the optional routes this Laravel has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batches {
    pub(super) qr: bool,
    pub(super) status: bool,
    /// Whether the single routes take a PUT as well.
    pub(super) puts: bool,
}

impl<'a> Endpoint<'a> {
    /// Matches as Laravel does: the path first, then the method.
    ///
    /// Where the status batch is missing, `whatsapp/status/batch` is still matched by
    /// `GET whatsapp/status/{session_id}`, so a POST to it is a 405 and not a 404. A client that
    /// takes only 404 for "no such route" would retry it for ever.
    pub(super) fn of(prefix: &str, batches: Batches, method: &str, path: &'a str) -> Self {
        let post = method == "POST";
        let get = matches!(method, "GET" | "HEAD");
        let Some(segments) = segments(prefix, path) else {
            return Self::Unknown;
        };
        match segments.as_slice() {
            // `Route::match(['post', 'put'])`, as some write it.
            ["qr"] if post || (batches.puts && method == "PUT") => Self::Qr,
            ["qr"] => Self::WrongMethod("POST"),
            ["qr", "batch"] if batches.qr && post => Self::QrBatch,
            ["qr", "batch"] if batches.qr => Self::WrongMethod("POST"),
            ["whatsapp", "status"] if post || (batches.puts && method == "PUT") => Self::Status,
            ["whatsapp", "status"] => Self::WrongMethod("POST"),
            ["whatsapp", "status", "batch"] if batches.status && post => Self::StatusBatch,
            ["whatsapp", "status", session] if get => Self::ReadStatus(session),
            ["whatsapp", "status", _] => Self::WrongMethod("GET, HEAD"),
            ["whatsapp", "account", session] if get => Self::Account(session),
            ["whatsapp", "account", session] if method == "DELETE" => Self::Delete(session),
            ["whatsapp", "account", _] => Self::WrongMethod("GET, HEAD"),
            ["whatsapp", "logout", session] if post => Self::LogOut(session),
            ["whatsapp", "accounts", "active"] if get => Self::ActiveAccounts,
            ["whatsapp", "accounts", "active"] => Self::WrongMethod("GET, HEAD"),
            ["whatsapp-webhook", session] if post => Self::Message(session),
            ["whatsapp-webhook", _] => Self::WrongMethod("POST"),
            _ => Self::Unknown,
        }
    }
}

/// What a request counts as. Unlike [`Endpoint::of`] it does not depend on which routes exist: a
/// batch that Laravel answers with 404 is a batch all the same.
pub fn kind(prefix: &str, method: &str, path: &str) -> Kind {
    let all = Batches {
        qr: true,
        status: true,
        puts: false,
    };
    match Endpoint::of(prefix, all, method, path) {
        Endpoint::Qr => Kind::PostQr,
        Endpoint::Status => Kind::PostStatus,
        Endpoint::QrBatch => Kind::PostQrBatch,
        Endpoint::StatusBatch => Kind::PostStatusBatch,
        Endpoint::ReadStatus(_) => Kind::GetStatus,
        _ => Kind::Other,
    }
}

/// The segments after the prefix. Laravel ignores the query string and slashes at the ends.
fn segments<'a>(prefix: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let path = path.split('?').next().unwrap_or_default();
    let rest = path.strip_prefix(prefix.trim_end_matches('/'))?;
    let rest = rest.strip_prefix('/')?;
    Some(rest.trim_end_matches('/').split('/').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Batches = Batches {
        qr: true,
        status: true,
        puts: false,
    };
    const NONE: Batches = Batches {
        qr: false,
        status: false,
        puts: false,
    };

    #[test]
    fn a_missing_status_batch_route_is_a_wrong_method_and_a_missing_qr_batch_route_is_unknown() {
        let status = Endpoint::of("/api", NONE, "POST", "/api/whatsapp/status/batch");
        assert_eq!(status, Endpoint::WrongMethod("GET, HEAD"));
        assert_eq!(
            Endpoint::of("/api", NONE, "POST", "/api/qr/batch"),
            Endpoint::Unknown
        );
    }

    #[test]
    fn a_query_string_and_a_trailing_slash_change_nothing() {
        assert_eq!(
            Endpoint::of("/api", BOTH, "POST", "/api/qr/?x=1"),
            Endpoint::Qr
        );
    }

    #[test]
    fn the_prefix_is_a_whole_segment() {
        assert_eq!(
            Endpoint::of("/api", BOTH, "POST", "/apiqr"),
            Endpoint::Unknown
        );
        assert_eq!(Endpoint::of("", BOTH, "POST", "/qr"), Endpoint::Qr);
    }

    #[test]
    fn a_batch_counts_as_a_batch_whether_or_not_the_route_exists() {
        assert_eq!(kind("/api", "POST", "/api/qr/batch"), Kind::PostQrBatch);
        assert_eq!(
            kind("/api", "GET", "/api/whatsapp/status/abc"),
            Kind::GetStatus
        );
    }
}
