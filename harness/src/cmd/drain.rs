//! `embudo drain`: a planned stop that loses nothing.
//!
//! Envoy flushes nothing when it is told to end: no call that is dispatched then is ever sent. A graceful
//! drain of its listeners, on the other hand, keeps ticks and calls going. So: drain, wait until the
//! listeners are closed and nothing is pending, and only then quit.
//!
//! "Nothing is pending" is the dispatcher's word, and counts only while it lives: its gauge must say 0 while
//! its beat goes on, and Envoy's counters must agree that every accepted update has met its end. An update
//! whose wake-up was lost is in the counters before the dispatcher finds it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use embudo::live::{Admin, Stats, wait};
use serde::Serialize;

/// What is read at each look.
const FILTER: &str = r"^wasmcustom\.embudo\.(pending|oldest_pending_ms|leader_beat|requests|revived|items)|^listener_manager\.listener_stopped$";

/// How often the page is read; the drain ends within this of its end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often it is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A dispatcher beats every 500 ms at least; when one dies, the next one follows within its lease (3 s
/// unless configured) and a tick.
const LEADER_MAX: Duration = Duration::from_secs(5);

/// Beats that have to be seen after the gauge says 0: a step that was under way may not have seen the last
/// update, the one after it has.
const BEATS_AFTER: u32 = 2;

/// The dispatcher's slow scan goes round the whole store in this time (2048 shards, 64 a tick of 500 ms, and
/// some more). What it has not found by then is not there: the counters are off, as after a VM that trapped
/// between an update and its count.
const SCAN_MAX: Duration = Duration::from_secs(20);

/// Listeners are closed this long after the drain time at the latest.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// How long Envoy may take to go once it was told to. It takes some tens of milliseconds.
const QUIT_MAX: Duration = Duration::from_secs(10);

/// Drain Envoy, wait until Laravel has everything that was accepted, and end Envoy
///
/// Tells Envoy to drain its listeners gracefully: they go on serving for the drain time (--drain-time-s),
/// ask connections to close, and close. Embudo keeps delivering meanwhile and after it. Envoy is told to
/// quit once nothing is pending.
///
/// Exits with 1, and leaves Envoy running (its listeners drained, Embudo still delivering), when something
/// is still pending after --timeout: run it again, or quit it with --force.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DrainArguments {
    /// Envoy's admin page; the port is 9901 unless given
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901")]
    admin: String,
    /// Seconds for all of it, the drain time included
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Do not end Envoy; its listeners stay closed
    #[arg(long, conflicts_with = "force")]
    keep: bool,
    /// End Envoy after --timeout, whatever is pending then; the exit code is 1 all the same
    #[arg(long)]
    force: bool,
    /// Print a JSON object a second, one a line, instead of text
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Fields of --json (null: Envoy has no such figure):
  state                draining: listeners are open; flushing: they are closed, something is pending;
                       last line: quit, drained (with --keep) or failed (then with error)
  elapsed_ms, listeners_closed, pending_items, oldest_pending_ms, leader_alive, leader_beat
  accepted_total, settled_total        updates since Envoy's start

Examples:
  embudo drain
  embudo drain --admin http://10.0.0.7:9901 --timeout 120 --json";

/// One line of what is printed.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    state: State,
    elapsed_ms: u64,
    listeners_closed: bool,
    pending_items: Option<u64>,
    oldest_pending_ms: Option<u64>,
    leader_alive: bool,
    leader_beat: Option<u64>,
    accepted_total: u64,
    settled_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Draining,
    Flushing,
    Drained,
    Quit,
    Failed,
}

/// What a drain has seen so far.
#[derive(Debug)]
struct Watch {
    begun: Instant,
    drain_time: Duration,
    listeners_closed: bool,
    pending: Option<u64>,
    oldest_ms: Option<u64>,
    beat: Option<u64>,
    /// When the beat was last seen to move.
    beaten: Option<Instant>,
    accepted: u64,
    settled: u64,
    quiet: Option<Quiet>,
}

/// Since when nothing is pending and nothing comes.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    since: Instant,
    accepted: u64,
    settled: u64,
    beats: u32,
}

pub(crate) async fn run(arguments: DrainArguments) -> Result<()> {
    let admin = Admin::at(&arguments.admin).await?;
    let mut watch = Watch::new(admin.drain_time().await?);
    let result = drain(&admin, &arguments, &mut watch).await;
    let state = match &result {
        Err(_) => State::Failed,
        Ok(()) if arguments.keep => State::Drained,
        Ok(()) => State::Quit,
    };
    if arguments.json {
        let error = result.as_ref().err().map(|error| format!("{error:#}"));
        watch.report(state, error).print(true)?;
    } else if result.is_ok() {
        let envoy = if arguments.keep { "runs on" } else { "is gone" };
        let seconds = watch.begun.elapsed().as_secs_f64();
        println!("drained in {seconds:.1} s: nothing is pending, Envoy {envoy}");
    }
    result
}

async fn drain(admin: &Admin, arguments: &DrainArguments, watch: &mut Watch) -> Result<()> {
    let timeout = Duration::from_secs(arguments.timeout);
    let drain_s = watch.drain_time.as_secs();
    ensure!(
        watch.drain_time < timeout,
        "this Envoy drains for {drain_s} s, and --timeout is {} s: start Envoy with --drain-time-s 10, \
         or give --timeout more",
        arguments.timeout
    );
    let stats = admin.stats_matching(FILTER).await?;
    ensure!(
        stats.has_embudo(),
        "there is no Embudo in the Envoy at {}; nothing was changed there",
        arguments.admin
    );
    watch.look(&stats);
    // Before anything is changed: a drain that nobody delivers for only takes the listeners away.
    while watch.beaten.is_none() && watch.begun.elapsed() < LEADER_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        watch.look(&admin.stats_matching(FILTER).await?);
    }
    ensure!(
        watch.beaten.is_some() || arguments.force,
        "no dispatcher: embudo.leader_beat does not advance, so nothing is delivered; nothing was changed. \
         Envoy's log says why ({} pending); --force ends it all the same",
        watch.pending.unwrap_or(0)
    );

    admin.drain().await?;
    watch.begin();
    if !arguments.json {
        println!("the listeners close in {drain_s} s; deliveries go on");
    }
    let mut told = None::<Instant>;
    loop {
        let stats = admin.stats_matching(FILTER).await;
        watch.look(&stats.with_context(|| watch.lost_sight())?);
        if watch.is_done() {
            break;
        }
        if watch.begun.elapsed() > timeout {
            let reason = watch.reason(arguments.timeout);
            if !arguments.force {
                bail!("{reason}; Envoy was left running, its listeners drained");
            }
            quit(admin).await?;
            bail!("{reason}; --force has ended Envoy");
        }
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            told = Some(Instant::now());
            watch.report(watch.state(), None).print(arguments.json)?;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    watch.report(watch.state(), None).print(arguments.json)?;
    if arguments.keep {
        return Ok(());
    }
    quit(admin).await
}

/// Ends Envoy and waits until its admin page is gone.
async fn quit(admin: &Admin) -> Result<()> {
    admin.quit().await?;
    let gone = wait::some(QUIT_MAX, LOOK_EVERY, async || {
        (!admin.is_ready().await).then_some(())
    });
    let quit = gone.await;
    quit.with_context(|| {
        let seconds = QUIT_MAX.as_secs();
        format!("Envoy was told to quit, and still serves after {seconds} s")
    })
}

// === impl Watch ===

impl Watch {
    fn new(drain_time: Duration) -> Self {
        Self {
            begun: Instant::now(),
            drain_time,
            listeners_closed: false,
            pending: None,
            oldest_ms: None,
            beat: None,
            beaten: None,
            accepted: 0,
            settled: 0,
            quiet: None,
        }
    }

    /// The listeners drain from now on.
    fn begin(&mut self) {
        self.begun = Instant::now();
        self.quiet = None;
    }

    /// Takes in what Envoy shows now.
    fn look(&mut self, stats: &Stats) {
        let ledger = stats.ledger();
        self.pending = stats.gauge("embudo.pending");
        self.oldest_ms = stats.gauge("embudo.oldest_pending_ms");
        (self.accepted, self.settled) = (ledger.accepted, ledger.settled());
        // Closing is counted at the end of the drain time; a listener that was removed before has been
        // counted too, so both are needed.
        let over = self
            .drain_time
            .saturating_sub(self.begun.elapsed())
            .is_zero();
        let closed = stats.raw("listener_manager.listener_stopped") > 0;
        self.listeners_closed =
            over && (closed || self.begun.elapsed() > self.drain_time + CLOSE_MAX);

        let beat = stats.gauge("embudo.leader_beat").filter(|beat| *beat > 0);
        let beats = self.beat.is_some() && beat != self.beat;
        self.beat = beat;
        if beats {
            self.beaten = Some(Instant::now());
        }
        if self.pending != Some(0) {
            self.quiet = None;
            return;
        }
        let now = Quiet {
            since: Instant::now(),
            accepted: self.accepted,
            settled: self.settled,
            beats: 0,
        };
        let quiet = self.quiet.get_or_insert(now);
        if (quiet.accepted, quiet.settled) != (now.accepted, now.settled) {
            *quiet = now;
        }
        quiet.beats += u32::from(beats);
    }

    /// Whether nothing is pending and nothing more can come.
    fn is_done(&self) -> bool {
        let Some(quiet) = self.quiet else {
            return false;
        };
        let agreed = self.accepted <= self.settled || quiet.since.elapsed() > SCAN_MAX;
        self.listeners_closed && quiet.beats >= BEATS_AFTER && agreed
    }

    fn leader_alive(&self) -> bool {
        self.beaten
            .is_some_and(|beaten| beaten.elapsed() < LEADER_MAX)
    }

    fn state(&self) -> State {
        if self.listeners_closed {
            State::Flushing
        } else {
            State::Draining
        }
    }

    /// Why it is not done.
    fn reason(&self, timeout_s: u64) -> String {
        let leader = if self.leader_alive() {
            ""
        } else {
            ", and no dispatcher: embudo.leader_beat does not advance"
        };
        let pending = self.pending.unwrap_or(0);
        let what = if pending > 0 {
            let oldest = self.oldest_ms.unwrap_or(0) / 1000;
            format!("{pending} updates are still pending (the oldest for {oldest} s)")
        } else {
            let open = self.accepted.saturating_sub(self.settled);
            format!("{open} accepted updates have met no end that is counted")
        };
        format!("not drained within {timeout_s} s: {what}{leader}")
    }

    fn lost_sight(&self) -> String {
        let pending = self.pending.unwrap_or(0);
        format!("Envoy went away during the drain, with {pending} updates pending")
    }

    fn report(&self, state: State, error: Option<String>) -> Report {
        Report {
            state,
            elapsed_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            listeners_closed: self.listeners_closed,
            pending_items: self.pending,
            oldest_pending_ms: self.oldest_ms,
            leader_alive: self.leader_alive(),
            leader_beat: self.beat,
            accepted_total: self.accepted,
            settled_total: self.settled,
            error,
        }
    }
}

// === impl Report ===

impl Report {
    fn print(&self, json: bool) -> Result<()> {
        if json {
            println!(
                "{}",
                serde_json::to_string(self).context("the figures are no JSON")?
            );
        } else {
            println!("{}", self.text());
        }
        Ok(())
    }

    fn text(&self) -> String {
        let listeners = if self.listeners_closed {
            "closed"
        } else {
            "open"
        };
        let leader = if self.leader_alive {
            "alive"
        } else {
            "NOT ALIVE"
        };
        let number = |n: Option<u64>| n.map_or("–".to_owned(), |n| n.to_string());
        format!(
            "{:>4} s   listeners {listeners:<6}   pending {:<6} oldest {:<5} s   leader {leader} (beat {})",
            self.elapsed_ms / 1000,
            number(self.pending_items),
            number(self.oldest_pending_ms.map(|ms| ms / 1000)),
            number(self.leader_beat),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Envoy's figures: queued, delivered, the gauge, the beat; its listeners are closed.
    fn stats(queued: u64, delivered: u64, pending: u64, beat: u64) -> Stats {
        let all = [
            ("requests;route=qr;outcome=queued", queued),
            ("items;route=qr;end=delivered", delivered),
            ("pending", pending),
            ("leader_beat", beat),
        ];
        let ours = all.map(|(name, value)| {
            serde_json::json!({"name": format!("wasmcustom.embudo.{name}"), "value": value})
        });
        let closed = serde_json::json!({"name": "listener_manager.listener_stopped", "value": 1});
        let all: Vec<_> = ours.into_iter().chain([closed]).collect();
        Stats::parse(&serde_json::json!({ "stats": all }).to_string()).unwrap()
    }

    fn watch() -> Watch {
        Watch::new(Duration::ZERO)
    }

    #[test]
    fn nothing_is_pending_only_after_the_dispatcher_has_beaten_twice_since_it_said_so() {
        let mut watch = watch();
        watch.look(&stats(5, 5, 0, 10));
        assert!(!watch.is_done(), "one look tells nothing");
        watch.look(&stats(5, 5, 0, 11));
        assert!(!watch.is_done(), "that step may have begun before");
        watch.look(&stats(5, 5, 0, 11));
        assert!(!watch.is_done(), "a beat that stands still is none");
        watch.look(&stats(5, 5, 0, 12));
        assert!(watch.is_done());
    }

    #[test]
    fn a_late_update_starts_the_wait_again() {
        let mut watch = watch();
        for beat in 10..12 {
            watch.look(&stats(5, 5, 0, beat));
        }
        watch.look(&stats(6, 5, 0, 12));
        watch.look(&stats(6, 5, 0, 13));
        watch.look(&stats(6, 5, 0, 14));
        assert!(
            !watch.is_done(),
            "it was accepted, and the dispatcher has not found it yet"
        );
        watch.look(&stats(6, 5, 1, 15));
        watch.look(&stats(6, 6, 0, 16));
        assert!(!watch.is_done());
        watch.look(&stats(6, 6, 0, 17));
        watch.look(&stats(6, 6, 0, 18));
        assert!(watch.is_done());
    }

    #[test]
    fn without_a_beat_nothing_is_known() {
        let mut watch = watch();
        for _ in 0..5 {
            watch.look(&stats(5, 5, 0, 10));
        }
        assert!(!watch.is_done() && !watch.leader_alive());
        let reason = watch.reason(60);
        assert!(reason.contains("no dispatcher"), "{reason}");
    }

    #[test]
    fn open_listeners_are_waited_for() {
        let mut watch = Watch::new(Duration::from_secs(3600));
        for beat in 10..15 {
            watch.look(&stats(5, 5, 0, beat));
        }
        assert!(!watch.is_done());
        assert_eq!(watch.state(), State::Draining);
    }
}
