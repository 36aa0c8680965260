//! Rules whose requests are batches of the gateway's own.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{name, pattern};
use crate::config::fields::{Fields, problem};
use crate::config::{Place, Problem, Route, Split};
use crate::json::Pointer;

/// One of them, before the route that it names is known.
pub(super) struct SplitDraft {
    pub(super) pointer: String,
    pub(super) name: String,
    /// The operator's own, or a built-in one.
    is_own: bool,
    method: String,
    path: String,
    at: Pointer,
    target: String,
}

pub(super) fn draft(mut fields: Fields<'_>, is_own: bool) -> Option<SplitDraft> {
    let enabled = fields.flag("enabled", true);
    let name = name(&mut fields);
    let method = super::method(&mut fields);
    let path = pattern(&mut fields, None);
    if path.as_ref().is_some_and(|path| path.has_session()) {
        fields.report(
            "path",
            "a batch is of many sessions: its path has no segment \"{session}\"",
        );
    }
    let mut split = fields.object("split");
    let (at, target) = (split.needed("at"), split.needed("as"));
    let at = at.and_then(|text| match Pointer::parse(&text) {
        Ok(pointer) => Some(pointer),
        Err(message) => {
            split.report("at", message);
            None
        }
    });
    split.end();
    let pointer = fields.pointer.clone();
    fields.end();
    let draft = SplitDraft {
        pointer,
        name: name?,
        is_own,
        method,
        path: path?.fixed().into(),
        at: at?,
        target: target?,
    };
    enabled.then_some(draft)
}

/// Resolves their routes. A built-in one whose route was turned off, or is none that a batch can be of, goes with it.
pub(super) fn link(
    drafts: Vec<SplitDraft>,
    routes: &[Route],
    problems: &mut Vec<Problem>,
) -> Vec<Split> {
    let mut splits: Vec<Split> = Vec::new();
    for draft in drafts {
        let is_its = |route: &Route| {
            route.method == draft.method && route.path.fit(draft.path.as_bytes()).is_some()
        };
        let is_known = |split: &Split| split.method == draft.method && split.path == draft.path;
        let target = routes.iter().position(|route| route.name == draft.target);
        let wrong = match target.and_then(|target| routes.get(target)) {
            None => Some((
                "/split/as",
                format!("no route is called \"{}\"", draft.target),
            )),
            Some(route) if !is_of_bodies(route) => Some((
                "/split/as",
                "items of a batch are bodies, and that route's session may come from elsewhere"
                    .into(),
            )),
            Some(_) if routes.iter().any(is_its) || splits.iter().any(is_known) => Some((
                "/path",
                "is never tried: a route has the same method and path".into(),
            )),
            Some(_) => None,
        };
        match (wrong, target) {
            (Some((at, message)), _) => {
                if draft.is_own {
                    problems.push(problem(&format!("{}{at}", draft.pointer), message));
                }
            }
            (None, Some(target)) => splits.push(Split {
                name: draft.name,
                method: draft.method,
                path: draft.path,
                at: draft.at,
                route: target,
            }),
            (None, None) => {}
        }
    }
    splits
}

/// Whether its items could have come as the bodies of requests of its own.
fn is_of_bodies(route: &Route) -> bool {
    let is_body = |place: &Place| matches!(place, Place::Body(_));
    let is_elsewhere = |place: &Place| matches!(place, Place::Segment | Place::Query(_));
    !route.path.has_session()
        && route.session.iter().all(is_body)
        && !route.tenant.iter().any(is_elsewhere)
}
