//! Heads that were recognised before.
//!
//! A gateway sends the same headers over and over; what differs from request to request, a length or a request id,
//! is nothing that recognising reads. So a head is found by the bytes that were read when it was recognised: a few
//! comparisons in place of a pass over all names, and of everything that a head holds.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Range;

use super::head::{Role, declares_too_much};
use super::{Bypass, Head, Rules};
use crate::bytes;
use crate::headers::Headers;

/// Heads that are remembered. A gateway has two routes, and lengths of two or three digits.
const KNOWN_MAX: usize = 6;

/// Longer headers are not kept.
const BUFFER_BYTES_MAX: usize = 2048;

/// The last heads, for one worker.
#[derive(Debug, Default)]
pub struct KnownHeads {
    known: Vec<Known>,
    /// Heads that were recognised so far.
    count: u64,
}

/// A recognised head, and its number: no two of a worker have the same.
#[derive(Clone, Debug)]
pub struct Numbered {
    pub(super) number: u64,
    head: Rc<Head>,
}

/// One of them. The buffer may hold credentials, so it is never printed.
struct Known {
    buffer: Vec<u8>,
    /// What of the buffer another must have, too: the lengths, the names, and the values that were read. Where the
    /// lengths are the same, everything is in the same place.
    same: Vec<Range<usize>>,
    /// The value of `content-length`.
    length: Option<Range<usize>>,
    head: Numbered,
}

// === impl KnownHeads ===

impl KnownHeads {
    /// Recognises a request by the buffer of its headers, as [`Rules::head`] does.
    ///
    /// # Errors
    /// The reason to pass it through.
    pub fn head(&mut self, rules: &Rules, buffer: Vec<u8>) -> Result<Numbered, Bypass> {
        if let Some(at) = self.known.iter().position(|known| known.is_like(&buffer)) {
            // The last one is the first to be looked at.
            self.known.swap(0, at);
            if let Some(known) = self.known.first() {
                return Ok(known.head.clone());
            }
        }
        let head = rules.head(Headers::new(&buffer))?;
        self.count = self.count.wrapping_add(1);
        let head = Numbered {
            number: self.count,
            head: Rc::new(head),
        };
        if buffer.len() <= BUFFER_BYTES_MAX {
            self.known.truncate(KNOWN_MAX.saturating_sub(1));
            self.known.push(Known::new(rules, buffer, head.clone()));
        }
        Ok(head)
    }
}

// === impl Numbered ===

impl core::ops::Deref for Numbered {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

// === impl Known ===

impl Known {
    fn new(rules: &Rules, buffer: Vec<u8>, head: Numbered) -> Self {
        let mut same = Vec::new();
        let mut length = None;
        let mut start = 0;
        for (name, value) in Headers::new(&buffer).places() {
            let role = rules.role(buffer.get(name).unwrap_or_default());
            match role {
                Role::Unread => {}
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
            head,
        }
    }

    fn is_like(&self, buffer: &[u8]) -> bool {
        let is_same = |place| match (part(&self.buffer, place), part(buffer, place)) {
            (Some(known), Some(found)) => bytes::same(known, found),
            _ => false,
        };
        let length = self.length.as_ref().and_then(|place| part(buffer, place));
        buffer.len() == self.buffer.len()
            && self.same.iter().all(is_same)
            && !length.is_some_and(declares_too_much)
    }
}

fn part<'b>(buffer: &'b [u8], place: &Range<usize>) -> Option<&'b [u8]> {
    buffer.get(place.clone())
}

impl core::fmt::Debug for Known {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Known").field("head", &self.head).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::{Header, encode};
    use crate::route::tests::rules;
    use proptest::prelude::*;
    use proptest::sample::select;

    const RULES: &str = r#"{"preset":"baileys-api","credentials":{"headers":["authorization"]},
        "routes":[{"name":"qr","session":[{"header":"x-session"},"/sessionId"]}]}"#;

    const POST: [Header<'_>; 6] = [
        (b":method", b"POST"),
        (b":path", b"/api/qr"),
        (b":authority", b"laravel.test"),
        (b"content-type", b"application/json"),
        (b"content-length", b"290"),
        (b"x-request-id", b"one"),
    ];

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
        let other = known
            .head(&rules, post(b":authority", b"laravel.tes7"))
            .unwrap();
        assert_eq!(other.destination.authority, "laravel.tes7");
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
            assert_eq!(refused.err(), Some(Bypass::TooLarge));
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
        let rules = rules(r#"{"credentials":{"headers":["authorization"]}}"#);
        let mut known = KnownHeads::default();
        let mut headers = POST.to_vec();
        headers.push((b"authorization", b"Bearer s3cret"));
        known.head(&rules, encode(&headers)).unwrap();
        assert!(!alloc::format!("{known:?}").contains("s3cret"));
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
            one(b"x-session", &[b"s", b"t", b"long"]),
            one(b"x-embudo-bypass", &[b"1", b"2"]),
            one(b"x-hmac-signature", &[b"1", b"2"]),
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
                let found = known.head(&rules, buffer).map(|head| Head::clone(&head));
                prop_assert_eq!(found, fresh);
            }
        }
    }
}
