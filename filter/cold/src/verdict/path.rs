//! What is known of a path, and what an answer teaches of it.

use super::members::{object, raw};
use super::{Answer, Voice};

/// Members of a batch route's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Members(pub u8);

/// What is known of a route of a destination, and of its batch path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// [`Voice::Json`] or [`Voice::Text`], once the route has accepted something with a body.
    pub voice: Option<Voice>,
    /// Its batch path has taken a batch.
    pub took: bool,
    /// Its batch path has accepted with a body.
    pub had_body: bool,
    /// The members that its batch path's answers had.
    pub members: Members,
}

/// What an answer teaches of the path that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// How it speaks; `None` where it says nothing.
    pub voice: Option<Voice>,
    /// Which of the members it has.
    pub members: Members,
}

// === impl Members ===

impl Members {
    /// In the order of their bits.
    const NAMES: [&'static str; 3] = ["results", "processed", "success"];

    fn of(body: &[u8]) -> Self {
        let answer = object(body).unwrap_or_default();
        let bits = Self::NAMES.iter().enumerate();
        let bits = bits.map(|(at, name)| u8::from(raw(&answer, name).is_some()) << at);
        Self(bits.fold(0, |all, bit| all | bit))
    }

    /// Whether there is any.
    #[must_use]
    pub fn any(self) -> bool {
        self.0 != 0
    }

    /// Whether both have one.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

// === impl Path ===

impl Path {
    /// Whether Laravel may have said this with a status that decides about items. A redirect never does.
    pub(super) fn is_laravels(self, answer: &Answer<'_>) -> bool {
        if matches!(answer.status, Some(300..=399)) {
            return false;
        }
        // Cut off, and whose it was is not in what is left.
        answer.is_cut() || Voice::of(answer.body, self.voice) != Some(Voice::Foreign)
    }

    /// A single, or a request that was written through, was accepted with this. A route that has answered in text
    /// goes on doing so, whatever else it says.
    pub fn accepted(&mut self, heard: Heard) {
        let spoken = heard.voice.filter(|voice| *voice != Voice::Foreign);
        self.voice = self.voice.or(spoken);
    }

    /// What two know of it.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            voice: self.voice.or(other.voice),
            took: self.took || other.took,
            had_body: self.had_body || other.had_body,
            members: Members(self.members.0 | other.members.0),
        }
    }

    /// A batch was accepted with this.
    pub fn took(&mut self, heard: Heard) {
        self.took = true;
        self.had_body |= heard.voice.is_some();
        self.members = Members(self.members.0 | heard.members.0);
    }
}

// === impl Heard ===

impl Heard {
    /// What an answer teaches.
    #[must_use]
    pub fn of(answer: &Answer<'_>) -> Self {
        Self {
            voice: Voice::of(answer.body, None),
            members: Members::of(answer.body),
        }
    }
}
