//! What intake does to a shard: the one transition that accepts an update.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use super::unsent::Covers;
use super::{
    DOUBTED, Dirty, ENTRIES_MAX, End, Ending, Entry, Item, Ledger, SESSIONS_MAX, Session, Shard,
    State,
};
use crate::config::Route;
use crate::route::{Rules, Said, Update};
use crate::sabotage::{self, Sabotage};
use crate::time::Now;

/// Routes whose pending items an offer made superfluous, as indexes into the configuration; an item of a
/// route that is no longer configured is in the ledger only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Superseded {
    /// A newer update took the place of these.
    newer: Vec<usize>,
    /// A state that opens a gate made these meaningless.
    voided: Vec<usize>,
}

/// What became of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Laravel has this value, or will get it with the item that is pending.
    Duplicate {
        /// The entry's expiry was moved: the shard must be written.
        slid: bool,
    },
    /// Laravel learns of this value from another route's item.
    Implied,
    /// The sender itself has said something newer.
    Stale,
    /// Accepted. The shard must be written, and the write is the acceptance.
    Queued {
        /// The dispatcher must be told of this shard.
        ring: bool,
        /// What it made superfluous.
        superseded: Superseded,
    },
    /// No room, and nothing of the session is pending.
    Full,
}

// === impl Shard ===

impl<'a> Shard<'a> {
    /// Offers an update. On [`Decision::Duplicate`] with `slid: true` and on [`Decision::Queued`] the shard has changed and must be written.
    #[inline]
    pub fn offer(&mut self, rules: &'a Rules, update: &'a Update<'a>, now: Now) -> Decision {
        let Some(rule) = rules.route(update.route) else {
            return Decision::Full;
        };
        if let Some(session) = self.session_mut(update.session) {
            if session.answers_implied(rules, rule, update, now.mono_ms) {
                return Decision::Implied;
            }
            if let Some(slid) = session.answers_duplicate(rules, rule, update, now.mono_ms) {
                return Decision::Duplicate { slid };
            }
            if session.has_newer(rules, rule, update, now.mono_ms)
                || session.is_stale_repeat(rules, update, update.body, now.mono_ms)
            {
                return Decision::Stale;
            }
            // A caller that is new in each request would push everybody else out.
            if session.entries.len() >= ENTRIES_MAX
                && session.needs_place(rules, rule, update, update.body)
            {
                return Decision::Full;
            }
        }
        self.prune(now.mono_ms);
        if self.session_mut(update.session).is_none() {
            let shared = self.has_its_share(update.caller);
            if self.sessions.len() >= SESSIONS_MAX || shared {
                return Decision::Full;
            }
            self.sessions
                .push(Session::new(update.session, self.last_seq));
        }
        self.accept(rules, rule, update, now)
    }

    // ## absent | Clean | Dirty | Implied => Dirty
    //
    // The claim is never touched: whatever is under way stays under way, and its answer will find that the
    // entry has moved on.
    #[inline]
    fn accept(
        &mut self,
        rules: &'a Rules,
        rule: &'a Route,
        update: &'a Update<'a>,
        now: Now,
    ) -> Decision {
        let seq = self.last_seq.saturating_add(1);
        self.last_seq = seq;
        let timestamp_ms = now.wall_ms.max(self.last_wall_ms.saturating_add(1));
        // The state that an item implies may have to be sent by itself one day, after the item and before
        // whatever follows: its timestamp is set aside now.
        self.last_wall_ms = timestamp_ms.saturating_add(u64::from(rule.implied().is_some()));
        let rung = self.rung;

        let Some(session) = self.session_mut(update.session) else {
            return Decision::Full;
        };
        session.newest_seq = seq;
        session.forget_settled(
            rules,
            (rule, update.caller),
            update.text.as_deref(),
            now.mono_ms,
        );
        let claimed = session.live_claim(now.mono_ms).map(|claim| claim.seq);
        let previous = session.entry(&rule.name, update.caller);
        let is_urgent = update.priority
            && !previous.is_some_and(|p| soothes(rules, rule, update, p))
            || alarms(rules, rule, previous);
        let covers = Covers {
            rules,
            rule,
            members: update.members,
            body: update.body,
        };
        let own = (&*rule.name, update.caller, seq);
        let heir = session.supersede(own, claimed, &|dirty| covers.all_of(dirty));
        let mut superseded = Superseded::new();
        superseded.push(update.route, heir.count);
        let priority = is_urgent || heir.priority;
        session.put(Entry {
            route: Cow::Borrowed(&rule.name),
            caller: update.caller,
            seq,
            value: update.value,
            word: update.word,
            accepted_ms: now.mono_ms,
            order: update.order,
            text: update.text.as_deref().map(Cow::Borrowed),
            state: State::Dirty(Dirty {
                since_ms: heir.since_ms.unwrap_or(now.mono_ms),
                timestamp_ms,
                attempts: heir.attempts,
                trial: heir.trial,
                priority,
                destination: Cow::Borrowed(update.destination.bytes()),
                neutral: Cow::Owned(update.neutral.encode()),
                members: update.members,
                body: Cow::Borrowed(update.body),
            }),
        });
        if !sabotage::is(Sabotage::VoidLater) {
            session.void(rules, rule, update, seq, now, &mut superseded);
        }
        let hashed = update.implied.as_ref();
        session.imply(
            rules,
            rule,
            (update, hashed),
            seq,
            now.mono_ms,
            &mut superseded,
        );

        // The dispatcher reads a shard again before it sends from it, so it need not hear of a newer
        // value of an item that it knows. One ring in the queue is enough, whoever it was for.
        let ring = !rung && (!heir.is_known || (priority && !heir.was_priority));
        self.rung |= ring;
        self.ledger.accepted = self.ledger.accepted.saturating_add(1);
        superseded.count_in(&mut self.ledger);
        Decision::Queued { ring, superseded }
    }
}

/// For [`Sabotage::VoidLater`]: what should have been part of the offer.
#[cfg(feature = "sabotage")]
impl Shard<'_> {
    /// Voids what `update` voids, in a write of its own.
    #[inline]
    pub fn void_late(&mut self, rules: &Rules, update: &Update<'_>, now: Now) {
        let Some(rule) = rules.route(update.route) else {
            return;
        };
        let mut superseded = Superseded::new();
        if let Some(session) = self.session_mut(update.session) {
            let seq = session.newest_seq;
            session.void(rules, rule, update, seq, now, &mut superseded);
        }
        superseded.count_in(&mut self.ledger);
    }
}

// === impl Session ===

impl<'a> Session<'a> {
    /// Whether there is no entry whose place an update takes.
    #[cold]
    #[inline(never)]
    pub(super) fn needs_place(
        &self,
        rules: &Rules,
        rule: &Route,
        said: &Said,
        body: &[u8],
    ) -> bool {
        let covers = Covers {
            rules,
            rule,
            members: said.members,
            body,
        };
        let mut own = self.entries_of(&rule.name, said.caller);
        !own.any(|entry| match &entry.state {
            State::Dirty(dirty) => covers.all_of(dirty),
            State::Clean { .. } | State::Implied { .. } => true,
        })
    }

    /// `Some(slid)` where the update is a duplicate of what Laravel has or will get.
    ///
    /// The comparison is with the *last* value and never with a set of seen ones: A→B→A are three
    /// updates.
    #[inline]
    pub(super) fn answers_duplicate(
        &mut self,
        rules: &Rules,
        rule: &Route,
        update: &Said,
        mono_ms: u64,
    ) -> Option<bool> {
        if update.no_dedup {
            return None;
        }
        let known = self.entry(&rule.name, update.caller)?;
        if known.value != update.value {
            return None;
        }
        let seq = known.seq;
        let newest_seq = self.newest_seq;
        let through_seq = self.through_seq;
        let newest_of_route = self
            .entries
            .iter()
            .filter(|entry| rules.is_kin(rule, &entry.route))
            .map(|e| e.seq)
            .max();
        let is_in_doubt = self.is_in_doubt();
        // What waits goes before another caller's newer state, which undoes it: it has to be said once more. (Its own
        // caller's has voided it.)
        let is_undone = matches!(known.state, State::Dirty(_))
            && self.entries.iter().any(|entry| {
                entry.caller != update.caller
                    && entry.seq > seq
                    && !rules.is_kin(rule, &entry.route)
            });
        let is_outdated = is_undone || self.is_outdated_by_a_place(update.caller, seq, mono_ms);
        let entry = self.entry_mut(&rule.name, update.caller)?;
        // Another credential's newer value, or another route's item, may have changed what Laravel has.
        // So may one that passed through.
        let is_last = newest_of_route == Some(entry.seq)
            && entry.seq >= through_seq
            && !is_in_doubt
            && !is_outdated
            && (rule.implied_by.is_none() || entry.seq == newest_seq)
            || sabotage::is(Sabotage::DuplicateOfOlder);
        if !is_last || !entry.is_current(rules, rule, mono_ms) {
            return None;
        }
        let ttl_ms = rules.config.dedup.ttl_ms;
        match &mut entry.state {
            State::Dirty(_) => Some(false),
            // Answered by the implying item's own rule.
            State::Implied { .. } => None,
            State::Clean { until_ms } => {
                let left_ms = until_ms.saturating_sub(mono_ms);
                let slide = left_ms < ttl_ms / 2;
                if slide {
                    *until_ms = mono_ms.saturating_add(ttl_ms);
                }
                Some(slide)
            }
        }
    }

    /// Whether the sender's own clock says that something newer was accepted. Clocks of one place only are
    /// compared, and none for ever: one that was set back is news once what it contradicts has grown old.
    #[inline]
    pub(super) fn has_newer(
        &self,
        rules: &Rules,
        rule: &Route,
        update: &Said,
        mono_ms: u64,
    ) -> bool {
        let ttl_ms = rules.config.dedup.ttl_ms;
        let is_young = |entry: &Entry<'_>| {
            mono_ms.saturating_sub(entry.accepted_ms) < ttl_ms
                || sabotage::is(Sabotage::StaleForEver)
        };
        update.order.is_some_and(|order| {
            self.entries
                .iter()
                .filter(|entry| entry.caller == update.caller && is_young(entry))
                .any(|entry| {
                    let same_clock = entry.route == rule.name
                        || rules
                            .config
                            .route_named(&entry.route)
                            .is_some_and(|(_, other)| other.order == rule.order);
                    same_clock && entry.order.is_some_and(|newest| order < newest)
                })
        })
    }

    /// Whether the update says only what the session's newest item says anyway.
    #[inline]
    pub(super) fn answers_implied(
        &self,
        rules: &Rules,
        rule: &Route,
        update: &Said,
        mono_ms: u64,
    ) -> bool {
        let Some(by) = rule.implied_by.and_then(|index| rules.route(index)) else {
            return false;
        };
        let Some(implies) = by.implied() else {
            return false;
        };
        rules.says_implied(rule, implies, update)
            && !self.is_in_doubt()
            && self.entry(&by.name, update.caller).is_some_and(|item| {
                (item.seq == self.newest_seq || sabotage::is(Sabotage::ImpliedByOlder))
                    && item.is_current(rules, by, mono_ms)
            })
    }

    // ## voided routes: Dirty | Clean => absent
    //
    // Dirty, because Laravel's own code would undo the newer state with it (a QR that arrives after
    // `active` sets `pending`). Clean, because the same value is news again: it is no duplicate after this.
    #[inline]
    pub(super) fn void(
        &mut self,
        rules: &Rules,
        rule: &Route,
        update: &Update<'_>,
        seq: u64,
        now: Now,
        superseded: &mut Superseded,
    ) {
        let Some(voids) = rule.voids.as_ref().filter(|_| update.voids) else {
            return;
        };
        let how = Ending::Voided(Item {
            place: rules.place(&rule.name, update.caller),
            seq,
        });
        for index in voids.routes.iter().copied() {
            let Some(name) = rules.route(index).map(|route| route.name.as_str()) else {
                continue;
            };
            self.entries_end(rules, how, now, &|entry| {
                entry.route == name
                    && entry.is_void_to(update.caller)
                    && !matches!(entry.state, State::Clean { .. })
            });
            let mut gone = Vec::new();
            let mut shows = false;
            self.entries.retain(|entry| {
                let voided = entry.route == name && entry.is_void_to(update.caller);
                if voided {
                    gone.push(entry.seq);
                    shows |= entry.text.is_some();
                    if entry.is_dirty() {
                        superseded.void(index);
                    }
                }
                !voided
            });
            self.drop_implied(rules, &gone, how, now);
            if let Some(seq) = gone.into_iter().max() {
                self.forgets(seq, shows);
            }
        }
    }

    // ## the implied route: absent | Clean | Dirty | Implied => Implied
    #[inline]
    pub(super) fn imply(
        &mut self,
        rules: &'a Rules,
        rule: &'a Route,
        (said, hashed): (&Said, Option<&(usize, u64)>),
        seq: u64,
        mono_ms: u64,
        superseded: &mut Superseded,
    ) {
        let Some(implies) = rule.implied() else {
            return;
        };
        let Some(target) = rules.route(implies.route) else {
            return;
        };
        // What its own caller has said is no news to it.
        if self.entries.iter().any(|entry| entry.caller != said.caller) {
            let place = (target, said.caller);
            self.forget_settled(rules, place, Some(&implies.value), mono_ms);
        }
        let own = (&*target.name, said.caller, seq);
        let says_it = |dirty: &Dirty<'_>| rules.is_bare(target, implies, dirty.members);
        let heir = self.supersede(own, None, &says_it);
        superseded.push(implies.route, heir.count);
        self.put(Entry {
            route: Cow::Borrowed(&target.name),
            caller: said.caller,
            seq,
            value: 0,
            word: match hashed {
                Some((route, hash)) if *route == said.route => *hash,
                _ => rules.word_hash(&implies.value),
            },
            accepted_ms: mono_ms,
            order: None,
            text: target.is_shown.then(|| Cow::Borrowed(&*implies.value)),
            state: State::Implied { by: seq },
        });
    }

    /// What these items implied is implied no more. Where a kept answer shows it, it stays behind: its caller
    /// was told of it, and would be shown an older state without it. It answers for no duplicate.
    #[inline]
    pub(super) fn drop_implied(&mut self, rules: &Rules, seqs: &[u64], how: Ending, now: Now) {
        let is_gone =
            |state: &State<'_>| matches!(state, State::Implied { by } if seqs.contains(by));
        self.entries_end(rules, how, now, &|entry| is_gone(&entry.state));
        for entry in &mut self.entries {
            if entry.text.is_some() && is_gone(&entry.state) {
                entry.state = State::Clean { until_ms: 0 };
            }
        }
        self.entries.retain(|entry| !is_gone(&entry.state));
    }
}

// === impl Superseded ===

impl Superseded {
    /// None yet.
    #[must_use]
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// A newer update has taken the place of so many of this route's items.
    #[inline]
    pub(super) fn push(&mut self, route: usize, count: usize) {
        self.newer.extend(core::iter::repeat_n(route, count));
    }

    /// A state that opens a gate has made this route's item meaningless.
    #[inline]
    pub(super) fn void(&mut self, route: usize) {
        self.voided.push(route);
    }

    /// Every item's route and end, to be counted.
    #[inline]
    pub fn ends(&self) -> impl Iterator<Item = (usize, End)> {
        let newer = self.newer.iter().map(|route| (*route, End::Superseded));
        newer.chain(self.voided.iter().map(|route| (*route, End::Voided)))
    }

    #[inline]
    pub(super) fn count_in(&self, ledger: &mut Ledger) {
        let add = |count: &mut u64, routes: &[usize]| {
            *count = count.saturating_add(routes.len() as u64);
        };
        add(&mut ledger.superseded, &self.newer);
        add(&mut ledger.voided, &self.voided);
    }
}

// === impl Entry ===

impl Entry<'_> {
    /// Whether a state of this caller may void it: what another caller has queued is sent, in its order. What Laravel
    /// has is news again, whosever it is.
    #[inline]
    pub(super) fn is_void_to(&self, caller: u64) -> bool {
        self.caller == caller || !self.is_dirty() || sabotage::is(Sabotage::VoidAnybodys)
    }

    /// Whether the entry still speaks for Laravel: not forgotten, not expired, not due for the call
    /// that heals a difference.
    #[inline]
    fn is_current(&self, rules: &Rules, rule: &Route, mono_ms: u64) -> bool {
        let age_ms = mono_ms.saturating_sub(self.accepted_ms);
        match self.state {
            State::Dirty(_) => {
                sabotage::is(Sabotage::DuplicateOfExpired)
                    || rule.expire_after_ms.is_none_or(|limit| age_ms <= limit)
            }
            State::Clean { until_ms } => {
                let trusted = self.accepted_ms != DOUBTED;
                let young = trusted && age_ms <= rules.config.dedup.max_age_ms;
                mono_ms < until_ms && (young || sabotage::is(Sabotage::NeverHeals))
            }
            State::Implied { .. } => true,
        }
    }
}

/// Whether the session's last value takes the urgency from what follows: a QR that ran out (`inactive`
/// after `pending`) is no disconnect.
///
/// A state that opens a gate is waited for, whatever came before it.
#[inline]
fn soothes(rules: &Rules, rule: &Route, update: &Update<'_>, previous: &Entry<'_>) -> bool {
    if update.voids {
        return false;
    }
    was_one_of(rules, &rule.not_priority_after, previous)
}

/// Whether the session's last value makes urgent what follows: a `notLogged` after `inChat` is all that is heard of an
/// unlink.
///
/// Last values are forgotten after some minutes, and a session stays in its chat for days: where none is known, it may
/// have been one of these.
#[inline]
fn alarms(rules: &Rules, rule: &Route, previous: Option<&Entry<'_>>) -> bool {
    let values = &rule.priority_after;
    !values.is_empty() && previous.is_none_or(|last| was_one_of(rules, values, last))
}

#[inline]
fn was_one_of(rules: &Rules, values: &[String], last: &Entry<'_>) -> bool {
    values
        .iter()
        .any(|value| last.word == rules.word_hash(value))
}
