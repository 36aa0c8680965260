//! A name server that never answers keeps every listener of an Envoy shut for two minutes, if a cluster's first
//! resolution is waited for. The shipped configuration does not wait: the gateway is served, and hears that
//! nobody is there.

use std::time::{Duration, Instant};

use anyhow::Result;
use embudo::live::{Endpoint, Envoy, EnvoyOptions};
use embudo_tests::raw::Message;
use embudo_tests::{session, status_body};
use serde_json::json;
use tokio::net::UdpSocket;

/// Envoy's start takes a second or two, on a busy machine a good many more; the resolution would take 62 s at least.
const START_MAX: Duration = Duration::from_secs(55);

#[tokio::test]
async fn a_silent_name_server_does_not_keep_the_listener_shut() -> Result<()> {
    // Bound, and never read.
    let silent = UdpSocket::bind(("127.0.0.1", 0)).await?;
    let resolver = json!({
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [{"socket_address": {
                "address": "127.0.0.1",
                "port_value": silent.local_addr()?.port(),
            }}],
        },
    });
    let nobody = Endpoint {
        host: "laravel.test".to_owned(),
        port: 80,
    };
    let changes = ["laravel", "laravel_batch", "webhook"].map(|cluster| {
        (
            format!("clusters/{cluster}/typed_dns_resolver_config"),
            resolver.clone(),
        )
    });
    let began = Instant::now();
    let envoy = Envoy::start(EnvoyOptions {
        changes: changes.to_vec(),
        webhook: Some(nobody.clone()),
        ..EnvoyOptions::new("silent-name-server", nobody)
    })
    .await?;
    let took = began.elapsed();
    assert!(took < START_MAX, "the listener is there after {took:?}");
    let message = Message::json(
        "/api/whatsapp/status",
        status_body(&session(), "connecting"),
    );
    let answer = message.send(envoy.listener).await?;
    assert_eq!(
        answer.status, 503,
        "nobody is there, and the gateway hears it"
    );
    envoy.stop();
    Ok(())
}
