//! Recognised updates that go to Laravel by themselves: see [`crate::shard`]'s `pass`.

use alloc::string::String;

use crate::route::{Rules, Update};
use crate::sabotage::{self, Sabotage};
use crate::shard::{Before, ClaimId, Passed, Shard};
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};
use crate::time::Now;
use crate::trust;
use crate::verdict::never_left;

/// An update on its way to Laravel, as its answer will need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Index into the configuration.
    pub route: usize,
    /// Keyed hash of (authority, session).
    pub session: u128,
    /// Its sequence.
    pub seq: u64,
    /// What the session was before it.
    pub before: Before,
    /// Its claim.
    pub claim: ClaimId,
    /// Keyed hash of the value.
    pub value: u128,
    /// The value, where a kept answer shows it.
    pub text: Option<String>,
    /// What the sender's own clock says.
    pub order: Option<u64>,
    /// Whether it voids other routes' values.
    pub voids: bool,
    /// Fingerprint of the caller's credentials.
    pub credential: u64,
    /// Monotonic: not to be sent after this. The claim protects the session for as long as a call that left
    /// by then can last.
    pub send_by_ms: u64,
    /// Under which Laravel's 2xx makes the credential trusted.
    pub mark: u64,
}

/// What Laravel's answer to a passing update means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Laravel's own 2xx.
    Delivered,
    /// Laravel certainly did not take it.
    Failed,
    /// Nobody can know: the claim stays and runs out.
    Unknown,
}

/// What became of the attempt to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The request may go on, under this claim.
    Passing(Pass),
    /// Something of the session is at Laravel: 503 with `retry-after`.
    Busy,
    /// The request may go on; there is nothing to keep in order.
    Untracked,
}

/// Takes the session's claim for `update`. `number` is unique in this process.
pub fn begin(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    update: &Update<'_>,
    number: u64,
    now: Now,
) -> Attempt {
    if sabotage::is(Sabotage::PassWithoutClaim) {
        return Attempt::Untracked;
    }
    let key = keys.shard(rules.shard_of(update.session));
    let claim = ClaimId {
        epoch: ClaimId::PASSING,
        counter: number,
    };
    for _ in 0..CAS_ATTEMPTS_MAX {
        let read = store.get(&key);
        let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
        let Ok(mut shard) = Shard::decode(bytes) else {
            return Attempt::Untracked;
        };
        let (seq, before) = match shard.pass(rules, update, claim, now) {
            Passed::Claimed { seq, before } => (seq, before),
            Passed::Busy => return Attempt::Busy,
            Passed::Untracked => return Attempt::Untracked,
        };
        match store.put(&key, &shard.encode(), Expect::of(read.as_ref())) {
            Ok(()) => {
                return Attempt::Passing(Pass::of(rules, update, claim, seq, before, now));
            }
            Err(PutError::Mismatch) => {}
            Err(PutError::Refused) => return Attempt::Untracked,
        }
    }
    Attempt::Busy
}

/// Settles a passing update with Laravel's answer, and trusts its credential where that was a 2xx.
pub fn end(store: &mut impl Store, keys: &Keys, rules: &Rules, pass: &Pass, fate: Fate, now: Now) {
    if fate == Fate::Unknown && !sabotage::is(Sabotage::PassUnknownIsOver) {
        return;
    }
    if fate == Fate::Delivered && pass.credential != 0 {
        trust::learn(store, keys, rules, pass.mark, pass.credential, now);
    }
    let key = keys.shard(rules.shard_of(pass.session));
    for _ in 0..CAS_ATTEMPTS_MAX {
        let Some((bytes, token)) = store.get(&key) else {
            return;
        };
        let Ok(mut shard) = Shard::decode(&bytes) else {
            return;
        };
        if shard.settle_pass(rules, pass, fate, now).is_none() {
            return;
        }
        match store.put(&key, &shard.encode(), Expect::Token(token)) {
            Err(PutError::Mismatch) => {}
            Ok(()) | Err(PutError::Refused) => return,
        }
    }
}

// === impl Pass ===

impl Pass {
    /// What an update's answer will need, once it has the claim.
    pub(crate) fn of(
        rules: &Rules,
        update: &Update<'_>,
        claim: ClaimId,
        seq: u64,
        before: Before,
        now: Now,
    ) -> Self {
        let window_ms = rules.config.times.send_window_ms;
        Self {
            route: update.route,
            session: update.session,
            seq,
            before,
            claim,
            value: update.value,
            text: update.text.clone(),
            order: update.order,
            voids: update.voids,
            credential: update.credential,
            send_by_ms: now.mono_ms.saturating_add(window_ms),
            mark: update.mark,
        }
    }
}

// === impl Fate ===

impl Fate {
    /// Judges an answer. `from_upstream`: it has `x-envoy-upstream-service-time`. Without it the answer is
    /// Envoy's own, and unless its body says that nothing was sent, the request may be at work in PHP.
    #[must_use]
    pub fn of(status: Option<u16>, from_upstream: bool, body: &[u8]) -> Self {
        match status {
            Some(502 | 504) | None => Self::Unknown,
            Some(503) if !from_upstream && never_left(body) => Self::Failed,
            Some(_) if !from_upstream => Self::Unknown,
            Some(200..=299) => Self::Delivered,
            Some(_) => Self::Failed,
        }
    }
}
