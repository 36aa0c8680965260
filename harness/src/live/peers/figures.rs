//! What is measured of an arm in a phase.

use std::time::Duration;

use serde::Serialize;

use crate::live::load::LoadReport;
use crate::live::staleness::staleness;
use crate::model::http::Route;
use crate::model::laravel::{Entry, Laravel};
use crate::model::order::{self, FinalStates, final_states};

/// What an arm has done.
pub(super) struct Evidence {
    pub(super) load: LoadReport,
    /// Where it was measured.
    pub(super) cpu: Option<Cpu>,
    /// Whether the items' timestamps must rise too.
    pub(super) timestamps_order: bool,
    pub(super) memory_kb: u64,
    /// What the middle still holds.
    pub(super) pending: u64,
    /// QRs that ran out on their way.
    pub(super) expired: u64,
    /// Items that Laravel refused.
    pub(super) rejected: u64,
    pub(super) settled_after: Duration,
}

/// CPU seconds by who has used them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Who makes the traffic.
    pub gateway: f64,
    /// What is between the gateway and Laravel.
    pub middle: f64,
    /// The stand-in Laravel, which sleeps where PHP works: its requests compare, its CPU hardly.
    pub laravel: f64,
}

/// The figures. Times are in ms.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// The gateway's events.
    pub events: u64,
    /// Updates that were taken from the gateway.
    pub accepted: u64,
    /// Requests that Laravel got, of any kind.
    pub laravel_requests: u64,
    /// Bytes of their bodies.
    pub laravel_bytes: u64,
    /// The same, a minute.
    pub laravel_requests_per_minute: f64,
    /// How long the gateway was busy with an event.
    pub event_ms_p50: f64,
    /// The slowest in a hundred.
    pub event_ms_p99: f64,
    /// From when a QR was sent until it was in force at Laravel.
    pub staleness_ms_p50: u64,
    /// The oldest in a hundred.
    pub staleness_ms_p99: u64,
    /// CPU seconds for 1,000 events, where the arm had the machine for itself.
    pub cpu_s_per_1000_events: Option<Cpu>,
    /// Resident memory of the middle at the end.
    pub memory_mb: f64,
    /// Routes of sessions at whose end Laravel has another value than the newest that was accepted, and what the
    /// middle still holds.
    pub lost: u64,
    /// Values that took effect after a newer one.
    pub out_of_order: u64,
    /// QRs that ran out on their way, as they do in life.
    pub expired: u64,
    /// Items that Laravel's validation refused, as the middle counts them.
    pub rejected: u64,
    /// Laravel's 422s.
    pub refusals: u64,
    /// Sessions whose end could be compared.
    pub compared: u64,
    /// Sessions for whose last update nothing was promised: it was refused, or never answered.
    pub undecided: u64,
    /// How long the last updates took once the gateway had stopped.
    pub settled_after_ms: u64,
}

// === impl Cpu ===

impl Cpu {
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            gateway: self.gateway - before.gateway,
            middle: self.middle - before.middle,
            laravel: self.laravel - before.laravel,
        }
    }

    fn for_1000_of(&self, events: u64) -> Self {
        let each = |seconds: f64| round(seconds * 1000.0 / events.max(1) as f64);
        Self {
            gateway: each(self.gateway),
            middle: each(self.middle),
            laravel: each(self.laravel),
        }
    }
}

// === impl Figures ===

impl Figures {
    pub(super) fn new(evidence: &Evidence, laravel: &Laravel, now_ms: u64) -> Self {
        let Evidence { load, .. } = evidence;
        let journal = laravel.journal();
        let counts = journal.counts(now_ms);
        let finals = final_states(laravel, &load.sent);
        let stale = staleness(journal.entries(), &load.sent, Route::Qr);
        let updates = load.sent.sessions().flat_map(|(_, sends)| sends);
        let event_ms = |q: f64| load.events_took.from_due.value_at_quantile(q) as f64 / 1000.0;
        let refusals = journal.answers().iter();
        let refusals = refusals.filter(|((_, status), _)| *status == 422);
        let minutes = load.sent_for.as_secs_f64() / 60.0;
        Self {
            events: load.events,
            accepted: updates.filter(|send| send.is_accepted()).count() as u64,
            laravel_requests: counts.requests(),
            laravel_bytes: counts.bytes(),
            laravel_requests_per_minute: round(counts.requests() as f64 / minutes.max(0.001)),
            event_ms_p50: event_ms(0.5),
            event_ms_p99: event_ms(0.99),
            staleness_ms_p50: stale.value_at_quantile(0.5),
            staleness_ms_p99: stale.value_at_quantile(0.99),
            cpu_s_per_1000_events: evidence.cpu.map(|cpu| cpu.for_1000_of(load.events)),
            memory_mb: round(evidence.memory_kb as f64 / 1024.0),
            lost: lost(&finals, evidence),
            out_of_order: out_of_order(journal.entries(), evidence),
            expired: evidence.expired,
            rejected: evidence.rejected,
            refusals: refusals.map(|(_, count)| count).sum(),
            compared: finals.compared,
            undecided: finals.undecided,
            settled_after_ms: u64::try_from(evidence.settled_after.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// A QR that ran out is missing for a reason, and there are no more such than the middle has counted.
fn lost(finals: &FinalStates, evidence: &Evidence) -> u64 {
    let of = |route| finals.mismatches.iter().filter(move |m| m.route == route);
    let states = of(Route::Status).count() as u64;
    let qrs = of(Route::Qr).count() as u64;
    states + qrs.saturating_sub(evidence.expired) + evidence.pending
}

fn out_of_order(entries: &[Entry], evidence: &Evidence) -> u64 {
    let mut entries = entries.to_vec();
    if !evidence.timestamps_order {
        for entry in &mut entries {
            entry.timestamp = None;
        }
    }
    order::check(&entries, &evidence.load.sent).len() as u64
}

/// Three digits behind the point are more than these figures have.
fn round(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}
