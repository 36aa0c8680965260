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

/// Writes `path` unless it has this content already: what is read by somebody else at this moment is
/// replaced whole, and only when there is a reason to.
///
/// # Errors
/// When the folder is missing or the disk is full.
pub fn update(path: &Path, content: &[u8]) -> Result<()> {
    match fs::read(path) {
        Ok(present) if present == content => Ok(()),
        _ => write_atomically(path, content),
    }
}

/// Fills a folder under a name of its own beside `folder`, and gives it that name once it is whole: nobody finds
/// half an installation. What had the name before goes.
///
/// Callers hold a lock; two that fill one folder at once would only do the work twice.
///
/// # Errors
/// When the filling fails, or a folder cannot be made or renamed.
pub(crate) fn fill(folder: &Path, filling: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let beside = folder.parent().unwrap_or(Path::new("."));
    make_dir(beside)?;
    let new_dir = || tempfile::Builder::new().prefix(".new-").tempdir_in(beside);
    let own = new_dir().with_context(|| format!("cannot make a folder in {}", beside.display()))?;
    // Readable by all, as `make_dir` would have it.
    let rename = || -> std::io::Result<()> {
        fs::set_permissions(own.path(), fs::Permissions::from_mode(0o755))?;
        if folder.exists() {
            // Into a folder that goes at the end of this scope.
            let old = new_dir()?;
            fs::rename(folder, old.path().join("old"))?;
            return fs::rename(own.path(), folder);
        }
        fs::rename(own.path(), folder)
    };
    filling(own.path())?;
    rename().with_context(|| format!("cannot put {} in its place", folder.display()))
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

    #[test]
    fn a_file_that_says_the_same_already_is_left_alone() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("embudo.wasm");
        let inode = || fs::metadata(&path).unwrap().ino();
        update(&path, b"one").unwrap();
        let first = inode();
        update(&path, b"one").unwrap();
        assert_eq!(inode(), first, "a reader keeps the file that it has opened");
        update(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn a_folder_has_its_name_once_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tools").join("envoy");
        let fill_with = |text: &'static str| {
            let place = folder.clone();
            move |own: &Path| -> Result<()> {
                let before = fs::read_to_string(place.join("envoy")).ok();
                fs::write(own.join("envoy"), text)?;
                assert_eq!(
                    fs::read_to_string(place.join("envoy")).ok(),
                    before,
                    "what is being made is not to be found yet"
                );
                Ok(())
            }
        };
        fill(&folder, fill_with("one")).unwrap();
        assert_eq!(fs::read(folder.join("envoy")).unwrap(), b"one");
        fill(&folder, |_| anyhow::bail!("no network")).unwrap_err();
        assert_eq!(
            fs::read(folder.join("envoy")).unwrap(),
            b"one",
            "a failure takes nothing away"
        );
        fill(&folder, fill_with("two")).unwrap();
        assert_eq!(fs::read(folder.join("envoy")).unwrap(), b"two");
        let beside = fs::read_dir(dir.path().join("tools")).unwrap().count();
        assert_eq!(beside, 1, "no folder stays behind");
    }
}
