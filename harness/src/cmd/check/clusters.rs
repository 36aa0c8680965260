//! The clusters: where Embudo's calls go, and what keeps a broken batch route from costing a message.

use embudo_core::config::Config;
use embudo_dispatch::CALLS_UNDER_WAY_MAX;
use serde_json::Value;

use super::finding::Finding;
use super::listeners::Chain;
use super::routes::{duration_ms, stream_duration};

const CLUSTERS: &str = "static_resources.clusters";

/// Envoy's own limit where a cluster names none.
const DEFAULT_LIMIT: u64 = 1024;

/// The place where a route names its cluster, and the name.
pub(super) type Routed = (String, String);

/// Checks the cluster of Embudo's calls, and that the routes' clusters are others with the same endpoints.
pub(super) fn inspect(envoy: &Value, config: &Config, chain: &Chain<'_>) -> Vec<Finding> {
    let name = config.upstream.cluster.as_str();
    let routed = chain.clusters();
    let mut findings = Vec::new();
    if routed.iter().any(|cluster| cluster == name) {
        let message = format!(
            "\"{name}\" carries Embudo's calls and is a route's cluster too: when it is ejected, \
             untouched requests fail; give the calls a cluster of their own"
        );
        findings.push(Finding::warning(CLUSTERS, message));
    }
    for cluster in &routed {
        let Some((place, found)) = find(envoy, cluster) else {
            continue;
        };
        if cluster == name {
            continue;
        }
        warm(&place, cluster, found, &mut findings);
        longest(&place, found, config, &mut findings);
        if found.get("outlier_detection").is_some() {
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
    for (place, cluster) in chain.enabled_clusters() {
        findings.extend(same_endpoints(envoy, &place, &cluster, name));
    }
    if let Some(fallback) = &config.fallback {
        if let Some((place, found)) = find(envoy, &fallback.cluster) {
            warm(&place, &fallback.cluster, found, &mut findings);
        }
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

/// Updates that come by one route go on to one Laravel, and are delivered to it.
fn same_endpoints(envoy: &Value, place: &str, routed: &str, name: &str) -> Option<Finding> {
    let [theirs, ours] = [routed, name].map(|cluster| {
        let (_, found) = find(envoy, cluster)?;
        let mut addresses = Vec::new();
        socket_addresses(&found["load_assignment"], &mut addresses);
        addresses.sort();
        addresses.dedup();
        (!addresses.is_empty()).then_some(addresses)
    });
    let (theirs, ours) = (theirs?, ours?);
    (theirs != ours).then(|| {
        let message = format!(
            "\"{routed}\" is {}, and \"{name}\", where Embudo's own calls go, is {}: what is queued here would be \
             delivered to another Laravel; give this filter's upstream.cluster a cluster with the same endpoints",
            theirs.join(", "),
            ours.join(", ")
        );
        Finding::error(place, message)
    })
}

/// Every `host:port` in a cluster's endpoints.
fn socket_addresses(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                match (key.as_str(), field["address"].as_str()) {
                    ("socket_address", Some(host)) => {
                        found.push(format!("{host}:{}", field["port_value"]));
                    }
                    ("pipe", _) => found.extend(field["path"].as_str().map(str::to_owned)),
                    _ => socket_addresses(field, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| socket_addresses(item, found)),
        _ => {}
    }
}

/// A cluster whose name server may be silent when Envoy starts.
fn warm(place: &str, name: &str, cluster: &Value, findings: &mut Vec<Finding>) {
    let asks_dns = cluster["type"]
        .as_str()
        .is_some_and(|t| t.ends_with("_DNS"));
    if asks_dns && cluster["wait_for_warm_on_init"] != false {
        findings.push(Finding::warning(
            format!("{place}.wait_for_warm_on_init"),
            format!(
                "should be false for \"{name}\": a name server that is silent when Envoy starts keeps every listener \
                 shut for two minutes"
            ),
        ));
    }
}

/// The options of a cluster's connections.
fn http_options(cluster: &Value) -> &Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    &cluster["typed_extension_protocol_options"][OPTIONS]
}

/// Checks how long a request may take.
fn longest(place: &str, cluster: &Value, config: &Config, findings: &mut Vec<Finding>) {
    const LIMIT: &str = "common_http_protocol_options.max_stream_duration";
    findings.extend(stream_duration(
        &format!("{place}.{LIMIT}"),
        &http_options(cluster)["common_http_protocol_options"]["max_stream_duration"],
        config.times.call_timeout_ms,
        "a call that it ends, with 408, looks like Laravel's own refusal, and Laravel may go on with it",
    ));
}

/// Checks that the breaker counts what speaks of the host, and that an ejection does not grow.
fn breaker(place: &str, outlier: &Value, findings: &mut Vec<Finding>) {
    let mut warn = |key: &str, message: &str| {
        findings.push(Finding::warning(format!("{place}.{key}"), message));
    };
    // Envoy enforces it where nothing is said.
    if outlier["enforcing_consecutive_5xx"] != 0 {
        warn(
            "enforcing_consecutive_5xx",
            "must be 0: a 500 is Laravel's word about a row, and one bad row would keep everybody's updates",
        );
    }
    if outlier["enforcing_consecutive_gateway_failure"] != 100 {
        warn(
            "enforcing_consecutive_gateway_failure",
            "must be 100: 502, 503, 504, refused connections and timeouts are what speaks of the host",
        );
    }
    let ms = |key: &str, default_ms| duration_ms(&outlier[key]).unwrap_or(default_ms);
    let base_ms = ms("base_ejection_time", 30_000);
    if ms("max_ejection_time", 300_000) > base_ms {
        warn(
            "max_ejection_time",
            "should be base_ejection_time: Embudo's own back-off grows with an outage, and an ejection that grows too \
             only makes the first call after it late",
        );
    }
}

fn batch_cluster(place: &str, cluster: &Value, config: &Config, findings: &mut Vec<Finding>) {
    warm(place, &config.upstream.cluster, cluster, findings);
    longest(place, cluster, config, findings);
    if http_options(cluster).get("retry_policy").is_some() {
        findings.push(Finding::warning(
            format!("{place}.retry_policy"),
            "hides the first try, which Laravel may have taken: what Envoy then says is about the last one only, and \
             an older value can follow a newer one; Embudo repeats by itself",
        ));
    }
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
            breaker(&format!("{place}.outlier_detection"), outlier, findings);
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
