//! A VM may die at any moment, and what was answered is delivered all the same.
//!
//! One host call after the other, the VM is made to trap there: in a request that brings something new,
//! in a doorbell that claims and calls, in a tick, in an answer that settles.

use embudo::live::wasm;
use embudo::sim::{Detail, Fault, Machine, Plan, Scenario, Style, Verb, When, Who};

/// No callback of this small world makes as many host calls.
const CALLS_MAX: u32 = 120;

fn scenario(who: Who, when: When, at_call: u32, at_ms: u64) -> Scenario {
    let mut scenario = Scenario::of_seed(7);
    let style = Style::Round { gap_ms: 150 };
    scenario.sessions = (0..3).map(|index| Plan { index, style }).collect();
    scenario.workers = 2;
    scenario.traffic_ms = 4_000;
    scenario.credentials = false;
    scenario.callers = embudo::sim::Callers::default();
    scenario.config = serde_json::json!({
        "max_sessions": 16,
        "call_timeout_ms": 500,
        "send_window_ms": 200,
        "late_ms": 300,
        "lease_ms": 1_000,
        "priority_gap_ms": 0,
        "routes": [
            {"name": "qr", "batch": {"max_wait_ms": 200, "quiet_ms": 20}},
            {"name": "status", "batch": {"max_wait_ms": 200, "quiet_ms": 20}},
        ],
    });
    scenario.faults = vec![Fault {
        at_ms,
        for_ms: 0,
        verb: Verb::Trap { who, when, at_call },
    }];
    scenario
}

/// Traps at one host call after the other until the callback has no more. Gives how many there were.
fn trap_everywhere(who: Who, when: When, at_ms: u64) -> u32 {
    let path = wasm::module().expect("the module builds");
    let machine = Machine::new(&std::fs::read(path).expect("it is there")).expect("it links");
    for at_call in 1..CALLS_MAX {
        let scenario = scenario(who, when, at_call, at_ms);
        let report = embudo::sim::run(&machine, &scenario, Detail::Hash).expect("it runs");
        if let Some(failure) = report.failure {
            panic!("trapped at host call {at_call} of {when:?}: {failure}");
        }
        if !report.faults.contains_key("trapped") {
            return at_call - 1;
        }
        assert!(
            report.updates > 10 && report.calls > 5,
            "the others went on"
        );
    }
    panic!("{when:?} has no end");
}

#[test]
fn a_trap_at_any_host_call_of_an_offer_loses_nothing() {
    for at_ms in [1_000, 1_100, 1_250, 1_400] {
        let calls = trap_everywhere(Who::Thread(1), When::Request, at_ms);
        assert!(calls >= 8, "an offer has a get, a put and a ring: {calls}");
    }
}

#[test]
fn a_trap_at_any_host_call_of_a_claim_loses_nothing() {
    for at_ms in [1_000, 1_200, 1_300] {
        let calls = trap_everywhere(Who::Leader, When::Doorbell, at_ms);
        assert!(calls >= 5, "a doorbell looks at a shard: {calls}");
        let calls = trap_everywhere(Who::Leader, When::Tick, at_ms);
        assert!(calls >= 5, "a tick looks at shards: {calls}");
    }
}

#[test]
fn a_trap_at_any_host_call_of_a_settlement_loses_nothing() {
    for at_ms in [1_000, 1_200, 1_300] {
        let calls = trap_everywhere(Who::Leader, When::Answer, at_ms);
        assert!(calls >= 8, "an answer is read and settled: {calls}");
    }
}
