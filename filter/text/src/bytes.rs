//! Long texts, eight bytes at a time: WebAssembly's C library compares them one by one.

/// Whether two texts are the same.
#[inline]
#[must_use]
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && is_same(one, other)
}

/// The same, of two of one length.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    // What is left behind the last whole word is looked at in the text's last word, which may overlap.
    if let (Some(last), Some(other_last)) = (one.last_chunk(), other.last_chunk()) {
        return word(last) == word(other_last) && is_same_in_words(one, other);
    }
    if let (Some(last), Some(other_last)) = (one.last_chunk(), other.last_chunk()) {
        return half(last) == half(other_last)
            && one.first_chunk().map(half) == other.first_chunk().map(half);
    }
    one.iter().zip(other).all(|(byte, other)| byte == other)
}

/// Whether their whole words are the same; four at once, since half of the work of a loop is the loop.
fn is_same_in_words(one: &[u8], other: &[u8]) -> bool {
    let ((words, _), (other_words, _)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let ((fours, rest), (other_fours, other_rest)) =
        (words.as_chunks::<4>(), other_words.as_chunks::<4>());
    let is_same = |words: &[[u8; 8]], others: &[[u8; 8]]| {
        let pairs = words.iter().zip(others);
        pairs.fold(0, |bits, (one, other)| bits | (word(one) ^ word(other))) == 0
    };
    fours
        .iter()
        .zip(other_fours)
        .all(|(four, other)| is_same(four, other))
        && is_same(rest, other_rest)
}

fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_ne_bytes(*bytes)
}

fn half(bytes: &[u8; 4]) -> u32 {
    u32::from_ne_bytes(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_same_when_they_are_equal() {
        let text: Vec<u8> = (0..100).collect();
        for length in 0..text.len() {
            let one = &text[..length];
            assert!(same(one, one.to_vec().as_slice()));
            assert!(!same(one, &text[..=length]), "longer");
            for at in 0..length {
                let mut other = one.to_vec();
                other[at] ^= 0x80;
                assert!(!same(one, &other), "{at} of {length}");
            }
        }
    }
}
