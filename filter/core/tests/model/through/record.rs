//! The record: the core's own transitions, each run once for each shard that there can be.

use std::collections::BTreeMap;

use embudo_core::config::Config;
use embudo_core::hash::HashKey;
use embudo_core::route::{Destination, Rules, Update};
use embudo_core::shard::{
    Ask, Before, ClaimId, Decision, Manner, Outcome, Session, Shard, State, Through, Wanted,
    balance,
};
use embudo_core::time::Now;
use embudo_core::write_through::{Again, Fate, WriteThrough};

use super::ask::{Answer, Begun, Facts, Fated, Move, Op, Said};
use super::level::{FORGOTTEN_MS, NOW_MS, OVER_MS, TTL_MS, level, tick};
use super::world::Way;
use super::{Cast, Mutation, Who};
use crate::model::value::Value;

/// The unit of time: also `hold_ms`, and the second between two that go outside the order.
pub(super) const TICK_MS: u64 = 1_000;

/// D, in ticks.
pub(super) const CLAIM_TICKS: u8 = 2;

const NOW: Now = Now {
    mono_ms: NOW_MS,
    wall_ms: 0,
};

/// The dispatcher's only claim: it has one call at a time, and hears nothing of one that it gave up.
const ITEM: ClaimId = ClaimId {
    epoch: 1,
    counter: 1,
};

/// All records met so far, and what the core makes of them.
pub(crate) struct Records {
    rules: Rules,
    updates: BTreeMap<(Who, Value), Update<'static>>,
    /// As they are queued.
    items: BTreeMap<(Who, Value), Again>,
    pub(super) mutation: Option<Mutation>,
    numbers: BTreeMap<Vec<u8>, u32>,
    stored: Vec<Vec<u8>>,
    facts: Vec<Facts>,
    /// By record; each has a few.
    moves: Vec<Vec<(Op, Move)>>,
    befores: Vec<Before>,
    throughs: Vec<WriteThrough>,
    through_numbers: BTreeMap<(Who, Value, u64, Way, u16, bool), u16>,
}

// === impl Records ===

impl Records {
    pub(super) fn new(cast: &Cast, mutation: Option<Mutation>) -> Self {
        let mut config = Config::parse(br#"{"assume":{"implies":true}}"#).expect("a configuration");
        config.times.send_window_ms = TICK_MS / 4;
        config.times.call_timeout_ms = TICK_MS / 2;
        config.times.late_ms = 5 * TICK_MS / 4;
        config.hold_ms = TICK_MS;
        config.dedup.ttl_ms = TTL_MS;
        config.dedup.max_age_ms = TTL_MS;
        for route in &mut config.routes {
            route.expire_after_ms = None;
        }
        assert_eq!(config.claim_ms(), u64::from(CLAIM_TICKS) * TICK_MS);
        let rules = Rules {
            config,
            key: HashKey::from_bytes([7; 16]),
        };
        let update = |(who, value): (Who, Value)| {
            let (route, rule) = rules.config.route_named(value.route()).expect("a route");
            let destination = Destination {
                authority: "laravel".into(),
                path: rule.path.fixed().into(),
                headers: [("x-api-key".to_string(), format!("{who:?}"))].into(),
                ..Destination::default()
            };
            // It lives as long as the test's process.
            let head = Box::leak(Box::new(rules.head_to(route, destination)));
            let update = rules.update(head, value.body().as_bytes());
            ((who, value), update.expect("an update"))
        };
        let proven = cast.values.iter().map(|value| (Who::Proven, *value));
        let strange = cast.strange.iter().map(|value| (Who::Stranger, *value));
        let updates: BTreeMap<_, _> = proven.chain(strange).map(update).collect();
        let items = updates
            .iter()
            .map(|(who, update)| (*who, Again::of(update)));
        let mut records = Self {
            items: items.collect(),
            updates,
            rules,
            mutation,
            numbers: BTreeMap::new(),
            stored: Vec::new(),
            facts: Vec::new(),
            moves: Vec::new(),
            befores: Vec::new(),
            throughs: Vec::new(),
            through_numbers: BTreeMap::new(),
        };
        records.number(Shard::default());
        records
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.stored.len()
    }

    pub(super) fn facts(&self, record: u32) -> &Facts {
        &self.facts[record as usize]
    }

    /// What the core makes of a record.
    pub(super) fn ask(&mut self, record: u32, op: Op) -> Move {
        let mut known = self.moves[record as usize].iter();
        if let Some((_, known)) = known.find(|(known, _)| *known == op) {
            return *known;
        }
        let bytes = self.stored[record as usize].clone();
        let mut shard = Shard::decode(&bytes).expect("what was written is readable");
        // What a settlement borrows must not be what it may add to.
        let throughs = std::mem::take(&mut self.throughs);
        let (answer, written, is_balanced) = {
            let answer = self.decide(&mut shard, &throughs, op);
            (answer, shard.encode(), balance(&shard).is_ok())
        };
        self.throughs = throughs;
        let said = self.named(answer);
        let answer = Move {
            said,
            record: self.number(Shard::decode(&written).expect("just written")),
            is_balanced,
        };
        self.moves[record as usize].push((op, answer));
        answer
    }

    /// As a worker and the dispatcher do it between a get and a put; a mutation does it wrongly.
    fn decide<'a>(&'a self, shard: &mut Shard<'a>, throughs: &'a [WriteThrough], op: Op) -> Answer {
        match op {
            Op::Tick => tick(shard),
            Op::Tidy => shard.prune(NOW_MS),
            Op::Forget(seq) => {
                let places = shard.sessions.iter_mut().flat_map(|s| &mut s.held);
                let place = places.filter(|place| place.seq == seq);
                place.for_each(|place| place.deadline_ms = FORGOTTEN_MS);
                shard.prune(NOW_MS);
            }
            Op::Offer(value) => {
                let beside = self.hide_beside(shard);
                let decision = shard.offer(&self.rules, &self.updates[&(Who::Proven, value)], NOW);
                self.show_beside(shard, beside);
                return match decision {
                    Decision::Queued { .. } => Answer::Queued(shard.last_seq),
                    Decision::Duplicate { .. } | Decision::Implied => Answer::Known,
                    // Nobody's clock is read, and there are few.
                    Decision::Stale | Decision::Full => Answer::Nothing,
                };
            }
            Op::Arrive(who, value, may_hold) => {
                let update = &self.updates[&(who, value)];
                // As the core begins. Here a request is known by its sequence.
                shard.prune(NOW_MS);
                let seq = shard.last_seq + 1;
                let ask = self.ask_of(who, update, seq, may_hold);
                let hidden = self.hide_queued(shard);
                let verified = self.verified(shard);
                let through = shard.write_through(&self.rules, update, &ask, NOW);
                self.show_queued(shard, hidden);
                self.verify_again(shard, who, verified);
                self.bend_places(shard, seq);
                let is_through = !matches!(through, Through::Stale | Through::Untracked);
                assert!(
                    is_through,
                    "nothing is remembered as refused, and there is room"
                );
                return Answer::Through(through, who, value);
            }
            Op::Turn(held) => {
                let update = &self.updates[&(held.who, held.value)];
                let ask = self.ask_of(held.who, update, held.seq, false);
                let is_over = held.is_late && !self.is(Mutation::LateIsInOrder);
                let end_ms = NOW_MS + if is_over { 0 } else { TICK_MS };
                let before = self.befores[usize::from(held.before)];
                let claim = shard.sessions.first_mut().and_then(|session| {
                    let is_bent = self.is(Mutation::TurnDespiteClaim);
                    session.claim.take_if(|_| is_bent)
                });
                let verified = self.verified(shard);
                let place = (held.seq, end_ms);
                let through = shard.turn(&self.rules, update, place, before, &ask, NOW);
                if let (None, Some(session)) = (through, shard.sessions.first_mut()) {
                    session.claim = claim;
                }
                self.verify_again(shard, held.who, verified);
                assert_ne!(through, Some(Through::Untracked), "its place is there");
                return through.map_or(Answer::Nothing, |through| {
                    Answer::Through(through, held.who, held.value)
                });
            }
            Op::Queue(held) => {
                let update = &self.updates[&(held.who, held.value)];
                let place = (held.seq, self.befores[usize::from(held.before)]);
                let item = &self.items[&(held.who, held.value)];
                let verified = self.verified(shard);
                let decision = shard.queue_held(&self.rules, update, item, place, NOW);
                self.verify_queued(shard, verified);
                return match decision {
                    Some(Decision::Queued { .. }) => Answer::Queued(held.seq),
                    Some(Decision::Duplicate { .. } | Decision::Implied) => Answer::Known,
                    Some(Decision::Stale | Decision::Full) | None => Answer::Nothing,
                };
            }
            Op::Leave(held) => {
                let before = self.befores[usize::from(held.before)];
                let session = self.updates[&(held.who, held.value)].session;
                shard.leave(session, held.seq, before);
            }
            Op::Claim => return self.claim(shard),
            Op::SettleItem { is_delivered } => {
                let outcome = match is_delivered {
                    true => Outcome::Delivered,
                    false => Outcome::Failed,
                };
                let session = shard.sessions.first().map(|session| session.id);
                if let Some(session) = session {
                    shard.settle(&self.rules, session, ITEM, outcome, None, NOW);
                }
                shard.prune(NOW_MS);
            }
            Op::SettleThrough(number, fated) => {
                let through = &throughs[usize::from(number)];
                let is_stranger = through.manner == Manner::Beside;
                let fate = match fated {
                    Fated::Accepted => Fate::Accepted,
                    Fated::Refused => Fate::Refused,
                    Fated::Unknown if self.is(Mutation::UnknownIsDefinite) => Fate::NeverHad,
                    Fated::Unknown
                        if is_stranger && self.is(Mutation::StrangersUnknownIsDefinite) =>
                    {
                        Fate::NeverHad
                    }
                    Fated::Unknown => Fate::Unknown,
                };
                let verified = self.verified(shard);
                let settled = shard.settle_through(&self.rules, through, fate, NOW);
                let is_settled = settled.is_some();
                let who = if is_stranger {
                    Who::Stranger
                } else {
                    Who::Proven
                };
                self.verify_again(shard, who, verified);
                return Answer::Settled(is_settled);
            }
        }
        Answer::Nothing
    }

    fn ask_of<'u>(&self, who: Who, update: &'u Update<'_>, seq: u64, may_hold: bool) -> Ask<'u> {
        Ask {
            body: update.body,
            number: seq,
            vm: 1,
            is_stranger: who == Who::Stranger && !self.is(Mutation::StrangerClaims),
            is_seen: false,
            may_send: true,
            may_hold,
            refused: &[],
        }
    }

    /// Claims whatever is due, as a plan made from this very shard would.
    fn claim(&self, shard: &mut Shard<'_>) -> Answer {
        let Some(session) = shard.sessions.first_mut() else {
            return Answer::Nothing;
        };
        let id = session.id;
        let Some(due) = session.next_due() else {
            return Answer::Nothing;
        };
        let State::Dirty(dirty) = &due.state else {
            return Answer::Nothing;
        };
        let (route, caller) = (due.route.to_string(), due.caller);
        let destination = dirty.destination.to_vec();
        let wanted = Wanted {
            route: &route,
            caller,
            seq: 0,
            destination: &destination,
            bytes_max: usize::MAX,
            refused: &[],
        };
        let is_bent = self.is(Mutation::ClaimPastPlaces);
        let hidden = is_bent.then(|| std::mem::take(&mut session.held));
        let claimed = shard.claim(&self.rules, id, &wanted, ITEM, NOW);
        if let (Some(hidden), Some(session)) = (hidden, shard.sessions.first_mut()) {
            session.held = hidden;
        }
        claimed.map_or(Answer::Nothing, |item| Answer::Claimed {
            seq: item.seq,
            who: self.who(caller),
            value: Value::of_body(&item.body),
        })
    }

    fn who(&self, caller: u64) -> Who {
        let mut updates = self.updates.iter();
        let found = updates.find(|(_, update)| update.caller == caller);
        found.map(|((who, _), _)| *who).expect("somebody's")
    }

    /// The answer, with numbers for what only the core can read.
    fn named(&mut self, answer: Answer) -> Said {
        match answer {
            Answer::Nothing => Said::Nothing,
            Answer::Known => Said::Known,
            Answer::Settled(is_its_own) => Said::Settled(is_its_own),
            Answer::Queued(seq) => Said::Queued { seq },
            Answer::Claimed { seq, who, value } => Said::Claimed { seq, who, value },
            Answer::Through(Through::Held { seq, before, .. }, ..) => Said::Held {
                seq,
                before: self.before(before),
            },
            Answer::Through(
                Through::Begun {
                    seq,
                    manner,
                    before,
                    is_ahead,
                },
                who,
                value,
            ) => {
                let through = self.through((who, value), (seq, manner, before), is_ahead);
                let way = Way::of(manner);
                Said::Begun(Begun {
                    seq,
                    way,
                    through,
                    is_ahead,
                })
            }
            Answer::Through(Through::Stale | Through::Untracked, ..) => Said::Nothing,
        }
    }

    fn before(&mut self, before: Before) -> u16 {
        let known = self.befores.iter().position(|known| *known == before);
        let at = known.unwrap_or_else(|| {
            self.befores.push(before);
            self.befores.len() - 1
        });
        u16::try_from(at).expect("few of them")
    }

    fn through(
        &mut self,
        (who, value): (Who, Value),
        (seq, manner, before): (u64, Manner, Before),
        is_ahead: bool,
    ) -> u16 {
        let key = (
            who,
            value,
            seq,
            Way::of(manner),
            self.before(before),
            is_ahead,
        );
        if let Some(number) = self.through_numbers.get(&key) {
            return *number;
        }
        let update = &self.updates[&(who, value)];
        let number = u16::try_from(self.throughs.len()).expect("few of them");
        self.throughs.push(WriteThrough {
            said: update.said.clone(),
            number: seq,
            seq,
            manner,
            before,
            // Nobody asks when it left.
            begun_ms: 0,
            send_by_ms: 0,
            // Nothing in it tells one delivery from the next.
            body: 0,
            is_seen: false,
            item: is_ahead.then(|| Box::new(Again::of(update))),
        });
        self.through_numbers.insert(key, number);
        number
    }

    /// The number of a shard, with everything that makes no difference made equal.
    fn number(&mut self, mut shard: Shard<'_>) -> u32 {
        self.bend_deadlines(&mut shard);
        level(&mut shard);
        let bytes = shard.encode();
        if let Some(number) = self.numbers.get(&bytes) {
            return *number;
        }
        let number = u32::try_from(self.stored.len()).expect("few records");
        let facts = shard.sessions.first().map(|session| self.facts_of(session));
        self.facts.push(facts.unwrap_or_default());
        self.moves.push(Vec::new());
        self.stored.push(bytes.clone());
        self.numbers.insert(bytes, number);
        number
    }

    fn facts_of(&self, session: &Session<'_>) -> Facts {
        let unsent = session
            .entries
            .iter()
            .filter_map(|entry| match &entry.state {
                State::Dirty(dirty) => {
                    let value = Value::of_body(&dirty.body);
                    Some((entry.seq, self.who(entry.caller), value))
                }
                State::Clean { .. } | State::Implied { .. } => None,
            });
        let claim = session.live_claim(NOW_MS);
        let places = session
            .held
            .iter()
            .filter(|place| place.deadline_ms > NOW_MS);
        let over = session
            .held
            .iter()
            .filter(|place| place.deadline_ms <= OVER_MS);
        Facts {
            over: over.map(|place| place.seq).collect(),
            unsent: unsent.collect(),
            claim: claim.map(|claim| (claim.id, self.who(claim.caller))),
            places: places
                .map(|place| (place.seq, self.who(place.caller)))
                .collect(),
        }
    }
}
