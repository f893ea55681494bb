//! Another version of the release, and back, with data that a dead receiver did not take.

use spillway_tests::cluster::image;
use spillway_tests::cluster::layout::NODES;
use spillway_tests::helm::{NAMESPACE, RELEASE};
use spillway_tests::receiver::Mode;

use crate::ground::{AGENT, Ground, LINES, PIPELINE};
use crate::release::{self, Release};

/// Lines of one name on both nodes.
const BOTH: usize = NODES.len() * LINES;

#[test]
fn what_agents_hold_outlives_an_upgrade_and_a_rollback() {
    let (release, ground) = (Release::take(), Ground::new("upgrade"));
    let next = AGENT.replace(env!("CARGO_PKG_VERSION"), "next");
    image::tag(AGENT, &next).unwrap();
    ground.run_pipeline("any", "");
    ground.receiver.mode(Mode::Reset);
    ground.write_on_both_nodes("first");
    ground.kubectl(&["wait", "--for=condition=DataFlowing=False", PIPELINE, "--timeout=90s"]);
    // With a receiver that is dead, agents would try for all of their time to deliver.
    release.upgrade("agent.image.tag=next,agent.drainSeconds=2");
    assert_eq!(image_of(&release), next);
    ground.write_on_both_nodes("second");
    release.helm(&["rollback", RELEASE, "-n", NAMESPACE]);
    release.wait_rolled_out();
    assert_eq!(image_of(&release), AGENT);
    assert_eq!(ground.receiver.lines(), Vec::<String>::new());
    ground.receiver.mode(Mode::Take);
    ground.receiver.wait_for_lines(2 * BOTH);
    ground.assert_each_once(&["app=first", "app=second"]);
    ground.wait_ready();
}

fn image_of(release: &Release) -> String {
    let pod = release.pods(release::AGENT).remove(0);
    release.kubectl(&["get", "pod", &pod, "-o", "jsonpath={.spec.containers[0].image}"])
}
