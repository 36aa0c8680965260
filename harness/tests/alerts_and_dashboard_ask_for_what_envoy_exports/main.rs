//! `deploy/prometheus-rules.yaml` and `deploy/grafana/embudo.json` against a real Envoy: an alert on a name that nobody
//! exports never fires, and a panel stays empty, and nobody notices. Every metric in every expression, with its label
//! matchers, and every label that a text names must be there on `/stats/prometheus` after some traffic.

mod alerts;
mod dashboard;
mod promql;

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::{Envoy, EnvoyOptions, wait};
use embudo::model::gateway::session_ids;
use http_body_util::Full;
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use self::promql::Exported;

/// How long anything may take: it says that something hangs, and is no claim about speed.
const BOUND: Duration = Duration::from_secs(30);

/// What an Envoy exports that has delivered an update, let one bypass, and has a webhook to fall back to.
async fn exported_after_some_traffic() -> Result<Exported> {
    let laravel = LaravelServer::start(LaravelOptions::costing(0)).await?;
    let options = EnvoyOptions {
        // Dead letters are counted where there is somebody to hand them to.
        filter_config: json!({
            "fallback": {"cluster": "webhook", "path": "/webhook"},
            "assume": {"callers": true},
        }),
        ..EnvoyOptions::new("exported", laravel.addr)
    };
    let envoy = Envoy::start(options).await?;
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let body = json!({"session_id": session_ids(1, 1)[0], "qr": "2@one"}).to_string();
    for (header, outcome) in [
        ("x-nothing", "queued"),
        ("x-embudo-bypass", "bypass; header"),
    ] {
        let request = Request::post(format!("{}/api/qr", envoy.url()))
            .header("content-type", "application/json")
            .header(header, "1")
            .body(Full::from(body.clone()))?;
        let answer = client.request(request).await?;
        assert_eq!(answer.headers()["x-embudo"], outcome);
    }
    let mut page = String::new();
    let shown = wait::until(BOUND, async || {
        let now = envoy.admin.get("/stats/prometheus").await;
        page = now.unwrap_or_default();
        page.contains("embudo_staleness_ms_bucket")
    });
    assert!(shown.await, "the delivery shows: {page}");
    Ok(promql::exported(&page))
}

#[tokio::test]
async fn every_name_and_label_is_exported_by_a_real_envoy() -> Result<()> {
    let exported = exported_after_some_traffic().await?;
    let of_alerts = alerts::alerts();
    let of_alerts = of_alerts.iter().flat_map(|alert| alert.mistakes(&exported));
    let of_panels = dashboard::panels();
    let of_panels = of_panels.iter().flat_map(|panel| panel.mistakes(&exported));
    let wrong: Vec<String> = of_alerts.chain(of_panels).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}
