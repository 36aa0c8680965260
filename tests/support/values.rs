//! Sessions, QR strings and bodies, as the gateway makes them.

use std::sync::atomic::{AtomicU64, Ordering};

use embudo::model::gateway::session_ids;
use serde_json::json;

/// Sessions differ between the tests of a process; there is no other reason for their ids.
static NEXT_SEED: AtomicU64 = AtomicU64::new(1);

/// As long as the gateway's.
const QR_CHARS: usize = 240;

/// A session that nobody else uses.
pub fn session() -> String {
    sessions(1).remove(0)
}

/// `n` sessions that nobody else uses.
pub fn sessions(n: usize) -> Vec<String> {
    session_ids(NEXT_SEED.fetch_add(1, Ordering::Relaxed), n)
}

/// A QR string of the usual length, another one for every label.
pub fn qr(label: impl std::fmt::Display) -> String {
    format!("{:x<QR_CHARS$}", format!("2@{label},"))
}

/// The body of `POST …/qr`.
pub fn qr_body(session: &str, qr: &str) -> String {
    json!({"session_id": session, "qr": qr}).to_string()
}

/// The body of `POST …/whatsapp/status`.
pub fn status_body(session: &str, value: &str) -> String {
    json!({"session_id": session, "estado_qr": value}).to_string()
}
