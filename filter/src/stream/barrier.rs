//! A barrier's request: held while something of its session is on its way, and then on its own.

use std::rc::Rc;

use embudo_core::barrier::{self, Stop};
use embudo_core::route::{BODY_BYTES_MAX, Barred, Bypass};
use proxy_wasm::traits::HttpContext;
use proxy_wasm::types::Action;

use super::{State, Stream};
use crate::store::SharedData;

// === impl Stream ===

impl Stream {
    // ## New => Bypassed | Barred
    pub(super) fn stop(&mut self, barred: Barred) -> Action {
        let plugin = Rc::clone(&self.plugin);
        let now = plugin.now();
        let stop = plugin.barriers.borrow_mut().stop(
            &mut SharedData,
            &plugin.keys,
            &plugin.rules,
            self.id,
            barred,
            &plugin.awaited.borrow(),
            now,
        );
        plugin.stats.borrow_mut().bypass(None, Bypass::Barrier);
        let Stop::Held(ring) = stop else {
            self.state = match barred.forgets {
                true => State::Barred(barred, false),
                false => State::Bypassed(Bypass::Barrier),
            };
            return Action::Continue;
        };
        if let Some(shard) = ring {
            plugin.doorbell.ring(shard, true, now.mono_ms);
        }
        plugin.stats.borrow().held(1);
        plugin.poll();
        self.state = State::Barred(barred, true);
        Action::Pause
    }

    /// Its body comes while it waits. A long one is not held: there may be no room for it.
    pub(super) fn is_stopped(&self, body_size: usize) -> Action {
        match self.waits_at_barrier() && body_size <= BODY_BYTES_MAX {
            true => Action::Pause,
            false => {
                self.leaves_barrier();
                Action::Continue
            }
        }
    }

    fn waits_at_barrier(&self) -> bool {
        self.plugin.barriers.borrow().holds(self.id)
    }

    fn leaves_barrier(&self) -> bool {
        let waited = self.plugin.barriers.borrow_mut().forget(self.id);
        if waited {
            self.plugin.stats.borrow().held(-1);
        }
        waited
    }

    // ## Barred => Answered
    pub(super) fn barred_is_answered(&self, barred: Barred, was_held: bool) {
        let outcome = if was_held { "held" } else { "bypass" };
        let says = format!("{outcome}; {}", Bypass::Barrier);
        self.set_http_response_header("x-embudo", Some(&says));
        self.barred_ends(barred);
    }

    /// It is over, whether or not Laravel had it.
    pub(super) fn barred_ends(&self, barred: Barred) {
        // Who waits still has never left.
        if !self.leaves_barrier() && barred.forgets {
            let plugin = &self.plugin;
            barrier::forget(&mut SharedData, &plugin.keys, &plugin.rules, barred.session);
        }
    }
}
