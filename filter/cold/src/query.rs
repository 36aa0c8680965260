//! A path's query string, and what is written with percent signs.

use alloc::string::String;
use alloc::vec::Vec;

/// A path segment or a query parameter without its percent signs; `None` where it is no UTF-8 then.
#[must_use]
pub fn decoded(raw: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((byte, more)) = rest.split_first() {
        rest = more;
        let digits = match byte {
            b'%' => rest.split_first_chunk::<2>(),
            _ => None,
        };
        match digits.and_then(|(digits, more)| Some((hex(digits)?, more))) {
            Some((byte, more)) => {
                out.push(byte);
                rest = more;
            }
            None => out.push(*byte),
        }
    }
    String::from_utf8(out).ok()
}

fn hex(digits: &[u8; 2]) -> Option<u8> {
    u8::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

/// The value of a query parameter, decoded.
#[must_use]
pub fn parameter(path: &str, name: &str) -> Option<String> {
    let (_, query) = path.split_once('?')?;
    query.split('&').find_map(|pair| {
        let (known, value) = pair.split_once('=')?;
        (known == name).then(|| decoded(value.as_bytes()))?
    })
}
