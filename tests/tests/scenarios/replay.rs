//! A range of the log goes again while the pipeline goes on, and over a SIGKILL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spillway_tests::agent::Place;
use spillway_tests::http::Client;
use spillway_tests::output;
use spillway_tests::receiver::{Mode, Receiver};

use crate::fixtures;
use crate::letters::{ask, jobs, text, wait_for_jobs};

const REPLAYED: u64 = 10_000;
const BATCH: u64 = 500;

/// Events go to files and are kept; another destination is there that no route names.
fn manifests(url: &str) -> String {
    let kept = "spec:\n  buffer: {retainSeconds: 3600}\n  inputs:";
    fixtures::to_files("Disk").replacen("spec:\n  durability: Disk\n  inputs:", kept, 1)
        + &format!(
            "---
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {{name: api}}
spec:
  type: HTTP
  http: {{url: \"{url}\"}}
  delivery: {{timeoutSeconds: 2, retry: {{initialMilliseconds: 20, maxSeconds: 1}}, circuitBreaker: {{openSeconds: 1}}}}
"
        )
}

#[test]
fn a_replay_under_load_goes_on_after_a_kill_and_each_event_is_there_once() {
    let receiver = Receiver::start();
    let place = Place::new(&manifests(&receiver.url));
    let mut agent = place.start();
    for first in (0..REPLAYED).step_by(BATCH as usize) {
        fixtures::post(&agent.http, first, BATCH);
    }
    agent.wait_until_delivered(REPLAYED);
    let range = ["--pipeline", "jobs", "--route", "everything", "--from", "1", "--to", "10001", "--backend", "api"];
    let dry = text(&ask(&agent, &[&["replay", "--dry-run"][..], &range].concat()));
    assert!(dry.starts_with("would send 10000 events (") && dry.ends_with("to api\n"), "{dry}");
    assert!(jobs(&agent.status()).is_empty() && receiver.lines().is_empty());
    let gone = ask(&agent, &["replay", "--pipeline", "jobs", "--route", "everything", "--from", "99999"]);
    let told = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(gone.status.code() == Some(1) && told.contains("the log holds events 1 to 10000"), "{told}");

    // Load goes on meanwhile; the answer of each batch that is replayed is lost until the agent dies.
    let (over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = {
        let (over, acknowledged, address) = (over.clone(), acknowledged.clone(), agent.http.clone());
        std::thread::spawn(move || {
            let mut client = Client::connect(&address).ok();
            let mut first = REPLAYED;
            while let Some(connected) = client.as_mut().filter(|_| !over.load(Ordering::Acquire)) {
                match connected.send("POST", "/v1/events", &[], &fixtures::events(first, BATCH)) {
                    Ok(answer) if answer.status == 202 => acknowledged.store(first + BATCH, Ordering::Release),
                    // The agent is dead: what became of this batch is not known.
                    Ok(_) | Err(_) => return first + BATCH,
                }
                first += BATCH;
            }
            first
        })
    };
    receiver.mode(Mode::TakeAndCut);
    text(&ask(&agent, &[&["replay"][..], &range].concat()));
    receiver.wait_for_lines(1);
    agent.moment(std::time::Duration::from_millis(300));
    agent.kill();
    let sent = load.join().unwrap();
    over.store(true, Ordering::Release);
    receiver.mode(Mode::Take);
    let mut agent = place.start();
    let status = wait_for_jobs(&mut agent, 1);
    assert_eq!(jobs(&status)[0]["selectedEvents"], REPLAYED, "{status:#}");
    agent.wait_until_delivered(acknowledged.load(Ordering::Acquire).max(REPLAYED));
    agent.stop();
    let all = fixtures::ids(0, REPLAYED);
    output::assert_exactly_once(&receiver.lines(), "id", &all, &all);
    let acknowledged = fixtures::ids(0, acknowledged.load(Ordering::Acquire).max(REPLAYED));
    let files = output::lines_below(&place.path("out"));
    output::assert_exactly_once(&files, "id", &acknowledged, &fixtures::ids(0, sent));
}

#[test]
fn a_replay_that_runs_goes_on_at_the_new_address_when_its_backend_is_edited() {
    let (old, new) = (Receiver::start(), Receiver::start());
    old.mode(Mode::Refuse(503));
    let place = Place::new(&manifests(&old.url));
    let mut agent = place.start();
    for first in (0..2000).step_by(BATCH as usize) {
        fixtures::post(&agent.http, first, BATCH);
    }
    agent.wait_until_delivered(2000);
    text(&ask(&agent, &["replay", "--pipeline", "jobs", "--route", "everything", "--from", "1", "--backend", "api"]));
    old.wait_for_requests(3);
    let status = agent.wait_until("it tries again", |status| jobs(status)[0]["state"] == "retrying");
    assert_eq!(jobs(&status)[0]["heldEvents"], 2000, "{status:#}");
    place.write_manifests(&manifests(&new.url));
    wait_for_jobs(&mut agent, 1);
    agent.stop();
    let all = fixtures::ids(0, 2000);
    output::assert_exactly_once(&new.lines(), "id", &all, &all);
    assert!(old.lines().is_empty());
}
