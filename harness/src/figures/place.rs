//! One place of a template: `pointer [/ divisor] [: format]`.
//!
//! The pointer is a JSON pointer; the divisor another one, or a number. The format is `%`, or the digits after the
//! point, `.1`; without one it is a whole number, with commas between its thousands. What is no number stands as it is.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// What stands in the place.
pub(super) fn filled(place: &str, figures: &Value) -> Result<String> {
    let (what, format) = match place.split_once(':') {
        Some((what, format)) => (what.trim(), format.trim()),
        None => (place.trim(), ""),
    };
    let (pointer, divisor) = match what.split_once(" / ") {
        Some((pointer, divisor)) => (pointer, Some(divisor)),
        None => (what, None),
    };
    let value = found(pointer, figures)?;
    let Some(number) = value.as_f64() else {
        return Ok(value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned));
    };
    let divided = match divisor {
        None => number,
        Some(divisor) => number / self::divisor(divisor, figures)?,
    };
    if !divided.is_finite() {
        bail!("divided by nothing");
    }
    match (format, format.strip_prefix('.')) {
        ("", _) => Ok(whole(divided)),
        ("%", _) => Ok(format!("{:.1} %", divided * 100.0)),
        (_, Some(digits)) => {
            let digits: usize = digits.parse().context("digits")?;
            Ok(format!("{divided:.digits$}"))
        }
        _ => bail!("{format} is no format"),
    }
}

fn found<'a>(pointer: &str, figures: &'a Value) -> Result<&'a Value> {
    figures
        .pointer(pointer)
        .with_context(|| format!("there is no figure {pointer}"))
}

fn divisor(text: &str, figures: &Value) -> Result<f64> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let value = found(text, figures)?;
    value
        .as_f64()
        .with_context(|| format!("{text} is no number"))
}

/// Rounded, with commas between its thousands.
fn whole(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    match number <= -0.5 {
        true => format!("-{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formats() {
        let figures = json!({"n": 1_234_567.5, "d": 75, "all": 7_500, "zero": 0, "word": "two"});
        for (place, text) in [
            ("/n", "1,234,568"),
            ("/n / 1000", "1,235"),
            ("/d", "75"),
            ("/d: .2", "75.00"),
            ("/d / /all: %", "1.0 %"),
            ("/zero", "0"),
            ("/word", "two"),
        ] {
            assert_eq!(filled(place, &figures).expect(place), text, "{place}");
        }
        for wrong in ["/nobody", "/d / /zero", "/d: x", "/d / /word"] {
            assert!(filled(wrong, &figures).is_err(), "{wrong}");
        }
    }

    #[test]
    fn thousands_have_commas() {
        let told = [0.4, 999.0, 1_000.0, -12_345.0].map(whole);
        assert_eq!(told, ["0", "999", "1,000", "-12,345"]);
    }
}
