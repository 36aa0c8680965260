//! One arm of a comparison: the gateway's traffic, and what came of it at both ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::load::{Load, LoadOptions, LoadProgress, LoadReport};
use embudo::model::gateway::{Identity, session_ids, token};
use embudo::model::laravel::{Counts, Journal, LaravelConfig, Tenants};

use super::progress::{Progress, UPDATE_EVERY};

/// How long Laravel may go on with what it has after the load has ended.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// What one arm sends; both arms of a comparison differ in nothing but the time.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) sessions: usize,
    /// Tenants that share them, with a token each; 0: nobody has a token.
    pub(crate) tenants: usize,
    pub(crate) seed: u64,
    pub(crate) prefix: String,
}

/// What came of it.
pub(crate) struct Outcome {
    /// What the gateway saw.
    pub(crate) load: LoadReport,
    /// What Laravel did.
    pub(crate) journal: Journal,
    /// What reached Laravel, from the first request until the last one's effect.
    ///
    /// Rates are taken over the time in which the gateway sent, so what comes a little later is
    /// charged to the traffic that caused it.
    pub(crate) arrived: Counts,
}

// === impl Traffic ===

impl Traffic {
    /// A fresh stand-in Laravel that knows the sessions of this traffic.
    pub(crate) async fn laravel(&self) -> Result<(LaravelServer, LoadOptions)> {
        let (mut tenants, mut identities) = (Tenants::default(), Vec::new());
        let ids = session_ids(self.seed, self.sessions);
        for (index, id) in ids.iter().enumerate() {
            let mut identity = Identity::plain(id.clone());
            if let Some(tenant) = index.checked_rem(self.tenants) {
                let token = token(tenant);
                tenants.add(&token, id);
                let header = ("authorization".to_owned(), format!("Bearer {token}"));
                identity.caller.headers.push(header);
            }
            identities.push(identity);
        }
        let laravel = LaravelOptions {
            config: LaravelConfig {
                tenants,
                ..LaravelConfig::default()
            },
            accounts: ids,
            ..LaravelOptions::default()
        };
        let load = LoadOptions {
            prefix: self.prefix.clone(),
            sessions: self.sessions,
            seed: self.seed,
            identities,
            // One clock for both ends, or their times could not be compared.
            epoch: laravel.epoch,
            ..LoadOptions::default()
        };
        Ok((LaravelServer::start(laravel).await?, load))
    }
}

/// Sends the load and shows its progress.
pub(crate) async fn send(label: &str, options: LoadOptions) -> Result<LoadReport> {
    let mut bar = Progress::lasting(label, options.duration);
    let counters = Arc::new(LoadProgress::default());
    let finished = Load::start(options, counters.clone())?.finish();
    tokio::pin!(finished);
    let mut every = tokio::time::interval(UPDATE_EVERY);
    let report = loop {
        tokio::select! {
            report = &mut finished => break report,
            _ = every.tick() => bar.update(&counters.line()),
        }
    };
    bar.finish(&counters.line());
    report
}

/// Waits until Laravel has done what it was given, and takes its books.
pub(crate) async fn collect(load: LoadReport, laravel: LaravelServer) -> Outcome {
    laravel.idle(IDLE_MAX).await;
    let arrived = laravel.counts();
    Outcome {
        load,
        journal: laravel.stop().await,
        arrived,
    }
}

// === impl Outcome ===

impl Outcome {
    /// What came of a load, by a journal that will not grow any more.
    pub(crate) fn new(load: LoadReport, journal: Journal) -> Self {
        // The rates are over the time of sending, so the span does not matter.
        let arrived = journal.counts(0);
        Self {
            load,
            journal,
            arrived,
        }
    }

    /// Items of each batch call at Laravel.
    pub(crate) fn batch_sizes(&self) -> Vec<u64> {
        let mut calls = BTreeMap::<u64, u64>::new();
        for entry in self.journal.entries().iter().filter(|entry| entry.batched) {
            *calls.entry(entry.call).or_default() += 1;
        }
        calls.into_values().collect()
    }
}
