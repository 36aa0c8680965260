//! One session: what it sends next.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use serde_json::json;

use super::SESSIONS_MAX;
use crate::model::gateway::{GatewayConfig, Outgoing, Schedule, session_ids};
use crate::model::http::{Kind, Request, Route};
use crate::scenario::Ask;
use crate::sim::world::caller::{Caller, TENANTS};
use crate::sim::world::events::Preset;
use crate::sim::world::scenario::pick;
use crate::sim::world::{Plan, Scenario, Style};

/// States as the gateway sends them; `inactive` is urgent, `active` and `inactive` void a QR.
const STATES: [&str; 4] = ["pending", "active", "connecting", "inactive"];

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) plan: Plan,
    credentials: bool,
    pub(super) name: String,
    pub(super) dice: ChaCha8Rng,
    /// For what it asks of other routes, and its gateway's batches.
    other_dice: ChaCha8Rng,
    others: u32,
    /// The sessions that its gateway may have in one batch with it: their numbers and names.
    together: Vec<(usize, String)>,
    /// Whoever calls for it: whether it reads, under which name, and how patiently.
    pub(super) caller: Caller,
    pub(super) schedule: Option<Schedule>,
    /// Whose events it sends, where it is not our own gateway.
    pub(super) preset: Option<&'static Preset>,
    /// Flows under way.
    pub(super) flows: usize,
    sent: u64,
    /// It says more of some states than of others.
    says_more: bool,
}

// === impl Session ===

impl Session {
    pub(super) fn new(
        scenario: &Scenario,
        plan: &Plan,
        name: String,
        preset: Option<&'static Preset>,
    ) -> Self {
        let mut plan = plan.clone();
        // Other gateways keep no schedule of ours.
        if let (Some(_), Style::Gateway { .. }) = (preset, plan.style) {
            plan.style = Style::Chaos {
                gap_ms: 1_000,
                patient: true,
            };
        }
        let mut dice = ChaCha8Rng::seed_from_u64(scenario.seed);
        dice.set_stream(1_000 + plan.index as u64);
        let says_more = matches!(plan.style, Style::Chaos { .. }) && dice.random_bool(0.3);
        let schedule = match plan.style {
            Style::Gateway { times_faster } => {
                let config = GatewayConfig {
                    scan_probability: 0.3,
                    restart_probability: 0.7,
                    time_compression: f64::from(times_faster),
                    ..GatewayConfig::default()
                };
                Some(Schedule::new(config, scenario.seed, plan.index))
            }
            Style::Chaos { .. } | Style::Round { .. } => None,
        };
        let mut other_dice = ChaCha8Rng::seed_from_u64(scenario.seed);
        other_dice.set_stream(8_000 + plan.index as u64);
        let names = session_ids(scenario.seed, SESSIONS_MAX);
        // Headers that tell callers apart are a session's own, and a token is of its tenant's sessions.
        let is_of = |index: usize| match Caller::are_dressed(scenario) {
            true => index == plan.index,
            false => !scenario.callers.tenants || index % TENANTS == plan.index % TENANTS,
        };
        let all = scenario.sessions.iter().map(|plan| plan.index);
        let together = all.filter(|index| is_of(*index));
        let together = together.filter_map(|index| Some((index, names.get(index)?.clone())));
        Self {
            other_dice,
            others: scenario.callers.others,
            together: together.collect(),
            preset,
            credentials: scenario.credentials,
            caller: Caller::new(scenario, plan.index),
            name,
            plan,
            dice,
            schedule,
            flows: 0,
            sent: 0,
            says_more,
        }
    }

    /// A send from a few values, so that they repeat: the last one again, an older one, a new one. Now
    /// and then it is nothing for Embudo.
    pub(super) fn anything(&mut self) -> Outgoing {
        self.sent += 1;
        if let Some(preset) = self.preset {
            return preset.event(&mut self.dice, &self.name, self.sent);
        }
        if self.dice.random_ratio(1, 50) {
            return self.something_else();
        }
        if self.dice.random_bool(0.45) {
            let number = match self.dice.random_bool(0.5) {
                true => self.dice.random_range(0..3),
                false => 3 + self.sent / 2,
            };
            let qr = format!("2@{:08x}{number:04}", self.plan.index);
            return self.update(Route::Qr, &qr);
        }
        let state = *pick(&mut self.dice, &STATES);
        let beside = match state {
            "active" if self.says_more => "phone",
            "inactive" if self.says_more => "reason",
            _ => return self.update(Route::Status, state),
        };
        let number = self.dice.random_range(0..2);
        self.update_with(Route::Status, state, &format!(r#","{beside}":{number}"#))
    }

    /// A batch of the gateway's own, or a request of another route, where it is one this time.
    pub(super) fn other(&mut self) -> Option<Outgoing> {
        if self.others == 0 || !self.other_dice.random_ratio(self.others.min(100), 100) {
            return None;
        }
        if self.other_dice.random_bool(0.6) {
            return Some(self.batch());
        }
        let asks = [Ask::Message, Ask::Message, Ask::Delete, Ask::LogOut];
        let (kind, request) = pick(&mut self.other_dice, &asks).request(&self.name);
        Some(Outgoing {
            kind,
            update: None,
            request,
        })
    }

    /// Of a few values each, so that they repeat; one session may be in it twice. Now and then it is none to be taken
    /// apart.
    fn batch(&mut self) -> Outgoing {
        let dice = &mut self.other_dice;
        let is_qrs = dice.random_bool(0.5);
        let (kind, path, list, field) = match is_qrs {
            true => (Kind::PostQrBatch, "/api/qr/batch", "qrs", "qr"),
            false => {
                let path = "/api/whatsapp/status/batch";
                (Kind::PostStatusBatch, path, "statuses", "estado_qr")
            }
        };
        let mut items = Vec::new();
        for _ in 0..dice.random_range(1..=5) {
            let (index, name) = pick(dice, &self.together).clone();
            let value = match is_qrs {
                true => format!("2@{index:08x}{:04}", dice.random_range(0..6)),
                false => (*pick(dice, &STATES)).to_owned(),
            };
            items.push(json!({ "session_id": name, field: value }));
        }
        let mut body = json!({ list: items });
        if dice.random_ratio(1, 20) {
            body["gateway"] = json!("one");
        }
        Outgoing {
            kind,
            update: None,
            request: Request::new("POST", path).with_json(body.to_string()),
        }
    }

    /// Laravel is asked for the state.
    pub(super) fn read(&mut self) -> Outgoing {
        let reading = self.caller.reading();
        let name = reading.other.unwrap_or(&self.name);
        let path = format!("/api/whatsapp/status/{name}{}", reading.query);
        let mut request = Request::new("GET", path).with_header("accept", "application/json");
        for (name, value) in reading.headers {
            request = request.with_header(name, value);
        }
        if self.caller.wants_the_truth() {
            request = request.with_header("cache-control", "no-cache");
        }
        Outgoing {
            kind: Kind::GetStatus,
            update: None,
            request,
        }
    }

    /// A token rotates, or two gateways share a session.
    pub(super) fn with_credential(&mut self, mut outgoing: Outgoing) -> Outgoing {
        if self.credentials {
            let token = *pick(&mut self.dice, &["Bearer one", "Bearer two"]);
            outgoing.request = outgoing.request.with_header("authorization", token);
        }
        outgoing
    }

    /// Every one of them new: urgent, ordinary, and a QR that the next one voids.
    pub(super) fn round(&mut self) -> Outgoing {
        self.sent += 1;
        let qr = format!("2@{:012}", self.sent);
        match self.sent % 4 {
            0 => self.update(Route::Qr, &qr),
            1 => self.update(Route::Status, "inactive"),
            2 => self.update(Route::Status, "connecting"),
            _ => self.update(Route::Status, "active"),
        }
    }

    fn update(&self, route: Route, value: &str) -> Outgoing {
        self.update_with(route, value, "")
    }

    /// The same, with members beside the value.
    fn update_with(&self, route: Route, value: &str, beside: &str) -> Outgoing {
        let (kind, field, path) = match route {
            Route::Qr => (Kind::PostQr, "qr", "/api/qr"),
            Route::Status => (Kind::PostStatus, "estado_qr", "/api/whatsapp/status"),
        };
        let name = &self.name;
        let body = format!(r#"{{"session_id":"{name}","{field}":"{value}"{beside}}}"#);
        Outgoing {
            kind,
            update: Some((route, value.to_owned())),
            request: Request::new("POST", path).with_json(body),
        }
    }

    /// What passes through untouched: a message, a body that is no JSON, an update without a session.
    fn something_else(&mut self) -> Outgoing {
        let (path, body) = *pick(
            &mut self.dice,
            &[
                ("/api/whatsapp-webhook/t", r#"{"message":"hello"}"#),
                ("/api/qr", "{"),
                ("/api/whatsapp/status", r#"{"estado_qr":"active"}"#),
            ],
        );
        Outgoing {
            kind: Kind::Other,
            update: None,
            request: Request::new("POST", path).with_json(body),
        }
    }
}
