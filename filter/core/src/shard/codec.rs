//! A shard's bytes.
//!
//! Fixed-width little-endian numbers and length-prefixed bytes, written by hand: decoding is on the path
//! of every intercepted request, and a self-describing format would cost more than the parse of the
//! request itself. Payloads are borrowed from the encoded value. Every change of this format needs a new
//! `layout::VERSION`.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::bytes;

use super::{
    BESIDE_MAX, Beside, Claim, ClaimId, Dirty, ENDED_MAX, Ended, Ending, Entry, HELD_MAX,
    HeldPlace, Item, KEPT_MAX, Kept, Ledger, ORPHANS_MAX, Orphan, PLACES_MAX, Place, Places,
    REFUSED_MAX, RefusedBody, SESSIONS_THROUGH_MAX, Session, Settling, Shard, State, Trial, Was,
};

/// A value that is no shard: another program uses the key, or memory is corrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// Reads from the front.
struct Reader<'a> {
    rest: &'a [u8],
    /// The last two names: a session's routes are those of the session before it.
    names: [&'a str; 2],
}

const CLEAN: u8 = 0;
const DIRTY: u8 = 1;
const IMPLIED: u8 = 2;
/// The bits of these.
const STATE: u8 = 3;

// What more an entry has, in the same byte.
const ORDERED: u8 = 4;
const SHOWN: u8 = 8;

// What a session has; most have none of it.
const CLAIMED: u8 = 1;
const KEPT: u8 = 2;
const ENDED: u8 = 4;
const BESIDE: u8 = 8;
const HELD: u8 = 16;
const REFUSED: u8 = 32;
const SETTLING: u8 = 64;
const HURRIED: u8 = 128;

// A status where Laravel has rejected an update.
const DELIVERED: u16 = 0;
const EXPIRED: u16 = 1;
const VOIDED: u16 = 2;

/// Where the ring stands in a shard's bytes: behind its sequence and its wall time.
const RUNG_AT: usize = 16;

/// The bytes of a shard, its ring answered.
#[must_use]
pub fn without_ring(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(rung) = bytes.get_mut(RUNG_AT) {
        *rung = 0;
    }
    bytes
}

// === impl Shard ===

impl<'a> Shard<'a> {
    /// Decodes a stored value; empty is an empty shard, as a key that was emptied reads.
    ///
    /// # Errors
    /// [`Corrupt`] where the bytes are no shard.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut reader = Reader {
            rest: bytes,
            names: [""; 2],
        };
        let shard = reader.shard().filter(Self::is_sound).ok_or(Corrupt)?;
        match reader.rest {
            [] => Ok(shard),
            _ => Err(Corrupt),
        }
    }

    /// What every writer keeps and every reader leans on: a session is there once, a route's last value is
    /// there once, and there is an end to them. A dispatcher that finds one session twice would plan the second one's
    /// item, find the first one's, and never come to anybody else's.
    fn is_sound(&self) -> bool {
        let mut rest = self.sessions.as_slice();
        let mut unique = true;
        while let Some((session, earlier)) = rest.split_last() {
            unique &= earlier.iter().all(|other| other.id != session.id) && session.is_sound();
            rest = earlier;
        }
        self.sessions.len() <= SESSIONS_THROUGH_MAX && self.orphans.len() <= ORPHANS_MAX && unique
    }

    /// The bytes to be stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size_hint());
        put_numbers(&mut out, [self.last_seq, self.last_wall_ms]);
        out.push(u8::from(self.rung));
        let Ledger {
            accepted,
            delivered,
            superseded,
            expired,
            rejected,
            voided,
        } = self.ledger;
        let numbers = [accepted, delivered, superseded, expired, rejected, voided];
        put_numbers(&mut out, numbers);
        put_count(&mut out, self.sessions.len());
        for session in &self.sessions {
            session.encode(&mut out);
        }
        put_count(&mut out, self.orphans.len());
        for orphan in &self.orphans {
            let Orphan {
                session,
                caller,
                until_ms,
            } = orphan;
            let [low, high] = halves(*session);
            put_rare(&mut out, &[low, high, *caller, *until_ms]);
        }
        out
    }

    pub(super) fn size_hint(&self) -> usize {
        let mut size = 256_usize;
        for session in &self.sessions {
            for entry in &session.entries {
                let payload = match &entry.state {
                    State::Dirty(dirty) => dirty.bytes(),
                    State::Clean { .. } | State::Implied { .. } => 0,
                };
                size = size.saturating_add(payload).saturating_add(100);
            }
            for kept in &session.kept {
                size = size.saturating_add(kept.body.len()).saturating_add(80);
            }
        }
        size
    }
}

// === impl Session ===

impl Session<'_> {
    fn is_sound(&self) -> bool {
        let bounded = self.ended.len() <= ENDED_MAX
            && self.beside.len() <= BESIDE_MAX
            && self.held.len() <= HELD_MAX
            && self.refused.len() <= REFUSED_MAX
            && self.kept.len() <= KEPT_MAX
            && self.settling.as_ref().is_none_or(|it| it.was.is_sound());
        let mut rest = self.entries.as_slice();
        let mut unique = true;
        while let Some((entry, earlier)) = rest.split_last() {
            let is_own = |other: &Entry<'_>| other.is(&entry.route, entry.caller);
            // Behind the last value of its route and caller stands what has still to be sent before it.
            let is_behind =
                |before: &Entry<'_>| is_own(before) && before.seq > entry.seq && entry.is_dirty();
            unique &= !earlier.iter().any(is_own) || earlier.last().is_some_and(is_behind);
            rest = earlier;
        }
        bounded && unique
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let [low, high] = halves(self.id);
        let seqs = [self.newest_seq, self.unread_seq, self.through_seq];
        let [newest_seq, unread_seq, through_seq] = seqs;
        put_numbers(
            out,
            [
                low,
                high,
                newest_seq,
                unread_seq,
                through_seq,
                self.told_seq,
            ],
        );
        let has = |flag: u8, is_there: bool| if is_there { flag } else { 0 };
        let more = has(HELD, !self.held.is_empty())
            | has(BESIDE, !self.beside.is_empty())
            | has(REFUSED, !self.refused.is_empty())
            | has(SETTLING, self.settling.is_some())
            | has(HURRIED, self.hurry_until_ms > 0)
            | has(KEPT, !self.kept.is_empty())
            | has(ENDED, !self.ended.is_empty());
        out.push(has(CLAIMED, self.claim.is_some()) | more);
        if let Some(claim) = &self.claim {
            let Claim {
                id,
                route,
                caller,
                seq,
                deadline_ms,
            } = claim;
            put_rare(out, &[id.epoch, id.counter, *caller, *seq, *deadline_ms]);
            put_bytes(out, route.as_bytes());
        }
        put_count(out, self.entries.len());
        for entry in &self.entries {
            entry.encode(out);
        }
        if let Some(settling) = &self.settling {
            let Settling {
                was,
                delivered_ms,
                awaits,
            } = settling;
            put_numbers(out, [*delivered_ms | u64::from(*awaits) << FLAG_SHIFT]);
            put_bytes(out, &was.0);
        }
        // Of most sessions nothing else is known.
        if more & !SETTLING != 0 {
            self.encode_more(out, more);
        }
    }

    #[cold]
    #[inline(never)]
    fn encode_more(&self, out: &mut Vec<u8>, more: u8) {
        if more & KEPT != 0 {
            put_count(out, self.kept.len());
            for kept in &self.kept {
                kept.encode(out);
            }
        }
        if more & ENDED != 0 {
            put_count(out, self.ended.len());
            for ended in &self.ended {
                ended.encode(out);
            }
        }
        if more & BESIDE != 0 {
            put_count(out, self.beside.len());
            for beside in &self.beside {
                let Beside {
                    number,
                    caller,
                    seq,
                    is_outside,
                    begun_ms,
                    deadline_ms,
                } = *beside;
                put_rare(out, &[number, caller, seq, begun_ms, deadline_ms]);
                out.push(u8::from(is_outside));
            }
        }
        if more & HELD != 0 {
            put_count(out, self.held.len());
            for held in &self.held {
                put_rare(out, &[held.seq, held.vm, held.caller, held.deadline_ms]);
                out.push(u8::from(held.is_stranger));
            }
        }
        if more & REFUSED != 0 {
            put_count(out, self.refused.len());
            for refused in &self.refused {
                put_rare(out, &[refused.body, refused.seq, refused.until_ms]);
            }
        }
        if more & HURRIED != 0 {
            put_rare(out, &[self.hurry_until_ms]);
        }
    }
}

// === impl Ended ===

impl Ended {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self {
            item,
            how,
            until_ms,
        } = *self;
        let nobody = Item { place: 0, seq: 0 };
        let (code, by) = match how {
            Ending::Delivered => (DELIVERED, nobody),
            Ending::Expired => (EXPIRED, nobody),
            Ending::Voided(by) => (VOIDED, by),
            Ending::Rejected(status) => (status, nobody),
        };
        put_rare(out, &[item.place, item.seq, by.place, by.seq, until_ms]);
        out.extend_from_slice(&code.to_le_bytes());
    }
}

// === impl Kept ===

/// No clock comes so far.
const FLAG_SHIFT: u32 = 63;

impl Kept<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.read.as_bytes());
        put_rare(
            out,
            &[
                self.caller,
                self.reader,
                self.fetched_ms,
                self.until_ms | (u64::from(self.has_more) << FLAG_SHIFT),
                self.floor,
            ],
        );
        put_count(out, self.places.len());
        for Place { start, end } in self.places.iter() {
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&end.to_le_bytes());
        }
        put_bytes(out, &self.headers);
        put_bytes(out, &self.body);
    }
}

// === impl Entry ===

impl Entry<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut flags = match &self.state {
            State::Clean { .. } => CLEAN,
            State::Implied { .. } => IMPLIED,
            State::Dirty(_) => DIRTY,
        };
        if self.order.is_some() {
            flags |= ORDERED;
        }
        if self.text.is_some() {
            flags |= SHOWN;
        }
        let [low, high] = halves(self.value);
        let (route, text) = (&*self.route, self.text.as_deref().unwrap_or_default());
        put_numbers(
            out,
            [
                low,
                high,
                self.word,
                self.caller,
                self.seq,
                self.accepted_ms,
                u64::from(flags) | length(route.as_bytes()) << 8 | length(text.as_bytes()) << 32,
            ],
        );
        out.extend_from_slice(route.as_bytes());
        if let Some(order) = self.order {
            put_numbers(out, [order]);
        }
        if !text.is_empty() {
            out.extend_from_slice(text.as_bytes());
        }
        match &self.state {
            State::Clean { until_ms: number } | State::Implied { by: number } => {
                put_numbers(out, [*number]);
            }
            State::Dirty(dirty) => {
                let Trial {
                    alone,
                    not_before_ms,
                    lost,
                    failures,
                    failed_since_ms,
                    refusals,
                    refused_ms,
                } = dirty.trial;
                // Most items have never been alone, and of these nothing is known.
                let trial = u64::from(alone) | u64::from(lost) << 1;
                let Dirty {
                    destination,
                    neutral,
                    body,
                    ..
                } = dirty;
                put_numbers(
                    out,
                    [
                        dirty.since_ms,
                        dirty.timestamp_ms,
                        dirty.members,
                        u64::from(dirty.attempts)
                            | trial << 16
                            | u64::from(dirty.priority) << 24
                            | length(destination) << 32,
                        length(neutral) | length(body) << 32,
                    ],
                );
                if alone {
                    put_rare(out, &[not_before_ms, failed_since_ms, refused_ms]);
                    out.extend_from_slice(&failures.to_le_bytes());
                    out.extend_from_slice(&refusals.to_le_bytes());
                }
                for part in [destination, neutral, body] {
                    out.extend_from_slice(part);
                }
            }
        }
    }
}

fn joined(low: u64, high: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// Counts and lengths are bounded far below `u32::MAX` by the limits on bodies and shards.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

/// A length as part of a number: one write, and one read, for all that an entry is made of.
fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

fn put_numbers<const N: usize>(out: &mut Vec<u8>, numbers: [u64; N]) {
    out.extend_from_slice(numbers.map(u64::to_le_bytes).as_flattened());
}

/// As [`put_numbers`], of what few sessions have: one copy for all of them.
#[cold]
#[inline(never)]
fn put_rare(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// The lower half, and the upper one.
fn halves(number: u128) -> [u64; 2] {
    [number as u64, (number >> 64) as u64]
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

// === impl Reader ===

// The crate is compiled for size, and by itself the compiler would call what is read a hundred times a request: hence
// `inline(always)`. What few sessions have stays out of the way of the others.
impl<'a> Reader<'a> {
    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    #[inline(always)]
    fn numbers<const N: usize>(&mut self) -> Option<[u64; N]> {
        let (words, _) = self.rest.as_chunks::<8>();
        let numbers = words.first_chunk::<N>()?;
        self.rest = self.rest.get(N.saturating_mul(8)..)?;
        Some(numbers.map(u64::from_le_bytes))
    }

    #[inline(always)]
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline(always)]
    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.array().map(u32::from_le_bytes)?).ok()
    }

    #[inline(always)]
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        self.part(length as u64)
    }

    /// What is so long.
    #[inline(always)]
    fn part(&mut self, length: u64) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(length as usize)?;
        self.rest = rest;
        Some(head)
    }

    #[inline(always)]
    fn text(&mut self) -> Option<Cow<'a, str>> {
        core::str::from_utf8(self.bytes()?).ok().map(Cow::Borrowed)
    }

    /// A route's name: whether it is UTF-8 is looked at once.
    #[inline(always)]
    fn name(&mut self, length: u64) -> Option<Cow<'a, str>> {
        let found = self.part(length)?;
        let [last, before] = self.names;
        for known in [before, last] {
            if bytes::same(known.as_bytes(), found) {
                return Some(Cow::Borrowed(known));
            }
        }
        let name = core::str::from_utf8(found).ok()?;
        self.names = [name, last];
        Some(Cow::Borrowed(name))
    }

    fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.each(|reader, all| {
            all.push(one(reader)?);
            Some(())
        })
    }

    /// As [`Self::many`]; `one` puts it into its place itself, which saves a copy.
    #[inline(always)]
    fn each<T>(
        &mut self,
        mut one: impl FnMut(&mut Self, &mut Vec<T>) -> Option<()>,
    ) -> Option<Vec<T>> {
        let count = self.count()?;
        // A corrupt count must not make us reserve gigabytes: every element has a byte at least.
        let mut all = Vec::with_capacity(match count {
            0 => 0,
            // And one that an offer adds.
            count => count.min(self.rest.len()).min(64).saturating_add(1),
        });
        for _ in 0..count {
            one(self, &mut all)?;
        }
        Some(all)
    }

    /// As [`Self::many`] where the flag is set, and none where it is not.
    fn some<T>(
        &mut self,
        is_there: bool,
        one: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        match is_there {
            true => self.many(one),
            false => Some(Vec::new()),
        }
    }

    fn shard(&mut self) -> Option<Shard<'a>> {
        let [last_seq, last_wall_ms] = self.numbers()?;
        let rung = self.byte()? != 0;
        let [accepted, delivered, superseded, expired, rejected, voided] = self.numbers()?;
        Some(Shard {
            last_seq,
            last_wall_ms,
            rung,
            ledger: Ledger {
                accepted,
                delivered,
                superseded,
                expired,
                rejected,
                voided,
            },
            sessions: self.each(Self::session)?,
            orphans: self.many(|reader| {
                Some(Orphan {
                    session: reader.u128()?,
                    caller: reader.u64()?,
                    until_ms: reader.u64()?,
                })
            })?,
        })
    }

    #[inline(always)]
    fn session(&mut self, all: &mut Vec<Session<'a>>) -> Option<()> {
        let [low, high, newest_seq, unread_seq, through_seq, told_seq] = self.numbers()?;
        let flags = self.byte()?;
        all.push(Session::new(joined(low, high), unread_seq));
        let session = all.last_mut()?;
        session.newest_seq = newest_seq;
        session.through_seq = through_seq;
        session.told_seq = told_seq;
        if flags & CLAIMED != 0 {
            session.claim = Some(self.claim()?);
        }
        session.entries = self.each(Self::entry)?;
        // Of many sessions a state has come, and of few is anything else known.
        if flags & SETTLING != 0 {
            let delivered_ms = self.u64()?;
            session.settling = Some(Settling {
                delivered_ms: delivered_ms & !(1 << FLAG_SHIFT),
                awaits: delivered_ms >> FLAG_SHIFT != 0,
                was: Was(Cow::Borrowed(self.bytes()?)),
            });
        }
        if flags & !(CLAIMED | SETTLING) != 0 {
            self.more(session, flags)?;
        }
        Some(())
    }

    #[cold]
    #[inline(never)]
    fn more(&mut self, session: &mut Session<'a>, flags: u8) -> Option<()> {
        session.kept = self.some(flags & KEPT != 0, Self::kept)?;
        session.ended = self.some(flags & ENDED != 0, Self::ended)?;
        session.beside = self.some(flags & BESIDE != 0, |reader| {
            let [number, caller, seq, begun_ms, deadline_ms] = reader.numbers()?;
            Some(Beside {
                number,
                caller,
                seq,
                begun_ms,
                deadline_ms,
                is_outside: reader.byte()? != 0,
            })
        })?;
        session.held = self.some(flags & HELD != 0, |reader| {
            let [seq, vm, caller, deadline_ms] = reader.numbers()?;
            Some(HeldPlace {
                seq,
                vm,
                caller,
                deadline_ms,
                is_stranger: reader.byte()? != 0,
            })
        })?;
        session.refused = self.some(flags & REFUSED != 0, |reader| {
            let [body, seq, until_ms] = reader.numbers()?;
            Some(RefusedBody {
                body,
                seq,
                until_ms,
            })
        })?;
        if flags & HURRIED != 0 {
            session.hurry_until_ms = self.u64()?;
        }
        Some(())
    }

    #[cold]
    #[inline(never)]
    fn claim(&mut self) -> Option<Claim<'a>> {
        Some(Claim {
            id: ClaimId {
                epoch: self.u64()?,
                counter: self.u64()?,
            },
            caller: self.u64()?,
            seq: self.u64()?,
            deadline_ms: self.u64()?,
            route: self.text()?,
        })
    }

    #[cold]
    #[inline(never)]
    fn trial(&mut self, lost: bool) -> Option<Trial> {
        Some(Trial {
            alone: true,
            lost,
            not_before_ms: self.u64()?,
            failed_since_ms: self.u64()?,
            refused_ms: self.u64()?,
            failures: self.array().map(u16::from_le_bytes)?,
            refusals: self.array().map(u16::from_le_bytes)?,
        })
    }

    fn ended(&mut self) -> Option<Ended> {
        let [place, seq, by_place, by_seq, until_ms] = self.numbers()?;
        Some(Ended {
            item: Item { place, seq },
            how: match self.array().map(u16::from_le_bytes)? {
                DELIVERED => Ending::Delivered,
                EXPIRED => Ending::Expired,
                VOIDED => Ending::Voided(Item {
                    place: by_place,
                    seq: by_seq,
                }),
                status @ 300..=599 => Ending::Rejected(status),
                _ => return None,
            },
            until_ms,
        })
    }

    fn kept(&mut self) -> Option<Kept<'a>> {
        let read = self.text()?;
        let [caller, reader, fetched_ms, until_ms, floor] = self.numbers()?;
        let count = self.count()?;
        if count > PLACES_MAX {
            return None;
        }
        let place = |both: u64| Place {
            start: both as u32,
            end: (both >> 32) as u32,
        };
        let places = (0..count).map(|_| self.u64().map(place));
        let places = places.collect::<Option<Places>>()?;
        Some(Kept {
            read,
            caller,
            reader,
            fetched_ms,
            until_ms: until_ms & !(1 << FLAG_SHIFT),
            has_more: until_ms >> FLAG_SHIFT != 0,
            floor,
            places,
            headers: Cow::Borrowed(self.bytes()?),
            body: Cow::Borrowed(self.bytes()?),
        })
    }

    #[inline(always)]
    fn entry(&mut self, all: &mut Vec<Entry<'a>>) -> Option<()> {
        let [low, high, word, caller, seq, accepted_ms, parts] = self.numbers()?;
        let flags = parts as u8;
        all.push(Entry {
            route: self.name(parts >> 8 & 0xff_ffff)?,
            value: joined(low, high),
            word,
            caller,
            seq,
            accepted_ms,
            order: match flags & ORDERED {
                0 => None,
                _ => Some(self.u64()?),
            },
            text: match flags & SHOWN {
                0 => None,
                _ => {
                    let text = self.part(parts >> 32)?;
                    Some(Cow::Borrowed(core::str::from_utf8(text).ok()?))
                }
            },
            state: match flags & STATE {
                CLEAN => State::Clean {
                    until_ms: self.u64()?,
                },
                IMPLIED => State::Implied { by: self.u64()? },
                DIRTY => {
                    let [since_ms, timestamp_ms, members, parts, more] = self.numbers()?;
                    State::Dirty(Dirty {
                        since_ms,
                        timestamp_ms,
                        members,
                        attempts: parts as u16,
                        trial: match parts >> 16 & 0xff {
                            0 => Trial::default(),
                            flags => self.trial(flags & 2 != 0)?,
                        },
                        priority: parts >> 24 & 0xff != 0,
                        destination: Cow::Borrowed(self.part(parts >> 32)?),
                        neutral: Cow::Borrowed(self.part(more & 0xffff_ffff)?),
                        body: Cow::Borrowed(self.part(more >> 32)?),
                    })
                }
                _ => return None,
            },
        });
        Some(())
    }
}

#[cfg(test)]
mod tests;
