//! The subcommands, one file each.
//!
//! Exit codes: 0 when all went well, 1 when something did not, 2 for wrong arguments (clap's own),
//! 130 when it was interrupted before its end. Whatever a command started ends with it.

mod arm;
mod bench;
mod chaos;
mod check;
mod compare;
mod cost;
mod drain;
mod figures;
mod front;
mod full_stack;
mod fuzz;
mod given_up;
mod laravel;
mod load;
mod peers;
mod progress;
mod report;
mod scenario;
mod sim;
mod sizes;
mod summary;
mod table;
mod tools;
mod top;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// What a filter's configuration is, to arrive as text.
const STRING_VALUE: &str = "type.googleapis.com/google.protobuf.StringValue";

/// What a shell reports for a process that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Embudo collapses and batches a WhatsApp gateway's calls to Laravel, inside Envoy.
///
/// This command runs it in a real Envoy, on your machine: in front of a stand-in Laravel to see
/// what it does, or in front of your own.
#[derive(Debug, Parser)]
#[command(
    name = "embudo",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(front::RunArguments),
    Load(load::LoadArguments),
    Check(check::CheckArguments),
    Laravel(laravel::LaravelArguments),
    Sim(sim::SimArguments),
    Scenario(scenario::ScenarioArguments),
    FullStack(full_stack::FullStackArguments),
    GivenUp(given_up::GivenUpArguments),
    Chaos(chaos::ChaosArguments),
    Peers(peers::PeersArguments),
    Fuzz(fuzz::FuzzArguments),
    Cost(cost::CostArguments),
    Bench(bench::BenchArguments),
    Report(report::ReportArguments),
    Figures(figures::FiguresArguments),
    Top(top::TopArguments),
    Drain(drain::DrainArguments),
    Tools(tools::ToolsArguments),
}

// === impl Arguments ===

impl Arguments {
    /// Runs the command to its end, or until Ctrl-C or SIGTERM.
    pub(crate) async fn run(self) -> ExitCode {
        let ended = match self.command {
            // These two go on until they are told to stop; that is their proper end.
            Command::Run(run) if run.fronts_a_laravel() => Some(front::run(run).await),
            Command::Laravel(laravel) => Some(laravel::run(laravel).await),
            Command::Run(run) if run.compares_sizes() => unless_interrupted(sizes::run(run)).await,
            Command::Run(run) => unless_interrupted(compare::run(run)).await,
            Command::Load(load) => unless_interrupted(load::run(load)).await,
            Command::Sim(sim) => unless_interrupted(sim::run(sim)).await,
            Command::Scenario(scenario) => unless_interrupted(scenario::run(scenario)).await,
            Command::FullStack(stack) => unless_interrupted(full_stack::run(stack)).await,
            Command::GivenUp(given_up) => unless_interrupted(given_up::run(given_up)).await,
            Command::Chaos(chaos) => unless_interrupted(chaos::run(chaos)).await,
            Command::Peers(peers) => unless_interrupted(peers::run(peers)).await,
            Command::Fuzz(fuzz) => unless_interrupted(fuzz::run(fuzz)).await,
            Command::Cost(cost) => unless_interrupted(cost::run(cost)).await,
            Command::Bench(bench) => unless_interrupted(bench::run(bench)).await,
            Command::Top(top) => unless_interrupted(top::run(top)).await,
            Command::Drain(drain) => unless_interrupted(drain::run(drain)).await,
            Command::Tools(tools) => unless_interrupted(tools::run(tools)).await,
            Command::Check(check) => Some(check::run(&check)),
            Command::Report(report) => Some(report::run(&report)),
            Command::Figures(figures) => Some(figures::run(&figures)),
        };
        match ended {
            Some(Ok(())) => ExitCode::SUCCESS,
            Some(Err(error)) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
            None => {
                eprintln!("interrupted");
                ExitCode::from(INTERRUPTED)
            }
        }
    }
}

/// Does the work, or drops it in the middle: `None`.
async fn unless_interrupted(work: impl Future<Output = Result<()>>) -> Option<Result<()>> {
    tokio::select! {
        result = work => Some(result),
        () = interrupted() => None,
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() {
    let (int, term) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Ok(mut int), Ok(mut term)) = (int, term) else {
        // Without handlers the signals end the process, which is what they are for.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
