//! The rules of rendering, each by a world of its own.

use serde_json::{Value, json};
use spillway_crds::served::{LOGS_MARK, PodFacts, TokenKeys};

use super::*;
use crate::reason::Reason;
use crate::world::{Change, LastGood, Manifest, SecretData};
use spillway_crds::kinds::Kind;

mod random;
mod sidecars;
mod slices;
mod versions;

/// A world and its renderer.
struct Stage {
    world: World,
    renderer: Renderer,
    holding: Holding,
    second: i64,
}

pub(crate) fn key(label: &str) -> ObjectKey {
    ObjectKey::of_label(label).unwrap()
}

impl Default for Stage {
    fn default() -> Self {
        let renderer = Renderer::new(Tickets::new(b"of the test"));
        Self { world: World::default(), renderer, holding: Holding::new(), second: 0 }
    }
}

impl Stage {
    fn of(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut stage = Self::default();
        stage.apply(changes);
        stage
    }

    fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Rendered {
        changes.into_iter().for_each(|change| self.world.apply(change));
        let now = Timestamp::from_second(1_800_000_000 + self.second).unwrap();
        let touched = self.world.take_touched();
        self.renderer.render(&self.world, touched, self.holding.clone(), now)
    }

    /// Keeps every last good version that is to be kept.
    fn keep(&mut self) {
        let kept: Vec<(ObjectKey, Arc<LastGood>)> =
            self.renderer.verdicts().filter_map(|(key, verdict)| Some((key.clone(), verdict.keep.clone()?))).collect();
        for (key, good) in kept {
            self.world.apply(Change::LastGood(key, Some(good)));
        }
        self.apply([]);
    }

    /// Puts another text under an object, which keeps its last good version.
    fn edit(&mut self, change: Change) -> Rendered {
        let Change::Object(key, Some(manifest)) = change else { panic!("an object") };
        let last_good = self.world.object_of(&key).and_then(|known| known.last_good.clone());
        self.apply([Change::Object(key, Some(Manifest { last_good, ..manifest }))])
    }

    fn verdict(&self, label: &str) -> &Verdict {
        self.renderer.verdict(&key(label)).unwrap()
    }

    fn slice(&self, node: &str) -> &Arc<Slice> {
        &self.renderer.slices()[node]
    }

    /// The labels of what a node is served.
    fn served(&self, node: &str) -> Vec<String> {
        self.slice(node).objects.keys().map(ToString::to_string).collect()
    }

    /// What a node is served of an object.
    fn text(&self, node: &str, name: &str) -> Value {
        let manifests = self.slice(node).configuration.manifests.iter();
        let mut parsed = manifests.map(|text| serde_json::from_str::<Value>(text).unwrap());
        parsed.find(|text| text["metadata"]["name"] == name).unwrap_or_default()
    }
}

fn object(kind: Kind, (namespace, name): (&str, &str), generation: i64, spec: &Value) -> Change {
    let mut metadata = json!({"name": name, "generation": generation});
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    let text = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": kind.name(), "metadata": metadata, "spec": spec});
    let manifest = Manifest {
        uid: format!("{namespace}/{name}").into(),
        generation,
        text: text.to_string().into(),
        last_good: None,
    };
    Change::Object(ObjectKey::new(kind, namespace, name), Some(manifest))
}

pub(crate) fn gone(label: &str) -> Change {
    Change::Object(ObjectKey::of_label(label).unwrap(), None)
}

/// A pipeline over the logs of pods with the label `app`, to a Backend of its namespace.
pub(crate) fn pipeline(namespace: &str, name: &str, app: &str, backend: &str) -> Change {
    versioned(namespace, name, 1, (app, backend))
}

fn versioned(namespace: &str, name: &str, generation: i64, (app, backend): (&str, &str)) -> Change {
    let spec = json!({
        "inputs": [{"name": "logs", "type": "ContainerLogs", "containerLogs": {"podSelector": {"matchLabels": {"app": app}}}}],
        "routes": [{"name": "all", "backendRefs": [{"name": backend}]}],
    });
    object(Kind::MonitoringPipeline, (namespace, name), generation, &spec)
}

/// A pipeline that takes what is pushed, to a destination of the cluster.
fn granted(namespace: &str, name: &str, backend: &str) -> Change {
    let spec = json!({
        "inputs": [{"name": "pushed", "type": "Events"}],
        "routes": [{"name": "all", "backendRefs": [{"kind": "ClusterBackend", "name": backend}]}],
    });
    object(Kind::MonitoringPipeline, (namespace, name), 1, &spec)
}

/// A pipeline of the cluster over every log of namespaces with the label `tier`.
fn over_tier(name: &str, tier: &str, backend: &str) -> Change {
    let spec = json!({
        "namespaceSelector": {"matchLabels": {"tier": tier}},
        "inputs": [{"name": "logs", "type": "ContainerLogs"}],
        "routes": [{"name": "all", "backendRefs": [{"kind": "ClusterBackend", "name": backend}]}],
    });
    object(Kind::ClusterMonitoringPipeline, ("", name), 1, &spec)
}

pub(crate) fn stdout(namespace: &str, name: &str) -> Change {
    object(Kind::Backend, (namespace, name), 1, &json!({"type": "Stdout"}))
}

/// A destination that names the key `token` of a Secret.
fn http(namespace: &str, name: &str, generation: i64, secret: &str) -> Change {
    object(Kind::Backend, (namespace, name), generation, &http_spec(secret))
}

fn http_spec(secret: &str) -> Value {
    let auth = json!({"bearer": {"tokenSecretRef": {"name": secret, "key": "token"}}});
    json!({"type": "HTTP", "http": {"url": "https://api.example.test/", "auth": auth}})
}

/// A destination of the cluster that grants namespaces with the label `tier`, with a Secret of `spillway-system`.
fn lake(generation: i64, tier: &str) -> Change {
    let mut spec = http_spec("lake");
    spec["secretNamespace"] = json!("spillway-system");
    spec["allowedNamespaces"] = json!({"selector": {"matchLabels": {"tier": tier}}});
    object(Kind::ClusterBackend, ("", "lake"), generation, &spec)
}

pub(crate) fn namespace(name: &str, tier: &str) -> Change {
    let labels = [("tier".to_owned(), tier.to_owned()), ("owner".to_owned(), name.to_owned())];
    Change::Namespace(name.into(), Some(labels.into()))
}

pub(crate) fn pod(namespace: &str, name: &str, app: &str, node: &str) -> Change {
    let facts = PodFacts {
        uid: format!("{namespace}-{name}").into(),
        namespace: namespace.into(),
        name: name.into(),
        labels: [("app", app)].into(),
        ..PodFacts::default()
    };
    let uid = facts.uid.clone();
    let node = node.into();
    let pod =
        Pod { facts: Arc::new(facts), node, service_account: "default".into(), uid: uid.clone(), ..Pod::default() };
    Change::Pod(uid, Some(pod))
}

fn ended(namespace: &str, name: &str) -> Change {
    Change::Pod(format!("{namespace}-{name}").into(), None)
}

pub(crate) fn node(name: &str) -> Change {
    Change::Node(name.into(), Some(true))
}

fn secret(namespace: &str, name: &str, version: &str) -> Change {
    let values = [("token".to_owned(), b"hunter2".to_vec()), ("other".to_owned(), b"swordfish".to_vec())];
    let data = SecretData::of(version, values, &["token".to_owned()].into());
    Change::Secret((namespace.into(), name.into()), Some(data))
}
