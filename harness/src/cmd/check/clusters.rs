//! The clusters: where Embudo's calls go, and what keeps a broken batch route from costing a message.

use embudo_core::config::Config;
use embudo_core::dispatch::CALLS_UNDER_WAY_MAX;
use serde_json::Value;

use super::finding::Finding;

const CLUSTERS: &str = "static_resources.clusters";

/// Envoy's own limit where a cluster names none.
const DEFAULT_LIMIT: u64 = 1024;

/// Checks the cluster of Embudo's calls, and that the routes' clusters, `routed`, are others.
pub(super) fn inspect(envoy: &Value, config: &Config, routed: &[String]) -> Vec<Finding> {
    let name = config.upstream.cluster.as_str();
    let mut findings = Vec::new();
    if routed.iter().any(|cluster| cluster == name) {
        let message = format!(
            "\"{name}\" carries Embudo's calls and is a route's cluster too: when it is ejected, \
             untouched requests fail; give the calls a cluster of their own"
        );
        findings.push(Finding::warning(CLUSTERS, message));
    }
    for cluster in routed {
        if let Some((place, found)) = find(envoy, cluster)
            && found.get("outlier_detection").is_some()
            && cluster != name
        {
            let message = format!(
                "\"{cluster}\" carries untouched requests: with outlier detection, three failures of one \
                 route refuse all of them"
            );
            findings.push(Finding::warning(
                format!("{place}.outlier_detection"),
                message,
            ));
        }
    }
    match find(envoy, name) {
        Some((place, cluster)) => batch_cluster(&place, cluster, config, &mut findings),
        None if is_dynamic(envoy) => {}
        None => {
            let message = format!("no cluster is called \"{name}\": nothing would be delivered");
            findings.push(Finding::error(CLUSTERS, message));
        }
    }
    if let Some(fallback) = &config.fallback {
        findings.extend(webhook(envoy, config, &fallback.cluster));
    }
    findings
}

/// The webhook's cluster, if there is something wrong with it.
fn webhook(envoy: &Value, config: &Config, name: &str) -> Option<Finding> {
    if name == config.upstream.cluster {
        let message = format!(
            "\"{name}\" carries Embudo's calls and is the fallback's cluster too: while it is ejected there is \
             no fallback"
        );
        return Some(Finding::warning(CLUSTERS, message));
    }
    let is_missing = find(envoy, name).is_none() && !is_dynamic(envoy);
    is_missing.then(|| {
        let message = format!(
            "no cluster is called \"{name}\", the fallback's: nothing would reach the webhook"
        );
        Finding::error(CLUSTERS, message)
    })
}

fn batch_cluster(place: &str, cluster: &Value, config: &Config, findings: &mut Vec<Finding>) {
    let threshold = cluster.pointer("/common_lb_config/healthy_panic_threshold");
    if threshold.is_none_or(|threshold| threshold["value"] != 0) {
        findings.push(Finding::warning(
            format!("{place}.common_lb_config.healthy_panic_threshold"),
            "must be {value: 0}, or a single host is used although it is ejected",
        ));
    }
    match cluster.get("outlier_detection") {
        None => findings.push(Finding::warning(
            format!("{place}.outlier_detection"),
            "is missing: it is Embudo's circuit breaker",
        )),
        Some(outlier) => {
            let whole = outlier["max_ejection_percent"] == 100;
            if !whole && outlier["always_eject_one_host"] != true {
                findings.push(Finding::warning(
                    format!("{place}.outlier_detection.max_ejection_percent"),
                    "must be 100, or always_eject_one_host true: a single host is never ejected otherwise",
                ));
            }
        }
    }
    let thresholds = cluster.pointer("/circuit_breakers/thresholds/0");
    for limit in ["max_connections", "max_pending_requests", "max_requests"] {
        let most = thresholds
            .and_then(|t| t[limit].as_u64())
            .unwrap_or(DEFAULT_LIMIT);
        let ours = config.pace.max_in_flight.max(CALLS_UNDER_WAY_MAX as u64);
        if most <= ours {
            findings.push(Finding::warning(
                format!("{place}.circuit_breakers.thresholds[0].{limit}"),
                format!(
                    "{most} is not more than the {ours} calls that Embudo may have under way: an overflow looks \
                     like an ejection to it"
                ),
            ));
        }
    }
}

fn find<'v>(envoy: &'v Value, name: &str) -> Option<(String, &'v Value)> {
    let all = envoy.pointer("/static_resources/clusters")?.as_array()?;
    let index = all.iter().position(|cluster| cluster["name"] == name)?;
    Some((format!("{CLUSTERS}[{index}]"), all.get(index)?))
}

/// Clusters may come from elsewhere.
fn is_dynamic(envoy: &Value) -> bool {
    envoy.pointer("/dynamic_resources/cds_config").is_some()
        || envoy.pointer("/static_resources/clusters").is_none()
}
