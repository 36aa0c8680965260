//! `embudo laravel`: the stand-in alone, for trying an Envoy of one's own against it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::model::http::Kind;
use embudo::model::laravel::LaravelConfig;

use super::interrupted;
use super::progress::{Progress, UPDATE_EVERY};

/// How long a request in progress may take to end.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Run the stand-in Laravel alone, until Ctrl-C
///
/// It validates, answers and is as slow as a small Laravel with PHP-FPM, and it takes any session
/// for an account.
#[derive(Args, Debug)]
pub(crate) struct LaravelArguments {
    /// The port, on 127.0.0.1
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// PHP workers: so many requests run at once, the others wait
    #[arg(long, default_value_t = 8)]
    workers: usize,
    /// What a request costs a worker, in milliseconds
    #[arg(long, default_value_t = 20)]
    request_ms: u64,
    /// What each item of a batch costs on top, in milliseconds
    #[arg(long, default_value_t = 1)]
    item_ms: u64,
    /// Requests a minute before it answers 429, as `throttle:api` does
    #[arg(long, value_name = "REQUESTS")]
    throttle_per_minute: Option<u32>,
    /// Leave the batch routes out, as a Laravel without them would
    #[arg(long)]
    no_batch: bool,
}

pub(crate) async fn run(arguments: LaravelArguments) -> Result<()> {
    let config = LaravelConfig {
        qr_batch: !arguments.no_batch,
        status_batch: !arguments.no_batch,
        throttle_per_minute: arguments.throttle_per_minute,
        request_ms: arguments.request_ms,
        item_ms: arguments.item_ms,
        any_account: true,
        ..LaravelConfig::default()
    };
    let options = LaravelOptions {
        config,
        port: arguments.port,
        workers: arguments.workers,
        ..LaravelOptions::default()
    };
    let laravel = LaravelServer::start(options)
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{}", arguments.port))?;
    println!(
        "A stand-in Laravel at {}/api; Ctrl-C stops it.",
        laravel.url()
    );

    let mut progress = Progress::endless("laravel");
    let mut every = tokio::time::interval(UPDATE_EVERY);
    let stopped = interrupted();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => break,
            _ = every.tick() => progress.update(&line(&laravel)),
        }
    }
    laravel.idle(IDLE_MAX).await;
    progress.finish(&line(&laravel));
    Ok(())
}

fn line(laravel: &LaravelServer) -> String {
    let counts = laravel.counts();
    let shown = Kind::ALL.iter().filter_map(|&kind| {
        let requests = counts.of(kind).requests;
        (requests > 0).then(|| format!("{} {}", kind.name(), requests))
    });
    match shown.collect::<Vec<_>>().join(", ") {
        nothing if nothing.is_empty() => "no request yet".to_owned(),
        line => line,
    }
}
