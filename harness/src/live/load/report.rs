//! What a load saw.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::model::{gateway::Answer, http::Kind, order::SentLog, reads::ReadLog};

/// Ten minutes: no send waits longer, and the histogram's size depends on it.
const LATENCY_MAX_US: u64 = 600_000_000;

/// Three digits: 1 ms and 1.001 ms are told apart, and no more is needed.
const LATENCY_DIGITS: u8 = 3;

/// Counters to watch while the load runs.
#[derive(Debug, Default)]
pub struct LoadProgress {
    /// Events begun.
    pub events: AtomicU64,
    /// Requests sent, retries included.
    pub sends: AtomicU64,
    /// Answers of any status.
    pub answers: AtomicU64,
    /// Timeouts, network errors, and answers that are not 2xx.
    pub failures: AtomicU64,
    /// Flows under way.
    pub in_flight: AtomicU64,
    /// Reads that the store could answer only because it believes something; counted where reads are noted.
    pub believed: AtomicU64,
}

/// Latencies of one kind of request, in µs.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// From the moment a send was due until its answer: what the sender waits for. It includes the
    /// wait for a connection and the lateness of the load's own timer: about 0.1 ms for the first
    /// request of an event, up to 2 ms for a retry.
    pub from_due: Histogram<u64>,
    /// From the moment a send had its connection until its answer.
    pub from_sent: Histogram<u64>,
}

/// What happened within one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Requests sent.
    pub sends: u64,
    /// Answers of any status.
    pub answers: u64,
    /// Timeouts, network errors, and answers that are not 2xx.
    pub failures: u64,
}

/// What was due within one of [`super::LoadOptions::windows`].
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Latencies of the answered sends, of all kinds.
    pub latencies: Latencies,
    /// Timeouts, network errors, and answers that are not 2xx: how many of each kind.
    pub failed: BTreeMap<String, u64>,
}

/// The report.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// When the first event was due, in ms of the epoch.
    pub started_ms: u64,
    /// For how long events began.
    pub sent_for: Duration,
    /// Events begun.
    pub events: u64,
    /// Events not begun because too many flows were under way.
    pub shed: u64,
    /// Flows dropped at the end because they took too long.
    pub unfinished: u64,
    /// Requests sent, retries included.
    pub sends: BTreeMap<Kind, u64>,
    /// Those of them that were retries.
    pub retries: BTreeMap<Kind, u64>,
    /// Answers by kind, status, and `x-embudo`.
    pub answers: BTreeMap<(Kind, u16, Option<String>), u64>,
    /// Reads that were answered `inactive`.
    pub reads_inactive: u64,
    /// Sends whose connection was refused or broke.
    pub network_errors: BTreeMap<Kind, u64>,
    /// Sends without an answer in time.
    pub timeouts: BTreeMap<Kind, u64>,
    /// Latencies of the answered sends.
    pub latencies: BTreeMap<Kind, Latencies>,
    /// How long events took, from when they were due and from when they began, with all of their requests.
    pub events_took: Latencies,
    /// Second by second of the epoch.
    pub per_second: BTreeMap<u64, Second>,
    /// What was asked for with [`super::LoadOptions::windows`], in their order.
    pub windows: Vec<Window>,
    /// Reads of the script that were not answered as they must be, and how.
    pub wrong_reads: Vec<String>,
    /// Every update sent, session by session, for the order checks.
    pub sent: SentLog,
    /// Every read that was answered 200, where [`super::LoadOptions::note_reads`] says so.
    pub reads: ReadLog,
    /// Sessions that were given up, where [`crate::model::gateway::GatewayConfig::gives_up`] says so, and when, in ms
    /// of the epoch.
    pub given_up: BTreeMap<String, u64>,
}

// === impl Window ===

impl Window {
    /// All that failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

// === impl LoadProgress ===

impl LoadProgress {
    /// One line for a progress bar.
    pub fn line(&self) -> String {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "{} events, {} sends, {} failures, {} under way",
            get(&self.events),
            get(&self.sends),
            get(&self.failures),
            get(&self.in_flight),
        )
    }
}

// === impl LoadReport ===

impl LoadReport {
    pub(crate) fn sending(&mut self, now_us: u64, kind: Kind, retry: bool) {
        *self.sends.entry(kind).or_default() += 1;
        if retry {
            *self.retries.entry(kind).or_default() += 1;
        }
        self.second(now_us).sends += 1;
    }

    pub(crate) fn ended(
        &mut self,
        now_us: u64,
        kind: Kind,
        answer: &Answer,
        outcome: &Option<String>,
    ) {
        let is_inactive = |body: &[u8]| {
            let json = serde_json::from_slice::<serde_json::Value>(body);
            json.is_ok_and(|json| json["estado_qr"] == "inactive")
        };
        match answer {
            Answer::Status(status, body) => {
                let is_read = kind == Kind::GetStatus && *status == 200;
                self.reads_inactive += u64::from(is_read && is_inactive(body));
                *self
                    .answers
                    .entry((kind, *status, outcome.clone()))
                    .or_default() += 1;
                self.second(now_us).answers += 1;
            }
            Answer::NetworkError => *self.network_errors.entry(kind).or_default() += 1,
            Answer::Timeout => *self.timeouts.entry(kind).or_default() += 1,
        }
        if !answer.is_success() {
            self.second(now_us).failures += 1;
        }
    }

    pub(super) fn latency(&mut self, kind: Kind, from_due: Duration, from_sent: Duration) {
        let latencies = self.latencies.entry(kind).or_default();
        latencies.record(from_due, from_sent);
    }

    /// A send that was due in this window has ended; without a latency if nobody answered it.
    pub(super) fn in_window(
        &mut self,
        at: usize,
        failed: Option<String>,
        latency: Option<[Duration; 2]>,
    ) {
        let Some(window) = self.windows.get_mut(at) else {
            return;
        };
        if let Some(failed) = failed {
            *window.failed.entry(failed).or_default() += 1;
        }
        if let Some([from_due, from_sent]) = latency {
            window.latencies.record(from_due, from_sent);
        }
    }

    fn second(&mut self, now_us: u64) -> &mut Second {
        self.per_second.entry(now_us / 1_000_000).or_default()
    }

    /// How many sends failed, by kind.
    pub fn failed(&self) -> BTreeMap<String, u64> {
        let mut failed = BTreeMap::new();
        let answers = self.answers.iter();
        for ((kind, status, outcome), n) in
            answers.filter(|((_, status, _), _)| !(200..300).contains(status))
        {
            let outcome = outcome.as_deref().unwrap_or("without a word of Embudo's");
            let name = format!("{} {status} {outcome}", kind.name());
            *failed.entry(name).or_default() += n;
        }
        for (what, counts) in [
            ("network error", &self.network_errors),
            ("timeout", &self.timeouts),
        ] {
            for (kind, n) in counts {
                failed.insert(format!("{} {what}", kind.name()), *n);
            }
        }
        failed
    }

    /// Requests sent, of all kinds.
    pub fn sends_total(&self) -> u64 {
        self.sends.values().sum()
    }

    /// Requests sent a minute.
    pub fn sends_per_minute(&self) -> f64 {
        let seconds = self.sent_for.as_secs_f64();
        if seconds > 0.0 {
            self.sends_total() as f64 * 60.0 / seconds
        } else {
            0.0
        }
    }

    /// Timeouts, network errors, and answers that are not 2xx.
    pub fn failures(&self) -> u64 {
        let bad = |(_, status, _): &(Kind, u16, Option<String>)| !(200..300).contains(status);
        let answers: u64 = self
            .answers
            .iter()
            .filter(|(key, _)| bad(key))
            .map(|(_, n)| n)
            .sum();
        answers + self.network_errors.values().sum::<u64>() + self.timeouts.values().sum::<u64>()
    }

    /// Answers of one kind whose `x-embudo` is this, or is absent.
    pub fn outcomes(&self, kind: Kind, outcome: Option<&str>) -> u64 {
        let wanted =
            |(k, _, o): &(Kind, u16, Option<String>)| *k == kind && o.as_deref() == outcome;
        self.answers
            .iter()
            .filter(|(key, _)| wanted(key))
            .map(|(_, n)| n)
            .sum()
    }

    /// The latencies of all kinds together.
    pub fn all_latencies(&self) -> Latencies {
        let mut all = Latencies::default();
        for latencies in self.latencies.values() {
            // All have the same bounds, so that adding cannot fail.
            let _ = all.from_due.add(&latencies.from_due);
            let _ = all.from_sent.add(&latencies.from_sent);
        }
        all
    }
}

// === impl Latencies ===

impl Latencies {
    pub(crate) fn record(&mut self, from_due: Duration, from_sent: Duration) {
        self.from_due.saturating_record(micros(from_due).max(1));
        self.from_sent.saturating_record(micros(from_sent).max(1));
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            from_due: histogram(),
            from_sent: histogram(),
        }
    }
}

fn histogram() -> Histogram<u64> {
    // The bounds are constants and valid; if they were not, an auto-resizing one would do.
    Histogram::new_with_bounds(1, LATENCY_MAX_US, LATENCY_DIGITS)
        .unwrap_or_else(|_| Histogram::new(1).expect("one digit is a valid precision"))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
