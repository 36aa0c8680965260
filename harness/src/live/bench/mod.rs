//! The cost of the filter: what a request costs Envoy with Embudo, with the least filter that could do the job
//! (the *floor*, `harness/floor`), and with Envoy alone.
//!
//! Envoy has one core to itself, the load and Laravel's side another. Every arm is measured in every round, so that
//! whatever disturbs this machine disturbs all of them. In a round an arm gets a steady stream, for the latency,
//! and a burst as fast as the answers come, for the time that Envoy's process runs for it (all its threads, to
//! the nanosecond). New values cost until they are delivered: their time ends when the last batch has left.
//! Disturbances only ever add, so an arm's time is the lower quartile of its rounds; a latency is their median.
//!
//! # Layout
//!
//! * `cores`: who runs where, and for how long it ran.
//! * `volley`: requests, and how long each took.
//! * `sessions`: what is in the requests.
//! * `upstream`: the cheapest Laravel there is.
//! * `stage`: an Envoy with sessions in its store, and what they take there.
//! * `report`: the figures, and what they are promised to be.

mod cores;
mod report;
mod sessions;
mod stage;
mod upstream;
mod volley;

use std::time::Duration;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use self::cores::{Cores, pin};
pub use self::report::{ArmFigures, BenchReport, Judged, Memory, Ratios};
use self::stage::Stage;
use self::upstream::Upstream;
use super::bootstrap::LISTENER;
use super::{EnvoyOptions, envoy, wasm};

/// How much is measured.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Rounds of all arms.
    pub rounds: usize,
    /// Requests a second of the steady stream.
    pub rate: f64,
    /// How long the steady stream lasts in each round.
    pub stream: Duration,
    /// Requests of a burst.
    pub burst: usize,
    /// Requests before the first round: V8 compiles well what it has seen often, and an Envoy that has been up for a
    /// minute has seen that.
    pub warm_up: usize,
    /// Sessions in the stores, from small to large. All other arms run beside the first.
    pub sessions: [usize; 3],
}

/// The store whose memory is weighed, by its place in [`BenchOptions::sessions`]: large enough that nothing else
/// shows.
const WEIGHED: usize = 1;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Duplicates,
    NewValues,
    Reads,
    Messages,
}

/// One of the things that are compared.
#[derive(Clone, Debug)]
struct Arm {
    name: String,
    /// By its place in [`BenchOptions::sessions`].
    stage: usize,
    listener: &'static str,
    what: What,
    rounds: Vec<Round>,
    /// Requests of this arm that entered the VM of Embudo.
    entered: u64,
}

/// What one round of an arm has shown.
#[derive(Clone, Copy, Debug)]
struct Round {
    cpu_us: f64,
    answered_us: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Envoy's time for a volley, from the first request on.
struct Spent {
    /// To the last answer, or to the last batch where there are any.
    in_all: Duration,
    to_the_answer: Duration,
}

/// Everything that runs.
struct Bench<'a> {
    options: &'a BenchOptions,
    upstream: Upstream,
    stages: Vec<Stage>,
}

/// Runs the bench, and tells now and then how far it is.
///
/// # Errors
/// When there are no two cores, Envoy does not start, or an answer is not what its arm is about.
pub async fn run(options: &BenchOptions, mut progress: impl FnMut(&str)) -> Result<BenchReport> {
    ensure!(options.rounds > 0, "at least one round");
    progress("building");
    let floor = tokio::task::spawn_blocking(wasm::floor).await??;
    let upstream = Upstream::start().await?;
    let endpoint = upstream.endpoint.clone();
    envoy::Envoy::prepare(&EnvoyOptions::new("bench", endpoint)).await?;
    let cores = Cores::choose()?;
    pin(std::process::id(), cores.load)?;

    let mut stages = Vec::new();
    for (place, sessions) in options.sessions.into_iter().enumerate() {
        progress(&format!("{sessions} sessions into the store"));
        let floor = (place == 0).then(|| floor.clone());
        let weighed = place == WEIGHED;
        stages.push(Stage::start(sessions, floor, weighed, &upstream, cores).await?);
    }
    let mut bench = Bench {
        options,
        upstream,
        stages,
    };
    let mut arms = arms(&options.sessions);
    for arm in &arms {
        progress(&format!("warming up: {}", arm.name));
        bench.fire(arm, options.warm_up, None).await?;
    }
    for round in 1..=options.rounds {
        for arm in &mut arms {
            progress(&format!(
                "round {round} of {}: {}",
                options.rounds, arm.name
            ));
            let measured = bench.measure(arm).await?;
            arm.rounds.push(measured);
        }
    }
    Ok(bench.report(&arms))
}

fn arms(sessions: &[usize; 3]) -> Vec<Arm> {
    let arm = |name: &str, listener, what| Arm {
        name: name.to_owned(),
        stage: 0,
        listener,
        what,
        rounds: Vec::new(),
        entered: 0,
    };
    let mut arms = vec![
        arm("direct_response", "direct_response", What::Duplicates),
        arm("floor", "module", What::Duplicates),
        arm("duplicate", LISTENER, What::Duplicates),
        arm("new", LISTENER, What::NewValues),
        arm("kept_read", LISTENER, What::Reads),
        arm("without_embudo", "without_embudo", What::Messages),
        arm("untouched", LISTENER, What::Messages),
    ];
    for (stage, sessions) in sessions.iter().enumerate().skip(1) {
        for (name, what) in [("duplicate", What::Duplicates), ("new", What::NewValues)] {
            let name = format!("{name}_{sessions}");
            arms.push(Arm {
                stage,
                ..arm(&name, LISTENER, what)
            });
        }
    }
    arms
}

// === impl Bench ===

impl Bench<'_> {
    async fn measure(&mut self, arm: &mut Arm) -> Result<Round> {
        let entered = self.stages[arm.stage].entered().await?;
        let (rate, stream) = (self.options.rate, self.options.stream);
        let count = (rate * stream.as_secs_f64()).ceil() as usize;
        let (_, latencies) = self.fire(arm, count, Some(rate)).await?;
        let (spent, burst) = self.fire(arm, self.options.burst, None).await?;
        arm.entered += self.stages[arm.stage].entered().await? - entered;
        let us = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / burst.len() as f64;
        Ok(Round {
            cpu_us: each(spent.in_all),
            answered_us: each(spent.to_the_answer),
            p50_us: us(0.5),
            p99_us: us(0.99),
        })
    }

    async fn fire(
        &mut self,
        arm: &Arm,
        count: usize,
        rate: Option<f64>,
    ) -> Result<(Spent, Histogram<u64>)> {
        let stage = &mut self.stages[arm.stage];
        let shots = match arm.what {
            What::Duplicates => stage.sessions.duplicates(count),
            What::NewValues => stage.sessions.new_values(count),
            What::Reads => stage.sessions.reads(count, "cached"),
            What::Messages => stage.sessions.messages(count),
        };
        let volley = stage.volley(arm.listener, shots, rate).await?;
        let fired = volley.fire().await?;
        let to_the_answer = stage.cpu_time()?.saturating_sub(fired.cpu_before);
        // Of a steady stream only the latencies count.
        if arm.what == What::NewValues && rate.is_none() {
            self.upstream.quiet().await?;
        }
        let in_all = stage.cpu_time()?.saturating_sub(fired.cpu_before);
        stage.settled().await?;
        let spent = Spent {
            in_all,
            to_the_answer,
        };
        Ok((spent, fired.latencies))
    }
}
