//! One of the values: its entries and its bytes.

use alloc::vec::Vec;

use super::{USED_MS, belief};
use crate::verdict::{Members, Path, Voice};

/// It was accepted again.
pub(super) const AGAIN: u16 = 1;
/// A caller was refused, a route's destination is in an outage.
pub(super) const ENDED: u16 = 1 << 1;
/// The route answers in JSON.
pub(super) const JSON: u16 = 1 << 2;
/// The route answers in text.
pub(super) const TEXT: u16 = 1 << 3;
/// Its batch path has taken a batch.
pub(super) const BATCH: u16 = 1 << 4;
/// Its batch path has answered with a body.
pub(super) const BATCH_BODY: u16 = 1 << 5;
/// The members that its answers have had.
const MEMBERS: u16 = 0b111 << MEMBERS_SHIFT;
/// Where they begin.
const MEMBERS_SHIFT: u16 = 6;
/// Bytes of one entry.
pub(super) const ENTRY_BYTES: usize = 43;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A caller at a destination.
    Caller = 1,
    /// The same, for reads.
    Reader = 2,
    /// A route at a destination.
    Route = 3,
    /// What is believed of a caller's reads, from one state to another; and when one was compared.
    Belief = 4,
}

/// Somebody, or something, that Laravel has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) key: u64,
    pub(super) destination: u64,
    /// Last use. Monotonic, as the others.
    pub(super) used_ms: u64,
    /// Last acceptance.
    pub(super) accepted_ms: u64,
    /// When its proof ended, where [`ENDED`] says that it has.
    pub(super) ended_ms: u64,
    pub(super) flags: u16,
    /// Last acceptance that is in the store. Not stored.
    pub(super) written_ms: u64,
}

/// The entries of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record(Vec<Entry>);

/// How much is proven, of all keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Callers whose proof has not ended.
    pub callers: u64,
    /// Routes whose batch path has taken a batch.
    pub batches: u64,
    /// Routes whose batch path has not.
    pub batches_unproven: u64,
    /// Pairs of a caller's states that reads are served for.
    pub reads: u64,
    /// Those that were seen, and not often enough.
    pub reads_unproven: u64,
    /// Those whose answers differ in more than the state.
    pub reads_disproved: u64,
}

// === impl Kind ===

impl Kind {
    /// Places in one key: for those accepted once, an eighth at least, and for the others at most. Those accepted once
    /// use what the others leave free: a fleet with a token for each session would push itself out otherwise, before
    /// anybody's second acceptance.
    #[inline]
    const fn places(self) -> (usize, usize) {
        match self {
            Self::Caller | Self::Route => (8, 56),
            Self::Reader => (2, 14),
            Self::Belief => (8, 56),
        }
    }

    #[inline]
    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Caller),
            2 => Some(Self::Reader),
            3 => Some(Self::Route),
            4 => Some(Self::Belief),
            _ => None,
        }
    }
}

/// The flag of a voice.
#[inline]
pub(super) const fn voice_bit(voice: Voice) -> u16 {
    match voice {
        Voice::Json => JSON,
        Voice::Text => TEXT,
        Voice::Foreign => 0,
    }
}

/// The flags of the members of a batch path's answers.
#[inline]
pub(super) const fn members(members: Members) -> u16 {
    ((members.0 as u16) << MEMBERS_SHIFT) & MEMBERS
}

// === impl Entry ===

impl Entry {
    #[inline]
    pub(super) const fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether its last use need not be written.
    #[inline]
    pub(super) fn is_used(&self, mono_ms: u64) -> bool {
        mono_ms.saturating_sub(self.used_ms) < USED_MS
    }

    /// Its proof ends. True where that is news.
    #[inline]
    pub(super) fn end(&mut self, ended_ms: u64) -> bool {
        let ended_ms = match self.is(ENDED) {
            true => self.ended_ms.max(ended_ms),
            false => ended_ms,
        };
        let is_news = !self.is(ENDED) || self.ended_ms < ended_ms;
        self.flags |= ENDED;
        self.ended_ms = ended_ms;
        is_news
    }

    /// Its flags with these. A route's voice is the first that was heard.
    #[inline]
    pub(super) const fn learns(&self, mut bits: u16) -> u16 {
        if self.is(JSON | TEXT) {
            bits &= !(JSON | TEXT);
        }
        self.flags | bits
    }

    #[inline]
    pub(super) const fn voice(&self) -> Option<Voice> {
        match (self.is(JSON), self.is(TEXT)) {
            (true, _) => Some(Voice::Json),
            (false, true) => Some(Voice::Text),
            (false, false) => None,
        }
    }

    #[inline]
    pub(super) fn path(&self) -> Path {
        Path {
            voice: self.voice(),
            took: self.is(BATCH),
            had_body: self.is(BATCH_BODY),
            members: Members(((self.flags & MEMBERS) >> MEMBERS_SHIFT) as u8),
        }
    }

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind as u8);
        out.extend_from_slice(&self.flags.to_le_bytes());
        for number in [
            self.key,
            self.destination,
            self.used_ms,
            self.accepted_ms,
            self.ended_ms,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    #[inline]
    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (flags, rest) = rest.split_first_chunk()?;
        let (numbers, _) = rest.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|number| u64::from_le_bytes(*number));
        let (key, destination) = (numbers.next()?, numbers.next()?);
        let (used_ms, accepted_ms) = (numbers.next()?, numbers.next()?);
        Some(Self {
            kind: Kind::of(*kind)?,
            key,
            destination,
            used_ms,
            accepted_ms,
            ended_ms: numbers.next()?,
            flags: u16::from_le_bytes(*flags),
            written_ms: accepted_ms,
        })
    }
}

// === impl Record ===

impl Record {
    /// Bytes that are none of ours prove nothing.
    #[inline]
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let (entries, rest) = bytes.as_chunks();
        match rest {
            [] => Self(entries.iter().filter_map(Entry::decode).collect()),
            _ => Self::default(),
        }
    }

    #[inline]
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len().saturating_mul(ENTRY_BYTES));
        for entry in &self.0 {
            entry.encode(&mut out);
        }
        out
    }

    #[inline]
    pub(super) fn find(&self, kind: Kind, key: u64) -> Option<&Entry> {
        let mut entries = self.0.iter();
        entries.find(|entry| entry.key == key && entry.kind == kind)
    }

    #[inline]
    pub(super) fn find_mut(&mut self, kind: Kind, key: u64) -> Option<&mut Entry> {
        let mut entries = self.0.iter_mut();
        entries.find(|entry| entry.key == key && entry.kind == kind)
    }

    /// Adds what is here.
    #[inline]
    pub(super) fn count(&self, counts: &mut Counts) {
        for entry in &self.0 {
            let ended = entry.is(ENDED);
            let place = match entry.kind {
                Kind::Caller if !ended => &mut counts.callers,
                Kind::Route if !ended && entry.is(BATCH) => &mut counts.batches,
                Kind::Route => &mut counts.batches_unproven,
                Kind::Belief if ended => &mut counts.reads_disproved,
                Kind::Belief => match belief::seen(entry.flags) {
                    // That says when one was compared.
                    0 => continue,
                    belief::SEEN_MIN.. => &mut counts.reads,
                    _ => &mut counts.reads_unproven,
                },
                Kind::Caller | Kind::Reader => continue,
            };
            *place = place.saturating_add(1);
        }
    }

    /// An acceptance: who is here already is here for the second time.
    #[inline]
    pub(super) fn accept(
        &mut self,
        kind: Kind,
        key: u64,
        destination: u64,
        mono_ms: u64,
    ) -> Option<&mut Entry> {
        let (once, again) = kind.places();
        match self.find(kind, key).map(|entry| entry.is(AGAIN)) {
            None => {
                let others = self
                    .0
                    .iter()
                    .filter(|e| e.kind == kind && e.is(AGAIN))
                    .count();
                self.make_room(kind, 0, once.saturating_add(again.saturating_sub(others)));
                self.0.push(Entry {
                    kind,
                    key,
                    destination,
                    used_ms: mono_ms,
                    accepted_ms: mono_ms,
                    ended_ms: 0,
                    flags: 0,
                    written_ms: mono_ms,
                });
                return self.0.last_mut();
            }
            Some(false) => self.make_room(kind, AGAIN, again),
            Some(true) => {}
        }
        let entry = self.find_mut(kind, key)?;
        entry.flags |= AGAIN;
        entry.used_ms = entry.used_ms.max(mono_ms);
        entry.accepted_ms = entry.accepted_ms.max(mono_ms);
        entry.written_ms = entry.accepted_ms;
        Some(entry)
    }

    /// The longest unused of its kind goes, where there is no place for one more.
    #[inline]
    fn make_room(&mut self, kind: Kind, again: u16, places: usize) {
        let is_one = |entry: &Entry| entry.kind == kind && entry.flags & AGAIN == again;
        let mut count = 0_usize;
        let mut oldest: Option<(usize, u64)> = None;
        for (at, entry) in self.0.iter().enumerate() {
            if is_one(entry) {
                count = count.saturating_add(1);
                if oldest.is_none_or(|(_, used_ms)| entry.used_ms < used_ms) {
                    oldest = Some((at, entry.used_ms));
                }
            }
        }
        if let Some((at, _)) = oldest.filter(|_| count >= places) {
            self.0.remove(at);
        }
    }

    /// True where it was there.
    #[inline]
    pub(super) fn remove(&mut self, kind: Kind, key: u64) -> bool {
        let before = self.0.len();
        self.0
            .retain(|entry| entry.key != key || entry.kind != kind);
        self.0.len() < before
    }

    /// Nothing at a destination is proven any more. True where that is news.
    #[inline]
    pub(super) fn suspend(&mut self, destination: u64, mono_ms: u64) -> bool {
        let mut is_news = false;
        for entry in self.routes_of(destination) {
            is_news |= !entry.is(ENDED);
            entry.end(mono_ms);
        }
        is_news
    }

    /// Whatever was proven there is proven again.
    #[inline]
    pub(super) fn restore(&mut self, destination: u64) {
        for entry in self.routes_of(destination) {
            entry.flags &= !ENDED;
        }
    }

    /// The last acceptance at a destination, of anybody.
    #[inline]
    pub(super) fn accepted_ms(&self, destination: u64) -> Option<u64> {
        let routes = self.0.iter().filter(|entry| entry.kind == Kind::Route);
        let there = routes.filter(|entry| entry.destination == destination);
        there.map(|entry| entry.accepted_ms).max()
    }

    #[inline]
    fn routes_of(&mut self, destination: u64) -> impl Iterator<Item = &mut Entry> {
        let is_one =
            move |entry: &&mut Entry| entry.kind == Kind::Route && entry.destination == destination;
        self.0.iter_mut().filter(is_one)
    }

    /// Takes over what a worker knows better: its own last uses and acceptances.
    #[inline]
    pub(super) fn merge(&mut self, copy: &Self) {
        for known in &copy.0 {
            if let Some(entry) = self.find_mut(known.kind, known.key) {
                entry.used_ms = entry.used_ms.max(known.used_ms);
                entry.accepted_ms = entry.accepted_ms.max(known.accepted_ms);
            }
        }
    }
}
