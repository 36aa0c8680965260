//! A case: a process, and what comes to it.

use std::fmt;

use bytes::Bytes;

use crate::sim::abi::Headers;
use crate::sim::host::{Body, Cluster, Response};

/// One case. Everything in it follows from its seed and its number.
#[derive(Clone, Debug)]
pub struct Case {
    /// The plugin's configuration.
    pub(super) configuration: Vec<u8>,
    /// What another program has left under the key of the layout.
    pub(super) layout: Option<Vec<u8>>,
    /// The configuration is one that Embudo must take, and of which the end of the case is known.
    pub(super) plain: bool,
    /// What happens, in this order.
    pub(super) steps: Vec<Step>,
}

/// What comes to the process.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A request, whole.
    Request {
        /// With pseudo headers, or without.
        headers: Headers,
        body: Body,
    },
    /// Laravel's answer to the oldest request that passed through.
    Relay { headers: Headers, body: Body },
    /// The answer to a call out: to whichever of those under way.
    Answer { which: usize, response: Response },
    /// Somebody rings the doorbell with this.
    Ring { item: Vec<u8> },
    /// Somebody changes a stored value.
    Spoil { key: Key, edits: Vec<Edit> },
    /// Somebody replaces a stored value.
    Store { key: Key, value: Vec<u8> },
    /// Time passes, with so many ticks.
    Time { ms: u64, ticks: u64 },
    /// The cluster of the batches is ejected, missing or well.
    Cluster(Cluster),
    /// A listener update.
    Configure { configuration: Vec<u8> },
}

/// A key of shared data.
#[derive(Clone, Copy, Debug)]
pub(super) enum Key {
    Layout,
    Lease,
    Shard(u32),
}

/// A change of some bytes. Places are taken modulo their length.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edit {
    /// One bit.
    Flip { at: usize, bit: u8 },
    /// One byte.
    Put { at: usize, byte: u8 },
    /// A little-endian number, where a count or a length may be.
    Number { at: usize, number: u32 },
    /// Everything from here is gone.
    Cut { at: usize },
    /// A piece is there twice.
    Repeat { at: usize, length: usize },
}

// === impl Edit ===

impl Edit {
    pub(super) fn apply(self, bytes: &mut Vec<u8>) {
        let place = |at: usize| at.checked_rem(bytes.len()).unwrap_or(0);
        match self {
            Self::Flip { at, bit } => {
                let at = place(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Self::Put { at, byte } => {
                let at = place(at);
                if let Some(old) = bytes.get_mut(at) {
                    *old = byte;
                }
            }
            Self::Number { at, number } => {
                let at = place(at);
                for (old, byte) in bytes.iter_mut().skip(at).zip(number.to_le_bytes()) {
                    *old = byte;
                }
            }
            Self::Cut { at } => bytes.truncate(place(at)),
            Self::Repeat { at, length } => {
                let at = place(at);
                let end = at.saturating_add(length).min(bytes.len());
                let piece = bytes.get(at..end).unwrap_or_default().to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

// === impl Key ===

impl Key {
    /// Its name in shared data.
    pub(super) fn name(self) -> String {
        match self {
            Self::Layout => "embudo/embudo/layout".to_owned(),
            Self::Lease => "embudo/embudo/lease".to_owned(),
            Self::Shard(index) => format!("embudo/embudo/s/{index}"),
        }
    }
}

// === impl Case ===

/// Bytes for a person: as far as a line goes.
fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 400;
    let head = bytes.get(..SHOWN_MAX).unwrap_or(bytes);
    let more = match bytes.len().saturating_sub(head.len()) {
        0 => String::new(),
        more => format!(" and {more} bytes"),
    };
    format!("{}{more}", head.escape_ascii())
}

fn shown_headers(headers: &Headers) -> String {
    let all = headers.iter().take(12);
    let all: Vec<String> = all
        .map(|(name, value)| format!("{name}: {}", shown(value)))
        .collect();
    format!("{} headers [{}]", headers.len(), all.join(", "))
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  configuration {}", shown(&self.configuration))?;
        if let Some(layout) = &self.layout {
            writeln!(f, "  layout {}", shown(layout))?;
        }
        for (at, step) in self.steps.iter().enumerate() {
            writeln!(f, "  step {at}: {step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { headers, body } => {
                let whole: Vec<u8> = body.pieces.iter().flatten().copied().collect();
                let (pieces, trailers) = (body.pieces.len(), body.trailers);
                let headers = shown_headers(headers);
                write!(
                    f,
                    "request {headers}, body in {pieces} pieces, trailers {trailers}: "
                )?;
                f.write_str(&shown(&whole))
            }
            Self::Relay { headers, body } => {
                let body: Vec<u8> = body.pieces.concat();
                write!(
                    f,
                    "Laravel answers {} {}",
                    shown_headers(headers),
                    shown(&body)
                )
            }
            Self::Answer { which, response } => {
                let headers = shown_headers(&response.headers);
                write!(
                    f,
                    "call {which} is answered {headers}: {}",
                    shown(&response.body)
                )
            }
            Self::Ring { item } => write!(f, "the doorbell rings: {}", shown(item)),
            Self::Spoil { key, edits } => write!(f, "{} is spoiled: {edits:?}", key.name()),
            Self::Store { key, value } => write!(f, "{} becomes {}", key.name(), shown(value)),
            Self::Time { ms, ticks } => write!(f, "{ms} ms pass in {ticks} ticks"),
            Self::Cluster(cluster) => write!(f, "the cluster: {cluster:?}"),
            Self::Configure { configuration } => {
                write!(f, "a listener update: {}", shown(configuration))
            }
        }
    }
}

/// A body in one piece.
pub(super) fn whole(body: &[u8]) -> Body {
    Body {
        pieces: vec![Bytes::copy_from_slice(body)],
        ..Body::default()
    }
}
