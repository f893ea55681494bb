//! Lines of real pods, in files that a real kubelet made.

use spillway_tests::cluster::layout::NODES;

use crate::ground::{Ground, LINES};

#[test]
fn every_line_of_pods_on_both_nodes_arrives_once_also_when_the_agents_are_killed() {
    let ground = Ground::with_agents("container-logs");
    ground.write_on_both_nodes("first");
    ground.receiver.wait_for_lines(NODES.len() * LINES);
    let nodes: Vec<String> = ground.pods("app=first").into_iter().map(|(_, node)| node).collect();
    assert!(NODES.iter().all(|node| nodes.iter().any(|known| known == node.name)), "{nodes:?}");
    ground.assert_each_once(&["app=first"]);
    // Killed at once, and lines come while they are away.
    ground.kubectl(&["delete", "pods", "-l", "app=agent", "--grace-period=0", "--force", "--wait=false"]);
    ground.write_on_both_nodes("second");
    ground.wait_rolled_out("agent");
    ground.receiver.wait_for_lines(2 * NODES.len() * LINES);
    ground.assert_each_once(&["app=first", "app=second"]);
}
