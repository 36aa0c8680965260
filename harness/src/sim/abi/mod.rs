//! The proxy-wasm ABI, version 0.2.1, and WASI preview 1, as far as the filter's SDK imports them.
//!
//! [`table`] has one row for each host function: its name, its parameters, and the function that does the
//! work on a [`Call`]. What all of them share is here, in one place: the yield before the call takes
//! effect, the injected trap, the bound on host calls, the trace, and the way in which bytes are handed to
//! the guest (by its own allocator, as Envoy does it).
//!
//! Every host call is a point at which the scheduler may let another VM run, or let time pass. The call
//! takes effect *after* the yield, so that a call which never happened and a call whose answer was never
//! used are two different points of a trap.

mod env;
mod maps;
mod memory;
mod table;
mod wasi;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use wasmtime::{Caller, Memory, TypedFunc};

pub(super) use self::maps::Headers;
pub(super) use self::memory::Call;
pub(super) use self::table::{HostFunction, link};
use super::host::Guest;

/// Host calls of one callback after which it counts as endless. A first scan of 64 shards with all their
/// claims needs some hundreds.
pub(super) const HOST_CALLS_MAX: u32 = 20_000;

/// `proxy_result_t`: what proxy-wasm functions return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Status {
    /// No such key, queue or property.
    NotFound = 1,
    /// A cluster that does not exist, a malformed call.
    BadArgument = 2,
    /// A pointer outside the guest's memory.
    InvalidMemoryAccess = 6,
    /// The queue is empty.
    Empty = 7,
    /// Somebody else wrote in between.
    CasMismatch = 8,
    /// No healthy host.
    InternalFailure = 10,
    /// The host has it not.
    Unimplemented = 12,
}

/// What a host function hands back besides its status.
#[derive(Debug)]
pub(super) enum Give {
    /// Nothing.
    Nothing,
    /// Bytes, in memory that the guest allocates: where to write their address and their length.
    Bytes(Vec<u8>, u32, u32),
}

/// Why a host function gives nothing.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A status of proxy-wasm.
    Status(Status),
    /// An `errno` of WASI.
    Errno(i32),
}

/// The result of a host function's body.
pub(super) type Outcome = Result<Give, Refusal>;

/// Why a VM ended that was meant to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InjectedTrap;

/// Pending once, ready ever after.
struct YieldOnce(bool);

// === impl YieldOnce ===

impl Future for YieldOnce {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        match std::mem::replace(&mut self.0, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

// === impl InjectedTrap ===

impl std::fmt::Display for InjectedTrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("injected trap")
    }
}

impl std::error::Error for InjectedTrap {}

// === impl Refusal ===

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// What comes before every host function.
async fn enter(caller: &mut Caller<'_, Guest>, function: HostFunction) -> wasmtime::Result<()> {
    caller.data_mut().about_to_call(function);
    YieldOnce(false).await;
    let guest = caller.data_mut();
    guest.cost.host_calls += 1;
    if guest.trap_at == Some(guest.cost.host_calls) {
        return Err(InjectedTrap.into());
    }
    if guest.cost.host_calls > HOST_CALLS_MAX {
        return Err(wasmtime::format_err!(
            "{HOST_CALLS_MAX} host calls in one callback"
        ));
    }
    Ok(())
}

/// Does the work of one row, and what comes after it.
async fn carry_out(
    caller: &mut Caller<'_, Guest>,
    function: HostFunction,
    work: impl FnOnce(&mut Call<'_>) -> Outcome,
) -> wasmtime::Result<i32> {
    let memory = memory_of(caller)?;
    let (bytes, guest) = memory.data_and_store_mut(&mut *caller);
    let mut call = Call::new(bytes, guest);
    let outcome = work(&mut call);
    let taken = call.taken();
    caller.data_mut().taken(taken);
    let code = match outcome {
        Ok(Give::Nothing) => 0,
        Ok(Give::Bytes(bytes, at, size_at)) => give(caller, memory, &bytes, at, size_at).await?,
        Err(Refusal::Status(status)) => status as i32,
        Err(Refusal::Errno(errno)) => errno,
    };
    caller.data_mut().called(function, code);
    Ok(code)
}

/// Copies `bytes` to where the guest's allocator puts them. An empty answer is a null pointer.
async fn give(
    caller: &mut Caller<'_, Guest>,
    memory: Memory,
    bytes: &[u8],
    at: u32,
    size_at: u32,
) -> wasmtime::Result<i32> {
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let place = match size {
        0 => 0,
        size => {
            let allocate = allocator_of(caller)?;
            allocate.call_async(&mut *caller, size).await?
        }
    };
    let (guest_bytes, guest) = memory.data_and_store_mut(&mut *caller);
    guest.given(bytes.len());
    let mut call = Call::new(guest_bytes, guest);
    let written = call
        .write(place, bytes)
        .and_then(|()| call.write_u32(at, place))
        .and_then(|()| call.write_u32(size_at, size));
    Ok(written.map_or_else(|status| status as i32, |()| 0))
}

fn memory_of(caller: &Caller<'_, Guest>) -> wasmtime::Result<Memory> {
    let memory = caller.data().memory;
    memory.ok_or_else(|| wasmtime::format_err!("the guest exports no memory"))
}

fn allocator_of(caller: &Caller<'_, Guest>) -> wasmtime::Result<TypedFunc<u32, u32>> {
    let allocate = caller.data().allocate.clone();
    allocate.ok_or_else(|| wasmtime::format_err!("the guest exports no proxy_on_memory_allocate"))
}
