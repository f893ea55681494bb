//! Manifests that more than one scenario runs.

use std::thread::JoinHandle;

use spillway_tests::agent::Agent;
use spillway_tests::http::Client;
use spillway_tests::manifests::{EVENTS, jobs, to_archive};
use spillway_tests::receiver::{Mode, Receiver};

/// Events and container logs go to files, and to nowhere else.
pub(crate) fn to_files(durability: &str) -> String {
    let manifests = to_archive(&[EVENTS, "{name: logs, type: ContainerLogs}"]);
    manifests.replace("  routes:", &format!("  durability: {durability}\n  routes:"))
}

/// Events go to files and to an HTTP destination.
pub(crate) fn to_files_and(url: &str) -> String {
    jobs(&[("archive", "  {type: Filesystem, filesystem: {}}"), ("api", &http_spec(url))])
}

/// Returns the spec of an HTTP destination that is given up on and tried again quickly.
pub(crate) fn http_spec(url: &str) -> String {
    format!(
        "  type: HTTP
  http: {{url: \"{url}\"}}
  delivery: {{timeoutSeconds: 1, retry: {{initialMilliseconds: 20, maxSeconds: 1}}, circuitBreaker: {{openSeconds: 1}}}}"
    )
}

/// Returns NDJSON of events with ids `first..first + count`.
pub(crate) fn events(first: u64, count: u64) -> Vec<u8> {
    let pad = "x".repeat(200);
    let lines =
        (first..first + count).map(|id| format!("{{\"id\":\"e{id}\",\"kind\":\"progress\",\"pad\":\"{pad}\"}}\n"));
    lines.collect::<Vec<_>>().concat().into()
}

/// Returns the ids of [`events`].
pub(crate) fn ids(first: u64, count: u64) -> Vec<String> {
    (first..first + count).map(|id| format!("e{id}")).collect()
}

/// Posts events and wants them accepted.
pub(crate) fn post(address: &str, first: u64, count: u64) {
    let mut client = Client::connect(address).expect("the agent listens");
    let answer = client.send("POST", "/v1/events", &[], &events(first, count)).expect("the agent answers");
    assert_eq!(answer.status, 202, "{}", answer.json());
    assert_eq!(answer.json()["accepted"], count);
}

/// Waits until the sender that `writing` is waits itself, which `waiting` and its labels say, has the receiver take again, and
/// waits until all `count` events are there.
pub(crate) fn hold_up(agent: &mut Agent, receiver: &Receiver, writing: JoinHandle<()>, waiting: &str, count: u64) {
    agent.eventually(
        || "a sender that waits".into(),
        |agent| agent.metrics().contains(&format!("{waiting} 1")).then_some(()),
    );
    assert!(!writing.is_finished());
    receiver.mode(Mode::Take);
    agent.wait_until_delivered(count);
    writing.join().unwrap();
}
