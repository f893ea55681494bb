//! The agent as a process: started with free ports, asked over its own doors, killed, ended by SIGTERM.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::demo::http;
use crate::stopwatch::Stopwatch;

/// How long the agent may take to be ready.
const READY_MAX: Duration = Duration::from_secs(20);
/// How long it may take to end after SIGTERM: its own drain of at most 25 s and a little more.
pub(super) const STOP_MAX: Duration = Duration::from_secs(30);

/// Lines of the agent's own log that may wait to be looked at: it writes a few per second.
const LINES_MAX: usize = 1024;

/// What comes from the agent's own log.
#[derive(Debug)]
enum AgentLine {
    /// One line, JSON.
    Line(String),
    /// There is no more.
    End,
}

/// What is started, and where it reads and writes.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    /// The agent.
    pub(super) program: PathBuf,
    /// Everything it writes is below it.
    pub(super) folder: PathBuf,
    /// What it runs.
    pub(super) manifests: PathBuf,
}

/// A running agent. Dropping it ends the process the hard way.
#[derive(Debug)]
pub(super) struct Agent {
    launch: Launch,
    child: Child,
    lines: Receiver<AgentLine>,
    http: String,
    admin: String,
}

impl Agent {
    /// Starts the process and waits until it says where it listens.
    pub(super) fn start(launch: &Launch) -> anyhow::Result<Self> {
        let Launch { program, folder, manifests } = launch;
        let mut command = Command::new(program);
        command.arg("run").arg("-f").arg(manifests);
        command.arg("--data-dir").arg(folder.join("data")).arg("--filesystem-root").arg(folder.join("out"));
        command.arg("--pod-logs").arg(folder.join("pods"));
        command.args(["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let file = File::options().create(true).append(true).open(folder.join("agent.log"));
        let file = file.context("opening agent.log")?;
        let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let stderr = child.stderr.take().context("the agent has no log")?;
        let (sender, lines) = sync_channel(LINES_MAX);
        std::thread::spawn(move || keep_log(stderr, file, &sender));
        let mut agent = Self { launch: launch.clone(), child, lines, http: String::new(), admin: String::new() };
        agent.wait_until_ready().context("see demo-out/agent.log")?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let watch = Stopwatch::start();
        while let Some(left) = READY_MAX.checked_sub(watch.elapsed()) {
            let Ok(AgentLine::Line(line)) = self.lines.recv_timeout(left) else {
                break;
            };
            let record: Value = serde_json::from_str(&line).unwrap_or_default();
            if let (Some(http), Some(admin)) = (record["http"].as_str(), record["admin"].as_str()) {
                (self.http, self.admin) = (http.to_owned(), admin.to_owned());
                return Ok(());
            }
        }
        bail!("the agent did not say where it listens within {} s", READY_MAX.as_secs())
    }

    /// Kills the process without a warning and starts another over the same data.
    pub(super) fn kill_and_start_again(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("killing the agent")?;
        self.child.wait().context("waiting for the killed agent")?;
        *self = Self::start(&self.launch)?;
        Ok(())
    }

    /// Returns where it takes events.
    pub(super) fn http(&self) -> &str {
        &self.http
    }

    /// Returns where it answers questions about itself.
    pub(super) fn admin(&self) -> String {
        self.admin.clone()
    }

    /// Returns the number of its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends events and wants every one of them accepted.
    pub(super) fn send(&self, events: &[Value]) -> anyhow::Result<()> {
        let mut body = Vec::new();
        for event in events {
            serde_json::to_writer(&mut body, event)?;
            body.push(b'\n');
        }
        let answer = http::post(&self.http, "/v1/events", &body).context("sending events")?;
        let accepted = answer.json()?["accepted"].as_u64();
        if answer.status != 202 || accepted != Some(events.len() as u64) {
            bail!("the agent answered {} to {} events: {}", answer.status, events.len(), answer.text());
        }
        Ok(())
    }

    /// Ends the process as an operator would and wants it to end well.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        let watch = Stopwatch::start();
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("sending SIGTERM to the agent")?;
        loop {
            match self.lines.recv_timeout(STOP_MAX.saturating_sub(watch.elapsed())) {
                Ok(AgentLine::Line(_)) => {}
                Ok(AgentLine::End) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("the agent did not end within {} s", STOP_MAX.as_secs()),
            }
        }
        let status: ExitStatus = self.child.wait().context("waiting for the agent")?;
        if !status.success() {
            bail!("the agent ended with {status} after SIGTERM");
        }
        println!("agent ended {watch} after SIGTERM\n");
        Ok(())
    }

    /// Lets `pause` pass while the agent runs; fails as soon as it has ended.
    pub(super) fn look(&self, pause: Duration) -> anyhow::Result<()> {
        let watch = Stopwatch::start();
        while let Some(left) = pause.checked_sub(watch.elapsed()) {
            match self.lines.recv_timeout(left) {
                Ok(AgentLine::Line(_)) | Err(RecvTimeoutError::Timeout) => {}
                Ok(AgentLine::End) | Err(RecvTimeoutError::Disconnected) => bail!("the agent has ended by itself"),
            }
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Already ended in the good case; otherwise nobody else would end it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Copies the agent's log into its file and to whoever looks, until the agent has ended.
fn keep_log(stderr: ChildStderr, mut file: File, lines: &SyncSender<AgentLine>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        // A full disk must not stop the demo from reading on: an agent that cannot log would wait.
        drop(writeln!(file, "{line}"));
        drop(lines.try_send(AgentLine::Line(line)));
    }
    drop(lines.send(AgentLine::End));
}
