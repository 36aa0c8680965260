//! A sender's own clock: a whole number of any unit, or an RFC 3339 time.

use crate::time::days_since_1970;

/// What the text says as a number that grows with time. Only compared with others from the same place.
/// `None` for what is no time: such an item has no order and is never stale.
#[inline]
pub(super) fn read(text: &str) -> Option<u64> {
    if let Ok(number) = text.parse::<u64>() {
        return Some(number);
    }
    rfc3339_ms(text)
}

/// Milliseconds since 1970 of `2026-11-24T10:00:00.123Z`, or with an offset such as `-03:00`.
#[inline]
fn rfc3339_ms(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits.iter().try_fold(0_i64, |sum, digit| {
            digit.is_ascii_digit().then(|| {
                sum.saturating_mul(10)
                    .saturating_add(i64::from(digit.wrapping_sub(b'0')))
            })
        })
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
    let punctuated = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    if !punctuated {
        return None;
    }
    let days = days_since_1970(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let (hours, minutes, seconds) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let mut at = 19_usize;
    let mut ms = 0_i64;
    if is(at, b".") {
        let rest = bytes.get(20..)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        for place in 0..3_usize {
            let digit = if place < digits {
                rest.get(place)?.wrapping_sub(b'0')
            } else {
                0
            };
            ms = ms.saturating_mul(10).saturating_add(i64::from(digit));
        }
        at = at.saturating_add(1).saturating_add(digits);
    }
    let offset_minutes = match bytes.get(at)? {
        b'Z' | b'z' => 0,
        sign @ (b'+' | b'-') => {
            let from = at.saturating_add(1);
            let hours = number(from, from.saturating_add(2))?;
            let minutes = number(from.saturating_add(3), from.saturating_add(5))?;
            let total = hours.saturating_mul(60).saturating_add(minutes);
            if *sign == b'-' {
                total.saturating_neg()
            } else {
                total
            }
        }
        _ => return None,
    };
    let total = days
        .saturating_mul(24)
        .saturating_add(hours)
        .saturating_mul(60)
        .saturating_add(minutes)
        .saturating_sub(offset_minutes)
        .saturating_mul(60)
        .saturating_add(seconds)
        .saturating_mul(1000)
        .saturating_add(ms);
    u64::try_from(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_read_and_nothing_else() {
        assert_eq!(read("1700000000123"), Some(1_700_000_000_123));
        assert_eq!(read("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(read("2023-11-14T22:13:20.5Z"), Some(1_700_000_000_500));
        assert_eq!(
            read("2023-11-14T19:13:20.123456-03:00"),
            Some(1_700_000_000_123)
        );
        assert_eq!(read("2024-02-29T00:00:00Z"), Some(1_709_164_800_000));
        for nothing in [
            "",
            "soon",
            "12.5",
            "-4",
            "2023-11-14",
            "2023-13-14T00:00:00Z",
            "2023-11-14T22:13:20",
        ] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }
}
