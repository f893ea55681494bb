//! The objects of a large cluster, as they are created.

use serde_json::{Value, json};

/// The namespace of the operator.
pub const OWN: &str = "spillway-system";

/// Pipelines of one namespace.
pub const PIPELINES_EACH: usize = 10;

/// How many there are.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Nodes, each with an agent.
    pub agents: usize,
    /// Pipelines, but for the one of the cluster.
    pub pipelines: usize,
    /// Pods, but for the agents'.
    pub pods: usize,
}

/// The one pipeline that every node runs.
pub const EVERYWHERE: &str = "/apis/spillway.dev/v1alpha1/clustermonitoringpipelines/everywhere";

/// Where it is watched.
pub const WATCH_EVERYWHERE: &str =
    "/apis/spillway.dev/v1alpha1/clustermonitoringpipelines?fieldSelector=metadata.name%3Deverywhere";

/// Where all other pipelines are watched.
pub const WATCH_PIPELINES: &str = "/apis/spillway.dev/v1alpha1/monitoringpipelines";

/// Where last good versions are watched.
pub const WATCH_KEPT: &str = "/apis/apps/v1/controllerrevisions";

/// Where the Lease is watched.
pub const WATCH_LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/spillway-system/leases";

impl Size {
    fn namespaces(self) -> usize {
        self.pipelines.div_ceil(PIPELINES_EACH)
    }

    /// Returns the namespaces.
    pub fn all_namespaces(self) -> impl Iterator<Item = (String, Value)> {
        (0..self.namespaces()).map(|number| {
            let labels = json!({"tier": if number % 2 == 0 { "prod" } else { "test" }});
            let metadata = json!({"name": format!("team-{number}"), "labels": labels});
            ("/api/v1/namespaces".to_owned(), json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
        })
    }

    /// Returns the nodes.
    pub fn nodes(self) -> impl Iterator<Item = (String, Value)> {
        (0..self.agents).map(|number| {
            let metadata = json!({"name": node(number)});
            ("/api/v1/nodes".to_owned(), json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata}))
        })
    }

    /// Returns the pods of agents, then those of others.
    pub fn all_pods(self) -> impl Iterator<Item = (String, Value)> {
        let agents = (0..self.agents).map(|number| pod(OWN, &agent(number), "spillway-agent", (number, "agent")));
        let others = (0..self.pods).map(move |number| {
            let namespace = format!("team-{}", number % self.namespaces());
            let app = format!("p{}", number / self.namespaces() % PIPELINES_EACH);
            pod(&namespace, &format!("pod-{number}"), "default", (number % self.agents, &app))
        });
        agents.chain(others)
    }

    /// Returns the destinations and pipelines.
    pub fn ours(self) -> impl Iterator<Item = (String, Value)> {
        let everywhere = [
            ours(
                "ClusterBackend",
                "",
                "lake",
                &json!({"type": "Blackhole", "blackhole": {}, "allowedNamespaces": {"selector": {}}}),
            ),
            ours("ClusterMonitoringPipeline", "", "everywhere", &everywhere(300)),
        ];
        let backends = (0..self.namespaces()).map(|number| {
            ours("Backend", &format!("team-{number}"), "archive", &json!({"type": "Filesystem", "filesystem": {}}))
        });
        let pipelines = (0..self.pipelines).map(|number| {
            let (namespace, app) = (format!("team-{}", number / PIPELINES_EACH), format!("p{}", number % PIPELINES_EACH));
            let spec = json!({
                "inputs": [{"name": "logs", "type": "ContainerLogs", "containerLogs": {"podSelector": {"matchLabels": {"app": app}}}}],
                "routes": [
                    {"name": "errors", "match": "event.level == \"error\" || event.status >= 500", "backendRefs": [{"name": "archive"}]},
                    {"name": "all", "backendRefs": [{"kind": "ClusterBackend", "name": "lake"}]},
                ],
            });
            ours("MonitoringPipeline", &namespace, &app, &spec)
        });
        everywhere.into_iter().chain(backends).chain(pipelines)
    }
}

/// Returns the spec of the pipeline that every node runs, which drains for so many seconds: what an edit changes.
pub fn everywhere(drain_seconds: usize) -> Value {
    json!({
        "drainSeconds": drain_seconds,
        "namespaceSelector": {},
        "inputs": [{"name": "logs", "type": "ContainerLogs", "containerLogs": {"podSelector": {}}}],
        "routes": [{"name": "all", "backendRefs": [{"kind": "ClusterBackend", "name": "lake"}]}],
    })
}

/// Returns the name of a node.
pub fn node(number: usize) -> String {
    format!("node-{number}")
}

/// Returns the name of the pod of its agent.
pub fn agent(number: usize) -> String {
    format!("agent-{number}")
}

fn pod(namespace: &str, name: &str, account: &str, (on, app): (usize, &str)) -> (String, Value) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app, "team": namespace}},
        "spec": {
            "nodeName": node(on), "serviceAccountName": account,
            "containers": [{"name": "main", "image": "none"}],
        },
    });
    (format!("/api/v1/namespaces/{namespace}/pods"), pod)
}

fn ours(kind: &str, namespace: &str, name: &str, spec: &Value) -> (String, Value) {
    let plural = format!("{}s", kind.to_lowercase());
    let base = "/apis/spillway.dev/v1alpha1";
    let path = if namespace.is_empty() {
        format!("{base}/{plural}")
    } else {
        format!("{base}/namespaces/{namespace}/{plural}")
    };
    let object = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    (path, object)
}
