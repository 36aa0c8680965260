//! One callback's lines.

use crate::OK;
use crate::abi::{self, Given};

/// Critical: written whatever Envoy's own level is.
const LEVEL: u32 = 5;

/// What differs from one run to the next, or is Envoy's own affair: not compared.
const LEFT_OUT: [&str; 13] = [
    ":authority",
    ":scheme",
    "content-length",
    "content-type",
    "date",
    "server",
    "transfer-encoding",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-upstream-service-time",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
    "connection",
];

/// The lines that a callback makes.
pub(crate) struct Report {
    case: String,
    callback: String,
    lines: Vec<String>,
}

/// A line goes into the log.
pub(crate) fn say(line: &str) {
    abi::log(LEVEL, line);
}

/// Text as it is, and what is none as numbers.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => format!("\"{text}\""),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// The properties that say what became of a request.
pub(crate) fn properties(to: &mut Report) {
    for path in [
        "response\0code_details",
        "upstream\0request_attempt_count",
        "response\0code",
    ] {
        to.given(&path.replace('\0', "."), &abi::property(path));
    }
    let local = abi::property("upstream\0local_address");
    to.value(
        "upstream.local_address",
        format!("{}/{}", local.status, local.bytes.is_some()),
    );
    to.given("request.path", &abi::property("request\0path"));
    to.given("none.such", &abi::property("none\0such"));
}

// === impl Report ===

impl Report {
    pub(crate) fn new(case: &str, callback: &str) -> Self {
        Self {
            case: case.to_owned(),
            callback: callback.to_owned(),
            lines: Vec::new(),
        }
    }

    pub(crate) fn case(&self) -> &str {
        &self.case
    }

    pub(crate) fn value(&mut self, what: &str, value: impl std::fmt::Display) {
        let Self { case, callback, .. } = &self;
        let line = format!("probe: {case} {callback} {what} -> {value}");
        self.lines.push(line);
    }

    pub(crate) fn status(&mut self, what: &str, status: u32) {
        self.value(what, status);
    }

    pub(crate) fn given(&mut self, what: &str, given: &Given) {
        let bytes = given.bytes.as_deref().map_or("null".to_owned(), shown);
        self.value(what, format!("{}/{bytes}", given.status));
    }

    /// A whole map, without what is left out, in the order of its names; those of one name in their own.
    pub(crate) fn pairs(&mut self, what: &str, given: &Given) {
        if given.status != OK {
            return self.given(what, given);
        }
        let bytes = given.bytes.as_deref().unwrap_or_default();
        let Some(mut pairs) = read(bytes).or_else(|| bytes.is_empty().then(Vec::new)) else {
            return self.value(what, "no map");
        };
        pairs.retain(|(name, _)| !LEFT_OUT.contains(&&*String::from_utf8_lossy(name)));
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{}={}", shown(name), shown(value)))
            .collect();
        self.value(what, pairs.join(", "));
    }

    pub(crate) fn lines(self) -> Vec<String> {
        self.lines
    }

    pub(crate) fn tell(self) {
        self.lines.iter().for_each(|line| say(line));
    }
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn read(mut bytes: &[u8]) -> Option<Pairs> {
    let mut number = || {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        bytes = rest;
        Some(u32::from_le_bytes(*head) as usize)
    };
    let count = number()?;
    let sizes: Option<Vec<(usize, usize)>> =
        (0..count).map(|_| Some((number()?, number()?))).collect();
    let mut text = |size: usize| {
        let (text, rest) = bytes.split_at_checked(size)?;
        bytes = rest.split_first()?.1;
        Some(text.to_vec())
    };
    sizes?
        .into_iter()
        .map(|(name, value)| Some((text(name)?, text(value)?)))
        .collect()
}
