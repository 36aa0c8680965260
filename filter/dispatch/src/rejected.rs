//! What Laravel refused for good: the last of them, and a line for each.
//!
//! An item that is dropped is lost data, whoever is to blame, so an operator is told each time, with what Laravel
//! said. It may have said back what it was sent: what looks like a token is left out, and what came in the headers of
//! the item's caller.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;

use super::{Effect, Level};

/// Rejections that are remembered.
pub const REJECTIONS_MAX: usize = 32;

/// Bytes of an answer that are kept.
const EXCERPT_BYTES: usize = 200;

/// As long as this, a run of letters and digits is no word.
const WORD_MAX: usize = 24;

/// As short as this, a word that is in a header too says nothing of it.
const SHORT_MAX: usize = 3;

/// An item that Laravel refused for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The route's name.
    pub route: Rc<str>,
    /// The keyed hash of its session.
    pub session: u128,
    /// Laravel's status.
    pub status: u16,
    /// How its answer begins.
    pub excerpt: Rc<str>,
}

/// The last of them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Rejections {
    last: VecDeque<Rejection>,
}

// === impl Rejections ===

impl Rejections {
    pub(super) fn push(&mut self, rejection: Rejection) -> Effect {
        let Rejection {
            route,
            session,
            status,
            excerpt,
        } = &rejection;
        // As much of the hash as a person compares.
        let session = *session as u64;
        let line = format!(
            "{route}: Laravel refused an item of session {session:016x} for good (status {status}): {excerpt}"
        );
        if self.last.len() >= REJECTIONS_MAX {
            self.last.pop_front();
        }
        self.last.push_back(rejection);
        Effect::Log(Level::Warn, line)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rejection> {
        self.last.iter()
    }
}

/// The beginning of an answer, without what looks like a token, the long words, and without the words that the encoded
/// destination has: the headers are in it.
pub(super) fn excerpt(body: &[u8], destination: &[u8]) -> Rc<str> {
    let body = body.get(..EXCERPT_BYTES).unwrap_or(body);
    let text = String::from_utf8_lossy(body);
    let mut out = String::with_capacity(text.len());
    let is_of_word =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-' | '.' | '~');
    for part in text.split_inclusive(|c: char| !is_of_word(c)) {
        let word = part.trim_end_matches(|c: char| !is_of_word(c));
        let rest = part.get(word.len()..).unwrap_or_default();
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_told = |bare: &str| {
            let mut all = destination.windows(bare.len().max(1));
            bare.len() > SHORT_MAX && all.any(|one| one == bare.as_bytes())
        };
        let is_secret = word.len() >= WORD_MAX || is_told(bare);
        out.push_str(if is_secret { "…" } else { word });
        out.extend(rest.chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_has_no_token() {
        let body = "{\"message\":\"no session for\n Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9\"}";
        assert_eq!(
            &*excerpt(body.as_bytes(), b""),
            "{\"message\":\"no session for  Bearer …\"}"
        );
        assert!(excerpt(&[b' '; 5_000], b"").len() <= EXCERPT_BYTES);
        assert_eq!(&*excerpt(&[b'x'; 5_000], b""), "…");
        assert!(!excerpt(b"\xff\xfe", b"").is_empty());
    }

    #[test]
    fn an_excerpt_has_nothing_that_came_in_a_header() {
        let destination = b"\0laravel.test\0x-api-key\x06k-2009\0cookie\x10session=pa55word";
        let body = r#"{"message":"not k-2009.","more":["pa55word","k-20 of a key"]}"#;
        assert_eq!(
            &*excerpt(body.as_bytes(), destination),
            r#"{"message":"not …","more":["…","… of a key"]}"#
        );
    }

    #[test]
    fn the_last_ones_are_kept_and_each_is_a_line() {
        let mut all = Rejections::default();
        for n in 0..40_u16 {
            let line = all.push(Rejection {
                route: "qr".into(),
                session: u128::from(n),
                status: 404,
                excerpt: "{}".into(),
            });
            assert!(matches!(line, Effect::Log(Level::Warn, _)));
        }
        let sessions: alloc::vec::Vec<u128> = all.iter().map(|r| r.session).collect();
        assert_eq!((sessions.len(), sessions[0]), (REJECTIONS_MAX, 8));
    }
}
