//! Heads that were recognised before.
//!
//! A gateway sends the same headers over and over; what differs from request to request, a length or a request id,
//! is nothing that recognising reads. So a head is found by the bytes that were read when it was recognised: a few
//! comparisons in place of a pass over all names, and of everything that a head holds.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Range;

use super::{Bypass, Head, Role, Rules, declares_too_much};
use crate::headers::Headers;

/// Heads that are remembered. A gateway has two routes, and lengths of two or three digits.
const KNOWN_MAX: usize = 6;

/// Longer headers are not kept.
const BUFFER_BYTES_MAX: usize = 2048;

/// The last heads, for one worker.
#[derive(Debug, Default)]
pub struct KnownHeads(Vec<Known>);

/// One of them. The buffer may hold credentials, so it is never printed.
struct Known {
    buffer: Vec<u8>,
    /// What of the buffer another must have, too: the lengths, the names, and the values that were read. Where the
    /// lengths are the same, everything is in the same place.
    same: Vec<Range<usize>>,
    /// The value of `content-length`.
    length: Option<Range<usize>>,
    head: Rc<Head>,
}

// === impl KnownHeads ===

impl KnownHeads {
    /// Recognises a request by the buffer of its headers, as [`Rules::head`] does.
    ///
    /// # Errors
    /// The reason to pass it through.
    pub fn head(&mut self, rules: &Rules, buffer: Vec<u8>) -> Result<Rc<Head>, Bypass> {
        if let Some(at) = self.0.iter().position(|known| known.is_like(&buffer)) {
            // The last one is the first to be looked at.
            self.0.swap(0, at);
            if let Some(known) = self.0.first() {
                return Ok(Rc::clone(&known.head));
            }
        }
        let head = Rc::new(rules.head(Headers::new(&buffer))?);
        if buffer.len() <= BUFFER_BYTES_MAX {
            self.0.truncate(KNOWN_MAX.saturating_sub(1));
            self.0.push(Known::new(rules, buffer, Rc::clone(&head)));
        }
        Ok(head)
    }
}

// === impl Known ===

impl Known {
    fn new(rules: &Rules, buffer: Vec<u8>, head: Rc<Head>) -> Self {
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
        let length = self.length.clone().and_then(|place| buffer.get(place));
        buffer.len() == self.buffer.len()
            && self
                .same
                .iter()
                .all(|place| buffer.get(place.clone()) == self.buffer.get(place.clone()))
            && !length.is_some_and(declares_too_much)
    }
}

impl core::fmt::Debug for Known {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Known").field("head", &self.head).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Header;
    use crate::headers::tests::buffer;
    use crate::route::tests::rules;
    use proptest::prelude::*;
    use proptest::sample::select;

    const RULES: &str = r#"{"credentials":{"headers":["authorization","x-api-key"]},"routes":[
        {"name":"qr","session":["header:x-session","/session_id"]}]}"#;

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
        buffer(&headers)
    }

    #[test]
    fn what_is_not_read_may_differ() {
        let rules = rules("{}");
        let mut known = KnownHeads::default();
        let first = known.head(&rules, buffer(&POST)).unwrap();
        for (name, value) in [
            (&b"x-request-id"[..], &b"two"[..]),
            (b"content-length", b"291"),
        ] {
            let again = known.head(&rules, post(name, value)).unwrap();
            assert!(Rc::ptr_eq(&first, &again), "recognised once");
        }
        let other = known
            .head(&rules, post(b":authority", b"laravel.tes7"))
            .unwrap();
        assert_eq!(other.destination.authority, "laravel.tes7");
    }

    #[test]
    fn no_more_than_a_few_are_kept_and_the_last_one_stays() {
        let rules = rules("{}");
        let mut known = KnownHeads::default();
        let first = known.head(&rules, buffer(&POST)).unwrap();
        for id in 0..100_u32 {
            let long = "x".repeat(id as usize);
            let mut headers = POST.to_vec();
            headers.push((b"x-trace", long.as_bytes()));
            known.head(&rules, buffer(&headers)).unwrap();
            let again = known.head(&rules, buffer(&POST)).unwrap();
            assert!(Rc::ptr_eq(&first, &again), "it is used all the time");
            assert!(known.0.len() <= KNOWN_MAX);
        }
        let huge = "x".repeat(BUFFER_BYTES_MAX);
        let mut headers = POST.to_vec();
        headers.push((b"x-trace", huge.as_bytes()));
        let before = known.0.len();
        known.head(&rules, buffer(&headers)).unwrap();
        assert_eq!(known.0.len(), before);
    }

    #[test]
    fn nothing_of_a_buffer_is_printed() {
        let rules = rules(r#"{"credentials":{"headers":["authorization"]}}"#);
        let mut known = KnownHeads::default();
        let mut headers = POST.to_vec();
        headers.push((b"authorization", b"Bearer s3cret"));
        known.head(&rules, buffer(&headers)).unwrap();
        assert!(!alloc::format!("{known:?}").contains("s3cret"));
    }

    /// Names and values that mean something, in all combinations, and some that mean nothing.
    fn header() -> impl Strategy<Value = Header<'static>> {
        let one = |name: &'static [u8], values: &'static [&'static [u8]]| {
            select(values).prop_map(move |value| (name, value)).boxed()
        };
        prop_oneof![
            one(b":method", &[b"POST", b"POS7", b"GET"]),
            one(
                b":path",
                &[b"/api/qr", b"/qr", b"/api/q7", b"/api/whatsapp/status"]
            ),
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
            for more in requests {
                let mut headers = vec![POST[0], POST[1], POST[3]];
                headers.extend(more);
                let buffer = buffer(&headers);
                let fresh = rules.head(Headers::new(&buffer));
                let found = known.head(&rules, buffer).map(|head| Head::clone(&head));
                prop_assert_eq!(found, fresh);
            }
        }
    }
}
