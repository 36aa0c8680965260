//! The second step of recognition: the body.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use alloc::vec::Vec;

use super::head::{OVERRIDE, value_of};
use super::{BODY_BYTES_MAX, Bypass, Bypassed, Encoded, Head, Neutral, Rules, Seen, clock};
use crate::config::{Place, Route};
use crate::json::{self, Document, Pointer, Scalar};
use crate::proof::Subject;
use crate::query::parameter;
use crate::sabotage::{self, Sabotage};

/// The value of an update of which only the session was seen; that of what is none is 0.
pub(crate) const SEEN_UPDATE: u128 = 1;

/// A recognised update: what the store needs to know of a request.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    /// What it says.
    pub said: Said,
    /// Where it has to go.
    pub destination: Encoded<'a>,
    /// What it takes along if it goes alone.
    pub neutral: Neutral<'a>,
    /// The body, byte for byte.
    pub body: &'a [u8],
    /// What it implies, as [`Rules::implied`] has it, for a route whose head was recognised before.
    pub(crate) implied: Option<(usize, u64)>,
}

/// What an update says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Index into [`crate::config::Config::routes`].
    pub route: usize,
    /// What the store calls the session: a keyed hash of the destination, the tenant by headers and by the rule's
    /// place, and the session's own name.
    pub session: u128,
    /// Keyed hash of all that it says, but for what is volatile.
    pub value: u128,
    /// Keyed hash of the value alone.
    pub word: u64,
    /// Hash of the names of its members.
    pub members: u64,
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
    /// Who sends it: a keyed hash of tenant, credential and identity headers; 0 for a caller without any.
    pub caller: u64,
    /// Keyed hash of cluster, authority and prefix.
    pub destination_hash: u64,
    /// What its acceptance proves something of.
    pub subject: Subject,
}

impl core::ops::Deref for Update<'_> {
    type Target = Said;

    #[inline]
    fn deref(&self) -> &Said {
        &self.said
    }
}

impl Said {
    /// What a request says of which only the session was seen: nothing that could be compared, but whether it is an
    /// update of its route at all.
    #[must_use]
    #[inline]
    pub fn of_seen(seen: &Seen, reason: Bypass, body: &[u8], rules: &Rules) -> Self {
        // What else may be wrong with a request that bypasses was not looked at.
        let is_update = reason == Bypass::Signature && rules.has_value(seen.route, body);
        let name = rules.route(seen.route).map_or("", |rule| &rule.name);
        Self {
            route: seen.route,
            session: seen.session,
            value: if is_update { SEEN_UPDATE } else { 0 },
            word: 0,
            members: 0,
            text: None,
            order: None,
            priority: false,
            no_dedup: true,
            voids: false,
            caller: seen.caller,
            destination_hash: seen.destination_hash,
            subject: Subject::new(seen.caller, seen.destination_hash, name),
        }
    }
}

/// A body once more, for the item that is made of it.
#[derive(Debug)]
pub struct Item<'a> {
    /// The session as JSON.
    pub session_json: String,
    /// Which keys the object has.
    pub document: Document<'a>,
}

// === impl Rules ===

impl Rules {
    /// Recognises an update by its body.
    ///
    /// # Errors
    /// The reason to pass the request through, and of whom it speaks where that can be seen.
    #[inline]
    pub fn update<'a>(&self, head: &'a Head, body: &'a [u8]) -> Result<Update<'a>, Bypassed> {
        Ok(Update {
            said: self.said(head, body)?,
            destination: Encoded(Cow::Owned(head.destination.encode())),
            neutral: Neutral::default(),
            body,
            implied: None,
        })
    }

    /// What a request says.
    #[inline]
    pub(super) fn said(&self, head: &Head, body: &[u8]) -> Result<Said, Bypassed> {
        if body.is_empty() {
            return Err(Bypass::Empty.into());
        }
        let too_large = (body.len() > BODY_BYTES_MAX).then_some(Bypass::TooLarge);
        if let Some(reason) = head.bypass.or(too_large) {
            return Err(self.glimpsed(head, body, reason));
        }
        let said = self.first_that_reads(head, body);
        said.map_err(|bypassed| match bypassed.reason {
            // PHP reads it, though otherwise than we do.
            reason @ (Bypass::DuplicateKey | Bypass::OddKey | Bypass::TooDeep) => {
                self.glimpsed(head, body, reason)
            }
            _ => bypassed,
        })
    }

    /// What the first of the rules makes of it that finds a session and a value; of the others the first one's
    /// reason, and of the first that finds one the session.
    #[inline]
    fn first_that_reads(&self, head: &Head, body: &[u8]) -> Result<Said, Bypassed> {
        let fitting = self.fitting(head, body)?;
        let mut bypassed: Option<Bypassed> = None;
        for (index, rule) in self.rules_of(fitting) {
            let why = match self.said_by(index, rule, head, body) {
                Err(why) if matches!(why.reason, Bypass::NoSession | Bypass::NoValue) => why,
                said => return said,
            };
            let first = bypassed.get_or_insert(why);
            first.seen = first.seen.or(why.seen);
        }
        Err(bypassed.unwrap_or(Bypass::Unmatched.into()))
    }

    fn said_by(
        &self,
        index: usize,
        rule: &Route,
        head: &Head,
        body: &[u8],
    ) -> Result<Said, Bypassed> {
        let wanted: Vec<&Pointer> = rule
            .session_pointers()
            .chain(&rule.value)
            .chain(&rule.order)
            .collect();
        let (tenants, unsaid) = (&rule.digested, &rule.unsaid);
        let document = json::read_rule(body, &wanted, tenants, tenants.len(), unsaid, self.key)?;

        let in_body = rule.session_pointers().count();
        let session = self
            .session(index, rule, head, &document, 0)
            .ok_or(Bypass::NoSession)?;
        let unread = |reason| Bypassed {
            reason,
            seen: Some(session),
        };
        if document.has_key(OVERRIDE) {
            return Err(unread(Bypass::Override));
        }
        let value = match first(&document, in_body, rule.value.len()) {
            Some(Scalar::Text(value)) => value,
            _ => return Err(unread(Bypass::NoValue)),
        };
        let order = first(
            &document,
            in_body.saturating_add(rule.value.len()),
            rule.order.len(),
        );
        let is_in = |values: &[String]| values.iter().any(|known| known == value);
        Ok(Said {
            route: index,
            session: session.session,
            // Compared with those of its own route only.
            value: document.says(),
            word: self.word_hash(value),
            members: document.members(),
            text: rule.is_shown.then(|| value.clone().into_owned()),
            order: order.and_then(Scalar::as_text).and_then(clock::read),
            priority: rule.priority.holds(value) && !sabotage::is(Sabotage::NothingIsUrgent),
            no_dedup: is_in(&rule.no_dedup),
            voids: rule
                .voids
                .as_ref()
                .is_some_and(|voids| is_in(&voids.values)),
            caller: session.caller,
            destination_hash: session.destination_hash,
            subject: Subject::new(session.caller, session.destination_hash, &rule.name),
        })
    }

    /// Which of the candidates the body fits, a bit each. Costs a walk of its own, and only where there is something
    /// to decide.
    fn fitting(&self, head: &Head, body: &[u8]) -> Result<u64, Bypassed> {
        let lone = self
            .route(head.route)
            .is_some_and(|rule| rule.fits.is_none());
        if lone && head.candidates.is_power_of_two() {
            return Ok(head.candidates);
        }
        let pointers = self.rules_of(head.candidates);
        let wanted: Vec<&Pointer> = pointers
            .filter_map(|(_, rule)| rule.fits.as_ref().map(|fits| &fits.pointer))
            .collect();
        let document = json::read(body, &wanted, &[], self.key)?;
        let mut at = 0_usize;
        let mut fitting = 0;
        for (index, rule) in self.rules_of(head.candidates) {
            let fits = rule.fits.is_none() || fits(rule, document.at(at));
            at = at.saturating_add(usize::from(rule.fits.is_some()));
            if fits {
                fitting |= 1_u64.checked_shl(index as u32).unwrap_or(0);
            }
        }
        Ok(fitting)
    }

    /// The rules whose bits are set, in their order.
    #[inline]
    fn rules_of(&self, bits: u64) -> impl Iterator<Item = (usize, &Route)> {
        let rules = self.config.routes.iter().enumerate();
        rules.filter(move |(index, _)| bits.checked_shr(*index as u32).unwrap_or(0) & 1 == 1)
    }

    /// What can be seen of a request that bypasses: whose session it is, by the first rule that fits and finds one in
    /// the body's first 64 KiB.
    #[inline]
    pub fn glimpsed(&self, head: &Head, body: &[u8], reason: Bypass) -> Bypassed {
        let start = body.get(..BODY_BYTES_MAX).unwrap_or(body);
        let seen = self.rules_of(head.candidates).find_map(|(index, rule)| {
            let condition = rule.fits.iter().map(|fits| &fits.pointer);
            let wanted: Vec<&Pointer> = condition.chain(rule.session_pointers()).collect();
            let tenants = rule.digested.len();
            let document = json::glimpse(start, &wanted, &rule.digested, tenants, self.key);
            let fits = rule.fits.is_none() || fits(rule, document.at(0));
            let at = usize::from(rule.fits.is_some());
            fits.then(|| self.session(index, rule, head, &document, at))?
        });
        Bypassed { reason, seen }
    }

    /// Whether a body says something of this rule, and asks for no other method.
    fn has_value(&self, route: usize, body: &[u8]) -> bool {
        let Some(rule) = self.route(route) else {
            return false;
        };
        let wanted: Vec<&Pointer> = rule.value.iter().collect();
        let read = json::read(body, &wanted, &[], self.key);
        read.is_ok_and(|document| {
            let value = first(&document, 0, wanted.len());
            matches!(value, Some(Scalar::Text(_))) && !document.has_key(OVERRIDE)
        })
    }

    /// The session: the first of the rule's places that says anything. Its pointers are at `start` in the document.
    fn session(
        &self,
        route: usize,
        rule: &Route,
        head: &Head,
        document: &Document<'_>,
        start: usize,
    ) -> Option<Seen> {
        let mut at = start;
        let session = rule.session.iter().find_map(|place| match place {
            Place::Body(_) => {
                let found = document.at(at).filter(|found| !found.is_blank());
                at = at.saturating_add(1);
                // A list, or a fraction, is there, and names nobody.
                found.map(|found| found.as_text().map(Cow::Borrowed))
            }
            place => elsewhere(place, head).map(Some),
        });
        let mut digests = document.digests().iter();
        let tenant = rule.tenant.iter().find_map(|place| match place {
            Place::Body(_) => *digests.next()?,
            place => elsewhere(place, head).map(|text| self.key.hash(&[text.as_bytes()])),
        });
        Some(Seen {
            route,
            session: self.session_hash(head.origin, tenant, &session??),
            caller: head.origin.caller,
            destination_hash: head.origin.destination_hash,
        })
    }

    /// Reads a stored body again, to make an item of it.
    #[must_use]
    #[inline]
    pub fn item<'a>(&self, route: usize, body: &'a [u8]) -> Option<Item<'a>> {
        let rule = self.route(route)?;
        let wanted: Vec<&Pointer> = rule.session_pointers().collect();
        let document = json::read(body, &wanted, &[], self.key).ok()?;
        let session_json = match first(&document, 0, wanted.len())? {
            Scalar::Text(text) => json::quoted(text),
            Scalar::Integer(digits) => digits.to_owned(),
            Scalar::Bool(_) | Scalar::Null | Scalar::Other => return None,
        };
        Some(Item {
            session_json,
            document,
        })
    }

    /// The body of the update that an item of `route` implies: what the gateway would have posted.
    #[must_use]
    #[inline]
    pub fn implied_body(&self, route: usize, body: &[u8]) -> Option<Vec<u8>> {
        let implies = self.route(route)?.implied()?;
        let session = self.item(route, body)?.session_json;
        let session_key = json::quoted(&implies.session_key);
        let key = json::quoted(&implies.key);
        let value = json::quoted(&implies.value);
        Some(alloc::format!("{{{session_key}:{session},{key}:{value}}}").into_bytes())
    }
}

/// Whether the value at a rule's own pointer is one of its own.
#[inline]
fn fits(rule: &Route, found: Option<&Scalar<'_>>) -> bool {
    match (&rule.fits, found) {
        (Some(fits), Some(Scalar::Text(found))) => fits.values.iter().any(|value| value == found),
        _ => false,
    }
}

/// What a place outside of the body says, if anything.
#[inline]
fn elsewhere<'p>(place: &'p Place, head: &'p Head) -> Option<Cow<'p, str>> {
    let found = match place {
        Place::Body(_) => None,
        Place::Segment => Some(Cow::Borrowed(head.segment.as_str())),
        Place::Query(name) => parameter(&head.destination.path, name).map(Cow::Owned),
        Place::Header(name) => value_of(&head.headers, name).map(Cow::Borrowed),
        Place::Constant(text) => Some(Cow::Borrowed(text.as_str())),
    };
    found.filter(|text| !text.is_empty())
}

/// The first of `count` pointers from `start` where something is; null and empty text are nothing.
#[inline]
fn first<'d, 'a>(document: &'d Document<'a>, start: usize, count: usize) -> Option<&'d Scalar<'a>> {
    let mut found = (start..start.saturating_add(count)).filter_map(|index| document.at(index));
    found.find(|found| !found.is_blank())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Destination;
    use crate::route::tests::rules;

    fn update(route: usize, body: &str) -> Result<Update<'_>, Bypassed> {
        let rules = rules("{}");
        // It lives as long as the test's process.
        let head = Box::leak(Box::new(rules.head_to(route, Destination::default())));
        rules.update(head, body.as_bytes())
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
        assert_eq!(
            plain.word,
            update(1, data).unwrap().word,
            "the state is the same"
        );
        let again = r#"{ "estado_qr":"\u0061ctive", "session_id":"s" }"#;
        assert_eq!(plain.value, update(1, again).unwrap().value);
    }

    #[test]
    fn what_the_rule_needs_and_is_not_there_passes_through() {
        let why = |route, body| update(route, body).err().map(|why| why.reason);
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
        let body = rules(r#"{"assume":{"implies":true}}"#)
            .implied_body(0, br#"{"sessionId":"s\"1","qr":"x"}"#)
            .unwrap();
        assert_eq!(body, br#"{"session_id":"s\"1","estado_qr":"pending"}"#);
    }
}
