//! A real Envoy with Embudo in it, for the length of a test or of a command.
//!
//! [`Envoy::start`] returns when the listener is open and serves; dropping the value stops Envoy
//! and waits until it has gone. All ports are chosen by the system unless asked for, and every run
//! has its own folder, so any number of them run side by side.
//!
//! # Layout
//!
//! * `options`: what a run may choose, and the command line it makes.
//! * `watched`: the listener as a file that Envoy follows.
//!
//! # The run folder
//!
//! `bootstrap.json` (what Envoy read), `lds/lds.json` (the listener, if it is watched), `envoy.log`
//! (all that func-e and Envoy printed), `config_dump.json` (what Envoy made of it), `func-e/`
//! (func-e's own directories).

mod options;
mod watched;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

pub use self::options::{EnvoyOptions, Restart, Starter};
use self::watched::{Lds, Watched};
use super::bootstrap::LISTENER;
use super::supervise::{self, Supervised};
use super::tools::Tools;
use super::{Admin, paths, wait, wasm};

/// Until Envoy serves. Two seconds on an idle machine, most of them V8 compiling; the rest is for a
/// busy one.
const READY_MAX: Duration = Duration::from_secs(60);

/// Until a changed listener is in use. It takes a tenth of a second.
const UPDATE_MAX: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How much of the log an error shows: the reason is in the last few lines.
const LOG_LINES_SHOWN: usize = 12;

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    /// Where the gateway is served.
    pub listener: SocketAddr,
    /// The admin page.
    pub admin: Admin,
    /// Envoy's own process, not the one that started it.
    pub pid: u32,
    /// Where this run's files are.
    pub run_dir: PathBuf,
    watched: Option<Watched>,
    process: Supervised,
}

// === impl Envoy ===

impl Envoy {
    /// Starts Envoy and waits until it serves.
    ///
    /// # Errors
    /// When a tool is missing, the filter does not build, or Envoy does not start: then with the end
    /// of its log.
    pub async fn start(options: EnvoyOptions) -> Result<Self> {
        let (tools, module) = Self::prepare(&options).await?;
        let run_dir = paths::new_run(&options.name)?;
        let (bootstrap, watched) = options.configuration(module.as_deref(), &run_dir)?;
        paths::write_atomically(
            &run_dir.join("bootstrap.json"),
            bootstrap.to_json().as_bytes(),
        )?;
        let (program, args, env) = options.command(&tools, &run_dir);
        let mut process = Supervised::start(&program, &args, &env, &log_file(&run_dir))?;

        let serving = wait_until_serving(&mut process, &run_dir).await;
        let (admin, listener) = serving.with_context(|| explain(&run_dir))?;
        let pid = envoy_process(&process, &tools.envoy).with_context(|| explain(&run_dir))?;
        let envoy = Self {
            listener,
            admin,
            pid,
            run_dir,
            watched,
            process,
        };
        envoy.save_config_dump().await?;
        Ok(envoy)
    }

    /// Finds or installs the tools and builds the module: what may take a while the first time.
    ///
    /// # Errors
    /// When a tool is missing, or the filter does not build.
    pub async fn prepare(options: &EnvoyOptions) -> Result<(Tools, Option<PathBuf>)> {
        let (with_embudo, other) = (options.embudo, options.module.clone());
        let prepare = move || {
            let tools = Tools::find_or_install()?;
            let module = match other {
                Some(module) => Some(module),
                None => with_embudo.then(wasm::module).transpose()?,
            };
            anyhow::Ok((tools, module))
        };
        tokio::task::spawn_blocking(prepare).await?
    }

    /// The base URL that the gateway is given.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener)
    }

    /// The name of the program that started Envoy, as the system knows it.
    pub fn started_by(&self) -> Option<String> {
        let program = fs::read_link(format!("/proc/{}/exe", supervise::parent(self.pid)?)).ok()?;
        Some(program.file_name()?.to_string_lossy().into_owned())
    }

    /// The number of the shared memory through which a hot restart reaches this Envoy, if it was not one itself.
    pub fn base_id(&self) -> Option<u32> {
        let text = fs::read_to_string(base_id_file(&self.run_dir)).ok()?;
        text.trim().parse().ok()
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Everything that func-e, Envoy and Embudo have printed so far.
    pub fn log(&self) -> String {
        read_log(&self.run_dir)
    }

    /// The lines of the log that contain `text`.
    pub fn grep_log(&self, text: &str) -> Vec<String> {
        self.log()
            .lines()
            .filter(|line| line.contains(text))
            .map(str::to_owned)
            .collect()
    }

    /// Gives Embudo another configuration by a listener update, and waits until it is in use.
    ///
    /// The old listener, and the old root context with it, goes on for the drain time.
    ///
    /// # Errors
    /// When Envoy was not started with `watch_listener`, or refuses the configuration: then with its
    /// reason.
    pub async fn update_filter_config(&mut self, config: &Value) -> Result<()> {
        self.update_listener(|watched| watched.update(config)).await
    }

    /// Gives Embudo's plugin another name, as [`Self::update_filter_config`] does.
    ///
    /// # Errors
    /// As there.
    pub async fn rename_plugin(&mut self, name: &str) -> Result<()> {
        self.update_listener(|watched| watched.rename_plugin(name))
            .await
    }

    /// Takes the listener out, and Embudo with it.
    ///
    /// # Errors
    /// As there.
    pub async fn remove_listener(&mut self) -> Result<()> {
        self.update_listener(Watched::remove).await
    }

    async fn update_listener(
        &mut self,
        write: impl FnOnce(&mut Watched) -> Result<String>,
    ) -> Result<()> {
        let rejected_before = Lds::read(&self.admin).await?.rejected;
        let watched = self
            .watched
            .as_mut()
            .context("start Envoy with watch_listener to update it")?;
        let version = write(watched)?;
        let taken = wait::some(UPDATE_MAX, POLL, async || {
            match Lds::read(&self.admin).await {
                Ok(lds) if lds.version == version => Some(Ok(())),
                Ok(lds) if lds.rejected > rejected_before => Some(Err(anyhow!(
                    "Envoy refused the configuration:\n  {}",
                    last_lines(&self.log())
                ))),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            }
        });
        match taken.await {
            Some(taken) => taken?,
            None => bail!("Envoy did not take version {version} of its listener in {UPDATE_MAX:?}"),
        }
        self.save_config_dump().await
    }

    /// Kills Envoy as `kill -9` does: nothing is flushed, no callback runs.
    pub fn kill(&mut self) {
        supervise::kill_now(self.pid);
        self.process.wait(READY_MAX);
    }

    /// Ends Envoy and waits until it has gone. Dropping it does the same.
    pub fn stop(self) {
        drop(self);
    }

    async fn save_config_dump(&self) -> Result<()> {
        let dump = format!("{:#}", self.admin.config_dump().await?);
        paths::write_atomically(&self.run_dir.join("config_dump.json"), dump.as_bytes())
    }
}

// === starting ===

async fn wait_until_serving(
    process: &mut Supervised,
    run_dir: &Path,
) -> Result<(Admin, SocketAddr)> {
    let served = wait::some(READY_MAX, POLL, async || {
        let ended = |status| Err(anyhow!("Envoy ended at once ({status})"));
        serving(run_dir)
            .await
            .or_else(|| process.ended().map(ended))
    });
    let late = || Err(anyhow!("Envoy did not serve within {READY_MAX:?}"));
    served.await.unwrap_or_else(late)
}

/// The admin page and the listener's address, once both are there or cannot come.
async fn serving(run_dir: &Path) -> Option<Result<(Admin, SocketAddr)>> {
    let address = fs::read_to_string(admin_address_file(run_dir)).ok()?;
    let admin = Admin::new(address.trim().parse().ok()?);
    if !admin.is_ready().await {
        return None;
    }
    match admin.listener(LISTENER).await.ok()? {
        Some(listener) => Some(Ok((admin, reachable(listener)))),
        // A watched listener that is refused does not keep Envoy from being ready.
        None if Lds::read(&admin).await.ok()?.rejected > 0 => {
            Some(Err(anyhow!("Envoy refused the listener")))
        }
        None => None,
    }
}

/// An address to connect to: a listener on all interfaces is reached on the loopback one.
fn reachable(mut listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        listener.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    listener
}

fn envoy_process(process: &Supervised, envoy: &Path) -> Result<u32> {
    let envoy = envoy.canonicalize().context("Envoy's binary has gone")?;
    let runs_envoy =
        |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == envoy);
    let mut below = supervise::descendants(process.id()).into_iter();
    below
        .find(runs_envoy)
        .ok_or_else(|| anyhow!("Envoy serves, but its process is not ours"))
}

fn admin_address_file(run_dir: &Path) -> PathBuf {
    run_dir.join("admin-address.txt")
}

fn base_id_file(run_dir: &Path) -> PathBuf {
    run_dir.join("base-id.txt")
}

fn log_file(run_dir: &Path) -> PathBuf {
    run_dir.join("envoy.log")
}

fn read_log(run_dir: &Path) -> String {
    let bytes = fs::read(log_file(run_dir)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn explain(run_dir: &Path) -> String {
    let end = last_lines(&read_log(run_dir));
    format!(
        "Envoy did not start; the end of its log ({}):\n  {end}",
        log_file(run_dir).display()
    )
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n  ")
}
