//! A real Laravel: the application in `tests/laravel-app`, on SQLite, behind PHP-FPM and nginx.
//!
//! There are two: the project's own, whose QR sets a state and whose answers show nothing else, and a panel, whose QR
//! sets none and whose answers show the QR, the phone and the time beside it ([`Application`]).
//!
//! The stand-in answers as Laravel does because somebody wrote it so; this one answers as Laravel does because it is
//! Laravel. It is run as in production: routes and configuration cached, opcode cache on, a fixed number of PHP
//! processes. Everything it writes is in a run folder, and the ports are free ones, so that any number of them run
//! side by side.
//!
//! What arrived is read from nginx's access log, and what took effect from the database: the application is not asked,
//! so that asking costs it nothing.
//!
//! # Layout
//!
//! * [`files`]: the run folder with nginx's and PHP-FPM's configuration.
//! * [`records`]: rows, updates and requests, as [`crate::model`] has them.

mod files;
mod records;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use self::files::Files;
pub use self::records::{Details, Rows};
use super::supervise::{Supervised, descendants};
use super::tools::LaravelTools;
use super::{Endpoint, paths, proc};
use crate::model::laravel::Journal;
use crate::model::reads::Words;

/// A small machine's worth; more would fight for two cores.
const WORKERS: usize = 4;

/// The names that they begin with.
const SERVERS: [&str; 2] = ["nginx", "php-fpm"];

/// PHP and nginx are there after some 50 ms; on a busy machine they take longer.
const READY_MAX: Duration = Duration::from_secs(20);

/// How often a starting Laravel is asked.
const POLL: Duration = Duration::from_millis(10);

/// Before the routes of a panel's own users.
const PANEL: &str = "/api/panel/";

/// A session that no test has.
const NOBODY: &str = "/api/whatsapp/status/00000000-0000-0000-0000-000000000000";

/// Whose routes and controllers Laravel runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Application {
    /// The project's own: a QR sets `pending`, and a status read shows the state.
    #[default]
    Own,
    /// A panel: a QR sets no state, `active` comes with a phone and `inactive` with a reason, a status read shows all of
    /// it, and a user of the panel stops a session without the gateway's knowing.
    Panel,
}

/// How a real Laravel is set up.
#[derive(Clone, Debug)]
pub struct RealLaravelOptions {
    /// Whose routes these are.
    pub application: Application,
    /// The beginning of the run folder's name.
    pub name: String,
    /// Whether the application has the package `embudo/laravel`, and with it the batch routes.
    pub with_package: bool,
    /// Laravel's own `throttle:api`: so many requests a minute for one address; none if `None`.
    pub throttle_per_minute: Option<u32>,
    /// PHP processes.
    pub workers: usize,
    /// Sessions that are accounts from the start; a QR of another makes it one.
    pub accounts: Vec<String>,
    /// When the clock of its journal was 0. Share it with the load, so that their times can be compared.
    pub epoch: Instant,
}

/// A running Laravel. Dropping it stops it.
#[derive(Debug)]
pub struct RealLaravel {
    addr: SocketAddr,
    files: Files,
    epoch: Instant,
    /// nginx first: fields are dropped in order, and PHP must outlive who asks it.
    nginx: Supervised,
    php_fpm: Supervised,
}

// === impl Application ===

impl Application {
    /// The name of its routes in `tests/laravel-app/routes`.
    fn routes(self) -> &'static str {
        match self {
            Self::Own => "api",
            Self::Panel => "panel",
        }
    }
}

// === impl RealLaravelOptions ===

impl Default for RealLaravelOptions {
    fn default() -> Self {
        Self {
            application: Application::Own,
            name: "real-laravel".to_owned(),
            with_package: true,
            throttle_per_minute: None,
            workers: WORKERS,
            accounts: Vec::new(),
            epoch: Instant::now(),
        }
    }
}

// === impl RealLaravel ===

impl RealLaravel {
    /// Installs what is missing, makes the database, and waits until Laravel answers.
    ///
    /// # Errors
    /// When something is missing and cannot be installed, or does not start: then with what its logs say.
    pub async fn start(options: RealLaravelOptions) -> Result<Self> {
        let prepare = move || Self::launch(&options);
        let mut laravel = tokio::task::spawn_blocking(prepare).await??;
        let ready = laravel.wait_until_ready().await;
        ready.with_context(|| laravel.files.logs())?;
        laravel.reset()?;
        Ok(laravel)
    }

    fn launch(options: &RealLaravelOptions) -> Result<Self> {
        let tools = LaravelTools::find_or_install()?;
        let files = Files::new(options)?;
        // The order matters: a cached configuration is what the others read.
        for command in [
            &["config:cache"][..],
            &["route:cache"],
            &["migrate", "--force"],
        ] {
            artisan(&tools, &files, command)?;
        }
        records::add_accounts(&files.database(), &options.accounts)?;
        let env = files.environment();
        let fpm = files.fpm_arguments();
        let php_fpm = Supervised::start(&tools.php_fpm, &fpm, &env, &files.log("php-fpm"))?;
        let nginx = files.nginx_arguments();
        let nginx = Supervised::start(&tools.nginx, &nginx, &[], &files.log("nginx"))?;
        Ok(Self {
            addr: files.addr,
            files,
            epoch: options.epoch,
            nginx,
            php_fpm,
        })
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            // 502 while PHP is not there yet.
            let last = match get(self.addr, NOBODY).await {
                Ok(answer) if answer.starts_with("HTTP/1.1 404") => return Ok(()),
                Ok(answer) => answer.lines().next().unwrap_or_default().to_owned(),
                Err(error) => error.to_string(),
            };
            for (name, process) in [("nginx", &mut self.nginx), ("PHP-FPM", &mut self.php_fpm)] {
                if let Some(status) = process.ended() {
                    bail!("{name} ended at once ({status})");
                }
            }
            ensure!(
                Instant::now() < deadline,
                "Laravel did not answer within {READY_MAX:?}: {last}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where its logs and its database are.
    pub fn run_dir(&self) -> PathBuf {
        self.files.run_dir.clone()
    }

    /// The table `accounts`: what Laravel has of each session at this moment.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn rows(&self) -> Result<Rows> {
        records::rows(&self.files.database())
    }

    /// What a status read of each session was answered since the last reset, and at it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn words(&self) -> Result<Words> {
        let clock = records::Clock::new(self.epoch);
        records::words(&self.files.database(), clock)
    }

    /// Of each session whose phone it is, and why it ended, where it is told so.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn details(&self) -> Result<Vec<Details>> {
        records::details(&self.files.database())
    }

    /// A user of the panel stops a session; the gateway is told nothing.
    ///
    /// # Errors
    /// When Laravel does not take it.
    pub async fn stop_session(&self, session: &str) -> Result<()> {
        let path = format!("{PANEL}stop/{session}");
        let answer = ask(self.addr, "POST", &path).await?;
        let line = answer.lines().next().unwrap_or_default();
        ensure!(line.contains(" 200 "), "{path}: {line}");
        Ok(())
    }

    /// What arrived and what took effect since the start or the last reset.
    ///
    /// # Errors
    /// When the database or the access log cannot be read.
    pub fn journal(&self) -> Result<Journal> {
        let clock = records::Clock::new(self.epoch);
        let entries = records::updates(&self.files.database(), clock)?;
        let requests = records::requests(&self.files.access_log(), clock)?;
        Ok(Journal::of_records(entries, requests))
    }

    /// Forgets updates and requests, as after a warm-up; rows stay.
    ///
    /// # Errors
    /// When the database or the access log cannot be written.
    pub fn reset(&self) -> Result<()> {
        records::reset(&self.files.database(), &self.files.access_log())
    }

    /// Processor time that nginx and PHP have consumed since the start, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.processes()
            .iter()
            .filter_map(|&pid| proc::cpu_s(pid))
            .sum()
    }

    /// Memory of nginx and PHP, pages that several of them share counted once.
    pub fn rss_bytes(&self) -> u64 {
        self.processes()
            .iter()
            .map(|&pid| proc::pss_bytes(pid))
            .sum()
    }

    /// Stops the processes as they are: connections are accepted by the kernel, and nobody answers.
    ///
    /// # Errors
    /// When a process has gone.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When a process has gone.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Ends it and waits until it has gone. Dropping it does the same.
    pub fn stop(self) {
        drop(self);
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        for pid in self.processes() {
            kill(Pid::from_raw(i32::try_from(pid)?), signal)
                .with_context(|| format!("cannot send {signal} to process {pid}"))?;
        }
        Ok(())
    }

    /// nginx and PHP, without the shells that watch them.
    fn processes(&self) -> Vec<u32> {
        let below = [&self.nginx, &self.php_fpm].map(|process| descendants(process.id()));
        let mut found = below.concat();
        found.retain(|&pid| SERVERS.iter().any(|name| proc::is_named(pid, name)));
        found
    }
}

impl From<&RealLaravel> for Endpoint {
    fn from(laravel: &RealLaravel) -> Self {
        laravel.addr.into()
    }
}

fn artisan(tools: &LaravelTools, files: &Files, command: &[&str]) -> Result<()> {
    let output = Command::new(&tools.php)
        .arg(paths::root().join("tests/laravel-app/artisan"))
        .args(command)
        .envs(files.environment())
        .output()
        .context("cannot run php")?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(
        output.status.success(),
        "artisan {} failed: {}",
        command.join(" "),
        String::from_utf8_lossy(&said).trim_end()
    );
    Ok(())
}

/// One GET on a connection of its own, as text.
async fn get(addr: SocketAddr, path: &str) -> Result<String> {
    ask(addr, "GET", path).await
}

/// One request without a body.
async fn ask(addr: SocketAddr, method: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\naccept: application/json\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests;
