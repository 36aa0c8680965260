//! Requests that wait for what is on its way of their session.

use alloc::format;
use alloc::vec::Vec;

use super::fields::{Fields, problem};
use super::rules::{method, pattern};
use super::{Barrier, Problem, Read, Route};
use crate::json::Value;

/// Most of them: each is compared with every request of another path.
const BARRIERS_MAX: usize = 32;

pub(super) fn barriers(
    all: Vec<Value>,
    routes: &[Route],
    reads: &[Read],
    problems: &mut Vec<Problem>,
) -> Vec<Barrier> {
    if all.len() > BARRIERS_MAX {
        let message = format!("at most {BARRIERS_MAX}, found {}", all.len());
        problems.push(problem("/barriers", message));
    }
    let mut barriers = Vec::new();
    for (index, value) in all.into_iter().enumerate() {
        let mut fields = Fields::of(format!("/barriers/{index}"), value, problems);
        if !fields.has("method") && !fields.is_broken() {
            fields.report("method", "is needed");
        }
        let method = method(&mut fields);
        let path = pattern(&mut fields, None);
        if path.as_ref().is_some_and(|path| !path.has_session()) {
            fields.report("path", "a barrier needs the segment \"{session}\"");
        }
        let forgets = fields.flag("forgets", false);
        let is_taken = path.as_ref().is_some_and(|path| {
            routes
                .iter()
                .any(|route| route.method == method && route.path == *path)
                || method == "GET" && reads.iter().any(|read| read.path == *path)
        });
        if is_taken {
            fields.report(
                "path",
                "is a route's or a read's own, which keeps its order by itself",
            );
        }
        fields.end();
        if let Some(path) = path {
            barriers.push(Barrier {
                method,
                path,
                forgets,
            });
        }
    }
    barriers
}
