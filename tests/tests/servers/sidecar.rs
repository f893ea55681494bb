//! A sidecar with the tokens of its pod, from a real API server: its configuration from the operator, its events to backends of
//! its own and to the agent of its node, and what becomes of them at the end of the pod.
//!
//! There is no kubelet: the pod is an object with the mark of one that was given a sidecar, and the sidecar a process of this machine.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use spillway_tests::agent::{Agent, program};
use spillway_tests::operator::Replica;
use spillway_tests::receiver::{Mode, Receiver};
use spillway_tests::{eventually, output};

use crate::door::{Door, token};
use crate::operator::world::{BACKEND, NODE, World};

/// What opens the platform's destination.
const CANARY: &str = "platform-canary-hunter2";
/// The same in base64, as Secrets are served.
const ENCODED: &str = "cGxhdGZvcm0tY2FuYXJ5LWh1bnRlcjI=";

#[test]
fn a_sidecar_runs_what_its_pod_asked_for_and_holds_nothing_of_the_platform() {
    let Some(world) = World::start("a_sidecar_runs_what_its_pod_asked_for_and_holds_nothing_of_the_platform") else {
        return;
    };
    let (own, lake) = (Receiver::start(), Receiver::start());
    let stage = Stage::prepare(world, &own, &lake);
    let replica = stage.world.replica("first");
    let mut operator = replica.start();
    operator.wait_until_leading();
    let mut door = Door::open(&stage.world, &replica);
    door.agent.wait_for_line("operator answers");
    stage.world.wait_for("Programmed", "True");
    let mut sidecar = stage.sidecar("etcher", &replica, &door);

    // Each route to where it belongs, as events of the pod.
    (1..=3).for_each(|n| accepted(&mut sidecar, n));
    let own_lines = eventually("events at its own backend", || Some(own.lines()).filter(|lines| lines.len() == 3));
    let lake_lines = eventually("events at the platform's", || Some(lake.lines()).filter(|lines| lines.len() == 2));
    stage.world.wait_for_lines(&mut door.agent, 3);
    for line in own_lines.iter().chain(&lake_lines).chain(&stage.world.lines()) {
        let event: Value = serde_json::from_str(line).unwrap();
        let origin = &event["_spillway"]["origin"];
        let said = [&origin["namespace"], &origin["pod"], &origin["node"], &origin["labels"]["app"]];
        assert_eq!(said, ["fab12", "etcher", NODE, "etcher"], "{line}");
    }
    assert_eq!(numbers(&lake_lines), [2, 3], "the conditions of its routes were asked once");
    stage.nothing_of_the_platform_is_in_the_pod();

    // An edit reaches it without a restart, and who is not selected any more is told so.
    let other = Stage::pipeline().replace("{}", "{podSelector: {matchLabels: {app: washer}}}");
    stage.world.apply(&other);
    refused(&mut sidecar, 422, "no_pipeline");
    stage.world.apply(&Stage::pipeline());
    accepted(&mut sidecar, 4);

    // A pod without a sidecar is served nothing, whatever it shows; nor is one of another namespace served this one's.
    for (pod, namespace) in [("washer", "fab12"), ("hidden", "other")] {
        let mut stranger = stage.sidecar_of((pod, namespace), &replica, &door);
        let line = stranger.wait_for_line("no configuration from the operator");
        assert!(line["error"].as_str().unwrap().contains("answers 403"), "{line}");
        stranger.kill();
    }

    // At the end of the pod its backend hangs: the agent of the node takes what is held, and delivers it.
    own.mode(Mode::Hang);
    (5..=8).for_each(|n| accepted(&mut sidecar, n));
    sidecar.signal(Signal::TERM);
    assert!(sidecar.wait().success());
    own.mode(Mode::Take);
    eventually("what was held at the end", || (numbers(&own.lines()).last() == Some(&8)).then_some(()));
    assert_eq!(numbers(&own.lines()), (1..=8).collect::<Vec<_>>(), "each once");
    eventually("the rest at the platform's", || (numbers(&lake.lines()) == (2..=8).collect::<Vec<_>>()).then_some(()));

    // Its token is not over, and worth nothing when the pod is gone.
    stage.world.api.must(&["delete", "pod", "etcher", "-n", "fab12", "--grace-period=0", "--force"], "");
    let mut late = stage.sidecar_as_mounted("etcher", &replica, &door);
    let line = late.wait_for_line("no configuration from the operator");
    assert!(line["error"].as_str().unwrap().contains("answers 403"), "{line}");
    late.kill();
    door.agent.stop();
    operator.stop();
}

/// The world with two destinations.
struct Stage {
    world: World,
}

impl Stage {
    fn prepare(world: World, own: &Receiver, lake: &Receiver) -> Self {
        for namespace in ["fab12", "other"] {
            world.api.must(&["create", "serviceaccount", "default", "-n", namespace], "");
        }
        world.pod("washer", "fab12");
        // As the webhook leaves one; who writes the mark alone has none.
        world.api.must(&["delete", "pod", "etcher", "-n", "fab12", "--grace-period=0", "--force"], "");
        let marks = json!({"spillway.dev/inject": "jobs", "spillway.dev/injected": "jobs"});
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "etcher", "namespace": "fab12", "labels": {"app": "etcher"}, "annotations": marks},
            "spec": {"nodeName": NODE, "serviceAccountName": "default",
                "initContainers": [{"name": "spillway", "image": "none", "restartPolicy": "Always"}],
                "containers": [{"name": "main", "image": "none"}]}});
        world.apply(&pod.to_string());
        for mark in ["spillway.dev/inject=jobs", "spillway.dev/injected=jobs"] {
            world.api.must(&["annotate", "pod", "washer", "-n", "fab12", mark], "");
        }
        let secret = ["create", "secret", "generic", "lake", "-n", "spillway-system"];
        world.api.must(&[&secret[..], &[&format!("--from-literal=token={CANARY}")]].concat(), "");
        world.apply(BACKEND);
        let http = |url: &str| json!({"type": "HTTP", "http": {"url": url}});
        let mut shared = http(&lake.url);
        shared["http"]["auth"] = json!({"bearer": {"tokenSecretRef": {"name": "lake", "key": "token"}}});
        shared["secretNamespace"] = json!("spillway-system");
        shared["allowedNamespaces"] = json!({"selector": {}});
        for (kind, metadata, spec) in [
            ("Backend", json!({"name": "api", "namespace": "fab12"}), http(&own.url)),
            ("ClusterBackend", json!({"name": "lake"}), shared),
        ] {
            let object =
                json!({"apiVersion": "spillway.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
            world.apply(&object.to_string());
        }
        let stage = Self { world };
        stage.world.apply(&Stage::pipeline());
        stage
    }

    fn pipeline() -> String {
        "apiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {name: jobs, namespace: fab12}\nspec:\n  \
         inputs: [{name: pushed, type: Events, events: {}}]\n  routes:\n  \
         - {name: own, backendRefs: [{name: api}]}\n  \
         - {name: shared, match: event.n > 1, backendRefs: [{kind: ClusterBackend, name: lake}]}\n  \
         - {name: files, match: event.n < 4, backendRefs: [{name: archive}]}\n"
            .to_owned()
    }

    fn folder(&self, pod: &str) -> PathBuf {
        self.world.folder.join(format!("pod-{pod}"))
    }

    fn sidecar(&self, pod: &str, replica: &Replica, door: &Door) -> Agent {
        self.sidecar_of((pod, "fab12"), replica, door)
    }

    /// Starts the sidecar of a pod with what a kubelet would mount.
    fn sidecar_of(&self, (pod, namespace): (&str, &str), replica: &Replica, door: &Door) -> Agent {
        fs::create_dir_all(self.folder(pod)).unwrap();
        for (file, audience) in [("operator", "spillway"), ("node-agent", "spillway-agent")] {
            fs::write(self.folder(pod).join(file), token(&self.world, pod, namespace, audience)).unwrap();
        }
        fs::copy(self.world.folder.join("ca.crt"), self.folder(pod).join("ca.crt")).unwrap();
        self.sidecar_as_mounted(pod, replica, door)
    }

    /// The same with what was mounted before; its flags are those that the webhook gives.
    fn sidecar_as_mounted(&self, pod: &str, replica: &Replica, door: &Door) -> Agent {
        let mut command = Command::new(program("spillway-agent"));
        command.current_dir(self.folder(pod)).args(["run", "--operator", &replica.url(), "--operator-ca", "ca.crt"]);
        command.args(["--operator-token", "operator", "--node-agent", &format!("https://{}", door.address)]);
        command.args(["--node-agent-token", "node-agent", "--data-dir", "data", "--data-bytes-max", "214748364"]);
        command.args(["--pod-logs=off", "--http=127.0.0.1:0", "--admin=off", "--node-name", NODE]);
        // What a test listens at is nothing for tenants else.
        command.args(["--allow-destinations", "127.0.0.1", "--log-format=json", "--log-level=trace"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut agent = Agent::spawn(command);
        let ready = agent.wait_for_line("ready");
        ready["http"].as_str().unwrap().clone_into(&mut agent.http);
        agent
    }

    /// Looks through everything that the sidecar of `etcher` has.
    fn nothing_of_the_platform_is_in_the_pod(&self) {
        // What a kubelet mounts is not what the operator serves: a token names the issuer of the cluster.
        let files = output::files(&self.folder("etcher").join("data"));
        assert!(files.iter().any(|file| file.ends_with("configuration.json")), "{files:?}");
        for file in &files {
            let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
            let forbidden = [CANARY, ENCODED, "\"lake\\\"", "ClusterBackend lake", "spillway-system"];
            assert_eq!(forbidden.iter().find(|word| text.contains(**word)), None, "in {}", file.display());
        }
    }
}

/// Posts an event until it is taken: a sidecar that has just started is not told of pipelines yet.
fn accepted(sidecar: &mut Agent, n: u64) {
    let body = format!("{{\"n\":{n}}}");
    let told = || format!("event {n} is taken");
    sidecar.eventually(told, |agent| (agent.post(body.as_bytes(), &[]).status == 202).then_some(()));
}

/// Posts until it is refused so.
fn refused(sidecar: &mut Agent, status: u16, code: &str) {
    let told = || format!("{status} {code}");
    sidecar.eventually(told, |agent| {
        let answer = agent.post(b"{\"n\":0}", &[]);
        (answer.status == status && answer.json()["code"] == code).then_some(())
    });
}

/// Returns the numbers of events, in order.
fn numbers(lines: &[String]) -> Vec<u64> {
    let number = |line: &String| serde_json::from_str::<Value>(line).unwrap()["n"].as_u64();
    let mut numbers: Vec<u64> = lines.iter().filter_map(number).filter(|n| *n > 0).collect();
    numbers.sort_unstable();
    numbers
}
