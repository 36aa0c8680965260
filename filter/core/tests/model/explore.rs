//! Breadth first through every state that can be reached, and from each of them to a good end.
//!
//! Safety is checked at every step. Liveness is checked as this: wherever the world is, if from then on
//! everybody does his work and Laravel is well, then everything that was accepted ends, and Laravel ends
//! on what the gateway wants. That world is deterministic, so one pointer a state is enough, and a
//! circle of pointers is a record that is stuck.

use super::action::Action;
use super::state::{Leader, Request, State, Worker};
use super::step::{Broken, Outcomes, Protocol};

/// No state: the first has no parent, and a good end has nothing to do.
const NONE: u32 = u32::MAX;

/// A run that has met this many states gives up: the model has been made too large.
const STATES_MAX: usize = 60_000_000;

/// What was found.
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) steps: u64,
    pub(crate) records: usize,
    /// How often each action of [`Action::all`] was possible.
    pub(crate) taken: Vec<(Action, u64)>,
    pub(crate) counterexample: Option<Counterexample>,
    /// Every state, packed.
    pub(crate) keys: Vec<u128>,
}

/// The shortest way to a broken rule.
pub(crate) struct Counterexample {
    pub(crate) broken: Broken,
    pub(crate) path: Vec<u128>,
}

/// States by number, in the order in which they were met.
#[derive(Default)]
struct Seen {
    keys: Vec<u128>,
    parents: Vec<u32>,
    /// Open addressing, linear probing; a power of two, at most half full.
    slots: Vec<u32>,
}

/// Explores everything that `offers` updates can lead to.
pub(crate) fn explore(protocol: &mut Protocol, offers: u8) -> Found {
    let differ = protocol.actors_differ();
    let actions = Action::all(protocol.grain);
    let healthy = Action::healthy().len();
    let mut taken: Vec<_> = actions.iter().map(|action| (*action, 0)).collect();
    let mut seen = Seen::default();
    let mut onward = Vec::new();
    let mut broken = None;
    let mut steps = 0;
    seen.meet(State::first(offers).pack(differ), NONE);

    let mut at = 0;
    'all: while at < seen.keys.len() {
        assert!(seen.keys.len() < STATES_MAX, "the model is too large");
        let number = u32::try_from(at).expect("few states");
        let state = State::unpack(seen.keys[at]);
        let mut next_if_well = NONE;
        let done = is_done(protocol, &state);
        for (index, (action, count)) in taken.iter_mut().enumerate() {
            match protocol.step(&state, *action) {
                Outcomes::Impossible => {}
                Outcomes::Broken(what) => {
                    broken = Some((what, number));
                    break 'all;
                }
                Outcomes::Next(next) => {
                    steps += 1;
                    *count += 1;
                    let next = seen.meet(next.pack(differ), number);
                    if index < healthy && next_if_well == NONE && !done {
                        next_if_well = next;
                    }
                }
            }
        }
        if next_if_well == NONE && !done {
            broken = Some((Broken::Stuck, number));
            break;
        }
        onward.push(next_if_well);
        at += 1;
    }
    let broken = broken.or_else(|| circle(&onward).map(|number| (Broken::Stuck, number)));
    Found {
        states: seen.keys.len(),
        steps,
        records: protocol.records.len(),
        taken,
        counterexample: broken.map(|(broken, number)| Counterexample {
            broken,
            path: seen.path(number),
        }),
        keys: seen.keys,
    }
}

/// Whether nobody has anything to do.
fn is_done(protocol: &Protocol, state: &State) -> bool {
    !protocol.records.facts(state.record).pending
        && state.workers == [Worker::Idle; 2]
        && state.leaders == [Leader::Idle; 2]
        && !state.requests().iter().any(Request::is_running)
}

/// The first state from which no good end is reached.
fn circle(onward: &[u32]) -> Option<u32> {
    let mut good = vec![false; onward.len()];
    let mut way = Vec::new();
    let mut on_way = vec![false; onward.len()];
    for start in 0..onward.len() {
        let mut at = start;
        let ends = loop {
            if good[at] {
                break true;
            }
            if std::mem::replace(&mut on_way[at], true) {
                break false;
            }
            way.push(at);
            match onward[at] {
                NONE => break true,
                next => at = next as usize,
            }
        };
        if !ends {
            return u32::try_from(start).ok();
        }
        way.drain(..).for_each(|passed| good[passed] = true);
    }
    None
}

// === impl Seen ===

impl Seen {
    /// The number of a state, new or not.
    fn meet(&mut self, key: u128, parent: u32) -> u32 {
        if self.keys.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let slot = self.slot(key);
        if self.slots[slot] == NONE {
            self.slots[slot] = u32::try_from(self.keys.len()).expect("few states");
            self.keys.push(key);
            self.parents.push(parent);
        }
        self.slots[slot]
    }

    /// Where this state is, or belongs.
    fn slot(&self, key: u128) -> usize {
        let mask = self.slots.len() - 1;
        let folded = (key ^ (key >> 64)) as u64;
        let mixed = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut slot = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) as usize >> 20;
        loop {
            slot &= mask;
            match self.slots[slot] {
                NONE => return slot,
                number if self.keys[number as usize] == key => return slot,
                _ => slot += 1,
            }
        }
    }

    fn grow(&mut self) {
        self.slots = vec![NONE; (self.slots.len() * 2).max(1 << 16)];
        for number in 0..self.keys.len() {
            let slot = self.slot(self.keys[number]);
            self.slots[slot] = number as u32;
        }
    }

    /// From the first state to this one.
    fn path(&self, number: u32) -> Vec<u128> {
        let mut path = Vec::new();
        let mut at = number;
        while at != NONE {
            path.push(self.keys[at as usize]);
            at = self.parents[at as usize];
        }
        path.reverse();
        path
    }
}
