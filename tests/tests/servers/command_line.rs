//! `kubectl spillway` on a real API server, called by a real kubectl: what it says, and with which exit code.
//!
//! No operator and no kubelet run: statuses, nodes and pods are objects that the test writes.

use std::process::{Command, Output};

use serde_json::{Value, json};
use spillway_tests::agent::program;
use spillway_tests::helm::{NAMESPACE, root};
use spillway_tests::servers::kube_api::KubeApi;

#[test]
fn what_is_wrong_in_a_cluster_is_said_to_whoever_asks() {
    let Some(api) = KubeApi::of_test("what_is_wrong_in_a_cluster_is_said_to_whoever_asks") else { return };
    let ground = Ground { api };
    ground.prepare();
    ground.manifests_are_judged_where_they_stand();
    ground.a_tenant_sees_what_a_tenant_may_see();
    ground.status_is_a_table_with_an_exit_code();
    ground.a_trace_names_the_first_broken_step();
    ground.what_cannot_be_asked_is_told_apart();
}

struct Ground {
    api: KubeApi,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Ground {
    fn apply(&self, object: &Value) {
        self.api.must(&["apply", "-f", "-"], &object.to_string());
    }

    /// Calls `kubectl spillway` as a person does: kubectl finds the program on the path.
    fn spillway(&self, words: &[&str]) -> Said {
        let program = program("kubectl-spillway");
        let mut command = Command::new(self.api.kubectl_program());
        command.env("PATH", program.parent().unwrap()).env("KUBECONFIG", self.api.kubeconfig());
        let Output { status, stdout, stderr } = command.arg("spillway").args(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
    }

    #[track_caller]
    fn says(&self, words: &[&str], code: i32, parts: &[&str]) -> String {
        let said = self.spillway(words);
        assert_eq!(said.code, code, "{words:?}: {}{}", said.out, said.err);
        let text = said.out + &said.err;
        assert!(parts.iter().all(|part| text.contains(part)), "{words:?}: {text}");
        text
    }

    fn prepare(&self) {
        for kind in ["monitoringpipelines", "backends", "clustermonitoringpipelines", "clusterbackends"] {
            let file = root().join(format!("crds/{kind}.spillway.dev.yaml")).display().to_string();
            self.api.must(&["apply", "--server-side", "-f", &file], "");
        }
        self.api.must(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "");
        for namespace in ["fab12", "other", NAMESPACE] {
            self.api.must(&["create", "namespace", namespace], "");
        }
        self.apply(&backend("search"));
        self.apply(&pipeline("jobs", "search", ""));
    }

    fn manifests_are_judged_where_they_stand(&self) {
        self.says(&["validate", "-n", "fab12"], 0, &["1 pipeline, 1 backend, 0 errors, 0 warnings\n"]);
        self.apply(&pipeline("wrong", "serch", "origin.nope == \"x\""));
        let parts = [
            "error: MonitoringPipeline fab12/wrong: spec.routes[0].match: ",
            "did you mean `origin.node`?",
            "did you mean `search`?",
            "1 pipeline, 1 backend, 2 errors, 0 warnings\n",
        ];
        self.says(&["validate", "-n", "fab12"], 1, &parts);
        self.says(&["validate", "-n", "other"], 0, &["0 pipelines"]);
        let report: Value = serde_json::from_str(&self.spillway(&["validate", "-A", "-o", "json"]).out).unwrap();
        assert_eq!(report["errors"].as_array().unwrap().len(), 2, "{report}");
        // The same of a file, without a cluster.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.json").display().to_string();
        std::fs::write(&file, pipeline("wrong", "search", "origin.nope == \"x\"").to_string()).unwrap();
        let checked = self.says(&["check", "-f", &file], 1, &["a.json:1:", "did you mean `origin.node`?"]);
        assert_eq!(self.says(&["validate", "-f", &file], 1, &[]), checked);
        self.api.must(&["delete", "monitoringpipeline", "wrong", "-n", "fab12"], "");
    }

    fn a_tenant_sees_what_a_tenant_may_see(&self) {
        let role = ["create", "role", "ann", "-n", "fab12", "--verb", "get,list", "--resource"];
        self.api.must(&[&role[..], &["pods,backends.spillway.dev,monitoringpipelines.spillway.dev"]].concat(), "");
        self.api.must(&["create", "rolebinding", "ann", "-n", "fab12", "--role", "ann", "--user", "ann"], "");
        self.apply(&pipeline("of-cluster", "lake", ""));
        let patch = r#"[{"op": "add", "path": "/spec/routes/0/backendRefs/0/kind", "value": "ClusterBackend"}]"#;
        self.api.must(&["patch", "monitoringpipeline", "of-cluster", "-n", "fab12", "--type", "json", "-p", patch], "");
        let parts = ["warning: references to ClusterBackends are not judged: ", "0 errors"];
        self.says(&["validate", "-n", "fab12", "--as", "ann"], 0, &parts);
        self.says(&["validate", "-n", "fab12"], 1, &["ClusterBackend"]);
        self.says(&["validate", "-n", "other", "--as", "ann"], 2, &["error: ", "ann", "cannot list"]);
        self.api.must(&["delete", "monitoringpipeline", "of-cluster", "-n", "fab12"], "");
    }

    /// Writes what an operator would.
    fn set_status(&self, ready: &str, reason: &str, state: &str) {
        let condition = |(name, status, reason): (&str, &str, &str)| {
            json!({"type": name, "status": status, "reason": reason, "message": format!("{reason}, in words"),
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let conditions = [
            ("Ready", ready, reason),
            ("Accepted", "True", "Accepted"),
            ("ResolvedRefs", "True", "Resolved"),
            ("Programmed", "True", "Programmed"),
            ("DataFlowing", ready, reason),
        ];
        let status = json!({"status": {"observedGeneration": 1, "conditions": conditions.map(condition),
            "agents": {"desired": 2, "programmed": 2, "failing": 0},
            "backends": [{"route": "all", "kind": "Backend", "name": "search", "state": state}]}});
        let words =
            ["patch", "monitoringpipeline", "jobs", "-n", "fab12", "--subresource", "status", "--type", "merge", "-p"];
        self.api.must(&[&words[..], &[&status.to_string()]].concat(), "");
    }

    fn status_is_a_table_with_an_exit_code(&self) {
        self.says(
            &["status", "-n", "fab12"],
            1,
            &["jobs   Unknown   NotSeen", "no controller has looked at generation 1"],
        );
        self.set_status("True", "Ready", "Healthy");
        let parts = ["NAME   READY   REASON   AGENTS   BACKENDS\n", "jobs   True    Ready    2/2      1 healthy\n"];
        self.says(&["status", "-n", "fab12"], 0, &parts);
        self.says(&["status", "jobs", "-n", "fab12"], 0, &parts);
        self.says(&["status", "jbos", "-n", "fab12"], 2, &["there is no MonitoringPipeline fab12/jbos"]);
        self.says(&["status", "-n", "other"], 0, &["no pipeline\n"]);
        self.set_status("False", "BackendUnreachable", "Unreachable");
        let text = self.says(&["status", "-A"], 1, &["1 unreachable", "fab12/jobs: BackendUnreachable, in words"]);
        assert!(text.starts_with("NAMESPACE   NAME   READY"), "{text}");
        let report: Value = serde_json::from_str(&self.spillway(&["status", "-A", "-o", "json"]).out).unwrap();
        assert_eq!(report["pipelines"][0]["backends"][0]["state"], "Unreachable");
        // Who may list those of namespaces alone sees them, and is told that there may be others.
        let role = ["create", "clusterrole", "bob", "--verb", "list", "--resource", "monitoringpipelines.spillway.dev"];
        self.api.must(&role, "");
        self.api.must(&["create", "clusterrolebinding", "bob", "--clusterrole", "bob", "--user", "bob"], "");
        let said = self.spillway(&["status", "-A", "--as", "bob"]);
        assert_eq!((said.code, said.out), (1, text));
        assert!(said.err.starts_with("warning: pipelines of the cluster are not shown: "), "{}", said.err);
    }

    fn a_trace_names_the_first_broken_step(&self) {
        let trace = ["trace", "etcher-0", "-n", "fab12"];
        self.says(&trace, 1, &["BROKEN", "broken: pod: fab12/etcher-0 is not there\n"]);
        self.apply(&pod("etcher-0", "fab12", &json!({"app": "etcher"})));
        self.says(&trace, 1, &["broken: node: node-1 is not there\n"]);
        self.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}));
        self.set_ready("node", "node-1", "");
        self.says(&trace, 1, &["broken: agent: no agent runs on node-1"]);
        let labels = json!({"app.kubernetes.io/part-of": "spillway", "app.kubernetes.io/component": "agent"});
        self.apply(&pod("agent-1", NAMESPACE, &labels));
        self.says(&trace, 1, &["broken: agent: spillway-system/agent-1 is Pending and not ready"]);
        self.set_ready("pod", "agent-1", NAMESPACE);
        self.says(&trace, 1, &["broken: controller: no controller has led yet: there is no Lease"]);
        self.renew("2026-01-01T00:00:00.000000Z");
        self.says(
            &trace,
            1,
            &["broken: controller: no controller leads: the Lease spillway-system/spillway-controller"],
        );
        self.renew("2200-01-01T00:00:00.000000Z");
        self.says(&trace, 1, &["ok       controller", "broken: backend: route all to Backend search: not reached"]);
        self.set_status("True", "Ready", "Healthy");
        let parts = [
            "ok       selection     MonitoringPipeline fab12/jobs takes its logs\n",
            "nothing broken: lines of fab12/etcher-0",
        ];
        self.says(&trace, 0, &parts);
        // Who may not look at nodes and agents is told so, and all else.
        let parts =
            ["unknown  node", "unknown  agent", "unknown  controller", "nothing broken in what could be looked at"];
        self.says(&[&trace[..], &["--as", "ann"]].concat(), 0, &parts);
        self.api.must(&["label", "pod", "etcher-0", "-n", "fab12", "--overwrite", "app=web"], "");
        let parts = [
            "broken: selection: no pipeline takes its logs\n",
            "its podSelector asks for app=etcher, and there is app=web",
        ];
        self.says(&trace, 1, &parts);
        let report: Value = serde_json::from_str(&self.spillway(&[&trace[..], &["-o", "json"]].concat()).out).unwrap();
        assert_eq!(report["broken"]["step"], "selection");
        // Who may not look at pipelines of the cluster learns what those of the namespace do.
        let parts =
            ["broken: selection: no pipeline of namespace fab12 takes its logs; those of the cluster could not be"];
        self.says(&[&trace[..], &["--as", "ann"]].concat(), 1, &parts);
        self.says(&[&trace[..], &["--pipeline", "jobs"]].concat(), 1, &["broken: selection: pipeline jobs does not"]);
        let parts = ["error: there is no pipeline jbos, neither of namespace fab12 nor of the cluster\n"];
        self.says(&[&trace[..], &["--pipeline", "jbos"]].concat(), 2, &parts);
    }

    /// Writes the Lease of a controller that leads.
    fn renew(&self, at: &str) {
        self.apply(&json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "spillway-controller", "namespace": NAMESPACE},
            "spec": {"holderIdentity": "controller-a", "renewTime": at}}));
    }

    fn set_ready(&self, kind: &str, name: &str, namespace: &str) {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}).to_string();
        let mut words = vec!["patch", kind, name, "--subresource", "status", "--type", "merge", "-p", &ready];
        if !namespace.is_empty() {
            words.extend(["-n", namespace]);
        }
        self.api.must(&words, "");
    }

    fn what_cannot_be_asked_is_told_apart(&self) {
        self.says(&["status", "--context", "nowhere"], 2, &["error: the kubeconfig does not say which cluster"]);
        self.says(&["status", "--kubeconfig", "/nowhere"], 2, &["error: /nowhere is no kubeconfig"]);
        self.says(&["status", "--request-timeout", "soon"], 2, &["(1s, 2m, 3h)"]);
        self.says(&["status", "-n", "other", "--request-timeout=30s"], 0, &["no pipeline\n"]);
        self.says(&["status", "-n", "other", "--request-timeout=0"], 0, &["no pipeline\n"]);
        self.says(&["status", "--al"], 2, &["Usage: kubectl spillway status"]);
        self.says(
            &["--help"],
            0,
            &["Examples:", "kubectl spillway trace etcher-0 -n fab12", "--kubeconfig", "--context"],
        );
        self.says(&["completions", "bash"], 0, &["kubectl-spillway"]);
        self.says(&["man"], 0, &[".TH kubectl-spillway"]);
        for kind in ["monitoringpipelines", "clustermonitoringpipelines"] {
            self.api.must(&["delete", "crd", &format!("{kind}.spillway.dev"), "--wait=true"], "");
        }
        self.says(&["status", "-n", "fab12"], 2, &["the cluster has no monitoringpipelines: is Spillway installed?"]);
    }
}

fn backend(name: &str) -> Value {
    json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "Backend", "metadata": {"name": name, "namespace": "fab12"},
        "spec": {"type": "Stdout"}})
}

fn pipeline(name: &str, backend: &str, condition: &str) -> Value {
    let mut route = json!({"name": "all", "backendRefs": [{"name": backend}]});
    if !condition.is_empty() {
        route["match"] = json!(condition);
    }
    let logs = json!({"podSelector": {"matchLabels": {"app": "etcher"}}});
    json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "MonitoringPipeline", "metadata": {"name": name, "namespace": "fab12"},
        "spec": {"inputs": [{"name": "logs", "type": "ContainerLogs", "containerLogs": logs}], "routes": [route]}})
}

fn pod(name: &str, namespace: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "none"}]}})
}
