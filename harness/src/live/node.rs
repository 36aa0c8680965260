//! Node programs of this project, with what they need from npm.
//!
//! A program is a folder with a `package.json`, its lock file and its modules. It is copied below
//! `target/embudo/node/` and runs from there, since Node looks for `node_modules` beside a module and nothing may
//! be installed among the sources. Installing takes some seconds, once for each lock file.
//!
//! A Node may be reading the copy while another process asks for it: the folder gets its name when it is whole, a
//! lock file of other content gets a folder of its own, and a module is replaced whole, where it differs.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{paths, tools};

/// What npm installs from.
const LOCK: &str = "package-lock.json";

/// Makes the program in `folder`, relative to the project's root, ready, and gives the folder to run it in.
///
/// # Errors
/// When npm is missing or cannot install: with the command to try.
pub fn ready(folder: &str) -> Result<PathBuf> {
    let copies = paths::output().join("node");
    let name = folder.replace('/', "-");
    ready_at(&paths::root().join(folder), &copies.join(name), install)
}

/// The same for any folder: the copy's name is `copy` and a number for the lock file's content.
fn ready_at(
    source: &Path,
    copy: &Path,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let lock = fs::read(source.join(LOCK))
        .with_context(|| format!("{} has no {LOCK}", source.display()))?;
    let mut hasher = DefaultHasher::new();
    lock.hash(&mut hasher);
    let mut name = copy.as_os_str().to_owned();
    name.push(format!("-{:08x}", hasher.finish() >> 32));
    let copy = PathBuf::from(name);
    let _lock = paths::lock(&copy.with_extension("lock"))?;
    if copy.is_dir() {
        copy_files(source, &copy)?;
    } else {
        paths::fill(&copy, |own| {
            copy_files(source, own)?;
            install(own)
        })?;
    }
    Ok(copy)
}

fn copy_files(source: &Path, copy: &Path) -> Result<()> {
    let copied = || -> Result<()> {
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                paths::update(&copy.join(entry.file_name()), &fs::read(entry.path())?)?;
            }
        }
        Ok(())
    };
    copied().with_context(|| format!("cannot copy {}", source.display()))
}

fn install(folder: &Path) -> Result<()> {
    let args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    let by_hand = format!("npm {}", args.join(" "));
    let mut npm = Command::new("npm");
    npm.args(args).current_dir(folder);
    eprintln!("installing what a Node program needs from npm (once): {by_hand}");
    tools::run_installer(npm, "a Node program", "Node 20 with npm", &by_hand)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    /// As often as `ready` is asked beside a reader.
    const ROUNDS: usize = 400;

    /// A program's sources: long enough that half of a file would be seen.
    fn sources(dir: &Path, version: &str) {
        fs::create_dir_all(dir).unwrap();
        let long = version.repeat(100_000);
        for (name, text) in [
            ("package.json", &*long),
            ("main.mjs", &*long),
            (LOCK, "the same lock"),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
    }

    fn no_npm(folder: &Path) -> Result<()> {
        fs::create_dir(folder.join("node_modules"))?;
        Ok(())
    }

    #[test]
    fn whoever_reads_a_program_while_others_make_it_ready_reads_it_whole() {
        let dir = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| dir.path().join(name));
        sources(&old, "o");
        sources(&new, "n");
        let copy = dir.path().join("copy");
        let folder = ready_at(&old, &copy, no_npm).unwrap();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut torn = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    for name in ["package.json", "main.mjs"] {
                        let text = fs::read(folder.join(name)).unwrap_or_default();
                        let whole = text.len() == 100_000 && text.iter().all(|b| *b == text[0]);
                        if !whole {
                            torn.push((name, text.len()));
                        }
                    }
                }
                torn
            });
            for round in 0..ROUNDS {
                // Mostly what is there already; now and then a module that was edited.
                let source = if round % 100 == 99 { &new } else { &old };
                assert_eq!(ready_at(source, &copy, no_npm).unwrap(), folder);
            }
            is_over.store(true, Ordering::Relaxed);
            let torn = reader.join().unwrap();
            assert!(torn.is_empty(), "{} torn reads: {:?}", torn.len(), torn[0]);
        });
    }

    #[test]
    fn another_lock_file_gets_a_folder_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        sources(&source, "a");
        let copy = dir.path().join("copy");
        let first = ready_at(&source, &copy, no_npm).unwrap();
        fs::write(source.join(LOCK), "another lock").unwrap();
        let second = ready_at(&source, &copy, no_npm).unwrap();
        assert_ne!(first, second);
        assert!(
            first.join("node_modules").is_dir(),
            "a Node that runs there goes on finding its modules"
        );
    }

    #[test]
    fn what_could_not_be_installed_is_installed_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        sources(&source, "a");
        let copy = dir.path().join("copy");
        ready_at(&source, &copy, |_| anyhow::bail!("no network")).unwrap_err();
        let folder = ready_at(&source, &copy, no_npm).unwrap();
        assert!(folder.join("node_modules").is_dir());
    }
}
