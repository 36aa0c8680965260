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
    json: &'static str,
}

/// The first one is the default: the gateway and the Laravel that exist.
const PRESETS: [Preset; 7] = [
    Preset {
        name: "laravel",
        json: include_str!("presets/laravel.json"),
    },
    Preset {
        name: "evolution",
        json: include_str!("presets/evolution.json"),
    },
    Preset {
        name: "waha",
        json: include_str!("presets/waha.json"),
    },
    Preset {
        name: "wppconnect",
        json: include_str!("presets/wppconnect.json"),
    },
    Preset {
        name: "wwebjs-api",
        json: include_str!("presets/wwebjs-api.json"),
    },
    Preset {
        name: "baileys-api",
        json: include_str!("presets/baileys-api.json"),
    },
    Preset {
        name: "wa-gateway",
        json: include_str!("presets/wa-gateway.json"),
    },
];

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
        let mut all = match json::parse(self.json.as_bytes()) {
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
