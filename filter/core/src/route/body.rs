//! The second step of recognition: the body.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use alloc::vec::Vec;

use super::{BODY_BYTES_MAX, Bypass, Destination, Head, Rules, clock};
use crate::config::{Place, Route};
use crate::json::{self, Document, Pointer, Scalar};
use crate::trust;

/// A recognised update: what the store needs to know of a request.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    /// What it says.
    pub said: Said,
    /// Where it has to go.
    pub destination: &'a Destination,
    /// The body, byte for byte.
    pub body: &'a [u8],
}

/// What an update says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Index into [`crate::config::Config::routes`].
    pub route: usize,
    /// Keyed hash of (authority, session).
    pub session: u128,
    /// Keyed hash of the value and of what else must be equal.
    pub value: u128,
    /// The value itself, where a kept answer shows it.
    pub text: Option<String>,
    /// What the sender's own clock says.
    pub order: Option<u64>,
    /// Whether the rule says that this value is sent at once.
    pub priority: bool,
    /// Whether the rule says that this value is never a duplicate.
    pub no_dedup: bool,
    /// Whether this value makes other routes' items meaningless.
    pub voids: bool,
    /// Fingerprint of the caller's credentials.
    pub credential: u64,
    /// Under which the credential is trusted: see [`crate::trust`].
    pub mark: u64,
}

impl core::ops::Deref for Update<'_> {
    type Target = Said;

    fn deref(&self) -> &Said {
        &self.said
    }
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
    pub fn update<'a>(&self, head: &'a Head, body: &'a [u8]) -> Result<Update<'a>, Bypass> {
        Ok(Update {
            said: self.said(head, body)?,
            destination: &head.destination,
            body,
        })
    }

    /// What a request says.
    pub(super) fn said(&self, head: &Head, body: &[u8]) -> Result<Said, Bypass> {
        if body.is_empty() {
            return Err(Bypass::Empty);
        }
        if body.len() > BODY_BYTES_MAX {
            return Err(Bypass::TooLarge);
        }
        let index = self.decide(head, body)?;
        let rule = self.route(index).ok_or(Bypass::Path)?;
        let wanted: Vec<&Pointer> = rule
            .session_pointers()
            .chain(&rule.value)
            .chain(&rule.order)
            .collect();
        let document = json::read(body, &wanted, &rule.same, self.key)?;

        let in_body = rule.session_pointers().count();
        let session = self
            .session(rule, head, &document)
            .ok_or(Bypass::NoSession)?;
        let value = match first(&document, in_body, rule.value.len()) {
            Some(Scalar::Text(value)) if !value.is_empty() => value,
            _ => return Err(Bypass::NoValue),
        };
        let order = first(
            &document,
            in_body.saturating_add(rule.value.len()),
            rule.order.len(),
        );
        let credential = head.destination.credential(self.key);
        let Destination {
            authority, prefix, ..
        } = &head.destination;
        let is_in = |values: &[String]| values.iter().any(|known| known == value);
        Ok(Said {
            route: index,
            session: self.session_hash(&head.destination.authority, &session),
            value: self.value_hash(rule, value, document.digests()),
            text: rule.is_shown.then(|| value.clone().into_owned()),
            order: order.and_then(Scalar::as_text).and_then(clock::read),
            priority: rule.priority.holds(value),
            no_dedup: is_in(&rule.no_dedup),
            voids: rule
                .voids
                .as_ref()
                .is_some_and(|voids| is_in(&voids.values)),
            credential,
            mark: trust::mark(self.key, credential, [&rule.name, authority, prefix]),
        })
    }

    /// Which of the candidates the body fits. Costs a walk of its own, and only where there is something
    /// to decide.
    fn decide(&self, head: &Head, body: &[u8]) -> Result<usize, Bypass> {
        let lone = self
            .route(head.route)
            .is_some_and(|rule| rule.fits.is_none());
        if lone && head.candidates.is_power_of_two() {
            return Ok(head.route);
        }
        let candidates: Vec<(usize, &Route)> = self
            .config
            .routes
            .iter()
            .enumerate()
            .filter(|(index, _)| head.candidates.checked_shr(*index as u32).unwrap_or(0) & 1 == 1)
            .collect();
        let wanted: Vec<&Pointer> = candidates
            .iter()
            .filter_map(|(_, rule)| rule.fits.as_ref().map(|fits| &fits.pointer))
            .collect();
        let document = json::read(body, &wanted, &[], self.key)?;
        let mut at = 0_usize;
        for (index, rule) in candidates {
            let Some(fits) = &rule.fits else {
                return Ok(index);
            };
            let found = document.at(at);
            at = at.saturating_add(1);
            if let Some(Scalar::Text(found)) = found
                && fits.values.iter().any(|value| value == found)
            {
                return Ok(index);
            }
        }
        Err(Bypass::Unmatched)
    }

    /// The session's name: the first place that has one.
    fn session<'d>(
        &self,
        rule: &'d Route,
        head: &'d Head,
        document: &'d Document<'_>,
    ) -> Option<Cow<'d, str>> {
        let mut at = 0_usize;
        let places = rule.session.iter().filter_map(|place| match place {
            Place::Body(_) => {
                at = at.saturating_add(1);
                document
                    .at(at.saturating_sub(1))
                    .and_then(Scalar::as_text)
                    .map(Cow::Borrowed)
            }
            Place::Segment => Some(Cow::Borrowed(head.segment.as_str())),
            Place::Query(name) => parameter(&head.destination.path, name).map(Cow::Owned),
            Place::Header(name) => head
                .headers
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| Cow::Borrowed(value.as_str())),
            Place::Constant(text) => Some(Cow::Borrowed(text.as_str())),
        });
        let mut named = places.filter(|session| !session.is_empty());
        named.next()
    }

    /// Reads a stored body again, to make an item of it.
    pub(crate) fn item<'a>(&self, route: usize, body: &'a [u8]) -> Option<Item<'a>> {
        let rule = self.route(route)?;
        let wanted: Vec<&Pointer> = rule.session_pointers().collect();
        let document = json::read(body, &wanted, &[], self.key).ok()?;
        let session_json = match first(&document, 0, wanted.len())? {
            Scalar::Text(text) => json::quoted(text),
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
        let session_key = json::quoted(&implies.session_key);
        let key = json::quoted(&implies.key);
        let value = json::quoted(&implies.value);
        Some(alloc::format!("{{{session_key}:{session},{key}:{value}}}").into_bytes())
    }
}

/// The value of a query parameter, decoded.
fn parameter(path: &str, name: &str) -> Option<String> {
    let (_, query) = path.split_once('?')?;
    query.split('&').find_map(|pair| {
        let (known, value) = pair.split_once('=')?;
        (known == name).then(|| super::decoded(value.as_bytes()))?
    })
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
        // It lives as long as the test's process.
        let head = Box::leak(Box::new(Head {
            route,
            candidates: 1 << route,
            destination: Destination {
                authority: "a".into(),
                ..Destination::default()
            },
            segment: String::new(),
            headers: Vec::new(),
        }));
        rules("{}").update(head, body.as_bytes())
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
