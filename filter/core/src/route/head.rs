//! The first step of recognition: the headers.

use alloc::string::String;
use alloc::vec::Vec;

use super::{BODY_BYTES_MAX, Bypass, Destination, Rules, decoded, named, utf8};
use crate::headers::Header;

/// Longest that an authority and the credential headers may be together, bytes. They are stored with
/// every pending item; Envoy itself would allow 60 KiB.
pub(super) const DESTINATION_BYTES_MAX: usize = 4 * 1024;

/// Headers that sign the body: a batch could not carry the signature, and Laravel would miss it.
const SIGNATURES: [&[u8]; 7] = [
    b"x-hub-signature-256",
    b"x-webhook-hmac",
    b"x-webhook-signature",
    b"x-whatsapp-signature",
    b"x-baileys-signature",
    b"x-openwa-signature",
    b"x-hmac-signature",
];

/// What the headers of a recognised request say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The rule that fits, or the first of those that may: index into [`Config::routes`].
    pub route: usize,
    /// All that may fit, a bit each; the body decides.
    pub candidates: u64,
    /// Where an item of this request has to go.
    pub destination: Destination,
    /// The `{session}` segment of the path, decoded; empty where there is none.
    pub segment: String,
    /// Headers in which a rule may look for a session.
    pub headers: Vec<(String, String)>,
}

/// What a header is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role<'r> {
    Method,
    Path,
    Authority,
    Scheme,
    ContentType,
    ContentEncoding,
    ContentLength,
    Bypass,
    Signature,
    /// By the name that the configuration has for it.
    Credential(&'r str),
    Session(&'r str),
    /// Nothing.
    Unread,
}

// === impl Rules ===

impl Rules {
    /// Recognises a request by its headers.
    ///
    /// # Errors
    /// The reason to pass it through.
    pub fn head<'h>(&self, headers: impl Iterator<Item = Header<'h>>) -> Result<Head, Bypass> {
        let mut method: &[u8] = b"";
        let mut path: &[u8] = b"";
        let mut destination = Destination::default();
        let mut kept = Vec::new();
        let mut json = false;
        // One pass over the headers; they come in one host call.
        let mut refusal = None;
        for (name, value) in headers {
            match self.role(name) {
                Role::Method => method = value,
                Role::Path => path = value,
                Role::Authority => destination.authority = utf8(value)?,
                Role::Scheme => destination.scheme = utf8(value)?,
                Role::ContentType => json = is_json(value),
                Role::ContentEncoding if value == b"identity" => {}
                Role::ContentEncoding => refusal = Some(Bypass::Encoding),
                Role::ContentLength if declares_too_much(value) => {
                    refusal = Some(Bypass::TooLarge);
                }
                Role::ContentLength | Role::Unread => {}
                Role::Bypass => refusal = Some(Bypass::Header),
                Role::Signature => refusal = Some(Bypass::Signature),
                Role::Credential(name) => {
                    destination.credentials.push((name.into(), utf8(value)?));
                }
                Role::Session(name) => kept.push((name.into(), utf8(value)?)),
            }
        }
        let (route, candidates, prefix, segment) =
            self.candidates(method, path).ok_or(Bypass::Path)?;
        if let Some(reason) = refusal {
            return Err(reason);
        }
        if !json {
            return Err(Bypass::Encoding);
        }
        let segment = decoded(segment).ok_or(Bypass::NoSession)?;
        destination.path = utf8(path.get(prefix.len()..).unwrap_or_default())?;
        destination.prefix = prefix.into();
        if destination.size() > DESTINATION_BYTES_MAX {
            return Err(Bypass::HeaderBytes);
        }
        Ok(Head {
            route,
            candidates,
            destination,
            segment,
            headers: kept,
        })
    }

    /// What a header of this name is to [`Rules::head`].
    pub(super) fn role(&self, name: &[u8]) -> Role<'_> {
        match name {
            b":method" => Role::Method,
            b":path" => Role::Path,
            b":authority" => Role::Authority,
            b"x-forwarded-proto" => Role::Scheme,
            b"content-type" => Role::ContentType,
            b"content-encoding" => Role::ContentEncoding,
            b"content-length" => Role::ContentLength,
            name if name == self.config.bypass_header.as_bytes() => Role::Bypass,
            name if SIGNATURES.contains(&name) => Role::Signature,
            name => {
                let credential = named(&self.config.credentials.headers, name);
                let session = || named(&self.config.session_headers, name);
                credential
                    .map(Role::Credential)
                    .or_else(|| session().map(Role::Session))
                    .unwrap_or(Role::Unread)
            }
        }
    }

    /// The rules that a method and path fit: the first one, all of them as bits, the prefix before their
    /// path and the session's segment in it.
    fn candidates<'p>(
        &self,
        method: &[u8],
        path: &'p [u8],
    ) -> Option<(usize, u64, &str, &'p [u8])> {
        let (bare, query) = split_query(path);
        let mut found: Option<(usize, u64, &str, &[u8])> = None;
        for (index, route) in self.config.routes.iter().enumerate() {
            if route.method.as_bytes() != method || (query.is_some() && !route.takes_query()) {
                continue;
            }
            let fit = self.config.prefixes.iter().find_map(|prefix| {
                let rest = bare.strip_prefix(prefix.as_bytes())?;
                Some((prefix.as_str(), route.path.fit(rest)?))
            });
            let Some((prefix, segment)) = fit else {
                continue;
            };
            let bit = 1_u64
                .checked_shl(u32::try_from(index).unwrap_or(u32::MAX))
                .unwrap_or(0);
            match &mut found {
                // The same request in another rule's eyes: only with the same prefix and segment.
                Some((_, bits, known, same)) if (*known, *same) == (prefix, segment) => {
                    *bits |= bit
                }
                Some(_) => {}
                None => found = Some((index, bit, prefix, segment)),
            }
        }
        found
    }
}

/// The path before its query string, and the query string.
fn split_query(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|byte| *byte == b'?') {
        Some(at) => {
            let (bare, query) = path.split_at(at);
            (bare, Some(query.get(1..).unwrap_or_default()))
        }
        None => (path, None),
    }
}

/// As Laravel's `isJson`: it looks for `/json` and `+json` anywhere in the content type, and reads a
/// body of any other type as form fields.
fn is_json(content_type: &[u8]) -> bool {
    content_type
        .windows(5)
        .any(|part| part == b"/json" || part == b"+json")
}

pub(super) fn declares_too_much(content_length: &[u8]) -> bool {
    core::str::from_utf8(content_length)
        .ok()
        .and_then(|text| text.parse::<u64>().ok())
        .is_none_or(|length| length > BODY_BYTES_MAX as u64)
}
