//! One root and its surroundings, with a clock and a Laravel that are moved by hand.

use alloc::collections::VecDeque;

use super::super::*;
use embudo_core::config::Config;
use embudo_core::hash::HashKey;
use embudo_core::intake::{self, Reply};
use embudo_core::route::Destination;
use embudo_core::shard::balance;
use embudo_core::store::MemoryStore;

pub(crate) fn rules(json: &str) -> Rules {
    Rules {
        config: Config::parse(json.as_bytes()).unwrap(),
        key: HashKey::from_bytes([9; 16]),
    }
}

/// A process with one root: its store, its clock, and Laravel's answers given by hand.
pub(super) struct World {
    pub(super) store: MemoryStore,
    pub(super) keys: Keys,
    pub(super) rules: Rules,
    pub(super) dispatcher: Dispatcher,
    pub(super) now: Now,
    pub(super) tick_ms: u64,
    pub(super) next_tick_ms: u64,
    /// Calls that were made and not looked at yet, with the time.
    pub(super) made: VecDeque<(u64, Call)>,
    pub(super) effects: Vec<Effect>,
    pub(super) doorbell_works: bool,
    /// Where updates go; the configuration's cluster where it is empty.
    pub(super) to_cluster: String,
    /// Of requests.
    numbers: u64,
}

/// A Laravel that sets `pending` by itself.
pub(super) const IMPLIES: &str = r#"{"assume":{"implies":true}}"#;
pub(super) const OK: &str = r#"{"success":true}"#;

impl World {
    pub(super) fn new(json: &str) -> Self {
        let rules = rules(json);
        let keys = Keys::new("test");
        let mut world = Self {
            dispatcher: Self::root(&rules, &keys, 1),
            store: MemoryStore::default(),
            keys,
            rules,
            now: Now {
                mono_ms: 100_000,
                wall_ms: 1_700_000_000_000,
            },
            tick_ms: 50,
            next_tick_ms: 100_000,
            made: VecDeque::new(),
            effects: Vec::new(),
            doorbell_works: true,
            to_cluster: String::new(),
            numbers: 0,
        };
        // Elected, and done with the first scan.
        world.advance(3_000);
        world
    }

    pub(super) fn root(rules: &Rules, keys: &Keys, id: u64) -> Dispatcher {
        let candidate = Candidate::new(id, 7, 100_000, rules.config.times.lease_ms);
        Dispatcher::new(rules.clone(), keys.clone(), candidate, id)
    }

    pub(super) fn step(&mut self, event: Event<'_>) {
        let mut effects = Vec::new();
        self.dispatcher
            .step(event, self.now, &mut self.store, &mut effects);
        for effect in effects {
            match effect {
                Effect::Call(call) => self.made.push_back((self.now.mono_ms, call)),
                Effect::TickEvery(ms) => {
                    self.tick_ms = ms;
                    self.next_tick_ms = self.now.mono_ms + ms;
                }
                other => self.effects.push(other),
            }
        }
    }

    pub(super) fn advance(&mut self, ms: u64) {
        let end_ms = self.now.mono_ms + ms;
        while self.next_tick_ms <= end_ms {
            self.go_to(self.next_tick_ms);
            self.next_tick_ms += self.tick_ms;
            self.step(Event::Tick);
        }
        self.go_to(end_ms);
    }

    pub(super) fn go_to(&mut self, mono_ms: u64) {
        self.now.wall_ms += mono_ms - self.now.mono_ms;
        self.now.mono_ms = mono_ms;
    }

    pub(super) fn post(&mut self, route: &str, session: &str, value: &str) -> Reply {
        self.post_to("laravel.test", route, session, value)
    }

    pub(super) fn post_to(
        &mut self,
        authority: &str,
        route: &str,
        session: &str,
        value: &str,
    ) -> Reply {
        let (index, _) = self.rules.config.route_named(route).unwrap();
        let key = if route == "qr" { "qr" } else { "estado_qr" };
        let body = format!(r#"{{"session_id":"{session}","{key}":"{value}"}}"#);
        let mut rules = self.rules.clone();
        if !self.to_cluster.is_empty() {
            rules.config.upstream.cluster.clone_from(&self.to_cluster);
        }
        let destination = Destination {
            authority: authority.into(),
            path: "/x".into(),
            ..<_>::default()
        };
        let head = rules.head_to(index, destination);
        let update = rules.update(&head, body.as_bytes()).unwrap();
        let (keys, rules, now) = (&self.keys, &rules, self.now);
        self.numbers += 1;
        let view = intake::View {
            circuit: embudo_core::circuit::State::read(&self.store, keys),
            ..Default::default()
        };
        let (store, number) = (&mut self.store, self.numbers);
        let worker = intake::Worker {
            number,
            vm: 1,
            may_send: true,
            view,
            holding: &embudo_core::hold::Holding::default(),
        };
        let taken = intake::take_in(store, keys, rules, &update, &worker, now);
        if let Some(shard) = taken.ring.filter(|_| self.doorbell_works) {
            self.step(Event::Doorbell(&[shard]));
        }
        taken.reply
    }

    /// The oldest call that nobody has looked at.
    pub(super) fn call(&mut self) -> (u64, Call) {
        self.made.pop_front().expect("a call was made")
    }

    pub(super) fn answer(&mut self, call: &Call, status: u16, body: &str) {
        let answer = Answer {
            status: Some(status),
            from_upstream: true,
            date: None,
            retry_after: None,
            content_type: None,
            body: body.as_bytes(),
        };
        self.step(Event::Answered(call.id, answer));
    }

    /// Lets time pass while Laravel takes everything at once. Gives the calls with their times.
    pub(super) fn deliver_for(&mut self, ms: u64) -> Vec<(u64, Call)> {
        let end_ms = self.now.mono_ms + ms;
        let mut all = Vec::new();
        loop {
            while let Some((at_ms, call)) = self.made.pop_front() {
                self.answer(&call, 200, OK);
                all.push((at_ms, call));
            }
            if self.now.mono_ms >= end_ms {
                return all;
            }
            self.advance(10);
        }
    }

    pub(super) fn ends(&self, end: End) -> usize {
        let counts = self.effects.iter().map(|effect| match effect {
            Effect::Count(Counter::Items(_, known), count) if *known == end => *count as usize,
            _ => 0,
        });
        counts.sum()
    }

    pub(super) fn circuit(&self) -> embudo_core::circuit::State {
        self.dispatcher.circuit.state()
    }

    /// What the gauge was set to last.
    pub(super) fn gauge(&self, gauge: Gauge) -> Option<u64> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Set(known, value) if *known == gauge => Some(*value),
            _ => None,
        })
    }

    /// Lines of this level.
    pub(super) fn logs(&self, level: Level) -> usize {
        let is = |effect: &&Effect| matches!(effect, Effect::Log(l, _) if *l == level);
        self.effects.iter().filter(is).count()
    }

    /// Every shard's ledger balances. Gives what is pending.
    pub(super) fn pending(&self) -> usize {
        (0..self.rules.config.shards)
            .filter_map(|index| self.store.get(&self.keys.shard(index)))
            .map(|(bytes, _)| {
                let shard = Shard::decode(&bytes).unwrap();
                balance(&shard).unwrap();
                shard.pending()
            })
            .sum()
    }
}

pub(super) fn text(call: &Call) -> &str {
    core::str::from_utf8(&call.body).unwrap()
}

pub(super) fn path(call: &Call) -> &str {
    call.headers
        .iter()
        .find(|(name, _)| name == ":path")
        .map(|(_, value)| value.as_str())
        .unwrap()
}

pub(super) fn items(call: &Call) -> usize {
    text(call).matches("session_id").count()
}

pub(super) fn timestamp(call: &Call) -> u64 {
    let (_, rest) = text(call)
        .split_once("\"timestamp\":")
        .expect("an item has a timestamp");
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap()
}
