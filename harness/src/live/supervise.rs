//! A child process that never outlives this one.
//!
//! An Envoy that is left behind keeps its port and its CPU until somebody notices. A `Drop` does
//! not help when a test run is killed or Ctrl-C ends it, and Linux's parent-death signal is bound
//! to the *thread* that started the child, which in a test is gone before the process is (and
//! asking for it needs `unsafe`).
//!
//! So the child stands beside a shell that reads from a pipe whose other end only this process
//! holds. However this process ends, the kernel closes the pipe, the read returns, and the shell
//! stops the child. Stopping on purpose takes the same way, so the way is exercised by every test.
//!
//! The child is in a process group of its own: Ctrl-C in a terminal reaches this process alone,
//! which then decides in which order things end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs its arguments, and stops them when its standard input closes.
///
/// The pipe is moved to descriptor 3 because a shell gives `/dev/null` to what runs in its
/// background.
const WATCHER: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
child=$!
{ read -r _ <&3; kill -TERM "$child"; } 2>/dev/null &
watch=$!
exec 3<&-
wait "$child"
status=$?
kill "$watch" 2>/dev/null
exit "$status"
"#;

/// How long a child may take to end after it was asked to. func-e kills Envoy at once; Envoy alone
/// takes some tens of milliseconds.
const STOP_MAX: Duration = Duration::from_secs(5);

/// How often an ending process is looked at.
const POLL: Duration = Duration::from_millis(5);

/// A child process under supervision; dropping it stops it and waits until it has gone.
#[derive(Debug)]
pub struct Supervised {
    shell: Child,
    /// Closing it is the order to stop.
    lifeline: Option<ChildStdin>,
}

// === impl Supervised ===

impl Supervised {
    /// Starts `program` with `args`; what it prints goes to the file `log`.
    ///
    /// # Errors
    /// When the log cannot be made, or there is no `sh`.
    pub fn start(
        program: &Path,
        args: &[OsString],
        env: &[(&str, OsString)],
        log: &Path,
    ) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut shell = Command::new("sh")
            .args(["-c", WATCHER, "supervise"])
            .arg(program)
            .args(args)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().context("cannot share the log")?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start a shell to run {}", program.display()))?;
        let lifeline = shell.stdin.take();
        Ok(Self { shell, lifeline })
    }

    /// The process id of the supervising shell.
    pub fn id(&self) -> u32 {
        self.shell.id()
    }

    /// How the child ended, or `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.shell.try_wait().ok().flatten()
    }

    /// Waits until the child has ended of itself, at most `max`.
    pub fn wait(&mut self, max: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + max;
        loop {
            match self.ended() {
                None if Instant::now() < deadline => thread::sleep(POLL),
                ended => return ended,
            }
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        let tree = descendants(self.id());
        drop(self.lifeline.take());
        if self.wait(STOP_MAX).is_none() {
            // It does not listen. These are our own descendants, found while their parent was
            // alive.
            for pid in tree {
                kill_now(pid);
            }
            kill_now(self.id());
            self.wait(STOP_MAX);
        }
    }
}

/// Sends SIGKILL to one process of ours; that it has already gone is no error.
pub fn kill_now(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
}

/// The processes below `ancestor`, nearest first, as `/proc` shows them now.
pub fn descendants(ancestor: u32) -> Vec<u32> {
    let all = processes();
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            all.iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found.remove(0);
    found
}

/// The parent of a process, or `None` if there is no such process.
pub fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state ppid …`, and the name may hold anything, closing brackets too.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Every process with its parent.
fn processes() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, log: &Path) -> Supervised {
        let args = ["-c", script].map(OsString::from);
        Supervised::start(Path::new("sh"), &args, &[("GREETING", "hello".into())], log).unwrap()
    }

    fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(
                Instant::now() < deadline,
                "{what} did not happen within 10 s"
            );
            thread::sleep(POLL);
        }
    }

    fn runs(pid: u32) -> bool {
        parent(pid).is_some()
    }

    /// Starts a shell that would run for a minute, and returns it with its process id.
    fn long_lived(log: &Path) -> (Supervised, u32) {
        let child = start("echo $$ $GREETING; exec sleep 60", log);
        until("the child's first line", || {
            fs::read_to_string(log).unwrap().ends_with("hello\n")
        });
        let text = fs::read_to_string(log).unwrap();
        let pid = text.split_whitespace().next().unwrap().parse().unwrap();
        (child, pid)
    }

    #[test]
    fn dropping_it_stops_the_child() {
        let dir = tempfile::tempdir().unwrap();
        let (child, pid) = long_lived(&dir.path().join("log"));
        assert!(
            descendants(child.id()).contains(&pid),
            "the child is below the shell"
        );
        drop(child);
        assert!(!runs(pid), "the child has gone when drop returns");
    }

    #[test]
    fn the_child_goes_when_the_pipe_closes_even_if_its_shell_was_killed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, pid) = long_lived(&dir.path().join("log"));
        kill_now(child.id());
        until("the end of the shell", || {
            !runs(child.id()) || child_is_zombie(child.id())
        });
        assert!(runs(pid), "the child does not depend on the shell");
        drop(child.lifeline.take());
        until("the end of the child", || !runs(pid));
        child.wait(STOP_MAX);
    }

    fn child_is_zombie(pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "))
    }

    #[test]
    fn a_child_that_ends_of_itself_hands_its_status_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = start("exit 7", &dir.path().join("log"));
        let status = child
            .wait(Duration::from_secs(10))
            .expect("it ends at once");
        assert_eq!(status.code(), Some(7));
    }

    #[test]
    fn a_child_that_ignores_the_request_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let child = start(
            "trap '' TERM; echo $$ hello; while :; do sleep 1; done",
            &log,
        );
        until("the child's first line", || {
            fs::read_to_string(&log).unwrap().ends_with("hello\n")
        });
        let text = fs::read_to_string(&log).unwrap();
        let pid: u32 = text.split_whitespace().next().unwrap().parse().unwrap();
        drop(child);
        until("the end of the child", || {
            !runs(pid) || child_is_zombie(pid)
        });
    }
}
