//! What the arms live through.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::model::http::Kind;
use crate::model::laravel::{Fault, Misbehaviour};

/// Beside a crowd whose sizes the caller chooses, these are for effects that few sessions show as well.
const OUTAGE_SESSIONS: usize = 200;
const POISON_SESSIONS: usize = 50;

/// A lone session twice as fast as in life has a QR every 10 s: more figures in a minute, and still none that
/// meets another in the 5 s of a batch.
const LONE_COMPRESSION: f64 = 2.0;

/// In trouble there should be several updates of each session.
const TROUBLE_COMPRESSION: f64 = 4.0;

/// How many calls hang while Laravel is slow: enough to see, and too few to keep all of its workers busy for
/// longer than `late_ms`.
const HANGING: f64 = 0.1;

/// A call that hangs takes effect so long after its caller has given it up.
const LATE_MS: u64 = 3_000;

/// A phase by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// One session, alone.
    Lone,
    /// Many sessions while nothing is wrong.
    Crowd,
    /// Laravel is slow with calls that hang and finish late, then well, then down while the gateway says its last:
    /// whoever keeps that must still have it when Laravel is back.
    Outage,
    /// A session whose updates Laravel's validation refuses, with their whole batch.
    Poison,
}

/// One phase.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    pub(super) name: Name,
    pub(super) sessions: usize,
    pub(super) lasts: Duration,
    pub(super) compression: f64,
    /// Whether its arms run one after the other, so that each has the machine for itself.
    pub(super) compares_cpu: bool,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides the traffic, the same for every arm.
    pub seed: u64,
    pub(super) phases: Vec<Phase>,
    /// How long a call to Laravel may take before its caller gives it up.
    pub(super) call_timeout_ms: u64,
    /// How long an arm may take to deliver the rest once its events are over.
    pub(super) settle_max: Duration,
}

// === impl Plan ===

impl Plan {
    /// The whole run: a crowd of this size for so long, a minute of a lone session and of poison, and 100 s with an
    /// outage.
    pub fn whole(sessions: usize, seconds: u64, seed: u64) -> Self {
        let phases = vec![
            Phase::new(Name::Crowd, sessions, seconds, 1.0).one_by_one(),
            Phase::new(Name::Lone, 1, 60, LONE_COMPRESSION),
            Phase::new(Name::Outage, OUTAGE_SESSIONS, 100, TROUBLE_COMPRESSION),
            Phase::new(Name::Poison, POISON_SESSIONS, 60, TROUBLE_COMPRESSION),
        ];
        Self {
            seed,
            phases,
            call_timeout_ms: 15_000,
            // A breaker that has just opened stays so for a minute.
            settle_max: Duration::from_secs(120),
        }
    }

    /// A quarter of a minute with everything in it: it shows what each arm does, and no figures to compare.
    pub fn short(seed: u64) -> Self {
        let phases = vec![
            Phase::new(Name::Crowd, 50, 10, TROUBLE_COMPRESSION),
            Phase::new(Name::Lone, 1, 10, 10.0),
            Phase::new(Name::Outage, 30, 10, 10.0),
            Phase::new(Name::Poison, 20, 10, TROUBLE_COMPRESSION),
        ];
        Self {
            seed,
            phases,
            call_timeout_ms: 1_000,
            settle_max: Duration::from_secs(15),
        }
    }

    /// Embudo's configuration: as shipped, but for what this run makes of a call's time.
    pub(super) fn filter_config(&self) -> Value {
        json!({"call_timeout_ms": self.call_timeout_ms, "late_ms": self.call_timeout_ms.max(LATE_MS)})
    }
}

// === impl Phase ===

impl Phase {
    fn new(name: Name, sessions: usize, seconds: u64, compression: f64) -> Self {
        Self {
            name,
            sessions,
            lasts: Duration::from_secs(seconds),
            compression,
            compares_cpu: false,
        }
    }

    fn one_by_one(self) -> Self {
        Self {
            compares_cpu: true,
            ..self
        }
    }

    /// When Laravel refuses connections, from the start of the events, and beyond their end.
    pub(super) fn down(&self) -> Option<Range<Duration>> {
        (self.name == Name::Outage).then(|| self.lasts * 7 / 10..self.lasts * 11 / 10)
    }

    /// What Laravel does wrong before that, on a clock that begins with the events.
    pub(super) fn faults(&self, call_timeout_ms: u64) -> Vec<Fault> {
        if self.name != Name::Outage {
            return Vec::new();
        }
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (from, to) = (ms(self.lasts / 5), ms(self.lasts * 2 / 5));
        let finish_after_ms = call_timeout_ms + LATE_MS;
        let hang = Misbehaviour::Hang { finish_after_ms };
        let slow = Misbehaviour::Slow { ms: 500 };
        // The first call of each kind hangs for certain: whoever makes few would else be spared by the dice.
        let first = |kind| Fault::always(hang.clone()).on(kind).times(1);
        let certain = Kind::POSTS.map(|kind| first(kind).between(from, to));
        let more = Fault::always(hang.clone()).with_probability(HANGING);
        let rest = [
            more.between(from, to),
            Fault::always(slow).between(from, to),
        ];
        certain.into_iter().chain(rest).collect()
    }

    /// Which session is poison.
    pub(super) fn poison(&self) -> Option<usize> {
        (self.name == Name::Poison).then_some(0)
    }
}

// === impl Name ===

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lone => "a lone session",
            Self::Crowd => "a crowd",
            Self::Outage => "an outage",
            Self::Poison => "a poison session",
        })
    }
}
