//! Batches of the gateway's own, and requests of other routes that wait for their session's updates.
//!
//! An item of a batch is an update like others, but nobody is told of it by itself: one that is in no entry must be a
//! duplicate, or have given way to a later one of its batch. What goes to Laravel as it came is not read here either, so
//! from then on what a session has there is nobody's to know, until something newer is accepted of it.

use std::collections::BTreeMap;

use embudo_core::headers::borrowed;
use embudo_core::route::Barred;
use embudo_core::shard::{Entry, HELD_MAX, Ledger, Shard, State};

use super::answers::{Asked, Sent, Stream, Verdict, short};
use super::faithful::Said;
use super::history::{Accepted, Fate};
use super::shard::Write;
use super::{Checker, Clock, Invariant, SHARDS};
use crate::model::http::Request;

/// A worker's word of the circuit is one of its root's last tick.
const KNOWN_WITHIN_US: u64 = 1_000_000;

/// Requests of one session that wait in one worker, at most.
const WAITING_MAX: usize = 8;

/// Clocks are read before and after.
const SLACK_MS: u64 = 100;

/// One item of a batch.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) sent: Sent,
    pub(super) accepted: Option<u64>,
    verdict: Option<Verdict>,
}

/// A request of another route, under way.
#[derive(Clone, Debug)]
pub(super) struct Waits {
    barred: Barred,
    /// The last sequence of its shard when it came.
    mark: Option<u64>,
    /// By the last look at the shard there is something that it waits for.
    must_wait: bool,
}

// === impl Item ===

impl Item {
    pub(super) fn session(&self) -> u128 {
        self.sent.session
    }
}

// === impl Checker ===

impl Checker {
    /// What a request is that is neither an update nor a read.
    pub(super) fn other(&self, request: &Request) -> Asked {
        let Some(rules) = &self.rules else {
            return Asked::Else;
        };
        let mut headers: Vec<(String, Vec<u8>)> = request
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.to_vec()))
            .collect();
        headers.push((":method".into(), request.method.clone().into_bytes()));
        headers.push((":path".into(), request.path.clone().into_bytes()));
        let authority = request.authority().unwrap_or(super::super::AUTHORITY);
        headers.push((":authority".into(), authority.into()));
        if let Some(barred) = rules.barred(borrowed(&headers)) {
            return Asked::Barred(Waits {
                barred,
                mark: None,
                must_wait: false,
            });
        }
        let Some(Ok(head)) = rules.batch_head(borrowed(&headers)) else {
            return Asked::Else;
        };
        let batch = rules.batch(&head, &request.body);
        let items = batch.updates.iter().filter_map(|update| {
            let body: serde_json::Value = serde_json::from_slice(update.body).ok()?;
            let value = body.get("qr").or_else(|| body.get("estado_qr"))?;
            let single = self.config.routes.get(update.route)?;
            let alone = Request {
                path: format!("/api{}", single.path),
                body: update.body.to_vec().into(),
                ..request.clone()
            };
            Some(Item {
                sent: Sent::of_item(
                    update,
                    body["session_id"].as_str()?,
                    value.as_str()?,
                    super::reads::token_of(request),
                    self.members(update.route, update.body),
                    Said::of(&alone),
                ),
                accepted: None,
                verdict: None,
            })
        });
        Asked::Batch(items.collect())
    }

    /// A worker, or its root, looks at a shard.
    pub(super) fn others_look(
        &mut self,
        clock: Clock,
        key: &str,
        bytes: &[u8],
        stream: Option<u64>,
    ) {
        let Some(rules) = &self.rules else { return };
        let is_its = |session: u128| key == format!("{SHARDS}{}", rules.shard_of(session));
        let shard = Shard::decode(bytes).unwrap_or_default();
        let mut verdicts = Vec::new();
        if let Some(stream) = stream
            && let Some(known) = self.streams.get(&stream)
            && let Asked::Batch(items) = &known.asked
        {
            for (at, item) in items.iter().enumerate() {
                if is_its(item.sent.session) {
                    verdicts.push((at, self.judged(clock, &item.sent, known.begun_us)));
                }
            }
        }
        let expires = |entry: &Entry<'_>| entry.expires_ms(rules);
        let mut looked = Vec::new();
        for (id, known) in &self.streams {
            let Asked::Barred(waits) = &known.asked else {
                continue;
            };
            let is_own = stream.is_none_or(|stream| stream == *id);
            if !is_own || !is_its(waits.barred.session) {
                continue;
            }
            if stream.is_none() && waits.mark.is_none() {
                continue;
            }
            let mark = waits.mark.unwrap_or(shard.last_seq);
            let session = shard.session(waits.barred.session);
            // Where all places are taken, nobody waits at a barrier.
            let session = session.filter(|session| session.held.len() < HELD_MAX);
            let must_wait = session.is_some_and(|session| {
                let claimed = session.live_claim(clock.mono_ms());
                let is_due = |entry: &Entry<'_>| match &entry.state {
                    State::Dirty(dirty) => {
                        let late = expires(entry).is_some_and(|ms| clock.mono_ms() + SLACK_MS > ms);
                        let tried = dirty.attempts > 0 || dirty.trial.not_before_ms > 0;
                        entry.seq <= mark && !late && !tried
                    }
                    _ => false,
                };
                claimed.is_some_and(|claim| {
                    claim.seq <= mark && clock.mono_ms() + SLACK_MS < claim.deadline_ms
                }) || session.entries.iter().any(is_due)
            });
            looked.push((*id, mark, must_wait));
        }
        for (id, mark, must_wait) in looked {
            if let Some(known) = self.streams.get_mut(&id)
                && let Asked::Barred(waits) = &mut known.asked
            {
                (waits.mark, waits.must_wait) = (Some(mark), must_wait);
            }
        }
        let known = stream.and_then(|stream| self.streams.get_mut(&stream));
        if let Some(Asked::Batch(items)) = known.map(|known| &mut known.asked) {
            for (at, verdict) in verdicts {
                items[at].verdict = verdict;
            }
        }
    }

    /// What a batch of the gateway's own is answered: 200 for all of it.
    pub(super) fn batch_answered(
        &mut self,
        clock: Clock,
        known: &Stream,
        items: &[Item],
        (status, outcome): (u16, &str),
        body: &[u8],
    ) {
        let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let is_told = outcome == "queued"
            && status == self.config.answer_status
            && json["processed"] == items.len();
        if !is_told {
            let what = format!("a batch of {} was answered {status} {outcome}", items.len());
            self.fail(clock.mono_us, Invariant::OnlyDuplicatesCollapse, what);
        }
        for (at, item) in items.iter().enumerate() {
            self.is_proven(clock, &item.sent, known);
            let is_known = item
                .verdict
                .as_ref()
                .is_some_and(|(duplicate, implied)| duplicate.is_ok() || implied.is_ok());
            let same = |other: &&Item| {
                other.sent.session == item.sent.session && other.sent.route == item.sent.route
            };
            if is_known {
                self.touch(clock, &item.sent);
            }
            // A later one has taken its place before anybody could see it, or it repeats an earlier one.
            let rest = items.get(at + 1..).unwrap_or_default();
            let is_outdated = rest
                .iter()
                .filter(same)
                .any(|other| other.accepted.is_some());
            let repeats =
                |other: &Item| other.accepted.is_some() && other.sent.hash == item.sent.hash;
            let is_repeat = items.iter().take(at).filter(same).any(repeats);
            if item.accepted.is_none() && !is_known && !is_outdated && !is_repeat {
                let (name, value) = (&item.sent.name, short(&item.sent.value));
                let what = format!(
                    "{value} of session {name} was in a batch that is queued, and is not in the store: {:?}",
                    item.verdict
                );
                self.fail(clock.mono_us, Invariant::NothingIsLost, what);
            }
        }
    }

    /// An answer is about to reach the filter.
    pub(in crate::sim) fn other_is_given(&mut self, clock: Clock, stream: u64) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.given_us = clock.mono_us;
        }
    }

    /// Laravel's answer to one that passed is about to reach the filter.
    pub(in crate::sim) fn batch_is_given(&mut self, stream: u64, status: u16, body: &[u8]) {
        let Some(known) = self.streams.get(&stream) else {
            return;
        };
        let Asked::Batch(items) = &known.asked else {
            return;
        };
        let json = serde_json::from_slice::<serde_json::Value>(body);
        let says = json.as_ref().ok().filter(|json| json.is_object());
        let results = says.and_then(|says| says["results"].as_array());
        let is_taken = results.is_none_or(|all| all.iter().any(|line| line["status"] == "ok"));
        let fails = says.is_some_and(|says| says["success"] == false);
        let is_well = body.is_empty() || says.is_some();
        if (200..300).contains(&status) && is_well && is_taken && !fails {
            let route = items
                .first()
                .and_then(|item| self.config.routes.get(item.sent.route));
            let route = route.map_or(String::new(), |rule| rule.name.clone());
            let (token, left_us) = (known.token.clone(), known.begun_us);
            self.accepts(&token, &route, left_us);
        }
    }

    /// What goes by as it came, or another route's request that changes a row, has been answered: whatever was known of
    /// these before may not be so.
    pub(super) fn went_by(&mut self, at_us: u64, sessions: impl Iterator<Item = u128>) {
        for session in sessions {
            let history = self.sessions.entry(session).or_default();
            history.went_by_us = history.went_by_us.max(at_us);
        }
    }

    /// The answer to a batch, or to a request of another route, has been through the filter.
    pub(super) fn other_relayed(&mut self, clock: Clock, known: &Stream, outcome: &str) {
        match &known.asked {
            Asked::Batch(items) => {
                if !outcome.starts_with("bypass") {
                    let what = format!("a batch went by, and says {outcome}");
                    self.fail(clock.mono_us, Invariant::OnlyDuplicatesCollapse, what);
                }
                self.went_by(known.given_us, items.iter().map(Item::session));
            }
            Asked::Barred(waits) if waits.barred.forgets => {
                self.went_by(known.given_us, std::iter::once(waits.barred.session));
            }
            _ => {}
        }
    }

    // ## 2: a barrier's request is never before what it waits for

    /// A request of another route goes on to Laravel.
    pub(super) fn barred_passes(&mut self, clock: Clock, (vm, stream): (u32, u64), known: &Stream) {
        let Asked::Barred(waits) = &known.asked else {
            return;
        };
        let session = waits.barred.session;
        if waits.barred.forgets {
            let history = self.sessions.entry(session).or_default();
            history.is_changed = true;
        }
        let waited_ms = clock.mono_us.saturating_sub(known.begun_us) / 1_000;
        let is_late = waited_ms + SLACK_MS >= embudo_core::barrier::WAIT_MS;
        let since_us = self.troubled_us.max(1) + KNOWN_WITHIN_US;
        // A worker that is busy looks late.
        let mut looks = self.looks.get(&vm).into_iter().flatten();
        let has_heard = clock.mono_us >= since_us && looks.any(|at_us| *at_us > self.troubled_us);
        let is_troubled = self.is_troubled || (self.troubled_us > 0 && !has_heard);
        let others = self.streams.values().filter(|other| match &other.asked {
            Asked::Barred(other) => other.barred.session == session,
            _ => false,
        });
        let is_full = others.count() > WAITING_MAX;
        if is_late || is_troubled || is_full {
            return;
        }
        let pending = self.sessions.get(&session).is_some_and(|history| {
            let mut all = history.accepted.iter();
            all.any(|update| {
                let is_new = update.at_us + KNOWN_WITHIN_US > known.begun_us;
                let is_older = update.at_us < known.begun_us && is_new;
                update.fate == Fate::Pending && is_older && !update.begun
            })
        });
        let why = match waits.mark {
            None if pending => "nobody has looked",
            Some(_) if waits.must_wait => "it has seen that",
            _ => return,
        };
        let what = format!(
            "request {stream} goes on after {waited_ms} ms, and something of its session is on its way: {why}"
        );
        self.fail(clock.mono_us, Invariant::NeverOlderAfterNewer, what);
    }

    /// A root has looked, from `began` on, and a request waits at a barrier still.
    pub(super) fn barred_waits(&mut self, clock: Clock, stream: u64, turn_us: u64, began: Clock) {
        let most_us = embudo_core::barrier::WAIT_MS * 1_000;
        if began.mono_us > turn_us + most_us {
            let what = format!(
                "request {stream} waits at a barrier since {} ms",
                turn_us / 1_000
            );
            self.fail(clock.mono_us, Invariant::HeldIsLetGo, what);
        }
    }

    /// The leader's word of Laravel: whether nobody waits for what is queued.
    pub(super) fn circuit_is_known(&mut self, clock: Clock, record: &[u8]) {
        // Its version, its state, the pace; and behind that whatever backs off, or is refused.
        let is_well = record.is_empty() || (record.get(1) == Some(&0) && record.len() <= 6);
        if self.is_troubled || !is_well {
            self.troubled_us = clock.mono_us;
        }
        self.is_troubled = !is_well;
    }

    /// The ledger counts items of a batch that gave way to later ones of it before anybody saw them.
    pub(super) fn hidden_items(
        &mut self,
        write: &mut Write,
        stream: u64,
        old: &Ledger,
        new: &Ledger,
    ) {
        let known = self.streams.get(&stream);
        let Some(Asked::Batch(items)) = known.map(|known| &known.asked) else {
            return;
        };
        let counted = new.accepted.saturating_sub(old.accepted);
        let hidden = counted.saturating_sub(write.counted.accepted);
        let its = |item: &&Item| {
            let shard = self
                .rules
                .as_ref()
                .map(|rules| rules.shard_of(item.sent.session));
            shard == write.shard
        };
        let its: Vec<&Item> = items.iter().filter(its).collect();
        // One that repeats what its session said just before is a duplicate, where that is known to be Laravel's.
        let mut gave_way = given_way(&its, true);
        if (gave_way.len() as u64) < hidden {
            gave_way = given_way(&its, false);
        }
        gave_way.truncate(hidden as usize);
        let hidden = gave_way.len() as u64;
        write.counted.accepted += hidden;
        write.counted.superseded += hidden;
        let clock = write.clock;
        for (sent, seq) in gave_way {
            let route = self.config.routes.get(sent.route);
            let route = route.map_or(String::new(), |rule| rule.name.clone());
            let history = self.sessions.entry(sent.session).or_default();
            // Which numbers they had nobody has seen: none that is known to be another's.
            if history.of_seq(seq, &route).is_some() {
                continue;
            }
            history.accepted.push(Accepted {
                seq,
                route,
                value: sent.value,
                hash: sent.hash,
                timestamp_ms: 0,
                token: sent.token,
                at_us: clock.mono_us,
                known_us: u64::MAX - 1,
                ended_us: clock.mono_us,
                accepted_ms: clock.mono_ms(),
                fate: Fate::Superseded,
                is_void: false,
                in_effect: false,
                beside: false,
                begun: false,
                passed_over: false,
                members: sent.members,
                said: None,
                touched_ms: clock.mono_ms(),
            });
        }
    }
}

/// The items of a batch that gave way to later ones of it, the last one first, each with the number that it took: in
/// their order each has the next.
fn given_way(items: &[&Item], are_repeats_known: bool) -> Vec<(Sent, u64)> {
    let mut told: Vec<(&Sent, Option<u64>)> = Vec::new();
    let mut last: BTreeMap<(u128, usize), (u128, usize)> = BTreeMap::new();
    for item in items {
        let sent = &item.sent;
        let of = (sent.session, sent.route);
        let before = last
            .get(&of)
            .filter(|(hash, _)| *hash == sent.hash && are_repeats_known);
        if let Some((_, seq)) = before.and_then(|(_, at)| told.get_mut(*at)) {
            *seq = seq.or(item.accepted);
        } else {
            last.insert(of, (sent.hash, told.len()));
            told.push((sent, item.accepted));
        }
    }
    let mut gave_way = Vec::new();
    let mut next: Option<u64> = None;
    for (sent, accepted) in told.into_iter().rev() {
        next = accepted.or(next.map(|seq| seq.saturating_sub(1)));
        if let Some(seq) = next.filter(|_| accepted.is_none()) {
            gave_way.push((sent.clone(), seq));
        }
    }
    gave_way
}
