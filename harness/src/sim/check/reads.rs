//! Status reads: what a caller is shown of a session's state.
//!
//! Laravel's model marks every answer to a read, so a body that is shown later, from the store, says itself
//! when Laravel gave it, and to whom. The checker keeps each of them and what was in force at Laravel then.

use serde_json::Value;

use super::answers::Asked;
use super::history::{Accepted, Fate, History};
use super::{Checker, Clock, Invariant, Transition};
use crate::model::http::Request;
use crate::sim::host::Relayed;

/// How old a body may be that is shown from the store; ms.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct ReadLimits {
    /// As it is.
    pub(in crate::sim) refresh_ms: u64,
    /// So much longer, while Laravel fails.
    pub(in crate::sim) stale_if_error_ms: u64,
}

/// Both ends look at clocks of whole milliseconds.
const CLOCK_SLACK_MS: u64 = 2;

/// A read under way.
#[derive(Clone, Debug)]
pub(super) struct Read {
    /// The session's name.
    name: String,
    /// The caller's credential; empty for none.
    token: String,
    no_cache: bool,
    /// How Laravel answered this very read, if it did.
    status: Option<u16>,
}

/// A body as Laravel gave it.
#[derive(Clone, Debug)]
pub(super) struct Served {
    name: String,
    token: String,
    body: String,
    state: String,
    /// The update in force at Laravel then; 0 for none that came through Embudo.
    effect_seq: u64,
    /// When the filter was through with it; µs.
    relayed_us: Option<u64>,
}

/// A caller's credential, as these runs have them.
pub(super) fn token_of(request: &Request) -> String {
    let token = request.header("authorization").unwrap_or("");
    match request.header("resource-owner") {
        // As good as another credential: it tells callers apart.
        Some(owner) => format!("{token} {owner}"),
        None => token.to_owned(),
    }
}

/// A read of this path.
pub(super) fn read_of(request: &Request) -> Option<Read> {
    let name = request.path.strip_prefix("/api/whatsapp/status/")?;
    (request.method == "GET").then(|| Read {
        name: name.to_owned(),
        token: token_of(request),
        no_cache: request.header("cache-control") == Some("no-cache"),
        status: None,
    })
}

/// Whether a read was under way for so long that what it must show, or something newer, was delivered in the
/// meantime, and then gave way to an update that Laravel refused. Neither is remembered: what Laravel said
/// stands.
fn forgets(history: &History, floor: u64, begun_us: u64) -> bool {
    let ended = |fate: Fate| {
        let all = history.accepted.iter();
        let since = all.filter(move |update| update.fate == fate && update.ended_us > begun_us);
        since.map(|update| update.seq)
    };
    let delivered = ended(Fate::Delivered).filter(|seq| *seq >= floor).min();
    let refused = ended(Fate::Rejected).max();
    delivered.is_some_and(|delivered| refused > Some(delivered))
}

/// Whether Laravel had something newer, and then took what had failed alone, or was of a refused caller, and was passed
/// over, or another caller's that an unproven one had gone beside: that is its own word now.
fn came_late(history: &History, effect_seq: u64, floor: u64, begun_us: u64) -> bool {
    let delivered = |seq: u64, how: &dyn Fn(&Accepted) -> bool| {
        let mut all = history.accepted.iter();
        all.any(|update| update.seq == seq && update.fate == Fate::Delivered && how(update))
    };
    effect_seq < floor
        && (delivered(effect_seq, &|update| update.passed_over)
            || delivered(floor, &|update| update.beside))
        && delivered(floor, &|update| update.ended_us < begun_us)
}

// === impl ReadLimits ===

impl ReadLimits {
    /// Those of a configuration; half an hour each where it says nothing.
    pub(in crate::sim) fn of(config: &Value) -> Self {
        let ms = |key: &str| config[key].as_u64().unwrap_or(1_800_000);
        Self {
            refresh_ms: ms("read_refresh_ms"),
            stale_if_error_ms: ms("stale_if_error_ms"),
        }
    }
}

// === impl Served ===

impl Served {
    /// Whether this is the same body but for the state: in the place that the rule names first, or in all
    /// that it names.
    fn is_shown_as(&self, state: &str, body: &[u8]) -> bool {
        let mut expected = self.body.clone();
        ["estado_qr", "status"].iter().any(|key| {
            let old = format!("\"{key}\":\"{}\"", self.state);
            expected = expected.replace(&old, &format!("\"{key}\":\"{state}\""));
            expected.as_bytes() == body
        })
    }
}

// === impl Checker ===

impl Checker {
    /// Laravel has answered a read; its answer is on its way.
    pub(crate) fn laravel_serves(&mut self, stream: u64, status: u16, body: &[u8]) {
        let Some(Asked::Read(read)) = self.streams.get(&stream).map(|known| &known.asked) else {
            return;
        };
        let (name, token) = (read.name.clone(), read.token.clone());
        self.is_had(0);
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let state = json.as_ref().and_then(|json| json["estado_qr"].as_str());
        let (200, Some(state)) = (status, state) else {
            return;
        };
        let history = self.sessions.values().find(|h| h.name == name);
        let served = Served {
            name,
            token,
            body: String::from_utf8_lossy(body).into_owned(),
            state: state.to_owned(),
            effect_seq: history.map_or(0, |history| history.in_force),
            relayed_us: None,
        };
        self.served.insert(stream, served);
    }

    /// Laravel's own answer to a read has come back to the filter in time.
    pub(crate) fn read_is_given(&mut self, stream: u64, given: Option<u16>) {
        if let Some(Asked::Read(read)) = self.streams.get_mut(&stream).map(|s| &mut s.asked) {
            read.status = given;
        }
    }

    // ## 10: reads see writes

    /// A read is answered, by the guest alone or with what Laravel said.
    pub(super) fn read_answered(
        &mut self,
        clock: Clock,
        stream: u64,
        (read, begun_us): (&Read, u64),
        (status, outcome): (u16, &str),
        body: &[u8],
        relayed: Option<&Relayed>,
    ) {
        if let (Some(_), Some(served)) = (relayed, self.served.get_mut(&stream)) {
            served.relayed_us = Some(clock.mono_us);
        }
        let name = format!("the read {stream} of session {}", read.name);
        let replaced = relayed.is_none_or(|relayed| relayed.replaced);
        let stored = matches!(outcome, "cached" | "stale");
        self.coverage.count(match (outcome, status) {
            ("cached", _) => Transition::ReadCached,
            ("stale", _) => Transition::ReadStale,
            ("fresh", _) => Transition::ReadFresh,
            _ => Transition::ReadPassed,
        });
        let mut wrong = Vec::new();
        if replaced != stored {
            wrong.push(format!("was answered {outcome} {status} by the wrong side"));
        }
        if stored && status != 200 {
            wrong.push(format!("was answered {status} from the store"));
        }
        if outcome == "cached" && read.no_cache {
            wrong.push("wanted Laravel's own answer".to_owned());
        }
        if relayed.is_some()
            && stored
            && let Some(given @ (200..=407 | 409..=428 | 430..=499)) = read.status
        {
            wrong.push(format!(
                "was given {given} by Laravel and answered {outcome}"
            ));
        }
        for why in wrong {
            let what = format!("{name} {why}");
            self.fail(clock.mono_us, Invariant::ReadsSeeWrites, what);
        }
        // A proxy's page, as it came.
        let is_page = !replaced && serde_json::from_slice::<Value>(body).is_err();
        if status == 200 && !outcome.starts_with("bypass") && !is_page {
            self.shown(clock, stream, (read, begun_us), outcome, body);
        }
    }

    fn shown(
        &mut self,
        clock: Clock,
        stream: u64,
        (read, begun_us): (&Read, u64),
        outcome: &str,
        body: &[u8],
    ) {
        let name = format!("the read {stream} of session {} ({outcome})", read.name);
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let mark = json.as_ref().and_then(|json| json["mark"].as_u64());
        let state = json.as_ref().and_then(|json| json["estado_qr"].as_str());
        let served = mark.and_then(|mark| self.served.get(&mark));
        let (Some(mark), Some(state), Some(served)) = (mark, state, served) else {
            let what = format!(
                "{name} shows what Laravel never said: {}",
                String::from_utf8_lossy(body)
            );
            return self.fail(clock.mono_us, Invariant::ReadsSeeWrites, what);
        };
        let mut wrong = Vec::new();
        if served.name != read.name || served.token != read.token {
            let what = format!("{name} shows what another caller was given (read {mark})");
            wrong.push((Invariant::CallersNeverMix, what));
        }
        if !served.is_shown_as(state, body) {
            let shown = String::from_utf8_lossy(body);
            let what = format!("{name} shows {shown}, and Laravel said {}", served.body);
            wrong.push((Invariant::ReadsSeeWrites, what));
        }
        if outcome == "fresh" && mark != stream {
            let what = format!("{name} shows what the read {mark} was given");
            wrong.push((Invariant::ReadsSeeWrites, what));
        }
        if let Some(relayed_us) = served.relayed_us.filter(|_| mark != stream) {
            let limit_ms = match outcome {
                "cached" => self.limits.refresh_ms,
                _ => self.limits.refresh_ms + self.limits.stale_if_error_ms,
            };
            let age_ms = begun_us.saturating_sub(relayed_us) / 1000;
            if age_ms > limit_ms.saturating_add(CLOCK_SLACK_MS) {
                let what = format!("{name} shows a body that is {age_ms} ms old");
                wrong.push((Invariant::ReadsSeeWrites, what));
            }
        }
        // A read that was under way for longer than a delivered value is remembered cannot be helped. As
        // shipped, that is five minutes, and no route waits for Laravel as long.
        let took_ms = clock.mono_us.saturating_sub(begun_us) / 1000;
        let history = self.sessions.values().find(|h| h.name == read.name);
        if let Some(history) = history.filter(|_| took_ms <= self.config.dedup.ttl_ms) {
            let floor = self.floor(history, &read.token, begun_us);
            let laravels = state == served.state && served.effect_seq >= floor;
            let own = history.accepted.iter().any(|update| {
                update.token == read.token
                    && update.seq >= floor
                    && self.state_of(update) == Some(state)
            });
            let nothing_yet = floor == 0 && state == served.state;
            let forgotten = outcome == "fresh" && forgets(history, floor, begun_us);
            let late =
                state == served.state && came_late(history, served.effect_seq, floor, begun_us);
            let unsent = self.shows_unsent(history, &read.token, state, floor);
            if !(laravels || own || nothing_yet || forgotten || late || unsent) {
                let what = format!(
                    "{name} shows {state}, older than seq {floor}; Laravel said {} at seq {} (read {mark})",
                    served.state, served.effect_seq
                );
                wrong.push((Invariant::ReadsSeeWrites, what));
            }
        }
        for (invariant, what) in wrong {
            self.fail(clock.mono_us, invariant, what);
        }
    }

    /// Whether this is the caller's own newest state, which Laravel will get yet, and what it has now is another's that
    /// went beside the order, or passed over what had failed alone: the reader's own is still to come.
    fn shows_unsent(&self, history: &History, token: &str, state: &str, floor: u64) -> bool {
        let mut all = history.accepted.iter();
        let own = history.accepted.iter().filter(|update| {
            update.token == token && update.fate == Fate::Pending && self.state_of(update).is_some()
        });
        let newest = own.max_by_key(|update| update.seq);
        newest.is_some_and(|own| {
            self.state_of(own) == Some(state)
                && all.any(|update| {
                    let is_others = update.seq == floor && update.token != token;
                    is_others && (update.beside || own.passed_over)
                })
        })
    }

    /// What a read that began then must show, or something newer: the caller's own newest update that was
    /// accepted by then, and whatever Embudo knew by then to be in force at Laravel.
    fn floor(&self, history: &History, token: &str, begun_us: u64) -> u64 {
        // From the newest to the oldest: what was superseded by something that Laravel then did not want is
        // as void as that.
        let mut own_floor = 0;
        let mut stands = false;
        let mut all: Vec<&Accepted> = history.accepted.iter().collect();
        all.sort_by_key(|update| update.seq);
        for update in all.iter().rev() {
            if update.token != token || self.state_of(update).is_none() {
                continue;
            }
            stands = match update.fate {
                Fate::Pending | Fate::Delivered => true,
                Fate::Rejected => false,
                Fate::Superseded => stands && !update.is_void,
                // Nothing is known of it, or its state goes by itself.
                Fate::Passing | Fate::Failed | Fate::Expired => continue,
            };
            if stands && update.known_us < begun_us {
                own_floor = update.seq;
                break;
            }
        }
        let in_force = all.iter().filter(|update| {
            update.fate == Fate::Delivered
                && update.in_effect
                && update.ended_us.max(update.known_us) < begun_us
                && self.state_of(update).is_some()
        });
        let in_force = in_force.map(|update| update.seq).max().unwrap_or(0);
        own_floor.max(in_force)
    }

    /// The state that an update tells of.
    fn state_of<'u>(&'u self, update: &'u Accepted) -> Option<&'u str> {
        let (_, rule) = self.config.route_named(&update.route)?;
        match &rule.implies {
            Some(implies) => Some(&implies.value),
            None => Some(&update.value),
        }
    }
}
