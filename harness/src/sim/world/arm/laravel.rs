//! Laravel as a scenario has it: its accounts, its few workers, and its days off.

use std::collections::VecDeque;

use super::super::{Sim, UNIX_ZERO_MS};
use crate::live::laravel::BACKLOG;
use crate::model::laravel::{Faults, Laravel, LaravelConfig};
use crate::scenario::Scenario;

/// PHP's workers: first come, first served.
#[derive(Debug)]
pub(super) struct Workers {
    total: usize,
    free: usize,
    /// Exchanges that wait.
    waiting: VecDeque<u64>,
}

/// The Laravel of a scenario that begins then.
pub(super) fn laravel(scenario: &Scenario, begun_ms: u64) -> Laravel {
    let mut laravel = Laravel::new(LaravelConfig {
        unix_zero_ms: UNIX_ZERO_MS,
        throwing: scenario.throwing(begun_ms),
        ..scenario.laravel_config()
    });
    for session in scenario.accounts() {
        laravel.add_account(&session);
    }
    let faults = scenario.faults.iter().map(|fault| fault.later(begun_ms));
    laravel.set_faults(Faults::new(scenario.seed, faults.collect()));
    laravel
}

// === impl Workers ===

impl Workers {
    pub(super) fn new(total: usize) -> Self {
        let total = total.max(1);
        Self {
            total,
            free: total,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn are_idle(&self) -> bool {
        self.free == self.total
    }
}

// === impl Sim ===

impl Sim {
    // ## Arrived => (Busy | Waiting | Refused | Lost)

    /// Whether a worker takes the request now; else it waits, or is refused.
    pub(in super::super) fn finds_a_worker(&mut self, exchange: u64) -> bool {
        let down = self.net.refusing > 0;
        let Some(arm) = &mut self.arm else {
            return true;
        };
        let workers = &mut arm.workers;
        if down {
            // On its way when the connections were dropped: nobody has read it.
            if let Some(exchange) = self.net.exchanges.get_mut(&exchange) {
                exchange.request = None;
            }
            self.breaks(exchange);
            return false;
        }
        if workers.free > 0 {
            workers.free -= 1;
            return true;
        }
        if workers.waiting.len() >= BACKLOG {
            self.overflows(exchange);
        } else {
            workers.waiting.push_back(exchange);
        }
        false
    }

    // ## Waiting => Busy

    /// A worker has ended a request, and takes the next.
    pub(in super::super) fn worker_is_free(&mut self) {
        let Some(arm) = &mut self.arm else { return };
        match arm.workers.waiting.pop_front() {
            Some(next) => self.begins(next),
            None => arm.workers.free += 1,
        }
    }

    /// The port is closed and every connection is gone. PHP goes on with what it has.
    pub(super) fn laravel_goes_down(&mut self) {
        self.net.refusing = 1;
        let waits = |arm: &super::Arm, id| arm.workers.waiting.contains(&id);
        let Some(arm) = &self.arm else { return };
        let all = self.net.exchanges.iter();
        let broken: Vec<u64> = all
            .filter(|(id, exchange)| {
                exchange.open && (exchange.request.is_none() || waits(arm, **id))
            })
            .map(|(id, _)| *id)
            .collect();
        broken.into_iter().for_each(|id| self.breaks(id));
    }
}
