//! Reads: Laravel's own answers, kept and served from the store.
//!
//! The gateway asks Laravel before every QR whether it may send it. A 200 is kept, and served for
//! `read_refresh_ms`; while Laravel fails, for `stale_if_error_ms` longer. Whatever is answered, kept or
//! fresh, shows the newest state of the session that was acknowledged: see `shard`'s `kept`. Nothing but a 200
//! is ever kept, and what was given to one credential is never given to another.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::json::{self, Member, Pointer};
use crate::proof::{Belief, Compared, Follows, Proofs, Shown};
use crate::route::{Asked, Rules};
use crate::sabotage::{self, Sabotage};
use crate::shard::{BYTES_MAX, Entry, Kept, Place, Session, Shard, patch};
use crate::store::{CAS_ATTEMPTS_MAX, Expect, Keys, PutError, Store};
use crate::time::Now;
use crate::verdict::says_failure;

/// Longest answer that is kept, bytes. A status is some 80; every request of the shard's sessions copies it.
pub const BODY_BYTES_MAX: usize = 4 * 1024;

/// Encoded bytes of a shard above which no answer is kept in it: half of [`BYTES_MAX`], so that answers to one
/// session under many credentials never take an update's place.
pub const SHARD_BYTES_MAX: usize = BYTES_MAX / 2;

/// Longest that Laravel may take for an answer that is kept, milliseconds: a long poll says what was, not what is.
const TOOK_MS_MAX: u64 = 1_000;

/// Longest that the headers of a kept answer may be together, bytes.
const HEADERS_BYTES_MAX: usize = 1024;

/// What to do with a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Answer with this.
    Cached(Given),
    /// The same; it should be asked for again, and Laravel is down.
    Stale(Given),
    /// Ask Laravel.
    Ask(Fetch),
}

/// An answer from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its `access-control-*` headers, as [`crate::headers::Headers`] reads them.
    pub headers: Vec<u8>,
    /// Its body.
    pub body: Vec<u8>,
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

/// Laravel's 200 to a read.
#[derive(Clone, Copy, Debug)]
pub struct Fresh<'f> {
    /// Its body.
    pub body: &'f [u8],
    /// What of its headers is kept with it.
    pub headers: &'f [u8],
    /// Its headers let it be given to whoever asks the same.
    pub may_keep: bool,
}

/// What becomes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// What has to be answered instead, if it does not show everything.
    pub patched: Option<Vec<u8>>,
    /// What it was beside what was expected.
    pub result: Option<ReadResult>,
    /// Such answers change in more than the state, and that is news: the names of the members that differ.
    pub disproved: Option<String>,
}

/// What a fresh answer was beside what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadResult {
    /// The kept one, with the new state in its place.
    Same,
    /// Another.
    Differs,
    /// It shows the state from before what was delivered last.
    Late,
}

/// A kept answer that could be given, and on what condition.
struct Candidate<'s, 'a> {
    kept: &'s Kept<'a>,
    /// The state that it has to show instead of its own.
    unshown: Option<&'s str>,
    /// What has to be believed for that.
    needs: Option<Shown>,
    /// Something else than the state was accepted since, and may be shown beside it.
    has_more: bool,
    /// A fresh answer could be compared with it: Laravel has the newest state.
    can_be_compared: bool,
    /// It need not be asked for again.
    is_young: bool,
}

/// Looks a read up. While Laravel `is_down`, whoever can be answered from the store does not wait for it.
pub fn look(
    store: &mut impl Store,
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
    let candidate = candidate(&shard, rules, &asked, now)
        .filter(|_| asked.caller == 0 || proofs.is_reader(store, keys, &asked.subject, now));
    if let Some(candidate) = candidate.as_ref().filter(|_| !asked.no_cache) {
        if candidate.is_young
            && let Some(follows) = candidate.follows(store, keys, rules, proofs, now)
            && let Some(given) = candidate.given(follows)
        {
            return Found::Cached(given);
        }
        let learnt = |shown: Shown| proofs.follows(store, keys, shown);
        if is_down
            && let Some(given) =
                candidate.given(candidate.shown(rules, &asked).map_or(Follows::One, learnt))
        {
            return Found::Stale(given);
        }
    }
    Found::Ask(Fetch {
        floor: shard.floor(asked.session, now.mono_ms),
        began_ms: now.mono_ms,
        has_kept: candidate.is_some(),
        asked,
    })
}

/// What can be answered in Laravel's stead, now that it has failed.
pub fn stale(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    proofs: &mut Proofs,
    fetch: &Fetch,
    now: Now,
) -> Option<Given> {
    if !fetch.has_kept {
        return None;
    }
    let (bytes, _) = store.get(&keys.shard(rules.shard_of(fetch.asked.session)))?;
    let shard = Shard::decode(&bytes).ok()?;
    let candidate = candidate(&shard, rules, &fetch.asked, now)?;
    let shown = candidate.shown(rules, &fetch.asked);
    candidate.given(shown.map_or(Follows::One, |shown| proofs.follows(store, keys, shown)))
}

/// The kept answer, if its time is not over.
#[inline]
fn candidate<'s, 'a>(
    shard: &'s Shard<'a>,
    rules: &'s Rules,
    asked: &Asked,
    now: Now,
) -> Option<Candidate<'s, 'a>> {
    let read = rules.read(asked.read).filter(|_| asked.may_keep)?;
    let session = shard.session(asked.session)?;
    let kept = session.kept_of(&read.name, asked.reader)?;
    if now.mono_ms >= kept.until_ms {
        return None;
    }
    let times = &rules.config.kept;
    // Not all at once: what was asked for together is asked for again at moments of its own.
    let spread_ms = (asked.session as u64) % (times.refresh_ms / 2).max(1);
    let age_ms = now.mono_ms.saturating_sub(kept.fetched_ms);
    let is_young = !kept.is_in_doubt() && age_ms <= times.refresh_ms.saturating_add(spread_ms);
    let unshown = session.unshown(rules, read.state, asked.caller, kept.floor);
    let unshown = unshown.filter(|_| !sabotage::is(Sabotage::ServeUnpatched));
    let since = session.since(rules, read.state, asked.caller, kept.floor..u64::MAX);
    let since = since.after(kept);
    let mut found = Candidate {
        kept,
        unshown,
        needs: None,
        has_more: since.has_more(),
        can_be_compared: session
            .newest_state(rules, read.state, asked.caller)
            .is_some_and(|(_, _, is_sent)| is_sent),
        is_young,
    };
    // What Laravel has said since everything was settled needs no belief.
    let ttl_ms = rules.config.dedup.ttl_ms;
    let settles_until = session.settles_until(times.settle_ms, ttl_ms);
    let is_settled = unshown.is_none()
        && !session.entries.iter().any(Entry::is_dirty)
        && kept.fetched_ms >= settles_until;
    // It has said this when it may still have been about to apply what it had taken: it is asked once more. What shows the
    // newest state was not late with that.
    let shows_newest = || {
        let state = kept.places.first().and_then(|at| text_at(&kept.body, at));
        let newest = session.newest_state(rules, read.state, asked.caller);
        state
            .zip(newest)
            .is_some_and(|(state, (newest, ..))| state == newest)
    };
    let is_over = !since.any && now.mono_ms >= settles_until && !shows_newest();
    found.is_young &= is_settled || !is_over;
    if !is_settled {
        found.needs = Some(found.shown(rules, asked)?);
    }
    Some(found)
}

/// Laravel has answered 200: keeps it, and gives what has to be answered instead, if it does not show everything.
pub fn answered(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    proofs: &mut Proofs,
    fetch: &Fetch,
    fresh: &Fresh<'_>,
    now: Now,
) -> Answered {
    let asked = &fetch.asked;
    let Fresh { body, .. } = *fresh;
    let mut answered = Answered::default();
    let Some((read, places)) = rules
        .read(asked.read)
        .and_then(|read| Some((read, places(body, &read.value)?)))
    else {
        return answered;
    };
    // What was answered to a caller that comes once takes nobody's room: the answer to its second read is kept.
    let is_known = asked.caller == 0 || {
        proofs.has_read(store, keys, &asked.subject, now);
        proofs.is_reader(store, keys, &asked.subject, now)
    };
    let state = places.first().and_then(|place| text_at(body, place));
    let took_ms = now.mono_ms.saturating_sub(fetch.began_ms);
    let may_keep = asked.may_keep
        && (fresh.may_keep || sabotage::is(Sabotage::KeepWhateverIsSaid))
        && is_known
        && body.len() <= BODY_BYTES_MAX
        && fresh.headers.len() <= HEADERS_BYTES_MAX
        && took_ms <= TOOK_MS_MAX
        && (state.is_some() && !says_failure(body) || sabotage::is(Sabotage::KeepFailures));
    let settle_ms = rules.config.kept.settle_ms;
    let key = keys.shard(rules.shard_of(asked.session));
    for attempt in 0..CAS_ATTEMPTS_MAX {
        let stored = store.get(&key);
        let bytes = stored.as_ref().map_or(&[][..], |(bytes, _)| bytes);
        let Ok(mut shard) = Shard::decode(bytes) else {
            return answered;
        };
        let session = shard.session(asked.session);
        let own = session.and_then(|session| session.newest_state(rules, read.state, asked.caller));
        // Laravel may take a moment to apply what it has accepted: it says once more what was before.
        let said = match places.first().and_then(|place| raw_at(body, place)) {
            Some(b"null") => Some(""),
            _ => state.as_deref(),
        };
        let is_from_before = |(newest, seq, is_sent): (&str, u64, bool)| {
            session.zip(said).is_some_and(|(session, state)| {
                is_sent
                    && newest != state
                    && !session.may_have_set(rules, read.state, seq, state)
                    // It may be as old as the request.
                    && session.may_be_from_before(state, settle_ms, fetch.began_ms)
                    && !sabotage::is(Sabotage::BelieveTheLate)
            })
        };
        let late = own.filter(|own| is_from_before(*own));
        let late = late.map(|(newest, ..)| newest);
        // What somebody else has said is not the reader's to be shown, and nothing from before it is to be kept.
        let all = session.and_then(|session| session.newest_of_all(rules, read.state));
        let is_anybodys = late.is_some() || all.is_some_and(is_from_before);
        let unshown = session
            .and_then(|session| session.unshown(rules, read.state, asked.caller, fetch.floor))
            .or(late);
        if late.is_some() {
            answered.result = Some(ReadResult::Late);
        }
        if attempt == 0 && may_keep {
            let compared = compare(
                store,
                keys,
                rules,
                proofs,
                fetch,
                session,
                (body, &places),
                now,
            );
            if let Some((result, disproved)) = compared {
                answered.result = Some(result);
                answered.disproved = disproved;
            }
        }
        answered.patched = unshown.and_then(|state| {
            let before = places.first().and_then(|place| raw_at(body, place))?;
            let since = session?.since(rules, read.state, asked.caller, fetch.floor..u64::MAX);
            let shown = rules.shown(asked, before, state.as_bytes());
            let shown = beside(shown, since.has_more());
            patch(body, &places, state, proofs.follows(store, keys, shown))
        });
        if !may_keep || is_anybodys {
            return answered;
        }
        let times = &rules.config.kept;
        let kept = Kept {
            read: Cow::Owned(read.name.clone()),
            caller: asked.caller,
            reader: asked.reader,
            fetched_ms: fetch.began_ms,
            until_ms: fetch
                .began_ms
                .saturating_add(times.refresh_ms)
                .saturating_add(times.refresh_ms / 2)
                .saturating_add(times.stale_if_error_ms),
            floor: fetch.floor,
            has_more: false,
            places: places.iter().copied().collect(),
            headers: Cow::Borrowed(fresh.headers),
            body: Cow::Borrowed(body),
        };
        if !shard.keep(asked, kept, now) {
            return answered;
        }
        let encoded = shard.encode();
        if encoded.len() > SHARD_BYTES_MAX {
            return answered;
        }
        match store.put(&key, &encoded, Expect::of(stored.as_ref())) {
            Err(PutError::Mismatch) => {}
            Ok(()) | Err(PutError::Refused) => return answered,
        }
    }
    answered
}

/// What a QR changes in an answer is another belief than what a state does.
#[inline]
fn beside(shown: Shown, has_more: bool) -> Shown {
    Shown {
        key: shown.key ^ u64::from(has_more),
        ..shown
    }
}

/// Compares a fresh answer with the one before it. The names of the members that differ, where that is news.
#[expect(
    clippy::too_many_arguments,
    reason = "the store, what is known, and what was heard"
)]
#[inline]
fn compare(
    store: &mut impl Store,
    keys: &Keys,
    rules: &Rules,
    proofs: &mut Proofs,
    fetch: &Fetch,
    session: Option<&Session<'_>>,
    (body, places): (&[u8], &[Place]),
    now: Now,
) -> Option<(ReadResult, Option<String>)> {
    let asked = &fetch.asked;
    let read = rules.read(asked.read)?;
    let session = session?;
    let before = session.kept_of(&read.name, asked.reader)?;
    let (newest, seq, is_sent) = session.newest_state(rules, read.state, asked.caller)?;
    let state = text_at(body, places.first()?)?;
    // Another state is news of the session, and says nothing of how answers look.
    if before.is_in_doubt() || !is_sent || state != newest || seq > fetch.floor {
        return None;
    }
    let since = session.since(rules, read.state, asked.caller, before.floor..fetch.floor);
    let since = since.after(before);
    let is = |follows| {
        before
            .patched(Some(newest), follows)
            .is_some_and(|with| with == body)
    };
    let follows = match (is(Follows::One), is(Follows::All)) {
        (true, true) => Some(Follows::Any),
        (true, false) => Some(Follows::One),
        (false, true) => Some(Follows::All),
        (false, false) => None,
    };
    let (result, compared) = match follows {
        Some(follows) => (ReadResult::Same, Compared::Same(follows)),
        None => (ReadResult::Differs, Compared::Differs),
    };
    // Where nothing has arrived between them, Laravel had nothing new to show.
    if follows.is_some() && !since.any {
        return None;
    }
    let shown = rules.shown(asked, before.shown()?, newest.as_bytes());
    let shown = beside(shown, since.has_more());
    let is_news = proofs.compared(store, keys, shown, compared, now);
    let expected = before.patched(Some(newest), Follows::One)?;
    let names = is_news.then(|| differing(&expected, body));
    Some((result, names))
}

/// The names of the members in which two answers differ. Never their values: a QR is a credential.
#[inline]
fn differing(before: &[u8], body: &[u8]) -> String {
    let (Ok(before), Ok(body)) = (json::members(before), json::members(body)) else {
        return String::new();
    };
    let mut names: Vec<&str> = Vec::new();
    for (here, there) in [(&before, &body), (&body, &before)] {
        for (name, value) in here {
            let is_there = there
                .iter()
                .any(|(other, found)| other == name && found == value);
            if !is_there && !names.contains(&&**name) {
                names.push(name);
            }
        }
    }
    names.join(", ")
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
        if !shard.drop_kept(fetch.asked.session, &read.name, fetch.asked.reader) {
            return;
        }
        match store.put(&key, &shard.encode(), Expect::Token(token)) {
            Err(PutError::Mismatch) => {}
            Ok(()) | Err(PutError::Refused) => return,
        }
    }
}

/// Where a body shows the state: at the first pointer that leads anywhere; and behind that, where others lead to the
/// same text. `None` for what is no JSON object, nothing for one that shows no state.
#[inline]
fn places(body: &[u8], pointers: &[Pointer]) -> Option<Vec<Place>> {
    core::str::from_utf8(body).ok()?;
    json::members(body).ok()?;
    let at = |place: &Place| body.get(place.start as usize..place.end as usize);
    let mut places: Vec<Place> = pointers
        .iter()
        .filter_map(|pointer| value_at(body, pointer))
        .collect();
    let first = places.first().copied();
    let first = first.and_then(|first| at(&first));
    // A number or an object is no state that could be replaced.
    let is_state = first.is_some_and(|first| first.starts_with(b"\"") || first == b"null");
    let mut seen: Vec<Place> = Vec::new();
    places.retain(|place| {
        let is_one = is_state && at(place) == first && !seen.contains(place);
        seen.push(*place);
        is_one
    });
    // Of a null nothing else follows.
    if first == Some(b"null") {
        places.truncate(1);
    }
    Some(places)
}

#[inline]
fn raw_at<'b>(body: &'b [u8], place: &Place) -> Option<&'b [u8]> {
    body.get(place.start as usize..place.end as usize)
}

/// The string at a place.
#[inline]
fn text_at<'b>(body: &'b [u8], place: &Place) -> Option<Cow<'b, str>> {
    let raw = raw_at(body, place)?;
    json::word(raw).filter(|_| raw.starts_with(b"\""))
}

#[inline]
fn value_at(body: &[u8], pointer: &Pointer) -> Option<Place> {
    let mut raw = body;
    for segment in pointer.segments() {
        // Of two members with one key, PHP takes the last.
        let members = json::members(raw).ok()?;
        let named = |(key, _): &&Member<'_>| key == segment;
        (_, raw) = *members.iter().rev().find(named)?;
    }
    // The raw value is a part of the body, so the difference of the addresses is its place.
    let start = (raw.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let end = start.checked_add(raw.len())?;
    Some(Place {
        start: u32::try_from(start).ok()?,
        end: u32::try_from(end).ok()?,
    })
}

// === impl ReadResult ===

impl ReadResult {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Same, Self::Differs, Self::Late];

    /// As the metrics call it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differs => "differs",
            Self::Late => "late",
        }
    }
}

// === impl Candidate ===

impl Candidate<'_, '_> {
    /// How the state stands in it, where it may be served: `None` where Laravel has to be asked.
    #[inline]
    fn follows(
        &self,
        store: &mut impl Store,
        keys: &Keys,
        rules: &Rules,
        proofs: &mut Proofs,
        now: Now,
    ) -> Option<Follows> {
        let Some(shown) = self.needs else {
            return Some(Follows::One);
        };
        let follows = match proofs.belief(store, keys, shown, self.can_be_compared, now) {
            Belief::Proven(follows) => follows,
            _ if rules.config.assume.reads || sabotage::is(Sabotage::BelieveUnseen) => {
                proofs.follows(store, keys, shown)
            }
            Belief::Unproven | Belief::Sample => return None,
        };
        // Whether the others follow was not seen; where it shows that state already, they need not.
        let shows = |state| self.kept.shown() == Some(json::quoted(state).as_bytes());
        let is_told =
            follows != Follows::Any || self.kept.places.len() < 2 || self.unshown.is_none_or(shows);
        // Not even where reads are assumed: one answer tells, and half of a new state is nobody's word.
        (is_told || sabotage::is(Sabotage::BelieveUnseen)).then_some(follows)
    }

    #[inline]
    fn given(&self, follows: Follows) -> Option<Given> {
        Some(Given {
            headers: self.kept.headers.to_vec(),
            body: self.kept.patched(self.unshown, follows)?,
        })
    }

    /// What it shows.
    #[inline]
    fn shown(&self, rules: &Rules, asked: &Asked) -> Option<Shown> {
        let before = self.kept.shown()?;
        let state = self.unshown.map_or(before, str::as_bytes);
        Some(beside(rules.shown(asked, before, state), self.has_more))
    }
}

#[cfg(test)]
mod tests;
