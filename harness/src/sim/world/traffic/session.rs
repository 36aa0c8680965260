//! One session: what it sends next.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::gateway::{GatewayConfig, Outgoing, Schedule};
use crate::model::http::{Kind, Request, Route};
use crate::sim::world::caller::Caller;
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
    /// Whoever calls for it: whether it reads, under which name, and how patiently.
    pub(super) caller: Caller,
    pub(super) schedule: Option<Schedule>,
    /// Whose events it sends, where it is not our own gateway.
    pub(super) preset: Option<&'static Preset>,
    /// Flows under way.
    pub(super) flows: usize,
    sent: u64,
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
        let schedule = match plan.style {
            Style::Gateway { times_faster } => {
                let config = GatewayConfig {
                    scan_probability: 0.3,
                    restart_probability: 0.7,
                    time_compression: f64::from(times_faster),
                };
                Some(Schedule::new(config, scenario.seed, plan.index))
            }
            Style::Chaos { .. } | Style::Round { .. } => None,
        };
        Self {
            preset,
            credentials: scenario.credentials,
            caller: Caller::new(scenario, plan.index),
            name,
            plan,
            dice,
            schedule,
            flows: 0,
            sent: 0,
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
        self.update(Route::Status, state)
    }

    /// Laravel is asked for the state.
    pub(super) fn read(&mut self) -> Outgoing {
        let path = format!("/api/whatsapp/status/{}", self.name);
        let mut request = Request::new("GET", path).with_header("accept", "application/json");
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
        let (kind, field, path) = match route {
            Route::Qr => (Kind::PostQr, "qr", "/api/qr"),
            Route::Status => (Kind::PostStatus, "estado_qr", "/api/whatsapp/status"),
        };
        let body = format!(r#"{{"session_id":"{}","{field}":"{value}"}}"#, self.name);
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
