//! The bodies of the proxy-wasm functions.

use super::{Call, Give, Headers, Outcome, Status, maps};
use crate::sim::host::{HttpCall, LocalReply};

const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;
const CALL_RESPONSE_HEADERS: u32 = 6;

const REQUEST_STREAM: u32 = 0;
const RESPONSE_STREAM: u32 = 1;

const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const CALL_RESPONSE_BODY: u32 = 4;
const VM_CONFIGURATION: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;

/// What a call out cannot do without.
const PSEUDO_HEADERS: [&str; 3] = [":method", ":path", ":authority"];

pub(super) fn log(call: &mut Call<'_>, level: u32, at: u32, size: u32) -> Outcome {
    let line = call.text(at, size)?;
    call.guest.log(level, &line);
    Ok(Give::Nothing)
}

pub(super) fn wall_clock(call: &mut Call<'_>, at: u32) -> Outcome {
    let ns = call.guest.wall_ns();
    call.write_u64(at, ns)?;
    Ok(Give::Nothing)
}

pub(super) fn set_tick_period(call: &mut Call<'_>, ms: u32) -> Outcome {
    call.guest.set_tick_period(ms);
    Ok(Give::Nothing)
}

pub(super) fn get_buffer(
    call: &mut Call<'_>,
    kind: u32,
    start: u32,
    size: u32,
    at: u32,
    size_at: u32,
) -> Outcome {
    let buffer: Vec<u8> = match kind {
        REQUEST_BODY => match call.guest.stream() {
            Some(stream) => stream.request_body.to_vec(),
            None => Vec::new(),
        },
        RESPONSE_BODY => match call.guest.stream() {
            Some(stream) => stream.response_body.to_vec(),
            None => Vec::new(),
        },
        CALL_RESPONSE_BODY => match &call.guest.call_response {
            Some(response) => response.body.to_vec(),
            None => return Err(Status::NotFound.into()),
        },
        VM_CONFIGURATION => Vec::new(),
        PLUGIN_CONFIGURATION => call.guest.configuration().to_vec(),
        _ => return Err(Status::BadArgument.into()),
    };
    // As Envoy: a start beyond the end gives nothing, and a size beyond it is cut.
    let start = (start as usize).min(buffer.len());
    let end = start.saturating_add(size as usize).min(buffer.len());
    let part = buffer.get(start..end).unwrap_or_default().to_vec();
    Ok(Give::Bytes(part, at, size_at))
}

/// As Envoy's buffers do it: in front, in the place of all, or behind, and nothing between.
pub(super) fn set_buffer(
    call: &mut Call<'_>,
    kind: u32,
    start: u32,
    size: u32,
    at: u32,
    bytes: u32,
) -> Outcome {
    let new = call.read(at, bytes)?.to_vec();
    let stream = call.guest.stream().ok_or(Status::BadArgument)?;
    let place = match kind {
        REQUEST_BODY => &mut stream.request_body,
        RESPONSE_BODY if stream.response_headers.is_some() || stream.fate.code.is_some() => {
            &mut stream.response_body
        }
        _ => return Err(Status::BadArgument.into()),
    };
    let length = place.len();
    let (start, size) = (start as usize, size as usize);
    *place = match (start, size) {
        (0, 0) => [&new[..], &place[..]].concat().into(),
        (0, size) if size >= length => new.into(),
        (start, _) if start >= length => [&place[..], &new[..]].concat().into(),
        _ => return Err(Status::BadArgument.into()),
    };
    Ok(Give::Nothing)
}

pub(super) fn get_property(
    call: &mut Call<'_>,
    path: u32,
    path_size: u32,
    at: u32,
    size_at: u32,
) -> Outcome {
    let path = call.text(path, path_size)?;
    match call.guest.property(&path) {
        Some(value) => Ok(Give::Bytes(value, at, size_at)),
        None => Err(Status::NotFound.into()),
    }
}

/// Headers that have gone on are out of reach, to read as well as to change: `BadArgument`, on which the SDK panics.
/// The access log sees them once more.
fn map<'c>(call: &'c mut Call<'_>, kind: u32) -> Result<&'c mut Headers, Status> {
    if kind == CALL_RESPONSE_HEADERS {
        let response = call.guest.call_response.as_mut();
        return Ok(&mut response.ok_or(Status::BadArgument)?.headers);
    }
    let stream = call.guest.stream().ok_or(Status::BadArgument)?;
    let headers = match kind {
        REQUEST_HEADERS => stream.request_headers.as_mut(),
        // The log has what the caller was given.
        RESPONSE_HEADERS if stream.logs && stream.replaced => None,
        RESPONSE_HEADERS => stream.response_headers.as_mut(),
        _ => None,
    };
    match (headers, stream.logs, kind) {
        (Some(headers), ..) => Ok(headers),
        (None, true, REQUEST_HEADERS) => Ok(&mut stream.logged.0),
        (None, true, RESPONSE_HEADERS) => Ok(&mut stream.logged.1),
        _ => Err(Status::BadArgument),
    }
}

/// Where there is no such map, an empty one.
pub(super) fn get_headers(call: &mut Call<'_>, kind: u32, at: u32, size_at: u32) -> Outcome {
    let bytes = match (map(call, kind), kind) {
        (Ok(headers), _) => maps::encode(headers),
        (Err(_), REQUEST_HEADERS | RESPONSE_HEADERS | CALL_RESPONSE_HEADERS) => Vec::new(),
        (Err(status), _) => return Err(status.into()),
    };
    Ok(Give::Bytes(bytes, at, size_at))
}

pub(super) fn get_header(
    call: &mut Call<'_>,
    kind: u32,
    name: u32,
    name_size: u32,
    at: u32,
    size_at: u32,
) -> Outcome {
    let name = call.text(name, name_size)?.to_ascii_lowercase();
    let found = map(call, kind)?.iter().find(|(known, _)| *known == name);
    let value = found.map(|(_, value)| value.clone());
    Ok(Give::Bytes(value.ok_or(Status::NotFound)?, at, size_at))
}

pub(super) fn replace_header(
    call: &mut Call<'_>,
    kind: u32,
    name: u32,
    name_size: u32,
    value: u32,
    value_size: u32,
) -> Outcome {
    let name = call.text(name, name_size)?.to_ascii_lowercase();
    let value = call.read(value, value_size)?.to_vec();
    let headers = map(call, kind)?;
    headers.retain(|(known, _)| *known != name);
    headers.push((name, value));
    Ok(Give::Nothing)
}

pub(super) fn add_header(
    call: &mut Call<'_>,
    kind: u32,
    name: u32,
    name_size: u32,
    value: u32,
    value_size: u32,
) -> Outcome {
    let name = call.text(name, name_size)?.to_ascii_lowercase();
    let value = call.read(value, value_size)?.to_vec();
    map(call, kind)?.push((name, value));
    Ok(Give::Nothing)
}

pub(super) fn remove_header(call: &mut Call<'_>, kind: u32, name: u32, name_size: u32) -> Outcome {
    let name = call.text(name, name_size)?.to_ascii_lowercase();
    map(call, kind)?.retain(|(known, _)| *known != name);
    Ok(Give::Nothing)
}

pub(super) fn get_shared_data(
    call: &mut Call<'_>,
    key: u32,
    key_size: u32,
    at: u32,
    size_at: u32,
    token_at: u32,
) -> Outcome {
    let key = call.text(key, key_size)?;
    let (value, token) = call.guest.get_shared(&key).ok_or(Status::NotFound)?;
    call.write_u32(token_at, token)?;
    Ok(Give::Bytes(value, at, size_at))
}

pub(super) fn set_shared_data(
    call: &mut Call<'_>,
    key: u32,
    key_size: u32,
    value: u32,
    value_size: u32,
    token: u32,
) -> Outcome {
    let key = call.text(key, key_size)?;
    let value = call.read(value, value_size)?.to_vec();
    match call.guest.set_shared(&key, value, token) {
        true => Ok(Give::Nothing),
        false => Err(Status::CasMismatch.into()),
    }
}

pub(super) fn register_queue(call: &mut Call<'_>, name: u32, name_size: u32, at: u32) -> Outcome {
    let name = call.text(name, name_size)?;
    let queue = call.guest.register_queue(&name);
    call.write_u32(at, queue)?;
    Ok(Give::Nothing)
}

pub(super) fn resolve_queue(
    call: &mut Call<'_>,
    vm_id: u32,
    vm_id_size: u32,
    name: u32,
    name_size: u32,
    at: u32,
) -> Outcome {
    let vm_id = call.text(vm_id, vm_id_size)?;
    let name = call.text(name, name_size)?;
    let queue = call
        .guest
        .resolve_queue(&vm_id, &name)
        .ok_or(Status::NotFound)?;
    call.write_u32(at, queue)?;
    Ok(Give::Nothing)
}

pub(super) fn enqueue(call: &mut Call<'_>, queue: u32, value: u32, value_size: u32) -> Outcome {
    let value = call.read(value, value_size)?.to_vec();
    match call.guest.enqueue(queue, value) {
        true => Ok(Give::Nothing),
        false => Err(Status::NotFound.into()),
    }
}

pub(super) fn dequeue(call: &mut Call<'_>, queue: u32, at: u32, size_at: u32) -> Outcome {
    let item = call.guest.dequeue(queue)?;
    Ok(Give::Bytes(item, at, size_at))
}

pub(super) fn define_metric(
    call: &mut Call<'_>,
    kind: u32,
    name: u32,
    name_size: u32,
    at: u32,
) -> Outcome {
    let name = call.text(name, name_size)?;
    let metric = call.guest.define_metric(kind, &name);
    call.write_u32(at, metric.ok_or(Status::BadArgument)?)?;
    Ok(Give::Nothing)
}

pub(super) fn record_metric(call: &mut Call<'_>, metric: u32, value: u64) -> Outcome {
    match call.guest.record_metric(metric, value) {
        true => Ok(Give::Nothing),
        false => Err(Status::NotFound.into()),
    }
}

/// Envoy: a counter can only be incremented, and not by 0; a gauge goes both ways; a histogram records.
pub(super) fn increment_metric(call: &mut Call<'_>, metric: u32, by: i64) -> Outcome {
    match call.guest.increment_metric(metric, by) {
        true => Ok(Give::Nothing),
        false => Err(Status::BadArgument.into()),
    }
}

#[expect(clippy::too_many_arguments, reason = "the ABI has as many")]
pub(super) fn http_call(
    call: &mut Call<'_>,
    cluster: u32,
    cluster_size: u32,
    headers: u32,
    headers_size: u32,
    body: u32,
    body_size: u32,
    _: u32,
    _: u32,
    timeout_ms: u32,
    token_at: u32,
) -> Outcome {
    let cluster = call.text(cluster, cluster_size)?;
    let headers = maps::decode(call.read(headers, headers_size)?).ok_or(Status::BadArgument)?;
    let body = call.read(body, body_size)?.to_vec();
    let has = |name: &str| headers.iter().any(|(known, _)| known == name);
    if !PSEUDO_HEADERS.iter().all(|name| has(name)) {
        return Err(Status::BadArgument.into());
    }
    let token = call.guest.http_call(HttpCall {
        cluster,
        headers,
        body: body.into(),
        timeout_ms: u64::from(timeout_ms),
    })?;
    call.write_u32(token_at, token)?;
    Ok(Give::Nothing)
}

#[expect(clippy::too_many_arguments, reason = "the ABI has as many")]
pub(super) fn send_local_response(
    call: &mut Call<'_>,
    status: u32,
    _: u32,
    _: u32,
    body: u32,
    body_size: u32,
    headers: u32,
    headers_size: u32,
    _: i32,
) -> Outcome {
    let body = call.read(body, body_size)?.to_vec();
    let headers = maps::decode(call.read(headers, headers_size)?).ok_or(Status::BadArgument)?;
    let reply = LocalReply {
        status: u16::try_from(status).map_err(|_| Status::BadArgument)?,
        headers,
        body: body.into(),
    };
    // A root has nobody to answer, and is not told so.
    call.guest.send_reply(reply);
    Ok(Give::Nothing)
}

/// Of a stream that is held, or is not: Envoy says Ok to both.
pub(super) fn continue_stream(call: &mut Call<'_>, kind: u32) -> Outcome {
    match kind {
        REQUEST_STREAM => call.guest.resume_request(),
        RESPONSE_STREAM => {}
        _ => return Err(Status::BadArgument.into()),
    }
    Ok(Give::Nothing)
}

pub(super) fn set_effective_context(call: &mut Call<'_>, context: u32) -> Outcome {
    match call.guest.set_effective_context(context) {
        true => Ok(Give::Nothing),
        false => Err(Status::BadArgument.into()),
    }
}

pub(super) fn done(call: &mut Call<'_>) -> Outcome {
    match call.guest.done() {
        true => Ok(Give::Nothing),
        false => Err(Status::NotFound.into()),
    }
}
