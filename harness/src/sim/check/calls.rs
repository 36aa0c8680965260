//! Calls: from the claims that cover them, over their dispatch, to Laravel's end of them.

use std::collections::BTreeSet;

use embudo_core::circuit::PROBE_ITEMS_MAX;
use embudo_core::shard::{ClaimId, Shard};
use serde_json::Value;

use super::answers::{Claimed, short};
use super::history::{Accepted, Fate};
use super::trust;
use super::{Actor, Checker, Clock, Invariant, SHARDS};
use crate::sim::host::{HttpCall, SharedData};

/// The host looks at its clock in whole milliseconds, and so does the guest.
const CLOCK_SLACK_MS: u64 = 1;

/// Calls of one second beyond the pace: one for the slack of ticks, and a new leader's first.
const PACE_SLACK: usize = 2;

/// The same for single items, which catch up on what a tick of theirs missed.
const SINGLES_SLACK: usize = 12;

/// Calls of single items under way.
const SINGLES_IN_FLIGHT_MAX: u64 = 8;

/// Calls of both kinds under way.
const CALLS_UNDER_WAY_MAX: u64 = 12;

/// One call out.
#[derive(Clone, Debug)]
pub(super) struct CallInfo {
    pub(super) id: u64,
    /// The credential that it bears.
    pub(super) token: String,
    /// A request that passes by itself, and no call of the dispatcher's.
    pub(super) passing: bool,
    /// It is at Laravel beside the claim.
    beside: bool,
    /// One item by itself, to the path that it came to.
    pub(super) single: bool,
    /// Whose, among those whose circuit is open.
    probes_for: Option<u32>,
    pub(super) claim: Option<ClaimId>,
    /// When it left, µs.
    pub(super) left_us: u64,
    /// Session, route and sequence of every item.
    pub(super) items: Vec<(u128, String, u64)>,
    /// Sessions whose items the answer, though it takes the others, says not to have been taken.
    pub(super) refused: BTreeSet<u128>,
    /// Its answer speaks of its items, whatever it says: no proxy's page does.
    pub(super) judged: bool,
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
        self.last_call += 1;
        let id = self.last_call;
        if self.deaf {
            return id;
        }
        let mut info = CallInfo {
            id,
            token: trust::token_of(http),
            passing: false,
            beside: false,
            single: !path_of(http).ends_with("/batch"),
            probes_for: None,
            left_us: clock.mono_us,
            claim: None,
            items: Vec::new(),
            refused: BTreeSet::new(),
            judged: false,
            end: None,
            out: true,
        };
        let Some(posted) = items(&http.body) else {
            self.fail(clock.mono_us, Invariant::NothingIsLost, "a call is no JSON");
            return id;
        };
        for item in posted {
            self.item_leaves(clock, &mut info, &item, http, data);
        }
        self.is_the_leaders(clock, &info);
        self.is_under_one_name(clock, &info);
        self.is_faithful(clock, &info, http);
        self.is_the_only_probe(clock, actor, &mut info);
        let single = info.single;
        self.calls.insert(id, info);
        self.is_within_limits(clock, single);
        id
    }

    // ## 7: half-open means one

    /// Envoy has refused a call of this VM on the spot: its circuit is open.
    pub(in crate::sim) fn refused_on_the_spot(&mut self, actor: Actor) {
        self.open_circuits.insert(actor.vm);
    }

    /// A new leader finds the circuit as the store has it.
    pub(super) fn inherits_the_circuit(&mut self, vm: u32) {
        match self.circuit_is_closed {
            true => self.open_circuits.remove(&vm),
            false => self.open_circuits.insert(vm),
        };
    }

    /// The circuit's state is written. Who has lost the lease since may say so too, and is believed by the next.
    pub(super) fn circuit_changes(&mut self, state: &[u8]) {
        self.circuit_is_closed = state.get(1) == Some(&0);
        if self.circuit_is_closed {
            self.open_circuits.clear();
        }
    }

    /// A call leaves although its VM's circuit is open.
    fn is_the_only_probe(&mut self, clock: Clock, actor: Actor, info: &mut CallInfo) {
        if !self.open_circuits.contains(&actor.vm) {
            return;
        }
        info.probes_for = Some(actor.vm);
        let mut others = self.calls.values();
        if others.any(|call| call.out && call.probes_for == Some(actor.vm)) {
            let what = format!("call {} leaves beside the one that probes", info.id);
            self.fail(clock.mono_us, Invariant::HalfOpenMeansOne, what);
        }
        if info.items.len() > PROBE_ITEMS_MAX {
            let what = format!("call {} probes with {} items", info.id, info.items.len());
            self.fail(clock.mono_us, Invariant::HalfOpenMeansOne, what);
        }
    }

    /// Laravel has answered with this status, by itself: anything but a 5xx closes the circuit.
    pub(crate) fn laravel_lives(&mut self, call: u64, status: u16) {
        let probes_for = self.calls.get(&call).and_then(|call| call.probes_for);
        if let Some(vm) = probes_for.filter(|_| status < 500) {
            self.open_circuits.remove(&vm);
        }
    }

    // ## 14: only Laravel decides about an item

    /// The answer to a call is Laravel's word of its items.
    pub(crate) fn laravel_judges(&mut self, call: u64) {
        if let Some(call) = self.calls.get_mut(&call) {
            call.judged = true;
        }
    }

    // ## 2: a call leaves under a claim, in its window
    //
    // D ≥ W + T + L holds only for what leaves within W of the claim.
    fn item_leaves(
        &mut self,
        clock: Clock,
        info: &mut CallInfo,
        item: &Item,
        http: &HttpCall,
        data: &SharedData,
    ) {
        let now_ms = clock.mono_ms();
        // Two tenants' sessions may have one name: then the log has the tenant's before it.
        let is_it = |name: &str| match name.split_once('/') {
            Some((tenant, session)) => {
                let says_so = |value: &[u8]| value == tenant.as_bytes();
                session == item.session && http.headers.iter().any(|(_, value)| says_so(value))
            }
            None => name == item.session,
        };
        let known = self.sessions.iter().find(|(_, h)| is_it(&h.name));
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
    pub(super) fn pass_leaves(
        &mut self,
        clock: Clock,
        session: u128,
        claimed: &Claimed,
        timeout_ms: u64,
    ) -> u64 {
        self.last_call += 1;
        let id = self.last_call;
        let update = self.sessions.get_mut(&session);
        let update = update.and_then(|h| h.of_seq(claimed.seq, &claimed.route));
        let token = update.map_or_else(String::new, |update| update.token.clone());
        let needed_ms = timeout_ms + self.config.times.late_ms;
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
            beside: claimed.beside,
            single: true,
            probes_for: None,
            left_us: clock.mono_us,
            claim: Some(claimed.id),
            items: vec![(session, claimed.route.clone(), claimed.seq)],
            refused: BTreeSet::new(),
            judged: false,
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
    fn is_within_limits(&mut self, clock: Clock, single: bool) {
        let pace = self.config.pace.clone();
        let out = |single: bool| {
            let calls = self.calls.values();
            let own = calls.filter(|call| call.out && !call.passing && call.single == single);
            own.count() as u64
        };
        let (batches, singles) = (out(false), out(true));
        let most = CALLS_UNDER_WAY_MAX.max(pace.max_in_flight);
        if batches > pace.max_in_flight
            || singles > SINGLES_IN_FLIGHT_MAX
            || batches + singles > most
        {
            let what = format!("{batches} batches and {singles} single items are under way");
            self.fail(clock.mono_us, Invariant::Bounded, what);
        }
        let (rate, slack) = match single {
            true => (pace.max_singles_per_second, SINGLES_SLACK),
            false => (pace.max_requests_per_second, PACE_SLACK),
        };
        let departures = &mut self.departures[usize::from(single)];
        departures.push(clock.mono_us);
        let second = clock.mono_us.saturating_sub(1_000_000);
        let last_second = departures.iter().rev();
        let calls = last_second.take_while(|at| **at > second).count();
        let most = usize::try_from(rate).unwrap_or(usize::MAX);
        if calls > most.saturating_add(slack) {
            let what = format!("{calls} calls within a second");
            self.fail(clock.mono_us, Invariant::Bounded, what);
        }
    }

    // ## 2: in the order of acceptance, and never two at once

    /// Laravel begins with a call.
    pub(crate) fn laravel_begins(&mut self, clock: Clock, call: u64) {
        let Some(CallInfo {
            items,
            passing,
            beside,
            ..
        }) = self.calls.get(&call).cloned()
        else {
            return;
        };
        self.is_had(items.len());
        // Who is not proven, or outside the order, is held up by nobody and holds up nobody else.
        if beside {
            return;
        }
        for (id, route, seq) in items {
            let Some(history) = self.sessions.get_mut(&id) else {
                continue;
            };
            let name = history.name.clone();
            let own = history.of_seq(seq, &route).map(|update| {
                update.begun = true;
                // What went beside the order may have to be said once more.
                (update.passed_over || update.beside, update.token.clone())
            });
            let (running, newest) = (history.running, history.newest_begun);
            history.running = Some((call, seq));
            // What passes by itself counts once it is in force: Laravel may not take it at all.
            if !passing {
                history.newest_begun = newest.max(seq);
            }
            // What failed alone goes beside what came after it, but never behind what its caller said there since: unless
            // that, or what took its place, is still to be said behind it.
            let is_beside = own.is_some_and(|(passed_over, token)| {
                let newer = |update: &Accepted| {
                    let is_its = update.route == route && update.token == token;
                    let stands = !matches!(update.fate, Fate::Pending | Fate::Superseded);
                    let may_be_there = update.begun && update.in_effect && stands;
                    is_its && may_be_there && update.seq > seq && !update.beside
                };
                passed_over && !history.accepted.iter().any(newer)
            });
            if let Some((other, other_seq)) = running {
                let what = format!(
                    "Laravel begins call {call} (seq {seq}) of {name} while it works on call \
                     {other} (seq {other_seq})"
                );
                self.fail(clock.mono_us, Invariant::NeverTwoAtOnce, what);
            }
            if seq < newest && !is_beside {
                let what = format!("Laravel begins seq {seq} of {name} after seq {newest}");
                self.fail(clock.mono_us, Invariant::NeverOlderAfterNewer, what);
            }
        }
    }

    /// Laravel has ended a call; these sessions' values are in force now.
    pub(crate) fn laravel_ends(&mut self, now_us: u64, call: u64, in_effect: &BTreeSet<String>) {
        let leaves = self.shown.qr_leaves_state;
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
                let beside = update.beside || update.passed_over;
                // What goes beside the order leaves the session unverified: what Laravel says then is its own word.
                history.in_force = match beside {
                    true => history.in_force.max(seq),
                    false => seq,
                };
                if !(leaves && route == "qr") {
                    history.effects.push((now_us, history.in_force));
                }
                if !beside {
                    history.newest_begun = history.newest_begun.max(seq);
                }
            }
        }
    }

    /// Laravel's answer to a call says item by item what became of it: these sessions' were not taken.
    pub(crate) fn laravel_refuses(&mut self, call: u64, names: &BTreeSet<String>) {
        let Some(call) = self.calls.get_mut(&call) else {
            return;
        };
        let all = call.items.iter().map(|(id, _, _)| *id);
        let sessions = &self.sessions;
        let is_named = |id: &u128| sessions.get(id).is_some_and(|h| names.contains(&h.name));
        call.refused = all.filter(is_named).collect();
    }

    /// The answer to a call is handed to the guest, or there never will be one.
    pub(crate) fn call_ends(&mut self, clock: Clock, call: u64, end: Option<CallEnd>) {
        let Some(call) = self.calls.get_mut(&call) else {
            return;
        };
        call.out = false;
        call.end = end;
        let (items, refused) = (call.items.len(), call.refused.len());
        let is_taken = |(id, _, _): &&(u128, String, u64)| !call.refused.contains(id);
        if let (Some(CallEnd::Delivered), Some((_, route, _))) =
            (end, call.items.iter().find(is_taken))
        {
            let (token, route, left_us) = (call.token.clone(), route.clone(), call.left_us);
            self.accepts(&token, &route, left_us);
        }
        self.is_taken(end, items, refused);
        let _ = clock;
    }
}

/// The path of a call.
pub(super) fn path_of(http: &HttpCall) -> &str {
    let path = http.headers.iter().find(|(name, _)| name == ":path");
    path.map_or("", |(_, path)| std::str::from_utf8(path).unwrap_or(""))
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
