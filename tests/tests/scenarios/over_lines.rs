//! Lines over TCP and a Unix socket to a real agent: kills under load, a stop in order, a full log, hostile lines.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use spillway_tests::agent::{Place, message_of};
use spillway_tests::http::Stream;
use spillway_tests::receiver::{Mode, Receiver};
use spillway_tests::{PATIENCE, Random, output};

use crate::fixtures;
use crate::kills::Field;

const ROUNDS: u64 = 12;
const SENDERS: u64 = 4;
const BATCH: u64 = 40;
/// Batches that a sender has under way before it reads the answer of the first.
const AHEAD: usize = 4;

/// A client.
struct Lines {
    stream: BufReader<Box<dyn Stream>>,
}

impl Lines {
    fn over_tcp(address: &str, hello: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Self::over(Box::new(stream), hello)
    }

    fn over_socket(path: &Path, hello: &str) -> std::io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Self::over(Box::new(stream), hello)
    }

    fn over(stream: Box<dyn Stream>, hello: &str) -> std::io::Result<Self> {
        let mut lines = Self { stream: BufReader::new(stream) };
        lines.say(format!("{{\"spillway\":{{\"answers\":\"{hello}\"}}}}\n").as_bytes())?;
        assert_eq!(lines.answer()?, json!({"line": 1, "accepted": 0}));
        Ok(lines)
    }

    fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    fn answer(&mut self) -> std::io::Result<Value> {
        let mut line = String::new();
        // Half an answer of an agent that was killed is none.
        if self.stream.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// A batch under way.
struct Batch {
    key: String,
    first: u64,
}

impl Batch {
    fn write_to(&self, lines: &mut Lines) -> std::io::Result<()> {
        lines.say(&fixtures::events(self.first, BATCH))?;
        lines.say(format!("{{\"spillway\":{{\"end\":\"{}\"}}}}\n", self.key).as_bytes())
    }
}

/// Sends batch after batch, some ahead, and what was not answered again over the next connection. Returns what was sent and what
/// was acknowledged.
fn send(field: &Field, sender: u64, socket: Option<&Path>) -> (Vec<String>, Vec<String>) {
    let (mut sent, mut acknowledged, mut next) = (Vec::new(), Vec::new(), 0);
    let mut under_way = VecDeque::<Batch>::new();
    let mut address = String::new();
    while !field.is_over() {
        address = field.next_address(&address);
        let connected = match socket {
            Some(path) => Lines::over_socket(path, "batches"),
            None => Lines::over_tcp(&address, "batches"),
        };
        let Ok(mut lines) = connected else { continue };
        let mut is_broken = under_way.iter().any(|batch| batch.write_to(&mut lines).is_err());
        while !is_broken && !field.is_over() {
            while under_way.len() < AHEAD {
                let first = (sender * 10_000 + next) * BATCH;
                sent.extend(fixtures::ids(first, BATCH));
                under_way.push_back(Batch { key: format!("{sender}/{next}"), first });
                next += 1;
                is_broken |= under_way.back().is_some_and(|batch| batch.write_to(&mut lines).is_err());
            }
            let Ok(answer) = lines.answer() else { break };
            let Some(batch) = under_way.front() else { break };
            assert_eq!(answer["key"], batch.key, "{answer}");
            assert_eq!(answer["accepted"], BATCH, "{answer}");
            acknowledged.extend(fixtures::ids(batch.first, BATCH));
            under_way.pop_front();
            field.acknowledged.fetch_add(1, Ordering::AcqRel);
        }
    }
    (sent, acknowledged)
}

fn killed_under_load(durability: &str, seed: u64) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let place = Place::new(&fixtures::to_files(durability));
    let socket = place.path("agent.sock");
    let place = place.flag("--tcp", "127.0.0.1:0").flag("--unix", socket.to_str().unwrap());
    let field = Arc::<Field>::default();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (field, socket) = (field.clone(), (sender % 2 == 0).then(|| socket.clone()));
            std::thread::spawn(move || send(&field, sender, socket.as_deref()))
        })
        .collect();
    for round in 0..ROUNDS {
        // Each start finds the socket that the kill before it left.
        assert_eq!(socket.exists(), round > 0);
        let mut agent = place.start();
        field.set_address(&agent.tcp);
        let until = field.acknowledged.load(Ordering::Acquire) + 1 + random.below(60);
        while field.acknowledged.load(Ordering::Acquire) < until {
            agent.moment(std::time::Duration::from_millis(1 + random.below(15)));
        }
        agent.kill();
        println!("round {round}: killed after {until} batches");
    }
    let mut agent = place.start();
    field.set_address(&agent.tcp);
    let until = field.acknowledged.load(Ordering::Acquire) + 4 * SENDERS;
    agent.eventually(
        || "batches after the last kill".into(),
        |_| (field.acknowledged.load(Ordering::Acquire) >= until).then_some(()),
    );
    field.end();
    let results: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    let sent: Vec<String> = results.iter().flat_map(|(sent, _)| sent.clone()).collect();
    let acknowledged: Vec<String> = results.iter().flat_map(|(_, acknowledged)| acknowledged.clone()).collect();
    agent.wait_until_delivered(acknowledged.len() as u64);
    agent.stop();
    assert!(!socket.exists(), "an end in order removes the socket");
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &acknowledged, &sent);
    println!("{} events acknowledged of {}, each once, over {ROUNDS} kills", acknowledged.len(), sent.len());
}

#[test]
fn kills_under_load_of_lines_lose_and_double_nothing_at_disk() {
    killed_under_load("Disk", 11);
}

#[test]
fn kills_under_load_of_lines_lose_and_double_nothing_at_process() {
    killed_under_load("Process", 12);
}

#[test]
fn what_was_written_before_a_stop_is_delivered_also_where_nobody_reads_answers() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let socket = place.path("agent.sock");
    let place = place.flag("--unix", socket.to_str().unwrap());
    let mut agent = place.start();
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&fixtures::events(0, 400)).unwrap();
    agent.signal(rustix::process::Signal::TERM);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "the connection ends, and nothing is said");
    agent.wait_for_line("stopped");
    assert!(agent.wait().success());
    let all = fixtures::ids(0, 400);
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &all, &all);
}

#[test]
fn a_sender_waits_for_a_full_log_and_all_of_it_is_delivered_afterwards() {
    let receiver = Receiver::start();
    receiver.mode(Mode::Refuse(503));
    let spec = fixtures::http_spec(&receiver.url);
    let manifests = spillway_tests::manifests::jobs(&[("api", &spec)])
        .replace("  routes:", "  buffer: {maxBytes: 33554432}\n  routes:");
    let place = Place::new(&manifests);
    let socket = place.path("agent.sock");
    let place = place.flag("--unix", socket.to_str().unwrap());
    let mut agent = place.start();
    let stream = UnixStream::connect(&socket).unwrap();
    // 48 MB into a log of 32.
    let count = 200_000;
    let writing = std::thread::spawn(move || {
        let mut stream = stream;
        (0..count / 1000).for_each(|piece| stream.write_all(&fixtures::events(piece * 1000, 1000)).unwrap());
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    fixtures::hold_up(&mut agent, &receiver, writing, "spillway_ndjson_waiting_connections{listener=\"unix\"}", count);
    assert!(agent.metrics().contains("spillway_ndjson_lost_events_total{listener=\"unix\"} 0"));
    agent.stop();
    let all = fixtures::ids(0, count);
    output::assert_exactly_once(&receiver.lines(), "id", &all, &all);
}

#[test]
fn hostile_lines_are_told_by_their_numbers_and_cost_little() {
    let place = Place::new(&fixtures::to_files("Disk")).flag("--tcp", "127.0.0.1:0");
    let mut agent = place.start();
    let mut lines = Lines::over_tcp(&agent.tcp, "lines").unwrap();
    let peak = agent.begin_peak();
    let deep = format!("{{\"a\":{}{}}}\n", "[".repeat(10_000), "]".repeat(10_000));
    lines.say(b"{\"id\":\"a\"}\n{\"a\":\"\0\"}\n{\"a\":\"\xff\"}\n").unwrap();
    lines.say(deep.as_bytes()).unwrap();
    lines.say(&vec![b'x'; 100 << 20]).unwrap();
    lines.say(b"\n{\"id\":\"b\"}\n").unwrap();
    let (mut accepted, mut bad) = (0, Vec::new());
    while accepted < 2 || bad.len() < 4 {
        let answer = lines.answer().unwrap();
        accepted += answer["accepted"].as_u64().unwrap();
        let errors = answer["errors"].as_array().cloned().unwrap_or_default();
        bad.extend(errors.iter().map(|error| (error["line"].as_u64(), error["code"].as_str().unwrap().to_owned())));
    }
    let told = [(3, "malformed"), (4, "invalid_utf8"), (5, "too_deep"), (6, "event_too_large")];
    assert_eq!(bad, told.map(|(line, code)| (Some(line), code.to_owned())));
    let grown = peak.grown_bytes();
    println!("{grown} bytes");
    assert!(grown < 32 << 20, "{grown} bytes");
    agent.wait_until_delivered(2);
    agent.stop();
    let ids = ["a".to_owned(), "b".to_owned()];
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &ids, &ids);
}

#[test]
fn a_socket_of_an_agent_that_runs_is_not_taken_and_the_second_one_says_so() {
    let first = Place::new(&fixtures::to_files("Disk"));
    let socket = first.path("agent.sock");
    let first = first.flag("--unix", socket.to_str().unwrap());
    let running = first.start();
    let second = Place::new(&fixtures::to_files("Disk")).flag("--unix", socket.to_str().unwrap());
    let (status, log) = spillway_tests::agent::Agent::spawn(second.command()).wait_and_read();
    assert_eq!(status.code(), Some(1));
    let text = log.iter().map(message_of).collect::<Vec<_>>().join("\n");
    assert!(text.contains("error[unix-listen]") && text.contains("is the socket of a process that runs"), "{text}");
    let mut lines = Lines::over_socket(&socket, "lines").unwrap();
    lines.say(b"{\"id\":\"a\"}\n").unwrap();
    assert_eq!(lines.answer().unwrap()["accepted"], 1);
    running.stop();
}

#[test]
fn a_tcp_listener_beyond_loopback_without_tls_and_token_does_not_start() {
    let place = Place::new(&fixtures::to_files("Disk")).flag("--tcp", "0.0.0.0:0");
    let (status, log) = spillway_tests::agent::Agent::spawn(place.command()).wait_and_read();
    assert_eq!(status.code(), Some(1));
    let text = log.iter().map(message_of).collect::<Vec<_>>().join("\n");
    assert!(text.contains("error[insecure-listener]") && text.contains("needs --tls-cert"), "{text}");
}
