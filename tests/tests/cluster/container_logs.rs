//! Lines of real pods, in files that a real kubelet made.

use std::collections::BTreeMap;

use serde_json::Value;
use spillway_tests::cluster::layout::NODES;

use crate::ground::Ground;

const LINES: u32 = 200;

/// Asserts that each of these pods wrote each of its lines once, under its own name and node. Counts all lines.
fn assert_each_once(ground: &Ground, labels: &[&str]) {
    let mut times: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    for line in ground.receiver.lines() {
        let event: Value = serde_json::from_str(&line).unwrap();
        let origin = &event["_spillway"]["origin"];
        assert_eq!((origin["namespace"].as_str(), origin["container"].as_str()), (Some(&*ground.name), Some("main")));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        *times.entry((text(&origin["pod"]), text(&origin["node"]), text(&event["message"]))).or_default() += 1;
    }
    let mut wanted = BTreeMap::new();
    for (pod, node) in labels.iter().flat_map(|label| ground.pods(label)) {
        wanted.extend((0..LINES).map(|line| ((pod.clone(), node.clone(), format!("line {line}")), 1)));
    }
    assert_eq!(times, wanted);
}

#[test]
fn every_line_of_pods_on_both_nodes_arrives_once_also_when_the_agents_are_killed() {
    let ground = Ground::new("container-logs");
    ground.write_on_both_nodes("first", LINES);
    ground.receiver.wait_for_lines(NODES.len() * LINES as usize);
    let nodes: Vec<String> = ground.pods("app=first").into_iter().map(|(_, node)| node).collect();
    assert!(NODES.iter().all(|node| nodes.iter().any(|known| known == node.name)), "{nodes:?}");
    assert_each_once(&ground, &["app=first"]);
    // Killed at once, and lines come while they are away.
    ground.kubectl(&["delete", "pods", "-l", "app=agent", "--grace-period=0", "--force", "--wait=false"]);
    ground.write_on_both_nodes("second", LINES);
    ground.wait_rolled_out("agent");
    ground.receiver.wait_for_lines(2 * NODES.len() * LINES as usize);
    assert_each_once(&ground, &["app=first", "app=second"]);
}
