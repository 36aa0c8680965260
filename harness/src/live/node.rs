//! Node programs of this project, with what they need from npm.
//!
//! A program is a folder with a `package.json`, its lock file and its modules. It is copied below
//! `target/embudo/node/` and runs from there, since Node looks for `node_modules` beside a module and nothing may
//! be installed among the sources. Installing takes some seconds, once for each lock file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{paths, tools};

/// What npm installs from; a copy beside what it made says that it came to its end.
const LOCK: &str = "package-lock.json";

/// Makes the program in `folder`, relative to the project's root, ready, and gives the folder to run it in.
///
/// # Errors
/// When npm is missing or cannot install: with the command to try.
pub fn ready(folder: &str) -> Result<PathBuf> {
    let source = paths::root().join(folder);
    let copy = paths::output().join("node").join(folder.replace('/', "-"));
    paths::make_dir(&copy)?;
    let _lock = paths::lock(&copy.with_extension("lock"))?;
    let installed = copy.join("node_modules").join(".installed");
    let lock = fs::read(source.join(LOCK)).with_context(|| format!("{folder} has no {LOCK}"))?;
    copy_files(&source, &copy)?;
    if fs::read(&installed).ok().as_ref() != Some(&lock) {
        install(&copy)?;
        paths::write_atomically(&installed, &lock)?;
    }
    Ok(copy)
}

fn copy_files(source: &Path, copy: &Path) -> Result<()> {
    let copied = || -> std::io::Result<()> {
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), copy.join(entry.file_name()))?;
            }
        }
        Ok(())
    };
    copied().with_context(|| format!("cannot copy {}", source.display()))
}

fn install(folder: &Path) -> Result<()> {
    let args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    let by_hand = format!("cd {} && npm {}", folder.display(), args.join(" "));
    let mut npm = Command::new("npm");
    npm.args(args).current_dir(folder);
    eprintln!("installing what it needs from npm (once): {by_hand}");
    tools::run_installer(npm, "a Node program", "Node 20 with npm", &by_hand)
}
