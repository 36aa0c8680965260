//! The figures in the README, each from a run.
//!
//! A command that measures leaves its figures in `target/embudo/<name>.json`. `docs/figures/<name>.md` says how the
//! README tells them: a text with places such as `{/direct/gateway_p50_ms: .1}`. What it comes to stands in the README
//! between `<!-- figures: <name> -->` and `<!-- end -->`, so that whoever runs the command again can put its figures
//! there without typing one.

mod place;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::live::paths;

/// One told set of figures.
#[derive(Debug)]
pub struct Told {
    /// The run that it is from: the name of its files.
    pub name: String,
    /// What the README says; none where the run is still to be made.
    pub text: Option<String>,
}

/// All that the README tells, in the order of the names.
///
/// # Errors
/// If a file cannot be read, or a run has no such figure.
pub fn told() -> Result<Vec<Told>> {
    let mut all = Vec::new();
    for name in names(&paths::root().join("docs/figures"))? {
        let template = paths::root().join(format!("docs/figures/{name}.md"));
        let template = read(&template)?.context("a template is gone")?;
        let run = paths::output().join(format!("{name}.json"));
        let text = match read(&run)? {
            None => None,
            Some(json) => {
                let figures: Value = serde_json::from_str(&json)?;
                let text = fill(&template, &figures);
                Some(text.with_context(|| format!("docs/figures/{name}.md"))?)
            }
        };
        all.push(Told { name, text });
    }
    Ok(all)
}

/// Puts them into the README, and returns the names of those that changed it.
///
/// # Errors
/// If the README has no place for one of them, or cannot be written.
pub fn write(all: &[Told]) -> Result<Vec<String>> {
    let file = paths::root().join("README.md");
    let mut readme = read(&file)?.context("README.md is missing")?;
    let mut changed = Vec::new();
    for told in all {
        let Some(text) = &told.text else { continue };
        let new = replaced(&readme, &told.name, text)?;
        if new != readme {
            changed.push(told.name.clone());
        }
        readme = new;
    }
    paths::write_atomically(&file, readme.as_bytes())?;
    Ok(changed)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| paths::short(folder))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".md").map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}

/// `None` where there is no such file.
fn read(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| paths::short(file)),
    }
}

/// The template with its places filled.
fn fill(template: &str, figures: &Value) -> Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (place, after) = after.split_once('}').context("a { without its }")?;
        text.push_str(before);
        text.push_str(&place::filled(place, figures).with_context(|| format!("{{{place}}}"))?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// The document with another text between the marks of this name.
fn replaced(document: &str, name: &str, text: &str) -> Result<String> {
    const END: &str = "<!-- end -->";
    let mark = format!("<!-- figures: {name} -->");
    let found = document.split_once(&mark);
    let found = found.and_then(|(before, after)| Some((before, after.split_once(END)?.1)));
    let Some((before, after)) = found else {
        bail!("README.md has no place for the figures of {name}: {mark} … {END}");
    };
    let text = text.trim_end();
    Ok(format!("{before}{mark}\n{text}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_filled_and_the_rest_stays() {
        let figures = json!({"a": {"b": 7_532.4}, "c": 0.214});
        let text = fill("| {/a/b} | {/c: .2} ms |\n", &figures).expect("fills");
        assert_eq!(text, "| 7,532 | 0.21 ms |\n");
        let error = fill("{/a/c}", &figures).expect_err("there is none");
        assert_eq!(format!("{error:#}"), "{/a/c}: there is no figure /a/c");
        assert!(fill("{/a", &figures).is_err(), "left open");
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let document = "one\n<!-- figures: run -->\nold\n<!-- end -->\ntwo\n<!-- end -->\n";
        let new = replaced(document, "run", "new\n").expect("has a place");
        assert_eq!(
            new,
            "one\n<!-- figures: run -->\nnew\n<!-- end -->\ntwo\n<!-- end -->\n"
        );
        assert!(replaced(document, "bench", "new").is_err(), "no such place");
    }

    /// A guarantee ends with what shows it, in brackets: numbers of invariants, and names of tests and scenarios.
    #[test]
    fn each_guarantee_of_the_readme_names_an_invariant_and_tests_that_are_there() {
        let root = paths::root();
        let readme = read(&root.join("README.md")).expect("reads");
        let readme = readme.expect("is there");
        let section = readme.split("## Guarantees").nth(1).expect("is there");
        let section = section.split("What it does not do:").next();
        let guarantees: Vec<&str> = section.unwrap_or_default().split("\n* ").skip(1).collect();
        assert!(guarantees.len() >= 10, "{}", guarantees.len());
        for guarantee in guarantees {
            let (_, shown) = guarantee.rsplit_once('(').expect(guarantee);
            assert!(shown.starts_with(|c: char| c.is_ascii_digit()), "{shown}");
            let named: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
            assert!(!named.is_empty(), "{shown}");
            for name in named {
                let places = [
                    format!("tests/{name}.rs"),
                    format!("tests/{name}/main.rs"),
                    format!("tests/data/{name}.toml"),
                    format!("filter/core/tests/{name}.rs"),
                ];
                let is_there = places.iter().any(|place| root.join(place).exists());
                assert!(is_there, "{name} is nowhere");
            }
        }
    }

    #[test]
    fn the_readme_has_a_place_for_every_template() {
        let names = names(&paths::root().join("docs/figures")).expect("the folder");
        assert!(names.len() >= 2, "{names:?}");
        let readme = read(&paths::root().join("README.md")).expect("reads");
        let readme = readme.expect("is there");
        for name in names {
            replaced(&readme, &name, "").expect(&name);
        }
    }
}
