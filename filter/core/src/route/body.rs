//! The second step of recognition: the body.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use super::{BODY_BYTES_MAX, Bypass, Head, Rules};
use crate::json::{self, Document, Pointer, Scalar};

/// A recognised update: what the store needs to know of a request.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    /// Index into [`crate::config::Config::routes`].
    pub route: usize,
    /// Keyed hash of (authority, session).
    pub session: u128,
    /// Keyed hash of the value and of what else must be equal.
    pub value: u128,
    /// Whether the rule says that this value is sent at once.
    pub priority: bool,
    /// Whether the rule says that this value is never a duplicate.
    pub no_dedup: bool,
    /// Whether this value makes other routes' items meaningless.
    pub voids: bool,
    /// Fingerprint of the caller's credentials.
    pub credential: u64,
    /// Encoded [`super::Destination`].
    pub destination: Vec<u8>,
    /// The body, byte for byte.
    pub body: &'a [u8],
}

/// A body once more, for the item that is made of it.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    /// The session as JSON.
    pub(crate) session_json: String,
    /// Which keys the object has.
    pub(crate) document: Document<'a>,
}

// === impl Rules ===

impl Rules {
    /// Recognises an update by its body.
    ///
    /// # Errors
    /// The reason to pass the request through.
    pub fn update<'a>(&self, head: &Head, body: &'a [u8]) -> Result<Update<'a>, Bypass> {
        if body.is_empty() {
            return Err(Bypass::Empty);
        }
        if body.len() > BODY_BYTES_MAX {
            return Err(Bypass::TooLarge);
        }
        let rule = self.route(head.route).ok_or(Bypass::Path)?;
        let wanted: Vec<&Pointer> = rule.session.iter().chain(&rule.value).collect();
        let document = json::read(body, &wanted, &rule.same, self.key)?;

        let session = first(&document, 0, rule.session.len())
            .and_then(Scalar::as_text)
            .filter(|session| !session.is_empty())
            .ok_or(Bypass::NoSession)?;
        let value = match first(&document, rule.session.len(), rule.value.len()) {
            Some(Scalar::Text(value)) if !value.is_empty() => value,
            _ => return Err(Bypass::NoValue),
        };
        let is_in = |values: &[String]| values.iter().any(|known| known == value);
        Ok(Update {
            route: head.route,
            session: self
                .key
                .hash(&[head.destination.authority.as_bytes(), session.as_bytes()]),
            value: self.value_hash(rule, value, document.digests()),
            priority: is_in(&rule.priority),
            no_dedup: is_in(&rule.no_dedup),
            voids: rule
                .voids
                .as_ref()
                .is_some_and(|voids| is_in(&voids.values)),
            credential: head.destination.credential(self.key),
            destination: head.destination.encode(),
            body,
        })
    }

    /// Reads a stored body again, to make an item of it.
    pub(crate) fn item<'a>(&self, route: usize, body: &'a [u8]) -> Option<Item<'a>> {
        let rule = self.route(route)?;
        let wanted: Vec<&Pointer> = rule.session.iter().collect();
        let document = json::read(body, &wanted, &[], self.key).ok()?;
        let session_json = match first(&document, 0, wanted.len())? {
            Scalar::Text(text) => serde_json::to_string(text.as_ref()).ok()?,
            Scalar::Integer(digits) => digits.to_owned(),
            Scalar::Bool(_) | Scalar::Other => return None,
        };
        Some(Item {
            session_json,
            document,
        })
    }

    /// The body of the update that an item of `route` implies: what the gateway would have posted.
    pub(crate) fn implied_body(&self, route: usize, body: &[u8]) -> Option<Vec<u8>> {
        let implies = self.route(route)?.implies.as_ref()?;
        let session = self.item(route, body)?.session_json;
        let session_key = serde_json::to_string(&implies.session_key).ok()?;
        let key = serde_json::to_string(&implies.key).ok()?;
        let value = serde_json::to_string(&implies.value).ok()?;
        Some(alloc::format!("{{{session_key}:{session},{key}:{value}}}").into_bytes())
    }
}

/// The first hit among `count` pointers from `start`.
fn first<'d, 'a>(document: &'d Document<'a>, start: usize, count: usize) -> Option<&'d Scalar<'a>> {
    (start..start.saturating_add(count)).find_map(|index| document.at(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Destination;
    use crate::route::tests::rules;

    fn update(route: usize, body: &str) -> Result<Update<'_>, Bypass> {
        let head = Head {
            route,
            destination: Destination {
                authority: "a".into(),
                ..Destination::default()
            },
        };
        rules("{}").update(&head, body.as_bytes())
    }

    #[test]
    fn the_value_is_compared_and_not_the_body() {
        let a = update(0, r#"{"session_id":"s","qr":"2@x"}"#).unwrap();
        let b = update(0, r#"{ "qr":"2\u0040x", "session_id":"s", "event_id": 9 }"#).unwrap();
        assert_eq!((a.session, a.value), (b.session, b.value));
        let c = update(0, r#"{"sessionId":"s","qr":"2@y"}"#).unwrap();
        assert_eq!(a.session, c.session);
        assert_ne!(a.value, c.value);
    }

    #[test]
    fn session_data_makes_another_state_of_it() {
        let plain = update(1, r#"{"session_id":"s","estado_qr":"active"}"#).unwrap();
        let data = r#"{"session_id":"s","estado_qr":"active","session_data":{"phone":"1"}}"#;
        assert_ne!(plain.value, update(1, data).unwrap().value);
        let rules = rules("{}");
        let (_, status) = rules.config.route_named("status").unwrap();
        assert_eq!(plain.value, rules.plain_value_hash(status, "active"));
    }

    #[test]
    fn what_the_rule_needs_and_is_not_there_passes_through() {
        let why = |route, body| update(route, body).err();
        assert_eq!(why(0, ""), Some(Bypass::Empty));
        assert_eq!(why(0, r#"{"qr":"x"}"#), Some(Bypass::NoSession));
        assert_eq!(
            why(0, r#"{"session_id":null,"qr":"x"}"#),
            Some(Bypass::NoSession)
        );
        assert_eq!(
            why(0, r#"{"session_id":["s"],"qr":"x"}"#),
            Some(Bypass::NoSession)
        );
        assert_eq!(why(0, r#"{"session_id":"s"}"#), Some(Bypass::NoValue));
        assert_eq!(
            why(0, r#"{"session_id":"s","qr":7}"#),
            Some(Bypass::NoValue)
        );
        assert_eq!(
            why(1, r#"{"session_id":"s","estado_qr":{}}"#),
            Some(Bypass::NoValue)
        );
        assert_eq!(
            why(0, r#"{"session_id":7,"qr":"x"}"#),
            None,
            "a numeric id is an id"
        );
        let long = alloc::format!(
            r#"{{"session_id":"s","qr":"{}"}}"#,
            "x".repeat(BODY_BYTES_MAX)
        );
        assert_eq!(why(0, &long), Some(Bypass::TooLarge));
    }

    #[test]
    fn the_implied_state_is_what_the_gateway_would_have_posted() {
        let body = rules("{}")
            .implied_body(0, br#"{"sessionId":"s\"1","qr":"x"}"#)
            .unwrap();
        assert_eq!(body, br#"{"session_id":"s\"1","estado_qr":"pending"}"#);
    }
}
