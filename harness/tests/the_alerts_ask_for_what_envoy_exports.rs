//! `deploy/prometheus-rules.yaml` against a real Envoy: an alert on a name that nobody exports never fires, and nobody
//! notices. Every metric in every expression, with its label matchers, and every label that a text names must be there
//! on `/stats/prometheus` after some traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::paths;
use embudo::live::{Envoy, EnvoyOptions};
use embudo::model::gateway::session_ids;
use embudo::model::laravel::LaravelConfig;
use http_body_util::Full;
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::json;

/// Labels that Prometheus adds to everything it scrapes.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

/// How long anything may take: it says that something hangs, and is no claim about speed.
const BOUND: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    rules: Vec<Alert>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alert {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    lasts: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn alerts() -> Vec<Alert> {
    let file = paths::root().join("deploy/prometheus-rules.yaml");
    let text = std::fs::read_to_string(file).expect("the rules");
    let rules: Rules = serde_yaml_ng::from_str(&text).expect("rules as Prometheus reads them");
    rules.groups.into_iter().flat_map(|g| g.rules).collect()
}

// === a small scan of PromQL ===

/// A metric with its label matchers, as an expression asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selector {
    name: String,
    labels: Vec<(String, String)>,
}

/// The selectors of an expression. It knows names, functions, `=` matchers, ranges, numbers, operators and the three
/// set operators; at anything else it panics rather than overlook a name.
fn selectors(expr: &str) -> Vec<Selector> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expr.trim_start();
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after.trim_start();
            if ["and", "or", "unless"].contains(&word) || rest.starts_with('(') {
                assert!(
                    !["by", "without", "on", "ignoring"].contains(&word),
                    "the scan does not know {word}: {expr}"
                );
                continue;
            }
            let mut labels = Vec::new();
            if let Some(inside) = rest.strip_prefix('{') {
                let (matchers, after) = inside.split_once('}').expect("a closing brace");
                labels = matchers.split(',').map(matcher).collect();
                rest = after.trim_start();
            }
            let name = word.to_owned();
            found.push(Selector { name, labels });
        } else if first == '[' {
            rest = rest.split_once(']').expect("a closing bracket").1;
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        } else {
            assert!("()+-*/<>=!".contains(first), "{first:?} in {expr}");
            rest = &rest[first.len_utf8()..];
        }
        rest = rest.trim_start();
    }
    found
}

fn matcher(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').expect("a matcher");
    let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    let value = value.expect("an `=` matcher, which is all that the scan knows");
    (name.trim().to_owned(), value.to_owned())
}

/// The labels that a text shows: `{{ $labels.route }}`.
fn labels_of(text: &str) -> BTreeSet<String> {
    let places = text.split("$labels.").skip(1);
    let name = |place: &str| {
        let end = place.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        place[..end.unwrap_or(place.len())].to_owned()
    };
    places.map(name).collect()
}

// === what is exported ===

/// Series by name, each with its labels.
type Exported = BTreeMap<String, Vec<BTreeMap<String, String>>>;

fn exported(page: &str) -> Exported {
    let mut all = Exported::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else {
            continue;
        };
        let (labels, _) = rest.rsplit_once('}').expect("labels end");
        let pairs = labels.split("\",").filter_map(|pair| {
            let (name, value) = pair.split_once("=\"")?;
            Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        let series = all.entry(name.to_owned()).or_default();
        series.push(pairs.collect());
    }
    all
}

/// What is wrong with an alert on this Envoy.
fn mistakes(alert: &Alert, exported: &Exported) -> Vec<String> {
    let mut wrong = Vec::new();
    let asked = selectors(&alert.expr);
    let shown: BTreeSet<String> = alert
        .annotations
        .values()
        .flat_map(|t| labels_of(t))
        .collect();
    let mut shows: BTreeSet<&str> = OF_PROMETHEUS.into();
    for selector in &asked {
        let has_all = |series: &&BTreeMap<String, String>| {
            let labels = selector.labels.iter();
            labels
                .clone()
                .all(|(name, value)| series.get(name) == Some(value))
        };
        let series = exported.get(&selector.name).into_iter().flatten();
        let series: Vec<_> = series.filter(has_all).collect();
        if series.is_empty() {
            wrong.push(format!("{}: nobody exports {selector:?}", alert.alert));
        }
        shows.extend(series.iter().flat_map(|s| s.keys()).map(String::as_str));
    }
    if asked.is_empty() {
        wrong.push(format!("{} asks for nothing", alert.alert));
    }
    let unknown = shown.iter().filter(|label| !shows.contains(&***label));
    wrong.extend(unknown.map(|label| format!("{}: no label {label}", alert.alert)));
    wrong
}

#[tokio::test]
async fn every_name_and_label_is_exported_by_a_real_envoy() -> Result<()> {
    let config = LaravelConfig {
        request_ms: 0,
        any_account: true,
        ..LaravelConfig::default()
    };
    let options = LaravelOptions {
        config,
        ..LaravelOptions::default()
    };
    let laravel = LaravelServer::start(options).await?;
    let options = EnvoyOptions {
        // Dead letters are counted where there is somebody to hand them to.
        filter_config: json!({"fallback": {"cluster": "webhook", "path": "/webhook"}}),
        ..EnvoyOptions::new("alerts", laravel.addr)
    };
    let envoy = Envoy::start(options).await?;
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let body = json!({"session_id": session_ids(1, 1)[0], "qr": "2@one"}).to_string();
    let request = Request::post(format!("{}/api/qr", envoy.url()))
        .header("content-type", "application/json")
        .body(Full::from(body))?;
    assert_eq!(
        client.request(request).await?.headers()["x-embudo"],
        "queued"
    );
    let begin = Instant::now();
    while envoy.admin.stats().await?.ledger().delivered == 0 {
        assert!(begin.elapsed() < BOUND, "it is delivered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let exported = exported(&envoy.admin.get("/stats/prometheus").await?);
    let wrong: Vec<String> = alerts()
        .iter()
        .flat_map(|alert| mistakes(alert, &exported))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn every_alert_says_what_is_wrong_how_bad_it_is_and_has_its_own_name() {
    let alerts = alerts();
    let names: BTreeSet<&str> = alerts.iter().map(|alert| &*alert.alert).collect();
    assert_eq!(names.len(), alerts.len(), "{names:?}");
    for expected in [
        "EmbudoLaravelSlow",
        "EmbudoCircuitOpen",
        "EmbudoMisconfigured",
        "EmbudoOldPending",
        "EmbudoRejected",
        "EmbudoDeadLetters",
        "EmbudoLeaderMissing",
        "EmbudoStoreFull",
        "EmbudoVmReloads",
    ] {
        assert!(names.contains(expected), "{expected}: {names:?}");
    }
    for alert in &alerts {
        let severity = alert.labels.get("severity").map(String::as_str);
        assert!(
            matches!(severity, Some("warning" | "critical")),
            "{alert:?}"
        );
        for text in ["summary", "description"] {
            let text = alert.annotations.get(text);
            assert!(text.is_some_and(|text| text.len() > 20), "{alert:?}");
        }
        // What is counted over a range has its own time; a state must last before somebody is called.
        let lasts = alert.lasts.as_deref().unwrap_or("0m");
        let minutes: u32 = lasts
            .strip_suffix('m')
            .and_then(|minutes| minutes.parse().ok())
            .unwrap_or_else(|| panic!("{lasts} is not in whole minutes: {alert:?}"));
        assert_eq!(minutes > 0, !alert.expr.contains("increase("), "{alert:?}");
    }
}

#[test]
fn a_name_or_a_label_that_nobody_exports_is_found() {
    let exported = exported(
        "# TYPE embudo_items counter\nembudo_items{route=\"qr\",end=\"rejected\"} 1\nembudo_pending{} 0\n",
    );
    let alert = |expr: &str, text: &str| Alert {
        alert: "Test".to_owned(),
        expr: expr.to_owned(),
        lasts: None,
        labels: BTreeMap::new(),
        annotations: [("summary".to_owned(), text.to_owned())].into(),
    };
    for (expr, text, right) in [
        (
            "increase(embudo_items{end=\"rejected\"}[5m]) > 0",
            "{{ $labels.route }}",
            true,
        ),
        (
            "embudo_pending > 0.5 and embudo_items{route=\"qr\"}",
            "",
            true,
        ),
        ("embudo_itmes > 0", "", false),
        ("embudo_pending > 0 or (embudo_penidng == 1)", "", false),
        ("increase(embudo_items{end=\"refused\"}[5m]) > 0", "", false),
        ("embudo_items{route=\"qr\",end=\"refused\"} > 0", "", false),
        ("embudo_pending > 0", "{{ $labels.route }}", false),
        ("embudo_pending > 0", "{{ $labels.instance }}", true),
        ("vector(1)", "", false),
    ] {
        let wrong = mistakes(&alert(expr, text), &exported);
        assert_eq!(wrong.is_empty(), right, "{expr}: {wrong:?}");
    }
}
