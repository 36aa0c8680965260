//! Which credentials Laravel itself has accepted, and for what.
//!
//! A credential is trusted for one route of one host once Laravel has answered a request of it that passed
//! through with a 2xx; a 401 or 403 ends all trust in it. What is stored are keyed hashes: no credential can be
//! read out of them. One small value for the process, read by requests that carry a credential and by nobody
//! else.

use alloc::vec::Vec;

use crate::config::Trust;
use crate::hash::HashKey;
use crate::route::Rules;
use crate::sabotage::{self, Sabotage};
use crate::sort;
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};
use crate::time::Now;

/// Credentials that are remembered; the one that was used least recently makes room. Whoever is forgotten
/// passes through once more.
const ENTRIES_MAX: usize = 256;

/// How old the time of an entry's last use may be before it is written again.
const TOUCH_MS: u64 = 60_000;

/// One trusted (credential, place).
#[derive(Clone, Copy)]
struct Trusted {
    mark: u64,
    credential: u64,
    used_ms: u64,
}

/// Bytes of one entry.
const ENTRY_BYTES: usize = 24;

/// A hash of a credential and of what it is trusted for: a route or a read, on a host, under a prefix. 0 for
/// nobody's, which needs no trust.
#[must_use]
pub fn mark(key: HashKey, credential: u64, place: [&str; 3]) -> u64 {
    if credential == 0 {
        return 0;
    }
    let [name, authority, prefix] = place;
    let credential = credential.to_le_bytes();
    key.hash(&[
        &credential,
        name.as_bytes(),
        authority.as_bytes(),
        prefix.as_bytes(),
    ]) as u64
}

/// Whether a caller is trusted. Nobody's credential always is; one get for others, where trust is learned.
pub fn holds(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    mark: u64,
    credential: u64,
    now: Now,
) -> bool {
    match rules.config.credentials.trust {
        _ if credential == 0 => true,
        Trust::Always => true,
        Trust::Never => false,
        Trust::Learn if sabotage::is(Sabotage::TrustEverybody) => true,
        Trust::Learn => {
            let read = store.get(&keys.trust());
            let mut all = decode(read.as_ref().map_or(&[][..], |(bytes, _)| bytes));
            let found = all.iter_mut().find(|trusted| trusted.mark == mark);
            let Some(trusted) = found else {
                return false;
            };
            if now.mono_ms.saturating_sub(trusted.used_ms) >= TOUCH_MS {
                trusted.used_ms = now.mono_ms;
                // Whoever loses this race is in use as well.
                let _ = store.put(&keys.trust(), &encode(&all), Expect::of(read.as_ref()));
            }
            true
        }
    }
}

/// Laravel has accepted the credential for what `mark` stands for.
pub fn learn(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    mark: u64,
    credential: u64,
    now: Now,
) {
    if rules.config.credentials.trust != Trust::Learn {
        return;
    }
    change(store, keys, |all| {
        if all.iter().any(|trusted| trusted.mark == mark) {
            return false;
        }
        if all.len() >= ENTRIES_MAX {
            // The last used first.
            sort::by_key(all, |trusted| u128::from(!trusted.used_ms));
            all.truncate(ENTRIES_MAX.saturating_sub(1));
        }
        all.push(Trusted {
            mark,
            credential,
            used_ms: now.mono_ms,
        });
        true
    });
}

/// Laravel does not accept the credential any more: nothing of it is trusted.
pub fn revoke(store: &mut impl Store, keys: &Keys, credential: u64) {
    if sabotage::is(Sabotage::NeverRevoke) {
        return;
    }
    change(store, keys, |all| {
        let before = all.len();
        all.retain(|trusted| trusted.credential != credential);
        all.len() < before
    });
}

/// Changes what is stored; `edit` says whether there is anything to write.
fn change(store: &mut impl Store, keys: &Keys, mut edit: impl FnMut(&mut Vec<Trusted>) -> bool) {
    let key = keys.trust();
    for _ in 0..CAS_ATTEMPTS_MAX {
        let read = store.get(&key);
        let mut all = decode(read.as_ref().map_or(&[][..], |(bytes, _)| bytes));
        if !edit(&mut all) {
            return;
        }
        match store.put(&key, &encode(&all), Expect::of(read.as_ref())) {
            Err(PutError::Mismatch) => {}
            Ok(()) | Err(PutError::Refused) => return,
        }
    }
}

/// Bytes that are none of ours count as nobody's trust.
fn decode(bytes: &[u8]) -> Vec<Trusted> {
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or(0);
    let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() || entries.len() > ENTRIES_MAX {
        return Vec::new();
    }
    let one = |entry: &[u8; ENTRY_BYTES]| {
        let (mark, rest) = entry.split_at(8);
        let (credential, used) = rest.split_at(8);
        Trusted {
            mark: number(mark),
            credential: number(credential),
            used_ms: number(used),
        }
    };
    entries.iter().map(one).collect()
}

fn encode(all: &[Trusted]) -> Vec<u8> {
    let numbers = all
        .iter()
        .flat_map(|trusted| [trusted.mark, trusted.credential, trusted.used_ms]);
    numbers.flat_map(u64::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::rules;
    use crate::store::MemoryStore;

    fn now(mono_ms: u64) -> Now {
        Now {
            mono_ms,
            wall_ms: 0,
        }
    }

    #[test]
    fn trust_is_learned_for_one_place_and_lost_for_all() {
        let (mut store, keys, rules) = (MemoryStore::default(), Keys::new("p"), rules("{}"));
        let holds =
            |store: &mut MemoryStore, mark| super::holds(store, &keys, &rules, mark, 7, now(0));
        assert!(!holds(&mut store, 1));
        learn(&mut store, &keys, &rules, 1, 7, now(0));
        learn(&mut store, &keys, &rules, 2, 7, now(0));
        assert!(holds(&mut store, 1) && holds(&mut store, 2) && !holds(&mut store, 3));
        revoke(&mut store, &keys, 7);
        assert!(!holds(&mut store, 1) && !holds(&mut store, 2));
    }

    #[test]
    fn whoever_was_used_least_recently_makes_room() {
        let (mut store, keys, rules) = (MemoryStore::default(), Keys::new("p"), rules("{}"));
        for mark in 0..=ENTRIES_MAX as u64 {
            learn(&mut store, &keys, &rules, mark, mark + 1, now(mark));
        }
        let holds = |store: &mut MemoryStore, mark: u64| {
            super::holds(
                store,
                &keys,
                &rules,
                mark,
                mark + 1,
                now(ENTRIES_MAX as u64),
            )
        };
        assert!(!holds(&mut store, 0) && holds(&mut store, 1));
        store
            .put(&keys.trust(), b"odd", Expect::Token(0))
            .unwrap_err();
    }

    #[test]
    fn what_is_no_trust_is_nobodys() {
        assert!(decode(b"odd").is_empty());
        assert!(decode(&[0; ENTRY_BYTES * (ENTRIES_MAX + 1)]).is_empty());
    }
}
