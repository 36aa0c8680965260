//! What processes cost, as `/proc` tells.

use std::fs;

/// `USER_HZ`: the unit of `/proc` is 10 ms on every Linux on x86-64, whatever the kernel's own.
const TICKS_PER_SECOND: f64 = 100.0;

/// Whether this is nginx or PHP, and not a shell beside it.
pub(super) fn is_server(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.starts_with("nginx") || name.starts_with("php-fpm")
}

/// Processor time of a process, in seconds; 0 if it has gone.
pub(super) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `pid (name) state ppid …`: the name may hold spaces; utime and stime are the 12th and 13th after it.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: i64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<i64>().ok())
        .sum();
    ticks as f64 / TICKS_PER_SECOND
}

/// Memory of a process, its share of the pages that it has in common with others; 0 if it has gone.
pub(super) fn memory_bytes(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
