//! What the webhook is told: events it can read, each item once, a session's items in order, and no secrets.
//!
//! A hand-over is no end. That is not judged here: an update may leave the store only as delivered, superseded,
//! expired or rejected, each of them by the rules of `entry`, and the answer to an event gives no leave to any
//! of them.

use std::collections::BTreeMap;

use embudo_core::config::Class;
use serde_json::Value;

use super::history::Fate;
use super::shard::Write;
use super::{CallEnd, Checker, Clock, Invariant, Transition, answers::short};
use crate::model::webhook::{Event, Handed};
use crate::sim::host::HttpCall;

/// The fallback, as the configuration has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fallback {
    path: Option<String>,
    authority: Option<String>,
    headers: BTreeMap<String, String>,
    /// Nothing ever goes wrong with the webhook, so nothing excuses a dead letter that is not written.
    is_reliable: bool,
}

/// One event on its way, or told.
#[derive(Clone, Debug)]
pub(super) struct Handover {
    /// The leader's epoch when it left.
    epoch: u64,
    dead: bool,
    items: Vec<Handed>,
    /// Still under way at Envoy.
    out: bool,
    end: Option<CallEnd>,
    /// The guest has been given the answer: one that sleeps gives the event up before it hears of it.
    heard: bool,
}

// === impl Fallback ===

impl Fallback {
    /// Reads it.
    #[must_use]
    pub(crate) fn of(config: &Value) -> Self {
        let fallback = &config["fallback"];
        let text = |key: &str| fallback[key].as_str().map(str::to_owned);
        let headers = fallback["headers"].as_object().into_iter().flatten();
        Self {
            path: fallback.is_object().then(|| text("path")).flatten(),
            authority: text("authority"),
            headers: headers
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect(),
            is_reliable: false,
        }
    }

    /// The same, where nothing ever goes wrong with the webhook.
    #[must_use]
    pub(crate) fn reliable(self, is_reliable: bool) -> Self {
        Self {
            is_reliable,
            ..self
        }
    }
}

// === impl Checker ===

impl Checker {
    /// An event leaves for the webhook. Gives the checker's number for it, of the same row as calls.
    pub(in crate::sim) fn hands_over(&mut self, clock: Clock, http: &HttpCall) -> u64 {
        self.last_call += 1;
        let id = self.last_call;
        if self.deaf {
            return id;
        }
        self.is_addressed(clock, http);
        self.is_free_of_secrets(clock, http);
        let event = match Event::read(&http.body) {
            Ok(event) => event,
            Err(why) => {
                let what = format!("event {id} cannot be read: {why}");
                self.fail(clock.mono_us, Invariant::TheWebhookIsTold, what);
                return id;
            }
        };
        for item in &event.items {
            self.is_known(clock, id, &event, item);
            self.is_handed_over_once(clock, id, &event, item);
        }
        let handover = Handover {
            epoch: self.lease.epoch,
            dead: event.is_dead_letter(),
            items: event.items,
            out: true,
            end: None,
            heard: false,
        };
        self.handovers.insert(id, handover);
        id
    }

    fn is_addressed(&mut self, clock: Clock, http: &HttpCall) {
        let has = |name: &str, value: &str| {
            let found = http.headers.iter().find(|(known, _)| known == name);
            found.is_some_and(|(_, found)| found == value.as_bytes())
        };
        let Some(path) = self.fallback.path.clone() else {
            let what = "an event leaves, and no fallback is configured";
            return self.fail(clock.mono_us, Invariant::TheWebhookIsTold, what);
        };
        let authority = self.fallback.authority.as_deref();
        let own = self.fallback.headers.iter();
        let missing = own.clone().any(|(name, value)| !has(name, value));
        let astray = !has(":method", "POST")
            || !has(":path", &path)
            || authority.is_some_and(|authority| !has(":authority", authority));
        if missing || astray {
            let what = "an event leaves, and not as the fallback's configuration says";
            self.fail(clock.mono_us, Invariant::TheWebhookIsTold, what);
        }
    }

    // ## 5: the webhook never sees Laravel's credentials

    fn is_free_of_secrets(&mut self, clock: Clock, http: &HttpCall) {
        let is_token = |value: &str| {
            let all = self.sessions.values().flat_map(|h| &h.accepted);
            !value.is_empty() && all.clone().any(|update| update.token == value)
        };
        let shown = http.headers.iter().find(|(name, value)| {
            let own = self.fallback.headers.get(name);
            let is_own = own.is_some_and(|own| own.as_bytes() == value.as_slice());
            let class = self.config.headers.of(name.as_bytes());
            let secret = matches!(class, Class::Credential | Class::Page);
            !is_own && (secret || std::str::from_utf8(value).is_ok_and(is_token))
        });
        if let Some((name, _)) = shown {
            let what = format!("the webhook is shown a caller's {name}");
            self.fail(clock.mono_us, Invariant::CallersNeverMix, what);
        }
    }

    /// It is what was accepted; a dead letter is what Laravel did not want.
    fn is_known(&mut self, clock: Clock, id: u64, event: &Event, item: &Handed) {
        let history = self.sessions.values().find(|h| h.name == item.session);
        let all = history.into_iter().flat_map(|history| &history.accepted);
        let update = all.rev().find(|update| {
            update.timestamp_ms == item.timestamp
                && update.value == item.value
                && event.route.is_none_or(|route| route.name() == update.route)
        });
        let wrong = match update.map(|update| update.fate) {
            None => "which was never accepted there",
            Some(Fate::Rejected | Fate::Superseded) => return,
            Some(_) if !event.is_dead_letter() => return,
            Some(_) => "as a dead letter, and it was not rejected",
        };
        let what = format!(
            "event {id} has {} of session {} and {}, {wrong}",
            short(&item.value),
            item.session,
            item.timestamp
        );
        self.fail(clock.mono_us, Invariant::TheWebhookIsTold, what);
    }

    // ## 11: an item is handed over once
    //
    // Unless nobody can know, or somebody else leads: who has told what is not in the store. A dead letter is
    // news, also of what was handed over before.
    fn is_handed_over_once(&mut self, clock: Clock, id: u64, event: &Event, item: &Handed) {
        let epoch = self.lease.epoch;
        let same = |told: &Handover| {
            let is_taken = told.heard && told.end == Some(CallEnd::Delivered);
            let is_known = told.out || is_taken;
            told.epoch == epoch && told.dead == event.is_dead_letter() && is_known
        };
        let all = self.handovers.iter();
        let before = all
            .filter(|(_, told)| same(told) && told.items.contains(item))
            .map(|(before, _)| *before)
            .next();
        if let Some(before) = before {
            let what = format!(
                "event {id} has {} of session {} and {} once more, after event {before}",
                short(&item.value),
                item.session,
                item.timestamp
            );
            self.fail(clock.mono_us, Invariant::HandedOverOnce, what);
        }
    }

    /// The store says that the webhook has heard of a session's update.
    pub(super) fn handed_over(&mut self, write: &mut Write, id: u128, seq: u64) {
        write.saw(Transition::HandedOver);
        let history = self.sessions.get(&id);
        let told = history.is_some_and(|history| {
            let all = history.accepted.iter();
            let mut update = all.filter(|update| update.seq == seq);
            let events = self.handovers.values();
            let items = events
                .filter(|told| told.end == Some(CallEnd::Delivered))
                .flat_map(|told| &told.items);
            update.any(|update| {
                items.clone().any(|item| {
                    item.session == history.name && item.timestamp == update.timestamp_ms
                })
            })
        });
        if !told {
            let what = format!("seq {seq} counts as told, and the webhook never took it");
            write.wrong(Invariant::TheWebhookIsTold, what);
        }
    }

    // ## 2: the webhook hears of a session in order

    /// An event is there.
    pub(crate) fn event_arrives(&mut self, clock: Clock, event: u64) {
        // A dead letter is news of a refusal, however old its item is.
        let told = self.handovers.get(&event).filter(|told| !told.dead);
        let items = told.map(|told| told.items.clone());
        for item in items.unwrap_or_default() {
            let heard = self.heard.entry(item.session.clone()).or_default();
            let newest = *heard;
            *heard = newest.max(item.timestamp);
            // What went beside the order and is said once more has the place that it had, and comes when that is known.
            let mut all = self.sessions.values().flat_map(|history| {
                let own = history.accepted.iter();
                own.filter(|_| history.name == item.session)
            });
            let is_late = all.any(|update| update.beside && update.timestamp_ms == item.timestamp);
            if item.timestamp < newest && !is_late {
                let what = format!(
                    "the webhook hears of session {} and {} after {newest}",
                    item.session, item.timestamp
                );
                self.fail(clock.mono_us, Invariant::NeverOlderAfterNewer, what);
            }
        }
    }

    /// The guest hears the answer to an event.
    pub(crate) fn event_is_heard(&mut self, event: u64) {
        if let Some(handover) = self.handovers.get_mut(&event) {
            handover.heard = true;
        }
    }

    /// The answer to an event is on its way to the guest, or there never will be one.
    pub(crate) fn event_ends(&mut self, event: u64, end: Option<CallEnd>) {
        if let Some(handover) = self.handovers.get_mut(&event) {
            handover.out = false;
            handover.end = end;
        }
    }

    // ## 1: what Laravel does not want is a dead letter

    /// Rejected updates of the present leader's time that no dead letter tells of, where nothing excuses it.
    #[must_use]
    pub(crate) fn dead_letters_owed(&self) -> Vec<String> {
        if self.fallback.path.is_none() || !self.fallback.is_reliable {
            return Vec::new();
        }
        let is_told = |session: &str, timestamp_ms| {
            let dead = self.handovers.values().filter(|told| told.dead);
            dead.flat_map(|told| &told.items)
                .any(|item| item.session == session && item.timestamp == timestamp_ms)
        };
        let mut owed = Vec::new();
        for history in self.sessions.values() {
            let rejected = history.accepted.iter().filter(|update| {
                update.fate == Fate::Rejected && update.ended_us > self.led_since_us
            });
            owed.extend(
                rejected
                    .filter(|update| !is_told(&history.name, update.timestamp_ms))
                    .map(|update| {
                        let value = short(&update.value);
                        format!(
                            "no dead letter tells of {value} of session {}",
                            history.name
                        )
                    }),
            );
        }
        owed
    }
}

#[cfg(test)]
mod tests;
