//! Where the harness reads and writes.
//!
//! Everything it writes is below `target/embudo/` (`make clean` takes it away) or `.tools/` (kept,
//! since it is downloaded); nothing goes to the home directory or to the system.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The root of the project: the directory of `envoy.yaml`.
///
/// Fixed when the harness is compiled, so tests and commands work from any directory.
pub fn root() -> &'static Path {
    let harness = Path::new(env!("CARGO_MANIFEST_DIR"));
    harness.parent().unwrap_or(harness)
}

/// A file's name as a person would type it in the project's folder.
pub fn short(file: &Path) -> String {
    let short = file.strip_prefix(root()).unwrap_or(file);
    short.display().to_string()
}

/// Tools installed for this project only.
pub fn tools() -> PathBuf {
    root().join(".tools")
}

/// What the harness produces: the module under its final name, run folders, `run.json`.
pub fn output() -> PathBuf {
    root().join("target").join("embudo")
}

/// Makes a new folder for one run of Envoy: `target/embudo/runs/<name>-<random>/`.
///
/// It is kept after the run: its logs are what one reads when a test has failed.
///
/// # Errors
/// When the folder cannot be made.
pub fn new_run(name: &str) -> Result<PathBuf> {
    let runs = output().join("runs");
    make_dir(&runs)?;
    let dir = tempfile::Builder::new()
        .prefix(&format!("{name}-"))
        .tempdir_in(&runs)
        .with_context(|| format!("cannot make a run folder in {}", runs.display()))?;
    Ok(dir.keep())
}

/// Makes `dir` and its parents.
pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))
}

/// Writes `path` so that a reader, or Envoy's watcher, sees the old content or the new one, never a
/// part.
///
/// Envoy's `watched_directory` reacts to a move into the directory, and to nothing else.
///
/// # Errors
/// When the folder is missing or the disk is full.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        // Readable by all, as an ordinary file is: a container may run under another user.
        let readable = fs::Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new()
            .permissions(readable)
            .tempfile_in(dir)?;
        std::io::Write::write_all(&mut file, content)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Holds a lock between processes until the returned file is dropped (or its process is gone).
///
/// Several test processes start at once; each of them may find that a tool or the module is
/// missing.
pub(crate) fn lock(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    let take = || -> std::io::Result<File> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        file.lock()?;
        Ok(file)
    };
    take().with_context(|| format!("cannot lock {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_where_envoy_yaml_is() {
        assert!(root().join("envoy.yaml").is_file());
    }

    #[test]
    fn two_runs_of_one_name_have_folders_of_their_own() {
        let (a, b) = (new_run("paths").unwrap(), new_run("paths").unwrap());
        assert_ne!(a, b);
        fs::remove_dir(a).unwrap();
        fs::remove_dir(b).unwrap();
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lds.json");
        write_atomically(&path, b"a longer first version").unwrap();
        write_atomically(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file stays behind"
        );
    }
}
