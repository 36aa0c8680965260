//! Numbers: passed over as JSON has them, and compared by what they are worth.

use super::{Broken, Scanner};

/// A number, as it is written.
pub(crate) struct Number<'a> {
    pub(crate) digits: &'a str,
    /// Absent for a whole number within 64 bits, whose digits say all.
    pub(crate) float: Option<f64>,
}

/// The powers of ten that a `f64` holds.
const POWER_MAX: i32 = 308;

// === impl Scanner ===

impl<'a> Scanner<'a> {
    /// Passes over at least one digit.
    fn digits(&mut self) -> Result<(), Broken> {
        match self.peek() {
            Some(b'0'..=b'9') => {}
            Some(_) => return Err(self.broken("invalid number")),
            None => return Err(self.broken("EOF while parsing a value")),
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.step();
        }
        Ok(())
    }

    /// Passes over a number, and gives its text and whether it is written as a whole one.
    pub(super) fn pass_number(&mut self) -> Result<(&'a str, bool), Broken> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.step();
        }
        if self.peek() == Some(b'0') {
            self.step();
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.broken("invalid number"));
            }
        } else {
            self.digits()?;
        }
        let mut whole = true;
        if self.peek() == Some(b'.') {
            whole = false;
            self.step();
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            whole = false;
            self.step();
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.step();
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        Ok((core::str::from_utf8(text).unwrap_or_default(), whole))
    }

    pub(super) fn number(&mut self) -> Result<Number<'a>, Broken> {
        let (digits, whole) = self.pass_number()?;
        let fits = whole
            && match digits.strip_prefix('-') {
                None => digits.parse::<u64>().is_ok(),
                Some(rest) => rest != "0" && digits.parse::<i64>().is_ok(),
            };
        let float = match fits {
            true => None,
            false => Some(float(digits).ok_or_else(|| self.broken_before("number out of range"))?),
        };
        Ok(Number { digits, float })
    }
}

/// A number as a `f64`, to within its last digits; `None` for one that is too large. It is compared and never
/// shown, so what counts is that two spellings of one number meet, `1.50` and `15e-1`.
pub(super) fn float(digits: &str) -> Option<f64> {
    let mut significand = 0_u64;
    // Further digits would change nothing that a `f64` can hold.
    let mut full = false;
    let mut fraction = false;
    let mut exponent = 0_i32;
    let (mantissa, power) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    for byte in mantissa.bytes() {
        if byte == b'.' {
            fraction = true;
        }
        if !byte.is_ascii_digit() {
            continue;
        }
        let more = significand
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(byte & 15)));
        match more.filter(|_| !full) {
            Some(more) => {
                significand = more;
                exponent = exponent.saturating_sub(i32::from(fraction));
            }
            None => {
                full = true;
                exponent = exponent.saturating_add(i32::from(!fraction));
            }
        }
    }
    // Beyond any number's reach, either way.
    let beyond = match power.starts_with('-') {
        true => i32::MIN,
        false => i32::MAX,
    };
    exponent = exponent.saturating_add(power.parse().unwrap_or(beyond));
    let mut float = significand as f64;
    while exponent < 0 && float != 0.0 {
        let by = exponent.max(-POWER_MAX);
        float /= power_of_ten(-by);
        exponent = exponent.saturating_sub(by);
    }
    if exponent > 0 && float != 0.0 {
        if exponent > POWER_MAX {
            return None;
        }
        float *= power_of_ten(exponent);
    }
    match (float.is_finite(), digits.starts_with('-')) {
        (false, _) => None,
        (true, true) => Some(-float),
        (true, false) => Some(float),
    }
}

/// Exact up to 10²².
fn power_of_ten(exponent: i32) -> f64 {
    (0..exponent).fold(1.0, |power, _| power * 10.0)
}
