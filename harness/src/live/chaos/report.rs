//! The figures of a run, and what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::ChaosOptions;
use super::plan::Plan;
use super::stranger::Told;
use super::watch::Memory;
use crate::live::load::{Latencies, LoadReport, Second, Window};
use crate::live::stats::{Ledger, Stats};
use crate::model::gateway::Identity;
use crate::model::http::{Kind, Route};
use crate::model::laravel::Journal;
use crate::model::order::{FinalStates, Mismatch};
use crate::report::{ChaosSeries, Distribution, WholeSeconds};

/// By how much the median of the memory may grow from the middle third of a run to its last.
const GROWTH_PERCENT_MAX: f64 = 5.0;

/// A shorter run ends while V8 still compiles what turns out to be hot, and its heaps find their size.
const MEMORY_SECONDS_MIN: u64 = 60;

/// How many times its healthy p99 the gateway's p99 may be during an outage of Laravel.
const OUTAGE_P99_MAX: f64 = 1.5;

/// A shorter outage has too few requests beyond its p99 for the comparison to mean anything.
const OUTAGE_SECONDS_MIN: u64 = 60;

/// Sessions whose end has to be compared, in percent of those that sent anything: with many undecided, "nothing
/// lost" would say little.
const COMPARED_PERCENT_MIN: u64 = 90;

/// Violations that are kept with all that their sessions sent and Laravel processed.
const EXAMPLES_MAX: usize = 5;

/// What a run brings home.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) report: LoadReport,
    pub(super) journal: Journal,
    pub(super) stats: Stats,
    pub(super) finals: FinalStates,
    pub(super) traps_logged: u64,
    /// What somebody was told who asked for others' sessions.
    pub(super) strangers: Told,
    pub(super) memory: Option<Memory>,
    /// After this, no QR expired any more.
    pub(super) last_expiry_us: Option<u64>,
    pub(super) settled_after: Duration,
    /// Events that the webhook has heard.
    pub(super) events: u64,
}

/// `target/embudo/chaos.json`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ChaosReport {
    /// For how long the gateway sent.
    pub seconds: u64,
    /// Its sessions.
    pub sessions: usize,
    /// Those of them whose updates Laravel refuses.
    pub poison_sessions: usize,
    /// What decided the troubles.
    pub seed: u64,
    /// Updates that the gateway got a 2xx for.
    pub updates: u64,
    /// Sessions whose newest update is not what Laravel has, updates that no ledger knows of, and updates
    /// that are still pending.
    pub lost: u64,
    /// Older values that took effect after newer ones of their session.
    pub out_of_order: u64,
    /// Calls with a session that Laravel was already busy with.
    pub overlapping: u64,
    /// Updates under another caller's headers, calls that Laravel refused for theirs, and reads that were
    /// answered to a stranger.
    pub credentials_mixed: u64,
    /// Reads that were refused to a stranger.
    pub strangers_refused: u64,
    /// VMs that died.
    pub traps: u64,
    /// "balanced", or what is missing.
    pub ledger: String,
    /// The ledger's counts.
    pub counts: Ledger,
    /// Median of Envoy's resident memory in the middle third of the run.
    pub rss_mb_middle: f64,
    /// And in the last.
    pub rss_mb_last: f64,
    /// What the gateway waits for its answers, reads included, while nothing is wrong.
    pub p99_ms_healthy: f64,
    /// And while Laravel refuses connections.
    pub p99_ms_outage: f64,
    /// How long that outage was.
    pub outage_seconds: u64,
    /// Requests within it that got no 2xx.
    pub failures_outage: u64,
    /// Requests in the healthy time that got no 2xx.
    pub failures_healthy: u64,
    /// All requests that got no 2xx.
    pub failures: u64,
    /// How those failed that count: in the outage and in the healthy time.
    pub failed: BTreeMap<String, u64>,
    /// How all did.
    pub failed_all: BTreeMap<String, u64>,
    /// Sessions whose end could be compared.
    pub compared: u64,
    /// Sessions whose last send failed or overlapped another: nothing is promised for them.
    pub undecided: u64,
    /// How long the last updates took to reach their end once the gateway had stopped.
    pub settled_after_ms: u64,
    /// Events that the webhook has heard.
    pub webhook_events: u64,
    /// Embudo's calls by verdict.
    pub calls: BTreeMap<String, u64>,
    /// Laravel's answers to updates, by status.
    pub laravel_answers: BTreeMap<u16, u64>,
    /// Calls that took effect after Embudo had given them up.
    pub finished_late: u64,
    /// How often each trouble came.
    pub troubles: BTreeMap<&'static str, u64>,
    /// What the pictures are drawn from.
    pub series: ChaosSeries,
    /// The first violations, with everything about their sessions.
    pub examples: Vec<Value>,
}

// === impl ChaosReport ===

impl ChaosReport {
    pub(super) fn new(
        options: &ChaosOptions,
        plan: &Plan,
        identities: &[Identity],
        evidence: &Evidence,
    ) -> Self {
        let Evidence {
            report,
            journal,
            stats,
            finals,
            ..
        } = evidence;
        let poison: BTreeSet<&str> = plan
            .poison
            .iter()
            .filter_map(|index| Some(identities.get(*index)?.session.as_str()))
            .collect();
        let mut examples = Examples::new(evidence);

        let missing: Vec<&Mismatch> = finals
            .mismatches
            .iter()
            .filter(|m| !poison.contains(name(&m.session)) && !evidence.may_have_expired(m))
            .collect();
        for mismatch in &missing {
            let Mismatch {
                route,
                expected,
                found,
                ..
            } = mismatch;
            let what = format!(
                "{}: {expected} is the newest, Laravel has {found:?}",
                route.name()
            );
            examples.add("lost", &mismatch.session, &what);
        }
        let out_of_order = journal.check_order(&report.sent);
        let overlapping = journal.check_overlap();
        for (rule, violations) in [("out of order", &out_of_order), ("overlap", &overlapping)] {
            for violation in violations {
                examples.add(rule, &violation.session, &violation.what);
            }
        }
        let keys: BTreeSet<&str> = identities.iter().map(|known| known.key.as_str()).collect();
        let mut mixed = 0;
        for entry in journal.entries() {
            // Whose it is was said by the headers that it arrived with.
            let mut sent = report.sent.of_session(&entry.session).iter();
            let sent = entry.route == Route::Status || sent.any(|sent| sent.value == entry.value);
            if !keys.contains(entry.session.as_str()) || !sent {
                mixed += 1;
                examples.add("callers", &entry.session, "under another's headers");
            }
        }

        let counts = stats.ledger();
        let queued_here: u64 = Kind::POSTS
            .iter()
            .map(|kind| report.outcomes(*kind, Some("queued")))
            .sum();
        let queued_there = stats.counter("embudo.requests", &[("outcome", "queued")]);
        let lost_sessions: BTreeSet<&str> = missing.iter().map(|m| m.session.as_str()).collect();
        let laravel_answers = answers(journal);
        let refused_for_credentials: u64 = [401, 403]
            .iter()
            .filter_map(|status| laravel_answers.get(status))
            .sum();
        let reloads = stats.vm_reloads();
        let (healthy, outage) = windows(report, plan.healthy.len());
        let memory = evidence.memory.unwrap_or(Memory {
            middle_mb: 0.0,
            last_mb: 0.0,
        });
        let mut troubles = BTreeMap::new();
        for window in &plan.windows {
            *troubles.entry(window.what.name()).or_default() += 1;
        }
        Self {
            seconds: options.seconds,
            sessions: options.sessions,
            poison_sessions: poison.len(),
            seed: options.seed,
            updates: accepted(report),
            lost: lost_sessions.len() as u64
                + queued_here.saturating_sub(queued_there)
                + counts.pending,
            out_of_order: out_of_order.len() as u64,
            overlapping: overlapping.len() as u64,
            credentials_mixed: mixed + refused_for_credentials + evidence.strangers.served,
            strangers_refused: evidence.strangers.refused,
            traps: evidence
                .traps_logged
                .max(reloads.success + reloads.backoff + reloads.failure),
            ledger: ledger(&counts),
            counts,
            rss_mb_middle: memory.middle_mb,
            rss_mb_last: memory.last_mb,
            p99_ms_healthy: p99_ms(&healthy.latencies),
            p99_ms_outage: p99_ms(&outage.latencies),
            outage_seconds: (plan.outage.end - plan.outage.start) / 1000,
            failures_outage: outage.failures(),
            failures_healthy: healthy.failures(),
            failures: report.failures(),
            failed: together(&healthy.failed, &outage.failed),
            failed_all: report.failed(),
            compared: finals.compared,
            undecided: finals.undecided,
            webhook_events: evidence.events,
            settled_after_ms: u64::try_from(evidence.settled_after.as_millis()).unwrap_or(u64::MAX),
            calls: stats.counters_by("embudo.calls", "verdict"),
            laravel_answers,
            finished_late: finished_late(journal, plan.call_timeout_ms()),
            troubles,
            series: series(evidence, plan, [&healthy, &outage]),
            examples: examples.kept,
        }
    }

    /// Everything that does not hold; nothing if all is well.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut must = |holds: bool, otherwise: String| {
            if !holds {
                failures.push(otherwise);
            }
        };
        must(self.lost == 0, format!("{} lost", self.lost));
        must(
            self.out_of_order == 0,
            format!(
                "{} older values took effect after newer ones",
                self.out_of_order
            ),
        );
        must(
            self.overlapping == 0,
            format!("{} calls of a session overlapped", self.overlapping),
        );
        must(
            self.credentials_mixed == 0,
            format!("credentials mixed {} times", self.credentials_mixed),
        );
        must(self.traps == 0, format!("{} VMs trapped", self.traps));
        must(
            self.ledger == BALANCED,
            format!("the ledger does not balance: {}", self.ledger),
        );
        must(
            self.counts.pending == 0,
            format!("{} updates are still pending", self.counts.pending),
        );
        must(
            self.failures_outage == 0 && self.failures_healthy == 0,
            format!(
                "{} requests failed during the outage, {} while nothing was wrong: {:?}",
                self.failures_outage, self.failures_healthy, self.failed
            ),
        );
        if self.outage_seconds >= OUTAGE_SECONDS_MIN {
            let most = self.p99_ms_healthy * OUTAGE_P99_MAX;
            must(
                self.p99_ms_outage <= most,
                format!(
                    "during the outage the gateway's p99 is {:.2} ms, more than {OUTAGE_P99_MAX} × the healthy {:.2} ms",
                    self.p99_ms_outage, self.p99_ms_healthy
                ),
            );
        }
        if self.seconds >= MEMORY_SECONDS_MIN {
            let (middle_mb, last_mb) = (self.rss_mb_middle, self.rss_mb_last);
            let memory = Memory { middle_mb, last_mb };
            must(
                middle_mb > 0.0 && memory.growth_percent() <= GROWTH_PERCENT_MAX,
                format!("Envoy's memory grows: {middle_mb} MB, then {last_mb} MB"),
            );
        }
        // A run in which nothing went wrong shows nothing.
        let happened = |count: Option<&u64>| count.is_some_and(|count| *count > 0);
        for verdict in ["delivered", "retry", "rejected", "unknown"] {
            must(
                happened(self.calls.get(verdict)),
                format!("no call was ever {verdict}: the run shows too little"),
            );
        }
        for status in [200, 422] {
            must(
                happened(self.laravel_answers.get(&status)),
                format!("Laravel never answered {status}: the run shows too little"),
            );
        }
        must(
            self.finished_late > 0,
            "no call took effect after its timeout: the run shows too little".to_owned(),
        );
        must(
            self.webhook_events > 0,
            "the webhook never heard of anything: the run shows too little".to_owned(),
        );
        must(
            self.strangers_refused > 0,
            "no stranger was ever refused: the run shows too little".to_owned(),
        );
        let decided = self.compared + self.undecided;
        must(
            self.compared > 0 && self.compared * 100 >= decided * COMPARED_PERCENT_MIN,
            format!(
                "the end of only {} of {decided} sessions can be compared",
                self.compared
            ),
        );
        failures
    }
}

const BALANCED: &str = "balanced";

fn ledger(counts: &Ledger) -> String {
    if counts.balances() {
        return BALANCED.to_owned();
    }
    let known = counts.settled() + counts.pending;
    let difference = counts.accepted.abs_diff(known);
    let how = match counts.accepted > known {
        true => "missing",
        false => "too many",
    };
    format!(
        "{} accepted, {known} accounted for: {difference} {how}",
        counts.accepted
    )
}

/// A session's name, without its tenant's.
fn name(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

/// Laravel's answers to updates by status.
fn answers(journal: &Journal) -> BTreeMap<u16, u64> {
    let mut answers = BTreeMap::new();
    let all = journal.answers().iter();
    for ((_, status), count) in all.filter(|((kind, _), _)| Kind::POSTS.contains(kind)) {
        *answers.entry(*status).or_default() += count;
    }
    answers
}

fn finished_late(journal: &Journal, call_timeout_ms: u64) -> u64 {
    let batches = journal.entries().iter().filter(|entry| entry.batched);
    let late = batches.filter(|entry| entry.finished_ms - entry.started_ms > call_timeout_ms);
    late.map(|entry| entry.call).collect::<BTreeSet<_>>().len() as u64
}

fn accepted(report: &LoadReport) -> u64 {
    let all = report.sent.sessions().flat_map(|(_, sends)| sends);
    all.filter(|send| send.is_accepted()).count() as u64
}

/// The first windows are the healthy ones, as one; the next is the outage.
fn windows(report: &LoadReport, healthy: usize) -> (Window, Window) {
    let mut all = Window::default();
    for window in report.windows.iter().take(healthy) {
        // All have the same bounds, so that adding cannot fail.
        let _ = all.latencies.from_due.add(&window.latencies.from_due);
        all.failed = together(&all.failed, &window.failed);
    }
    let outage = report.windows.get(healthy).cloned();
    (all, outage.unwrap_or_default())
}

fn together(one: &BTreeMap<String, u64>, other: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut all = one.clone();
    for (how, n) in other {
        *all.entry(how.clone()).or_default() += n;
    }
    all
}

fn series(evidence: &Evidence, plan: &Plan, [healthy, outage]: [&Window; 2]) -> ChaosSeries {
    let Evidence {
        report, journal, ..
    } = evidence;
    let seconds = WholeSeconds::of(report);
    let counted = |of: fn(&Second) -> u64| {
        let counts = report.per_second.iter();
        seconds.pick(counts.map(|(second, counts)| (*second, of(counts))))
    };
    ChaosSeries {
        sent_per_second: counted(|second| second.sends),
        failed_per_second: counted(|second| second.failures),
        laravel_per_second: seconds.pick(journal.per_second()),
        outage_from_s: plan.outage.start as f64 / 1000.0,
        outage_to_s: plan.outage.end as f64 / 1000.0,
        healthy_latency: Distribution::of_us(&healthy.latencies.from_due),
        outage_latency: Distribution::of_us(&outage.latencies.from_due),
    }
}

fn p99_ms(latencies: &Latencies) -> f64 {
    latencies.from_due.value_at_quantile(0.99) as f64 / 1000.0
}

// === impl Evidence ===

impl Evidence {
    /// Whether a QR is missing that may have run out on its way, where the ledger says that some have. A
    /// state never does.
    fn may_have_expired(&self, mismatch: &Mismatch) -> bool {
        let Some(last_expiry_us) = self.last_expiry_us else {
            return false;
        };
        let sends = self.report.sent.of_session(&mismatch.session).iter();
        let mut qrs = sends.filter(|send| send.route == Route::Qr && send.is_accepted());
        let newest = qrs.next_back();
        mismatch.route == Route::Qr && newest.is_some_and(|qr| qr.sent_us < last_expiry_us)
    }
}

/// The first violations.
struct Examples<'a> {
    evidence: &'a Evidence,
    kept: Vec<Value>,
}

// === impl Examples ===

impl<'a> Examples<'a> {
    fn new(evidence: &'a Evidence) -> Self {
        Self {
            evidence,
            kept: Vec::new(),
        }
    }

    fn add(&mut self, rule: &str, session: &str, what: &str) {
        if self.kept.len() >= EXAMPLES_MAX {
            return;
        }
        let processed: Vec<_> = self.evidence.journal.of_session(session).collect();
        self.kept.push(json!({
            "rule": rule,
            "session": session,
            "what": what,
            "sent": self.evidence.report.sent.of_session(session),
            "processed": processed,
        }));
    }
}

#[cfg(test)]
mod tests;
