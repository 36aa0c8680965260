//! Configurations with mistakes in them, and what `embudo check` says of each: all of it, at its place.
//!
//! `broken/<name>.json` is the configuration, `broken/<name>.txt` the answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn broken() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut files: Vec<PathBuf> = fs::read_dir(&dir)
        .expect("the folder of broken configurations")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    files
}

#[test]
fn each_broken_configuration_is_refused_with_every_problem_at_its_place() {
    let files = broken();
    assert!(files.len() >= 26, "there are more: {}", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let output = Command::new(env!("CARGO_BIN_EXE_embudo"))
            .arg("check")
            .arg(file.file_name().expect("a file has a name"))
            .current_dir(file.parent().expect("a file is in a folder"))
            .output()
            .expect("the command runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let expected = fs::read_to_string(file.with_extension("txt")).unwrap_or_default();
        if said != expected || output.status.code() != Some(1) {
            let (name, status) = (file.display(), output.status);
            wrong.push(format!(
                "{name} ({status})\nsays:\n{said}\nmust say:\n{expected}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
