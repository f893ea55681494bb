//! The operator and the agent against a real API server: from `kubectl apply` to a line in a file, and what status says.
//!
//! There is no kubelet: nodes and pods are objects that the test makes, and the tokens that agents show are those of the API
//! server itself, bound to these pods. The operator acts with the rights of the chart alone.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use spillway_tests::agent::{Agent, program};
use spillway_tests::cluster::package::PACKAGE;
use spillway_tests::operator::Replica;
use spillway_tests::output;
use spillway_tests::servers::kube_api::KubeApi;
use spillway_tests::servers::skip;

/// The namespace of the operator.
const OWN: &str = "spillway-system";

const NODE: &str = "node-1";

#[test]
fn an_applied_pipeline_runs_and_its_status_tells_the_truth() {
    let Some(programs) = PACKAGE.installed() else {
        let why = (PACKAGE.hindrance)(&PACKAGE).unwrap_or_else(|| "Kubernetes is not built".to_owned());
        return skip("an_applied_pipeline_runs_and_its_status_tells_the_truth", &why);
    };
    let folder = tempfile::tempdir().unwrap();
    let world = World { api: KubeApi::start(&programs, folder.path()).unwrap(), folder: folder.path().to_owned() };
    world.prepare();
    let rights = world.api.kubeconfig_of(OWN, "spillway-controller").unwrap();
    let replica = Replica::new(&rights, "first");
    let mut operator = replica.start();
    operator.wait_until_leading();
    let mut agent = world.agent(&replica);
    agent.wait_for_line("operator answers");

    // In the wrong order: the pipeline waits for its Backend, and says for which.
    world.apply(&pipeline(""));
    world.wait_for("Ready", "False");
    assert_eq!(world.condition("ResolvedRefs")["reason"], "BackendNotFound");
    world.apply(BACKEND);
    world.wait_for("Ready", "True");
    world.write("etcher", "fab12", "hello");
    world.write("hidden", "other", "of another tenant");
    wait_for_lines(&mut agent, &world, 1);
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
    wait_for_lines(&mut agent, &world, 2);

    // Without operator and API server, and over its own SIGKILL, the agent goes on with what it was given last.
    operator.kill();
    agent.kill();
    let mut agent = world.agent(&replica);
    world.write("etcher", "fab12", "without an operator");
    wait_for_lines(&mut agent, &world, 3);

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

const BACKEND: &str = "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {name: archive, namespace: fab12}\n\
                       spec: {type: Filesystem, filesystem: {}}\n";

fn pipeline(condition: &str) -> String {
    format!(
        "apiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {{name: jobs, namespace: fab12}}\nspec:\n  \
         inputs:\n  - {{name: logs, type: ContainerLogs, containerLogs: {{podSelector: {{matchLabels: {{app: etcher}}}}, \
         startAt: Beginning}}}}\n  routes:\n  - {{name: all, {condition}backendRefs: [{{name: archive}}]}}\n"
    )
}

/// An API server with one node, and the folders of its agent.
struct World {
    api: KubeApi,
    folder: PathBuf,
}

impl World {
    fn prepare(&self) {
        let charts = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("charts/kustomize");
        self.api.must(&["apply", "--server-side", "-k", &charts.display().to_string()], "");
        // None runs here, and where its Service leads nobody answers: a pause at each apply.
        self.api.must(&["delete", "validatingwebhookconfigurations", "--all"], "");
        for namespace in ["fab12", "other"] {
            self.api.must(&["create", "namespace", namespace], "");
        }
        self.api.must(
            &["apply", "-f", "-"],
            &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}).to_string(),
        );
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": "",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        self.api
            .must(&["patch", "node", NODE, "--subresource", "status", "--type", "merge", "-p", &ready.to_string()], "");
        for (name, namespace) in [("agent-1", OWN), ("etcher", "fab12"), ("hidden", "other")] {
            let account = if namespace == OWN { "spillway-agent" } else { "default" };
            let pod = json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "labels": {"app": "etcher"}},
                "spec": {"nodeName": NODE, "serviceAccountName": account, "containers": [{"name": "main", "image": "none"}]}});
            self.api.must(&["apply", "-f", "-"], &pod.to_string());
        }
    }

    /// Starts the agent of the node with what a kubelet would mount into it.
    fn agent(&self, replica: &Replica) -> Agent {
        let token = ["create", "token", "spillway-agent", "-n", OWN, "--audience", "spillway"];
        let bound = ["--bound-object-kind", "Pod", "--bound-object-name", "agent-1"];
        fs::write(self.folder.join("token"), self.api.must(&[&token[..], &bound[..]].concat(), "").trim()).unwrap();
        let ca = ["get", "configmap", "spillway-ca", "-n", OWN, "-o", r"jsonpath={.data.ca\.crt}"];
        fs::write(self.folder.join("ca.crt"), self.api.must(&ca, "")).unwrap();
        let key = ["get", "secret", "spillway-agent-state", "-n", OWN, "-o", "jsonpath={.data.key}"];
        fs::write(self.folder.join("key"), self.api.must(&key, "")).unwrap();
        let mut command = Command::new(program("spillway-agent"));
        command.current_dir(&self.folder).args(["run", "--operator", &replica.url(), "--operator-ca", "ca.crt"]);
        command.args([
            "--operator-token",
            "token",
            "--state-key",
            "key",
            "--data-dir",
            "data",
            "--filesystem-root",
            "out",
        ]);
        command.args([
            "--pod-logs",
            "pods",
            "--http",
            "off",
            "--admin",
            "off",
            "--node-name",
            NODE,
            "--log-format",
            "json",
        ]);
        fs::create_dir_all(self.folder.join("pods")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Agent::spawn(command)
    }

    fn apply(&self, manifest: &str) {
        self.api.must(&["apply", "-f", "-"], manifest);
    }

    fn wait_for(&self, condition: &str, status: &str) {
        let generation = self.pipeline()["metadata"]["generation"].clone();
        let observed = format!("--for=jsonpath={{.status.observedGeneration}}={generation}");
        self.api.must(&["wait", &observed, "monitoringpipeline/jobs", "-n", "fab12", "--timeout=60s"], "");
        let holds = format!("--for=condition={condition}={status}");
        self.api.must(&["wait", &holds, "monitoringpipeline/jobs", "-n", "fab12", "--timeout=60s"], "");
    }

    fn pipeline(&self) -> Value {
        serde_json::from_str(&self.api.must(&["get", "monitoringpipeline", "jobs", "-n", "fab12", "-o", "json"], ""))
            .unwrap()
    }

    fn condition(&self, name: &str) -> Value {
        let pipeline = self.pipeline();
        let conditions = pipeline["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == name).unwrap_or_default()
    }

    /// Writes a line into the log of a pod, as the kubelet's runtime does.
    fn write(&self, pod: &str, namespace: &str, text: &str) {
        let uid = self.api.must(&["get", "pod", pod, "-n", namespace, "-o", "jsonpath={.metadata.uid}"], "");
        let folder = self.folder.join(format!("pods/{namespace}_{pod}_{uid}/main"));
        fs::create_dir_all(&folder).unwrap();
        // Appended at once, as a runtime does: a file that is written anew is read anew.
        let mut file = fs::OpenOptions::new().create(true).append(true).open(folder.join("0.log")).unwrap();
        let length = file.metadata().unwrap().len();
        file.write_all(format!("2026-11-28T10:00:00.{length:09}Z stdout F {text}\n").as_bytes()).unwrap();
    }

    fn lines(&self) -> Vec<String> {
        output::lines_below(&self.folder.join("out"))
    }
}

fn wait_for_lines(agent: &mut Agent, world: &World, count: usize) {
    let deadline = tokio::time::Instant::now() + spillway_tests::PATIENCE;
    while world.lines().len() < count {
        assert!(tokio::time::Instant::now() < deadline, "{:?}; {:#?}", world.lines(), agent.seen);
        agent.moment(std::time::Duration::from_millis(100));
    }
}
