//! A rule's path: fixed text, with at most one `{session}` segment.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

/// What stands for the session's name in a path.
const SEGMENT: &str = "{session}";

/// A path without its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    before: String,
    /// What follows the segment, where there is one.
    after: Option<String>,
}

// === impl Path ===

impl Path {
    /// Parses `/whatsapp/status/{session}`. `None` where a brace stands anywhere else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (before, after) = match text.split_once('{') {
            None => (text, None),
            Some((before, rest)) => (before, Some(rest.strip_prefix("session}")?)),
        };
        let whole_segment = after.is_none_or(|after| {
            before.ends_with('/') && (after.is_empty() || after.starts_with('/'))
        });
        let braces = |text: &str| text.contains(['{', '}']);
        let path = Self {
            before: before.to_owned(),
            after: after.map(ToOwned::to_owned),
        };
        (whole_segment && !braces(before) && !after.is_some_and(braces)).then_some(path)
    }

    /// Whether the path names a session.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.after.is_some()
    }

    /// The segment's text, empty for a path without one, if `path` is this path.
    #[must_use]
    pub fn fit<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        let rest = path.strip_prefix(self.before.as_bytes())?;
        let Some(after) = &self.after else {
            return rest.is_empty().then_some(rest);
        };
        let segment = rest.strip_suffix(after.as_bytes())?;
        (!segment.is_empty() && !segment.contains(&b'/')).then_some(segment)
    }

    /// The text of a path without a session.
    #[must_use]
    pub fn fixed(&self) -> &str {
        &self.before
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.before)?;
        match &self.after {
            Some(after) => write!(f, "{SEGMENT}{after}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_matched_whole_and_its_segment_is_one_segment() {
        let fixed = Path::parse("/qr").unwrap();
        assert_eq!(fixed.fit(b"/qr"), Some(&b""[..]));
        assert_eq!(fixed.fit(b"/qr/"), None);
        let one = Path::parse("/s/{session}/x").unwrap();
        assert_eq!(one.fit(b"/s/a%20b/x"), Some(&b"a%20b"[..]));
        for path in [&b"/s//x"[..], b"/s/a/b/x", b"/s/a", b"/t/a/x"] {
            assert_eq!(one.fit(path), None);
        }
        for bad in [
            "/{other}",
            "/a{session}",
            "/{session}b",
            "/{session}/{session}",
            "/a}/{session}",
            "/{session",
            "/{}",
        ] {
            assert_eq!(Path::parse(bad), None, "{bad}");
        }
    }
}
