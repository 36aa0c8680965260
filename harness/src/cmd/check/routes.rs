//! What Envoy does on the routes that Embudo is on, and not to Embudo's own calls; and the times that they set.
//!
//! A request that goes on to Laravel passes its route's actions and every filter behind Embudo. The dispatcher's
//! calls pass neither: a header that is added on the way is missing there, and a path that is rewritten is not.

use embudo_core::config::{Class, Config};
use serde_json::Value;

use super::finding::Finding;

/// What Envoy takes where a route has no `timeout`, ms.
const TIMEOUT_DEFAULT_MS: u64 = 15_000;

/// A route that Embudo is on, with what is around it.
pub(super) struct Enabled<'v> {
    pub(super) place: String,
    pub(super) route: &'v Value,
    /// The route, its virtual host and the route configuration, each with its place: what is said at one of them
    /// holds for the route.
    pub(super) levels: Vec<(String, &'v Value)>,
}

/// What a route does to a request, and what of `upstream` does it to a call.
enum Remedy {
    /// `upstream.authority`.
    Authority,
    /// `upstream.prefix_rewrite`.
    Prefix,
    /// Nothing.
    None,
}

/// A route's actions that make another request of it.
const REWRITES: [(&str, Remedy); 9] = [
    ("host_rewrite_literal", Remedy::Authority),
    ("auto_host_rewrite", Remedy::Authority),
    ("host_rewrite_header", Remedy::Authority),
    ("host_rewrite_path_regex", Remedy::Authority),
    ("host_rewrite", Remedy::Authority),
    ("prefix_rewrite", Remedy::Prefix),
    ("regex_rewrite", Remedy::None),
    ("path_rewrite", Remedy::None),
    ("path_rewrite_policy", Remedy::None),
];

/// Checks a route that Embudo is on.
pub(super) fn inspect(enabled: &Enabled<'_>, config: &Config, findings: &mut Vec<Finding>) {
    for (place, level) in &enabled.levels {
        added(place, level, config, findings);
        removed(place, level, config, findings);
        retried(place, level, findings);
    }
    let place = format!("{}.route", enabled.place);
    let action = &enabled.route["route"];
    rewritten(&place, action, config, findings);
    retried(&place, action, findings);
    times(&place, action, config, findings);
}

fn added(place: &str, level: &Value, config: &Config, findings: &mut Vec<Finding>) {
    for (index, one) in list(level, "request_headers_to_add").enumerate() {
        let name = one["header"]["key"].as_str().unwrap_or_default();
        let name = name.to_ascii_lowercase();
        let value = one["header"]["value"].as_str().unwrap_or_default();
        let ours = config.upstream.headers.iter();
        if ours.clone().any(|(n, v)| *n == name && v == value) {
            continue;
        }
        let how = if value.contains('%') {
            format!(
                "no key of `upstream` makes a value anew for each call; if Laravel needs it, let the gateway or a \
                 filter before Embudo say it, or give it a fixed one in upstream.headers.{name}"
            )
        } else {
            format!("say it there too: \"upstream\": {{\"headers\": {{\"{name}\": {value:?}}}}}")
        };
        let place = format!("{place}.request_headers_to_add[{index}]");
        let message = format!("{name} is not added to Embudo's own calls; {how}");
        findings.push(Finding::error(place, message));
    }
}

fn removed(place: &str, level: &Value, config: &Config, findings: &mut Vec<Finding>) {
    for (index, one) in list(level, "request_headers_to_remove").enumerate() {
        let name = one.as_str().unwrap_or_default().to_ascii_lowercase();
        let class = config.headers.of(name.as_bytes());
        if matches!(class, Class::Framing | Class::Neutral | Class::Varying) {
            continue;
        }
        let message = format!(
            "{name} is not taken off Embudo's own calls, and no key of `upstream` does it: take it off before \
             Embudo, or name it in headers.neutral where no batch needs it"
        );
        let place = format!("{place}.request_headers_to_remove[{index}]");
        findings.push(Finding::error(place, message));
    }
}

fn rewritten(place: &str, action: &Value, config: &Config, findings: &mut Vec<Finding>) {
    for (key, remedy) in &REWRITES {
        let value = &action[*key];
        if value.is_null() || *value == false {
            continue;
        }
        let wanted = value.as_str().unwrap_or_default();
        let message = match remedy {
            Remedy::Authority => {
                let ours = config.upstream.authority.as_deref();
                // One that is no literal cannot be compared; that there is an authority shows that it was thought of.
                if ours.is_some_and(|ours| ours == wanted || !key.ends_with("literal")) {
                    continue;
                }
                let example = match wanted {
                    "" => "laravel.example",
                    wanted => wanted,
                };
                format!(
                    "Embudo's own calls keep the caller's host; say it there too: \"upstream\": {{\"authority\": \
                     \"{example}\"}}"
                )
            }
            Remedy::Prefix => {
                let ours = config.upstream.prefix_rewrite.as_deref();
                if ours.is_some_and(|ours| wanted.starts_with(ours)) {
                    continue;
                }
                "Embudo's own calls keep the caller's path; say it there too, in upstream.prefix_rewrite, which takes \
                 the place of the prefix before the rule's path"
                    .to_owned()
            }
            Remedy::None => {
                "Embudo's own calls keep the caller's path, and no key of `upstream` does this: rewrite it before \
                 Embudo, or only its prefix, here by prefix_rewrite and there by upstream.prefix_rewrite"
                    .to_owned()
            }
        };
        findings.push(Finding::error(format!("{place}.{key}"), message));
    }
}

fn retried(place: &str, level: &Value, findings: &mut Vec<Finding>) {
    if level.get("retry_policy").is_some() {
        findings.push(Finding::warning(
            format!("{place}.retry_policy"),
            "hides the first try, which Laravel may have taken: what Envoy then says is about the last one only, and \
             an older value can follow a newer one; Embudo repeats by itself",
        ));
    }
}

fn times(place: &str, action: &Value, config: &Config, findings: &mut Vec<Finding>) {
    let call_ms = config.times.call_timeout_ms;
    let timeout_ms = duration_ms(&action["timeout"]);
    if timeout_ms.is_some_and(|ms| ms == 0 || ms > call_ms) {
        findings.push(Finding::warning(
            format!("{place}.timeout"),
            format!(
                "should not be more than call_timeout_ms ({call_ms}), or a request is at Laravel for longer than \
                 Embudo looks"
            ),
        ));
    }
    let timeout_ms = timeout_ms.unwrap_or(TIMEOUT_DEFAULT_MS);
    let idle = format!("{place}.idle_timeout");
    match duration_ms(&action["idle_timeout"]) {
        None | Some(0) => findings.push(Finding::warning(
            idle,
            "is missing: nothing else answers the callers of a worker whose VM has trapped; a bit more than `timeout`, \
             as 20s",
        )),
        Some(ms) if ms <= timeout_ms => findings.push(Finding::warning(
            idle,
            format!("must be more than `timeout` ({timeout_ms} ms), or it cuts what Laravel takes long to answer"),
        )),
        Some(_) => {}
    }
    let longest = &action["max_stream_duration"]["max_stream_duration"];
    findings.extend(stream_duration(
        &format!("{place}.max_stream_duration.max_stream_duration"),
        longest,
        config.hold_ms.saturating_add(call_ms),
        "a request that Embudo holds would be cut, since its clock runs meanwhile",
    ));
}

/// A limit on a stream's life, if it is shorter than `least_ms`. 0 is none.
pub(super) fn stream_duration(
    place: &str,
    limit: &Value,
    least_ms: u64,
    why: &str,
) -> Option<Finding> {
    let ms = duration_ms(limit)?;
    (1..=least_ms).contains(&ms).then(|| {
        let message = format!("must be more than {least_ms} ms: {why}");
        Finding::warning(place, message)
    })
}

/// A duration as Envoy writes it, "0.5s", in ms.
pub(super) fn duration_ms(value: &Value) -> Option<u64> {
    let seconds: f64 = value.as_str()?.strip_suffix('s')?.parse().ok()?;
    Some((seconds * 1000.0) as u64)
}

pub(super) fn list<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value[key].as_array().into_iter().flatten()
}
