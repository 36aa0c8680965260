//! Everything here is held against `serde_json`.

use alloc::string::ToString;

use proptest::prelude::*;
use serde_json::Value as Known;

use super::number::float;
use super::*;
use crate::json::{Value, parse};

/// Bits of JSON, whole and broken, that meet in every order.
const PIECES: [&[u8]; 44] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b" ",
    b"\n",
    b"\t",
    b"0",
    b"1",
    b"-",
    b".",
    b"e",
    b"E+",
    b"12",
    b"007",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"-9223372036854775809",
    b"1e308",
    b"9e308",
    b"1e-400",
    b"0.1000000000000000055511151231257827",
    b"true",
    b"false",
    b"null",
    b"nul",
    b"\"a\"",
    b"\"b\":",
    b"\"\\u0041\\n\"",
    b"\\ud83d\\ude00",
    b"\\ud83d",
    b"\\ude00",
    b"\\uZ",
    b"\"\xc3\xa9\"",
    b"\xff",
    b"\x01",
    b"\"a long string, of more than eight bytes\"",
    b"{\"a\":[1,{\"b\":null}]}",
    b"x",
];

const DOCUMENT: &[u8] = b"{\"session_id\": \"a\\u00e9\\\"\", \"qr\":\"2@abcdefghijklmnop\",\n \"n\": [0, -1, 2.50, 1e5, \
    18446744073709551616], \"o\": {\"\": {}, \"t\": true, \"f\": false, \"z\": null}, \"s\": \"\\ud83d\\ude00\"}";

fn known_is(known: &Known, value: &Value) -> bool {
    match (known, value) {
        (Known::Null, Value::Null) => true,
        (Known::Bool(a), Value::Bool(b)) => a == b,
        (Known::String(a), Value::Text(b)) => a == b,
        (Known::Number(a), Value::Number(b)) => match a.is_f64() {
            false => a.to_string() == *b,
            true => {
                let (a, b) = (a.as_f64().unwrap(), float(b).unwrap());
                a.is_sign_negative() == b.is_sign_negative() && (a - b).abs() <= a.abs() * 1e-13
            }
        },
        (Known::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| known_is(a, b))
        }
        (Known::Object(a), Value::Object(b)) => {
            a.keys().map(String::as_str).eq(b.keys())
                && a.iter().all(|(key, a)| known_is(a, b.get(key).unwrap()))
        }
        _ => false,
    }
}

/// Asserts that a text is to us what it is to `serde_json`: the value, or what is wrong and where.
fn compare(text: &[u8]) {
    let shown = String::from_utf8_lossy(text);
    match (serde_json::from_slice::<Known>(text), parse(text)) {
        (Ok(known), Ok(value)) => {
            assert!(known_is(&known, &value), "{shown}: {known:?}, {value:?}");
        }
        (Err(known), Err(broken)) => {
            let (known, ours) = (known.to_string(), broken.describe(text));
            // An exponent may be too large before its last digit.
            let end = match known.starts_with("number out of range") {
                true => "number out of range".len(),
                false => known.len(),
            };
            assert_eq!(ours.get(..end), known.get(..end), "{shown}: {ours}");
        }
        (known, value) => panic!("{shown}: {known:?}, {value:?}"),
    }
    let mut scanner = Scanner::new(text);
    let skipped = scanner.skip().and_then(|_| scanner.end());
    let ignored = serde_json::from_slice::<serde::de::IgnoredAny>(text);
    assert_eq!(
        skipped.is_ok(),
        ignored.is_ok(),
        "{shown}: {skipped:?}, {ignored:?}"
    );
}

#[test]
fn a_text_that_was_cut_or_changed_anywhere_is_read_as_serde_json_reads_it() {
    compare(DOCUMENT);
    for at in 0..DOCUMENT.len() {
        compare(&DOCUMENT[..at]);
        for piece in PIECES {
            compare(&[&DOCUMENT[..at], piece, &DOCUMENT[at..]].concat());
            compare(&[&DOCUMENT[..at], piece, &DOCUMENT[at + 1..]].concat());
        }
    }
}

#[test]
fn nesting_ends_where_it_does_in_serde_json() {
    for levels in [126, 127, 128, 30_000] {
        let nested = "[".repeat(levels) + &"]".repeat(levels);
        compare(nested.as_bytes());
        let nested = "{\"a\":".repeat(levels) + "1" + &"}".repeat(levels);
        compare(nested.as_bytes());
    }
}

#[test]
fn a_skipped_value_is_the_text_without_the_white_space_around_it() {
    let mut scanner = Scanner::new(b" \n[1, {\"a\": \"]\"}] ,");
    assert_eq!(scanner.skip(), Ok(&b"[1, {\"a\": \"]\"}]"[..]));
}

#[test]
fn two_spellings_of_one_number_meet() {
    for (a, b) in [
        ("1.50", "15e-1"),
        ("1E2", "100.0"),
        ("0.000001", "1e-6"),
        ("-0.0", "-0e9"),
    ] {
        assert_eq!(
            float(a).map(f64::to_bits),
            float(b).map(f64::to_bits),
            "{a} {b}"
        );
    }
    assert_ne!(float("0.1"), float("0.10000000000000002"));
    assert_eq!(float("1e99999999999"), None);
    assert_eq!(float("1e-99999999999"), Some(0.0));
    assert_eq!(float("0e99999999999"), Some(0.0));
}

proptest! {
    #[test]
    fn pieces_in_any_order_are_read_as_serde_json_reads_them(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..12),
    ) {
        compare(&pieces.concat());
    }

    #[test]
    fn any_text_is_quoted_as_serde_json_quotes_it(text in any::<String>(), low in "[\\x00-\\x7f\"\\\\]{0,20}") {
        let text = text + &low;
        prop_assert_eq!(quoted(&text), serde_json::to_string(&text).unwrap());
        compare(quoted(&text).as_bytes());
    }
}
