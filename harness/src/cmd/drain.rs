//! `embudo drain`: a planned stop that loses nothing.
//!
//! Envoy flushes nothing when it is told to end: no call that is dispatched then is ever sent. A graceful
//! drain of its listeners, on the other hand, keeps ticks and calls going. So: drain, wait until the
//! listeners are closed and nothing is pending, and only then quit.
//!
//! A request that Embudo holds, and one that Laravel is just answering, outlive their listener, and SIGTERM
//! would close them without a byte. So what is being answered is waited for too, as long as it may take:
//! `hold_ms` and `call_timeout_ms`.
//!
//! "Nothing is pending" is the dispatcher's word, and counts only while it lives: its gauge must say 0 while
//! its beat goes on, and Envoy's counters must agree that every accepted update has met its end. An update
//! whose wake-up was lost is in the counters before the dispatcher finds it. Each store of the Envoy has a
//! dispatcher, and all of them have to say so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use embudo::live::{Admin, Stats, wait};
use serde::Serialize;
use serde_json::Value;

use super::STRING_VALUE;

/// What is read at each look.
const FILTER: &str = r"^wasmcustom\.embudo\.(pending|oldest_pending_ms|leader_beat|requests|revived|items)|^listener_manager\.listener_stopped$|^http\..*\.downstream_rq_active$";

/// Requests to the admin page are counted as others are; the one that reads is among them.
const ADMIN_ACTIVE: &str = "http.admin.downstream_rq_active";

/// Of the filter's configuration, and its defaults, ms: how long a request may be held, and how long it may take
/// then.
const IN_FLIGHT: [(&str, u64); 2] = [("hold_ms", 4_000), ("call_timeout_ms", 15_000)];

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
  elapsed_ms, listeners_closed, requests_active, pending_items, oldest_pending_ms, leader_alive, leader_beat
                       of all stores together
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
    requests_active: u64,
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
    /// How long a request may take that came last.
    in_flight_max: Duration,
    listeners_closed: bool,
    /// Requests that are not answered yet, on any route.
    active: u64,
    pending: Option<u64>,
    oldest_ms: Option<u64>,
    beat: Option<u64>,
    stores: BTreeMap<String, Store>,
    accepted: u64,
    settled: u64,
    quiet: Option<Quiet>,
}

/// What is seen of one store.
#[derive(Clone, Copy, Debug, Default)]
struct Store {
    pending: u64,
    beat: u64,
    /// When its beat was last seen to move.
    beaten: Option<Instant>,
    /// Beats since nothing has been pending and nothing has come.
    quiet_beats: u32,
}

/// Since when nothing is pending and nothing comes.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    since: Instant,
    accepted: u64,
    settled: u64,
}

pub(crate) async fn run(arguments: DrainArguments) -> Result<()> {
    let admin = Admin::at(&arguments.admin).await?;
    let mut watch = Watch::new(admin.drain_time().await?);
    if let Ok(dump) = admin.config_dump().await {
        watch.in_flight_max = in_flight_max(&dump);
    }
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
        "this Envoy drains for {drain_s} s, and --timeout is {} s: start Envoy with --drain-time-s 20, \
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
    while !watch.leader_alive() && watch.begun.elapsed() < LEADER_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        watch.look(&admin.stats_matching(FILTER).await?);
    }
    ensure!(
        watch.leader_alive() || arguments.force,
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

/// How long a request may take that comes last: held, then answered by Laravel; the longest of all filters'.
fn in_flight_max(dump: &Value) -> Duration {
    let mut texts = Vec::new();
    string_values(dump, &mut texts);
    let configs = texts.into_iter().filter_map(|text| {
        let config = serde_json::from_str::<Value>(text).ok()?;
        let of = |(key, default): (&str, u64)| config[key].as_u64().unwrap_or(default);
        config.is_object().then(|| IN_FLIGHT.map(of).iter().sum())
    });
    let default: u64 = IN_FLIGHT.iter().map(|(_, default)| default).sum();
    Duration::from_millis(configs.max().unwrap_or(default))
}

/// The JSON texts of all filters' configurations, wherever they are.
fn string_values<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            if fields.get("@type").is_some_and(|t| t == STRING_VALUE) {
                found.extend(fields.get("value").and_then(Value::as_str));
            }
            fields
                .values()
                .for_each(|field| string_values(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| string_values(item, found)),
        _ => {}
    }
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
            in_flight_max: in_flight_max(&Value::Null),
            listeners_closed: false,
            active: 0,
            pending: None,
            oldest_ms: None,
            beat: None,
            stores: BTreeMap::new(),
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

        let active = stats.sum(|name| name.ends_with(".downstream_rq_active"));
        self.active = active.saturating_sub(stats.raw(ADMIN_ACTIVE));

        self.beat = stats.gauge("embudo.leader_beat").filter(|beat| *beat > 0);
        let was_quiet = self.quiet;
        let now = Quiet {
            since: Instant::now(),
            accepted: self.accepted,
            settled: self.settled,
        };
        let as_before =
            |quiet: &Quiet| (quiet.accepted, quiet.settled) == (now.accepted, now.settled);
        self.quiet = match self.pending {
            Some(0) => Some(was_quiet.filter(as_before).unwrap_or(now)),
            _ => None,
        };
        let goes_on = was_quiet.is_some_and(|quiet| as_before(&quiet));
        let pending = stats.gauge_by_store("embudo.pending");
        for (name, beat) in stats.gauge_by_store("embudo.leader_beat") {
            let pending = pending.get(&name).copied().unwrap_or(0);
            let store = self.stores.entry(name).or_insert(Store {
                beat,
                ..Store::default()
            });
            let beats = beat != store.beat;
            if beats {
                store.beaten = Some(Instant::now());
            }
            let before = if goes_on { store.quiet_beats } else { 0 };
            store.quiet_beats = match self.quiet {
                Some(_) => before + u32::from(beats),
                None => 0,
            };
            (store.pending, store.beat) = (pending, beat);
        }
    }

    /// Whether nothing is pending and nothing more can come.
    fn is_done(&self) -> bool {
        let Some(quiet) = self.quiet else {
            return false;
        };
        let agreed = self.accepted <= self.settled || quiet.since.elapsed() > SCAN_MAX;
        let said = |store: &Store| store.quiet_beats >= BEATS_AFTER || !store.is_alive();
        self.listeners_closed
            && self.is_answered()
            && self.leader_alive()
            && self.stores.values().all(said)
            && agreed
    }

    /// Whether every request is answered, or has had the time to be.
    fn is_answered(&self) -> bool {
        self.active == 0 || self.begun.elapsed() > self.drain_time + self.in_flight_max
    }

    /// Whether each store that has something to deliver has a leader, and one store at least. What was taken out by a
    /// listener update before has none, and its last figures stay.
    fn leader_alive(&self) -> bool {
        let mut stores = self.stores.values();
        stores.clone().any(Store::is_alive)
            && stores.all(|store| store.pending == 0 || store.is_alive())
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
        let what = if self.listeners_closed && pending == 0 && !self.is_answered() {
            format!("{} requests are not answered yet", self.active)
        } else if pending > 0 {
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
            requests_active: self.active,
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

// === impl Store ===

impl Store {
    fn is_alive(&self) -> bool {
        self.beaten
            .is_some_and(|beaten| beaten.elapsed() < LEADER_MAX)
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
            ("pending;store=embudo", pending),
            ("leader_beat;store=embudo", beat),
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

    /// The same with a second store.
    fn with_second(stats: &str, pending: u64, beat: u64) -> Stats {
        let more = format!(
            r#"{{"name":"wasmcustom.embudo.pending;store=second","value":{pending}}},
            {{"name":"wasmcustom.embudo.leader_beat;store=second","value":{beat}}},"#
        );
        Stats::parse(&stats.replacen('[', &format!("[{more}"), 1)).unwrap()
    }

    const QUIET: [&str; 3] = ["10", "11", "12"];

    fn quiet(beat: &str) -> String {
        format!(
            r#"{{"stats":[{{"name":"wasmcustom.embudo.pending;store=embudo","value":0}},
            {{"name":"wasmcustom.embudo.leader_beat;store=embudo","value":{beat}}},
            {{"name":"listener_manager.listener_stopped","value":1}}]}}"#
        )
    }

    #[test]
    fn the_pending_of_every_store_counts_and_each_dispatcher_has_its_say() {
        let mut watch = watch();
        for (n, beat) in QUIET.into_iter().enumerate() {
            watch.look(&with_second(&quiet(beat), 2, n as u64 + 1));
        }
        assert!(!watch.is_done(), "two wait in the second store");
        assert!(
            watch.reason(60).contains("2 updates"),
            "{}",
            watch.reason(60)
        );
        watch.look(&with_second(&quiet("13"), 0, 4));
        watch.look(&with_second(&quiet("14"), 0, 4));
        watch.look(&with_second(&quiet("15"), 0, 4));
        assert!(!watch.is_done(), "its dispatcher has not beaten since");
        watch.look(&with_second(&quiet("16"), 0, 5));
        watch.look(&with_second(&quiet("17"), 0, 6));
        assert!(watch.is_done());
    }

    #[test]
    fn a_store_that_was_taken_out_with_nothing_pending_is_not_waited_for() {
        let mut watch = watch();
        for beat in QUIET {
            watch.look(&with_second(&quiet(beat), 0, 7));
        }
        assert!(watch.is_done());
        let mut watch = super::tests::watch();
        for beat in QUIET {
            watch.look(&with_second(&quiet(beat), 1, 7));
        }
        assert!(!watch.leader_alive(), "nobody delivers that one");
    }

    #[test]
    fn what_is_not_answered_yet_is_waited_for_as_long_as_it_may_take() {
        let active = |stats: String, active: u64| {
            let more = format!(
                r#"{{"name":"http.admin.downstream_rq_active","value":1}},
                {{"name":"http.gateway.downstream_rq_active","value":{active}}},"#
            );
            Stats::parse(&stats.replacen('[', &format!("[{more}"), 1)).unwrap()
        };
        let mut watch = watch();
        for beat in QUIET {
            watch.look(&active(quiet(beat), 1));
        }
        assert!(!watch.is_done() && watch.active == 1);
        assert!(watch.reason(60).contains("1 requests are not answered"));
        watch.in_flight_max = Duration::ZERO;
        assert!(watch.is_done(), "it has had its time");
        watch.in_flight_max = Duration::from_secs(3600);
        watch.look(&active(quiet("13"), 0));
        assert!(watch.is_done());
    }

    #[test]
    fn the_longest_request_of_all_filters_is_what_a_drain_waits_for() {
        let filter = |config: &str| serde_json::json!({"@type": STRING_VALUE, "value": config});
        let ms = |dump: Value| in_flight_max(&dump).as_millis();
        assert_eq!(ms(Value::Null), 19_000);
        assert_eq!(ms(serde_json::json!([filter("{}")])), 19_000);
        let short = r#"{"call_timeout_ms": 2000, "hold_ms": 1000}"#;
        assert_eq!(ms(serde_json::json!([filter(short)])), 3_000);
        let two = serde_json::json!({"a": [filter(short), {"b": filter("{\"call_timeout_ms\": 60000}")}]});
        assert_eq!(ms(two), 64_000);
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
