//! Bodies that were recognised before.
//!
//! Most of what a gateway posts it has posted already, byte for byte: to compare a body costs a tenth of reading it.
//! Reading is a function of rules, head and body alone, so what it gave once it gives again; whether it is a
//! duplicate is still the store's to say.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Bypassed, Numbered, Rules, Said, Update};
use crate::bytes;
use crate::hash::folded;

/// Places for bodies, two for those that meet in one. A thousand sessions have one of each kind of call, a worker
/// sees some of them.
const PLACES: usize = 2048;

/// Longer bodies are read each time: a QR is some 300 bytes, and all places may take some 3 MiB at most.
const BODY_BYTES_MAX: usize = 512;

/// The last bodies, for one worker. They are never printed.
#[derive(Default)]
pub struct KnownBodies(Vec<[Option<Box<Known>>; 2]>);

struct Known {
    head: u64,
    body: Vec<u8>,
    said: Said,
}

// === impl KnownBodies ===

impl KnownBodies {
    /// Recognises an update by its body, as [`Rules::update`] does.
    ///
    /// # Errors
    /// The reason to pass the request through.
    pub fn update<'a>(
        &mut self,
        rules: &Rules,
        head: &'a Numbered,
        body: &'a [u8],
    ) -> Result<Update<'a>, Bypassed> {
        let of = |said| Update {
            said,
            destination: head.encoded(),
            neutral: head.neutral(),
            body,
            implied: head.implied(),
        };
        if body.len() > BODY_BYTES_MAX {
            return rules.said(head, body).map(of);
        }
        if self.0.is_empty() {
            // Not before the first request: a root that never has any needs no room.
            self.0.resize_with(PLACES, Default::default);
        }
        let place = place(head.number, body);
        if let Some(said) = self.said(place, head, body) {
            return Ok(of(said));
        }
        let said = rules.said(head, body)?;
        if let Some([first, second]) = self.0.get_mut(place) {
            // The other makes room.
            core::mem::swap(first, second);
            *first = Some(Box::new(Known {
                head: head.number,
                body: body.to_vec(),
                said: said.clone(),
            }));
        }
        Ok(of(said))
    }

    /// What is known of a body.
    fn said(&mut self, place: usize, head: &Numbered, body: &[u8]) -> Option<Said> {
        let [first, second] = self.0.get_mut(place)?;
        for _ in 0..2 {
            if let Some(known) = first.as_ref().filter(|known| known.is(head, body)) {
                return Some(known.said.clone());
            }
            // The one that was used last comes first.
            core::mem::swap(first, second);
        }
        None
    }
}

// === impl Known ===

impl Known {
    fn is(&self, head: &Numbered, body: &[u8]) -> bool {
        self.head == head.number && bytes::same(&self.body, body)
    }
}

impl core::fmt::Debug for KnownBodies {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("KnownBodies(..)")
    }
}

/// Where a body is looked for. Whoever aims many bodies at one place only has them read.
fn place(head: u64, body: &[u8]) -> usize {
    (folded(head, body) >> 32) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::headers::encode;
    use crate::route::KnownHeads;
    use crate::route::tests::rules;

    fn head(heads: &mut KnownHeads, rules: &Rules, authority: &str, path: &str) -> Numbered {
        let headers = encode(&[
            (b":method", b"POST"),
            (b":path", path.as_bytes()),
            (b":authority", authority.as_bytes()),
            (b"content-type", b"application/json"),
        ]);
        heads.head(rules, headers).unwrap()
    }

    /// Whether what is known comes from memory: it does not change, though the rules do.
    #[test]
    fn a_body_is_read_once_for_each_head() {
        let (rules, others) = (
            rules("{}"),
            rules(r#"{"routes":[{"name":"qr","no_dedup":["x"]}]}"#),
        );
        let mut heads = KnownHeads::default();
        let head_a = head(&mut heads, &rules, "a", "/qr");
        let head_b = head(&mut heads, &rules, "b", "/qr");
        let mut known = KnownBodies::default();
        let body = br#"{"session_id":"s","qr":"x"}"#;
        assert!(!known.update(&rules, &head_a, body).unwrap().no_dedup);
        assert!(!known.update(&others, &head_a, body).unwrap().no_dedup);
        assert!(known.update(&others, &head_b, body).unwrap().no_dedup);
        assert!(!alloc::format!("{known:?}").contains("session"));
    }

    #[test]
    fn what_is_long_or_unreadable_is_not_kept() {
        let rules = rules("{}");
        let head = head(&mut KnownHeads::default(), &rules, "a", "/qr");
        let mut known = KnownBodies::default();
        let long = alloc::format!(
            r#"{{"session_id":"s","qr":"{}"}}"#,
            "x".repeat(BODY_BYTES_MAX)
        );
        for body in [long.as_bytes(), b"", b"{", br#"{"session_id":"s"}"#] {
            let found = known.update(&rules, &head, body).map(|update| update.said);
            assert_eq!(found, rules.said(&head, body));
        }
        assert_eq!(known.0.iter().flatten().flatten().count(), 0);
    }

    #[test]
    fn sessions_are_spread_over_the_places() {
        let body =
            |n: u32| alloc::format!(r#"{{"session_id":"session-{n}","estado_qr":"pending"}}"#);
        let mut taken = alloc::vec![0_u32; PLACES];
        for n in 0..PLACES as u32 {
            taken[place(1, body(n).as_bytes())] += 1;
        }
        let used = taken.iter().filter(|count| **count > 0).count();
        // 1 - 1/e of them, were it chance.
        assert!(used > PLACES * 6 / 10, "{used}");
        assert!(taken.iter().all(|count| *count < 12));
    }

    #[test]
    fn bodies_that_meet_in_one_place_are_told_apart() {
        let rules = rules("{}");
        let head = head(&mut KnownHeads::default(), &rules, "a", "/qr");
        let mut known = KnownBodies::default();
        // Twice as many as there is room for, and each twice: as news, and as one that another may have displaced.
        for _ in 0..2 {
            for n in 0..PLACES * 4 {
                let body = alloc::format!(r#"{{"session_id":"s{n:05}","qr":"x"}}"#);
                let found = known.update(&rules, &head, body.as_bytes());
                let session = rules.session_hash(head.origin, None, &alloc::format!("s{n:05}"));
                assert_eq!(found.unwrap().session, session, "{body}");
            }
        }
    }

    proptest! {
        /// Whatever came before, a body says what it would say without any memory.
        #[test]
        fn a_known_body_says_what_it_says(
            posts in proptest::collection::vec(
                (
                    select(vec!["a", "b"]),
                    select(vec!["/qr", "/api/qr", "/whatsapp/status"]),
                    select(vec!["s", "t", ""]),
                    select(vec!["qr", "estado_qr", "no"]),
                    select(vec!["1", "active", "pending", "\\"]),
                ),
                1..60,
            )
        ) {
            let rules = rules("{}");
            let mut heads = KnownHeads::default();
            let mut known = KnownBodies::default();
            for (authority, path, session, key, value) in posts {
                let head = head(&mut heads, &rules, authority, path);
                let body = alloc::format!(r#"{{"session_id":"{session}","{key}":"{value}"}}"#);
                let found = known.update(&rules, &head, body.as_bytes());
                let found = found.map(|update| (update.said, update.destination, update.body));
                let fresh = rules.update(&head, body.as_bytes());
                let fresh = fresh.map(|update| (update.said, update.destination, update.body));
                prop_assert_eq!(found, fresh);
            }
        }
    }
}
