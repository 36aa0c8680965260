//! From JSON to [`Config`]: the defaults, and every check.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::fields::{Fields, problem};
use super::{
    ACK_TIMEOUT_MAX_MS, Assume, BackoffRange, Config, Dedup, KeptTimes, Pace, Place, Problem,
    Route, SESSIONS_PER_SHARD, Times, Upstream, barriers, classes, fallback, presets, rules,
};
use crate::json::{self, Object, Value};

/// An hour. No timer of Embudo's makes sense beyond it.
pub(super) const TIMER_MAX_MS: u64 = 3_600_000;

/// Gateways give up after a minute at the latest, and what is held waits for Laravel's answer after that.
const HOLD_MAX_MS: u64 = 30_000;

pub(super) fn config(json: &[u8]) -> Result<Config, Vec<Problem>> {
    let value = match json {
        [] => Value::Object(Object::default()),
        json => json::parse(json).map_err(|broken| {
            let what = broken.describe(json);
            vec![problem("", format!("not valid JSON: {what}"))]
        })?,
    };
    let mut problems = Vec::new();
    let mut fields = Fields::of(String::new(), value, &mut problems);

    let max_sessions = fields.whole("max_sessions", 16_384, 1..=1_048_576);
    let pace = Pace {
        max_requests_per_second: fields.whole("max_requests_per_second", 20, 1..=1_000),
        // The cluster's circuit breakers in envoy.yaml allow 16, and during a listener update the older
        // dispatcher's last calls count there too.
        max_in_flight: fields.whole("max_in_flight", 4, 1..=12),
        max_singles_per_second: fields.whole("max_singles_per_second", 100, 1..=1_000),
    };
    let times = Times {
        call_timeout_ms: fields.whole("call_timeout_ms", 15_000, 100..=300_000),
        send_window_ms: fields.whole("send_window_ms", 1_000, 100..=10_000),
        late_ms: fields.whole("late_ms", 15_000, 0..=TIMER_MAX_MS),
        lease_ms: fields.whole("lease_ms", 3_000, 1_000..=super::LEASE_MAX_MS),
    };
    let backoff = BackoffRange {
        min_ms: fields.whole("backoff_min_ms", 500, 1..=TIMER_MAX_MS),
        max_ms: fields.whole("backoff_max_ms", 30_000, 1..=TIMER_MAX_MS),
    };
    if backoff.min_ms > backoff.max_ms {
        fields.report("backoff_min_ms", "must not be more than backoff_max_ms");
    }
    let dedup = Dedup {
        ttl_ms: fields.whole("dedup_ttl_ms", 300_000, 1..=TIMER_MAX_MS),
        max_age_ms: fields.whole("max_age_ms", 600_000, 1..=24 * TIMER_MAX_MS),
    };
    let priority_gap_ms = fields.whole("priority_gap_ms", 1_000, 0..=60_000);
    let answer_status = fields.whole("answer_status", 200, 200..=299);
    let ack_timeout_ms = fields.whole("ack_timeout_ms", 10_000, 100..=ACK_TIMEOUT_MAX_MS);
    let bypass_header = header_name(&mut fields, "bypass_header", "x-embudo-bypass");
    let hold_ms = fields.whole("hold_ms", 4_000, 0..=HOLD_MAX_MS);
    let headers = classes::classes(fields.object("headers"));
    let assume = assume(fields.object("assume"));
    fields.gone("credentials", CREDENTIALS_GONE);
    let upstream = upstream(fields.object("upstream"));
    let fallback = fallback::fallback(&mut fields);
    let slow_ms = fields.whole("slow_ms", 2_000, 1..=TIMER_MAX_MS);
    let prefixes = prefixes(&mut fields);
    let kept = KeptTimes {
        refresh_ms: fields.whole("read_refresh_ms", 1_200_000, 1..=24 * TIMER_MAX_MS),
        stale_if_error_ms: fields.whole("stale_if_error_ms", 1_800_000, 0..=24 * TIMER_MAX_MS),
        settle_ms: fields.whole("settle_ms", 30_000, 0..=300_000),
        refresh_timeout_ms: fields.whole("refresh_timeout_ms", 1_000, 1..=60_000),
    };
    let built_in = presets::chosen(&mut fields).rules();
    let webhooks = rules::Webhooks {
        path: webhook_path(&mut fields, built_in.webhook_path),
        batch: fields.flag("batch_webhooks", false),
    };
    let over_routes = fields.array("routes").unwrap_or_default();
    let over_reads = fields.array("reads").unwrap_or_default();
    let own_barriers = fields.array("barriers").unwrap_or_default();
    #[cfg(feature = "sabotage")]
    if let Some(name) = fields.text("sabotage")
        && !crate::sabotage::choose(&name)
    {
        fields.report("sabotage", "there is none of this name");
    }
    fields.end();
    let (mut routes, splits) = rules::routes(
        built_in.routes,
        over_routes,
        &webhooks,
        &assume,
        &mut problems,
    );
    let reads = rules::reads(built_in.reads, over_reads, &mut routes, &mut problems);
    let barriers = barriers::barriers(own_barriers, &routes, &reads, &mut problems);

    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Config {
        shards: u32::try_from(max_sessions.div_ceil(SESSIONS_PER_SHARD)).unwrap_or(u32::MAX),
        pace,
        times,
        backoff,
        dedup,
        priority_gap_ms,
        answer_status: u16::try_from(answer_status).unwrap_or(200),
        ack_timeout_ms,
        bypass_header,
        hold_ms,
        headers,
        assume,
        upstream,
        fallback,
        slow_ms,
        prefixes,
        session_headers: session_headers(&routes),
        routes,
        splits,
        barriers,
        reads,
        kept,
    })
}

/// A header name: lower case, as HTTP/2 and Envoy have it.
fn header_name(fields: &mut Fields<'_>, name: &'static str, default: &str) -> String {
    let text = fields.text(name).unwrap_or_else(|| default.to_owned());
    if let Err(message) = check_header_name(&text) {
        fields.report(name, message);
    }
    text
}

pub(super) fn is_header_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    !text.is_empty() && text.chars().all(fits)
}

pub(super) fn check_header_name(text: &str) -> Result<(), String> {
    if !is_header_name(text) {
        return Err(format!("\"{text}\" is not a header name in lower case"));
    }
    // The router obeys these; a caller's copy in a call of ours would steer it.
    if text.starts_with("x-envoy-") {
        return Err("x-envoy-* headers steer Envoy's router and cannot be used here".to_owned());
    }
    Ok(())
}

/// The key of version 1.
const CREDENTIALS_GONE: &str = "is no key any more: every header that is not listed otherwise tells callers apart by \
                                itself; name credentials in \"headers\": {\"credential\": […]}, and write \
                                \"assume\": {\"callers\": true} for \"trust\": \"always\"";

fn assume(mut fields: Fields<'_>) -> Assume {
    let assume = Assume {
        callers: fields.flag("callers", false),
        implies: fields.flag("implies", false),
        reads: fields.flag("reads", false),
    };
    fields.end();
    assume
}

fn upstream(mut fields: Fields<'_>) -> Upstream {
    let cluster = fields
        .text("cluster")
        .unwrap_or_else(|| "laravel_batch".to_owned());
    let authority = fields.text("authority");
    let prefix_rewrite = fields.text("prefix_rewrite");
    if let Some(prefix) = &prefix_rewrite
        && !is_prefix(prefix)
    {
        fields.report("prefix_rewrite", PREFIX_FORM);
    }
    let headers = fallback::headers(&mut fields);
    fields.end();
    Upstream {
        cluster,
        authority,
        prefix_rewrite,
        headers,
    }
}

const PREFIX_FORM: &str = "a prefix starts with '/' and does not end with one, as in \"/api\"";

fn is_prefix(text: &str) -> bool {
    is_path(text) && !text.ends_with('/')
}

pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text
            .chars()
            .all(|c| c.is_ascii_graphic() && c != '?' && c != '#')
}

fn prefixes(fields: &mut Fields<'_>) -> Vec<String> {
    let Some(prefixes) = fields.texts("prefixes") else {
        return vec![String::new(), "/api".to_owned()];
    };
    for (index, prefix) in prefixes.iter().enumerate() {
        if !prefix.is_empty() && !is_prefix(prefix) {
            fields.report(&format!("prefixes/{index}"), PREFIX_FORM);
        }
    }
    if prefixes.is_empty() {
        fields.report("prefixes", "must not be empty; [\"\"] means no prefix");
    }
    prefixes
}

fn webhook_path(fields: &mut Fields<'_>, default: String) -> String {
    let path = fields.text("webhook_path").unwrap_or(default);
    if !is_path(&path) {
        fields.report("webhook_path", rules::PATH_FORM);
    }
    path
}

/// The headers that recognition has to keep: usually none.
fn session_headers(routes: &[Route]) -> Vec<String> {
    let mut headers: Vec<String> = Vec::new();
    let places = routes
        .iter()
        .flat_map(|route| route.session.iter().chain(&route.tenant));
    for place in places {
        if let Place::Header(name) = place
            && !headers.contains(name)
        {
            headers.push(name.clone());
        }
    }
    headers
}
