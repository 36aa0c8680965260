//! HTTP's dates, as `retry-after` may have one.

use crate::time::days_since_1970;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Milliseconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that servers still send.
pub(super) fn epoch_ms(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once(',')?;
    let mut parts = rest.strip_prefix(' ')?.split(' ');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let (time, zone) = (parts.next()?, parts.next()?);
    if zone != "GMT" || parts.next().is_some() {
        return None;
    }
    let month = MONTHS.iter().position(|name| *name == month)?;
    let month = i64::try_from(month).ok()?.saturating_add(1);
    let days = days_since_1970(number(year)?, month, number(day)?)?;
    let mut clock = time.split(':');
    let (hour, minute) = (number(clock.next()?)?, number(clock.next()?)?);
    let second = number(clock.next()?)?;
    let minutes = days.saturating_mul(24).saturating_add(hour);
    let minutes = minutes.saturating_mul(60).saturating_add(minute);
    let seconds = minutes.saturating_mul(60).saturating_add(second);
    u64::try_from(seconds).ok()?.checked_mul(1000)
}

fn number(text: &str) -> Option<i64> {
    let all = text.bytes().try_fold(0_i64, |number, byte| {
        let digit = char::from(byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(i64::from(digit))
    });
    all.filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::epoch_ms;

    #[test]
    fn a_date_is_read_to_the_second() {
        let date = epoch_ms("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date, Some(784_111_777_000));
        assert_eq!(
            epoch_ms("Thu, 01 Jan 1970 00:00:00 GMT"),
            Some(0),
            "midnight too"
        );
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "soon",
            "Sun, 06 Nov 1994",
            "Sun, 06 Nov 1994 08:49:37 PST",
            "Sun, 06 Nop 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:-9:37 GMT",
        ] {
            assert_eq!(epoch_ms(text), None, "{text}");
        }
    }
}
