//! The sessions of one Envoy, and what their gateway sends.

use bytes::Bytes;
use hyper::Method;
use rand::seq::index;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::volley::Shot;
use crate::model::gateway::session_ids;

/// How often a session in a volley of new values says something new: what comes faster than a batch leaves takes
/// the place of what waits.
const VALUES_EACH: usize = 4;

const SEED: u64 = 1;

/// Of another session than all of those.
const PROOF_SEED: u64 = 2;

/// Sessions that are only read, once they have said something.
const READERS: usize = 100;

/// Every session, with the number of its newest QR.
#[derive(Debug)]
pub(super) struct Sessions {
    newest: Vec<(String, u32)>,
    readers: Vec<String>,
    rng: ChaCha8Rng,
}

// === impl Sessions ===

impl Sessions {
    pub(super) fn new(count: usize) -> Self {
        let mut ids = session_ids(SEED, count + READERS);
        Self {
            readers: ids.split_off(count),
            newest: ids.into_iter().map(|id| (id, 0)).collect(),
            rng: ChaCha8Rng::seed_from_u64(SEED),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.newest.len()
    }

    /// One of a session that nobody else has: once Laravel has accepted it, everything else is queued.
    pub(super) fn proof() -> Vec<Shot> {
        let ids = session_ids(PROOF_SEED, 1);
        ids.iter()
            .map(|id| qr(id, 0, "write-through; unproven"))
            .collect()
    }

    /// The first QR of each.
    pub(super) fn first_values(&mut self) -> Vec<Shot> {
        (0..self.len()).map(|at| self.new_value(at)).collect()
    }

    /// What sessions at random have said last.
    pub(super) fn duplicates(&mut self, count: usize) -> Vec<Shot> {
        let duplicate = |_| {
            let at = self.rng.random_range(0..self.newest.len());
            let (id, number) = &self.newest[at];
            qr(id, *number, "duplicate")
        };
        (0..count).map(duplicate).collect()
    }

    /// New values of some sessions at random, round and round.
    pub(super) fn new_values(&mut self, count: usize) -> Vec<Shot> {
        let all = self.len();
        let distinct = (count / VALUES_EACH).clamp(1, all);
        let chosen = index::sample(&mut self.rng, all, distinct).into_vec();
        let round_and_round = chosen.iter().cycle().take(count);
        round_and_round.map(|at| self.new_value(*at)).collect()
    }

    /// Status reads, answered like this.
    pub(super) fn reads(&self, count: usize, outcome: &'static str) -> Vec<Shot> {
        let read = |id: &String| Shot {
            method: Method::GET,
            path: format!("/api/whatsapp/status/{id}"),
            body: Bytes::new(),
            outcome: Some(outcome),
        };
        self.readers.iter().cycle().take(count).map(read).collect()
    }

    /// What each reader's session says first.
    pub(super) fn introduced(&self) -> Vec<Shot> {
        self.readers.iter().map(|id| qr(id, 0, "queued")).collect()
    }

    /// The first read of each reader.
    pub(super) fn first_reads(&self) -> Vec<Shot> {
        self.reads(READERS, "fresh")
    }

    /// Messages, which are none of Embudo's business.
    pub(super) fn messages(&self, count: usize) -> Vec<Shot> {
        let message = |(id, _): &(String, u32)| Shot {
            path: "/api/message".to_owned(),
            outcome: None,
            ..qr(id, 0, "")
        };
        let around = self.newest.iter().cycle();
        around.take(count).map(message).collect()
    }

    fn new_value(&mut self, at: usize) -> Shot {
        let (id, number) = &mut self.newest[at];
        *number += 1;
        qr(id, *number, "queued")
    }
}

/// A raw QR of 237 characters, as WhatsApp's are.
fn qr(id: &str, number: u32, outcome: &'static str) -> Shot {
    Shot {
        method: Method::POST,
        path: "/api/qr".to_owned(),
        body: format!(r#"{{"session_id":"{id}","qr":"2@{number:0>235}"}}"#).into(),
        outcome: Some(outcome),
    }
}
