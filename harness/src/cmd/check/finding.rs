//! Something that is wrong with a configuration, or dangerous.

use std::fmt;

/// One of them, with its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// Where, as in `static_resources.clusters[1]`; empty for the whole.
    pub(super) place: String,
    pub(super) message: String,
}

/// How bad it is; the worse one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Embudo would not work.
    Error,
    /// It would work until something goes wrong.
    Warning,
}

// === impl Finding ===

impl Finding {
    pub(super) fn error(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place: place.into(),
            message: message.into(),
        }
    }

    pub(super) fn warning(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            place: place.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        match self.place.as_str() {
            "" => write!(f, "{severity}: {}", self.message),
            place => write!(f, "{severity}: {place}: {}", self.message),
        }
    }
}
