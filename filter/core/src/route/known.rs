//! Heads that were recognised before.
//!
//! A gateway sends the same headers over and over; what differs from request to request, a length or a request id,
//! is nothing that recognising reads. So a head is found by the bytes that were read when it was recognised: a few
//! comparisons in place of a pass over all names, and of everything that a head holds.

use alloc::borrow::Cow;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Range;

use super::destination::Template;
use super::fresh::{Fresh, FreshHeader};
use super::head::{Role, declares_too_much};
use super::{Bypass, Encoded, Head, Neutral, Rules};
use crate::bytes;
use crate::config::Class;
use crate::headers::Headers;

/// Heads that are remembered. A gateway has two routes, and lengths of two or three digits; some tenants have a token
/// each.
const KNOWN_MAX: usize = 16;

/// Of these, places for heads that came once: a stranger's many heads push out no others.
const NEW_MAX: usize = 4;

/// Longer headers are not kept.
const BUFFER_BYTES_MAX: usize = 2048;

/// The last heads, for one worker.
#[derive(Debug, Default)]
pub struct KnownHeads {
    known: Vec<Known>,
    /// Heads that were recognised so far.
    count: u64,
    fresh: Fresh,
    /// Found, and not told yet.
    news: Option<FreshHeader>,
}

/// A recognised head, and its number: no two of a worker have the same.
pub struct Numbered {
    pub(super) number: u64,
    head: Rc<Recognised>,
    /// The request's own headers. They may hold credentials, so they are never printed.
    buffer: Vec<u8>,
}

/// One of them. The buffer may hold credentials, so it is never printed.
struct Known {
    buffer: Vec<u8>,
    /// What of the buffer another must have, too: the lengths, the names, and the values that were read. Where the
    /// lengths are the same, everything is in the same place.
    same: Vec<Range<usize>>,
    /// The value of `content-length`.
    length: Option<Range<usize>>,
    number: u64,
    head: Rc<Recognised>,
}

/// A head, and what every item of it has in the store.
struct Recognised {
    head: Head,
    destination: Vec<u8>,
    neutral: Option<Template>,
    /// The first of its routes, and what that implies.
    implied: Option<(usize, u64)>,
}

// === impl KnownHeads ===

impl KnownHeads {
    /// Recognises a request by the buffer of its headers, as [`Rules::head`] does.
    ///
    /// # Errors
    /// The reason to pass it through, and the buffer.
    #[inline]
    pub fn head(&mut self, rules: &Rules, buffer: Vec<u8>) -> Result<Numbered, (Bypass, Vec<u8>)> {
        if let Some(at) = self.known.iter().position(|known| known.is_like(&buffer)) {
            // The last one is the first to be looked at.
            self.known.swap(0, at);
            if let Some(known) = self.known.first() {
                return Ok(Numbered {
                    number: known.number,
                    head: Rc::clone(&known.head),
                    buffer,
                });
            }
        }
        let head = match rules.head(Headers::new(&buffer)) {
            Ok(head) => head,
            Err(reason) => return Err((reason, buffer)),
        };
        self.count = self.count.wrapping_add(1);
        self.note(rules, &head);
        let head = Rc::new(Recognised::new(rules, head, &buffer));
        // One that bypasses may do so for its length alone, and another of the same head does not.
        if buffer.len() <= BUFFER_BYTES_MAX && head.head.bypass.is_none() {
            let known = Known::new(rules, buffer.clone(), self.count, Rc::clone(&head));
            let new = self.count as usize % NEW_MAX;
            match self
                .known
                .get_mut(KNOWN_MAX.saturating_sub(NEW_MAX).saturating_add(new))
            {
                Some(place) => *place = known,
                None => self.known.push(known),
            }
        }
        Ok(Numbered {
            number: self.count,
            head,
            buffer,
        })
    }

    /// A header whose value turned out to be new in every request, once for each name.
    #[inline]
    pub fn news(&mut self) -> Option<FreshHeader> {
        self.news.take()
    }

    /// Looks for headers whose value is never the same: only where a head was not known, so that whoever sends what
    /// he always sends costs nothing.
    #[inline]
    fn note(&mut self, rules: &Rules, head: &Head) {
        for (name, value) in &head.destination.headers {
            if let Role::Class(Class::Tenant | Class::Credential | Class::Page | Class::Identity) =
                rules.role(name.as_bytes())
            {
                let value = rules.key.hash(&[value.as_bytes()]) as u64;
                let news = self.fresh.note(name, value);
                self.news = news.or(self.news.take());
            }
        }
    }
}

// === impl Numbered ===

impl Numbered {
    /// What an item of this request takes along if it goes alone.
    #[must_use]
    #[inline]
    pub fn neutral(&self) -> Neutral<'_> {
        Neutral::new(&self.buffer, self.head.head.neutral).like(self.head.neutral.as_ref())
    }

    /// What an update of its first route implies.
    #[inline]
    pub(super) fn implied(&self) -> Option<(usize, u64)> {
        self.head.implied
    }

    /// Where an item of this request goes, for the store.
    #[inline]
    pub(super) fn encoded(&self) -> Encoded<'_> {
        Encoded(Cow::Borrowed(&self.head.destination))
    }
}

impl core::fmt::Debug for Numbered {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Numbered")
            .field("number", &self.number)
            .field("head", &self.head.head)
            .finish_non_exhaustive()
    }
}

impl core::ops::Deref for Numbered {
    type Target = Head;

    #[inline]
    fn deref(&self) -> &Head {
        &self.head.head
    }
}

// === impl Recognised ===

impl Recognised {
    #[inline]
    fn new(rules: &Rules, head: Head, buffer: &[u8]) -> Self {
        let implied = rules.implied(head.route);
        Self {
            implied: implied.map(|hash| (head.route, hash)),
            destination: head.destination.encode(),
            neutral: Neutral::new(buffer, head.neutral).template(),
            head,
        }
    }
}

// === impl Known ===

impl Known {
    #[inline]
    fn new(rules: &Rules, buffer: Vec<u8>, number: u64, head: Rc<Recognised>) -> Self {
        let mut same = Vec::new();
        let mut length = None;
        let mut start = 0;
        for (at, (name, value)) in (0_u32..).zip(Headers::new(&buffer).places()) {
            let role = rules.role(buffer.get(name).unwrap_or_default());
            let is_neutral = || head.head.neutral.checked_shr(at).unwrap_or(0) & 1 == 1;
            match role {
                Role::Class(Class::Page) if is_neutral() => {}
                Role::Class(Class::Neutral | Class::Varying | Class::Framing) => {}
                Role::ContentLength => length = Some(value.clone()),
                _ => continue,
            }
            same.push(start..value.start);
            start = value.end;
        }
        same.push(start..buffer.len());
        Self {
            buffer,
            same,
            length,
            number,
            head,
        }
    }

    fn is_like(&self, buffer: &[u8]) -> bool {
        let is_same = |place| match (part(&self.buffer, place), part(buffer, place)) {
            (Some(known), Some(found)) => bytes::same(known, found),
            _ => false,
        };
        let length = || self.length.as_ref().and_then(|place| part(buffer, place));
        buffer.len() == self.buffer.len()
            && self.same.iter().all(is_same)
            && !length().is_some_and(declares_too_much)
    }
}

fn part<'b>(buffer: &'b [u8], place: &Range<usize>) -> Option<&'b [u8]> {
    buffer.get(place.clone())
}

impl core::fmt::Debug for Known {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Known")
            .field("head", &self.head.head)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::{Header, encode};
    use crate::route::tests::rules;
    use proptest::prelude::*;
    use proptest::sample::select;

    const RULES: &str = r#"{"preset":"baileys-api",
        "routes":[{"name":"qr","session":[{"header":"x-session"},"/sessionId"]}]}"#;

    const POST: [Header<'_>; 6] = [
        (b":method", b"POST"),
        (b":path", b"/api/qr"),
        (b":authority", b"laravel.test"),
        (b"content-type", b"application/json"),
        (b"content-length", b"290"),
        (b"x-request-id", b"one"),
    ];

    /// What an item of a request takes along, as it would be without any memory.
    fn neutral(rules: &Rules, buffer: &[u8]) -> Option<Vec<u8>> {
        let head = rules.head(Headers::new(buffer)).ok()?;
        Some(Neutral::new(buffer, head.neutral).encode())
    }

    /// The headers of a POST, with another value here.
    fn post(name: &[u8], value: &'static [u8]) -> Vec<u8> {
        let mut headers = POST;
        for header in headers.iter_mut().filter(|header| header.0 == name) {
            header.1 = value;
        }
        encode(&headers)
    }

    #[test]
    fn what_is_not_read_may_differ() {
        let rules = rules("{}");
        let mut known = KnownHeads::default();
        let first = known.head(&rules, encode(&POST)).unwrap();
        for (name, value) in [
            (&b"x-request-id"[..], &b"two"[..]),
            (b"content-length", b"291"),
        ] {
            let again = known.head(&rules, post(name, value)).unwrap();
            assert!(Rc::ptr_eq(&first.head, &again.head), "recognised once");
        }
        assert_eq!(
            Neutral::decode(
                &known
                    .head(&rules, post(b"x-request-id", b"two"))
                    .unwrap()
                    .neutral()
                    .encode()
            ),
            [("x-request-id".into(), "two".into())],
            "each request has its own"
        );
        let other = known
            .head(&rules, post(b":authority", b"laravel.tes7"))
            .unwrap();
        assert_eq!(other.destination.authority, "laravel.tes7");
    }

    #[test]
    fn another_page_is_the_same_head_unless_there_is_a_cookie() {
        let rules = rules("{}");
        let mut known = KnownHeads::default();
        let mut of = |more: &[Header<'_>]| {
            let headers: Vec<Header<'_>> = POST.iter().chain(more).copied().collect();
            known.head(&rules, encode(&headers)).unwrap()
        };
        let (one, two) = ((&b"referer"[..], &b"/1"[..]), (&b"referer"[..], &b"/2"[..]));
        assert!(Rc::ptr_eq(&of(&[one]).head, &of(&[two]).head));
        let cookie = (&b"cookie"[..], &b"a=1"[..]);
        let (one, two) = (of(&[one, cookie]), of(&[two, cookie]));
        assert_ne!(one.origin.caller, two.origin.caller);
    }

    #[test]
    fn a_length_is_looked_at_each_time() {
        let rules = rules("{}");
        let mut known = KnownHeads::default();
        for (fits, does_not) in [(&b"290"[..], &b"abc"[..]), (b"10000", b"99999")] {
            known
                .head(&rules, post(b"content-length", fits))
                .expect("it fits");
            let refused = known.head(&rules, post(b"content-length", does_not));
            assert_eq!(refused.unwrap().bypass, Some(Bypass::TooLarge));
        }
    }

    #[test]
    fn no_more_than_a_few_are_kept_and_the_last_one_stays() {
        let rules = rules("{}");
        let mut known = KnownHeads::default();
        let first = known.head(&rules, encode(&POST)).unwrap();
        for id in 0..100_u32 {
            let long = "x".repeat(id as usize);
            let mut headers = POST.to_vec();
            headers.push((b"x-trace", long.as_bytes()));
            known.head(&rules, encode(&headers)).unwrap();
            let again = known.head(&rules, encode(&POST)).unwrap();
            assert!(
                Rc::ptr_eq(&first.head, &again.head),
                "it is used all the time"
            );
            assert!(known.known.len() <= KNOWN_MAX);
        }
        let huge = "x".repeat(BUFFER_BYTES_MAX);
        let mut headers = POST.to_vec();
        headers.push((b"x-trace", huge.as_bytes()));
        let before = known.known.len();
        known.head(&rules, encode(&headers)).unwrap();
        assert_eq!(known.known.len(), before);
    }

    #[test]
    fn nothing_of_a_buffer_is_printed() {
        let rules = rules("{}");
        let mut known = KnownHeads::default();
        let mut headers = POST.to_vec();
        headers.push((b"authorization", b"Bearer s3cret"));
        let head = known.head(&rules, encode(&headers)).unwrap();
        assert!(!alloc::format!("{known:?} {head:?}").contains("s3cret"));
    }

    /// Names and values that mean something, in all combinations, and some that mean nothing.
    fn header() -> impl Strategy<Value = Header<'static>> {
        let one = |name: &'static [u8], values: &'static [&'static [u8]]| {
            select(values).prop_map(move |value| (name, value)).boxed()
        };
        prop_oneof![
            one(b":method", &[b"POST", b"POS7", b"GET"]),
            one(b":path", &[b"/webhook", b"/webhooks", b"/api/webhook"]),
            one(b":authority", &[b"a", b"b", b"\xff"]),
            one(b"x-forwarded-proto", &[b"http", b"httq", b"https"]),
            one(b"content-type", &[b"application/json", b"application/jsom"]),
            one(b"content-encoding", &[b"identity", b"gzip", b"identitz"]),
            one(
                b"content-length",
                &[b"290", b"abc", b"29", b"99999", b"10000"]
            ),
            one(
                b"authorization",
                &[b"Bearer 1", b"Bearer 2", b"\xffearer 2"]
            ),
            one(b"cookie", &[b"a=1", b"a=2", b"\xff=2"]),
            one(b"origin", &[b"http://a", b"http://b", b"\xffttp://b"]),
            one(b"referer", &[b"http://a", b"http://b"]),
            one(b"x-session", &[b"s", b"t", b"long"]),
            one(b"x-embudo-bypass", &[b"1", b"2"]),
            one(b"x-hmac-signature", &[b"1", b"2"]),
            one(b"x-http-method-override", &[b"PUT", b"GET"]),
            one(b"x-tenant", &[b"a", b"b", b"\xff"]),
            one(b"x-secret", &[b"a", b"b", b"long"]),
            one(
                b"x-forwarded-for",
                &[b"10.0.0.1", b"10.0.0.1:7", b"10.0.0.1:8"]
            ),
            one(b"connection", &[b"close", b"keep-alive"]),
            one(b"x-request-id", &[b"1", b"2", b"33", b"\xff"]),
        ]
    }

    proptest! {
        /// Whatever came before, a head is what it would be without any memory.
        #[test]
        fn a_known_head_is_the_head(
            requests in proptest::collection::vec(proptest::collection::vec(header(), 3..9), 1..40)
        ) {
            let rules = rules(RULES);
            let mut known = KnownHeads::default();
            let plain = encode(&[POST[0], (b":path", b"/webhook"), POST[3]]);
            prop_assert!(known.head(&rules, plain).is_ok());
            for more in requests {
                let path = (&b":path"[..], &b"/webhook"[..]);
                let mut headers = vec![POST[0], path, POST[3]];
                headers.extend(more);
                let buffer = encode(&headers);
                let fresh = rules.head(Headers::new(&buffer));
                let along = neutral(&rules, &buffer);
                let found = known.head(&rules, buffer);
                prop_assert_eq!(found.as_ref().ok().map(|head| head.neutral().encode()), along);
                let found = found.map(|head| Head::clone(&head)).map_err(|(reason, _)| reason);
                prop_assert_eq!(found, fresh);
            }
        }
    }
}
