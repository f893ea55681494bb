//! `durability: Memory` with the real agent: a backend that stays behind makes it spill, an end in order loses and repeats
//! nothing (also where a second signal cuts it short), and SIGKILL takes no more than memory may hold.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::Value;
use spillway_tests::agent::{Agent, Place, assert_balanced};
use spillway_tests::output;
use spillway_tests::receiver::{Mode, Receiver};

use crate::fixtures;

const BATCH: u64 = 500;

/// Most bytes that only memory holds, with the quota of [`manifests`].
const MEMORY_BYTES_MAX: u64 = 4 << 20;

/// Everything to one HTTP destination; the smallest quota there is, so that memory holds a quarter of 16 MiB.
fn manifests(url: &str) -> String {
    let spec = fixtures::http_spec(url);
    format!(
        "
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {{name: api}}
spec:
{spec}
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {{name: jobs}}
spec:
  durability: Memory
  buffer: {{maxBytes: 16777216}}
  inputs: [{{name: pushed, type: Events}}]
  routes:
  - {{name: everything, backendRefs: [{{name: api}}]}}
"
    )
}

fn log_figure(agent: &Agent, name: &str) -> u64 {
    agent.status()["pipelines"][0]["log"][name].as_u64().unwrap()
}

/// Posts batches until the log has spilled; returns how many events that were.
fn post_until_spilled(agent: &Agent, first: u64) -> u64 {
    let mut sent = first;
    while log_figure(agent, "spilledBytes") == 0 {
        fixtures::post(&agent.http, sent, BATCH);
        sent += BATCH;
        assert!((sent - first) * 200 < 2 * MEMORY_BYTES_MAX, "nothing spills");
    }
    sent - first
}

/// Fails where an id names two events; returns how often each event came.
fn events_by_name(lines: &[String]) -> BTreeMap<String, u64> {
    let (mut named, mut events) = (BTreeMap::new(), BTreeMap::new());
    for line in lines {
        let event: Value = serde_json::from_str(line).unwrap();
        let (id, name) = (event["_spillway"]["id"].as_str().unwrap(), event["id"].as_str().unwrap());
        let before = named.insert(id.to_owned(), name.to_owned());
        assert!(before.is_none_or(|before| before == name), "{id} names {name} and another event");
        *events.entry(name.to_owned()).or_default() += 1;
    }
    events
}

#[test]
fn an_end_in_order_loses_nothing_in_memory_and_sigkill_no_more_than_memory_holds() {
    let receiver = Receiver::start();
    let place = Place::new(&manifests(&receiver.url)).flag("--drain-seconds", "1");
    let agent = place.start();
    fixtures::post(&agent.http, 0, BATCH);
    let mut agent = agent;
    agent.wait_until_delivered(BATCH);
    assert_eq!(log_figure(&agent, "spilledBytes"), 0, "nothing is written while the destination keeps up");

    receiver.mode(Mode::Refuse(503));
    let mut sent = BATCH + post_until_spilled(&agent, BATCH);
    let held = log_figure(&agent, "memoryBytes");
    assert!(0 < held && held <= MEMORY_BYTES_MAX, "{held} bytes only in memory");
    agent.stop();

    let mut agent = place.start();
    let found = agent.status();
    assert_eq!(found["pipelines"][0]["deliveries"][0]["heldEvents"], sent - BATCH, "{found:#}");
    receiver.mode(Mode::Take);
    agent.wait_until_delivered(sent);
    let names = fixtures::ids(0, sent);
    output::assert_exactly_once(&receiver.lines(), "id", &names, &names);

    receiver.mode(Mode::Refuse(503));
    let first = sent;
    sent += post_until_spilled(&agent, sent);
    let held = log_figure(&agent, "memoryBytes");
    agent.kill();
    receiver.mode(Mode::Take);
    let mut agent = place.start();
    fixtures::post(&agent.http, sent, BATCH);
    sent += BATCH;
    let status = agent.wait_until("the rest delivered", |status| {
        let newest = format!("\"id\":\"e{}\"", sent - 1);
        status["pipelines"][0]["deliveries"][0]["heldEvents"] == 0
            && receiver.lines().iter().any(|line| line.contains(&newest))
    });
    assert_balanced(&status);
    let events = events_by_name(&receiver.lines());
    assert!(events.values().all(|times| *times == 1), "an event came twice");
    let lost: Vec<String> = fixtures::ids(0, sent).into_iter().filter(|name| !events.contains_key(name)).collect();
    assert!(!lost.is_empty() && lost.len() as u64 * 200 <= held, "{} lost of {held} bytes in memory", lost.len());
    // What had spilled is there: what is lost is the newest that came before the end.
    assert_eq!(lost, fixtures::ids(sent - BATCH - lost.len() as u64, lost.len() as u64));
    assert!(sent - BATCH - lost.len() as u64 > first, "something had spilled");
    println!("{} of {sent} events lost with {held} bytes of memory", lost.len());
    agent.stop();
}

#[test]
fn a_second_signal_loses_nothing_of_what_only_memory_holds() {
    let receiver = Receiver::start();
    receiver.mode(Mode::Hang);
    let place = Place::new(&manifests(&receiver.url)).flag("--drain-seconds", "60");
    let mut agent = place.start();
    fixtures::post(&agent.http, 0, BATCH);
    assert!(log_figure(&agent, "memoryBytes") > 0, "nothing is only in memory");
    receiver.wait_for_requests(1);
    agent.signal(Signal::TERM);
    let line = agent.wait_for_line("stopping").to_string();
    assert!(line.contains("default/jobs/everything/api") && line.contains("second signal"), "{line}");
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().code(), Some(143));

    let mut agent = place.start();
    let found = agent.status();
    assert_eq!(found["pipelines"][0]["deliveries"][0]["heldEvents"], BATCH, "{found:#}");
    assert_eq!(log_figure(&agent, "lostEvents"), 0);
    receiver.mode(Mode::Take);
    agent.wait_until_delivered(BATCH);
    let names = fixtures::ids(0, BATCH);
    output::assert_exactly_once(&receiver.lines(), "id", &names, &names);
    agent.stop();
}

#[test]
fn the_start_after_sigkill_says_what_went_with_the_process() {
    let receiver = Receiver::start();
    receiver.mode(Mode::Hang);
    let place = Place::new(&manifests(&receiver.url)).flag("--drain-seconds", "1");
    let agent = place.start();
    fixtures::post(&agent.http, 0, BATCH);
    // A request names its events in a plan that survives.
    receiver.wait_for_requests(1);
    agent.kill();
    receiver.mode(Mode::Take);
    let agent = place.start();
    let lost = log_figure(&agent, "lostEvents");
    let told = agent
        .seen
        .iter()
        .filter_map(|line| line["lost_events_min"].as_u64().or(line["fields"]["lost_events_min"].as_u64()));
    assert!(lost > 0);
    assert_eq!(told.collect::<Vec<_>>(), [lost], "{:#?}", agent.seen);
    agent.stop();
}
