//! Pods with sidecars, with the manifests of `docs/how-to/sidecars.md` as they stand there: only the namespace and the address of
//! the backend change.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use spillway_tests::cluster::layout::NODES;
use spillway_tests::receiver::Mode;
use spillway_tests::{cluster, eventually, output};

use crate::door::load_image;
use crate::ground::Ground;
use crate::release::{Release, run_in};

/// The document.
const DOCUMENT: &str = include_str!("../../../docs/how-to/sidecars.md");
/// Its namespace.
const NAMESPACE: &str = "fab12";
/// Where it sends.
const URL: &str = "https://api.fab12.example.test/events";
/// The image that it has pods run.
const IMAGE: &str = "registry.example.test/etcher:1";
/// How many pods its Job has.
const PODS: usize = 6;
/// How many events each of them sends.
const EVENTS: u64 = 5;

#[test]
fn jobs_with_sidecars_complete_and_every_event_is_delivered_once() {
    let (release, ground) = (Release::take(), Ground::new("sidecars"));
    prepare(&release, &ground);
    ground.apply(&block("kind: Job").replace(NAMESPACE, &ground.name));
    ground.kubectl(&["wait", "--for=condition=Complete", "job/etch", "--timeout=240s"]);
    let (pods, ends): (Vec<String>, Vec<String>) = ended_pods(&ground).into_iter().unzip();
    println!("{}", ends.join("\n"));
    assert_eq!(pods.len(), PODS);
    let all = PODS * EVENTS as usize;
    // What a sidecar does not deliver in its last second, the agent of its node does.
    eventually("every event at the backend", || (ground.receiver.lines().len() >= all).then_some(()));
    assert_each_once(&pods, &ground.receiver.lines());
    let files =
        || NODES.iter().flat_map(|node| output::lines_below(&node.var_lib().join("spillway/out").join(&ground.name)));
    eventually("every event in files of the nodes", || (files().count() >= all).then_some(()));
    assert_each_once(&pods, &files().collect::<Vec<_>>());
}

#[test]
fn what_pods_took_while_their_backend_was_down_arrives_once_although_they_were_deleted() {
    let (release, ground) = (Release::take(), Ground::new("deleted"));
    prepare(&release, &ground);
    ground.receiver.mode(Mode::Hang);
    let names: Vec<String> = (0..4).map(|number| format!("etcher-{number}")).collect();
    names.iter().for_each(|name| ground.apply(&pod(name).to_string()));
    ground.kubectl(&["wait", "--for=condition=Ready", "pods", "--all", "--timeout=120s"]);
    for name in &names {
        let event = format!(r#"{{\"job\":\"{name}\",\"step\":$n}}"#);
        let script = format!(
            "for n in 1 2 3 4 5; do curl -sS --fail --retry 60 --retry-delay 1 --retry-all-errors --data \"{event}\" \
             \"$SPILLWAY_URL/v1/events\"; done"
        );
        let (code, said) = run_in(&ground.name, name, &["sh", "-ec", &script]);
        assert_eq!(code, 0, "{said}");
        assert_eq!(said.matches(r#"{"accepted":1}"#).count() as u64, EVENTS, "{said}");
    }
    ground.kubectl(&["delete", "pods", "--all", "--timeout=90s"]);
    assert_eq!(ground.receiver.lines(), Vec::<String>::new());
    ground.receiver.mode(Mode::Take);
    let all = names.len() * EVENTS as usize;
    eventually("every event at the backend", || (ground.receiver.lines().len() >= all).then_some(()));
    assert_each_once(&names, &ground.receiver.lines());
}

/// Turns injection on and applies the pipeline of the document; waits until pods are given sidecars for it.
fn prepare(release: &Release, ground: &Ground) {
    load_image();
    release.upgrade("injection.enabled=true");
    ground
        .apply(&block("kind: MonitoringPipeline").replace(URL, &ground.receiver.url).replace(NAMESPACE, &ground.name));
    eventually("a sidecar for a pod that asks", || {
        let mut command = cluster::kubectl_command().unwrap();
        command.args(["create", "-n", &ground.name, "--dry-run=server", "-o", "json", "-f", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(pod("tried").to_string().as_bytes()).unwrap();
        let made: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).ok()?;
        made["spec"]["initContainers"].get(0).map(drop)
    });
}

/// Returns a pod that asks for the pipeline, and waits.
fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": {"spillway.dev/inject": "jobs"}},
        "spec": {"terminationGracePeriodSeconds": 10, "containers": [{"name": "main", "image": IMAGE}]}})
}

/// Returns the pods of the Job, of which every container has ended well, and when these did.
fn ended_pods(ground: &Ground) -> Vec<(String, String)> {
    let pods: Value =
        serde_json::from_str(&ground.kubectl(&["get", "pods", "-l", "job-name=etch", "-o", "json"])).unwrap();
    let ended = |pod: &Value| {
        let status = &pod["status"];
        assert_eq!(status["phase"], "Succeeded", "{status}");
        let of = |list: &str| status[list][0]["state"]["terminated"].clone();
        let (main, sidecar) = (of("containerStatuses"), of("initContainerStatuses"));
        assert_eq!((&main["exitCode"], &sidecar["exitCode"]), (&json!(0), &json!(0)), "{status}");
        let ends = format!("the application ended at {}, its sidecar at {}", main["finishedAt"], sidecar["finishedAt"]);
        (pod["metadata"]["name"].as_str().unwrap().to_owned(), ends)
    };
    pods["items"].as_array().unwrap().iter().map(ended).collect()
}

/// Asserts that each pod sent each of its events, under its own name, and that each is there once.
fn assert_each_once(pods: &[String], lines: &[String]) {
    let mut times: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for line in lines {
        let event: Value = serde_json::from_str(line).unwrap();
        let (job, pod) = (event["job"].as_str().unwrap(), event["_spillway"]["origin"]["pod"].as_str().unwrap());
        assert_eq!(job, pod, "{line}");
        *times.entry((job.to_owned(), event["step"].as_u64().unwrap())).or_default() += 1;
    }
    let all = pods.iter().flat_map(|pod| (1..=EVENTS).map(move |step| ((pod.clone(), step), 1)));
    assert_eq!(times, all.collect());
}

/// Returns the one YAML block of the document that has this text.
fn block(text: &str) -> String {
    let blocks = DOCUMENT.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let found: Vec<&str> = blocks.filter(|block| block.contains(text)).collect();
    assert_eq!(found.len(), 1, "blocks with {text:?}");
    found[0].to_owned()
}
