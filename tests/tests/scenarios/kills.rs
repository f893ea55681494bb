//! SIGKILL at random moments under load and in the midst of starts: every acknowledged event is delivered, each exactly
//! once in the files, and nothing is delivered that was not sent, by the sender's own ids.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use spillway_tests::agent::{Agent, Place, message_of};
use spillway_tests::http::Client;
use spillway_tests::pods::ContainerLog;
use spillway_tests::receiver::{Mode, Receiver};
use spillway_tests::{PATIENCE, Random, output};
use tokio::time::Instant;

use crate::fixtures;

const ROUNDS: u64 = 20;
const SENDERS: u64 = 3;
const BATCH: u64 = 50;

/// What the senders and the one who kills share.
#[derive(Default)]
pub(crate) struct Field {
    /// Where the agent listens now; changes with each start.
    address: Mutex<String>,
    changed: Condvar,
    over: AtomicBool,
    /// Batches so far.
    pub(crate) acknowledged: AtomicU64,
}

impl Field {
    /// Tells the senders that it is over.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Returns whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Waits until the agent listens elsewhere than `known`, or the end.
    pub(crate) fn next_address(&self, known: &str) -> String {
        let address = self.address.lock().unwrap();
        let moved = |address: &mut String| address == known && !self.over.load(Ordering::Acquire);
        self.changed.wait_timeout_while(address, PATIENCE, moved).unwrap().0.clone()
    }

    pub(crate) fn set_address(&self, address: &str) {
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
        if field.is_over() {
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
            if field.is_over() {
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
    let field = Arc::<Field>::default();
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
    field.end();
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

/// When a start is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after the process began.
    After(Duration),
    /// As soon as a draft comes to be: a segment that a kill left open is written anew, or one is begun.
    Draft,
    /// As soon as a segment comes to be, or another file takes the name of one.
    Segment,
}

/// Returns the files of the log with an extension: each as it is, so that one made anew is another one.
fn files_of(place: &Place, extension: &str) -> BTreeSet<(PathBuf, u64, i64)> {
    let files = output::files(&place.data_dir().join("spool/default.jobs")).into_iter();
    let files = files.filter(|path| path.extension().is_some_and(|found| found == extension));
    // A file that goes meanwhile is none.
    let known = files.filter_map(|path| std::fs::metadata(&path).ok().map(|of| (path, of.ino(), of.ctime_nsec())));
    known.collect()
}

/// Starts the agent and kills it; returns whether it was not ready yet.
fn kill_in_start(place: &Place, moment: Moment) -> bool {
    let extension = if matches!(moment, Moment::Draft) { "new" } else { "log" };
    let before = files_of(place, extension);
    let begun = Instant::now();
    let mut agent = Agent::spawn(place.command());
    let is_ready = |agent: &Agent| agent.seen.iter().any(|line| message_of(line) == "ready");
    let is_due = || match moment {
        Moment::After(time) => begun.elapsed() >= time,
        Moment::Draft | Moment::Segment => !files_of(place, extension).is_subset(&before),
    };
    while !is_due() && !is_ready(&agent) {
        agent.moment(Duration::from_micros(50));
    }
    !agent.kill_and_read().iter().any(|line| message_of(line) == "ready")
}

/// Events and lines of a log to files, and to a receiver.
fn to_files_and_over_http(durability: &str, url: &str) -> String {
    let both = fixtures::to_files(durability).replace("[{name: archive}]", "[{name: archive}, {name: api}]");
    let spec = fixtures::http_spec(url);
    format!("{both}---\napiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: api}}\nspec:\n{spec}\n")
}

/// Kills starts in a row over what the load before them left, while lines are written all the time.
fn killed_in_starts(durability: &str, seed: u64) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let receiver = Receiver::start();
    let place = Place::new(&to_files_and_over_http(durability, &receiver.url));
    let mut log = ContainerLog::create(&place.path("pods"), "tool", "main");
    let (mut sent, mut lines, mut kills, mut unready) = (0, 0, 0, 0);
    let mut write = |log: &mut ContainerLog, count: u64| {
        (lines..lines + count).for_each(|line| log.line(&format!("line {line} of the tool")));
        lines += count;
        lines
    };
    for round in 0..3 {
        // What the starts find: some megabytes in a segment that is open, held for the receiver or on their way to it.
        receiver.mode(Mode::Refuse(503));
        let begun = Instant::now();
        let agent = place.start();
        let start = begun.elapsed();
        for _ in 0..8 {
            fixtures::post(&agent.http, sent, 1000);
            sent += 1000;
            write(&mut log, 50);
        }
        agent.kill();
        receiver.mode(if round == 1 { Mode::Take } else { Mode::TakeAndCut });
        let mut moments = vec![Moment::Draft, Moment::Segment, Moment::Draft];
        moments.extend((0..5).map(|_| Moment::After(start.mul_f64(random.below(100) as f64 / 100.0))));
        for moment in moments {
            write(&mut log, random.below(30));
            if random.below(4) == 0 {
                ContainerLog::compress(&log.rotate());
            }
            let was_unready = kill_in_start(&place, moment);
            println!("round {round}: {moment:?}, {}", if was_unready { "not ready yet" } else { "ready" });
            (kills, unready) = (kills + 1, unready + u32::from(was_unready));
        }
    }
    receiver.mode(Mode::Take);
    let mut agent = place.start();
    let lines = write(&mut log, 1);
    agent.wait_until_delivered(sent + lines);
    agent.stop();
    let ids = fixtures::ids(0, sent);
    let written: Vec<String> = (0..lines).map(|line| format!("line {line} of the tool")).collect();
    for all in [output::lines_below(&place.path("out")), receiver.lines()] {
        let (logs, events): (Vec<String>, Vec<String>) =
            all.into_iter().partition(|line| line.starts_with("{\"message\""));
        output::assert_exactly_once(&events, "id", &ids, &ids);
        output::assert_exactly_once(&logs, "message", &written, &written);
    }
    println!("{sent} events and {lines} lines, each once, over {kills} kills, {unready} before the agent was ready");
    assert!(unready >= 12, "{unready} of {kills} kills came before the agent was ready");
}

#[test]
fn kills_in_the_midst_of_starts_lose_and_double_nothing_at_disk() {
    killed_in_starts("Disk", 4);
}

#[test]
fn kills_in_the_midst_of_starts_lose_and_double_nothing_at_process() {
    killed_in_starts("Process", 5);
}
