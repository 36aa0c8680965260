//! The record: the core's own transitions, each run once for each shard that there can be.
//!
//! A shard is small and there are not many different ones, so every one gets a number, and what the core
//! makes of it is remembered. The core stays the only thing that decides; the exploration merely does
//! not ask it the same question a million times.

use std::collections::BTreeMap;

use embudo_core::config::Config;
use embudo_core::hash::HashKey;
use embudo_core::route::{Destination, Rules, Update};
use embudo_core::shard::{
    Claim, ClaimId, Decision, Entry, Outcome, Settled, Shard, State, Wanted, balance,
};
use embudo_core::time::Now;

use super::action::Scale;
use super::level::{NOW_MS, OWN, in_order, level, tick};
use super::mutation::Mutation;
use super::value::Value;

/// The unit of time. Only the order of a few instants matters, so a claim lives two of them.
pub(super) const TICK_MS: u64 = 1_000;

/// D, in ticks.
const CLAIM_TICKS: u64 = 2;

/// Longest that a callback may stall between reading the clock and writing: long enough for a claim to
/// be over when it is written.
pub(crate) const LAG_MAX: u8 = 2;

/// A QR is of use for this long: longer than a claim lives, so that a call whose fate is unknown may be
/// repeated, and not much longer, so that one may also be too late for that.
pub(super) const QR_TICKS: u64 = 2;

/// Any other id.
const OTHER: ClaimId = ClaimId {
    epoch: 1,
    counter: 2,
};

/// What is asked of the core.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Offer(Value),
    Claim,
    Settle { own: bool, outcome: Outcome },
    Visit,
    Tick,
}

/// What it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Queued,
    Duplicate,
    Implied,
    Claimed { seq: u8, value: Value },
    Settled(Settled),
    Visited { qr_expired: bool },
    Nothing,
}

/// A transition of the record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub(crate) said: Said,
    /// The record afterwards, if it is to be written.
    pub(crate) write: Option<u32>,
    pub(crate) balanced: bool,
}

/// What the model has to know of a record at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) pending: bool,
    pub(crate) has_claim: bool,
    pub(crate) has_live_claim: bool,
}

/// All records met so far, and what the core makes of them.
pub(crate) struct Records {
    rules: Rules,
    updates: Vec<Update<'static>>,
    mutation: Option<Mutation>,
    numbers: BTreeMap<Vec<u8>, u32>,
    stored: Vec<Vec<u8>>,
    facts: Vec<Facts>,
    moves: Vec<[Option<Move>; Op::CODES]>,
}

// === impl Op ===

impl Op {
    const CODES: usize = 14 * (LAG_MAX as usize + 1) + 1;

    fn code(self, lag: u8) -> usize {
        let kind = match self {
            Self::Tick => return Self::CODES - 1,
            Self::Offer(value) => value as usize,
            Self::Claim => 6,
            Self::Visit => 7,
            Self::Settle { own, outcome } => {
                let outcome = match outcome {
                    Outcome::Delivered | Outcome::Skipped => 0,
                    Outcome::Unsent => 2,
                    _ => 1,
                };
                8 + outcome + 3 * usize::from(own)
            }
        };
        kind * (usize::from(LAG_MAX) + 1) + usize::from(lag)
    }
}

// === impl Records ===

impl Records {
    pub(crate) fn new(scale: Scale, mutation: Option<Mutation>) -> Self {
        let mut config = Config::parse(br#"{"assume":{"implies":true}}"#).expect("a configuration");
        let (window_ms, late_ms) = match scale {
            Scale::LongCall => (TICK_MS / 4, 5 * TICK_MS / 4),
            Scale::LongWindow => (5 * TICK_MS / 4, TICK_MS / 4),
        };
        config.times.send_window_ms = window_ms;
        config.times.call_timeout_ms = TICK_MS / 2;
        config.times.late_ms = late_ms;
        // A duplicate slides the expiry after one tick, and finds it over after two.
        config.dedup.ttl_ms = 3 * TICK_MS / 2;
        config.dedup.max_age_ms = 2 * TICK_MS;
        config.routes[0].expire_after_ms = Some(QR_TICKS * TICK_MS);
        assert_eq!(config.claim_ms(), CLAIM_TICKS * TICK_MS);
        if mutation == Some(Mutation::DeadlineWithoutLateness) {
            config.times.late_ms = 0;
        }
        let rules = Rules {
            config,
            key: HashKey::from_bytes([7; 16]),
        };
        let updates = Value::ALL.map(|value| {
            let (route, rule) = rules.config.route_named(value.route()).expect("a route");
            let destination = Destination {
                authority: "laravel".into(),
                path: rule.path.fixed().into(),
                ..Destination::default()
            };
            // It lives as long as the test's process.
            let head = Box::leak(Box::new(rules.head_to(route, destination)));
            let update = rules.update(head, value.body().as_bytes());
            let mut update = update.expect("an update");
            update.said.voids &= mutation != Some(Mutation::NothingIsVoid);
            update
        });
        let mut records = Self {
            updates: updates.to_vec(),
            rules,
            mutation,
            numbers: BTreeMap::new(),
            stored: Vec::new(),
            facts: Vec::new(),
            moves: Vec::new(),
        };
        records.number(Shard::default());
        records
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.stored.len()
    }

    pub(crate) fn facts(&self, record: u32) -> Facts {
        self.facts[record as usize]
    }

    /// What the core makes of a record, for a caller whose clock is `lag` ticks late.
    pub(crate) fn ask(&mut self, record: u32, op: Op, lag: u8) -> Move {
        let code = op.code(lag);
        if let Some(known) = self.moves[record as usize][code] {
            return known;
        }
        let bytes = self.stored[record as usize].clone();
        let mut shard = Shard::decode(&bytes).expect("what was written is readable");
        let now = Now {
            mono_ms: NOW_MS - u64::from(lag) * TICK_MS,
            wall_ms: 0,
        };
        let (said, writes) = self.decide(&mut shard, op, now);
        let balanced = balance(&shard).is_ok();
        let written = writes.then(|| shard.encode());
        let answer = Move {
            said,
            balanced,
            write: written.map(|bytes| self.number(Shard::decode(&bytes).expect("just written"))),
        };
        self.moves[record as usize][code] = Some(answer);
        answer
    }

    /// As the shell and the dispatcher do it between a get and a put; a mutation does it wrongly.
    fn decide<'a>(&'a self, shard: &mut Shard<'a>, op: Op, now: Now) -> (Said, bool) {
        let before = shard.clone();
        match op {
            Op::Tick => {
                tick(shard);
                (Said::Nothing, true)
            }
            Op::Offer(value) => {
                self.bend_offer(shard, value);
                let decision = shard.offer(&self.rules, &self.updates[value as usize], now);
                self.bend_offered(shard, &before, value);
                match decision {
                    Decision::Duplicate { slid } => (Said::Duplicate, slid),
                    Decision::Implied => (Said::Implied, false),
                    Decision::Queued { .. } => (Said::Queued, true),
                    Decision::Full | Decision::Stale => (Said::Nothing, false),
                }
            }
            Op::Claim => {
                let hidden = self.bend_claim(shard);
                let said = self.claim(shard, now);
                shard
                    .sessions
                    .iter_mut()
                    .for_each(|s| s.entries.extend(hidden.clone()));
                (said, said != Said::Nothing)
            }
            Op::Settle { own, outcome } => {
                let own = own || self.mutation == Some(Mutation::SettleWithoutId);
                self.bend_settle(shard);
                let id = if own { OWN } else { OTHER };
                let settled = shard.settle(&self.rules, self.session(), id, outcome, None, now);
                if settled == Settled::Foreign {
                    return (Said::Settled(settled), false);
                }
                shard.prune(now.mono_ms);
                (Said::Settled(settled), true)
            }
            Op::Visit => {
                let held = self.bend_visit(shard);
                let (dropped, _) = shard.expire(&self.rules, now);
                self.bend_visited(shard, &before, held, !dropped.is_empty());
                shard.prune(now.mono_ms);
                let qr_expired = dropped.contains(&0);
                (Said::Visited { qr_expired }, *shard != before)
            }
        }
    }

    /// Claims whatever is due, as a plan made from this very shard would.
    fn claim(&self, shard: &mut Shard<'_>, now: Now) -> Said {
        let Some(due) = shard
            .sessions
            .first()
            .and_then(|session| session.next_due())
        else {
            return Said::Nothing;
        };
        let State::Dirty(dirty) = &due.state else {
            return Said::Nothing;
        };
        let (route, destination) = (due.route.to_string(), dirty.destination.to_vec());
        let wanted = Wanted {
            route: &route,
            caller: due.caller,
            seq: 0,
            destination: &destination,
            bytes_max: usize::MAX,
            refused: &[],
        };
        let claimed = shard.claim(&self.rules, self.session(), &wanted, OWN, now);
        claimed.map_or(Said::Nothing, |item| Said::Claimed {
            seq: u8::try_from(item.seq).expect("a few updates"),
            value: Value::of_body(&item.body),
        })
    }

    fn session(&self) -> u128 {
        self.updates[0].session
    }

    /// The number of a shard, with everything that makes no difference made equal.
    fn number(&mut self, mut shard: Shard<'_>) -> u32 {
        if self.mutation == Some(Mutation::ClaimForEver) {
            shard
                .sessions
                .iter_mut()
                .filter_map(|s| s.claim.as_mut())
                .for_each(|claim| {
                    // Always an hour ahead: the core takes no deadline for true that is much further.
                    claim.deadline_ms = NOW_MS + 3_600_000;
                });
        }
        assert!(
            in_order(&shard),
            "timestamps are as the updates are: {shard:?}"
        );
        level(&mut shard);
        let bytes = shard.encode();
        if let Some(number) = self.numbers.get(&bytes) {
            return *number;
        }
        let number = u32::try_from(self.stored.len()).expect("few records");
        let claims = || {
            shard
                .sessions
                .iter()
                .filter_map(|session| session.claim.as_ref())
        };
        self.facts.push(Facts {
            pending: shard.pending() > 0,
            has_claim: claims().count() > 0,
            has_live_claim: claims().any(|claim| claim.deadline_ms > NOW_MS),
        });
        self.moves.push([None; Op::CODES]);
        self.stored.push(bytes.clone());
        self.numbers.insert(bytes, number);
        number
    }

    // ## What a mutation does to the driver's part. The core itself is never touched.

    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    fn bend_offer(&self, shard: &mut Shard<'_>, value: Value) {
        if self.is(Mutation::ImpliedByAnyQr) && value == Value::Pending {
            for session in &mut shard.sessions {
                let qr = session.entry("qr", 0).map(|entry| entry.seq);
                session.newest_seq = qr.unwrap_or(session.newest_seq);
            }
        }
    }

    fn bend_offered<'a>(&self, shard: &mut Shard<'a>, before: &Shard<'a>, value: Value) {
        if self.is(Mutation::VoidOnlyWhatIsUnsent)
            && matches!(value, Value::Active | Value::Inactive)
        {
            let kept = before.sessions.iter().flat_map(|session| &session.entries);
            let kept = kept
                .filter(|entry| entry.route == "qr" && !entry.is_dirty())
                .cloned();
            shard
                .sessions
                .iter_mut()
                .for_each(|s| s.entries.extend(kept.clone()));
        }
    }

    fn bend_claim<'a>(&self, shard: &mut Shard<'a>) -> Vec<Entry<'a>> {
        let mut hidden = Vec::new();
        for session in &mut shard.sessions {
            if self.is(Mutation::ForeignClaimsIgnored) {
                session.claim = None;
            }
            if self.is(Mutation::NewestFirst) {
                let newest = session
                    .entries
                    .iter()
                    .filter(|e| e.is_dirty())
                    .map(|e| e.seq)
                    .max();
                let (older, rest) = std::mem::take(&mut session.entries)
                    .into_iter()
                    .partition(|entry| entry.is_dirty() && Some(entry.seq) != newest);
                (hidden, session.entries) = (older, rest);
            }
        }
        hidden
    }

    fn bend_settle(&self, shard: &mut Shard<'_>) {
        if !self.is(Mutation::CleanWhateverIsThere) {
            return;
        }
        for session in &mut shard.sessions {
            if let Some(Claim { route, seq, .. }) = &mut session.claim {
                let entry = session.entries.iter().find(|entry| entry.route == *route);
                *seq = entry.map_or(*seq, |entry| entry.seq);
            }
        }
    }

    fn bend_visit<'a>(&self, shard: &mut Shard<'a>) -> Option<Claim<'a>> {
        let session = shard.sessions.first_mut();
        session
            .filter(|_| self.is(Mutation::ExpireDespiteClaim))?
            .claim
            .take()
    }

    fn bend_visited<'a>(
        &self,
        shard: &mut Shard<'a>,
        before: &Shard<'a>,
        held: Option<Claim<'a>>,
        dropped: bool,
    ) {
        let old = before
            .sessions
            .first()
            .and_then(|session| session.entry("qr", 0));
        let Some(session) = shard.sessions.first_mut() else {
            return;
        };
        session.claim = held.or(session.claim.take());
        if !dropped {
            return;
        }
        if self.is(Mutation::ExpireToClean) {
            let until_ms = NOW_MS + TICK_MS;
            session.entries.extend(old.map(|entry| Entry {
                state: State::Clean { until_ms },
                accepted_ms: NOW_MS,
                ..entry.clone()
            }));
        }
        if self.is(Mutation::ImpliedDiesWithQr) {
            let seq = old.map(|entry| entry.seq);
            session.entries.retain(|entry| Some(entry.seq) != seq);
            shard.ledger.accepted = shard.ledger.accepted.saturating_sub(1);
        }
    }
}
