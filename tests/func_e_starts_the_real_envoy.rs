//! The runner itself, on the real func-e and the real Envoy: if this fails, no other live test
//! means anything.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use embudo::live::tools::ENVOY_VERSION;
use embudo::live::{Envoy, EnvoyOptions, Starter};
use serde_json::json;

/// Nothing listens there, and no request is sent.
const NO_LARAVEL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

#[tokio::test]
async fn func_e_starts_envoy_with_the_shipped_configuration_and_nothing_is_left_behind()
-> Result<()> {
    let envoy = Envoy::start(EnvoyOptions::new("func-e", NO_LARAVEL)).await?;

    assert_eq!(envoy.started_by().as_deref(), Some("func-e"));
    assert_ne!(envoy.listener.port(), 0);
    let info = envoy.admin.get("/server_info").await?;
    if std::env::var_os("ENVOY_PATH").is_none() {
        assert!(
            info.contains(&format!("/{ENVOY_VERSION}/")),
            "the pinned Envoy runs: {info}"
        );
    }
    assert_eq!(
        envoy
            .admin
            .stats()
            .await?
            .raw("listener_manager.total_listeners_active"),
        1
    );
    assert!(envoy.run_dir.join("config_dump.json").is_file());

    let (admin, pid) = (envoy.admin.clone(), envoy.pid);
    envoy.stop();
    assert!(!admin.is_ready().await, "its admin page is gone");
    assert!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "its process is gone"
    );
    Ok(())
}

#[tokio::test]
async fn envoys_run_side_by_side_and_also_without_func_e_and_without_embudo() -> Result<()> {
    let plain = EnvoyOptions {
        embudo: false,
        starter: Starter::Direct,
        ..EnvoyOptions::new("plain", NO_LARAVEL)
    };
    let (plain, other) = tokio::try_join!(
        Envoy::start(plain),
        Envoy::start(EnvoyOptions::new("other", NO_LARAVEL))
    )?;

    assert_ne!(plain.listener, other.listener);
    assert_ne!(plain.run_dir, other.run_dir);
    let wasm = |text: String| text.contains("vm_config");
    assert!(
        !wasm(plain.admin.get("/config_dump").await?),
        "no module without Embudo"
    );
    assert!(wasm(other.admin.get("/config_dump").await?));
    Ok(())
}

#[tokio::test]
async fn a_listener_update_is_in_use_when_the_call_returns() -> Result<()> {
    let watched = EnvoyOptions {
        watch_listener: true,
        ..EnvoyOptions::new("update", NO_LARAVEL)
    };
    let mut envoy = Envoy::start(watched).await?;
    let before = envoy.listener;

    envoy
        .update_filter_config(&json!({"max_in_flight": 3}))
        .await?;

    let dump = envoy
        .admin
        .get("/config_dump?resource=dynamic_listeners")
        .await?;
    assert!(dump.contains(r#"{\"max_in_flight\":3}"#), "{dump}");
    assert_eq!(
        envoy.admin.listener("gateway").await?,
        Some(before),
        "the port stays"
    );
    Ok(())
}

#[tokio::test]
async fn a_start_that_fails_shows_why() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let options = EnvoyOptions {
        admin: taken.local_addr().unwrap(),
        ..EnvoyOptions::new("fails", NO_LARAVEL)
    };
    let text = format!("{:#}", Envoy::start(options).await.unwrap_err());
    assert!(
        text.contains("Envoy did not start; the end of its log"),
        "{text}"
    );
    assert!(text.contains("Address already in use"), "{text}");
}

#[tokio::test]
async fn a_configuration_that_embudo_refuses_never_reaches_the_traffic() -> Result<()> {
    let wrong = json!({"max_in_flight": "refuse_me"});
    let options = EnvoyOptions {
        filter_config: wrong.clone(),
        ..EnvoyOptions::new("refused", NO_LARAVEL)
    };
    let text = format!("{:#}", Envoy::start(options).await.unwrap_err());
    assert!(
        text.contains("Unable to create Wasm plugin embudo"),
        "{text}"
    );

    let watched = EnvoyOptions {
        watch_listener: true,
        ..EnvoyOptions::new("refused-update", NO_LARAVEL)
    };
    let mut envoy = Envoy::start(watched).await?;
    let text = format!(
        "{:#}",
        envoy.update_filter_config(&wrong).await.unwrap_err()
    );
    assert!(text.contains("Envoy refused the configuration"), "{text}");
    assert!(envoy.is_running(), "the configuration in use stays in use");
    envoy
        .update_filter_config(&json!({"max_in_flight": 2}))
        .await?;
    Ok(())
}
