//! The checker: what must hold, looked at after every step where it can be.
//!
//! It does not ask the guest. It sees what the host sees (every write of shared data, every call, every
//! answer, both ends of Laravel), keeps its own history of what was accepted, and holds one against the
//! other. Where it reads a shard it decodes it with `embudo_core`, and judges it by rules of its own.
//!
//! # Layout
//! * `history`: what was accepted of each session, and what became of it.
//! * `shard`, `entry`, `claim`: one write of a shard, as the transitions it is made of.
//! * `calls`: calls, from their claims to Laravel's end.
//! * `faithful`: whether what arrives is what was answered.
//! * `fallback`: what the webhook is told.
//! * `answers`: what the gateway is told.
//! * `held`: what callers are told that were kept waiting.
//! * `reads`: what readers are shown.
//! * `trust`: credentials.
//! * `lease`: who leads.
//! * `others`: batches of the gateway's own, and requests of other routes.
//! * `end`: what must hold once everything has come to rest.
//! * `coverage`: which transitions were seen.

mod answers;
mod calls;
mod claim;
mod coverage;
mod end;
mod entry;
mod fair;
mod faithful;
mod fallback;
mod held;
mod history;
mod lease;
mod others;
mod reads;
mod shard;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use embudo_core::config::Config;
use embudo_core::hash::HashKey;
use embudo_core::route::Rules;
use embudo_core::shard::Shard;
use serde::Serialize;

use self::answers::Stream;
pub(super) use self::calls::CallEnd;
use self::calls::CallInfo;
pub use self::coverage::{Coverage, Transition};
use self::fair::Traffic;
pub(super) use self::fallback::Fallback;
use self::fallback::Handover;
use self::history::History;
use self::lease::Lease;
use self::reads::Served;
pub(super) use self::reads::{ReadLimits, Said, Shown, dress, reader_of, token_of};
use self::trust::Standing;
use super::host::{Callback, Clock};

/// What must hold: the numbers are those of the design's invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// 1. Every update that was taken has an end, and the ledger balances.
    NothingIsLost,
    /// 1. One update is one write, whole, and every write is a transition that the record knows.
    EveryWriteIsATransition,
    /// 2. Calls of one session start in the order of acceptance.
    NeverOlderAfterNewer,
    /// 2. Laravel never works on two calls of one session.
    NeverTwoAtOnce,
    /// 2. A claim is respected until it is settled or has run out.
    AClaimIsRespected,
    /// 2. A call leaves within its window.
    ACallLeavesInTime,
    /// 3. What is answered `duplicate` or `implied` is delivered or pending.
    OnlyDuplicatesCollapse,
    /// 4. Everything has a limit.
    Bounded,
    /// 5. Nobody sends, is answered or reads as another caller.
    CallersNeverMix,
    /// 6. One leader.
    OneLeader,
    /// 7. A circuit that is not closed lets one small call through at a time.
    HalfOpenMeansOne,
    /// 8. The guest never traps.
    NeverTraps,
    /// 9. What was accepted is settled in time.
    Liveness,
    /// 10. No read shows an older state than the caller was told of.
    ReadsSeeWrites,
    /// An item is handed over to the webhook once, as far as anybody can know.
    HandedOverOnce,
    /// The webhook is told what was accepted, in a form that it can read.
    TheWebhookIsTold,
    /// The end: Laravel has what the gateway said last.
    LaravelEndsOnTheLast,
    /// 11. What arrives has the method, the authority, the path and the headers of the request that was answered.
    Faithful,
    /// 12. Nothing is queued for whom Laravel has not accepted.
    Proof,
    /// 13. A row that throws holds up nobody else.
    Isolation,
    /// 14. After a proxy's answers, whatever was answered 200 arrives.
    AProxyLosesNothing,
    /// 15. Laravel gets no more requests than the gateway sent, but for probes and repeats.
    NeverMore,
    /// 16. No read shows what Laravel never said of that state.
    OnlyWhatWasSaid,
    /// 17. What is held is let go.
    HeldIsLetGo,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Monotonic µs.
    pub at_us: u64,
    /// What does not hold.
    pub invariant: Invariant,
    /// How it shows.
    pub what: String,
}

/// Whose host call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Actor {
    /// The VM.
    pub vm: u32,
    /// Its thread.
    pub thread: usize,
    /// What it was called for.
    pub callback: Callback,
}

/// The checker of one run.
#[derive(Debug)]
pub(super) struct Checker {
    /// What was seen of the record's transitions.
    pub coverage: Coverage,
    failures: Vec<Failure>,
    /// Judges nothing: somebody else writes into the store too.
    deaf: bool,
    config: Config,
    rules: Option<Rules>,
    sessions: BTreeMap<u128, History>,
    /// Streams under way.
    streams: BTreeMap<u64, Stream>,
    /// What Laravel answered to reads, by the read that it was given to.
    served: BTreeMap<u64, Served>,
    limits: ReadLimits,
    /// How Laravel answers reads.
    shown: Shown,
    /// The state that another route has set last, by the session's name.
    panel: BTreeMap<String, String>,
    /// Sessions whose account was made, or removed.
    changed: BTreeSet<String>,
    /// The hosts that updates are for.
    hosts: BTreeSet<String>,
    /// Sessions by their names, each with the hosts that its own updates are for.
    hosts_of: BTreeSet<(String, String)>,
    /// By credential.
    standing: BTreeMap<String, Standing>,
    /// Routes of which Laravel has accepted something.
    proven_routes: BTreeSet<String>,
    /// When VMs looked at proofs, µs.
    looks: BTreeMap<u32, Vec<u64>>,
    calls: BTreeMap<u64, CallInfo>,
    fallback: Fallback,
    handovers: BTreeMap<u64, Handover>,
    /// The newest timestamp that the webhook has heard of a session.
    heard: BTreeMap<String, u64>,
    last_call: u64,
    /// When calls left, for the pace; µs.
    departures: [Vec<u64>; 2],
    /// VMs whose calls Envoy refuses.
    open_circuits: BTreeSet<u32>,
    /// What the store says of the circuit.
    circuit_is_closed: bool,
    /// It says that something backs off, or is refused; and when it said so last, µs.
    is_troubled: bool,
    troubled_us: u64,
    lease: Lease,
    leader_vm: Option<u32>,
    /// When the present epoch began, µs.
    led_since_us: u64,
    traffic: Traffic,
    /// Lost races of the callback that a VM has under way.
    races: BTreeMap<u32, (Callback, u32)>,
}

/// Failures that are kept; the first is the one that counts.
const FAILURES_MAX: usize = 16;

/// Where shards are.
const SHARDS: &str = "embudo/embudo/s/";
const PROOFS: &str = "embudo/embudo/proof/";
const LAYOUT: &str = "embudo/embudo/layout";
const CIRCUIT: &str = "embudo/embudo/circuit";
const LEASE: &str = "embudo/embudo/lease";

// === impl Checker ===

impl Checker {
    /// Of a Laravel that answers reads like this.
    #[must_use]
    pub(super) fn with_shown(mut self, shown: Shown) -> Self {
        self.shown = shown;
        self
    }

    /// A checker for a process with this configuration.
    #[must_use]
    pub(super) fn new(config: Config, limits: ReadLimits) -> Self {
        Self {
            coverage: Coverage::default(),
            failures: Vec::new(),
            deaf: false,
            config,
            rules: None,
            sessions: BTreeMap::new(),
            streams: BTreeMap::new(),
            served: BTreeMap::new(),
            limits,
            shown: Shown::default(),
            panel: BTreeMap::new(),
            changed: BTreeSet::new(),
            hosts: BTreeSet::new(),
            hosts_of: BTreeSet::new(),
            standing: BTreeMap::new(),
            proven_routes: BTreeSet::new(),
            looks: BTreeMap::new(),
            calls: BTreeMap::new(),
            fallback: Fallback::default(),
            handovers: BTreeMap::new(),
            heard: BTreeMap::new(),
            last_call: 0,
            departures: [Vec::new(), Vec::new()],
            open_circuits: BTreeSet::new(),
            circuit_is_closed: true,
            is_troubled: false,
            troubled_us: 0,
            lease: Lease::default(),
            leader_vm: None,
            led_since_us: 0,
            traffic: Traffic::default(),
            races: BTreeMap::new(),
        }
    }

    /// The same, for a configuration with this fallback.
    #[must_use]
    pub(super) fn with_fallback(self, fallback: Fallback) -> Self {
        Self { fallback, ..self }
    }

    /// One that judges nothing, for a process whose store somebody else writes too.
    #[must_use]
    pub(crate) fn deaf(config: Config) -> Self {
        Self {
            deaf: true,
            ..Self::new(config, ReadLimits::of(&serde_json::Value::Null))
        }
    }

    /// The first thing that does not hold.
    #[must_use]
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failures.first()
    }

    /// The VM that won the lease last.
    #[must_use]
    pub(super) fn leader_vm(&self) -> Option<u32> {
        self.leader_vm
    }

    /// Updates that were accepted.
    #[must_use]
    pub(super) fn accepted(&self) -> u64 {
        let all = self.sessions.values().map(|history| history.accepted.len());
        all.sum::<usize>() as u64
    }

    pub(super) fn fail(&mut self, at_us: u64, invariant: Invariant, what: impl Into<String>) {
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(Failure {
                at_us,
                invariant,
                what: what.into(),
            });
        }
    }

    /// A VM trapped that was not meant to.
    pub(super) fn trapped(&mut self, at_us: u64, what: &str) {
        self.fail(at_us, Invariant::NeverTraps, what);
    }

    pub(super) fn logged(&mut self, _: Actor, _: u32, _: &str) {}

    /// A value was read.
    pub(super) fn got(&mut self, clock: Clock, actor: Actor, key: &str, value: Option<&Arc<[u8]>>) {
        if self.deaf {
            return;
        }
        let bytes = value.map_or(&[][..], |value| value);
        match (actor.callback, key.starts_with(SHARDS)) {
            (Callback::Stream(stream), true) => self.others_look(clock, key, bytes, Some(stream)),
            (Callback::Tick, true) => self.others_look(clock, key, bytes, None),
            _ => {}
        }
        if let (Callback::Stream(stream), true) = (actor.callback, key.starts_with(SHARDS)) {
            self.stream_reads(clock, actor.vm, stream);
        }
        if let (Callback::Tick, true) = (actor.callback, key.starts_with(PROOFS)) {
            self.looks(clock, actor.vm);
        }
    }

    /// A value was written.
    pub(super) fn put(
        &mut self,
        clock: Clock,
        actor: Actor,
        key: &str,
        before: &[u8],
        after: &[u8],
    ) {
        if self.deaf {
            return;
        }
        self.races.remove(&actor.vm);
        if key == LAYOUT {
            self.layout(clock, after);
        } else if key == LEASE {
            self.lease_changes(clock, actor, before, after);
        } else if key == CIRCUIT {
            self.circuit_changes(after);
            self.circuit_is_known(clock, after);
        } else if key.starts_with(SHARDS) {
            self.shard_changes(clock, actor, key, before, after);
        }
    }

    // ## 4: bounded
    //
    // A race that is lost again and again means that something else is wrong.
    pub(super) fn lost_race(&mut self, actor: Actor, key: &str) {
        if self.deaf {
            return;
        }
        self.coverage.count(Transition::LostRace);
        let races = self.races.entry(actor.vm).or_insert((actor.callback, 0));
        if races.0 != actor.callback {
            *races = (actor.callback, 0);
        }
        races.1 += 1;
        if races.1 > embudo_core::store::CAS_ATTEMPTS_MAX {
            let what = format!("{} races for {key} lost in one callback", races.1);
            self.fail(0, Invariant::Bounded, what);
        }
    }

    /// The layout gives the key of all hashes: 4 bytes of version, 4 of shards, 16 of key.
    fn layout(&mut self, clock: Clock, bytes: &[u8]) {
        let key = bytes.get(8..24).and_then(|key| key.try_into().ok());
        let shards = bytes.get(4..8).and_then(|n| n.try_into().ok());
        let (Some(key), Some(shards)) = (key, shards.map(u32::from_le_bytes)) else {
            return self.fail(
                clock.mono_us,
                Invariant::EveryWriteIsATransition,
                "the layout is none",
            );
        };
        if self.rules.is_some() {
            self.fail(
                clock.mono_us,
                Invariant::EveryWriteIsATransition,
                "the layout was written twice",
            );
        }
        let mut config = self.config.clone();
        config.shards = shards;
        self.rules = Some(Rules {
            config,
            key: HashKey::from_bytes(key),
        });
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at_us,
            invariant,
            what,
        } = self;
        write!(f, "{} at {} ms: {what}", invariant.name(), at_us / 1000)
    }
}

// === impl Invariant ===

impl Invariant {
    /// The name in a failure.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NothingIsLost => "nothing_is_lost",
            Self::EveryWriteIsATransition => "every_write_is_a_transition",
            Self::NeverOlderAfterNewer => "never_older_after_newer",
            Self::NeverTwoAtOnce => "never_two_at_once",
            Self::AClaimIsRespected => "a_claim_is_respected",
            Self::ACallLeavesInTime => "a_call_leaves_in_time",
            Self::OnlyDuplicatesCollapse => "only_duplicates_collapse",
            Self::Bounded => "bounded",
            Self::CallersNeverMix => "callers_never_mix",
            Self::OneLeader => "one_leader",
            Self::HalfOpenMeansOne => "half_open_means_one",
            Self::NeverTraps => "never_traps",
            Self::Liveness => "liveness",
            Self::ReadsSeeWrites => "reads_see_writes",
            Self::HandedOverOnce => "handed_over_once",
            Self::TheWebhookIsTold => "the_webhook_is_told",
            Self::LaravelEndsOnTheLast => "laravel_ends_on_the_last",
            Self::Faithful => "faithful",
            Self::Proof => "proof",
            Self::Isolation => "isolation",
            Self::AProxyLosesNothing => "a_proxy_loses_nothing",
            Self::NeverMore => "never_more",
            Self::OnlyWhatWasSaid => "only_what_was_said",
            Self::HeldIsLetGo => "held_is_let_go",
        }
    }
}

/// A value for the trace: a shard in words.
#[must_use]
pub(super) fn describe(key: &str, value: &[u8]) -> String {
    match Shard::decode(value) {
        Ok(shard) if key.starts_with(SHARDS) => shard::describe(&shard),
        _ if key == LEASE => lease::describe(value),
        _ => format!("{} bytes", value.len()),
    }
}
