//! Where an item has to go: everything of the caller's request that Laravel must see again.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use crate::bytes;
use crate::hash::HashKey;
use crate::headers::{Header, Headers};
use crate::sabotage::{self, Sabotage};

/// A batch holds items of one route, one caller and one destination.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// Envoy cluster.
    pub cluster: String,
    /// The callers' method, for an item that goes alone.
    pub method: String,
    /// The callers' `:authority`, or the configuration's in its place.
    pub authority: String,
    /// What preceded the matched path, or the configuration's in its place.
    pub prefix: String,
    /// The matched path: an item can be posted alone even if its rule is gone from the configuration.
    pub path: String,
    /// The headers that are carried, by name; those of one name in the callers' order. Addresses are without their
    /// ports, and a content type is without its parameters: so that equal ones are equal.
    pub headers: Vec<(String, String)>,
}

/// Headers that tell nobody apart, of one request: they go with an item that travels alone. Nothing is copied before
/// there is an item.
#[derive(Clone, Copy, Default)]
pub struct Neutral<'a> {
    buffer: &'a [u8],
    /// A bit for each header of the buffer.
    which: u128,
    /// The same of another request whose headers stand in the same places.
    like: Option<&'a Template>,
}

/// The neutral headers of a head that is known, for the store: another request of it differs in their values only.
#[derive(Default)]
pub(super) struct Template {
    bytes: Vec<u8>,
    /// Where in these a value stands, and where in the request's buffer.
    values: Vec<(Range<usize>, Range<usize>)>,
}

/// [`Destination::encode`], which is the same for all requests of a head.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Encoded<'a>(pub(super) Cow<'a, [u8]>);

/// Most bytes of an item's neutral headers; what has no room is left out.
const NEUTRAL_BYTES_MAX: usize = 1024;

// === impl Destination ===

impl Destination {
    /// Bytes that the store keeps for it, about.
    #[must_use]
    #[inline]
    pub fn size(&self) -> usize {
        self.texts().map(str::len).fold(0, usize::saturating_add)
    }

    /// The keyed hash of where it is, of cluster, authority and prefix: what its items share, whoever sends them.
    #[must_use]
    pub fn hash(&self, key: HashKey) -> u64 {
        let authority = normalised(&self.authority);
        let place = [&*self.cluster, &*authority, &*self.prefix].map(str::as_bytes);
        key.hash(&place) as u64
    }

    /// Adds a header behind those of its name and of the names before it.
    #[inline]
    pub(super) fn carry(&mut self, name: &str, value: String) {
        let at = self
            .headers
            .partition_point(|(known, _)| known.as_str() <= name);
        self.headers.insert(at, (name.into(), value));
    }

    /// For the store. Texts in a fixed order, each with its length.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size().saturating_add(64));
        for text in self.texts() {
            put(&mut out, text);
        }
        out
    }

    /// From the store; `None` where the bytes are no destination.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        Some(Self {
            cluster: take(rest)?,
            method: take(rest)?,
            authority: take(rest)?,
            prefix: take(rest)?,
            path: take(rest)?,
            headers: take_pairs(rest)?,
        })
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let headers = self
            .headers
            .iter()
            .flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let fixed = [
            self.cluster.as_str(),
            &self.method,
            &self.authority,
            &self.prefix,
            &self.path,
        ];
        fixed.into_iter().chain(headers)
    }
}

#[inline]
fn put(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take(bytes: &mut &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *bytes = rest;
    core::str::from_utf8(text).ok().map(String::from)
}

/// All that is left.
fn take_pairs(bytes: &mut &[u8]) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    while !bytes.is_empty() {
        pairs.push((take(bytes)?, take(bytes)?));
    }
    Some(pairs)
}

/// An authority as it is compared: without case and default port.
#[inline]
pub(super) fn normalised(authority: &str) -> String {
    if sabotage::is(Sabotage::AnyAuthority) {
        return String::new();
    }
    let lower = authority.to_ascii_lowercase();
    let bare = lower
        .strip_suffix(":443")
        .or_else(|| lower.strip_suffix(":80"));
    match bare {
        Some(bare) => bare.into(),
        None => lower,
    }
}

/// The value of a header that is not compared as it came: addresses without their ports, and a content type without its
/// parameters.
#[inline]
pub(super) fn compared(name: &[u8], value: &str) -> Option<String> {
    match name {
        b"content-type" => {
            let bare = value.split(';').next().unwrap_or_default();
            Some(bare.trim().to_ascii_lowercase())
        }
        b"x-forwarded-for" | b"x-real-ip" => {
            let mut out = String::with_capacity(value.len());
            for address in value.split(',') {
                if !out.is_empty() {
                    out.push(',');
                }
                out.push_str(without_port(address));
            }
            Some(out)
        }
        b"forwarded" => {
            let mut out = String::with_capacity(value.len());
            let mut rest = value;
            while let Some(at) = rest.find([';', ',']) {
                let (part, more) = rest.split_at_checked(at)?;
                let (mark, more) = more.split_at_checked(1)?;
                put_node(&mut out, part);
                out.push_str(mark);
                rest = more;
            }
            put_node(&mut out, rest);
            Some(out)
        }
        _ => None,
    }
}

/// An address of a list, which may have white space around it: `10.0.0.1:4711`, `[2001:db8::1]:4711`.
#[inline]
fn without_port(address: &str) -> &str {
    let trimmed = address.trim();
    match trimmed.rsplit_once(':') {
        // Of several colons all belong to an IPv6 address, but behind a bracket.
        Some((host, port))
            if (!host.contains(':') || host.ends_with(']'))
                && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            host
        }
        _ => trimmed,
    }
}

/// A part of `forwarded`, as in `for="[2001:db8::1]:4711"`.
#[inline]
fn put_node(out: &mut String, part: &str) {
    let trimmed = part.trim();
    match trimmed.split_once('=') {
        Some((name, node)) if ["for", "by"].iter().any(|k| name.eq_ignore_ascii_case(k)) => {
            out.push_str(name);
            out.push('=');
            out.push_str(without_port(node.trim_matches('"')));
        }
        _ => out.push_str(trimmed),
    }
}

/// Never prints a header's value.
impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Destination")
            .field("cluster", &self.cluster)
            .field("method", &self.method)
            .field("authority", &self.authority)
            .field("prefix", &self.prefix)
            .field("path", &self.path)
            .field("headers", &names)
            .finish()
    }
}

// === impl Neutral ===

impl<'a> Neutral<'a> {
    #[inline]
    pub(super) fn new(buffer: &'a [u8], which: u128) -> Self {
        let like = None;
        Self {
            buffer,
            which,
            like,
        }
    }

    /// Of a request that differs from the template's in neutral values only.
    #[inline]
    pub(super) fn like(mut self, template: Option<&'a Template>) -> Self {
        self.like = template;
        self
    }

    /// For the store.
    #[must_use]
    #[inline]
    pub fn encode(self) -> Vec<u8> {
        let known = self.like.and_then(|template| template.of(self.buffer));
        known.unwrap_or_else(|| self.collect())
    }

    #[inline]
    fn collect(self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in self.headers() {
            let (Ok(name), Ok(value)) = (core::str::from_utf8(name), core::str::from_utf8(value))
            else {
                continue;
            };
            let size = name.len().saturating_add(value.len()).saturating_add(4);
            if out.len().saturating_add(size) <= NEUTRAL_BYTES_MAX {
                put(&mut out, name);
                put(&mut out, value);
            }
        }
        out
    }

    /// From the store; nothing where the bytes are no headers.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Vec<(String, String)> {
        take_pairs(&mut bytes).unwrap_or_default()
    }

    /// For other requests that have as many headers, and values of the same lengths. `None` where not all of this one's
    /// are stored as they are.
    #[inline]
    pub(super) fn template(self) -> Option<Template> {
        let mut all = Template::default();
        let mut bits = self.which;
        for (name, value) in Headers::new(self.buffer).places() {
            let wanted = bits & 1 == 1;
            bits >>= 1;
            if !wanted {
                continue;
            }
            let text = |place: &Range<usize>| {
                let bytes = self.buffer.get(place.clone())?;
                core::str::from_utf8(bytes).ok()
            };
            put(&mut all.bytes, text(&name)?);
            put(&mut all.bytes, text(&value)?);
            let end = all.bytes.len();
            all.values
                .push((end.saturating_sub(value.len())..end, value));
        }
        (all.bytes.len() <= NEUTRAL_BYTES_MAX).then_some(all)
    }

    #[inline]
    fn headers(self) -> impl Iterator<Item = Header<'a>> {
        let mut bits = self.which;
        Headers::new(self.buffer).filter(move |_| {
            let wanted = bits & 1 == 1;
            bits >>= 1;
            wanted
        })
    }
}

// === impl Template ===

impl Template {
    /// `None` where a value is not UTF-8.
    #[inline]
    fn of(&self, buffer: &[u8]) -> Option<Vec<u8>> {
        let mut out = self.bytes.clone();
        for (to, from) in &self.values {
            let (known, found) = (out.get_mut(to.clone())?, buffer.get(from.clone())?);
            // Most are what they were, but for a request's own number.
            if !bytes::same(known, found) {
                core::str::from_utf8(found).ok()?;
                known.copy_from_slice(found);
            }
        }
        Some(out)
    }
}

// === impl Encoded ===

impl Encoded<'_> {
    /// The bytes.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Never prints a header's value.
impl fmt::Debug for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoded(..)")
    }
}

/// Never prints a header's value.
impl fmt::Debug for Neutral<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neutral")
            .field("which", &self.which)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_the_same_in_any_case_and_with_its_default_port() {
        for (came, compared) in [
            ("Laravel.Test", "laravel.test"),
            ("laravel.test:80", "laravel.test"),
            ("LARAVEL.test:443", "laravel.test"),
            ("laravel.test:8080", "laravel.test:8080"),
            ("[2001:DB8::1]:80", "[2001:db8::1]"),
            ("", ""),
        ] {
            assert_eq!(normalised(came), compared, "{came}");
        }
    }

    #[test]
    fn addresses_are_compared_without_their_ports_and_a_content_type_without_its_parameters() {
        for (name, came, short) in [
            ("x-forwarded-for", "10.0.0.1", Some("10.0.0.1")),
            ("x-forwarded-for", "10.0.0.1:4711", Some("10.0.0.1")),
            (
                "x-forwarded-for",
                "10.0.0.1:1, [2001:db8::1]:2,2001:db8::2",
                Some("10.0.0.1,[2001:db8::1],2001:db8::2"),
            ),
            ("x-real-ip", "2001:db8::2", Some("2001:db8::2")),
            (
                "forwarded",
                "for=\"[2001:db8::1]:4711\";proto=https, for=10.0.0.1:99;by=_x",
                Some("for=[2001:db8::1];proto=https,for=10.0.0.1;by=_x"),
            ),
            ("content-type", "application/json", Some("application/json")),
            (
                "content-type",
                "application/JSON; charset=utf-8",
                Some("application/json"),
            ),
            ("x-other", "10.0.0.1:4711", None),
        ] {
            assert_eq!(compared(name.as_bytes(), came).as_deref(), short, "{came}");
        }
    }

    #[test]
    fn a_destination_is_what_it_was() {
        let mut destination = Destination {
            cluster: "laravel_batch".into(),
            method: "PUT".into(),
            authority: "a".into(),
            prefix: "/api".into(),
            path: "/qr".into(),
            headers: Vec::new(),
        };
        for name in ["x-b", "x-a", "x-b"] {
            let value = alloc::format!("s3cret {}", destination.headers.len());
            destination.carry(name, value);
        }
        let names: Vec<&str> = destination.headers.iter().map(|(n, _)| &**n).collect();
        assert_eq!(names, ["x-a", "x-b", "x-b"]);
        assert_eq!(destination.headers[1].1, "s3cret 0", "in their order");
        let encoded = destination.encode();
        assert_eq!(Destination::decode(&encoded), Some(destination.clone()));
        for cut in 0..encoded.len() {
            let found = Destination::decode(&encoded[..cut]);
            assert_ne!(found, Some(destination.clone()), "cut at {cut}");
        }
        assert!(!alloc::format!("{destination:?}").contains("s3cret"));
    }
}
