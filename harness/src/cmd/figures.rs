//! `embudo figures`: what the README says was measured.

use anyhow::Result;
use clap::Args;
use embudo::figures;

/// Print the README's figures, from the last runs
///
/// Each command that measures leaves its figures in target/embudo/. What the README makes of them is in docs/figures/.
#[derive(Args, Debug)]
pub(crate) struct FiguresArguments {
    /// Put them into README.md
    #[arg(long)]
    write: bool,
}

pub(crate) fn run(arguments: &FiguresArguments) -> Result<()> {
    let all = figures::told()?;
    for told in &all {
        match &told.text {
            Some(text) => println!("## {}\n\n{text}", told.name),
            None => println!(
                "## {}\n\nnot measured here: target/embudo/{0}.json is missing\n",
                told.name
            ),
        }
    }
    if arguments.write {
        match figures::write(&all)?.join(", ") {
            changed if changed.is_empty() => println!("README.md says so already."),
            changed => println!("README.md is up to date now: {changed}."),
        }
    }
    Ok(())
}
