//! Status reads: what a caller is shown of a session's state.
//!
//! Laravel's model marks every answer with whom it was given to, so a body that is shown later, from the store, says
//! itself whose it is. The checker keeps each of them and what was in force at Laravel then.

use serde_json::Value;

use super::answers::Asked;
use super::history::{Accepted, Fate, History};
use super::{Checker, Clock, Invariant, Transition};
use crate::model::http::Request;
use crate::model::laravel::Beside;
use crate::sim::abi::Headers;
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

/// How Laravel answers reads in this run.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::sim) struct Shown {
    /// What stands beside the state.
    pub(in crate::sim) beside: Beside,
    /// An update is seen so long after its 200, ms.
    pub(in crate::sim) seen_after_ms: u64,
    /// A QR leaves the state alone.
    pub(in crate::sim) qr_leaves_state: bool,
}

/// A read under way.
#[derive(Clone, Debug)]
pub(super) struct Read {
    /// The session's name.
    pub(super) name: String,
    /// The caller's credential; empty for none.
    token: String,
    /// Whatever else of its headers may make another answer of it.
    reader: String,
    /// It came with a query.
    has_query: bool,
    /// It is for a host that no update is for.
    pub(super) is_elsewhere: bool,
    /// It is for a host that no update of its session is for.
    pub(super) is_apart: bool,
    origin: Option<String>,
    no_cache: bool,
    /// How Laravel answered this very read, if it did.
    status: Option<u16>,
}

/// A body as Laravel gave it.
#[derive(Clone, Debug)]
pub(super) struct Served {
    name: String,
    token: String,
    reader: String,
    body: String,
    /// Empty where it is null.
    state: String,
    /// The update whose state Laravel showed then; 0 for none that came through Embudo.
    effect_seq: u64,
    /// The QR in force then.
    qr_seq: u64,
    /// Nothing of it says that it must not be kept.
    may_keep: bool,
    /// When the filter was through with it; µs.
    relayed_us: Option<u64>,
}

/// An answer of Laravel's to a read.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Said<'s> {
    pub(in crate::sim) status: u16,
    pub(in crate::sim) headers: &'s [(String, String)],
    pub(in crate::sim) body: &'s [u8],
}

/// An answer to a read as its caller has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'t> {
    pub(super) status: u16,
    pub(super) outcome: &'t str,
    pub(super) headers: &'t Headers,
    pub(super) body: &'t [u8],
}

/// A caller's credential, as these runs have them.
pub(in crate::sim) fn token_of(request: &Request) -> String {
    let token = request.header("authorization").unwrap_or("");
    match request.header("resource-owner") {
        // As good as another credential: it tells callers apart.
        Some(owner) => format!("{token} {owner}"),
        None => token.to_owned(),
    }
}

/// What of a read's headers may make another answer of it, beside the credential. No request of these runs has a cookie:
/// a page's origin tells readers apart, and not callers.
pub(in crate::sim) fn reader_of(request: &Request) -> String {
    let names = ["accept-language", "x-forwarded-for", "origin"];
    let values = names.map(|name| request.header(name).unwrap_or(""));
    format!("{} {}", host_of(request), values.join(" "))
}

/// The host that a request is for, as hosts are compared.
pub(super) fn host_of(request: &Request) -> String {
    let authority = request.authority().unwrap_or(super::super::AUTHORITY);
    let lower = authority.to_ascii_lowercase();
    lower.strip_suffix(":80").unwrap_or(&lower).to_owned()
}

/// A read of this path.
pub(super) fn read_of(request: &Request) -> Option<Read> {
    let name = request.path.strip_prefix("/api/whatsapp/status/")?;
    let (name, query) = name.split_once('?').unwrap_or((name, ""));
    (request.method == "GET").then(|| Read {
        name: name.to_owned(),
        token: token_of(request),
        reader: reader_of(request),
        has_query: !query.is_empty(),
        is_elsewhere: false,
        is_apart: false,
        origin: request.header("origin").map(str::to_owned),
        no_cache: request.header("cache-control") == Some("no-cache"),
        status: None,
    })
}

/// Whether an answer with these headers is for whoever asks the same.
fn may_keep(headers: &[(String, String)]) -> bool {
    headers.iter().all(|(name, value)| match name.as_str() {
        "set-cookie" => false,
        "vary" => {
            let mut names = value.split(',').map(str::trim);
            names.all(|name| ["origin", "accept-encoding"].contains(&name))
        }
        _ => true,
    })
}

/// The state in a body; empty where it is null.
fn state_in(body: &[u8]) -> Option<String> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let inner = json.get("data").unwrap_or(&json);
    match inner.get("estado_qr")? {
        Value::Null => Some(String::new()),
        state => state.as_str().map(str::to_owned),
    }
}

/// A state as it is written.
fn quoted(state: &str) -> String {
    match state {
        "" => "null".to_owned(),
        state => format!("\"{state}\""),
    }
}

/// What Laravel's model says, with a mark that tells whose it is, in an odd layout that no writer of JSON would make
/// again.
pub(in crate::sim) fn dress(body: &[u8], mark: u64) -> Option<Vec<u8>> {
    let body = std::str::from_utf8(body).ok()?.strip_prefix('{')?;
    Some(format!("{{ \"mark\":{mark} ,\t\"n\":0.50,{body}").into_bytes())
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

/// Whether this read began after that had been answered.
fn began_after(begun_us: u64, went_by_us: u64) -> bool {
    went_by_us > 0 && begun_us > went_by_us
}

// === impl Shown ===

impl Shown {
    /// Whether Laravel would say this of that state, as far as that depends on the state alone.
    fn says(self, state: &str, body: &str) -> bool {
        if matches!(self.beside, Beside::Clock | Beside::Qr) {
            return true;
        }
        let more = format!("{}}}", self.beside.more(state, None, 0));
        let own = format!("\"estado_qr\":{}", quoted(state));
        body.trim_end_matches('}')
            .ends_with(more.trim_end_matches('}'))
            && body.contains(&own)
    }
}

// === impl ReadLimits ===

impl ReadLimits {
    /// Those of a configuration; half an hour each where it says nothing.
    pub(in crate::sim) fn of(config: &Value) -> Self {
        let ms = |key: &str, shipped: u64| config[key].as_u64().unwrap_or(shipped);
        // By session, up to a half more.
        let refresh_ms = ms("read_refresh_ms", 1_200_000);
        Self {
            refresh_ms: refresh_ms + refresh_ms / 2,
            stale_if_error_ms: ms("stale_if_error_ms", 1_800_000),
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
            let old = format!("\"{key}\":{}", quoted(&self.state));
            expected = expected.replace(&old, &format!("\"{key}\":{}", quoted(state)));
            expected.as_bytes() == body
        })
    }
}

// === impl Checker ===

impl Checker {
    /// Laravel has answered a read; its answer is on its way.
    pub(crate) fn laravel_serves(&mut self, now_us: u64, stream: u64, said: Said<'_>) {
        let Some(Asked::Read(read)) = self.streams.get(&stream).map(|known| &known.asked) else {
            return;
        };
        let read = read.clone();
        self.is_had(0);
        if said.status != 200 {
            return;
        }
        let state = state_in(said.body);
        let history = self.sessions.values().find(|h| h.name == read.name);
        let (after_ms, now_ms) = (self.shown.seen_after_ms, now_us / 1000);
        let effect_seq = history.map_or(0, |history| match after_ms {
            0 => history.in_force,
            _ => {
                let mut effects = history.effects.iter().rev();
                let seen = effects.find(|(at_us, _)| at_us / 1000 + after_ms <= now_ms);
                seen.map_or(0, |(_, seq)| *seq)
            }
        });
        let qrs = history.into_iter().flat_map(|history| &history.accepted);
        let qrs = qrs.filter(|update| update.route == "qr" && update.in_effect);
        let served = Served {
            name: read.name,
            token: read.token,
            reader: read.reader,
            body: String::from_utf8_lossy(said.body).into_owned(),
            may_keep: may_keep(said.headers) && state.as_ref().is_some_and(|s| !s.is_empty()),
            state: state.unwrap_or_default(),
            effect_seq,
            qr_seq: qrs.map(|update| update.seq).max().unwrap_or(0),
            relayed_us: None,
        };
        let may_keep = served.may_keep && !read.has_query;
        self.served.insert(stream, Served { may_keep, ..served });
    }

    /// A session's account was made, or removed: what it was told before is nowhere.
    pub(crate) fn account_changes(&mut self, name: &str) {
        self.changed.insert(name.to_owned());
    }

    /// Another route than Embudo's has changed a session's state.
    pub(crate) fn panel_sets(&mut self, name: &str, state: &str) {
        self.panel.insert(name.to_owned(), state.to_owned());
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
        told: Told<'_>,
        relayed: Option<&Relayed>,
    ) {
        let Told {
            status,
            outcome,
            body,
            ..
        } = told;
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
            && let Some(given @ (200..=407 | 409..=424 | 426..=428 | 430..=499)) = read.status
        {
            wrong.push(format!(
                "was given {given} by Laravel and answered {outcome}"
            ));
        }
        if stored && read.is_elsewhere {
            wrong.push("is for another host".to_owned());
        }
        if stored && !self.sessions.values().any(|h| h.name.ends_with(&read.name)) {
            wrong.push("is of a session that nothing was ever posted of".to_owned());
        }
        for why in wrong {
            let what = format!("{name} {why}");
            self.fail(clock.mono_us, Invariant::ReadsSeeWrites, what);
        }
        self.headers_are_its_own(clock, &name, read, told, stored);
        // A proxy's page, as it came.
        let is_page = !replaced && serde_json::from_slice::<Value>(body).is_err();
        if status == 200 && !outcome.starts_with("bypass") && !is_page {
            self.shows(clock, stream, (read, begun_us), outcome, body);
        }
    }

    /// Whom a browser's page may read it with is said of this origin, and nobody is given another's cookie.
    fn headers_are_its_own(
        &mut self,
        clock: Clock,
        name: &str,
        read: &Read,
        told: Told<'_>,
        stored: bool,
    ) {
        let value = |wanted: &str| {
            let header = told.headers.iter().find(|(name, _)| name == wanted);
            header.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        let allowed = value("access-control-allow-origin");
        if allowed.is_some() && allowed != read.origin {
            let what = format!("{name} of {:?} allows {allowed:?}", read.origin);
            self.fail(clock.mono_us, Invariant::OnlyWhatWasSaid, what);
        }
        if stored && value("set-cookie").is_some() {
            let what = format!("{name} sets a cookie from the store");
            self.fail(clock.mono_us, Invariant::OnlyWhatWasSaid, what);
        }
    }

    /// Laravel's answer to this very read, as it came.
    fn is_laravels_own(&self, stream: u64, body: &[u8]) -> bool {
        let own = self.served.get(&stream);
        own.is_some_and(|served| served.body.as_bytes() == body)
    }

    fn shows(
        &mut self,
        clock: Clock,
        stream: u64,
        (read, begun_us): (&Read, u64),
        outcome: &str,
        body: &[u8],
    ) {
        let name = format!("the read {stream} of session {} ({outcome})", read.name);
        let state = state_in(body);
        let state = state.as_deref();
        // Embudo keeps nothing of another host, and an answer without a state says nothing that could be patched.
        let untouched = read.is_elsewhere || read.is_apart || state.is_none();
        if untouched && outcome == "fresh" && self.is_laravels_own(stream, body) {
            return;
        }
        let said = state.map_or_else(Vec::new, |state| {
            let all = self.served.iter();
            let of = all.filter(|(mark, _)| outcome != "fresh" || **mark == stream);
            of.filter(|(_, served)| served.is_shown_as(state, body))
                .collect()
        });
        let (Some(state), false) = (state, said.is_empty()) else {
            let what = format!(
                "{name} shows what Laravel never said: {}",
                String::from_utf8_lossy(body)
            );
            return self.fail(clock.mono_us, Invariant::OnlyWhatWasSaid, what);
        };
        let mut wrong = Vec::new();
        let is_own = |served: &Served| {
            let is_callers = served.name == read.name && served.token == read.token;
            is_callers && served.reader == read.reader
        };
        let own: Vec<(u64, &Served)> = said
            .iter()
            .filter(|(_, served)| is_own(served))
            .map(|(mark, served)| (**mark, *served))
            .collect();
        if own.is_empty() {
            let what = format!(
                "{name} shows what another caller was given (read {})",
                said[0].0
            );
            wrong.push((Invariant::CallersNeverMix, what));
        }
        let text = String::from_utf8_lossy(body);
        if outcome == "cached" && !self.shown.says(state, &text) {
            let what = format!("{name} shows {text}, which Laravel does not say of {state}");
            wrong.push((Invariant::OnlyWhatWasSaid, what));
        }
        if outcome != "fresh" && !own.is_empty() && own.iter().all(|(_, served)| !served.may_keep) {
            let what = format!("{name} shows {text}, which is not to be kept");
            wrong.push((Invariant::OnlyWhatWasSaid, what));
        }
        // An answer is in the store before the callback is over that has put it there.
        let ages = own.iter().filter(|(mark, _)| *mark != stream);
        let ages = ages.filter_map(|(mark, served)| match served.relayed_us {
            None if self.streams.contains_key(mark) => Some(clock.mono_us),
            relayed_us => relayed_us,
        });
        if let Some(relayed_us) = ages.max().filter(|_| outcome != "fresh") {
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
        let went_by_us = self.sessions.values().find(|h| h.name == read.name);
        let went_by_us = went_by_us.map_or(0, |history| history.went_by_us);
        let newest = own.iter().filter_map(|(_, served)| served.relayed_us).max();
        if outcome == "cached" && began_after(begun_us, went_by_us) && newest < Some(went_by_us) {
            let what = format!("{name} is from before something of its session has gone by");
            wrong.push((Invariant::ReadsSeeWrites, what));
        }
        // A read that was under way for longer than a delivered value is remembered cannot be helped. As
        // shipped, that is five minutes, and no route waits for Laravel as long.
        let took_ms = clock.mono_us.saturating_sub(begun_us) / 1000;
        let said_now: Vec<&Served> = own.iter().map(|(_, served)| *served).collect();
        let history = self.sessions.values().find(|h| h.name == read.name);
        if let Some(history) = history.filter(|_| took_ms <= self.config.dedup.ttl_ms) {
            let floor = self.floor(history, &read.token, begun_us, outcome);
            let laravels = said_now
                .iter()
                .any(|served| state == served.state && served.effect_seq >= floor);
            let crowded = self.is_crowded(history, (&read.token, state), floor);
            let accepted = history.accepted.iter().any(|update| {
                update.token == read.token
                    && update.seq >= floor
                    && self.state_of(update) == Some(state)
            });
            let nothing_yet = floor == 0 && said_now.iter().any(|served| state == served.state);
            let forgotten = outcome == "fresh" && forgets(history, floor, begun_us);
            let late = said_now.iter().any(|served| {
                state == served.state && came_late(history, served.effect_seq, floor, begun_us)
            });
            let unsent = self.shows_unsent(history, &read.token, state, floor);
            // What another route did to it, or a batch that went by, Laravel alone can say.
            let is_said = said_now.iter().any(|it| state == it.state);
            let went_by = history.went_by_us > 0 && outcome == "fresh";
            // Where it shows what was before the caller's own, it may be late with that: that is patched.
            let is_told = self.newest_told(history, &read.token) == Some(state);
            let changed = (history.is_changed || went_by) && (is_said || is_told);
            // So it is with a state that nobody has ever posted.
            let is_word = |it: &&Served| state == it.state && it.effect_seq > 0;
            let mut posted = history.accepted.iter();
            let is_panels = outcome == "fresh"
                && said_now.iter().any(is_word)
                && !posted.any(|update| self.state_of(update) == Some(state));
            // A posted state that another route has set again may be from before the caller's own, too.
            let panel = self.panel.get(&history.name).map(String::as_str);
            let is_set_again = outcome == "fresh"
                && is_told
                && said_now.iter().any(|it| panel == Some(&*it.state));
            let changed = changed || is_panels || is_set_again;
            // Nor is anything surely newer than what went beside the order a moment ago.
            let settle_us = self.config.kept.settle_ms.saturating_mul(1_000);
            let mut beside = history.accepted.iter().filter(|update| update.beside);
            let is_doubtful = outcome == "fresh"
                && beside.any(|it| it.ended_us.saturating_add(settle_us) > begun_us)
                && is_said;
            let unsent = unsent || changed || is_doubtful;
            if !(laravels || accepted || nothing_yet || forgotten || late || unsent || crowded) {
                let said: Vec<(&str, u64)> = said_now
                    .iter()
                    .map(|served| (&*served.state, served.effect_seq))
                    .collect();
                let what =
                    format!("{name} shows {state}, older than seq {floor}; Laravel said {said:?}");
                wrong.push((Invariant::ReadsSeeWrites, what));
            }
            let is_patched = outcome == "fresh" && !self.is_laravels_own(stream, body);
            if is_patched && !self.may_be_patched(history, &read.token, state, begun_us) {
                let what = format!("{name} shows {state}, and Laravel had the time to apply it");
                wrong.push((Invariant::OnlyWhatWasSaid, what));
            }
            if outcome == "cached" && self.shown.beside == Beside::Qr {
                let newest = self.newest_qr(history, begun_us);
                if own.iter().all(|(_, served)| served.qr_seq < newest) {
                    let what = format!("{name} shows {text}, and QR {newest} was delivered");
                    wrong.push((Invariant::OnlyWhatWasSaid, what));
                }
            }
        }
        for (invariant, what) in wrong {
            self.fail(clock.mono_us, invariant, what);
        }
    }

    /// Whether Laravel shows late what it has taken, and another caller has said something since, or a QR came that may
    /// have set this state: whose word it is that Laravel shows nobody can tell.
    fn is_crowded(&self, history: &History, (token, state): (&str, &str), floor: u64) -> bool {
        let may_have_set = |update: &Accepted| match self.tells(update) {
            _ if update.token != token => true,
            true => false,
            // It leaves the state alone, but nobody has said so.
            false => {
                let rule = self.config.route_named(&update.route).map(|(_, rule)| rule);
                let implies = rule.and_then(|rule| rule.implies.as_ref());
                implies.is_some_and(|implies| implies.value == state)
            }
        };
        let mut since = history.accepted.iter().filter(|update| update.seq > floor);
        let is_late = self.shown.seen_after_ms > 0;
        is_late && (since.any(may_have_set) || history.seen_seq > floor)
    }

    /// Whether this is a state of the caller's that Laravel may not show yet.
    fn may_be_patched(&self, history: &History, token: &str, state: &str, begun_us: u64) -> bool {
        let settle_us = (self.config.kept.settle_ms + CLOCK_SLACK_MS) * 1000;
        let all = || history.accepted.iter();
        let ended = |update: &Accepted| update.ended_us < u64::MAX;
        let settles = all().any(|u| ended(u) && u.ended_us + settle_us >= begun_us);
        all().any(|update| {
            let is_open = matches!(update.fate, Fate::Pending | Fate::Passing);
            let is_own = update.token == token && self.state_of(update) == Some(state);
            is_own && (is_open || settles)
        })
    }

    /// The newest QR that Embudo knew by then to be in force at Laravel.
    fn newest_qr(&self, history: &History, begun_us: u64) -> u64 {
        let all = history.accepted.iter().filter(|update| {
            let is_qr = update.route == "qr" && update.fate == Fate::Delivered;
            let known_us = update.ended_us.max(update.known_us);
            let seen_us = known_us.saturating_add(self.shown.seen_after_ms * 1000);
            is_qr && update.in_effect && seen_us < begun_us
        });
        all.map(|update| update.seq).max().unwrap_or(0)
    }

    /// The newest state that the caller itself has told of.
    fn newest_told<'h>(&'h self, history: &'h History, token: &str) -> Option<&'h str> {
        let own = history.accepted.iter().filter(|update| {
            let is_taken = matches!(update.fate, Fate::Pending | Fate::Delivered);
            update.token == token && is_taken && self.tells(update)
        });
        let states = own.filter_map(|update| Some((update.seq, self.state_of(update)?)));
        states.max().map(|(_, state)| state)
    }

    /// Whether this is the caller's own newest state, which Laravel will get yet, and what it has now is another's that
    /// went beside the order, or passed over what had failed alone: the reader's own is still to come.
    fn shows_unsent(&self, history: &History, token: &str, state: &str, floor: u64) -> bool {
        let mut all = history.accepted.iter();
        let own = history.accepted.iter().filter(|update| {
            let is_state = self.state_of(update).is_some() && self.tells(update);
            update.token == token && update.fate == Fate::Pending && is_state
        });
        let newest = own.max_by_key(|update| update.seq);
        newest.is_some_and(|own| {
            self.state_of(own) == Some(state)
                && all.any(|update| {
                    // A QR whose state is not assumed to follow says nothing of the reader's own state.
                    let is_not_it = update.token != token || !self.tells(update);
                    update.seq == floor && is_not_it && (update.beside || own.passed_over)
                })
        })
    }

    /// What a read that began then must show, or something newer: the caller's own newest update that was
    /// accepted by then, and whatever Embudo knew by then to be in force at Laravel.
    fn floor(&self, history: &History, token: &str, begun_us: u64, outcome: &str) -> u64 {
        // From the newest to the oldest: what was superseded by something that Laravel then did not want is
        // as void as that.
        let mut own_floor = 0;
        let mut stands = false;
        let mut all: Vec<&Accepted> = history.accepted.iter().collect();
        all.sort_by_key(|update| update.seq);
        for update in all.iter().rev() {
            if update.token != token || self.state_of(update).is_none() || !self.tells(update) {
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
                && (outcome != "stale" || self.tells(update))
                && (update.token == token && self.tells(update) || self.is_seen(update, begun_us))
        });
        let in_force = in_force.map(|update| update.seq).max().unwrap_or(0);
        own_floor.max(in_force)
    }

    /// Whether an update tells of a state: a QR whose state is not assumed to follow tells of none, to whoever sent it.
    fn tells(&self, update: &Accepted) -> bool {
        let rule = self.config.route_named(&update.route).map(|(_, rule)| rule);
        rule.is_none_or(|rule| rule.implies.is_none() || rule.implied().is_some())
    }

    /// Whether Laravel shows by then what it has taken.
    fn is_seen(&self, update: &Accepted, now_us: u64) -> bool {
        let after_us = self.shown.seen_after_ms * 1000;
        update.ended_us.saturating_add(after_us) <= now_us
    }

    /// The state that an update tells of.
    pub(super) fn state_of<'u>(&'u self, update: &'u Accepted) -> Option<&'u str> {
        let (_, rule) = self.config.route_named(&update.route)?;
        match &rule.implies {
            Some(_) if self.shown.qr_leaves_state => None,
            Some(implies) => Some(&implies.value),
            None => Some(&update.value),
        }
    }
}
