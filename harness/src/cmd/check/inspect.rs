//! What is dangerous in a configuration that is valid.

use embudo_core::config::Config;
use serde_json::Value;

use super::finding::Finding;
use super::{clusters, listeners};

/// nginx's `client_max_body_size` where nobody has set it.
const NGINX_BODY_MAX: usize = 1024 * 1024;

/// Labels that Embudo writes into the names of its metrics.
const LABELS: [&str; 9] = [
    "route", "outcome", "reason", "end", "verdict", "store", "belief", "state", "result",
];

/// Looks at Embudo's own configuration.
pub(super) fn config(config: &Config) -> Vec<Finding> {
    let large = config.routes.iter().filter_map(|route| {
        let bytes = route.batch.max_bytes;
        (route.batch.call.is_some() && bytes > NGINX_BODY_MAX).then(|| {
            Finding::warning(
                format!("routes.{}.batch.max_bytes", route.name),
                format!(
                    "{bytes} is more than nginx takes where nobody has set client_max_body_size \
                     ({NGINX_BODY_MAX})"
                ),
            )
        })
    });
    let mut findings: Vec<Finding> = large.collect();
    if config.headers.has_rotating() {
        findings.push(Finding::warning(
            "headers.rotating",
            "tells no callers apart: whoever reaches Envoy with any value of such a header is taken for the gateway, \
             and what is queued goes out with the newest value; only where nobody but the gateway reaches Envoy",
        ));
    }
    findings
}

/// Looks at how long a listener goes on after its update: at its end Envoy closes what is not answered yet.
pub(super) fn drain_time(seconds: u64, config: &Config) -> Option<Finding> {
    let call_ms = config.times.call_timeout_ms;
    (seconds.saturating_mul(1000) <= call_ms).then(|| {
        let message = format!(
            "must be more than call_timeout_ms ({call_ms}), or a listener's update closes requests without an answer \
             that Laravel is working on"
        );
        Finding::warning("--drain-time-s", message)
    })
}

/// Looks at an Envoy configuration that holds Embudo with this configuration.
pub(super) fn envoy(envoy: &Value, chain: &listeners::Chain<'_>, config: &Config) -> Vec<Finding> {
    let mut findings = chain.inspect(config);
    // A listener's file has no clusters and no statistics: they are elsewhere.
    if envoy.get("static_resources").is_some() {
        findings.extend(clusters::inspect(envoy, config, chain));
        findings.extend(statistics(envoy));
        if !envoy["layered_runtime"]
            .to_string()
            .contains("http.max_requests_per_io_cycle")
        {
            findings.push(Finding::warning(
                "layered_runtime",
                "http.max_requests_per_io_cycle: 0 is missing: Envoy closes connections that pipeline",
            ));
        }
    }
    findings
}

fn statistics(envoy: &Value) -> Option<Finding> {
    let tags = envoy
        .pointer("/stats_config/stats_tags")
        .and_then(Value::as_array);
    let known = |label: &&str| {
        let mut tags = tags.into_iter().flatten();
        tags.any(|tag| tag["tag_name"] == **label)
    };
    let missing: Vec<&str> = LABELS.into_iter().filter(|label| !known(label)).collect();
    (!missing.is_empty()).then(|| {
        let message = format!(
            "no tags for {}: Prometheus would show each label as a part of a name",
            missing.join(", ")
        );
        Finding::warning("stats_config.stats_tags", message)
    })
}
