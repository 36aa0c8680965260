//! What the SDK does not offer, or dearly: clocks, a request's headers and randomness.

use embudo_core::headers::{Header, encode};
use embudo_core::time::Now;
use log::warn;
use proxy_wasm::hostcalls;
use std::time::UNIX_EPOCH;

/// How far the wall clock is ahead of the monotonic one, milliseconds, as a root has last seen it.
///
/// A clock is a host call of 0.2 to 0.3 µs, and a request's wall time only becomes its item's `timestamp`: so the
/// root looks, at each of its ticks, and requests read one clock only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallOffset(u64);

/// The host's monotonic clock, the same for all threads of the process.
///
/// `std::time::Instant` reads it too, but will not say what it reads, and the store needs a number that
/// another VM understands.
#[cfg(target_os = "wasi")]
#[expect(
    unsafe_code,
    reason = "the WASI call has no safe wrapper; it only reads a clock"
)]
pub(crate) fn mono_ms() -> u64 {
    // SAFETY: takes two numbers and returns one; no memory is shared with the host.
    let ns = unsafe { wasip1::clock_time_get(wasip1::CLOCKID_MONOTONIC, 1) }.unwrap_or(0);
    ns / 1_000_000
}

/// So that the crate also builds where there is no host, for lints and documentation.
#[cfg(not(target_os = "wasi"))]
pub(crate) fn mono_ms() -> u64 {
    0
}

/// The request's headers, in one buffer that [`embudo_core::headers`] reads: the SDK would make two allocations
/// of each header.
pub(crate) fn request_headers() -> Vec<u8> {
    headers(proxy_wasm::types::MapType::HttpRequestHeaders)
}

/// The answer's.
pub(crate) fn response_headers() -> Vec<u8> {
    headers(proxy_wasm::types::MapType::HttpResponseHeaders)
}

/// One of the host's maps, whole.
#[cfg(target_os = "wasi")]
#[expect(
    unsafe_code,
    reason = "the SDK keeps the host's buffer to itself; this is its own call, and the buffer is taken as it takes it"
)]
fn headers(map: proxy_wasm::types::MapType) -> Vec<u8> {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    }
    let mut data = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: the host writes to these two places only.
    let status = unsafe { proxy_get_header_map_pairs(map as u32, &mut data, &mut size) };
    if status != 0 || data.is_null() {
        return Vec::new();
    }
    // SAFETY: the host got the buffer from `proxy_on_memory_allocate`, which makes a boxed slice of this size with
    // the global allocator, filled it, and has given it to us.
    unsafe { Vec::from_raw_parts(data, size, size) }
}

/// See [`mono_ms`].
#[cfg(not(target_os = "wasi"))]
fn headers(_: proxy_wasm::types::MapType) -> Vec<u8> {
    Vec::new()
}

/// Answers the stream whose context is in effect; false where the host has none. The SDK would make a string of
/// each part of each header, and a panic of a refusal.
#[cfg(target_os = "wasi")]
#[expect(
    unsafe_code,
    reason = "the SDK's own call, without what it does before"
)]
pub(crate) fn answer(status: u16, headers: &[Header<'_>], body: &[u8]) -> bool {
    use std::ptr::null;

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
    }
    let headers = encode(headers);
    // SAFETY: the host reads these two, in their lengths, before it returns.
    let refusal = unsafe {
        proxy_send_local_response(
            u32::from(status),
            null(),
            0,
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    };
    refusal == 0
}

/// See [`mono_ms`].
#[cfg(not(target_os = "wasi"))]
pub(crate) fn answer(_: u16, headers: &[Header<'_>], _: &[u8]) -> bool {
    !encode(headers).is_empty()
}

/// A property of the stream whose context is in effect; `None` where there is none.
pub(crate) fn property(path: &[&str]) -> Option<Vec<u8>> {
    hostcalls::get_property(path.to_vec()).ok().flatten()
}

/// Random bytes; Envoy's are from a good source.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        // Predictable hashes are a weakness, no failure: go on, and say so.
        warn!("no randomness from the host ({error}): hashes are predictable");
    }
    bytes
}

// === impl WallOffset ===

impl WallOffset {
    /// Reads both clocks.
    pub(crate) fn look() -> Self {
        let wall = hostcalls::get_current_time().unwrap_or(UNIX_EPOCH);
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = since.as_secs().saturating_mul(1_000);
        let wall_ms = ms.saturating_add(u64::from(since.subsec_millis()));
        Self(wall_ms.wrapping_sub(mono_ms()))
    }

    /// Both clocks; one host call.
    pub(crate) fn now(self) -> Now {
        let mono_ms = mono_ms();
        Now {
            mono_ms,
            wall_ms: mono_ms.wrapping_add(self.0),
        }
    }
}
