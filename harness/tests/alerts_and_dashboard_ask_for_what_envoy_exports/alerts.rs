//! The alerts of `deploy/prometheus-rules.yaml`.

use std::collections::{BTreeMap, BTreeSet};

use embudo::live::paths;
use serde::Deserialize;

use crate::promql::{self, Exported};

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
pub(crate) struct Alert {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    lasts: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

pub(crate) fn alerts() -> Vec<Alert> {
    let file = paths::root().join("deploy/prometheus-rules.yaml");
    let text = std::fs::read_to_string(file).expect("the rules");
    let rules: Rules = serde_yaml_ng::from_str(&text).expect("rules as Prometheus reads them");
    rules.groups.into_iter().flat_map(|g| g.rules).collect()
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

// === impl Alert ===

impl Alert {
    /// What is wrong with it on this Envoy.
    pub(crate) fn mistakes(&self, exported: &Exported) -> Vec<String> {
        let shown = self.annotations.values().flat_map(|text| labels_of(text));
        let wrong = promql::mistakes(&self.expr, &shown.collect(), exported);
        let named = wrong.iter().map(|wrong| format!("{}: {wrong}", self.alert));
        named.collect()
    }
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
        "EmbudoSuspects",
        "EmbudoOutside",
        "EmbudoStoreFull",
        "EmbudoAssumptionContradicted",
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
