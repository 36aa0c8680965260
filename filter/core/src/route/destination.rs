//! Where an item has to go: everything of the caller's headers that Laravel must see again.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::hash::HashKey;

/// A batch holds items of one route and one destination.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// The callers' `:authority`.
    pub authority: String,
    /// The callers' `x-forwarded-proto`, or empty.
    pub scheme: String,
    /// What preceded the matched path.
    pub prefix: String,
    /// The matched path: an item can be posted alone even if its rule is gone from the configuration.
    pub path: String,
    /// Credential headers in the callers' order.
    pub credentials: Vec<(String, String)>,
}

// === impl Destination ===

impl Destination {
    /// Bytes that the store keeps for it, about.
    #[must_use]
    pub fn size(&self) -> usize {
        self.texts().map(str::len).fold(0, usize::saturating_add)
    }

    /// What tells this caller from others: 0 for a caller without credentials.
    #[must_use]
    pub fn credential(&self, key: HashKey) -> u64 {
        if self.credentials.is_empty() {
            return 0;
        }
        let parts: Vec<&[u8]> = self
            .credentials
            .iter()
            .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()])
            .collect();
        // Never 0, which means none.
        (key.hash(&parts) as u64) | 1
    }

    /// For the store. Texts in a fixed order, each with its length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size().saturating_add(32));
        for text in self.texts() {
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    /// From the store; `None` where the bytes are no destination.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut text = || {
            let (length, rest) = bytes.split_first_chunk::<2>()?;
            let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            bytes = rest;
            core::str::from_utf8(text).ok().map(String::from)
        };
        let (authority, scheme, prefix, path) = (text()?, text()?, text()?, text()?);
        let mut credentials = Vec::new();
        while let Some(name) = text() {
            credentials.push((name, text()?));
        }
        bytes.is_empty().then_some(Self {
            authority,
            scheme,
            prefix,
            path,
            credentials,
        })
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let credentials = self
            .credentials
            .iter()
            .flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let fixed = [
            self.authority.as_str(),
            &self.scheme,
            &self.prefix,
            &self.path,
        ];
        fixed.into_iter().chain(credentials)
    }
}

/// Never prints a credential's value.
impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self
            .credentials
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        f.debug_struct("Destination")
            .field("authority", &self.authority)
            .field("scheme", &self.scheme)
            .field("prefix", &self.prefix)
            .field("path", &self.path)
            .field("credentials", &names)
            .finish()
    }
}
