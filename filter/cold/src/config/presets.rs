//! The rules that need no configuration, for each common gateway.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::fields::Fields;
use crate::json::{self, Object, Value};

/// A gateway whose rules are built in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preset {
    name: &'static str,
    json: &'static [u8],
}

/// A preset's JSON without the white space that it has for its readers: a third of it.
macro_rules! preset {
    ($name:literal) => {{
        const TEXT: &[u8] = include_bytes!(concat!("presets/", $name, ".json"));
        const DENSE: [u8; dense_len(TEXT)] = dense(TEXT);
        Preset {
            name: $name,
            json: &DENSE,
        }
    }};
}

/// The first one is the default: the gateway and the Laravel that exist.
const PRESETS: [Preset; 7] = [
    preset!("laravel"),
    preset!("evolution"),
    preset!("waha"),
    preset!("wppconnect"),
    preset!("wwebjs-api"),
    preset!("baileys-api"),
    preset!("wa-gateway"),
];

/// Whether a byte of a JSON text means something, and whether a string goes on behind it. The texts have no
/// escapes.
const fn counts(byte: u8, quoted: bool) -> (bool, bool) {
    assert!(byte != b'\\', "a preset has no escapes");
    let quoted = quoted != (byte == b'"');
    (quoted || !byte.is_ascii_whitespace(), quoted)
}

const fn dense_len(mut text: &[u8]) -> usize {
    let (mut len, mut quoted) = (0, false);
    while let [byte, rest @ ..] = text {
        let (kept, inside) = counts(*byte, quoted);
        len += kept as usize;
        (text, quoted) = (rest, inside);
    }
    len
}

#[expect(clippy::indexing_slicing, reason = "at compile time")]
const fn dense<const LEN: usize>(mut text: &[u8]) -> [u8; LEN] {
    let (mut out, mut len, mut quoted) = ([0; LEN], 0, false);
    while let [byte, rest @ ..] = text {
        let (kept, inside) = counts(*byte, quoted);
        if kept {
            out[len] = *byte;
            len += 1;
        }
        (text, quoted) = (rest, inside);
    }
    out
}

/// The preset that the configuration names, or the default.
pub(super) fn chosen(fields: &mut Fields<'_>) -> Preset {
    let [default, ..] = PRESETS;
    let Some(name) = fields.text("preset") else {
        return default;
    };
    let known = PRESETS.into_iter().find(|preset| preset.name == name);
    known.unwrap_or_else(|| {
        let names: Vec<String> = PRESETS
            .iter()
            .map(|preset| format!("\"{}\"", preset.name))
            .collect();
        fields.report("preset", format!("expected one of {}", names.join(", ")));
        default
    })
}

// === impl Preset ===

impl Preset {
    /// Its routes and its reads, as JSON.
    pub(super) fn rules(self) -> (Vec<Value>, Vec<Value>) {
        let mut all = match json::parse(self.json) {
            Ok(Value::Object(all)) => all,
            _ => Object::default(),
        };
        let mut take = |key: &str| match all.remove(key) {
            Some(Value::Array(rules)) => rules,
            _ => Vec::new(),
        };
        (take("routes"), take("reads"))
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::super::Config;
    use super::*;

    #[test]
    fn every_preset_is_a_whole_configuration() {
        for preset in PRESETS {
            let json = format!(r#"{{"preset":"{}"}}"#, preset.name);
            let problems = Config::parse(json.as_bytes()).map_err(|problems| {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                lines.join("; ")
            });
            assert!(!problems.expect(preset.name).routes.is_empty());
        }
    }
}
