//! What goes wrong, when its time has come.

use std::collections::BTreeMap;

use rand::Rng;

use super::queue::Event;
use super::threads::Armed;
use super::{Fault, START_US, Sim, Verb, Who};
use crate::sim::host::Cluster;

/// Faults that are in force.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    /// How often each kind has struck.
    pub(super) struck: BTreeMap<&'static str, u64>,
    rings_to_lose: u32,
    ejections: u32,
    missing: u32,
    webhook_missing: u32,
}

// === impl Strikes ===

impl Strikes {
    /// Whether this wake-up is one of those that are lost.
    pub(super) fn lose_ring(&mut self) -> bool {
        let lose = self.rings_to_lose > 0;
        self.rings_to_lose = self.rings_to_lose.saturating_sub(1);
        lose
    }

    fn cluster(&self) -> Cluster {
        match (self.missing, self.ejections) {
            (1.., _) => Cluster::Missing,
            (0, 1..) => Cluster::Ejected,
            (0, 0) => Cluster::Healthy,
        }
    }
}

// === impl Sim ===

impl Sim {
    pub(super) fn schedule_faults(&mut self) {
        for index in 0..self.scenario.faults.len() {
            let fault = &self.scenario.faults[index];
            let begins_us = START_US + fault.at_ms * 1000;
            let ends_us = begins_us + fault.for_ms * 1000;
            let lasts = fault.for_ms > 0;
            let order = self.dice.next_u64();
            let event = Event::Fault {
                index,
                begins: true,
            };
            self.events.push(begins_us, order, event);
            if lasts {
                let event = Event::Fault {
                    index,
                    begins: false,
                };
                self.events.push(ends_us, order, event);
            }
        }
    }

    pub(super) fn fault(&mut self, index: usize, begins: bool) {
        let Some(fault) = self.scenario.faults.get(index).cloned() else {
            return;
        };
        let name = fault.verb.name();
        self.note("world", index as u64, || match begins {
            true => format!("{name} begins: {:?}", fault.verb),
            false => format!("{name} ends"),
        });
        if begins {
            *self.strikes.struck.entry(name).or_default() += 1;
        }
        let by = i64::from(begins) * 2 - 1;
        let count = |n: u32| n.saturating_add_signed(i32::try_from(by).unwrap_or(0));
        match &fault.verb {
            // Laravel and the webhook keep their own windows.
            Verb::Laravel(..) | Verb::Batches(..) | Verb::Webhook(..) => {}
            Verb::WebhookRefuses => self.hook.refusing = count(self.hook.refusing),
            Verb::NoWebhook => {
                self.strikes.webhook_missing = count(self.strikes.webhook_missing);
            }
            Verb::Refuse => self.net.refusing = count(self.net.refusing),
            Verb::Eject => self.strikes.ejections = count(self.strikes.ejections),
            Verb::NoCluster => self.strikes.missing = count(self.strikes.missing),
            Verb::WallStep { by_ms } => {
                let mut hub = self.hub.lock();
                hub.clock.wall_us = hub.clock.wall_us.saturating_add_signed(by_ms * 1000);
            }
            Verb::Trap { who, .. } | Verb::Stall { who, .. } => {
                let thread = match who {
                    Who::Leader => self.leader(),
                    Who::Thread(thread) => Some(*thread),
                };
                let armed = Self::armed_by(&fault);
                let place = thread.and_then(|thread| self.threads.get_mut(thread));
                if let (Some(place), Some(armed)) = (place, armed) {
                    place.armed.push(armed);
                }
            }
            Verb::Retry => self.net.retrying = count(self.net.retrying),
            Verb::Update { drain_ms } => self.update_listener(*drain_ms),
            Verb::Alternate { times, every_ms } => {
                let (times, every_ms) = (u64::from(*times), *every_ms);
                for turn in 0..=times {
                    // The first configuration has the last word.
                    let first = turn % 2 == 1 || turn == times;
                    let event = Event::Alternate { first, every_ms };
                    self.after_us(turn * every_ms * 1000, event);
                }
            }
            Verb::LoseRings { rings } => self.strikes.rings_to_lose += rings,
        }
        let mut hub = self.hub.lock();
        hub.cluster = self.strikes.cluster();
        hub.webhook = match self.strikes.webhook_missing {
            0 => Cluster::Healthy,
            _ => Cluster::Missing,
        };
    }

    fn armed_by(fault: &Fault) -> Option<Armed> {
        match fault.verb {
            Verb::Trap { when, at_call, .. } => Some(Armed {
                when,
                at_call,
                stall_us: None,
            }),
            Verb::Stall {
                when, at_call, ms, ..
            } => Some(Armed {
                when,
                at_call,
                stall_us: Some(ms * 1000),
            }),
            _ => None,
        }
    }
}
