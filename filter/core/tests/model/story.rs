//! A counterexample as a list of steps that a person can follow.

use std::fmt::Write as _;

use embudo_core::shard::Outcome;

use super::action::Action;
use super::explore::Counterexample;
use super::state::{Leader, Phase, State, Worker};
use super::step::{Broken, Outcomes, Protocol};
use super::value::Value;

/// One line a step, with the tick in which it happens.
pub(crate) fn tell(protocol: &mut Protocol, offers: u8, found: &Counterexample) -> String {
    let differ = protocol.actors_differ();
    let mut story = String::new();
    let mut ticks = 0;
    let mut state = State::first(offers);
    for key in &found.path[1..] {
        // States were kept without their actors' names; the replay gives everybody his own.
        let taken = Action::all(protocol.grain).into_iter().find_map(|action| {
            match protocol.step(&state, action) {
                Outcomes::Next(next) if next.pack(differ) == *key => Some((action, next)),
                _ => None,
            }
        });
        let (action, next) = taken.expect("a step that was found is possible");
        line(&mut story, ticks, &describe(&state, action, Some(&next)));
        ticks += u32::from(action == Action::Tick);
        state = next;
    }
    let last = Action::all(protocol.grain).into_iter().find(|action| {
        matches!(protocol.step(&state, *action), Outcomes::Broken(broken) if broken == found.broken)
    });
    if let Some(action) = last {
        line(&mut story, ticks, &describe(&state, action, None));
    }
    let _ = writeln!(story, "  ==> {}", moral(found.broken));
    if found.broken == Broken::LaravelEndsElsewhere {
        let text = |value: Option<Value>| value.map_or("no state", Value::name);
        let (wanted, laravel) = (state.wanted, state.laravel);
        let _ = writeln!(
            story,
            "      the gateway: {}, QR {:?}; Laravel: {}, QR {:?}",
            text(wanted.status),
            wanted.qr,
            text(laravel.status),
            laravel.qr,
        );
    }
    story
}

fn line(story: &mut String, ticks: u32, text: &str) {
    let _ = writeln!(story, "  t={ticks}  {text}");
}

fn moral(broken: Broken) -> &'static str {
    match broken {
        Broken::OlderAfterNewer => "Laravel begins an older update after a newer one",
        Broken::Overlap => "Laravel is at work on two updates of one session",
        Broken::ClaimOverLiveClaim => "a claim replaces one whose call may be at Laravel",
        Broken::LedgerOutOfBalance => "the ledger does not balance",
        Broken::NoDuplicate => "answered as known, but Laravel neither has it nor will get it",
        Broken::ExpiredUnderWay => "counted as expired while Laravel is at work on it",
        Broken::LaravelEndsElsewhere => "nothing is pending, and Laravel has something else",
        Broken::Stuck => "what is pending never ends, however well everybody is",
    }
}

fn describe(state: &State, action: Action, next: Option<&State>) -> String {
    let late = match action {
        Action::Offer(_, _, lag)
        | Action::Claim(_, lag)
        | Action::Visit(_, lag)
        | Action::Unsend(_, lag)
        | Action::Hear(_, _, lag)
            if lag > 0 =>
        {
            format!(" (its clock is {lag} late)")
        }
        _ => String::new(),
    };
    describe_in_time(state, action, next) + &late
}

fn describe_in_time(state: &State, action: Action, next: Option<&State>) -> String {
    let worker = |who: usize| format!("worker {}", who + 1);
    let leader = |who: usize| format!("leader {}", who + 1);
    let request = |at: usize| {
        let call = state.requests()[at];
        let whose = if at < 2 {
            leader(at)
        } else {
            "a caller that is gone".into()
        };
        let value = call.value.map_or("?", |value| value.name());
        format!("update {} ({value}) of {whose}", call.seq)
    };
    match action {
        Action::Offer(who, value, _) => {
            let end = match next {
                Some(next) if next.workers[who] != Worker::Idle => "reads the record",
                Some(next) if next.record != state.record => "writes it, and answers",
                Some(_) => "finds it known, and answers",
                None => "answers",
            };
            format!("{} gets \"{}\", {end}", worker(who), value.name())
        }
        Action::WorkerPuts(who) => match (state.workers[who], next.map(|next| next.workers[who])) {
            (Worker::Offering { value, .. }, None | Some(Worker::Idle)) => {
                format!("{} writes \"{}\", and answers", worker(who), value.name())
            }
            _ => format!("{} loses the race, and reads again", worker(who)),
        },
        Action::Lose(value) => format!("a worker gets \"{}\", and dies", value.name()),
        Action::WorkerDies(who) => format!("{} dies", worker(who)),
        Action::Claim(who, _) => format!("{} reads the record, to claim", leader(who)),
        Action::Visit(who, _) => format!("{} reads the record, to tidy up", leader(who)),
        Action::LeaderPuts(who) => match (state.leaders[who], next.map(|next| next.leaders[who])) {
            (_, Some(Leader::Claimed { seq, value, .. })) => {
                format!(
                    "{} has claimed update {seq} ({})",
                    leader(who),
                    value.name()
                )
            }
            (Leader::Claiming { .. }, None) => format!("{} claims", leader(who)),
            (Leader::Settling { outcome, .. }, None | Some(Leader::Idle)) => {
                format!("{} settles: {outcome:?}", leader(who))
            }
            (Leader::Visiting { .. }, None | Some(Leader::Idle)) => {
                format!("{} drops what has expired or is over", leader(who))
            }
            _ => format!("{} loses the race and reads again", leader(who)),
        },
        Action::Send(who) => format!("{} sends", leader(who)),
        Action::Unsend(who, _) => format!("{} does not send, and reads the record", leader(who)),
        Action::Begin(at) => format!("Laravel begins with {}", request(at)),
        Action::Finish(at) => format!("Laravel has taken {}", request(at)),
        Action::Fail(at) => format!("Laravel never takes {}", request(at)),
        Action::Hear(who, outcome, _) => {
            let what = if outcome == Outcome::Delivered {
                "a success"
            } else {
                "a failure"
            };
            format!("{} hears of {what}, and reads the record", leader(who))
        }
        Action::GiveUp(who) => {
            let running = state.requests()[who].phase != Phase::Taken;
            let rest = if running { "; the request goes on" } else { "" };
            format!("{} hears of a timeout{rest}", leader(who))
        }
        Action::LeaderDies(who) => format!("{} dies", leader(who)),
        Action::Tick => "time passes".into(),
    }
}
