//! The operator and the agent against a real API server: from `kubectl apply` to a line in a file, and what status says.
//!
//! There is no kubelet: nodes and pods are objects that the test makes, and the tokens that agents show are those of the API
//! server itself, bound to these pods. The operator acts with the rights of the chart alone.

mod authority;
mod churn;
mod faults;
pub(crate) mod world;

use world::{BACKEND, World, pipeline};

#[test]
fn an_applied_pipeline_runs_and_its_status_tells_the_truth() {
    let Some(world) = World::start("an_applied_pipeline_runs_and_its_status_tells_the_truth") else { return };
    let replica = world.replica("first");
    let (operator, mut agent) = world.run(&replica);

    // In the wrong order: the pipeline waits for its Backend, and says for which.
    world.apply(&pipeline(""));
    world.wait_for("Ready", "False");
    assert_eq!(world.condition("ResolvedRefs")["reason"], "BackendNotFound");
    world.apply(BACKEND);
    world.wait_for("Ready", "True");
    world.write("etcher", "fab12", "hello");
    world.write("hidden", "other", "of another tenant");
    world.wait_for_lines(&mut agent, 1);
    let lines = world.lines();
    assert!(lines[0].contains("hello") && lines[0].contains(r#""labels":{"app":"etcher"}"#), "{lines:?}");

    // A bad edit: told, and the generation before it runs on, also under an operator that is started anew.
    world.apply(&pipeline(r#"match: "origin.nope == 1", "#));
    world.wait_for("Accepted", "False");
    let told = world.condition("Accepted")["message"].as_str().unwrap().to_owned();
    assert!(told.contains("origin.nope") && told.contains("did you mean `origin.node`?"), "{told}");
    operator.kill();
    let mut operator = replica.start();
    operator.wait_until_leading();
    world.write("etcher", "fab12", "under a bad edit");
    world.wait_for_lines(&mut agent, 2);

    // Without operator and API server, and over its own SIGKILL, the agent goes on with what it was given last.
    operator.kill();
    agent.kill();
    let mut agent = world.agent(&replica.url());
    world.write("etcher", "fab12", "without an operator");
    world.wait_for_lines(&mut agent, 3);

    let mut operator = replica.start();
    operator.wait_until_leading();
    world.apply(&pipeline(""));
    world.wait_for("Ready", "True");
    assert_eq!(world.condition("Programmed")["status"], "True");
    let lines = world.lines();
    assert!(lines.iter().all(|line| !line.contains("another tenant")), "{lines:?}");
    assert_eq!(lines.len(), 3, "each line once: {lines:?}");
    operator.stop();
    agent.stop();
}
