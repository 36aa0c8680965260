//! A shard's bytes.
//!
//! Fixed-width little-endian numbers and length-prefixed bytes, written by hand: decoding is on the path
//! of every intercepted request, and a self-describing format would cost more than the parse of the
//! request itself. Payloads are borrowed from the encoded value. Every change of this format needs a new
//! `layout::VERSION`.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::{
    Claim, ClaimId, Dirty, ENDED_MAX, Ended, Ending, Entry, Item, Kept, Ledger, Place,
    SESSIONS_PASSING_MAX, Session, Shard, State,
};

/// A value that is no shard: another program uses the key, or memory is corrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// Reads from the front.
struct Reader<'a>(&'a [u8]);

const CLEAN: u8 = 0;
const DIRTY: u8 = 1;
const IMPLIED: u8 = 2;

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
        let mut reader = Reader(bytes);
        let shard = reader.shard().filter(Self::is_sound).ok_or(Corrupt)?;
        match reader.0 {
            [] => Ok(shard),
            _ => Err(Corrupt),
        }
    }

    /// What every writer keeps and every reader leans on: a session is there once, an entry is there once,
    /// and there is an end to them. A dispatcher that finds one session twice would plan the second one's
    /// item, find the first one's, and never come to anybody else's.
    fn is_sound(&self) -> bool {
        let unique = self.sessions.iter().enumerate().all(|(at, session)| {
            let mut earlier = self.sessions.iter().take(at);
            earlier.all(|other| other.id != session.id) && session.is_sound()
        });
        self.sessions.len() <= SESSIONS_PASSING_MAX && unique
    }

    /// The bytes to be stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size_hint());
        for number in [self.last_seq, self.last_wall_ms] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(u8::from(self.rung));
        let Ledger {
            accepted,
            delivered,
            superseded,
            expired,
            rejected,
        } = self.ledger;
        for number in [accepted, delivered, superseded, expired, rejected] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        put_count(&mut out, self.sessions.len());
        for session in &self.sessions {
            session.encode(&mut out);
        }
        out
    }

    fn size_hint(&self) -> usize {
        let payloads = self
            .sessions
            .iter()
            .flat_map(|session| &session.entries)
            .map(|entry| {
                100_usize.saturating_add(match &entry.state {
                    State::Dirty(dirty) => dirty.body.len().saturating_add(dirty.destination.len()),
                    State::Clean { .. } | State::Implied { .. } => 0,
                })
            });
        let kept = self
            .sessions
            .iter()
            .flat_map(|session| &session.kept)
            .map(|kept| kept.body.len().saturating_add(80));
        payloads.chain(kept).fold(256, usize::saturating_add)
    }
}

// === impl Session ===

impl Session<'_> {
    fn is_sound(&self) -> bool {
        let bounded = self.ended.len() <= ENDED_MAX;
        bounded
            && self.entries.iter().enumerate().all(|(at, entry)| {
                let mut earlier = self.entries.iter().take(at);
                earlier
                    .all(|other| other.credential != entry.credential || other.route != entry.route)
            })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.newest_seq.to_le_bytes());
        out.extend_from_slice(&self.unread_seq.to_le_bytes());
        out.extend_from_slice(&self.passed_seq.to_le_bytes());
        out.extend_from_slice(&self.told_seq.to_le_bytes());
        match &self.claim {
            None => out.push(0),
            Some(claim) => {
                out.push(1);
                let Claim {
                    id,
                    route,
                    credential,
                    seq,
                    deadline_ms,
                } = claim;
                for number in [id.epoch, id.counter, *credential, *seq, *deadline_ms] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                put_bytes(out, route.as_bytes());
            }
        }
        put_count(out, self.entries.len());
        for entry in &self.entries {
            entry.encode(out);
        }
        put_count(out, self.kept.len());
        for kept in &self.kept {
            kept.encode(out);
        }
        put_count(out, self.ended.len());
        for ended in &self.ended {
            ended.encode(out);
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
        for number in [item.place, item.seq, by.place, by.seq, until_ms] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&code.to_le_bytes());
    }
}

// === impl Kept ===

impl Kept<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.read.as_bytes());
        for number in [self.credential, self.fetched_ms, self.until_ms, self.floor] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        put_count(out, self.places.len());
        for Place { start, end } in &self.places {
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&end.to_le_bytes());
        }
        put_bytes(out, &self.body);
    }
}

// === impl Entry ===

impl Entry<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.route.as_bytes());
        out.extend_from_slice(&self.value.to_le_bytes());
        for number in [self.credential, self.seq, self.accepted_ms] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        match self.order {
            None => out.push(0),
            Some(order) => {
                out.push(1);
                out.extend_from_slice(&order.to_le_bytes());
            }
        }
        match &self.text {
            None => out.push(0),
            Some(text) => {
                out.push(1);
                put_bytes(out, text.as_bytes());
            }
        }
        match &self.state {
            State::Clean { until_ms } => {
                out.push(CLEAN);
                out.extend_from_slice(&until_ms.to_le_bytes());
            }
            State::Implied { by } => {
                out.push(IMPLIED);
                out.extend_from_slice(&by.to_le_bytes());
            }
            State::Dirty(dirty) => {
                out.push(DIRTY);
                out.extend_from_slice(&dirty.since_ms.to_le_bytes());
                out.extend_from_slice(&dirty.timestamp_ms.to_le_bytes());
                out.extend_from_slice(&dirty.attempts.to_le_bytes());
                out.push(u8::from(dirty.priority));
                put_bytes(out, &dirty.destination);
                put_bytes(out, &dirty.body);
            }
        }
    }
}

/// Counts and lengths are bounded far below `u32::MAX` by the limits on bodies and shards.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.array().map(u32::from_le_bytes)?).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn text(&mut self) -> Option<Cow<'a, str>> {
        core::str::from_utf8(self.bytes()?).ok().map(Cow::Borrowed)
    }

    fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.count()?;
        // A corrupt count must not make us reserve gigabytes: every element has a byte at least.
        let mut all = Vec::with_capacity(count.min(self.0.len()).min(64));
        for _ in 0..count {
            all.push(one(self)?);
        }
        Some(all)
    }

    fn shard(&mut self) -> Option<Shard<'a>> {
        Some(Shard {
            last_seq: self.u64()?,
            last_wall_ms: self.u64()?,
            rung: self.byte()? != 0,
            ledger: Ledger {
                accepted: self.u64()?,
                delivered: self.u64()?,
                superseded: self.u64()?,
                expired: self.u64()?,
                rejected: self.u64()?,
            },
            sessions: self.many(Self::session)?,
        })
    }

    fn session(&mut self) -> Option<Session<'a>> {
        Some(Session {
            id: self.u128()?,
            newest_seq: self.u64()?,
            unread_seq: self.u64()?,
            passed_seq: self.u64()?,
            told_seq: self.u64()?,
            claim: match self.byte()? {
                0 => None,
                _ => Some(self.claim()?),
            },
            entries: self.many(Self::entry)?,
            kept: self.many(Self::kept)?,
            ended: self.many(Self::ended)?,
        })
    }

    fn claim(&mut self) -> Option<Claim<'a>> {
        Some(Claim {
            id: ClaimId {
                epoch: self.u64()?,
                counter: self.u64()?,
            },
            credential: self.u64()?,
            seq: self.u64()?,
            deadline_ms: self.u64()?,
            route: self.text()?,
        })
    }

    fn ended(&mut self) -> Option<Ended> {
        let [place, seq, by_place, by_seq, until_ms] = [
            self.u64()?,
            self.u64()?,
            self.u64()?,
            self.u64()?,
            self.u64()?,
        ];
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
        Some(Kept {
            read: self.text()?,
            credential: self.u64()?,
            fetched_ms: self.u64()?,
            until_ms: self.u64()?,
            floor: self.u64()?,
            places: self.many(|reader| {
                Some(Place {
                    start: reader.array().map(u32::from_le_bytes)?,
                    end: reader.array().map(u32::from_le_bytes)?,
                })
            })?,
            body: Cow::Borrowed(self.bytes()?),
        })
    }

    fn entry(&mut self) -> Option<Entry<'a>> {
        Some(Entry {
            route: self.text()?,
            value: self.u128()?,
            credential: self.u64()?,
            seq: self.u64()?,
            accepted_ms: self.u64()?,
            order: match self.byte()? {
                0 => None,
                _ => Some(self.u64()?),
            },
            text: match self.byte()? {
                0 => None,
                _ => Some(self.text()?),
            },
            state: match self.byte()? {
                CLEAN => State::Clean {
                    until_ms: self.u64()?,
                },
                IMPLIED => State::Implied { by: self.u64()? },
                DIRTY => State::Dirty(Dirty {
                    since_ms: self.u64()?,
                    timestamp_ms: self.u64()?,
                    attempts: self.array().map(u16::from_le_bytes)?,
                    priority: self.byte()? != 0,
                    destination: Cow::Borrowed(self.bytes()?),
                    body: Cow::Borrowed(self.bytes()?),
                }),
                _ => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests;
