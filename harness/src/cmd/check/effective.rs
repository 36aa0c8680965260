//! A configuration as it is in force: everything that was given, and every default.

use embudo_core::config::{Ack, Config, Place, Priority, Route};
use embudo_core::json::Pointer;
use serde_json::{Map, Value, json};

/// What stands for a value that may be a secret.
const HIDDEN: &str = "…";

/// As JSON, with the keys of the configuration itself. Values of `upstream.headers` may be secrets, and are
/// not shown.
pub(super) fn json(config: &Config) -> Value {
    let routes = config.routes.iter().map(|rule| route(config, rule));
    let splits = config.splits.iter().map(|split| {
        json!({
            "name": split.name,
            "method": split.method,
            "path": split.path,
            "split": {"at": pointer(&split.at), "as": name(config, split.route)},
        })
    });
    let routes: Vec<Value> = routes.chain(splits).collect();
    let barriers = config.barriers.iter().map(|barrier| {
        json!({
            "method": barrier.method,
            "path": barrier.path.to_string(),
            "forgets": barrier.forgets,
        })
    });
    let barriers: Vec<Value> = barriers.collect();
    let reads = config.reads.iter().map(|read| {
        json!({
            "name": read.name,
            "path": read.path.to_string(),
            "state": name(config, read.state),
            "value": pointers(&read.value),
        })
    });
    let headers = hidden(&config.upstream.headers);
    let mut json = json!({
        "max_sessions": u64::from(config.shards) * 8,
        "max_requests_per_second": config.pace.max_requests_per_second,
        "max_in_flight": config.pace.max_in_flight,
        "max_singles_per_second": config.pace.max_singles_per_second,
        "call_timeout_ms": config.times.call_timeout_ms,
        "send_window_ms": config.times.send_window_ms,
        "late_ms": config.times.late_ms,
        "lease_ms": config.times.lease_ms,
        "backoff_min_ms": config.backoff.min_ms,
        "backoff_max_ms": config.backoff.max_ms,
        "dedup_ttl_ms": config.dedup.ttl_ms,
        "max_age_ms": config.dedup.max_age_ms,
        "priority_gap_ms": config.priority_gap_ms,
        "answer_status": config.answer_status,
        "ack_timeout_ms": config.ack_timeout_ms,
        "bypass_header": config.bypass_header,
        "prefixes": config.prefixes,
        "hold_ms": config.hold_ms,
        "headers": config.headers.own().map(|(class, names)| (class.to_owned(), json!(names))).collect::<Map<_, _>>(),
        "assume": {
            "callers": config.assume.callers,
            "implies": config.assume.implies,
            "reads": config.assume.reads,
        },
        "upstream": {
            "cluster": config.upstream.cluster,
            "authority": config.upstream.authority,
            "prefix_rewrite": config.upstream.prefix_rewrite,
            "headers": headers,
        },
        "slow_ms": config.slow_ms,
        "read_refresh_ms": config.kept.refresh_ms,
        "settle_ms": config.kept.settle_ms,
        "stale_if_error_ms": config.kept.stale_if_error_ms,
        "refresh_timeout_ms": config.kept.refresh_timeout_ms,
        "reads": reads.collect::<Vec<_>>(),
        "routes": routes,
        "barriers": barriers,
    });
    if let Some(fallback) = &config.fallback {
        json["fallback"] = json!({
            "cluster": fallback.cluster,
            "authority": fallback.authority,
            "path": fallback.path,
            "headers": hidden(&fallback.headers),
            "after_attempts": fallback.after_attempts,
        });
    }
    json
}

/// The names of headers; their values may be secrets.
fn hidden(headers: &[(String, String)]) -> Map<String, Value> {
    let names = headers.iter().map(|(name, _)| name.clone());
    names.map(|name| (name, HIDDEN.into())).collect()
}

fn route(config: &Config, rule: &Route) -> Value {
    let places = |all: &[Place]| -> Vec<Value> { all.iter().map(place).collect() };
    let mut json = json!({
        "name": rule.name,
        "method": rule.method,
        "path": rule.path.to_string(),
        "session": places(&rule.session),
        "tenant": places(&rule.tenant),
        "value": pointers(&rule.value),
        "order": pointers(&rule.order),
        "volatile": pointers(&rule.volatile),
        "priority": match &rule.priority {
            Priority::Always => json!("always"),
            Priority::Values(values) => json!(values),
        },
        "not_priority_after": rule.not_priority_after,
        "priority_after": rule.priority_after,
        "no_dedup": rule.no_dedup,
        "expire_after_ms": rule.expire_after_ms.unwrap_or(0),
        "ack": match rule.ack {
            Ack::Accept => "accept",
            Ack::Delivered => "delivered",
        },
    });
    if let Some(fits) = &rule.fits {
        json["match"] = json!({"pointer": pointer(&fits.pointer), "values": fits.values});
    }
    if let Some(family) = &rule.family {
        json["family"] = json!(family);
    }
    if let Some(implies) = &rule.implies {
        json["implies"] = json!({"route": name(config, implies.route), "value": implies.value});
    }
    if let Some(voids) = &rule.voids {
        let routes: Vec<&str> = voids.routes.iter().map(|at| name(config, *at)).collect();
        json["voids"] = json!({"values": voids.values, "routes": routes});
    }
    let batch = &rule.batch;
    json["batch"] = json!({"quiet_ms": batch.quiet_ms});
    if let Some(call) = &batch.call {
        json["batch"] = json!({
            "path": call.path,
            "field": call.field,
            "verbatim": call.verbatim,
            "max_items": batch.max_items,
            "max_bytes": batch.max_bytes,
            "max_wait_ms": batch.max_wait_ms,
            "quiet_ms": batch.quiet_ms,
        });
    }
    json
}

fn name(config: &Config, route: usize) -> &str {
    config.routes.get(route).map_or("", |route| &route.name)
}

fn place(place: &Place) -> Value {
    match place {
        Place::Body(at) => json!(pointer(at)),
        Place::Segment => json!("{session}"),
        Place::Query(name) => json!({"query": name}),
        Place::Header(name) => json!({"header": name}),
        Place::Constant(text) => json!({"constant": text}),
    }
}

fn pointers(all: &[Pointer]) -> Vec<String> {
    all.iter().map(pointer).collect()
}

/// RFC 6901, with its two escapes.
fn pointer(pointer: &Pointer) -> String {
    let escaped = |segment: &str| segment.replace('~', "~0").replace('/', "~1");
    pointer
        .segments()
        .map(|segment| format!("/{}", escaped(segment)))
        .collect()
}
