//! The rules that need no configuration, for each common gateway.

use alloc::borrow::ToOwned;
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

/// What a preset says.
pub(super) struct BuiltIn {
    pub(super) routes: Vec<Value>,
    pub(super) reads: Vec<Value>,
    /// Where its gateway posts, if the configuration does not say.
    pub(super) webhook_path: String,
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
const PRESETS: [Preset; 11] = [
    preset!("laravel"),
    preset!("evolution"),
    preset!("evolution-go"),
    preset!("codechat"),
    preset!("waha"),
    preset!("wppconnect"),
    preset!("wwebjs-api"),
    preset!("open-wa"),
    preset!("baileys-api"),
    preset!("baileys-api-fazer"),
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
    /// What it says, as JSON.
    pub(super) fn rules(self) -> BuiltIn {
        let mut all = match json::parse(self.json) {
            Ok(Value::Object(all)) => all,
            _ => Object::default(),
        };
        let webhook_path = match all.remove("webhook_path") {
            Some(Value::Text(path)) => path,
            _ => "/webhook".to_owned(),
        };
        let mut take = |key: &str| match all.remove(key) {
            Some(Value::Array(rules)) => rules,
            _ => Vec::new(),
        };
        BuiltIn {
            routes: take("routes"),
            reads: take("reads"),
            webhook_path,
        }
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

    #[test]
    fn every_rule_says_what_changes_with_each_delivery() {
        for preset in PRESETS {
            let updates = preset.rules().routes;
            for rule in updates.iter().filter(|rule| rule.get("split").is_none()) {
                let volatile = rule.get("volatile");
                assert!(
                    matches!(volatile, Some(Value::Array(_))),
                    "{}: {:?} has a list, be it empty",
                    preset.name,
                    rule.get("name")
                );
            }
        }
    }

    /// What other routes follow on, by preset and rule.
    const GATES: [(&str, &str, &[&str]); 14] = [
        (
            "laravel",
            "status",
            &[
                "active",
                "open",
                "connected",
                "CONNECTED",
                "WORKING",
                "ready",
            ],
        ),
        ("evolution", "connection", &["open"]),
        ("evolution", "status_instance", &["open"]),
        ("evolution-go", "pair_success", &["open"]),
        ("evolution-go", "connected", &["open"]),
        ("codechat", "connection", &["open"]),
        ("waha", "session_status", &["WORKING"]),
        ("wppconnect", "status_find", &["isLogged", "inChat"]),
        ("wwebjs-api", "change_state", &["CONNECTED"]),
        ("wwebjs-api", "ready", &["ready"]),
        ("open-wa", "state", &["CONNECTED"]),
        ("baileys-api", "connection", &["connected"]),
        ("baileys-api-fazer", "connection", &["open"]),
        ("wa-gateway", "session", &["connected"]),
    ];

    #[test]
    fn every_state_that_opens_a_gate_leaves_at_once_and_voids_a_waiting_qr() {
        for preset in PRESETS {
            let json = format!(r#"{{"preset":"{}"}}"#, preset.name);
            let config = Config::parse(json.as_bytes()).unwrap();
            let qr = config.route_named("qr").map(|(at, _)| at);
            let mut gates = GATES.iter().filter(|gate| gate.0 == preset.name).peekable();
            assert!(gates.peek().is_some(), "{}", preset.name);
            for (_, name, values) in gates {
                let (_, rule) = config.route_named(name).unwrap();
                for value in *values {
                    let what = format!("{}: {value} of {name}", preset.name);
                    assert!(rule.priority.holds(value), "{what}");
                    let Some(qr) = qr else {
                        continue;
                    };
                    let voids = rule.voids.as_ref().expect(&what);
                    assert_eq!(voids.routes, [qr], "{what}");
                    assert!(voids.values.iter().any(|known| known == value), "{what}");
                }
            }
        }
    }
}
