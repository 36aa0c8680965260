//! The gateway's load, as the live arm sends it: an open loop, flows side by side, each request with its
//! retries, and a report of every send.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use embudo_core::config::{Barrier, Config};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::super::Sim;
use super::super::net::Client;
use super::super::queue::Event;
use super::ArmEvent;
use crate::live::load::{CONNECTIONS_MAX, LoadReport};
use crate::model::gateway::{
    Answer, Caller, Flow, Identity, Outgoing, Retries, RetryPolicy, Schedule, What,
};
use crate::model::http::{Kind, Request, Route};
use crate::model::order::Sent;
use crate::scenario::{Expected, Planned, Scenario};
use crate::sim::abi::Headers;
use crate::sim::host::{Body, Job};

/// Envoy's timeout of the untouched routes, ms.
const ROUTE_TIMEOUT_MS: u64 = 60_000;

const PREFIX: &str = "/api";

/// The gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    identities: Vec<Identity>,
    /// Sessions that are up, and have said so.
    paired: BTreeSet<usize>,
    /// Requests signed so far.
    signed: u64,
    script: Vec<Planned>,
    /// On whose paths the filter is on, beside its own.
    barriers: Vec<Barrier>,
    schedules: Vec<Schedule>,
    retries: RetryPolicy,
    flows: BTreeMap<u64, Running>,
    /// Flows so far: a flow's dice are of this number, as on the live arm.
    begun: u64,
    streams: BTreeMap<u64, UnderWay>,
    /// Sends that have a connection, and flows that wait for one.
    connections: usize,
    waiting: VecDeque<u64>,
    /// Questions from before the first event that have no answer yet, or were not answered well.
    pub(super) warming: BTreeSet<u64>,
    report: LoadReport,
}

/// A flow.
#[derive(Debug)]
struct Running {
    /// The name of the session's log; none for a stranger's.
    key: Option<Arc<str>>,
    /// The session's place.
    index: usize,
    caller: Caller,
    policy: RetryPolicy,
    /// Whether its end makes the session one that is up.
    comes_up: bool,
    flow: Flow,
    outgoing: Outgoing,
    /// The updates in it, where it is a batch.
    items: Vec<(String, Route, String)>,
    retries: Retries,
    is_retry: bool,
    /// What a read of the script must be answered.
    expected: Option<Expected>,
    dice: ChaCha8Rng,
}

/// A send without its answer.
#[derive(Debug)]
struct UnderWay {
    flow: u64,
    /// Its updates' places in their logs.
    places: Vec<(String, usize)>,
    outcome: Option<String>,
}

/// The gateway's events.
#[derive(Debug)]
pub(in super::super) enum GatewayEvent {
    /// Something happens to a session.
    Begins(usize, What),
    /// A post of the script is due.
    Scripted(usize),
    /// A flow sends its request, once more.
    Sends(u64),
    /// An answer has reached the gateway.
    Answered(u64, Answer),
}

// === impl Gateway ===

impl Gateway {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let schedule = |index| Schedule::new(scenario.gateway_config(), scenario.seed, index);
        Self {
            identities: scenario.identities(),
            paired: BTreeSet::new(),
            signed: 0,
            script: scenario.script(),
            barriers: barriers(&scenario.filter),
            schedules: (0..scenario.sessions).map(schedule).collect(),
            retries: RetryPolicy::default(),
            flows: BTreeMap::new(),
            begun: 0,
            streams: BTreeMap::new(),
            connections: 0,
            waiting: VecDeque::new(),
            warming: BTreeSet::new(),
            report: LoadReport::default(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.flows.is_empty()
    }

    /// What is still under way is dropped.
    pub(super) fn stop(&mut self) {
        self.report.unfinished = self.flows.len() as u64;
        self.flows.clear();
        self.waiting.clear();
    }

    pub(super) fn into_report(self) -> LoadReport {
        self.report
    }
}

fn gateway_event(event: GatewayEvent) -> Event {
    Event::Arm(ArmEvent::Gateway(event))
}

// === impl Sim ===

impl Sim {
    pub(super) fn begin_gateway(&mut self) {
        let Some(arm) = &self.arm else { return };
        let sessions = match arm.scenario.gateway.quiet {
            true => 0,
            false => arm.scenario.sessions,
        };
        let script = arm.gateway.script.iter();
        let due: Vec<u64> = script.map(|p| arm.begun_us + p.at_ms * 1000).collect();
        for (place, at_us) in due.into_iter().enumerate() {
            let event = gateway_event(GatewayEvent::Scripted(place));
            self.events.push(at_us, place as u64, event);
        }
        (0..sessions).for_each(|index| self.plans(index));
    }

    /// A post of the script begins.
    fn scripted(&mut self, place: usize) {
        let Some(arm) = &mut self.arm else { return };
        let Some(planned) = arm.gateway.script.get(place).cloned() else {
            return;
        };
        let mut flow = Flow::once(planned.outgoing);
        let Some(outgoing) = flow.start() else { return };
        let running = Running {
            key: planned.key.map(Arc::from),
            index: planned.index,
            caller: planned.caller,
            policy: planned.retries,
            comes_up: false,
            flow,
            outgoing,
            items: planned.items,
            retries: Retries::default(),
            is_retry: false,
            expected: planned.expected,
            dice: ChaCha8Rng::seed_from_u64(arm.scenario.seed),
        };
        // Beyond every flow of the schedules: their numbers decide their dice.
        let id = u64::MAX - place as u64;
        arm.gateway.flows.insert(id, running);
        self.wants_to_send(id);
    }

    /// The request as its caller sends it.
    fn signed(&mut self, caller: &Caller, index: usize, request: Request) -> Request {
        let Some(arm) = &mut self.arm else {
            return request;
        };
        arm.gateway.signed += 1;
        let is_paired = arm.gateway.paired.contains(&index);
        caller.sign(request, arm.gateway.signed, is_paired)
    }

    /// Each session is asked for once before the first event: nothing of it is measured.
    pub(super) fn warms_up(&mut self, index: usize) {
        let Some(arm) = &self.arm else { return };
        let Some(identity) = arm.gateway.identities.get(index).cloned() else {
            return;
        };
        let session = Arc::from(identity.session);
        let mut flow = Flow::new(PREFIX.into(), session, What::Expired);
        let Some(outgoing) = flow.start() else { return };
        let stream = self.sends_first(&identity.caller, index, outgoing);
        if let Some(arm) = &mut self.arm {
            arm.gateway.warming.insert(stream);
        }
    }

    /// Something is said of a session, so that what is asked of it afterwards is kept.
    pub(super) fn introduces(&mut self, index: usize) {
        let Some(arm) = &self.arm else { return };
        let Some(identity) = arm.gateway.identities.get(index).cloned() else {
            return;
        };
        let session = Arc::from(identity.session);
        if let Some(outgoing) = Flow::pending(PREFIX.into(), session) {
            self.sends_first(&identity.caller, index, outgoing);
        }
    }

    fn sends_first(&mut self, caller: &Caller, index: usize, outgoing: Outgoing) -> u64 {
        let name = self
            .arm
            .as_ref()
            .and_then(|arm| arm.gateway.identities.get(index));
        let name = name.map(|identity| identity.key.clone());
        let update = outgoing.update.map(|(_, value)| value);
        let update = name.zip(update);
        let request = self.signed(caller, index, outgoing.request);
        let stream = self.add_stream(None, request.clone(), update);
        self.reaches_a_worker(stream, &request);
        stream
    }

    /// What happens to a session next, unless that is after the scenario's end.
    fn plans(&mut self, index: usize) {
        let Some(arm) = &mut self.arm else { return };
        let end_us = arm.sent_until_us();
        let Some(schedule) = arm.gateway.schedules.get_mut(index) else {
            return;
        };
        let event = schedule.next_event();
        let at_us = arm.begun_us + event.at_ms * 1000;
        if at_us < end_us {
            let begins = GatewayEvent::Begins(index, event.what);
            self.events.push(at_us, index as u64, gateway_event(begins));
        }
    }

    pub(super) fn gateway_event(&mut self, event: GatewayEvent) {
        match event {
            GatewayEvent::Begins(index, what) => {
                self.plans(index);
                self.flow_begins(index, what);
            }
            GatewayEvent::Scripted(place) => self.scripted(place),
            GatewayEvent::Sends(flow) => self.wants_to_send(flow),
            GatewayEvent::Answered(stream, answer) => self.is_answered(stream, &answer),
        }
    }

    fn flow_begins(&mut self, index: usize, what: What) {
        let Some(arm) = &mut self.arm else { return };
        let (gateway, seed) = (&mut arm.gateway, arm.scenario.seed);
        let Some(identity) = gateway.identities.get(index).cloned() else {
            return;
        };
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(gateway.begun);
        let id = gateway.begun;
        gateway.begun += 1;
        gateway.report.events += 1;
        let comes_up = matches!(what, What::Active);
        if matches!(what, What::LoggedOut) {
            gateway.paired.remove(&index);
        }
        let mut flow = Flow::new(PREFIX.into(), Arc::from(identity.session), what);
        let Some(outgoing) = flow.start() else { return };
        let running = Running {
            key: Some(Arc::from(identity.key)),
            index,
            caller: identity.caller,
            policy: gateway.retries.clone(),
            comes_up,
            flow,
            outgoing,
            items: Vec::new(),
            retries: Retries::default(),
            is_retry: false,
            expected: None,
            dice,
        };
        gateway.flows.insert(id, running);
        self.wants_to_send(id);
    }

    /// A flow sends, or waits for a connection: Node's agent has so many.
    fn wants_to_send(&mut self, flow: u64) {
        let Some(arm) = &mut self.arm else { return };
        let gateway = &mut arm.gateway;
        if gateway.connections >= CONNECTIONS_MAX {
            gateway.waiting.push_back(flow);
        } else if gateway.flows.contains_key(&flow) {
            gateway.connections += 1;
            self.sends(flow);
        }
    }

    fn sends(&mut self, flow: u64) {
        let now_us = self.now_us;
        let Some(arm) = &mut self.arm else { return };
        let gateway = &mut arm.gateway;
        let Some(running) = gateway.flows.get(&flow) else {
            return;
        };
        let Outgoing {
            kind,
            update,
            request,
        } = running.outgoing.clone();
        let (caller, index) = (running.caller.clone(), running.index);
        let items = running.items.clone();
        let timeout_us = running.policy.timeout_ms * 1000;
        let mut places = Vec::new();
        // What a stranger says is in no log, and the checker sees that too.
        let mut named = named_in(&request.body);
        if let Some(key) = &running.key {
            let report = &mut gateway.report;
            report.sending(now_us, kind, running.is_retry);
            let single = update.iter();
            let single = single.map(|(route, value)| (key.to_string(), *route, value.clone()));
            for (key, route, value) in single.chain(items) {
                let place = report.sent.sent(&key, Sent::new(route, value, now_us));
                places.push((key, place));
            }
            named = update.map(|(_, value)| (key.to_string(), value));
        }
        let request = self.signed(&caller, index, request);
        let stream = self.add_stream(None, request.clone(), named);
        if let Some(arm) = &mut self.arm {
            let under_way = UnderWay {
                flow,
                places,
                outcome: None,
            };
            arm.gateway.streams.insert(stream, under_way);
        }
        let gives_up = GatewayEvent::Answered(stream, Answer::Timeout);
        self.after_us(timeout_us, gateway_event(gives_up));
        match kind {
            Kind::Other if !self.is_stopped(&request) => {
                self.send(Client::Direct { stream }, request, ROUTE_TIMEOUT_MS, None);
            }
            // The filter is off on every other route.
            _ => self.reaches_a_worker(stream, &request),
        }
    }

    /// Whether a barrier is on the request's path: then the filter is on there.
    fn is_stopped(&self, request: &Request) -> bool {
        let path = request.path.strip_prefix(PREFIX).unwrap_or_default();
        let barriers = self.arm.iter().flat_map(|arm| &arm.gateway.barriers);
        barriers.into_iter().any(|barrier| {
            barrier.method == request.method && barrier.path.fit(path.as_bytes()).is_some()
        })
    }

    /// A connection belongs to one worker; which one is the kernel's choice.
    fn reaches_a_worker(&mut self, stream: u64, request: &Request) {
        let authority = request.authority().unwrap_or(crate::sim::AUTHORITY);
        let mut headers: Headers = vec![
            (":method".into(), request.method.clone().into_bytes()),
            (":path".into(), request.path.clone().into_bytes()),
            (":authority".into(), authority.into()),
        ];
        let own = request.headers.iter().filter(|(name, _)| name != "host");
        headers.extend(own.map(|(name, value)| (name.clone(), value.to_vec())));
        let pieces = match request.body.is_empty() {
            true => Vec::new(),
            false => vec![request.body.clone()],
        };
        let body = Body {
            pieces,
            ..Body::default()
        };
        let job = Job::Request {
            stream,
            headers,
            body,
        };
        let thread = self.dice.random_range(1..=self.scenario.workers);
        let us = self.way_us();
        let vm = None;
        self.after_us(us, Event::Post { thread, vm, job });
    }

    /// The `x-embudo` of an answer that is on its way.
    pub(in super::super) fn outcome_is(&mut self, stream: u64, outcome: &str) {
        let gateway = self.arm.as_mut().map(|arm| &mut arm.gateway);
        let under_way = gateway.and_then(|gateway| gateway.streams.get_mut(&stream));
        if let Some(under_way) = under_way {
            under_way.outcome = Some(outcome.to_owned());
        }
    }

    // ## UnderWay => (Waiting | next of the flow | Over)

    /// A send is answered or given up, whichever came first.
    fn is_answered(&mut self, stream: u64, answer: &Answer) {
        match answer {
            Answer::Timeout => self.hangs_up(stream),
            _ => self.traffic.forget(stream),
        }
        let now_us = self.now_us;
        let Some(arm) = &mut self.arm else { return };
        let gateway = &mut arm.gateway;
        if answer.is_success() && gateway.warming.remove(&stream) {
            return;
        }
        let Some(under_way) = gateway.streams.remove(&stream) else {
            return;
        };
        gateway.connections -= 1;
        let flow = under_way.flow;
        // The load has ended: nobody is there to note it.
        if let Some(running) = gateway.flows.get_mut(&flow) {
            let (report, kind) = (&mut gateway.report, running.outgoing.kind);
            let (status, outcome) = match answer {
                Answer::Status(status, _) => (Some(*status), under_way.outcome),
                Answer::NetworkError | Answer::Timeout => (None, None),
            };
            if let Some(expected) = &running.expected {
                let body = match answer {
                    Answer::Status(_, body) => Some(&body[..]),
                    Answer::NetworkError | Answer::Timeout => None,
                };
                let wrong = expected.verdict(body, outcome.as_deref());
                report.wrong_reads.extend(wrong);
            }
            if running.key.is_some() {
                report.ended(now_us, kind, answer, &outcome);
                for (key, place) in under_way.places {
                    let outcome = outcome.clone();
                    report.sent.ended(&key, place, now_us, status, outcome);
                }
            }
            let wait_ms = running
                .retries
                .after(&running.policy, answer, &mut running.dice);
            self.goes_on(flow, answer, wait_ms);
        }
        self.connection_is_free();
    }

    fn goes_on(&mut self, flow: u64, answer: &Answer, wait_ms: Option<u64>) {
        let Some(arm) = &mut self.arm else { return };
        let flows = &mut arm.gateway.flows;
        let Some(running) = flows.get_mut(&flow) else {
            return;
        };
        if let Some(wait_ms) = wait_ms {
            running.is_retry = true;
            let again = gateway_event(GatewayEvent::Sends(flow));
            return self.after_us(wait_ms * 1000, again);
        }
        match running.flow.next(answer) {
            Some(outgoing) => {
                running.outgoing = outgoing;
                running.retries = Retries::default();
                running.is_retry = false;
                self.wants_to_send(flow);
            }
            None => {
                let ended = flows.remove(&flow).filter(|running| running.comes_up);
                arm.gateway
                    .paired
                    .extend(ended.map(|running| running.index));
            }
        }
    }

    fn connection_is_free(&mut self) {
        let Some(arm) = &mut self.arm else { return };
        if let Some(next) = arm.gateway.waiting.pop_front() {
            self.wants_to_send(next);
        }
    }
}

/// A configuration's barriers.
fn barriers(filter: &Value) -> Vec<Barrier> {
    let mut filter = filter.clone();
    if let Some(filter) = filter.as_object_mut() {
        // Only a module that was built for it knows that.
        filter.remove("sabotage");
    }
    let config = Config::parse(filter.to_string().as_bytes());
    config.map_or_else(|_| Vec::new(), |config| config.barriers)
}

/// The session and the value that a body names.
fn named_in(body: &[u8]) -> Option<(String, String)> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let text = |name: &str| body.get(name)?.as_str().map(str::to_owned);
    Some((
        text("session_id")?,
        text("qr").or_else(|| text("estado_qr"))?,
    ))
}
