//! A node whose disk is full. What logs do at each byte of it is shown without a cluster (`scenarios/disk.rs`); here an agent
//! of the release meets it, with the settings of the chart.

use spillway_tests::cluster::disk::Disk;
use spillway_tests::cluster::layout::{NODES, Node};
use spillway_tests::eventually;
use spillway_tests::helm::NAMESPACE;
use spillway_tests::receiver::Mode;

use crate::ground::{Ground, LINES};
use crate::release::{Release, kill, run_in};

/// Where the chart has an agent keep its state.
const STATE: &str = "/var/lib/spillway";

#[test]
fn an_agent_on_a_full_disk_says_so_keeps_what_it_took_and_with_space_again_delivers_each_line_once() {
    let (release, ground) = (Release::take(), Ground::new("disk"));
    let node = &NODES[1];
    // What comes later goes first: this agent gets its own state back when the disk is gone.
    let _after = Renewed(&release, node);
    let disk = Disk::mount(node, STATE).unwrap();
    let agent = release.renew_agent(node.name);
    let pipeline = format!("namespace=\"{}\"", ground.name);
    let counts = |metric: &str, label: &str, count: usize| {
        (release.counted(&agent, metric, &[&pipeline, label]) == Some(count as u64)).then_some(())
    };
    let is_told = || counts("spillway_log_state", "state=\"no_space\"", 1);
    ground.run_pipeline("any", "");
    ground.receiver.mode(Mode::Hang);
    ground.write_on_both_nodes("taken");
    eventually("lines that the agent holds", || counts("spillway_delivery_held_events", "", LINES));
    disk.fill().unwrap();
    // For a while: an agent that gave something free itself has room for a first batch.
    ground.write_slowly_on_both_nodes("late");
    eventually("the word that there is no space", is_told);
    let (code, said) = run_in(NAMESPACE, &agent, &["/spillway-agent", "status"]);
    assert!(code == 1 && said.contains("the volume of its log has no free space, new data is refused"), "{said}");
    // Another process finds the disk as full as the one before left it.
    kill(&agent);
    ground.receiver.mode(Mode::Take);
    let came_from = |node: &Node| {
        let from = format!(r#""node":"{}""#, node.name);
        ground.receiver.lines().iter().filter(|line| line.contains(&from)).count()
    };
    eventually("all lines of the other node", || (came_from(&NODES[0]) == 2 * LINES).then_some(()));
    eventually("the word of another process that there is no space", is_told);
    // Of these it delivers while its disk is full as long as nothing has to be written for it.
    let taken = release.counted(&agent, "spillway_pipeline_accepted_events_total", &[&pipeline]).unwrap() as usize;
    assert!((LINES..2 * LINES).contains(&taken), "readers stop: {taken}");
    assert!(came_from(node) <= taken, "{} of {taken}", came_from(node));
    disk.clear().unwrap();
    ground.receiver.wait_for_lines(4 * LINES);
    ground.assert_each_once(&["app=taken", "app=late"]);
    eventually("the word that there is space", || counts("spillway_log_state", "state=\"ok\"", 1));
}

/// Another agent for a node, when it is dropped.
struct Renewed<'a>(&'a Release, &'a Node);

impl Drop for Renewed<'_> {
    fn drop(&mut self) {
        // Who takes the release next waits until it runs; here somebody may be panicking already.
        self.0.ask_for_another_agent(self.1.name).ok();
    }
}
