//! A state of the whole: the record, everybody who is at work on it, Laravel, and the gateway.
//!
//! A state packs into 128 bits without loss, all of them used, so that "seen before" is exact and no
//! matter of hashes.

use embudo_core::shard::Outcome;

use super::value::{Qr, Value, View};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The shard in the store, by its number.
    pub(crate) record: u32,
    pub(crate) workers: [Worker; 2],
    /// Both may believe that they lead, at any time.
    pub(crate) leaders: [Leader; 2],
    /// A request whose caller has given up, or is dead.
    pub(crate) stray: Request,
    pub(crate) laravel: View,
    /// The newest update that Laravel has begun with.
    pub(crate) begun_seq: u8,
    /// What Laravel would hold if it had got every answered update in order.
    pub(crate) wanted: View,
    pub(crate) offers_left: u8,
    /// Which values have been posted, a bit each. Names are interchangeable: QR B comes after QR A, and
    /// `inactive` after `active`.
    pub(crate) posted: u8,
    /// What a stale writer read, by actor; only for the mutations that put blindly.
    pub(crate) snapshots: [u16; 2],
}

/// A worker, in the middle of an offer or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Worker {
    #[default]
    Idle,
    /// It has read the record and not written it yet.
    Offering { value: Value, swap: Swap },
}

/// A compare-and-swap under way: the record has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swap {
    /// Ticks since the clock was read.
    pub(crate) lag: u8,
    /// Somebody has written in between: the put will fail.
    pub(crate) stale: bool,
}

/// A dispatcher. It always believes that it leads; the claims must do without the lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Leader {
    #[default]
    Idle,
    /// It has read the record, to claim what is due.
    Claiming { swap: Swap },
    /// It has read the record, to drop what has expired.
    Visiting { swap: Swap },
    /// The claim is written, the call has not left.
    Claimed {
        /// Ticks since *t*, up to one more than W.
        age: u8,
        seq: u8,
        value: Value,
        own: bool,
    },
    /// The call has left.
    Waiting { call: Request, own: bool },
    /// It has an answer, has read the record, and has not written it yet.
    Settling {
        swap: Swap,
        outcome: Outcome,
        own: bool,
        seq: u8,
    },
}

/// A request on its way to Laravel, in it, or done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) phase: Phase,
    /// Ticks until it has certainly ended.
    pub(crate) left: u8,
    pub(crate) seq: u8,
    pub(crate) value: Option<Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    None,
    Sent,
    Begun,
    /// Laravel has taken it. Its answer may still be a failure.
    Taken,
    /// Laravel has not taken it and never will.
    Failed,
}

struct Packer {
    word: u128,
}

struct Unpacker {
    word: u128,
}

// === impl State ===

impl State {
    pub(crate) fn first(offers: u8) -> Self {
        Self {
            record: 0,
            workers: <_>::default(),
            leaders: <_>::default(),
            stray: <_>::default(),
            laravel: <_>::default(),
            begun_seq: 0,
            wanted: <_>::default(),
            offers_left: offers,
            posted: 0,
            snapshots: [0; 2],
        }
    }

    /// All requests, whoever waits for them.
    pub(crate) fn requests(&self) -> [Request; 3] {
        let [a, b] = self.leaders.map(|leader| match leader {
            Leader::Waiting { call, .. } => call,
            _ => Request::default(),
        });
        [a, b, self.stray]
    }

    /// Compare-and-swaps under way.
    pub(crate) fn swaps_mut(&mut self) -> [Option<&mut Swap>; 4] {
        let [a, b] = &mut self.workers;
        let [c, d] = &mut self.leaders;
        [a.swap_mut(), b.swap_mut(), c.swap_mut(), d.swap_mut()]
    }

    /// Whether nobody has read the record without having written it.
    pub(crate) fn is_between_swaps(mut self) -> bool {
        self.swaps_mut().iter().all(Option::is_none)
    }

    /// The state as a number. Who of two equal actors is the first is left out.
    pub(crate) fn pack(&self, actors_differ: bool) -> u128 {
        let mut workers = self.workers.map(Worker::pack);
        let mut leaders = self.leaders.map(Leader::pack);
        if !actors_differ {
            workers.sort_unstable();
            leaders.sort_unstable();
        }
        let mut packer = Packer { word: 0 };
        packer.put(self.record, 22);
        workers.into_iter().for_each(|worker| packer.put(worker, 7));
        leaders
            .into_iter()
            .for_each(|leader| packer.put(leader, 14));
        packer.put(self.stray.pack(), 10);
        packer.put(self.laravel.pack(), 5);
        packer.put(u32::from(self.begun_seq), 3);
        packer.put(self.wanted.pack(), 5);
        packer.put(u32::from(self.offers_left), 3);
        packer.put(u32::from(self.posted), 6);
        self.snapshots
            .into_iter()
            .for_each(|number| packer.put(u32::from(number), 16));
        packer.word
    }

    pub(crate) fn unpack(word: u128) -> Self {
        let mut from = Unpacker { word };
        let snapshots = [from.take(16), from.take(16)].map(|number| number as u16);
        let [posted, offers_left] = [6, 3].map(|width| from.take(width) as u8);
        let wanted = View::unpack(from.take(5));
        let begun_seq = from.take(3) as u8;
        let laravel = View::unpack(from.take(5));
        let stray = Request::unpack(from.take(10));
        let leaders = [from.take(14), from.take(14)].map(Leader::unpack);
        let workers = [from.take(7), from.take(7)].map(Worker::unpack);
        Self {
            record: from.take(22),
            workers: [workers[1], workers[0]],
            leaders: [leaders[1], leaders[0]],
            stray,
            laravel,
            begun_seq,
            wanted,
            offers_left,
            posted,
            snapshots: [snapshots[1], snapshots[0]],
        }
    }
}

// === impl Worker ===

impl Worker {
    pub(crate) fn swap_mut(&mut self) -> Option<&mut Swap> {
        match self {
            Self::Idle => None,
            Self::Offering { swap, .. } => Some(swap),
        }
    }

    fn pack(self) -> u32 {
        match self {
            Self::Idle => 0,
            Self::Offering { value, swap } => 1 | (value as u32) << 1 | swap.pack() << 4,
        }
    }

    fn unpack(word: u32) -> Self {
        match word {
            0 => Self::Idle,
            _ => Self::Offering {
                value: Value::of_index((word >> 1 & 7) as u8),
                swap: Swap::unpack(word >> 4),
            },
        }
    }
}

// === impl Swap ===

impl Swap {
    pub(crate) fn of(lag: u8) -> Self {
        Self { lag, stale: false }
    }

    fn pack(self) -> u32 {
        u32::from(self.lag) | u32::from(self.stale) << 2
    }

    fn unpack(word: u32) -> Self {
        Self {
            lag: (word & 3) as u8,
            stale: word >> 2 & 1 == 1,
        }
    }
}

// === impl Leader ===

impl Leader {
    pub(crate) fn swap_mut(&mut self) -> Option<&mut Swap> {
        match self {
            Self::Claiming { swap } | Self::Visiting { swap } | Self::Settling { swap, .. } => {
                Some(swap)
            }
            Self::Idle | Self::Claimed { .. } | Self::Waiting { .. } => None,
        }
    }

    /// Whether the claim that it made is the one in the record.
    pub(crate) fn own_mut(&mut self) -> Option<&mut bool> {
        match self {
            Self::Claimed { own, .. } | Self::Waiting { own, .. } | Self::Settling { own, .. } => {
                Some(own)
            }
            Self::Idle | Self::Claiming { .. } | Self::Visiting { .. } => None,
        }
    }

    /// The update of its call.
    pub(crate) fn seq(&self) -> u8 {
        match self {
            Self::Claimed { seq, .. } | Self::Settling { seq, .. } => *seq,
            Self::Waiting { call, .. } => call.seq,
            Self::Idle | Self::Claiming { .. } | Self::Visiting { .. } => 0,
        }
    }

    fn pack(self) -> u32 {
        match self {
            Self::Idle => 0,
            Self::Claiming { swap } => 1 | swap.pack() << 3,
            Self::Visiting { swap } => 2 | swap.pack() << 3,
            Self::Claimed {
                age,
                seq,
                value,
                own,
            } => {
                let word = u32::from(age) | u32::from(seq) << 2 | (value as u32) << 5;
                3 | word << 3 | u32::from(own) << 13
            }
            Self::Waiting { call, own } => 4 | call.pack() << 3 | u32::from(own) << 13,
            Self::Settling {
                swap,
                outcome,
                own,
                seq,
            } => {
                let outcome = match outcome {
                    Outcome::Delivered | Outcome::Skipped => 0,
                    Outcome::Unsent => 2,
                    _ => 1,
                };
                let word = swap.pack() | outcome << 3 | u32::from(seq) << 5;
                5 | word << 3 | u32::from(own) << 13
            }
        }
    }

    fn unpack(word: u32) -> Self {
        let own = word >> 13 == 1;
        let rest = word >> 3 & 0x3ff;
        match word & 7 {
            0 => Self::Idle,
            1 => Self::Claiming {
                swap: Swap::unpack(rest),
            },
            2 => Self::Visiting {
                swap: Swap::unpack(rest),
            },
            3 => Self::Claimed {
                age: (rest & 3) as u8,
                seq: (rest >> 2 & 7) as u8,
                value: Value::of_index((rest >> 5 & 7) as u8),
                own,
            },
            4 => Self::Waiting {
                call: Request::unpack(rest),
                own,
            },
            _ => Self::Settling {
                swap: Swap::unpack(rest),
                outcome: match rest >> 3 & 3 {
                    0 => Outcome::Delivered,
                    1 => Outcome::Failed,
                    _ => Outcome::Unsent,
                },
                own,
                seq: (rest >> 5 & 7) as u8,
            },
        }
    }
}

// === impl Request ===

impl Request {
    /// Whether Laravel may still be at work on it, or may yet begin.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Sent | Phase::Begun)
    }

    fn pack(self) -> u32 {
        let value = self.value.map_or(7, |value| value as u32);
        match self.phase {
            Phase::None => 0,
            phase => {
                phase as u32
                    | u32::from(self.left == 2) << 3
                    | u32::from(self.seq) << 4
                    | value << 7
            }
        }
    }

    fn unpack(word: u32) -> Self {
        let phase = match word & 7 {
            0 => return Self::default(),
            1 => Phase::Sent,
            2 => Phase::Begun,
            3 => Phase::Taken,
            _ => Phase::Failed,
        };
        let running = matches!(phase, Phase::Sent | Phase::Begun);
        let value = (word >> 7 & 7) as u8;
        Self {
            phase,
            left: if running {
                1 + (word >> 3 & 1) as u8
            } else {
                0
            },
            seq: (word >> 4 & 7) as u8,
            value: (value < 7).then(|| Value::of_index(value)),
        }
    }
}

// === impl View ===

impl View {
    fn pack(self) -> u32 {
        self.status.map_or(7, |status| status as u32) | (self.qr as u32) << 3
    }

    fn unpack(word: u32) -> Self {
        let status = (word & 7) as u8;
        Self {
            status: (status < 7).then(|| Value::of_index(status)),
            qr: match word >> 3 {
                0 => Qr::None,
                1 => Qr::A,
                2 => Qr::B,
                _ => Qr::Any,
            },
        }
    }
}

// === impl Packer, Unpacker ===

impl Packer {
    fn put(&mut self, value: u32, width: u32) {
        debug_assert!(value < 1 << width, "{value} does not fit into {width} bits");
        self.word = self.word << width | u128::from(value);
    }
}

impl Unpacker {
    /// The last value that was put.
    fn take(&mut self, width: u32) -> u32 {
        let value = self.word as u32 & ((1 << width) - 1);
        self.word >>= width;
        value
    }
}
