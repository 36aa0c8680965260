//! The run folder of a real Laravel: configuration, caches, database, logs.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{Application, RealLaravelOptions};
use crate::live::paths;

/// How much of a log is shown when a start fails.
const LOG_TAIL: usize = 2_000;

/// Names, places and the port of one run.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) run_dir: PathBuf,
    pub(super) addr: SocketAddr,
    /// The socket between nginx and PHP. Its path may have 107 bytes at most, and a run folder's may be longer.
    socket: TempDir,
    application: Application,
    with_package: bool,
    throttle_per_minute: u32,
}

// === impl Files ===

impl Files {
    /// Makes the folder, and takes a free port.
    pub(super) fn new(options: &RealLaravelOptions) -> Result<Self> {
        let files = Self {
            run_dir: paths::new_run(&options.name)?,
            addr: free_port()?,
            socket: tempfile::tempdir().context("cannot make a folder for PHP's socket")?,
            application: options.application,
            with_package: options.with_package,
            throttle_per_minute: options.throttle_per_minute.unwrap_or(0),
        };
        for folder in ["cache", "views", "nginx"] {
            paths::make_dir(&files.run_dir.join(folder))?;
        }
        files.write("database.sqlite", "")?;
        files.write("nginx.conf", &files.nginx_conf())?;
        files.write("php-fpm.conf", &files.fpm_conf(options.workers))?;
        Ok(files)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        paths::write_atomically(&self.run_dir.join(name), text.as_bytes())
    }

    pub(super) fn database(&self) -> PathBuf {
        self.run_dir.join("database.sqlite")
    }

    pub(super) fn access_log(&self) -> PathBuf {
        self.log("access")
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.run_dir.join(format!("{name}.log"))
    }

    /// The end of every log, for a message.
    pub(super) fn logs(&self) -> String {
        let tail = |name: &&str| {
            let text = fs::read_to_string(self.log(name)).unwrap_or_default();
            let from = text.len().saturating_sub(LOG_TAIL);
            let tail = text.get(from..).unwrap_or_default().trim_end().to_owned();
            format!("{name}.log: {tail}")
        };
        let tails: Vec<_> = ["nginx", "php-fpm", "laravel"].iter().map(tail).collect();
        format!("in {}:\n{}", self.run_dir.display(), tails.join("\n"))
    }

    /// What the application asks its environment for, on the command line and in PHP-FPM.
    pub(super) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let file = |name: &str| self.run_dir.join(name).into_os_string();
        vec![
            ("EMBUDO_STORAGE", self.run_dir.clone().into_os_string()),
            ("EMBUDO_APPLICATION", self.application.routes().into()),
            ("EMBUDO_DATABASE", self.database().into_os_string()),
            (
                "EMBUDO_PACKAGE",
                u8::from(self.with_package).to_string().into(),
            ),
            (
                "EMBUDO_THROTTLE",
                self.throttle_per_minute.to_string().into(),
            ),
            ("APP_CONFIG_CACHE", file("cache/config.php")),
            ("APP_ROUTES_CACHE", file("cache/routes.php")),
            ("APP_SERVICES_CACHE", file("cache/services.php")),
            ("APP_PACKAGES_CACHE", file("cache/packages.php")),
        ]
    }

    pub(super) fn fpm_arguments(&self) -> Vec<OsString> {
        let conf = self.run_dir.join("php-fpm.conf").into_os_string();
        let mut args = vec!["--nodaemonize".into(), "--fpm-config".into(), conf];
        if nix::unistd::geteuid().is_root() {
            args.push("--allow-to-run-as-root".into());
        }
        args
    }

    pub(super) fn nginx_arguments(&self) -> Vec<OsString> {
        let conf = self.run_dir.join("nginx.conf").into_os_string();
        vec!["-c".into(), conf, "-e".into(), "stderr".into()]
    }

    fn socket(&self) -> PathBuf {
        self.socket.path().join("php.sock")
    }

    /// A fixed number of processes, as a server that knows its load has it; opcodes are never looked up again.
    fn fpm_conf(&self, workers: usize) -> String {
        format!(
            "[global]\n\
             error_log = /dev/stderr\n\
             [www]\n\
             {user}\
             listen = {socket}\n\
             pm = static\n\
             pm.max_children = {workers}\n\
             clear_env = no\n\
             php_admin_flag[opcache.enable] = on\n\
             php_admin_flag[opcache.validate_timestamps] = off\n",
            // Only root may, and must, say who its processes are.
            user = as_root("user = root\n"),
            socket = self.socket().display(),
        )
    }

    fn nginx_conf(&self) -> String {
        let temporary: String = ["client_body", "fastcgi", "proxy", "scgi", "uwsgi"]
            .map(|what| format!("  {what}_temp_path nginx/{what};\n"))
            .concat();
        format!(
            "daemon off;\n\
             pid nginx/nginx.pid;\n\
             error_log stderr warn;\n\
             worker_processes 1;\n\
             {user}\
             events {{ worker_connections 1024; }}\n\
             http {{\n\
             {temporary}\
             \x20 log_format embudo '$msec $request_method $request_uri $status $content_length';\n\
             \x20 access_log access.log embudo;\n\
             \x20 server {{\n\
             \x20   listen {addr} backlog=511;\n\
             \x20   location / {{\n\
             \x20     fastcgi_pass unix:{socket};\n\
             \x20     fastcgi_param SCRIPT_FILENAME {index};\n\
             \x20     fastcgi_param SCRIPT_NAME /index.php;\n\
             \x20     fastcgi_param DOCUMENT_URI /index.php;\n\
             \x20     fastcgi_param REQUEST_ID $request_id;\n\
             \x20     fastcgi_param REQUEST_METHOD $request_method;\n\
             \x20     fastcgi_param REQUEST_URI $request_uri;\n\
             \x20     fastcgi_param QUERY_STRING $query_string;\n\
             \x20     fastcgi_param CONTENT_TYPE $content_type;\n\
             \x20     fastcgi_param CONTENT_LENGTH $content_length;\n\
             \x20     fastcgi_param SERVER_PROTOCOL $server_protocol;\n\
             \x20     fastcgi_param REMOTE_ADDR $remote_addr;\n\
             \x20     fastcgi_param SERVER_NAME $host;\n\
             \x20     fastcgi_param SERVER_PORT $server_port;\n\
             \x20   }}\n\
             \x20 }}\n\
             }}\n",
            user = as_root("user root;\n"),
            addr = self.addr,
            socket = self.socket().display(),
            index = index().display(),
        )
        // nginx takes relative paths from where it was built to be, and -p would need a slash at its end.
        .replace(" nginx/", &format!(" {}/nginx/", self.run_dir.display()))
        .replace(" access.log", &format!(" {}", self.access_log().display()))
    }
}

fn as_root(line: &'static str) -> &'static str {
    match nix::unistd::geteuid().is_root() {
        true => line,
        false => "",
    }
}

fn index() -> PathBuf {
    paths::root().join(Path::new("tests/laravel-app/public/index.php"))
}

/// A port that is free now. nginx cannot take one that it is handed, so another process may be quicker; then nginx
/// says so and ends.
fn free_port() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    listener.local_addr().context("a listener has no address")
}
