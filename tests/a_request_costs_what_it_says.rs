//! Host calls, bytes and allocations of each kind of request, as exact numbers: whoever adds one says so
//! here.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use embudo::live::wasm;
use embudo::sim::{Cost, Counting, Machine};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Request, host calls, buffers that the guest allocates for the host. `embudo cost` shows the calls by
/// name.
const HOST_CALLS: &str = "\
duplicate: 6 host calls, 3 buffers
implied: 6 host calls, 3 buffers
new: 7 host calls, 3 buffers
new, with a ring: 8 host calls, 3 buffers
new, superseding: 8 host calls, 3 buffers
kept read: 5 host calls, 2 buffers
kept read, patched: 5 host calls, 2 buffers
bypassed by its head: 3 host calls, 1 buffers
bypassed by its body: 4 host calls, 2 buffers
untouched: 0 host calls, 0 buffers
";

/// A request's own body and headers, the shard as it is read, and as it is written: nothing twice.
const BYTES_SLACK: u64 = 64;

/// Allocations of the core at most: for each the figure of today and some room for the compiler's library.
const ALLOCATIONS_MAX: u64 = 20;

/// WebAssembly instructions of what most requests are: promised, and the same on every machine. (Before whole updates were
/// compared, and reads believed pair by pair, they were 19,358, 38,500 and 52,821.)
const INSTRUCTIONS_MAX: [(&str, u64); 3] = [
    ("duplicate", 19_500),
    ("new", 40_400),
    ("kept read", 55_400),
];

#[test]
fn a_request_costs_what_it_says() -> Result<()> {
    let machine = Machine::new(&std::fs::read(wasm::module()?)?)?;
    let costs = Cost::all(&machine)?;
    let mut counted = String::new();
    for cost in &costs {
        let (kind, calls, buffers) = (cost.kind, cost.host_calls(), cost.buffers);
        writeln!(counted, "{kind}: {calls} host calls, {buffers} buffers")?;
        // Of a read they are not counted: its buffers and instructions are.
        let is_read = kind.to_string().starts_with("kept");
        let allocations = cost.allocations;
        ensure!(
            is_read || allocations.is_some_and(|count| count <= ALLOCATIONS_MAX),
            "{kind}: {allocations:?} allocations"
        );
    }
    ensure!(
        counted == HOST_CALLS,
        "the count has changed; now it is\n{counted}instead of\n{HOST_CALLS}\
         If that is meant, change it here and in filter/src/stream.rs"
    );
    for (kind, most) in INSTRUCTIONS_MAX {
        let cost = costs.iter().find(|cost| cost.kind.to_string() == kind);
        let instructions = cost.map_or(u64::MAX, |cost| cost.instructions);
        ensure!(
            instructions <= most,
            "{kind}: {instructions} instructions, promised are {most}"
        );
    }
    // A superseding update reads and writes its session once, and what it replaces does not stay.
    let bytes = |kind: &str| costs.iter().find(|cost| cost.kind.to_string() == kind);
    let (new, superseding) = (bytes("new"), bytes("new, superseding"));
    let written = |cost: Option<&Cost>| cost.map_or(0, |cost| cost.bytes_out);
    ensure!(written(superseding) <= written(new) + BYTES_SLACK);
    Ok(())
}
