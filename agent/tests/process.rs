//! The process from outside: start, ready, status, the two signals, and what is held across them.

#![expect(clippy::unwrap_used, reason = "a test fails by it, in its helpers too")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const AGENT: &str = env!("CARGO_BIN_EXE_spillway-agent");

/// A pipeline to one backend, whose manifest lines are `backend`.
fn manifests(backend: &str) -> String {
    format!(
        "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: archive}}\nspec: {backend}\n---\n\
         apiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {{name: jobs}}\nspec:\n  inputs:\n  \
         - {{name: pushed, type: Events}}\n  routes:\n  - {{name: all, backendRefs: [{{name: archive}}]}}\n"
    )
}

/// A running agent; dropping it kills it.
struct Agent {
    child: Child,
    lines: BufReader<ChildStderr>,
    ready: Value,
}

impl Agent {
    /// Starts an agent in `dir` and waits until it is ready.
    fn start(dir: &Path, manifests: &str) -> Self {
        std::fs::write(dir.join("jobs.yaml"), manifests).unwrap();
        let mut command = Command::new(AGENT);
        command.args(["run", "-f", "jobs.yaml", "--data-dir", "data", "--filesystem-root", "out"]);
        command.args(["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--pod-logs", "off", "--log-format", "json"]);
        let mut child = command.env_clear().current_dir(dir).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let mut agent = Self { child, lines, ready: Value::Null };
        agent.ready = agent.wait_for("ready");
        agent
    }

    /// Reads log lines up to the one with this message.
    fn wait_for(&mut self, message: &str) -> Value {
        let mut seen = String::new();
        loop {
            let start = seen.len();
            assert!(self.lines.read_line(&mut seen).unwrap() > 0, "no line {message:?}:\n{seen}");
            if let Ok(line) = serde_json::from_str::<Value>(&seen[start..])
                && line["message"] == message
            {
                return line;
            }
        }
    }

    fn address(&self, listener: &str) -> &str {
        self.ready[listener].as_str().unwrap()
    }

    fn post(&self, events: &str) -> String {
        let address = self.address("http");
        let length = events.len();
        let head =
            format!("POST /v1/events HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}");
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "{head}\r\n\r\n{events}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn status(&self) -> Output {
        Command::new(AGENT).args(["status", "--admin", self.address("admin"), "-o", "json"]).output().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end and returns the exit code.
    fn end(mut self) -> Option<i32> {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// Every line of every file below `dir`.
fn lines_below(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            lines.extend(lines_below(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "ndjson") {
            lines.extend(std::fs::read_to_string(&entry).unwrap().lines().map(String::from));
        }
    }
    lines
}

/// A port nothing listens at: a receiver that is down.
fn dead_receiver() -> String {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    manifests(&format!("{{type: HTTP, http: {{url: \"http://{address}/\"}}}}"))
}

#[test]
fn a_signal_drains_and_everything_accepted_is_in_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(dir.path(), &manifests("{type: Filesystem, filesystem: {}}"));
    let answer = agent.post("{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n");
    assert!(answer.starts_with("HTTP/1.1 202 ") && answer.contains("{\"accepted\":3}"), "{answer}");
    let status = agent.status();
    assert_eq!(status.status.code(), Some(0), "{}", String::from_utf8_lossy(&status.stdout));
    let report: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(report["pipelines"][0]["acceptedEvents"], 3);
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait_for("stopped")["held"], false);
    assert_eq!(agent.end(), Some(0));
    let lines = lines_below(&dir.path().join("out"));
    let numbers: Vec<i64> =
        lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["n"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn a_second_signal_ends_the_wait_and_what_is_held_is_held_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let manifests = dead_receiver();
    let mut agent = Agent::start(dir.path(), &manifests);
    assert!(agent.post("{\"n\":1}").starts_with("HTTP/1.1 202 "));
    agent.wait_for("backend does not take events; holding them");
    let status = agent.status();
    assert_eq!(status.status.code(), Some(1));
    agent.signal(Signal::TERM);
    agent.wait_for("stopping");
    agent.signal(Signal::INT);
    assert_eq!(agent.end(), Some(130));

    let agent = Agent::start(dir.path(), &manifests);
    let report: Value = serde_json::from_slice(&agent.status().stdout).unwrap();
    let pipeline = &report["pipelines"][0];
    assert_eq!((&pipeline["acceptedEvents"], &pipeline["deliveries"][0]["heldEvents"]), (&1.into(), &1.into()));
    assert_eq!(pipeline["deliveries"][0]["imbalanceEvents"], 0);
}

#[test]
fn a_killed_agent_holds_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let manifests = dead_receiver();
    let agent = Agent::start(dir.path(), &manifests);
    assert!(agent.post("[{\"n\":1},{\"n\":2}]").starts_with("HTTP/1.1 202 "));
    agent.signal(Signal::KILL);
    assert_eq!(agent.end(), None);
    let inspected = Command::new(AGENT)
        .args(["log", "inspect", "data/spool/default.jobs", "--events", "-o", "json"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(inspected.stdout).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&events[0]["event"]["n"], &events[1]["event"]["n"]), (&1.into(), &2.into()), "{text}");
    assert!(events[2]["segments"].is_array(), "{text}");
}
