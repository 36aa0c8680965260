//! 11. What arrives is what was answered: method, authority, path, and every header that Laravel could tell anything
//!     by.
//!
//! Which headers tell nothing is said here once more, by hand and for those that the simulated gateways send: whoever
//! reads the classes of the core would repeat their mistakes.

use super::answers::short;
use super::calls::{CallInfo, path_of};
use super::{Checker, Clock, Invariant};
use crate::model::http::Request;
use crate::sim::abi::Headers;
use crate::sim::host::HttpCall;

/// What each call has of its own.
const NEUTRAL: [&str; 8] = [
    "accept",
    "accept-encoding",
    "cache-control",
    "connection",
    "content-length",
    "host",
    "user-agent",
    "x-request-id",
];

/// A request, as far as it must arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    method: String,
    authority: String,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
}

// === impl Said ===

impl Said {
    pub(super) fn of(request: &Request) -> Self {
        let path = request.path.split('?').next().unwrap_or_default();
        let headers = request.headers.iter();
        Self {
            method: request.method.clone(),
            authority: request
                .authority()
                .unwrap_or(crate::sim::AUTHORITY)
                .to_owned(),
            path: path.to_owned(),
            headers: headers
                .filter(|(name, _)| !NEUTRAL.contains(&&**name))
                .map(|(name, value)| (name.clone(), value.to_vec()))
                .collect(),
        }
    }

    /// What a call lacks of it.
    fn lacks(&self, headers: &Headers, path: &str, is_batch: bool) -> Option<String> {
        let value_of = |wanted: &str| {
            let found = headers.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.as_slice())
        };
        let method = if is_batch { "POST" } else { &self.method };
        if value_of(":method") != Some(method.as_bytes()) {
            return Some(format!("its method, {method}"));
        }
        if value_of(":authority") != Some(self.authority.as_bytes()) {
            return Some(format!("its authority, {}", self.authority));
        }
        if path != self.path {
            return Some(format!("its path, {}", self.path));
        }
        let lacks = |(name, value): &&(String, Vec<u8>)| value_of(name) != Some(&value[..]);
        let (name, value) = self.headers.iter().find(lacks)?;
        Some(format!("{name}: {}", String::from_utf8_lossy(value)))
    }
}

// === impl Checker ===

impl Checker {
    // ## 11: faithful

    /// A call of the dispatcher's leaves.
    pub(super) fn is_faithful(&mut self, clock: Clock, info: &CallInfo, http: &HttpCall) {
        let whole = path_of(http).split('?').next().unwrap_or_default();
        let is_batch = !info.single;
        let path = whole.strip_suffix("/batch").unwrap_or(whole);
        let lacking = info.items.iter().find_map(|(id, route, seq)| {
            let update = self.sessions.get_mut(id)?.of_seq(*seq, route)?;
            let what = update.said.as_ref()?.lacks(&http.headers, path, is_batch)?;
            Some((short(&update.value).to_owned(), what))
        });
        if let Some((value, what)) = lacking {
            let what = format!("call {} has {value}, and lacks {what}", info.id);
            self.fail(clock.mono_us, Invariant::Faithful, what);
        }
    }

    /// A request goes on by itself.
    pub(super) fn goes_on_faithfully(
        &mut self,
        clock: Clock,
        name: &str,
        said: &Said,
        headers: &Headers,
    ) {
        let path = headers.iter().find(|(name, _)| name == ":path");
        let path = path.map_or("", |(_, path)| std::str::from_utf8(path).unwrap_or(""));
        let path = path.split('?').next().unwrap_or_default();
        if let Some(what) = said.lacks(headers, path, false) {
            let what = format!("{name} goes on, and lacks {what}");
            self.fail(clock.mono_us, Invariant::Faithful, what);
        }
    }
}
