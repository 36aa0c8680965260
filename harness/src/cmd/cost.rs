//! `embudo cost`: what one request costs, by kind.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use embudo::sim::Cost;

use super::fuzz::machine;

/// Count what one request costs, by kind
///
/// Host calls by name, bytes copied in and out of the VM, allocations and instructions: counted in the
/// module that ships, and so the same on every machine.
#[derive(Args, Debug)]
pub(crate) struct CostArguments {
    /// A module other than the one that is built here
    #[arg(long)]
    module: Option<PathBuf>,
}

pub(crate) async fn run(arguments: CostArguments) -> Result<()> {
    tokio::task::spawn_blocking(move || run_here(&arguments)).await?
}

fn run_here(arguments: &CostArguments) -> Result<()> {
    let costs = Cost::all(&machine(arguments.module.as_ref())?)?;
    println!(
        "{:<22}{:>11}{:>10}{:>11}{:>9}{:>13}{:>14}",
        "request", "host calls", "bytes in", "bytes out", "buffers", "allocations", "instructions"
    );
    for cost in &costs {
        let allocations = cost.allocations.map_or("?".to_owned(), |n| n.to_string());
        println!(
            "{:<22}{:>11}{:>10}{:>11}{:>9}{allocations:>13}{:>14}",
            cost.kind.to_string(),
            cost.host_calls(),
            cost.bytes_in,
            cost.bytes_out,
            cost.buffers,
            cost.instructions
        );
    }
    for cost in &costs {
        println!("\n{}", cost.kind);
        for (name, count) in &cost.calls {
            println!("{count:>4}  {name}");
        }
    }
    println!(
        "\nbuffers: allocated by the guest for what the host hands over; allocations: of the core, natively"
    );
    Ok(())
}
