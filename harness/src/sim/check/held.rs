//! Callers that wait for what becomes of their updates: whether they have to, what they are told, and when.
//!
//! A caller hears what became of its update, or of one that took its place: the same route's next value under
//! the same credential, a QR that implies the state, a state that voids the QR, or, where it was passed over, whatever
//! of its route Laravel has accepted since. Which of them it is depends on when the worker looked; so whatever may be
//! told must be true of one of them, at this moment.

use embudo_core::ack::WAITERS_MAX;
use embudo_core::config::{Ack, Route};
use embudo_core::shard::HELD_MAX;

use super::answers::{Asked, Sent, Stream, Verdict, short};
use super::history::{Accepted, Fate};
use super::{Checker, Clock, Invariant, Transition};

/// Places of one session whose workers have died count until their own deadlines, and each of those that went before
/// has its second.
const BEHIND_OTHERS_S: u64 = HELD_MAX as u64 + 1;

/// An update that a request shares its fate with.
#[derive(Clone, Debug)]
pub(super) struct Meant {
    route: String,
    seq: u64,
    /// It was not settled when the worker looked.
    pending: bool,
}

// === impl Checker ===

impl Checker {
    fn waits(&self, sent: &Sent) -> bool {
        let rule = self.config.routes.get(sent.route);
        rule.is_some_and(|rule| rule.ack == Ack::Delivered)
    }

    /// Whose duplicate a request is, or whose item implies it.
    pub(super) fn meant(&self, stream: &Stream, verdict: &Verdict) -> Option<Meant> {
        let sent = stream.update()?;
        let history = self.sessions.get(&sent.session)?;
        let rule = self.config.routes.get(sent.route)?;
        let update = match verdict {
            (_, Ok(())) => history.newest()?,
            (Ok(()), _) => history.newest_of(&rule.name)?,
            _ => return None,
        };
        Some(Meant {
            route: update.route.clone(),
            seq: update.seq,
            pending: update.fate == Fate::Pending,
        })
    }

    /// A request is held.
    pub(in crate::sim) fn stream_waits(&mut self, clock: Clock, stream: u64) {
        self.coverage.count(Transition::CollectingToWaiting);
        let known = self.streams.get(&stream);
        let sent = known.and_then(Stream::update).cloned();
        // Nobody waits for its end: it is held for its turn.
        if known.is_some_and(|known| matches!(known.asked, Asked::Barred(_))) {
            self.coverage.count(Transition::Stopped);
        }
        let known = self.streams.get(&stream);
        let has_place = known.is_some_and(|known| known.place.is_some());
        if has_place || sent.as_ref().is_none_or(|sent| !self.waits(sent)) {
            if let Some(known) = self.streams.get_mut(&stream) {
                known.turn_us = Some(clock.mono_us);
            }
            return;
        }
        let Some((known, sent)) = known.zip(sent).filter(|(_, sent)| self.waits(sent)) else {
            let what = format!("request {stream} is held, and nobody said that it should be");
            return self.fail(clock.mono_us, Invariant::Liveness, what);
        };
        let rule = self.config.routes.get(sent.route);
        let own = known.accepted.map(|seq| Meant {
            route: rule.map_or(String::new(), |rule| rule.name.clone()),
            seq,
            pending: true,
        });
        let meant = own.or_else(|| known.meant.clone());
        if !meant.as_ref().is_some_and(|meant| meant.pending) {
            let what = format!(
                "{} is held, and there is nothing to wait for",
                short(&sent.value)
            );
            self.fail(clock.mono_us, Invariant::Liveness, what);
        }
        if let Some(known) = self.streams.get_mut(&stream) {
            known.meant = meant;
            known.held_us = Some(clock.mono_us);
        }
    }

    /// A request was answered without having been held.
    pub(super) fn may_be_answered_at_once(
        &mut self,
        clock: Clock,
        known: &Stream,
        sent: &Sent,
        outcome: &str,
    ) {
        let duplicate = matches!(outcome, "duplicate" | "implied");
        let pending = known.meant.as_ref().is_some_and(|meant| meant.pending);
        // A worker that holds as many as it may cannot hold another; whose each one is, nobody here knows.
        let held = self.streams.values().filter(|s| s.held_us.is_some());
        let is_full = held.count() >= WAITERS_MAX;
        if self.waits(sent) && !is_full && (outcome == "queued" || (duplicate && pending)) {
            let name = format!("{} of session {}", short(&sent.value), sent.name);
            let what = format!("{name} was answered {outcome} before it was settled");
            self.fail(clock.mono_us, Invariant::NothingIsLost, what);
        }
    }

    /// A request that was held is answered.
    pub(super) fn held_is_answered(
        &mut self,
        clock: Clock,
        known: &Stream,
        sent: &Sent,
        status: u16,
        outcome: &str,
    ) {
        let fates = self.fates(known, sent);
        let one = |fate: Fate| fates.iter().any(|(_, known)| *known == fate);
        let right = match (outcome, status) {
            ("delivered", status) if status == self.config.answer_status => {
                self.coverage.count(Transition::ToldDelivered);
                one(Fate::Delivered) || fates.iter().any(|(in_effect, _)| *in_effect)
            }
            ("rejected", 300..=599) => {
                self.coverage.count(Transition::ToldRejected);
                one(Fate::Rejected)
            }
            ("expired", 503) => {
                self.coverage.count(Transition::ToldExpired);
                one(Fate::Expired)
            }
            ("waiting", 503) => {
                self.coverage.count(Transition::ToldWaiting);
                clock.mono_ms() >= known.begun_us / 1000 + self.config.ack_timeout_ms
            }
            _ => false,
        };
        if !right {
            let name = format!("{} of session {}", short(&sent.value), sent.name);
            let what = format!("{name} was held and answered {status} {outcome}; it is {fates:?}");
            self.fail(clock.mono_us, Invariant::NothingIsLost, what);
        }
    }

    /// What became of the update that a request means, and of all that may have taken its place: whether it is
    /// in force at Laravel or was, and its fate.
    fn fates(&self, known: &Stream, sent: &Sent) -> Vec<(bool, Fate)> {
        let (Some(meant), Some(history)) = (&known.meant, self.sessions.get(&sent.session)) else {
            return Vec::new();
        };
        let own = self.config.routes.get(sent.route);
        let own = own.map_or("", |rule| rule.name.as_str());
        let mut later: Vec<&Accepted> = history.accepted.iter().collect();
        later.retain(|update| update.seq >= meant.seq);
        later.sort_by_key(|update| update.seq);
        // Of a route and a credential the oldest says all: whatever takes a newer one's place takes its too.
        let mut given_way: Vec<&Accepted> = Vec::new();
        let mut all = Vec::new();
        for update in later {
            let is_meant = update.seq == meant.seq && update.route == meant.route;
            let takes = |of: &&Accepted| self.takes_place(update, of, own);
            if !is_meant && !given_way.iter().any(takes) {
                continue;
            }
            all.push((update.in_effect, update.fate));
            let gives_way = update.fate == Fate::Superseded || update.route != own;
            let same = |of: &&Accepted| of.route == update.route && of.token == update.token;
            // What was passed over gives way to more.
            if gives_way && (update.passed_over || !given_way.iter().any(same)) {
                given_way.push(update);
            }
        }
        // Of one that was only seen nobody but the guest knows what Laravel said.
        let by_seen = |of: &&Accepted| of.fate == Fate::Superseded && of.seq < history.seen_seq;
        if given_way.iter().any(by_seen) {
            all.push((true, Fate::Delivered));
        }
        all
    }

    /// Whether an update may have taken the place of another, for a caller of the route `own`.
    fn takes_place(&self, update: &Accepted, of: &Accepted, own: &str) -> bool {
        let implied = of.route != own;
        let kin = update.token == of.token && (update.route == of.route || update.route == own);
        let rules = self
            .config
            .route_named(&update.route)
            .zip(self.config.route_named(&of.route));
        let takes = rules.is_some_and(|((_, rule), (at, _))| {
            let implies = rule.implied().is_some_and(|implies| implies.route == at);
            let voids = rule.voids.as_ref().is_some_and(|voids| {
                voids.routes.contains(&at) && voids.values.contains(&update.value)
            });
            (implies && update.token == of.token) || voids
        });
        // What failed alone gives way to whatever of its route came after it, whoever said that; so does what a refused
        // caller has.
        let is_overtaken = of.fate == Fate::Superseded && update.route == of.route;
        // What it implies is overtaken, too, and it waits still.
        let is_kin = |((at, _), (_, of)): ((usize, _), (_, &Route))| {
            of.implied().is_some_and(|implies| implies.route == at)
        };
        let is_implied = update.route == own && rules.is_some_and(is_kin);
        let overtakes = of.passed_over && (is_overtaken || is_implied);
        // A state that outlives its QR bears the QR's number.
        let after = update.seq > of.seq || (update.seq == of.seq && update.route == own && implied);
        after && (kin || takes || overtakes) && !matches!(update.fate, Fate::Passing | Fate::Failed)
    }

    /// A root holds a request and does not look after it.
    pub(in crate::sim) fn nobody_looks(&mut self, clock: Clock, stream: u64) {
        let what = format!("request {stream} is held, and its root does not look often enough");
        self.fail(clock.mono_us, Invariant::Liveness, what);
    }

    /// A root has looked, from `began` on, and a request is held still.
    pub(in crate::sim) fn still_waits(&mut self, clock: Clock, stream: u64, began: Clock) {
        let Some(known) = self.streams.get(&stream) else {
            return;
        };
        if let (Some(turn_us), Asked::Barred(_)) = (known.turn_us, &known.asked) {
            return self.barred_waits(clock, stream, turn_us, began);
        }
        if let (Some(turn_us), Some(seq), Some(sent)) = (known.turn_us, known.place, known.update())
        {
            return self.is_let_go(clock, (stream, turn_us, seq), sent.session, began);
        }
        let (Some(held_us), Some(sent)) = (known.held_us, known.update()) else {
            return;
        };
        let until_ms = held_us / 1000 + self.config.ack_timeout_ms;
        let meant = known.meant.as_ref();
        let history = self.sessions.get(&sent.session);
        let own = self.config.routes.get(sent.route);
        let settled = history.zip(meant).is_some_and(|(history, meant)| {
            // Many are looked through at each tick: numbers first.
            history.accepted.iter().rev().any(|update| {
                let over = matches!(
                    update.fate,
                    Fate::Delivered | Fate::Rejected | Fate::Expired
                );
                update.seq == meant.seq
                    && over
                    && update.ended_us < began.mono_us
                    && update.route == meant.route
                    && own.is_some_and(|rule| rule.name == update.route)
            })
        });
        let why = match (began.mono_ms() > until_ms, settled) {
            (true, _) => "its time is over",
            (_, true) => "its update is settled",
            _ => return,
        };
        let what = format!("request {stream} is held still, and {why}");
        self.fail(clock.mono_us, Invariant::Liveness, what);
    }

    // ## 17: what is held is let go
    //
    // Beyond its time only for those of its session before it, a second for each; and for the answer of one that is
    // outside the order, which is a second, too.
    fn is_let_go(
        &mut self,
        clock: Clock,
        (stream, turn_us, seq): (u64, u64, u64),
        session: u128,
        began: Clock,
    ) {
        let of_session =
            |other: &&Stream| other.update().is_some_and(|sent| sent.session == session);
        let all = self.streams.values().filter(of_session);
        let before = all.filter(|other| other.place.is_some_and(|place| place < seq));
        let limit_ms = self.config.hold_ms + 1_000 * (before.count() as u64 + BEHIND_OTHERS_S);
        if began.mono_us > turn_us + limit_ms * 1_000 {
            let what = format!(
                "request {stream} is held for its turn since {} ms",
                turn_us / 1_000
            );
            self.fail(clock.mono_us, Invariant::HeldIsLetGo, what);
        }
    }
}
