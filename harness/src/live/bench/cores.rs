//! Who runs on which core, and what it costs there.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// One core for Envoy, another for everything else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cores {
    pub(super) envoy: usize,
    pub(super) load: usize,
}

// === impl Cores ===

impl Cores {
    /// The first two that this process may use.
    pub(super) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let may_use = |core: &usize| allowed.is_set(*core).unwrap_or(false);
        let mut cores = (0..CpuSet::count()).filter(may_use);
        let envoy = cores.next().context("no core to run on")?;
        let load = cores.next();
        let load = load.context("two cores are needed: one for Envoy, one for the load")?;
        Ok(Self { envoy, load })
    }
}

/// Binds all threads of a process to a core; threads to come inherit it.
pub(super) fn pin(pid: u32, core: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(core)?;
    for thread in threads(pid)? {
        sched_setaffinity(Pid::from_raw(thread), &only)
            .with_context(|| format!("cannot bind thread {thread} to core {core}"))?;
    }
    Ok(())
}

/// How long all threads of a process have run, to the nanosecond.
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in threads(pid)? {
        let file = format!("/proc/{pid}/task/{thread}/schedstat");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let ran = text
            .split_whitespace()
            .next()
            .and_then(|n| n.parse::<u64>().ok());
        nanoseconds += ran.with_context(|| format!("{file} holds {text:?}"))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn threads(pid: u32) -> Result<Vec<i32>> {
    let folder = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&folder).with_context(|| format!("no process {pid}"))?;
    let threads: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    ensure!(!threads.is_empty(), "{folder} names no threads");
    Ok(threads)
}
