//! `embudo load`: the gateway's traffic alone, to any address.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use embudo::live::load::LoadOptions;
use embudo::model::gateway::{GatewayConfig, RetryPolicy};

use super::{arm, table};

/// Send what a gateway sends: QRs, states and status reads, with its retries
///
/// An open loop: a request goes out when it is due, however slow the answers are. Session ids are
/// made from the seed; a real Laravel knows none of them, `embudo laravel` takes them all.
#[derive(Args, Debug)]
pub(crate) struct LoadArguments {
    /// Where to send it: scheme, host and port
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:10000")]
    target: String,
    /// What comes before /qr
    #[arg(long, default_value = "/api")]
    prefix: String,
    /// WhatsApp sessions, most of which nobody scans
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    /// Decides ids, QRs, phases and scans
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// For how long, in seconds
    #[arg(long, default_value_t = 60)]
    secs: u64,
    /// How many times faster than in life sessions live; waits of retries too, timeouts not
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
}

pub(crate) async fn run(arguments: LoadArguments) -> Result<()> {
    let real = RetryPolicy::default();
    let retries = RetryPolicy {
        timeout_ms: real.timeout_ms,
        ..real.compressed(arguments.speed)
    };
    let options = LoadOptions {
        base_url: arguments.target,
        prefix: arguments.prefix,
        sessions: arguments.sessions,
        seed: arguments.seed,
        duration: Duration::from_secs(arguments.secs),
        gateway: GatewayConfig {
            time_compression: arguments.speed,
            ..GatewayConfig::default()
        },
        retries,
        ..LoadOptions::default()
    };
    let report = arm::send("load", options).await?;
    println!("{}", table::load(&report));
    Ok(())
}
