//! Requests of other paths that wait for what is on its way of their session.

use super::Rules;
use super::batch::{fit, line};
use super::head::{split_query, value_of};
use crate::config::Place;
use crate::headers::Header;
use crate::query::decoded;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barred {
    /// What the store calls the session, as in [`super::Said::session`].
    pub session: u128,
    /// Keyed hash of cluster, authority and prefix.
    pub destination_hash: u64,
    /// Nobody knows what Laravel has of the session after it.
    pub forgets: bool,
}

// === impl Rules ===

impl Rules {
    /// Recognises a barrier's request among what no rule knows. `None` for whatever else.
    #[inline]
    pub fn barred<'h>(&self, headers: impl Iterator<Item = Header<'h>> + Clone) -> Option<Barred> {
        let (method, path) = line(headers.clone());
        let (bare, _) = split_query(path);
        let mut barriers = self.config.barriers.iter();
        let (barrier, (prefix, segment)) = barriers.find_map(|barrier| {
            let fit = fit(&self.config.prefixes, &barrier.path, bare)?;
            (barrier.method.as_bytes() == method).then_some((barrier, fit))
        })?;
        let session = decoded(segment)?;
        let mut gathered = self.gathered(headers, false);
        let origin = self.goes_to(&mut gathered.destination, prefix).ok()?;
        // As for a read: what it says of the tenant stands in its headers.
        let mut places = self.config.routes.iter().flat_map(|rule| &rule.tenant);
        let tenant = places.find_map(|place| match place {
            Place::Header(name) => value_of(&gathered.named, name),
            Place::Constant(text) => Some(text.as_str()),
            _ => None,
        });
        let tenant = tenant.map(|tenant| self.key.hash(&[tenant.as_bytes()]));
        Some(Barred {
            session: self.session_hash(origin, tenant, &session),
            destination_hash: origin.destination_hash,
            forgets: barrier.forgets,
        })
    }
}
