//! What a recognised update does to a shard when it goes to Laravel by itself: its credential is not trusted
//! yet, or the shard is full. It is no item and never in the ledger, but it takes a sequence and the
//! session's claim like any call, or it would overtake, or be overtaken by, what is queued.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::{Claim, ClaimId, Entry, SESSIONS_PASSING_MAX, Session, Shard, State};
use crate::passing::{Fate, Pass};
use crate::route::{Rules, Update};
use crate::sabotage::{self, Sabotage};
use crate::time::Now;

/// What a session was before an update that passes, should that never have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    newest_seq: u64,
    passed_seq: u64,
}

/// Whether an update may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// It has the session's claim; the shard must be written.
    Claimed {
        /// Its sequence.
        seq: u64,
        /// What the session was before it.
        before: Before,
    },
    /// Something of the session is at Laravel, or on its way there.
    Busy,
    /// There is no room even for the claim: nothing of the session is known, so nothing can be overtaken.
    Untracked,
}

// === impl Shard ===

impl Shard<'_> {
    /// Takes a sequence and the session's claim for an update that passes.
    pub fn pass(&mut self, rules: &Rules, update: &Update<'_>, id: ClaimId, now: Now) -> Passed {
        let Some(rule) = rules.route(update.route) else {
            return Passed::Untracked;
        };
        self.prune(now.mono_ms);
        if self.session(update.session).is_none() {
            if self.sessions.len() >= SESSIONS_PASSING_MAX {
                return Passed::Untracked;
            }
            self.sessions
                .push(Session::new(update.session, self.last_seq));
        }
        let seq = self.last_seq.saturating_add(1);
        let Some(session) = self.session_mut(update.session) else {
            return Passed::Untracked;
        };
        // What is still to be sent would be sent after it, and is older: where the fate of this one stays
        // unknown, nothing could tell whether that was right.
        let queued = session.next_due().is_some() && !sabotage::is(Sabotage::PassOverQueued);
        let pending = session.live_claim(now.mono_ms).is_some() || queued;
        if pending {
            return Passed::Busy;
        }
        let before = Before {
            newest_seq: core::mem::replace(&mut session.newest_seq, seq),
            passed_seq: core::mem::replace(&mut session.passed_seq, seq),
        };
        session.claim = Some(Claim {
            id,
            route: Cow::Owned(rule.name.clone()),
            credential: update.credential,
            seq,
            deadline_ms: now.mono_ms.saturating_add(rules.config.claim_ms()),
        });
        self.last_seq = seq;
        Passed::Claimed { seq, before }
    }

    // ## Clean | absent => Clean
    //
    // Laravel's own 2xx: nothing was queued before it, and what came after it stays.
    /// Settles a passing update; `None` where the claim was not its own any more, and nothing has changed.
    pub fn settle_pass(&mut self, rules: &Rules, pass: &Pass, fate: Fate, now: Now) -> Option<()> {
        let rule = rules.route(pass.route)?;
        let session = self.session_mut(pass.session)?;
        session
            .claim
            .as_ref()
            .filter(|claim| claim.id == pass.claim)?;
        session.claim = None;
        if fate != Fate::Delivered {
            session.passed_seq = pass.before.passed_seq;
            // It never happened: what it stood before is the newest again, even where that has left no entry.
            if session.newest_seq == pass.seq {
                session.newest_seq = pass.before.newest_seq;
            }
            return Some(());
        }
        session.delivered(pass.credential, pass.seq);
        session.forget_voided(rules, rule, pass);
        let until_ms = now.mono_ms.saturating_add(rules.config.dedup.ttl_ms);
        let clean = |route: &str, value, text, order| Entry {
            route: Cow::Owned(route.into()),
            credential: pass.credential,
            seq: pass.seq,
            value,
            accepted_ms: now.mono_ms,
            order,
            text,
            state: State::Clean { until_ms },
        };
        let text = pass.text.clone().map(Cow::Owned);
        session.replace_older(clean(&rule.name, pass.value, text, pass.order));
        let implied = rule.implies.as_ref();
        let implied = implied.and_then(|implies| Some((implies, rules.route(implies.route)?)));
        if let Some((implies, target)) = implied {
            let value = rules.plain_value_hash(target, &implies.value);
            let text = target.is_shown.then(|| implies.value.clone().into());
            session.replace_older(clean(&target.name, value, text, None));
        }
        Some(())
    }
}

// === impl Session ===

impl<'a> Session<'a> {
    /// Puts `entry` in the place of its predecessor, unless that is newer.
    fn replace_older(&mut self, entry: Entry<'a>) {
        let known = self.entry(&entry.route, entry.credential);
        if known.is_none_or(|known| known.seq < entry.seq) {
            self.replace(entry);
        }
    }

    /// A delivered value of a voided route is news again.
    fn forget_voided(&mut self, rules: &Rules, rule: &crate::config::Route, pass: &Pass) {
        let Some(voids) = rule.voids.as_ref().filter(|_| pass.voids) else {
            return;
        };
        let names: Vec<&str> = voids
            .routes
            .iter()
            .filter_map(|index| Some(rules.route(*index)?.name.as_str()))
            .collect();
        let gone = |entry: &Entry<'_>| entry.seq < pass.seq && names.contains(&&*entry.route);
        let shown = self
            .entries
            .iter()
            .filter(|entry| gone(entry) && entry.text.is_some());
        if let Some(seq) = shown.map(|entry| entry.seq).max() {
            self.doubt_kept(seq);
        }
        self.entries.retain(|entry| !gone(entry));
    }
}
