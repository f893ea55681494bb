//! Container logs of a kubelet's layout: no line lost or repeated over rotation, restart, SIGKILL, or all at once.

use std::collections::{BTreeMap, VecDeque};

use spillway_tests::agent::Place;
use spillway_tests::output;
use spillway_tests::pods::ContainerLog;

use tokio::time::Instant;

use crate::fixtures;

/// How many of the pods that come and go are there at a time.
const AT_A_TIME: usize = 50;

#[test]
fn lines_survive_rotation_compression_and_restarts_in_order() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let mut log = ContainerLog::create(&place.path("pods"), "tool", "main");
    let mut written = Vec::new();
    let mut write = |log: &mut ContainerLog, count: usize| {
        for _ in 0..count {
            let line = format!("line {}", written.len());
            log.line(&line);
            written.push(line);
        }
        written.len() as u64
    };
    write(&mut log, 100);
    let mut agent = place.start();
    agent.wait_until_delivered(100);
    write(&mut log, 50);
    let rotated = log.rotate();
    let total = write(&mut log, 50);
    agent.wait_until_delivered(total);
    agent.stop();
    // While the agent is away: more lines, a rotation, the older file compressed.
    write(&mut log, 30);
    let second = log.rotate();
    ContainerLog::compress(&rotated);
    write(&mut log, 20);
    ContainerLog::compress(&second);
    let total = write(&mut log, 10);
    let mut agent = place.start();
    agent.wait_until_delivered(total);
    agent.kill();
    let total = write(&mut log, 10);
    let mut agent = place.start();
    agent.wait_until_delivered(total);
    agent.stop();
    let lines = output::lines_below(&place.path("out"));
    let messages: Vec<String> = lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(messages, written);
}

#[test]
fn parts_of_a_line_are_joined_over_a_rotation() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let mut log = ContainerLog::create(&place.path("pods"), "tool", "main");
    let mut agent = place.start();
    log.partial_line(&["one ", "two ", "three"]);
    agent.wait_until_delivered(1);
    log.raw("2026-11-23T10:00:00.1Z stdout P left \n");
    log.rotate();
    log.line("right");
    agent.wait_until_delivered(2);
    agent.stop();
    let lines = output::lines_below(&place.path("out"));
    let counts = output::count_by(&lines, "message");
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["left right", "one two three"]);
}

/// Lines of each pod whose file is removed before most of it is read: more than the source reads at once.
const LAST_LINES: usize = 5000;

/// Nothing is read between the first line and the removal: the agent stands still meanwhile.
#[test]
fn a_file_removed_with_its_pod_is_drained() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let mut agent = place.start();
    let mut logs: Vec<ContainerLog> =
        (0..20).map(|pod| ContainerLog::create(&place.path("pods"), &format!("short-{pod}"), "main")).collect();
    for (pod, log) in logs.iter_mut().enumerate() {
        log.line(&format!("{pod} 0"));
    }
    agent.wait_until_delivered(20);
    agent.eventually(
        || "each file is held open".to_owned(),
        |agent| agent.metrics().contains("spillway_container_log_open_files 20").then_some(()),
    );
    agent.stand_still();
    for (pod, log) in logs.iter_mut().enumerate() {
        (1..LAST_LINES).for_each(|line| log.line(&format!("{pod} {line}")));
    }
    logs.drain(..).for_each(ContainerLog::remove);
    assert!(output::files(&place.path("pods")).is_empty(), "no name is left");
    agent.go_on();
    agent.wait_until_delivered(20 * LAST_LINES as u64);
    agent.eventually(
        || "no file is open".to_owned(),
        |agent| agent.metrics().contains("spillway_container_log_open_files 0").then_some(()),
    );
    agent.stop();
    let mut lines: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for line in output::lines_below(&place.path("out")) {
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        let (pod, line) = event["message"].as_str().unwrap().split_once(' ').unwrap();
        assert_eq!(event["_spillway"]["origin"]["pod"], format!("short-{pod}"));
        lines.entry(pod.to_owned()).or_default().push(line.parse().unwrap());
    }
    assert_eq!(lines.len(), 20);
    for (pod, lines) in lines {
        assert!(lines.iter().copied().eq(0..LAST_LINES), "pod {pod}: every line once, in order");
    }
}

/// However fast the agent is: pods of which it has taken the first word go while the next ones come.
#[test]
fn pods_that_come_and_go_as_fast_as_the_agent_goes_on_lose_no_line_and_leave_nothing_open() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let mut agent = place.start();
    let mut alive: VecDeque<(usize, ContainerLog)> = VecDeque::new();
    let short_lived = short_lived();
    let begun = Instant::now();
    let mut written = 0;
    for number in 0..short_lived + AT_A_TIME {
        if number < short_lived {
            let mut log = ContainerLog::create(&place.path("pods"), &format!("short-{number}"), "main");
            log.line(&format!("pod {number} begins"));
            alive.push_back((number, log));
            written += 1;
        }
        if number >= AT_A_TIME {
            let (number, mut log) = alive.pop_front().unwrap();
            // Its last word, and its folder goes at once.
            log.line(&format!("pod {number} ends"));
            log.remove();
            written += 1;
        }
        if (number + 1) % AT_A_TIME == 0 {
            agent.wait_until("the last words of those that went", |status| {
                status["pipelines"][0]["acceptedEvents"].as_u64() >= Some(written)
            });
        }
    }
    let rate = short_lived as f64 / begun.elapsed().as_secs_f64();
    println!("{short_lived} pods came and went, {rate:.0} a second");
    agent.wait_until_delivered(2 * short_lived as u64);
    agent.eventually(
        || "no file is open".to_owned(),
        |agent| agent.metrics().contains("spillway_container_log_open_files 0").then_some(()),
    );
    agent.stop();
    let counts = output::count_by(&output::lines_below(&place.path("out")), "message");
    assert_eq!(counts.len(), 2 * short_lived, "each pod has said two lines");
    assert!(counts.values().all(|count| *count == 1), "each line came once");
}

/// Returns how many pods come and go: `SPILLWAY_SHORT_LIVED`, for a figure of a longer run, or a thousand.
fn short_lived() -> usize {
    std::env::var("SPILLWAY_SHORT_LIVED").ok().and_then(|number| number.parse().ok()).unwrap_or(1000)
}

#[test]
fn an_origin_says_who_wrote_a_line() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let mut log = ContainerLog::create(&place.path("pods"), "tool", "main");
    log.line("say \"hi\"\tand \\ bye");
    let mut agent = place.start();
    agent.wait_until_delivered(1);
    agent.stop();
    let line: serde_json::Value = serde_json::from_str(&output::lines_below(&place.path("out"))[0]).unwrap();
    assert_eq!(line["message"], "say \"hi\"\tand \\ bye");
    assert_eq!(line["stream"], "stdout");
    let origin = &line["_spillway"]["origin"];
    assert_eq!(origin["namespace"], "default");
    assert_eq!(origin["pod"], "tool");
    assert_eq!(origin["container"], "main");
    assert_eq!(origin["node"], "node-1");
}

/// A pipeline over the namespaces of tier `prod`, and one of a namespace that may use the same destination.
const OF_THE_CLUSTER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: fab12, labels: {tier: prod}}
---
apiVersion: v1
kind: Namespace
metadata: {name: lab, labels: {tier: test}}
---
apiVersion: spillway.dev/v1alpha1
kind: ClusterBackend
metadata: {name: archive}
spec:
  allowedNamespaces: {selector: {matchLabels: {tier: prod}}}
  type: Filesystem
  filesystem: {file: '{namespace}/{pipeline}.ndjson'}
---
apiVersion: spillway.dev/v1alpha1
kind: ClusterMonitoringPipeline
metadata: {name: every-log}
spec:
  namespaceSelector: {matchLabels: {tier: prod}}
  inputs: [{name: logs, type: ContainerLogs}]
  routes: [{name: all, backendRefs: [{name: archive}]}]
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: own, namespace: fab12}
spec:
  inputs: [{name: logs, type: ContainerLogs}]
  routes: [{name: all, backendRefs: [{kind: ClusterBackend, name: archive}]}]
";

#[test]
fn a_pipeline_of_the_cluster_reads_the_namespaces_it_selects() {
    let place = Place::new(OF_THE_CLUSTER);
    let mut logs = ["fab12", "lab", "unknown"].map(|namespace| {
        let mut log = ContainerLog::create_in(&place.path("pods"), namespace, "tool", "main");
        (0..10).for_each(|n| log.line(&format!("{namespace} {n}")));
        log
    });
    let mut agent = place.start();
    agent.wait_until_delivered(10);
    let below = |folder: &str| output::count_by(&output::lines_below(&place.path("out").join(folder)), "message");
    let namespaces = |folder: &str| {
        let words = below(folder).into_keys().map(|line| line.split(' ').next().unwrap_or_default().to_owned());
        words.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!((below("_cluster").len(), below("fab12").len()), (10, 10));
    assert_eq!((namespaces("_cluster"), namespaces("fab12")), (["fab12".into()].into(), ["fab12".into()].into()));

    // A namespace is labelled: its logs are read, and nothing else begins anew.
    place.write_manifests(&OF_THE_CLUSTER.replace("tier: test", "tier: prod"));
    agent.wait_until("the other namespace", |status| {
        let pipelines = status["pipelines"].as_array().cloned().unwrap_or_default();
        pipelines.iter().any(|pipeline| pipeline["name"] == "every-log" && pipeline["acceptedEvents"] == 20)
    });
    logs[1].line("lab 10");
    agent.wait_until("a line of it", |status| {
        let pipelines = status["pipelines"].as_array().cloned().unwrap_or_default();
        pipelines.iter().any(|pipeline| pipeline["name"] == "every-log" && pipeline["acceptedEvents"] == 21)
    });
    agent.wait_until_delivered(10);
    agent.stop();
    assert_eq!(namespaces("_cluster"), ["fab12".to_owned(), "lab".to_owned()].into());
    assert!(below("_cluster").values().all(|count| *count == 1), "no line twice");
    assert_eq!(below("fab12").len(), 10);
}
