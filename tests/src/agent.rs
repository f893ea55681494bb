//! The agent as a process.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;
use tokio::time::Instant;

use crate::PATIENCE;
use crate::http::{Answer, Client};

/// Lines of the agent's log kept for a scenario that does not look.
const LINES_MAX: usize = 65_536;

/// A folder of its own for one agent: manifests, data, output, container logs.
#[derive(Debug)]
pub struct Place {
    dir: tempfile::TempDir,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    data_dir: Option<PathBuf>,
}

impl Place {
    /// Makes a place whose agent runs `manifests`.
    pub fn new(manifests: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for name in ["manifests", "pods", "out", "secrets"] {
            fs::create_dir(dir.path().join(name)).expect("a folder");
        }
        let place = Self { dir, flags: Vec::new(), variables: Vec::new(), data_dir: None };
        place.write_manifests(manifests);
        place
    }

    /// Replaces the manifests.
    pub fn write_manifests(&self, manifests: &str) {
        fs::write(self.path("manifests/all.yaml"), manifests).expect("manifests are written");
    }

    /// Adds a flag to every start.
    #[must_use]
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Adds a variable to the environment of every start.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts the data directory elsewhere.
    #[must_use]
    pub fn data_at(mut self, dir: &Path) -> Self {
        self.data_dir = Some(dir.to_owned());
        self
    }

    /// Returns a path within.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| self.path("data"))
    }

    /// Returns the command that runs the agent here.
    pub fn command(&self) -> Command {
        let mut command = Command::new(program("spillway-agent"));
        command.args(["run", "--log-format", "json", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "-f"]);
        command.arg(self.path("manifests")).arg("--data-dir").arg(self.data_dir());
        command.arg("--filesystem-root").arg(self.path("out")).arg("--pod-logs").arg(self.path("pods"));
        command.arg("--secrets-dir").arg(self.path("secrets")).args(["--node-name", "node-1"]);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(&self.flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts the agent and waits until it is ready.
    pub fn start(&self) -> Agent {
        let mut agent = Agent::spawn(self.command());
        let ready = agent.wait_for_line("ready");
        let address =
            |name: &str| ready[name].as_str().or(ready["fields"][name].as_str()).unwrap_or_default().to_owned();
        (agent.http, agent.admin, agent.tcp) = (address("http"), address("admin"), address("tcp"));
        agent.otlp_grpc = address("otlp_grpc");
        agent
    }
}

/// Returns a program of ours: built beside this test by the same cargo command.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let folder = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let program = folder.join(name);
    assert!(program.exists(), "{} is missing: run `cargo build -p {name}` or `cargo xtask test`", program.display());
    program
}

/// A running agent. Dropping it kills the process.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    lines: Receiver<Value>,
    /// Every line of its log so far that was looked at.
    pub seen: Vec<Value>,
    /// Where it takes events.
    pub http: String,
    /// Where it tells of itself.
    pub admin: String,
    /// Where it takes lines, if told to.
    pub tcp: String,
    /// Where it takes OTLP over gRPC, if told to.
    pub otlp_grpc: String,
}

impl Agent {
    /// Starts a command of [`Place::command`] without waiting for anything.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the agent starts");
        let log = child.stderr.take().expect("the agent's log");
        let (lines, receiver) = sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if lines.try_send(value).is_err() {
                    return;
                }
            }
        });
        let (http, admin, tcp, otlp_grpc) = Default::default();
        Self { child, lines: receiver, seen: Vec::new(), http, admin, tcp, otlp_grpc }
    }

    /// Waits for a line of the log whose message holds `text`.
    pub fn wait_for_line(&mut self, text: &str) -> Value {
        self.wait_for_line_within(text, PATIENCE)
    }

    /// The same for what takes its time.
    pub fn wait_for_line_within(&mut self, text: &str, patience: Duration) -> Value {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = message_of(&line).contains(text);
                    self.seen.push(line.clone());
                    if found {
                        return line;
                    }
                }
                Err(error) => panic!("no line with {text:?} ({error}); the log: {:#?}", self.seen),
            }
        }
    }

    /// Returns the number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets a moment pass while the agent runs: a line of its log, or `at_most`.
    pub fn moment(&mut self, at_most: Duration) {
        match self.lines.recv_timeout(at_most) {
            Ok(line) => self.seen.push(line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("the agent has ended; its log: {:#?}", self.seen),
        }
    }

    /// Posts to `/v1/events` over a connection of its own.
    pub fn post(&self, body: &[u8], headers: &[(&str, &str)]) -> Answer {
        let mut client = Client::connect(&self.http).expect("the agent listens");
        client.send("POST", "/v1/events", headers, body).expect("the agent answers")
    }

    /// Returns `/v1/status`.
    pub fn status(&self) -> Value {
        let mut client = Client::connect(&self.admin).expect("the admin endpoint listens");
        client.send("GET", "/v1/status", &[], b"").expect("the admin endpoint answers").json()
    }

    /// Returns `/metrics`.
    pub fn metrics(&self) -> String {
        let mut client = Client::connect(&self.admin).expect("the admin endpoint listens");
        String::from_utf8(client.send("GET", "/metrics", &[], b"").expect("an answer").body).expect("text")
    }

    /// Asks others until there is an answer, for at most [`PATIENCE`], while the agent runs; `told` is said with its log
    /// when there is none.
    pub fn eventually<T>(&mut self, told: impl Fn() -> String, mut answer: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = answer(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "never came: {}; {:#?}", told(), self.seen);
            self.moment(Duration::from_millis(50));
        }
    }

    /// Asks for the status again and again until `holds`.
    pub fn wait_until(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let last = RefCell::new(Value::Null);
        let told = || format!("{what}; {:#}", last.borrow());
        self.eventually(told, |agent| {
            let status = agent.status();
            let found = holds(&status).then(|| status.clone());
            last.replace(status);
            found
        })
    }

    /// Waits until nothing is held anywhere and the ledger balances; returns the status.
    pub fn wait_until_delivered(&mut self, accepted: u64) -> Value {
        let status = self.wait_until("everything delivered", |status| {
            let pipelines = status["pipelines"].as_array().cloned().unwrap_or_default();
            !pipelines.is_empty()
                && pipelines.iter().all(|pipeline| {
                    pipeline["acceptedEvents"].as_u64() >= Some(accepted)
                        && deliveries(pipeline).all(|delivery| delivery["heldEvents"] == 0)
                })
        });
        assert_balanced(&status);
        status
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("the end");
    }

    /// The same; returns every line of its log.
    pub fn kill_and_read(mut self) -> Vec<Value> {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("the end");
        self.seen.extend(self.lines.iter());
        std::mem::take(&mut self.seen)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the signal is sent");
    }

    /// Makes it stand still in the midst of whatever it does, until [`Self::go_on`].
    pub fn stand_still(&self) {
        self.signal(Signal::STOP);
        let state = waitpid(Some(Pid::from_child(&self.child)), WaitOptions::UNTRACED).expect("it is ours to wait for");
        assert!(state.is_some_and(|(_, state)| state.stopped()), "it has ended instead: {state:?}");
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Begins to note the most memory it has.
    pub fn begin_peak(&self) -> Peak {
        let of = format!("/proc/{}", self.pid());
        fs::write(format!("{of}/clear_refs"), "5").expect("the kernel forgets the peak of before");
        Peak { before: memory(&of, "VmRSS:"), of }
    }

    /// Waits for the end.
    pub fn wait(self) -> ExitStatus {
        self.wait_and_read().0
    }

    /// Waits for the end; returns every line of its log, too.
    pub fn wait_and_read(mut self) -> (ExitStatus, Vec<Value>) {
        // The log ends with the process; its end is the event to wait for.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the agent does not end; its log: {:#?}", self.seen),
            }
        }
        let status = self.child.wait().expect("the end");
        (status, std::mem::take(&mut self.seen))
    }

    /// Ends it with SIGTERM and wants it to end well.
    pub fn stop(self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "ended with {status}");
    }
}

/// The most memory of a process since a moment. The kernel notes it, so that no peak is too short to be seen.
#[derive(Debug)]
pub struct Peak {
    of: String,
    before: u64,
}

impl Peak {
    /// Returns by how many bytes the process was larger than at that moment.
    pub fn grown_bytes(&self) -> u64 {
        memory(&self.of, "VmHWM:").saturating_sub(self.before)
    }
}

/// Returns a figure of a process's memory, in bytes.
fn memory(of: &str, name: &str) -> u64 {
    let status = fs::read_to_string(format!("{of}/status")).expect("the process runs");
    let figure =
        status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
    figure.expect("the kernel says so") << 10
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Returns the message of a line of the log.
pub fn message_of(line: &Value) -> String {
    let message = line["message"].as_str().or(line["fields"]["message"].as_str()).or(line.as_str());
    message.unwrap_or_default().to_owned()
}

/// Returns the deliveries of a pipeline's status.
pub fn deliveries(pipeline: &Value) -> impl Iterator<Item = &Value> {
    pipeline["deliveries"].as_array().into_iter().flatten()
}

/// Asserts that no delivery lost or doubled a count.
pub fn assert_balanced(status: &Value) {
    for delivery in status["pipelines"].as_array().into_iter().flatten().flat_map(deliveries) {
        assert_eq!(delivery["imbalanceEvents"], 0, "{status:#}");
    }
}
