//! A request's headers as the host hands them over: one buffer, read in place.
//!
//! Each header as a string of its own would be two allocations, some twenty a request, for a handful that are ever
//! looked at.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

/// Name and value. Names are lower case, as Envoy has them; neither need be UTF-8.
pub type Header<'h> = (&'h [u8], &'h [u8]);

/// The headers in the host's buffer: their count, the lengths of each name and value, then names and values
/// themselves, each with a 0 behind it. All numbers are 32 bits, little-endian.
#[derive(Clone, Debug)]
pub struct Headers<'h> {
    lengths: &'h [[u8; 8]],
    texts: &'h [u8],
}

/// Headers as the host takes them: what [`Headers`] reads.
#[must_use]
pub fn encode(headers: &[Header<'_>]) -> Vec<u8> {
    let texts = || headers.iter().flat_map(|(name, value)| [*name, *value]);
    let size = texts().map(|text| text.len().saturating_add(5));
    let mut out = Vec::with_capacity(size.fold(4, usize::saturating_add));
    let mut put = |number: usize| {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        out.extend_from_slice(&number.to_le_bytes());
    };
    put(headers.len());
    texts().map(<[u8]>::len).for_each(&mut put);
    for text in texts() {
        out.extend_from_slice(text);
        out.push(0);
    }
    out
}

/// Headers that are held one by one.
pub fn borrowed(headers: &[(String, Vec<u8>)]) -> impl Iterator<Item = Header<'_>> + Clone {
    headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_slice()))
}

// === impl Headers ===

impl<'h> Headers<'h> {
    /// Reads the host's buffer. It ends where the buffer does, whatever that promised.
    #[must_use]
    pub fn new(buffer: &'h [u8]) -> Self {
        let (count, rest) = buffer.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let (lengths, _) = rest.as_chunks::<8>();
        let count = u32::from_le_bytes(*count) as usize;
        match rest.split_at_checked(count.saturating_mul(8)) {
            Some((_, texts)) => Self {
                lengths: lengths.get(..count).unwrap_or_default(),
                texts,
            },
            None => Self {
                lengths: &[],
                texts: &[],
            },
        }
    }

    /// Where in the whole buffer each name and value stands.
    pub fn places(self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let texts = self.texts.len();
        // The count, and a pair of lengths for each.
        let before = self.lengths.len().saturating_mul(8).saturating_add(4);
        let end = before.saturating_add(texts);
        let mut headers = self;
        core::iter::from_fn(move || {
            let (name, value) = headers.next()?;
            let value_end = end.saturating_sub(headers.texts.len().saturating_add(1));
            let value_start = value_end.saturating_sub(value.len());
            let name_end = value_start.saturating_sub(1);
            let name_start = name_end.saturating_sub(name.len());
            Some((name_start..name_end, value_start..value_end))
        })
    }

    fn text(&mut self, length: [u8; 4]) -> Option<&'h [u8]> {
        let length = u32::from_le_bytes(length) as usize;
        let (text, rest) = self.texts.split_at_checked(length)?;
        self.texts = rest.get(1..)?;
        Some(text)
    }
}

impl<'h> Iterator for Headers<'h> {
    type Item = Header<'h>;

    fn next(&mut self) -> Option<Self::Item> {
        let ([n0, n1, n2, n3, v0, v1, v2, v3], rest) = self.lengths.split_first()?;
        self.lengths = rest;
        Some((
            self.text([*n0, *n1, *n2, *n3])?,
            self.text([*v0, *v1, *v2, *v3])?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_writes_is_read() {
        for headers in [
            &[][..],
            &[(b":path".as_slice(), b"/qr".as_slice())],
            &[(b"a", b""), (b"", b"\xff\x00\n"), (b"b", b"c")],
        ] {
            let read: Vec<_> = Headers::new(&encode(headers))
                .map(|h| (h.0.to_vec(), h.1.to_vec()))
                .collect();
            let wanted: Vec<_> = headers
                .iter()
                .map(|h| (h.0.to_vec(), h.1.to_vec()))
                .collect();
            assert_eq!(read, wanted);
            let buffer = encode(headers);
            let places: Vec<_> = Headers::new(&buffer)
                .places()
                .map(|(name, value)| (buffer[name].to_vec(), buffer[value].to_vec()))
                .collect();
            assert_eq!(places, wanted);
        }
    }

    #[test]
    fn a_buffer_is_the_count_the_lengths_and_the_texts() {
        let encoded = encode(&[(b"ab", b""), (b"c", b"\xff")]);
        let numbers = b"\x02\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\x01\0\0\0";
        assert_eq!(encoded, [&numbers[..], b"ab\0\0c\0\xff\0"].concat());
        assert_eq!(encoded.capacity(), encoded.len(), "allocated once");
    }

    #[test]
    fn a_buffer_that_breaks_its_promises_ends_early() {
        let whole = encode(&[(b"a", b"b"), (b"cd", b"ef")]);
        for cut in 0..whole.len() {
            assert!(Headers::new(&whole[..cut]).count() < 2, "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 0xff;
            assert!(Headers::new(&bent).count() <= 2);
        }
    }
}
