//! Listeners beside the gateway's, each of them the same but for one thing, so that one Envoy can be measured
//! with and without it.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    Bootstrap, FILTER, LISTENER, LISTENERS, MANAGER, ROUTES, array, at, filter_of, named,
    set_filter_config, take_embudo_out,
};

/// In what a listener differs from the gateway's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Twin {
    /// Embudo is not in the chain.
    WithoutEmbudo,
    /// Another module has Embudo's place, in a VM of its own.
    Module(PathBuf),
    /// Envoy's own buffer filter has Embudo's place, and Envoy answers everything with this JSON.
    DirectResponse(String),
    /// Another Laravel is behind it: its routes lead to this cluster, and Embudo's calls to `<cluster>_batch`.
    Backend(String),
}

// === impl Twin ===

impl Twin {
    /// The listener's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::WithoutEmbudo => "without_embudo",
            Self::Module(_) => "module",
            Self::DirectResponse(_) => "direct_response",
            Self::Backend(_) => "backend",
        }
    }
}

// === impl Bootstrap ===

impl Bootstrap {
    /// Adds a twin of the gateway's listener, on a port that the system chooses.
    ///
    /// # Errors
    /// When a piece of the shipped file that it changes is not there.
    pub fn twin(&mut self, twin: &Twin) -> Result<()> {
        let mut listener = named(&mut self.value, LISTENERS, LISTENER)?.clone();
        listener["name"] = json!(twin.name());
        *at(&mut listener, "/address/socket_address/port_value")? = json!(0);
        match twin {
            Twin::WithoutEmbudo => take_embudo_out(&mut listener)?,
            Twin::Module(module) => {
                let filter = filter_of(&mut listener)?;
                filter["name"] = json!(twin.name());
                *at(filter, "/vm_config/vm_id")? = json!(twin.name());
                *at(filter, "/vm_config/code/local/filename")? = json!(module);
                set_filter_config(&mut listener, &json!({}))?;
            }
            Twin::DirectResponse(body) => answer_directly(&mut listener, body)?,
            Twin::Backend(cluster) => lead_to(&mut listener, cluster)?,
        }
        array(at(&mut self.value, LISTENERS)?)?.push(listener);
        Ok(())
    }
}

fn lead_to(listener: &mut Value, cluster: &str) -> Result<()> {
    for route in array(at(at(listener, MANAGER)?, ROUTES)?)? {
        *at(route, "/route/cluster")? = json!(cluster);
    }
    let batches = format!("{cluster}_batch");
    set_filter_config(listener, &json!({"upstream": {"cluster": batches}}))
}

fn answer_directly(listener: &mut Value, body: &str) -> Result<()> {
    let manager = at(listener, MANAGER)?;
    let filters = array(at(manager, "/http_filters")?)?;
    let embudo = filters.iter_mut().find(|filter| filter["name"] == FILTER);
    // Without it Envoy would answer before the body, and close the connection.
    *embudo.context("no filter `embudo` in the chain")? = json!({
        "name": "envoy.filters.http.buffer",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
            "max_request_bytes": 65536,
        },
    });
    let header = |key: &str, value: &str| json!({"header": {"key": key, "value": value}});
    *at(manager, ROUTES)? = json!([{
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": body}},
        "response_headers_to_add": [
            header("content-type", "application/json"),
            header("x-embudo", "duplicate"),
        ],
    }]);
    Ok(())
}
