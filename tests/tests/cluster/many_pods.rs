//! Pods that live for a second, and how soon a line arrives.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use spillway_tests::cluster::layout::NODES;
use spillway_tests::eventually;

use crate::ground::{Ground, LINES, WRITER};
use crate::release::Release;

/// How many pods live at most a second each.
const PODS: usize = 100;

#[test]
fn every_line_of_a_hundred_pods_that_live_a_second_arrives_once() {
    let _release = Release::take();
    let ground = Ground::new("short");
    // Only a label that the controller tells of makes them part of the pipeline.
    ground.run_pipeline("any", ", podSelector: {matchLabels: {app: short}}");
    let mut manifests = String::new();
    for pod in 0..PODS {
        writeln!(
            manifests,
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: short-{pod}, labels: {{app: short}}}}, spec: {{
               restartPolicy: Never, automountServiceAccountToken: false, enableServiceLinks: false, containers: [
                 {{name: main, image: '{WRITER}', imagePullPolicy: Never, args: ['{LINES}', second]}}]}}}}"
        )
        .unwrap();
    }
    ground.apply(&manifests);
    // Who has ended is deleted at once, and its logs with it.
    let mut pods = Vec::new();
    let ended = "--field-selector=status.phase=Succeeded";
    while pods.len() < PODS {
        let new = eventually("the end of another pod", || {
            let now = ground.pods_where(&["-l", "app=short", ended]);
            let new: Vec<_> = now.into_iter().filter(|pod| !pods.contains(pod)).collect();
            Some(new).filter(|new| !new.is_empty())
        });
        let names: Vec<&str> = new.iter().map(|(pod, _)| &**pod).collect();
        ground.kubectl(&[&["delete", "pods", "--wait=false"], &*names].concat());
        pods.extend(new);
    }
    ground.receiver.wait_for_lines(PODS * LINES);
    ground.assert_each_of_once(&pods, LINES);
}

/// How soon is a figure.
#[test]
fn lines_of_pods_are_at_their_destination_and_how_soon_is_said() {
    let _release = Release::take();
    let ground = Ground::new("soon");
    ground.run_pipeline("any", "");
    ground.write_slowly_on_both_nodes("slow");
    ground.receiver.wait_for_lines(NODES.len() * LINES);
    ground.assert_each_once(&["app=slow"]);
    let mut delays: Vec<Duration> = ground
        .receiver
        .arrivals()
        .iter()
        .map(|(line, came)| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            let (_, written) = event["message"].as_str().unwrap().split_once(" at ").unwrap();
            let written = UNIX_EPOCH + Duration::from_micros(written.parse().unwrap());
            came.duration_since(written).unwrap_or_default()
        })
        .collect();
    delays.sort();
    let of = |share: usize| delays[delays.len() * share / 100];
    println!("from a pod's write to the receiver: median {:?}, p99 {:?}, most {:?}", of(50), of(99), delays.last());
}
