//! The authority of the operator is replaced by hand under a running agent, on a real API server.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use spillway_tests::agent::Agent;

use super::world::{BACKEND, OWN, World, pipeline};

/// What an agent says of a certificate that it does not take.
const FAILED: &str = "invalid peer certificate";

/// How long a successor is not used although everybody knows it (three minutes, until it is mounted everywhere), and some more.
const USED_WITHIN: Duration = Duration::from_secs(270);

/// Ends an agent as a crash does, and wants that no handshake of it failed.
fn end(agent: Agent) {
    let lines = agent.kill_and_read();
    let failed: Vec<&Value> = lines.iter().filter(|line| line.to_string().contains(FAILED)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(lines.iter().any(|line| line.to_string().contains("operator answers")), "{lines:#?}");
}

#[test]
fn an_authority_is_replaced_by_hand_under_a_running_agent() {
    let Some(world) = World::start("an_authority_is_replaced_by_hand_under_a_running_agent") else { return };
    let replica = world.replica("first");
    let (mut operator, mut agent) = world.run(&replica);
    world.apply(&[BACKEND, &pipeline("")].join("---\n"));
    world.wait_for("Ready", "True");
    let mounted = fs::read_to_string(world.folder.join("ca.crt")).unwrap();

    // As the documents tell. What is mounted into the agent stays as it is for the whole test.
    let ask = ["annotate", "secret", "spillway-ca", "-n", OWN, "spillway.dev/replace-authority=now"];
    world.api.must(&ask, "");
    operator.process.wait_for_line("made a successor of our CA");
    operator.process.wait_for_line_within("the successor of our CA is used", USED_WITHIN);
    operator.process.wait_for_line("another authority issues our certificates");
    operator.process.wait_for_line("issued a certificate");
    let secret: Value =
        serde_json::from_str(&world.api.must(&["get", "secret", "spillway-ca", "-n", OWN, "-o", "json"], "")).unwrap();
    assert_eq!(secret["metadata"]["annotations"]["spillway.dev/replace-authority"], Value::Null);
    let keys: Vec<&String> = secret["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["previous.crt", "previous.until", "tickets.key", "tls.crt", "tls.key"]);
    let form = r"jsonpath={.data.ca\.crt}";
    let published = world.api.must(&["get", "configmap", "spillway-ca", "-n", OWN, "-o", form], "");
    assert_eq!(published.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(published.starts_with(mounted.trim()));

    // The agent goes on, with a change and a line, and meets an operator that only knows the new one.
    world.apply(&pipeline(r#"match: "true", "#));
    world.wait_for("Ready", "True");
    world.write("etcher", "fab12", "after the change");
    world.wait_for_lines(&mut agent, 1);
    operator.kill();
    let mut operator = replica.start();
    operator.wait_until_leading();
    world.apply(&pipeline(""));
    world.wait_for("Ready", "True");
    end(agent);

    // Started anew it knows the new one from its own folder alone.
    assert_eq!(fs::read_to_string(world.folder.join("ca.crt")).unwrap(), mounted);
    let mut agent = world.agent_as_mounted(&replica.url());
    world.apply(&pipeline(r#"match: "true", "#));
    world.wait_for("Ready", "True");
    world.write("etcher", "fab12", "after its start");
    world.wait_for_lines(&mut agent, 2);
    end(agent);

    // Without it, it would not: all of this was shown by the copy.
    fs::remove_file(world.folder.join("data/authorities.json")).unwrap();
    let mut agent = world.agent_as_mounted(&replica.url());
    let line = agent.wait_for_line("no configuration from the operator");
    assert!(line["error"].as_str().unwrap().contains(FAILED), "{line}");
    // And what a kubelet brings is enough.
    world.mount();
    agent.wait_for_line("operator answers");
    agent.stop();
    operator.stop();
}
