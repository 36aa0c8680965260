//! What a run may choose, and what that makes of the shipped configuration and of the command line.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::watched::Watched;
use super::{admin_address_file, base_id_file};
use crate::live::bootstrap::{Bootstrap, Endpoint, Twin};
use crate::live::tools::Tools;

/// A loopback port that the system chooses.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a run changes in the shipped configuration; the defaults suit a test.
#[derive(Clone, Debug)]
pub struct EnvoyOptions {
    /// The beginning of the run folder's name.
    pub name: String,
    /// Laravel, for both of its clusters.
    pub laravel: Endpoint,
    /// Where the cluster `webhook` points; as shipped if `None`.
    pub webhook: Option<Endpoint>,
    /// The preset whose snippet in `deploy/presets` is put into the shipped configuration; none if `None`.
    pub preset: Option<String>,
    /// Paths, as regular expressions, whose GETs enter the filter besides status reads.
    pub read_routes: Vec<String>,
    /// Embudo's configuration; with a preset, what is laid over the snippet's.
    pub filter_config: Value,
    /// Envoy's workers. Two by default: with one, nothing is ever concurrent.
    pub concurrency: u32,
    /// Where the gateway is served.
    pub listener: SocketAddr,
    /// Where the admin page is.
    pub admin: SocketAddr,
    /// Envoy's log level; Embudo's own lines obey it too.
    pub log_level: String,
    /// Whether Embudo is in the chain; without it, Envoy only passes requests on.
    pub embudo: bool,
    /// What an operator may have written besides: places and values, as [`Bootstrap::change`] has them.
    pub changes: Vec<(String, Value)>,
    /// The module in the place of Embudo's own, for what is asked of Envoy itself.
    pub module: Option<PathBuf>,
    /// Listeners beside the gateway's, for a comparison in one process.
    pub twins: Vec<Twin>,
    /// Whether the listener is a watched file, so that [`super::Envoy::update_filter_config`]
    /// works.
    pub watch_listener: bool,
    /// How long the old listener goes on after an update, in seconds.
    pub drain_time_s: u32,
    /// The Envoy that this one takes over from, by a hot restart.
    pub restarts: Option<Restart>,
    /// What starts Envoy.
    pub starter: Starter,
}

/// A hot restart: a new process takes the listeners over, and ends the old one in the end. It must be given the
/// addresses that the old one has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The number of the shared memory, [`super::Envoy::base_id`] of the old one.
    pub base_id: u32,
    /// One more than the old one's, which begins with 0.
    pub epoch: u32,
    /// When the old one ends, in seconds from the start of the new one; more than the drain time.
    pub parent_shutdown_time_s: u32,
}

/// What starts Envoy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Starter {
    /// `func-e run`, as on a developer's machine.
    #[default]
    FuncE,
    /// The binary itself: one process less, where that matters for a measurement.
    Direct,
}

/// Methods of a configuration's barriers, and what their paths are as regular expressions.
fn barriers(config: &Value) -> Vec<(String, String)> {
    let all = config["barriers"].as_array().into_iter().flatten();
    all.filter_map(|barrier| {
        let path = barrier["path"].as_str()?.replace("{session}", "[^/]+");
        Some((
            barrier["method"].as_str()?.to_owned(),
            format!("(/api)?{path}"),
        ))
    })
    .collect()
}

// === impl EnvoyOptions ===

impl EnvoyOptions {
    /// The defaults for a test: Embudo with `{}`, two workers, func-e, ports chosen by the system.
    pub fn new(name: &str, laravel: impl Into<Endpoint>) -> Self {
        Self {
            name: name.to_owned(),
            laravel: laravel.into(),
            webhook: None,
            preset: None,
            read_routes: Vec::new(),
            filter_config: json!({}),
            concurrency: 2,
            listener: ANY_PORT,
            admin: ANY_PORT,
            log_level: "info".to_owned(),
            embudo: true,
            changes: Vec::new(),
            module: None,
            twins: Vec::new(),
            watch_listener: false,
            drain_time_s: 10,
            restarts: None,
            starter: Starter::default(),
        }
    }

    /// The shipped configuration with this run's changes, and the listener's file if it is watched.
    pub(super) fn configuration(
        &self,
        module: Option<&Path>,
        run_dir: &Path,
    ) -> Result<(Bootstrap, Option<Watched>)> {
        let mut bootstrap = Bootstrap::shipped()?;
        bootstrap.listen_on(self.listener)?;
        bootstrap.admin_on(self.admin)?;
        bootstrap.point("laravel", &self.laravel)?;
        bootstrap.point("laravel_batch", &self.laravel)?;
        if let Some(webhook) = &self.webhook {
            bootstrap.point("webhook", webhook)?;
        }
        match module {
            Some(module) => {
                bootstrap.module(module)?;
                for regex in &self.read_routes {
                    bootstrap.read_route(regex)?;
                }
                for (method, regex) in barriers(&self.filter_config) {
                    bootstrap.barrier_route(&method, &regex)?;
                }
                match &self.preset {
                    Some(preset) => bootstrap.preset(preset, &self.filter_config)?,
                    None => bootstrap.filter_config(&self.filter_config)?,
                }
            }
            None => bootstrap.without_embudo()?,
        }
        for (place, value) in &self.changes {
            bootstrap.change(place, value)?;
        }
        for twin in &self.twins {
            bootstrap.twin(twin)?;
        }
        if !self.watch_listener {
            return Ok((bootstrap, None));
        }
        let watched = Watched::new(&mut bootstrap, run_dir)?;
        Ok((bootstrap, Some(watched)))
    }

    /// The command line, and the environment that keeps func-e inside the run folder.
    pub(super) fn command(
        &self,
        tools: &Tools,
        run_dir: &Path,
    ) -> (PathBuf, Vec<OsString>, Vec<(&'static str, OsString)>) {
        let mut args: Vec<OsString> = Vec::new();
        let mut env = Vec::new();
        let program = match self.starter {
            Starter::FuncE => {
                args.push("run".into());
                let own = |folder: &str| run_dir.join("func-e").join(folder).into_os_string();
                env.push(("ENVOY_PATH", tools.envoy.clone().into_os_string()));
                env.push(("FUNC_E_CONFIG_HOME", own("config")));
                env.push(("FUNC_E_DATA_HOME", own("data")));
                env.push(("FUNC_E_STATE_HOME", own("state")));
                env.push(("FUNC_E_RUNTIME_DIR", own("runtime")));
                env.push(("FUNC_E_RUN_ID", "run".into()));
                tools.func_e.clone()
            }
            Starter::Direct => tools.envoy.clone(),
        };
        let options: [(&str, OsString); 5] = [
            ("--config-path", run_dir.join("bootstrap.json").into()),
            ("--admin-address-path", admin_address_file(run_dir).into()),
            ("--concurrency", self.concurrency.to_string().into()),
            ("--drain-time-s", self.drain_time_s.to_string().into()),
            ("--log-level", self.log_level.clone().into()),
        ];
        args.extend(
            options
                .into_iter()
                .flat_map(|(name, value)| [name.into(), value]),
        );
        // Shared memory for hot restarts is numbered; without a free number, two Envoys fight for number 0.
        let numbers: Vec<OsString> = match self.restarts {
            None => vec![
                "--use-dynamic-base-id".into(),
                "--base-id-path".into(),
                base_id_file(run_dir).into(),
            ],
            Some(restart) => [
                ("--base-id", restart.base_id),
                ("--restart-epoch", restart.epoch),
                ("--parent-shutdown-time-s", restart.parent_shutdown_time_s),
            ]
            .into_iter()
            .flat_map(|(name, value)| [name.into(), value.to_string().into()])
            .collect(),
        };
        args.extend(numbers);
        (program, args, env)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> EnvoyOptions {
        EnvoyOptions::new("test", ANY_PORT)
    }

    fn command(starter: Starter) -> (PathBuf, String, Vec<&'static str>) {
        let tools = Tools {
            func_e: "/bin/func-e".into(),
            envoy: "/bin/envoy".into(),
        };
        let options = EnvoyOptions {
            starter,
            ..options()
        };
        let (program, args, env) = options.command(&tools, Path::new("/run"));
        let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        (
            program,
            args.join(" "),
            env.into_iter().map(|(name, _)| name).collect(),
        )
    }

    #[test]
    fn func_e_runs_envoy_with_the_same_options_and_stays_in_the_run_folder() {
        let (program, args, env) = command(Starter::FuncE);
        assert_eq!(program, Path::new("/bin/func-e"));
        assert!(
            env.contains(&"ENVOY_PATH") && env.contains(&"FUNC_E_STATE_HOME"),
            "{env:?}"
        );
        let (direct, direct_args, direct_env) = command(Starter::Direct);
        assert_eq!(direct, Path::new("/bin/envoy"));
        assert_eq!(args, format!("run {direct_args}"));
        assert!(direct_args.contains("--drain-time-s 10") && direct_env.is_empty());
    }

    #[test]
    fn a_hot_restart_names_the_shared_memory_that_the_first_start_has_chosen() {
        let tools = Tools {
            func_e: "/bin/func-e".into(),
            envoy: "/bin/envoy".into(),
        };
        let restart = Restart {
            base_id: 7,
            epoch: 1,
            parent_shutdown_time_s: 20,
        };
        let options = EnvoyOptions {
            restarts: Some(restart),
            ..options()
        };
        let (_, args, _) = options.command(&tools, Path::new("/run"));
        let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        let args = args.join(" ");
        assert!(
            args.ends_with("--base-id 7 --restart-epoch 1 --parent-shutdown-time-s 20"),
            "{args}"
        );
        let (_, first, _) = command(Starter::Direct);
        assert!(
            first.contains("--use-dynamic-base-id") && !first.contains("--restart-epoch"),
            "{first}"
        );
    }

    #[test]
    fn without_embudo_neither_module_nor_configuration_is_needed() {
        let (bootstrap, watched) = options().configuration(None, Path::new("/run")).unwrap();
        assert!(!bootstrap.to_json().contains("embudo.wasm"));
        assert!(watched.is_none());
    }
}
