//! What goes wrong, as verbs with a time.

use rand::{Rng, RngExt};

use super::scenario::pick;
use crate::model::laravel::{Misbehaviour, Proxy, RetryAfter};

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// When it begins, ms since the start.
    pub at_ms: u64,
    /// How long it lasts; 0 for what happens once.
    pub for_ms: u64,
    /// What.
    pub verb: Verb,
}

/// Ways of going wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// Laravel does this to requests, with this probability.
    Laravel(Misbehaviour, f64),
    /// Laravel does this to batches, with this probability.
    Batches(Misbehaviour, f64),
    /// The webhook does this to events, with this probability.
    Webhook(Misbehaviour, f64),
    /// Nothing listens on the webhook's port.
    WebhookRefuses,
    /// The webhook's cluster is not there.
    NoWebhook,
    /// Nothing listens on Laravel's port.
    Refuse,
    /// Envoy tries again: what is tried first reaches Laravel, whose answer is lost, and the second try is refused.
    /// The text tells of the last try alone.
    Retry,
    /// The cluster's one host is ejected.
    Eject,
    /// The cluster is not there.
    NoCluster,
    /// The wall clock steps.
    WallStep {
        /// Milliseconds.
        by_ms: i64,
    },
    /// A VM traps at a host call.
    Trap {
        /// Whose.
        who: Who,
        /// In which callback.
        when: When,
        /// At its how manieth host call, from 1.
        at_call: u32,
    },
    /// A thread does not run for a while, in the middle of a callback.
    Stall {
        /// Which.
        who: Who,
        /// In which callback.
        when: When,
        /// Before which of its host calls, from 1.
        at_call: u32,
        /// For how long.
        ms: u64,
    },
    /// The listener is updated with another configuration; the old one drains this much later.
    Update {
        /// Milliseconds.
        drain_ms: u64,
    },
    /// Two configurations alternate: an update to another one, and soon after it back to the first, byte for byte,
    /// so often.
    Alternate {
        /// Updates.
        times: u32,
        /// From one to the next, milliseconds; the old listener drains after as much.
        every_ms: u64,
    },
    /// So many wake-ups of the doorbell are lost.
    LoseRings {
        /// How many.
        rings: u32,
    },
}

/// Whose thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The leader's, at that moment.
    Leader,
    /// This one; 0 is the main thread.
    Thread(usize),
}

/// In which callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The next one, whichever it is.
    Any,
    /// The next request.
    Request,
    /// The next tick.
    Tick,
    /// The next answer to a call.
    Answer,
    /// The next doorbell.
    Doorbell,
}

/// The longest that Laravel asks to be left alone, seconds.
pub(super) const RETRY_AFTER_MAX_S: u64 = 3;

/// Kinds of trouble that a seed may know.
const KINDS: usize = 13;

/// The faults of a run. A seed first draws how much it likes each kind.
pub(super) fn draw(
    dice: &mut impl Rng,
    traffic_ms: u64,
    call_timeout_ms: u64,
    late_ms: u64,
) -> Vec<Fault> {
    let weights: Vec<f64> = (0..KINDS)
        .map(|_| match dice.random_bool(0.5) {
            true => 0.0,
            false => dice.random_range(0.1..1.0),
        })
        .collect();
    let total: f64 = weights.iter().sum();
    let count = dice.random_range(1..=10);
    let mut faults = Vec::new();
    for _ in 0..count {
        let mut left = dice.random_range(0.0..total.max(0.001));
        let kind = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        let at_ms = dice.random_range(1_000..traffic_ms * 9 / 10);
        let for_ms = *pick(dice, &[200, 1_000, 4_000, 10_000]);
        let for_ms = for_ms.min(traffic_ms - at_ms);
        let (verb, lasts) = verb(dice, kind.unwrap_or(0), call_timeout_ms, late_ms);
        faults.push(Fault {
            at_ms,
            for_ms: if lasts { for_ms } else { 0 },
            verb,
        });
    }
    if dice.random_bool(0.3) {
        faults.extend(zombie(dice, traffic_ms, call_timeout_ms, late_ms));
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// More of what Laravel answers to batches: the sign-in page, a session that ran out, a credential that does
/// not count any more, a page for everything, and a moment to come back at. Few runs know them, and these
/// know little else of their kind.
pub(super) fn draw_verdicts(dice: &mut impl Rng, traffic_ms: u64, faults: &mut Vec<Fault>) {
    if dice.random_bool(0.7) {
        return;
    }
    // A date is worth what the clocks agree on, and a clock that steps by a day agrees with nobody's.
    let steps = |fault: &Fault| matches!(fault.verb, Verb::WallStep { .. });
    let may_date = !faults.iter().any(steps);
    for _ in 0..dice.random_range(1..=2) {
        let refusals = [302, 401, 403, 405, 419];
        let what = match dice.random_range(0..4) {
            0 => Misbehaviour::Throttled {
                retry_after_s: dice.random_range(0..=RETRY_AFTER_MAX_S),
                retry_after: match may_date {
                    true => RetryAfter::Date,
                    false => RetryAfter::Seconds,
                },
            },
            1 => Misbehaviour::page(200),
            2 => Misbehaviour::Partly {
                one_in: dice.random_range(1..=3),
                status: (*pick(dice, &["error", "500", "404", "409", "429"])).to_owned(),
            },
            _ => Misbehaviour::status(*pick(dice, &refusals)),
        };
        let probability = *pick(dice, &[0.2, 0.5, 1.0]);
        faults.push(lasting(dice, traffic_ms, Verb::Batches(what, probability)));
    }
    faults.sort_by_key(|fault| fault.at_ms);
}

/// What a proxy before Laravel says in its stead, tries that hide others, configurations that alternate, and a clock
/// that is set back. Half of the runs know any of it.
pub(super) fn draw_proxies(dice: &mut impl Rng, traffic_ms: u64, faults: &mut Vec<Fault>) {
    if dice.random_bool(0.5) {
        return;
    }
    for _ in 0..dice.random_range(1..=3) {
        let probability = *pick(dice, &[0.3, 1.0, 1.0]);
        let verb = match dice.random_range(0..10) {
            0..=3 => {
                let says = *pick(dice, &PROXIES);
                // Who lost the answer may have lost it behind the work.
                let unknown = matches!(
                    says,
                    Proxy::EnvoyLost
                        | Proxy::EnvoyTimeout
                        | Proxy::EnvoyRetried
                        | Proxy::EnvoyProtocol
                        | Proxy::Nginx(502 | 504)
                        | Proxy::Cloudflare(_)
                );
                let processed = unknown && dice.random_bool(0.5);
                let what = Misbehaviour::Proxy { says, processed };
                match dice.random_bool(0.3) {
                    true => Verb::Batches(what, probability),
                    false => Verb::Laravel(what, probability),
                }
            }
            4 | 5 => {
                let code = *pick(dice, &[200, 302, 403, 404]);
                let what = Misbehaviour::Page {
                    code,
                    location: None,
                };
                Verb::Laravel(what, probability)
            }
            6 | 7 => Verb::Retry,
            8 => {
                let verb = Verb::Alternate {
                    times: dice.random_range(2..=5),
                    every_ms: *pick(dice, &[200, 1_000, 3_000]),
                };
                let at_ms = dice.random_range(1_000..traffic_ms * 9 / 10);
                faults.push(Fault {
                    at_ms,
                    for_ms: 0,
                    verb,
                });
                continue;
            }
            _ => {
                let at_ms = dice.random_range(1_000..traffic_ms * 9 / 10);
                faults.push(Fault {
                    at_ms,
                    for_ms: 0,
                    verb: Verb::WallStep { by_ms: -600_000 },
                });
                continue;
            }
        };
        faults.push(lasting(dice, traffic_ms, verb));
    }
    faults.sort_by_key(|fault| fault.at_ms);
}

/// What proxies say in the swarm.
const PROXIES: [Proxy; 14] = [
    Proxy::EnvoyRefused,
    Proxy::EnvoyLost,
    Proxy::EnvoyTimeout,
    Proxy::EnvoyRetried,
    Proxy::EnvoyNoHost,
    Proxy::EnvoyOverflow,
    Proxy::EnvoyProtocol,
    Proxy::EnvoyOverloaded,
    Proxy::Nginx(403),
    Proxy::Nginx(404),
    Proxy::Nginx(502),
    Proxy::Nginx(504),
    Proxy::Cloudflare(520),
    Proxy::Cloudflare(524),
];

/// What goes wrong with the webhook.
pub(super) fn draw_webhook(dice: &mut impl Rng, traffic_ms: u64) -> Vec<Fault> {
    let count = dice.random_range(1..=3);
    let drawn = (0..count).map(|_| {
        let probability = *pick(dice, &[0.3, 1.0]);
        let verb = match dice.random_range(0..7) {
            0 => Verb::Webhook(Misbehaviour::status(500), probability),
            1 => Verb::Webhook(Misbehaviour::status(404), probability),
            2 => {
                let finish_after_ms = dice.random_range(100..=5_000);
                Verb::Webhook(Misbehaviour::Hang { finish_after_ms }, probability)
            }
            3 => {
                let ms = dice.random_range(50..=3_000);
                Verb::Webhook(Misbehaviour::Slow { ms }, probability)
            }
            4 => {
                let (after_bytes, processed) = (*pick(dice, &[0, 3]), true);
                let what = Misbehaviour::Reset {
                    after_bytes,
                    processed,
                };
                Verb::Webhook(what, probability)
            }
            5 => Verb::WebhookRefuses,
            _ => Verb::NoWebhook,
        };
        lasting(dice, traffic_ms, verb)
    });
    drawn.collect()
}

fn lasting(dice: &mut impl Rng, traffic_ms: u64, verb: Verb) -> Fault {
    let at_ms = dice.random_range(1_000..traffic_ms * 9 / 10);
    let for_ms = *pick(dice, &[200, 1_000, 4_000, 10_000]);
    Fault {
        at_ms,
        for_ms: for_ms.min(traffic_ms - at_ms),
        verb,
    }
}

/// Troubles that come together: Laravel is slow, and the leader sleeps over its claims, or dies with its
/// calls under way. What comes of its answers then is what claims are for.
fn zombie(dice: &mut impl Rng, traffic_ms: u64, call_timeout_ms: u64, late_ms: u64) -> [Fault; 2] {
    let at_ms = dice.random_range(1_000..traffic_ms / 2);
    let slow = Fault {
        at_ms,
        for_ms: (traffic_ms - at_ms).min(15_000),
        verb: Verb::Laravel(
            Misbehaviour::Slow {
                ms: dice.random_range(call_timeout_ms / 4..=call_timeout_ms * 9 / 10),
            },
            1.0,
        ),
    };
    let who = Who::Leader;
    let when = *pick(dice, &[When::Answer, When::Answer, When::Tick]);
    let at_call = dice.random_range(1..=12);
    let claim_ms = call_timeout_ms + late_ms;
    let verb = match dice.random_bool(0.7) {
        true => Verb::Stall {
            who,
            when,
            at_call,
            ms: dice.random_range(claim_ms..=2 * claim_ms + 3_000),
        },
        false => Verb::Trap { who, when, at_call },
    };
    let sleep = Fault {
        at_ms: at_ms + dice.random_range(100..=2_000),
        for_ms: 0,
        verb,
    };
    [slow, sleep]
}

/// A verb of a kind, and whether it lasts.
fn verb(dice: &mut impl Rng, kind: usize, call_timeout_ms: u64, late_ms: u64) -> (Verb, bool) {
    let probability = *pick(dice, &[0.2, 0.5, 1.0]);
    let laravel = |what| (Verb::Laravel(what, probability), true);
    let most_ms = call_timeout_ms + late_ms;
    match kind {
        0 => laravel(Misbehaviour::Slow {
            ms: dice.random_range(50..=most_ms),
        }),
        1 => laravel(Misbehaviour::Hang {
            finish_after_ms: dice.random_range(call_timeout_ms / 2..=most_ms),
        }),
        2 => laravel(Misbehaviour::Status {
            code: *pick(dice, &[500, 502, 503, 504, 408]),
            headers: Vec::new(),
            body: "{\"message\":\"Server Error\"}".to_owned(),
            processed: dice.random_bool(0.3),
        }),
        3 => laravel(match dice.random_bool(0.5) {
            true => Misbehaviour::throttled(dice.random_range(0..=RETRY_AFTER_MAX_S)),
            false => Misbehaviour::status(*pick(dice, &[422, 413, 404, 403, 302])),
        }),
        4 => laravel(Misbehaviour::Reset {
            after_bytes: *pick(dice, &[0, 7]),
            processed: dice.random_bool(0.5),
        }),
        5 => (Verb::Refuse, true),
        6 => (Verb::Eject, true),
        7 if dice.random_bool(0.3) => (Verb::NoCluster, true),
        7 | 8 => {
            let by_ms = *pick(dice, &[-3_600_000, -2_000, -1, 1, 5_000, 86_400_000]);
            (Verb::WallStep { by_ms }, false)
        }
        9 => {
            let (who, when) = (who(dice), when(dice));
            let at_call = dice.random_range(1..=30);
            (Verb::Trap { who, when, at_call }, false)
        }
        10 => {
            let (who, when) = (who(dice), when(dice));
            let at_call = dice.random_range(1..=30);
            let ms = *pick(dice, &[5, 100, 900, 2_000, 5_000, 12_000]);
            let verb = Verb::Stall {
                who,
                when,
                at_call,
                ms,
            };
            (verb, false)
        }
        11 => {
            let drain_ms = *pick(dice, &[500, 3_000, 10_000]);
            (Verb::Update { drain_ms }, false)
        }
        _ => {
            let rings = dice.random_range(1..=5);
            (Verb::LoseRings { rings }, false)
        }
    }
}

fn who(dice: &mut impl Rng) -> Who {
    match dice.random_bool(0.6) {
        true => Who::Leader,
        false => Who::Thread(dice.random_range(0..=3)),
    }
}

fn when(dice: &mut impl Rng) -> When {
    *pick(
        dice,
        &[
            When::Any,
            When::Request,
            When::Tick,
            When::Tick,
            When::Answer,
            When::Doorbell,
        ],
    )
}

// === impl Fault ===

impl Fault {
    /// When it is over.
    #[must_use]
    pub fn ends_ms(&self) -> u64 {
        let more_ms = match &self.verb {
            Verb::Stall { ms, .. } => *ms,
            Verb::Update { drain_ms } => *drain_ms,
            Verb::Alternate { times, every_ms } => (u64::from(*times) + 1) * every_ms,
            _ => 0,
        };
        self.at_ms + self.for_ms + more_ms
    }
}

// === impl Verb ===

impl Verb {
    /// The kind, for the summary.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Laravel(what, _) | Self::Batches(what, _) => match what {
                Misbehaviour::Slow { .. } => "slow",
                Misbehaviour::Hang { .. } => "hang",
                Misbehaviour::Throttled { .. } | Misbehaviour::Status { code: 429, .. } => {
                    "throttled"
                }
                Misbehaviour::Status { code: 500.., .. } => "5xx",
                Misbehaviour::Status { code: 200, .. } => "page",
                Misbehaviour::Status { .. } => "refused",
                Misbehaviour::Reset { .. } => "reset",
                Misbehaviour::Partly { .. } => "partly taken",
                Misbehaviour::Proxy { .. } => "a proxy answers",
                Misbehaviour::Page { .. } => "a page",
                Misbehaviour::Headers { .. } => "many headers",
            },
            Self::Webhook(..) => "webhook fails",
            Self::WebhookRefuses => "webhook refuses",
            Self::NoWebhook => "no webhook",
            Self::Refuse => "connection refused",
            Self::Retry => "retried",
            Self::Eject => "ejected",
            Self::NoCluster => "no cluster",
            Self::WallStep { .. } => "wall step",
            Self::Trap { .. } => "trap",
            Self::Stall { .. } => "stall",
            Self::Update { .. } => "listener update",
            Self::Alternate { .. } => "alternating configurations",
            Self::LoseRings { .. } => "lost rings",
        }
    }
}
