//! The webhook as a scenario has it.

use super::super::webhook::Hook;
use crate::model::webhook::Webhook;
use crate::scenario::Scenario;

/// How long the webhook has heard nothing.
#[derive(Debug, Default)]
pub(super) struct Silence {
    heard: usize,
    since_us: Option<u64>,
}

/// The webhook of a scenario that begins then; where it has none, nothing listens.
pub(super) fn hook(scenario: &Scenario, script: &super::super::Scenario, begun_ms: u64) -> Hook {
    let mut hook = Hook::new(script, begun_ms);
    match &scenario.webhook {
        None => hook.refusing = 1,
        Some(webhook) => {
            hook.webhook = Webhook::new(webhook.request_ms);
            let faults = webhook.faults.iter().map(|fault| fault.later(begun_ms));
            hook.webhook.set_faults(scenario.seed, faults.collect());
        }
    }
    hook
}

// === impl Silence ===

impl Silence {
    /// How long, when so many calls have been heard by now.
    pub(super) fn lasts_us(&mut self, heard: usize, now_us: u64) -> u64 {
        if heard != self.heard {
            *self = Self {
                heard,
                since_us: Some(now_us),
            };
        }
        now_us - *self.since_us.get_or_insert(now_us)
    }
}
