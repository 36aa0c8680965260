//! What must hold once everything has come to rest, and how soon it must.

use embudo_core::shard::{Shard, balance};

use super::history::{Accepted, Fate};
use super::{Checker, Clock, Invariant, SHARDS, answers::short};
use crate::model::laravel::Laravel;
use crate::sim::host::SharedData;

/// What a run in rest looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Updates that are not settled.
    pub pending: usize,
    /// Claims that have not run out.
    pub live_claims: usize,
    /// Rejected updates of which the webhook is still to hear.
    pub dead_letters: usize,
}

// === impl Checker ===

impl Checker {
    /// What is still to be done.
    #[must_use]
    pub(crate) fn rest(&self, clock: Clock, data: &SharedData) -> Rest {
        let mut rest = Rest {
            dead_letters: self.dead_letters_owed().len(),
            ..Rest::default()
        };
        for (key, value) in data.iter() {
            if let (true, Ok(shard)) = (key.starts_with(SHARDS), Shard::decode(value)) {
                rest.pending += shard.pending().saturating_sub(self.refused_in(&shard));
                let live = |session: &&embudo_core::shard::Session<'_>| {
                    session.live_claim(clock.mono_ms()).is_some()
                };
                rest.live_claims += shard.sessions.iter().filter(live).count();
            }
        }
        rest
    }

    /// Unsent updates of callers that Laravel refuses: they wait for an hour for a word of it.
    fn refused_in(&self, shard: &Shard<'_>) -> usize {
        let sessions = shard.sessions.iter();
        let refused = sessions.map(|session| {
            let history = self.sessions.get(&session.id);
            let all = history.into_iter().flat_map(|history| &history.accepted);
            let pending = all.filter(|update| update.fate == Fate::Pending);
            pending
                .filter(|update| self.is_refused(&update.token))
                .count()
        });
        refused.sum()
    }

    // ## 9: liveness, in a calm world
    //
    // Nothing ever failed, so nothing may take longer than its timers say, but for what a refused caller has: it
    // waits for that to be accepted again.

    /// Nothing may have been pending for longer than this.
    pub(crate) fn nothing_waits_longer_than(&mut self, clock: Clock, limit_ms: u64) {
        let now_us = clock.mono_us;
        let late = self.sessions.values().find_map(|history| {
            let old = |at_us: u64| now_us.saturating_sub(at_us) > limit_ms * 1000;
            let all = history.accepted.iter();
            all.filter(|update| update.fate == Fate::Pending && old(update.at_us))
                .filter(|update| !self.is_refused(&update.token))
                .map(|update| (history.name.clone(), update.value.clone(), update.at_us))
                .next()
        });
        if let Some((name, value, at_us)) = late {
            let what = format!(
                "{} of session {name} was accepted {} ms ago and is not settled",
                short(&value),
                (now_us - at_us) / 1000
            );
            self.fail(now_us, Invariant::Liveness, what);
        }
    }

    // ## 1 and 9: at the end everything has an end

    /// The run is over, and everybody had the time that the design allows.
    pub(crate) fn at_rest(&mut self, clock: Clock, data: &SharedData, laravel: &Laravel) {
        let mut wrong = Vec::new();
        for (key, value) in data.iter().filter(|(key, _)| key.starts_with(SHARDS)) {
            match Shard::decode(value) {
                Ok(shard) => {
                    if let Err(why) = balance(&shard) {
                        wrong.push((Invariant::NothingIsLost, format!("{key}: {why}")));
                    }
                }
                Err(_) => wrong.push((Invariant::NothingIsLost, format!("{key} is no shard"))),
            }
        }
        for history in self.sessions.values() {
            for update in &history.accepted {
                if update.fate == Fate::Pending && !self.is_refused(&update.token) {
                    let what = format!(
                        "{} of session {} was accepted at {} ms and never settled",
                        short(&update.value),
                        history.name,
                        update.at_us / 1000
                    );
                    wrong.push((Invariant::Liveness, what));
                }
            }
            // What has gone by as it came, nobody has read.
            let by_another = laravel.journal().changed().contains_key(&history.name);
            if history.went_by_us > 0 || history.is_changed || by_another {
                continue;
            }
            // What ran out leaves the state that it implied. Where it implied none, it never was there; nor is a QR that
            // leaves the state alone.
            let gone = |update: &Accepted| {
                if self.state_of(update).is_none() {
                    return true;
                }
                let ran_out = update.fate == Fate::Expired && !update.in_effect;
                ran_out && self.config.routes.iter().all(|r| r.implied().is_none())
            };
            let Some(last) = history.newest_unless(gone) else {
                continue;
            };
            let account = laravel.account(&history.name);
            let state = account.map(|account| account.estado_qr.as_str());
            let expected = state_of(last);
            // What Laravel did not take left what was before it, and nobody knows what that was; what it may
            // have taken without a word may be what it has.
            let unsaid = history.accepted.iter().any(|update| {
                let silent = matches!(update.fate, Fate::Passing | Fate::Failed)
                    || (update.fate == Fate::Rejected && update.in_effect);
                // What failed alone may have come after what came after it; so may what went beside the order, where
                // Laravel was long at it.
                // And what waited when the last one went beside the order comes after it.
                let is_late = (update.passed_over || last.beside) && update.in_effect
                    || update.beside && (silent || update.in_effect);
                (is_late || update.seq > last.seq && silent) && state == Some(state_of(update))
            });
            let is_rejected =
                |update: &Accepted| update.seq > last.seq && update.fate == Fate::Rejected;
            // A QR that ran out left its state to be sent by itself, under the same number.
            let is_its_state =
                |update: &Accepted| update.seq == last.seq && update.fate == Fate::Rejected;
            let unknown = (matches!(last.fate, Fate::Superseded | Fate::Expired)
                && history.accepted.iter().any(is_rejected))
                || history.accepted.iter().any(is_its_state)
                || last.fate == Fate::Passing;
            let by_others = self.panel.get(&history.name).map(String::as_str);
            let unsaid = unsaid || by_others.is_some() && by_others == state;
            let unsaid = unsaid || self.changed.contains(&history.name);
            if state != Some(expected) && last.fate != Fate::Pending && !unsaid && !unknown {
                let what = format!(
                    "session {} said {expected} last, and Laravel has {}",
                    history.name,
                    state.unwrap_or("nothing")
                );
                wrong.push((Invariant::LaravelEndsOnTheLast, what));
            }
            let qr = history.newest_of("qr");
            let found = account.and_then(|account| account.last_qr.as_deref());
            let unsaid = history.accepted.iter().any(|update| {
                let silent = matches!(update.fate, Fate::Passing | Fate::Failed);
                // A stranger's that was held, and queued behind another's that had gone past it.
                let mut all = history.accepted.iter();
                let is_late = update.passed_over
                    && update.in_effect
                    && all.any(|o| o.in_effect && o.seq > update.seq && o.token != update.token);
                (silent || update.beside || is_late) && found == Some(&update.value)
            });
            let waited = history
                .accepted
                .iter()
                .any(|update| update.in_effect && found == Some(&update.value));
            // What a request said that went by as it came, nobody has read.
            let is_another = |update: &Accepted| found != Some(&update.value);
            let unsaid = unsaid || history.is_seen && history.accepted.iter().all(is_another);
            let unsaid = unsaid || self.changed.contains(&history.name);
            if let Some(qr) = qr.filter(|qr| qr.fate == Fate::Delivered && !unsaid)
                && found != Some(&qr.value)
                && !(qr.beside && waited)
            {
                let what = format!(
                    "session {} showed {} last, and Laravel has {}",
                    history.name,
                    short(&qr.value),
                    found.map_or("none", short)
                );
                wrong.push((Invariant::LaravelEndsOnTheLast, what));
            }
        }
        let owed = self.dead_letters_owed().into_iter();
        wrong.extend(owed.map(|what| (Invariant::NothingIsLost, what)));
        for (invariant, what) in wrong {
            self.fail(clock.mono_us, invariant, what);
        }
    }
}

fn state_of(update: &Accepted) -> &str {
    match update.route == "qr" {
        true => "pending",
        false => &update.value,
    }
}
