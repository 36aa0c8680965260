//! What the dispatcher does to a shard: claim, settle, expire.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use alloc::vec::Vec;

use super::{Claim, ClaimId, DOUBTED, Dirty, Ending, Entry, Item, Session, Shard, State};
use crate::config::Route;
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
    pub credential: u64,
    /// Encoded destination.
    pub destination: &'w [u8],
    /// Longest body that still fits.
    pub bytes_max: usize,
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
    /// The caller's body.
    pub body: Vec<u8>,
}

/// Refusals after which an item travels alone, to its original path: by then it is the suspect.
pub const ATTEMPTS_TOGETHER_MAX: u16 = 4;

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
        /// The route of the implied state that has to be sent by itself now, if there is one.
        revived: Option<usize>,
    },
    /// The claim is gone; the entry, if it is still there, is to be sent again, or holds a newer value.
    Released,
    /// The claim was not this call's: nothing has changed.
    Foreign,
}

// === impl Shard ===

impl<'a> Shard<'a> {
    // ## Dirty => Dirty under a claim
    //
    // Only the oldest of the session, and only while nobody else's call may still be at work on it.
    /// Claims the update that is next of `session`, if `wanted` still describes it.
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
            credential,
            destination,
            bytes_max,
        } = *wanted;
        let entry = session
            .next_due()
            .filter(|entry| entry.is(route, credential))?;
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
            body: dirty.body.to_vec(),
        };
        session.claim = Some(Claim {
            id,
            route: Cow::Owned(route.to_owned()),
            credential,
            seq: entry.seq,
            deadline_ms: now.mono_ms.saturating_add(rules.config.claim_ms()),
        });
        Some(claimed)
    }

    /// An unsent item as it is at this moment, for the webhook, which asks for no claim.
    #[must_use]
    pub fn unsent(&self, session: u128, route: &str, credential: u64, seq: u64) -> Option<Claimed> {
        let session = self.session(session)?;
        let entry = session
            .entry(route, credential)
            .filter(|entry| entry.seq == seq)?;
        let State::Dirty(dirty) = &entry.state else {
            return None;
        };
        Some(Claimed {
            session: session.id,
            seq,
            accepted_ms: entry.accepted_ms,
            timestamp_ms: dirty.timestamp_ms,
            body: dirty.body.to_vec(),
        })
    }

    /// The webhook has this item: no end, Laravel has still to get it. True where that is news.
    pub fn hand_over(&mut self, session: u128, seq: u64) -> bool {
        let session = self.session_mut(session).filter(|s| s.told_seq < seq);
        session.map(|session| session.told_seq = seq).is_some()
    }

    // ## Dirty under a claim => (Clean | Dirty | absent)
    //
    // Whoever holds the claim settles it, leader or not: an answer is an answer. An unknown outcome is
    // no settlement at all; the claim then stays and runs out.
    /// Settles the claim with this id. `status` is Laravel's own, where it has answered.
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
        let Some(session) = self.session_mut(session) else {
            return Settled::Foreign;
        };
        if session.claim.as_ref().is_none_or(|claim| claim.id != id)
            && !sabotage::is(Sabotage::SettleAnyClaim)
        {
            return Settled::Foreign;
        }
        let Some(claim) = session.claim.take() else {
            return Settled::Foreign;
        };
        let until_ms = now.mono_ms.saturating_add(ttl_ms);
        match outcome {
            // Whatever became of the entry since, Laravel has this one's value now.
            Outcome::Delivered | Outcome::Skipped => {
                match outcome {
                    Outcome::Skipped => session.doubt_kept(claim.seq),
                    _ => session.delivered(claim.credential, claim.seq),
                }
                if rules.config.holds_callers() {
                    let item = Item {
                        place: rules.place(&claim.route, claim.credential),
                        seq: claim.seq,
                    };
                    session.ends(rules, item, Ending::Delivered, now);
                }
            }
            Outcome::Rejected => session.doubt_kept(claim.seq),
            _ => {}
        }
        let Some(entry) = session
            .entry_mut(&claim.route, claim.credential)
            .filter(|entry| {
                entry.is_dirty()
                    && (entry.seq == claim.seq || sabotage::is(Sabotage::SettleAnyValue))
            })
        else {
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
                if !sabotage::is(Sabotage::LedgerForgets) {
                    self.ledger.delivered = self.ledger.delivered.saturating_add(1);
                }
                return Settled::Ended { revived: None };
            }
            (Outcome::Rejected, _) => {
                let status = status.filter(|status| (300..600).contains(status));
                let how = Ending::Rejected(status.unwrap_or(UNPROCESSABLE));
                let revived = session.end_unsent(rules, &claim.route, claim.credential, how, now);
                self.ledger.rejected = self.ledger.rejected.saturating_add(1);
                if revived.is_some() {
                    self.ledger.accepted = self.ledger.accepted.saturating_add(1);
                }
                return Settled::Ended { revived };
            }
            (Outcome::Refused, State::Dirty(dirty)) => {
                dirty.attempts = dirty.attempts.saturating_add(1);
            }
            (Outcome::Suspect, State::Dirty(dirty)) => dirty.attempts = ATTEMPTS_TOGETHER_MAX,
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
    pub fn expire(&mut self, rules: &Rules, now: Now) -> (Vec<usize>, Vec<usize>) {
        let mut dropped = Vec::new();
        let mut revived = Vec::new();
        for session in &mut self.sessions {
            if session.live_claim(now.mono_ms).is_some()
                && !sabotage::is(Sabotage::ExpireUnderClaim)
            {
                continue;
            }
            while let Some((name, credential, route)) = session.entries.iter().find_map(|entry| {
                let (route, rule) = rules.config.route_named(&entry.route)?;
                let limit = rule.expire_after_ms.filter(|_| entry.is_dirty())?;
                (now.mono_ms.saturating_sub(entry.accepted_ms) > limit)
                    .then(|| (entry.route.clone(), entry.credential, route))
            }) {
                dropped.push(route);
                revived.extend(session.end_unsent(rules, &name, credential, Ending::Expired, now));
            }
        }
        self.ledger.expired = self.ledger.expired.saturating_add(dropped.len() as u64);
        self.ledger.accepted = self.ledger.accepted.saturating_add(revived.len() as u64);
        (dropped, revived)
    }

    /// Whether [`Shard::expire`] would do anything, without doing it.
    #[must_use]
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

// === impl Session ===

impl Session<'_> {
    // ## Dirty => absent, and what it implied => Dirty
    //
    // The gateway believes that Laravel has heard of both, and the state never expires.
    /// Takes an item away that Laravel will never have. Gives the route of the state that it implied, if that
    /// has to be sent by itself now.
    fn end_unsent(
        &mut self,
        rules: &Rules,
        route: &str,
        credential: u64,
        how: Ending,
        now: Now,
    ) -> Option<usize> {
        self.entries_end(rules, how, now, &|entry| entry.is(route, credential));
        let at = self
            .entries
            .iter()
            .position(|entry| entry.is(route, credential))?;
        let item = self.entries.swap_remove(at);
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
        if item.text.is_some() {
            self.doubt_kept(item.seq);
        }
        let State::Dirty(dirty) = item.state else {
            return None;
        };
        let implied = self
            .entries
            .iter_mut()
            .find(|entry| matches!(entry.state, State::Implied { by } if by == item.seq))?;
        let (route, _) = rules.config.route_named(route)?;
        let target = rules.config.route_named(&implied.route);
        match (target, rules.implied_body(route, &dirty.body)) {
            (Some((target, rule)), Some(body)) if !sabotage::is(Sabotage::NeverRevive) => {
                implied.revive(dirty, rule, body, now.mono_ms);
                Some(target)
            }
            _ => {
                self.drop_implied(rules, &[item.seq], how, now);
                None
            }
        }
    }
}

// === impl Entry ===

impl<'a> Entry<'a> {
    /// The last moment at which it is of use, monotonic; `None` for routes that never expire.
    #[must_use]
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
    fn revive(&mut self, item: Dirty<'a>, rule: &Route, body: Vec<u8>, mono_ms: u64) {
        let destination = Destination::decode(&item.destination).map(|destination| Destination {
            path: rule.path.fixed().to_owned(),
            ..destination
        });
        self.state = State::Dirty(Dirty {
            since_ms: mono_ms,
            timestamp_ms: item.timestamp_ms.saturating_add(1),
            attempts: 0,
            priority: false,
            destination: destination.map_or(item.destination, |new| Cow::Owned(new.encode())),
            body: Cow::Owned(body),
        });
    }
}

/// The name under which the ledger's balance is checked in tests and in the simulation.
///
/// # Errors
/// The two sides, where they differ.
pub fn balance(shard: &Shard<'_>) -> Result<(), String> {
    let ledger = shard.ledger;
    let ended = [
        ledger.delivered,
        ledger.superseded,
        ledger.expired,
        ledger.rejected,
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
