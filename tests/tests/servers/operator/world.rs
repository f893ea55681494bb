//! What the tests of the operator stand on: an API server with one node, pods on it, and the folders of its agent.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use spillway_tests::agent::{Agent, program};
use spillway_tests::operator::{Operator, Replica};
use spillway_tests::output;
use spillway_tests::servers::kube_api::KubeApi;

/// The namespace of the operator.
pub(crate) const OWN: &str = "spillway-system";

/// The node.
pub(crate) const NODE: &str = "node-1";

/// A destination of files.
pub(crate) const BACKEND: &str = "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {name: archive, namespace: fab12}\n\
                       spec: {type: Filesystem, filesystem: {}}\n";

/// A pipeline of the logs of the pods called `etcher`, into [`BACKEND`].
pub(crate) fn pipeline(condition: &str) -> String {
    pipeline_into(condition, "{name: archive}")
}

/// The same, into another destination.
pub(crate) fn pipeline_into(condition: &str, reference: &str) -> String {
    format!(
        "apiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {{name: jobs, namespace: fab12}}\nspec:\n  \
         inputs:\n  - {{name: logs, type: ContainerLogs, containerLogs: {{podSelector: {{matchLabels: {{app: etcher}}}}, \
         startAt: Beginning}}}}\n  routes:\n  - {{name: all, {condition}backendRefs: [{reference}]}}\n"
    )
}

/// An API server with one node, and the folders of its agent.
pub(crate) struct World {
    /// The API server.
    pub(crate) api: KubeApi,
    /// Where everything lies.
    pub(crate) folder: PathBuf,
}

impl World {
    /// Starts it with what the chart installs; `None`, with the reason printed for `test`, where that cannot be.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let api = KubeApi::of_test(test)?;
        let world = Self { folder: api.folder().to_owned(), api };
        world.prepare();
        Some(world)
    }

    /// Starts a replica of the operator and waits until it leads, then the agent that asks it.
    pub(crate) fn run(&self, replica: &Replica) -> (Operator, Agent) {
        let mut operator = replica.start();
        operator.wait_until_leading();
        let mut agent = self.agent(&replica.url());
        agent.wait_for_line("operator answers");
        (operator, agent)
    }

    /// Returns a replica of the operator with the rights that the chart gives it.
    pub(crate) fn replica(&self, identity: &str) -> Replica {
        Replica::new(&self.api.kubeconfig_of(OWN, "spillway-controller").unwrap(), identity)
    }

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
            self.pod(name, namespace);
        }
    }

    /// Makes a pod on the node; there is no kubelet that would run it.
    pub(crate) fn pod(&self, name: &str, namespace: &str) {
        let account = if namespace == OWN { "spillway-agent" } else { "default" };
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": "etcher"}},
            "spec": {"nodeName": NODE, "serviceAccountName": account, "containers": [{"name": "main", "image": "none"}]}});
        self.api.must(&["apply", "-f", "-"], &pod.to_string());
    }

    /// Starts the agent of the node with what a kubelet would mount into it; it asks at `url`.
    pub(crate) fn agent(&self, url: &str) -> Agent {
        self.mount();
        self.agent_as_mounted(url)
    }

    /// Mounts what a kubelet would.
    pub(crate) fn mount(&self) {
        let token = ["create", "token", "spillway-agent", "-n", OWN, "--audience", "spillway"];
        let bound = ["--bound-object-kind", "Pod", "--bound-object-name", "agent-1"];
        fs::write(self.folder.join("token"), self.api.must(&[&token[..], &bound[..]].concat(), "").trim()).unwrap();
        let ca = ["get", "configmap", "spillway-ca", "-n", OWN, "-o", r"jsonpath={.data.ca\.crt}"];
        fs::write(self.folder.join("ca.crt"), self.api.must(&ca, "")).unwrap();
        let key = ["get", "secret", "spillway-agent-state", "-n", OWN, "-o", "jsonpath={.data.key}"];
        fs::write(self.folder.join("key"), self.api.must(&key, "")).unwrap();
    }

    /// Starts it with what was mounted before: nobody is asked for anything.
    pub(crate) fn agent_as_mounted(&self, url: &str) -> Agent {
        self.agent_with(url, &[])
    }

    /// The same with more flags.
    pub(crate) fn agent_with(&self, url: &str, more: &[&str]) -> Agent {
        let mut command = Command::new(program("spillway-agent"));
        command.current_dir(&self.folder).args(["run", "--operator", url, "--operator-ca", "ca.crt"]);
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
        command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Agent::spawn(command)
    }

    pub(crate) fn apply(&self, manifest: &str) {
        self.api.must(&["apply", "-f", "-"], manifest);
    }

    pub(crate) fn wait_for(&self, condition: &str, status: &str) {
        let generation = self.pipeline()["metadata"]["generation"].clone();
        let observed = format!("--for=jsonpath={{.status.observedGeneration}}={generation}");
        self.api.must(&["wait", &observed, "monitoringpipeline/jobs", "-n", "fab12", "--timeout=60s"], "");
        let holds = format!("--for=condition={condition}={status}");
        self.api.must(&["wait", &holds, "monitoringpipeline/jobs", "-n", "fab12", "--timeout=60s"], "");
    }

    pub(crate) fn pipeline(&self) -> Value {
        serde_json::from_str(&self.api.must(&["get", "monitoringpipeline", "jobs", "-n", "fab12", "-o", "json"], ""))
            .unwrap()
    }

    pub(crate) fn condition(&self, name: &str) -> Value {
        let pipeline = self.pipeline();
        let conditions = pipeline["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == name).unwrap_or_default()
    }

    /// Returns the uid of a pod.
    pub(crate) fn uid(&self, pod: &str, namespace: &str) -> String {
        self.api.must(&["get", "pod", pod, "-n", namespace, "-o", "jsonpath={.metadata.uid}"], "")
    }

    /// Writes a line into the log of a pod, as the kubelet's runtime does.
    pub(crate) fn write(&self, pod: &str, namespace: &str, text: &str) {
        self.write_of(pod, namespace, &self.uid(pod, namespace), text);
    }

    /// The same without an API server.
    pub(crate) fn write_of(&self, pod: &str, namespace: &str, uid: &str, text: &str) {
        let place = self.log(pod, namespace, uid).metadata().unwrap().len();
        self.append(pod, namespace, uid, &format!("2026-11-28T10:00:00.{place:09}Z stdout F {text}\n"));
    }

    /// Appends whole lines to that log.
    pub(crate) fn append(&self, pod: &str, namespace: &str, uid: &str, lines: &str) {
        // At once, as a runtime does.
        self.log(pod, namespace, uid).write_all(lines.as_bytes()).unwrap();
    }

    fn log(&self, pod: &str, namespace: &str, uid: &str) -> File {
        let folder = self.folder.join(format!("pods/{namespace}_{pod}_{uid}/main"));
        fs::create_dir_all(&folder).unwrap();
        OpenOptions::new().create(true).append(true).open(folder.join("0.log")).unwrap()
    }

    /// Returns the names of the files of the output that hold `text`.
    pub(crate) fn files_with(&self, text: &str) -> Vec<String> {
        let files = output::files(&self.folder.join("out")).into_iter();
        let holds = |file: &PathBuf| fs::read_to_string(file).is_ok_and(|content| content.contains(text));
        files.filter(holds).map(|file| file.display().to_string()).collect()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        output::lines_below(&self.folder.join("out"))
    }

    /// Waits until at least `count` lines are in the files.
    pub(crate) fn wait_for_lines(&self, agent: &mut Agent, count: usize) {
        let told = || format!("{count} lines, only {:?}", self.lines());
        agent.eventually(told, |_| (self.lines().len() >= count).then_some(()));
    }
}
