//! Credentials: whose word is taken, and under whose name a call goes out.

use super::answers::{Sent, Stream, is_laravels, short};
use super::calls::CallInfo;
use super::{Checker, Clock, Invariant};
use crate::sim::host::HttpCall;

/// A credential's standing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// When the newest request of it left that Laravel accepted, µs.
    accepted_us: Option<u64>,
    /// When Laravel's last refusal of it was dealt with, µs.
    refused_us: Option<u64>,
    /// The same, where it may have been about the item.
    turned_us: Option<u64>,
}

/// A worker looks at proofs at its root's tick, and skips one that comes early: that much after a refusal, and so many
/// looks of its VM, whose roots look by turns, it knows of it.
const KNOWN_AFTER_US: u64 = 2_100_000;
const KNOWN_AFTER_LOOKS: usize = 4;

/// A look reads several keys, and on a busy worker each of them takes its time.
const ONE_LOOK_US: u64 = 100_000;

/// A worker with thousands of requests before it ticks every few seconds.
const SAID_UNTIL_US: u64 = 10_000_000;

/// Looks that are remembered of a VM.
const LOOKS_MAX: usize = 8;

// === impl Checker ===

impl Checker {
    // ## 12: proof
    //
    // Nothing is queued for whom Laravel has not accepted since it last refused it, nor on a route of which it never
    // accepted anything.

    /// An update was answered `queued`.
    pub(super) fn is_proven(&mut self, clock: Clock, sent: &Sent, known: &Stream) {
        if self.config.assume.callers {
            return;
        }
        let route = self.config.routes.get(sent.route);
        let route = route.map_or("", |route| route.name.as_str());
        let standing = self.standing.get(&sent.token).copied().unwrap_or_default();
        let is_known = |refused_us: u64| {
            let looks = known.vm.and_then(|vm| self.looks.get(&vm));
            let since = looks.map_or(0, |looks| {
                let since = looks
                    .iter()
                    .filter(|at| (refused_us..known.begun_us).contains(at));
                since.count()
            });
            refused_us + KNOWN_AFTER_US < known.begun_us && since >= KNOWN_AFTER_LOOKS
        };
        let why = match (standing.accepted_us, standing.refused_us) {
            (None, _) => "never took its caller",
            (Some(accepted), Some(refused)) if accepted <= refused && is_known(refused) => {
                "has refused its caller since"
            }
            _ if !self.proven_routes.contains(route) => "never took any of its route",
            _ => return,
        };
        let what = format!(
            "{} of session {} was queued, and Laravel {why} ({})",
            short(&sent.value),
            sent.name,
            sent.token
        );
        self.fail(clock.mono_us, Invariant::Proof, what);
    }

    /// Laravel took something of this credential that left then.
    pub(super) fn accepts(&mut self, token: &str, route: &str, left_us: u64) {
        let standing = self.standing.entry(token.to_owned()).or_default();
        standing.accepted_us = standing.accepted_us.max(Some(left_us));
        self.proven_routes.insert(route.to_owned());
    }

    /// Laravel has refused this credential, and the guest has dealt with it.
    pub(super) fn refuses(&mut self, clock: Clock, token: &str) {
        let standing = self.standing.entry(token.to_owned()).or_default();
        standing.refused_us = Some(clock.mono_us);
    }

    /// Whether Laravel's last word about a credential was a refusal.
    pub(super) fn is_refused(&self, token: &str) -> bool {
        let standing = self.standing.get(token);
        standing.is_some_and(|standing| standing.refused_us > standing.accepted_us)
    }

    /// Whether it may have been: what it has unsent holds up nobody else.
    pub(super) fn may_be_refused(&self, token: &str) -> bool {
        let standing = self.standing.get(token);
        standing.is_some_and(|standing| {
            standing.refused_us.max(standing.turned_us) > standing.accepted_us
        })
    }

    /// Whether it was, not long ago: a worker has the leader's word of its root's last tick.
    pub(super) fn was_refused(&self, clock: Clock, token: &str) -> bool {
        let standing = self.standing.get(token);
        let refused_us = standing.and_then(|standing| standing.refused_us.max(standing.turned_us));
        refused_us.is_some_and(|at_us| clock.mono_us < at_us.saturating_add(SAID_UNTIL_US))
    }

    /// A root of this VM looks at proofs.
    pub(super) fn looks(&mut self, clock: Clock, vm: u32) {
        let looks = self.looks.entry(vm).or_default();
        let last = looks.last();
        if last.is_none_or(|last| clock.mono_us >= last.saturating_add(ONE_LOOK_US)) {
            looks.push(clock.mono_us);
        }
        if looks.len() > LOOKS_MAX {
            looks.remove(0);
        }
    }

    /// A call's answer is 401, 403 or 419, and the guest is about to hear it.
    pub(crate) fn caller_may_be_refused(&mut self, clock: Clock, call: u64) {
        if let Some(call) = self.calls.get(&call).filter(|call| call.single) {
            let standing = self.standing.entry(call.token.clone()).or_default();
            standing.turned_us = Some(clock.mono_us);
        }
    }

    /// A call's answer was 401, 403 or 419, and the guest has dealt with it, from then until now.
    pub(crate) fn credential_is_refused(
        &mut self,
        clock: Clock,
        (call, status, body): (u64, u16, &[u8]),
        from_us: u64,
    ) {
        self.caller_may_be_refused(clock, call);
        let Some(call) = self.calls.get(&call) else {
            return;
        };
        // Beside what was accepted within a minute a 403 is about the item, and no run is longer.
        if status == 403 || !call.single || !is_laravels(body) {
            return;
        }
        // A dispatcher that slept for so long has given the call up, and hears the next one's answer.
        if from_us > call.left_us + self.config.times.call_timeout_ms * 1000 {
            return;
        }
        let token = call.token.clone();
        self.refuses(clock, &token);
    }

    // ## 5: a call bears the credential of every item in it

    pub(super) fn is_under_one_name(&mut self, clock: Clock, info: &CallInfo) {
        let mixed = info.items.iter().find_map(|(id, route, seq)| {
            let update = self.sessions.get_mut(id)?.of_seq(*seq, route)?;
            (update.token != info.token).then(|| update.token.clone())
        });
        if let Some(token) = mixed {
            let what = format!(
                "call {} of {:?} has an item of {token:?}",
                info.id, info.token
            );
            self.fail(clock.mono_us, Invariant::CallersNeverMix, what);
        }
    }
}

/// The credential of a call; empty for none.
pub(super) fn token_of(http: &HttpCall) -> String {
    let found = http
        .headers
        .iter()
        .find(|(name, _)| name == "authorization");
    found.map_or_else(String::new, |(_, value)| {
        String::from_utf8_lossy(value).into_owned()
    })
}
