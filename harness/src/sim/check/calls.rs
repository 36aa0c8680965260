//! Calls: from the claims that cover them, over their dispatch, to Laravel's end of them.

use std::collections::BTreeSet;

use embudo_core::shard::{ClaimId, Shard};
use serde_json::Value;

use super::answers::{Claimed, short};
use super::trust;
use super::{Actor, Checker, Clock, Invariant, SHARDS};
use crate::sim::host::{HttpCall, SharedData};

/// The host looks at its clock in whole milliseconds, and so does the guest.
const CLOCK_SLACK_MS: u64 = 1;

/// Calls of one second beyond the pace: one for the slack of ticks, and a new leader's first.
const PACE_SLACK: usize = 2;

/// One call out.
#[derive(Clone, Debug)]
pub(super) struct CallInfo {
    pub(super) id: u64,
    /// The credential that it bears.
    pub(super) token: String,
    /// A request that passes by itself, and no call of the dispatcher's.
    pub(super) passing: bool,
    pub(super) claim: Option<ClaimId>,
    /// When it left, µs.
    pub(super) left_us: u64,
    /// Session, route and sequence of every item.
    pub(super) items: Vec<(u128, String, u64)>,
    /// What the guest may know of its end.
    pub(super) end: Option<CallEnd>,
    /// Still under way at Envoy.
    pub(super) out: bool,
}

/// How a call ended, as far as anybody at this end can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallEnd {
    /// Laravel has it, and said so.
    Delivered,
    /// Laravel certainly has not.
    Failed,
    /// Nobody knows.
    Unknown,
}

// === impl Checker ===

impl Checker {
    /// A call leaves. Gives the checker's number for it.
    pub(in crate::sim) fn dispatched(
        &mut self,
        clock: Clock,
        actor: Actor,
        http: &HttpCall,
        data: &SharedData,
    ) -> u64 {
        let _ = actor;
        self.last_call += 1;
        let id = self.last_call;
        if self.deaf {
            return id;
        }
        let mut info = CallInfo {
            id,
            token: trust::token_of(http),
            passing: false,
            left_us: clock.mono_us,
            claim: None,
            items: Vec::new(),
            end: None,
            out: true,
        };
        let Some(posted) = items(&http.body) else {
            self.fail(clock.mono_us, Invariant::NothingIsLost, "a call is no JSON");
            return id;
        };
        for item in posted {
            self.item_leaves(clock, &mut info, &item, data);
        }
        self.is_the_leaders(clock, &info);
        self.is_under_one_name(clock, &info);
        self.calls.insert(id, info);
        self.is_within_limits(clock);
        id
    }

    // ## 2: a call leaves under a claim, in its window
    //
    // D ≥ W + T + L holds only for what leaves within W of the claim.
    fn item_leaves(&mut self, clock: Clock, info: &mut CallInfo, item: &Item, data: &SharedData) {
        let now_ms = clock.mono_ms();
        let known = self.sessions.iter().find(|(_, h)| h.name == item.session);
        let shard = known.map(|(id, _)| *id).and_then(|id| {
            let index = self.rules.as_ref()?.shard_of(id);
            Some((id, data.get(&format!("{SHARDS}{index}"))?.0))
        });
        let Some((id, bytes)) = shard else {
            let what = format!("a call names {}, which nobody sent", item.session);
            return self.fail(clock.mono_us, Invariant::NothingIsLost, what);
        };
        let decoded = Shard::decode(&bytes).ok();
        let claim = decoded
            .as_ref()
            .and_then(|shard| shard.sessions.iter().find(|session| session.id == id))
            .and_then(|session| session.claim.clone());
        let Some(claim) = claim else {
            let what = format!("call {} of session {} has no claim", info.id, item.session);
            return self.fail(clock.mono_us, Invariant::AClaimIsRespected, what);
        };
        let taken = self.calls.values().any(|call| call.claim == Some(claim.id));
        if taken || info.claim.is_some_and(|other| other != claim.id) {
            let what = format!("call {} leaves under another call's claim", info.id);
            self.fail(clock.mono_us, Invariant::AClaimIsRespected, what);
        }
        info.claim = Some(claim.id);
        let times = &self.config.times;
        let needed_ms = times.call_timeout_ms + times.late_ms;
        if now_ms + needed_ms > claim.deadline_ms + CLOCK_SLACK_MS {
            let what = format!(
                "call {} leaves {} ms before its claims run out, and may take {needed_ms}",
                info.id,
                claim.deadline_ms.saturating_sub(now_ms)
            );
            self.fail(clock.mono_us, Invariant::ACallLeavesInTime, what);
        }
        if info.items.iter().any(|(other, _, _)| *other == id) {
            let what = format!("call {} has session {} twice", info.id, item.session);
            self.fail(clock.mono_us, Invariant::NeverTwoAtOnce, what);
        }
        info.items.push((id, claim.route.to_string(), claim.seq));
        let update = self
            .sessions
            .get_mut(&id)
            .and_then(|history| history.of_seq(claim.seq, &claim.route));
        let wrong = match update {
            None => Some(format!("call {} sends what was never accepted", info.id)),
            Some(update) => {
                let stamped = item.timestamp.is_none_or(|ms| ms == update.timestamp_ms);
                let same = update.value == item.value && stamped;
                (!same).then(|| {
                    let (sent, value) = (short(&item.value), short(&update.value));
                    format!(
                        "call {} sends {sent}, and seq {} is {value}",
                        info.id, claim.seq
                    )
                })
            }
        };
        if let Some(what) = wrong {
            self.fail(clock.mono_us, Invariant::NothingIsLost, what);
        }
    }

    /// A request that passes leaves, under the claim that it has taken itself. Gives its number as a call.
    pub(super) fn pass_leaves(&mut self, clock: Clock, session: u128, claimed: &Claimed) -> u64 {
        self.last_call += 1;
        let id = self.last_call;
        let update = self.sessions.get_mut(&session);
        let update = update.and_then(|h| h.of_seq(claimed.seq, &claimed.route));
        let token = update.map_or_else(String::new, |update| update.token.clone());
        let times = &self.config.times;
        let needed_ms = times.call_timeout_ms + times.late_ms;
        if clock.mono_ms() + needed_ms > claimed.deadline_ms + CLOCK_SLACK_MS {
            let what = format!(
                "passing update {id} leaves {} ms before its claim runs out, and may take {needed_ms}",
                claimed.deadline_ms.saturating_sub(clock.mono_ms())
            );
            self.fail(clock.mono_us, Invariant::ACallLeavesInTime, what);
        }
        let info = CallInfo {
            id,
            token,
            passing: true,
            left_us: clock.mono_us,
            claim: Some(claimed.id),
            items: vec![(session, claimed.route.clone(), claimed.seq)],
            end: None,
            out: true,
        };
        self.calls.insert(id, info);
        id
    }

    // ## 6: only the leader's claims count
    fn is_the_leaders(&mut self, clock: Clock, info: &CallInfo) {
        let Some(claim) = info.claim else { return };
        let lease = self.lease;
        if claim.epoch != lease.epoch || clock.mono_ms() > lease.expires_ms {
            let what = format!(
                "call {} of epoch {} leaves in epoch {}, which ends at {} ms",
                info.id, claim.epoch, lease.epoch, lease.expires_ms
            );
            self.fail(clock.mono_us, Invariant::OneLeader, what);
        }
    }

    // ## 4: bounded
    fn is_within_limits(&mut self, clock: Clock) {
        let pace = self.config.pace.clone();
        let out = self
            .calls
            .values()
            .filter(|call| call.out && !call.passing)
            .count() as u64;
        if out > pace.max_in_flight {
            let what = format!("{out} calls are under way");
            self.fail(clock.mono_us, Invariant::Bounded, what);
        }
        self.departures.push(clock.mono_us);
        let second = clock.mono_us.saturating_sub(1_000_000);
        let last_second = self.departures.iter().rev();
        let calls = last_second.take_while(|at| **at > second).count();
        let most = usize::try_from(pace.max_requests_per_second).unwrap_or(usize::MAX);
        if calls > most.saturating_add(PACE_SLACK) {
            let what = format!("{calls} calls within a second");
            self.fail(clock.mono_us, Invariant::Bounded, what);
        }
    }

    // ## 2: in the order of acceptance, and never two at once

    /// Laravel begins with a call.
    pub(crate) fn laravel_begins(&mut self, clock: Clock, call: u64) {
        let Some(CallInfo { items, passing, .. }) = self.calls.get(&call).cloned() else {
            return;
        };
        for (id, _, seq) in items {
            let Some(history) = self.sessions.get_mut(&id) else {
                continue;
            };
            let name = history.name.clone();
            let (running, newest) = (history.running, history.newest_begun);
            history.running = Some((call, seq));
            // What passes by itself counts once it is in force: Laravel may not take it at all.
            if !passing {
                history.newest_begun = newest.max(seq);
            }
            if let Some((other, other_seq)) = running {
                let what = format!(
                    "Laravel begins call {call} (seq {seq}) of {name} while it works on call \
                     {other} (seq {other_seq})"
                );
                self.fail(clock.mono_us, Invariant::NeverTwoAtOnce, what);
            }
            if seq < newest {
                let what = format!("Laravel begins seq {seq} of {name} after seq {newest}");
                self.fail(clock.mono_us, Invariant::NeverOlderAfterNewer, what);
            }
        }
    }

    /// Laravel has ended a call; these sessions' values are in force now.
    pub(crate) fn laravel_ends(&mut self, call: u64, in_effect: &BTreeSet<String>) {
        let items = self.calls.get(&call).map(|call| call.items.clone());
        for (id, route, seq) in items.unwrap_or_default() {
            let Some(history) = self.sessions.get_mut(&id) else {
                continue;
            };
            if history.running.is_some_and(|(running, _)| running == call) {
                history.running = None;
            }
            let stored = in_effect.contains(&history.name);
            if let Some(update) = history.of_seq(seq, &route).filter(|_| stored) {
                update.in_effect = true;
                history.in_force = seq;
                history.newest_begun = history.newest_begun.max(seq);
            }
        }
    }

    /// The answer to a call is handed to the guest, or there never will be one.
    pub(crate) fn call_ends(&mut self, clock: Clock, call: u64, end: Option<CallEnd>) {
        let Some(call) = self.calls.get_mut(&call) else {
            return;
        };
        call.out = false;
        call.end = end;
        if let (true, Some(CallEnd::Delivered), Some((_, route, _))) =
            (call.passing, end, call.items.first())
        {
            let (token, route) = (call.token.clone(), route.clone());
            self.trusts(clock.mono_us, &token, &route);
        }
    }
}

/// One item of a body.
struct Item {
    session: String,
    value: String,
    timestamp: Option<u64>,
}

/// The items of a batch, or the one of a single post.
fn items(body: &[u8]) -> Option<Vec<Item>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let list = ["qrs", "statuses", "events"]
        .iter()
        .find_map(|field| body.get(field)?.as_array().cloned());
    let list = list.unwrap_or_else(|| vec![body]);
    let item = |value: &Value| {
        let session = value.get("session_id")?.as_str()?.to_owned();
        let content = value.get("qr").or_else(|| value.get("estado_qr"))?;
        Some(Item {
            session,
            value: content.as_str()?.to_owned(),
            // Other gateways have their own, and their events arrive as they came.
            timestamp: value
                .get("timestamp")
                .filter(|_| value.get("event").is_none())
                .and_then(Value::as_u64),
        })
    };
    list.iter().map(item).collect()
}
