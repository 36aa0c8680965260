//! Header maps as proxy-wasm serialises them: the number of pairs, the lengths of all names and values,
//! then all of them, each with a zero byte behind it.

/// Names in lower case, in the order they came.
pub(crate) type Headers = Vec<(String, Vec<u8>)>;

/// The bytes of a map.
#[must_use]
pub(super) fn encode(headers: &Headers) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Vec::from(length(headers.len()));
    for (name, value) in headers {
        out.extend_from_slice(&length(name.len()));
        out.extend_from_slice(&length(value.len()));
    }
    for (name, value) in headers {
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

/// The map of these bytes; `None` where they are none.
#[must_use]
pub(super) fn decode(mut bytes: &[u8]) -> Option<Headers> {
    let mut number = || -> Option<u32> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        bytes = rest;
        Some(u32::from_le_bytes(*head))
    };
    let count = number()?;
    let lengths = (0..count)
        .map(|_| Some((number()?, number()?)))
        .collect::<Option<Vec<_>>>()?;
    let mut text = |length: u32| -> Option<Vec<u8>> {
        let (text, rest) = bytes.split_at_checked(length as usize)?;
        bytes = rest.split_first()?.1;
        Some(text.to_vec())
    };
    lengths
        .into_iter()
        .map(|(name, value)| Some((String::from_utf8(text(name)?).ok()?, text(value)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let headers: Headers = vec![
            (":path".into(), b"/api/qr".to_vec()),
            ("x".into(), vec![0xff, 0, 1]),
            ("empty".into(), Vec::new()),
        ];
        assert_eq!(decode(&encode(&headers)), Some(headers.clone()));
        let bytes = encode(&headers);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "cut at {cut}");
        }
    }
}
