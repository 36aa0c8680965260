//! Reads: Laravel's own answers, kept and served from the store.
//!
//! The gateway asks Laravel before every QR whether it may send it. A 200 is kept, and served for
//! `read_refresh_ms`; while Laravel fails, for `stale_if_error_ms` longer. Whatever is answered, kept or
//! fresh, shows the newest state of the session that was acknowledged: see `shard`'s `kept`. Nothing but a 200
//! is ever kept, and what was given to one credential is never given to another.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::json::{self, Member, Pointer};
use crate::proof::Proofs;
use crate::route::{Asked, Rules};
use crate::sabotage::{self, Sabotage};
use crate::shard::{BYTES_MAX, Kept, Place, Shard, patch};
use crate::sort;
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};
use crate::time::Now;

/// Longest answer that is kept, bytes. A status is some 80; every request of the shard's sessions copies it.
pub const BODY_BYTES_MAX: usize = 4 * 1024;

/// Encoded bytes of a shard above which no answer is kept in it: half of [`BYTES_MAX`], so that answers to one
/// session under many credentials never take an update's place.
pub const SHARD_BYTES_MAX: usize = BYTES_MAX / 2;

/// What to do with a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Answer with this.
    Cached(Vec<u8>),
    /// The same; it should be asked for again, and Laravel is down.
    Stale(Vec<u8>),
    /// Ask Laravel.
    Ask(Fetch),
}

/// A read on its way to Laravel, as its answer will need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// What was asked.
    pub asked: Asked,
    /// Laravel's answer shows everything up to this sequence.
    pub floor: u64,
    /// When it began. Monotonic.
    pub began_ms: u64,
    /// Something older can be served if Laravel fails.
    pub has_kept: bool,
}

/// Looks a read up. While Laravel `is_down`, whoever can be answered from the store does not wait for it.
pub fn look(
    store: &impl Store,
    keys: &Keys,
    rules: &Rules,
    proofs: &mut Proofs,
    asked: Asked,
    is_down: bool,
    now: Now,
) -> Found {
    let read = store.get(&keys.shard(rules.shard_of(asked.session)));
    let bytes = read.as_ref().map_or(&[][..], |(bytes, _)| bytes);
    // An unreadable shard keeps nothing, and nothing will be kept in it.
    let shard = Shard::decode(bytes).unwrap_or_default();
    let kept_ms = rules.config.kept.refresh_ms;
    let serves = |max_age_ms| serve(&shard, rules, &asked, max_age_ms, now);
    let known = serves(u64::MAX).is_some()
        && (asked.caller == 0 || proofs.is_reader(store, keys, &asked.subject, now));
    if known
        && !asked.no_cache
        && let Some(body) = serves(kept_ms)
    {
        return Found::Cached(body);
    }
    if known
        && is_down
        && !asked.no_cache
        && let Some(body) = serves(u64::MAX)
    {
        return Found::Stale(body);
    }
    Found::Ask(Fetch {
        floor: shard.floor(asked.session, now.mono_ms),
        began_ms: now.mono_ms,
        has_kept: known,
        asked,
    })
}

/// What can be answered in Laravel's stead, now that it has failed.
pub fn stale(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    fetch: &Fetch,
    now: Now,
) -> Option<Vec<u8>> {
    if !fetch.has_kept {
        return None;
    }
    let (bytes, _) = store.get(&keys.shard(rules.shard_of(fetch.asked.session)))?;
    let shard = Shard::decode(&bytes).ok()?;
    serve(&shard, rules, &fetch.asked, u64::MAX, now)
}

/// The kept answer, patched, if it is not older than this and not beyond its time.
#[inline]
fn serve(
    shard: &Shard<'_>,
    rules: &Rules,
    asked: &Asked,
    max_age_ms: u64,
    now: Now,
) -> Option<Vec<u8>> {
    let read = rules.read(asked.read)?;
    let session = shard.session(asked.session)?;
    let kept = session.kept_of(&read.name, asked.caller)?;
    let age_ms = match kept.is_in_doubt() {
        true => u64::MAX,
        false => now.mono_ms.saturating_sub(kept.fetched_ms),
    };
    if now.mono_ms >= kept.until_ms || age_ms > max_age_ms {
        return None;
    }
    let unshown = session.unshown(rules, read.state, asked.caller, kept.floor);
    kept.patched(unshown.filter(|_| !sabotage::is(Sabotage::ServeUnpatched)))
}

/// Laravel has answered 200 with this body: keeps it, and gives what has to be answered instead, if it does
/// not show everything.
pub fn answered(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    proofs: &mut Proofs,
    fetch: &Fetch,
    body: &[u8],
    now: Now,
) -> Option<Vec<u8>> {
    let asked = &fetch.asked;
    let read = rules.read(asked.read)?;
    let places = places(body, &read.value)?;
    // What was answered to a caller that comes once takes nobody's room: the answer to its second read is kept.
    let is_known = asked.caller == 0 || {
        proofs.has_read(store, keys, &asked.subject, now);
        proofs.is_reader(store, keys, &asked.subject, now)
    };
    let may_keep = body.len() <= BODY_BYTES_MAX && is_known;
    let key = keys.shard(rules.shard_of(asked.session));
    for _ in 0..CAS_ATTEMPTS_MAX {
        let stored = store.get(&key);
        let bytes = stored.as_ref().map_or(&[][..], |(bytes, _)| bytes);
        let Ok(mut shard) = Shard::decode(bytes) else {
            return None;
        };
        let unshown = shard
            .session(asked.session)
            .and_then(|session| session.unshown(rules, read.state, asked.caller, fetch.floor));
        let patched = unshown.and_then(|state| patch(body, &places, state));
        let kept_ms = rules.config.kept.refresh_ms;
        let kept = Kept {
            read: Cow::Owned(read.name.clone()),
            caller: asked.caller,
            fetched_ms: fetch.began_ms,
            until_ms: fetch
                .began_ms
                .saturating_add(kept_ms)
                .saturating_add(rules.config.kept.stale_if_error_ms),
            floor: fetch.floor,
            places: places.clone(),
            body: Cow::Borrowed(body),
        };
        if !may_keep || !shard.keep(asked, kept, now) {
            return patched;
        }
        let encoded = shard.encode();
        if encoded.len() > SHARD_BYTES_MAX {
            return patched;
        }
        match store.put(&key, &encoded, Expect::of(stored.as_ref())) {
            Ok(()) => {
                return patched;
            }
            Err(PutError::Mismatch) => {}
            Err(PutError::Refused) => return patched,
        }
    }
    None
}

/// Laravel has refused the read, or does not know the session: what was kept is of no use.
pub fn refused(store: &mut impl Store, keys: &Keys, rules: &Rules, fetch: &Fetch) {
    let Some(read) = rules.read(fetch.asked.read) else {
        return;
    };
    let key = keys.shard(rules.shard_of(fetch.asked.session));
    for _ in 0..CAS_ATTEMPTS_MAX {
        let Some((bytes, token)) = store.get(&key) else {
            return;
        };
        let Ok(mut shard) = Shard::decode(&bytes) else {
            return;
        };
        if !shard.drop_kept(fetch.asked.session, &read.name, fetch.asked.caller) {
            return;
        }
        match store.put(&key, &shard.encode(), Expect::Token(token)) {
            Err(PutError::Mismatch) => {}
            Ok(()) | Err(PutError::Refused) => return,
        }
    }
}

/// Where a body shows the state, in order: the first pointer that leads to a string, and the others that lead
/// to the same one. `None` for what is no JSON object, nothing for one that shows no state.
#[inline]
fn places(body: &[u8], pointers: &[Pointer]) -> Option<Vec<Place>> {
    core::str::from_utf8(body).ok()?;
    json::members(body).ok()?;
    let at = |place: &Place| body.get(place.start as usize..place.end as usize);
    let mut places: Vec<Place> = pointers
        .iter()
        .filter_map(|pointer| string_at(body, pointer))
        .collect();
    let first = places.first().copied();
    places.retain(|place| first.is_some_and(|first| at(place) == at(&first)));
    sort::by_key(&mut places, |place| u128::from(place.start));
    places.dedup();
    Some(places)
}

#[inline]
fn string_at(body: &[u8], pointer: &Pointer) -> Option<Place> {
    let mut raw = body;
    for segment in pointer.segments() {
        // Of two members with one key, PHP takes the last.
        let members = json::members(raw).ok()?;
        let named = |(key, _): &&Member<'_>| key == segment;
        (_, raw) = *members.iter().rev().find(named)?;
    }
    if !raw.starts_with(b"\"") {
        return None;
    }
    // The raw value is a part of the body, so the difference of the addresses is its place.
    let start = (raw.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let end = start.checked_add(raw.len())?;
    Some(Place {
        start: u32::try_from(start).ok()?,
        end: u32::try_from(end).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use crate::proof::Subject;
    use crate::route::tests::rules;
    use crate::store::MemoryStore;

    fn patched(body: &str) -> Option<String> {
        let rules = rules("{}");
        let places = places(body.as_bytes(), &rules.config.reads[0].value)?;
        String::from_utf8(patch(body.as_bytes(), &places, "pen\"ding")?).ok()
    }

    #[test]
    fn answers_under_many_credentials_leave_half_of_the_shard_to_the_updates() {
        let rules = rules("{}");
        let (mut store, keys) = (MemoryStore::default(), Keys::new("p"));
        let session = 7;
        let key = keys.shard(rules.shard_of(session));
        let size = |store: &MemoryStore| store.get(&key).map_or(0, |(bytes, _)| bytes.len());
        let body = format!(
            r#"{{"estado_qr":"active","x":"{}"}}"#,
            "x".repeat(BODY_BYTES_MAX - 30)
        );
        assert!(body.len() <= BODY_BYTES_MAX);
        let mut proofs = Proofs::default();
        let mut kept = 0;
        for caller in 1..=200 {
            let asked = Asked {
                destination_hash: 0,
                read: 0,
                session,
                caller,
                subject: Subject::new(caller, 0, ""),
                no_cache: false,
            };
            let now = Now {
                mono_ms: caller,
                wall_ms: 0,
            };
            // It is known with its second read.
            for _ in 0..2 {
                let read = asked.clone();
                let Found::Ask(fetch) = look(&store, &keys, &rules, &mut proofs, read, false, now)
                else {
                    panic!("what one caller was answered is no other's");
                };
                answered(
                    &mut store,
                    &keys,
                    &rules,
                    &mut proofs,
                    &fetch,
                    body.as_bytes(),
                    now,
                );
                assert!(size(&store) <= SHARD_BYTES_MAX, "{} bytes", size(&store));
            }
            let found = look(&store, &keys, &rules, &mut proofs, asked, false, now);
            kept += usize::from(matches!(found, Found::Cached(_)));
        }
        let fits = SHARD_BYTES_MAX / (body.len() + 200);
        assert!((fits..200).contains(&kept), "as many as fit: {kept}");
    }

    #[test]
    fn the_state_is_replaced_wherever_it_stands_and_nothing_else() {
        assert_eq!(
            patched(r#"{ "estado_qr" : "active","x":[1.50],"status":"active"}"#).unwrap(),
            r#"{ "estado_qr" : "pen\"ding","x":[1.50],"status":"pen\"ding"}"#
        );
        assert_eq!(
            patched(r#"{"status":"ok","estado_qr":"active"}"#).unwrap(),
            r#"{"status":"ok","estado_qr":"pen\"ding"}"#,
            "the status is not the state here"
        );
        assert_eq!(patched(r#"{"estado_qr":null}"#), None);
        assert_eq!(patched("[]"), None);
        assert_eq!(patched("<html>"), None);
    }
}
