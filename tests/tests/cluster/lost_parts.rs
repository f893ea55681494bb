//! Parts of the release that are killed or away while pods write.

use spillway_tests::cluster::layout::NODES;
use spillway_tests::{cluster, eventually};

use crate::ground::{Ground, LINES};
use crate::release::{AGENT, CONTROLLER, Release, kill};

/// Lines of one name on both nodes.
const BOTH: usize = NODES.len() * LINES;

#[test]
fn a_killed_leader_is_replaced_and_what_is_applied_then_runs_on_every_agent() {
    let (release, ground) = (Release::take(), Ground::new("leader"));
    ground.run_pipeline("first", "");
    ground.write_on_both_nodes("first");
    ground.receiver.wait_for_lines(BOTH);
    let leader = release.leader_but("");
    release.lose(&leader);
    ground.run_pipeline("second", "");
    release.leader_but(&leader);
    ground.write_on_both_nodes("second");
    ground.receiver.wait_for_lines(2 * BOTH);
    ground.assert_each_once(&["app=first", "app=second"]);
    let late = |line: &&String| line.contains(r#""siteID":"second""#);
    assert_eq!(ground.receiver.lines().iter().filter(late).count(), BOTH);
}

#[test]
fn lines_arrive_once_while_agents_run_out_of_memory_and_are_lost() {
    let (release, ground) = (Release::take(), Ground::new("agents"));
    ground.run_pipeline("any", "");
    ground.write_slowly_on_both_nodes("slow");
    ground.receiver.wait_for_lines(BOTH / 10);
    // The same pods go on, with another process each.
    let agents = release.pods(AGENT);
    let of_agents = |field: &str| {
        let form = format!("jsonpath={{.items[*].status.containerStatuses[0].{field}}}");
        release.kubectl(&["get", "pods", "-l", "app.kubernetes.io/component=agent", "-o", &form])
    };
    let restarts = || {
        let counts = of_agents("restartCount");
        counts.split(' ').map(|count| count.parse::<u64>().unwrap_or_default()).sum::<u64>()
    };
    let before = restarts();
    agents.iter().for_each(|pod| release.starve(pod));
    eventually("restarted containers", || (restarts() >= before + agents.len() as u64).then_some(()));
    let reasons = of_agents("lastState.terminated.reason");
    assert!(reasons.split(' ').all(|reason| reason == "OOMKilled"), "{reasons}");
    assert_eq!(release.pods(AGENT), agents);
    release.wait_rolled_out();
    // And now other pods, while lines come.
    agents.iter().for_each(|pod| release.lose(pod));
    ground.write_on_both_nodes("quick");
    ground.receiver.wait_for_lines(2 * BOTH);
    release.wait_rolled_out();
    ground.assert_each_once(&["app=slow", "app=quick"]);
}

#[test]
fn agents_that_start_without_any_controller_go_on_and_new_pods_wait_for_one() {
    let (release, ground) = (Release::take(), Ground::new("alone"));
    ground.run_pipeline("any", "");
    ground.write_slowly_on_both_nodes("slow");
    // From now on each agent knows of its pod.
    eventually("a line of each node", || {
        let lines = ground.receiver.lines();
        let of = |name: &str| lines.iter().any(|line| line.contains(&format!(r#""node":"{name}""#)));
        NODES.iter().all(|node| of(node.name)).then_some(())
    });
    let _back = Back(&release);
    release.kubectl(&["scale", "deployment/spillway-controller", "--replicas=0"]);
    release.kubectl(&["wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=controller", "--timeout=60s"]);
    release.pods(AGENT).iter().for_each(|pod| release.lose(pod));
    release.wait_agents();
    // Pods that a controller told of before are read to their end, by processes that never saw one.
    ground.receiver.wait_for_lines(BOTH);
    ground.assert_each_once(&["app=slow"]);
    ground.write_on_both_nodes("new");
    release.scale_controllers(2);
    ground.receiver.wait_for_lines(2 * BOTH);
    ground.assert_each_once(&["app=slow", "app=new"]);
    assert_eq!(release.pods(CONTROLLER).len(), 2);
}

#[test]
fn lines_of_a_node_whose_kubelet_is_away_arrive_once() {
    let (release, ground) = (Release::take(), Ground::new("kubelet"));
    ground.run_pipeline("any", "");
    ground.write_slowly_on_both_nodes("slow");
    let node = &NODES[1];
    cluster::stop_kubelet(node).unwrap();
    // Nobody starts this one again until the kubelet is back.
    let agent = release.agent_on(node.name);
    kill(&agent);
    cluster::kubectl(&["wait", "--for=condition=Ready=Unknown", "node", node.name, "--timeout=90s"]).unwrap();
    cluster::start_kubelet(node).unwrap();
    cluster::kubectl(&["wait", "--for=condition=Ready", "node", node.name, "--timeout=90s"]).unwrap();
    ground.receiver.wait_for_lines(BOTH);
    release.wait_rolled_out();
    ground.assert_each_once(&["app=slow"]);
}

/// Brings the controllers back, also for the tests that come after one that failed.
struct Back<'a>(&'a Release);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        // Who takes the release next waits until they run; here somebody may be panicking already.
        self.0.ask_for_controllers(2).ok();
    }
}
