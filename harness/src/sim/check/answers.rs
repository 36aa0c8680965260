//! What the gateway is told, and whether it is true.

use std::collections::BTreeSet;

use embudo_core::headers::borrowed;
use embudo_core::json::Pointer;
use embudo_core::route::{Head, Update};
use embudo_core::shard::ClaimId;

use serde_json::Value;

use super::faithful::Said;
use super::held::Meant;
use super::history::{Accepted, Fate, History};
use super::others::{Item, Waits};
use super::reads::{self, Read, Told};
use super::{CallEnd, Checker, Clock, Invariant, Transition};
use crate::model::http::Request;
use crate::sim::abi::Headers;
use crate::sim::host::Relayed;

/// A request under way in a VM.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) asked: Asked,
    /// The caller's credential; empty for none.
    pub(super) token: String,
    pub(super) begun_us: u64,
    /// What its offer was accepted as.
    pub(super) accepted: Option<u64>,
    /// Its claim, where it passes by itself.
    pub(super) passing: Option<Claimed>,
    /// The call that it is then.
    pub(super) call: Option<u64>,
    /// Whether, at its last look at the shard, it was a duplicate, and whether it was implied.
    verdict: Option<Verdict>,
    /// The update that it shares its fate with: its own, or whose duplicate it was at that look.
    pub(super) meant: Option<Meant>,
    /// The VM that it is in.
    pub(super) vm: Option<u32>,
    /// Since when it is held for its update's end. Monotonic.
    pub(super) held_us: Option<u64>,
    /// Since when it is held for its turn, and its place's sequence once that is written. Monotonic.
    pub(super) turn_us: Option<u64>,
    pub(super) place: Option<u64>,
    /// The session of its place.
    pub(super) place_of: Option<u128>,
    /// Its sequence, where it goes on and there was no room to record it.
    pub(super) unrecorded: Option<u64>,
    /// Its sequence, where it may have been queued and have given way in one write.
    pub(super) outdated: Option<u64>,
    /// When its answer was on its way to the filter. Monotonic.
    pub(super) given_us: u64,
}

/// What a request is to the checker.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    /// An update.
    Update(Sent),
    /// A status read.
    Read(Read),
    /// A batch of the gateway's own.
    Batch(Vec<Item>),
    /// A request of another route, at a barrier.
    Barred(Waits),
    /// Neither.
    Else,
}

/// The claim of an update that passes.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) id: ClaimId,
    pub(super) route: String,
    pub(super) seq: u64,
    pub(super) deadline_ms: u64,
    /// It is no claim: its caller is not proven, or it went on outside the order.
    pub(super) beside: bool,
}

/// Whether an update is a duplicate, and whether it is implied; or why not.
pub(super) type Verdict = (Result<(), String>, Result<(), String>);

/// An update as the gateway sent it, with the hashes that the store knows it by.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) session: u128,
    pub(super) name: String,
    pub(super) route: usize,
    pub(super) value: String,
    pub(super) hash: u128,
    pub(super) voids: bool,
    /// Its value is never a duplicate.
    no_dedup: bool,
    /// What the sender's own clock says.
    pub(super) order: Option<u64>,
    /// It has a time or a number of its own: the same bytes are the same delivery.
    tells_repeats: bool,
    pub(super) token: String,
    /// The names of its members, but for volatile ones.
    pub(super) members: BTreeSet<String>,
    /// What of it must arrive.
    pub(super) said: Said,
}

// === impl Stream ===

impl Stream {
    /// The update, if it is one.
    pub(super) fn update(&self) -> Option<&Sent> {
        match &self.asked {
            Asked::Update(sent) => Some(sent),
            _ => None,
        }
    }
}

impl Sent {
    /// An item of a batch.
    pub(super) fn of_item(
        update: &Update<'_>,
        name: &str,
        value: &str,
        token: String,
        members: BTreeSet<String>,
        said: Said,
    ) -> Self {
        Self {
            session: update.session,
            name: name.to_owned(),
            route: update.route,
            value: value.to_owned(),
            hash: update.value,
            voids: update.voids,
            no_dedup: update.no_dedup,
            order: update.order,
            tells_repeats: false,
            token,
            members,
            said,
        }
    }
}

// === impl Checker ===

impl Checker {
    /// A worker begins with a request: the session's name and the value, if it is an update.
    pub(crate) fn stream_begins(
        &mut self,
        clock: Clock,
        stream: u64,
        request: &Request,
        update: Option<(&str, &str)>,
    ) {
        let sent = update.and_then(|(name, value)| self.read(request, name, value));
        let host = reads::host_of(request);
        let asked = match (sent, reads::read_of(request)) {
            (Some(sent), _) => {
                self.hosts_of.insert((sent.name.clone(), host.clone()));
                self.hosts.insert(host);
                Asked::Update(sent)
            }
            (None, Some(mut read)) => {
                read.is_elsewhere = !self.hosts.contains(&host);
                read.is_apart = !self.hosts_of.contains(&(read.name.clone(), host));
                Asked::Read(read)
            }
            (None, None) => {
                let other = self.other(request);
                if let Asked::Batch(items) = &other {
                    let names = items.iter().map(|item| item.sent.name.clone());
                    self.hosts_of.extend(names.map(|name| (name, host.clone())));
                    self.hosts.insert(host);
                }
                other
            }
        };
        if matches!(asked, Asked::Update(_) | Asked::Read(_)) {
            self.is_asked();
        }
        self.streams.insert(
            stream,
            Stream {
                asked,
                token: reads::token_of(request),
                begun_us: clock.mono_us,
                accepted: None,
                passing: None,
                call: None,
                verdict: None,
                meant: None,
                vm: None,
                held_us: None,
                turn_us: None,
                place: None,
                place_of: None,
                unrecorded: None,
                outdated: None,
                given_us: 0,
            },
        );
    }

    fn read(&self, request: &Request, name: &str, value: &str) -> Option<Sent> {
        let rules = self.rules.as_ref()?;
        let mut headers: Vec<(String, Vec<u8>)> = request
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.to_vec()))
            .collect();
        headers.push((":method".into(), request.method.clone().into_bytes()));
        headers.push((":path".into(), request.path.clone().into_bytes()));
        let authority = request.authority().unwrap_or(super::super::AUTHORITY);
        headers.push((":authority".into(), authority.into()));
        let head: Head = rules.head(borrowed(&headers)).ok()?;
        let update: Update<'_> = rules.update(&head, &request.body).ok()?;
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let is_in = |pointer: &Pointer| {
            let mut segments = pointer.segments();
            let found = segments.try_fold(&body, |at, s| at.get(s));
            found.is_some_and(|found| !found.is_null() && *found != "")
        };
        let volatile = self.config.routes.get(update.route).map(|r| &r.volatile);
        let tells_repeats = volatile.into_iter().flatten().any(is_in) || update.order.is_some();
        Some(Sent {
            session: update.session,
            name: name.to_owned(),
            route: update.route,
            value: value.to_owned(),
            hash: update.value,
            voids: update.voids,
            no_dedup: update.no_dedup,
            order: update.order,
            tells_repeats,
            token: reads::token_of(request),
            members: self.members(update.route, &request.body),
            said: Said::of(request),
        })
    }

    /// The names of an update's members, but for those that its rule calls volatile.
    pub(super) fn members(&self, route: usize, body: &[u8]) -> BTreeSet<String> {
        let volatile = self.config.routes.get(route).map(|rule| &rule.unsaid);
        let is_said = |name: &String| {
            let mut volatile = volatile.into_iter().flatten();
            !volatile.any(|pointer| pointer.segments().eq([name.as_str()]))
        };
        let body: serde_json::Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
        body.into_iter()
            .map(|(name, _)| name)
            .filter(is_said)
            .collect()
    }

    /// A worker looks at the shard of its request: what it answers must be true now.
    pub(super) fn stream_reads(&mut self, clock: Clock, vm: u32, stream: u64) {
        let verdict = self
            .streams
            .get(&stream)
            .and_then(|stream| self.judge(clock, stream));
        let known = self.streams.get(&stream);
        let meant = known.and_then(|known| self.meant(known, verdict.as_ref()?));
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.verdict = verdict;
            stream.vm = Some(vm);
            stream.meant = meant;
        }
    }

    /// Whether a request's update is a duplicate now, and whether it is implied.
    fn judge(&self, clock: Clock, stream: &Stream) -> Option<Verdict> {
        self.judged(clock, stream.update()?, stream.begun_us)
    }

    /// The same of any update that came then.
    pub(super) fn judged(&self, clock: Clock, sent: &Sent, begun_us: u64) -> Option<Verdict> {
        // The guest looked at its clock between the beginning and now: it may take the value for as
        // young as it was at the beginning.
        let begun_ms = (begun_us / 1000).min(clock.mono_ms());
        let history = self.sessions.get(&sent.session);
        Some((
            self.is_duplicate(history, sent, begun_ms),
            self.is_implied(history, sent, begun_ms),
        ))
    }

    // ## 3: duplicates collapse, and only duplicates
    //
    // A value answered `duplicate` is the last one accepted of its route, nothing accepted since has
    // changed what Laravel has, and it is delivered or pending.
    fn is_duplicate(
        &self,
        history: Option<&History>,
        sent: &Sent,
        begun_ms: u64,
    ) -> Result<(), String> {
        let history = history.ok_or("nothing was ever accepted of the session")?;
        let rule = self.config.routes.get(sent.route).ok_or("no such route")?;
        let last = history
            .newest_of(&rule.name)
            .ok_or("nothing was accepted of the route")?;
        if last.token != sent.token {
            return Err("the last value of the route came under another credential".into());
        }
        if last.hash != sent.hash {
            return Err(format!(
                "the last value of the route is {}",
                short(&last.value)
            ));
        }
        if sent.no_dedup {
            return Err("its value is never a duplicate".into());
        }
        let kin = |route: &str| {
            let rules = self.rules.as_ref();
            rules.is_some_and(|rules| rules.is_kin(rule, route))
        };
        let newer = history.newest_where(|update| kin(&update.route));
        if newer.is_some_and(|newer| newer.seq > last.seq) {
            return Err("another route of its family has said something newer".into());
        }
        if last.at_us < history.went_by_us {
            return Err("something of its session has gone by since".into());
        }
        let newest = history.newest();
        if rule.implied_by.is_some() && newest.is_some_and(|newest| newest.seq != last.seq) {
            return Err("another route's item is newer".into());
        }
        self.is_current(last, rule.expire_after_ms, begun_ms)
    }

    fn is_implied(
        &self,
        history: Option<&History>,
        sent: &Sent,
        begun_ms: u64,
    ) -> Result<(), String> {
        let history = history.ok_or("nothing was ever accepted of the session")?;
        let rule = self.config.routes.get(sent.route).ok_or("no such route")?;
        let by = rule
            .implied_by
            .and_then(|by| self.config.routes.get(by))
            .ok_or("no route implies this one")?;
        let value = by.implied().map(|implies| implies.value.as_str());
        if value != Some(&sent.value) {
            return Err("the value is not the implied one".into());
        }
        let newest = history.newest().ok_or("nothing was accepted")?;
        if newest.token != sent.token {
            return Err("the newest update came under another credential".into());
        }
        if newest.at_us < history.went_by_us {
            return Err("something of its session has gone by since".into());
        }
        if newest.route != by.name {
            return Err(format!("the newest update is {}", short(&newest.value)));
        }
        self.is_current(newest, by.expire_after_ms, begun_ms)
    }

    fn is_current(
        &self,
        update: &Accepted,
        expire_after_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<(), String> {
        let age_ms = now_ms.saturating_sub(update.accepted_ms);
        let quiet_ms = now_ms.saturating_sub(update.touched_ms);
        let dedup = &self.config.dedup;
        match update.fate {
            Fate::Pending if expire_after_ms.is_some_and(|limit| age_ms > limit) => {
                Err(format!("it is {age_ms} ms old, too old to be sent"))
            }
            Fate::Pending => Ok(()),
            Fate::Delivered if !update.in_effect => Err("it never took effect".into()),
            Fate::Delivered if age_ms > dedup.max_age_ms => {
                Err(format!("it is {age_ms} ms old and due to be let through"))
            }
            Fate::Delivered if quiet_ms > dedup.ttl_ms => {
                Err(format!("nothing was heard of it for {quiet_ms} ms"))
            }
            Fate::Delivered => Ok(()),
            Fate::Superseded => Err("it was superseded".into()),
            Fate::Expired => Err("it expired unsent".into()),
            Fate::Rejected | Fate::Failed => Err("Laravel did not take it".into()),
            Fate::Passing => Err("nobody knows whether Laravel took it".into()),
        }
    }

    /// A request was answered by the guest, with this outcome.
    pub(crate) fn stream_answered(
        &mut self,
        clock: Clock,
        stream: u64,
        status: u16,
        outcome: &str,
        headers: &Headers,
        body: &[u8],
    ) {
        let Some(known) = self.streams.remove(&stream) else {
            return;
        };
        if let Asked::Read(read) = &known.asked {
            let read = (read, known.begun_us);
            let told = Told {
                status,
                outcome,
                headers,
                body,
            };
            return self.read_answered(clock, stream, read, told, None);
        }
        self.coverage.count(Transition::CollectingToAnswered);
        if let Asked::Batch(items) = &known.asked {
            self.coverage.count(Transition::BatchQueued);
            return self.batch_answered(clock, &known, items, (status, outcome), body);
        }
        // Whoever never looked at the store has no better moment than this.
        let verdict = known.verdict.clone().filter(|_| known.place.is_none());
        let verdict = verdict.or_else(|| self.judge(clock, &known));
        let Some(sent) = known.update().cloned() else {
            let what = format!("what is no update was answered {outcome}");
            return self.fail(clock.mono_us, Invariant::OnlyDuplicatesCollapse, what);
        };
        let name = format!("{} of session {}", short(&sent.value), sent.name);
        if known.held_us.is_some() {
            return self.held_is_answered(clock, &known, &sent, status, outcome);
        }
        self.may_be_answered_at_once(clock, &known, &sent, outcome);
        let expected = match outcome {
            "queued" => {
                self.is_proven(clock, &sent, &known);
                if known.accepted.or(known.outdated).is_none() {
                    let what = format!("{name} was answered queued, and is not in the store");
                    self.fail(clock.mono_us, Invariant::NothingIsLost, what);
                }
                return;
            }
            "busy" if status == 503 => None,
            "duplicate" => {
                self.coverage.count(Transition::AnsweredDuplicate);
                verdict.map(|(duplicate, _)| duplicate)
            }
            "implied" => {
                self.coverage.count(Transition::AnsweredImplied);
                verdict.map(|(_, implied)| implied)
            }
            "stale" => {
                self.coverage.count(Transition::AnsweredStale);
                let history = self.sessions.get(&sent.session);
                let newest = history.and_then(|history| history.newest_order);
                let is_older = sent.order.is_some() && sent.order < newest;
                let is_older = is_older || self.is_refused_repeat(history, &sent);
                Some(is_older.then_some(()).ok_or_else(|| {
                    format!("its clock says {:?}, and the newest {newest:?}", sent.order)
                }))
            }
            other => Some(Err(format!("nobody knows the outcome {other}"))),
        };
        if known.accepted.is_some() {
            let what = format!("{name} was accepted and answered {outcome}");
            self.fail(clock.mono_us, Invariant::OnlyDuplicatesCollapse, what);
        }
        if let Some(Err(why)) = expected {
            let what = format!("{name} was answered {outcome}, but {why}");
            self.fail(clock.mono_us, Invariant::OnlyDuplicatesCollapse, what);
        }
        if outcome == "duplicate" || outcome == "implied" {
            self.touch(clock, &sent);
        }
    }

    /// Whether this was written through and not taken, and something newer was accepted since.
    fn is_refused_repeat(&self, history: Option<&History>, sent: &Sent) -> bool {
        let Some((history, rule)) = history.zip(self.config.routes.get(sent.route)) else {
            return false;
        };
        let all = history.accepted.iter();
        let not_taken = |update: &&Accepted| {
            let is_it = update.route == rule.name && update.token == sent.token;
            let same = update.hash == sent.hash && is_it;
            same && matches!(update.fate, Fate::Failed | Fate::Passing)
        };
        let first = all.filter(not_taken).map(|update| update.seq).min();
        let newest = history.newest().map_or(0, |newest| newest.seq);
        sent.tells_repeats && first.is_some_and(|first| first < newest)
    }

    /// A duplicate makes its value live longer.
    pub(super) fn touch(&mut self, clock: Clock, sent: &Sent) {
        let name = self.config.routes.get(sent.route).map(|r| r.name.clone());
        let update = self.sessions.get_mut(&sent.session).and_then(|history| {
            let name = name?;
            let all = history.accepted.iter_mut();
            let same = |update: &&mut Accepted| {
                update.route == name && update.token == sent.token && update.hash == sent.hash
            };
            let of_route = all.filter(same);
            of_route.max_by_key(|update| update.seq)
        });
        if let Some(update) = update {
            update.touched_ms = clock.mono_ms();
        }
    }

    /// A request goes on to Laravel. Gives the number of the call that it is, if it is an update.
    pub(in crate::sim) fn stream_passes(
        &mut self,
        clock: Clock,
        (vm, stream): (u32, u64),
        had_body: bool,
        headers: &Headers,
    ) -> Option<u64> {
        let known = self.streams.get(&stream)?;
        let sent = known.update().cloned();
        let passing = known.passing.clone();
        self.coverage.count(match had_body {
            true => Transition::CollectingToPassed,
            false => Transition::NewToPassed,
        });
        let begun_us = known.begun_us;
        if let Asked::Batch(items) = known.asked.clone() {
            self.coverage.count(Transition::BatchPassed);
            // A worker may have taken something in since the filter has begun with it.
            self.went_by(begun_us, items.iter().map(Item::session));
        }
        let known = self.streams.get(&stream)?.clone();
        self.barred_passes(clock, (vm, stream), &known);
        let sent = sent?;
        let name = format!("{} of session {}", short(&sent.value), sent.name);
        self.goes_on_faithfully(clock, &name, &sent.said, headers);
        let passing = passing.or_else(|| self.unrecorded(clock, stream, &sent));
        let Some(claimed) = passing else {
            let what = format!("{name} passed through without the session's claim");
            self.fail(clock.mono_us, Invariant::AClaimIsRespected, what);
            return None;
        };
        self.coverage.count(Transition::Passing);
        let timeout = headers
            .iter()
            .find(|(name, _)| name == "x-envoy-upstream-rq-timeout-ms");
        let timeout = timeout.and_then(|(_, ms)| std::str::from_utf8(ms).ok()?.parse::<u64>().ok());
        if timeout.is_none_or(|ms| ms == 0 || ms > self.config.times.call_timeout_ms) {
            let what = format!("{name} passes with a timeout of {timeout:?} ms");
            self.fail(clock.mono_us, Invariant::ACallLeavesInTime, what);
        }
        let timeout_ms = timeout.unwrap_or(self.config.times.call_timeout_ms);
        let call = self.pass_leaves(clock, sent.session, &claimed, timeout_ms);
        if let Some(known) = self.streams.get_mut(&stream) {
            known.call = Some(call);
            known.turn_us = None;
        }
        Some(call)
    }

    /// Laravel's answer to a request that passed goes to the gateway, as the filter leaves it.
    pub(in crate::sim) fn stream_relayed(
        &mut self,
        clock: Clock,
        stream: u64,
        status: u16,
        outcome: &str,
        relayed: &Relayed,
    ) {
        let Some(known) = self.streams.remove(&stream) else {
            return;
        };
        if let Asked::Read(read) = &known.asked {
            let read = (read, known.begun_us);
            let told = Told {
                status,
                outcome,
                headers: &relayed.headers,
                body: &relayed.body,
            };
            return self.read_answered(clock, stream, read, told, Some(relayed));
        }
        self.other_relayed(clock, &known, outcome);
        let (Some(sent), Some(claimed)) = (known.update(), &known.passing) else {
            return;
        };
        let says = ["write-through", "held", "outside"];
        if !says.iter().any(|word| outcome.starts_with(word)) {
            let what = format!("{} passed by itself and says {outcome}", short(&sent.value));
            self.fail(clock.mono_us, Invariant::AClaimIsRespected, what);
        }
        let token = sent.token.clone();
        let end = known.call.and_then(|call| self.calls.get(&call)?.end);
        if matches!(status, 401 | 419) && is_laravels(&relayed.body) {
            self.refuses(clock, &token);
        }
        if end == Some(CallEnd::Delivered) {
            let history = self.sessions.get_mut(&sent.session);
            let update = history.and_then(|h| h.of_seq(claimed.seq, &claimed.route));
            if let Some(update) = update {
                update.known_us = clock.mono_us;
            }
        }
    }

    /// A request has no end: its VM trapped, or its caller is gone.
    pub(crate) fn stream_died(&mut self, stream: u64) {
        self.streams.remove(&stream);
    }
}

/// Whether a body is empty, or JSON.
pub(super) fn is_laravels(body: &[u8]) -> bool {
    body.is_empty() || serde_json::from_slice::<serde_json::Value>(body).is_ok()
}

/// A QR pairs a device, so not even a trace shows one whole.
pub(super) fn short(value: &str) -> &str {
    value.get(..10).unwrap_or(value)
}
