use std::sync::atomic::Ordering;

use super::*;
use crate::{
    live::laravel::{LaravelOptions, LaravelServer},
    model::{
        http::Kind,
        laravel::{Fault, LaravelConfig, Misbehaviour},
        order,
    },
};

const SESSIONS: usize = 100;
const COMPRESSION: f64 = 60.0;

async fn laravel(epoch: Instant) -> LaravelServer {
    let config = LaravelConfig {
        request_ms: 1,
        ..LaravelConfig::default()
    };
    let accounts = session_ids(3, SESSIONS);
    let options = LaravelOptions {
        config,
        accounts,
        epoch,
        ..LaravelOptions::default()
    };
    LaravelServer::start(options)
        .await
        .expect("a server on a free port")
}

fn options(server: &LaravelServer, epoch: Instant) -> LoadOptions {
    LoadOptions {
        base_url: server.url(),
        sessions: SESSIONS,
        seed: 3,
        duration: Duration::from_secs(3),
        gateway: GatewayConfig {
            scan_probability: 0.3,
            time_compression: COMPRESSION,
            ..GatewayConfig::default()
        },
        // The waits are compressed like the rest; the timeout is not, for Laravel's time is not.
        retries: RetryPolicy {
            timeout_ms: 15_000,
            ..RetryPolicy::default().compressed(60.0)
        },
        epoch,
        ..LoadOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_load_says_is_what_laravel_saw() {
    let epoch = Instant::now();
    let server = laravel(epoch).await;
    let progress = Arc::new(LoadProgress::default());
    let report = run(options(&server, epoch), progress.clone())
        .await
        .expect("a report");

    assert_eq!(
        (report.unfinished, report.shed, report.failures()),
        (0, 0, 0)
    );
    assert_eq!(report.sends_total(), server.counts().requests());
    for kind in Kind::ALL {
        let sends = report.sends.get(&kind).copied().unwrap_or_default();
        assert_eq!(sends, server.counts().of(kind).requests, "{}", kind.name());
        assert_eq!(
            sends,
            report.outcomes(kind, None),
            "{} answered",
            kind.name()
        );
    }
    // 100 sessions for three minutes of their time are some 2,240 requests; scans make it fewer.
    assert!(
        (1_200..2_700).contains(&report.sends_total()),
        "{}",
        report.sends_total()
    );
    assert_eq!(report.all_latencies().from_due.len(), report.sends_total());
    assert_eq!(progress.sends.load(Ordering::Relaxed), report.sends_total());
    assert_eq!(progress.in_flight.load(Ordering::Relaxed), 0);

    assert_eq!(server.journal().check_order(&report.sent), []);
    let ends = server.with(|laravel| order::final_states(laravel, &report.sent));
    assert_eq!(ends.mismatches, []);
    assert!(ends.compared > 80, "{ends:?}");
}

/// Embudo does not keep a caller's first answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_up_asks_twice_for_one_session_of_each_caller() {
    let epoch = Instant::now();
    let server = laravel(epoch).await;
    let mut options = options(&server, epoch);
    let names = session_ids(options.seed, options.sessions).into_iter();
    let tenants = names.enumerate().map(|(index, session)| {
        let mut identity = Identity::plain(session);
        let tenant = format!("tenant-{}", index % 3);
        identity.caller.headers = vec![("x-tenant".to_owned(), tenant)];
        identity
    });
    options.identities = tenants.collect();
    warm_up(&options).await.expect("a warm-up");
    let asked = server.counts().of(Kind::GetStatus).requests;
    assert_eq!(asked, options.sessions as u64 + 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_holds_what_was_due_in_it_and_nothing_else() {
    let epoch = Instant::now();
    let server = laravel(epoch).await;
    let options = LoadOptions {
        windows: vec![0..1_000, 1_000..2_000, 2_000..600_000],
        ..options(&server, epoch)
    };
    // From the third second on, every send fails.
    let fails = Fault::always(Misbehaviour::status(500));
    let report = Load::start(options, Arc::default()).expect("a load");
    server.set_faults(vec![fails.between(server.now_ms() + 2_500, u64::MAX)]);
    let report = report.finish().await.expect("a report");

    let [first, second, rest] = &report.windows[..] else {
        panic!("{} windows, and not the three", report.windows.len());
    };
    let len = |window: &Window| window.latencies.from_due.len();
    let all = report.all_latencies().from_due.len();
    assert_eq!(len(first) + len(second) + len(rest), all);
    let share = len(second) as f64 / all as f64;
    assert!(
        (0.05..0.6).contains(&share),
        "a second of three or a little more: {share}"
    );
    assert_eq!(
        (first.failures(), second.failures()),
        (0, 0),
        "all was well"
    );
    assert!(rest.failures() > 0, "then Laravel failed");
    assert_eq!(rest.failures(), report.failures());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_laravel_multiplies_the_load() {
    let epoch = Instant::now();
    let server = laravel(epoch).await;
    server.set_faults(vec![
        Fault::always(Misbehaviour::status(500)).on(Kind::GetStatus),
    ]);
    let report = run(options(&server, epoch), Arc::default())
        .await
        .expect("a report");

    let questions = report
        .sends
        .get(&Kind::GetStatus)
        .copied()
        .unwrap_or_default();
    let retries = report
        .retries
        .get(&Kind::GetStatus)
        .copied()
        .unwrap_or_default();
    assert_eq!(report.unfinished, 0);
    assert_eq!(
        questions,
        12 * (questions - retries),
        "each question is sent twelve times"
    );
    assert_eq!(report.sends.get(&Kind::PostQr), None, "and no QR at all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_can_be_stopped_and_laravel_can_fail_while_it_runs() {
    let epoch = Instant::now();
    let mut server = laravel(epoch).await;
    let progress = Arc::new(LoadProgress::default());
    let endless = LoadOptions {
        duration: Duration::from_secs(600),
        retries: RetryPolicy::none(),
        ..options(&server, epoch)
    };
    let load = Load::start(endless, progress.clone()).expect("a load");
    let reach = async |counter: &std::sync::atomic::AtomicU64, n| {
        let reached = async {
            while counter.load(Ordering::Relaxed) < n {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached)
            .await
            .expect("in time");
    };
    reach(&progress.answers, 50).await;
    server.down().await;
    reach(&progress.failures, 10).await;
    server.up().await.expect("the same port");
    let answers = progress.answers.load(Ordering::Relaxed);
    reach(&progress.answers, answers + 50).await;
    load.stop();
    let report = load.finish().await.expect("a report");
    assert!(report.network_errors.values().sum::<u64>() >= 10);
    assert!(
        report.sent_for < Duration::from_secs(60),
        "long before its duration is over"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn straight_at_a_hanging_laravel_an_older_update_overtakes_and_is_found() {
    let epoch = Instant::now();
    let server = laravel(epoch).await;
    // Longer than the 333 ms between two compressed QRs, so that the next one is there before.
    let hang = Misbehaviour::Hang {
        finish_after_ms: 900,
    };
    server.set_faults(vec![Fault::always(hang).on(Kind::PostQr).times(5)]);
    let impatient = LoadOptions {
        retries: RetryPolicy {
            timeout_ms: 100,
            ..RetryPolicy::none()
        },
        ..options(&server, epoch)
    };
    let report = run(impatient, Arc::default()).await.expect("a report");
    assert!(server.idle(Duration::from_secs(20)).await);
    assert!(report.timeouts.values().sum::<u64>() >= 5);
    let violations = server.journal().check_order(&report.sent);
    assert!(
        !violations.is_empty(),
        "five QRs took effect after the next one"
    );
}

#[tokio::test]
async fn a_base_url_without_a_host_is_refused() {
    let options = LoadOptions {
        base_url: "/api".to_owned(),
        ..LoadOptions::default()
    };
    let error = Load::start(options, Arc::default())
        .map(|_| ())
        .expect_err("no host");
    assert!(error.to_string().contains("/api"), "{error}");
}
