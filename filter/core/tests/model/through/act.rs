//! What comes of a step, and what must not.

use embudo_core::shard::ClaimId;

use super::ask::{Begun, Fated, Move, Op, Said};
use super::record::CLAIM_TICKS;
use super::world::{Call, Held, Phase, Waiter, Way, World, qr_of, state_of};
use super::{Action, Broken, Outcomes, Protocol, Who};
use crate::model::value::{Qr, Value};

// === impl Protocol ===

impl Protocol {
    /// Everything that might happen here; what a healthy world does comes first, in order of precedence.
    pub(crate) fn actions(&self, world: &World) -> (Vec<Action>, usize) {
        let calls = 0..world.calls.len();
        let held = 0..world.held.len();
        let mut all: Vec<_> = calls.clone().map(Action::Finish).collect();
        all.extend(calls.clone().map(Action::Hear));
        all.extend(held.clone().map(Action::Turn));
        all.extend([Action::Claim, Action::Tick]);
        let healthy = all.len();
        for value in self.cast.values {
            all.push(Action::Offer(*value));
            all.extend([true, false].map(|room| Action::Arrive(Who::Proven, *value, room)));
        }
        for value in self.cast.strange {
            all.extend([true, false].map(|room| Action::Arrive(Who::Stranger, *value, room)));
        }
        for at in held {
            all.extend([Action::Queue(at), Action::Leave(at), Action::HolderDies(at)]);
        }
        for at in calls {
            all.extend([Action::Fail(at), Action::GiveUp(at), Action::WaiterDies(at)]);
        }
        all.push(Action::Tidy);
        let left_behind = self.records.facts(world.record).over.iter();
        let is_dead = |seq: &&u64| !world.held.iter().any(|held| held.seq == **seq);
        all.extend(left_behind.filter(is_dead).map(|seq| Action::Forget(*seq)));
        (all, healthy)
    }

    /// One step, and the rules that hold of every world after it.
    pub(crate) fn step(&mut self, world: &World, action: Action) -> Outcomes {
        let mut next = world.clone();
        match self.act(&mut next, action) {
            Ok(false) => Outcomes::Impossible,
            Err(broken) => Outcomes::Broken(broken),
            Ok(true) => {
                let unsent = self.records.facts(next.record).unsent.iter();
                next.settle_down(unsent.map(|(seq, _, _)| *seq));
                if self.is_done(&next) && !next.laravel.is_no_older(&next.told) {
                    return Outcomes::Broken(Broken::LaravelEndsElsewhere);
                }
                Outcomes::Next(next)
            }
        }
    }

    /// Whether nobody has anything to do.
    pub(crate) fn is_done(&self, world: &World) -> bool {
        let unsent = &self.records.facts(world.record).unsent;
        unsent.is_empty() && world.held.is_empty() && world.calls.is_empty()
    }

    fn act(&mut self, world: &mut World, action: Action) -> Result<bool, Broken> {
        match action {
            Action::Offer(value) => self.offer(world, value),
            Action::Arrive(who, value, may_hold) => self.arrive(world, who, value, may_hold),
            Action::Turn(at) => {
                let held = world.held[at];
                let answer = self.write(world, Op::Turn(held))?;
                match answer.said {
                    Said::Begun(begun) => {
                        world.held.remove(at);
                        leaves(world, (held.who, held.value), begun)?;
                        Ok(true)
                    }
                    _ => Ok(false),
                }
            }
            Action::Queue(at) => {
                let held = world.held.remove(at);
                if held.who == Who::Proven || !world.is_proven {
                    return Ok(false);
                }
                let answer = self.write(world, Op::Queue(held))?;
                match answer.said {
                    Said::Known if !self.is_certain(world, held.value) => Err(Broken::NoDuplicate),
                    said => Ok(said != Said::Nothing),
                }
            }
            Action::Leave(at) => {
                let held = world.held.remove(at);
                self.write(world, Op::Leave(held))?;
                Ok(true)
            }
            Action::HolderDies(at) => {
                world.held.remove(at);
                Ok(true)
            }
            Action::Claim => self.claim(world),
            Action::Finish(at) => finish(world, at),
            Action::Fail(at) => {
                let is_running = world.calls[at].is_running();
                world.calls[at].phase = Phase::Failed;
                Ok(is_running)
            }
            Action::Hear(at) => self.hear(world, at),
            Action::GiveUp(at) => self.give_up(world, at),
            // If it has failed, that might as well have been before.
            Action::WaiterDies(at) => {
                let call = &mut world.calls[at];
                let waiter = call.waiter.take_if(|_| call.phase != Phase::Failed);
                Ok(waiter.is_some())
            }
            Action::Tidy => {
                let before = world.record;
                self.write(world, Op::Tidy)?;
                Ok(world.record != before)
            }
            Action::Forget(seq) => {
                self.write(world, Op::Forget(seq))?;
                Ok(true)
            }
            Action::Tick => self.tick(world),
        }
    }

    /// A transition of the record, written.
    fn write(&mut self, world: &mut World, op: Op) -> Result<Move, Broken> {
        let answer = self.records.ask(world.record, op);
        if !answer.is_balanced {
            return Err(Broken::LedgerOutOfBalance);
        }
        let replaced = self.records.facts(world.record).claim;
        let claim = self.records.facts(answer.record).claim;
        if let (Some(replaced), Some(claim)) = (replaced, claim)
            && replaced.0 != claim.0
        {
            return Err(Broken::ClaimOverLiveClaim);
        }
        world.record = answer.record;
        Ok(answer)
    }

    // ## Arrivals

    fn offer(&mut self, world: &mut World, value: Value) -> Result<bool, Broken> {
        let Some(left) = world.left[0].checked_sub(1) else {
            return Ok(false);
        };
        world.left[0] = left;
        let answer = self.write(world, Op::Offer(value))?;
        match answer.said {
            Said::Queued { seq } => world.told.hear(seq, value),
            Said::Known if !self.is_certain(world, value) => return Err(Broken::NoDuplicate),
            said => assert_eq!(said, Said::Known, "there is room for all of them"),
        }
        Ok(true)
    }

    /// Whether Laravel has this value of the proven caller's in the end, whatever becomes of what is under way.
    fn is_certain(&self, world: &World, value: Value) -> bool {
        let wanted = Some(says(value, value));
        let said = |other: Value| Some(says(value, other)).filter(|said| *said != Says::Nothing);
        let unsent = self.records.facts(world.record).unsent.iter();
        let unsent = unsent.filter(|(_, _, other)| said(*other).is_some()).max();
        let first = match unsent {
            Some((_, _, newest)) => said(*newest),
            None => Some(match qr_of(value).filter(|qr| *qr != Qr::Any) {
                Some(_) => Says::Qr(world.laravel.qr.value),
                None => Says::State(world.laravel.status.value),
            }),
        };
        let seq = unsent.map_or(0, |(seq, _, _)| *seq);
        // What is in the order and older than what is queued is over when that is sent.
        let running = world.calls.iter().filter(|call| {
            let is_before = call.is_claimed() && call.seq <= seq;
            call.is_running() && !is_before
        });
        // What is held was said before this one, and will be said after it.
        let held = world.held.iter().filter(|held| held.who == Who::Proven);
        let others = running
            .map(|call| call.value)
            .chain(held.map(|held| held.value));
        let mut others = others.filter_map(said);
        first == wanted && others.all(|other| Some(other) == wanted)
    }

    fn arrive(
        &mut self,
        world: &mut World,
        who: Who,
        value: Value,
        may_hold: bool,
    ) -> Result<bool, Broken> {
        let left = match who {
            Who::Proven => &mut world.left[1],
            Who::Stranger => &mut world.left[2],
        };
        let Some(fewer) = left.checked_sub(1) else {
            return Ok(false);
        };
        *left = fewer;
        let read = world.record;
        let answer = self.write(world, Op::Arrive(who, value, may_hold))?;
        let is_first = match answer.said {
            Said::Held { seq, before } => {
                world.held.push(Held {
                    seq,
                    who,
                    value,
                    before,
                    is_late: false,
                });
                false
            }
            Said::Begun(begun) => {
                let way = begun.way;
                leaves(world, (who, value), begun)?;
                // Where it need not wait, it makes no difference whether it may.
                if way != Way::Outside && !may_hold {
                    return Ok(false);
                }
                way != Way::Outside
            }
            _ => return Ok(false),
        };
        if who == Who::Proven && !is_first && !self.has_cause(read, u64::MAX) {
            return Err(Broken::HeldUpByStranger);
        }
        Ok(true)
    }

    /// Whether something that a proven caller may wait for is before this sequence.
    fn has_cause(&self, record: u32, seq: u64) -> bool {
        let facts = self.records.facts(record);
        let is_item = |claim: &(ClaimId, Who)| claim.0.epoch > 0;
        let claim = facts.claim.as_ref();
        let mut unsent = facts.unsent.iter();
        let mut places = facts.places.iter();
        claim.is_some_and(|claim| claim.1 == Who::Proven || is_item(claim))
            || unsent.any(|(other, _, _)| *other < seq)
            || places.any(|(other, who)| *other < seq && *who == Who::Proven)
    }

    // ## The dispatcher

    fn claim(&mut self, world: &mut World) -> Result<bool, Broken> {
        if world.is_dispatching() {
            return Ok(false);
        }
        let read = world.record;
        let answer = self.write(world, Op::Claim)?;
        match answer.said {
            Said::Claimed { seq, who, value } => {
                let call = Call {
                    seq,
                    who,
                    value,
                    way: match world.again.contains(&seq) {
                        true => Way::Again,
                        false => Way::Item,
                    },
                    phase: Phase::Sent,
                    left: CLAIM_TICKS,
                    passes: false,
                    waiter: Some(Waiter::Dispatcher),
                };
                send(world, call)?;
                Ok(true)
            }
            _ => {
                let due = self.records.facts(read).unsent.iter().min();
                let due = due.filter(|(_, who, _)| *who == Who::Proven);
                match due {
                    Some((seq, _, _)) if !self.has_cause(read, *seq) => {
                        Err(Broken::HeldUpByStranger)
                    }
                    _ => Ok(false),
                }
            }
        }
    }

    // ## Answers

    fn hear(&mut self, world: &mut World, at: usize) -> Result<bool, Broken> {
        let call = world.calls[at];
        let Some(waiter) = call.waiter.filter(|_| !call.is_running()) else {
            return Ok(false);
        };
        let is_taken = call.phase == Phase::Taken;
        let fated = match is_taken {
            true => Fated::Accepted,
            false => Fated::Refused,
        };
        let op = match waiter {
            Waiter::Dispatcher => Op::SettleItem {
                is_delivered: is_taken,
            },
            Waiter::Worker(through) => Op::SettleThrough(through, fated),
        };
        let answer = self.write(world, op)?;
        has_passed(world, at, answer.said == Said::Settled(true));
        // Outside the order it need not stay the last, unless it is to be said once more.
        let mut unsent = self.records.facts(world.record).unsent.iter();
        let is_queued = unsent.any(|(seq, _, _)| *seq == call.seq);
        if is_queued && call.way == Way::Outside {
            world.again.push(call.seq);
        }
        world.is_proven |= is_taken && call.who == Who::Stranger && waiter != Waiter::Dispatcher;
        let is_told = is_taken && call.who == Who::Proven && waiter != Waiter::Dispatcher;
        if is_told && (call.way != Way::Outside || is_queued) {
            world.told.hear(call.seq, call.value);
        }
        world.calls[at].waiter = None;
        Ok(true)
    }

    fn give_up(&mut self, world: &mut World, at: usize) -> Result<bool, Broken> {
        let call = &mut world.calls[at];
        match call.waiter.take_if(|_| call.phase != Phase::Failed) {
            None => Ok(false),
            // Of an item, as if the dispatcher had died: the claim stays and runs out.
            Some(Waiter::Dispatcher) => Ok(false),
            Some(Waiter::Worker(through)) => {
                let op = Op::SettleThrough(through, Fated::Unknown);
                let answer = self.write(world, op)?;
                has_passed(world, at, answer.said == Said::Settled(true));
                Ok(true)
            }
        }
    }

    fn tick(&mut self, world: &mut World) -> Result<bool, Broken> {
        // A request ends in time, and its worker hears of that, or is dead: T and L are what they are said to be.
        let is_due = |call: &Call| {
            let is_awaited = matches!(call.waiter, Some(Waiter::Worker(_)));
            call.left == 1 && (call.is_running() || is_awaited)
        };
        if world.calls.iter().any(is_due) {
            return Ok(false);
        }
        let before = world.clone();
        self.write(world, Op::Tick)?;
        for call in &mut world.calls {
            call.left = call.left.saturating_sub(1);
        }
        for held in &mut world.held {
            held.is_late = true;
        }
        Ok(*world != before)
    }
}

/// What an update says of the family of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Nothing,
    State(Option<Value>),
    Qr(Qr),
}

/// What `other` says of what `value` is about: the QR, or the state.
fn says(value: Value, other: Value) -> Says {
    match qr_of(value).filter(|qr| *qr != Qr::Any) {
        Some(_) => qr_of(other).map_or(Says::Nothing, Says::Qr),
        None => Says::State(Some(state_of(other))),
    }
}

/// A write-through leaves for Laravel, in the step in which its record is written.
fn leaves(world: &mut World, (who, value): (Who, Value), begun: Begun) -> Result<(), Broken> {
    let call = Call {
        seq: begun.seq,
        who,
        value,
        way: begun.way,
        phase: Phase::Sent,
        left: CLAIM_TICKS,
        passes: begun.is_ahead && begun.way == Way::Claimed,
        waiter: Some(Waiter::Worker(begun.through)),
    };
    send(world, call)
}

/// A call leaves: Laravel may be at work on it from now on, and so on nothing else that has, or had, the claim; nor on
/// another of a stranger's own.
fn send(world: &mut World, call: Call) -> Result<(), Broken> {
    let mut running = world.calls.iter().filter(|call| call.is_running());
    let is_overlap = running.any(|other| match call.way {
        Way::Item | Way::Again | Way::Claimed => other.is_claimed(),
        Way::Beside => other.way == Way::Beside && other.who == call.who,
        Way::Outside => false,
    });
    world.calls.push(call);
    match is_overlap {
        true => Err(Broken::Overlap),
        false => Ok(()),
    }
}

/// What goes before an older one of its own makes that superfluous by its end only: if its worker dies, nobody
/// has its body any more, and the older one, which alone the gateway was told of, is sent after it.
fn has_passed(world: &mut World, at: usize, is_settled: bool) {
    let call = &mut world.calls[at];
    if call.passes && is_settled {
        call.passes = false;
        if call.phase == Phase::Taken {
            world.taken_seq = world.taken_seq.max(call.seq);
        }
    }
}

/// Laravel has taken a request: here it shows what order it gets.
fn finish(world: &mut World, at: usize) -> Result<bool, Broken> {
    let call = world.calls[at];
    if call.phase != Phase::Sent {
        return Ok(false);
    }
    if call.is_in_order() {
        if call.seq < world.taken_seq {
            return Err(Broken::OlderAfterNewer);
        }
        if !call.passes {
            world.taken_seq = call.seq;
        }
    }
    world.laravel.take(call.seq, call.value, call.is_in_order());
    world.calls[at].phase = Phase::Taken;
    Ok(true)
}
