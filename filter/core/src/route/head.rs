//! The first step of recognition: the headers.

use alloc::string::String;
use alloc::vec::Vec;

use super::destination::{compared, normalised};
use super::{BODY_BYTES_MAX, Bypass, Destination, Rules, named, utf8};
use crate::config::Class;
use crate::headers::Header;
use crate::query::decoded;
use crate::sabotage::{self, Sabotage};

/// Longest that an authority, a path and the carried headers may be together, bytes. They are stored with every
/// pending item; Envoy itself would allow 60 KiB.
pub(super) const DESTINATION_BYTES_MAX: usize = 4 * 1024;

/// Headers that are carried.
pub(super) const CARRIED_MAX: usize = 16;

/// What the headers of a recognised request say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The rule that fits, or the first of those that may: index into [`Config::routes`].
    pub route: usize,
    /// All that may fit, a bit each; the body decides.
    pub candidates: u64,
    /// Where an item of this request has to go.
    pub destination: Destination,
    /// Where and whose it is, as hashes.
    pub origin: Origin,
    /// The `{session}` segment of the path, decoded; empty where there is none.
    pub segment: String,
    /// Headers in which a rule may look for a session.
    pub headers: Vec<(String, String)>,
    /// It is none of ours to answer, but its body may show whose session it speaks of.
    pub bypass: Option<Bypass>,
    /// The headers that an item takes along if it goes alone, a bit each, in the order in which they came.
    pub neutral: u128,
}

/// What of the headers tells requests apart, as keyed hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Of cluster, authority and prefix.
    pub destination_hash: u64,
    /// Of the same and the tenant's headers: with the session's own name it is what the store calls a session.
    pub tenant: u128,
    /// Of tenant, credential and identity headers; 0 for a caller without any.
    pub caller: u64,
}

/// What a header is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role<'r> {
    Method,
    Path,
    Authority,
    ContentEncoding,
    ContentLength,
    Bypass,
    /// By the name that the configuration has for it.
    Session(&'r str),
    Class(Class),
}

/// What one pass over a request's headers gathers.
#[derive(Default)]
pub(super) struct Gathered<'h> {
    pub(super) method: &'h [u8],
    pub(super) path: &'h [u8],
    pub(super) destination: Destination,
    pub(super) named: Vec<(String, String)>,
    pub(super) refusal: Option<Bypass>,
    pub(super) neutral: u128,
    /// What a browser says of its page, until it is known whether there is a cookie. Few requests have any: nothing is
    /// allocated for the others.
    page: Vec<(Header<'h>, u128)>,
    /// Headers that are compared otherwise than they came, and whether any does differ.
    compared: (u128, bool),
    /// A header that is carried is not UTF-8, or there are too many.
    pub(super) is_odd: bool,
    pub(super) json: bool,
    /// Only for a read.
    pub(super) asks: Asks,
}

/// What a read asks for.
#[derive(Default)]
pub(super) struct Asks {
    /// Names and values of whatever may make another answer of it, a line each.
    pub(super) told: Vec<u8>,
    pub(super) no_cache: bool,
    pub(super) origins: usize,
    /// It is Laravel's own to answer: the filter is asked to keep out, or not all of the answer is wanted.
    pub(super) is_own: bool,
}

/// How a method and a path fit the rules.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fit<'r, 'p> {
    /// The first rule.
    route: usize,
    /// All of them, a bit each.
    candidates: u64,
    prefix: &'r str,
    segment: &'p [u8],
    /// Why none of them may have it: a query that they do not know.
    stray: Option<Bypass>,
}

/// Room for what most reads tell.
const TOLD_BYTES: usize = 512;

// === impl Asks ===

impl Asks {
    fn take(&mut self, role: &Role<'_>, name: &[u8], value: &[u8]) {
        match (role, name) {
            (Role::Bypass, _) | (_, b"range") => self.is_own = true,
            (_, b"cache-control" | b"pragma") => {
                let asks = [&b"no-cache"[..], b"no-store", b"max-age=0"];
                self.no_cache |= asks.iter().any(|wanted| holds(value, wanted));
            }
            // Envoy makes one line of two.
            (_, b"origin") => {
                let more = value.iter().filter(|byte| **byte == b',').count();
                self.origins = self.origins.saturating_add(1).saturating_add(more);
            }
            _ => {}
        }
        let is_hidden = match name {
            b"origin" => sabotage::is(Sabotage::AnyOrigin),
            _ => matches!(role, Role::Class(Class::Varying)) && sabotage::is(Sabotage::AnyLanguage),
        };
        if role.tells() && !is_hidden {
            for part in [name, value] {
                // Neither has a line's end in it: no HTTP has.
                self.told.extend_from_slice(part);
                self.told.push(b'\n');
            }
        }
    }
}

// === impl Role ===

impl Role<'_> {
    /// Whether Laravel may answer a read otherwise by it.
    const fn tells(&self) -> bool {
        match self {
            Self::Class(class) => !matches!(class, Class::Framing | Class::Neutral),
            Self::Session(_) => true,
            _ => false,
        }
    }

    /// Whether it is part of the names of its sessions.
    fn parts_tenants(&self) -> bool {
        let is_tenants = match self {
            Self::Class(Class::Tenant) => true,
            Self::Class(Class::Identity) => sabotage::is(Sabotage::OwnersAreTenants),
            _ => false,
        };
        is_tenants && !sabotage::is(Sabotage::IgnoreTenants)
    }
}

// === impl Rules ===

impl Rules {
    /// Recognises a request by its headers.
    ///
    /// # Errors
    /// The reason to pass it through.
    pub fn head<'h>(&self, headers: impl Iterator<Item = Header<'h>>) -> Result<Head, Bypass> {
        let mut gathered = self.gathered(headers, false);
        let Fit {
            route,
            candidates,
            prefix,
            segment,
            stray,
        } = self
            .candidates(gathered.method, gathered.path)
            .ok_or(Bypass::Path)?;
        match gathered.refusal {
            Some(reason @ (Bypass::Header | Bypass::Encoding)) => return Err(reason),
            _ if gathered.is_odd => return Err(Bypass::HeaderBytes),
            _ if !gathered.json => return Err(Bypass::Encoding),
            _ => {}
        }
        let segment = decoded(segment).ok_or(Bypass::NoSession)?;
        let own = gathered.path.get(prefix.len()..).unwrap_or_default();
        gathered.destination.path = utf8(own)?;
        gathered.destination.method = utf8(gathered.method)?;
        let origin = self.goes_to(&mut gathered.destination, prefix)?;
        Ok(Head {
            route,
            candidates,
            destination: gathered.destination,
            origin,
            segment,
            headers: gathered.named,
            bypass: gathered.refusal.or(stray),
            neutral: gathered.neutral,
        })
    }

    /// The head of a request of this route to this destination, as its own headers would have made it.
    #[must_use]
    #[inline]
    pub fn head_to(&self, route: usize, destination: Destination) -> Head {
        let mut destination = destination;
        if destination.method.is_empty() {
            destination.method = self
                .route(route)
                .map_or_else(String::new, |r| r.method.clone());
        }
        let prefix = core::mem::take(&mut destination.prefix);
        let origin = self.goes_to(&mut destination, &prefix);
        Head {
            route,
            candidates: u32::try_from(route)
                .ok()
                .and_then(|route| 1_u64.checked_shl(route))
                .unwrap_or(0),
            destination,
            origin: origin.unwrap_or_default(),
            segment: String::new(),
            headers: Vec::new(),
            bypass: None,
            neutral: 0,
        }
    }

    /// One pass over the headers; they come in one host call.
    pub(super) fn gathered<'h>(
        &self,
        headers: impl Iterator<Item = Header<'h>>,
        is_read: bool,
    ) -> Gathered<'h> {
        let mut all = Gathered::default();
        if is_read {
            all.asks.told.reserve(TOLD_BYTES);
        }
        for (at, (name, value)) in headers.enumerate() {
            let place = u32::try_from(at)
                .ok()
                .and_then(|at| 1_u128.checked_shl(at))
                .unwrap_or(0);
            if name == b"content-type" {
                all.json = is_json(value);
            }
            let role = self.role(name);
            if is_read {
                all.asks.take(&role, name, value);
            }
            match role {
                Role::Method => all.method = value,
                Role::Path => all.path = value,
                Role::Authority => match utf8(value) {
                    Ok(authority) => all.destination.authority = authority,
                    Err(_) => all.is_odd = true,
                },
                Role::ContentEncoding if value == b"identity" => {}
                Role::ContentEncoding => all.refuse(Bypass::Encoding),
                Role::ContentLength if declares_too_much(value) => all.refuse(Bypass::TooLarge),
                Role::ContentLength | Role::Class(Class::Framing) => {}
                Role::Bypass => all.refuse(Bypass::Header),
                Role::Class(Class::Signature) if sabotage::is(Sabotage::QueueTheSigned) => {}
                Role::Class(Class::Signature) => all.refuse(Bypass::Signature),
                Role::Class(Class::Override) => all.refuse(Bypass::Override),
                Role::Class(Class::Neutral | Class::Varying) => all.neutral |= place,
                Role::Class(Class::Page) => all.page.push(((name, value), place)),
                Role::Class(Class::Parting) if sabotage::is(Sabotage::PartNothing) => {}
                Role::Class(Class::Identity) if sabotage::is(Sabotage::CarryNoIdentity) => {}
                Role::Class(_) => all.carry(name, value, place),
                Role::Session(name) => {
                    all.carry(name.as_bytes(), value, place);
                    match utf8(value) {
                        Ok(value) => all.named.push((name.into(), value)),
                        Err(_) => all.is_odd = true,
                    }
                }
            }
        }
        if !all.page.is_empty() {
            self.judge_page(&mut all);
        }
        if let (raw, true) = all.compared {
            // A single has them as they came.
            all.neutral |= raw;
        }
        all
    }

    /// Laravel holds what a browser says of its page against a cookie, the caller's or one that every call has: then it is
    /// carried, and part of the caller. Without one it is nobody's.
    #[inline]
    fn judge_page(&self, all: &mut Gathered<'_>) {
        let mut carried = all
            .destination
            .headers
            .iter()
            .chain(&self.config.upstream.headers);
        let has_cookie = carried.any(|(name, _)| name == "cookie");
        for ((name, value), place) in core::mem::take(&mut all.page) {
            match has_cookie {
                true => all.carry(name, value, place),
                false => all.neutral |= place,
            }
        }
    }

    /// Says where a destination is in this configuration, and whose what goes there is.
    ///
    /// What the configuration adds to each call goes with the item, so that of two configurations with one store each
    /// has its own. But for a tenant's header it is nobody's identity: a listener update that brings another token makes no
    /// strangers of the callers, and a leader sends its own value where an item goes to its own cluster.
    #[inline]
    pub(super) fn goes_to(
        &self,
        destination: &mut Destination,
        prefix: &str,
    ) -> Result<Origin, Bypass> {
        let upstream = &self.config.upstream;
        destination.cluster.clone_from(&upstream.cluster);
        if let Some(authority) = &upstream.authority {
            destination.authority.clone_from(authority);
        }
        destination.prefix = upstream.prefix_rewrite.as_deref().unwrap_or(prefix).into();
        let is_tenants =
            |name: &str| matches!(self.role(name.as_bytes()), Role::Class(Class::Tenant));
        for (name, value) in &upstream.headers {
            destination.headers.retain(|(known, _)| known != name);
            if is_tenants(name) {
                destination.carry(name, value.clone());
            }
        }
        if destination.headers.len() > CARRIED_MAX || destination.size() > DESTINATION_BYTES_MAX {
            return Err(Bypass::HeaderBytes);
        }
        let authority = normalised(&destination.authority);
        let place = [&*destination.cluster, &*authority, &*destination.prefix].map(str::as_bytes);
        let mut tenant = Vec::from(place);
        let mut caller: Vec<&[u8]> = Vec::new();
        for (name, value) in &destination.headers {
            let header = [name.as_bytes(), value.as_bytes()];
            let role = self.role(name.as_bytes());
            // What is carried of a page came beside a cookie.
            if let Role::Class(Class::Tenant | Class::Credential | Class::Page | Class::Identity) =
                role
            {
                caller.extend(header);
            }
            if role.parts_tenants() {
                tenant.extend(header);
            }
        }
        let origin = Origin {
            // As `Destination::hash` and `tenant_hash` make them, in one pass.
            destination_hash: self.key.hash(&place) as u64,
            tenant: self.key.hash(&tenant),
            caller: match caller.as_slice() {
                [] => 0,
                // Never 0, which means none.
                parts => (self.key.hash(parts) as u64) | 1,
            },
        };
        for (name, value) in &upstream.headers {
            if !is_tenants(name) {
                destination.carry(name, value.clone());
            }
        }
        Ok(origin)
    }

    /// The part of its sessions' names that a destination decides: where it is, and its tenant by headers.
    #[must_use]
    #[inline]
    pub fn tenant_hash(&self, destination: &Destination) -> u128 {
        let authority = normalised(&destination.authority);
        let place = [&*destination.cluster, &*authority, &*destination.prefix].map(str::as_bytes);
        let mut parts = Vec::from(place);
        for (name, value) in &destination.headers {
            if self.role(name.as_bytes()).parts_tenants() {
                parts.extend([name.as_bytes(), value.as_bytes()]);
            }
        }
        self.key.hash(&parts)
    }

    /// What a header of this name is to [`Rules::head`].
    #[inline]
    pub(super) fn role(&self, name: &[u8]) -> Role<'_> {
        match name {
            b":method" => Role::Method,
            b":path" => Role::Path,
            b":authority" => Role::Authority,
            b"content-encoding" => Role::ContentEncoding,
            b"content-length" => Role::ContentLength,
            name if name == self.config.bypass_header.as_bytes() => Role::Bypass,
            name => match named(&self.config.session_headers, name) {
                Some(session) => Role::Session(session),
                None => Role::Class(self.config.headers.of(name)),
            },
        }
    }

    /// The rules that a method and path fit.
    #[inline]
    fn candidates<'r, 'p>(&'r self, method: &[u8], path: &'p [u8]) -> Option<Fit<'r, 'p>> {
        let (bare, query) = split_query(path);
        let stray = |takes: bool| match query {
            Some(_) if !takes => Some(Bypass::Query),
            Some(query) if overrides(query) => Some(Bypass::Override),
            _ => None,
        };
        let mut found: Option<Fit<'r, 'p>> = None;
        for (index, route) in self.config.routes.iter().enumerate() {
            if route.method.as_bytes() != method {
                continue;
            }
            let fit = self.config.prefixes.iter().find_map(|prefix| {
                let rest = bare.strip_prefix(prefix.as_bytes())?;
                Some((prefix.as_str(), route.path.fit(rest)?))
            });
            let Some((prefix, segment)) = fit else {
                continue;
            };
            let fit = Fit {
                route: index,
                candidates: 1_u64
                    .checked_shl(u32::try_from(index).unwrap_or(u32::MAX))
                    .unwrap_or(0),
                prefix,
                segment,
                stray: stray(route.takes_query()),
            };
            match &mut found {
                // The same request in another rule's eyes: only with the same prefix and segment.
                Some(first)
                    if (first.prefix, first.segment, first.stray)
                        == (fit.prefix, fit.segment, fit.stray) =>
                {
                    first.candidates |= fit.candidates;
                }
                // A rule that takes the query goes before one that does not.
                Some(first) if first.stray.is_some() && fit.stray.is_none() => *first = fit,
                Some(_) => {}
                None => found = Some(fit),
            }
        }
        found
    }
}

// === impl Gathered ===

impl Gathered<'_> {
    /// The bypass header and an encoding before whatever still lets the body be looked at.
    #[inline]
    fn refuse(&mut self, reason: Bypass) {
        let is_final = |reason: Bypass| matches!(reason, Bypass::Header | Bypass::Encoding);
        // A signed one that is another method to Laravel is no update.
        let is_kept = |known: Bypass| {
            is_final(known) || known == Bypass::Override && reason == Bypass::Signature
        };
        if is_final(reason) || !self.refusal.is_some_and(is_kept) {
            self.refusal = Some(reason);
        }
    }

    /// A header goes with the item.
    #[inline]
    fn carry(&mut self, name: &[u8], value: &[u8], place: u128) {
        match (utf8(name), utf8(value)) {
            (Ok(text), Ok(value)) => {
                let short = compared(name, &value);
                if let Some(short) = &short {
                    self.compared.0 |= place;
                    self.compared.1 |= *short != value;
                }
                self.destination.carry(&text, short.unwrap_or(value));
            }
            _ => self.is_odd = true,
        }
    }
}

/// The first value of a header among those that were kept by name.
#[inline]
pub(super) fn value_of<'n>(named: &'n [(String, String)], name: &str) -> Option<&'n str> {
    let mut values = named.iter().filter(|(known, _)| known == name);
    let found = values.find(|(_, value)| !value.is_empty())?;
    Some(&found.1)
}

/// The path before its query string, and the query string.
#[inline]
pub(super) fn split_query(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|byte| *byte == b'?') {
        Some(at) => {
            let (bare, query) = path.split_at(at);
            (bare, Some(query.get(1..).unwrap_or_default()))
        }
        None => (path, None),
    }
}

/// Whether a query string names another method: Laravel reads it there, too.
#[inline]
fn overrides(query: &[u8]) -> bool {
    let mut pairs = query.split(|byte| *byte == b'&');
    pairs.any(|pair| {
        let name = pair.split(|byte| *byte == b'=').next();
        name.and_then(decoded).is_some_and(|name| name == OVERRIDE)
    })
}

/// The member, or the parameter, that is another method to Laravel.
pub(super) const OVERRIDE: &str = "_method";

/// As Laravel's `isJson`: it looks for `/json` and `+json` anywhere in the content type, and reads a
/// body of any other type as form fields.
#[inline]
fn is_json(content_type: &[u8]) -> bool {
    content_type
        .windows(5)
        .any(|part| part == b"/json" || part == b"+json")
}

#[inline]
pub(super) fn declares_too_much(content_length: &[u8]) -> bool {
    // Most say so in three digits.
    if (1..5).contains(&content_length.len()) && content_length.iter().all(u8::is_ascii_digit) {
        return false;
    }
    core::str::from_utf8(content_length)
        .ok()
        .and_then(|text| text.parse::<u64>().ok())
        .is_none_or(|length| length > BODY_BYTES_MAX as u64)
}

#[inline]
fn holds(value: &[u8], wanted: &[u8]) -> bool {
    value
        .windows(wanted.len())
        .any(|part| part.eq_ignore_ascii_case(wanted))
}
