//! Breadth first through every world that can be reached, and from each of them to a good end.
//!
//! As in the other exploration: where everybody does his work at once and Laravel is well, what follows is one way,
//! and a circle of it is a record that is stuck. Time on that way is counted, too: so long is anybody held.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::world::World;
use super::{Action, Broken, Outcomes, Protocol};

/// No world: the first has no parent, and a good end has nothing to do.
const NONE: u32 = u32::MAX;

/// A run that has met this many worlds gives up: the model has been made too large.
const WORLDS_MAX: usize = 3_000_000;

/// What was found.
pub(crate) struct Found {
    pub(crate) worlds: usize,
    pub(crate) steps: u64,
    /// How often each kind of action was possible.
    pub(crate) taken: BTreeMap<&'static str, u64>,
    /// Ticks for which somebody may still be held, if all is well from now on.
    pub(crate) held_ticks: u32,
    /// The shortest way to a broken rule.
    pub(crate) counterexample: Option<(Broken, Vec<World>)>,
}

/// What a healthy world makes of one: the next, whether time passes on the way, and whether somebody is held.
#[derive(Clone, Copy)]
struct Onward {
    next: u32,
    ticks: bool,
    holds: bool,
}

/// Worlds by number, in the order in which they were met.
#[derive(Default)]
struct Seen {
    worlds: Vec<World>,
    parents: Vec<u32>,
    /// Open addressing, linear probing; a power of two, at most half full.
    slots: Vec<u32>,
}

/// Explores everything that the cast can lead to.
pub(crate) fn explore(protocol: &mut Protocol) -> Found {
    let mut seen = Seen::default();
    let mut onward = Vec::new();
    let mut taken = BTreeMap::new();
    let mut broken = None;
    let mut steps = 0;
    seen.meet(World::first(&protocol.cast), NONE);

    let mut at = 0;
    'all: while at < seen.worlds.len() {
        assert!(seen.worlds.len() < WORLDS_MAX, "the model is too large");
        let number = u32::try_from(at).expect("few worlds");
        let world = seen.worlds[at].clone();
        let mut well = Onward {
            next: NONE,
            ticks: false,
            holds: !world.held.is_empty(),
        };
        let is_done = protocol.is_done(&world);
        let (actions, healthy) = protocol.actions(&world);
        for (index, action) in actions.into_iter().enumerate() {
            match protocol.step(&world, action) {
                Outcomes::Impossible => {}
                Outcomes::Broken(what) => {
                    broken = Some((what, number));
                    break 'all;
                }
                Outcomes::Next(next) => {
                    steps += 1;
                    *taken.entry(action.kind()).or_default() += 1;
                    let next = seen.meet(next, number);
                    if index < healthy && well.next == NONE && !is_done {
                        (well.next, well.ticks) = (next, action == Action::Tick);
                    }
                }
            }
        }
        if well.next == NONE && !is_done {
            broken = Some((Broken::Stuck, number));
            break;
        }
        onward.push(well);
        at += 1;
    }
    let mut held_ticks = 0;
    if broken.is_none() {
        match longest_hold(&onward) {
            Ok(ticks) => held_ticks = ticks,
            Err(number) => broken = Some((Broken::Stuck, number)),
        }
    }
    Found {
        worlds: seen.worlds.len(),
        steps,
        taken,
        held_ticks,
        counterexample: broken.map(|(broken, number)| (broken, seen.path(number))),
    }
}

/// For how many ticks anybody is held at most; or the first world from which no good end is reached.
fn longest_hold(onward: &[Onward]) -> Result<u32, u32> {
    let mut known = vec![None; onward.len()];
    let mut on_way = vec![false; onward.len()];
    let mut longest = 0;
    for start in 0..onward.len() {
        let mut way = Vec::new();
        let mut at = start;
        let mut ticks = loop {
            if let Some(ticks) = known[at] {
                break ticks;
            }
            if std::mem::replace(&mut on_way[at], true) {
                return Err(u32::try_from(start).expect("few worlds"));
            }
            way.push(at);
            match onward[at].next {
                NONE => break 0,
                next => at = next as usize,
            }
        };
        for passed in way.into_iter().rev() {
            let Onward {
                ticks: waits,
                holds,
                ..
            } = onward[passed];
            ticks = if holds { ticks + u32::from(waits) } else { 0 };
            known[passed] = Some(ticks);
            longest = longest.max(ticks);
        }
    }
    Ok(longest)
}

// === impl Seen ===

impl Seen {
    /// The number of a world, new or not.
    fn meet(&mut self, world: World, parent: u32) -> u32 {
        if self.worlds.len() * 2 >= self.slots.len() {
            self.slots = vec![NONE; (self.slots.len() * 2).max(1 << 12)];
            for number in 0..self.worlds.len() {
                let slot = self.slot(&self.worlds[number]);
                self.slots[slot] = u32::try_from(number).expect("few worlds");
            }
        }
        let slot = self.slot(&world);
        if self.slots[slot] == NONE {
            self.slots[slot] = u32::try_from(self.worlds.len()).expect("few worlds");
            self.worlds.push(world);
            self.parents.push(parent);
        }
        self.slots[slot]
    }

    /// Where this world is, or belongs.
    fn slot(&self, world: &World) -> usize {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        let mut slot = hasher.finish() as usize;
        loop {
            slot &= self.slots.len() - 1;
            match self.slots[slot] {
                NONE => return slot,
                number if self.worlds[number as usize] == *world => return slot,
                _ => slot += 1,
            }
        }
    }

    /// From the first world to this one.
    fn path(&self, number: u32) -> Vec<World> {
        let mut path = Vec::new();
        let mut at = number;
        while at != NONE {
            path.push(self.worlds[at as usize].clone());
            at = self.parents[at as usize];
        }
        path.reverse();
        path
    }
}
