//! What the dispatcher does to a shard: claim, settle, expire.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use alloc::vec::Vec;

use super::{Claim, ClaimId, DOUBTED, Dirty, Ending, Entry, Item, Session, Shard, State, Trial};
use crate::config::Route;
use crate::json;
use crate::route::{Destination, Rules};
use crate::sabotage::{self, Sabotage};
use crate::time::Now;

/// Told to a caller where Laravel's own status is none that refuses anything.
const UNPROCESSABLE: u16 = 422;

/// What a batch has room for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    /// The route's name.
    pub route: &'w str,
    /// Fingerprint of the credentials.
    pub caller: u64,
    /// Of the unsent ones that one, or whatever has taken its place: what is older was passed over.
    pub seq: u64,
    /// Encoded destination.
    pub destination: &'w [u8],
    /// Longest body that still fits.
    pub bytes_max: usize,
    /// Callers that are refused at that destination: what they have waits for them, and holds up nobody else.
    pub refused: &'w [u64],
}

/// What a claim hands over: one item, as it is at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The shard's session.
    pub session: u128,
    /// Sequence of the update.
    pub seq: u64,
    /// When it was accepted. Monotonic.
    pub accepted_ms: u64,
    /// The item's `timestamp`.
    pub timestamp_ms: u64,
    /// Encoded [`crate::route::Neutral`].
    pub neutral: Vec<u8>,
    /// The caller's body.
    pub body: Vec<u8>,
}

/// How a call ended, for one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Laravel has it.
    Delivered,
    /// Laravel certainly did not take it, for a reason that has nothing to do with the item.
    Failed,
    /// Laravel has passed over it: it knows something newer.
    Skipped,
    /// Laravel certainly did not take it, and the item may be why.
    Refused,
    /// The same, and it is the one to blame: it travels alone from now on.
    Suspect,
    /// Laravel failed on this very row (a 500 to it alone, or its line in `results`): its own back-off.
    Threw,
    /// Laravel refused it, alone. The second time, a second later at least and beside a success, is for good.
    Turned {
        /// Its destination (its caller there, where it is the caller that was refused) has accepted something
        /// since a minute before.
        beside_success: bool,
    },
    /// Nobody can know: the claim stays and runs out. It counts as an attempt.
    Unknown,
    /// The same, for an item that was sent alone while others were accepted: its own back-off.
    Lost,
    /// Laravel does not want it, for good.
    Rejected,
    /// It was never sent.
    Unsent,
}

/// What a settlement changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The update that was sent is the session's last: it ends as delivered, or as rejected.
    Ended {
        /// Laravel does not want it; otherwise it has it.
        rejected: bool,
        /// The route of the implied state that has to be sent by itself now, if there is one.
        revived: Option<usize>,
        /// What was said after it on its route is still to be sent.
        followed: bool,
    },
    /// The claim is gone; the entry, if it is still there, is to be sent again, or holds a newer value.
    Released,
    /// The claim was not this call's: nothing has changed.
    Foreign,
}

// === impl Outcome ===

impl Outcome {
    /// Whether it counts for the value, too, that has superseded the one that was sent.
    #[inline]
    fn is_inherited(self) -> bool {
        let counts = match self {
            Self::Refused | Self::Suspect | Self::Threw | Self::Unknown | Self::Lost => true,
            Self::Turned { .. } => true,
            Self::Delivered | Self::Skipped | Self::Failed => false,
            Self::Rejected | Self::Unsent => false,
        };
        counts && !sabotage::is(Sabotage::AttemptsAreForgotten)
    }
}

// === impl Shard ===

impl<'a> Shard<'a> {
    /// Whether something of this session that tells of the same as `route`, and of this caller, was accepted after that.
    #[must_use]
    #[inline]
    pub fn has_later(&self, rules: &Rules, of: (u128, &str, u64), accepted_ms: u64) -> bool {
        let (session, route, caller) = of;
        let Some((_, rule)) = rules.config.route_named(route) else {
            return false;
        };
        self.session(session).is_some_and(|session| {
            session.entries.iter().any(|entry| {
                let is_its = entry.caller == caller && rules.is_kin(rule, &entry.route);
                is_its && entry.accepted_ms > accepted_ms
            })
        })
    }

    /// Ends a claimed update that was never sent: something newer went to Laravel under another name of its session.
    /// False where the claim is another's.
    #[inline]
    pub fn give_way(&mut self, rules: &Rules, session: u128, id: ClaimId, now: Now) -> bool {
        let Some(session) = self.session_mut(session) else {
            return false;
        };
        let Some(claim) = session.claim.take_if(|claim| claim.id == id) else {
            return false;
        };
        let is_it = |entry: &Entry<'_>| {
            entry.is(&claim.route, claim.caller) && entry.is_dirty() && entry.seq == claim.seq
        };
        session.entries_end(rules, Ending::Delivered, now, &is_it);
        let known = session.entries.len();
        session.entries.retain(|entry| !is_it(entry));
        let has_ended = session.entries.len() < known;
        session.drop_implied(rules, &[claim.seq], Ending::Delivered, now);
        session.doubt_kept(claim.seq);
        let ended = u64::from(has_ended);
        self.ledger.superseded = self.ledger.superseded.saturating_add(ended);
        has_ended
    }

    // ## Dirty => Dirty under a claim
    //
    // Only the oldest of the session, but for what failed alone, and only while nobody else's call may still be at
    // work on it.
    /// Claims the update of `session` that `wanted` describes, if it may still be sent.
    #[inline]
    pub fn claim(
        &mut self,
        rules: &Rules,
        session: u128,
        wanted: &Wanted<'_>,
        id: ClaimId,
        now: Now,
    ) -> Option<Claimed> {
        let session = self.session_mut(session)?;
        if session.live_claim(now.mono_ms).is_some_and(|claim| {
            claim.id.epoch == id.epoch || !sabotage::is(Sabotage::IgnoreForeignClaims)
        }) {
            return None;
        }
        let Wanted {
            route,
            caller,
            seq,
            destination,
            bytes_max,
            refused,
        } = *wanted;
        let own = session.entries_of(route, caller);
        let own = own.filter(|entry| entry.is_dirty() && entry.seq >= seq);
        let entry = own
            .last()
            .filter(|entry| session.may_go(entry, refused, now.mono_ms))?;
        // Whoever is held and older goes first.
        let held_up = session.held_up_until(caller, entry.seq, now.mono_ms);
        if held_up.is_some() {
            return None;
        }
        if entry
            .expires_ms(rules)
            .is_some_and(|expires_ms| now.mono_ms > expires_ms)
        {
            return None;
        }
        let State::Dirty(dirty) = &entry.state else {
            return None;
        };
        if dirty.destination != destination || dirty.body.len() > bytes_max {
            return None;
        }
        let claimed = Claimed {
            session: session.id,
            seq: entry.seq,
            accepted_ms: entry.accepted_ms,
            timestamp_ms: dirty.timestamp_ms,
            neutral: dirty.neutral.to_vec(),
            body: dirty.body.to_vec(),
        };
        session.claim = Some(Claim {
            id,
            route: Cow::Owned(route.to_owned()),
            caller,
            seq: entry.seq,
            deadline_ms: now.mono_ms.saturating_add(rules.config.claim_ms()),
        });
        Some(claimed)
    }

    /// An unsent item as it is at this moment, for the webhook, which asks for no claim.
    #[must_use]
    #[inline]
    pub fn unsent(&self, session: u128, route: &str, caller: u64, seq: u64) -> Option<Claimed> {
        let session = self.session(session)?;
        let at = session.unsent_at(route, caller, seq)?;
        let entry = session.entries.get(at)?;
        let State::Dirty(dirty) = &entry.state else {
            return None;
        };
        Some(Claimed {
            session: session.id,
            seq,
            accepted_ms: entry.accepted_ms,
            timestamp_ms: dirty.timestamp_ms,
            neutral: dirty.neutral.to_vec(),
            body: dirty.body.to_vec(),
        })
    }

    /// The webhook has this item: no end, Laravel has still to get it. True where that is news.
    #[inline]
    pub fn hand_over(&mut self, session: u128, seq: u64) -> bool {
        let session = self.session_mut(session).filter(|s| s.told_seq < seq);
        session.map(|session| session.told_seq = seq).is_some()
    }

    // ## Dirty under a claim => (Clean | Dirty | absent)
    //
    // Whoever holds the claim settles it, leader or not: an answer is an answer. An unknown outcome is
    // no settlement at all; the claim then stays and runs out.
    /// Settles the claim with this id. `status` is Laravel's own, where it has answered.
    #[inline]
    pub fn settle(
        &mut self,
        rules: &Rules,
        session: u128,
        id: ClaimId,
        outcome: Outcome,
        status: Option<u16>,
        now: Now,
    ) -> Settled {
        let ttl_ms = rules.config.dedup.ttl_ms;
        let name = session;
        let mut sessions = self.sessions.iter_mut();
        let Some(session) = sessions.find(|session| session.id == name) else {
            return Settled::Foreign;
        };
        if session.claim.as_ref().is_none_or(|claim| claim.id != id)
            && !sabotage::is(Sabotage::SettleAnyClaim)
        {
            return Settled::Foreign;
        }
        let Some(claim) = session.claim.clone() else {
            return Settled::Foreign;
        };
        if !matches!(outcome, Outcome::Unknown | Outcome::Lost) {
            session.claim = None;
        }
        // What Laravel refuses twice, it refuses for good.
        let outcome = match (outcome, session.trial(&claim)) {
            (Outcome::Turned { beside_success }, Some(trial))
                if trial.is_final(beside_success, now.mono_ms) =>
            {
                Outcome::Rejected
            }
            (outcome, _) => outcome,
        };
        let until_ms = now.mono_ms.saturating_add(ttl_ms);
        match outcome {
            // Whatever became of the entry since, Laravel has this one's value now.
            Outcome::Delivered | Outcome::Skipped => {
                match outcome {
                    Outcome::Skipped if sabotage::is(Sabotage::KeepTheSkipped) => {}
                    Outcome::Skipped => session.doubt_kept(claim.seq),
                    _ => {
                        let place = (&*claim.route, claim.caller);
                        session.delivered(rules, place, claim.seq, &mut self.last_seq, now);
                    }
                }
                session.forgive(&claim);
                let whose = (
                    claim.caller,
                    Overtaken {
                        own: true,
                        all: true,
                    },
                );
                let overtaken = session.end_overtaken(rules, &claim.route, claim.seq, whose, now);
                self.ledger.superseded = self.ledger.superseded.saturating_add(overtaken);
                if rules.config.holds_callers() {
                    let item = Item {
                        place: rules.place(&claim.route, claim.caller),
                        seq: claim.seq,
                    };
                    session.ends(rules, item, Ending::Delivered, now);
                }
            }
            Outcome::Rejected => session.doubt_kept(claim.seq),
            _ => {}
        }
        let is_any = outcome.is_inherited() || sabotage::is(Sabotage::SettleAnyValue);
        let Some(at) = session.claimed_at(&claim, is_any) else {
            return Settled::Released;
        };
        let is_last = session.is_last(at);
        let Some(entry) = session.entries.get_mut(at) else {
            return Settled::Released;
        };
        // What Laravel passed over is not what it has: it answers for no duplicate.
        let until_ms = match outcome {
            Outcome::Skipped => now.mono_ms,
            _ => until_ms,
        };
        match (outcome, &mut entry.state) {
            (Outcome::Delivered | Outcome::Skipped, state) => {
                *state = State::Clean { until_ms };
                let is_learned =
                    |state: &State<'_>| matches!(state, State::Implied { by } if *by == claim.seq);
                session.entries_end(rules, Ending::Delivered, now, &|entry| {
                    is_learned(&entry.state)
                });
                for implied in &mut session.entries {
                    if is_learned(&implied.state) {
                        implied.state = State::Clean { until_ms };
                    }
                }
                // What was said after it is still to be sent, and is the last.
                if !is_last {
                    session.entries.remove(at);
                }
                self.adopt(name, claim.caller);
                if !sabotage::is(Sabotage::LedgerForgets) {
                    self.ledger.delivered = self.ledger.delivered.saturating_add(1);
                }
                return Settled::Ended {
                    rejected: false,
                    revived: None,
                    followed: !is_last,
                };
            }
            (Outcome::Rejected, _) => {
                let status = status.filter(|status| (300..600).contains(status));
                let how = Ending::Rejected(status.unwrap_or(UNPROCESSABLE));
                let revived = session.end_unsent(rules, at, how, now);
                self.orphan(name, claim.caller, now.mono_ms);
                self.ledger.rejected = self.ledger.rejected.saturating_add(1);
                if revived.is_some() {
                    self.ledger.accepted = self.ledger.accepted.saturating_add(1);
                }
                return Settled::Ended {
                    rejected: true,
                    revived,
                    followed: !is_last,
                };
            }
            (Outcome::Refused | Outcome::Unknown, State::Dirty(dirty)) => {
                dirty.attempts = dirty.attempts.saturating_add(1);
            }
            (Outcome::Suspect, State::Dirty(dirty)) => dirty.trial.suspected(now.mono_ms),
            (Outcome::Threw | Outcome::Lost, State::Dirty(dirty)) => {
                dirty.attempts = dirty.attempts.saturating_add(1);
                dirty.trial.threw(entry.seq, now.mono_ms);
                dirty.trial.lost = outcome == Outcome::Lost;
            }
            (Outcome::Turned { .. }, State::Dirty(dirty)) => {
                dirty.attempts = dirty.attempts.saturating_add(1);
                dirty.trial.turned(now.mono_ms);
            }
            _ => {}
        }
        Settled::Released
    }

    // ## Dirty => absent, and what it implied => Dirty
    //
    // Only without a live claim: Laravel may be storing the item at this moment. To absent and never to
    // clean: Laravel does not have it.
    /// Drops items that have outlived their route's limit. Gives the routes of the dropped ones and of
    /// the implied states that now have to be sent by themselves.
    #[inline]
    pub fn expire(&mut self, rules: &Rules, now: Now) -> (Vec<usize>, Vec<usize>) {
        let mut dropped = Vec::new();
        let mut revived = Vec::new();
        for session in &mut self.sessions {
            if session.live_claim(now.mono_ms).is_some()
                && !sabotage::is(Sabotage::ExpireUnderClaim)
            {
                continue;
            }
            let mut entries = session.entries.iter().enumerate();
            while let Some((at, route)) = entries.find_map(|(at, entry)| {
                let (route, rule) = rules.config.route_named(&entry.route)?;
                let limit = rule.expire_after_ms.filter(|_| entry.is_dirty())?;
                (now.mono_ms.saturating_sub(entry.accepted_ms) > limit).then_some((at, route))
            }) {
                dropped.push(route);
                revived.extend(session.end_unsent(rules, at, Ending::Expired, now));
                entries = session.entries.iter().enumerate();
            }
        }
        self.ledger.expired = self.ledger.expired.saturating_add(dropped.len() as u64);
        self.ledger.accepted = self.ledger.accepted.saturating_add(revived.len() as u64);
        (dropped, revived)
    }

    /// Whether [`Shard::expire`] would do anything, without doing it.
    #[must_use]
    #[inline]
    pub fn has_expired(&self, rules: &Rules, now: Now) -> bool {
        self.sessions.iter().any(|session| {
            (session.live_claim(now.mono_ms).is_none() || sabotage::is(Sabotage::ExpireUnderClaim))
                && session.entries.iter().any(|entry| {
                    entry.is_dirty()
                        && entry
                            .expires_ms(rules)
                            .is_some_and(|expires_ms| now.mono_ms > expires_ms)
                })
        })
    }
}

// === impl Trial ===

/// Least time between two refusals that count, and the first wait after one, milliseconds.
const REFUSALS_APART_MS: u64 = 1_000;

/// Longest wait of an item's own back-off, milliseconds, and after how long it fails every five minutes only.
const TRIAL_MAX_MS: u64 = 30_000;
const TRIAL_PATIENCE_MS: u64 = 600_000;
const TRIAL_RARE_MS: u64 = 300_000;

impl Trial {
    /// Whether a refusal at this moment is the last word.
    #[inline]
    fn is_final(&self, beside_success: bool, mono_ms: u64) -> bool {
        let is_second =
            self.refusals > 0 && mono_ms >= self.refused_ms.saturating_add(REFUSALS_APART_MS);
        let is_told_twice = is_second || sabotage::is(Sabotage::RejectAtOnce);
        is_told_twice && (beside_success || sabotage::is(Sabotage::RejectBesideNothing))
    }

    /// Named, or refused together with others. What it once failed for, everybody may have failed for; it was among
    /// others again, and that tells anew.
    #[inline]
    fn suspected(&mut self, mono_ms: u64) {
        if self.alone && self.failures > 0 {
            self.failed_since_ms = mono_ms;
        }
        self.alone = true;
    }

    #[inline]
    fn turned(&mut self, mono_ms: u64) {
        let wait_ms = REFUSALS_APART_MS
            .checked_shl(self.refusals.into())
            .unwrap_or(TRIAL_MAX_MS)
            .clamp(REFUSALS_APART_MS, TRIAL_MAX_MS);
        self.alone = true;
        self.refusals = self.refusals.saturating_add(1);
        self.refused_ms = mono_ms;
        self.not_before_ms = mono_ms.saturating_add(wait_ms);
    }

    /// 0.5 s, doubling to 30 s, with a jitter that its sequence decides; after ten minutes every five.
    #[inline]
    fn threw(&mut self, seq: u64, mono_ms: u64) {
        if self.failures == 0 {
            self.failed_since_ms = mono_ms;
        }
        let is_old = mono_ms >= self.failed_since_ms.saturating_add(TRIAL_PATIENCE_MS);
        let wait_ms = match is_old {
            true => TRIAL_RARE_MS,
            false => 500_u64
                .checked_shl(self.failures.into())
                .unwrap_or(TRIAL_MAX_MS)
                .clamp(500, TRIAL_MAX_MS),
        };
        self.alone = true;
        self.failures = self.failures.saturating_add(1);
        let mixed = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        let jitter_ms = wait_ms.saturating_mul(mixed) / 4_096;
        if sabotage::is(Sabotage::RowsNeverWait) {
            return;
        }
        self.not_before_ms = mono_ms.saturating_add(wait_ms).saturating_add(jitter_ms);
    }
}

// === impl Session ===

impl Session<'_> {
    /// What has happened to the claimed update alone, if it is still the one to be sent.
    #[inline]
    fn trial(&self, claim: &Claim<'_>) -> Option<Trial> {
        let at = self.unsent_at(&claim.route, claim.caller, claim.seq)?;
        match &self.entries.get(at)?.state {
            State::Dirty(dirty) => Some(dirty.trial),
            _ => None,
        }
    }

    /// Where the claimed update is; or, if that is of use, what has taken its place.
    #[inline]
    fn claimed_at(&self, claim: &Claim<'_>, is_any: bool) -> Option<usize> {
        let heir = |entry: &Entry<'_>| {
            let is_own = entry.is_dirty() && entry.is(&claim.route, claim.caller);
            is_own && (entry.seq > claim.seq || sabotage::is(Sabotage::SettleAnyValue))
        };
        let it = self.unsent_at(&claim.route, claim.caller, claim.seq);
        it.or_else(|| self.entries.iter().rposition(heir).filter(|_| is_any))
    }

    /// Whether this entry is the last one of its route and caller.
    #[inline]
    fn is_last(&self, at: usize) -> bool {
        let Some(entry) = self.entries.get(at) else {
            return false;
        };
        let before = at.checked_sub(1).and_then(|at| self.entries.get(at));
        !before.is_some_and(|before| before.is(&entry.route, entry.caller))
    }

    /// Laravel has taken something of this session: what has failed together with others may have failed for them.
    /// What has failed alone may not, unless it is the one that was taken.
    #[inline]
    fn forgive(&mut self, claim: &Claim<'_>) {
        for entry in &mut self.entries {
            let is_own = entry.is(&claim.route, claim.caller);
            if let State::Dirty(dirty) = &mut entry.state
                && (is_own || dirty.trial == Trial::default())
            {
                dirty.attempts = 0;
                dirty.trial = Trial::default();
            }
        }
    }

    // ## overtaken: Dirty => absent | Clean => Clean, unverified
    //
    // What failed alone, and what a refused caller has, were passed over. Of its own route what came after it is
    // the newer: it ends. Another route's may or may not be undone by it: the session is unverified.
    /// Ends what this one has overtaken on its route. Gives how many.
    #[inline]
    pub(super) fn end_overtaken(
        &mut self,
        rules: &Rules,
        route: &str,
        seq: u64,
        (caller, whose): (u64, Overtaken),
        now: Now,
    ) -> u64 {
        let mut ended = 0_u64;
        let is_overtaken = |entry: &Entry<'_>| {
            let is_its = match (entry.caller == caller, &entry.state) {
                (true, State::Dirty(_)) => whose.own,
                (_, State::Implied { .. }) => whose.all && (whose.own || entry.caller != caller),
                (_, State::Dirty(dirty)) => {
                    whose.all || !dirty.trial.holds_up(entry.caller, caller, &[])
                }
                _ => false,
            };
            is_its && entry.route == route && entry.seq < seq
        };
        while let Some(entry) = self.entries.iter().find(|entry| is_overtaken(entry)) {
            let older = (entry.caller, entry.seq, entry.is_dirty());
            let shows = entry.text.is_some();
            let is_it = |entry: &Entry<'_>| entry.is(route, older.0) && entry.seq == older.1;
            let how = Ending::Voided(Item {
                place: rules.place(route, caller),
                seq,
            });
            self.entries_end(rules, how, now, &is_it);
            self.entries.retain(|entry| !is_it(entry));
            self.drop_implied(rules, &[older.1], how, now);
            if !shows {
                self.forgets(older.1, false);
            }
            ended = ended.saturating_add(older.2.into());
        }
        let is_late = self.entries.iter().any(|entry| {
            entry.seq > seq && entry.route != route && matches!(entry.state, State::Clean { .. })
        });
        if is_late {
            for entry in &mut self.entries {
                if matches!(entry.state, State::Clean { .. }) {
                    entry.accepted_ms = DOUBTED;
                }
            }
            self.doubt_kept(seq);
        }
        ended
    }

    // ## Dirty => absent, and what it implied => Dirty
    //
    // The gateway believes that Laravel has heard of both, and the state never expires.
    /// Takes an item away that Laravel will never have. Gives the route of the state that it implied, if that
    /// has to be sent by itself now.
    #[inline]
    fn end_unsent(&mut self, rules: &Rules, at: usize, how: Ending, now: Now) -> Option<usize> {
        if at >= self.entries.len() {
            return None;
        }
        let item = self.entries.remove(at);
        if rules.config.holds_callers() {
            self.ends(rules, item.item(rules), how, now);
        }
        // Laravel may have it all the same, after a call of unknown outcome: no older value of the route is
        // surely what Laravel has. It answers for no duplicate.
        // Nor is any of its kin's, where something in between was delivered and then replaced.
        let rule = rules.config.route_named(&item.route).map(|(_, rule)| rule);
        let is_kin =
            |route: &str| route == item.route || rule.is_some_and(|rule| rules.is_kin(rule, route));
        for entry in &mut self.entries {
            if is_kin(&entry.route) && matches!(entry.state, State::Clean { .. }) {
                entry.accepted_ms = DOUBTED;
            }
        }
        self.forgets(item.seq, item.text.is_some());
        let State::Dirty(dirty) = item.state else {
            return None;
        };
        let implied = self
            .entries
            .iter_mut()
            .find(|entry| matches!(entry.state, State::Implied { by } if by == item.seq))?;
        let (route, _) = rules.config.route_named(&item.route)?;
        let target = rules.config.route_named(&implied.route);
        // Of a session that Laravel does not know, or of an item that it does not want, it wants nothing else.
        let is_rejected =
            matches!(how, Ending::Rejected(_)) && !sabotage::is(Sabotage::ReviveTheRejected);
        let is_wanted = !sabotage::is(Sabotage::NeverRevive) && !is_rejected;
        match (target, rules.implied_body(route, &dirty.body)) {
            (Some((target, rule)), Some(body)) if is_wanted => {
                implied.revive(rules, dirty, rule, body, now.mono_ms);
                Some(target)
            }
            _ => {
                self.drop_implied(rules, &[item.seq], how, now);
                None
            }
        }
    }
}

/// Whose older values of its route an accepted one has overtaken. What failed alone, or was refused, always: it was
/// passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Overtaken {
    /// Its own caller's, which end another way where there is an entry for it.
    pub(super) own: bool,
    /// Every other caller's, and what theirs imply: it has waited for those that hold anybody up.
    pub(super) all: bool,
}

// === impl Entry ===

impl<'a> Entry<'a> {
    /// The last moment at which it is of use, monotonic; `None` for routes that never expire.
    #[must_use]
    #[inline]
    pub fn expires_ms(&self, rules: &Rules) -> Option<u64> {
        let name: &str = &self.route;
        let (_, rule) = rules.config.route_named(name)?;
        Some(self.accepted_ms.saturating_add(rule.expire_after_ms?))
    }

    // ## Implied => Dirty
    //
    // The gateway believes that Laravel has heard this state. It keeps its place in the session's order:
    // the item whose sequence it bears is gone. It goes where the item would have gone, but for the path:
    // alone it would end at the item's route, which refuses it.
    #[inline]
    fn revive(
        &mut self,
        rules: &Rules,
        item: Dirty<'a>,
        rule: &Route,
        body: Vec<u8>,
        mono_ms: u64,
    ) {
        let destination = Destination::decode(&item.destination).map(|destination| Destination {
            method: rule.method.clone(),
            path: rule.path.fixed().to_owned(),
            ..destination
        });
        self.state = State::Dirty(Dirty {
            since_ms: mono_ms,
            timestamp_ms: item.timestamp_ms.saturating_add(1),
            attempts: 0,
            trial: Trial::default(),
            priority: false,
            destination: destination.map_or(item.destination, |new| Cow::Owned(new.encode())),
            // Nothing of the item's own request: this is another one.
            neutral: Cow::Borrowed(&[]),
            members: json::read_rule(&body, &[], &[], 0, &rule.unsaid, rules.key)
                .map_or(0, |document| document.members()),
            body: Cow::Owned(body),
        });
    }
}

/// The name under which the ledger's balance is checked in tests and in the simulation.
///
/// # Errors
/// The two sides, where they differ.
#[inline]
pub fn balance(shard: &Shard<'_>) -> Result<(), String> {
    let ledger = shard.ledger;
    let ended = [
        ledger.delivered,
        ledger.superseded,
        ledger.expired,
        ledger.rejected,
        ledger.voided,
    ];
    let accounted = ended
        .iter()
        .sum::<u64>()
        .saturating_add(shard.pending() as u64);
    match ledger.accepted == accounted {
        true => Ok(()),
        false => Err(alloc::format!(
            "accepted {} but accounted for {accounted}",
            ledger.accepted
        )),
    }
}
