//! The gateway: who sends what, how often, and through which worker.

mod session;

use bytes::Bytes;
use rand::{Rng, RngExt};
use std::collections::BTreeMap;

use self::session::Session;
use super::arm::ArmEvent;
use super::caller::{Tenancy, token};
use super::events::Preset;
use super::queue::Event;
use super::{START_US, Scenario, Sim, Style};
use crate::model::gateway::{Answer, Flow, Outgoing, Retries, RetryPolicy, What, session_ids};
use crate::model::http::Request;
use crate::sim::abi::Headers;
use crate::sim::host::{Body, Job, StreamFate};

/// More sessions than any scenario has.
pub(super) const SESSIONS_MAX: usize = 64;

/// The gateway's events.
#[derive(Debug)]
pub(super) enum TrafficEvent {
    /// A session does what it does next.
    Next(usize),
    /// A request is sent, once more.
    Send(u64),
    /// The gateway's patience with a stream is over.
    TimesOut(u64),
    /// A caller hangs up before he has his answer.
    HangsUp(u64),
    /// Envoy closes the stream's connection: its listener is drained.
    Closed(u64),
    /// An answer reaches the gateway.
    Answered(u64, Answer),
    /// A tenant's second token is valid from now on.
    Rotates(usize),
    /// A tenant's first token is not valid any more.
    Revokes(usize),
    /// Another route than Embudo's changes a session's state, by its place in the script.
    Panel(usize),
}

/// A request with its retries.
#[derive(Debug)]
struct Sending {
    session: usize,
    outgoing: Outgoing,
    retries: Retries,
    /// `None`: a send of its own, without a flow.
    flow: Option<Flow>,
}

/// A request under way.
#[derive(Debug)]
struct Stream {
    sending: Option<u64>,
    request: Request,
    update: Option<(String, String)>,
    /// Nobody waits for its answer any more.
    hung_up: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Traffic {
    sessions: Vec<Session>,
    sendings: BTreeMap<u64, Sending>,
    streams: BTreeMap<u64, Stream>,
    policy: RetryPolicy,
    last: u64,
    requests: u64,
}

// === impl Traffic ===

impl Traffic {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let names = session_ids(scenario.seed, SESSIONS_MAX);
        let preset = Preset::of(&scenario.config);
        let sessions = scenario.sessions.iter().map(|plan| {
            let name = names.get(plan.index).cloned().unwrap_or_default();
            Session::new(scenario, plan, name, preset)
        });
        Self {
            sessions: sessions.collect(),
            sendings: BTreeMap::new(),
            streams: BTreeMap::new(),
            policy: RetryPolicy::default().compressed(10.0),
            last: 0,
            requests: 0,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.streams.is_empty() || !self.sendings.is_empty()
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// A stream's request, and its session and value if it is an update.
    pub(super) fn request_of(&self, stream: u64) -> Option<(&Request, Option<&(String, String)>)> {
        let stream = self.streams.get(&stream)?;
        Some((&stream.request, stream.update.as_ref()))
    }

    /// Nobody waits for a stream any more, and whoever sent it does not send it again.
    pub(super) fn forget(&mut self, stream: u64) {
        if let Some(sending) = self.streams.remove(&stream).and_then(|s| s.sending) {
            self.sendings.remove(&sending);
        }
    }

    /// A caller hangs up; false where his request is over, or he has done so before.
    pub(super) fn hangs_up(&mut self, stream: u64) -> bool {
        let stream = self.streams.get_mut(&stream);
        stream.is_some_and(|stream| !std::mem::replace(&mut stream.hung_up, true))
    }

    pub(super) fn has_hung_up(&self, stream: u64) -> bool {
        let stream = self.streams.get(&stream);
        stream.is_some_and(|stream| stream.hung_up)
    }

    pub(super) fn had_body(&self, stream: u64) -> bool {
        let stream = self.streams.get(&stream);
        stream.is_some_and(|stream| !stream.request.body.is_empty())
    }
}

// === impl Sim ===

impl Sim {
    pub(super) fn begin_traffic(&mut self) {
        if let Some(tenancy) = Tenancy::of(&self.scenario) {
            for (tenant, (rotates_ms, revokes_ms)) in tenancy.rotations.into_iter().enumerate() {
                self.admit(tenant, 0);
                for (at_ms, event) in [
                    (rotates_ms, TrafficEvent::Rotates(tenant)),
                    (revokes_ms, TrafficEvent::Revokes(tenant)),
                ] {
                    self.after_us(at_ms * 1000, Event::Traffic(event));
                }
            }
        }
        for (at, (_, at_ms, _)) in self.scenario.laravel.panel.clone().into_iter().enumerate() {
            self.after_us(at_ms * 1000, Event::Traffic(TrafficEvent::Panel(at)));
        }
        for index in 0..self.traffic.sessions.len() {
            self.next_of(index);
        }
    }

    /// Laravel knows a tenant's token, and whose sessions it speaks for.
    fn admit(&mut self, tenant: usize, generation: usize) {
        let token = token(tenant, generation);
        let token = token.trim_start_matches("Bearer ");
        for session in &self.traffic.sessions {
            if Tenancy::tenant_of(session.plan.index) == tenant {
                self.net.laravel.tenants_mut().add(token, &session.name);
            }
        }
    }

    /// Plans what a session does next.
    fn next_of(&mut self, index: usize) {
        let session = &mut self.traffic.sessions[index];
        let at_us = match (&mut session.schedule, session.plan.style) {
            (Some(_), _) => return self.next_of_schedule(index),
            (None, Style::Chaos { gap_ms, .. }) => {
                // Often within a moment of each other, through different workers.
                let gap_us = match session.dice.random_bool(0.3) {
                    true => session.dice.random_range(0..=300),
                    false => session.dice.random_range(0..=gap_ms * 1000),
                };
                self.now_us.max(START_US + 60_000) + gap_us
            }
            (None, Style::Round { gap_ms }) => self.now_us.max(START_US + 60_000) + gap_ms * 1000,
            (None, Style::Gateway { .. }) => return,
        };
        let order = self.dice.next_u64();
        self.events
            .push(at_us, order, Event::Traffic(TrafficEvent::Next(index)));
    }

    fn next_of_schedule(&mut self, index: usize) {
        let Some(schedule) = &mut self.traffic.sessions[index].schedule else {
            return;
        };
        let event = schedule.next_event();
        let at_us = START_US + 60_000 + event.at_ms * 1000;
        if event.at_ms >= self.scenario.traffic_ms {
            return;
        }
        let name = self.traffic.sessions[index].name.clone();
        self.traffic.sessions[index].flows += 1;
        let order = self.dice.next_u64();
        let sending = self.new_sending(index, event.what, &name);
        if let Some(sending) = sending {
            let event = Event::Traffic(TrafficEvent::Send(sending));
            self.events.push(at_us, order, event);
        }
        let next = Event::Traffic(TrafficEvent::Next(index));
        self.events.push(at_us, order.wrapping_add(1), next);
    }

    fn new_sending(&mut self, session: usize, what: What, name: &str) -> Option<u64> {
        let mut flow = Flow::new("/api".into(), name.into(), what);
        let outgoing = flow.start()?;
        Some(self.add_sending(Sending {
            session,
            outgoing,
            retries: Retries::default(),
            flow: Some(flow),
        }))
    }

    fn add_sending(&mut self, sending: Sending) -> u64 {
        self.traffic.last += 1;
        let id = self.traffic.last;
        self.traffic.sendings.insert(id, sending);
        id
    }

    fn is_over(&self) -> bool {
        self.now_us >= START_US + self.scenario.traffic_ms * 1000
    }

    pub(super) fn traffic_event(&mut self, event: TrafficEvent) {
        match event {
            TrafficEvent::Next(index) => {
                if self.is_over() {
                    return;
                }
                let session = &mut self.traffic.sessions[index];
                let (outgoing, patient) = match session.plan.style {
                    Style::Gateway { .. } => return self.next_of_schedule(index),
                    Style::Chaos { patient, .. } => {
                        let reads = session.caller.reads() && session.preset.is_none();
                        let outgoing = match (reads, session.other()) {
                            (_, Some(other)) => other,
                            (true, _) => session.read(),
                            (false, _) => session.anything(),
                        };
                        (session.with_credential(outgoing), patient)
                    }
                    Style::Round { .. } => (session.round(), true),
                };
                let id = self.add_sending(Sending {
                    session: index,
                    outgoing,
                    retries: Retries::default(),
                    flow: None,
                });
                self.send_now(id);
                if !patient {
                    self.next_of(index);
                }
            }
            TrafficEvent::Rotates(tenant) => {
                self.note("world", tenant as u64, || {
                    format!("tenant {tenant} has a new token")
                });
                self.admit(tenant, 1);
            }
            TrafficEvent::Revokes(tenant) => {
                self.note("world", tenant as u64, || {
                    format!("tenant {tenant}'s first token is void")
                });
                let token = token(tenant, 0);
                let token = token.trim_start_matches("Bearer ");
                self.net.laravel.tenants_mut().revoke(token);
            }
            TrafficEvent::Panel(at) => self.panel(at),
            TrafficEvent::Send(id) => self.send_now(id),
            TrafficEvent::TimesOut(stream) | TrafficEvent::HangsUp(stream) => {
                let known = self.traffic.streams.get_mut(&stream);
                let sending = known.and_then(|stream| stream.sending.take());
                self.hangs_up(stream);
                if let Some(sending) = sending {
                    self.answered(sending, &Answer::Timeout);
                }
            }
            TrafficEvent::Closed(stream) => {
                let known = self.traffic.streams.get_mut(&stream);
                let sending = known.and_then(|stream| stream.sending.take());
                self.connection_ends(stream, StreamFate::drained);
                if self.arm.is_some() {
                    let event = ArmEvent::answered(stream, Answer::NetworkError);
                    self.after_us(1, Event::Arm(event));
                }
                if let Some(sending) = sending {
                    self.answered(sending, &Answer::NetworkError);
                }
            }
            TrafficEvent::Answered(stream, answer) => {
                let stream = self.traffic.streams.remove(&stream);
                if let Some(sending) = stream.and_then(|stream| stream.sending) {
                    self.answered(sending, &answer);
                }
            }
        }
    }

    /// A panel stops a session, or starts it: Embudo does not hear of it.
    fn panel(&mut self, at: usize) {
        let Some((session, _, state)) = self.scenario.laravel.panel.get(at).copied() else {
            return;
        };
        let sessions = self.traffic.sessions.iter();
        let Some(session) = sessions.into_iter().find(|s| s.plan.index == session) else {
            return;
        };
        let name = session.name.clone();
        self.note("panel", at as u64, || format!("sets {name} to {state}"));
        let now_ms = self.now_us / 1000;
        self.net.laravel.set_state(now_ms, &name, state);
        self.hub.lock().checker.panel_sets(&name, state);
    }

    fn send_now(&mut self, id: u64) {
        let Some(sending) = self.traffic.sendings.get(&id) else {
            return;
        };
        let name = &self.traffic.sessions[sending.session].name;
        let update = sending.outgoing.update.clone();
        let update = update.map(|(_, value)| (name.clone(), value));
        let (at, kind) = (sending.session, sending.outgoing.kind);
        let mut request = sending.outgoing.request.clone();
        let now_ms = (self.now_us - START_US) / 1000;
        if let Some(token) = self.traffic.sessions[at].caller.token(now_ms) {
            request = request.with_header("authorization", token);
        }
        for (name, value) in self.traffic.sessions[at].caller.dress() {
            request = request.with_header(name, value);
        }
        let timeout_us = self.traffic.policy.timeout_ms * 1000;
        let stream = self.add_stream(Some(id), request, update);
        self.note("gateway", stream, || {
            let update = self
                .traffic
                .request_of(stream)
                .and_then(|(_, update)| update.cloned());
            let (name, value) = update.unwrap_or_default();
            let (name, value) = (
                name.get(..4).unwrap_or(""),
                value.get(..14).unwrap_or(&value),
            );
            let request = self.traffic.request_of(stream).map(|(request, _)| request);
            let token = request.and_then(|request| request.header("authorization"));
            let path = request.map_or("", |request| request.path.as_str());
            let of = if name.is_empty() { path } else { name };
            format!(
                "request {stream}: {} {of} {value} {}",
                kind.name(),
                token.unwrap_or("")
            )
        });
        let worker = self.dice.random_range(1..=self.scenario.workers);
        self.deliver(stream, worker);
        if let Some(after_us) = self.traffic.sessions[at].caller.hangs_up() {
            self.after_us(after_us, Event::Traffic(TrafficEvent::HangsUp(stream)));
        }
        let event = Event::Traffic(TrafficEvent::TimesOut(stream));
        self.after_us(timeout_us, event);
    }

    pub(super) fn add_stream(
        &mut self,
        sending: Option<u64>,
        request: Request,
        update: Option<(String, String)>,
    ) -> u64 {
        self.traffic.last += 1;
        self.traffic.requests += 1;
        let id = self.traffic.last;
        let stream = Stream {
            sending,
            request,
            update,
            hung_up: false,
        };
        self.traffic.streams.insert(id, stream);
        id
    }

    /// A request reaches a worker.
    fn deliver(&mut self, stream: u64, thread: usize) {
        let Some((request, _)) = self.traffic.request_of(stream) else {
            return;
        };
        let authority = request.authority().unwrap_or(crate::sim::AUTHORITY);
        let mut headers: Headers = vec![
            (":method".into(), request.method.clone().into_bytes()),
            (":path".into(), request.path.clone().into_bytes()),
            (":authority".into(), authority.into()),
        ];
        let own = request.headers.iter().filter(|(name, _)| name != "host");
        headers.extend(own.map(|(name, value)| (name.clone(), value.to_vec())));
        let whole = request.body.clone();
        let mut body = self.pieces(whole);
        if self.breaks_off(stream, &mut body) {
            let event = Event::Traffic(TrafficEvent::HangsUp(stream));
            self.after_us(self.scenario.network_us, event);
        }
        let us = self.way_us();
        let job = Job::Request {
            stream,
            headers,
            body,
        };
        let vm = None;
        self.after_us(us, Event::Post { thread, vm, job });
    }

    /// Whether the caller hangs up in the middle of his body.
    fn breaks_off(&mut self, stream: u64, body: &mut Body) -> bool {
        let known = self.traffic.streams.get(&stream);
        let sending = known.and_then(|stream| stream.sending);
        let sending = sending.and_then(|id| self.traffic.sendings.get(&id));
        let Some(at) = sending.map(|sending| sending.session) else {
            return false;
        };
        let breaks = self.traffic.sessions[at].caller.breaks_off() && !body.pieces.is_empty();
        if breaks {
            body.trailers = false;
            body.cut = true;
        }
        breaks
    }

    /// A body comes whole, mostly; sometimes in two pieces, sometimes with trailers behind.
    fn pieces(&mut self, whole: Bytes) -> Body {
        if whole.is_empty() {
            return Body::default();
        }
        let trailers = self.dice.random_ratio(1, 20);
        let pieces = match self.dice.random_ratio(1, 5) {
            true => {
                let at = self.dice.random_range(0..=whole.len());
                vec![whole.slice(..at), whole.slice(at..)]
            }
            false => vec![whole],
        };
        Body {
            pieces,
            trailers,
            cut: false,
        }
    }

    /// A request that nobody counts, so that a dead worker comes back.
    pub(super) fn probe(&mut self, thread: usize) {
        let request = Request::new("GET", "/api/whatsapp/accounts/active");
        let stream = self.add_stream(None, request, None);
        self.deliver(stream, thread);
    }

    /// An answer leaves Envoy; status 0 is a broken connection.
    pub(super) fn answer_gateway(&mut self, stream: u64, status: u16, body: Bytes) {
        let answer = match status {
            0 => Answer::NetworkError,
            status => Answer::Status(status, body),
        };
        let us = self.way_us();
        if self.arm.is_some() {
            return self.after_us(us, Event::Arm(ArmEvent::answered(stream, answer)));
        }
        let event = TrafficEvent::Answered(stream, answer);
        self.after_us(us, Event::Traffic(event));
    }

    /// A send is answered or given up: again, the flow's next request, or the session's next send.
    fn answered(&mut self, id: u64, answer: &Answer) {
        let over = self.is_over();
        let Some(mut sending) = self.traffic.sendings.remove(&id) else {
            return;
        };
        let session = sending.session;
        let dice = &mut self.traffic.sessions[session].dice;
        if !over && let Some(wait_ms) = sending.retries.after(&self.traffic.policy, answer, dice) {
            self.traffic.sendings.insert(id, sending);
            let event = Event::Traffic(TrafficEvent::Send(id));
            return self.after_us(wait_ms * 1000, event);
        }
        match sending.flow.as_mut().map(|flow| flow.next(answer)) {
            Some(Some(outgoing)) => {
                sending.outgoing = outgoing;
                sending.retries = Retries::default();
                let id = self.add_sending(sending);
                self.send_now(id);
            }
            Some(None) => {}
            None => {
                let patient = matches!(
                    self.traffic.sessions[session].plan.style,
                    Style::Chaos { patient: true, .. } | Style::Round { .. }
                );
                if patient && !over {
                    self.next_of(session);
                }
            }
        }
    }
}
