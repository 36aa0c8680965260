//! `embudo report`: pictures of what was measured.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use embudo::report;

/// Draw what was measured: target/embudo/report.html, from the figures beside it
///
/// `run`, `chaos` and others leave their figures in target/embudo/; the page shows whichever are there. It is one file
/// that needs nothing else.
#[derive(Args, Debug)]
pub(crate) struct ReportArguments {
    /// Write the requests that reach Laravel as a picture of its own, and no page
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(crate) fn run(arguments: &ReportArguments) -> Result<()> {
    let file = match &arguments.svg {
        Some(file) => {
            report::write_requests_svg(file)?;
            file.clone()
        }
        None => report::write()?
            .context("there is nothing to show yet: `make run` measures something")?,
    };
    println!("The picture is in {}.", file.display());
    Ok(())
}
