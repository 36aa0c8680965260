//! The listeners: the filter in its chain, and the routes that lead to it.

use embudo_core::config::{Config, Path};
use regex::Regex;
use serde_json::Value;

use super::finding::Finding;
use super::routes::{self, Enabled};
use super::{WASM, clusters};

/// What is read of a connection at once (Envoy's default) on top of what Embudo may hold; below, a fast
/// sender's body is answered 413.
const BODY_ROOM: u64 = 1024 * 1024 + 64 * 1024;

/// What an operator calls a session in a sample path.
const SAMPLE: &str = "session";

/// An HTTP connection manager with Embudo in its chain.
pub(super) struct Chain<'v> {
    place: String,
    manager: &'v Value,
    filter_place: String,
    /// The filter's place in the chain.
    index: usize,
    filter: &'v Value,
}

/// Every chain that holds Embudo, wherever it is: a bootstrap and a listener's file differ in depth only.
pub(super) fn chains(envoy: &Value) -> Vec<Chain<'_>> {
    let mut found = Vec::new();
    walk(envoy, String::new(), &mut found);
    found
}

fn walk<'v>(value: &'v Value, place: String, found: &mut Vec<Chain<'v>>) {
    let here = |key: &str| match place.as_str() {
        "" => key.to_owned(),
        place => format!("{place}.{key}"),
    };
    match value {
        Value::Object(fields) => {
            if let Some(filters) = fields.get("http_filters").and_then(Value::as_array) {
                let ours = |filter: &&Value| {
                    let config = &filter["typed_config"];
                    config["@type"] == WASM && config.to_string().contains("embudo")
                };
                if let Some(index) = filters.iter().position(|filter| ours(&filter)) {
                    found.push(Chain {
                        place: place.clone(),
                        manager: value,
                        filter_place: here(&format!("http_filters[{index}]")),
                        index,
                        filter: &filters[index],
                    });
                }
            }
            for (key, field) in fields {
                walk(field, here(key), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, format!("{place}[{index}]"), found);
            }
        }
        _ => {}
    }
}

// === impl Chain ===

impl<'v> Chain<'v> {
    /// The filter, as it is in the chain.
    #[cfg(test)]
    pub(super) fn filter(&self) -> &Value {
        self.filter
    }

    /// Checks the filter, the router behind it and the routes.
    pub(super) fn inspect(&self, config: &Config) -> Vec<Finding> {
        let mut findings = self.inspect_filter();
        self.inspect_router(&mut findings);
        if self.filter["disabled"] == true {
            self.inspect_reachable(config, &mut findings);
        }
        self.inspect_room(&mut findings);
        self.inspect_behind(&mut findings);
        for enabled in self.enabled_routes() {
            routes::inspect(&enabled, config, &mut findings);
        }
        let longest = "common_http_protocol_options.max_stream_duration";
        findings.extend(routes::stream_duration(
            &format!("{}.{longest}", self.place),
            &self.manager["common_http_protocol_options"]["max_stream_duration"],
            config.hold_ms.saturating_add(config.times.call_timeout_ms),
            "a request that Embudo holds would be cut, since its clock runs meanwhile",
        ));
        findings
    }

    fn inspect_filter(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let config = &self.filter["typed_config"]["config"];
        let place = format!("{}.typed_config.config", self.filter_place);
        if config["allow_on_headers_stop_iteration"] != true {
            findings.push(Finding::error(
                format!("{place}.allow_on_headers_stop_iteration"),
                "must be true, or requests with a body hang: Embudo would wait for it and never get it",
            ));
        }
        if config["failure_policy"] != "FAIL_RELOAD" {
            findings.push(Finding::warning(
                format!("{place}.failure_policy"),
                "should be FAIL_RELOAD, or a worker whose VM has trapped once answers 503 for ever",
            ));
        }
        if config["vm_config"]["vm_id"]
            .as_str()
            .is_none_or(str::is_empty)
        {
            findings.push(Finding::warning(
                format!("{place}.vm_config.vm_id"),
                "is missing: what is pending lives under this id, and other plugins without one share it",
            ));
        }
        findings
    }

    fn inspect_router(&self, findings: &mut Vec<Finding>) {
        let filters = self.manager["http_filters"]
            .as_array()
            .into_iter()
            .flatten();
        for (index, filter) in filters.enumerate() {
            if filter["typed_config"]["suppress_envoy_headers"] == true {
                findings.push(Finding::error(
                    format!("{}.http_filters[{index}].typed_config.suppress_envoy_headers", self.place),
                    "must not be true: x-envoy-upstream-service-time is how Embudo tells Laravel's own \
                     answers from Envoy's",
                ));
            }
        }
    }

    /// Filters between Embudo and the router, which is the last one. What is off in the chain counts where a route that
    /// Embudo is on turns it on.
    fn inspect_behind(&self, findings: &mut Vec<Finding>) {
        let filters: Vec<&Value> = routes::list(self.manager, "http_filters").collect();
        let behind = filters.iter().enumerate().skip(self.index + 1);
        for (index, filter) in behind.take(filters.len().saturating_sub(self.index + 2)) {
            let name = filter["name"].as_str().unwrap_or("a filter");
            let is_on = filter["disabled"] != true
                || self
                    .enabled_routes()
                    .any(|on| on.route["typed_per_filter_config"].get(name).is_some());
            if is_on {
                findings.push(Finding::warning(
                    format!("{}.http_filters[{index}]", self.place),
                    format!(
                        "{name} is behind Embudo: it does nothing to what Embudo answers, nor to its calls, and what \
                         it denies has been queued; put it before"
                    ),
                ));
            }
        }
    }

    /// The filter is off in the chain, so a route must turn it on for whatever a rule is about.
    fn inspect_reachable(&self, config: &Config, findings: &mut Vec<Finding>) {
        let routes = config
            .routes
            .iter()
            .map(|route| (route.method.as_str(), &route.path, route.name.clone()));
        let reads = config
            .reads
            .iter()
            .map(|read| ("GET", &read.path, format!("read {}", read.name)));
        for (method, path, name) in routes.chain(reads) {
            let samples = config.prefixes.iter().map(|prefix| sample(prefix, path));
            let samples: Vec<String> = samples.collect();
            if !samples.iter().any(|sample| self.is_enabled(method, sample)) {
                findings.push(Finding::warning(
                    format!("{}.route_config", self.place),
                    format!(
                        "no route enables Embudo for {method} {}: the rule \"{name}\" is never used",
                        samples.join(" or ")
                    ),
                ));
            }
        }
    }

    /// Whether the first route that fits, which is the one Envoy takes, enables the filter.
    fn is_enabled(&self, method: &str, path: &str) -> bool {
        let mut routes = self.routes();
        let first = routes.find(|(_, route)| fits(&route["match"], method, path));
        first.is_some_and(|(_, route)| self.enables(route))
    }

    fn enables(&self, route: &Value) -> bool {
        let name = self.filter["name"].as_str().unwrap_or_default();
        route["typed_per_filter_config"].get(name).is_some()
    }

    fn inspect_room(&self, findings: &mut Vec<Finding>) {
        for (place, route) in self.routes() {
            let reads = route["match"].to_string().contains("\"GET\"");
            let room = route["request_body_buffer_limit"].as_u64().unwrap_or(0);
            if self.enables(route) && !reads && room < BODY_ROOM {
                findings.push(Finding::warning(
                    format!("{place}.request_body_buffer_limit"),
                    format!(
                        "should be at least {BODY_ROOM}, or a long body that Embudo would let through may be \
                         answered 413"
                    ),
                ));
            }
        }
    }

    /// The routes that Embudo is on.
    pub(super) fn enabled_routes(&self) -> impl Iterator<Item = Enabled<'v>> {
        let config = &self.manager["route_config"];
        self.routes_of_hosts()
            .filter(|(.., route)| self.filter["disabled"] != true || self.enables(route))
            .map(move |(host_place, host, place, route)| Enabled {
                levels: vec![
                    (place.clone(), route),
                    (host_place, host),
                    (format!("{}.route_config", self.place), config),
                ],
                place,
                route,
            })
    }

    /// The clusters of the routes that Embudo is on, each with the place where it is said.
    pub(super) fn enabled_clusters(&self) -> Vec<clusters::Routed> {
        let named = |on: Enabled<'_>| {
            let cluster = on.route["route"]["cluster"].as_str()?;
            Some((format!("{}.route.cluster", on.place), cluster.to_owned()))
        };
        self.enabled_routes().filter_map(named).collect()
    }

    /// The clusters that routes of this chain lead to.
    pub(super) fn clusters(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .routes()
            .filter_map(|(_, route)| Some(route["route"]["cluster"].as_str()?.to_owned()))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn routes(&self) -> impl Iterator<Item = (String, &'v Value)> {
        self.routes_of_hosts()
            .map(|(.., place, route)| (place, route))
    }

    /// Every route with its virtual host, and the places of both.
    fn routes_of_hosts(&self) -> impl Iterator<Item = (String, &'v Value, String, &'v Value)> {
        let hosts = routes::list(&self.manager["route_config"], "virtual_hosts");
        hosts.enumerate().flat_map(move |(host, value)| {
            let host_place = format!("{}.route_config.virtual_hosts[{host}]", self.place);
            routes::list(value, "routes")
                .enumerate()
                .map(move |(index, route)| {
                    let place = format!("{host_place}.routes[{index}]");
                    (host_place.clone(), value, place, route)
                })
        })
    }
}

fn sample(prefix: &str, path: &Path) -> String {
    format!("{prefix}{}", path.to_string().replace("{session}", SAMPLE))
}

/// Whether Envoy would take the route for this request, as far as path and method go.
fn fits(matches: &Value, method: &str, path: &str) -> bool {
    let text = |key: &str| matches[key].as_str();
    let by_path = text("path").is_none_or(|exact| exact == path)
        && text("prefix").is_none_or(|prefix| path.starts_with(prefix))
        && text("path_separated_prefix").is_none_or(|prefix| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
        && matches["safe_regex"]["regex"].as_str().is_none_or(|regex| {
            Regex::new(&format!("^(?:{regex})$")).is_ok_and(|regex| regex.is_match(path))
        });
    let headers = matches["headers"].as_array().into_iter().flatten();
    let methods = headers.filter(|header| header["name"] == ":method");
    let exact = |header: &Value| {
        let value = header["string_match"]["exact"].as_str();
        value
            .or(header["exact_match"].as_str())
            .is_none_or(|exact| exact == method)
    };
    by_path && methods.into_iter().all(exact)
}
