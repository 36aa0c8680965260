//! What the kernel says of processes: their memory, and the CPU they have used.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// Of the fields behind a process's name, those with its time in the program and in the kernel.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;

/// Resident memory; `None` if there is no such process.
pub(super) fn rss_kb(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Memory of a process, its share of the pages that it has in common with others, in bytes; 0 if it has gone.
pub(super) fn pss_bytes(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Whether a process runs this program, by the beginning of its name.
pub(super) fn is_named(pid: u32, beginning: &str) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.starts_with(beginning)
}

/// CPU seconds of a process so far, all of its threads together; `None` if there is no such process.
pub(super) fn cpu_s(pid: u32) -> Option<f64> {
    cpu_of(&format!("/proc/{pid}/stat"))
}

/// CPU seconds so far of this process's living threads of this name.
pub(super) fn threads_cpu_s(name: &str) -> f64 {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    let threads = threads.flatten().map(|thread| thread.path());
    let named = threads.filter(|thread| {
        fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    });
    named
        .filter_map(|thread| cpu_of(&thread.join("stat").to_string_lossy()))
        .sum()
}

fn cpu_of(stat: &str) -> Option<f64> {
    let stat = fs::read_to_string(stat).ok()?;
    // The name may hold anything, closing brackets too.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    Some((ticks(USER_TICKS)? + ticks(SYSTEM_TICKS)?) as f64 / per_second as f64)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn this_process_has_memory_and_one_that_is_not_there_has_none() {
        assert!(rss_kb(std::process::id()).expect("it runs") > 1_000);
        assert_eq!(rss_kb(u32::MAX), None);
        assert_eq!(cpu_s(u32::MAX), None);
    }

    #[test]
    fn the_work_of_a_thread_is_found_by_its_name_and_in_its_process() {
        let busy = std::thread::Builder::new().name("proc-test".to_owned());
        let before = cpu_s(std::process::id()).expect("it runs");
        let work = || {
            let deadline = Instant::now() + Duration::from_secs(30);
            while threads_cpu_s("proc-test") < 0.05 && Instant::now() < deadline {}
            threads_cpu_s("proc-test")
        };
        let used = busy.spawn(work).expect("a thread").join().expect("its end");
        assert!(used >= 0.05, "{used}");
        assert!(cpu_s(std::process::id()).expect("it runs") - before >= 0.04);
        assert_eq!(threads_cpu_s("no-such-thread"), 0.0);
    }
}
