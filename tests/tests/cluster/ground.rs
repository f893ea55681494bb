//! A namespace and a destination, as one test has them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use spillway_tests::cluster;
use spillway_tests::cluster::image::{self, Image};
use spillway_tests::cluster::layout::HOST;
use spillway_tests::receiver::Receiver;
use spillway_tests::servers::tools;

/// The agent's image, which `cargo xtask cluster test` puts on the nodes.
pub(crate) const AGENT: &str = concat!("registry.spillway.dev/spillway/agent:", env!("CARGO_PKG_VERSION"));

/// What stands for an application.
pub(crate) const WRITER: &str = "spillway.test/write:test";

/// How many lines an application writes.
pub(crate) const LINES: usize = 200;

/// What [`Ground::run_pipeline`] starts.
pub(crate) const PIPELINE: &str = "monitoringpipeline/logs";

/// The user of images that say no other.
pub(crate) const NOBODY: u32 = 65_532;

/// What a test has of the cluster. Dropped, all of it goes.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The namespace.
    pub(crate) name: String,
    /// Where the agents deliver to.
    pub(crate) receiver: Receiver,
}

impl Ground {
    /// Makes the namespace, with nothing in it.
    pub(crate) fn new(test: &str) -> Self {
        assert!(cluster::runs(), "no cluster runs: `cargo xtask cluster test` starts it");
        let receiver = Receiver::start_at(HOST);
        let ground = Self { name: format!("{test}-{}", std::process::id()), receiver };
        let folder = tempfile::tempdir().unwrap();
        let program = writer(folder.path());
        image::load(&Image { name: WRITER.to_owned(), program, user: NOBODY, beside: &[] }).unwrap();
        cluster::kubectl(&["create", "namespace", &ground.name]).unwrap();
        ground
    }

    /// Makes the namespace and starts an agent of its own on each node, for its container logs.
    pub(crate) fn with_agents(test: &str) -> Self {
        let ground = Self::new(test);
        ground.apply(&ground.agents());
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

    /// Starts a pipeline that takes every line of the namespace to the receiver and adds `site` to its origin; more is YAML of
    /// what containers it takes. Waits until it runs on every agent and data can flow.
    pub(crate) fn run_pipeline(&self, site: &str, more: &str) {
        let url = &self.receiver.url;
        self.apply(&format!(
            "
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {{name: logs}}
spec:
  origin: {{siteID: {site}}}
  inputs: [{{name: logs, type: ContainerLogs, containerLogs: {{containers: [main]{more}}}}}]
  routes: [{{name: everything, backendRefs: [{{name: receiver}}]}}]
---
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {{name: receiver}}
spec: {{type: HTTP, http: {{url: '{url}', format: NDJSON}}}}
"
        ));
        self.wait_ready();
    }

    /// Waits until the pipeline as it was applied last runs on every agent and data can flow.
    pub(crate) fn wait_ready(&self) {
        let generation = self.kubectl(&["get", PIPELINE, "-o", "jsonpath={.metadata.generation}"]);
        let observed = format!("--for=jsonpath={{.status.observedGeneration}}={generation}");
        self.kubectl(&["wait", &observed, PIPELINE, "--timeout=90s"]);
        self.kubectl(&["wait", "--for=condition=Ready", PIPELINE, "--timeout=90s"]);
    }

    /// Waits until a `DaemonSet` runs on both nodes.
    pub(crate) fn wait_rolled_out(&self, daemon_set: &str) {
        self.kubectl(&["rollout", "status", &format!("daemonset/{daemon_set}"), "--timeout=90s"]);
    }

    /// Starts pods on both nodes that write [`LINES`] each at once, and stay.
    pub(crate) fn write_on_both_nodes(&self, name: &str) {
        self.start_on_both_nodes(name, LINES, "stay");
    }

    /// Starts pods on both nodes that write [`LINES`] each in 20 seconds, and stay.
    pub(crate) fn write_slowly_on_both_nodes(&self, name: &str) {
        self.start_on_both_nodes(name, LINES, "paced");
    }

    /// Starts pods on both nodes that write so many lines as `tests/cluster/write.c` says.
    pub(crate) fn start_on_both_nodes(&self, name: &str, lines: usize, how: &str) {
        self.apply(&format!(
            "{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: {name}}}, spec: {{
              selector: {{matchLabels: {{app: {name}}}}},
              template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [
                {{name: main, image: '{WRITER}', imagePullPolicy: Never, args: ['{lines}', {how}]}}]}}}}}}}}"
        ));
        self.wait_rolled_out(name);
    }

    /// Returns (pod, node) of the pods of a label.
    pub(crate) fn pods(&self, label: &str) -> Vec<(String, String)> {
        self.pods_where(&["-l", label])
    }

    /// Returns (pod, node) of the pods for which these options hold.
    pub(crate) fn pods_where(&self, options: &[&str]) -> Vec<(String, String)> {
        let form = "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{\"\\n\"}{end}";
        let listed = self.kubectl(&[&["get", "pods", "-o", form], options].concat());
        let pair = |line: &str| line.split_once(' ').map(|(pod, node)| (pod.to_owned(), node.to_owned()));
        listed.lines().filter_map(pair).collect()
    }

    /// Asserts that each pod of these labels wrote each of its lines once, under its own name and node, and nobody else any.
    pub(crate) fn assert_each_once(&self, labels: &[&str]) {
        self.assert_each_of_once(&labels.iter().flat_map(|label| self.pods(label)).collect::<Vec<_>>(), LINES);
    }

    /// Asserts it of these (pod, node), each of which wrote so many lines.
    pub(crate) fn assert_each_of_once(&self, pods: &[(String, String)], lines: usize) {
        let mut times: BTreeMap<(String, String, String), u64> = BTreeMap::new();
        for line in self.receiver.lines() {
            let event: Value = serde_json::from_str(&line).unwrap();
            let origin = &event["_spillway"]["origin"];
            assert_eq!((origin["namespace"].as_str(), origin["container"].as_str()), (Some(&*self.name), Some("main")));
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let message = text(&event["message"]);
            let message = message.split_once(" at ").map_or(&*message, |(line, _)| line);
            *times.entry((text(&origin["pod"]), text(&origin["node"]), message.to_owned())).or_default() += 1;
        }
        for (pod, node) in pods {
            for line in 0..lines {
                let line = (pod.clone(), node.clone(), format!("line {line}"));
                let found = times.remove(&line);
                assert_eq!(found, Some(1), "{line:?}");
            }
        }
        assert!(times.is_empty(), "lines that nobody wrote: {times:?}");
    }

    fn agents(&self) -> String {
        let (namespace, url) = (&self.name, &self.receiver.url);
        format!(
            "
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
        image: {AGENT}
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
        // Nobody has another of its name, so nobody waits until it is gone.
        cluster::kubectl(&["delete", "namespace", &self.name, "--wait=false"]).ok();
    }
}

/// Builds what stands for an application.
pub(crate) fn writer(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/write.c");
    let program = folder.join("write");
    let mut compile = std::process::Command::new("cc");
    tools::run(compile.args(["-static", "-Os", "-s", "-o"]).args([&program, &source])).unwrap();
    program
}
