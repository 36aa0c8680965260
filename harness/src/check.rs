//! The checker of both arms: what must hold after any scenario.
//!
//! Each rule is a function of what an arm brings home, and its name is in the failure. An arm may check
//! more by itself (the simulation looks at the store after every write); what is here can be seen from
//! outside, by the gateway, by Laravel and in Envoy's stats.

use crate::live::stats::Ledger;
use crate::model::laravel::Entry;
use crate::model::order::{self, FinalStates, SentLog};
use crate::model::webhook::{self, Received};
use crate::scenario::{Measures, Scenario};

/// What an arm brings home.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the gateway sent, and the answers.
    pub sent: SentLog,
    /// What Laravel processed.
    pub processed: Vec<Entry>,
    /// What the webhook received.
    pub handed_over: Vec<Received>,
    /// How the accepted updates ended.
    pub ledger: Ledger,
    /// Where the sessions ended.
    pub finals: FinalStates,
    /// VM traps that nobody ordered.
    pub traps: u64,
    /// What was measured.
    pub measures: Measures,
    /// What the arm itself found, by looking where only it can.
    pub found_inside: Vec<Failure>,
}

/// One thing that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The rule's name.
    pub rule: &'static str,
    /// What was found.
    pub what: String,
}

/// Examples of a violation that are shown; the first ones explain the rest.
const EXAMPLES_MAX: usize = 3;

/// Everything that does not hold.
#[must_use]
pub fn check(scenario: &Scenario, outcome: &Outcome) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut rule = |rule: &'static str, found: Vec<String>| {
        failures.extend(found.into_iter().map(|what| Failure { rule, what }));
    };
    rule("nothing_lost", nothing_lost(outcome));
    rule("never_older_after_newer", never_older_after_newer(outcome));
    rule("never_two_at_once", never_two_at_once(outcome));
    rule(
        "laravel_ends_on_the_last_value",
        laravel_ends_on_the_last_value(scenario, outcome),
    );
    rule(
        "the_webhook_is_told_in_order_and_no_secrets",
        webhook::check(&outcome.handed_over, &scenario.secrets()),
    );
    rule("the_guest_never_traps", the_guest_never_traps(outcome));
    rule(
        "within_expectations",
        within_expectations(scenario, outcome),
    );
    failures.extend(outcome.found_inside.iter().cloned());
    failures
}

fn nothing_lost(outcome: &Outcome) -> Vec<String> {
    let ledger = &outcome.ledger;
    let mut found = Vec::new();
    if !ledger.balances() {
        found.push(format!("the ledger does not balance: {ledger:?}"));
    }
    if ledger.pending > 0 {
        found.push(format!("{} updates are still pending", ledger.pending));
    }
    found
}

fn never_older_after_newer(outcome: &Outcome) -> Vec<String> {
    shown(order::check(&outcome.processed, &outcome.sent))
}

fn never_two_at_once(outcome: &Outcome) -> Vec<String> {
    shown(order::check_overlap(&outcome.processed))
}

/// A QR may expire on its way, where the ledger says so; a state never does.
fn laravel_ends_on_the_last_value(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
    let touched = scenario.touched();
    let may_expire = outcome.ledger.expired > 0;
    let wrong = outcome
        .finals
        .mismatches
        .iter()
        .filter(|mismatch| !(may_expire && mismatch.route == crate::model::http::Route::Qr))
        .filter(|mismatch| !touched.contains(&mismatch.session));
    wrong
        .take(EXAMPLES_MAX)
        .map(|mismatch| format!("{mismatch:?}"))
        .collect()
}

fn the_guest_never_traps(outcome: &Outcome) -> Vec<String> {
    match outcome.traps {
        0 => Vec::new(),
        traps => vec![format!("{traps} VMs trapped")],
    }
}

fn within_expectations(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
    let verdicts = scenario
        .expectations
        .iter()
        .map(|e| e.verdict(&outcome.measures));
    verdicts.flatten().collect()
}

fn shown(violations: Vec<order::Violation>) -> Vec<String> {
    let count = violations.len();
    let first = violations.into_iter().take(EXAMPLES_MAX);
    first
        .map(|v| format!("session {}: {} (1 of {count})", v.session, v.what))
        .collect()
}
