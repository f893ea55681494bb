//! Lines of real pods, in files that a real kubelet made.

use std::fs;
use std::path::PathBuf;

use spillway_tests::cluster::layout::NODES;

use crate::ground::{Ground, LINES};
use crate::release::Release;

/// What a pod writes in 20 seconds: nine megabytes, and a kubelet here rotates at one.
const MUCH: usize = 18_000;

#[test]
fn every_line_of_pods_on_both_nodes_arrives_once_also_when_the_agents_are_killed() {
    // Its agents are its own, and so are its nodes meanwhile: others take a kubelet away.
    let (_release, ground) = (Release::take(), Ground::with_agents("container-logs"));
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

#[test]
fn every_line_arrives_once_while_the_kubelet_rotates_and_compresses_logs() {
    let (_release, ground) = (Release::take(), Ground::new("rotated"));
    ground.run_pipeline("any", "");
    ground.start_on_both_nodes("much", MUCH, "much");
    ground.receiver.wait_for_lines(NODES.len() * MUCH);
    let pods = ground.pods("app=much");
    ground.assert_each_of_once(&pods, MUCH);
    for node in &NODES {
        let logs = fs::read_dir(node.logs().join("pods")).unwrap().flatten().map(|entry| entry.path());
        let own = logs.filter(|path| path.to_string_lossy().contains(&format!("/{}_", ground.name)));
        let files = own.flat_map(|pod| fs::read_dir(pod.join("main")).unwrap().flatten());
        let names: Vec<PathBuf> = files.map(|file| file.path()).collect();
        let compressed = names.iter().filter(|name| name.extension().is_some_and(|end| end == "gz"));
        assert!(compressed.count() > 1, "{names:?}");
    }
}
