//! Manifests that more than one scenario runs.

use spillway_tests::http::Client;
use spillway_tests::manifests::jobs;

/// Events and container logs go to files, and to nowhere else.
pub(crate) fn to_files(durability: &str) -> String {
    format!(
        "
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {{name: archive}}
spec: {{type: Filesystem, filesystem: {{}}}}
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {{name: jobs}}
spec:
  durability: {durability}
  inputs:
  - {{name: pushed, type: Events}}
  - {{name: logs, type: ContainerLogs}}
  routes:
  - {{name: everything, backendRefs: [{{name: archive}}]}}
"
    )
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
