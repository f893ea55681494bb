//! An agent that is the sidecar of a pod: what it takes, where that goes, and how much it keeps.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use spillway_crds::served::{NODE_AGENT, NODE_AGENT_MANIFEST, PodFacts, Pods};
use tokio::time::Instant;

use crate::agent::{Agent, Backend};
use crate::stand_in::{Operator, State};
use crate::{configuration, object, version};

/// What the operator tells of the pod.
fn own_pod() -> Pods {
    let pod = PodFacts { uid: "u1".into(), namespace: "fab12".into(), name: "etcher-0".into(), ..PodFacts::default() };
    Pods { hash: "p".into(), pods: vec![pod.into()] }
}

/// A pipeline with a route to `backend`, and one that is for the agent of the node.
fn manifests(backend: &Backend) -> [String; 3] {
    let http = json!({"url": format!("http://{}/", backend.address)});
    let routes = json!([
        {"name": "own", "backendRefs": [{"name": "api"}]},
        {"name": "shared", "match": "event.n > 1", "backendRefs": [{"kind": "ClusterBackend", "name": NODE_AGENT}]},
    ]);
    let inputs = json!([{"name": "pushed", "type": "Events"}]);
    [
        object("Backend", "api", &json!({"type": "HTTP", "http": http})),
        object("MonitoringPipeline", "jobs", &json!({"inputs": inputs, "routes": routes})),
        NODE_AGENT_MANIFEST.to_owned(),
    ]
}

fn start(dir: &Path, operator: &str, node: &Backend, more: &[&str]) -> Agent {
    let url = format!("http://{}", node.address);
    Agent::start(dir, operator, &[&["--node-agent", &url, "--node-agent-token", "node-token"], more].concat())
}

#[test]
fn a_sidecar_delivers_what_is_its_own_and_hands_the_rest_to_the_agent_of_its_node() {
    let (dir, own, node) = (tempfile::tempdir().unwrap(), Backend::listen(), Backend::listen());
    std::fs::write(dir.path().join("node-token"), "node-1\n").unwrap();
    let operator = Operator::listen("127.0.0.1:0", None, State::default());
    let url = format!("http://{}", operator.address);
    let mut agent = start(dir.path(), &url, &node, &[]);
    let early = agent.posted("{}");
    assert!(early.starts_with("HTTP/1.1 503") && early.contains("\"starting\""), "{early}");

    let manifests = manifests(&own);
    operator.set(|state| {
        (state.configuration, state.pods) = (Some(configuration(7, 1, &manifests)), Some(own_pod()));
    });
    let ask = operator.wait_for("it runs 7.1", |ask| ask.running == Some(version(7, 1)));
    assert!(ask.refused.is_empty(), "{ask:?}");
    agent.post(r#"{"n":1}"#);
    agent.wait_until("its own backend has it", |_| own.requests() == 1);
    agent.post(r#"{"n":2}"#);
    agent.wait_until("the agent of the node has it", |_| node.has_seen("Bearer node-1"));
    assert_eq!(node.requests(), 1, "the conditions of routes are asked here");
    // A kubelet renews the token.
    std::fs::write(dir.path().join("node-token"), "node-2\n").unwrap();
    agent.post(r#"{"n":3}"#);
    agent.wait_until("the new token is shown", |_| node.has_seen("Bearer node-2"));
    agent.wait_until("nothing is held", |agent| {
        let status = agent.status();
        let deliveries = status["pipelines"][0]["deliveries"].as_array().unwrap();
        deliveries.iter().all(|delivery| delivery["heldEvents"] == 0)
    });

    // Without an operator it starts again with what it kept, and knows its pod.
    drop(operator);
    agent.kill();
    let mut agent = start(dir.path(), &url, &node, &[]);
    let before = (own.requests(), node.requests());
    agent.post(r#"{"n":4}"#);
    agent.wait_until("both have it", |_| own.requests() > before.0 && node.requests() > before.1);
}

#[test]
fn a_sidecar_keeps_within_the_bound_of_its_volume_and_takes_again_when_there_is_room() {
    const BYTES_MAX: u64 = 40 << 20;
    let (dir, node) = (tempfile::tempdir().unwrap(), Backend::listen());
    std::fs::write(dir.path().join("node-token"), "node\n").unwrap();
    // Nobody listens there yet.
    let (away, address) = (Backend::listen(), "127.0.0.1:9");
    let with = |to: &str| manifests(&away).map(|text| text.replace(&away.address.to_string(), to));
    let state =
        State { configuration: Some(configuration(7, 1, &with(address))), pods: Some(own_pod()), ..State::default() };
    let operator = Operator::listen("127.0.0.1:0", None, state);
    let url = format!("http://{}", operator.address);
    let mut agent = start(dir.path(), &url, &node, &["--data-bytes-max", &BYTES_MAX.to_string()]);
    operator.wait_for("it runs 7.1", |ask| ask.running == Some(version(7, 1)));
    let event = format!("{{\"n\":1,\"text\":\"{}\"}}", "x".repeat(900 << 10));
    let mut taken = 0;
    let refused = loop {
        let answer = agent.posted(&event);
        if !answer.starts_with("HTTP/1.1 202") {
            break answer;
        }
        taken += 1;
        assert!(taken < 100, "it takes more than there is");
    };
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("\"no_space\""), "{refused}");
    assert!(taken > 10, "{taken}");
    let used = bytes_below(&dir.path().join("data"));
    assert!(used <= BYTES_MAX, "{used}");

    operator.set(|state| {
        state.configuration = Some(configuration(7, 2, &with(&away.address.to_string())));
    });
    agent.wait_until("there is room again", |agent| agent.posted(&event).starts_with("HTTP/1.1 202"));
    let total = taken + 1;
    agent.wait_until("all is delivered", |agent| {
        agent.status()["pipelines"][0]["deliveries"][0]["deliveredEvents"].as_u64() >= Some(total)
    });
}

#[test]
fn what_a_sidecar_holds_at_the_end_of_its_pod_goes_to_the_agent_of_its_node() {
    const EVENTS: usize = 50;
    let (dir, node) = (tempfile::tempdir().unwrap(), Backend::listen());
    std::fs::write(dir.path().join("node-token"), "node\n").unwrap();
    // It takes connections and answers nothing.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let (agent, _operator) = holding(&dir, &node, &hangs.local_addr().unwrap().to_string(), EVENTS);
    let _under_way = hangs.accept().unwrap();
    agent.signal(Signal::TERM);
    let since = Instant::now();
    let (is_in_order, log) = agent.ended();
    let took = since.elapsed();
    assert!(is_in_order, "{log}");
    assert!(took < Duration::from_secs(4), "{took:?}: {log}");
    println!("handed over and ended after {} ms", took.as_millis());
    let expected = |from: usize| (from..=EVENTS).map(|n| format!("{{\"n\":{n}}}")).collect::<Vec<_>>();
    // What a route was to have that leads there anyway came there once.
    assert_eq!((node.events("own"), node.events("shared")), (expected(1), expected(2)));
    assert!(log.contains("handed to the agent of the node") && !log.contains("lost_events"), "{log}");
}

#[test]
fn what_a_pipeline_that_rests_holds_at_the_end_of_its_pod_goes_to_the_agent_of_its_node() {
    let (dir, node) = (tempfile::tempdir().unwrap(), Backend::listen());
    std::fs::write(dir.path().join("node-token"), "node\n").unwrap();
    let (agent, operator) = holding(&dir, &node, "127.0.0.1:9", 7);
    let rests = manifests(&Backend::listen()).map(|text| text.replace("\"inputs\"", "\"suspend\":true,\"inputs\""));
    operator.set(|state| state.configuration = Some(configuration(7, 2, &rests)));
    operator.wait_for("it runs 7.2", |ask| ask.running == Some(version(7, 2)));
    agent.signal(Signal::TERM);
    let (is_in_order, log) = agent.ended();
    assert!(is_in_order && !log.contains("lost_events"), "{log}");
    assert_eq!(node.events("own"), (1..=7).map(|n| format!("{{\"n\":{n}}}")).collect::<Vec<_>>());
}

#[test]
fn what_a_route_holds_goes_to_the_agent_of_the_node_although_a_removed_reference_holds_more() {
    let (dir, node) = (tempfile::tempdir().unwrap(), Backend::listen());
    std::fs::write(dir.path().join("node-token"), "node\n").unwrap();
    let (agent, operator) = holding(&dir, &node, "127.0.0.1:9", 50);
    let away = Backend::listen();
    let (there, name) = (away.address.to_string(), "\"other\"");
    let other = manifests(&away).map(|text| text.replace(&there, "127.0.0.1:9").replace("\"api\"", name));
    operator.set(|state| state.configuration = Some(configuration(7, 2, &other)));
    operator.wait_for("it runs 7.2", |ask| ask.running == Some(version(7, 2)));
    agent.post("{\"n\":0}");
    agent.signal(Signal::TERM);
    let (_, log) = agent.ended();
    assert_eq!(node.events("own"), ["{\"n\":0}"], "{log}");
    assert!(log.contains(r#""lost_events":50"#), "what the removed one held is said: {log}");
}

#[test]
fn what_a_pipeline_that_did_not_run_again_held_is_said_at_the_end_of_its_pod() {
    let (dir, node) = (tempfile::tempdir().unwrap(), Backend::listen());
    std::fs::write(dir.path().join("node-token"), "node\n").unwrap();
    let (agent, operator) = holding(&dir, &node, "127.0.0.1:9", 7);
    agent.kill();
    // So it is where a pipeline needs a Secret that nobody gives: it has no configuration that it could run.
    std::fs::remove_file(dir.path().join("data/configuration.json")).unwrap();
    operator.set(|state| state.configuration = Some(configuration(7, 2, &[NODE_AGENT_MANIFEST.to_owned()])));
    let agent = start(dir.path(), &format!("http://{}", operator.address), &node, &["--drain-seconds", "5"]);
    operator.wait_for("it runs 7.2", |ask| ask.running == Some(version(7, 2)));
    agent.signal(Signal::TERM);
    let (_, log) = agent.ended();
    assert!(log.contains("lost_log_bytes"), "{log}");
}

#[test]
fn what_nobody_takes_at_the_end_of_a_pod_is_counted_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let (away, node) = ("127.0.0.1:9", Backend::listen());
    std::fs::write(dir.path().join("node-token"), "node\n").unwrap();
    let (agent, _operator) = holding(&dir, &node, away, 7);
    // The token is what the agent of the node would refuse without.
    std::fs::remove_file(dir.path().join("node-token")).unwrap();
    agent.signal(Signal::TERM);
    let (is_in_order, log) = agent.ended();
    assert!(is_in_order, "{log}");
    assert!(log.contains(r#""events":7"#) && log.contains(r#""lost_events":7"#), "{log}");
    assert_eq!(node.events("own"), [""; 0]);
}

/// Starts a sidecar whose own backend is at `address` and that holds so many events for it, and its operator.
fn holding(dir: &tempfile::TempDir, node: &Backend, address: &str, events: usize) -> (Agent, Operator) {
    let own = Backend::listen();
    let manifests = manifests(&own).map(|text| text.replace(&own.address.to_string(), address));
    let state =
        State { configuration: Some(configuration(7, 1, &manifests)), pods: Some(own_pod()), ..State::default() };
    let operator = Operator::listen("127.0.0.1:0", None, state);
    let url = format!("http://{}", operator.address);
    let mut agent = start(dir.path(), &url, node, &["--drain-seconds", "5"]);
    operator.wait_for("it runs 7.1", |ask| ask.running == Some(version(7, 1)));
    let lines: Vec<String> = (1..=events).map(|n| format!("{{\"n\":{n}}}")).collect();
    agent.post(&lines.join("\n"));
    agent.wait_until("the agent of the node has what is its", |_| node.events("shared").len() == events - 1);
    (agent, operator)
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = folder.read_dir().unwrap().flatten();
    entries
        .map(|entry| match entry.metadata().unwrap() {
            meta if meta.is_dir() => bytes_below(&entry.path()),
            meta => meta.blocks() * 512,
        })
        .sum()
}
