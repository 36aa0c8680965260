//! What a recognised update does to a shard when it is written through: its caller is not proven yet, the shard is
//! full, or the session is unknown to Laravel. It is no item and never in the ledger, but it takes a sequence and the
//! session's claim like any call, or it would overtake, or be overtaken by, what is queued.
//!
//! # The way of such a request
//!
//! ```text
//!          write_through                 turn                     settle_through
//!  (new) ───────────────▶ held, a place ──────▶ at Laravel ──────────────────────▶ (gone)
//!    │                        │  its time is over   ▲  ▲
//!    │                        └────────────────────┘  │
//!    └────────────────────────────────────────────────┘
//! ```
//!
//! While something of its session is under way or before it, it is held, and its place in the record holds up
//! whatever comes after it. Where there is no place, or its time is over, it goes on *outside the order*: then
//! nobody can say any more what Laravel has of the session, and it is *unverified*.
//!
//! A caller that is not proven may be anybody. What it has at Laravel stands *beside* the claim: it holds up its own
//! caller only, and as long as it is there the session is unverified.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use super::claim::Overtaken;
use super::unsent::Covers;
use super::{
    BESIDE_MAX, BYTES_MAX, Beside, Claim, ClaimId, Decision, Dirty, ENTRIES_MAX, Ending, Entry,
    HELD_MAX, HELD_STRANGERS_MAX, HeldPlace, Item, SESSIONS_THROUGH_MAX, Session, Shard, State,
    Superseded, Trial, is_ahead,
};
use crate::config::{Ack, Route};
use crate::json;
use crate::route::{Rules, SEEN_UPDATE, Said};
use crate::sabotage::{self, Sabotage};
use crate::time::Now;
use crate::write_through::{Again, Fate, WriteThrough};

/// Of requests outside the order, the next goes when the one before it is answered, or after this, milliseconds.
const OUTSIDE_GAP_MS: u64 = 1_000;

/// How long a place is remembered after its time, milliseconds: by then its request has long gone on.
const PLACE_MEMORY_MS: u64 = 10_000;

/// How a request asks to be written through.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'b> {
    /// The update's body.
    pub body: &'b [u8],
    /// Unique in this process.
    pub number: u64,
    /// A random number of the VM.
    pub vm: u64,
    /// Its caller is not proven.
    pub is_stranger: bool,
    /// It is no update: of a request that bypasses, only the session was seen.
    pub is_seen: bool,
    /// Its worker has not too many at Laravel already.
    pub may_send: bool,
    /// Its worker has room to hold it.
    pub may_hold: bool,
    /// Callers that Laravel refuses at the moment, each behind its destination.
    pub refused: &'b [(u64, u64)],
}

/// What a session was before an update that is written through, should that never have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    newest_seq: u64,
    through_seq: u64,
    /// The item's `timestamp`, should it have to be queued one day: set aside in its order.
    timestamp_ms: u64,
}

/// How a request is at Laravel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It has the session's claim.
    Claimed,
    /// Beside the claim: its caller is not proven.
    Beside,
    /// Beside the claim, outside the order.
    Outside,
    /// The same, and there was no room to record it.
    Unrecorded,
}

/// What becomes of an update that is to be written through; but for the last two the shard must be
/// written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// It goes to Laravel.
    Begun {
        /// Its sequence.
        seq: u64,
        /// How.
        manner: Manner,
        /// What the session was before it.
        before: Before,
        /// Older ones of its session are queued: it may have to be said once more.
        is_ahead: bool,
    },
    /// It has to wait, and has a place.
    Held {
        /// Its sequence.
        seq: u64,
        /// What the session was before it.
        before: Before,
        /// The dispatcher must be told of this shard.
        ring: bool,
    },
    /// It was refused before, and something newer of its family was accepted since: the shard is as it was.
    Stale,
    /// There is no room even for the claim: nothing of the session is known, so nothing can be overtaken.
    Untracked,
}

/// What the end of an update that was written through has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThroughSettled {
    /// The dispatcher must be told of this shard.
    pub ring: bool,
    /// Routes of the items that became superfluous.
    pub superseded: Superseded,
    /// It is queued, to be said once more.
    pub queued: bool,
}

// === impl Rules ===

impl Rules {
    /// The same of a request that may be refused; 0 where the same bytes may be another delivery: it has neither time
    /// nor number of its own.
    #[inline]
    pub(crate) fn repeat_hash(&self, said: &Said, body: &[u8]) -> u64 {
        let volatile = self.route(said.route).map(|rule| &rule.volatile);
        let has_own = said.order.is_some()
            || volatile.into_iter().flatten().any(|pointer| {
                let read = json::read(body, &[pointer], &[], self.key);
                read.is_ok_and(|document| document.at(0).is_some_and(|found| !found.is_blank()))
            });
        match has_own {
            true => self.body_hash(said, body),
            false => 0,
        }
    }

    /// The hash under which a body is remembered that was refused.
    #[must_use]
    #[inline]
    pub fn body_hash(&self, said: &Said, body: &[u8]) -> u64 {
        let (caller, route) = (said.caller.to_le_bytes(), said.route.to_le_bytes());
        self.key.hash(&[&caller, &route, body]) as u64
    }
}

// === impl Shard ===

impl<'a> Shard<'a> {
    /// Takes a sequence for an update that is written through, and the session's claim or a place.
    #[inline]
    pub fn write_through(
        &mut self,
        rules: &Rules,
        said: &Said,
        ask: &Ask<'_>,
        now: Now,
    ) -> Through {
        self.prune(now.mono_ms);
        if self.session(said.session).is_none() {
            if self.sessions.len() >= SESSIONS_THROUGH_MAX {
                return Through::Untracked;
            }
            self.sessions
                .push(Session::new(said.session, self.last_seq));
        }
        let seq = self.last_seq.saturating_add(1);
        let rung = self.rung;
        if let Some(session) = self.session(said.session)
            && !ask.is_seen
            && session.is_stale_repeat(rules, said, ask.body, now.mono_ms)
        {
            return Through::Stale;
        }
        self.last_seq = seq;
        let timestamp_ms = now.wall_ms.max(self.last_wall_ms.saturating_add(1));
        // One more for the state that it may imply, where it is queued in the end.
        let implies = rules
            .route(said.route)
            .is_some_and(|r| r.implied().is_some());
        self.last_wall_ms = timestamp_ms.saturating_add(implies.into());
        let mut sessions = self.sessions.iter_mut();
        let Some(session) = sessions.find(|session| session.id == said.session) else {
            return Through::Untracked;
        };
        let mut before = Before {
            timestamp_ms,
            newest_seq: core::mem::replace(&mut session.newest_seq, seq),
            through_seq: session.through_seq,
        };
        let is_free = session.is_free(rules, said, seq, ask, now);
        if let Some(manner) = session.manner(ask).filter(|_| is_free && ask.may_send) {
            session.begin(rules, said, seq, manner, ask, &mut before, now);
            let is_ahead = session.has_older(seq);
            return Through::Begun {
                seq,
                manner,
                before,
                is_ahead,
            };
        }
        if ask.may_hold && session.hold(rules.config.hold_ms, said.caller, seq, ask, now) {
            let ring = !rung && session.hurry(seq);
            self.rung |= ring;
            return Through::Held { seq, before, ring };
        }
        let manner = session.outside(rules, said, seq, ask, &mut before, now);
        session.unverify(&mut self.last_seq);
        Through::Begun {
            seq,
            manner,
            before,
            is_ahead: true,
        }
    }

    // ## held => at Laravel
    /// Lets a held request go on, if it is its turn, or its time is over. `None` where it has to wait.
    #[inline]
    pub fn turn(
        &mut self,
        rules: &Rules,
        said: &Said,
        place: (u64, u64),
        mut before: Before,
        ask: &Ask<'_>,
        now: Now,
    ) -> Option<Through> {
        let (seq, deadline_ms) = place;
        let is_late = now.mono_ms >= deadline_ms;
        let Some(at) = self.sessions.iter().position(|s| s.id == said.session) else {
            // Whoever has emptied the store has taken the place too.
            return Some(Through::Untracked);
        };
        let session = self.sessions.get_mut(at)?;
        let is_free = session.is_free(rules, said, seq, ask, now);
        // A place whose time is over is nobody's: whatever came after it may have gone, and left no trace.
        let is_overtaken = is_late && session.newest_seq > seq;
        let manner = session.manner(ask).filter(|_| is_free && !is_overtaken);
        if manner.is_none() || !ask.may_send {
            let waits = session.held.iter().any(|other| {
                other.seq < seq && now.mono_ms < other.deadline_ms.saturating_add(OUTSIDE_GAP_MS)
            });
            let follows = session.beside.iter().any(|other| {
                other.is_outside && now.mono_ms < other.begun_ms.saturating_add(OUTSIDE_GAP_MS)
            });
            if !is_late || waits || follows {
                return None;
            }
        }
        session.held.retain(|held| held.seq != seq);
        let is_outside = manner.is_none();
        let manner = match manner {
            Some(manner) => {
                session.begin(rules, said, seq, manner, ask, &mut before, now);
                manner
            }
            None => {
                let manner = session.outside(rules, said, seq, ask, &mut before, now);
                session.unverify(&mut self.last_seq);
                manner
            }
        };
        let is_ahead = is_outside || session.has_older(seq);
        Some(Through::Begun {
            seq,
            manner,
            before,
            is_ahead,
        })
    }

    // ## held => Dirty
    /// Queues a held update in its place: its caller is proven by now. `None` where it has none, or there is no room
    /// for it: nothing has changed then.
    #[inline]
    pub fn queue_held(
        &mut self,
        rules: &'a Rules,
        said: &'a Said,
        item: &'a Again,
        (seq, before): (u64, Before),
        now: Now,
    ) -> Option<Decision> {
        let rule = rules.route(said.route)?;
        let size = self.size_hint().saturating_add(item.body.len());
        let mut sessions = self.sessions.iter_mut();
        let session = sessions.find(|session| session.id == said.session)?;
        let known = session.entry(&rule.name, said.caller);
        let is_newer = known.is_some_and(|known| known.seq > seq);
        let is_full = size > BYTES_MAX || (known.is_none() && session.entries.len() >= ENTRIES_MAX);
        // A place whose time is over is nobody's: whatever came after it may have gone.
        let is_new = is_newer || session.newest_seq <= seq;
        let is_own = |held: &HeldPlace| {
            held.seq == seq && (is_new || is_ahead(held.deadline_ms, now.mono_ms))
        };
        let at = session.held.iter().position(is_own)?;
        if is_full || rule.ack != Ack::Accept {
            return None;
        }
        session.held.remove(at);
        if !is_newer {
            if session.answers_implied(rules, rule, said, now.mono_ms) {
                return Some(Decision::Implied);
            }
            if let Some(slid) = session.answers_duplicate(rules, rule, said, now.mono_ms) {
                return Some(Decision::Duplicate { slid });
            }
            if session.has_newer(rules, rule, said, now.mono_ms) {
                return Some(Decision::Stale);
            }
        }
        let mut superseded = Superseded::new();
        let covers = Covers {
            rules,
            rule,
            members: said.members,
            body: &item.body,
        };
        let is_said_anew = session.is_said_anew(&covers, said.caller, seq);
        if is_said_anew {
            superseded.push(said.route, 1);
        }
        session.void_older(rules, rule, said, seq, now, &mut superseded);
        if !is_said_anew {
            let count = session.queue(covers, said, item, seq, before.timestamp_ms, now);
            superseded.push(said.route, count);
        }
        if !is_newer {
            let implied = rule.implied().and_then(|i| rules.route(i.route));
            let newest = implied.and_then(|rule| session.entry(&rule.name, said.caller));
            if newest.is_none_or(|newest| newest.seq < seq) {
                let said = (said, None);
                session.imply(rules, rule, said, seq, now.mono_ms, &mut superseded);
            }
            // It held up nobody else: what has gone past it is undone by it.
            if session.has_gone_past(false, said.caller, seq, now.mono_ms) {
                session.unverify(&mut self.last_seq);
            }
        }
        self.ledger.accepted = self.ledger.accepted.saturating_add(1);
        superseded.count_in(&mut self.ledger);
        let ring = !self.rung;
        self.rung = true;
        Some(Decision::Queued { ring, superseded })
    }

    // ## held => (gone)
    /// Gives a place back; `None` where it is gone already.
    #[inline]
    pub fn leave(&mut self, session: u128, seq: u64, before: Before) -> Option<()> {
        let session = self.session_mut(session)?;
        let at = session.held.iter().position(|held| held.seq == seq)?;
        session.held.remove(at);
        session.undo_newest(seq, before);
        Some(())
    }

    // ## Clean | absent => Clean
    /// Settles an update that was written through; `None` where nothing has changed.
    #[inline]
    pub fn settle_through(
        &mut self,
        rules: &'a Rules,
        through: &'a WriteThrough,
        fate: Fate,
        now: Now,
    ) -> Option<ThroughSettled> {
        let said = &through.said;
        let rule = rules.route(said.route)?;
        if fate == Fate::Accepted {
            self.adopt(said.session, said.caller);
        }
        let at = self.sessions.iter().position(|s| s.id == said.session)?;
        let session = self.sessions.get_mut(at)?;
        let stays = fate == Fate::Unknown && !sabotage::is(Sabotage::PassUnknownIsOver);
        if !session.gives_back(through, stays) {
            return None;
        }
        let seq = through.seq;
        let mut settled = ThroughSettled {
            ring: false,
            superseded: Superseded::new(),
            queued: false,
        };
        let mut says_again = false;
        let covers = Covers {
            rules,
            rule,
            members: said.members,
            body: through.item.as_ref().map_or(&[], |item| &item.body),
        };
        session.remember_refusal(through, fate, now);
        // What is at Laravel at this moment may be stored after it.
        let is_alone = session.live_claim(now.mono_ms).is_none();
        let ended = session.ended.len();
        let is_word = fate == Fate::Accepted && (!through.is_seen || said.value == SEEN_UPDATE);
        if is_word {
            let whose = Overtaken {
                own: through.is_seen,
                all: matches!(through.manner, Manner::Claimed | Manner::Beside),
            };
            let whose = (said.caller, whose);
            let ended = session.end_overtaken(rules, &rule.name, seq, whose, now);
            settled.superseded.push(said.route, ended as usize);
        }
        match fate {
            Fate::NeverHad | Fate::Refused | Fate::Failed => {
                if fate == Fate::Refused && !sabotage::is(Sabotage::KeepTheSkipped) {
                    // It may know no such session any more: what it said of that before is of no use.
                    session.kept.retain(|kept| kept.floor >= seq);
                }
                match through.manner {
                    Manner::Claimed | Manner::Beside => {
                        // It never happened: what it stood before is the newest again, even where that has left no
                        // entry.
                        session.undo_newest(seq, through.before);
                        if session.through_seq == seq {
                            session.through_seq = through.before.through_seq;
                        }
                    }
                    Manner::Outside | Manner::Unrecorded => {}
                }
            }
            Fate::Unknown => {
                session.doubt_kept(seq);
                says_again = session.is_behind_its_own(rule, said, seq) && through.item.is_some();
                // What it implies may be there or not, and is not said again with it.
                let implies = rule.implies.is_some();
                if through.manner == Manner::Unrecorded || through.is_seen || implies {
                    session.unverify(&mut self.last_seq);
                }
                // Its route has a time of its own, which nobody can ask for: what waits goes out once Laravel has
                // had the time that it takes to end what was given up.
                let is_own = through.is_seen && through.manner == Manner::Claimed;
                if let (true, Some(claim)) = (is_own, &mut session.claim) {
                    let late_ms = now.mono_ms.saturating_add(rules.config.times.late_ms);
                    claim.deadline_ms = claim.deadline_ms.min(late_ms);
                }
            }
            Fate::Accepted if through.is_seen => {
                session.unverify(&mut self.last_seq);
            }
            Fate::Accepted => {
                let place = (&*rule.name, said.caller);
                session.delivered(rules, place, seq, &mut self.last_seq, now);
                session.forget_settled(
                    rules,
                    (rule, said.caller),
                    said.text.as_deref(),
                    now.mono_ms,
                );
                session.void_older(rules, rule, said, seq, now, &mut settled.superseded);
                let others = session.is_after_others(said.caller, seq, now.mono_ms);
                says_again = matches!(through.manner, Manner::Outside | Manner::Unrecorded)
                    && others
                    && !session.has_gone_past(true, said.caller, seq, now.mono_ms)
                    && through.item.is_some()
                    && !sabotage::is(Sabotage::OutsideOnce);
                let was_last = session.newest_seq == seq;
                if !says_again {
                    // It has waited for what it does not say anew, but for what was passed over, and outside the order.
                    let in_order = matches!(through.manner, Manner::Claimed | Manner::Beside);
                    let own = (&*rule.name, said.caller, seq);
                    let heir =
                        session.supersede(own, None, &|dirty| in_order || covers.all_of(dirty));
                    settled.superseded.push(said.route, heir.count);
                    session.accept_through(rules, rule, through, now, &mut settled.superseded);
                }
                match through.manner {
                    Manner::Claimed => {}
                    // A read that began beside it may have been answered before it was stored.
                    Manner::Beside if was_last && is_alone => {
                        self.last_seq = self.last_seq.saturating_add(1);
                        session.distrust_kept(self.last_seq);
                    }
                    _ => session.unverify(&mut self.last_seq),
                }
            }
        }
        if says_again && !session.is_said_anew(&covers, said.caller, seq) {
            let Some(item) = &through.item else {
                return None;
            };
            let timestamp_ms = through.before.timestamp_ms;
            let count = session.queue(covers, said, item, seq, timestamp_ms, now);
            settled.superseded.push(said.route, count);
            settled.queued = true;
            self.ledger.accepted = self.ledger.accepted.saturating_add(1);
        } else if is_word && session.has_ended_since(ended, &settled.superseded, rules) {
            // For callers that wait for what it has superseded, or voids.
            let place = rules.place(&rule.name, said.caller);
            session.ends(rules, Item { place, seq }, Ending::Delivered, now);
        }
        settled.superseded.count_in(&mut self.ledger);
        // Whatever waited for its end need not wait for the dispatcher's next look.
        settled.ring = !self.rung && session.next_due().is_some() && !stays;
        self.rung |= settled.ring;
        Some(settled)
    }

    /// Nobody knows any more what Laravel has of this session. False where nothing is known of it anyway.
    #[inline]
    pub fn unverify(&mut self, session: u128) -> bool {
        let Some(at) = self.sessions.iter().position(|s| s.id == session) else {
            return false;
        };
        let Some(session) = self.sessions.get_mut(at) else {
            return false;
        };
        session.unverify(&mut self.last_seq);
        true
    }
}

// === impl Session ===

impl<'a> Session<'a> {
    // ## Clean | absent | Dirty => Dirty
    /// Queues what was held, or went outside the order, with the sequence that it has. Gives how many it supersedes.
    #[inline]
    fn queue(
        &mut self,
        covers: Covers<'a>,
        said: &'a Said,
        item: &'a Again,
        seq: u64,
        timestamp_ms: u64,
        now: Now,
    ) -> usize {
        let rule = covers.rule;
        let own = (&*rule.name, said.caller, seq);
        self.forget_settled(
            covers.rules,
            (rule, said.caller),
            said.text.as_deref(),
            now.mono_ms,
        );
        let heir = self.supersede(own, None, &|dirty| covers.all_of(dirty));
        self.put(Entry {
            route: Cow::Borrowed(&rule.name),
            caller: said.caller,
            seq,
            value: said.value,
            word: said.word,
            accepted_ms: now.mono_ms,
            order: said.order,
            text: said.text.as_deref().map(Cow::Borrowed),
            state: State::Dirty(Dirty {
                since_ms: now.mono_ms,
                timestamp_ms,
                attempts: 0,
                trial: Trial::default(),
                priority: said.priority,
                destination: Cow::Borrowed(&item.destination),
                neutral: Cow::Borrowed(&item.neutral),
                members: said.members,
                body: Cow::Borrowed(&item.body),
            }),
        });
        heir.count
    }

    // ## unverified
    //
    // What was accepted up to now answers no duplicate, and no read from before now is served; what is accepted
    // from now on does.
    #[inline]
    pub(super) fn unverify(&mut self, last_seq: &mut u64) {
        if sabotage::is(Sabotage::NeverUnverify) {
            return;
        }
        *last_seq = last_seq.saturating_add(1);
        self.newest_seq = *last_seq;
        self.through_seq = *last_seq;
        self.distrust_kept(*last_seq);
    }

    /// Whether nobody knows what Laravel has: somebody may be changing it at this moment.
    #[inline]
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.beside.is_empty() && !sabotage::is(Sabotage::NeverUnverify)
    }

    /// Whether a held request after this sequence will say something else.
    #[inline]
    pub(super) fn is_outdated_by_a_place(&self, caller: u64, seq: u64, mono_ms: u64) -> bool {
        let mut held = self.held.iter();
        held.any(|place| place.seq > seq && place.holds_up(caller, mono_ms))
    }

    /// Until when something that is held, or at Laravel beside the claim, holds up this caller's update. Monotonic.
    #[must_use]
    #[inline]
    pub fn held_up_until(&self, caller: u64, seq: u64, mono_ms: u64) -> Option<u64> {
        if sabotage::is(Sabotage::ClaimPastPlaces) {
            return None;
        }
        let places = self.held.iter();
        let places = places.filter(|p| p.seq < seq && p.holds_up(caller, mono_ms));
        let beside = self.beside.iter();
        let beside = beside.filter(|beside| beside.holds_up(caller, mono_ms));
        let places = places.map(|place| place.deadline_ms);
        places.chain(beside.map(|beside| beside.deadline_ms)).max()
    }

    /// What keeps the session's next update from being claimed: a claim, or whoever goes before it; with a name for
    /// each, and until when. Monotonic.
    #[must_use]
    #[inline]
    pub fn under_way(&self, mono_ms: u64) -> Option<(ClaimId, u64)> {
        if let Some(claim) = self.live_claim(mono_ms) {
            return Some((claim.id, claim.deadline_ms));
        }
        let due = self.next_due()?;
        let until_ms = self.held_up_until(due.caller, due.seq, mono_ms)?;
        let id = ClaimId {
            epoch: ClaimId::WRITE_THROUGH,
            counter: due.seq,
        };
        Some((id, until_ms))
    }

    /// Whether nothing of the session is under way, and nothing is before this update but what it supersedes.
    #[inline]
    fn is_free(&self, rules: &Rules, said: &Said, seq: u64, ask: &Ask<'_>, now: Now) -> bool {
        let mono_ms = now.mono_ms;
        let Some(rule) = rules.route(said.route) else {
            return false;
        };
        let waits = |entry: &Entry<'_>| match &entry.state {
            State::Dirty(dirty) => {
                let whose = (said.destination_hash, entry.caller);
                let is_refused = entry.caller != said.caller && ask.refused.contains(&whose);
                let holds_up = dirty.trial.holds_up(entry.caller, said.caller, &[]);
                entry.seq < seq && holds_up && !is_refused
            }
            _ => false,
        };
        let covers = Covers {
            rules,
            rule,
            members: said.members,
            body: ask.body,
        };
        let says_anew = |entry: &Entry<'_>| match &entry.state {
            State::Dirty(dirty) => {
                !ask.is_seen && entry.is(&rule.name, said.caller) && covers.all_of(dirty)
            }
            State::Clean { .. } | State::Implied { .. } => false,
        };
        let mut entries = self.entries.iter();
        let only_older = entries.all(|entry| !waits(entry) || says_anew(entry));
        self.live_claim(mono_ms).is_none()
            && (only_older || sabotage::is(Sabotage::PassOverQueued))
            && self.held_up_until(said.caller, seq, mono_ms).is_none()
    }

    /// How a request whose turn it is goes on; `None` where there is no room to record it.
    #[inline]
    fn manner(&self, ask: &Ask<'_>) -> Option<Manner> {
        match ask.is_stranger && !sabotage::is(Sabotage::StrangersClaim) {
            false => Some(Manner::Claimed),
            true => (self.beside.len() < BESIDE_MAX).then_some(Manner::Beside),
        }
    }

    // ## (new) | held => at Laravel
    #[expect(clippy::too_many_arguments, reason = "each of them is another's")]
    #[inline]
    fn begin(
        &mut self,
        rules: &Rules,
        said: &Said,
        seq: u64,
        manner: Manner,
        ask: &Ask<'_>,
        before: &mut Before,
        now: Now,
    ) {
        before.through_seq = self.through_seq;
        self.through_seq = self.through_seq.max(seq);
        let deadline_ms = now.mono_ms.saturating_add(rules.config.claim_ms());
        if manner == Manner::Claimed {
            let name = rules.route(said.route).map(|rule| rule.name.clone());
            self.claim = Some(Claim {
                id: ClaimId {
                    epoch: ClaimId::WRITE_THROUGH,
                    counter: ask.number,
                },
                route: Cow::Owned(name.unwrap_or_default()),
                caller: said.caller,
                seq,
                deadline_ms,
            });
            return;
        }
        self.distrust_kept(seq);
        self.beside.push(Beside {
            number: ask.number,
            caller: said.caller,
            seq,
            is_outside: manner == Manner::Outside,
            begun_ms: now.mono_ms,
            deadline_ms,
        });
    }

    // ## (new) | held => at Laravel, outside the order
    #[inline]
    fn outside(
        &mut self,
        rules: &Rules,
        said: &Said,
        seq: u64,
        ask: &Ask<'_>,
        before: &mut Before,
        now: Now,
    ) -> Manner {
        if self.beside.len() >= BESIDE_MAX {
            return Manner::Unrecorded;
        }
        self.begin(rules, said, seq, Manner::Outside, ask, before, now);
        Manner::Outside
    }

    // ## (new) => held
    #[inline]
    fn hold(&mut self, hold_ms: u64, caller: u64, seq: u64, ask: &Ask<'_>, now: Now) -> bool {
        let strangers = self.held.iter().filter(|place| place.is_stranger).count();
        let room = hold_ms > 0
            && self.held.len() < HELD_MAX
            && !(ask.is_stranger && strangers >= HELD_STRANGERS_MAX);
        if room && !sabotage::is(Sabotage::HoldWithoutPlace) {
            self.held.push(HeldPlace {
                seq,
                vm: ask.vm,
                caller,
                is_stranger: ask.is_stranger,
                deadline_ms: match sabotage::is(Sabotage::PlaceWithoutEnd) {
                    true => u64::MAX,
                    false => now.mono_ms.saturating_add(hold_ms),
                },
            });
        }
        room
    }

    /// What is queued before a held request goes at once. True where there is something.
    #[inline]
    fn hurry(&mut self, seq: u64) -> bool {
        let mut any = false;
        for entry in &mut self.entries {
            if let State::Dirty(dirty) = &mut entry.state
                && entry.seq < seq
            {
                dirty.priority = true;
                any = true;
            }
        }
        any
    }

    #[inline]
    fn has_older(&self, seq: u64) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| entry.is_dirty() && entry.seq < seq)
    }

    /// Whether an older value of the same route and caller is still unsent.
    #[inline]
    fn is_behind_its_own(&self, rule: &Route, said: &Said, seq: u64) -> bool {
        let mut own = self.entries_of(&rule.name, said.caller);
        own.any(|entry| entry.is_dirty() && entry.seq < seq)
    }

    /// Whether a newer one of the same route and caller was sent, or says all of it anew.
    #[inline]
    fn is_said_anew(&self, it: &Covers<'_>, caller: u64, seq: u64) -> bool {
        let own = self.entries_of(&it.rule.name, caller);
        let mut newer = own.filter(|entry| entry.seq > seq);
        newer.any(|entry| match &entry.state {
            State::Dirty(dirty) => it.is_covered_by(dirty),
            State::Clean { .. } | State::Implied { .. } => true,
        })
    }

    /// Whether others of this caller are to be said, or are being said, that are older.
    #[inline]
    fn is_after_others(&self, caller: u64, seq: u64, mono_ms: u64) -> bool {
        let queued = self.entries.iter();
        let mut queued = queued.filter(|entry| entry.is_dirty() && entry.seq < seq);
        let mut held = self.held.iter();
        let claim = self.live_claim(mono_ms);
        queued.any(|entry| entry.caller == caller)
            || held.any(|p| p.seq < seq && p.caller == caller && p.holds_up(caller, mono_ms))
            || claim.is_some_and(|claim| claim.seq < seq && claim.caller == caller)
    }

    /// Whether a newer update is at Laravel, or was taken: this caller's own, or another's.
    #[inline]
    fn has_gone_past(&self, is_own: bool, caller: u64, seq: u64, mono_ms: u64) -> bool {
        let is_past = |at: u64, whose: u64| at > seq && (whose == caller) == is_own;
        let is_taken = |state: &State<'_>| matches!(state, State::Clean { until_ms: 1.. });
        let mut taken = self.entries.iter().filter(|entry| is_taken(&entry.state));
        let claim = self.live_claim(mono_ms);
        taken.any(|entry| is_past(entry.seq, entry.caller))
            || claim.is_some_and(|claim| is_past(claim.seq, claim.caller))
    }

    /// Whether anybody may be waiting for what was ended since there were so many endings.
    #[inline]
    fn has_ended_since(&self, ended: usize, superseded: &Superseded, rules: &Rules) -> bool {
        let any = self.ended.len() != ended || superseded.ends().next().is_some();
        rules.config.holds_callers() && any
    }

    #[inline]
    fn undo_newest(&mut self, seq: u64, before: Before) {
        if self.newest_seq == seq {
            self.newest_seq = before.newest_seq;
        }
    }

    /// Takes back what a request had of the record while it was at Laravel, unless it stays; false where that is no
    /// longer its own.
    #[inline]
    fn gives_back(&mut self, through: &WriteThrough, stays: bool) -> bool {
        let number = through.number;
        match through.manner {
            Manner::Claimed => {
                let id = ClaimId {
                    epoch: ClaimId::WRITE_THROUGH,
                    counter: number,
                };
                if self.claim.as_ref().is_none_or(|claim| claim.id != id) {
                    return false;
                }
                if !stays {
                    self.claim = None;
                }
                true
            }
            Manner::Beside | Manner::Outside => {
                let mut beside = self.beside.iter();
                let Some(at) = beside.position(|beside| beside.number == number) else {
                    return false;
                };
                if !stays {
                    self.beside.remove(at);
                }
                true
            }
            Manner::Unrecorded => true,
        }
    }

    /// Laravel has this value now, and what it implies.
    #[inline]
    fn accept_through(
        &mut self,
        rules: &'a Rules,
        rule: &'a Route,
        through: &'a WriteThrough,
        now: Now,
        superseded: &mut Superseded,
    ) {
        let said = &through.said;
        // A caller that is new in each request leaves nothing behind where there is little room.
        let is_known = self.entry(&rule.name, said.caller).is_some();
        if through.manner == Manner::Beside && !is_known && self.entries.len() >= ENTRIES_MAX / 2 {
            return;
        }
        let until_ms = now.mono_ms.saturating_add(rules.config.dedup.ttl_ms);
        let clean = |route: &'a str, (value, word), text, order| Entry {
            route: Cow::Borrowed(route),
            caller: said.caller,
            seq: through.seq,
            value,
            word,
            accepted_ms: now.mono_ms,
            order,
            text,
            state: State::Clean { until_ms },
        };
        let text = said.text.as_deref().map(Cow::Borrowed);
        let hashes = (said.value, said.word);
        self.replace_older(clean(&rule.name, hashes, text, said.order));
        let implied = rule.implied();
        let implied = implied.and_then(|implies| Some((implies, rules.route(implies.route)?)));
        if let Some((implies, target)) = implied {
            let word = rules.word_hash(&implies.value);
            let text = target.is_shown.then(|| Cow::Borrowed(&*implies.value));
            let own = (&*target.name, said.caller, through.seq);
            let says_it = |dirty: &Dirty<'_>| rules.is_bare(target, implies, dirty.members);
            let heir = self.supersede(own, None, &says_it);
            superseded.push(implies.route, heir.count);
            self.replace_older(clean(&target.name, (0, word), text, None));
        }
        // Behind all that it says: what that has taken the place of settles from here on.
        self.settles_by(rule, (said.caller, through.seq), now.mono_ms);
    }

    /// Puts `entry` in the place of its predecessor, unless that is newer.
    #[inline]
    fn replace_older(&mut self, entry: Entry<'a>) {
        let known = self.entry(&entry.route, entry.caller);
        if known.is_none_or(|known| known.seq < entry.seq) {
            self.put(entry);
        }
    }

    /// A delivered value of a voided route is news again, and an unsent one has no meaning any more.
    #[inline]
    fn void_older(
        &mut self,
        rules: &Rules,
        rule: &Route,
        said: &Said,
        seq: u64,
        now: Now,
        superseded: &mut Superseded,
    ) {
        let Some(voids) = rule.voids.as_ref().filter(|_| said.voids) else {
            return;
        };
        let how = Ending::Voided(Item {
            place: rules.place(&rule.name, said.caller),
            seq,
        });
        let routes = voids.routes.iter().copied();
        let routes: Vec<(usize, String)> = routes
            .filter_map(|index| Some((index, rules.route(index)?.name.clone())))
            .collect();
        let index_of = |entry: &Entry<'_>| {
            let mut routes = routes.iter().filter(|_| entry.seq < seq);
            routes
                .find(|(_, name)| *name == *entry.route && entry.is_void_to(said.caller))
                .map(|r| r.0)
        };
        self.entries_end(rules, how, now, &|entry| {
            entry.is_dirty() && index_of(entry).is_some()
        });
        let gone = self.entries.iter().filter(|e| index_of(e).is_some());
        let gone: Vec<_> = gone.map(|e| (e.seq, e.text.is_some())).collect();
        let dirty = self.entries.iter().filter(|entry| entry.is_dirty());
        dirty
            .filter_map(index_of)
            .for_each(|route| superseded.void(route));
        self.entries.retain(|entry| index_of(entry).is_none());
        let seqs: Vec<u64> = gone.iter().map(|(seq, _)| *seq).collect();
        self.drop_implied(rules, &seqs, how, now);
        if let Some(seq) = seqs.into_iter().max() {
            self.forgets(seq, gone.iter().any(|(_, shown)| *shown));
        }
    }

    /// Whether this body was refused, and something newer of its family was accepted since.
    #[inline]
    pub(super) fn is_stale_repeat(
        &self,
        rules: &Rules,
        said: &Said,
        body: &[u8],
        mono_ms: u64,
    ) -> bool {
        if self.refused.is_empty() || sabotage::is(Sabotage::QueueStaleRepeats) {
            return false;
        }
        let Some(rule) = rules.route(said.route) else {
            return false;
        };
        let body = rules.body_hash(said, body);
        let mut refused = self.refused.iter();
        let refused = refused.find(|refused| refused.body == body && mono_ms < refused.until_ms);
        refused.is_some_and(|refused| {
            let mut entries = self.entries.iter();
            entries.any(|entry| entry.seq > refused.seq && rules.is_kin(rule, &entry.route))
        })
    }

    // Only of what tells one delivery from the next: without that, the same bytes may be news.
    #[inline]
    fn remember_refusal(&mut self, through: &WriteThrough, fate: Fate, now: Now) {
        self.refused.retain(|refused| refused.body != through.body);
        let was_refused = match fate {
            Fate::Failed | Fate::NeverHad | Fate::Unknown => true,
            Fate::Accepted | Fate::Refused => false,
        };
        if !was_refused || through.body == 0 {
            return;
        }
        if self.refused.len() >= super::REFUSED_MAX {
            self.refused.remove(0);
        }
        self.refused.push(super::RefusedBody {
            body: through.body,
            seq: through.seq,
            until_ms: now.mono_ms.saturating_add(super::REFUSED_MS),
        });
    }

    /// Forgets places whose requests have long gone on, and refused bodies whose time is over.
    #[inline]
    pub(super) fn forget_places(&mut self, mono_ms: u64) {
        self.held.retain(|place| {
            let until_ms = place.deadline_ms.saturating_add(PLACE_MEMORY_MS);
            is_ahead(until_ms, mono_ms) || sabotage::is(Sabotage::PlaceWithoutEnd)
        });
        self.refused
            .retain(|refused| is_ahead(refused.until_ms, mono_ms));
    }

    /// Forgets requests that nobody will answer for any more. True where that leaves the session unverified.
    #[inline]
    pub(super) fn forget_lost(&mut self, mono_ms: u64) -> bool {
        let is_lost = |claim: &&Claim<'_>| claim.id.epoch == ClaimId::WRITE_THROUGH;
        let lost =
            self.claim.as_ref().filter(is_lost).is_some() && self.live_claim(mono_ms).is_none();
        if lost {
            self.claim = None;
        }
        let before = self.beside.len();
        self.beside.retain(|beside| beside.is_live(mono_ms));
        lost || self.beside.len() < before
    }
}

// === impl HeldPlace ===

impl HeldPlace {
    /// Whether it holds up this caller's updates: its time is not over, and its caller is proven or the same.
    #[inline]
    fn holds_up(&self, caller: u64, mono_ms: u64) -> bool {
        let is_live =
            is_ahead(self.deadline_ms, mono_ms) || sabotage::is(Sabotage::PlaceWithoutEnd);
        is_live && (!self.is_stranger || self.caller == caller)
    }
}

// === impl Beside ===

impl Beside {
    #[inline]
    fn is_live(&self, mono_ms: u64) -> bool {
        is_ahead(self.deadline_ms, mono_ms)
    }

    #[inline]
    fn holds_up(&self, caller: u64, mono_ms: u64) -> bool {
        !self.is_outside && self.caller == caller && self.is_live(mono_ms)
    }
}
