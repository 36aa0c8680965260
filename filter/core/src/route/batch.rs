//! Batches of the gateway's own: each item is an update of the route that the rule names.
//!
//! The items are what the gateway could have posted one by one, so each is read as the body of such a request, and
//! goes where that would have gone. A batch is taken apart whole or not at all: what says more than its items, or has
//! one that Laravel may read otherwise than we do, goes to Laravel as it came.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use super::head::{Role, split_query};
use super::{Bypass, Destination, Encoded, Head, Neutral, Rules, Update};
use crate::config::{Class, Path};
use crate::headers::Header;
use crate::json;
use crate::proof::Subject;

/// Longest batch that is taken apart, bytes: what the dispatcher's own are at most.
pub const BATCH_BYTES_MAX: usize = 512 * 1024;

/// A batch, recognised by its headers.
#[derive(Debug)]
pub struct BatchHead {
    /// Index into [`crate::config::Config::splits`].
    split: usize,
    /// As the head of one of its items would be.
    head: Head,
    /// The same, where such an item goes, for the store.
    destination: Vec<u8>,
    /// It is none of ours to answer; but its sessions can be seen.
    refused: Option<Bypass>,
}

/// A batch, recognised by its body.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Its items, in its order.
    pub updates: Vec<Update<'a>>,
    /// Of whom it speaks, as far as that can be seen.
    pub sessions: Vec<u128>,
    /// Why it goes to Laravel as it came.
    pub refused: Option<Bypass>,
    /// How many items it has.
    pub len: usize,
}

// === impl Rules ===

impl Rules {
    /// Recognises a batch of the gateway's own among what no rule knows. `None` for whatever else.
    ///
    /// # Errors
    /// The route that it is of, and the reason to pass it through unseen.
    #[inline]
    pub fn batch_head<'h>(
        &self,
        headers: impl Iterator<Item = Header<'h>> + Clone,
    ) -> Option<Result<BatchHead, (usize, Bypass)>> {
        let (index, prefix) = self.batch_of(headers.clone())?;
        let split = self.config.splits.get(index)?;
        let pass = |reason| Some(Err((split.route, reason)));
        let gathered = self.gathered(headers.clone(), false);
        match gathered.refusal {
            Some(reason @ (Bypass::Header | Bypass::Encoding)) => return pass(reason),
            _ if gathered.is_odd => return pass(Bypass::HeaderBytes),
            _ if !gathered.json => return pass(Bypass::Encoding),
            _ => {}
        }
        let mut refused = split_query(gathered.path).1.map(|_| Bypass::Query);
        for (name, _) in headers {
            match self.role(name) {
                Role::Class(Class::Signature) => refused = Some(Bypass::Signature),
                Role::Class(Class::Override) => refused = Some(Bypass::Override),
                _ => {}
            }
        }
        let rule = self.route(split.route)?;
        let mut destination = Destination {
            method: rule.method.clone(),
            path: rule.path.fixed().into(),
            ..gathered.destination
        };
        let Ok(origin) = self.goes_to(&mut destination, prefix) else {
            return pass(Bypass::HeaderBytes);
        };
        Some(Ok(BatchHead {
            split: index,
            refused,
            destination: destination.encode(),
            head: Head {
                route: split.route,
                candidates: u32::try_from(split.route)
                    .ok()
                    .and_then(|route| 1_u64.checked_shl(route))
                    .unwrap_or(0),
                destination,
                origin,
                segment: String::new(),
                headers: gathered.named,
                bypass: None,
                neutral: 0,
            },
        }))
    }

    /// The rule for batches that a method and path fit, and the prefix before it.
    #[inline]
    fn batch_of<'h>(&self, headers: impl Iterator<Item = Header<'h>>) -> Option<(usize, &str)> {
        let (method, path) = line(headers);
        let (bare, _) = split_query(path);
        let mut splits = self.config.splits.iter().enumerate();
        splits.find_map(|(index, split)| {
            let mut prefixes = self.config.prefixes.iter();
            let is_its = |prefix: &&String| {
                bare.strip_prefix(prefix.as_bytes()) == Some(split.path.as_bytes())
            };
            let prefix = prefixes.find(is_its)?;
            (split.method.as_bytes() == method).then_some((index, prefix.as_str()))
        })
    }

    /// Takes a batch apart by its body.
    #[must_use]
    #[inline]
    pub fn batch<'a>(&self, head: &'a BatchHead, body: &'a [u8]) -> Batch<'a> {
        let mut batch = Batch {
            updates: Vec::new(),
            sessions: Vec::new(),
            refused: head.refused,
            len: 0,
        };
        let split = self.config.splits.get(head.split);
        let found = split.and_then(|split| json::elements_at(body, &split.at));
        let (items, is_whole) = found.unwrap_or_default();
        batch.len = items.len();
        if body.len() > BATCH_BYTES_MAX {
            batch.refuse(Bypass::TooLarge);
        } else if items.is_empty() {
            batch.refuse(Bypass::NoValue);
        } else if !is_whole {
            batch.refuse(Bypass::Batch);
        }
        for item in items {
            match self.said(&head.head, item) {
                Ok(said) => {
                    batch.sees(said.session);
                    batch.updates.push(Update {
                        said,
                        destination: Encoded(Cow::Borrowed(&head.destination)),
                        // Of the request that they came with: an id of that is not one of theirs.
                        neutral: Neutral::default(),
                        body: item,
                        implied: None,
                    });
                }
                Err(bypassed) => {
                    batch.refuse(bypassed.reason);
                    let seen = bypassed.seen;
                    let seen =
                        seen.or_else(|| self.glimpsed(&head.head, item, bypassed.reason).seen);
                    if let Some(seen) = seen {
                        batch.sees(seen.session);
                    }
                }
            }
        }
        batch
    }
}

// === impl BatchHead ===

impl BatchHead {
    /// The route that its items are of.
    #[must_use]
    #[inline]
    pub fn route(&self) -> usize {
        self.head.route
    }

    /// What its acceptance proves something of.
    #[must_use]
    #[inline]
    pub fn subject(&self, rules: &Rules) -> Subject {
        let name = rules.route(self.head.route).map_or("", |rule| &rule.name);
        let origin = self.head.origin;
        Subject::new(origin.caller, origin.destination_hash, name)
    }

    /// Who sends it.
    #[must_use]
    #[inline]
    pub fn caller(&self) -> u64 {
        self.head.origin.caller
    }

    /// Whether it goes where the dispatcher's batches of that route go, and looks the same.
    #[must_use]
    #[inline]
    pub fn is_like_ours(&self, rules: &Rules) -> bool {
        let split = rules.config.splits.get(self.split);
        let rule = rules.route(self.head.route);
        let call = rule.and_then(|rule| rule.batch.call.as_ref());
        split.zip(call).is_some_and(|(split, call)| {
            split.path == call.path && split.at.top_level_key() == Some(&call.field)
        })
    }
}

// === impl Batch ===

impl Batch<'_> {
    #[inline]
    fn refuse(&mut self, reason: Bypass) {
        self.refused.get_or_insert(reason);
    }

    #[inline]
    fn sees(&mut self, session: u128) {
        // Most have one item a session.
        if self.sessions.last() != Some(&session) {
            self.sessions.push(session);
        }
    }
}

/// Method and path of a request.
#[inline]
pub(super) fn line<'h>(headers: impl Iterator<Item = Header<'h>>) -> (&'h [u8], &'h [u8]) {
    let (mut method, mut path) = (&b""[..], &b""[..]);
    for (name, value) in headers {
        match name {
            b":method" => method = value,
            b":path" => path = value,
            _ => {}
        }
    }
    (method, path)
}

/// The `{session}` segment of a path under one of these prefixes, and the prefix.
#[inline]
pub(super) fn fit<'r, 'p>(
    prefixes: &'r [String],
    path: &Path,
    bare: &'p [u8],
) -> Option<(&'r str, &'p [u8])> {
    prefixes.iter().find_map(|prefix| {
        let rest = bare.strip_prefix(prefix.as_bytes())?;
        Some((prefix.as_str(), path.fit(rest)?))
    })
}
