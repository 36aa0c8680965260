//! The request path: offer an update to its shard, and say what to answer.
//!
//! For a duplicate this is one get; for a new value one get and one put, and as many more as there are
//! lost races. It never talks to Laravel, and it never waits.

use crate::circuit;
use crate::passing::{self, Attempt, Pass};
use crate::route::{Bypass, Rules, Update};
use crate::sabotage::{self, Sabotage};
use crate::shard::{BYTES_MAX, BYTES_SHARE_MAX, Decision, Shard, Superseded};
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};
use crate::time::Now;
use crate::trust;

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
    /// Lost every race: 503 with `retry-after`. Nothing was accepted.
    Busy,
    /// Not ours to answer: the request goes on to Laravel.
    Pass(Bypass),
    /// The same, with the session's claim: its answer must be given to [`passing::end`].
    Passing(Bypass),
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
    /// What the answer to [`Reply::Passing`] has to settle.
    pub pass: Option<Pass>,
}

/// Offers `update` to the store. `number` is unique in this process: it names the claim of an update that
/// has to pass. `circuit` may be a tick old.
pub fn take_in(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    update: &Update<'_>,
    number: u64,
    circuit: circuit::State,
    now: Now,
) -> Taken {
    let pass = |store: &mut _, reason| match passing::begin(store, keys, rules, update, number, now)
    {
        Attempt::Passing(pass) => Taken {
            pass: Some(pass),
            ..Taken::of(Reply::Passing(reason))
        },
        Attempt::Busy => Taken::of(Reply::Busy),
        Attempt::Untracked => Taken::of(Reply::Pass(reason)),
    };
    if !trust::holds(store, keys, rules, update.mark, update.credential, now) {
        return pass(store, Bypass::Credential);
    }
    let index = rules.shard_of(update.session);
    let key = keys.shard(index);
    if circuit == circuit::State::Misconfigured && !has_queued(store, &key, update) {
        return pass(store, Bypass::Misconfigured);
    }
    if sabotage::is(Sabotage::DedupBySet) && sabotage::was_seen(update.session ^ update.value) {
        return Taken::of(Reply::Duplicate);
    }
    for _ in 0..CAS_ATTEMPTS_MAX {
        let read = store.get(&key);
        let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
        let Ok(mut shard) = Shard::decode(bytes) else {
            return Taken::of(Reply::Pass(Bypass::Store));
        };
        let had_pending = shard.has_pending(update.session, update.credential, now.mono_ms);
        let (taken, must_fit) = match shard.offer(rules, update, now) {
            Decision::Duplicate { slid: false } => return Taken::of(Reply::Duplicate),
            Decision::Implied => return Taken::of(Reply::Implied),
            Decision::Stale => return Taken::of(Reply::Stale),
            Decision::Full => return pass(store, Bypass::ShardFull),
            Decision::Duplicate { slid: true } => (Taken::of(Reply::Duplicate), false),
            Decision::Queued { ring, superseded } => {
                let ring = ring.then_some(index);
                (
                    Taken {
                        reply: Reply::Queued,
                        ring,
                        superseded,
                        pass: None,
                    },
                    true,
                )
            }
        };
        let shared = shard.bytes_of(update.credential) > BYTES_SHARE_MAX;
        let encoded = shard.encode();
        // A session with something pending keeps its place whatever it costs: passing it through would
        // let a newer value overtake the pending one. Another credential has no place to keep there; it is
        // busy as long as there is something to overtake.
        if must_fit && (encoded.len() > BYTES_MAX || shared) && !had_pending {
            return pass(store, Bypass::ShardFull);
        }
        match store.put(&key, &encoded, Expect::of(read.as_ref())) {
            Ok(()) => {
                #[cfg(feature = "sabotage")]
                void_late(store, &key, rules, update);
                return taken;
            }
            Err(PutError::Mismatch) if sabotage::is(Sabotage::AnswerBeforeStored) => return taken,
            Err(PutError::Mismatch) => {}
            Err(PutError::Refused) => return Taken::of(Reply::Pass(Bypass::Store)),
        }
    }
    Taken::of(Reply::Busy)
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
fn void_late(store: &mut impl Store, key: &str, rules: &Rules, update: &Update<'_>) {
    let read = store.get(key);
    let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
    if let (true, Ok(mut shard)) = (sabotage::is(Sabotage::VoidLater), Shard::decode(bytes)) {
        shard.void_late(rules, update);
        let _ = store.put(key, &shard.encode(), Expect::of(read.as_ref()));
    }
}

// === impl Taken ===

impl Taken {
    fn of(reply: Reply) -> Self {
        Self {
            reply,
            ring: None,
            superseded: Superseded::new(),
            pass: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::{String, ToString};

    use super::*;
    use crate::route::tests::rules;
    use crate::route::{BODY_BYTES_MAX, Destination, Head};
    use crate::shard::{SESSIONS_MAX, SESSIONS_PASSING_MAX, SESSIONS_SHARE_MAX};
    use crate::store::MemoryStore;

    /// One shard, and whoever has a credential is trusted.
    struct Intake {
        rules: Rules,
        store: MemoryStore,
        keys: Keys,
        number: u64,
    }

    impl Intake {
        fn new() -> Self {
            Self {
                rules: rules(r#"{"max_sessions":8,"credentials":{"trust":"always"}}"#),
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
                credentials: [("x-api-key".into(), caller.to_string())].into(),
                ..Destination::default()
            };
            let head = Head {
                route: 0,
                candidates: 1,
                destination,
                segment: String::new(),
                headers: [].into(),
            };
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
                self.number,
                circuit::State::Closed,
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

    const FULL: Reply = Reply::Passing(Bypass::ShardFull);

    #[test]
    fn a_shards_sessions_are_shared_out_and_counted_to_the_last() {
        let mut it = Intake::new();
        assert_eq!(it.fill("one", 100), (SESSIONS_SHARE_MAX, FULL));
        // The one that passes holds a place too: that of its claim.
        let left = SESSIONS_MAX - SESSIONS_SHARE_MAX - 1;
        assert_eq!(it.fill("two", 100), (left, FULL));
        for n in SESSIONS_MAX + 1..SESSIONS_PASSING_MAX {
            let reply = it.offer("three", &format!("three-{n}"), 100);
            assert_eq!(reply, FULL, "the {n}th has a place for its claim");
        }
        let reply = it.offer("three", "three-last", 100);
        assert_eq!(reply, Reply::Pass(Bypass::ShardFull), "beyond every place");
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
            assert_eq!(reply, Reply::Busy, "an older update of it is pending");
        }
        assert_eq!(it.bytes(), before);
        assert_eq!(it.offer("one", "one-0", BODY_BYTES_MAX), Reply::Queued);
    }
}
