//! The request path: offer an update to its shard, and say what to answer.
//!
//! For a duplicate this is one get; for a new value one get and one put, and as many more as there are
//! lost races. It never talks to Laravel, and it never waits: where a caller has to, it says for what
//! ([`crate::ack`]).

use crate::ack::Wait;
use crate::circuit;
use crate::hold::Holding;
use crate::proof::{Standing, Subject};
use crate::route::{BODY_BYTES_MAX, Bypass, Bypassed, Encoded, Neutral, Rules, Said, Update};
use crate::sabotage::{self, Sabotage};
use crate::shard::{Ask, BYTES_MAX, BYTES_SHARE_MAX, Decision, Shard, Superseded};
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};
use crate::time::Now;
use crate::write_through::{self, Attempt, Held, WriteThrough};

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Accepted: it is in the store.
    Queued,
    /// Laravel has it, or will.
    Duplicate,
    /// Laravel learns it from the QR.
    Implied,
    /// The sender itself has said something newer.
    Stale,
    /// The store cannot be written, and something of the session waits: 503 with `retry-after`. Nothing was accepted.
    Busy,
    /// Not ours to answer: the request goes on to Laravel.
    Bypass(Bypass),
    /// The same, with the session's claim: its answer must be given to [`write_through::end`].
    WriteThrough(Bypass),
    /// The same, outside the order.
    Outside(Bypass),
    /// The same, once it is its turn: it must be held.
    Held(Bypass),
}

/// What a worker knows of Laravel. It may be a tick old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The circuit breaker.
    pub circuit: circuit::State,
    /// The update's caller and route: see [`crate::proof::Proofs::standing`].
    pub standing: Standing,
}

/// What a worker knows when a request comes.
#[derive(Clone, Copy, Debug)]
pub struct Worker<'w> {
    /// Unique in this process: it names the claim of an update that is written through.
    pub number: u64,
    /// A random number of the VM.
    pub vm: u64,
    /// It need not wait for another to prove its caller.
    pub may_send: bool,
    /// What it knows of Laravel.
    pub view: View,
    /// What it holds.
    pub holding: &'w Holding,
}

/// What an offer led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What to answer.
    pub reply: Reply,
    /// The shard of which the dispatcher must be told.
    pub ring: Option<u32>,
    /// Routes of the items that became superfluous, to be counted.
    pub superseded: Superseded,
    /// What the answer to [`Reply::WriteThrough`] has to settle.
    pub through: Option<WriteThrough>,
    /// The place of [`Reply::Held`], and whether its caller is not proven.
    pub place: Option<(Held, bool)>,
    /// It is no update: of a request that bypasses, only the session was seen.
    pub is_seen: bool,
    /// What the caller has to wait for, before it is answered.
    pub wait: Option<Wait>,
}

/// Offers `update` to the store.
pub fn take_in(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    update: &Update<'_>,
    worker: &Worker<'_>,
    now: Now,
) -> Taken {
    let through = |store: &mut _, reason| {
        write_through(store, keys, rules, update, (reason, false), worker, now)
    };
    match worker.view.standing {
        Standing::Proven => {}
        Standing::Unproven => return through(store, Bypass::Unproven),
        Standing::Outage => return through(store, Bypass::Outage),
    }
    let index = rules.shard_of(update.session);
    let key = keys.shard(index);
    if worker.view.circuit == circuit::State::Misconfigured && !has_queued(store, &key, update) {
        return through(store, Bypass::Misconfigured);
    }
    if sabotage::is(Sabotage::DedupBySet) && sabotage::was_seen(update.session ^ update.value) {
        return Taken::of(Reply::Duplicate);
    }
    for _ in 0..CAS_ATTEMPTS_MAX {
        let read = store.get(&key);
        let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
        let Ok(mut shard) = Shard::decode(bytes) else {
            return Taken::of(Reply::Bypass(Bypass::Store));
        };
        if shard.is_orphan(update.session, update.caller, now.mono_ms) {
            return through(store, Bypass::Orphan);
        }
        let decision = shard.offer(rules, update, now);
        let wait = Wait::of(rules, &shard, update, now.mono_ms);
        let (taken, must_fit) = match decision {
            Decision::Duplicate { slid: false } => return Taken::after(wait, Reply::Duplicate),
            Decision::Implied => return Taken::after(wait, Reply::Implied),
            Decision::Stale => return Taken::of(Reply::Stale),
            Decision::Full => return through(store, Bypass::ShardFull),
            Decision::Duplicate { slid: true } => (Taken::after(wait, Reply::Duplicate), false),
            Decision::Queued { ring, superseded } => {
                let taken = Taken {
                    ring: ring.then_some(index),
                    superseded,
                    ..Taken::after(wait, Reply::Queued)
                };
                (taken, true)
            }
        };
        let encoded = shard.encode();
        let is_too_much = || {
            encoded.len() > BYTES_MAX
                || (encoded.len() > BYTES_SHARE_MAX
                    && shard.bytes_of(update.caller) > BYTES_SHARE_MAX)
        };
        let had_pending = || {
            let before = Shard::decode(bytes).unwrap_or_default();
            before.has_pending(update.session, update.caller, now.mono_ms)
        };
        // A session with something pending keeps its place whatever it costs: writing it through would
        // let a newer value overtake the pending one. Another credential has no place to keep there; it is
        // busy as long as there is something to overtake.
        if must_fit && is_too_much() && !had_pending() {
            return through(store, Bypass::ShardFull);
        }
        match store.put(&key, &encoded, Expect::of(read.as_ref())) {
            Ok(()) => {
                #[cfg(feature = "sabotage")]
                void_late(store, &key, rules, update, now);
                return taken;
            }
            Err(PutError::Mismatch) if sabotage::is(Sabotage::AnswerBeforeStored) => return taken,
            Err(PutError::Mismatch) => {}
            Err(PutError::Refused) => break,
        }
    }
    match is_waiting(store, &key, update, now) {
        true => Taken::of(Reply::Busy),
        false => Taken::of(Reply::Bypass(Bypass::Store)),
    }
}

/// Writes `update` through for this reason. `is_seen`: it is none, and of a request that bypasses only the session was
/// seen.
fn write_through(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    update: &Update<'_>,
    (reason, is_seen): (Bypass, bool),
    worker: &Worker<'_>,
    now: Now,
) -> Taken {
    let is_stranger = worker.view.standing == Standing::Unproven;
    let bytes = update.body.len();
    let ask = Ask {
        body: update.body,
        number: worker.number,
        vm: worker.vm,
        is_stranger,
        is_seen,
        may_send: worker.may_send && worker.holding.may_send(),
        may_hold: bytes <= BODY_BYTES_MAX && worker.holding.may_hold(bytes, is_stranger),
        refused: worker.holding.refused(),
    };
    match write_through::begin(store, keys, rules, update, &ask, now) {
        Attempt::Begun(through) => {
            let reply = match through.is_outside() {
                true => Reply::Outside(reason),
                false => Reply::WriteThrough(reason),
            };
            Taken {
                through: Some(through),
                ..Taken::of(reply)
            }
        }
        Attempt::Held(held) => Taken {
            ring: held.ring.then(|| rules.shard_of(update.session)),
            place: Some((held, is_stranger)),
            ..Taken::of(Reply::Held(reason))
        },
        Attempt::Stale => Taken::of(Reply::Stale),
        Attempt::Busy => Taken::of(Reply::Busy),
        Attempt::Untracked => Taken::of(Reply::Bypass(reason)),
    }
}

/// Takes a request that bypasses, of which only the session was seen. Where nothing is known of that, it goes at once;
/// otherwise it keeps its place in its order, and what is known of it may be wrong afterwards.
pub fn take_seen<'w>(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    bypassed: &Bypassed,
    body: &[u8],
    worker: impl FnOnce(&Subject) -> Worker<'w>,
    now: Now,
) -> Taken {
    let known = bypassed.seen.filter(|seen| {
        let read = store.get(&keys.shard(rules.shard_of(seen.session)));
        let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
        Shard::decode(bytes).is_ok_and(|shard| shard.is_known(seen.session, now.mono_ms))
    });
    let Some(seen) = known else {
        return Taken::of(Reply::Bypass(bypassed.reason));
    };
    let update = Update {
        said: Said::of_seen(&seen, bypassed.reason, body, rules),
        destination: Encoded::default(),
        neutral: Neutral::default(),
        body,
        implied: None,
    };
    let worker = worker(&update.subject);
    let reason = (bypassed.reason, true);
    Taken {
        is_seen: true,
        ..write_through(store, keys, rules, &update, reason, &worker, now)
    }
}

/// Whether something of the session waits, or may be under way.
fn is_waiting(store: &impl Store, key: &str, update: &Update<'_>, now: Now) -> bool {
    let read = store.get(key);
    let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
    let shard = Shard::decode(bytes).unwrap_or_default();
    shard.is_waiting(update.session, now.mono_ms)
}

/// Whether something of the session waits already: then so must this.
fn has_queued(store: &impl Store, key: &str, update: &Update<'_>) -> bool {
    let read = store.get(key);
    let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
    let shard = Shard::decode(bytes).unwrap_or_default();
    let session = shard.session(update.session);
    session.is_some_and(|session| session.next_due().is_some())
}

/// For [`Sabotage::VoidLater`].
#[cfg(feature = "sabotage")]
fn void_late(store: &mut impl Store, key: &str, rules: &Rules, update: &Update<'_>, now: Now) {
    let read = store.get(key);
    let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
    if let (true, Ok(mut shard)) = (sabotage::is(Sabotage::VoidLater), Shard::decode(bytes)) {
        shard.void_late(rules, update, now);
        let _ = store.put(key, &shard.encode(), Expect::of(read.as_ref()));
    }
}

// === impl View ===

/// Laravel is well, and has accepted whoever comes.
impl Default for View {
    fn default() -> Self {
        Self {
            circuit: circuit::State::Closed,
            standing: Standing::Proven,
        }
    }
}

// === impl Taken ===

impl Taken {
    /// Whether the request goes to Laravel under its session's claim, now or once it is its turn.
    #[must_use]
    pub fn is_through(&self) -> bool {
        self.through.is_some() || self.place.is_some()
    }

    fn of(reply: Reply) -> Self {
        Self::after(None, reply)
    }

    fn after(wait: Option<Wait>, reply: Reply) -> Self {
        Self {
            reply,
            ring: None,
            superseded: Superseded::new(),
            through: None,
            place: None,
            is_seen: false,
            wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use super::*;
    use crate::route::tests::rules;
    use crate::route::{BODY_BYTES_MAX, Destination};
    use crate::shard::{SESSIONS_MAX, SESSIONS_SHARE_MAX, SESSIONS_THROUGH_MAX};
    use crate::store::MemoryStore;

    /// One shard, and whoever comes is proven.
    struct Intake {
        rules: Rules,
        store: MemoryStore,
        keys: Keys,
        number: u64,
    }

    impl Intake {
        fn new() -> Self {
            Self {
                rules: rules(r#"{"max_sessions":8,"assume":{"callers":true}}"#),
                store: MemoryStore::default(),
                keys: Keys::new("p"),
                number: 0,
            }
        }

        /// What a QR of this many bytes in all is answered.
        fn offer(&mut self, caller: &str, session: &str, bytes: usize) -> Reply {
            self.number += 1;
            let begin = format!(r#"{{"session_id":"{session}","qr":"{}"#, self.number);
            let fill = "x".repeat(bytes.saturating_sub(begin.len() + 2));
            let body = format!(r#"{begin}{fill}"}}"#);
            let destination = Destination {
                headers: [("x-api-key".into(), caller.to_string())].into(),
                ..Destination::default()
            };
            let head = self.rules.head_to(0, destination);
            let update = self.rules.update(&head, body.as_bytes()).unwrap();
            let now = Now {
                mono_ms: 1,
                wall_ms: 1,
            };
            let taken = take_in(
                &mut self.store,
                &self.keys,
                &self.rules,
                &update,
                &Worker {
                    number: self.number,
                    vm: 1,
                    may_send: true,
                    view: View::default(),
                    holding: &Holding::default(),
                },
                now,
            );
            taken.reply
        }

        fn bytes(&self) -> usize {
            let (bytes, _) = self.store.get(&self.keys.shard(0)).unwrap();
            bytes.len()
        }

        /// How many sessions of a caller are queued before one is not, and what that one is answered.
        fn fill(&mut self, caller: &str, bytes: usize) -> (usize, Reply) {
            let mut n = 0;
            loop {
                match self.offer(caller, &format!("{caller}-{n}"), bytes) {
                    Reply::Queued => n += 1,
                    reply => return (n, reply),
                }
            }
        }
    }

    const FULL: Reply = Reply::WriteThrough(Bypass::ShardFull);

    #[test]
    fn a_shards_sessions_are_shared_out_and_counted_to_the_last() {
        let mut it = Intake::new();
        assert_eq!(it.fill("one", 100), (SESSIONS_SHARE_MAX, FULL));
        // The one that is written through holds a place too: that of its claim.
        let left = SESSIONS_MAX - SESSIONS_SHARE_MAX - 1;
        assert_eq!(it.fill("two", 100), (left, FULL));
        for n in SESSIONS_MAX + 1..SESSIONS_THROUGH_MAX {
            let reply = it.offer("three", &format!("three-{n}"), 100);
            assert_eq!(reply, FULL, "the {n}th has a place for its claim");
        }
        let reply = it.offer("three", "three-last", 100);
        assert_eq!(
            reply,
            Reply::Bypass(Bypass::ShardFull),
            "beyond every place"
        );
        assert_eq!(
            it.offer("one", "one-0", 100),
            Reply::Queued,
            "what is pending keeps its place"
        );
    }

    #[test]
    fn a_shards_bytes_are_shared_out_and_counted_to_the_last() {
        let mut it = Intake::new();
        let a_third = BYTES_SHARE_MAX / 3;
        assert!(a_third <= BODY_BYTES_MAX);
        // Beside its body an item holds where it goes: three times a third is too much.
        assert_eq!(it.fill("one", a_third), (2, FULL));
        assert!(it.bytes() < BYTES_SHARE_MAX);
        assert_eq!(it.offer("one", "one-more", a_third - 1_000), Reply::Queued);
        assert_eq!(it.offer("two", "two-0", 10_000), Reply::Queued);
        let room = BYTES_MAX - it.bytes();
        assert_eq!(it.offer("two", "two-1", room), FULL);
        assert_eq!(it.offer("two", "two-2", room - 1_000), Reply::Queued);
        assert!(it.bytes() <= BYTES_MAX, "{}", it.bytes());
    }

    #[test]
    fn in_a_full_shard_only_what_is_pending_grows_and_never_by_another_credential() {
        let mut it = Intake::new();
        for caller in ["one", "two", "three", "four"] {
            it.fill(caller, BYTES_MAX / 5);
        }
        let before = it.bytes();
        for caller in 0..100 {
            let reply = it.offer(&format!("token-{caller}"), "one-0", BODY_BYTES_MAX);
            let waits = matches!(reply, Reply::Held(_) | Reply::Outside(_));
            assert!(waits, "an older update of it is pending: {reply:?}");
        }
        let places = 16 * 64;
        assert!(it.bytes() <= before + places, "{}", it.bytes());
        assert_eq!(it.offer("one", "one-0", BODY_BYTES_MAX), Reply::Queued);
    }
}
