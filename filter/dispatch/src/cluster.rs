//! Another backend in the configuration, and a leader that has to go.
//!
//! An item goes to the cluster that it was accepted for. Two listeners that share a store share a dispatcher, too:
//! the leader of one calls the cluster of the other. A cluster that nobody stands for any more, because the
//! configuration names another one now, would keep its items for ever: the leader's own takes them over.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use embudo_core::route::{Destination, Rules};
use embudo_core::shard::{ClaimId, Claimed, Shard};
use embudo_core::store::{CAS_ATTEMPTS_MAX, Expect, PutError, Store};
use embudo_core::time::Now;

use super::{Counter, Dispatcher, Effect, End, FlightItem, Level, PartitionKey};

/// How long a leader that is told to go while something is pending waits for another one, milliseconds.
const SUCCESSOR_MS: u64 = 1_000;

/// How long nobody may have been seen to stand for a cluster before it is taken over, milliseconds.
const UNSTAMPED_MS: u64 = 3_000;

/// Clusters of which it is remembered that they are gone, or that it was said.
const CLUSTERS_MAX: usize = 16;

/// Clusters that are not the leader's own.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    /// A call to it was refused because it does not exist.
    gone: Vec<String>,
    /// That it was taken over was said.
    said: Vec<String>,
    /// Nobody has been seen to stand for it, and since when: a listener that has just come may not have stamped yet.
    unstamped: Vec<(String, u64)>,
}

/// A leader that was told to go while something was pending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    since_ms: u64,
    pending: usize,
}

fn nobody_is_left(pending: usize, place: &str) -> Effect {
    let line = format!(
        "{pending} updates are pending and no filter of this name is left {place}to deliver them: they stay in Envoy's \
         memory until one is, and are lost when Envoy ends"
    );
    Effect::Log(Level::Error, line)
}

/// The name of a cluster in the lease.
#[must_use]
pub fn cluster_mark(rules: &Rules, cluster: &str) -> u64 {
    // Never 0, which is an empty place.
    (rules.key.hash(&[b"cluster", cluster.as_bytes()]) as u64) | 1
}

fn remember(list: &mut Vec<String>, cluster: &str) -> bool {
    if list.iter().any(|known| known == cluster) {
        return false;
    }
    if list.len() >= CLUSTERS_MAX {
        list.remove(0);
    }
    list.push(cluster.into());
    true
}

// === impl Clusters ===

impl Clusters {
    /// A call to it was refused because it does not exist.
    pub(super) fn is_gone(&mut self, cluster: &str) {
        remember(&mut self.gone, cluster);
    }

    /// Whether somebody stands for it, or may still be about to.
    fn is_stood_for(&mut self, cluster: &str, is_stamped: bool, mono_ms: u64) -> bool {
        if is_stamped {
            self.unstamped.retain(|(known, _)| known != cluster);
            return true;
        }
        let known = self.unstamped.iter().find(|(known, _)| known == cluster);
        if let Some((_, since_ms)) = known {
            return mono_ms < since_ms.saturating_add(UNSTAMPED_MS);
        }
        if self.unstamped.len() >= CLUSTERS_MAX {
            self.unstamped.remove(0);
        }
        self.unstamped.push((cluster.into(), mono_ms));
        true
    }
}

// === impl Dispatcher ===

impl Dispatcher {
    /// Whether calls to this destination are the own cluster's, after what nobody stands for was taken over.
    pub(super) fn take_over(
        &mut self,
        destination: &mut Destination,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let upstream = &self.rules.config.upstream;
        if destination.cluster.is_empty() {
            destination.cluster.clone_from(&upstream.cluster);
        }
        if destination.cluster == upstream.cluster {
            return true;
        }
        let known = &destination.cluster;
        let mark = cluster_mark(&self.rules, known);
        let is_stamped = self.candidate.stands_for(mark, now.mono_ms);
        let stands = self.clusters.is_stood_for(known, is_stamped, now.mono_ms);
        if stands && !self.clusters.gone.contains(known) {
            return false;
        }
        if remember(&mut self.clusters.said, known) {
            let own = &upstream.cluster;
            let line = format!(
                "nobody stands for cluster \"{known}\" any more: what is pending for it goes to \"{own}\""
            );
            effects.push(Effect::Log(Level::Warn, line));
        }
        destination.cluster.clone_from(&upstream.cluster);
        if let Some(authority) = &upstream.authority {
            destination.authority.clone_from(authority);
        }
        if let Some(prefix) = &upstream.prefix_rewrite {
            destination.prefix.clone_from(prefix);
        }
        true
    }

    /// Ends what was taken over and is older than what its session's new name has: the newer may be at Laravel already.
    #[expect(
        clippy::too_many_arguments,
        reason = "where from and to, what, and the world"
    )]
    pub(super) fn give_way(
        &mut self,
        (from, to): (&Destination, &Destination),
        plan: &PartitionKey,
        claim: ClaimId,
        (claimed, items): (&mut Vec<Claimed>, &mut Vec<FlightItem>),
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) {
        let moved = self.rules.tenant_hash(from) ^ self.rules.tenant_hash(to);
        let mut ended = 0_u64;
        let mut at = 0;
        while let (Some(own), Some(item)) = (claimed.get(at), items.get(at)) {
            let (name, index) = (own.session ^ moved, item.shard);
            let read = store.get(&self.keys.shard(self.rules.shard_of(name)));
            let later = read.is_some_and(|(bytes, _)| {
                Shard::decode(&bytes).is_ok_and(|shard| {
                    let of = (name, &*plan.route, plan.caller);
                    shard.has_later(&self.rules, of, own.accepted_ms)
                })
            });
            if !later || !self.gives_way(index, own.session, claim, now, store) {
                at = at.saturating_add(1);
                continue;
            }
            claimed.remove(at);
            items.remove(at);
            ended = ended.saturating_add(1);
        }
        if let Some((route, _)) = self.rules.config.route_named(&plan.route)
            && ended > 0
        {
            let counter = Counter::Items(route, End::Superseded);
            effects.push(Effect::Count(counter, ended));
        }
    }

    fn gives_way(
        &mut self,
        index: u32,
        session: u128,
        claim: ClaimId,
        now: Now,
        store: &mut impl Store,
    ) -> bool {
        let key = self.keys.shard(index);
        for _ in 0..CAS_ATTEMPTS_MAX {
            let Some((bytes, token)) = store.get(&key) else {
                return false;
            };
            let Ok(mut shard) = Shard::decode(&bytes) else {
                return false;
            };
            if !shard.give_way(&self.rules, session, claim, now) {
                return false;
            }
            match store.put(&key, &shard.encode(), Expect::Token(token)) {
                Err(PutError::Mismatch) => {}
                Err(PutError::Refused) => return false,
                Ok(()) => {
                    self.backlog
                        .refresh(&self.rules, index, &shard, now.mono_ms);
                    return true;
                }
            }
        }
        false
    }

    /// The host wants this root to go. What is pending is somebody else's from now on, if there is anybody.
    pub(super) fn leave(
        &mut self,
        is_last: bool,
        now: Now,
        store: &mut impl Store,
        effects: &mut Vec<Effect>,
    ) {
        let pending = self.backlog.pending();
        let leads = self.candidate.epoch(now.mono_ms).is_some();
        self.done = true;
        self.candidate.release(store, &self.keys, now.mono_ms);
        self.backlog.clear();
        if !leads || pending == 0 {
            return;
        }
        match is_last {
            // Another VM may have one: after an upgrade of the module it has. Nobody can wait for it here.
            true => effects.push(nobody_is_left(pending, "in this VM ")),
            false => {
                self.leaving = Some(Leaving {
                    since_ms: now.mono_ms,
                    pending,
                });
            }
        }
    }

    /// Calls that were under way have brought so many to their end.
    pub(super) fn fewer_are_left(&mut self, ended: u64) {
        if let Some(leaving) = &mut self.leaving {
            let ended = usize::try_from(ended).unwrap_or(usize::MAX);
            leaving.pending = leaving.pending.saturating_sub(ended);
        }
        self.leaving.take_if(|leaving| leaving.pending == 0);
    }

    /// At a tick of a root that has to go.
    pub(super) fn look_for_successor(
        &mut self,
        now: Now,
        store: &impl Store,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Leaving { since_ms, pending }) = self.leaving else {
            return;
        };
        if self.candidate.is_succeeded(store, &self.keys, now.mono_ms) {
            self.leaving = None;
        } else if now.mono_ms >= since_ms.saturating_add(SUCCESSOR_MS) {
            self.leaving = None;
            effects.push(nobody_is_left(pending, ""));
        }
    }
}
