//! The webhook: what it is told while Laravel takes nothing, and of what Laravel will never take.
//!
//! Beside Laravel's path and never in its way: no claim is taken, nothing ends by it, and a webhook that
//! fails delays only itself. One event is under way at a time, so a session's items arrive in order. An item
//! is marked in the store once the webhook has answered 2xx; a leader that is lost between the two makes
//! its successor say it again.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;

use super::backlog::Waiting;
use super::{Counter, Dispatcher, Effect, FlightItem, Level, NotSent};
use crate::batch::{self, Call};
use embudo_core::backoff::Backoff;
use embudo_core::circuit::State;
use embudo_core::map::Map;
use embudo_core::sabotage::{self, Sabotage};
use embudo_core::shard::{Claimed, Shard};
use embudo_core::store::{CAS_ATTEMPTS_MAX, Expect, PutError, Store};
use embudo_core::time::Now;
use embudo_core::verdict::Answer;

/// Items of one event.
const ITEMS_MAX: usize = 50;

/// Dead letters that wait for the webhook. They are in this root's memory only: beyond, the oldest make room.
const DEAD_MAX: usize = 256;

/// What the webhook is still to be told.
#[derive(Debug, Default)]
pub(super) struct Fallback {
    event: Option<Event>,
    /// When the last one left.
    last_ms: Option<u64>,
    backoff: Backoff,
    dead: VecDeque<(usize, Claimed)>,
    /// Dead letters were lost, and it was said.
    overflows: bool,
}

/// An event under way.
#[derive(Debug)]
struct Event {
    call: u64,
    route: usize,
    started_ms: u64,
    items: Items,
}

#[derive(Debug)]
enum Items {
    /// Shard, session and sequence of each.
    Waiting(Vec<(u32, u128, u64)>),
    Dead(Vec<Claimed>),
}

// === impl Fallback ===

impl Fallback {
    /// Nothing is under way, and no dead letter waits for a webhook that takes events.
    pub(super) fn is_idle(&self) -> bool {
        self.event.is_none() && (self.dead.is_empty() || self.backoff.failures() > 0)
    }

    fn may_tell(&self, mono_ms: u64) -> bool {
        self.event.is_none() && self.backoff.is_over(mono_ms)
    }

    pub(super) fn has_work(&self) -> bool {
        self.event.is_some() || !self.dead.is_empty()
    }

    /// An event that was never answered.
    pub(super) fn give_up(&mut self, mono_ms: u64, patience_ms: u64) {
        let lost = self
            .event
            .take_if(|event| mono_ms >= event.started_ms.saturating_add(patience_ms));
        if let Some(event) = lost {
            self.again(event);
        }
    }

    /// What an event could not say is said later.
    fn again(&mut self, event: Event) {
        if let Items::Dead(items) = event.items {
            for item in items.into_iter().rev() {
                self.dead.push_front((event.route, item));
            }
        }
    }
}

// === impl Dispatcher ===

impl Dispatcher {
    /// A rejected item becomes a dead letter.
    pub(super) fn is_dead(
        &mut self,
        route: Option<usize>,
        item: &FlightItem,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(route), Some(dead)) = (route, &item.dead) else {
            return;
        };
        effects.push(Effect::Count(Counter::DeadLetters(route), 1));
        let fallback = &mut self.fallback;
        if fallback.dead.len() >= DEAD_MAX {
            fallback.dead.pop_front();
            if !core::mem::replace(&mut fallback.overflows, true) {
                let line = format!("more than {DEAD_MAX} dead letters wait: the oldest are lost");
                effects.push(Effect::Log(Level::Error, line));
            }
        }
        fallback.dead.push_back((route, dead.clone()));
    }

    /// Tells the webhook of dead letters, leader or not: they are in this root's memory, and in nobody else's.
    pub(super) fn tell_of_the_dead(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !self.fallback.may_tell(now.mono_ms) {
            return;
        }
        if let Some((route, dead)) = self.dead_letters() {
            let (event, claimed) = ("dead_letter", dead.clone());
            let items = Items::Dead(dead);
            self.tell(route, event, "rejected", &claimed, items, now, effects);
        }
    }

    /// Tells the webhook what there is to tell, one event at a time.
    pub(super) fn hand_over(&mut self, now: Now, store: &impl Store, effects: &mut Vec<Effect>) {
        if self.rules.config.fallback.is_none() {
            return;
        }
        self.tell_of_the_dead(now, effects);
        if !self.fallback.may_tell(now.mono_ms) {
            return;
        }
        let Some((route, reason, picks)) = self.unheard(now) else {
            return;
        };
        let Some(name) = self.rules.route(route).map(|rule| rule.name.clone()) else {
            return;
        };
        let mut items = Vec::new();
        let mut claimed = Vec::new();
        for (index, picks) in picks {
            let read = store.get(&self.keys.shard(index));
            let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
            let Ok(shard) = Shard::decode(bytes) else {
                continue;
            };
            for (session, caller, seq) in picks {
                if let Some(item) = shard.unsent(session, &name, caller, seq) {
                    items.push((index, session, seq));
                    claimed.push(item);
                }
            }
        }
        if !items.is_empty() {
            let event = format!("{name}.batch");
            let items = Items::Waiting(items);
            self.tell(route, &event, reason, &claimed, items, now, effects);
        }
    }

    /// The oldest dead letters of one route.
    fn dead_letters(&mut self) -> Option<(usize, Vec<Claimed>)> {
        let (route, _) = *self.fallback.dead.front()?;
        let mut letters = Vec::new();
        while letters.len() < ITEMS_MAX
            && let Some((_, item)) = self
                .fallback
                .dead
                .pop_front_if(|(known, _)| *known == route)
        {
            letters.push(item);
        }
        Some((route, letters))
    }

    /// Items that the webhook has not heard of and that Laravel does not take at the moment, of one route: each
    /// session's oldest, by shard.
    #[expect(clippy::type_complexity, reason = "the picks by shard")]
    fn unheard(&self, now: Now) -> Option<(usize, &'static str, Map<u32, Vec<(u128, u64, u64)>>)> {
        let is_open = self.circuit.state() != State::Closed;
        let last_ms = self.fallback.last_ms.unwrap_or(0);
        let attempts_max = self.rules.config.fallback.as_ref()?.after_attempts;
        let due = |waiting: &Waiting| {
            let item = waiting
                .items
                .iter()
                .find(|item| item.seq > waiting.told_seq)?
                .clone();
            let (route, rule) = self.rules.config.route_named(&item.partition.route)?;
            let is_late = is_open || self.destinations.failures(&item.partition) >= attempts_max;
            // A value that is about to be replaced need not be told.
            let from_ms = item.since_ms.max(last_ms);
            let is_quiet = now.mono_ms >= from_ms.saturating_add(rule.batch.quiet_ms);
            (is_late && is_quiet).then_some((route, item))
        };
        let mut route = None;
        let mut picks: Map<u32, Vec<(u128, u64, u64)>> = Map::new();
        let mut count = 0_usize;
        for (shard, waiting) in self.backlog.sessions() {
            let Some((found, item)) = due(waiting) else {
                continue;
            };
            if *route.get_or_insert(found) != found {
                continue;
            }
            let pick = (waiting.session, item.partition.caller, item.seq);
            picks.entry(shard).or_default().push(pick);
            count = count.saturating_add(1);
            if count >= ITEMS_MAX {
                break;
            }
        }
        let reason = if is_open { "circuit_open" } else { "attempts" };
        Some((route?, reason, picks))
    }

    #[expect(clippy::too_many_arguments, reason = "an event is all of these")]
    fn tell(
        &mut self,
        route: usize,
        event: &str,
        reason: &str,
        claimed: &[Claimed],
        items: Items,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(fallback), Some(rule)) = (&self.rules.config.fallback, self.rules.route(route))
        else {
            return;
        };
        self.calls_made = self.calls_made.saturating_add(1);
        let times = &self.rules.config.times;
        let window_ms = now.mono_ms.saturating_add(times.send_window_ms);
        let id = batch::batch_id(self.rules.key, claimed);
        let body = batch::event_body(&self.rules, route, rule, (event, reason, &id), claimed);
        let call = Call {
            id: self.calls_made,
            cluster: fallback.cluster.clone(),
            headers: batch::event_headers(fallback, &id, claimed.len()),
            body,
            timeout_ms: self.rules.config.times.call_timeout_ms,
            // There is no claim that could run out, but who leads no more tells nothing but of its own dead,
            // and an event's time runs from now on.
            send_by_ms: match &items {
                Items::Waiting(_) => window_ms.min(self.candidate.expires_ms()),
                Items::Dead(_) => window_ms,
            },
        };
        self.fallback.last_ms = Some(now.mono_ms);
        self.fallback.event = Some(Event {
            call: call.id,
            route,
            started_ms: now.mono_ms,
            items,
        });
        effects.push(Effect::Call(call));
    }

    /// Whether it was an event that was not sent.
    pub(super) fn event_not_sent(
        &mut self,
        call: u64,
        why: NotSent,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(event) = self.fallback.event.take_if(|event| event.call == call) else {
            return false;
        };
        let why = match why {
            NotSent::Late => {
                self.fallback.again(event);
                return true;
            }
            NotSent::Misconfigured => "its cluster does not exist",
            _ => "its cluster has no healthy host",
        };
        self.event_failed(event, why, now, effects);
        true
    }

    /// Whether it was an event that was answered.
    pub(super) fn event_answered(
        &mut self,
        call: u64,
        answer: &Answer<'_>,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(event) = self.fallback.event.take_if(|event| event.call == call) else {
            return false;
        };
        if !matches!(answer.status, Some(200..=299)) {
            let why = match answer.status {
                Some(status) => format!("status {status}"),
                None => "the answer broke off".into(),
            };
            self.event_failed(event, &why, now, effects);
            return true;
        }
        effects.push(Effect::Count(Counter::WebhookCalls(true), 1));
        self.fallback.overflows = false;
        if self.fallback.backoff.succeed() > 0 {
            let line = "the webhook takes events again".into();
            effects.push(Effect::Log(Level::Info, line));
        }
        if let Items::Waiting(items) = event.items {
            effects.push(Effect::Count(
                Counter::Fallback(event.route),
                items.len() as u64,
            ));
            if !sabotage::is(Sabotage::HandOverAgain) {
                self.mark(items, now, store);
            }
        }
        true
    }

    fn event_failed(&mut self, event: Event, why: &str, now: Now, effects: &mut Vec<Effect>) {
        effects.push(Effect::Count(Counter::WebhookCalls(false), 1));
        self.fallback.again(event);
        let range = self.rules.config.backoff.clone();
        let backoff = &mut self.fallback.backoff;
        backoff.fail(&range, 0, &mut self.rng, now.mono_ms);
        if backoff.failures() == 1 {
            let line = format!("the webhook does not take an event ({why}); trying again");
            effects.push(Effect::Log(Level::Warn, line));
        }
    }

    /// The webhook has these.
    fn mark(&mut self, items: Vec<(u32, u128, u64)>, now: Now, store: &mut impl Store) {
        let mut by_shard: Map<u32, Vec<(u128, u64)>> = Map::new();
        for (shard, session, seq) in items {
            by_shard.entry(shard).or_default().push((session, seq));
        }
        for (index, items) in by_shard {
            let key = self.keys.shard(index);
            for _ in 0..CAS_ATTEMPTS_MAX {
                let read = store.get(&key);
                let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
                let Ok(mut shard) = Shard::decode(bytes) else {
                    break;
                };
                let mut changed = false;
                for (session, seq) in &items {
                    changed |= shard.hand_over(*session, *seq);
                }
                let written = match changed {
                    true => store.put(&key, &shard.encode(), Expect::of(read.as_ref())),
                    false => Ok(()),
                };
                match written {
                    Ok(()) => {
                        if self.candidate.epoch(now.mono_ms).is_some() {
                            self.backlog
                                .refresh(&self.rules, index, &shard, now.mono_ms);
                        }
                        break;
                    }
                    Err(PutError::Mismatch) => {}
                    Err(PutError::Refused) => break,
                }
            }
        }
    }
}
