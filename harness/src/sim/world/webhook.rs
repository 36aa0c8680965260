//! The webhook, and the way there and back.
//!
//! The dispatcher's calls to the cluster `webhook` come here, and nothing else does: no breaker sees them, and
//! Laravel knows nothing of them. The webhook itself is the model that the live arm uses too.

use std::collections::BTreeMap;

use super::net::{Caller, LOST, REFUSED, TIMEOUT, relayed, response, to_request};
use super::queue::Event;
use super::{Scenario, Sim, Verb};
use crate::model::http::Request;
use crate::model::laravel::{Fault as LaravelFault, Reply};
use crate::model::webhook::{Call, Webhook};
use crate::sim::check::CallEnd;
use crate::sim::host::{HttpCall, Response};

/// What it takes for a call, ms.
const REQUEST_MS: u64 = 5;

/// A call on its way.
#[derive(Debug)]
struct Exchange {
    caller: Caller,
    request: Option<Request>,
    call: Option<Call>,
    /// The caller still waits.
    open: bool,
}

/// The webhook's events; the number is the exchange's.
#[derive(Debug)]
pub(super) enum HookEvent {
    /// It reaches the webhook.
    Arrives(u64),
    /// The webhook is done with it.
    Finishes(u64),
    /// The answer reaches Envoy.
    Answers(u64, Response, CallEnd),
    /// Envoy's patience is over.
    TimesOut(u64),
}

/// The webhook's side.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) webhook: Webhook,
    /// Reasons for which nothing listens there.
    pub(super) refusing: u32,
    exchanges: BTreeMap<u64, Exchange>,
    last: u64,
}

// === impl Hook ===

impl Hook {
    pub(super) fn new(scenario: &Scenario, start_ms: u64) -> Self {
        let all = scenario.faults.iter();
        let rules = all.filter_map(|fault| match &fault.verb {
            Verb::Webhook(what, probability) => {
                let from_ms = start_ms + fault.at_ms;
                let rule = LaravelFault::always(what.clone()).with_probability(*probability);
                Some(rule.between(from_ms, from_ms + fault.for_ms))
            }
            _ => None,
        });
        let mut webhook = Webhook::new(REQUEST_MS);
        // Dice of its own: it is not Laravel's neighbour.
        webhook.set_faults(scenario.seed ^ 1, rules.collect());
        Self {
            webhook,
            refusing: 0,
            exchanges: BTreeMap::new(),
            last: 0,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.exchanges.is_empty()
    }

    fn retire(&mut self, id: u64) {
        let over = |e: &Exchange| !e.open && e.request.is_none() && e.call.is_none();
        if self.exchanges.get(&id).is_some_and(over) {
            self.exchanges.remove(&id);
        }
    }
}

// === impl Sim ===

impl Sim {
    /// An event leaves for the webhook.
    pub(super) fn event_leaves(&mut self, caller: Caller, http: HttpCall) {
        self.hook.last += 1;
        let id = self.hook.last;
        let refused = self.hook.refusing > 0;
        let request = to_request(http.headers, http.body);
        let exchange = Exchange {
            caller,
            request: Some(request).filter(|_| !refused),
            call: None,
            open: true,
        };
        self.hook.exchanges.insert(id, exchange);
        let us = self.way_us();
        let first = match refused {
            true => HookEvent::Answers(id, response(503, &[], REFUSED), CallEnd::Failed),
            false => HookEvent::Arrives(id),
        };
        self.after_us(us, Event::Hook(first));
        let timeout = Event::Hook(HookEvent::TimesOut(id));
        self.after_us(http.timeout_ms * 1000, timeout);
    }

    pub(super) fn hook_event(&mut self, event: HookEvent) {
        match event {
            HookEvent::Arrives(id) => self.event_arrives(id),
            HookEvent::Finishes(id) => self.event_finishes(id),
            HookEvent::Answers(id, response, end) => self.event_is_answered(id, response, end),
            HookEvent::TimesOut(id) => {
                let timeout = response(504, &[], TIMEOUT);
                self.event_is_answered(id, timeout, CallEnd::Unknown);
            }
        }
    }

    fn event_arrives(&mut self, id: u64) {
        let (now_ms, clock) = (self.now_us / 1000, self.clock());
        let Some(exchange) = self.hook.exchanges.get_mut(&id) else {
            return;
        };
        let Some(request) = exchange.request.take() else {
            return;
        };
        let number = exchange.caller.call;
        let call = self.hook.webhook.begin(now_ms, &request);
        let busy_us = call.busy_ms * 1000;
        exchange.call = Some(call);
        self.hub.lock().checker.event_arrives(clock, number);
        self.note("webhook", id, || {
            format!("is told {}", String::from_utf8_lossy(&request.body))
        });
        self.after_us(busy_us, Event::Hook(HookEvent::Finishes(id)));
    }

    fn event_finishes(&mut self, id: u64) {
        let Some(exchange) = self.hook.exchanges.get_mut(&id) else {
            return;
        };
        let Some(call) = exchange.call.take() else {
            return;
        };
        let open = exchange.open;
        let reply = self.hook.webhook.finish(call);
        if !open {
            return self.hook.retire(id);
        }
        let (answer, end) = match reply {
            Reply::Whole(answer) => {
                let end = match answer.status {
                    200..=299 => CallEnd::Delivered,
                    502 | 504 => CallEnd::Unknown,
                    _ => CallEnd::Failed,
                };
                (relayed(&answer), end)
            }
            Reply::Cut(_, 0) => (response(503, &[], LOST), CallEnd::Unknown),
            Reply::Cut(..) => (Response::default(), CallEnd::Unknown),
            Reply::Never => return,
        };
        let us = self.way_us();
        self.after_us(us, Event::Hook(HookEvent::Answers(id, answer, end)));
    }

    fn event_is_answered(&mut self, id: u64, response: Response, end: CallEnd) {
        let Some(exchange) = self.hook.exchanges.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut exchange.open, false) {
            return;
        }
        let caller = exchange.caller;
        self.hook.retire(id);
        self.hub.lock().checker.event_ends(caller.call, Some(end));
        self.guest_hears(caller, response);
    }

    /// The port is closed and every connection is gone.
    pub(super) fn webhook_goes_down(&mut self) {
        self.hook.refusing = 1;
        let all = self.hook.exchanges.iter();
        let broken: Vec<u64> = all.filter(|(_, e)| e.open).map(|(id, _)| *id).collect();
        for id in broken {
            if let Some(exchange) = self.hook.exchanges.get_mut(&id) {
                // On its way: nobody has read it.
                exchange.request = None;
            }
            let us = self.way_us();
            let lost = HookEvent::Answers(id, response(503, &[], LOST), CallEnd::Unknown);
            self.after_us(us, Event::Hook(lost));
        }
    }

    /// A VM is dead: nobody waits for its events any more, and the webhook does not know.
    pub(super) fn forget_events_of(&mut self, dead: u32) {
        let mut gone = Vec::new();
        for (id, exchange) in &mut self.hook.exchanges {
            if exchange.caller.vm == dead && std::mem::replace(&mut exchange.open, false) {
                gone.push((*id, exchange.caller.call));
            }
        }
        for (id, call) in gone {
            self.hook.retire(id);
            self.hub.lock().checker.event_ends(call, None);
        }
    }
}
