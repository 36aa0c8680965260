//! A counterexample as a list of steps that a person can follow.

use std::fmt::Write as _;

use super::world::{Call, Held, Way, World};
use super::{Action, Broken, Outcomes, Protocol, Who};

/// One line a step, with the tick in which it happens.
pub(crate) fn tell(protocol: &mut Protocol, (broken, path): &(Broken, Vec<World>)) -> String {
    let mut story = String::new();
    let mut ticks = 0;
    for pair in path.windows(2) {
        let [world, then] = pair else { continue };
        let (actions, _) = protocol.actions(world);
        let action = actions.into_iter().find(
            |action| matches!(protocol.step(world, *action), Outcomes::Next(next) if next == *then),
        );
        let action = action.expect("a step that was found is possible");
        line(&mut story, ticks, &describe(world, action, Some(then)));
        ticks += u32::from(action == Action::Tick);
    }
    let last = path.last().expect("the first world at least");
    let (actions, _) = protocol.actions(last);
    let action = actions.into_iter().find(
        |action| matches!(protocol.step(last, *action), Outcomes::Broken(what) if what == *broken),
    );
    if let Some(action) = action {
        line(&mut story, ticks, &describe(last, action, None));
    }
    let _ = writeln!(story, "  ==> {}", moral(*broken));
    story
}

fn line(story: &mut String, ticks: u32, text: &str) {
    let _ = writeln!(story, "  t={ticks}  {text}");
}

fn moral(broken: Broken) -> &'static str {
    match broken {
        Broken::OlderAfterNewer => "Laravel takes an older update of the order after a newer one",
        Broken::Overlap => "Laravel may be at work on two updates of the order",
        Broken::ClaimOverLiveClaim => "a claim replaces one whose call may be at Laravel",
        Broken::LedgerOutOfBalance => "the ledger does not balance",
        Broken::NoDuplicate => "answered as known, but Laravel may have something else in the end",
        Broken::HeldUpByStranger => "the proven caller waits for nothing but a stranger",
        Broken::LaravelEndsElsewhere => "all is over, and Laravel has something older",
        Broken::Stuck => "what waits never ends, however well everybody is",
    }
}

fn describe(world: &World, action: Action, next: Option<&World>) -> String {
    let call = |at: usize| {
        let Call {
            seq,
            who,
            value,
            way,
            ..
        } = world.calls[at];
        format!("{way:?} {seq} (\"{}\", {})", value.name(), name(who))
    };
    let held = |at: usize| {
        let Held {
            seq, who, value, ..
        } = world.held[at];
        format!(
            "the held request {seq} (\"{}\", {})",
            value.name(),
            name(who)
        )
    };
    let ways = |next: Option<&World>| {
        let mut calls = next.map(|next| next.calls.iter()).into_iter().flatten();
        let new = calls.find(|call| !world.calls.iter().any(|old| old.seq == call.seq));
        new.map(|call| match call.way {
            Way::Item | Way::Again => "and sends it",
            Way::Claimed => "and leaves with the claim",
            Way::Beside => "and leaves beside the claim",
            Way::Outside => "and leaves outside the order",
        })
    };
    match action {
        Action::Offer(value) => match next {
            Some(next) if next.told != world.told => format!("\"{}\" is queued", value.name()),
            _ => format!("\"{}\" is answered as known", value.name()),
        },
        Action::Arrive(who, value, may_hold) => format!(
            "\"{}\" of {} is to be written through{}, {}",
            value.name(),
            name(who),
            if may_hold {
                ""
            } else {
                " (no room to hold it)"
            },
            ways(next).unwrap_or("and is held")
        ),
        Action::Turn(at) => format!(
            "it is the turn of {}, {}",
            held(at),
            ways(next).unwrap_or("and leaves")
        ),
        Action::Queue(at) => format!("{} is queued in its place", held(at)),
        Action::Leave(at) => format!("the caller of {} hangs up", held(at)),
        Action::HolderDies(at) => format!("the worker of {} dies", held(at)),
        Action::Claim => format!(
            "the dispatcher claims, {}",
            ways(next).unwrap_or("or would")
        ),
        Action::Finish(at) => format!("Laravel has taken {}", call(at)),
        Action::Fail(at) => format!("Laravel never takes {}", call(at)),
        Action::Hear(at) => format!("the answer to {} is heard", call(at)),
        Action::GiveUp(at) => format!("{} is given up", call(at)),
        Action::WaiterDies(at) => format!("whoever waits for {} dies", call(at)),
        Action::Tidy => "what is over is forgotten".into(),
        Action::Forget(seq) => format!("the place {seq} is forgotten"),
        Action::Tick => "time passes".into(),
    }
}

fn name(who: Who) -> &'static str {
    match who {
        Who::Proven => "the proven caller",
        Who::Stranger => "the stranger",
    }
}

// === impl Action ===

impl Action {
    /// What it is, whoever does it.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Offer(_) => "an update is offered",
            Self::Arrive(Who::Proven, ..) => "one of the proven caller's is written through",
            Self::Arrive(Who::Stranger, ..) => "one of the stranger's is written through",
            Self::Turn(_) => "a held one gets its turn",
            Self::Queue(_) => "a held one is queued",
            Self::Leave(_) => "the caller of a held one hangs up",
            Self::HolderDies(_) => "the worker of a held one dies",
            Self::Claim => "the dispatcher claims",
            Self::Finish(_) => "Laravel takes an update",
            Self::Fail(_) => "Laravel fails",
            Self::Hear(_) => "an answer is heard",
            Self::GiveUp(_) => "a write-through is given up",
            Self::WaiterDies(_) => "whoever waits dies",
            Self::Tidy => "what is over is forgotten",
            Self::Forget(_) => "a place is forgotten",
            Self::Tick => "time passes",
        }
    }
}
