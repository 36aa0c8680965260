//! What the probe is asked, in the simulation and in a real Envoy alike: one request after the other, each with its
//! case, and what Laravel does to it.
//!
//! `harness/probe` is the module; `sim::probe` plays these steps on the simulated host, and a test plays them on the
//! real one and compares the transcripts.

/// The header that names a request's case.
pub const CASE: &str = "x-probe";

/// The module's configuration, as both hosts give it.
pub const CONFIGURATION: &str = "{\"probe\":true}";

/// How a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// With this body.
    Post(&'static str),
    /// Without a body.
    Get,
    /// With this body, and then the caller hangs up while it is held.
    AndHungUp(&'static str),
}

/// What becomes of it at Laravel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered.
    Answered,
    /// It takes longer than the request may.
    TooLate,
    /// The connection is closed once it is there, without a byte.
    Lost,
    /// Nothing listens.
    Refused,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its case.
    pub case: &'static str,
    /// How it comes.
    pub sent: Sent,
    /// What becomes of it.
    pub fate: Fate,
    /// The last line of its transcript begins with this, behind `probe: `.
    pub last: &'static str,
}

const fn post(case: &'static str, last: &'static str) -> Step {
    Step {
        case,
        sent: Sent::Post("0123456789"),
        fate: Fate::Answered,
        last,
    }
}

/// All of them, in order. Nothing listens any more at the last one.
pub const STEPS: [Step; 17] = [
    post("start", "start on_delete none.such"),
    post("headers", "headers on_delete none.such"),
    post("through", "through on_delete none.such"),
    post("pass", "pass on_delete none.such"),
    post("answer", "answer on_delete none.such"),
    post("held", "held on_delete none.such"),
    Step {
        sent: Sent::Get,
        ..post("bare", "bare on_delete none.such")
    },
    post("timer", "timer on_delete none.such"),
    post("reply", "reply on_delete none.such"),
    post("replace", "replaced on_delete none.such"),
    post("patch", "patch on_delete none.such"),
    post("queue", "queue on_delete none.such"),
    post("call", "call on_delete none.such"),
    Step {
        sent: Sent::AndHungUp("0123456789"),
        ..post("hangup", "gone on_tick effective root")
    },
    Step {
        fate: Fate::TooLate,
        ..post("slow", "slow on_delete none.such")
    },
    Step {
        fate: Fate::Lost,
        ..post("lost", "lost on_delete none.such")
    },
    Step {
        fate: Fate::Refused,
        ..post("refused", "refused on_delete none.such")
    },
];

/// The headers of a request besides what its way needs, and of Laravel's answers.
pub const HEADERS: [(&str, &[u8]); 5] = [
    ("x-one", b"1"),
    ("x-empty", b""),
    ("x-odd", &[0xff, b'a']),
    ("x-two", b"a"),
    ("x-two", b"b"),
];

/// Laravel's answer.
pub const ANSWER: &str = "{\"ok\":true}";

/// The transcript in a log: whatever stands before `probe: ` is its host's.
#[must_use]
pub fn transcript(log: &str) -> Vec<String> {
    let lines = log.lines().filter_map(|line| line.split_once("probe: "));
    lines.map(|(_, line)| line.trim_end().to_owned()).collect()
}
