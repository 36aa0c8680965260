//! The webhook: where updates go while Laravel is away.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::fields::Fields;
use super::parse::{check_header_name, is_path};
use super::rules::PATH_FORM;

/// Longest header that is added to each call, bytes. It stands in each item that goes to Laravel, with its length in 16
/// bits.
const HEADER_BYTES_MAX: usize = 4096;

/// Where updates go while Laravel takes none, and those that it never will.
#[derive(Clone, Debug)]
pub struct Fallback {
    /// Envoy cluster.
    pub cluster: String,
    /// `:authority` of its calls.
    pub authority: String,
    /// Path of its calls.
    pub path: String,
    /// Added to every call. Nothing of the callers' goes there.
    pub headers: Vec<(String, String)>,
    /// Calls to one destination that failed in a row before its items are handed over, whatever the circuit
    /// breaker says.
    pub after_attempts: u32,
}

/// `None` where an operator wants none.
pub(super) fn fallback(fields: &mut Fields<'_>) -> Option<Fallback> {
    // Read in any case, so that its name is among the known ones.
    let is_wanted = fields.has("fallback");
    let mut fields = fields.object("fallback");
    let cluster = fields.text("cluster");
    let authority = fields.text("authority");
    let path = fields.text("path").unwrap_or_else(|| "/webhook".to_owned());
    if !is_path(&path) {
        fields.report("path", PATH_FORM);
    }
    let headers = headers(&mut fields);
    let after_attempts = fields.whole("after_attempts", 5, 1..=1_000);
    fields.end();
    let cluster = cluster.unwrap_or_else(|| "webhook".to_owned());
    is_wanted.then(|| Fallback {
        authority: authority.unwrap_or_else(|| cluster.clone()),
        cluster,
        path,
        headers,
        after_attempts: u32::try_from(after_attempts).unwrap_or(u32::MAX),
    })
}

/// Headers that are added to calls.
pub(super) fn headers(fields: &mut Fields<'_>) -> Vec<(String, String)> {
    let headers = fields.pairs("headers");
    for (name, value) in &headers {
        if let Err(message) = check_header_name(name) {
            fields.report("headers", message);
        }
        let bytes = name.len().saturating_add(value.len());
        if bytes > HEADER_BYTES_MAX {
            let message = format!(
                "{name} and its value have at most {HEADER_BYTES_MAX} bytes, found {bytes}"
            );
            fields.report("headers", message);
        }
        if value.chars().any(char::is_control) {
            fields.report(
                "headers",
                format!("the value of {name} has a control character"),
            );
        }
    }
    headers
}
