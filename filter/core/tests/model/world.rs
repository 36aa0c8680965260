//! What happens around the workers and leaders: the store, the clock, and Laravel.

use super::action::STRAY;
use super::mutation::Mutation;
use super::record::{LAG_MAX, Move, Op};
use super::state::{Leader, Phase, Request, State};
use super::step::{Broken, Protocol};

// === impl Protocol ===

impl Protocol {
    /// A put that succeeds. Everybody else who has read will fail.
    pub(super) fn write(
        &mut self,
        state: &mut State,
        who: usize,
        answer: Move,
    ) -> Result<(), Broken> {
        let Some(record) = answer.write else {
            return Ok(());
        };
        if !answer.balanced {
            return Err(Broken::LedgerOutOfBalance);
        }
        let blind = match self.mutation {
            Some(Mutation::IntakePutsBlindly) => Some(0),
            Some(Mutation::DispatcherPutsBlindly) => Some(2),
            _ => None,
        };
        let old = state.record;
        state.record = record;
        let mut snapshots = state.snapshots;
        for (at, swap) in state.swaps_mut().into_iter().enumerate() {
            let keeps = blind
                .and_then(|first| at.checked_sub(first))
                .filter(|at| *at < 2);
            if let Some(place) = keeps {
                match &swap {
                    Some(swap) if swap.stale => {}
                    Some(_) => snapshots[place] = u16::try_from(old).unwrap_or(u16::MAX),
                    None => snapshots[place] = 0,
                }
            }
            if let Some(swap) = swap.filter(|_| at != who) {
                swap.stale = true;
            }
        }
        state.snapshots = snapshots;
        Ok(())
    }

    /// Laravel is done with a request, one way or the other.
    pub(super) fn end(&mut self, state: &mut State, at: usize, how: Phase) -> bool {
        let call = state.requests()[at];
        let possible = match how {
            Phase::Taken => call.phase == Phase::Begun,
            _ => call.is_running(),
        };
        let Some(value) = call.value.filter(|_| possible) else {
            return false;
        };
        if how == Phase::Taken {
            state.laravel.take(value);
        }
        let seq = if self.is(Mutation::ClaimNamedBySeq) {
            call.seq
        } else {
            0
        };
        let phase = if at == STRAY { Phase::None } else { how };
        set_request(
            state,
            at,
            Request {
                phase,
                seq,
                ..Request::default()
            },
        );
        true
    }

    pub(super) fn tick(&mut self, state: &mut State) -> bool {
        // A request ends in time: T and L are what they are said to be.
        if state
            .requests()
            .iter()
            .any(|call| call.is_running() && call.left == 1)
        {
            return false;
        }
        for swap in state.swaps_mut().into_iter().flatten() {
            if swap.lag == LAG_MAX {
                return false;
            }
            swap.lag += 1;
        }
        let ticks = |protocol: &mut Self, record| {
            protocol
                .records
                .ask(record, Op::Tick, 0)
                .write
                .unwrap_or(record)
        };
        let before = *state;
        state.record = ticks(self, state.record);
        if self.actors_differ() {
            for snapshot in &mut state.snapshots {
                let ticked = ticks(self, u32::from(*snapshot));
                *snapshot = u16::try_from(ticked).unwrap_or(u16::MAX);
            }
        }
        let too_late = self.scale.window_ticks() + 1;
        for leader in &mut state.leaders {
            match leader {
                Leader::Claimed { age, .. } => *age = too_late.min(*age + 1),
                Leader::Waiting { call, .. } => call.left = call.left.saturating_sub(1),
                _ => {}
            }
        }
        state.stray.left = state.stray.left.saturating_sub(1);
        *state != before
    }
}

/// Laravel begins with a request: here it shows what order it gets.
pub(super) fn begin(state: &mut State, at: usize) -> Result<bool, Broken> {
    let call = state.requests()[at];
    if call.phase != Phase::Sent {
        return Ok(false);
    }
    if state
        .requests()
        .iter()
        .any(|other| other.phase == Phase::Begun)
    {
        return Err(Broken::Overlap);
    }
    if call.seq < state.begun_seq {
        return Err(Broken::OlderAfterNewer);
    }
    state.begun_seq = call.seq;
    set_request(
        state,
        at,
        Request {
            phase: Phase::Begun,
            ..call
        },
    );
    Ok(true)
}

fn set_request(state: &mut State, at: usize, request: Request) {
    match state.leaders.get_mut(at) {
        Some(Leader::Waiting { call, .. }) => *call = request,
        Some(_) => {}
        None => state.stray = request,
    }
}

/// A leader forgets what it was doing; its request, if there is one, goes on without it.
pub(super) fn orphan(state: &mut State, who: usize) -> bool {
    if let Leader::Waiting { call, .. } = state.leaders[who]
        && call.is_running()
    {
        // One is enough: of the protocol as it is, no second call runs beside a stray one.
        if state.stray.phase != Phase::None {
            return false;
        }
        state.stray = call;
    }
    state.leaders[who] = Leader::Idle;
    true
}
