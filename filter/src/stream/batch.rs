//! A batch of the gateway's own: taken apart, or on its way to Laravel as it came.
//!
//! One that is queued takes a get a shard that it touches and a put for each of them; one that passes as many again
//! when it begins, and when it ends.

use std::rc::Rc;

use embudo_core::intake::View;
use embudo_core::route::{BATCH_BYTES_MAX, BatchHead, Bypass};
use embudo_core::split::{self, Passing};
use embudo_core::verdict::Answer;
use embudo_core::write_through::Answerer;
use embudo_dispatch::Counter;
use proxy_wasm::traits::HttpContext;
use proxy_wasm::types::Action;

use super::{RELAYED_BYTES_MAX, State, Stream, answerer, reply};
use crate::store::SharedData;

/// A batch that goes to Laravel as it came.
pub(super) struct OnItsWay {
    reason: Bypass,
    passing: Passing,
    /// Its answer may prove something: nothing but that was wrong.
    is_judged: bool,
}

// === impl Stream ===

impl Stream {
    // ## Gathering => Gathering | PassingBatch | Answered
    pub(super) fn gather(&mut self, body_size: usize, is_whole: bool) -> Action {
        if !is_whole && body_size <= BATCH_BYTES_MAX {
            return Action::Pause;
        }
        let head = match std::mem::replace(&mut self.state, State::Answered) {
            State::Gathering(head) => head,
            decided => {
                self.state = decided;
                return Action::Continue;
            }
        };
        self.take_apart(&head, body_size.min(BATCH_BYTES_MAX.saturating_add(1)))
    }

    fn take_apart(&mut self, head: &BatchHead, body_size: usize) -> Action {
        let plugin = Rc::clone(&self.plugin);
        let (store, keys, rules) = (&mut SharedData, &plugin.keys, &plugin.rules);
        let body = self.get_http_request_body(0, body_size).unwrap_or_default();
        let batch = rules.batch(head, &body);
        let (now, route) = (plugin.now(), head.route());
        let subject = head.subject(rules);
        let mut proofs = plugin.proofs.borrow_mut();
        let view = View {
            circuit: plugin.circuit.get(),
            standing: proofs.standing(store, keys, rules, &subject, now),
        };
        drop(proofs);
        let taken = split::take_in(store, keys, rules, &batch, view, now);
        for (shard, is_urgent) in taken.rings {
            if !plugin.doorbell.ring(shard, is_urgent, now.mono_ms) {
                plugin.poll();
            }
        }
        let mut stats = plugin.stats.borrow_mut();
        for (route, end) in taken.superseded.iter().flat_map(|all| all.ends()) {
            stats.count(Counter::Items(route, end), 1);
        }
        for reply in taken.replies {
            stats.reply(route, reply);
        }
        let Some(reason) = taken.passes else {
            drop(stats);
            let said = format!(r#"{{"success":true,"processed":{}}}"#, batch.len);
            reply(rules.config.answer_status, "queued", &[], said.as_bytes());
            return Action::Pause;
        };
        stats.bypass(Some(route), reason);
        drop(stats);
        let is_judged = batch.refused.is_none();
        if is_judged {
            // So that its answer can be read.
            self.set_http_request_header("accept-encoding", None);
        }
        self.state = State::PassingBatch(Box::new(OnItsWay {
            reason,
            passing: split::begin(store, keys, rules, (head, &batch), now),
            is_judged,
        }));
        Action::Continue
    }

    // ## PassingBatch => JudgingBatch | Answered
    pub(super) fn batch_is_answered(&mut self, batch: Box<OnItsWay>, end_of_stream: bool) {
        let says = format!("bypass; {}", batch.reason);
        self.set_http_response_header("x-embudo", Some(&says));
        let (status, _) = self.response_head();
        let is_told = batch.is_judged
            && answerer() == Answerer::Upstream
            && matches!(status, Some(200..=299));
        match (is_told, end_of_stream) {
            (true, false) => self.state = State::JudgingBatch(status, batch),
            (true, true) => self.batch_ends(&batch, status, b""),
            (false, _) => self.batch_ends(&batch, None, b""),
        }
    }

    // ## JudgingBatch => Answered
    pub(super) fn judge_batch(&mut self, body_size: usize) {
        match std::mem::replace(&mut self.state, State::Answered) {
            State::JudgingBatch(status, batch) => {
                let body = self.get_http_response_body(0, body_size.min(RELAYED_BYTES_MAX));
                self.batch_ends(&batch, status, &body.unwrap_or_default());
            }
            decided => self.state = decided,
        }
    }

    /// A batch's answer is here, with this status where it may prove something; or nobody will hear of it.
    pub(super) fn batch_ends(&self, batch: &OnItsWay, status: Option<u16>, body: &[u8]) {
        let plugin = &self.plugin;
        let (store, keys, passing) = (&mut SharedData, &plugin.keys, &batch.passing);
        let now = plugin.now();
        split::end(store, keys, &plugin.rules, passing);
        if status.is_none() {
            return;
        }
        let answer = Answer {
            status,
            from_upstream: true,
            body,
            ..Answer::default()
        };
        let mut proofs = plugin.proofs.borrow_mut();
        if split::heard(store, keys, &mut proofs, passing, &answer, now) {
            let caller = Some((passing.caller, passing.begun_ms));
            let place = passing.subject.destination;
            let mut awaited = plugin.awaited.borrow_mut();
            awaited.hear(store, keys, place, caller, now.mono_ms);
        }
    }
}
