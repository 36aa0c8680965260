//! The host functions, raw: a status and what came with it. The SDK turns what it does not expect into a panic, and
//! here the odd answers are what is asked for.
#![expect(unsafe_code, reason = "each status is to be read as it is")]

use std::ptr::{null, null_mut};

unsafe extern "C" {
    fn proxy_log(level: u32, data: *const u8, size: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        size: usize,
        at: *mut *mut u8,
        size_at: *mut usize,
    ) -> u32;
    fn proxy_get_buffer_bytes(
        kind: u32,
        start: usize,
        max: usize,
        at: *mut *mut u8,
        size_at: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        kind: u32,
        start: usize,
        size: usize,
        data: *const u8,
        data_size: usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(kind: u32, at: *mut *mut u8, size_at: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        kind: u32,
        name: *const u8,
        name_size: usize,
        at: *mut *mut u8,
        size_at: *mut usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        kind: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        kind: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(kind: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        at: *mut *mut u8,
        size_at: *mut usize,
        token: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        token: u32,
    ) -> u32;
    fn proxy_register_shared_queue(name: *const u8, size: usize, at: *mut u32) -> u32;
    fn proxy_resolve_shared_queue(
        vm: *const u8,
        vm_size: usize,
        name: *const u8,
        size: usize,
        at: *mut u32,
    ) -> u32;
    fn proxy_enqueue_shared_queue(queue: u32, value: *const u8, size: usize) -> u32;
    fn proxy_dequeue_shared_queue(queue: u32, at: *mut *mut u8, size_at: *mut usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, size: usize, at: *mut u32) -> u32;
    fn proxy_record_metric(metric: u32, value: u64) -> u32;
    fn proxy_increment_metric(metric: u32, by: i64) -> u32;
    fn proxy_set_tick_period_milliseconds(ms: u32) -> u32;
    fn proxy_get_current_time_nanoseconds(at: *mut u64) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_continue_stream(kind: u32) -> u32;
    fn proxy_done() -> u32;
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
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
}

/// A status, and the bytes that came with it.
pub(crate) struct Given {
    pub(crate) status: u32,
    pub(crate) bytes: Option<Vec<u8>>,
}

fn given(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Given {
    let (mut data, mut size) = (null_mut(), 0);
    let status = call(&raw mut data, &raw mut size);
    if data.is_null() {
        return Given {
            status,
            bytes: None,
        };
    }
    // SAFETY: the host got the buffer from `proxy_on_memory_allocate`, which makes one of this size with the global
    // allocator, filled it, and has given it to us.
    let bytes = unsafe { Vec::from_raw_parts(data, size, size) };
    Given {
        status,
        bytes: Some(bytes),
    }
}

fn number(call: impl FnOnce(*mut u32) -> u32) -> (u32, u32) {
    let mut number = 0;
    let status = call(&raw mut number);
    (status, number)
}

/// Pairs as the ABI has them.
pub(crate) fn map(pairs: &[(&str, &[u8])]) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Vec::from(length(pairs.len()));
    for (name, value) in pairs {
        out.extend_from_slice(&length(name.len()));
        out.extend_from_slice(&length(value.len()));
    }
    for (name, value) in pairs {
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

// SAFETY of all below: each pointer is of a slice or a variable that lives through the call, with its own length.

pub(crate) fn log(level: u32, line: &str) -> u32 {
    unsafe { proxy_log(level, line.as_ptr(), line.len()) }
}

pub(crate) fn property(path: &str) -> Given {
    given(|at, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), at, size) })
}

pub(crate) fn buffer(kind: u32, start: usize, max: usize) -> Given {
    given(|at, size| unsafe { proxy_get_buffer_bytes(kind, start, max, at, size) })
}

pub(crate) fn set_buffer(kind: u32, start: usize, size: usize, data: &[u8]) -> u32 {
    unsafe { proxy_set_buffer_bytes(kind, start, size, data.as_ptr(), data.len()) }
}

pub(crate) fn headers(kind: u32) -> Given {
    given(|at, size| unsafe { proxy_get_header_map_pairs(kind, at, size) })
}

pub(crate) fn header(kind: u32, name: &str) -> Given {
    given(|at, size| unsafe {
        proxy_get_header_map_value(kind, name.as_ptr(), name.len(), at, size)
    })
}

pub(crate) fn replace(kind: u32, name: &str, value: &[u8]) -> u32 {
    let (n, v) = (name, value);
    unsafe { proxy_replace_header_map_value(kind, n.as_ptr(), n.len(), v.as_ptr(), v.len()) }
}

pub(crate) fn add(kind: u32, name: &str, value: &[u8]) -> u32 {
    let (n, v) = (name, value);
    unsafe { proxy_add_header_map_value(kind, n.as_ptr(), n.len(), v.as_ptr(), v.len()) }
}

pub(crate) fn remove(kind: u32, name: &str) -> u32 {
    unsafe { proxy_remove_header_map_value(kind, name.as_ptr(), name.len()) }
}

/// With the token.
pub(crate) fn shared(key: &str) -> (Given, u32) {
    let mut token = 0;
    let it = given(|at, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), at, size, &raw mut token)
    });
    (it, token)
}

pub(crate) fn set_shared(key: &str, value: Option<&[u8]>, token: u32) -> u32 {
    let (at, size) = value.map_or((null(), 0), |value| (value.as_ptr(), value.len()));
    unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), at, size, token) }
}

pub(crate) fn register_queue(name: &str) -> (u32, u32) {
    number(|at| unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), at) })
}

pub(crate) fn resolve_queue(vm: &str, name: &str) -> (u32, u32) {
    number(|at| unsafe {
        proxy_resolve_shared_queue(vm.as_ptr(), vm.len(), name.as_ptr(), name.len(), at)
    })
}

pub(crate) fn enqueue(queue: u32, value: &[u8]) -> u32 {
    unsafe { proxy_enqueue_shared_queue(queue, value.as_ptr(), value.len()) }
}

pub(crate) fn dequeue(queue: u32) -> Given {
    given(|at, size| unsafe { proxy_dequeue_shared_queue(queue, at, size) })
}

pub(crate) fn define_metric(kind: u32, name: &str) -> (u32, u32) {
    number(|at| unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), at) })
}

pub(crate) fn record_metric(metric: u32, value: u64) -> u32 {
    unsafe { proxy_record_metric(metric, value) }
}

pub(crate) fn increment_metric(metric: u32, by: i64) -> u32 {
    unsafe { proxy_increment_metric(metric, by) }
}

pub(crate) fn tick_every(ms: u32) -> u32 {
    unsafe { proxy_set_tick_period_milliseconds(ms) }
}

pub(crate) fn time() -> (u32, u64) {
    let mut ns = 0;
    let status = unsafe { proxy_get_current_time_nanoseconds(&raw mut ns) };
    (status, ns)
}

pub(crate) fn set_effective_context(context: u32) -> u32 {
    unsafe { proxy_set_effective_context(context) }
}

pub(crate) fn resume(kind: u32) -> u32 {
    unsafe { proxy_continue_stream(kind) }
}

pub(crate) fn done() -> u32 {
    unsafe { proxy_done() }
}

pub(crate) fn respond(status: u32, headers: &[(&str, &[u8])], body: &[u8]) -> u32 {
    let headers = map(headers);
    unsafe {
        proxy_send_local_response(
            status,
            null(),
            0,
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    }
}

pub(crate) fn call(cluster: &str, headers: &[(&str, &[u8])], body: &[u8], ms: u32) -> (u32, u32) {
    let (headers, trailers) = (map(headers), map(&[]));
    number(|token| unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            ms,
            token,
        )
    })
}
