//! From JSON to [`Config`]: the defaults, and every check.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use serde_json::{Map, Value};

use super::fields::{Fields, problem};
use super::{
    BackoffRange, Batch, Config, Credentials, Dedup, Implies, Pace, Problem, Route,
    SESSIONS_PER_SHARD, Times, Trust, Upstream, Voids,
};
use crate::json::Pointer;

/// The rules that need no configuration: the gateway and the Laravel that exist.
const LARAVEL: &str = include_str!("laravel.json");

/// An hour. No timer of Embudo's makes sense beyond it.
const TIMER_MAX_MS: u64 = 3_600_000;

pub(super) fn config(json: &[u8]) -> Result<Config, Vec<Problem>> {
    let value = match json {
        [] => Value::Object(Map::new()),
        json => serde_json::from_slice(json)
            .map_err(|error| vec![problem("", format!("not valid JSON: {error}"))])?,
    };
    let mut problems = Vec::new();
    let mut fields = Fields::of(String::new(), value, &mut problems);

    let max_sessions = fields.whole("max_sessions", 16_384, 1..=1_048_576);
    let pace = Pace {
        max_requests_per_second: fields.whole("max_requests_per_second", 20, 1..=1_000),
        // The cluster's circuit breakers in envoy.yaml allow 16, and during a listener update the older
        // dispatcher's last calls count there too.
        max_in_flight: fields.whole("max_in_flight", 4, 1..=12),
    };
    let times = Times {
        call_timeout_ms: fields.whole("call_timeout_ms", 15_000, 100..=300_000),
        send_window_ms: fields.whole("send_window_ms", 1_000, 100..=10_000),
        late_ms: fields.whole("late_ms", 15_000, 0..=TIMER_MAX_MS),
        lease_ms: fields.whole("lease_ms", 3_000, 1_000..=60_000),
    };
    let backoff = BackoffRange {
        min_ms: fields.whole("backoff_min_ms", 500, 1..=TIMER_MAX_MS),
        max_ms: fields.whole("backoff_max_ms", 30_000, 1..=TIMER_MAX_MS),
    };
    if backoff.min_ms > backoff.max_ms {
        fields.report("backoff_min_ms", "must not be more than backoff_max_ms");
    }
    let dedup = Dedup {
        ttl_ms: fields.whole("dedup_ttl_ms", 300_000, 1..=TIMER_MAX_MS),
        max_age_ms: fields.whole("max_age_ms", 600_000, 1..=24 * TIMER_MAX_MS),
    };
    let priority_gap_ms = fields.whole("priority_gap_ms", 1_000, 0..=60_000);
    let answer_status = fields.whole("answer_status", 200, 200..=299);
    let bypass_header = header_name(&mut fields, "bypass_header", "x-embudo-bypass");
    let credentials = credentials(fields.object("credentials"));
    let upstream = upstream(fields.object("upstream"));
    let prefixes = prefixes(&mut fields);
    let overrides = fields.array("routes").unwrap_or_default();
    #[cfg(feature = "sabotage")]
    if let Some(name) = fields.text("sabotage")
        && !crate::sabotage::choose(&name)
    {
        fields.report("sabotage", "there is none of this name");
    }
    fields.end();
    let routes = routes(overrides, &mut problems);

    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Config {
        shards: u32::try_from(max_sessions.div_ceil(SESSIONS_PER_SHARD)).unwrap_or(u32::MAX),
        pace,
        times,
        backoff,
        dedup,
        priority_gap_ms,
        answer_status: u16::try_from(answer_status).unwrap_or(200),
        bypass_header,
        credentials,
        upstream,
        prefixes,
        routes,
    })
}

/// A header name: lower case, as HTTP/2 and Envoy have it.
fn header_name(fields: &mut Fields<'_>, name: &'static str, default: &str) -> String {
    let text = fields.text(name).unwrap_or_else(|| default.to_owned());
    if let Err(message) = check_header_name(&text) {
        fields.report(name, message);
    }
    text
}

fn check_header_name(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    if text.is_empty() || !text.chars().all(fits) {
        return Err(format!("\"{text}\" is not a header name in lower case"));
    }
    // The router obeys these; a caller's copy in a call of ours would steer it.
    if text.starts_with("x-envoy-") {
        return Err("x-envoy-* headers steer Envoy's router and cannot be used here".to_owned());
    }
    Ok(())
}

fn credentials(mut fields: Fields<'_>) -> Credentials {
    let headers = fields.texts("headers").unwrap_or_else(|| {
        ["authorization", "x-api-key", "apikey", "cookie"]
            .map(ToOwned::to_owned)
            .to_vec()
    });
    for (index, header) in headers.iter().enumerate() {
        if let Err(message) = check_header_name(header) {
            fields.report(&format!("headers/{index}"), message);
        }
    }
    let trust = match fields.text("trust").as_deref() {
        None | Some("never") => Trust::Never,
        Some("always") => Trust::Always,
        Some(_) => {
            fields.report("trust", "expected \"never\" or \"always\"");
            Trust::Never
        }
    };
    fields.end();
    Credentials { headers, trust }
}

fn upstream(mut fields: Fields<'_>) -> Upstream {
    let cluster = fields
        .text("cluster")
        .unwrap_or_else(|| "laravel_batch".to_owned());
    let authority = fields.text("authority");
    let prefix_rewrite = fields.text("prefix_rewrite");
    if let Some(prefix) = &prefix_rewrite
        && !is_prefix(prefix)
    {
        fields.report("prefix_rewrite", PREFIX_FORM);
    }
    let headers = fields.pairs("headers");
    for (name, value) in &headers {
        if let Err(message) = check_header_name(name) {
            fields.report("headers", message);
        }
        if value.chars().any(char::is_control) {
            fields.report(
                "headers",
                format!("the value of {name} has a control character"),
            );
        }
    }
    fields.end();
    Upstream {
        cluster,
        authority,
        prefix_rewrite,
        headers,
    }
}

const PREFIX_FORM: &str = "a prefix starts with '/' and does not end with one, as in \"/api\"";

fn is_prefix(text: &str) -> bool {
    is_path(text) && !text.ends_with('/')
}

fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text
            .chars()
            .all(|c| c.is_ascii_graphic() && c != '?' && c != '#')
}

fn prefixes(fields: &mut Fields<'_>) -> Vec<String> {
    let Some(prefixes) = fields.texts("prefixes") else {
        return vec![String::new(), "/api".to_owned()];
    };
    for (index, prefix) in prefixes.iter().enumerate() {
        if !prefix.is_empty() && !is_prefix(prefix) {
            fields.report(&format!("prefixes/{index}"), PREFIX_FORM);
        }
    }
    if prefixes.is_empty() {
        fields.report("prefixes", "must not be empty; [\"\"] means no prefix");
    }
    prefixes
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
fn routes(overrides: Vec<Value>, problems: &mut Vec<Problem>) -> Vec<Route> {
    let mut merged: Vec<(String, Value)> = match serde_json::from_str(LARAVEL) {
        Ok(Value::Array(rules)) => rules
            .into_iter()
            .map(|rule| ("/routes".to_owned(), rule))
            .collect(),
        _ => Vec::new(),
    };
    for (index, entry) in overrides.into_iter().enumerate() {
        let pointer = format!("/routes/{index}");
        let name = entry
            .get("name")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        let base = merged.iter_mut().find(|(_, rule)| {
            name.is_some() && rule.get("name").and_then(Value::as_str) == name.as_deref()
        });
        match base {
            Some((place, rule)) => {
                *place = pointer;
                lay_over(rule, entry);
            }
            None => merged.push((pointer, entry)),
        }
    }
    let drafts: Vec<Draft> = merged
        .into_iter()
        .filter_map(|(pointer, rule)| draft(Fields::of(pointer, rule, problems)))
        .collect();
    if !problems.is_empty() {
        // A rule that could not be read would be missed by those that name it.
        return Vec::new();
    }
    link(drafts, problems)
}

/// Objects merge, everything else is replaced.
fn lay_over(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

fn draft(mut fields: Fields<'_>) -> Option<Draft> {
    let name = fields.needed("name");
    if let Some(name) = &name
        && !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    {
        fields.report(
            "name",
            "a route's name is a label in metrics: letters, digits and '_' only",
        );
    }
    let method = fields.text("method").unwrap_or_else(|| "POST".to_owned());
    let path = path(&mut fields, "path");
    let session = pointers(&mut fields, "session", true);
    let value = pointers(&mut fields, "value", true);
    let same = pointers(&mut fields, "same", false);
    let priority = fields.texts("priority").unwrap_or_default();
    let not_priority_after = fields.texts("not_priority_after").unwrap_or_default();
    let no_dedup = fields.texts("no_dedup").unwrap_or_default();
    let implies = fields.has("implies").then(|| {
        let mut implies = fields.object("implies");
        let pair = (implies.text("route"), implies.text("value"));
        if pair.0.is_none() || pair.1.is_none() {
            implies.report("", "needs \"route\" and \"value\"");
        }
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
    let batch = batch(fields.object("batch"));
    let pointer = fields.pointer.clone();
    fields.end();
    Some(Draft {
        route: Route {
            name: name?,
            method,
            path: path?,
            session,
            value,
            same,
            priority,
            not_priority_after,
            no_dedup,
            implies: None,
            implied_by: None,
            voids: (!void_values.is_empty()).then_some(Voids {
                values: void_values,
                routes: Vec::new(),
            }),
            expire_after_ms,
            batch: batch?,
        },
        pointer,
        implies,
        voids: void_routes,
    })
}

fn path(fields: &mut Fields<'_>, name: &'static str) -> Option<String> {
    let path = fields.needed(name)?;
    if !is_path(&path) {
        fields.report(
            name,
            "a path starts with '/' and has no query string, as in \"/qr\"",
        );
    }
    Some(path)
}

fn pointers(fields: &mut Fields<'_>, name: &'static str, needed: bool) -> Vec<Pointer> {
    let texts = fields.texts(name).unwrap_or_default();
    if needed && texts.is_empty() {
        fields.report(
            name,
            "needs at least one JSON pointer, as in [\"/session_id\"]",
        );
    }
    let mut pointers = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match Pointer::parse(text) {
            Ok(pointer) => pointers.push(pointer),
            Err(message) => fields.report(&format!("{name}/{index}"), message),
        }
    }
    pointers
}

fn batch(mut fields: Fields<'_>) -> Option<Batch> {
    let path = path(&mut fields, "path");
    let field = fields.needed("field");
    let batch = Batch {
        path: path.clone().unwrap_or_default(),
        field: field.clone().unwrap_or_default(),
        max_items: usize::try_from(fields.whole("max_items", 50, 1..=1_000)).unwrap_or(50),
        // PHP's post_max_size is 8 MiB.
        max_bytes: usize::try_from(fields.whole("max_bytes", 524_288, 1_024..=8_388_608))
            .unwrap_or(524_288),
        max_wait_ms: fields.whole("max_wait_ms", 5_000, 0..=TIMER_MAX_MS),
        quiet_ms: fields.whole("quiet_ms", 250, 0..=TIMER_MAX_MS),
    };
    fields.end();
    (path.is_some() && field.is_some()).then_some(batch)
}

/// Resolves the names of routes within routes.
fn link(drafts: Vec<Draft>, problems: &mut Vec<Problem>) -> Vec<Route> {
    let names: Vec<String> = drafts
        .iter()
        .map(|draft| draft.route.name.clone())
        .collect();
    let find = |name: &str| names.iter().position(|known| known == name);
    let keys: Vec<(Option<String>, Option<String>)> = drafts
        .iter()
        .map(|draft| {
            let key = |pointers: &[Pointer]| {
                pointers
                    .first()
                    .and_then(Pointer::top_level_key)
                    .map(ToString::to_string)
            };
            (key(&draft.route.session), key(&draft.route.value))
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
        if find(&route.name) != Some(index) {
            let message = format!("another route is called \"{}\" already", route.name);
            problems.push(problem(&format!("{pointer}/name"), message));
        }
        if let Some((target, value)) = implies {
            match find(&target) {
                Some(target) if target != index => {
                    let (session_key, key) = keys.get(target).cloned().unwrap_or_default();
                    match (session_key, key) {
                        (Some(session_key), Some(key)) => {
                            route.implies = Some(Implies {
                                route: target,
                                value,
                                key,
                                session_key,
                            });
                        }
                        _ => problems.push(problem(
                            &format!("{pointer}/implies/route"),
                            "the first session and value pointers of an implied route must name \
                             members of the body itself, as in \"/session_id\"",
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
        for target in voids {
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
