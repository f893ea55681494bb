//! Processes under measurement: started on core 0, watched from core 1, ended, and their CPU counted to the last tick.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;

use crate::bench::{http, machine};
use crate::stopwatch::Stopwatch;
use crate::workspace::must_succeed;

/// How long anything may take.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(240);
/// Lines of a process that may wait to be looked at.
const LINES_MAX: usize = 4096;
const MEASURED_CORE: &str = "0";
const OTHER_CORE: &str = "1";

/// Lets some milliseconds pass.
pub(super) fn pause(milliseconds: u64) {
    let (never, nothing) = sync_channel::<()>(0);
    nothing.recv_timeout(Duration::from_millis(milliseconds)).ok();
    drop(never);
}

/// Puts this process, and the threads it will start, on the core that is not measured.
pub(super) fn pin_this_process() -> anyhow::Result<()> {
    let pid = std::process::id().to_string();
    must_succeed(Command::new("taskset").args(["-a", "-c", "-p", OTHER_CORE, &pid]).stdout(Stdio::null()))
        .context("the benchmark needs `taskset` of util-linux")
}

/// A running process on the measured core. Dropping it ends it the hard way.
#[derive(Debug)]
pub(super) struct Measured {
    child: Child,
    lines: Receiver<String>,
    started: Stopwatch,
}

impl Measured {
    /// Starts `command`, keeps what it says on stdout and stderr in `log`.
    pub(super) fn start(command: &Command, log: &Path) -> anyhow::Result<Self> {
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", MEASURED_CORE]).arg(command.get_program()).args(command.get_args());
        pinned.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let file = File::options().create(true).append(true).open(log).context("opening a log")?;
        let also_file = file.try_clone()?;
        let started = Stopwatch::start();
        let mut child = pinned.spawn().context("starting a process on core 0")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let stderr = child.stderr.take().context("no stderr")?;
        let (sender, lines) = sync_channel(LINES_MAX);
        let also_sender = sender.clone();
        std::thread::spawn(move || keep(stdout, file, &sender));
        std::thread::spawn(move || keep(stderr, also_file, &also_sender));
        Ok(Self { child, lines, started })
    }

    /// Waits for a line in which `find` finds what it looks for; returns that and when it came.
    pub(super) fn wait_for_line<T>(&self, find: impl Fn(&str) -> Option<T>) -> anyhow::Result<(T, Duration)> {
        while let Some(left) = WAIT_MAX.checked_sub(self.started.elapsed()) {
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(found) = find(&line) {
                        return Ok((found, self.started.elapsed()));
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        bail!("the process did not say that it is ready")
    }

    /// Returns the number of its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, waits for the end and returns the seconds of CPU of the whole life.
    pub(super) fn end(self, signal: Signal) -> anyhow::Result<f64> {
        kill_process(Pid::from_child(&self.child), signal).context("ending a process")?;
        self.wait()
    }

    /// Waits until it has ended by itself and returns the seconds of CPU of its whole life.
    pub(super) fn wait(mut self) -> anyhow::Result<f64> {
        let watch = Stopwatch::start();
        let pid = Pid::from_child(&self.child);
        // Left to be waited for: until then the kernel keeps its times.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(pid), options)?.is_none() {
            if watch.elapsed() > WAIT_MAX {
                bail!("the process did not end");
            }
            pause(2);
        }
        let seconds = machine::cpu_seconds(self.pid())?;
        self.child.wait()?;
        Ok(seconds)
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // Already ended in the good case; otherwise nobody else would end it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Copies what a process says into a file and to whoever looks.
fn keep(from: impl Read, mut file: File, to: &SyncSender<String>) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        // A full disk or a full queue must not stop the process: it would wait for its log.
        drop(writeln!(file, "{line}"));
        drop(to.try_send(line));
    }
}

/// The agent under measurement.
#[derive(Debug)]
pub(super) struct Agent {
    process: Measured,
    /// Where it takes events.
    pub(super) http: String,
    /// Where it takes OTLP over gRPC, or `off`.
    pub(super) otlp_grpc: String,
    admin: String,
    /// From its start until it said that it is ready.
    pub(super) ready_after: Duration,
}

/// Where an agent reads and writes: `manifests`, `data`, `out`, `pods` and its log.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) program: PathBuf,
    pub(super) root: PathBuf,
    pub(super) pods: Option<PathBuf>,
}

impl Place {
    /// Writes the manifests.
    pub(super) fn write_manifests(&self, text: &str) -> anyhow::Result<()> {
        fs::write(self.root.join("manifests.yaml"), text).context("writing manifests")
    }

    /// Returns the folder of its output.
    pub(super) fn out(&self) -> PathBuf {
        self.root.join("out")
    }

    /// Starts the agent and waits until it is ready.
    pub(super) fn start(&self) -> anyhow::Result<Agent> {
        self.start_with(&[])
    }

    /// The same with other flags besides.
    pub(super) fn start_with(&self, flags: &[&str]) -> anyhow::Result<Agent> {
        let pods = self.pods.clone().unwrap_or_else(|| self.root.join("pods"));
        for folder in [&self.out(), &self.root.join("data"), &pods] {
            fs::create_dir_all(folder).context("creating the agent's folders")?;
        }
        let mut command = Command::new(&self.program);
        command.arg("run").arg("-f").arg(self.root.join("manifests.yaml"));
        command.arg("--data-dir").arg(self.root.join("data")).arg("--filesystem-root").arg(self.out());
        command.arg("--pod-logs").arg(pods).args(["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--log-format", "json", "--drain-seconds", "1"]).args(flags);
        let log = self.root.join("agent.log");
        let process = Measured::start(&command, &log)?;
        let addresses = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            let address = |name: &str| line[name].as_str().map(str::to_owned);
            Some((address("http")?, address("admin")?, address("otlp_grpc").unwrap_or_default()))
        };
        match process.wait_for_line(addresses) {
            Ok(((http, admin, otlp_grpc), ready_after)) => Ok(Agent { process, http, otlp_grpc, admin, ready_after }),
            Err(error) => Err(error.context(fs::read_to_string(log).unwrap_or_default())),
        }
    }
}

impl Agent {
    /// Returns the number of its process.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns how many events were accepted, and how many are held.
    pub(super) fn counts(&self) -> anyhow::Result<(u64, u64)> {
        let status = http::get_json(&self.admin, "/v1/status")?;
        let pipelines = status["pipelines"].as_array().context("a status without pipelines")?;
        let sum = |values: &mut dyn Iterator<Item = &Value>| values.filter_map(Value::as_u64).sum();
        let accepted = sum(&mut pipelines.iter().map(|pipeline| &pipeline["acceptedEvents"]));
        let deliveries = pipelines.iter().filter_map(|pipeline| pipeline["deliveries"].as_array()).flatten();
        Ok((accepted, sum(&mut deliveries.map(|delivery| &delivery["heldEvents"]))))
    }

    /// Returns whether it has accepted `events` and holds none of them any more.
    pub(super) fn has_delivered(&self, events: u64) -> anyhow::Result<bool> {
        let (accepted, held) = self.counts()?;
        Ok(accepted >= events && held == 0)
    }

    /// Waits until it has accepted `events` and holds none of them any more.
    pub(super) fn wait_until_delivered(&self, events: u64) -> anyhow::Result<()> {
        let watch = Stopwatch::start();
        loop {
            if self.has_delivered(events)? {
                return Ok(());
            }
            if watch.elapsed() > WAIT_MAX {
                bail!("not everything was delivered within {} s", WAIT_MAX.as_secs());
            }
            pause(50);
        }
    }

    /// Ends it with a signal; returns the seconds of CPU of its whole life.
    pub(super) fn end(self, signal: Signal) -> anyhow::Result<f64> {
        self.process.end(signal)
    }
}
