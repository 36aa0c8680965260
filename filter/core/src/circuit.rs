//! The guest's view of the circuit breaker, and of what Laravel does not accept at the moment.
//!
//! The breaker itself is Envoy's outlier detection on the cluster of the batches; nobody tells the guest
//! what it has decided. A call that is refused on the spot means *open*. From then on one call at a time
//! probes, on a growing, capped schedule: the first that Envoy accepts makes the circuit *half-open*, and
//! Laravel's answer to it decides. A gateway's failure (502, 503, 504, a reset, a time-out) opens it again at
//! once, where Envoy itself would need three in a row. A 500 is Laravel's word about a row: it closes nothing
//! and opens nothing, and the next probe takes other rows. Anything else closes it.
//!
//! The leader writes all this to the store in one record, with its pace and the destinations that back off: its
//! successor resumes from it, reads that have to ask Laravel know, and a worker that sees Laravel accept
//! something tells a leader that waits for that.

use alloc::vec::Vec;

use crate::backoff::{Backoff, Rng};
use crate::config::BackoffRange;
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};

/// Longest wait between two probes that Envoy refuses on the spot: without any work, and this is what an end of
/// the outage waits for at most, after an ejection of three seconds.
const PROBE_MAX_MS: u64 = 1_000;

/// Longest wait after a probe that went out and failed.
const FAILED_MAX_MS: u64 = 2_000;

/// The same where the cluster does not exist; after so long without anything to probe with it may exist.
const MISCONFIGURED_MS: u64 = 5_000;

/// Version of the record, beside its golden bytes.
const VERSION: u8 = 1;

/// Troubles that the record has room for: the longest known first.
pub const TROUBLES_MAX: usize = 64;

/// Bytes of one trouble.
const TROUBLE_BYTES: usize = 41;

/// How often a worker writes that the same thing was accepted, milliseconds.
const REPORT_MS: u64 = 1_000;

/// The whole pace, in parts per million.
pub const WHOLE_PACE: u32 = 1_000_000;

/// Most items of the call that probes.
pub const PROBE_ITEMS_MAX: usize = 10;

/// What is known of the breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Calls go out.
    #[default]
    Closed,
    /// One call is out.
    HalfOpen,
    /// None goes out.
    Open,
    /// None can go out: the cluster does not exist.
    Misconfigured,
}

/// A destination, or a caller of one, of which the leader waits for a success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Keyed hash of cluster, authority and prefix.
    pub destination: u64,
    /// The caller that is refused there; `None` where the destination fails or is out.
    pub refused: Option<u64>,
    /// Failures in a row.
    pub failures: u32,
    /// Nothing is called before. Monotonic.
    pub until_ms: u64,
    /// Since when the outage, or the refusal, lasts; 0 where it only fails. Monotonic.
    pub since_ms: u64,
    /// When a worker saw an acceptance there last; 0 for never. Monotonic.
    pub accepted_ms: u64,
}

/// What is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What is known of the breaker.
    pub state: State,
    /// The share of the pace that Laravel's 429s have left, in parts per million.
    pub pace: u32,
    /// What the leader waits for.
    pub troubles: Vec<Trouble>,
}

/// The leader's circuit.
#[derive(Clone, Debug, Default)]
pub struct Circuit {
    state: State,
    /// Since when it has not been closed. Monotonic.
    since_ms: u64,
    /// The call that probes.
    probe: Option<u64>,
    /// Until the next probe.
    wait: Backoff,
    /// As it is in the store, but for what workers write there.
    published: Record,
    /// The cluster does not exist, and it was said.
    is_said: bool,
}

/// What may be called now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Anything.
    Open,
    /// One small call.
    Probe,
    /// Nothing.
    Shut,
}

// === impl State ===

impl State {
    /// The gauge.
    #[must_use]
    #[inline]
    pub fn gauge(self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
            Self::Misconfigured => 3,
        }
    }

    /// Laravel is not to be waited for.
    #[must_use]
    #[inline]
    pub fn is_down(self) -> bool {
        self != Self::Closed
    }

    /// As it is in the store; closed where it was never written.
    #[must_use]
    pub fn read(store: &impl Store, keys: &Keys) -> Self {
        Record::read(store, keys).state
    }

    #[inline]
    fn of_gauge(gauge: u8) -> Self {
        match gauge {
            1 => Self::HalfOpen,
            2 => Self::Open,
            3 => Self::Misconfigured,
            _ => Self::Closed,
        }
    }
}

// === impl Record ===

impl Default for Record {
    #[inline]
    fn default() -> Self {
        Self {
            state: State::Closed,
            pace: WHOLE_PACE,
            troubles: Vec::new(),
        }
    }
}

impl Record {
    /// As it is in the store; well where it was never written, or by somebody else.
    #[must_use]
    pub fn read(store: &impl Store, keys: &Keys) -> Self {
        let stored = store.get(&keys.circuit());
        let record = stored.and_then(|(bytes, _)| Self::decode(&bytes));
        record.unwrap_or_default()
    }

    /// Whether the leader waits for a success there, of this caller's request that began then; `None` for one that
    /// says nothing of callers.
    #[must_use]
    #[inline]
    pub fn awaits(&self, destination: u64, caller: Option<(u64, u64)>, mono_ms: u64) -> bool {
        let mut troubles = self.troubles.iter();
        troubles.any(|trouble| {
            trouble.is_of(destination, caller)
                && mono_ms >= trouble.accepted_ms.saturating_add(REPORT_MS)
        })
    }

    /// Laravel accepted something that did not go through the dispatcher: the leader is told, once a second at
    /// most. This worker's copy of the record says whether it waits for that.
    pub fn hear(
        &mut self,
        store: &mut impl Store,
        keys: &Keys,
        destination: u64,
        caller: Option<(u64, u64)>,
        mono_ms: u64,
    ) {
        if self.awaits(destination, caller, mono_ms) {
            Self::report(store, keys, destination, caller, mono_ms);
            self.mark(destination, caller, mono_ms);
        }
    }

    /// Writes that, where the leader still waits for it.
    pub fn report(
        store: &mut impl Store,
        keys: &Keys,
        destination: u64,
        caller: Option<(u64, u64)>,
        mono_ms: u64,
    ) {
        let key = keys.circuit();
        for _ in 0..CAS_ATTEMPTS_MAX {
            let read = store.get(&key);
            let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
            let Some(mut record) = Self::decode(bytes) else {
                return;
            };
            if !record.awaits(destination, caller, mono_ms) {
                return;
            }
            record.mark(destination, caller, mono_ms);
            match store.put(&key, &record.encode(), Expect::of(read.as_ref())) {
                Err(PutError::Mismatch) => {}
                Ok(()) | Err(PutError::Refused) => return,
            }
        }
    }

    #[inline]
    fn mark(&mut self, destination: u64, caller: Option<(u64, u64)>, mono_ms: u64) {
        let troubles = self.troubles.iter_mut();
        for trouble in troubles.filter(|t| t.is_of(destination, caller)) {
            trouble.accepted_ms = mono_ms;
        }
    }

    #[inline]
    fn encode(&self) -> Vec<u8> {
        let state = u8::try_from(self.state.gauge()).unwrap_or(0);
        let mut out = Vec::from([VERSION, state]);
        out.extend_from_slice(&self.pace.to_le_bytes());
        for trouble in self.troubles.iter().take(TROUBLES_MAX) {
            out.push(u8::from(trouble.refused.is_some()));
            for number in [
                trouble.destination,
                trouble.refused.unwrap_or(u64::from(trouble.failures)),
                trouble.until_ms,
                trouble.since_ms,
                trouble.accepted_ms,
            ] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Option<Self> {
        let ([VERSION, state], rest) = bytes.split_first_chunk::<2>()? else {
            return None;
        };
        let (pace, rest) = rest.split_first_chunk::<4>()?;
        let (troubles, []) = rest.as_chunks::<TROUBLE_BYTES>() else {
            return None;
        };
        Some(Self {
            state: State::of_gauge(*state),
            pace: u32::from_le_bytes(*pace).min(WHOLE_PACE),
            troubles: troubles.iter().filter_map(Trouble::decode).collect(),
        })
    }

    #[inline]
    fn find(&self, trouble: &Trouble) -> Option<&Trouble> {
        let mut troubles = self.troubles.iter();
        troubles.find(|known| {
            (known.destination, known.refused) == (trouble.destination, trouble.refused)
        })
    }

    /// What a leader wrote is the same, whatever workers wrote since.
    #[inline]
    fn is_same(&self, other: &Self) -> bool {
        let same = |(one, other): (&Trouble, &Trouble)| {
            let accepted_ms = one.accepted_ms;
            *one == Trouble {
                accepted_ms,
                ..*other
            }
        };
        (self.state, self.pace, self.troubles.len())
            == (other.state, other.pace, other.troubles.len())
            && self.troubles.iter().zip(&other.troubles).all(same)
    }
}

// === impl Trouble ===

impl Trouble {
    #[inline]
    fn is_of(&self, destination: u64, caller: Option<(u64, u64)>) -> bool {
        // What began before it was refused tells nothing of the time since.
        let is_its = |refused: u64| {
            caller.is_some_and(|(caller, began_ms)| caller == refused && began_ms >= self.since_ms)
        };
        self.destination == destination && self.refused.is_none_or(is_its)
    }

    #[inline]
    fn decode(bytes: &[u8; TROUBLE_BYTES]) -> Option<Self> {
        let (kind, numbers) = bytes.split_first()?;
        let (numbers, []) = numbers.as_chunks::<8>() else {
            return None;
        };
        let [destination, subject, until_ms, since_ms, accepted_ms] = numbers else {
            return None;
        };
        let subject = u64::from_le_bytes(*subject);
        Some(Self {
            destination: u64::from_le_bytes(*destination),
            refused: (*kind == 1).then_some(subject),
            failures: match kind {
                0 => u32::try_from(subject).unwrap_or(u32::MAX),
                _ => 1,
            },
            until_ms: u64::from_le_bytes(*until_ms),
            since_ms: u64::from_le_bytes(*since_ms),
            accepted_ms: u64::from_le_bytes(*accepted_ms),
        })
    }
}

// === impl Circuit ===

impl Circuit {
    /// For a new leader. A predecessor's probe may be under way: its claims count as one.
    #[must_use]
    pub fn resume(store: &impl Store, keys: &Keys, mono_ms: u64) -> Self {
        let published = Record::read(store, keys);
        Self {
            state: match published.state {
                State::HalfOpen => State::Open,
                known => known,
            },
            since_ms: mono_ms,
            published,
            ..Self::default()
        }
    }

    /// What was in the store when this leader began, or was written last.
    #[must_use]
    #[inline]
    pub fn record(&self) -> &Record {
        &self.published
    }

    /// What is known of the breaker.
    #[must_use]
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// What may be called.
    #[must_use]
    #[inline]
    pub fn gate(&self, mono_ms: u64) -> Gate {
        match self.state {
            State::Closed => Gate::Open,
            State::HalfOpen => Gate::Shut,
            State::Open | State::Misconfigured if self.wait.is_over(mono_ms) => Gate::Probe,
            State::Open | State::Misconfigured => Gate::Shut,
        }
    }

    // ## Open | Misconfigured => HalfOpen

    /// A call probes. Whether Envoy accepts it is known at once.
    #[inline]
    pub fn probes(&mut self, call: u64) {
        self.state = State::HalfOpen;
        self.probe = Some(call);
    }

    // ## (any) => Open | Misconfigured

    /// A call was refused on the spot. True where that is news.
    #[inline]
    pub fn refused(
        &mut self,
        state: State,
        range: &BackoffRange,
        rng: &mut Rng,
        mono_ms: u64,
    ) -> bool {
        let was_closed = self.state == State::Closed;
        if was_closed {
            self.since_ms = mono_ms;
        }
        let is_news = match state {
            State::Misconfigured => !core::mem::replace(&mut self.is_said, true),
            _ => was_closed,
        };
        let most_ms = match state {
            State::Misconfigured => MISCONFIGURED_MS,
            _ => PROBE_MAX_MS,
        };
        self.open(state, most_ms, range, rng, mono_ms);
        is_news
    }

    // ## Misconfigured => Open
    //
    // While the cluster does not exist, updates pass through, so there may be nothing to probe with: let the
    // next ones wait again.
    /// Called at each tick: nothing has probed although it was time.
    #[inline]
    pub fn has_nothing_to_probe_with(&mut self, mono_ms: u64) {
        let due_ms = mono_ms.saturating_sub(MISCONFIGURED_MS);
        if self.state == State::Misconfigured && self.wait.is_over(due_ms) {
            self.state = State::Open;
        }
    }

    /// The call that probes came too late to be made.
    #[inline]
    pub fn probe_was_late(&mut self, call: u64) {
        if self.probe.take_if(|probe| *probe == call).is_some() {
            self.state = State::Open;
        }
    }

    // ## HalfOpen => Closed | Open

    /// A call has ended. Only the one that probes counts; `None` for a 500. Gives how long it was open, where it
    /// is closed now, milliseconds.
    #[inline]
    pub fn ended(
        &mut self,
        call: u64,
        is_alive: Option<bool>,
        range: &BackoffRange,
        rng: &mut Rng,
        mono_ms: u64,
    ) -> Option<u64> {
        self.probe.take_if(|probe| *probe == call)?;
        match is_alive {
            Some(true) => {}
            Some(false) => {
                self.open(State::Open, FAILED_MAX_MS, range, rng, mono_ms);
                return None;
            }
            // The host is well, and this row is not: another row tells.
            None => {
                self.wait.succeed();
                self.open(State::Open, PROBE_MAX_MS, range, rng, mono_ms);
                return None;
            }
        }
        self.state = State::Closed;
        self.is_said = false;
        self.wait.succeed();
        Some(mono_ms.saturating_sub(self.since_ms))
    }

    #[inline]
    fn open(
        &mut self,
        state: State,
        most_ms: u64,
        range: &BackoffRange,
        rng: &mut Rng,
        mono_ms: u64,
    ) {
        self.state = state;
        self.probe = None;
        let range = BackoffRange {
            min_ms: range.min_ms.min(most_ms),
            max_ms: range.max_ms.min(most_ms),
        };
        self.wait.fail(&range, 0, rng, mono_ms);
    }

    /// Writes what has changed. One attempt more at the next tick if it loses all its races.
    pub fn publish(
        &mut self,
        pace: u32,
        mut troubles: Vec<Trouble>,
        store: &mut impl Store,
        keys: &Keys,
    ) {
        troubles.truncate(TROUBLES_MAX);
        let mut record = Record {
            state: self.state,
            pace,
            troubles,
        };
        let key = keys.circuit();
        for _ in 0..CAS_ATTEMPTS_MAX {
            if record.is_same(&self.published) {
                return;
            }
            let read = store.get(&key);
            let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
            let stored = Record::decode(bytes).unwrap_or_default();
            for trouble in &mut record.troubles {
                let known = stored.find(trouble);
                trouble.accepted_ms = known.map_or(0, |known| known.accepted_ms);
            }
            match store.put(&key, &record.encode(), Expect::of(read.as_ref())) {
                Ok(()) => {
                    // What was written there since it was asked for last is still to be reported.
                    for trouble in &mut record.troubles {
                        let known = self.published.find(trouble);
                        trouble.accepted_ms = known.map_or(0, |known| known.accepted_ms);
                    }
                    self.published = record;
                    return;
                }
                Err(PutError::Mismatch) => {}
                Err(PutError::Refused) => return,
            }
        }
    }

    /// What workers have reported since it was asked for last, while anything is waited for.
    pub fn reports(&mut self, store: &impl Store, keys: &Keys) -> Vec<Trouble> {
        if self.published.troubles.is_empty() {
            return Vec::new();
        }
        let stored = Record::read(store, keys);
        let mut reports = Vec::new();
        for known in &mut self.published.troubles {
            let found = stored.find(known);
            if let Some(found) = found.filter(|found| found.accepted_ms > known.accepted_ms) {
                known.accepted_ms = found.accepted_ms;
                reports.push(*found);
            }
        }
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    const RANGE: BackoffRange = BackoffRange {
        min_ms: 500,
        max_ms: 30_000,
    };

    #[test]
    fn one_probe_at_a_time_decides() {
        let (mut circuit, mut rng) = (Circuit::default(), Rng::new(1));
        assert_eq!(circuit.gate(0), Gate::Open);
        assert!(circuit.refused(State::Open, &RANGE, &mut rng, 1_000));
        assert!(
            !circuit.refused(State::Open, &RANGE, &mut rng, 1_000),
            "once"
        );
        assert_eq!(circuit.gate(1_000), Gate::Shut);
        assert_eq!(circuit.gate(7_000), Gate::Probe);
        circuit.probes(7);
        assert_eq!(circuit.gate(60_000), Gate::Shut, "and nothing beside it");
        assert_eq!(circuit.ended(3, Some(true), &RANGE, &mut rng, 8_000), None);
        assert_eq!(circuit.ended(7, Some(false), &RANGE, &mut rng, 8_000), None);
        assert_eq!(circuit.state(), State::Open);
        circuit.probes(8);
        assert_eq!(
            circuit.ended(8, Some(true), &RANGE, &mut rng, 9_000),
            Some(8_000)
        );
        assert_eq!(circuit.gate(9_000), Gate::Open);
    }

    #[test]
    fn a_500_closes_nothing_and_the_next_probe_comes_soon() {
        let (mut circuit, mut rng) = (Circuit::default(), Rng::new(1));
        for n in 0..10 {
            circuit.refused(State::Open, &RANGE, &mut rng, n);
        }
        circuit.probes(7);
        assert_eq!(circuit.ended(7, None, &RANGE, &mut rng, 8_000), None);
        assert_eq!(circuit.state(), State::Open);
        assert_eq!(circuit.gate(9_000), Gate::Probe, "with another row");
    }

    fn record() -> Record {
        Record {
            state: State::Open,
            pace: 250_000,
            troubles: Vec::from([
                Trouble {
                    destination: 0x1122_3344_5566_7788,
                    refused: None,
                    failures: 3,
                    until_ms: 9_000,
                    since_ms: 1_000,
                    accepted_ms: 0,
                },
                Trouble {
                    destination: 2,
                    refused: Some(7),
                    failures: 1,
                    until_ms: 500,
                    since_ms: 400,
                    accepted_ms: 0,
                },
            ]),
        }
    }

    /// A change of these bytes is a change of [`VERSION`].
    #[test]
    fn the_record_is_what_its_version_says() {
        let bytes = record().encode();
        let mut golden = Vec::from([1, 2, 0x90, 0xd0, 3, 0]);
        golden.extend_from_slice(&[0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        golden.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 0x28, 0x23, 0, 0, 0, 0, 0, 0]);
        golden.extend_from_slice(&[0xe8, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend_from_slice(&[1, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend_from_slice(&[0xf4, 1, 0, 0, 0, 0, 0, 0, 0x90, 1, 0, 0, 0, 0, 0, 0]);
        golden.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, golden);
        assert_eq!(Record::decode(&bytes), Some(record()));
    }

    #[test]
    fn a_record_that_is_none_of_ours_says_that_all_is_well() {
        for spoiled in [&b""[..], b"\x02", b"\x01\x02\x00", &[1; 50], &[9; 47]] {
            assert_eq!(Record::decode(spoiled), None, "{spoiled:?}");
        }
    }

    #[test]
    fn a_workers_success_reaches_the_leader_once_and_survives_its_writes() {
        let (mut store, keys) = (MemoryStore::default(), Keys::new("p"));
        let mut circuit = Circuit::default();
        let troubles = record().troubles;
        Record::report(&mut store, &keys, 2, Some((7, 5_000)), 5_000);
        assert!(store.get(&keys.circuit()).is_none(), "nobody waits for it");
        circuit.publish(WHOLE_PACE, troubles.clone(), &mut store, &keys);
        let read = Record::read(&store, &keys);
        assert!(
            read.awaits(2, Some((7, 5_000)), 5_000) && !read.awaits(2, Some((8, 5_000)), 5_000)
        );
        Record::report(&mut store, &keys, 2, Some((7, 5_000)), 5_000);
        assert!(
            !Record::read(&store, &keys).awaits(2, Some((7, 5_999)), 5_999),
            "once a second"
        );
        circuit.publish(WHOLE_PACE / 2, troubles, &mut store, &keys);
        let told = circuit.reports(&store, &keys);
        assert_eq!((told.len(), told[0].accepted_ms), (1, 5_000));
        assert!(circuit.reports(&store, &keys).is_empty(), "once");
    }

    #[test]
    fn probes_become_rarer_up_to_a_limit() {
        let (mut circuit, mut rng) = (Circuit::default(), Rng::new(1));
        for _ in 0..100 {
            circuit.refused(State::Open, &RANGE, &mut rng, 0);
            circuit.wait = Backoff::default();
        }
        for n in 0..20 {
            circuit.refused(State::Open, &RANGE, &mut rng, n * 10_000);
            assert_eq!(circuit.gate(n * 10_000 + PROBE_MAX_MS), Gate::Probe);
        }
    }

    #[test]
    fn a_successor_knows_and_takes_nothing_for_closed() {
        let (mut store, keys) = (MemoryStore::default(), Keys::new("p"));
        let (mut circuit, mut rng) = (Circuit::default(), Rng::new(1));
        assert_eq!(State::read(&store, &keys), State::Closed);
        circuit.refused(State::Open, &RANGE, &mut rng, 0);
        circuit.probes(1);
        circuit.publish(WHOLE_PACE, Vec::new(), &mut store, &keys);
        assert_eq!(State::read(&store, &keys), State::HalfOpen);
        let next = Circuit::resume(&store, &keys, 5);
        assert_eq!((next.state(), next.gate(5)), (State::Open, Gate::Probe));
    }
}
