//! A listener that Envoy reads from a file of its own, and follows.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::live::bootstrap::{Bootstrap, ListenerFile};
use crate::live::{Admin, paths};

/// The listener's file, and how often it was written.
#[derive(Debug)]
pub(super) struct Watched {
    listener: ListenerFile,
    file: PathBuf,
    version: u32,
}

/// What Envoy says about the watched listener.
///
/// Not taken from the config dump: after an update that only changes a filter chain, which is what
/// ours are, it goes on showing the version the listener was first loaded with.
pub(super) struct Lds {
    pub(super) version: String,
    /// How many were refused since Envoy's start.
    pub(super) rejected: u64,
}

// === impl Watched ===

impl Watched {
    /// Moves the listener out of `bootstrap` into a file of this run.
    pub(super) fn new(bootstrap: &mut Bootstrap, run_dir: &Path) -> Result<Self> {
        // A folder of its own: Envoy looks at the file whenever anything is moved into the folder.
        let folder = run_dir.join("lds");
        paths::make_dir(&folder)?;
        let file = folder.join("lds.json");
        let listener = bootstrap.listener_from(&file)?;
        let mut watched = Self {
            listener,
            file,
            version: 0,
        };
        watched.write_next()?;
        Ok(watched)
    }

    /// Gives the filter another configuration, and returns the version that holds it.
    pub(super) fn update(&mut self, config: &Value) -> Result<String> {
        self.listener.filter_config(config)?;
        self.write_next().context("the listener's file")
    }

    /// Gives the plugin another name.
    pub(super) fn rename_plugin(&mut self, name: &str) -> Result<String> {
        self.listener.plugin_name(name)?;
        self.write_next().context("the listener's file")
    }

    /// Takes the listener out.
    pub(super) fn remove(&mut self) -> Result<String> {
        self.listener.remove();
        self.write_next().context("the listener's file")
    }

    /// Writes the file under a new version, and returns that.
    fn write_next(&mut self) -> Result<String> {
        self.version += 1;
        let version = self.version.to_string();
        paths::write_atomically(&self.file, self.listener.to_json(&version).as_bytes())?;
        Ok(version)
    }
}

// === impl Lds ===

impl Lds {
    pub(super) async fn read(admin: &Admin) -> Result<Self> {
        let text = admin.get("/stats?filter=listener_manager.lds.").await?;
        let value = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(": "));
            lines
                .find(|(full, _)| full.ends_with(name))
                .map(|(_, value)| value.trim_matches('"'))
        };
        Ok(Self {
            version: value(".version_text").unwrap_or_default().to_owned(),
            rejected: value(".update_rejected")
                .and_then(|n| n.parse().ok())
                .unwrap_or(0),
        })
    }
}
