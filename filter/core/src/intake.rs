//! The request path: offer an update to its shard, and say what to answer.
//!
//! For a duplicate this is one get; for a new value one get and one put, and as many more as there are
//! lost races. It never talks to Laravel, and it never waits: where a caller has to, it says for what
//! ([`crate::ack`]).

use crate::ack::Wait;
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
    /// What the caller has to wait for, before it is answered.
    pub wait: Option<Wait>,
}

/// Offers `update` to the store. `number` is unique in this process: it names the claim of an update that
/// has to pass.
pub fn take_in(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    update: &Update<'_>,
    number: u64,
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
    if sabotage::is(Sabotage::DedupBySet) && sabotage::was_seen(update.session ^ update.value) {
        return Taken::of(Reply::Duplicate);
    }
    for _ in 0..CAS_ATTEMPTS_MAX {
        let read = store.get(&key);
        let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
        let Ok(mut shard) = Shard::decode(bytes) else {
            return Taken::of(Reply::Pass(Bypass::Store));
        };
        let had_pending = shard.has_pending(update.session, now.mono_ms);
        let decision = shard.offer(rules, update, now);
        let wait = Wait::of(rules, &shard, update, now.mono_ms);
        let (taken, must_fit) = match decision {
            Decision::Duplicate { slid: false } => return Taken::after(wait, Reply::Duplicate),
            Decision::Implied => return Taken::after(wait, Reply::Implied),
            Decision::Stale => return Taken::of(Reply::Stale),
            Decision::Full => return pass(store, Bypass::ShardFull),
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
        let shared = shard.bytes_of(update.credential) > BYTES_SHARE_MAX;
        let encoded = shard.encode();
        // A session with something pending keeps its place whatever it costs: passing it through would
        // let a newer value overtake the pending one.
        if must_fit && (encoded.len() > BYTES_MAX || shared) && !had_pending {
            return pass(store, Bypass::ShardFull);
        }
        match store.put(&key, &encoded, Expect::of(read.as_ref())) {
            Ok(()) => {
                #[cfg(feature = "sabotage")]
                void_late(store, &key, rules, update, now);
                return taken;
            }
            Err(PutError::Mismatch) if sabotage::is(Sabotage::AnswerBeforeStored) => return taken,
            Err(PutError::Mismatch) => {}
            Err(PutError::Refused) => return Taken::of(Reply::Pass(Bypass::Store)),
        }
    }
    Taken::of(Reply::Busy)
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

// === impl Taken ===

impl Taken {
    fn of(reply: Reply) -> Self {
        Self::after(None, reply)
    }

    fn after(wait: Option<Wait>, reply: Reply) -> Self {
        Self {
            reply,
            ring: None,
            superseded: Superseded::new(),
            pass: None,
            wait,
        }
    }
}
