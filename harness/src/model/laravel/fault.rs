//! Faults: what Laravel may do instead of answering.
//!
//! A fault is a rule: which requests, what happens, how often, and when. The first rule that matches
//! and whose dice fall decides. The dice come from a seed, so that the *n*-th matching request of a
//! run meets the same fate in every run of that seed.
//!
//! Each fault says whether the request was *processed* all the same. The answers where the client
//! cannot know (a reset, a timeout, a 500 after the commit) are the ones that lose updates or let an
//! older one overtake, so a fault that never processes would test only half.

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::proxy::Proxy;
use super::throttle::RetryAfter;
use crate::model::http::{Kind, Request, Response};

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Which requests it strikes.
    #[serde(default)]
    pub matches: Matches,
    /// What happens to them.
    pub what: Misbehaviour,
    /// How likely a matching request is struck: 0 to 1.
    #[serde(default = "certain")]
    pub probability: f64,
    /// From when on, in ms of Laravel's clock.
    #[serde(default)]
    pub from_ms: u64,
    /// Until when, exclusive, in ms of Laravel's clock.
    #[serde(default = "forever")]
    pub to_ms: u64,
    /// How many requests it strikes at most; `None` is without limit.
    #[serde(default)]
    pub count: Option<u64>,
}

/// Which requests a fault strikes; what is `None` matches anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Matches {
    /// The method, upper case.
    pub method: Option<String>,
    /// The path without its query; `*` stands for any text, slashes included.
    pub path: Option<String>,
    /// The kind.
    pub kind: Option<Kind>,
}

/// What Laravel, or the nginx before it, does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Misbehaviour {
    /// Answers with this status.
    Status {
        /// The status code.
        code: u16,
        /// Headers of the answer.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// Body of the answer.
        #[serde(default)]
        body: String,
        /// Whether the request was processed before.
        #[serde(default)]
        processed: bool,
    },
    /// Answers 429 and says when to come back.
    Throttled {
        /// How long it wants to be left alone.
        retry_after_s: u64,
        /// How it says so.
        #[serde(default)]
        retry_after: RetryAfter,
    },
    /// Takes a batch, but not all of it, and says so item by item: one row was locked, another was not. On
    /// anything else it has no effect.
    Partly {
        /// Every so manieth item is not stored.
        one_in: u64,
        /// What the result of such an item says: a word such as `error`, or a status code.
        status: String,
    },
    /// A proxy answers in Laravel's stead.
    Proxy {
        /// Which, and what.
        says: Proxy,
        /// Whether the request was processed before.
        #[serde(default)]
        processed: bool,
    },
    /// Answers with a page, as a deploy, a firewall or a parking page does, or sends to one.
    Page {
        /// The status code.
        code: u16,
        /// Where a 3xx leads; the login where it does not say.
        #[serde(default)]
        location: Option<String>,
    },
    /// Answers as ever, with so many more header lines: a page full of debug headers.
    Headers {
        /// Lines.
        lines: usize,
    },
    /// Takes this much longer, and then answers as ever.
    Slow {
        /// Added to what the request costs anyway.
        ms: u64,
    },
    /// Never answers. The request is processed all the same, this long after it began.
    Hang {
        /// How long the worker is busy with it.
        finish_after_ms: u64,
    },
    /// Answers, and breaks the connection in the middle.
    Reset {
        /// How much of the body is sent before; 0 closes without even a status line.
        after_bytes: usize,
        /// Whether the request was processed before.
        #[serde(default)]
        processed: bool,
    },
}

/// The rules in force, with their dice.
#[derive(Clone, Debug)]
pub struct Faults {
    rules: Vec<(Fault, u64)>,
    dice: ChaCha8Rng,
}

fn certain() -> f64 {
    1.0
}

fn forever() -> u64 {
    u64::MAX
}

// === impl Fault ===

impl Fault {
    /// Strikes every request, always.
    pub fn always(what: Misbehaviour) -> Self {
        let matches = Matches::default();
        Self {
            matches,
            what,
            probability: 1.0,
            from_ms: 0,
            to_ms: u64::MAX,
            count: None,
        }
    }

    /// The same fault on one kind of request only.
    #[must_use]
    pub fn on(mut self, kind: Kind) -> Self {
        self.matches.kind = Some(kind);
        self
    }

    /// The same fault on the paths that match the glob only.
    #[must_use]
    pub fn on_path(mut self, glob: &str) -> Self {
        self.matches.path = Some(glob.to_owned());
        self
    }

    /// The same fault for the next `n` matching requests only.
    #[must_use]
    pub fn times(mut self, n: u64) -> Self {
        self.count = Some(n);
        self
    }

    /// The same fault with this probability.
    #[must_use]
    pub fn with_probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    /// The same fault within this window of Laravel's clock, the end excluded.
    #[must_use]
    pub fn between(mut self, from_ms: u64, to_ms: u64) -> Self {
        (self.from_ms, self.to_ms) = (from_ms, to_ms);
        self
    }

    /// The same fault, its window this much later.
    #[must_use]
    pub fn later(&self, by_ms: u64) -> Self {
        let from_ms = self.from_ms.saturating_add(by_ms);
        let to_ms = self.to_ms.saturating_add(by_ms);
        self.clone().between(from_ms, to_ms)
    }
}

// === impl Misbehaviour ===

impl Misbehaviour {
    /// A status as Laravel, or the nginx before it, gives it to those who want JSON; nothing was processed.
    pub fn status(code: u16) -> Self {
        let message = match code {
            302 | 413 => return Self::page(code),
            401 => "Unauthenticated.",
            403 => "This action is unauthorized.",
            404 => "The route could not be found.",
            405 => "The POST method is not supported for this route.",
            419 => "CSRF token mismatch.",
            422 => "The given data was invalid.",
            _ => "Server Error",
        };
        Self::Status {
            code,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: serde_json::json!({ "message": message }).to_string(),
            processed: false,
        }
    }

    /// A page: with 200 what a catch-all route gives to everybody, with 302 the way to the login.
    pub fn page(code: u16) -> Self {
        let page = page(code, None);
        Self::Status {
            code,
            headers: page.headers,
            body: PAGE.to_owned(),
            processed: false,
        }
    }

    /// A proxy's answer to what Laravel never had.
    pub fn proxy(says: Proxy) -> Self {
        Self::Proxy {
            says,
            processed: false,
        }
    }

    /// `throttle:api`'s answer.
    pub fn throttled(retry_after_s: u64) -> Self {
        Self::Throttled {
            retry_after_s,
            retry_after: RetryAfter::Seconds,
        }
    }
}

// === impl Matches ===

impl Matches {
    fn hits(&self, kind: Kind, request: &Request) -> bool {
        let path = request.path.split('?').next().unwrap_or_default();
        self.kind.is_none_or(|wanted| wanted == kind)
            && self
                .method
                .as_ref()
                .is_none_or(|method| *method == request.method)
            && self.path.as_ref().is_none_or(|pattern| glob(pattern, path))
    }
}

/// `*` stands for any text. The first piece is anchored at the start and the last at the end; each
/// piece between takes its first occurrence, which is enough where `*` is the only wildcard.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = text.find(piece) else {
            return false;
        };
        text = text.get(at + piece.len()..).unwrap_or_default();
    }
    text.ends_with(last)
}

// === impl Faults ===

impl Faults {
    /// Rules in the order they are tried, and the seed of their dice.
    pub fn new(seed: u64, rules: Vec<Fault>) -> Self {
        let rules = rules.into_iter().map(|rule| (rule, 0)).collect();
        Self {
            rules,
            dice: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// What happens to this request, if anything does.
    pub fn strike(&mut self, now_ms: u64, kind: Kind, request: &Request) -> Option<Misbehaviour> {
        for (fault, struck) in &mut self.rules {
            let in_time = (fault.from_ms..fault.to_ms).contains(&now_ms);
            let left = fault.count.is_none_or(|count| *struck < count);
            if !in_time || !left || !fault.matches.hits(kind, request) {
                continue;
            }
            if self.dice.random_bool(fault.probability.clamp(0.0, 1.0)) {
                *struck += 1;
                return Some(fault.what.clone());
            }
        }
        None
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::new(0, Vec::new())
    }
}

/// What a page has in it.
const PAGE: &str = "<!DOCTYPE html><html><title>Laravel</title></html>\n";

/// A page, or the way to one.
pub(super) fn page(code: u16, location: Option<&str>) -> Response {
    let page = Response {
        body: body(PAGE),
        ..Response::html(code, "")
    };
    match code {
        300..400 => page.with_header("location", location.unwrap_or("/login")),
        _ => page,
    }
}

/// The body of a status fault as bytes.
pub(super) fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strikes(faults: &mut Faults, n: usize) -> Vec<bool> {
        let request = Request::new("POST", "/api/qr");
        (0..n)
            .map(|_| faults.strike(0, Kind::PostQr, &request).is_some())
            .collect()
    }

    #[test]
    fn a_glob_matches_what_a_reader_expects() {
        for (pattern, text, hit) in [
            ("/api/qr", "/api/qr", true),
            ("/api/qr", "/api/qr/batch", false),
            ("*/batch", "/api/qr/batch", true),
            ("/api/*/batch", "/api/whatsapp/status/batch", true),
            ("/api/*", "/app/qr", false),
            ("*", "", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(glob(pattern, text), hit, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_counted_fault_ends() {
        let mut faults = Faults::new(1, vec![Fault::always(Misbehaviour::status(500)).times(2)]);
        assert_eq!(strikes(&mut faults, 4), [true, true, false, false]);
    }

    #[test]
    fn a_seed_repeats_its_fate_and_another_seed_does_not() {
        let rule = Fault::always(Misbehaviour::status(500)).with_probability(0.5);
        let run = |seed| strikes(&mut Faults::new(seed, vec![rule.clone()]), 64);
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn a_fault_keeps_to_its_window() {
        let rule = Fault::always(Misbehaviour::status(500)).between(10, 20);
        let mut faults = Faults::new(1, vec![rule]);
        let request = Request::new("GET", "/");
        let mut at = |now| faults.strike(now, Kind::Other, &request).is_some();
        assert_eq!([at(9), at(10), at(19), at(20)], [false, true, true, false]);
    }
}
