//! Whatever arrives on the intercepted routes, the sender is no worse off than without Embudo: what
//! is not an update that Laravel can read passes through and gets Laravel's own answer, and nothing
//! makes a VM trap.
//!
//! The table sends each case through Envoy and straight to the stand-in Laravel and compares: the
//! answers, and what Laravel received. Beside the bad input it holds the odd but valid, which must be
//! queued *and* reach Laravel as it was meant.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use embudo::live::laravel::{LaravelOptions, LaravelServer};
use embudo::live::stats::VmReloads;
use embudo::live::{Envoy, EnvoyOptions, wait};
use embudo::model::http::Request;
use embudo::model::laravel::LaravelConfig;
use embudo_tests::raw::{self, Answer};
use serde_json::json;

use self::table::{CASE, Case, Expected, UPLOAD_BYTES};

// A table, one case a line.
#[rustfmt::skip]
mod table;

/// Until everything queued has been delivered: a few flushes of at most 5 s, and a busy machine.
const DELIVERY_MAX: Duration = Duration::from_secs(40);

#[tokio::test]
async fn each_case_gets_the_answer_that_laravel_gives_or_is_queued_and_delivered() -> Result<()> {
    let laravel = start_laravel().await?;
    let envoy = Envoy::start(EnvoyOptions {
        // Whom Laravel accepts is another question; and a case's number makes nobody another caller.
        filter_config: json!({"assume": {"callers": true}, "headers": {"neutral": [CASE]}}),
        ..EnvoyOptions::new("bad-input", laravel.addr)
    })
    .await?;
    let cases = table::cases();

    let mut wrong = Vec::new();
    for case in &cases {
        let through = case.send(envoy.listener).await;
        let through = through.with_context(|| format!("{}: through Envoy", case.name))?;
        if let Err(error) = case.compare(&through, &laravel).await {
            wrong.push(format!("{}: {error:#}; answer {through:?}", case.name));
        }
    }

    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert_both_workers_served(&envoy).await?;
    assert_counters(&envoy, &cases).await?;
    assert_delivered(&laravel, &cases).await;
    let stats = envoy.admin.stats().await?;
    assert_eq!(
        stats.vm_reloads(),
        VmReloads::default(),
        "no case makes a VM trap"
    );
    Ok(())
}

// === what must hold ===

impl Case {
    async fn send(&self, to: std::net::SocketAddr) -> Result<Answer> {
        match self.http2 {
            true => raw::http2(to, &self.message).await,
            false => self.message.send(to).await,
        }
    }

    async fn compare(&self, through: &Answer, laravel: &LaravelServer) -> Result<()> {
        let outcome = through.header("x-embudo");
        let expected = match &self.expected {
            Expected::Queued(_) => Some("queued".to_owned()),
            Expected::Bypass(reason) => Some(format!("bypass; {reason}")),
            Expected::Untouched => None,
        };
        ensure!(outcome == expected, "x-embudo must be {expected:?}");
        if let Expected::Queued(_) = self.expected {
            ensure!(through.status == 200, "what is queued is answered 200");
            ensure!(
                self.arrivals(laravel).is_empty(),
                "and Laravel does not see it as it came"
            );
            return Ok(());
        }
        let direct = self
            .send(laravel.addr)
            .await
            .context("straight to Laravel")?;
        ensure!(
            (through.status, &through.body) == (direct.status, &direct.body),
            "Laravel itself answers {direct:?}"
        );
        for name in ["content-type", "allow", "location"] {
            let (through, direct) = (through.header(name), direct.header(name));
            ensure!(through == direct, "{name} of Laravel itself: {direct:?}");
        }
        let arrivals = self.arrivals(laravel);
        let [first, second] = arrivals.as_slice() else {
            anyhow::bail!(
                "it must reach Laravel once each way, not {} times",
                arrivals.len()
            );
        };
        ensure!(
            (&first.method, &first.path) == (&second.method, &second.path),
            "the request line must arrive as it was sent"
        );
        ensure!(
            first.body == second.body,
            "the body must arrive byte for byte"
        );
        ensure!(first.body == self.message.body, "and be what was sent");
        Ok(())
    }

    fn arrivals(&self, laravel: &LaravelServer) -> Vec<Request> {
        let number = self
            .message
            .headers
            .last()
            .map(|(_, number)| number.as_slice());
        let mine = |request: &Request| {
            let case = request.headers.iter().find(|(name, _)| name == CASE);
            case.map(|(_, value)| &value[..]) == number
        };
        laravel.raw().into_iter().filter(mine).collect()
    }
}

/// A case that only one worker saw would say nothing about the other's VM.
async fn assert_both_workers_served(envoy: &Envoy) -> Result<()> {
    let filter = r"/stats?filter=^listener\..*\.worker_[0-9]%2B\.downstream_cx_total$";
    let workers = envoy.admin.get(filter).await?;
    let busy = workers.lines().filter(|line| !line.ends_with(": 0"));
    assert_eq!(
        busy.count(),
        2,
        "both workers have had connections:\n{workers}"
    );
    Ok(())
}

async fn assert_counters(envoy: &Envoy, cases: &[Case]) -> Result<()> {
    let (mut queued, mut reasons) = (0, BTreeMap::<String, u64>::new());
    for case in cases {
        match case.expected {
            Expected::Queued(_) => queued += 1,
            Expected::Bypass(reason) => *reasons.entry(reason.to_owned()).or_default() += 1,
            Expected::Untouched => {}
        }
    }
    let bypassed: u64 = reasons.values().sum();
    let stats = envoy.admin.stats().await?;
    let mut counted = stats.counters_by("embudo.requests", "reason");
    counted.retain(|_, count| *count > 0);
    assert_eq!(
        counted, reasons,
        "each bypass is counted once, under its reason"
    );
    let mut outcomes = stats.counters_by("embudo.requests", "outcome");
    outcomes.retain(|_, count| *count > 0);
    let expected = [
        ("bypass".to_owned(), bypassed),
        ("queued".to_owned(), queued),
    ];
    assert_eq!(
        outcomes,
        expected.into(),
        "nothing else is queued, and nothing else enters the VM"
    );
    Ok(())
}

async fn assert_delivered(laravel: &LaravelServer, cases: &[Case]) {
    let mut missing = cases.iter().collect::<Vec<_>>();
    let delivered = wait::until(DELIVERY_MAX, async || {
        let journal = laravel.journal();
        missing.retain(|case| match &case.expected {
            Expected::Queued(Some((session, value))) => !journal
                .of_session(session)
                .any(|entry| entry.value == *value),
            _ => false,
        });
        missing.is_empty()
    });
    let delivered = delivered.await;
    let names: Vec<&str> = missing.iter().map(|case| case.name.as_str()).collect();
    assert!(
        delivered,
        "what was queued must reach Laravel with the value that was meant: {names:?}"
    );
}

async fn start_laravel() -> Result<LaravelServer> {
    let config = LaravelConfig {
        any_account: true,
        // nginx's own limit is 1 MiB; the question here is what arrives, not what nginx thinks of it.
        body_bytes_max: 2 * UPLOAD_BYTES,
        request_ms: 0,
        ..LaravelConfig::default()
    };
    let options = LaravelOptions {
        config,
        ..LaravelOptions::default()
    };
    let laravel = LaravelServer::start(options).await?;
    laravel.record_raw(true);
    Ok(laravel)
}
