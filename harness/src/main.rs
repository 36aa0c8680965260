//! The command `embudo`.

mod cmd;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

/// `embudo cost` wants to know; a count costs a nanosecond.
#[global_allocator]
static ALLOCATOR: embudo::sim::Counting = embudo::sim::Counting;

/// How long a build or an installation that was interrupted may take to notice.
const UNWIND_MAX: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments = cmd::Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    // An interrupted command is dropped here, and what it started ends with it.
    let code = runtime.block_on(arguments.run());
    runtime.shutdown_timeout(UNWIND_MAX);
    code
}
