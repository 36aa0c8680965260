//! What is dangerous in a configuration that is valid.

use embudo_core::config::Config;
use serde_json::Value;

use super::finding::Finding;
use super::{clusters, listeners};

/// nginx's `client_max_body_size` where nobody has set it.
const NGINX_BODY_MAX: usize = 1024 * 1024;

/// Labels that Embudo writes into the names of its metrics.
const LABELS: [&str; 5] = ["route", "outcome", "reason", "end", "verdict"];

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
    large.collect()
}

/// Looks at an Envoy configuration that holds Embudo with this configuration.
pub(super) fn envoy(envoy: &Value, chain: &listeners::Chain<'_>, config: &Config) -> Vec<Finding> {
    let mut findings = chain.inspect(config);
    // A listener's file has no clusters and no statistics: they are elsewhere.
    if envoy.get("static_resources").is_some() {
        findings.extend(clusters::inspect(envoy, config, &chain.clusters()));
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
