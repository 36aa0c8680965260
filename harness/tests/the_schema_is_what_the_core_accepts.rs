//! The JSON Schema of the configuration, against the constructor that decides: the same keys, the same ranges,
//! the same defaults.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use embudo_core::config::Config;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn schema() -> Value {
    let file = root().join("filter/cold/src/config/schema.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn problems(config: &Value) -> Vec<String> {
    match Config::parse(config.to_string().as_bytes()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// An object of the configuration: where its schema is, and a configuration with it in place.
struct Level {
    schema: &'static str,
    wrap: fn(Value) -> Value,
}

const LEVELS: [Level; 12] = [
    Level {
        schema: "",
        wrap: |object| object,
    },
    Level {
        schema: "/properties/headers",
        wrap: |o| json!({"headers": o}),
    },
    Level {
        schema: "/properties/assume",
        wrap: |o| json!({"assume": o}),
    },
    Level {
        schema: "/properties/upstream",
        wrap: |o| json!({"upstream": o}),
    },
    Level {
        schema: "/$defs/route",
        wrap: |o| json!({"routes": [o]}),
    },
    Level {
        schema: "/$defs/route/properties/batch",
        wrap: |o| json!({"routes": [{"name": "qr", "batch": o}]}),
    },
    Level {
        schema: "/$defs/route/properties/implies",
        wrap: |o| json!({"routes": [{"name": "qr", "implies": o}]}),
    },
    Level {
        schema: "/$defs/route/properties/voids",
        wrap: |o| json!({"routes": [{"name": "status", "voids": o}]}),
    },
    Level {
        schema: "/$defs/route/properties/split",
        wrap: |o| json!({"routes": [{"name": "qr_batch", "split": o}]}),
    },
    Level {
        schema: "/$defs/barrier",
        wrap: |o| json!({"barriers": [o]}),
    },
    Level {
        schema: "/properties/fallback",
        wrap: |o| json!({"fallback": o}),
    },
    Level {
        schema: "/$defs/read",
        wrap: |o| json!({"reads": [o]}),
    },
];

/// Far from every key, so that the core names them all.
const UNKNOWN: &str = "zzzzzzzzzzzzzzzzzzzzzzzzzzzz";

fn keys_of_the_core(level: &Level) -> BTreeSet<String> {
    let config = (level.wrap)(json!({ UNKNOWN: 1 }));
    let said = problems(&config);
    let known = said.iter().find_map(|line| line.split("known are ").nth(1));
    let known = known.unwrap_or_else(|| panic!("no list of keys in {said:?}"));
    known.split(", ").map(str::to_owned).collect()
}

#[test]
fn each_object_has_the_same_keys() {
    let schema = schema();
    for level in &LEVELS {
        let object = schema.pointer(level.schema).expect(level.schema);
        assert_eq!(object["additionalProperties"], false, "{}", level.schema);
        let mut known = keys_of_the_core(level);
        // Optional objects are not asked for what is in them until they are there.
        for optional in ["match", "implies", "voids", "split"] {
            if level.schema == "/$defs/route" {
                known.insert(optional.to_owned());
            }
        }
        let listed: BTreeSet<String> = object["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(known, listed, "the keys of {:?}", level.schema);
        for (key, property) in object["properties"].as_object().unwrap() {
            let name = property["$ref"] == "#/$defs/name";
            assert!(
                name || property["description"].is_string(),
                "{key} is described"
            );
        }
    }
}

#[test]
fn each_number_has_the_same_range_and_default() {
    let schema = schema();
    let mut numbers = 0;
    for level in &LEVELS {
        let named = |mut object: Value| {
            match level.schema {
                "/$defs/route" => object["name"] = json!("qr"),
                "/$defs/read" => object["name"] = json!("status"),
                _ => {}
            }
            (level.wrap)(object)
        };
        let object = schema.pointer(level.schema).expect(level.schema);
        for (key, property) in object["properties"].as_object().unwrap() {
            if property["type"] != "integer" {
                continue;
            }
            numbers += 1;
            let [least, most, default] = ["minimum", "maximum", "default"].map(|bound| {
                property[bound]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{key} has a {bound}"))
            });
            // What two keys have to do with each other is another matter.
            let config = |value: u64| {
                let mut object = json!({ key: value });
                if key == "backoff_min_ms" {
                    object["backoff_max_ms"] = json!(3_600_000);
                }
                if key == "backoff_max_ms" {
                    object["backoff_min_ms"] = json!(1);
                }
                named(object)
            };
            for fits in [least, most] {
                assert_eq!(
                    problems(&config(fits)),
                    Vec::<String>::new(),
                    "{key} may be {fits}"
                );
            }
            let below = least.checked_sub(1);
            for wrong in below.into_iter().chain([most + 1]) {
                assert_ne!(
                    problems(&config(wrong)),
                    Vec::<String>::new(),
                    "{key} may not be {wrong}"
                );
            }
            let debug =
                |config: Value| format!("{:?}", Config::parse(config.to_string().as_bytes()));
            // The built-in routes have limits and bounds of their own.
            if level.schema.is_empty() {
                assert_eq!(
                    debug(named(json!({ key: default }))),
                    debug(json!({})),
                    "{key}'s default"
                );
            }
        }
    }
    assert!(numbers >= 20, "{numbers} numbers");
}

#[test]
fn the_other_defaults_are_the_cores() {
    let schema = schema();
    let debug = |config: &Value| {
        format!(
            "{:?}",
            Config::parse(config.to_string().as_bytes()).unwrap()
        )
    };
    let plain = debug(&json!({}));
    for level in LEVELS.iter().take(4) {
        let object = schema.pointer(level.schema).unwrap();
        for (key, property) in object["properties"].as_object().unwrap() {
            if let Some(default) = property.get("default") {
                let config = (level.wrap)(json!({ key: default }));
                assert_eq!(debug(&config), plain, "{key}'s default is {default}");
            }
        }
    }
    for value in schema["properties"]["preset"]["enum"].as_array().unwrap() {
        assert_eq!(problems(&json!({ "preset": value })), Vec::<String>::new());
    }
}

#[test]
fn every_preset_and_every_example_is_valid_by_the_schema_and_by_the_core() {
    let schema = schema();
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let mut configs = vec![("{}".to_owned(), json!({}))];
    for preset in schema["properties"]["preset"]["enum"].as_array().unwrap() {
        configs.push((preset.to_string(), json!({ "preset": preset })));
        let name = preset.as_str().unwrap();
        let file = root().join(format!("filter/cold/src/config/presets/{name}.json"));
        let rules: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        assert!(
            validator.is_valid(&rules),
            "{name}'s rules: {:?}",
            errors(&validator, &rules)
        );
    }
    for snippet in fs::read_dir(root().join("deploy/presets")).unwrap() {
        let text = fs::read_to_string(snippet.unwrap().path()).unwrap();
        let yaml: Value = serde_yaml_ng::from_str(&text).unwrap();
        let value = yaml["configuration"]["value"].as_str().unwrap();
        configs.push((text.clone(), serde_json::from_str(value).unwrap()));
    }
    let documents = ["README.md", "envoy.yaml"];
    let mut examples = 0;
    for document in documents {
        for example in examples_in(&fs::read_to_string(root().join(document)).unwrap()) {
            examples += 1;
            configs.push((format!("{document}: {example}"), example));
        }
    }
    assert!(examples >= 3, "{examples} examples in {documents:?}");
    for (name, config) in configs {
        assert!(
            validator.is_valid(&config),
            "{name}: {:?}",
            errors(&validator, &config)
        );
        assert_eq!(problems(&config), Vec::<String>::new(), "{name}");
    }
}

fn errors(validator: &jsonschema::Validator, config: &Value) -> Vec<String> {
    validator
        .iter_errors(config)
        .map(|error| error.to_string())
        .collect()
}

/// JSON objects in a text whose first key is one of the configuration's.
fn examples_in(text: &str) -> Vec<Value> {
    let keys: Vec<String> = schema()["properties"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let starts = text.match_indices('{').map(|(at, _)| at);
    let read = |at: usize| {
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        values.next()?.ok()
    };
    starts
        .filter_map(read)
        .filter(|value| {
            let object = value.as_object();
            object.is_some_and(|object| object.keys().any(|key| keys.contains(key)))
        })
        .collect()
}

#[test]
fn what_the_core_refuses_the_schema_mostly_refuses_too() {
    let validator = jsonschema::validator_for(&schema()).expect("the schema is one");
    let mut refused = 0;
    for file in fs::read_dir(root().join("harness/tests/broken")).unwrap() {
        let file = file.unwrap().path();
        let text = fs::read_to_string(&file).unwrap();
        let config = serde_json::from_str::<Value>(&text).ok();
        let Some(config) = config.filter(|_| file.extension().is_some_and(|e| e == "json")) else {
            continue;
        };
        assert_ne!(
            problems(&config),
            Vec::<String>::new(),
            "{}",
            file.display()
        );
        refused += usize::from(!validator.is_valid(&config));
    }
    // Names that lead nowhere and rules that hide each other are beyond a schema.
    assert!(refused >= 13, "the schema refuses {refused} of them");
}
