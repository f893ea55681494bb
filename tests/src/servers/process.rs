//! A server as a process of its own, owned by a guard.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::Instant;

/// How much of a log an error shows.
const LOG_TAIL_BYTES: usize = 4096;

/// Ports for servers: below those that connections are given, so that a stopped server finds its own free again.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A started server: head of a process group of its own. Dropped, the whole group is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, which writes to the file `log`.
    pub fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::options().append(true).create(true).open(log).context("opening the log of a server")?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Returns the number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks `probe` again and again until it holds; fails when the process ends or `patience` is over.
    pub fn wait_until(&mut self, patience: Duration, mut probe: impl FnMut() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        while !probe() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended ({status}); its log ends in:\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("the server is not ready after {patience:?}; its log ends in:\n{}", self.log_tail());
            }
            moment(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Ends the whole group with SIGKILL and waits for the end of its head.
    pub fn kill(&mut self) {
        // A group that is gone already is fine.
        kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
        self.child.wait().ok();
    }

    /// Returns the end of the log.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a port of the loopback address that nobody listens on.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut random = crate::Random(u64::from(std::process::id()));
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for _ in 0..10_000 {
        let port = PORTS.start + random.below(u64::from(PORTS.end - PORTS.start)) as u16;
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.push(port);
            return port;
        }
    }
    panic!("no free port among {PORTS:?}");
}

/// Lets a moment pass, for loops that ask a process of others again and again.
pub fn moment(length: Duration) {
    let (_open, nothing) = sync_channel::<()>(0);
    assert_eq!(nothing.recv_timeout(length), Err(RecvTimeoutError::Timeout));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_guard_ends_what_its_process_started() {
        let dir = tempfile::tempdir().expect("a folder");
        let pid_file = dir.path().join("pid");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("tail -f /dev/null & echo $! > {}; wait", pid_file.display()));
        let mut process = Process::start(command, &dir.path().join("log")).expect("sh starts");
        let pid = || fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse::<u32>().ok());
        process.wait_until(Duration::from_secs(30), || pid().is_some()).expect("the child's number");
        let child = PathBuf::from(format!("/proc/{}/stat", pid().expect("the child's number")));
        assert!(child.exists());
        drop(process);
        let alive = || fs::read_to_string(&child).is_ok_and(|stat| !stat.contains(") Z "));
        let deadline = Instant::now() + Duration::from_secs(30);
        while alive() {
            assert!(Instant::now() < deadline, "the child is still there");
            moment(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_server_that_ends_is_told_with_its_log() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing; exit 3"]);
        let mut process = Process::start(command, &dir.path().join("log")).expect("sh starts");
        let error = process.wait_until(Duration::from_secs(30), || false).expect_err("it ended");
        assert!(error.to_string().contains("no such thing"), "{error}");
    }

    #[test]
    fn ports_are_free_and_never_given_twice() {
        let ports: Vec<_> = (0..50).map(|_| free_port()).collect();
        let different: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(different.len(), ports.len());
    }
}
