//! Events that real pods send to the door of the agents, with the manifests and the commands of `docs/how-to/send-events.md` as
//! they stand there. Only names change: of the namespace, and of a pod for each node.
//!
//! Pods find the Service by its name. The network of this cluster enforces no policy of networks: of that of the chart is
//! looked at whether it admits the port of the door, and not whether it stops anybody.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use spillway_tests::cluster::image::{self, Image};
use spillway_tests::cluster::layout::{NODES, kubeconfig};
use spillway_tests::servers::tools;
use spillway_tests::{cluster, eventually, output};
use tokio::time::Instant;

use crate::ground::{Ground, NOBODY, writer};
use crate::release::{Release, run_in};

/// The document.
const DOCUMENT: &str = include_str!("../../../docs/how-to/send-events.md");
/// The image that it has a pod run: here a program that waits, and what the command of the document needs.
const IMAGE: &str = "registry.example.test/etcher:1";
/// Its namespace.
const NAMESPACE: &str = "fab12";
/// What it has the pod show.
const TOKEN: &str = "/var/run/spillway/token";
/// How many events each pod sends.
const EVENTS: usize = 5;
/// How old the token of a pod is that nobody was told of and that is no longer taken for a new one.
const NEW_FOR: Duration = Duration::from_secs(60);

#[test]
fn pods_send_events_as_documented_to_the_agent_of_their_node_and_their_origin_is_that_of_their_token() {
    let release = Release::take();
    let (ground, other) = (Ground::new("door"), Ground::new("stranger"));
    load_image();
    [&ground, &other].iter().for_each(|ground| give_authority(ground));
    ground.apply(&block("yaml", "kind: MonitoringPipeline").replace(NAMESPACE, &ground.name));
    for node in &NODES {
        start(&ground, &pod_on(node.name), "etcher", node.name);
    }
    start(&ground, "bystander", "other", NODES[0].name);
    start(&other, "stranger", "etcher", NODES[0].name);
    for ground in [&ground, &other] {
        ground.kubectl(&["wait", "--for=condition=Ready", "pods", "--all", "--timeout=90s"]);
    }
    let begun = Instant::now();
    ground.kubectl(&["wait", "--for=condition=Ready", "monitoringpipeline/jobs", "--timeout=90s"]);
    let command = block("sh", "curl --cacert");
    NODES.iter().for_each(|node| assert_sent(&release, &ground, node.name, &command));
    assert_refused(&release, &ground, &command);
    // The operator has told of no pod of its namespace. That there is none to tell of is believed when it answers a minute
    // after the token was made; others have the release meanwhile.
    let (status, code) = send(&other, "stranger", &command);
    assert!(matches!((status, &*code), (503, "pod-untold") | (403, "pod")), "{status} {code}");
    drop(release);
    eventually("a minute", || (begun.elapsed() > NEW_FOR).then_some(()));
    let release = Release::take();
    // It answers since there is something to tell: a pod that the pipeline takes now.
    ground.kubectl(&["label", "pod", "bystander", "app=etcher", "--overwrite"]);
    eventually("an event of a pod with other labels", || (send(&ground, "bystander", &command).0 == 202).then_some(()));
    assert_eq!(send(&other, "stranger", &command), (403, "pod".to_owned()));
    let lines = || NODES.map(|node| lines_on(&node, &ground).len());
    eventually("all events in files", || (lines().iter().sum::<usize>() > NODES.len() * EVENTS).then_some(()));
    assert_eq!(lines(), [EVENTS + 1, EVENTS]);
    assert_admitted(&release);
}

/// Sends from the pod of a node: its agent counts the events and has them in files on this node, and each says who sent it.
fn assert_sent(release: &Release, ground: &Ground, node: &str, command: &str) {
    let (pod, agent) = (pod_on(node), release.agent_on(node));
    let accepted = || release.counted(&agent, "spillway_door_accepted_events_total", &[]).unwrap();
    let before = accepted();
    for event in 0..EVENTS {
        // What a body says of its origin is of no account.
        let lie = json!({"origin": {"namespace": "kube-system", "pod": "root", "node": "elsewhere", "labels": {"app": "root"}}});
        let command = command.replace("\"etch-7\"", &format!("\"{pod}-{event}\",\"_spillway\":{lie}"));
        // A new pod is told of within a second.
        let answer =
            eventually("an answer", || Some(send(ground, &pod, &command)).filter(|(status, _)| *status != 503));
        assert_eq!(answer.0, 202, "{answer:?}");
    }
    assert_eq!(accepted(), before + EVENTS as u64, "{agent}");
    let place = NODES.iter().find(|known| known.name == node).unwrap();
    let lines = eventually("the events in files of the node", || {
        Some(lines_on(place, ground)).filter(|lines| lines.len() >= EVENTS)
    });
    let mut jobs: Vec<String> = Vec::new();
    for line in lines {
        let event: Value = serde_json::from_str(&line).unwrap();
        let origin = &event["_spillway"]["origin"];
        let said = [&origin["namespace"], &origin["pod"], &origin["node"], &origin["source"], &origin["labels"]["app"]];
        assert_eq!(said, [&*ground.name, &*pod, node, "http", "etcher"], "{line}");
        assert_eq!(line.matches("_spillway").count(), 1, "{line}");
        jobs.push(event["job"].as_str().unwrap().to_owned());
    }
    jobs.sort();
    assert_eq!(jobs, (0..EVENTS).map(|event| format!("{pod}-{event}")).collect::<Vec<_>>());
}

/// Asserts who is refused, and as what.
fn assert_refused(release: &Release, ground: &Ground, command: &str) {
    let (pod, agent) = (pod_on(NODES[0].name), release.agent_on(NODES[0].name));
    let refused = |pod: &str, command: &str, status: u16, code: &str| {
        assert_eq!(send(ground, pod, command), (status, code.to_owned()), "{command}");
    };
    let turned_back = |reason: &str| {
        release.counted(&agent, "spillway_door_turned_back_total", &[&format!("reason=\"{reason}\"")]).unwrap()
    };
    let before = turned_back("token-missing");
    let lines: Vec<&str> = command.lines().filter(|line| !line.contains("Authorization")).collect();
    assert_eq!(lines.len() + 1, command.lines().count());
    refused(&pod, &lines.join("\n"), 401, "token-missing");
    assert_eq!(turned_back("token-missing"), before + 1);
    // The token that it has for the API server.
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    assert!(command.contains(TOKEN));
    refused(&pod, &command.replace(TOKEN, token), 401, "audience");
    // Its own token, at the agent of the other node: the Service does not lead there.
    let address = release.address(&release.agent_on(NODES[1].name));
    refused(&pod, &command.replace("curl ", &format!("curl --connect-to ::{address}:8411 ")), 403, "pod");
    // No pipeline takes a pod with its labels.
    refused("bystander", command, 422, "no_pipeline");
}

/// Asserts that the Service leads to the agent of a pod's own node, and that the policy of the chart lets every pod through.
fn assert_admitted(release: &Release) {
    let get =
        |object: &str| -> Value { serde_json::from_str(&release.kubectl(&["get", object, "-o", "json"])).unwrap() };
    let service = get("service/spillway-agent");
    assert_eq!(service["spec"]["internalTrafficPolicy"], "Local");
    let set = get("daemonset/spillway-agent");
    let ports = set["spec"]["template"]["spec"]["containers"][0]["ports"].as_array().unwrap();
    let door = ports.iter().find(|port| port["containerPort"] == 8411).expect("the port of the door");
    let policy = get("networkpolicy/spillway-agent");
    assert_eq!(policy["spec"]["podSelector"], set["spec"]["selector"]);
    let admits = |rule: &&Value| {
        let ports = rule["ports"].as_array().into_iter().flatten();
        rule["from"].is_null()
            && ports.into_iter().any(|port| port["port"] == door["name"] && port["protocol"] == "TCP")
    };
    assert_eq!(policy["spec"]["ingress"].as_array().unwrap().iter().filter(admits).count(), 1, "{policy}");
}

/// Returns the one block of the document that is of this language and has this text.
fn block(language: &str, text: &str) -> String {
    let begin = format!("```{language}\n");
    let blocks = DOCUMENT.split(&begin).skip(1).filter_map(|rest| rest.split("```").next());
    let found: Vec<&str> = blocks.filter(|block| block.contains(text)).collect();
    assert_eq!(found.len(), 1, "blocks with {text:?}");
    found[0].to_owned()
}

/// Gives both nodes the image of the document's pod.
pub(crate) fn load_image() {
    let folder = tempfile::tempdir().unwrap();
    let beside = &["/bin/sh", "/bin/cat", "/usr/bin/curl"];
    image::load(&Image { name: IMAGE.to_owned(), program: writer(folder.path()), user: NOBODY, beside }).unwrap();
}

/// Runs the commands of the document that give a namespace the certificate of the authority.
fn give_authority(ground: &Ground) {
    let commands = block("sh", "kubectl create configmap").replace(NAMESPACE, &ground.name);
    let (folder, kubectl) = (tempfile::tempdir().unwrap(), cluster::kubectl_command().unwrap());
    let programs = Path::new(kubectl.get_program()).parent().unwrap().to_owned();
    let path = std::env::join_paths([programs, "/usr/bin".into(), "/bin".into()]).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-ec", &commands]).current_dir(folder.path()).env("PATH", path).env("KUBECONFIG", kubeconfig());
    tools::run(&mut shell).unwrap();
}

/// Starts the document's pod on a node.
fn start(ground: &Ground, name: &str, app: &str, node: &str) {
    let mut pod = block("yaml", "kind: Pod").replace(NAMESPACE, &ground.name);
    assert!(pod.contains(&format!("image: {IMAGE}\n")), "{pod}");
    for (text, other) in [
        ("metadata: {name: etcher,", format!("metadata: {{name: {name},")),
        ("labels: {app: etcher}", format!("labels: {{app: {app}}}")),
        ("spec:\n  containers:", format!("spec:\n  nodeName: {node}\n  containers:")),
    ] {
        assert_eq!(pod.matches(text).count(), 1, "{text:?} in {pod}");
        pod = pod.replace(text, &other);
    }
    ground.apply(&pod);
}

fn pod_on(node: &str) -> String {
    format!("etcher-on-{node}")
}

/// Has a pod run the document's command, and returns the status of the answer and, where it refuses, its code.
fn send(ground: &Ground, pod: &str, command: &str) -> (u16, String) {
    let (ended, said) = run_in(&ground.name, pod, &["sh", "-c", &command.replacen("curl ", "curl -sSi -m 20 ", 1)]);
    let status = said.lines().next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let body: Value =
        said.rsplit("\r\n\r\n").next().and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default();
    assert!(status.is_some(), "curl in {pod} ended with {ended}: {said}");
    (status.unwrap(), body["code"].as_str().unwrap_or_default().to_owned())
}

fn lines_on(node: &cluster::layout::Node, ground: &Ground) -> Vec<String> {
    output::lines_below(&node.var_lib().join("spillway/out").join(&ground.name))
}
