//! Embudo's timers, and the same configuration with them scaled.
//!
//! A test that waits for `max_wait_ms` five times takes ten seconds; with everything ten times
//! faster it takes one and shows the same behaviour, because nothing in Embudo depends on
//! how long a second is. What a *call* may take is not scaled: the stand-in Laravel and this
//! machine are as slow as they are, and a shorter deadline would turn a busy moment into an unknown
//! outcome.

use serde_json::{Map, Value, json};

/// Durations that say how Embudo paces itself. Not among them: `call_timeout_ms`, `late_ms`,
/// `send_window_ms`.
const TIMERS: [&str; 5] = [
    "priority_gap_ms",
    "backoff_min_ms",
    "backoff_max_ms",
    "dedup_ttl_ms",
    "max_age_ms",
];

/// The fastest pace that Embudo accepts.
const PACE_MAX: u64 = 1_000;

/// What `{}` means, as far as timers go. A test holds it against the core's own defaults.
fn defaults() -> Value {
    json!({
        "max_requests_per_second": 20,
        "priority_gap_ms": 1_000,
        "backoff_min_ms": 500,
        "backoff_max_ms": 30_000,
        "dedup_ttl_ms": 300_000,
        "max_age_ms": 600_000,
        "routes": [
            {"name": "qr", "expire_after_ms": 60_000, "batch": {"quiet_ms": 250, "max_wait_ms": 1_000}},
            {"name": "status", "batch": {"quiet_ms": 250, "max_wait_ms": 2_000}},
        ],
    })
}

/// Returns `config` with Embudo's timers divided by `by` and its pace multiplied by it.
///
/// What `config` does not set is set to the scaled default; what it sets and is no timer stays as
/// it is. No timer becomes shorter than a millisecond, since 0 would mean something else.
pub fn scaled(config: &Value, by: f64) -> Value {
    let mut scaled = defaults();
    merge(&mut scaled, config);
    if let Some(pace) = scaled.get_mut("max_requests_per_second") {
        *pace = times(pace, by);
        if pace.as_u64().is_some_and(|pace| pace > PACE_MAX) {
            *pace = json!(PACE_MAX);
        }
    }
    for timer in TIMERS {
        divide(&mut scaled, timer, by);
    }
    for route in scaled["routes"].as_array_mut().into_iter().flatten() {
        divide(route, "expire_after_ms", by);
        if let Some(batch) = route.get_mut("batch") {
            divide(batch, "quiet_ms", by);
            divide(batch, "max_wait_ms", by);
        }
    }
    scaled
}

/// Lays `over` on `under`: objects field by field, routes by name, everything else replaced.
pub(super) fn merge(under: &mut Value, over: &Value) {
    let (Value::Object(fields), Value::Object(changes)) = (&mut *under, over) else {
        *under = over.clone();
        return;
    };
    for (name, change) in changes {
        match (fields.get_mut(name), change) {
            (Some(Value::Array(routes)), Value::Array(changed)) if name == "routes" => {
                merge_routes(routes, changed);
            }
            (Some(field), _) => merge(field, change),
            (None, _) => drop(fields.insert(name.clone(), change.clone())),
        }
    }
}

fn merge_routes(routes: &mut Vec<Value>, changes: &[Value]) {
    for change in changes {
        match routes
            .iter_mut()
            .find(|route| route["name"] == change["name"])
        {
            Some(route) => merge(route, change),
            None => routes.push(change.clone()),
        }
    }
}

fn divide(value: &mut Value, timer: &str, by: f64) {
    if let Some(field) = value
        .as_object_mut()
        .and_then(|fields: &mut Map<_, _>| fields.get_mut(timer))
    {
        *field = times(field, 1.0 / by);
    }
}

/// A whole number stays whole, and 0 stays 0; anything else is left for Embudo to complain about.
fn times(value: &Value, factor: f64) -> Value {
    match value.as_f64() {
        Some(number) if number > 0.0 => json!((number * factor).round().max(1.0) as u64),
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use embudo_core::config::Config;

    use super::*;

    #[test]
    fn scaled_by_one_the_defaults_are_the_defaults_of_the_core() {
        let parsed = |config: &Value| {
            let config = Config::parse(config.to_string().as_bytes());
            format!("{:#?}", config.expect("this is valid"))
        };
        assert_eq!(parsed(&scaled(&json!({}), 1.0)), parsed(&json!({})));
        let fast = scaled(&json!({}), 1_000.0);
        parsed(&fast);
        assert_eq!(fast["max_requests_per_second"], PACE_MAX);
    }

    #[test]
    fn ten_times_faster_divides_every_timer_and_multiplies_the_pace() {
        let fast = scaled(&json!({}), 10.0);
        assert_eq!(fast["max_requests_per_second"], 200);
        assert_eq!(fast["priority_gap_ms"], 100);
        assert_eq!(fast["routes"][0]["expire_after_ms"], 6_000);
        assert_eq!(
            fast["routes"][1]["batch"],
            json!({"quiet_ms": 25, "max_wait_ms": 200})
        );
        assert_eq!(
            fast["routes"][1].get("expire_after_ms"),
            None,
            "states never expire"
        );
    }

    #[test]
    fn what_is_set_is_scaled_and_what_is_no_timer_stays() {
        let config = json!({
            "max_in_flight": 2,
            "call_timeout_ms": 900,
            "backoff_max_ms": 2_000,
            "routes": [
                {"name": "status", "batch": {"max_items": 7, "quiet_ms": 100}},
                {"name": "mine", "path": "/hook", "batch": {"max_wait_ms": 400}},
            ],
        });
        let fast = scaled(&config, 10.0);
        assert_eq!(fast["max_in_flight"], 2);
        assert_eq!(
            fast["call_timeout_ms"], 900,
            "a call takes as long as it takes"
        );
        assert_eq!(fast["backoff_max_ms"], 200);
        let status = &fast["routes"][1]["batch"];
        assert_eq!(
            *status,
            json!({"max_items": 7, "quiet_ms": 10, "max_wait_ms": 200})
        );
        assert_eq!(fast["routes"][2]["batch"]["max_wait_ms"], 40);
    }

    #[test]
    fn no_timer_is_scaled_away_and_no_mistake_is_hidden() {
        let fast = scaled(
            &json!({"priority_gap_ms": 3, "dedup_ttl_ms": "soon"}),
            100.0,
        );
        assert_eq!(fast["priority_gap_ms"], 1);
        assert_eq!(fast["dedup_ttl_ms"], "soon");
    }
}
