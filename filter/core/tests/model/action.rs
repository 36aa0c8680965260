//! What can happen next, and how finely it is told.

use embudo_core::shard::Outcome;

use super::record::LAG_MAX;
use super::value::Value;

/// The stray request's place in [`super::state::State::requests`].
pub(crate) const STRAY: usize = 2;

/// Ticks by which somebody's clock is late.
pub(crate) type Lag = u8;

/// How far the steps of a compare-and-swap are taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grain {
    /// The clock and the get are one step, the put is another, anything may come between, and its VM may
    /// die there. A put whose token is old fails and starts again, with the time that it began with.
    Fine,
    /// All is one step, with a clock that is as late as it may be. A put that succeeds has nothing of
    /// anybody's between it and its get, so this is no less than `Fine`; and it is much smaller.
    Coarse,
}

/// D = W + T + L, in ticks: a claim lives two, and they are shared out in one of two ways. What is
/// called nothing is less than a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// W is nothing: a call leaves in the tick of its *t* or not at all, and is at Laravel in that tick
    /// and the next.
    LongCall,
    /// T + L is nothing: a call leaves up to a tick late, and ends in the tick in which it left.
    LongWindow,
}

/// One atomic step of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A worker receives an update and reads the record.
    Offer(usize, Value, Lag),
    /// A worker receives an update and dies of it; where the read is a step, it dies after that.
    Lose(Value),
    /// A worker writes, or finds that it must read again.
    WorkerPuts(usize),
    /// A worker's VM dies.
    WorkerDies(usize),
    /// A leader reads the record, to claim.
    Claim(usize, Lag),
    /// A leader reads the record, to drop what has expired and forget what is over.
    Visit(usize, Lag),
    /// A leader writes, or finds that it must read again.
    LeaderPuts(usize),
    /// The send check and the dispatch, which nothing can come between.
    Send(usize),
    /// Too late, or the lease is gone: the claim goes back.
    Unsend(usize, Lag),
    /// Laravel begins with a request. The third is the stray one.
    Begin(usize),
    /// Laravel has done what it says.
    Finish(usize),
    /// It never arrives, or Laravel drops it undone.
    Fail(usize),
    /// A leader hears a definite answer.
    Hear(usize, Outcome, Lag),
    /// A leader gives up waiting: a timeout, a reset.
    GiveUp(usize),
    /// A leader's VM dies.
    LeaderDies(usize),
    /// Time passes.
    Tick,
}

// === impl Scale ===

impl Scale {
    /// W.
    pub(crate) fn window_ticks(self) -> u8 {
        match self {
            Self::LongCall => 0,
            Self::LongWindow => 1,
        }
    }

    /// Ticks in which a request may be at Laravel.
    pub(crate) fn call_ticks(self) -> u8 {
        match self {
            Self::LongCall => 2,
            Self::LongWindow => 1,
        }
    }
}

// === impl Action ===

impl Action {
    /// Everything that could happen anywhere; a healthy world's next step is the first possible one of
    /// [`Action::healthy`].
    pub(crate) fn all(grain: Grain) -> Vec<Self> {
        let lag_max = if grain == Grain::Fine { 0 } else { LAG_MAX };
        let mut all = Self::healthy().to_vec();
        for who in 0..2 {
            for lag in 0..=lag_max {
                all.extend(Value::ALL.map(|value| Self::Offer(who, value, lag)));
                all.extend([
                    Self::Claim(who, lag),
                    Self::Visit(who, lag),
                    Self::Unsend(who, lag),
                ]);
                all.push(Self::Hear(who, Outcome::Delivered, lag));
                all.push(Self::Hear(who, Outcome::Failed, lag));
            }
            all.extend([Self::WorkerDies(who), Self::LeaderDies(who)]);
            all.extend([Self::Fail(who), Self::GiveUp(who)]);
        }
        all.push(Self::Fail(STRAY));
        if grain == Grain::Coarse {
            all.extend(Value::ALL.map(Self::Lose));
        }
        let mut known = Vec::new();
        all.retain(|action| {
            !known.contains(action) && {
                known.push(*action);
                true
            }
        });
        all
    }

    /// What happens where everybody does his work at once and Laravel is well, in order of precedence.
    pub(crate) fn healthy() -> [Self; 21] {
        [
            Self::WorkerPuts(0),
            Self::WorkerPuts(1),
            Self::Finish(0),
            Self::Finish(1),
            Self::Finish(STRAY),
            Self::Begin(0),
            Self::Begin(1),
            Self::Begin(STRAY),
            Self::LeaderPuts(0),
            Self::LeaderPuts(1),
            Self::Hear(0, Outcome::Delivered, 0),
            Self::Hear(1, Outcome::Delivered, 0),
            Self::Hear(0, Outcome::Failed, 0),
            Self::Hear(1, Outcome::Failed, 0),
            Self::Send(0),
            Self::Send(1),
            Self::Unsend(0, 0),
            Self::Unsend(1, 0),
            Self::Visit(0, 0),
            Self::Claim(0, 0),
            Self::Tick,
        ]
    }

    /// What it is, whoever does it.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Offer(..) => "a worker takes an update in",
            Self::WorkerPuts(_) => "a worker writes",
            Self::WorkerDies(_) | Self::Lose(_) => "a worker dies",
            Self::Claim(..) => "a leader claims",
            Self::Visit(..) => "a leader tidies up",
            Self::LeaderPuts(_) => "a leader writes",
            Self::Send(_) => "a leader sends",
            Self::Unsend(..) => "a leader gives a claim back",
            Self::Begin(_) => "Laravel begins",
            Self::Finish(_) => "Laravel takes an update",
            Self::Fail(_) => "Laravel fails",
            Self::Hear(_, Outcome::Delivered, _) => "a leader hears of a success",
            Self::Hear(..) => "a leader hears of a failure",
            Self::GiveUp(_) => "a leader hears of a timeout",
            Self::LeaderDies(_) => "a leader dies",
            Self::Tick => "time passes",
        }
    }
}
