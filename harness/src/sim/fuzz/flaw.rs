//! What must not be, whatever comes.

use std::fmt;

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// The VM is gone, be it by a panic, an endless loop or too many host calls.
    Traps,
    /// A callback takes too long.
    TakesTooLong,
    /// The VM takes too much memory.
    TakesTooMuchMemory,
    /// The log fills up.
    FloodsTheLog,
    /// A refused configuration is not explained.
    RefusesSilently,
    /// A request that came whole is neither answered nor passed on.
    HoldsARequest,
    /// Bad input is answered with an error of ours.
    AnswersWithAnError,
    /// An update was taken while no store could be read.
    TakesWhatItCannotStore,
    /// After all of it, nothing is delivered any more.
    DispatcherIsDead,
}

/// A flaw and how it shows.
#[derive(Clone, Debug)]
pub struct Found {
    /// What must not be.
    pub flaw: Flaw,
    /// How it shows.
    pub what: String,
}

// === impl Found ===

impl Found {
    pub(super) fn new(flaw: Flaw, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { flaw, what }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.flaw.text(), self.what)
    }
}

// === impl Flaw ===

impl Flaw {
    /// In words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Traps => "the VM traps",
            Self::TakesTooLong => "a callback takes too long",
            Self::TakesTooMuchMemory => "the VM takes too much memory",
            Self::FloodsTheLog => "the log fills up",
            Self::RefusesSilently => "a refused configuration is not explained",
            Self::HoldsARequest => "a request is held for ever",
            Self::AnswersWithAnError => "bad input is answered with an error",
            Self::TakesWhatItCannotStore => "an update is taken that cannot be stored",
            Self::DispatcherIsDead => "the dispatcher is dead",
        }
    }
}
