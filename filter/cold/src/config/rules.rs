//! The rules: built-in ones with the operator's laid over them.

mod places;
mod split;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use self::places::{fits, places, pointers};
use self::split::SplitDraft;
use super::fields::{Fields, problem};
use super::parse::{TIMER_MAX_MS, is_path};
use super::{
    Ack, Assume, Batch, BatchCall, Implies, Path, Place, Priority, Problem, ROUTES_MAX, Read,
    Route, Split, Voids, pointers as pointers_in,
};
use crate::json::{Pointer, Value};

pub(super) const PATH_FORM: &str = "a path starts with '/' and has no query string, as in \"/qr\"";

const PATTERN_FORM: &str = "a path starts with '/', has no query string and at most one segment \
                            \"{session}\", as in \"/whatsapp/status/{session}\"";

/// A list from before whole bodies were compared.
const SAME_GONE: &str =
    "is no key any more: all of a body is compared but what \"volatile\" and \"order\" name";

/// Longest name, bytes: it stands in each of its items in the store, and in the names of its metrics.
const NAME_MAX: usize = 64;

/// For gateways that post all their events to one URL.
pub(super) struct Webhooks {
    /// The path of rules that name none.
    pub(super) path: String,
    /// Rules without a batch get one: `<path>/batch`, the bodies as they are.
    pub(super) batch: bool,
}

/// What a route names before the other routes are known.
struct Draft {
    route: Route,
    pointer: String,
    implies: Option<(String, String)>,
    voids: Vec<String>,
}

/// The built-in rules with `overrides` laid over them: an entry with a built-in's name changes the
/// fields it gives, any other is a rule of its own, tried after the built-in ones.
pub(super) fn routes(
    built_in: Vec<Value>,
    overrides: Vec<Value>,
    webhooks: &Webhooks,
    assume: &Assume,
    problems: &mut Vec<Problem>,
) -> (Vec<Route>, Vec<Split>) {
    let mut off = Vec::new();
    let before = problems.len();
    let (mut drafts, mut splits) = (Vec::new(), Vec::new());
    for (pointer, rule) in merged("/routes", built_in, overrides) {
        let is_own = pointer.len() > "/routes".len();
        let is_batch = rule.get("split").is_some();
        let fields = Fields::of(pointer, rule, problems);
        match is_batch {
            true => splits.extend(split::draft(fields, is_own)),
            false => drafts.extend(draft(fields, webhooks, &mut off)),
        }
    }
    // The rules of a preset that names the session by its path all miss the same segment.
    problems.dedup();
    if drafts.len() > ROUTES_MAX {
        let message = format!("at most {ROUTES_MAX} rules, found {}", drafts.len());
        problems.push(problem("/routes", message));
    }
    unique(&drafts, &splits, problems);
    if problems.len() > before {
        // A rule that could not be read would be missed by those that name it.
        return (Vec::new(), Vec::new());
    }
    reachable(&drafts, problems);
    let routes = link(drafts, &off, assume, problems);
    let splits = split::link(splits, &routes, problems);
    (routes, splits)
}

/// The reads, and which routes they show.
pub(super) fn reads(
    built_in: Vec<Value>,
    overrides: Vec<Value>,
    routes: &mut [Route],
    problems: &mut Vec<Problem>,
) -> Vec<Read> {
    let mut reads: Vec<Read> = Vec::new();
    for (pointer, rule) in merged("/reads", built_in, overrides) {
        let own = pointer.len() > "/reads".len();
        let mut fields = Fields::of(pointer, rule, problems);
        let enabled = fields.flag("enabled", true);
        let name = name(&mut fields);
        let path = pattern(&mut fields, None);
        if path.as_ref().is_some_and(|path| !path.has_session()) {
            fields.report("path", "a read needs the segment \"{session}\"");
        }
        let state = fields.needed("state");
        let value = pointers(&mut fields, "value", true);
        if let Some(name) = &name
            && reads.iter().any(|read| read.name == *name)
        {
            fields.report("name", format!("another read is called \"{name}\" already"));
        }
        let target = state.as_ref().and_then(|state| {
            let known = routes.iter().position(|route| route.name == *state);
            // Where the routes could not be read there is nothing to compare with, and a built-in read of a
            // route that was turned off goes with it.
            if known.is_none() && enabled && own && !routes.is_empty() {
                fields.report("state", format!("no route is called \"{state}\""));
            }
            known
        });
        fields.end();
        if let (true, Some(name), Some(path), Some(state)) = (enabled, name, path, target) {
            if let Some(route) = routes.get_mut(state) {
                route.is_shown = true;
            }
            reads.push(Read {
                name,
                path,
                state,
                value,
            });
        }
    }
    reads
}

/// `overrides` laid over `built_in` by name, each with its pointer.
fn merged(list: &str, built_in: Vec<Value>, overrides: Vec<Value>) -> Vec<(String, Value)> {
    let mut merged: Vec<(String, Value)> = built_in
        .into_iter()
        .map(|rule| (list.to_owned(), rule))
        .collect();
    for (index, entry) in overrides.into_iter().enumerate() {
        let pointer = format!("{list}/{index}");
        let name = entry
            .get("name")
            .and_then(Value::as_text)
            .map(ToOwned::to_owned);
        // Only what is built in: two of the operator's own with one name are a mistake, and told.
        let base = merged.iter_mut().find(|(place, rule)| {
            place == list
                && name.is_some()
                && rule.get("name").and_then(Value::as_text) == name.as_deref()
        });
        match base {
            Some((place, rule)) => {
                *place = pointer;
                lay_over(rule, entry);
            }
            None => merged.push((pointer, entry)),
        }
    }
    merged
}

/// Objects merge, everything else is replaced.
fn lay_over(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over.into_members() {
                match base.get_mut(&key) {
                    Some(base) => lay_over(base, value),
                    None => base.put(key, value),
                }
            }
        }
        (base, over) => *base = over,
    }
}

fn name(fields: &mut Fields<'_>) -> Option<String> {
    let name = fields.needed("name");
    if let Some(name) = &name
        && !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    {
        fields.report(
            "name",
            "a name is a label in metrics: letters, digits and '_' only",
        );
    }
    let bytes = name.as_ref().map_or(0, String::len);
    if bytes > NAME_MAX {
        fields.report(
            "name",
            format!("a name has at most {NAME_MAX} bytes, found {bytes}"),
        );
    }
    name
}

/// Of its own: where all of this is one function, a local of it takes two bytes to name.
#[inline(never)]
fn draft(mut fields: Fields<'_>, webhooks: &Webhooks, off: &mut Vec<String>) -> Option<Draft> {
    let enabled = fields.flag("enabled", true);
    let name = name(&mut fields);
    let method = method(&mut fields);
    let path = pattern(&mut fields, Some(&webhooks.path));
    let fits = fits(&mut fields);
    let session = places(&mut fields, "session", path.as_ref());
    let tenant = places(&mut fields, "tenant", path.as_ref());
    let value = pointers(&mut fields, "value", true);
    fields.gone("same", SAME_GONE);
    let order = pointers(&mut fields, "order", false);
    let volatile = pointers(&mut fields, "volatile", false);
    let priority = match fields.get("priority") {
        Some(Value::Text(text)) if text == "always" => {
            fields.text("priority");
            Priority::Always
        }
        Some(Value::Text(_)) => {
            fields.text("priority");
            fields.report("priority", "expected a list of values, or \"always\"");
            Priority::Always
        }
        _ => Priority::Values(fields.texts("priority").unwrap_or_default()),
    };
    let not_priority_after = fields.texts("not_priority_after").unwrap_or_default();
    let priority_after = fields.texts("priority_after").unwrap_or_default();
    for (index, value) in priority_after.iter().enumerate() {
        if not_priority_after.contains(value) {
            let message = format!("\"{value}\" is in \"not_priority_after\", too");
            fields.report(&format!("priority_after/{index}"), message);
        }
    }
    let no_dedup = fields.texts("no_dedup").unwrap_or_default();
    let family = fields.text("family");
    let ack = match fields.text("ack").as_deref() {
        None | Some("accept") => Ack::Accept,
        Some("delivered") => Ack::Delivered,
        Some(_) => {
            fields.report("ack", "expected \"accept\" or \"delivered\"");
            Ack::Accept
        }
    };
    let implies = fields.has("implies").then(|| {
        let mut implies = fields.object("implies");
        let pair = (implies.needed("route"), implies.needed("value"));
        implies.end();
        (pair.0.unwrap_or_default(), pair.1.unwrap_or_default())
    });
    let mut void_values = Vec::new();
    let mut void_routes = Vec::new();
    if fields.has("voids") {
        let mut voids = fields.object("voids");
        void_values = voids.texts("values").unwrap_or_default();
        void_routes = voids.texts("routes").unwrap_or_default();
        voids.end();
    }
    let expire_after_ms = match fields.whole("expire_after_ms", 0, 0..=TIMER_MAX_MS) {
        0 => None,
        ms => Some(ms),
    };
    // What expires is a QR.
    let max_wait_ms = expire_after_ms.map_or(2_000, |_| 1_000);
    let mut batch = batch(fields.object("batch"), max_wait_ms);
    if let (Some(batch), Some(path)) = (&mut batch, &path)
        && webhooks.batch
        && batch.call.is_none()
        && !path.has_session()
    {
        batch.call = Some(BatchCall {
            path: format!("{path}/batch"),
            field: "events".to_owned(),
            verbatim: true,
        });
    }
    // A tenant that a header names rides along: a batch is of one destination, headers and all.
    let elsewhere = session.iter().any(|place| !matches!(place, Place::Body(_)))
        || tenant
            .iter()
            .any(|place| matches!(place, Place::Segment | Place::Query(_)));
    if elsewhere && batch.as_ref().is_some_and(|batch| batch.call.is_some()) {
        fields.report(
            "batch",
            "items of a batch are bodies, and this rule's session may come from elsewhere",
        );
    }
    let pointer = fields.pointer.clone();
    fields.end();
    if !enabled {
        off.extend(name);
        return None;
    }
    Some(Draft {
        route: Route {
            name: name?,
            method,
            path: path?,
            fits,
            digested: pointers_in(&tenant).cloned().collect(),
            session,
            tenant,
            value,
            unsaid: volatile.iter().chain(&order).cloned().collect(),
            order,
            volatile,
            priority,
            not_priority_after,
            priority_after,
            no_dedup,
            family,
            implies: None,
            implied_by: None,
            voids: (!void_values.is_empty()).then_some(Voids {
                values: void_values,
                routes: Vec::new(),
            }),
            expire_after_ms,
            is_shown: false,
            ack,
            batch: batch?,
        },
        pointer,
        implies,
        voids: void_routes,
    })
}

pub(super) fn method(fields: &mut Fields<'_>) -> String {
    let method = fields.text("method").unwrap_or_else(|| "POST".to_owned());
    if method.bytes().any(|byte| !byte.is_ascii_uppercase()) {
        fields.report("method", "a method is in upper case, as in \"POST\"");
    }
    method
}

/// A path that may have a `{session}` segment.
pub(super) fn pattern(fields: &mut Fields<'_>, default: Option<&str>) -> Option<Path> {
    let text = match default {
        Some(default) => fields.text("path").or_else(|| Some(default.to_owned())),
        None => fields.needed("path"),
    }?;
    let path = Path::parse(&text).filter(|_| is_path(&text));
    if path.is_none() {
        fields.report("path", PATTERN_FORM);
    }
    path
}

fn batch(mut fields: Fields<'_>, max_wait_ms: u64) -> Option<Batch> {
    let wanted = fields.is_broken() || fields.has("path") || fields.has("field");
    let (path, field) = match wanted {
        true => (fields.needed("path"), fields.needed("field")),
        false => (None, None),
    };
    if path.as_deref().is_some_and(|path| !is_path(path)) {
        fields.report("path", PATH_FORM);
    }
    let verbatim = fields.flag("verbatim", false);
    let call = match (path, field) {
        (Some(path), Some(field)) => Some(BatchCall {
            path,
            field,
            verbatim,
        }),
        _ => None,
    };
    let complete = !wanted || call.is_some();
    let batch = Batch {
        call,
        max_items: usize::try_from(fields.whole("max_items", 50, 1..=1_000)).unwrap_or(50),
        // PHP's post_max_size is 8 MiB.
        max_bytes: usize::try_from(fields.whole("max_bytes", 524_288, 1_024..=8_388_608))
            .unwrap_or(524_288),
        max_wait_ms: fields.whole("max_wait_ms", max_wait_ms, 0..=TIMER_MAX_MS),
        quiet_ms: fields.whole("quiet_ms", 250, 0..=TIMER_MAX_MS),
    };
    fields.end();
    complete.then_some(batch)
}

/// Two rules of one name would share their entries in the store.
fn unique(drafts: &[Draft], splits: &[SplitDraft], problems: &mut Vec<Problem>) {
    let drafts = drafts
        .iter()
        .map(|draft| (&draft.route.name, &draft.pointer));
    let splits = splits.iter().map(|split| (&split.name, &split.pointer));
    let mut known: Vec<&String> = Vec::new();
    for (name, pointer) in drafts.chain(splits) {
        if known.contains(&name) {
            let message = format!("another route is called \"{name}\" already");
            problems.push(problem(&format!("{pointer}/name"), message));
        }
        known.push(name);
    }
}

/// A rule behind one that takes every body of the same path, and finds whatever this one would, would never be tried.
fn reachable(drafts: &[Draft], problems: &mut Vec<Problem>) {
    for (index, draft) in drafts.iter().enumerate() {
        let covers = |earlier: &&Draft| {
            let (earlier, rule) = (&earlier.route, &draft.route);
            earlier.fits.is_none()
                && earlier.method == rule.method
                && earlier.path == rule.path
                && rule
                    .session
                    .iter()
                    .all(|place| earlier.session.contains(place))
                && rule.value.iter().all(|place| earlier.value.contains(place))
        };
        if let Some(earlier) = drafts.iter().take(index).find(covers) {
            let message = format!(
                "is never tried: \"{}\" has the same method and path, takes every body, and looks in the \
                 same places; give it a \"match\"",
                earlier.route.name
            );
            problems.push(problem(&draft.pointer, message));
        }
    }
}

/// Resolves the names of routes within routes.
#[inline(never)]
fn link(
    drafts: Vec<Draft>,
    off: &[String],
    assume: &Assume,
    problems: &mut Vec<Problem>,
) -> Vec<Route> {
    let names: Vec<String> = drafts
        .iter()
        .map(|draft| draft.route.name.clone())
        .collect();
    let find = |name: &str| names.iter().position(|known| known == name);
    let keys: Vec<(Option<String>, Option<String>)> = drafts
        .iter()
        .map(|draft| {
            let key = |pointer: Option<&Pointer>| {
                pointer
                    .and_then(Pointer::top_level_key)
                    .map(ToString::to_string)
            };
            let session = draft.route.session_pointers().next();
            // What is implied is posted by us one day, so its path must be known.
            let session = session.filter(|_| !draft.route.path.has_session());
            (key(session), key(draft.route.value.first()))
        })
        .collect();

    let mut routes = Vec::with_capacity(drafts.len());
    let mut implied_by: Vec<Option<usize>> = names.iter().map(|_| None).collect();
    for (
        index,
        Draft {
            mut route,
            pointer,
            implies,
            voids,
        },
    ) in drafts.into_iter().enumerate()
    {
        if let Some((target, value)) = implies.filter(|(target, _)| !off.contains(target)) {
            match find(&target) {
                Some(target) if target != index => {
                    let (session_key, key) = keys.get(target).cloned().unwrap_or_default();
                    match (session_key, key) {
                        (Some(session_key), Some(key)) => {
                            route.implies = Some(Implies {
                                is_assumed: assume.implies,
                                route: target,
                                value,
                                key,
                                session_key,
                            });
                        }
                        _ => problems.push(problem(
                            &format!("{pointer}/implies/route"),
                            "the first session and value pointers of an implied route must name \
                             members of the body itself, as in \"/session_id\", and its path must be \
                             fixed",
                        )),
                    }
                    if let Some(slot) = implied_by.get_mut(target)
                        && slot.replace(index).is_some()
                    {
                        let message = "two routes cannot imply the same one";
                        problems.push(problem(&format!("{pointer}/implies/route"), message));
                    }
                }
                _ => problems.push(problem(
                    &format!("{pointer}/implies/route"),
                    format!("no other route is called \"{target}\""),
                )),
            }
        }
        for target in voids.into_iter().filter(|target| !off.contains(target)) {
            match (find(&target), &mut route.voids) {
                (Some(target), Some(voids)) if target != index => voids.routes.push(target),
                _ => problems.push(problem(
                    &format!("{pointer}/voids/routes"),
                    format!("no other route is called \"{target}\", or \"values\" is empty"),
                )),
            }
        }
        routes.push(route);
    }
    for (route, by) in routes.iter_mut().zip(implied_by) {
        route.implied_by = by;
    }
    routes
}
