//! WASI preview 1, as far as Rust's standard library asks for it.

use super::{Call, Give, Outcome, Refusal};

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;
const EINVAL: i32 = 28;
const EFAULT: i32 = 21;
const EBADF: i32 = 8;

/// Bytes of one request for randomness: a key, a seed, an id.
const RANDOM_BYTES_MAX: u32 = 4096;

fn fault<T>(_: T) -> Refusal {
    Refusal::Errno(EFAULT)
}

pub(super) fn clock_time_get(call: &mut Call<'_>, clock: u32, _: u64, at: u32) -> Outcome {
    let ns = match clock {
        REALTIME => call.guest.wall_ns(),
        MONOTONIC => call.guest.mono_ns(),
        _ => return Err(Refusal::Errno(EINVAL)),
    };
    call.write_u64(at, ns).map_err(fault)?;
    Ok(Give::Nothing)
}

pub(super) fn random_get(call: &mut Call<'_>, at: u32, size: u32) -> Outcome {
    if size > RANDOM_BYTES_MAX {
        return Err(Refusal::Errno(EINVAL));
    }
    let bytes = call.guest.random(size as usize);
    call.write(at, &bytes).map_err(fault)?;
    Ok(Give::Nothing)
}

/// Rust's panic message, if it comes this way; the SDK's own hook logs it too.
pub(super) fn fd_write(
    call: &mut Call<'_>,
    descriptor: u32,
    vectors: u32,
    count: u32,
    written_at: u32,
) -> Outcome {
    if !(1..=2).contains(&descriptor) {
        return Err(Refusal::Errno(EBADF));
    }
    let mut text = String::new();
    let mut written = 0_u32;
    for index in 0..count {
        let entry = vectors.wrapping_add(index.wrapping_mul(8));
        let at = call.read_u32(entry).map_err(fault)?;
        let size = call.read_u32(entry.wrapping_add(4)).map_err(fault)?;
        text.push_str(&call.text(at, size).map_err(fault)?);
        written = written.saturating_add(size);
    }
    call.guest.log(2, &text);
    call.write_u32(written_at, written).map_err(fault)?;
    Ok(Give::Nothing)
}

pub(super) fn environ_get(_: &mut Call<'_>, _: u32, _: u32) -> Outcome {
    Ok(Give::Nothing)
}

pub(super) fn environ_sizes_get(call: &mut Call<'_>, count_at: u32, size_at: u32) -> Outcome {
    call.write_u32(count_at, 0).map_err(fault)?;
    call.write_u32(size_at, 0).map_err(fault)?;
    Ok(Give::Nothing)
}
