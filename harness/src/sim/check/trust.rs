//! Credentials: whose word is taken, and under whose name a call goes out.

use embudo_core::config::Trust;

use super::answers::{Sent, short};
use super::calls::CallInfo;
use super::{Checker, Clock, Invariant};
use crate::sim::host::HttpCall;

/// A credential's standing on one route.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing {
    /// Laravel has taken a passing update of it, then at the latest, µs.
    Since(u64),
    /// It was trusted until then, µs.
    Until(u64),
}

// === impl Checker ===

impl Checker {
    // ## 5: only a trusted credential is answered for

    /// An update was answered `queued`: its credential must have been trusted at some moment since it began.
    pub(super) fn is_trusted(&mut self, clock: Clock, sent: &Sent, begun_us: u64) {
        if sent.token.is_empty() || self.config.credentials.trust == Trust::Always {
            return;
        }
        let route = self.config.routes.get(sent.route);
        let key = (
            sent.token.clone(),
            route.map_or_else(String::new, |route| route.name.clone()),
        );
        let trusted = match self.standing.get(&key) {
            Some(Standing::Since(_)) => true,
            Some(Standing::Until(until_us)) => *until_us >= begun_us,
            None => false,
        };
        if !trusted {
            let what = format!(
                "{} of session {} was queued, and Laravel never took its credential ({}) there",
                short(&sent.value),
                sent.name,
                sent.token
            );
            self.fail(clock.mono_us, Invariant::CredentialsNeverMix, what);
        }
    }

    /// Laravel took an update of this credential that passed.
    pub(super) fn trusts(&mut self, now_us: u64, token: &str, route: &str) {
        let key = (token.to_owned(), route.to_owned());
        self.standing.insert(key, Standing::Since(now_us));
    }

    /// A call's answer was 401 or 403, and the guest has dealt with it, from then until now. What was learned
    /// in between may have been written after it.
    pub(crate) fn credential_is_refused(
        &mut self,
        clock: Clock,
        (call, status): (u64, u16),
        from_us: u64,
    ) {
        let Some(call) = self.calls.get(&call) else {
            return;
        };
        // A 403 may be one session's in a batch; alone it says whose.
        if status == 403 && !call.single {
            return;
        }
        // A dispatcher that slept for so long has given the call up, and hears the next one's answer.
        if from_us > call.left_us + self.config.times.call_timeout_ms * 1000 {
            return;
        }
        let token = call.token.clone();
        for ((known, _), standing) in &mut self.standing {
            if *known == token
                && matches!(standing, Standing::Since(since_us) if *since_us < from_us)
            {
                *standing = Standing::Until(clock.mono_us);
            }
        }
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
            self.fail(clock.mono_us, Invariant::CredentialsNeverMix, what);
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
