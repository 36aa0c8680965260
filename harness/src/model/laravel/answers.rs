//! The answers that have nothing to do with updates.

use serde_json::json;

use super::{Account, input};
use crate::model::http::{Request, Response};

/// `GET …/whatsapp/account/{session_id}`
pub(super) fn account(session: &str, account: Option<&Account>) -> Response {
    match account {
        Some(Account { estado_qr, .. }) => Response::json(
            200,
            &json!({ "session_id": session, "estado_qr": estado_qr }),
        ),
        None => unknown_account(),
    }
}

/// A message cannot be sent: its session is not up.
pub(super) fn not_active() -> Response {
    let body = json!({ "success": false, "message": "The session is not active." });
    Response::json(409, &body)
}

/// `POST …/whatsapp-webhook/{token}`: says what arrived, so that the sender can compare.
pub(super) fn webhook(body: &[u8]) -> Response {
    let body = json!({ "success": true, "length": body.len(), "digest": digest(body) });
    Response::json(200, &body)
}

/// No such account.
pub(super) fn unknown_account() -> Response {
    Response::json(404, &json!({ "error": "Account not found" }))
}

/// No such route.
pub(super) fn not_found(request: &Request) -> Response {
    if !input::wants_json(request) {
        return Response::html(404, "Not Found");
    }
    let path = request
        .path
        .split('?')
        .next()
        .unwrap_or_default()
        .trim_start_matches('/');
    let message = format!("The route {path} could not be found.");
    Response::json(404, &json!({ "message": message }))
}

/// The route exists under other methods.
pub(super) fn wrong_method(request: &Request, allow: &str) -> Response {
    if !input::wants_json(request) {
        return Response::html(405, "Method Not Allowed").with_header("allow", allow);
    }
    let path = request
        .path
        .split('?')
        .next()
        .unwrap_or_default()
        .trim_start_matches('/');
    let method = &request.method;
    let message = format!(
        "The {method} method is not supported for route {path}. Supported methods: {allow}."
    );
    Response::json(405, &json!({ "message": message })).with_header("allow", allow)
}

/// FNV-1a, 64 bit, in hex: tells two bodies apart without a crate and without any claim to more.
pub fn digest(body: &[u8]) -> String {
    let hash = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}
