//! The guest's view of the circuit breaker.
//!
//! The breaker itself is Envoy's outlier detection on the cluster of the batches; nobody tells the guest
//! what it has decided. A call that is refused on the spot means *open*. From then on one call at a time
//! probes, on a growing, capped schedule: the first that Envoy accepts makes the circuit *half-open*, and
//! Laravel's answer to it decides. Anything but a 5xx closes it; a 5xx, or none, opens it again at once,
//! where Envoy itself would need three in a row.
//!
//! The leader writes it to the store, so that its successor, and reads that have to ask Laravel, know.

use alloc::vec::Vec;

use crate::backoff::{Backoff, Rng};
use crate::config::BackoffRange;
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};

/// Longest wait between two probes: Envoy refuses them without any work, and this is what an end of the
/// outage waits for at most.
const PROBE_MAX_MS: u64 = 5_000;

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
    /// As it is in the store.
    published: State,
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
    pub fn is_down(self) -> bool {
        self != Self::Closed
    }

    /// As it is in the store; closed where it was never written.
    #[must_use]
    pub fn read(store: &impl Store, keys: &Keys) -> Self {
        let stored = store.get(&keys.circuit());
        match stored.as_ref().and_then(|(bytes, _)| bytes.first()) {
            Some(1) => Self::HalfOpen,
            Some(2) => Self::Open,
            Some(3) => Self::Misconfigured,
            _ => Self::Closed,
        }
    }
}

// === impl Circuit ===

impl Circuit {
    /// For a new leader. A predecessor's probe may be under way: its claims count as one.
    #[must_use]
    pub fn resume(store: &impl Store, keys: &Keys, mono_ms: u64) -> Self {
        let published = State::read(store, keys);
        Self {
            state: match published {
                State::HalfOpen => State::Open,
                known => known,
            },
            since_ms: mono_ms,
            published,
            ..Self::default()
        }
    }

    /// What is known of the breaker.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// What may be called.
    #[must_use]
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
    pub fn probes(&mut self, call: u64) {
        self.state = State::HalfOpen;
        self.probe = Some(call);
    }

    // ## (any) => Open | Misconfigured

    /// A call was refused on the spot. True where that is news.
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
        self.open(state, range, rng, mono_ms);
        is_news
    }

    // ## Misconfigured => Open
    //
    // While the cluster does not exist, updates pass through, so there may be nothing to probe with: let the
    // next ones wait again.
    /// Called at each tick: nothing has probed although it was time.
    pub fn has_nothing_to_probe_with(&mut self, mono_ms: u64) {
        let due_ms = mono_ms.saturating_sub(PROBE_MAX_MS);
        if self.state == State::Misconfigured && self.wait.is_over(due_ms) {
            self.state = State::Open;
        }
    }

    /// The call that probes came too late to be made.
    pub fn probe_was_late(&mut self, call: u64) {
        if self.probe.take_if(|probe| *probe == call).is_some() {
            self.state = State::Open;
        }
    }

    // ## HalfOpen => Closed | Open

    /// A call has ended. Only the one that probes counts. Gives how long it was open, where it is closed now,
    /// milliseconds.
    pub fn ended(
        &mut self,
        call: u64,
        is_alive: bool,
        range: &BackoffRange,
        rng: &mut Rng,
        mono_ms: u64,
    ) -> Option<u64> {
        self.probe.take_if(|probe| *probe == call)?;
        if !is_alive {
            self.open(State::Open, range, rng, mono_ms);
            return None;
        }
        self.state = State::Closed;
        self.is_said = false;
        self.wait.succeed();
        Some(mono_ms.saturating_sub(self.since_ms))
    }

    fn open(&mut self, state: State, range: &BackoffRange, rng: &mut Rng, mono_ms: u64) {
        self.state = state;
        self.probe = None;
        let range = BackoffRange {
            min_ms: range.min_ms.min(PROBE_MAX_MS),
            max_ms: range.max_ms.min(PROBE_MAX_MS),
        };
        self.wait.fail(&range, 0, rng, mono_ms);
    }

    /// Writes what has changed. One attempt more at the next tick if it loses all its races.
    pub fn publish(&mut self, store: &mut impl Store, keys: &Keys) {
        let key = keys.circuit();
        for _ in 0..CAS_ATTEMPTS_MAX {
            if self.state == self.published {
                return;
            }
            let read = store.get(&key);
            let value: Vec<u8> = Vec::from([u8::try_from(self.state.gauge()).unwrap_or(0)]);
            match store.put(&key, &value, Expect::of(read.as_ref())) {
                Ok(()) => self.published = self.state,
                Err(PutError::Mismatch) => {}
                Err(PutError::Refused) => return,
            }
        }
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
        assert_eq!(circuit.ended(3, true, &RANGE, &mut rng, 8_000), None);
        assert_eq!(circuit.ended(7, false, &RANGE, &mut rng, 8_000), None);
        assert_eq!(circuit.state(), State::Open);
        circuit.probes(8);
        assert_eq!(circuit.ended(8, true, &RANGE, &mut rng, 9_000), Some(8_000));
        assert_eq!(circuit.gate(9_000), Gate::Open);
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
        circuit.publish(&mut store, &keys);
        assert_eq!(State::read(&store, &keys), State::HalfOpen);
        let next = Circuit::resume(&store, &keys, 5);
        assert_eq!((next.state(), next.gate(5)), (State::Open, Gate::Probe));
    }
}
