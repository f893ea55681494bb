//! The agent as a process with an operator, and a receiver for what it sends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::Instant;

use crate::stand_in::{PATIENCE, Request, request};

/// A running agent; dropping it kills it.
pub(crate) struct Agent {
    child: Child,
    lines: Receiver<String>,
    /// Its log so far.
    pub(crate) seen: Vec<String>,
    http: String,
    admin: String,
}

impl Agent {
    /// Starts an agent in `dir`, where the token is, with an operator.
    pub(crate) fn start(dir: &Path, operator: &str, more: &[&str]) -> Self {
        Self::start_in(&[], dir, operator, more)
    }

    /// The same with these variables in its environment, and no others.
    pub(crate) fn start_in(environment: &[(&str, &str)], dir: &Path, operator: &str, more: &[&str]) -> Self {
        std::fs::write(dir.join("token"), "token-1\n").unwrap();
        std::fs::create_dir_all(dir.join("pods")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_spillway-agent"));
        command.args(["run", "--operator", operator, "--operator-token", "token", "--data-dir", "data"]);
        command.args([
            "--filesystem-root",
            "out",
            "--pod-logs",
            "pods",
            "--http",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]);
        // What tests listen at; nothing else of loopback is for the backends of a namespace.
        command.args(["--allow-destinations", "127.0.0.1", "--log-format", "json"]).args(more);
        let mut child = command
            .env_clear()
            .envs(environment.iter().copied())
            .current_dir(dir)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = sync_channel(65_536);
        std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut agent = Self { child, lines, seen: Vec::new(), http: String::new(), admin: String::new() };
        let ready = agent.wait_for_line("ready");
        let address = |name: &str| ready[name].as_str().unwrap_or_else(|| panic!("{ready}")).to_owned();
        (agent.http, agent.admin) = (address("http"), address("admin"));
        agent
    }

    /// Waits for a line of the log whose message holds `text`.
    pub(crate) fn wait_for_line(&mut self, text: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(deadline.duration_since(Instant::now()));
            let line = line.unwrap_or_else(|error| panic!("no line with {text:?} ({error}): {:#?}", self.seen));
            self.seen.push(line.clone());
            let value: Value = serde_json::from_str(&line).unwrap_or_default();
            if value["message"].as_str().is_some_and(|message| message.contains(text)) {
                return value;
            }
        }
    }

    fn ask(address: &str, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{head} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Posts one event to every pipeline that takes any.
    pub(crate) fn post(&self, event: &str) {
        let answer = self.posted(event);
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    }

    /// Posts, and returns the answer.
    pub(crate) fn posted(&self, body: &str) -> String {
        Self::ask(&self.http, "POST /v1/events", body)
    }

    /// Returns what a path of the admin endpoint answers.
    pub(crate) fn get(&self, path: &str) -> String {
        Self::ask(&self.admin, &format!("GET {path}"), "")
    }

    /// Returns the status.
    pub(crate) fn status(&self) -> Value {
        let answer = self.get("/v1/status");
        serde_json::from_str(&answer[answer.find('{').unwrap()..]).unwrap()
    }

    /// Looks again and again until `holds`, or fails.
    pub(crate) fn wait_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "never came: {what}; {:#}; {:#?}", self.status(), self.seen);
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the agent has ended: {:#?}", self.seen),
            }
        }
    }

    /// Returns the most memory it ever had, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; returns whether that was in order, and its log.
    pub(crate) fn ended(mut self) -> (bool, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {:#?}", self.seen),
            }
        }
        (self.child.wait().unwrap().success(), self.seen.join("\n"))
    }

    /// Ends it with SIGKILL; returns its log.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.seen.extend(self.lines.iter());
        self.seen.join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// The values of `field` in every line of every file below `dir/out` whose path holds `part`.
pub(crate) fn delivered(dir: &Path, part: &str, field: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![dir.join("out")];
    while let Some(folder) = folders.pop() {
        for path in folder.read_dir().into_iter().flatten().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().contains(part) && path.extension().is_some_and(|end| end == "ndjson") {
                let text = std::fs::read_to_string(&path).unwrap();
                let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                found.extend(events.map(|event| event[field].as_str().map_or(event[field].to_string(), str::to_owned)));
            }
        }
    }
    found.sort();
    found
}

/// A server that takes everything and remembers who showed what.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Backend {
    /// Listens.
    pub(crate) fn listen() -> Self {
        Self::listen_at("127.0.0.1:0")
    }

    /// Listens at an address.
    pub(crate) fn listen_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Request>>>::default());
        let shown = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shown = shown.clone();
                // A client that goes away ends its connection.
                std::thread::spawn(move || drop(take(stream, &shown)));
            }
        });
        Self { address, requests }
    }

    /// Returns how many requests there were.
    pub(crate) fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// Returns whether somebody showed this.
    pub(crate) fn has_seen(&self, authorization: &str) -> bool {
        self.requests.lock().unwrap().iter().any(|request| request.authorization == authorization)
    }

    /// Returns the events that were sent for a route, as sidecars name it.
    pub(crate) fn events(&self, route: &str) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        let bodies = requests.iter().filter(|request| request.route == route);
        bodies
            .flat_map(|request| String::from_utf8_lossy(&request.body).lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

fn take(stream: TcpStream, shown: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = request(&mut stream)? {
        shown.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
    Ok(())
}
