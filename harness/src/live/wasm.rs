//! The production module, built and put where Envoy reads it.
//!
//! A test that needs a `.wasm` somebody built before tests yesterday's filter. So every process
//! that starts an Envoy asks cargo first; when nothing has changed, that takes a fifth of a second.
//! `EMBUDO_WASM` names a module that is already built (a release, say), and then nothing is built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

use super::paths;

/// Where the filter runs: WASI preview 1, which is what Envoy's V8 host implements for Rust.
const TARGET: &str = "wasm32-wasip1";

/// Returns the path of the module, building it if this process has not yet done so.
///
/// # Errors
/// When `EMBUDO_WASM` names no file, or when the build fails: then with the compiler's own words.
pub fn module() -> Result<PathBuf> {
    static MODULE: Mutex<Option<PathBuf>> = Mutex::new(None);
    once(&MODULE, || {
        match env::var_os("EMBUDO_WASM").filter(|p| !p.is_empty()) {
            Some(path) => prebuilt(Path::new(&path)),
            None => installed("embudo-filter", "embudo.wasm"),
        }
    })
}

/// Returns the path of the floor, the module that Embudo's cost is measured against.
///
/// # Errors
/// When the build fails: then with the compiler's own words.
pub fn floor() -> Result<PathBuf> {
    static FLOOR: Mutex<Option<PathBuf>> = Mutex::new(None);
    once(&FLOOR, || installed("embudo-floor", "floor.wasm"))
}

/// Returns the path of the module that can be broken on purpose, by the rule that its configuration names.
///
/// # Errors
/// When the build fails: then with the compiler's own words.
pub fn sabotaged() -> Result<PathBuf> {
    static SABOTAGED: Mutex<Option<PathBuf>> = Mutex::new(None);
    once(&SABOTAGED, || {
        let path = paths::output().join("sabotaged.wasm");
        let _lock = paths::lock(&paths::output().join("sabotaged.lock"))?;
        // Beside the one that ships: the two would take turns in one folder.
        let target = paths::root().join("target/sabotage");
        let target = target.to_str().context("a folder's name is no UTF-8")?;
        let more = ["--features", "sabotage", "--target-dir", target];
        install(&build("embudo-filter", &more)?, &path)?;
        Ok(path)
    })
}

/// Returns the path of the probe, the module that asks Envoy and the simulation's host the same.
///
/// # Errors
/// When the build fails: then with the compiler's own words.
pub fn probe() -> Result<PathBuf> {
    static PROBE: Mutex<Option<PathBuf>> = Mutex::new(None);
    once(&PROBE, || installed("embudo-probe", "probe.wasm"))
}

/// What is in `place`, or else what `make` puts there.
fn once(place: &Mutex<Option<PathBuf>>, make: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    let mut place = place
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = &*place {
        return Ok(path.clone());
    }
    Ok(place.insert(make()?).clone())
}

/// Builds a package, and puts its module where Envoy reads it, as `name`.
fn installed(package: &str, name: &str) -> Result<PathBuf> {
    let path = paths::output().join(name);
    // Between processes: one of them must not read the module while another one replaces it.
    let _lock = paths::lock(&paths::output().join("wasm.lock"))?;
    install(&build(package, &[])?, &path)?;
    Ok(path)
}

fn prebuilt(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| {
        format!(
            "EMBUDO_WASM names {}, and there is no such file",
            path.display()
        )
    })
}

/// Builds a module and returns where cargo put it, which `CARGO_TARGET_DIR` may move.
fn build(package: &str, more: &[&str]) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(paths::root())
        .args([
            "build",
            "--package",
            package,
            "--profile",
            "wasm",
            "--target",
            TARGET,
        ])
        .args(more)
        .arg("--message-format=json-render-diagnostics")
        .output()
        .with_context(|| format!("cannot run cargo to build {package}"))?;
    if !output.status.success() {
        bail!(
            "{package} does not build for {TARGET} (if the target is missing: \
             rustup target add {TARGET})\n{}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    artifact(&String::from_utf8_lossy(&output.stdout), package)
        .with_context(|| format!("cargo built {package} but named no .wasm for it"))
}

/// Finds the module among cargo's messages, one JSON object a line.
fn artifact(messages: &str, package: &str) -> Option<PathBuf> {
    let target = package.replace('-', "_");
    let wasm = |message: serde_json::Value| {
        let files = message.get("filenames")?.as_array()?.clone();
        (message.pointer("/target/name")? == target.as_str()).then_some(())?;
        files
            .iter()
            .filter_map(|f| f.as_str())
            .find(|f| f.ends_with(".wasm"))
            .map(PathBuf::from)
    };
    messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .find_map(wasm)
}

/// Puts `built` at `path`, unless the same bytes are there: an Envoy may be about to read it.
fn install(built: &Path, path: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    paths::update(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_among_the_messages_of_cargo() {
        let messages = r#"
            {"reason":"compiler-artifact","target":{"name":"embudo_core"},"filenames":["/t/libembudo_core.rlib"]}
            {"reason":"compiler-artifact","target":{"name":"embudo_filter"},"filenames":["/t/wasm/embudo_filter.wasm"]}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(
            artifact(messages, "embudo-filter"),
            Some(PathBuf::from("/t/wasm/embudo_filter.wasm"))
        );
        assert_eq!(artifact("not json\n", "embudo-filter"), None);
    }

    #[test]
    fn a_prebuilt_module_that_is_not_there_is_named() {
        let text = format!(
            "{:#}",
            prebuilt(Path::new("/nowhere/embudo.wasm")).unwrap_err()
        );
        assert!(
            text.contains("EMBUDO_WASM names /nowhere/embudo.wasm"),
            "{text}"
        );
    }
}
