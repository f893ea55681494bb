//! The process itself: what it says, how it ends.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use spillway_tests::agent::{Agent, Place, message_of, program};
use spillway_tests::manifests::jobs;
use spillway_tests::output;
use spillway_tests::receiver::{Mode, Receiver};
use tokio::time::Instant;

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

/// An agent whose drain cannot end: a request of a hundred events is under way, and its answer never comes.
fn stuck_in_its_drain(place: &Place, receiver: &Receiver) -> Agent {
    let mut agent = place.start();
    fixtures::post(&agent.http, 0, 100);
    receiver.wait_for_requests(1);
    agent.signal(Signal::TERM);
    agent.wait_for_line("stopping");
    agent
}

/// A place for it: the request is given five minutes, the drain what is said.
fn place_of_one_who_waits(receiver: &Receiver, drain_seconds: &str) -> Place {
    let spec = format!("  {{type: HTTP, http: {{url: \"{}\"}}, delivery: {{timeoutSeconds: 300}}}}", receiver.url);
    Place::new(&jobs(&[("api", &spec)])).flag("--drain-seconds", drain_seconds)
}

/// The next start delivers what was acknowledged, each event once.
fn all_comes_once(place: &Place, receiver: &Receiver) {
    receiver.mode(Mode::Take);
    let mut agent = place.start();
    agent.wait_until_delivered(100);
    agent.stop();
    let all = fixtures::ids(0, 100);
    output::assert_exactly_once(&receiver.lines(), "id", &all, &all);
}

#[test]
fn one_signal_ends_the_process_in_the_time_of_its_drain_and_what_is_held_comes_at_the_next_start() {
    let receiver = Receiver::start();
    receiver.mode(Mode::Hang);
    let place = place_of_one_who_waits(&receiver, "2");
    let mut agent = stuck_in_its_drain(&place, &receiver);
    let signal = Instant::now();
    let stopped = agent.wait_for_line("stopped");
    let held = stopped["held"].as_bool().or(stopped["fields"]["held"].as_bool());
    assert_eq!((agent.wait().code(), held), (Some(0), Some(true)), "{stopped}");
    let took = signal.elapsed();
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(10)).contains(&took),
        "two seconds and what a busy machine adds: {took:?}"
    );
    all_comes_once(&place, &receiver);
}

#[test]
fn a_second_signal_cuts_the_drain_short_in_its_time_and_nothing_is_lost_or_doubled() {
    for mode in [Mode::Hang, Mode::TakeAndHang] {
        let receiver = Receiver::start();
        receiver.mode(mode.clone());
        let place = place_of_one_who_waits(&receiver, "60");
        let mut agent = stuck_in_its_drain(&place, &receiver);
        agent.signal(Signal::TERM);
        let second = Instant::now();
        let line = agent.wait_for_line("second signal");
        let bound = line["at_most_seconds"].as_u64().or(line["fields"]["at_most_seconds"].as_u64());
        assert_eq!(bound, Some(5), "what the documentation promises: {line}");
        assert_eq!(agent.wait().code(), Some(143));
        assert!(second.elapsed() <= Duration::from_secs(5), "{mode:?}: {:?}", second.elapsed());
        all_comes_once(&place, &receiver);
        // What it had taken comes again under its key, or not at all.
        assert_eq!(receiver.repeats() > 0, mode == Mode::TakeAndHang, "{} repeats", receiver.repeats());
    }
}

#[test]
fn a_third_signal_ends_the_process_at_once_and_nothing_is_lost_or_doubled() {
    let receiver = Receiver::start();
    receiver.mode(Mode::TakeAndHang);
    let place = place_of_one_who_waits(&receiver, "60");
    let mut agent = stuck_in_its_drain(&place, &receiver);
    // Both are there when it goes on: the third finds it in the time that the second leaves it, however busy the machine is.
    agent.stand_still();
    agent.signal(Signal::TERM);
    agent.signal(Signal::INT);
    agent.go_on();
    let third = agent.wait_for_line("third signal, the process ends at once");
    let at = Instant::now();
    let signal = third["signal"].as_str().or(third["fields"]["signal"].as_str());
    let code = if signal == Some("SIGINT") { 130 } else { 143 };
    let (status, rest) = agent.wait_and_read();
    assert_eq!(status.code(), Some(code), "{third}");
    assert!(!rest.iter().any(|line| message_of(line) == "stopped"), "it waited for its drain: {rest:#?}");
    assert!(at.elapsed() <= Duration::from_secs(3), "{:?}", at.elapsed());
    all_comes_once(&place, &receiver);
    assert!(receiver.repeats() > 0);
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

/// What `log inspect` says of a log: its exit code, the text for people, the report for programs.
fn inspected(log: &Path) -> (Option<i32>, String, serde_json::Value) {
    let inspect = |more: &[&str]| {
        let mut command = Command::new(program("spillway-agent"));
        command.args(["log", "inspect"]).args(more).arg(log).output().unwrap()
    };
    let (human, json) = (inspect(&[]), inspect(&["-o", "json"]));
    assert_eq!(human.status.code(), json.status.code(), "{human:?} {json:?}");
    (human.status.code(), String::from_utf8(human.stdout).unwrap(), serde_json::from_slice(&json.stdout).unwrap())
}

#[test]
fn an_inspection_names_damage_and_exits_with_1_and_with_0_of_a_sound_log() {
    let receiver = Receiver::start();
    receiver.mode(Mode::Refuse(500));
    let place = Place::new(&fixtures::to_files_and(&receiver.url));
    let agent = place.start();
    // The second says that the first was synced, so that a hole there is no torn end.
    fixtures::post(&agent.http, 0, 100);
    fixtures::post(&agent.http, 100, 100);
    agent.kill();
    let log = place.data_dir().join("spool/default.jobs");
    let is_sound = || {
        let (code, human, json) = inspected(&log);
        assert_eq!(code, Some(0), "{human}");
        assert!(human.ends_with("\nthe log is whole\n"), "{human}");
        let [segment] = &json["segments"].as_array().unwrap()[..] else { panic!("one segment: {json:#}") };
        assert_eq!((&segment["damaged"], &segment["readable"]), (&0.into(), &true.into()), "{json:#}");
        assert_eq!(segment["events"], 200, "{json:#}");
        segment["file"].as_str().unwrap().to_owned()
    };
    let name = is_sound();
    let path = log.join(&name);
    let bytes = std::fs::read(&path).unwrap();
    let event = bytes.windows(5).position(|window| window == b"\"e50\"").expect("an event of the first request");
    let header = 0;
    for (at, told, damaged, readable, events) in
        [(event, "1 damaged place", 1, true, 100), (header, "unreadable", 0, false, 0)]
    {
        let mut turned = bytes.clone();
        turned[at] ^= 1;
        std::fs::write(&path, &turned).unwrap();
        let (code, human, json) = inspected(&log);
        assert_eq!(code, Some(1), "{human}");
        let row = human
            .lines()
            .find(|line| line.trim_start().starts_with(&name))
            .unwrap_or_else(|| panic!("{name}: {human}"));
        assert!(row.contains(told), "{human}");
        assert!(human.ends_with("\ndamaged: 1 of 1 segments; what can be read is delivered\n"), "{human}");
        let segment = &json["segments"][0];
        let expected = serde_json::json!([name, damaged, readable, events]);
        let found = serde_json::json!([segment["file"], segment["damaged"], segment["readable"], segment["events"]]);
        assert_eq!(found, expected, "{json:#}");
        assert_eq!(std::fs::read(&path).unwrap(), turned, "an inspection mends nothing");
    }
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(is_sound(), name);
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
