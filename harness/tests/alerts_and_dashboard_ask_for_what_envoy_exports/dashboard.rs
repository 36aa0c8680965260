//! The panels of `deploy/grafana/embudo.json`.

use std::collections::BTreeSet;

use embudo::live::paths;
use serde::Deserialize;

use crate::promql::{self, Exported};

#[derive(Debug, Deserialize)]
struct Dashboard {
    panels: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Panel {
    title: String,
    description: String,
    grid_pos: Place,
    targets: Vec<Target>,
}

/// Where a panel is, in the 24 columns of a dashboard.
#[derive(Debug, Deserialize)]
struct Place {
    x: u32,
    y: u32,
    w: u32,
    h: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    expr: String,
    legend_format: String,
}

pub(crate) fn panels() -> Vec<Panel> {
    let file = paths::root().join("deploy/grafana/embudo.json");
    let text = std::fs::read_to_string(file).expect("the dashboard");
    let dashboard: Dashboard = serde_json::from_str(&text).expect("a dashboard of Grafana's");
    dashboard.panels
}

/// The labels that a legend shows: `{{route}}`.
fn labels_of(legend: &str) -> BTreeSet<String> {
    let places = legend.split("{{").skip(1);
    let name = |place: &str| place.split("}}").next().unwrap_or(place).trim().to_owned();
    places.map(name).collect()
}

// === impl Panel ===

impl Panel {
    /// What is wrong with it on this Envoy.
    pub(crate) fn mistakes(&self, exported: &Exported) -> Vec<String> {
        let wrong = self.targets.iter().flat_map(|target| {
            promql::mistakes(&target.expr, &labels_of(&target.legend_format), exported)
        });
        wrong
            .map(|wrong| format!("{}: {wrong}", self.title))
            .collect()
    }

    fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (&self.grid_pos, &other.grid_pos);
        a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h
    }
}

#[test]
fn every_panel_has_a_place_and_a_text_of_its_own_and_chosen_envoys_only() {
    let panels = panels();
    for (at, panel) in panels.iter().enumerate() {
        assert!(
            !panel.targets.is_empty() && panel.description.len() > 20,
            "{panel:?}"
        );
        assert!(panel.grid_pos.x + panel.grid_pos.w <= 24, "{panel:?}");
        for other in &panels[..at] {
            assert_ne!(panel.title, other.title);
            assert!(
                !panel.overlaps(other),
                "{} and {}",
                panel.title,
                other.title
            );
        }
        for target in &panel.targets {
            // Each name of a metric, and the choice of Envoys behind it.
            let metrics = target.expr.matches("embudo_").count();
            let chosen = target.expr.matches("{instance=~\"$instance\"").count();
            assert_eq!(metrics, chosen, "{}: {}", panel.title, target.expr);
        }
    }
}

#[test]
fn whatever_an_operator_looks_for_is_on_some_panel() {
    let panels = panels();
    for metric in [
        "embudo_requests",
        "embudo_pending",
        "embudo_oldest_pending_ms",
        "embudo_circuit",
        "embudo_laravel_slow",
        "embudo_calls",
        "embudo_call_ms_bucket",
        "embudo_staleness_ms_bucket",
        "embudo_batch_items_count",
        "embudo_items",
        "embudo_fallback",
        "embudo_dead_letters",
        "embudo_leader_beat",
        "embudo_held",
        "embudo_suspects",
        "embudo_proven",
        "embudo_beliefs",
        "embudo_reads_compared",
        "envoy_wasm_embudo_vm_reload_success",
    ] {
        let asked = format!("{metric}{{");
        let mut targets = panels.iter().flat_map(|panel| &panel.targets);
        assert!(
            targets.any(|target| target.expr.contains(&asked)),
            "{metric}"
        );
    }
}
