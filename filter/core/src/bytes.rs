//! Long texts, eight bytes at a time: WebAssembly's C library compares them one by one.

/// Whether two texts are the same.
#[must_use]
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (other_words, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let number = |word: &[u8; 8]| u64::from_ne_bytes(*word);
    one.len() == other.len()
        && words
            .iter()
            .zip(other_words)
            .all(|(word, other)| number(word) == number(other))
        && rest
            .iter()
            .zip(other_rest)
            .all(|(byte, other)| byte == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_same_when_they_are_equal() {
        let text: Vec<u8> = (0..40).collect();
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
