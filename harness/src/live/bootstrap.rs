//! The shipped `envoy.yaml` as a value, and the few changes a run may make to it.
//!
//! Tests are worth something for an operator only if they run the operator's file. So a run starts
//! from that file and changes what must differ: ports, addresses, the module's path, the filter's
//! configuration. Each change looks for the piece it replaces and refuses to go on if it is not
//! there; a file that was reorganised fails loudly instead of being tested in a form that nobody
//! runs.

mod twin;

use std::net::SocketAddr;
use std::path::Path;
use std::{fmt, fs};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

pub use self::twin::Twin;
use super::{filter_config, paths};

/// The name of the listener that the gateway talks to.
pub const LISTENER: &str = "gateway";

/// The name under which the filter is in the chain and in the routes.
const FILTER: &str = "embudo";

/// The shipped route of status reads.
const READ_ROUTE: &str = "embudo.get.status";

const LISTENERS: &str = "/static_resources/listeners";
const CLUSTERS: &str = "/static_resources/clusters";
const MANAGER: &str = "/filter_chains/0/filters/0/typed_config";
const ROUTES: &str = "/route_config/virtual_hosts/0/routes";
const STRING_VALUE: &str = "type.googleapis.com/google.protobuf.StringValue";

/// A host and a port, as an operator writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address (an IPv6 address without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
}

/// An Envoy configuration, made from `envoy.yaml`.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    value: Value,
}

/// The listener as a file of its own, for an Envoy that watches it.
#[derive(Clone, Debug)]
pub struct ListenerFile {
    listener: Value,
}

// === impl Bootstrap ===

impl Bootstrap {
    /// Reads the `envoy.yaml` at the root of the project.
    ///
    /// # Errors
    /// When the file cannot be read, or is not YAML.
    pub fn shipped() -> Result<Self> {
        Self::read(&paths::root().join("envoy.yaml"))
    }

    /// Reads any Envoy configuration in YAML or JSON.
    ///
    /// # Errors
    /// When the file cannot be read, or is neither.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("cannot read the Envoy configuration {}", file.display()))?;
        let value = serde_yaml_ng::from_str(&text)
            .with_context(|| format!("{} is not YAML", file.display()))?;
        Ok(Self { value })
    }

    /// The configuration as Envoy reads it. JSON is YAML too, and needs no quoting rules.
    pub fn to_json(&self) -> String {
        format!("{:#}", self.value)
    }

    /// Sets the address that the gateway talks to; port 0 lets the system choose.
    ///
    /// # Errors
    /// When the listener has no such address.
    pub fn listen_on(&mut self, address: SocketAddr) -> Result<()> {
        let listener = named(&mut self.value, LISTENERS, LISTENER)?;
        set_socket_address(at(listener, "/address/socket_address")?, &address.into())
    }

    /// Sets the address of the admin page.
    ///
    /// # Errors
    /// When the configuration has no admin page.
    pub fn admin_on(&mut self, address: SocketAddr) -> Result<()> {
        set_socket_address(
            at(&mut self.value, "/admin/address/socket_address")?,
            &address.into(),
        )
    }

    /// Points a cluster at `endpoint`.
    ///
    /// # Errors
    /// When there is no such cluster, or it has not exactly one endpoint.
    pub fn point(&mut self, cluster: &str, endpoint: &Endpoint) -> Result<()> {
        let cluster = named(&mut self.value, CLUSTERS, cluster)?;
        let endpoints = at(cluster, "/load_assignment/endpoints/0/lb_endpoints")?;
        ensure!(
            endpoints.as_array().is_some_and(|all| all.len() == 1),
            "expected one endpoint"
        );
        set_socket_address(
            at(endpoints, "/0/endpoint/address/socket_address")?,
            endpoint,
        )
    }

    /// Sets the path of the module.
    ///
    /// # Errors
    /// When the filter is not where the shipped file has it.
    pub fn module(&mut self, wasm: &Path) -> Result<()> {
        let filename = at(self.filter()?, "/vm_config/code/local/filename")?;
        *filename = json!(wasm);
        Ok(())
    }

    /// Sets the filter's own configuration.
    ///
    /// # Errors
    /// When the filter is not where the shipped file has it.
    pub fn filter_config(&mut self, config: &Value) -> Result<()> {
        set_filter_config(named(&mut self.value, LISTENERS, LISTENER)?, config)
    }

    /// Puts the snippet of a preset, `deploy/presets/<preset>.yaml`, where its head says that an operator puts
    /// it, and lays `over` on the filter's configuration in it.
    ///
    /// # Errors
    /// When there is no such snippet, or a piece that it replaces is missing, there or here.
    pub fn preset(&mut self, preset: &str, over: &Value) -> Result<()> {
        let file = paths::root().join(format!("deploy/presets/{preset}.yaml"));
        let mut snippet = Self::read(&file)?.value;
        let own = array(at(&mut snippet, "/routes")?)?;
        ensure!(
            own.iter().all(enables_filter),
            "every route of the snippet enables the filter `{FILTER}`"
        );

        let listener = named(&mut self.value, LISTENERS, LISTENER)?;
        let routes = array(at(at(listener, MANAGER)?, ROUTES)?)?;
        let before = routes.len();
        routes.retain(|route| !enables_filter(route));
        ensure!(
            routes.len() < before,
            "expected routes that enable the filter `{FILTER}`"
        );
        routes.splice(..0, own.drain(..));

        let own = at(&mut snippet, "/configuration/value")?.as_str();
        let own = own.context("the snippet's configuration has no text")?;
        let mut config = serde_json::from_str(own)
            .with_context(|| format!("the configuration in {} is not JSON", file.display()))?;
        filter_config::merge(&mut config, over);
        *at(filter_of(listener)?, "/configuration")? = at(&mut snippet, "/configuration")?.take();
        set_filter_config(listener, &config)
    }

    /// Adds a route like the one for status reads, for paths that fit `regex`: what an operator does who has
    /// another answer kept.
    ///
    /// # Errors
    /// When the shipped file has no such route.
    pub fn read_route(&mut self, regex: &str) -> Result<()> {
        let manager = at(named(&mut self.value, LISTENERS, LISTENER)?, MANAGER)?;
        let routes = array(at(manager, ROUTES)?)?;
        let shipped = routes.iter().find(|route| route["name"] == READ_ROUTE);
        let mut route = shipped.context("no route for status reads")?.clone();
        *at(&mut route, "/match/safe_regex/regex")? = json!(regex);
        routes.insert(0, route);
        Ok(())
    }

    /// Adds a route for a barrier, as the comment in the shipped file has it.
    ///
    /// # Errors
    /// When the shipped file has no route for status reads.
    pub fn barrier_route(&mut self, method: &str, regex: &str) -> Result<()> {
        self.read_route(regex)?;
        let manager = at(named(&mut self.value, LISTENERS, LISTENER)?, MANAGER)?;
        let routes = array(at(manager, ROUTES)?)?;
        let route = routes.first_mut().context("no routes")?;
        *at(route, "/match/headers/0/string_match/exact")? = json!(method);
        *at(route, "/name")? = json!("embudo.barrier");
        Ok(())
    }

    /// Sets any value of the configuration's `static_resources`: what an operator may have written there, and the
    /// shipped file has not. `place` is keys between slashes; an element of a list is named by its `name` or its
    /// number, `+` adds one at the end and `+1` after the first. What lacks on the way is made; a null takes the key out.
    ///
    /// # Errors
    /// When the place leads into something that is neither a list nor an object, or an element is not there.
    pub fn change(&mut self, place: &str, value: &Value) -> Result<()> {
        let mut found = at(&mut self.value, "/static_resources")?;
        let (way, last) = place.rsplit_once('/').context("the place has no slash")?;
        for key in way.split('/') {
            found = match found {
                Value::Array(all) => {
                    let number = key.parse::<usize>().ok();
                    let is_it = |(at, element): &(usize, &mut Value)| match number {
                        Some(number) => *at == number,
                        None => element["name"] == key,
                    };
                    let element = all.iter_mut().enumerate().find(is_it);
                    element.with_context(|| format!("no {key} in {place}"))?.1
                }
                Value::Object(all) => all.entry(key).or_insert_with(|| json!({})),
                _ => bail!("{key} in {place} leads nowhere"),
            };
        }
        let added = last
            .strip_prefix('+')
            .map(|number| number.parse().unwrap_or(usize::MAX));
        match (found, added) {
            (Value::Array(all), Some(number)) => all.insert(number.min(all.len()), value.clone()),
            (Value::Object(all), _) if value.is_null() => drop(all.remove(last)),
            (Value::Object(all), _) => drop(all.insert(last.to_owned(), value.clone())),
            _ => bail!("{last} in {place} leads nowhere"),
        }
        Ok(())
    }

    /// Takes Embudo out, filter and routes' marks alike: the same Envoy without it, for comparison.
    ///
    /// # Errors
    /// When the filter is not where the shipped file has it.
    pub fn without_embudo(&mut self) -> Result<()> {
        take_embudo_out(named(&mut self.value, LISTENERS, LISTENER)?)
    }

    /// Moves the listener out into `file`, which Envoy then watches: a change of the filter's
    /// configuration becomes a listener update, as it is with Istio or any other control plane.
    ///
    /// # Errors
    /// When the listener is missing.
    pub fn listener_from(&mut self, file: &Path) -> Result<ListenerFile> {
        let listeners = array(at(&mut self.value, LISTENERS)?)?;
        let index = listeners.iter().position(|l| l["name"] == LISTENER);
        let listener = listeners.remove(index.context("no listener `gateway` to move out")?);
        let directory = file.parent().unwrap_or(Path::new("."));
        self.value["dynamic_resources"] = json!({"lds_config": {
            "resource_api_version": "V3",
            "path_config_source": {"path": file, "watched_directory": {"path": directory}},
        }});
        Ok(ListenerFile { listener })
    }

    fn filter(&mut self) -> Result<&mut Value> {
        filter_of(named(&mut self.value, LISTENERS, LISTENER)?)
    }
}

// === impl ListenerFile ===

impl ListenerFile {
    /// Sets the filter's own configuration.
    ///
    /// # Errors
    /// When the filter is not where the shipped file has it.
    pub fn filter_config(&mut self, config: &Value) -> Result<()> {
        set_filter_config(&mut self.listener, config)
    }

    /// Gives the plugin another name: another store.
    ///
    /// # Errors
    /// When the filter is not where the shipped file has it.
    pub fn plugin_name(&mut self, name: &str) -> Result<()> {
        filter_of(&mut self.listener)?["name"] = json!(name);
        Ok(())
    }

    /// Takes the listener out.
    pub fn remove(&mut self) {
        self.listener = Value::Null;
    }

    /// The file as Envoy reads it; `version` appears in `/config_dump` once it is in use.
    pub fn to_json(&self, version: &str) -> String {
        let mut listener = self.listener.clone();
        let mut resources = Vec::new();
        if listener.is_object() {
            listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
            resources.push(listener);
        }
        format!(
            "{:#}",
            json!({"version_info": version, "resources": resources})
        )
    }
}

// === impl Endpoint ===

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl std::str::FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| {
            format!("{text:?} has no port; write host:port, as in 127.0.0.1:8000")
        })?;
        let port = port.parse().map_err(|_| {
            format!("{port:?} is not a port; write host:port, as in 127.0.0.1:8000")
        })?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains('/') {
            return Err(format!(
                "{text:?} is not host:port (no http:// and no path)"
            ));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

// === finding the pieces ===

fn at<'a>(value: &'a mut Value, pointer: &str) -> Result<&'a mut Value> {
    value
        .pointer_mut(pointer)
        .with_context(|| format!("the Envoy configuration has no {pointer}"))
}

fn array(value: &mut Value) -> Result<&mut Vec<Value>> {
    value
        .as_array_mut()
        .context("the Envoy configuration has something else where a list is needed")
}

fn named<'a>(value: &'a mut Value, pointer: &str, name: &str) -> Result<&'a mut Value> {
    let mut all = array(at(value, pointer)?)?.iter_mut();
    all.find(|one| one["name"] == name)
        .with_context(|| format!("the Envoy configuration has no `{name}` in {pointer}"))
}

fn enables_filter(route: &Value) -> bool {
    route["typed_per_filter_config"].get(FILTER).is_some()
}

fn filter_of(listener: &mut Value) -> Result<&mut Value> {
    let manager = at(listener, MANAGER)?;
    at(
        named(manager, "/http_filters", FILTER)?,
        "/typed_config/config",
    )
}

fn take_embudo_out(listener: &mut Value) -> Result<()> {
    let manager = at(listener, MANAGER)?;
    let filters = array(at(manager, "/http_filters")?)?;
    let before = filters.len();
    filters.retain(|filter| filter["name"] != FILTER);
    ensure!(
        filters.len() + 1 == before,
        "expected one filter `{FILTER}` in the chain"
    );
    let routes = array(at(manager, ROUTES)?)?;
    let marked = routes.iter_mut().filter_map(|route| {
        route
            .as_object_mut()
            .and_then(|route| route.remove("typed_per_filter_config"))
    });
    ensure!(
        marked.count() > 0,
        "expected routes that enable the filter `{FILTER}`"
    );
    Ok(())
}

fn set_filter_config(listener: &mut Value, config: &Value) -> Result<()> {
    let configuration = at(filter_of(listener)?, "/configuration")?;
    if configuration["@type"] != STRING_VALUE {
        bail!("the filter's configuration must be a StringValue: a Struct does not arrive as JSON");
    }
    configuration["value"] = Value::String(config.to_string());
    Ok(())
}

fn set_socket_address(place: &mut Value, endpoint: &Endpoint) -> Result<()> {
    ensure!(
        place["port_value"].is_u64(),
        "expected an address with a port_value, found {place}"
    );
    place["address"] = json!(endpoint.host);
    place["port_value"] = json!(endpoint.port);
    Ok(())
}

#[cfg(test)]
#[path = "bootstrap_tests.rs"]
mod tests;
