//! SIGKILL at random moments under load: every acknowledged event is delivered, each exactly once in the files, and
//! nothing is delivered that was not sent, by the sender's own ids.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use spillway_tests::agent::Place;
use spillway_tests::http::Client;
use spillway_tests::pods::ContainerLog;
use spillway_tests::receiver::{Mode, Receiver};
use spillway_tests::{PATIENCE, Random, output};

use crate::fixtures;

const ROUNDS: u64 = 20;
const SENDERS: u64 = 3;
const BATCH: u64 = 50;

/// What the senders and the one who kills share.
struct Field {
    /// Where the agent listens now; changes with each start.
    address: Mutex<String>,
    changed: Condvar,
    over: AtomicBool,
    acknowledged: AtomicU64,
}

impl Field {
    /// Waits until the agent listens elsewhere than `known`, or the end.
    fn next_address(&self, known: &str) -> String {
        let address = self.address.lock().unwrap();
        let moved = |address: &mut String| address == known && !self.over.load(Ordering::Acquire);
        self.changed.wait_timeout_while(address, PATIENCE, moved).unwrap().0.clone()
    }

    fn set_address(&self, address: &str) {
        address.clone_into(&mut self.address.lock().unwrap());
        self.changed.notify_all();
    }
}

/// Sends batch after batch, each under a key, and the same one again until it is acknowledged.
fn send(field: &Field, sender: u64) -> (Vec<String>, Vec<String>) {
    let (mut sent, mut acknowledged) = (Vec::new(), Vec::new());
    let mut address = field.next_address("");
    let mut client = Client::connect(&address).ok();
    for batch in 0.. {
        if field.over.load(Ordering::Acquire) {
            break;
        }
        let first = (sender * 10_000 + batch) * BATCH;
        sent.extend(fixtures::ids(first, BATCH));
        let (key, body) = (format!("{sender}-{batch}"), fixtures::events(first, BATCH));
        loop {
            let answer =
                client.as_mut().map(|client| client.send("POST", "/v1/events", &[("Idempotency-Key", &key)], &body));
            match answer {
                Some(Ok(answer)) if answer.status == 202 => break,
                Some(Ok(answer)) => {
                    assert!(matches!(answer.status, 429 | 500 | 503), "{} {}", answer.status, answer.json());
                }
                Some(Err(_)) | None => {
                    address = field.next_address(&address);
                    client = Client::connect(&address).ok();
                }
            }
            if field.over.load(Ordering::Acquire) {
                return (sent, acknowledged);
            }
        }
        acknowledged.extend(fixtures::ids(first, BATCH));
        field.acknowledged.fetch_add(1, Ordering::AcqRel);
    }
    (sent, acknowledged)
}

fn killed_under_load(durability: &str, seed: u64) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let place = Place::new(&fixtures::to_files(durability));
    let field = Arc::new(Field {
        address: Mutex::default(),
        changed: Condvar::new(),
        over: AtomicBool::new(false),
        acknowledged: AtomicU64::new(0),
    });
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let field = field.clone();
            std::thread::spawn(move || send(&field, sender))
        })
        .collect();
    let mut log = ContainerLog::create(&place.path("pods"), "tool", "main");
    let mut lines = 0u64;
    for round in 0..ROUNDS {
        let mut agent = place.start();
        field.set_address(&agent.http);
        let until = field.acknowledged.load(Ordering::Acquire) + 1 + random.below(40);
        while field.acknowledged.load(Ordering::Acquire) < until {
            for _ in 0..random.below(30) {
                log.line(&format!("line {lines} of the tool"));
                lines += 1;
            }
            if random.below(40) == 0 {
                let rotated = log.rotate();
                if random.below(2) == 0 {
                    ContainerLog::compress(&rotated);
                }
            }
            agent.moment(std::time::Duration::from_millis(1 + random.below(15)));
        }
        agent.kill();
        println!("round {round}: killed after {until} batches and {lines} lines");
    }
    let mut agent = place.start();
    field.set_address(&agent.http);
    field.over.store(true, Ordering::Release);
    field.changed.notify_all();
    let results: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    let sent: Vec<String> = results.iter().flat_map(|(sent, _)| sent.clone()).collect();
    let acknowledged: Vec<String> = results.iter().flat_map(|(_, acknowledged)| acknowledged.clone()).collect();
    agent.wait_until_delivered(acknowledged.len() as u64 + lines);
    agent.stop();
    let all = output::lines_below(&place.path("out"));
    let (logs, events): (Vec<String>, Vec<String>) = all.into_iter().partition(|line| line.starts_with("{\"message\""));
    output::assert_exactly_once(&events, "id", &acknowledged, &sent);
    let written: Vec<String> = (0..lines).map(|line| format!("line {line} of the tool")).collect();
    output::assert_exactly_once(&logs, "message", &written, &written);
    println!("{} events and {} lines, each once, over {ROUNDS} kills", acknowledged.len(), lines);
}

#[test]
fn twenty_kills_under_load_lose_and_double_nothing_at_disk() {
    killed_under_load("Disk", 1);
}

#[test]
fn twenty_kills_under_load_lose_and_double_nothing_at_process() {
    killed_under_load("Process", 2);
}

#[test]
fn kills_while_a_receiver_fails_lose_nothing_and_repeat_only_whole_batches() {
    let mut random = Random(3);
    let receiver = Receiver::start();
    let place = Place::new(&fixtures::to_files_and(&receiver.url));
    let halves = Mode::TooLargeAbove(20_000);
    let modes = [Mode::Take, Mode::Refuse(500), halves, Mode::TakeAndCut, Mode::Hang, Mode::Take, Mode::Reset];
    let mut sent = 0;
    for round in 0..10 {
        receiver.mode(modes[round % modes.len()].clone());
        let mut agent = place.start();
        for _ in 0..3 + random.below(6) {
            fixtures::post(&agent.http, sent, 500);
            sent += 500;
        }
        agent.moment(std::time::Duration::from_millis(random.below(300)));
        agent.kill();
    }
    receiver.mode(Mode::Take);
    let mut agent = place.start();
    agent.wait_until_delivered(sent);
    agent.stop();
    let all = fixtures::ids(0, sent);
    // The receiver knows a repeat by its key, so that the destination has each event once.
    output::assert_exactly_once(&receiver.lines(), "id", &all, &all);
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &all, &all);
    println!("{sent} events, {} repeats recognised by their key", receiver.repeats());
}
