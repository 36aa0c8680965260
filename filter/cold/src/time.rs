//! The two clocks, as parameters.

/// The time at which the host called the guest.
///
/// Everything that is stored or compared is monotonic: the wall clock of a server steps, and a step must
/// neither expire a claim nor a QR. Wall time only makes the `timestamp` of an item, for Laravel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic clock of the host, milliseconds; the same for every thread of the process.
    pub mono_ms: u64,
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: u64,
}

/// Days from 1970-01-01 in the Gregorian calendar, years 1970 to 9999.
#[must_use]
pub fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // March is the first month here, so that the leap day is the year's last.
    let shifted_year = if month <= 2 {
        year.saturating_sub(1)
    } else {
        year
    };
    let shifted_month = if month <= 2 {
        month.saturating_add(9)
    } else {
        month.saturating_sub(3)
    };
    let leap_days = (shifted_year / 4)
        .saturating_sub(shifted_year / 100)
        .saturating_add(shifted_year / 400);
    let day_of_year = (shifted_month.saturating_mul(153).saturating_add(2) / 5)
        .saturating_add(day)
        .saturating_sub(1);
    let days = shifted_year
        .saturating_mul(365)
        .saturating_add(leap_days)
        .saturating_add(day_of_year);
    // From the first of March of the year 0 to 1970-01-01.
    Some(days.saturating_sub(719_468))
}
