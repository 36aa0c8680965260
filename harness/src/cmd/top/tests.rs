//! The screen on recorded figures.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use embudo::live::Stats;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::Value;

use super::figures::{Figures, Look};
use super::view;
use super::watch::Watch;

/// Shortened from real answers of Envoy 1.40.
const EARLIER: &str = r#"{"stats":[
    {"name":"server.uptime","value":3720},
    {"name":"wasmcustom.embudo.leader_beat;store=embudo","value":70},
    {"name":"wasmcustom.embudo.calls;route=qr;verdict=delivered","value":10}]}"#;

const LATER: &str = r#"{"stats":[
    {"name":"cluster.laravel_batch.membership_healthy","value":0},
    {"name":"cluster.laravel_batch.membership_total","value":1},
    {"name":"cluster.laravel_batch.outlier_detection.ejections_active","value":1},
    {"name":"cluster.laravel_batch.outlier_detection.ejections_enforced_total","value":4},
    {"name":"server.uptime","value":3750},
    {"name":"wasm.embudo.vm_reload_success","value":2},
    {"name":"wasmcustom.embudo.calls;route=qr;verdict=delivered","value":25},
    {"name":"wasmcustom.embudo.calls;route=qr;verdict=retry","value":2},
    {"name":"wasmcustom.embudo.items;route=qr;end=delivered","value":600},
    {"name":"wasmcustom.embudo.items;route=qr;end=superseded","value":50},
    {"name":"wasmcustom.embudo.leader_beat;store=embudo","value":130},
    {"name":"wasmcustom.embudo.oldest_pending_ms;store=embudo","value":1234},
    {"name":"wasmcustom.embudo.pending;store=embudo","value":7},
    {"name":"wasmcustom.embudo.requests;route=get_status;outcome=cached","value":900},
    {"name":"wasmcustom.embudo.requests;route=get_status;outcome=fresh","value":31},
    {"name":"wasmcustom.embudo.requests;route=get_status;outcome=stale","value":0},
    {"name":"wasmcustom.embudo.requests;route=none;outcome=bypass;reason=path","value":4},
    {"name":"wasmcustom.embudo.requests;route=qr;outcome=bypass;reason=size","value":2},
    {"name":"wasmcustom.embudo.requests;route=qr;outcome=bypass;reason=json","value":1},
    {"name":"wasmcustom.embudo.requests;route=qr;outcome=duplicate","value":88},
    {"name":"wasmcustom.embudo.requests;route=qr;outcome=queued","value":657},
    {"histograms":{"supported_percentiles":[50],"details":[
        {"name":"wasmcustom.embudo.staleness_ms","intervals":[],"percentiles":[],
         "totals":[{"lower_bound":250,"width":10,"count":90},{"lower_bound":4000,"width":100,"count":10}]},
        {"name":"wasmcustom.embudo.call_ms","intervals":[],"percentiles":[],
         "totals":[{"lower_bound":42,"width":1,"count":27}]}]}}]}"#;

/// The same with a line more.
fn with(text: &str, line: &str) -> String {
    text.replacen("{\"stats\":[", &format!("{{\"stats\":[{line},"), 1)
}

fn look(at: Instant, text: &str) -> Look {
    let stats = Stats::parse(text).expect("recorded figures");
    Look { at, stats }
}

fn figures(earlier: &str, later: &str) -> Figures {
    let start = Instant::now();
    let first = look(start, earlier);
    let last = look(start + Duration::from_secs(30), later);
    Figures::between("http://127.0.0.1:9901", "laravel_batch", &first, &last)
}

/// The words of the line that begins with `name`.
fn words<'a>(screen: &'a str, name: &str) -> Vec<&'a str> {
    let line = screen.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("a line {name} in\n{screen}"));
    line[name.len()..].split_whitespace().collect()
}

fn watch(at: Instant) -> Watch {
    Watch::new("http://127.0.0.1:9901", "laravel_batch", look(at, EARLIER))
}

fn drawn(watch: &mut Watch, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a terminal");
    terminal.draw(|frame| watch.draw(frame)).expect("drawn");
    terminal.backend().to_string()
}

#[test]
fn the_screen_shows_the_recorded_figures() {
    let screen = view::text(&figures(EARLIER, LATER), 110);

    assert!(screen.contains("up 1 h 02 min"), "{screen}");
    assert!(
        screen.contains("pending 7   oldest 1.2 s   circuit –   leader alive"),
        "{screen}"
    );
    let outlier =
        "outlier detection of laravel_batch: 1 ejected now, 4 so far; 0 of 1 hosts healthy";
    assert!(screen.contains(outlier), "{screen}");
    assert!(
        screen.contains("VMs that trapped: 2 replaced, 0 not"),
        "{screen}"
    );
    let (answers, calls) = screen.split_once("CALLS").expect("the calls");
    let (calls, items) = calls.split_once("ITEMS").expect("the items");
    assert_eq!(
        words(answers, "qr"),
        ["657", "88", "–", "–", "–", "–", "–", "–", "3"]
    );
    assert_eq!(words(answers, "none").last(), Some(&"4"));
    assert_eq!(words(answers, "get_status"), ["900", "0", "31", "–"]);
    assert_eq!(words(calls, "qr"), ["25", "2", "–", "–", "–", "–", "27"]);
    // 15 more in half a minute, and 2 more.
    assert_eq!(
        words(calls, "  a minute"),
        ["30.0", "4.0", "–", "–", "–", "–", "34.0"]
    );
    assert_eq!(words(items, "qr"), ["600", "50", "–", "–", "–"]);
    assert_eq!(
        words(items, "staleness").join(" "),
        "260 ms 260 ms 4.1 s 4.1 s 100"
    );
    assert_eq!(words(items, "call time").last(), Some(&"27"));
    assert!(
        screen.lines().count() <= 30,
        "it fits into a page: {screen}"
    );
    assert!(screen.lines().all(|line| line.chars().count() <= 110));
}

#[test]
fn each_belief_has_a_line_and_that_of_reads_says_what_it_was_seen_by() {
    let lines = r#"{"name":"wasmcustom.embudo.beliefs;belief=batch;state=proven;store=embudo","value":2},
        {"name":"wasmcustom.embudo.beliefs;belief=batch;state=disproved;store=embudo","value":0},
        {"name":"wasmcustom.embudo.beliefs;belief=implies;state=unproven;store=embudo","value":1},
        {"name":"wasmcustom.embudo.beliefs;belief=reads;state=proven;store=embudo","value":3},
        {"name":"wasmcustom.embudo.beliefs;belief=reads;state=proven;store=second","value":4},
        {"name":"wasmcustom.embudo.beliefs;belief=reads;state=disproved;store=embudo","value":1},
        {"name":"wasmcustom.embudo.reads_compared;result=same","value":120},
        {"name":"wasmcustom.embudo.reads_compared;result=differs","value":6}"#;
    let shown = figures(EARLIER, &with(LATER, lines));
    let screen = view::text(&shown, 110);
    assert_eq!(words(&screen, "batch"), ["2", "–", "0", "–"]);
    assert_eq!(words(&screen, "implies"), ["–", "1", "–", "–"]);
    assert_eq!(
        words(&screen, "reads"),
        ["7", "–", "1", "–", "120", "6", "–"]
    );
    assert!(screen.lines().all(|line| line.chars().count() <= 110));
    let value = serde_json::to_value(&shown).expect("JSON");
    assert_eq!(value["beliefs"]["reads"]["proven"], 7);
    assert_eq!(value["reads_compared_total"]["differs"], 6);
}

#[test]
fn a_circuit_that_envoy_knows_is_named() {
    for (gauge, name, json) in [
        (0, "circuit closed", "closed"),
        (1, "circuit half-open", "half_open"),
        (2, "circuit open", "open"),
        (3, "circuit misconfigured", "misconfigured"),
    ] {
        let line =
            format!(r#"{{"name":"wasmcustom.embudo.circuit;store=embudo","value":{gauge}}}"#);
        let figures = figures(EARLIER, &with(LATER, &line));
        assert!(view::text(&figures, 100).contains(name), "{name}");
        let value = serde_json::to_value(&figures).expect("JSON");
        assert_eq!(value["circuit"], json);
    }
}

#[test]
fn each_store_of_several_has_a_line_and_all_of_them_one() {
    let second = r#"{"name":"wasmcustom.embudo.leader_beat;store=second","value":9},
        {"name":"wasmcustom.embudo.circuit;store=second","value":2},
        {"name":"wasmcustom.embudo.held;store=second","value":3},
        {"name":"wasmcustom.embudo.pending;store=second","value":5}"#;
    let beat = r#"{"name":"wasmcustom.embudo.leader_beat;store=second","value":4}"#;
    let shown = figures(&with(EARLIER, beat), &with(LATER, second));
    let screen = view::text(&shown, 110);
    for line in [
        "pending 12   oldest 1.2 s   circuit open   leader alive",
        "  embudo: pending 7   oldest 1.2 s   circuit –   leader alive",
        "  second: pending 5   oldest –   circuit open   leader alive",
        "held 3   failed alone –   proven callers –",
    ] {
        assert!(
            screen.lines().any(|shown| shown == line),
            "{line}: {screen}"
        );
    }
    // Its leader is gone, and five are waiting for one.
    let left = figures(&with(EARLIER, second), &with(LATER, second));
    assert!(
        view::text(&left, 110)
            .contains("pending 12   oldest 1.2 s   circuit open   leader NOT ALIVE")
    );
    assert_eq!(left.stores["embudo"].leader_alive, Some(true));
}

#[test]
fn a_beat_that_stands_still_is_no_life() {
    let dead = figures(LATER, LATER);
    assert_eq!(dead.all.leader_alive, Some(false));
    assert!(view::text(&dead, 100).contains("leader NOT ALIVE"));
    let unborn = figures(r#"{"stats":[]}"#, r#"{"stats":[]}"#);
    assert_eq!(unborn.all.leader_alive, None, "nobody was ever elected");
}

#[test]
fn an_envoy_without_embudo_is_said_to_be_one() {
    let figures = figures(
        r#"{"stats":[]}"#,
        r#"{"stats":[{"name":"server.uptime","value":5}]}"#,
    );
    let screen = view::text(&figures, 100);
    assert!(screen.contains("the filter is not loaded here"), "{screen}");
    assert_eq!(
        serde_json::to_value(&figures).expect("JSON")["embudo_found"],
        false
    );
}

#[test]
fn the_help_names_every_field_of_the_json() {
    let value = serde_json::to_value(figures(EARLIER, LATER)).expect("JSON");
    let Value::Object(fields) = value else {
        panic!("an object");
    };
    for name in fields.keys() {
        let named = super::JSON_HELP
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .any(|word| word == name);
        assert!(named, "{name} is promised nowhere");
    }
}

#[test]
fn a_lost_page_is_shown_over_the_old_figures_until_it_is_back() {
    let start = Instant::now();
    let mut watch = watch(start);
    watch.looked(Ok(look(start + Duration::from_secs(1), LATER)));
    for _ in 0..2 {
        watch.looked(Err(anyhow!("the page is gone")));
    }

    let screen = drawn(&mut watch, 100, 40);
    assert!(screen.contains("LOST, figures are old; asked again 2 times: the page is gone"));
    assert!(screen.contains("pending 7"), "{screen}");

    watch.looked(Ok(look(start + Duration::from_secs(4), LATER)));
    assert!(!drawn(&mut watch, 100, 40).contains("LOST"));
}

#[test]
fn a_restarted_envoy_begins_a_new_window() {
    let start = Instant::now();
    let mut watch = watch(start);
    watch.looked(Ok(look(start + Duration::from_secs(1), LATER)));
    let young = r#"{"stats":[{"name":"server.uptime","value":1},
        {"name":"wasmcustom.embudo.calls;route=qr;verdict=delivered","value":1}]}"#;
    watch.looked(Ok(look(start + Duration::from_secs(9), young)));

    let figures = watch.figures().expect("figures");
    assert_eq!((figures.calls_total, figures.window_ms), (1, 0));
    assert!(figures.calls_per_minute.abs() < f64::EPSILON);
}

#[test]
fn rates_are_those_of_the_last_minute() {
    let start = Instant::now();
    let mut watch = watch(start);
    for second in 1..=100 {
        watch.looked(Ok(look(start + Duration::from_secs(second), LATER)));
    }
    let figures = watch.figures().expect("figures");
    assert_eq!(figures.window_ms, 60_000);
    assert!(
        figures.calls_per_minute.abs() < f64::EPSILON,
        "all calls are older"
    );
    assert_eq!(
        figures.all.leader_alive,
        Some(false),
        "the beat stood still for longer than a lease"
    );
}

#[test]
fn a_small_terminal_scrolls_and_the_smallest_does_not_panic() {
    let start = Instant::now();
    let mut watch = watch(start);
    watch.looked(Ok(look(start + Duration::from_secs(1), LATER)));
    let press = |code| KeyEvent::new(code, KeyModifiers::NONE);

    assert!(drawn(&mut watch, 100, 8).contains("Embudo"));
    for _ in 0..50 {
        assert!(!watch.key(press(KeyCode::Down)));
    }
    let end = drawn(&mut watch, 100, 8);
    assert!(
        end.contains("call time") && !end.contains("Embudo"),
        "{end}"
    );
    for (columns, rows) in [(1, 1), (3, 2), (20, 5), (300, 100)] {
        drawn(&mut watch, columns, rows);
    }
}

#[test]
fn q_escape_and_ctrl_c_quit() {
    let mut watch = watch(Instant::now());
    for (code, modifiers) in [
        (KeyCode::Char('q'), KeyModifiers::NONE),
        (KeyCode::Esc, KeyModifiers::NONE),
        (KeyCode::Char('c'), KeyModifiers::CONTROL),
    ] {
        assert!(watch.key(KeyEvent::new(code, modifiers)), "{code:?}");
    }
    assert!(!watch.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::NONE)));
}
