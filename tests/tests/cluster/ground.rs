//! A namespace with an agent on every node, as one test has it.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use spillway_tests::cluster;
use spillway_tests::cluster::image::{self, Image};
use spillway_tests::cluster::layout::HOST;
use spillway_tests::receiver::Receiver;
use spillway_tests::servers::tools;

/// The variable that names the agent's program, linked statically; set by `cargo xtask cluster test`.
const AGENT: &str = "SPILLWAY_STATIC_AGENT";

/// The user of images that say no other.
const NOBODY: u32 = 65_532;

/// What a test has of the cluster. Dropped, all of it goes.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The namespace.
    pub(crate) name: String,
    /// Where the agents deliver to.
    pub(crate) receiver: Receiver,
}

impl Ground {
    /// Puts the images on the nodes and starts an agent on each, for the container logs of the namespace.
    pub(crate) fn new(test: &str) -> Self {
        assert!(cluster::runs(), "no cluster runs: `cargo xtask cluster test` starts it");
        let receiver = Receiver::start_at(HOST);
        let ground = Self { name: format!("{test}-{}", std::process::id()), receiver };
        let folder = tempfile::tempdir().unwrap();
        let agent = std::env::var_os(AGENT).expect("the agent's program: `cargo xtask cluster test` names it");
        load("spillway.test/agent:test", agent.as_ref());
        load("spillway.test/write:test", &writer(folder.path()));
        ground.apply(&ground.with_agents());
        ground.wait_rolled_out("agent");
        ground
    }

    /// Applies manifests to the namespace.
    pub(crate) fn apply(&self, manifests: &str) {
        let mut command = cluster::kubectl_command().unwrap();
        command.args(["apply", "-n", &self.name, "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{manifests}");
    }

    /// Calls `kubectl` in the namespace.
    pub(crate) fn kubectl(&self, words: &[&str]) -> String {
        cluster::kubectl(&[&["-n", &self.name], words].concat()).unwrap()
    }

    /// Waits until a `DaemonSet` runs on both nodes.
    pub(crate) fn wait_rolled_out(&self, daemon_set: &str) {
        self.kubectl(&["rollout", "status", &format!("daemonset/{daemon_set}"), "--timeout=90s"]);
    }

    /// Starts pods on both nodes that write so many lines each, and stay.
    pub(crate) fn write_on_both_nodes(&self, name: &str, lines: u32) {
        self.apply(&format!(
            "{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: {name}}}, spec: {{
              selector: {{matchLabels: {{app: {name}}}}},
              template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [
                {{name: main, image: 'spillway.test/write:test', imagePullPolicy: Never, args: ['{lines}', stay]}}]}}}}}}}}"
        ));
        self.wait_rolled_out(name);
    }

    /// Returns (pod, node) of the pods of a label.
    pub(crate) fn pods(&self, label: &str) -> Vec<(String, String)> {
        let form = "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{\"\\n\"}{end}";
        let listed = self.kubectl(&["get", "pods", "-l", label, "-o", form]);
        let pair = |line: &str| line.split_once(' ').map(|(pod, node)| (pod.to_owned(), node.to_owned()));
        listed.lines().filter_map(pair).collect()
    }

    fn with_agents(&self) -> String {
        let (namespace, url) = (&self.name, &self.receiver.url);
        format!(
            "
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: manifests}}
data:
  all.yaml: |
    apiVersion: spillway.dev/v1alpha1
    kind: Backend
    metadata: {{name: receiver, namespace: {namespace}}}
    spec: {{type: HTTP, http: {{url: '{url}', format: NDJSON}}}}
    ---
    apiVersion: spillway.dev/v1alpha1
    kind: MonitoringPipeline
    metadata: {{name: logs, namespace: {namespace}}}
    spec:
      inputs: [{{name: logs, type: ContainerLogs, containerLogs: {{containers: [main]}}}}]
      routes: [{{name: everything, backendRefs: [{{name: receiver}}]}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: agent}}
spec:
  selector: {{matchLabels: {{app: agent}}}}
  template:
    metadata: {{labels: {{app: agent}}}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 10
      containers:
      - name: agent
        image: spillway.test/agent:test
        imagePullPolicy: Never
        args: [run, -f, /etc/spillway, --pod-logs, /var/log/pods, --data-dir, /var/lib/spillway]
        env: [{{name: SPILLWAY_NODE_NAME, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}]
        readinessProbe: {{exec: {{command: [/spillway-agent, status]}}, periodSeconds: 1}}
        securityContext:
          runAsUser: 0
          readOnlyRootFilesystem: true
          allowPrivilegeEscalation: false
          capabilities: {{drop: [ALL]}}
        volumeMounts:
        - {{name: manifests, mountPath: /etc/spillway}}
        - {{name: logs, mountPath: /var/log/pods, readOnly: true}}
        - {{name: data, mountPath: /var/lib/spillway}}
      volumes:
      - {{name: manifests, configMap: {{name: manifests}}}}
      - {{name: logs, hostPath: {{path: /var/log/pods}}}}
      - {{name: data, hostPath: {{path: /var/lib/spillway/{namespace}, type: DirectoryOrCreate}}}}
"
        )
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        cluster::kubectl(&["delete", "namespace", &self.name, "--timeout=60s"]).ok();
    }
}

fn load(name: &str, program: &Path) {
    image::load(&Image { name: name.to_owned(), program: program.to_owned(), user: NOBODY }).unwrap();
}

/// Builds what stands for an application.
fn writer(folder: &Path) -> std::path::PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/write.c");
    let program = folder.join("write");
    let mut compile = std::process::Command::new("cc");
    tools::run(compile.args(["-static", "-Os", "-s", "-o"]).args([&program, &source])).unwrap();
    program
}
