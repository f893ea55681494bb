//! The process itself: what it says, how it ends.

use std::process::Command;

use rustix::process::Signal;
use spillway_tests::agent::{Place, program};
use spillway_tests::output;
use spillway_tests::receiver::{Mode, Receiver};

use crate::fixtures;

#[test]
fn sigterm_delivers_what_is_held_and_ends_well() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let agent = place.start();
    fixtures::post(&agent.http, 0, 1000);
    agent.stop();
    let all = fixtures::ids(0, 1000);
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &all, &all);
}

#[test]
fn a_second_signal_cuts_the_drain_short_and_nothing_is_lost() {
    let receiver = Receiver::start();
    receiver.mode(Mode::Hang);
    let place = Place::new(&fixtures::to_files_and(&receiver.url)).flag("--drain-seconds", "60");
    let mut agent = place.start();
    fixtures::post(&agent.http, 0, 100);
    receiver.wait_for_requests(1);
    agent.signal(Signal::TERM);
    agent.wait_for_line("stopping");
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().code(), Some(143));
    receiver.mode(Mode::Take);
    let mut agent = place.start();
    agent.wait_until_delivered(100);
    agent.stop();
    let all = fixtures::ids(0, 100);
    output::assert_exactly_once(&receiver.lines(), "id", &all, &all);
}

#[test]
fn check_names_place_and_nearest_name_and_a_bad_pipeline_harms_no_other() {
    let good = fixtures::to_files("Disk");
    let bad = "
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: broken}
spec:
  inputs: [{name: pushed, type: Events}]
  routes:
  - {name: r, match: 'event.kind == ', backendRefs: [{name: archiv}]}
";
    let place = Place::new(&format!("{good}{bad}"));
    let output =
        Command::new(program("spillway-agent")).args(["check", "-f"]).arg(place.path("manifests")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("all.yaml:") && text.contains("archive") && text.contains("broken"), "{text}");
    let json = Command::new(program("spillway-agent"))
        .args(["check", "-o", "json", "-f"])
        .arg(place.path("manifests"))
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json.to_string().contains("\"line\":"), "{json:#}");
    let mut agent = place.start();
    fixtures::post(&agent.http, 0, 10);
    agent.wait_until_delivered(10);
    assert_eq!(agent.status()["pipelines"].as_array().unwrap().len(), 1);
    agent.stop();
}

#[test]
fn a_log_is_read_without_its_process_and_left_as_it_was() {
    let receiver = Receiver::start();
    receiver.mode(Mode::Refuse(500));
    let place = Place::new(&fixtures::to_files_and(&receiver.url));
    let agent = place.start();
    fixtures::post(&agent.http, 0, 10);
    agent.kill();
    let log = place.data_dir().join("spool/default.jobs");
    let before: Vec<Vec<u8>> = output::files(&log).iter().map(|file| std::fs::read(file).unwrap()).collect();
    let output =
        Command::new(program("spillway-agent")).args(["log", "inspect", "-o", "json"]).arg(&log).output().unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success());
    let events: u64 =
        found["segments"].as_array().unwrap().iter().map(|segment| segment["events"].as_u64().unwrap()).sum();
    assert_eq!(events, 10, "{found:#}");
    let after: Vec<Vec<u8>> = output::files(&log).iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert_eq!(before, after);
}

#[test]
fn status_says_in_words_what_is_wrong_and_metrics_end_well() {
    let receiver = Receiver::start();
    receiver.mode(Mode::Refuse(500));
    let place = Place::new(&fixtures::to_files_and(&receiver.url)).flag("--drain-seconds", "1");
    let mut agent = place.start();
    fixtures::post(&agent.http, 0, 10);
    agent.wait_until("a fault", |status| status.to_string().contains("retrying"));
    let output = Command::new(program("spillway-agent")).args(["status", "--admin", &agent.admin]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("api") && text.contains("balanced"), "{text}");
    let metrics = agent.metrics();
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(metrics.contains("spillway_") && metrics.contains("pipeline=\"jobs\""), "{metrics}");
    agent.stop();
}
