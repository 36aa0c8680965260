//! What comes of a step, and what must not.

use embudo_core::shard::Outcome;

use super::action::{Action, Grain, Lag, Scale};
use super::mutation::Mutation;
use super::record::{Move, Op, Records, Said};
use super::state::{Leader, Phase, Request, State, Swap, Worker};
use super::value::{Qr, Value};
use super::world::{begin, orphan};

/// A rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    OlderAfterNewer,
    Overlap,
    ClaimOverLiveClaim,
    LedgerOutOfBalance,
    NoDuplicate,
    ExpiredUnderWay,
    LaravelEndsElsewhere,
    Stuck,
}

/// What came of an action.
pub(crate) enum Outcomes {
    /// It cannot happen here.
    Impossible,
    Next(State),
    Broken(Broken),
}

/// The protocol, or a mutation of it.
pub(crate) struct Protocol {
    pub(crate) records: Records,
    pub(crate) grain: Grain,
    pub(crate) scale: Scale,
    /// A name is given only after the one before it: QR B after QR A, `inactive` after `active`. The
    /// rules tell neither pair apart.
    pub(crate) names_in_order: bool,
    pub(super) mutation: Option<Mutation>,
}

// === impl Protocol ===

impl Protocol {
    pub(crate) fn new(grain: Grain, scale: Scale, mutation: Option<Mutation>) -> Self {
        Self {
            records: Records::new(scale, mutation),
            grain,
            scale,
            names_in_order: true,
            mutation,
        }
    }

    pub(crate) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Whether the two workers, and the two leaders, are to be told apart.
    pub(crate) fn actors_differ(&self) -> bool {
        self.is(Mutation::IntakePutsBlindly) || self.is(Mutation::DispatcherPutsBlindly)
    }

    /// One step, and the rules that hold of every state after it.
    pub(crate) fn step(&mut self, state: &State, action: Action) -> Outcomes {
        let mut next = *state;
        match self.act(&mut next, action) {
            Ok(false) => Outcomes::Impossible,
            Err(broken) => Outcomes::Broken(broken),
            Ok(true) => {
                let facts = self.records.facts(next.record);
                let leaders = next.leaders.iter_mut().filter_map(Leader::own_mut);
                leaders.for_each(|own| *own &= facts.has_claim);
                let early =
                    self.is(Mutation::AnswerBeforeWrite) && next.workers != [Worker::Idle; 2];
                let running = next.requests().iter().any(Request::is_running);
                let idle = !facts.pending && !running && !early;
                if idle && !next.laravel.is_what(&next.wanted) {
                    return Outcomes::Broken(Broken::LaravelEndsElsewhere);
                }
                Outcomes::Next(next)
            }
        }
    }

    fn act(&mut self, state: &mut State, action: Action) -> Result<bool, Broken> {
        match action {
            Action::Offer(who, value, lag) => self.offer(state, who, value, lag),
            // Lost ones are not "seen".
            Action::Lose(value) => {
                Ok(!self.is(Mutation::DuplicateOfAnythingSeen) && self.post(state, value))
            }
            Action::WorkerPuts(who) => self.worker_puts(state, who),
            Action::WorkerDies(who) => {
                let busy = state.workers[who] != Worker::Idle;
                state.workers[who] = Worker::Idle;
                Ok(busy)
            }
            Action::Claim(who, lag) => match state.leaders[who] {
                Leader::Idle => self.leader_reads(
                    state,
                    who,
                    Leader::Claiming {
                        swap: Swap::of(lag),
                    },
                ),
                _ => Ok(false),
            },
            Action::Visit(who, lag) => match state.leaders[who] {
                Leader::Idle if !self.is(Mutation::NothingExpires) => self.leader_reads(
                    state,
                    who,
                    Leader::Visiting {
                        swap: Swap::of(lag),
                    },
                ),
                _ => Ok(false),
            },
            Action::LeaderPuts(who) => self.leader_puts(state, who),
            Action::Send(who) => Ok(self.send(state, who)),
            Action::Unsend(who, lag) => match state.leaders[who] {
                Leader::Claimed { own, seq, .. } => {
                    self.settle(state, who, own, seq, Outcome::Unsent, lag)
                }
                _ => Ok(false),
            },
            Action::Begin(at) => begin(state, at),
            Action::Finish(at) => Ok(self.end(state, at, Phase::Taken)),
            Action::Fail(at) => Ok(self.end(state, at, Phase::Failed)),
            Action::Hear(who, outcome, lag) => self.hear(state, who, outcome, lag),
            Action::GiveUp(who) => self.give_up(state, who),
            Action::LeaderDies(who) => Ok(state.leaders[who] != Leader::Idle && orphan(state, who)),
            Action::Tick => Ok(self.tick(state)),
        }
    }

    // ## Workers

    fn offer(
        &mut self,
        state: &mut State,
        who: usize,
        value: Value,
        lag: Lag,
    ) -> Result<bool, Broken> {
        let seen = state.posted & 1 << value as u8 != 0;
        // Of two idle workers it does not matter which.
        let other = who == 1 && state.workers[0] == Worker::Idle;
        if other || state.workers[who] != Worker::Idle || !self.post(state, value) {
            return Ok(false);
        }
        if seen && self.is(Mutation::DuplicateOfAnythingSeen) {
            answered_at_once(state, value)?;
            return Ok(true);
        }
        if self.is(Mutation::AnswerBeforeWrite) {
            state.wanted.take(value);
        }
        self.worker_reads(state, who, value, lag)?;
        if self.grain == Grain::Coarse && state.workers[who] != Worker::Idle {
            return self.worker_puts(state, who);
        }
        Ok(true)
    }

    /// The gateway posts an update, if it may.
    fn post(&self, state: &mut State, value: Value) -> bool {
        let bit = |value: Value| 1 << value as u8;
        let early = match value {
            Value::QrB => state.posted & bit(Value::QrA) == 0,
            Value::Inactive => state.posted & bit(Value::Active) == 0,
            _ => false,
        };
        state.posted |= bit(value);
        let left = state.offers_left.checked_sub(1);
        state.offers_left = left.unwrap_or(0);
        left.is_some() && !(early && self.names_in_order)
    }

    /// A get, and the answers that need no put.
    fn worker_reads(
        &mut self,
        state: &mut State,
        who: usize,
        value: Value,
        lag: Lag,
    ) -> Result<(), Broken> {
        let answer = self.records.ask(state.record, Op::Offer(value), lag);
        state.workers[who] = match answer.write {
            Some(_) => Worker::Offering {
                value,
                swap: Swap { lag, stale: false },
            },
            None => {
                answered_at_once(state, value)?;
                Worker::Idle
            }
        };
        Ok(())
    }

    fn worker_puts(&mut self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let Worker::Offering { value, swap } = state.workers[who] else {
            return Ok(false);
        };
        let blind = self.is(Mutation::IntakePutsBlindly);
        if swap.stale && !blind {
            self.worker_reads(state, who, value, swap.lag)?;
            return Ok(true);
        }
        let read = if swap.stale {
            u32::from(state.snapshots[who])
        } else {
            state.record
        };
        let answer = self.records.ask(read, Op::Offer(value), swap.lag);
        state.workers[who] = Worker::Idle;
        match answer.said {
            Said::Queued if !self.is(Mutation::AnswerBeforeWrite) => state.wanted.take(value),
            Said::Duplicate => answered_at_once(state, value)?,
            _ => {}
        }
        self.write(state, who, answer)?;
        Ok(true)
    }

    // ## Leaders

    /// A get; false where there is nothing to write after all.
    fn leader_reads(
        &mut self,
        state: &mut State,
        who: usize,
        leader: Leader,
    ) -> Result<bool, Broken> {
        state.leaders[who] = leader;
        let answer = self.ask_for(state, who, state.record);
        if answer.is_none_or(|answer| answer.write.is_none()) {
            state.leaders[who] = Leader::Idle;
            return Ok(false);
        }
        match self.grain {
            Grain::Fine => Ok(true),
            Grain::Coarse => self.leader_puts(state, who),
        }
    }

    /// What the core says to a leader's compare-and-swap, from a record that it read.
    fn ask_for(&mut self, state: &State, who: usize, record: u32) -> Option<Move> {
        let (op, swap) = match state.leaders[who] {
            Leader::Claiming { swap } => (Op::Claim, swap),
            Leader::Visiting { swap } => (Op::Visit, swap),
            Leader::Settling {
                swap, outcome, own, ..
            } => (Op::Settle { own, outcome }, swap),
            Leader::Idle | Leader::Claimed { .. } | Leader::Waiting { .. } => return None,
        };
        Some(self.records.ask(record, op, swap.lag))
    }

    fn leader_puts(&mut self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let mut leader = state.leaders[who];
        let Some(swap) = leader.swap_mut() else {
            return Ok(false);
        };
        let blind = self.is(Mutation::DispatcherPutsBlindly);
        if swap.stale && !blind {
            swap.stale = false;
            self.leader_reads(state, who, leader)?;
            return Ok(true);
        }
        let (read, lag) = match swap.stale {
            true => (u32::from(state.snapshots[who]), swap.lag),
            false => (state.record, swap.lag),
        };
        let Some(answer) = self.ask_for(state, who, read) else {
            return Ok(false);
        };
        state.leaders[who] = Leader::Idle;
        self.write(state, 2 + who, answer)?;
        match answer.said {
            Said::Claimed { seq, value } => {
                if self.records.facts(read).has_live_claim {
                    return Err(Broken::ClaimOverLiveClaim);
                }
                let same = self.is(Mutation::ClaimNamedBySeq);
                for other in &mut state.leaders {
                    let keeps = same && other.seq() == seq;
                    if let Some(own) = other.own_mut() {
                        *own &= keeps;
                    }
                }
                let dated = if self.is(Mutation::WindowFromWrite) {
                    0
                } else {
                    lag
                };
                let age = dated.min(self.scale.window_ticks() + 1);
                state.leaders[who] = Leader::Claimed {
                    age,
                    seq,
                    value,
                    own: true,
                };
            }
            Said::Visited { qr_expired: true } => {
                let is_qr = |call: &Request| matches!(call.value, Some(Value::QrA | Value::QrB));
                let under_way = |call: &Request| call.is_running() && is_qr(call);
                // Where a mutation breaks the order of calls too, that is the story to tell.
                let tells = matches!(self.mutation, None | Some(Mutation::ExpireDespiteClaim));
                if tells && state.requests().iter().any(under_way) {
                    return Err(Broken::ExpiredUnderWay);
                }
                state.wanted.qr = Qr::Any;
            }
            _ => {}
        }
        Ok(true)
    }

    fn send(&mut self, state: &mut State, who: usize) -> bool {
        let Leader::Claimed {
            age,
            seq,
            value,
            own,
        } = state.leaders[who]
        else {
            return false;
        };
        if age > self.scale.window_ticks() && !self.is(Mutation::NoSendCheck) {
            return false;
        }
        let call = Request {
            phase: Phase::Sent,
            left: self.scale.call_ticks(),
            seq,
            value: Some(value),
        };
        state.leaders[who] = Leader::Waiting { call, own };
        let running = state
            .requests()
            .iter()
            .filter(|call| call.is_running())
            .count();
        assert!(
            running < 2 || self.mutation.is_some(),
            "one call of a session at a time: {state:?}"
        );
        true
    }

    fn hear(
        &mut self,
        state: &mut State,
        who: usize,
        outcome: Outcome,
        lag: Lag,
    ) -> Result<bool, Broken> {
        let Leader::Waiting { call, own } = state.leaders[who] else {
            return Ok(false);
        };
        // Laravel may fail after the fact; it cannot succeed before.
        let possible = match call.phase {
            Phase::Taken => true,
            Phase::Failed => outcome == Outcome::Failed,
            _ => false,
        };
        match possible {
            true => self.settle(state, who, own, call.seq, outcome, lag),
            false => Ok(false),
        }
    }

    // ## Unknown outcome: the claim stays
    fn give_up(&mut self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let Leader::Waiting { call, own } = state.leaders[who] else {
            return Ok(false);
        };
        if !orphan(state, who) {
            return Ok(false);
        }
        let outcome = match self.mutation {
            Some(Mutation::UnknownIsDefinite) => Outcome::Failed,
            Some(Mutation::UnknownIsDelivered) => Outcome::Delivered,
            _ => return Ok(true),
        };
        self.settle(state, who, own, call.seq, outcome, 0)
    }

    fn settle(
        &mut self,
        state: &mut State,
        who: usize,
        own: bool,
        seq: u8,
        outcome: Outcome,
        lag: Lag,
    ) -> Result<bool, Broken> {
        let seq = if self.is(Mutation::ClaimNamedBySeq) {
            seq
        } else {
            0
        };
        let swap = Swap::of(lag);
        self.leader_reads(
            state,
            who,
            Leader::Settling {
                swap,
                outcome,
                own,
                seq,
            },
        )?;
        Ok(true)
    }
}

/// An answer that says that Laravel has the value, or will.
fn answered_at_once(state: &mut State, value: Value) -> Result<(), Broken> {
    match state.wanted.has(value) {
        true => Ok(()),
        false => Err(Broken::NoDuplicate),
    }
}
